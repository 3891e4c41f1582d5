//! What a run has dealt with, counted from all its threads.

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
    pub warnings: AtomicU64,
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
