//! Index objects: which chunks are in which packs; written once, sealed for all writers.
//!
//! Plain form (numbers are LEB128): version 1, count of packs; for each pack its id (32 bytes), flags (1 = tree), stored
//! bytes, data offset, count of frames; for each frame stored, raw, count of chunks; for each chunk its length. Then,
//! apart because they do not compress, all chunk ids (24 bytes each) in the same order.

use crate::error::Result;
use crate::id::{ChunkId, PackId};
use crate::place::{FrameContents, PackContents};
use crate::repo::format::{CHUNK_BYTES_MAX, FRAME_RAW_BYTES_MAX, PACK_BYTES_MAX};
use crate::repo::wire::{Put, Take};

const VERSION: u64 = 1;

/// A new index object is begun when one describes this many chunks.
pub const INDEX_CHUNKS_MAX: usize = 256 * 1024;
/// The largest plain form that is read.
pub const INDEX_BYTES_MAX: u64 = 64 << 20;

pub fn encode_index(packs: &[PackContents]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut ids = Vec::new();
    bytes.put_number(VERSION);
    bytes.put_number(packs.len() as u64);
    for pack in packs {
        bytes.extend_from_slice(pack.pack.as_bytes());
        bytes.push(u8::from(pack.tree));
        bytes.put_number(pack.stored_bytes);
        bytes.put_number(u64::from(pack.data_offset));
        bytes.put_number(pack.frames.len() as u64);
        put_frames(&mut bytes, &pack.frames);
        for (id, _) in pack.frames.iter().flat_map(|frame| &frame.chunks) {
            ids.extend_from_slice(id.as_bytes());
        }
    }
    bytes.extend_from_slice(&ids);
    bytes
}

/// The shared part of index objects and pack trailers: lengths of frames and of the chunks in them.
pub(super) fn put_frames(bytes: &mut Vec<u8>, frames: &[FrameContents]) {
    for frame in frames {
        bytes.put_number(u64::from(frame.stored));
        bytes.put_number(u64::from(frame.raw));
        bytes.put_number(frame.chunks.len() as u64);
        for (_, length) in &frame.chunks {
            bytes.put_number(u64::from(*length));
        }
    }
}

/// Reads what [`put_frames`] wrote; ids are left zero.
pub(super) fn take_frames(take: &mut Take, count: usize) -> Result<Vec<FrameContents>> {
    let mut frames = Vec::with_capacity(count.min(4096));
    for _ in 0..count {
        let stored = take.number_to(PACK_BYTES_MAX)? as u32;
        let raw = take.number_to(FRAME_RAW_BYTES_MAX)? as u32;
        let chunk_count = take.count(1)?;
        let mut chunks = Vec::with_capacity(chunk_count);
        let mut sum = 0;
        for _ in 0..chunk_count {
            let length = take.number_to(CHUNK_BYTES_MAX)? as u32;
            sum += u64::from(length);
            chunks.push((ChunkId([0; ChunkId::BYTES]), length));
        }
        if sum != u64::from(raw) {
            return Err(take.bad("the chunks of a frame do not fill it"));
        }
        frames.push(FrameContents { stored, raw, chunks });
    }
    Ok(frames)
}

pub fn decode_index(bytes: &[u8]) -> Result<Vec<PackContents>> {
    let mut take = Take::new("index object", bytes);
    if take.number()? != VERSION {
        return Err(take.bad("it is of a version that this program does not know"));
    }
    let count = take.count(PackId::BYTES + 4)?;
    let mut packs = Vec::with_capacity(count);
    for _ in 0..count {
        let pack = PackId(take.array()?);
        let tree = take.byte()? & 1 == 1;
        let stored_bytes = take.number_to(PACK_BYTES_MAX)?;
        let data_offset = take.number_to(4096)? as u32;
        let frame_count = take.count(3)?;
        let frames = take_frames(&mut take, frame_count)?;
        let end = u64::from(data_offset) + frames.iter().map(|frame| u64::from(frame.stored)).sum::<u64>();
        if end > stored_bytes {
            return Err(take.bad("the frames of a pack reach beyond its end"));
        }
        packs.push(PackContents { pack, tree, stored_bytes, data_offset, frames });
    }
    for (id, _) in packs.iter_mut().flat_map(|pack| &mut pack.frames).flat_map(|frame| &mut frame.chunks) {
        *id = ChunkId(take.array()?);
    }
    take.end()?;
    Ok(packs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_index_comes_back_and_damage_is_noticed() {
        let packs: Vec<PackContents> = (1..4u8)
            .map(|n| PackContents {
                pack: PackId([n; 32]),
                tree: n == 2,
                stored_bytes: 1000,
                data_offset: 88,
                frames: (0..n)
                    .map(|f| FrameContents {
                        stored: 100,
                        raw: 30,
                        chunks: vec![(ChunkId([f; 24]), 10), (ChunkId([n; 24]), 20)],
                    })
                    .collect(),
            })
            .collect();
        let bytes = encode_index(&packs);
        assert_eq!(decode_index(&bytes).unwrap(), packs);
        for length in 0..bytes.len() {
            assert!(decode_index(&bytes[..length]).is_err());
        }
        assert!(decode_index(&[1, 0xff, 0xff, 0xff, 0xff, 0x0f]).is_err());
    }
}
