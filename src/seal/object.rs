//! Small sealed objects: compressed, padded, encrypted whole under a key of their own.
//!
//! Layout: magic (8 bytes), recipients (1 byte), key generation (`u32`), 32 bytes (a salt, or HPKE's encapsulated key), then AES-256-GCM
//! of `u32 length of the rest without padding | zstd frame | zeros`. What is before the 32 bytes is authenticated, and so is the
//! object's purpose.

use crate::error::{Error, Kind, Result};
use crate::seal::aead::{open_once, seal_once};
use crate::seal::compress::decompress_bounded;
use crate::seal::generation::check_generation;
use crate::seal::key_pair::ENCAPSULATED_BYTES;
use crate::seal::key_set::KEY_GENERATION;
use crate::seal::{KeySet, Secret, random};

const MAGIC: &[u8; 8] = b"siltobj1";
/// Magic, recipients, key generation.
const HEAD_BYTES: usize = 8 + 1 + 4;
const SALT_BYTES: usize = ENCAPSULATED_BYTES;
const TAG_BYTES: usize = 16;
const SNAPSHOTS_INFO: &[u8] = b"siltstone 2026 object for readers";

/// The holders of keys that can open a small object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// Everybody with a key, put-only ones included.
    Writers,
    /// Holders of keys that can read snapshots.
    SnapshotReaders,
}

impl Recipients {
    fn to_byte(self) -> u8 {
        match self {
            Recipients::Writers => 1,
            Recipients::SnapshotReaders => 2,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Recipients::Writers, Recipients::SnapshotReaders].into_iter().find(|recipients| recipients.to_byte() == byte)
    }
}

/// The largest sealed object that is read for this many plain bytes. Padding can add up to 1/16 to what zstd leaves: every object that
/// this program writes compresses, or is much smaller than it may be, so it stays below.
pub(crate) const fn sealed_object_bytes_max(plain_bytes_max: u64) -> u64 {
    plain_bytes_max + plain_bytes_max / 64 + 4096
}

/// Compresses, pads and seals. `purpose` is authenticated: an object of one purpose does not open as another.
pub fn seal_object(keys: &KeySet, recipients: Recipients, purpose: &str, plain: &[u8]) -> Result<Vec<u8>> {
    let failed = |why: &str| Error::new(Kind::Failed, "seal the", name_of(purpose)).because(why.to_owned());
    let packed = zstd::bulk::compress(plain, 3).map_err(|error| failed("").because(error))?;
    let mut body = Vec::with_capacity(4 + packed.len() + packed.len() / 8 + 64);
    body.extend_from_slice(&u32::try_from(packed.len()).map_err(|_| failed("it is too large"))?.to_le_bytes());
    body.extend_from_slice(&packed);
    body.resize(padded(body.len()), 0);

    let mut out = Vec::with_capacity(HEAD_BYTES + SALT_BYTES + body.len() + TAG_BYTES);
    out.extend_from_slice(MAGIC);
    out.push(recipients.to_byte());
    out.extend_from_slice(&KEY_GENERATION.to_le_bytes());
    let associated = associated_data(&out, purpose);
    let (salt, sealed) = match recipients {
        Recipients::Writers => {
            let salt: [u8; SALT_BYTES] = random()?;
            (salt, seal_once(&object_key(keys.writers(), &salt), &associated, body))
        }
        Recipients::SnapshotReaders => keys
            .snapshots()
            .seal(SNAPSHOTS_INFO, &associated, &body)
            .ok_or_else(|| failed("the public key is unusable"))?,
    };
    out.extend_from_slice(&salt);
    out.extend_from_slice(&sealed);
    Ok(out)
}

/// Opens what [`seal_object`] made. At most `plain_bytes_max` bytes come out; more is taken for an attack.
pub fn open_object(keys: &KeySet, purpose: &str, sealed: &[u8], plain_bytes_max: u64) -> Result<Vec<u8>> {
    let bad = |why: &str| Error::corrupt("open the", name_of(purpose), why);
    if sealed.len() < HEAD_BYTES + SALT_BYTES + TAG_BYTES || &sealed[..8] != MAGIC {
        return Err(bad("it is not an object of siltstone, or it is truncated"));
    }
    let (head, rest) = sealed.split_at(HEAD_BYTES);
    let (salt, rest) = rest.split_first_chunk::<SALT_BYTES>().expect("the length was checked");
    let recipients = Recipients::from_byte(head[8]).ok_or_else(|| {
        bad("it is sealed in a way that this version of silt does not know")
            .with_kind(Kind::Unsupported)
            .hint("use a newer version of silt")
    })?;
    check_generation(&head[9..], "open the", name_of(purpose))?;
    let associated = associated_data(head, purpose);
    let body = match recipients {
        Recipients::Writers => open_once(&object_key(keys.writers(), salt), &associated, rest.to_vec()),
        Recipients::SnapshotReaders if !keys.snapshots().can_open() => return Err(keys.refused("read")),
        Recipients::SnapshotReaders => keys.snapshots().open(SNAPSHOTS_INFO, &associated, salt, rest),
    };
    let body = body.ok_or_else(|| bad("it was changed since it was written, or belongs to another repository"))?;
    let length = body.first_chunk::<4>().map(|bytes| u32::from_le_bytes(*bytes) as usize);
    let packed = length.and_then(|length| body.get(4..4 + length)).ok_or_else(|| bad("its length is wrong"))?;
    decompress_bounded(packed, plain_bytes_max).ok_or_else(|| bad("it does not decompress within its limits"))
}

/// As [`seal_object`] for writers, with a signature that only a full key can make.
pub fn seal_signed_object(keys: &KeySet, purpose: &str, plain: &[u8]) -> Result<Vec<u8>> {
    seal_object(keys, Recipients::Writers, purpose, &keys.signing()?.sign(purpose, plain))
}

/// Opens what [`seal_signed_object`] made, and nothing that another key than a full one wrote.
pub(crate) fn open_signed_object(keys: &KeySet, purpose: &str, sealed: &[u8], plain_bytes_max: u64) -> Result<Vec<u8>> {
    let signed = open_object(keys, purpose, sealed, plain_bytes_max)?;
    keys.verifying().verify(purpose, &signed).map(<[u8]>::to_vec)
}

/// What people call an object of this purpose.
fn name_of(purpose: &str) -> &str {
    match purpose {
        "index" => "index object",
        "pending" => "pending object",
        other => other,
    }
}

fn associated_data(head: &[u8], purpose: &str) -> Vec<u8> {
    [head, purpose.as_bytes()].concat()
}

fn object_key(writers: &Secret, salt: &[u8; SALT_BYTES]) -> Secret {
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
    use crate::seal::KeyAccess;

    fn keys_of(full: &KeySet, access: KeyAccess) -> KeySet {
        KeySet::from_bundle(&full.to_bundle(access).unwrap()).unwrap()
    }

    #[test]
    fn objects_open_for_their_recipients_and_purpose_only() {
        let full = KeySet::from_master(Secret([1; 32]));
        let (put, list) = (keys_of(&full, KeyAccess::PutOnly), keys_of(&full, KeyAccess::List));
        let other = KeySet::from_master(Secret([2; 32]));
        for (recipients, put_reads) in [(Recipients::Writers, true), (Recipients::SnapshotReaders, false)] {
            let sealed = seal_object(&put, recipients, "index", b"some bytes").unwrap();
            for reader in [&full, &list] {
                assert_eq!(open_object(reader, "index", &sealed, 100).unwrap(), b"some bytes");
            }
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

    #[test]
    fn what_other_secrets_seal_is_called_by_its_generation() {
        let keys = KeySet::from_master(Secret([1; 32]));
        let mut sealed = seal_object(&keys, Recipients::Writers, "index", b"some bytes").unwrap();
        sealed[9] = 3;
        let error = open_object(&keys, "index", &sealed, 100).unwrap_err();
        assert!(error.is(Kind::Unsupported) && error.to_string().contains("generation 3"), "{error}");
    }

    #[test]
    fn only_a_full_key_writes_signed_objects_and_all_verify_them() {
        let full = KeySet::from_master(Secret([1; 32]));
        let put = keys_of(&full, KeyAccess::PutOnly);
        let sealed = seal_signed_object(&full, "settings", b"some bytes").unwrap();
        assert_eq!(open_signed_object(&put, "settings", &sealed, 200).unwrap(), b"some bytes");
        assert!(seal_signed_object(&put, "settings", b"some bytes").unwrap_err().is(Kind::Denied));
        let forged = seal_object(&put, Recipients::Writers, "settings", &[7; 100]).unwrap();
        assert!(open_signed_object(&full, "settings", &forged, 200).unwrap_err().is(Kind::Corrupt));
    }
}
