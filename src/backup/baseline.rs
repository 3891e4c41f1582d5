//! What a run compares the sources with: the local state, or without one the tree of the last snapshot.

use crate::backup::choose::BaselineChoice;
use crate::backup::chunk_store::ChunkStore;
use crate::backup::damage::KnownLosses;
use crate::backup::detect::Comparison;
use crate::backup::old_entries::{FolderBaseline, OldEntries};
use crate::backup::options::BackupOptions;
use crate::backup::page_row::{FileChange, FolderKey, PageRow};
use crate::backup::state::LocalState;
use crate::backup::stored_lists::StoredLists;
use crate::entry::{Content, Entry, Time};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::repo::{Reader, Repository, Snapshot};
use crate::seal::KeyAccess;
use crate::watch::{Ledger, NoticeKind};
use std::borrow::Cow;

pub(super) struct Baseline<'a> {
    pub reader: Reader,
    pub choice: BaselineChoice,
    pub store: &'a ChunkStore<'a>,
    pub damage: &'a KnownLosses<'a>,
    pub ledger: &'a Ledger<'a>,
    options: &'a BackupOptions,
    /// The key opens what is stored. A put-only key does not, so that changed directories are read again.
    may_read: bool,
    pub(super) lists: StoredLists,
}

impl<'a> Baseline<'a> {
    pub(crate) fn new(
        repo: &Repository,
        choice: BaselineChoice,
        options: &'a BackupOptions,
        store: &'a ChunkStore<'a>,
        damage: &'a KnownLosses<'a>,
        ledger: &'a Ledger<'a>,
    ) -> Self {
        let may_read = repo.keys().access() == KeyAccess::Full;
        let lists = StoredLists::default();
        Baseline { reader: repo.reader(), choice, store, damage, ledger, options, may_read, lists }
    }

    pub(crate) fn state(&self) -> Option<&LocalState> {
        self.choice.state.as_ref()
    }

    pub(crate) fn parent(&self) -> Option<&Snapshot> {
        self.choice.parent.as_ref()
    }

    pub(crate) fn may_read(&self) -> bool {
        self.may_read
    }

    /// What is known of the directory of a source, or of one directly in `/` if that is a source. For `may_be_other` see
    /// [`of_child`](Self::of_child).
    pub(crate) fn of_source(&self, path: &[u8], may_be_other: bool) -> FolderBaseline {
        match (self.state(), self.parent()) {
            _ if self.options.force => FolderBaseline::Nothing,
            (_, Some(_)) if self.ignores_tree(may_be_other) => FolderBaseline::Nothing,
            (_, Some(parent)) if self.choice.compare_with_parent => self.of_path(parent, path),
            (Some(_), _) => self.of_state(FolderKey::of(path)),
            _ => FolderBaseline::Nothing,
        }
    }

    /// What is known of sources in one directory that are not directories themselves.
    pub(crate) fn of_list(
        &self,
        folder: &[u8],
        key: FolderKey,
        names: &[Vec<u8>],
        may_be_other: bool,
    ) -> FolderBaseline {
        match self.parent() {
            _ if self.options.force => FolderBaseline::Nothing,
            Some(_) if self.ignores_tree(may_be_other) => FolderBaseline::Nothing,
            Some(parent) if self.choice.compare_with_parent => self.of_path(parent, folder).of_list(names),
            _ => self.of_state(key),
        }
    }

    /// What is known of a directory below another one. Where something is mounted, or was when the snapshot was made, these may be two
    /// directories.
    pub(crate) fn of_child(
        &self,
        above: &FolderBaseline,
        name: &[u8],
        path: &[u8],
        may_be_other: bool,
    ) -> FolderBaseline {
        match above {
            _ if self.options.force => FolderBaseline::Nothing,
            FolderBaseline::Entries(_) if self.ignores_tree(may_be_other) => FolderBaseline::Nothing,
            FolderBaseline::Entries(_) => self.of_tree(above.tree_below(name)),
            _ if self.choice.compare_with_parent => FolderBaseline::Nothing,
            _ => self.of_state(FolderKey::of(path)),
        }
    }

    /// Whether what a tree has is not compared with. With `--parent` it is: the user vouches for that snapshot.
    pub(crate) fn ignores_tree(&self, may_be_other: bool) -> bool {
        may_be_other && self.choice.compare_with_parent && self.options.parent.is_none()
    }

    fn of_state(&self, key: FolderKey) -> FolderBaseline {
        self.state().map_or(FolderBaseline::Nothing, |state| FolderBaseline::Pages(state.pages(key)))
    }

    /// A directory in the tree of a snapshot.
    fn of_path(&self, snapshot: &Snapshot, path: &[u8]) -> FolderBaseline {
        match self.content_at(snapshot, path) {
            Ok(Content::Tree(below)) => self.of_tree(Some(below)),
            Ok(_) => FolderBaseline::Nothing,
            Err(error) => {
                self.met_damage(error, "everything is read again");
                FolderBaseline::Nothing
            }
        }
    }

    /// An old tree that cannot be read must not fail the backup, which stores what is missing.
    fn of_tree(&self, tree: Option<ChunkId>) -> FolderBaseline {
        let Some(tree) = tree.filter(|_| self.may_read) else { return FolderBaseline::Nothing };
        match self.reader.directory(&tree) {
            Ok(entries) => FolderBaseline::Entries(entries),
            Err(error) => {
                self.met_damage(error, "its files are read again");
                FolderBaseline::Nothing
            }
        }
    }

    /// The content of what a snapshot has at a path; empty where it has nothing.
    fn content_at(&self, snapshot: &Snapshot, path: &[u8]) -> Result<Content> {
        if path.iter().all(|byte| *byte == b'/') {
            return Ok(Content::Tree(snapshot.root));
        }
        Ok(self.entry_at(snapshot, path)?.map_or(Content::Empty, |entry| entry.content))
    }

    /// What a snapshot has at a path below `/`.
    pub(super) fn entry_at(&self, snapshot: &Snapshot, path: &[u8]) -> Result<Option<Entry>> {
        let mut found: Option<Entry> = None;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let tree = match found.map(|above| above.content) {
                None => snapshot.root,
                Some(Content::Tree(tree)) => tree,
                Some(_) => return Ok(None),
            };
            let Some(entry) = self.reader.lookup(&tree, name)? else { return Ok(None) };
            found = Some(entry);
        }
        Ok(found)
    }

    /// Reads what streams will be compared with, so that damage to it is known before they are read.
    pub(crate) fn read_old_streams(&self, snapshot: &Snapshot, names: &[&[u8]]) {
        for name in names {
            let content = self.content_at(snapshot, name);
            let read = content.and_then(|content| match content {
                Content::List { depth, root } => self.is_list_stored(depth, &root).map(drop),
                _ => Ok(()),
            });
            if let Err(error) = read {
                self.met_damage(error, "a new snapshot is created");
            }
        }
    }

    /// Old entries with names from `first` (open below when none) to before `next` (open above when none). `is_new` says that
    /// the last snapshot does not have the directory.
    pub(crate) fn old_entries(
        &self,
        known: &FolderBaseline,
        is_new: bool,
        first: Option<&[u8]>,
        next: Option<&[u8]>,
    ) -> OldEntries {
        let inside = |name: &[u8]| first.is_none_or(|first| name >= first) && next.is_none_or(|next| name < next);
        match known {
            FolderBaseline::Nothing => OldEntries::default(),
            FolderBaseline::Entries(entries) => {
                let entries = entries.iter().filter(|entry| inside(&entry.name)).cloned().collect();
                OldEntries { entries, ..OldEntries::default() }
            }
            FolderBaseline::Pages(rows) => {
                // The page that contains `first` begins at or before it.
                let from = first.map_or(0, |first| rows.partition_point(|row| row.first_name.as_slice() <= first));
                let from = from.saturating_sub(usize::from(first.is_some()));
                let to = next.map_or(rows.len(), |next| rows.partition_point(|row| row.first_name.as_slice() < next));
                let mut old = OldEntries { is_trusted: true, is_whole: self.may_read, ..OldEntries::default() };
                for row in rows.get(from..to).unwrap_or_default() {
                    self.add_page(row, &inside, &mut old);
                }
                if is_new {
                    old.files_removed = 0;
                    old.changes = vec![FileChange::New; old.entries.len()];
                }
                old
            }
        }
    }

    fn add_page(&self, row: &PageRow, inside: &dyn Fn(&[u8]) -> bool, old: &mut OldEntries) {
        let Some(state) = self.state().filter(|_| self.may_read) else { return };
        let (is_trusted, is_uncommitted) = (state.is_trusted(row), state.is_uncommitted(row));
        old.is_trusted &= is_trusted;
        if is_uncommitted && inside(&row.first_name) {
            old.files_removed += u64::from(row.files_removed);
        }
        let entries = match self.entries_of_page(&row.page, is_trusted) {
            Ok(entries) => entries,
            Err(error) => {
                old.is_whole = false;
                return self.met_damage(error, "its files are read again");
            }
        };
        if entries.is_empty() {
            old.is_whole = false;
        } else if entries.len() == row.stats.len() && entries.len() == row.changes.len() {
            let known = entries.into_iter().zip(row.stats.iter().zip(&row.changes));
            for (entry, (stat, change)) in known.filter(|(entry, _)| inside(&entry.name)) {
                old.entries.push(entry);
                old.stats.push(*stat);
                old.changes.push(if is_uncommitted { *change } else { FileChange::Unchanged });
            }
        } else {
            old.is_whole = false;
            let notice = "the local state does not match the saved directory: its files are read again";
            self.ledger.watch().notice(NoticeKind::Cache, notice);
        }
    }

    /// The entries of an old page; none if it is not stored any more.
    fn entries_of_page(&self, page: &ChunkId, is_trusted: bool) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        if !is_trusted && !self.store.contains(page)? {
            self.damage.note();
            return Ok(entries);
        }
        self.reader.walk_pages(page, 0, &mut |page| {
            entries.extend(page);
            Ok(())
        })?;
        Ok(entries)
    }

    pub(crate) fn is_row_trusted(&self, row: &PageRow) -> bool {
        self.state().is_some_and(|state| state.is_trusted(row))
    }

    /// The row, if no snapshot has been committed since it was written.
    pub(crate) fn uncommitted<'r>(&self, row: &'r PageRow) -> Option<&'r PageRow> {
        self.state().filter(|state| state.is_uncommitted(row)).map(|_| row)
    }

    /// The rows of a directory in the local state, whose pages this run replaces.
    pub(crate) fn rows_to_replace<'f>(&self, key: FolderKey, known: &'f FolderBaseline) -> Cow<'f, [PageRow]> {
        match (known, self.state()) {
            (FolderBaseline::Pages(rows), _) => Cow::Borrowed(rows),
            // The local state is not asked, but it is kept for the next run.
            (_, Some(state)) if self.options.force || self.options.parent.is_some() => Cow::Owned(state.pages(key)),
            _ => Cow::Borrowed(&[]),
        }
    }

    /// Whether a file that was last written to at this time may have been written to again without another time after the backup
    /// that is compared with had saved it.
    pub(crate) fn may_have_changed_since(&self, comparison: &Comparison, written: Time) -> bool {
        self.choice.parent_ran().is_some_and(|ran| comparison.may_have_changed_after(written, ran))
    }

    /// An old tree cannot be read. If something is missing, that was reported when the backup began, or by an earlier one. What
    /// fails for another reason than damage (an outage, a limit of this machine) would fail for every page, and ends the run.
    pub(crate) fn met_damage(&self, error: Error, so: &str) {
        if !error.is_damage() {
            return self.ledger.fail(error);
        }
        self.damage.note();
        if !self.damage.is_announced() {
            self.ledger.watch().notice(NoticeKind::Damage, format!("{error}; {so}"));
        }
    }
}
