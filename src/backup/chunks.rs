//! Cut content into chunks, and store them: what one thread does alone, and each helper does with its part.

use crate::backup::chunk_store::ChunkStore;
use crate::chunk::{Chunker, ContentKind};
use crate::error::{Error, ErrorSide, Result};
use crate::format::list::ListItem;
use crate::id::ChunkId;
use std::ops::Range;

/// Why saving content ended, by the side that failed: a full repository must not be reported as an unreadable file.
#[derive(Debug)]
pub(super) enum SaveError {
    /// The source failed: a warning.
    Source(Error),
    /// The repository failed, or the run was interrupted: this ends the run.
    Store(Error),
}

impl SaveError {
    pub(crate) fn into_error(self) -> Error {
        match self {
            SaveError::Source(error) => error.with_side(ErrorSide::Source),
            SaveError::Store(error) => error,
        }
    }
}

/// What is known of content before it is read.
#[derive(Clone, Copy, Debug)]
pub(super) struct ExpectedContent {
    pub kind: ContentKind,
    /// Its size, or `u64::MAX` for a stream. A hint: it may have changed.
    pub bytes: u64,
}

pub(super) struct ChunkSaver<'a> {
    chunker: &'a Chunker,
    store: &'a ChunkStore<'a>,
}

impl<'a> ChunkSaver<'a> {
    pub(crate) fn new(store: &'a ChunkStore<'a>) -> Self {
        ChunkSaver { chunker: store.chunker(), store }
    }

    pub(crate) fn kind_of_file(&self, bytes: u64) -> ContentKind {
        self.chunker.kind_of_file(bytes)
    }

    /// The largest chunk of content of this kind, in bytes.
    pub(crate) fn chunk_bytes_max(&self, kind: ContentKind) -> usize {
        self.chunker.sizes(kind).max
    }

    /// The lane of the calling thread.
    pub(crate) fn lane(&self) -> usize {
        self.store.lane()
    }

    /// Returns where the chunks of `bytes` end. `last` says that the content ends with them; otherwise what comes after the
    /// last end belongs to a chunk that is not complete.
    pub(crate) fn cut(&self, kind: ContentKind, bytes: &[u8], last: bool) -> Vec<usize> {
        let (mut at, mut ends) = (0, Vec::new());
        while let Some(length) = self.chunker.cut(kind, &bytes[at..], last) {
            at += length;
            ends.push(at);
        }
        ends
    }

    /// Returns where chunks in a part of `bytes` end, as if one began where the part does.
    pub(crate) fn cut_piece(&self, kind: ContentKind, bytes: &[u8], last: bool, piece: Range<usize>) -> Vec<usize> {
        self.chunker.cut_piece(kind, bytes, last, piece)
    }

    /// Joins the ends found in neighbouring pieces, so that they are those that [`ChunkSaver::cut`] returns.
    pub(crate) fn join_pieces(
        &self,
        kind: ContentKind,
        bytes: &[u8],
        last: bool,
        pieces: Vec<Vec<usize>>,
    ) -> Vec<usize> {
        self.chunker.join_pieces(kind, bytes, last, pieces)
    }

    /// Stores the chunks of `bytes` that the repository lacks; returns all.
    pub(crate) fn store(&self, bytes: &[u8], ends: &[usize]) -> Result<Vec<ListItem>> {
        let ids = self.store.content_sink().store_contents(self.store.lane(), bytes, ends)?;
        let starts = std::iter::once(&0).chain(ends);
        let lengths = ends.iter().zip(starts).map(|(end, start)| (end - start) as u64);
        Ok(ids.into_iter().zip(lengths).map(|(id, bytes)| ListItem { id, bytes }).collect())
    }

    /// Stores a list of chunks.
    pub(crate) fn store_list(&self, bytes: &[u8]) -> Result<ChunkId> {
        self.store.content_sink().store_tree(self.store.lane(), bytes)
    }

    /// Stores the chunk that is cut from nothing but zeros.
    pub(crate) fn store_zero_chunk(&self, kind: ContentKind) -> Result<ListItem> {
        let (length, zeros) = zero_chunk(self.chunker, kind);
        let id = self.store.content_sink().store_content(self.store.lane(), &zeros[..length])?;
        Ok(ListItem { id, bytes: length as u64 })
    }
}

/// The length of a chunk where only zeros come, and as many zeros as the longest chunk has.
pub(super) fn zero_chunk(chunker: &Chunker, kind: ContentKind) -> (usize, Vec<u8>) {
    let zeros = vec![0; chunker.sizes(kind).max];
    // A full maximum chunk size always yields a cut.
    let length = chunker.cut(kind, &zeros, false).unwrap_or(zeros.len());
    (length, zeros)
}
