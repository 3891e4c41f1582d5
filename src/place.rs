//! Where chunks rest: what an index object says about packs, as plain data.

use crate::id::{ChunkId, PackId};

/// Where a chunk rests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Located {
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
    pub length: u32,
    /// Whether the pack holds trees rather than content.
    pub tree: bool,
}

/// One frame of a pack, as far as fetching it goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FramePlace {
    /// Which frame of the pack, from 0.
    pub number: u32,
    /// Bytes from the start of the pack to the sealed frame.
    pub offset: u32,
    /// Bytes of the sealed frame in the pack.
    pub stored: u32,
}

/// One pack as an index object describes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackContents {
    pub pack: PackId,
    /// Whether the pack holds trees rather than content.
    pub tree: bool,
    /// Size of the pack object.
    pub stored_bytes: u64,
    /// Bytes from the start of the pack to its first frame; the others follow without gaps.
    pub data_offset: u32,
    pub frames: Vec<FrameContents>,
}

/// One frame of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FrameContents {
    /// Bytes of the sealed frame in the pack.
    pub stored: u32,
    /// Bytes of the frame once it is opened and decompressed.
    pub raw: u32,
    /// Chunks and their lengths, one behind the other from the start of the raw frame.
    pub chunks: Vec<(ChunkId, u32)>,
}
