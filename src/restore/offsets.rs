//! Where the bytes of a sparse file go: content without its holes, cut where a hole is.

use crate::entry::Entry;

/// Assigns each chunk its offset in a file with holes.
pub(super) struct SparseOffsets<'a> {
    holes: &'a [crate::entry::Hole],
    next_hole: usize,
    pub at: u64,
}

impl<'a> SparseOffsets<'a> {
    pub(crate) fn new(entry: &'a Entry) -> Self {
        SparseOffsets { holes: &entry.holes, next_hole: 0, at: 0 }
    }

    /// Where the next bytes go and how many of `length` fit before the next hole.
    pub(crate) fn next(&mut self, length: u64) -> (u64, u64) {
        while let Some(hole) = self.holes.get(self.next_hole).filter(|hole| hole.offset <= self.at) {
            self.at = hole.offset + hole.length;
            self.next_hole += 1;
        }
        let room = self.holes.get(self.next_hole).map_or(u64::MAX, |hole| hole.offset - self.at);
        let at = self.at;
        let taken = length.min(room);
        self.at += taken;
        (at, taken)
    }
}
