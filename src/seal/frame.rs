//! Frames: neighbouring chunks compressed together and sealed once under the key of their pack, checked before they go.
//!
//! Plain form of a frame: 1 byte method (0 stored, 1 zstd), 4 bytes length of the raw bytes, the payload. Sealed form:
//! AES-256-GCM of that, nonce = the frame's number in its pack, tag appended. A pack's random key is itself sealed to
//! the public key for packs of its kind (HPKE, RFC 9180) in the pack's first [`PACK_HEADER_BYTES`].

use crate::error::{Error, Kind, Result};
use crate::id::ChunkKind;
use crate::seal::aead::aead_key;
use crate::seal::compress::{Compression, Compressor};
use crate::seal::generation::check_generation;
use crate::seal::key_pair::ENCAPSULATED_BYTES;
use crate::seal::key_set::KEY_GENERATION;
use crate::seal::{KeySet, SECRET_BYTES, Secret};
use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};

const PACK_MAGIC: &[u8; 8] = b"siltpak1";
const PACK_INFO: &[u8] = b"siltstone 2026 key of a pack";
/// Magic and key generation, which are authenticated.
const PACK_HEAD_BYTES: usize = 8 + 4;
/// The head, the encapsulated key, the sealed pack key with its tag.
pub const PACK_HEADER_BYTES: usize = PACK_HEAD_BYTES + ENCAPSULATED_BYTES + SECRET_BYTES + TAG_BYTES;
const TAG_BYTES: usize = 16;
const FRAME_HEAD_BYTES: usize = 5;
/// What sealing adds to a frame that does not compress.
pub(crate) const SEAL_BYTES: usize = FRAME_HEAD_BYTES + TAG_BYTES;
/// Compression must save this part of the bytes, or they are stored as they are: 1/32.
const GAIN_SHIFT: u32 = 5;

/// The key of one pack. Numbers of frames are its nonces, so a writer must never use one twice.
pub struct FrameKey(LessSafeKey);

/// A fresh pack key and the pack's header, which holds it for the readers of such packs.
pub fn new_pack_key(keys: &KeySet, kind: ChunkKind) -> Result<(FrameKey, [u8; PACK_HEADER_BYTES])> {
    let failed = || Error::new(Kind::Failed, "make the key of a pack", "");
    let secret = Secret::random()?;
    let mut header = [0; PACK_HEADER_BYTES];
    header[..8].copy_from_slice(PACK_MAGIC);
    header[8..PACK_HEAD_BYTES].copy_from_slice(&KEY_GENERATION.to_le_bytes());
    let (head, rest) = header.split_at_mut(PACK_HEAD_BYTES);
    let (encapsulated, sealed) = keys.packs(kind).seal(PACK_INFO, head, &secret.0).ok_or_else(failed)?;
    rest[..ENCAPSULATED_BYTES].copy_from_slice(&encapsulated);
    rest[ENCAPSULATED_BYTES..].copy_from_slice(&sealed);
    Ok((FrameKey(aead_key(&secret)), header))
}

/// The key of a pack of this kind from its header; needs a full key.
pub fn open_pack_key(keys: &KeySet, kind: ChunkKind, header: &[u8]) -> Result<FrameKey> {
    let bad = |why: &str| Error::corrupt("read the header of the pack", "", why);
    let header = header.first_chunk::<PACK_HEADER_BYTES>().filter(|header| &header[..8] == PACK_MAGIC);
    let header = header.ok_or_else(|| bad("it is not a pack of siltstone"))?;
    let (head, rest) = header.split_at(PACK_HEAD_BYTES);
    // A writer meets no pack of another generation, so it stores again what a damaged one held.
    check_generation(&head[8..], "read the header of", "the pack").map_err(|error| error.with_kind(Kind::Corrupt))?;
    let pair = keys.packs(kind);
    if !pair.can_open() {
        return Err(keys.refused("read"));
    }
    let (encapsulated, sealed) = rest.split_at(ENCAPSULATED_BYTES);
    let secret = pair.open(PACK_INFO, head, encapsulated, sealed).and_then(|secret| secret.try_into().ok());
    let broken = "its key was changed since it was written, or belongs to another repository";
    Ok(FrameKey(aead_key(&Secret(secret.ok_or_else(|| bad(broken))?))))
}

fn nonce(number: u32) -> Nonce {
    let mut bytes = [0; 12];
    bytes[8..].copy_from_slice(&number.to_be_bytes());
    Nonce::assume_unique_for_key(bytes)
}

/// Compresses and seals frames; keeps its compression context and buffers. One per worker.
pub struct FrameSealer {
    compressor: Compressor,
    opener: FrameOpener,
    /// What `compress` made, when that was worth it.
    packed: Vec<u8>,
    is_packed: bool,
    check: Vec<u8>,
}

impl FrameSealer {
    /// An error if the level of compression is none.
    pub fn new(compression: Compression) -> Result<Self> {
        Ok(FrameSealer {
            compressor: Compressor::new(compression)?,
            opener: FrameOpener::new()?,
            packed: Vec::new(),
            is_packed: false,
            check: Vec::new(),
        })
    }

    /// First step, the expensive one: compresses a frame. Needs no key yet.
    pub fn compress(&mut self, raw: &[u8]) -> Result<()> {
        let worth_it = raw.len() - (raw.len() >> GAIN_SHIFT);
        self.is_packed =
            worth_it > 0 && self.compressor.compress(raw, &mut self.packed)? && self.packed.len() <= worth_it;
        Ok(())
    }

    /// Second step: seals what [`compress`](Self::compress) prepared, opens it again and compares it with `raw`, so
    /// that a bad bit of memory does not become a backup.
    pub fn seal(&mut self, key: &FrameKey, number: u32, raw: &[u8]) -> Result<Vec<u8>> {
        let failed = |why: &str| Error::new(Kind::Failed, "seal a frame", "").because(why.to_owned());
        let length = u32::try_from(raw.len()).map_err(|_| failed("it is too large"))?;
        let payload = if self.is_packed { self.packed.as_slice() } else { raw };
        let mut sealed = Vec::with_capacity(FRAME_HEAD_BYTES + payload.len() + TAG_BYTES);
        sealed.push(u8::from(self.is_packed));
        sealed.extend_from_slice(&length.to_le_bytes());
        sealed.extend_from_slice(payload);
        key.0
            .seal_in_place_append_tag(nonce(number), Aad::empty(), &mut sealed)
            .map_err(|_| failed("encryption failed"))?;
        let opened = self.opener.open(key, number, &sealed, raw.len(), &mut self.check);
        if opened.is_err() || self.check != raw {
            return Err(failed("decrypting it does not return what was encrypted").hint(
                "the memory or the processor of this machine may be faulty: test them before you trust its backups",
            ));
        }
        Ok(sealed)
    }
}

/// Opens frames; keeps its buffers. One per worker.
pub struct FrameOpener {
    decompressor: zstd::bulk::Decompressor<'static>,
    plain: Vec<u8>,
}

impl FrameOpener {
    /// Returns an error if memory for the decompressor cannot be allocated.
    pub fn new() -> Result<Self> {
        let decompressor =
            zstd::bulk::Decompressor::new().map_err(|error| Error::io("prepare decompression", "", error))?;
        Ok(FrameOpener { decompressor, plain: Vec::new() })
    }

    /// Authenticates, decrypts and decompresses into `raw`, which must come out `raw_length` bytes long.
    pub fn open(
        &mut self,
        key: &FrameKey,
        number: u32,
        sealed: &[u8],
        raw_length: usize,
        raw: &mut Vec<u8>,
    ) -> Result<()> {
        let bad = |why: &str| Error::corrupt("open frame", number, why);
        let split = sealed.len().checked_sub(TAG_BYTES).filter(|plain| *plain >= FRAME_HEAD_BYTES);
        let (body, tag) = sealed.split_at(split.ok_or_else(|| bad("it is truncated"))?);
        self.plain.resize(body.len(), 0);
        key.0
            .open_separate_gather(nonce(number), Aad::empty(), body, tag, &mut self.plain)
            .map_err(|_| bad("it was changed since it was written"))?;
        let (head, payload) = self.plain.split_at(FRAME_HEAD_BYTES);
        let stated = u32::from_le_bytes(head[1..].try_into().expect("four bytes")) as usize;
        if stated != raw_length {
            return Err(bad("its length differs from what the index says"));
        }
        raw.clear();
        match head[0] {
            0 => raw.extend_from_slice(payload),
            1 => {
                // Not zeroed first: zstd writes into the reserved space and never past it.
                raw.reserve_exact(raw_length);
                self.decompressor.decompress_to_buffer(payload, raw).map_err(|_| bad("it does not decompress"))?;
            }
            _ => {
                return Err(
                    bad("it is compressed in a way that this version does not know").with_kind(Kind::Unsupported)
                );
            }
        }
        if raw.len() == raw_length { Ok(()) } else { Err(bad("its length differs from what it states")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::KeyAccess;

    #[test]
    fn frames_come_back_and_every_changed_bit_is_noticed() {
        let keys = KeySet::from_master(Secret([3; 32]));
        let (key, header) = new_pack_key(&keys, ChunkKind::Content).unwrap();
        let again = open_pack_key(&keys, ChunkKind::Content, &header).unwrap();
        let mut sealer = FrameSealer::new(Compression::Auto).unwrap();
        let mut opener = FrameOpener::new().unwrap();
        let noise: Vec<u8> =
            (0..2000u32).flat_map(|n| blake3::hash(&n.to_le_bytes()).as_bytes()[..4].to_vec()).collect();
        for raw in [&b""[..], b"a", &[7; 5000], &noise] {
            sealer.compress(raw).unwrap();
            let sealed = sealer.seal(&key, 5, raw).unwrap();
            assert!(sealed.len() <= raw.len() + SEAL_BYTES);
            let mut out = Vec::new();
            opener.open(&again, 5, &sealed, raw.len(), &mut out).unwrap();
            assert_eq!(out, raw);
            assert!(opener.open(&again, 6, &sealed, raw.len(), &mut out).is_err());
            assert!(opener.open(&again, 5, &sealed, raw.len() + 1, &mut out).is_err());
            for at in 0..sealed.len() {
                let mut bent = sealed.clone();
                bent[at] ^= 0x10;
                assert!(opener.open(&again, 5, &bent, raw.len(), &mut out).is_err());
            }
        }
    }

    #[test]
    fn the_key_of_a_pack_opens_for_readers_of_its_kind_and_generation() {
        let keys = KeySet::from_master(Secret([3; 32]));
        let (_, header) = new_pack_key(&keys, ChunkKind::Tree).unwrap();
        assert!(open_pack_key(&keys, ChunkKind::Tree, &header).is_ok());
        assert!(open_pack_key(&keys, ChunkKind::Content, &header).is_err());
        let list = KeySet::from_bundle(&keys.to_bundle(KeyAccess::List).unwrap()).unwrap();
        let why = |keys, header: &[u8]| open_pack_key(keys, ChunkKind::Tree, header).err().unwrap();
        assert!(why(&list, &header).is(Kind::Denied));
        for at in 0..header.len() {
            let mut bent = header;
            bent[at] ^= 1;
            assert!(why(&keys, &bent).is(Kind::Corrupt), "bit at {at}");
        }
        let mut newer = header;
        newer[8] = 3;
        assert!(why(&keys, &newer).to_string().contains("generation 3"));
    }
}
