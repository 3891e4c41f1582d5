//! What a plan deletes, and why some directories do not make way: the restore follows it exactly.

use crate::disk::{Identity, Stat};
use crate::entry::{EntryKind, Time};
use std::collections::HashMap;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

/// Paths as keyed hashes, each with that of what the plan found there: sixteen bytes for each, however long they are.
#[derive(Default)]
pub(super) struct PlannedDeletions {
    found: HashMap<u64, u64>,
    /// Directories that were to make way, and why they do not.
    kept: HashMap<u64, String>,
    hasher: RandomState,
}

/// What tells an entry from one that took its name later, and a file from what was written into it later.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct FoundForDeletion {
    kind: Option<EntryKind>,
    /// None on a file system on which it can change.
    identity: Option<Identity>,
    /// None for what changes by itself: a directory, of which each entry is looked at, and what programs talk through.
    modified: Option<Time>,
    size: u64,
}

impl FoundForDeletion {
    /// `is_lasting`: the inode has the same number whenever it is looked at.
    pub(crate) fn of(stat: &Stat, is_lasting: bool) -> FoundForDeletion {
        let is_stored = stat.is(EntryKind::File) || stat.is(EntryKind::Symlink);
        FoundForDeletion {
            kind: stat.kind,
            identity: is_lasting.then(|| stat.identity()),
            modified: is_stored.then_some(stat.modified),
            size: if is_stored { stat.size } else { 0 },
        }
    }
}

impl PlannedDeletions {
    pub(crate) fn insert(&mut self, path: &[u8], found: FoundForDeletion) {
        self.found.insert(self.hasher.hash_one(path), self.hasher.hash_one(found));
    }

    /// Whether the plan deletes what it found at this path.
    pub(crate) fn contains(&self, path: &[u8]) -> bool {
        self.found.contains_key(&self.hasher.hash_one(path))
    }

    /// Whether the plan deletes what is at this path now.
    pub(crate) fn names(&self, path: &[u8], found: FoundForDeletion) -> bool {
        self.found.get(&self.hasher.hash_one(path)) == Some(&self.hasher.hash_one(found))
    }

    pub(crate) fn keep(&mut self, path: &[u8], why: String) {
        self.kept.insert(self.hasher.hash_one(path), why);
    }

    pub(crate) fn why_kept(&self, path: &[u8]) -> Option<&str> {
        self.kept.get(&self.hasher.hash_one(path)).map(String::as_str)
    }
}
