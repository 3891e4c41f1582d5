//! What a run has dealt with, counted by all its threads.

use crate::backup::page_row::Change;
use crate::repo::Totals;
use std::sync::atomic::{AtomicU64, Ordering};

#[derive(Default)]
pub(super) struct Counts {
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

impl Counts {
    /// The counter of files that differ from the last snapshot in this way.
    pub fn files_by(&self, change: Change) -> &AtomicU64 {
        match change {
            Change::Unchanged => &self.files_unchanged,
            Change::New => &self.files_new,
            Change::Changed => &self.files_changed,
        }
    }

    /// All but what the sink counts.
    pub fn totals(&self) -> Totals {
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
