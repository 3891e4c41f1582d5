//! How bytes pass to and from the page cache at its speed (docs/decisions/0014-page-cache.md).

use std::ops::{Deref, DerefMut};

const PAGE_BYTES: usize = 4096;

/// One call writes at most so much to a file: larger ones take large blocks of free memory for the page cache, and in a
/// virtual machine these are what its host has taken back and must first give again.
pub(crate) const WRITE_BYTES_MAX: usize = 512 << 10;

/// A buffer to read files into, which are aligned to pages of the page cache: some processors copy several
/// times slower to a place a few bytes deeper in its page, such as where allocators begin a large block.
///
/// Bytes of a fixed number, the first of which is the first of a page.
#[derive(Default)]
pub(crate) struct PageBuffer {
    bytes: Vec<u8>,
    start: usize,
    length: usize,
}

impl PageBuffer {
    /// Zeros, which take memory only where they are used.
    pub(crate) fn new(length: usize) -> Self {
        let bytes = vec![0; length + PAGE_BYTES];
        // Where that cannot be told, any place will do.
        let start = bytes.as_ptr().align_offset(PAGE_BYTES).min(PAGE_BYTES);
        PageBuffer { bytes, start, length }
    }
}

impl Deref for PageBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.length]
    }
}

impl DerefMut for PageBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_with_a_page_and_has_its_length() {
        for length in [0, 1, 4095, 4096, 1 << 20] {
            let mut buffer = PageBuffer::new(length);
            assert_eq!((buffer.as_ptr() as usize % PAGE_BYTES, buffer.len()), (0, length));
            buffer.fill(7);
            let moved = buffer;
            assert!(moved.iter().all(|byte| *byte == 7));
        }
        assert!(PageBuffer::default().is_empty());
    }
}
