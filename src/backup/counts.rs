//! What a run has dealt with, counted from all its threads.

use crate::cache::Change;
use crate::entry::{Entry, EntryKind};
use crate::repo::Totals;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// What the run has dealt with, counted from all threads.
#[derive(Default)]
pub(super) struct Counts {
    pub files: AtomicU64,
    pub directories: AtomicU64,
    pub others: AtomicU64,
    pub streams: AtomicU64,
    pub bytes: AtomicU64,
    pub files_new: AtomicU64,
    pub files_changed: AtomicU64,
    pub files_unchanged: AtomicU64,
    pub files_removed: AtomicU64,
    pub files_unread: AtomicU64,
    pub bytes_read: AtomicU64,
    /// In a dry run, which reads nothing.
    pub bytes_to_read: AtomicU64,
    pub troubles: AtomicU64,
    pub sockets: AtomicU64,
    /// Set with the run's failure: tasks that have not begun end at once.
    pub failed: AtomicBool,
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Takes back what was counted too early.
pub(super) fn take_back(counter: &AtomicU64, amount: u64) {
    counter.fetch_sub(amount, Ordering::Relaxed);
}

impl Counts {
    /// The counter of files that differ from the last snapshot in this way.
    pub fn files_by(&self, change: Change) -> &AtomicU64 {
        match change {
            Change::Unchanged => &self.files_unchanged,
            Change::New => &self.files_new,
            Change::Changed => &self.files_changed,
        }
    }

    /// Takes back what was counted of an entry that is not saved after all; a file counts as not read.
    pub fn count_dropped(&self, entry: &Entry, change: Change) {
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

    pub fn totals(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
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
        let counts = Counts::default();
        add(&counts.files, 3);
        add(&counts.bytes, 10 + 20 + 30);
        for change in [Change::New, Change::Changed, Change::Unchanged] {
            add(counts.files_by(change), 1);
        }
        add(&counts.directories, 2);
        add(&counts.others, 2);
        let file = |size| Entry { size, ..Entry::new("f", EntryKind::File) };
        counts.count_dropped(&file(10), Change::Changed);
        counts.count_dropped(&file(20), Change::New);
        counts.count_dropped(&Entry::new("d", EntryKind::Directory), Change::New);
        counts.count_dropped(&Entry::new("l", EntryKind::Symlink), Change::New);
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
