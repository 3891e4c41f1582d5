//! What a restore did, counted by all its threads, and its report.

use crate::entry::Warning;
use serde::{Serialize, Serializer};
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a restore did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RestoreReport {
    /// Directories that were created or brought up to date.
    pub directories: u64,
    /// Files that were written.
    pub files: u64,
    /// Links, devices and FIFOs that were created.
    pub others: u64,
    /// Entries that existed and were up to date.
    pub files_kept: u64,
    /// Entries, directories included, that existed and of which nothing but the metadata was restored. The time of a directory does
    /// not count.
    pub metadata_restored: u64,
    /// Existing entries, directories included, that differ and were kept because of `overwrite`.
    pub files_kept_different: u64,
    /// Entries that were deleted because of `delete`.
    pub files_deleted: u64,
    /// Entries, directories included, whose name was free.
    pub created: u64,
    /// Entries, directories included, that replaced something.
    pub replaced: u64,
    /// Entries that were not restored because something that stays has their name.
    pub blocked: u64,
    /// Bytes of content that were written.
    pub bytes_written: u64,
    /// Bytes of content that were read back and compared.
    pub bytes_verified: u64,
    /// What was not restored as it was saved, the first of it.
    pub warnings: Vec<Warning>,
    /// How many warnings there were in all.
    pub warnings_count: u64,
    /// Warnings that are damage of the repository: what they name is missing.
    pub damaged: u64,
    /// Directories that the backup saved in part: something was left out or could not be read.
    pub partial_directories: u64,
    /// How long the restore took.
    #[serde(rename = "seconds", serialize_with = "as_seconds")]
    pub duration: Duration,
}

fn as_seconds<S: Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(duration.as_secs_f64())
}

/// What becomes of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EntryFate {
    Created,
    Replaced,
    /// It existed and was up to date.
    Kept,
    /// It existed, and nothing but its metadata differed.
    Updated,
    /// It was there, differs and is kept all the same.
    Left,
    /// Something that stays has its name.
    Blocked,
    Deleted,
}

pub(super) const FATES: usize = 7;

#[derive(Default)]
pub(super) struct RestoreCounts {
    pub directories: AtomicU64,
    pub files: AtomicU64,
    pub others: AtomicU64,
    /// Files, other entries and bytes of content that are to be in the target at the end.
    pub files_wanted: AtomicU64,
    pub others_wanted: AtomicU64,
    pub bytes_wanted: AtomicU64,
    /// What of these bytes is the content of another name of the same inode.
    pub bytes_linked: AtomicU64,
    pub fates: [AtomicU64; FATES],
    pub bytes_written: AtomicU64,
    pub bytes_verified: AtomicU64,
    pub partial_directories: AtomicU64,
    /// Directories in which nothing is deleted although that is asked for.
    pub spared_directories: AtomicU64,
    pub damaged: AtomicU64,
    /// Entries and parts of directories that could not be restored, or planned, for whatever reason.
    pub failed: AtomicU64,
}

impl RestoreCounts {
    pub(crate) fn fate(&self, fate: EntryFate) -> u64 {
        get(&self.fates[fate as usize])
    }
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

pub(super) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}
