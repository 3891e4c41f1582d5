//! Packs: header with the sealed key, frames, sealed trailer with their lengths, its length; named by their hash.

use crate::error::{Error, Kind, Result};
use crate::format::PACK_BYTES_MAX;
use crate::format::index::{ChunkRoom, put_frames, take_frames};
use crate::format::wire::{PutWire, TakeWire};
use crate::id::{ChunkId, ChunkKind, PackId};
use crate::place::{FrameContents, PackContents};
use crate::seal::{
    Compression, FrameKey, FrameOpener, FrameSealer, KeySet, PACK_HEADER_BYTES, SEAL_BYTES, new_pack_key, open_pack_key,
};
use bytes::Bytes;
use std::sync::Arc;

/// The number under which the trailer is sealed: no frame has it.
const TRAILER_NUMBER: u32 = u32::MAX;
const TRAILER_VERSION: u64 = 1;
/// The last bytes of a pack: the length of its sealed trailer.
const FOOTER_BYTES: usize = 4;

/// A pack that is being filled. Frames get their place first and their bytes later, so that workers seal in parallel.
pub(crate) struct OpenPack {
    pub key: Arc<FrameKey>,
    header: [u8; PACK_HEADER_BYTES],
    kind: ChunkKind,
    frames: Vec<Option<(Bytes, FrameContents)>>,
    /// Places given away whose bytes have not come yet.
    pub awaited: usize,
    pub stored_bytes: u64,
    pub chunks: usize,
    /// With those of frames that have a place and have not come yet.
    pub chunks_promised: usize,
}

impl OpenPack {
    pub(crate) fn new(keys: &KeySet, kind: ChunkKind) -> Result<Self> {
        let (key, header) = new_pack_key(keys, kind)?;
        let stored_bytes = PACK_HEADER_BYTES as u64;
        Ok(OpenPack {
            key: Arc::new(key),
            header,
            kind,
            frames: Vec::new(),
            awaited: 0,
            stored_bytes,
            chunks: 0,
            chunks_promised: 0,
        })
    }

    /// Reserves the next frame, which has this number of chunks, and returns its number. [`fill`](Self::fill) must supply its bytes.
    pub(crate) fn reserve(&mut self, chunks: usize) -> u32 {
        self.chunks_promised += chunks;
        self.frames.push(None);
        self.awaited += 1;
        (self.frames.len() - 1) as u32
    }

    pub(crate) fn fill(&mut self, number: u32, sealed: Vec<u8>, raw: u32, chunks: Vec<(ChunkId, u32)>) {
        let contents = FrameContents { stored: sealed.len() as u32, raw, chunks };
        self.stored_bytes += sealed.len() as u64;
        self.chunks += contents.chunks.len();
        self.awaited -= 1;
        self.frames[number as usize] = Some((Bytes::from(sealed), contents));
    }

    /// Closes the pack: its name, the pieces of its object, and what the index has to say about it.
    pub(crate) fn finish(self) -> Result<(Vec<Bytes>, PackContents)> {
        let mut pieces = vec![Bytes::copy_from_slice(&self.header)];
        let mut frames = Vec::with_capacity(self.frames.len());
        for (sealed, contents) in self.frames.into_iter().map(|frame| frame.expect("every awaited frame has come")) {
            pieces.push(sealed);
            frames.push(contents);
        }
        let trailer = seal_trailer(&self.key, self.kind, &frames, self.stored_bytes)?;
        pieces.push(Bytes::from(trailer));
        let mut hasher = blake3::Hasher::new();
        for piece in &pieces {
            hasher.update(piece);
        }
        let contents = PackContents {
            pack: PackId(*hasher.finalize().as_bytes()),
            kind: self.kind,
            stored_bytes: pieces.iter().map(|piece| piece.len() as u64).sum(),
            data_offset: PACK_HEADER_BYTES as u32,
            frames,
        };
        Ok((pieces, contents))
    }
}

/// Trailer: version, flags (1 = tree), count of frames, their lengths; then zeros, so that the pack's size says little.
fn seal_trailer(key: &FrameKey, kind: ChunkKind, frames: &[FrameContents], before: u64) -> Result<Vec<u8>> {
    let mut plain = Vec::new();
    plain.put_number(TRAILER_VERSION);
    plain.push(kind.to_flag());
    plain.put_number(frames.len() as u64);
    put_frames(&mut plain, frames);
    let total = before as usize + plain.len() + SEAL_BYTES + FOOTER_BYTES;
    plain.resize(plain.len() + (padded(total) - total), 0);
    let mut sealer = FrameSealer::new(Compression::STORE)?;
    sealer.compress(&plain)?;
    let mut sealed = sealer.seal(key, TRAILER_NUMBER, &plain)?;
    let length = sealed.len() as u32;
    sealed.extend_from_slice(&length.to_le_bytes());
    Ok(sealed)
}

/// Packs are padded to a multiple of about 1/256 of their size.
fn padded(bytes: usize) -> usize {
    let step = (bytes.next_power_of_two() / 512).max(64);
    bytes.next_multiple_of(step)
}

/// Rebuilds what the index says about a pack from the pack alone: opens every frame and names its chunks anew.
pub fn read_pack(keys: &KeySet, pack: PackId, bytes: &[u8]) -> Result<PackContents> {
    let bad = |why: &str| Error::corrupt("read the pack", pack, why);
    if blake3::hash(bytes).as_bytes() != pack.as_bytes() {
        return Err(bad("its content does not match its name: it was changed or truncated since it was written"));
    }
    let (stated, key) = open_key_of_either_kind(keys, bytes)?;
    let body = bytes.len().checked_sub(FOOTER_BYTES).ok_or_else(|| bad("it is truncated"))?;
    let footer = u32::from_le_bytes(bytes[body..].try_into().expect("four bytes")) as usize;
    let start = body.checked_sub(footer).filter(|start| *start >= PACK_HEADER_BYTES && footer >= SEAL_BYTES);
    let start = start.ok_or_else(|| bad("its trailer is longer than the pack"))?;
    let mut opener = FrameOpener::new()?;
    let mut plain = Vec::new();
    opener.open(&key, TRAILER_NUMBER, &bytes[start..body], footer - SEAL_BYTES, &mut plain)?;
    let (kind, mut frames) = decode_trailer(&plain)?;
    if kind != stated {
        return Err(bad("its trailer states another kind than its key has"));
    }
    let mut at = PACK_HEADER_BYTES;
    for (number, frame) in frames.iter_mut().enumerate() {
        let end = at + frame.stored as usize;
        let sealed = bytes[..start].get(at..end).ok_or_else(|| bad("its frames are longer than the pack"))?;
        opener.open(&key, number as u32, sealed, frame.raw as usize, &mut plain)?;
        let mut offset = 0;
        for (id, length) in &mut frame.chunks {
            let chunk = &plain[offset..offset + *length as usize];
            *id = keys.chunk_id(kind, chunk);
            offset += *length as usize;
        }
        at = end;
    }
    let stored_bytes = bytes.len() as u64;
    Ok(PackContents { pack, kind, stored_bytes, data_offset: PACK_HEADER_BYTES as u32, frames })
}

/// Which kind of chunks a pack holds is never stored in plain: its key says so.
fn open_key_of_either_kind(keys: &KeySet, header: &[u8]) -> Result<(ChunkKind, FrameKey)> {
    open_pack_key(keys, ChunkKind::Content, header)
        .map(|key| (ChunkKind::Content, key))
        .or_else(|_| open_pack_key(keys, ChunkKind::Tree, header).map(|key| (ChunkKind::Tree, key)))
}

/// Decodes the plain form of a trailer; ids are left zero.
pub fn decode_trailer(plain: &[u8]) -> Result<(ChunkKind, Vec<FrameContents>)> {
    let mut take = TakeWire::new("trailer of a pack", plain);
    if take.number_to(PACK_BYTES_MAX)? != TRAILER_VERSION {
        let error = take.bad("it is of a version that this program does not know: use a newer version of silt");
        return Err(error.with_kind(Kind::Unsupported));
    }
    let kind = ChunkKind::from_flag(take.byte()?);
    let mut room = ChunkRoom::with_nothing_behind();
    let count = take.count(room.frame_bytes_min())?;
    let frames = take_frames(&mut take, count, &mut room)?;
    // Tagged values of newer writers, of which there are none in zeros; then zeros.
    if take.remaining() > 0 {
        take.tagged(&mut |_, _| Ok(()))?;
    }
    Ok((kind, frames))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Secret;

    #[test]
    fn a_pack_tells_its_contents_without_an_index() {
        let keys = KeySet::from_master(Secret([5; 32]));
        let mut pack = OpenPack::new(&keys, ChunkKind::Content).unwrap();
        let mut sealer = FrameSealer::new(Compression::Auto).unwrap();
        let raws: [&[u8]; 2] = [b"firstsecond", &[9; 1000]];
        let (first, second) = (pack.reserve(2), pack.reserve(2));
        for (number, raw, cut) in [(second, raws[1], 400), (first, raws[0], 5)] {
            sealer.compress(raw).unwrap();
            let sealed = sealer.seal(&pack.key, number, raw).unwrap();
            let ids = vec![
                (keys.chunk_id(ChunkKind::Content, &raw[..cut]), cut as u32),
                (keys.chunk_id(ChunkKind::Content, &raw[cut..]), (raw.len() - cut) as u32),
            ];
            pack.fill(number, sealed, raw.len() as u32, ids);
        }
        let (pieces, contents) = pack.finish().unwrap();
        let bytes = pieces.concat();
        assert_eq!(read_pack(&keys, contents.pack, &bytes).unwrap(), contents);
        for at in (0..bytes.len()).step_by(7) {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert!(read_pack(&keys, contents.pack, &bent).is_err());
        }
    }
}
