//! Index objects that state of a pack what its own bytes refute. Everyone with a key can write one. They count as damaged, so that what
//! they list is stored again, while chunks are read from wherever another index object has them.

use crate::disk::whole::{read_own, write_whole};
use crate::id::IndexId;
use crate::lock::locked;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// More are not remembered for the next run.
const REMEMBERED_MAX: usize = 100_000;
/// A line has the name in hexadecimal digits.
const LINE_BYTES: usize = 2 * 32 + 1;

/// The false index objects that this host knows of.
pub(super) struct FalseIndexes {
    /// None without a cache: then only this process knows.
    path: Option<PathBuf>,
    known: Mutex<HashSet<IndexId>>,
}

impl FalseIndexes {
    pub(crate) fn open(cache: Option<&Path>) -> Self {
        let path = cache.map(|cache| cache.join("false-indexes"));
        let known = path.as_deref().map(read).unwrap_or_default();
        FalseIndexes { path, known: Mutex::new(known) }
    }

    pub(crate) fn all(&self) -> HashSet<IndexId> {
        locked(&self.known).clone()
    }

    pub(crate) fn count(&self) -> usize {
        locked(&self.known).len()
    }

    pub(crate) fn add(&self, indexes: Vec<IndexId>) {
        let mut known = locked(&self.known);
        known.extend(indexes);
        let Some(path) = &self.path else { return };
        // Another process may have found some.
        let all: HashSet<IndexId> = read(path).union(&known).copied().collect();
        let text: String = all.iter().take(REMEMBERED_MAX).map(|index| format!("{index}\n")).collect();
        // What is not remembered, the next read of it finds again.
        let _best_effort = write_whole(path, text.as_bytes());
    }
}

/// What is damaged in the file reads as absent.
fn read(path: &Path) -> HashSet<IndexId> {
    let bytes = read_own(path, (REMEMBERED_MAX * LINE_BYTES) as u64).unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().filter_map(|line| IndexId::from_hex(line).ok()).collect()
}

/// What is wrong with a false index object.
pub(super) fn is_false(index: &IndexId) -> String {
    format!(
        "the index object {index} is false: a pack that it describes holds something else, so the host that wrote it is faulty \
         or its key is in wrong hands"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_remember_what_others_found() {
        let cache = tempfile::tempdir().expect("made");
        let [first, second] = [0, 1].map(|_| FalseIndexes::open(Some(cache.path())));
        first.add(vec![IndexId([1; 32])]);
        second.add(vec![IndexId([2; 32])]);
        assert_eq!((first.count(), second.count()), (1, 1));
        assert_eq!(FalseIndexes::open(Some(cache.path())).all().len(), 2);
        let alone = FalseIndexes::open(None);
        alone.add(vec![IndexId([1; 32])]);
        assert_eq!(alone.count(), 1);
        std::fs::write(cache.path().join("false-indexes"), "rubbish\n\u{1}").expect("written");
        assert_eq!(FalseIndexes::open(Some(cache.path())).count(), 0);
    }
}
