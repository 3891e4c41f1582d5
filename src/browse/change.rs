//! Differences between what was saved and what is there now, and their sums.

use serde::Serialize;

/// How an entry has changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKind {
    /// A file was replaced by a directory, and so on.
    Kind,
    /// The bytes, where a link points to, which device it is.
    Content,
    /// The same bytes under another mode, owner, time or attribute.
    Metadata,
}

/// One difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// It is only in the newer one.
    Added,
    /// It is only in the older one.
    Removed,
    /// It is in both, and differs.
    Changed(ChangeKind),
}

/// Differences by number and size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiffTotals {
    /// Entries that are only in the newer one.
    pub added: u64,
    /// Entries that are only in the older one.
    pub removed: u64,
    /// Entries whose content differs.
    pub changed_content: u64,
    /// Entries whose metadata alone differs.
    pub changed_metadata: u64,
    /// Names at which there is another kind of entry.
    pub changed_kind: u64,
    /// Sizes of files that are new or changed, as they are now.
    pub bytes_added: u64,
    /// Sizes of files that are gone or changed, as they were.
    pub bytes_removed: u64,
}

impl DiffTotals {
    pub(super) fn count(&mut self, change: Change, size_old: u64, size_new: u64) {
        match change {
            Change::Added => self.added += 1,
            Change::Removed => self.removed += 1,
            Change::Changed(ChangeKind::Content) => self.changed_content += 1,
            Change::Changed(ChangeKind::Metadata) => self.changed_metadata += 1,
            Change::Changed(ChangeKind::Kind) => self.changed_kind += 1,
        }
        if change != Change::Changed(ChangeKind::Metadata) {
            self.bytes_added += size_new;
            self.bytes_removed += size_old;
        }
    }
}
