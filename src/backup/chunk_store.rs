//! Where a run stores its chunks: in the repository, or nowhere in a dry run.

use crate::chunk::Chunker;
use crate::error::Result;
use crate::id::{ChunkId, ChunkKind};
use crate::repo::{ChunkSink, Repository, Writer};
use crate::watch::Watch;

pub(super) struct ChunkStore<'a> {
    repo: &'a Repository,
    /// None in a dry run.
    writer: Option<Writer>,
    /// The sink has one lane for each reader, and this one for all other threads.
    last_lane: usize,
    watch: &'a Watch,
}

impl<'a> ChunkStore<'a> {
    pub(crate) fn new(repo: &'a Repository, writer: Option<Writer>, readers: usize, watch: &'a Watch) -> Self {
        ChunkStore { repo, writer, last_lane: readers, watch }
    }

    pub(crate) fn chunker(&self) -> &Chunker {
        self.repo.chunker()
    }

    pub(crate) fn is_dry_run(&self) -> bool {
        self.writer.is_none()
    }

    pub(crate) fn sink(&self) -> Option<&ChunkSink> {
        self.writer.as_ref().map(Writer::sink)
    }

    /// The sink, where content is read: no dry run reads any.
    pub(crate) fn content_sink(&self) -> &ChunkSink {
        self.sink().expect("content is read only when it is stored")
    }

    pub(crate) fn into_writer(self) -> Option<Writer> {
        self.writer
    }

    /// The lane of this thread.
    pub(crate) fn lane(&self) -> usize {
        rayon::current_thread_index().unwrap_or(self.last_lane).min(self.last_lane)
    }

    /// Stores a page of a tree. A dry run only returns its id.
    pub(crate) fn store_tree(&self, bytes: &[u8]) -> Result<ChunkId> {
        match self.sink() {
            Some(sink) => sink.store_tree(self.lane(), bytes),
            None => Ok(self.repo.keys().chunk_id(ChunkKind::Tree, bytes)),
        }
    }

    /// Returns whether a chunk is stored, or is being stored by this run.
    pub(crate) fn contains(&self, id: &ChunkId) -> Result<bool> {
        match self.sink() {
            Some(sink) => sink.has(id),
            None => self.repo.contains(id, self.watch),
        }
    }
}
