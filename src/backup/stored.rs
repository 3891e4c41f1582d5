//! Look up whether what an old entry names is stored: local state and old trees spare reading files, never asking the index.

use crate::backup::Run;
use crate::entry::{Content, Entry};
use crate::error::Result;
use crate::id::ChunkId;
use crate::lock::locked;
use std::collections::HashSet;
use std::sync::atomic::Ordering;
use std::sync::{Mutex, MutexGuard};

/// Maximum number of lists that are remembered as stored, and that are looked up for one file. A file of a petabyte has about
/// that many.
const LISTS_MAX: usize = 1 << 20;

/// Lists of which everything is known to be stored, with their levels: a hostile repository could name one list again and
/// again, on each level. Missing lists are not remembered, because the run may store them later.
#[derive(Default)]
pub(super) struct StoredLists(Mutex<HashSet<(ChunkId, u8)>>);

impl StoredLists {
    fn lock(&self) -> MutexGuard<'_, HashSet<(ChunkId, u8)>> {
        locked(&self.0)
    }

    /// Forgets all lists if there are too many. To be called between files: within one file, its lists could then be walked again
    /// and again.
    fn make_room(&self) {
        let mut known = self.lock();
        if known.len() >= LISTS_MAX {
            known.clear();
        }
    }

    fn has(&self, id: &ChunkId, level: u8) -> bool {
        self.lock().contains(&(*id, level))
    }

    fn insert(&self, id: &ChunkId, level: u8) {
        self.lock().insert((*id, level));
    }
}

impl<'a> Run<'a> {
    /// Whether a chunk is stored, or is being stored by this run.
    pub(super) fn is_known(&self, id: &ChunkId) -> Result<bool> {
        match &self.writer {
            Some(writer) => writer.sink().has(id),
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
        self.stored_lists.make_room();
        self.is_part_stored(depth, id, &mut LISTS_MAX.clone())
    }

    /// The same of a part of a list. `left` is how many lists may be looked at: a file with more of them is read anew, too.
    fn is_part_stored(&self, depth: u8, id: &ChunkId, left: &mut usize) -> Result<bool> {
        let Some(level) = depth.checked_sub(1) else { return self.is_known(id) };
        if self.stored_lists.has(id, level) {
            return Ok(true);
        }
        self.watch.cancel.check()?;
        if *left == 0 || !self.is_known(id)? {
            return Ok(false);
        }
        *left -= 1;
        let is_stored = self.are_parts_stored(level, id, left)?;
        if is_stored {
            self.stored_lists.insert(id, level);
        }
        Ok(is_stored)
    }

    fn are_parts_stored(&self, level: u8, id: &ChunkId, left: &mut usize) -> Result<bool> {
        let ids = match self.reader.list_ids(id, level) {
            Err(error) if error.is_damage() => {
                self.note_damage();
                return Ok(false);
            }
            ids => ids?,
        };
        for id in &ids {
            if !self.is_part_stored(level, id, left)? {
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
