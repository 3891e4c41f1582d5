//! Index objects: which chunks are in which packs; written once, sealed for all writers.
//!
//! Plain form (numbers are LEB128): version 1, count of packs; for each pack its id (32 bytes), flags (1 = tree), stored
//! bytes, data offset, count of frames; for each frame stored, raw, count of chunks; for each chunk its length. Then,
//! apart because they do not compress, all chunk ids (24 bytes each) in the same order. Tagged values of newer writers may follow.

use crate::error::Result;
use crate::format::wire::{PutWire, TakeWire};
use crate::format::{CHUNK_BYTES_MAX, FRAME_RAW_BYTES_MAX, PACK_BYTES_MAX};
use crate::id::{ChunkId, ChunkKind, PackId};
use crate::place::{FrameContents, PackContents};

const VERSION: u64 = 1;

/// A new index object is begun when one describes this many chunks.
pub(crate) const INDEX_CHUNKS_MAX: usize = 256 * 1024;
/// An object that states more chunks or packs is damaged: writers stay below half of it.
pub(crate) const OBJECT_CHUNKS_MAX: usize = 1 << 20;
pub(crate) const OBJECT_PACKS_MAX: usize = INDEX_CHUNKS_MAX;
/// The largest plain form that is read.
pub(crate) const INDEX_BYTES_MAX: u64 = 64 << 20;
/// How many times as large as the stored object its plain form may be: ids do not compress, so honest ones stay below two.
const PLAIN_FOR_STORED_MAX: u64 = 4;

/// The largest plain form, in bytes, of an index object of this stored size. A small object must not decompress into tables that
/// exhaust the memory of its reader.
pub(crate) fn plain_bytes_max(stored_bytes: u64) -> u64 {
    stored_bytes.saturating_mul(PLAIN_FOR_STORED_MAX).min(INDEX_BYTES_MAX)
}

/// Encodes what an index object says of these packs.
pub fn encode_index(packs: &[PackContents]) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut ids = Vec::new();
    bytes.put_number(VERSION);
    bytes.put_number(packs.len() as u64);
    for pack in packs {
        bytes.extend_from_slice(pack.pack.as_bytes());
        bytes.push(pack.kind.to_flag());
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

/// How many chunks an object may still state.
pub(super) struct ChunkRoom {
    /// Bytes that follow after all frames for each chunk.
    bytes_behind: usize,
    chunks: usize,
}

impl ChunkRoom {
    /// In index objects an id follows for each chunk; in trailers nothing does.
    pub(crate) fn with_ids_behind() -> Self {
        ChunkRoom { bytes_behind: ChunkId::BYTES, chunks: 0 }
    }

    pub(crate) fn with_nothing_behind() -> Self {
        ChunkRoom { bytes_behind: 0, chunks: 0 }
    }

    /// The fewest bytes that a frame takes: its sizes and the count and length of one chunk.
    pub(crate) fn frame_bytes_min(&self) -> usize {
        4 + self.bytes_behind
    }

    /// How many chunks a frame has: at least one, and no more than there are bytes for, what is owed to earlier frames taken off.
    /// Checked before memory is asked for: a chunk takes more there than here.
    fn take_chunk_count(&mut self, take: &mut TakeWire) -> Result<usize> {
        let count = take.number_to(take.remaining() as u64)? as usize;
        self.chunks += count;
        if count == 0 {
            return Err(take.bad("a frame has no chunks"));
        }
        if self.chunks > OBJECT_CHUNKS_MAX {
            return Err(take.bad(format!("it has more than {OBJECT_CHUNKS_MAX} chunks")));
        }
        if count + self.chunks * self.bytes_behind <= take.remaining() {
            Ok(count)
        } else {
            Err(take.bad("it states more chunks than it has bytes for"))
        }
    }
}

/// Reads what [`put_frames`] wrote; ids are left zero.
pub(super) fn take_frames(take: &mut TakeWire, count: usize, room: &mut ChunkRoom) -> Result<Vec<FrameContents>> {
    let mut frames = Vec::with_capacity(count.min(4096));
    for _ in 0..count {
        let stored = take.number_to(PACK_BYTES_MAX)? as u32;
        let raw = take.number_to(FRAME_RAW_BYTES_MAX)? as u32;
        let chunk_count = room.take_chunk_count(take)?;
        let mut chunks = Vec::with_capacity(chunk_count);
        let mut sum = 0;
        for _ in 0..chunk_count {
            let length = take.number_to(CHUNK_BYTES_MAX)? as u32;
            if length == 0 {
                // A file could have any number of such, and reading it would never end.
                return Err(take.bad("a chunk is empty"));
            }
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

/// Decodes what an index object says; an error if it is damaged or describes more than an index object may.
pub fn decode_index(bytes: &[u8]) -> Result<Vec<PackContents>> {
    let mut take = TakeWire::new("index object", bytes);
    if take.number()? != VERSION {
        return Err(take.bad("it is of a version that this program does not know: use a newer version of silt"));
    }
    let mut room = ChunkRoom::with_ids_behind();
    let count = take.count(PackId::BYTES + 4 + room.frame_bytes_min())?;
    if count > OBJECT_PACKS_MAX {
        return Err(take.bad(format!("it has more than {OBJECT_PACKS_MAX} packs")));
    }
    let mut packs = Vec::with_capacity(count.min(4096));
    for _ in 0..count {
        let pack = PackId(take.array()?);
        let kind = ChunkKind::from_flag(take.byte()?);
        let stored_bytes = take.number_to(PACK_BYTES_MAX)?;
        let data_offset = take.number_to(4096)? as u32;
        let frame_count = take.count(room.frame_bytes_min())?;
        if frame_count == 0 {
            return Err(take.bad("a pack has no frames"));
        }
        let frames = take_frames(&mut take, frame_count, &mut room)?;
        let end = u64::from(data_offset) + frames.iter().map(|frame| u64::from(frame.stored)).sum::<u64>();
        if end > stored_bytes {
            return Err(take.bad("the frames of a pack reach beyond its end"));
        }
        packs.push(PackContents { pack, kind, stored_bytes, data_offset, frames });
    }
    for (id, _) in packs.iter_mut().flat_map(|pack| &mut pack.frames).flat_map(|frame| &mut frame.chunks) {
        *id = ChunkId(take.array()?);
    }
    take.end_with_tagged()?;
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
                kind: ChunkKind::from_flag(u8::from(n == 2)),
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
        let newer = [&bytes[..], &[1, 5, 2, 0, 0]].concat();
        assert_eq!(decode_index(&newer).unwrap(), packs, "what it does not know is skipped");
        assert!(decode_index(&[&bytes[..], &[7]].concat()).is_err());
    }

    /// One pack of one frame of this many chunks of one byte, with this many bytes behind the count.
    fn stating(chunks: u64, behind: usize) -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.put_number(VERSION);
        bytes.put_number(1);
        bytes.extend_from_slice(&[7; 32]);
        bytes.push(0);
        [88, 88, 1, 0, chunks, chunks].iter().for_each(|number| bytes.put_number(*number));
        bytes.resize(bytes.len() + behind, 1);
        bytes
    }

    fn why(bytes: &[u8]) -> String {
        decode_index(bytes).err().map(|error| error.to_string()).unwrap_or_default()
    }

    /// 67 million chunks in 64 MiB that had no ids took 1.9 GiB before that was noticed.
    #[test]
    fn chunks_are_believed_as_far_as_there_are_bytes_for_their_ids() {
        assert_eq!(why(&stating(1000, 25_000)), "");
        assert!(why(&stating(1000, 24_999)).contains("more chunks than it has bytes for"));
        assert!(why(&stating(10_000, 10_000)).contains("more chunks than it has bytes for"));
        let many = OBJECT_CHUNKS_MAX as u64 + 1;
        assert!(why(&stating(many, 25 * many as usize)).contains("more than 1048576 chunks"));
        assert!(why(&stating(0, 30)).contains("no chunks"));
        let mut empty = stating(1, 25);
        let at = empty.len() - 25;
        assert_eq!(std::mem::replace(&mut empty[at], 0), 1);
        assert!(why(&empty).contains("a chunk is empty"));
    }

    /// What earlier frames still owe counts as well: each of many frames could state nearly all that is left.
    #[test]
    fn frames_do_not_share_the_bytes_for_their_ids() {
        let frame =
            |chunks| FrameContents { stored: 1, raw: chunks as u32, chunks: vec![(ChunkId([0; 24]), 1); chunks] };
        let pack = |frames| PackContents {
            pack: PackId([1; 32]),
            kind: ChunkKind::Content,
            stored_bytes: 200,
            data_offset: 88,
            frames,
        };
        let bytes = encode_index(&[pack(vec![frame(100), frame(100)])]);
        assert_eq!(why(&bytes), "");
        assert!(why(&bytes[..bytes.len() - 1]).contains("more chunks than it has bytes for"));
        assert!(why(&encode_index(&[pack(vec![frame(3)]), pack(Vec::new())])).contains("no frames"));
    }

    /// Frames without chunks were valid, and 22 million of them took 1.3 GiB.
    #[test]
    fn an_object_of_few_bytes_does_not_unfold_into_a_large_one() {
        assert_eq!(plain_bytes_max(2000), 8000);
        assert_eq!(plain_bytes_max(80 << 20), INDEX_BYTES_MAX);
    }
}
