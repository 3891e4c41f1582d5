//! Entries of a directory as they were saved last time, by ranges of names.

use crate::backup::page_row::{FileChange, PageRow};
use crate::entry::{Content, Entry};
use crate::id::ChunkId;
use std::collections::HashSet;
use std::ops::Range;

/// What is known of a directory from before.
pub(super) enum FolderBaseline {
    Nothing,
    /// Its pages, with the stats of their entries.
    Pages(Vec<PageRow>),
    /// Its entries, without stats: size and time must do.
    Entries(Vec<Entry>),
}

impl FolderBaseline {
    /// The row of the page that begins at this name.
    pub(crate) fn row(&self, first_name: &[u8]) -> Option<&PageRow> {
        let FolderBaseline::Pages(rows) = self else { return None };
        let at = rows.binary_search_by(|row| row.first_name.as_slice().cmp(first_name)).ok()?;
        Some(&rows[at])
    }

    /// What is known of these names in a directory. Directories in it that are sources of their own are no part of the list, and not
    /// removed because they are not in it.
    pub(crate) fn of_list(self, names: &[Vec<u8>]) -> FolderBaseline {
        match self {
            FolderBaseline::Entries(mut entries) => {
                let names: HashSet<&[u8]> = names.iter().map(Vec::as_slice).collect();
                entries.retain(|entry| !entry.is_directory() || names.contains(entry.name.as_slice()));
                FolderBaseline::Entries(entries)
            }
            other => other,
        }
    }

    fn entry(&self, name: &[u8]) -> Option<&Entry> {
        let FolderBaseline::Entries(entries) = self else { return None };
        let at = entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok()?;
        Some(&entries[at])
    }

    /// Whether a tree that the sources are compared with has there what was mounted.
    pub(crate) fn was_mounted(&self, name: &[u8]) -> bool {
        self.entry(name).is_some_and(|entry| entry.is_mounted)
    }

    /// The tree of a directory below, if trees are what the sources are compared with.
    pub(crate) fn tree_below(&self, name: &[u8]) -> Option<ChunkId> {
        match self.entry(name)?.content {
            Content::Tree(id) => Some(id),
            _ => None,
        }
    }
}

/// Old entries of a range of names, with their stat numbers where they are known.
#[derive(Default)]
pub(super) struct OldEntries {
    pub entries: Vec<Entry>,
    /// As many as entries, or none.
    pub stats: Vec<u64>,
    /// How each differs from the last committed snapshot, while a run that did not commit wrote it: as many as entries, or
    /// none.
    pub changes: Vec<FileChange>,
    /// Files that runs which did not commit saw removed.
    pub files_removed: u64,
    /// Everything that the entries name is known to be stored; else each has to be looked up.
    pub is_trusted: bool,
    /// All pages of the local state could be read.
    pub is_whole: bool,
}

/// One entry as it was saved last time.
pub(super) struct OldEntry<'a> {
    pub entry: &'a Entry,
    /// Of its stat; none where only its tree is known.
    pub number: Option<u64>,
    /// How it differs from the last snapshot, if that was counted by a run that did not commit.
    pub change: FileChange,
    /// What it names is known to be stored.
    pub is_trusted: bool,
}

impl OldEntries {
    pub(crate) fn get(&self, at: usize) -> OldEntry<'_> {
        OldEntry {
            entry: &self.entries[at],
            number: self.stats.get(at).copied(),
            change: self.change(at),
            is_trusted: self.is_trusted,
        }
    }

    pub(crate) fn change(&self, at: usize) -> FileChange {
        self.changes.get(at).copied().unwrap_or_default()
    }

    /// Whether no directory of this name was saved, as far as the local state knows.
    pub(crate) fn lacks_directory(&self, name: &[u8]) -> bool {
        let found = self.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name));
        self.is_whole && !found.is_ok_and(|at| self.entries[at].is_directory())
    }
}

/// The old entries of a page, in parts.
pub(super) struct OldParts {
    pub old: OldEntries,
    /// Where each part begins in them, and their end.
    bounds: Vec<usize>,
}

impl OldParts {
    /// `begins` are the first names of all parts but the first.
    pub(crate) fn new<'n>(old: OldEntries, begins: impl Iterator<Item = &'n [u8]>) -> Self {
        let place = |name: &[u8]| old.entries.partition_point(|entry| entry.name.as_slice() < name);
        let bounds = std::iter::once(0).chain(begins.map(place)).chain([old.entries.len()]).collect();
        OldParts { old, bounds }
    }

    /// The range of a part.
    pub(crate) fn range(&self, part: usize) -> Range<usize> {
        self.bounds[part]..self.bounds[part + 1]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryKind;

    fn entry(name: &str, kind: EntryKind) -> Entry {
        Entry::new(name.as_bytes(), kind)
    }

    #[test]
    fn parts_hold_what_is_between_their_first_names() {
        let entries = ["b", "d", "e", "h"].map(|name| entry(name, EntryKind::File)).to_vec();
        let old = OldEntries { entries, ..OldEntries::default() };
        let parts = OldParts::new(old, [&b"c"[..], b"e", b"z"].into_iter());
        let ranges: Vec<Range<usize>> = (0..4).map(|part| parts.range(part)).collect();
        assert_eq!(ranges, [0..1, 1..2, 2..4, 4..4]);
    }

    #[test]
    fn only_a_state_that_was_read_whole_says_that_a_directory_is_new() {
        let entries = vec![entry("d", EntryKind::Directory), entry("f", EntryKind::File)];
        let mut old = OldEntries { entries, is_whole: true, ..OldEntries::default() };
        assert!(!old.lacks_directory(b"d") && old.lacks_directory(b"f") && old.lacks_directory(b"x"));
        old.is_whole = false;
        assert!(!old.lacks_directory(b"x"));
    }

    #[test]
    fn a_list_keeps_directories_that_it_names() {
        let entries = [("a", EntryKind::Directory), ("b", EntryKind::Directory), ("c", EntryKind::File)];
        let known = FolderBaseline::Entries(entries.map(|(name, kind)| entry(name, kind)).to_vec());
        let FolderBaseline::Entries(kept) = known.of_list(&[b"b".to_vec()]) else { panic!("entries stay entries") };
        assert_eq!(kept.iter().map(|entry| entry.name.as_slice()).collect::<Vec<_>>(), [b"b", b"c"]);
    }
}
