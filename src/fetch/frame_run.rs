//! Neighbouring frames of a pack that one request fetches.

use crate::id::PackId;
use crate::place::FramePlace;
use crate::seal::PACK_HEADER_BYTES;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A frame: its pack, and where an index object says that it is there. Another one may say otherwise.
pub(super) type FrameKeyPlace = (PackId, FramePlace);

/// Says which frames of one pack begin within some bytes of it, in order.
pub(super) type NearFrames<'a> = &'a dyn Fn(Range<u64>) -> Vec<FramePlace>;

/// Neighbouring frames that are fetched together; none when only the header is wanted.
pub(super) struct FrameRun {
    pub pack: PackId,
    pub frames: Vec<FramePlace>,
    bytes: u64,
    /// Whether the range begins with the pack's header.
    pub with_header: bool,
    bytes_asked: AtomicU64,
}

impl FrameRun {
    pub(crate) fn new(pack: PackId, frames: Vec<FramePlace>, with_header: bool) -> Arc<Self> {
        let bytes = bytes_of(&frames);
        Arc::new(FrameRun { pack, frames, bytes, with_header, bytes_asked: AtomicU64::new(0) })
    }

    /// Records a request for some of its bytes; true when the requests so far cross half of the run.
    pub(crate) fn passes_half(&self, bytes: u64) -> bool {
        let before = self.bytes_asked.fetch_add(bytes, Ordering::Relaxed);
        let half = self.bytes / 2;
        before <= half && before + bytes > half
    }

    pub(crate) fn range(&self) -> Range<u64> {
        let start = self.frames.first().filter(|_| !self.with_header).map_or(0, |first| u64::from(first.offset));
        let end =
            self.frames.last().map_or(PACK_HEADER_BYTES as u64, |last| u64::from(last.offset) + u64::from(last.stored));
        start..end
    }
}

pub(super) fn bytes_of(frames: &[FramePlace]) -> u64 {
    frames.iter().map(|frame| u64::from(frame.stored)).sum()
}
