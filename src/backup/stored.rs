//! Look up whether what an old entry names is stored: local state and old trees spare reading files, never asking the index.

use crate::backup::Run;
use crate::entry::{Content, Entry};
use crate::error::Result;
use crate::id::ChunkId;
use std::collections::HashSet;
use std::sync::atomic::Ordering;

impl<'a> Run<'a> {
    /// Whether a chunk is stored, or is being stored by this run.
    pub(super) fn is_known(&self, id: &ChunkId) -> Result<bool> {
        match &self.writer {
            Some(writer) => writer.has(id),
            None => self.repo.contains(id, self.watch),
        }
    }

    /// Whether [`is_stored`](Self::is_stored) can answer: a put-only key opens no list.
    pub(super) fn can_look_up(&self, entry: &Entry) -> bool {
        self.may_read() || !matches!(entry.content, Content::List { .. })
    }

    /// Whether all content of an entry is stored. Of a directory that is decided when it is walked.
    pub(super) fn is_stored(&self, entry: &Entry) -> Result<bool> {
        match &entry.content {
            Content::Empty | Content::Inline(_) | Content::Tree(_) => Ok(true),
            Content::Chunks(ids) => self.are_known(ids),
            Content::List { depth, root } => self.is_list_stored(*depth, root),
        }
    }

    fn are_known(&self, ids: &[ChunkId]) -> Result<bool> {
        for id in ids {
            if !self.is_known(id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A list that cannot be read is as good as missing: the file is read anew then, which stores it again.
    pub(super) fn is_list_stored(&self, depth: u8, id: &ChunkId) -> Result<bool> {
        if !self.is_known(id)? {
            return Ok(false);
        }
        let Some(level) = depth.checked_sub(1) else { return Ok(true) };
        let ids = match self.reader.list_ids(id, level) {
            Err(error) if error.is_damage() => {
                self.note_damage();
                return Ok(false);
            }
            ids => ids?,
        };
        if level == 0 {
            return self.are_known(&ids);
        }
        for id in &ids {
            if !self.is_list_stored(level, id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Something that should be in the repository is not: the run ends with a look at what it healed. If a pack turned out
    /// to be damaged that this run may have relied on already, it does not commit, and starts over. It goes on until then, so
    /// that all such packs that it meets are known to the next attempt, and what it stores is found there.
    pub(super) fn note_damage(&self) {
        let is_told = || self.damage.told(self.repo).is_some_and(|told| !told.incomplete.is_empty());
        if !self.has_met_damage.swap(true, Ordering::Relaxed) && self.writer.is_some() && !is_told() {
            self.repo.mark_loss(&HashSet::new());
        }
    }
}
