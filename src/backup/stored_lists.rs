//! Lists of chunks of which everything is known to be stored.

use crate::id::ChunkId;
use crate::lock::locked;
use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

/// Maximum number of lists that are remembered as stored, and that are looked up for one file. A file of a petabyte has about
/// that many.
pub(super) const LISTS_MAX: usize = 1 << 20;

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
    pub(crate) fn make_room(&self) {
        let mut known = self.lock();
        if known.len() >= LISTS_MAX {
            known.clear();
        }
    }

    pub(crate) fn has(&self, id: &ChunkId, level: u8) -> bool {
        self.lock().contains(&(*id, level))
    }

    pub(crate) fn insert(&self, id: &ChunkId, level: u8) {
        self.lock().insert((*id, level));
    }
}
