//! Where chunks are stored: what an index object says about packs, as plain data.

use crate::id::{ChunkId, ChunkKind, IndexId, PackId};
use std::collections::HashMap;

/// Where a chunk rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
    /// The pack.
    pub pack: PackId,
    /// Bytes from the start of the pack to the sealed frame.
    pub frame_offset: u32,
    /// Bytes of the sealed frame in the pack.
    pub frame_stored: u32,
    /// Bytes of the frame once it is opened and decompressed.
    pub frame_raw: u32,
    /// Which frame of the pack, from 0.
    pub frame_number: u32,
    /// Bytes from the start of the raw frame to the chunk.
    pub offset: u32,
    /// Bytes of the chunk.
    pub length: u32,
    /// What the pack holds.
    pub kind: ChunkKind,
}

/// One frame of a pack, as far as fetching it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct FramePlace {
    /// Which frame of the pack, from 0.
    pub number: u32,
    /// Bytes from the start of the pack to the sealed frame.
    pub offset: u32,
    /// Bytes of the sealed frame in the pack.
    pub stored: u32,
}

impl Located {
    /// The frame that the chunk is in.
    pub(crate) fn frame(&self) -> FramePlace {
        FramePlace { number: self.frame_number, offset: self.frame_offset, stored: self.frame_stored }
    }
}

/// One index object: what it is called, how large it is as stored, and the packs that it describes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IndexContents {
    /// The name of the object.
    pub index: IndexId,
    /// Bytes of the object.
    pub bytes: u64,
    /// The packs.
    pub packs: Vec<PackContents>,
}

/// One pack as an index object describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackContents {
    /// The pack.
    pub pack: PackId,
    /// What the pack holds.
    pub kind: ChunkKind,
    /// Size of the pack object.
    pub stored_bytes: u64,
    /// Bytes from the start of the pack to its first frame; the others follow without gaps.
    pub data_offset: u32,
    /// Its frames, in order.
    pub frames: Vec<FrameContents>,
}

impl PackContents {
    /// All chunks, and where each rests.
    pub(crate) fn places(&self) -> impl Iterator<Item = (ChunkId, Located)> + '_ {
        let mut frame_offset = self.data_offset;
        self.frames.iter().zip(0..).flat_map(move |(frame, frame_number)| {
            let at = frame_offset;
            frame_offset = at.saturating_add(frame.stored);
            let mut end = 0_u32;
            frame.chunks.iter().map(move |(id, length)| {
                let offset = end;
                end = offset.saturating_add(*length);
                let place = Located {
                    pack: self.pack,
                    frame_offset: at,
                    frame_stored: frame.stored,
                    frame_raw: frame.raw,
                    frame_number,
                    offset,
                    length: *length,
                    kind: self.kind,
                };
                (*id, place)
            })
        })
    }
}

/// One frame of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameContents {
    /// Bytes of the sealed frame in the pack.
    pub stored: u32,
    /// Bytes of the frame once it is opened and decompressed.
    pub raw: u32,
    /// Chunks and their lengths, one after the other from the start of the raw frame.
    pub chunks: Vec<(ChunkId, u32)>,
}

/// The packs that a listing of the storage showed, with their sizes in bytes. A pack that is listed with another size than
/// the index says is as good as missing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PackSizes(HashMap<PackId, u64>);

impl PackSizes {
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn insert(&mut self, pack: PackId, bytes: u64) {
        self.0.insert(pack, bytes);
    }

    pub(crate) fn remove(&mut self, pack: &PackId) {
        self.0.remove(pack);
    }

    pub(crate) fn contains(&self, pack: &PackId) -> bool {
        self.0.contains_key(pack)
    }

    /// The size of a pack, if it is listed.
    pub(crate) fn get(&self, pack: &PackId) -> Option<u64> {
        self.0.get(pack).copied()
    }

    /// Whether the pack is listed with exactly this size.
    pub(crate) fn has(&self, pack: &PackId, bytes: u64) -> bool {
        self.0.get(pack) == Some(&bytes)
    }
}

impl FromIterator<(PackId, u64)> for PackSizes {
    fn from_iter<I: IntoIterator<Item = (PackId, u64)>>(packs: I) -> Self {
        PackSizes(packs.into_iter().collect())
    }
}
