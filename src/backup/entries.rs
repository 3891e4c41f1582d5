//! Build the entries of a page: keep what did not change, read what did.
//!
//! A page with much to read is built in parts, each by any idle reader: so at the end of a run no reader waits long for the one
//! with the largest directory.

use crate::backup::baseline::Baseline;
use crate::backup::counts::{BackupCounts, add, take_back};
use crate::backup::describe::{Describer, EntryWarnings};
use crate::backup::detect::Comparison;
use crate::backup::files::{FileSaver, FileToSave};
use crate::backup::folder::{PageItem, SourceFolder};
use crate::backup::old_entries::{OldEntries, OldEntry};
use crate::backup::page_row::FileChange;
use crate::disk::Stat;
use crate::entry::{Entry, EntryKind, Time};
use crate::watch::Ledger;
use rayon::Scope;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

/// Bytes in files that make a part of a page; with the file that passes them.
const PART_BYTES: u64 = 4 << 20;

/// What came of building a part of a page, beside its entries.
pub(super) struct BuiltPart {
    /// An entry must be looked at again next time.
    pub look_again: bool,
    pub files_removed: u64,
}

/// An entry, if it can be saved.
pub(super) struct BuiltEntry {
    entry: Option<Entry>,
    /// It may be trusted next time: there was no warning about it.
    is_trusted: bool,
    /// It is right, but a warning about it must be repeated.
    look_again: bool,
}

/// Splits what is in a page into parts: at least one, and none empty but the only one.
pub(super) fn split(mut items: Vec<PageItem>) -> Vec<Vec<PageItem>> {
    let mut starts = vec![0];
    let mut bytes = 0;
    for (at, item) in items.iter().enumerate() {
        if bytes >= PART_BYTES {
            starts.push(at);
            bytes = 0;
        }
        bytes += if item.stat.is(EntryKind::File) { item.stat.size } else { 0 };
    }
    let mut parts: Vec<_> = starts.into_iter().rev().map(|start| items.split_off(start)).collect();
    parts.reverse();
    parts
}

pub(super) struct EntryBuilder<'a> {
    pub comparison: Comparison,
    pub baseline: &'a Baseline<'a>,
    pub describer: &'a Describer<'a>,
    pub counts: &'a BackupCounts,
    pub ledger: &'a Ledger<'a>,
    files: FileSaver<'a>,
}

impl<'a> EntryBuilder<'a> {
    pub(crate) fn new(
        comparison: Comparison,
        baseline: &'a Baseline<'a>,
        describer: &'a Describer<'a>,
        files: FileSaver<'a>,
        counts: &'a BackupCounts,
    ) -> Self {
        EntryBuilder { comparison, baseline, describer, counts, ledger: baseline.ledger, files }
    }

    /// A dry run reads no content.
    fn reads_content(&self) -> bool {
        !self.baseline.store.is_dry_run()
    }

    /// Builds the entries of a part of a page, reading what changed. `range` of `old` is what was in its place.
    pub(crate) fn build_part<'s>(
        &'s self,
        scope: &Scope<'s>,
        folder: &SourceFolder,
        items: &mut [PageItem],
        seen: Time,
        old: &OldEntries,
        range: Range<usize>,
    ) -> BuiltPart {
        let mut part = BuiltPart { look_again: false, files_removed: 0 };
        let mut matched = range.start;
        for item in items.iter_mut() {
            if self.ledger.should_stop() {
                return BuiltPart { look_again: true, ..part };
            }
            let name = folder.name(item.index).to_bytes();
            let found = old.entries[matched..range.end].binary_search_by(|entry| entry.name.as_slice().cmp(name));
            let at = matched + found.unwrap_or_else(|at| at);
            part.files_removed += self.count_removed(old, matched..at);
            matched = at + usize::from(found.is_ok());
            let mut known = found.is_ok().then(|| old.get(at));
            if known.as_ref().is_some_and(|known| item.stat.kind != Some(known.entry.kind)) {
                // Another kind is another entry.
                part.files_removed += self.count_removed(old, at..at + 1);
                known = None;
            }
            item.is_idmapped = self.describer.has_idmapped(std::iter::once(&item.stat));
            item.number = self.comparison.stat_number(&item.stat, item.is_idmapped);
            let built = self.build(scope, folder, item, known);
            let racy = self.comparison.is_racy(&item.stat, seen);
            part.look_again |= built.look_again || item.is_idmapped;
            if racy || built.entry.is_none() || !built.is_trusted {
                part.look_again = true;
                item.number = 0;
            }
            item.entry = built.entry;
        }
        part.files_removed += self.count_removed(old, matched..range.end);
        part
    }

    /// Builds the entries of a page whose old page cannot be read any more: everything of it is read anew, and looked at again
    /// next time.
    pub(crate) fn rebuild<'s>(&'s self, scope: &Scope<'s>, folder: &SourceFolder, items: &mut [PageItem]) {
        for item in items {
            item.number = 0;
            item.entry = self.build(scope, folder, item, None).entry;
        }
    }

    /// Counts old files that are not there any more.
    pub(crate) fn count_removed(&self, old: &OldEntries, range: Range<usize>) -> u64 {
        let files = self.baseline.count_old_files(old, range);
        add(&self.counts.files_removed, files);
        files
    }

    fn build<'s>(
        &'s self,
        scope: &Scope<'s>,
        folder: &SourceFolder,
        item: &mut PageItem,
        known: Option<OldEntry>,
    ) -> BuiltEntry {
        let name = folder.name(item.index);
        let path = || folder.child_path(name.to_bytes());
        let warnings = EntryWarnings::new(self.ledger, &path);
        let is_file = item.stat.is(EntryKind::File);
        if let Some(old) = &known
            && item.has_number(old.number)
            && !item.is_idmapped
            && self.holds_what(old)
        {
            item.change = old.change;
            if is_file {
                self.count_file(self.counts.files_by(old.change), item.stat.size);
            }
            self.describer.check_owner(&item.stat, &warnings);
            let entry = Some(marked(self.describer.kept(old.entry, &item.stat), folder, &item.stat));
            return BuiltEntry { entry, is_trusted: true, look_again: warnings.must_repeat() };
        }
        let entry = if is_file {
            let file = FileToSave { folder, name, warnings: &warnings };
            self.build_file(scope, &file, item, known)
        } else {
            let entry = self.describer.special(folder, name, &item.stat, &warnings);
            take_back(&self.counts.others, u64::from(entry.is_none()));
            entry.map(|entry| marked(entry, folder, &item.stat))
        };
        self.describer.check_owner(&item.stat, &warnings);
        BuiltEntry { entry, is_trusted: !warnings.has_warned(), look_again: warnings.must_repeat() }
    }

    fn build_file<'s>(
        &'s self,
        scope: &Scope<'s>,
        file: &FileToSave,
        item: &mut PageItem,
        known: Option<OldEntry>,
    ) -> Option<Entry> {
        let is_mounted = file.folder.place.is_left_by(&item.stat);
        let same_content = known.as_ref().filter(|old| {
            let may_be_other = is_mounted || old.entry.is_mounted;
            let is_known = item.is_idmapped && item.has_number(old.number) && self.holds_what(old);
            is_known || !self.baseline.ignores_tree(may_be_other) && self.has_same_content(old, &item.stat)
        });
        item.change = match (same_content, &known) {
            (Some(old), _) => old.change,
            (None, Some(old)) if old.change != FileChange::New => FileChange::Changed,
            (None, _) => FileChange::New,
        };
        let entry = match same_content {
            Some(old) => {
                Some(self.describer.unchanged_file(file.folder, file.name, &item.stat, old.entry, file.warnings))
            }
            None if self.reads_content() => self.files.save(scope, file, &mut item.stat),
            None => Some(self.would_read(file, &item.stat)),
        };
        let entry = entry.map(|entry| marked(entry, file.folder, &item.stat));
        if let (Some(entry), None, Some(old)) = (&entry, same_content, &known)
            && is_same_but_marks(entry, self.describer.kept(old.entry, &item.stat))
        {
            // Read again to be sure, and the same.
            item.change = old.change;
        }
        let counter = match &entry {
            Some(_) => self.counts.files_by(item.change),
            None => &self.counts.files_unread,
        };
        let is_counted = same_content.is_none() && self.reads_content();
        // What was read is counted already, piece by piece.
        self.count_file(counter, if is_counted { 0 } else { item.stat.size });
        // Counted as it was met; what is in the snapshot is what was read.
        take_back(&self.counts.files, u64::from(entry.is_none()));
        take_back(&self.counts.bytes, item.stat.size);
        add(&self.counts.bytes, entry.as_ref().map_or(0, |entry| entry.size));
        entry
    }

    /// Whether a file without stats from before has its old content: size and time have to do, and metadata is read anew.
    fn has_same_content(&self, old: &OldEntry, stat: &Stat) -> bool {
        let modified = old.entry.meta.modified;
        old.number.is_none()
            && !old.entry.is_doubtful
            && old.entry.size == stat.size
            && modified == stat.modified
            && !self.baseline.may_have_changed_since(&self.comparison, modified)
            && self.holds_what(old)
    }

    /// Whether the repository holds what an old entry names: only then can it be used again.
    fn holds_what(&self, old: &OldEntry) -> bool {
        if old.is_trusted {
            return true;
        }
        let is_stored = self.baseline.is_stored(old.entry).unwrap_or_else(|error| {
            self.ledger.fail(error);
            false
        });
        if !is_stored {
            self.baseline.damage.note();
        }
        is_stored
    }

    /// In a dry run: counts what a backup would read. Of names of one inode it reads the first.
    fn would_read(&self, file: &FileToSave, stat: &Stat) -> Entry {
        let entry = Entry { size: stat.size, ..Entry::new(file.name.to_bytes(), EntryKind::File) };
        if stat.links > 1 {
            if self.files.links.find(stat).is_some() {
                return entry;
            }
            self.files.links.remember(stat, &entry);
        }
        add(&self.counts.bytes_to_read, stat.size);
        entry
    }

    fn count_file(&self, counter: &AtomicU64, size: u64) {
        let progress = &self.ledger.watch().progress;
        add(counter, 1);
        add(&progress.files_done, 1);
        add(&progress.bytes_done, size);
    }
}

/// Marks an entry if it is on another mount than its directory.
fn marked(entry: Entry, folder: &SourceFolder, stat: &Stat) -> Entry {
    let can_be_marked = matches!(entry.kind, EntryKind::File | EntryKind::Directory);
    Entry { is_mounted: can_be_marked && folder.place.is_left_by(stat), ..entry }
}

/// Whether a file is as it was saved. Its marks say how it was saved.
fn is_same_but_marks(entry: &Entry, old: Entry) -> bool {
    *entry == Entry { is_doubtful: entry.is_doubtful, is_mounted: entry.is_mounted, ..old }
}
