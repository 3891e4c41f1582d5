//! Small sealed objects: compressed, padded, encrypted whole under a key of their own.
//!
//! Layout: 8 bytes of magic, 1 byte audience, 32 bytes (salt, or HPKE's encapsulated key), then AES-256-GCM of
//! `u32 length of the rest without padding | zstd frame | zeros`, with the object's purpose as associated data.

use crate::error::{Error, Kind, Result};
use crate::seal::aead::{open_once, seal_once};
use crate::seal::compress::decompress_bounded;
use crate::seal::{KeySet, Secret, random};
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};

const MAGIC: &[u8; 8] = b"siltobj1";
const HEADER_BYTES: usize = 8 + 1 + 32;
const TAG_BYTES: usize = 16;

/// Who can open a small object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Audience {
    /// Everybody with a key, put-only ones included.
    Writers,
    /// Holders of a full key.
    Readers,
}

/// How large a sealed object of so many plain bytes can get.
pub const fn sealed_object_bytes_max(plain_bytes_max: u64) -> u64 {
    plain_bytes_max + plain_bytes_max / 64 + 4096
}

/// Compresses, pads and seals. `purpose` is authenticated: an object of one purpose does not open as another.
pub fn seal_object(keys: &KeySet, audience: Audience, purpose: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let failed = |why: &str| Error::new(Kind::Failed, "seal the", purpose).because(why.to_owned());
    let packed = zstd::bulk::compress(plain, 3).map_err(|error| failed("").because(error))?;
    let mut body = Vec::with_capacity(4 + packed.len() + packed.len() / 8 + 64);
    body.extend_from_slice(&u32::try_from(packed.len()).map_err(|_| failed("it is too large"))?.to_le_bytes());
    body.extend_from_slice(&packed);
    body.resize(padded(body.len()), 0);

    let mut out = Vec::with_capacity(HEADER_BYTES + body.len() + TAG_BYTES);
    out.extend_from_slice(MAGIC);
    match audience {
        Audience::Writers => {
            let salt: [u8; 32] = random()?;
            out.push(1);
            out.extend_from_slice(&salt);
            out.extend_from_slice(&seal_once(&object_key(keys.writers(), &salt), purpose, body));
        }
        Audience::Readers => {
            let (encapsulated, mut context) = hpke::setup_sender::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &OpModeS::Base,
                keys.public(),
                b"siltstone 2026 object for readers",
            )
            .map_err(|_| failed("the public key is unusable"))?;
            out.push(2);
            out.extend_from_slice(&encapsulated.to_bytes());
            let sealed = context.seal(&body, purpose.as_bytes()).map_err(|_| failed("encryption failed"))?;
            out.extend_from_slice(&sealed);
        }
    }
    Ok(out)
}

/// Opens what [`seal_object`] made. At most `plain_bytes_max` bytes come out; more is taken for an attack.
pub fn open_object(keys: &KeySet, purpose: &str, sealed: &[u8], plain_bytes_max: u64) -> Result<Vec<u8>> {
    let bad = |why: &str| Error::corrupt("open the", purpose, why);
    if sealed.len() < HEADER_BYTES + TAG_BYTES || &sealed[..8] != MAGIC {
        return Err(bad("it is not an object of siltstone, or it is truncated"));
    }
    let (head, rest) = sealed.split_at(HEADER_BYTES);
    let broken = "it was changed since it was written, or belongs to another repository";
    let body = match head[8] {
        1 => {
            let salt: [u8; 32] = head[9..].try_into().expect("the header's length is fixed");
            open_once(&object_key(keys.writers(), &salt), purpose, rest.to_vec()).ok_or_else(|| bad(broken))?
        }
        2 => {
            let encapsulated =
                <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(&head[9..]).map_err(|_| bad(broken))?;
            let mut context = hpke::setup_receiver::<AesGcm256, HkdfSha256, X25519HkdfSha256>(
                &OpModeR::Base,
                keys.private()?,
                &encapsulated,
                b"siltstone 2026 object for readers",
            )
            .map_err(|_| bad(broken))?;
            context.open(rest, purpose.as_bytes()).map_err(|_| bad(broken))?
        }
        _ => return Err(bad("it is sealed in a way that this version does not know").with_kind(Kind::Unsupported)),
    };
    let length = body.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let packed = length.and_then(|length| body.get(4..4 + length)).ok_or_else(|| bad("its length is wrong"))?;
    decompress_bounded(packed, plain_bytes_max).ok_or_else(|| bad("it does not decompress within its limits"))
}

fn object_key(writers: &Secret, salt: &[u8; 32]) -> Secret {
    let mut material = [0; 64];
    material[..32].copy_from_slice(&writers.0);
    material[32..].copy_from_slice(salt);
    Secret(blake3::derive_key("siltstone 2026 key of one object for writers", &material))
}

/// Small objects are padded to a multiple of 1/16 of their size at most, so that counts of what they list stay vague.
fn padded(bytes: usize) -> usize {
    let step = (bytes.max(256).next_power_of_two() / 32).max(64);
    bytes.next_multiple_of(step)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Power;

    #[test]
    fn objects_open_for_their_audience_and_purpose_only() {
        let full = KeySet::from_master(Secret([1; 32]));
        let put = KeySet::from_bundle(&full.to_bundle(Power::Put).unwrap()).unwrap();
        let other = KeySet::from_master(Secret([2; 32]));
        for (audience, put_reads) in [(Audience::Writers, true), (Audience::Readers, false)] {
            let sealed = seal_object(&put, audience, "index", b"some bytes").unwrap();
            assert_eq!(open_object(&full, "index", &sealed, 100).unwrap(), b"some bytes");
            assert_eq!(open_object(&put, "index", &sealed, 100).is_ok(), put_reads);
            assert!(open_object(&full, "snapshot", &sealed, 100).is_err());
            assert!(open_object(&other, "index", &sealed, 100).is_err());
            assert!(open_object(&full, "index", &sealed, 9).is_err(), "more than allowed");
            for at in 0..sealed.len() {
                let mut bent = sealed.clone();
                bent[at] ^= 1;
                assert!(open_object(&full, "index", &bent, 100).is_err(), "bit at {at}");
            }
        }
    }
}
