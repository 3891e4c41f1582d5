//! Marks in the cache that the repository has lost something that this host knew. They stay until a backup has reported the loss
//! and has found out what it means: other commands, and backups of other sources, meet a loss first and forget it.

use crate::disk::own_files::names_in;
use crate::disk::whole::{make_private_dir, read_own, write_whole};
use crate::error::Result;
use crate::id::IndexId;
use crate::lock::locked;
use crate::seal::random;
use data_encoding::HEXLOWER;
use rustix::fs::FileType;
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, OnceLock};

const FOLDER: &str = "losses";
/// More marks than any number of commands leaves that meet losses before a backup reports them.
const MARKS_MAX: usize = 1000;
/// Index objects that one mark names; of more, the rest is lost without a name.
const INDEXES_MAX: usize = 10_000;
/// Each has 64 digits and ends a line.
const MARK_BYTES_MAX: u64 = INDEXES_MAX as u64 * 65;
const NAME_BYTES: usize = 8;
/// Prefix of the names of files that are written only to try whether that is possible.
const TRIAL: &str = "trial-";

/// Losses that no backup has reported: names of files, and the index objects that were found to be gone at each time.
#[derive(Clone, Debug, Default)]
pub(crate) struct LossSet(BTreeMap<String, HashSet<IndexId>>);

impl LossSet {
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn names(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// All index objects that were gone.
    pub(crate) fn indexes(&self) -> impl Iterator<Item = &IndexId> {
        self.0.values().flatten()
    }

    pub(crate) fn join(&mut self, other: LossSet) {
        self.0.extend(other.0);
    }

    /// Leaves out the marks of these names.
    pub(crate) fn leave_out<'n>(&mut self, names: impl IntoIterator<Item = &'n String>) {
        names.into_iter().for_each(|name| drop(self.0.remove(name)));
    }

    /// Takes out the marks whose index objects are all there again.
    pub(crate) fn take_moot(&mut self, live: &HashSet<IndexId>) -> LossSet {
        let is_moot = |indexes: &HashSet<IndexId>| !indexes.is_empty() && indexes.is_subset(live);
        let (moot, left) = std::mem::take(&mut self.0).into_iter().partition(|(_, indexes)| is_moot(indexes));
        self.0 = left;
        LossSet(moot)
    }
}

/// The marks of one repository's cache directory.
pub(super) struct LossMarks {
    /// None without a cache: then nothing is marked.
    folder: Option<PathBuf>,
    /// Those that this process has made.
    own: Mutex<LossSet>,
    /// Whether files can be written and removed there, once that was tried.
    can_mark: OnceLock<bool>,
}

impl LossMarks {
    pub(crate) fn at(cache: Option<&Path>) -> Self {
        let folder = cache.map(|cache| cache.join(FOLDER));
        LossMarks { folder, own: Mutex::default(), can_mark: OnceLock::new() }
    }

    fn own(&self) -> MutexGuard<'_, LossSet> {
        locked(&self.own)
    }

    /// Whether losses can be marked. In a cache that cannot be written, marks that were made before count for nothing, as
    /// they cannot be removed.
    pub(crate) fn can_mark(&self) -> bool {
        *self.can_mark.get_or_init(|| {
            let tried = self.write(TRIAL, b"trial\n");
            tried.is_some_and(|(_, path)| std::fs::remove_file(path).is_ok())
        })
    }

    /// Writes a file of a new name that begins so; returns its name and path.
    fn write(&self, prefix: &str, bytes: &[u8]) -> Option<(String, PathBuf)> {
        let folder = self.folder.as_ref()?;
        let write = || -> Result<(String, PathBuf)> {
            make_private_dir(folder)?;
            let name = format!("{prefix}{}", HEXLOWER.encode(&random::<NAME_BYTES>()?));
            let path = folder.join(&name);
            write_whole(&path, bytes)?;
            Ok((name, path))
        };
        // Without a mark the loss is healed all the same, and less is said of it.
        write().ok()
    }

    /// Marks that something is lost, and which index objects are; returns the mark, which is empty if it was not written.
    pub(crate) fn mark(&self, indexes: &HashSet<IndexId>) -> LossSet {
        let lines: String = indexes.iter().take(INDEXES_MAX).map(|index| format!("{index}\n")).collect();
        let written = self.write("", lines.as_bytes()).map(|(name, _)| name);
        let mark = LossSet(written.into_iter().map(|name| (name, indexes.clone())).collect());
        self.own().join(mark.clone());
        mark
    }

    /// All marks of the cache, but for what other processes mark from now on.
    pub(crate) fn all(&self) -> LossSet {
        let listed = self.folder.as_ref().map(|folder| names_in(folder).unwrap_or_default()).unwrap_or_default();
        let files = listed.into_iter().filter(|(_, kind)| matches!(kind, FileType::RegularFile | FileType::Unknown));
        let names = files.filter_map(|(name, _)| name.into_string().ok()).filter(|name| is_mark(name));
        let names: Vec<String> = names.take(MARKS_MAX).collect();
        if names.is_empty() || !self.can_mark() {
            return LossSet::default();
        }
        let read = |name: &String| {
            let path = self.folder.as_ref().map(|folder| folder.join(name));
            let bytes = path.and_then(|path| read_own(&path, MARK_BYTES_MAX).ok()).unwrap_or_default();
            let text = String::from_utf8_lossy(&bytes).into_owned();
            text.lines().filter_map(|line| IndexId::from_hex(line).ok()).collect()
        };
        LossSet(names.into_iter().map(|name| (name.clone(), read(&name))).collect())
    }

    /// Those that this process has made.
    pub(crate) fn marked_here(&self) -> LossSet {
        self.own().clone()
    }

    /// Makes this process forget that it has made these marks, as it has reported the losses.
    pub(crate) fn forget_here(&self, reported: &LossSet) {
        self.own().leave_out(reported.names());
    }

    /// Removes marks whose losses are reported.
    pub(crate) fn remove(&self, reported: &LossSet) {
        self.forget_here(reported);
        for path in reported.names().filter_map(|name| Some(self.folder.as_ref()?.join(name))) {
            // If it stays, the next backup reports the loss once more.
            let _best_effort = std::fs::remove_file(path);
        }
    }
}

fn is_mark(name: &str) -> bool {
    HEXLOWER.decode(name.as_bytes()).is_ok_and(|bytes| bytes.len() == NAME_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_marked_until_it_was_told() {
        let cache = tempfile::tempdir().expect("a directory");
        let losses = LossMarks::at(Some(cache.path()));
        let gone = HashSet::from([IndexId([7; 32])]);
        assert!(losses.all().is_empty());
        losses.mark(&HashSet::new());
        assert!(losses.all().indexes().count() == 0 && !losses.all().is_empty());
        losses.mark(&gone);
        let reported = LossMarks::at(Some(cache.path())).all();
        assert_eq!((reported.names().count(), reported.indexes().count()), (2, 1));
        // All that one of them names may be there again.
        assert_eq!(reported.clone().take_moot(&gone).names().count(), 1);
        // What is lost while a backup reports this stays marked.
        LossMarks::at(Some(cache.path())).mark(&gone);
        losses.remove(&reported);
        assert!(losses.marked_here().is_empty());
        assert_eq!((losses.all().names().count(), losses.all().indexes().count()), (1, 1));
    }

    #[test]
    fn nothing_is_marked_without_a_cache_or_in_one_that_cannot_be_written() {
        let cache = tempfile::tempdir().expect("a directory");
        std::fs::write(cache.path().join(FOLDER), "no directory").expect("written");
        for cache in [None, Some(cache.path())] {
            let losses = LossMarks::at(cache);
            assert!(losses.mark(&HashSet::new()).is_empty() && losses.all().is_empty() && !losses.can_mark());
        }
    }

    /// Two processes that tried the same name at once each found that nothing could be marked.
    #[test]
    fn many_processes_may_try_at_once() {
        let cache = tempfile::tempdir().expect("a directory");
        std::thread::scope(|scope| {
            let tries: Vec<_> =
                (0..8).map(|_| scope.spawn(|| (0..20).all(|_| LossMarks::at(Some(cache.path())).can_mark()))).collect();
            assert!(tries.into_iter().all(|tried| tried.join().expect("it ends")));
        });
        assert!(LossMarks::at(Some(cache.path())).all().is_empty());
    }
}
