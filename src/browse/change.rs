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
    Added,
    Removed,
    Changed(ChangeKind),
}

/// Differences by number and size.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct DiffTotals {
    pub added: u64,
    pub removed: u64,
    pub changed_content: u64,
    pub changed_metadata: u64,
    pub changed_kind: u64,
    /// Sizes of files that are new or changed, as they are now.
    pub bytes_added: u64,
    /// Sizes of files that are gone or changed, as they were.
    pub bytes_removed: u64,
}

impl DiffTotals {
    pub fn is_empty(&self) -> bool {
        *self == DiffTotals::default()
    }

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
