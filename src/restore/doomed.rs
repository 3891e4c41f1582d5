//! What a plan deletes, and why some directories do not make way: the restore follows it exactly.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet};
use std::hash::BuildHasher;

/// Paths as keyed hashes: eight bytes for each, however long they are.
#[derive(Default)]
pub(super) struct Doomed {
    paths: HashSet<u64>,
    /// Directories that were to make way, and why they do not.
    kept: HashMap<u64, String>,
    hasher: RandomState,
}

impl Doomed {
    pub fn insert(&mut self, path: &[u8]) {
        self.paths.insert(self.hasher.hash_one(path));
    }

    pub fn contains(&self, path: &[u8]) -> bool {
        self.paths.contains(&self.hasher.hash_one(path))
    }

    pub fn keep(&mut self, path: &[u8], why: String) {
        self.kept.insert(self.hasher.hash_one(path), why);
    }

    pub fn why_kept(&self, path: &[u8]) -> Option<&str> {
        self.kept.get(&self.hasher.hash_one(path)).map(String::as_str)
    }
}
