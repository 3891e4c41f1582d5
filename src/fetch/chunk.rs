//! A chunk in memory.

use std::ops::Deref;
use std::sync::Arc;

/// A chunk's verified bytes, kept alive with their frame.
#[derive(Clone)]
pub struct Chunk {
    frame: Arc<Vec<u8>>,
    offset: usize,
    length: usize,
}

impl Deref for Chunk {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.frame[self.offset..self.offset + self.length]
    }
}

impl Chunk {
    pub(super) fn within(frame: Arc<Vec<u8>>, offset: usize, length: usize) -> Option<Self> {
        let is_inside = offset.checked_add(length).is_some_and(|end| end <= frame.len());
        is_inside.then_some(Chunk { frame, offset, length })
    }

    /// Grows by the chunk that follows it in the same frame; false when that is not where it rests.
    pub(crate) fn join(&mut self, next: &Chunk) -> bool {
        let follows = Arc::ptr_eq(&self.frame, &next.frame) && self.offset + self.length == next.offset;
        if follows {
            self.length += next.length;
        }
        follows
    }
}
