//! Look up whether what an old entry names is stored: local state and old trees spare reading files, never asking the index.

use crate::backup::baseline::Baseline;
use crate::backup::stored_lists::LISTS_MAX;
use crate::entry::{Content, Entry};
use crate::error::Result;
use crate::id::ChunkId;

impl Baseline<'_> {
    /// Whether [`is_stored`](Self::is_stored) can answer: a put-only key opens no list.
    pub(crate) fn can_look_up(&self, entry: &Entry) -> bool {
        self.may_read() || !matches!(entry.content, Content::List { .. })
    }

    /// Whether all content of an entry is stored. Of a directory that is decided when it is walked.
    pub(crate) fn is_stored(&self, entry: &Entry) -> Result<bool> {
        match &entry.content {
            Content::Empty | Content::Inline(_) | Content::Tree(_) => Ok(true),
            Content::Chunks(ids) => self.are_known(ids),
            Content::List { depth, root } => self.is_list_stored(*depth, root),
        }
    }

    fn are_known(&self, ids: &[ChunkId]) -> Result<bool> {
        for id in ids {
            if !self.store.contains(id)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// A list that cannot be read is as good as missing: the file is read anew then, which stores it again.
    pub(crate) fn is_list_stored(&self, depth: u8, id: &ChunkId) -> Result<bool> {
        self.lists.make_room();
        self.is_part_stored(depth, id, &mut LISTS_MAX.clone())
    }

    /// The same of a part of a list. `remaining` is how many more lists may be looked at: a file with more of them is read anew, too.
    fn is_part_stored(&self, depth: u8, id: &ChunkId, remaining: &mut usize) -> Result<bool> {
        let Some(level) = depth.checked_sub(1) else { return self.store.contains(id) };
        if self.lists.has(id, level) {
            return Ok(true);
        }
        self.ledger.watch().cancel.check()?;
        if *remaining == 0 || !self.store.contains(id)? {
            return Ok(false);
        }
        *remaining -= 1;
        let is_stored = self.are_parts_stored(level, id, remaining)?;
        if is_stored {
            self.lists.insert(id, level);
        }
        Ok(is_stored)
    }

    fn are_parts_stored(&self, level: u8, id: &ChunkId, remaining: &mut usize) -> Result<bool> {
        let ids = match self.reader.list_ids(id, level) {
            Err(error) if error.is_damage() => {
                self.damage.note();
                return Ok(false);
            }
            ids => ids?,
        };
        for id in &ids {
            if !self.is_part_stored(level, id, remaining)? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
