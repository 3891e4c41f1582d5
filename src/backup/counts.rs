//! What a run has dealt with, counted by all its threads.

use crate::backup::page_row::FileChange;
use crate::entry::{Entry, EntryKind};
use crate::repo::Totals;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(super) struct BackupCounts {
    pub files: AtomicU64,
    pub directories: AtomicU64,
    pub others: AtomicU64,
    pub streams: AtomicU64,
    pub bytes: AtomicU64,
    files_new: AtomicU64,
    files_changed: AtomicU64,
    files_unchanged: AtomicU64,
    pub files_removed: AtomicU64,
    pub files_unread: AtomicU64,
    pub bytes_read: AtomicU64,
    /// In a dry run, which reads nothing.
    pub bytes_to_read: AtomicU64,
    pub sockets: AtomicU64,
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Takes back what was counted too early.
pub(super) fn take_back(counter: &AtomicU64, amount: u64) {
    counter.fetch_sub(amount, Ordering::Relaxed);
}

pub(super) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

impl BackupCounts {
    /// The counter of files that differ from the last snapshot in this way.
    pub(crate) fn files_by(&self, change: FileChange) -> &AtomicU64 {
        match change {
            FileChange::Unchanged => &self.files_unchanged,
            FileChange::New => &self.files_new,
            FileChange::Changed => &self.files_changed,
        }
    }

    /// Takes back what was counted of an entry that is not saved after all; a file counts as not read.
    pub(crate) fn count_dropped(&self, entry: &Entry, change: FileChange) {
        match entry.kind {
            EntryKind::File => {
                take_back(&self.files, 1);
                take_back(&self.bytes, entry.size);
                take_back(self.files_by(change), 1);
                add(&self.files_unread, 1);
            }
            EntryKind::Directory => take_back(&self.directories, 1),
            _ => take_back(&self.others, 1),
        }
    }

    /// All but what the sink counts.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            files: get(&self.files),
            directories: get(&self.directories),
            others: get(&self.others),
            streams: get(&self.streams),
            bytes: get(&self.bytes),
            files_new: get(&self.files_new),
            files_changed: get(&self.files_changed),
            files_unchanged: get(&self.files_unchanged),
            files_removed: get(&self.files_removed),
            files_unread: get(&self.files_unread),
            bytes_read: get(&self.bytes_read),
            bytes_new: 0,
            bytes_stored: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They were counted as saved, though no snapshot has them.
    #[test]
    fn entries_that_are_dropped_are_not_counted_as_saved() {
        let counts = BackupCounts::default();
        add(&counts.files, 3);
        add(&counts.bytes, 10 + 20 + 30);
        for change in [FileChange::New, FileChange::Changed, FileChange::Unchanged] {
            add(counts.files_by(change), 1);
        }
        add(&counts.directories, 2);
        add(&counts.others, 2);
        let file = |size| Entry { size, ..Entry::new("f", EntryKind::File) };
        counts.count_dropped(&file(10), FileChange::Changed);
        counts.count_dropped(&file(20), FileChange::New);
        counts.count_dropped(&Entry::new("d", EntryKind::Directory), FileChange::New);
        counts.count_dropped(&Entry::new("l", EntryKind::Symlink), FileChange::New);
        let expected = Totals {
            files: 1,
            bytes: 30,
            files_unchanged: 1,
            files_unread: 2,
            directories: 1,
            others: 1,
            ..Totals::default()
        };
        assert_eq!(counts.totals(), expected);
    }
}
