//! Build the entries of a page: keep what did not change, read what did.
//!
//! A page with much to read is built in parts, each by whoever is free: at the end of a run nobody waits long for the
//! one with the largest directory.

use crate::backup::page::Item;
use crate::backup::previous::OldEntries;
use crate::backup::walk::{Folder, add, take_back};
use crate::backup::{Run, TROUBLED, detect};
use crate::cache::Change;
use crate::disk::Stat;
use crate::entry::{Content, Entry, EntryKind, Time};
use rayon::Scope;
use std::ffi::CStr;
use std::ops::Range;
use std::sync::atomic::AtomicU64;

/// Bytes in files that make a part of a page; with the file that passes them.
const PART_BYTES: u64 = 4 << 20;

/// What was in the place of each part of a page before.
pub(super) struct OldParts {
    old: OldEntries,
    /// Where each part begins in them, and their end.
    bounds: Vec<usize>,
}

impl OldParts {
    /// Files that runs which did not commit saw removed.
    pub fn files_removed(&self) -> u64 {
        self.old.files_removed
    }

    /// Whether no directory of this name was saved, as far as the local state knows.
    pub fn lacks_directory(&self, name: &[u8]) -> bool {
        self.old.lacks_directory(name)
    }

    pub fn part(&self, number: usize) -> (&OldEntries, Range<usize>) {
        (&self.old, self.bounds[number]..self.bounds[number + 1])
    }
}

/// What is known of an entry from before.
pub(super) struct Known<'a> {
    entry: &'a Entry,
    /// Of its stat; none where only its tree is known.
    number: Option<u64>,
    /// How it differs from the last snapshot, if that was counted by a run that did not commit.
    change: Change,
    /// What it names is known to be stored.
    is_trusted: bool,
}

/// What came of building a part of a page, beside its entries.
pub(super) struct Built {
    /// An entry must be looked at again next time.
    pub look_again: bool,
    pub files_removed: u64,
}

/// Splits what is in a page into parts: at least one, and none empty but the only one.
pub(super) fn split(mut items: Vec<Item>) -> Vec<Vec<Item>> {
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

impl<'a> Run<'a> {
    /// What was in the place of a page before, and of each of its parts; `begins` are the first names of all but the
    /// first part.
    pub(super) fn old_parts(&self, folder: &Folder, number: usize, begins: &[usize]) -> OldParts {
        let (first, next) = folder.name_range(number);
        let old = self.old_entries(folder, &folder.previous, first, next);
        let place = |name: &[u8]| old.entries.partition_point(|entry| entry.name.as_slice() < name);
        let between = begins.iter().map(|begin| place(folder.name(*begin).to_bytes()));
        let bounds = std::iter::once(0).chain(between).chain([old.entries.len()]).collect();
        OldParts { old, bounds }
    }

    /// Builds the entries of a part of a page, reading what changed. `old` is what was in its place.
    pub(super) fn build_entries<'s>(
        &'s self,
        scope: &Scope<'s>,
        folder: &Folder,
        (old, range): (&OldEntries, Range<usize>),
        items: &mut [Item],
        seen: Time,
    ) -> Built {
        let compare = self.options.comparison;
        let mut look_again = false;
        let mut removed = 0;
        let mut matched = range.start;
        for item in items.iter_mut() {
            if self.is_over() {
                return Built { look_again: true, files_removed: removed };
            }
            let name = folder.name(item.index);
            let known =
                old.entries[matched..range.end].binary_search_by(|entry| entry.name.as_slice().cmp(name.to_bytes()));
            removed += self.count_removed(old, matched, known.unwrap_or_else(|at| at));
            let known = match known {
                // Another kind is another entry.
                Ok(at) if item.stat.kind != Some(old.entries[matched + at].kind) => {
                    removed += self.count_removed(old, matched + at, 1);
                    matched += at + 1;
                    None
                }
                Ok(at) => {
                    let at = matched + at;
                    matched = at + 1;
                    Some(Known {
                        entry: &old.entries[at],
                        number: old.stats.get(at).copied(),
                        change: old.change(at),
                        is_trusted: old.is_trusted,
                    })
                }
                Err(at) => {
                    matched += at;
                    None
                }
            };
            item.number = compare.stat_number(&item.stat);
            TROUBLED.set(false);
            item.entry = self.build_entry(scope, folder, item, known);
            let racy = compare.is_racy(&item.stat, seen);
            if racy || item.entry.is_none() || TROUBLED.get() {
                look_again = true;
                item.number = 0;
            }
        }
        removed += self.count_removed(old, matched, range.end - matched);
        Built { look_again, files_removed: removed }
    }

    /// Counts the files of a directory in which nothing is left.
    pub(super) fn count_all_removed(&self, folder: &Folder) {
        let old = self.old_entries(folder, &folder.previous, None, None);
        add(&self.counts.files_removed, old.files_removed);
        self.count_removed(&old, 0, old.entries.len());
    }

    /// Counts files that are no more; those that no snapshot has were never there.
    fn count_removed(&self, old: &OldEntries, from: usize, count: usize) -> u64 {
        let gone = (from..from + count).filter(|at| old.change(*at) != Change::New).map(|at| &old.entries[at]);
        let files = gone.map(|entry| match &entry.content {
            Content::Tree(tree) => self.count_files(tree),
            _ => u64::from(entry.kind == EntryKind::File),
        });
        let files = files.sum();
        add(&self.counts.files_removed, files);
        files
    }

    pub(super) fn build_entry<'s>(
        &'s self,
        scope: &Scope<'s>,
        folder: &Folder,
        item: &mut Item,
        known: Option<Known>,
    ) -> Option<Entry> {
        let name = folder.name(item.index);
        let compare = self.options.comparison;
        let same_kind = known.as_ref().filter(|known| item.stat.kind == Some(known.entry.kind));
        let is_file = item.stat.is(EntryKind::File);
        if let Some(old) = same_kind
            && old.number.is_some_and(|number| number != 0 && number == item.number)
            && self.holds_what(old)
        {
            item.change = old.change;
            if is_file {
                self.count_file(self.counts.files_by(old.change), item.stat.size);
            }
            return Some(Entry { link_group: detect::link_group(&item.stat), ..old.entry.clone() });
        }
        if !is_file {
            let entry = self.build_special(folder, name, &item.stat);
            if entry.is_none() {
                take_back(&self.counts.others, 1);
            }
            return entry;
        }
        // Without stats from before, size and time have to do; metadata is read anew.
        let is_same = |old: &&Known| {
            old.number.is_none()
                && old.entry.size == item.stat.size
                && old.entry.meta.modified == item.stat.modified
                && !self.parent_ran.is_some_and(|ran| compare.may_have_changed_after(old.entry.meta.modified, ran))
                && self.holds_what(old)
        };
        let content = same_kind.filter(is_same);
        item.change = match (content, &known) {
            (Some(old), _) => old.change,
            (None, Some(old)) if old.change != Change::New => Change::Changed,
            (None, _) => Change::New,
        };
        let entry = match content {
            Some(old) => self.describe_file(folder, name, &item.stat, old.entry),
            None if self.writer.is_none() => Some(self.would_read(name, &item.stat)),
            None => self.read_file(scope, folder, name, &mut item.stat),
        };
        if let (Some(entry), None, Some(old)) = (&entry, content, &known)
            && *entry == (Entry { link_group: entry.link_group, ..old.entry.clone() })
        {
            // Read again to be sure, and the same.
            item.change = old.change;
        }
        let counter = match &entry {
            Some(_) => self.counts.files_by(item.change),
            None => &self.counts.files_unread,
        };
        let is_counted = content.is_none() && self.writer.is_some();
        // What was read is counted already, piece by piece.
        self.count_file(counter, if is_counted { 0 } else { item.stat.size });
        // Counted as it was met; what is in the snapshot is what was read.
        take_back(&self.counts.files, u64::from(entry.is_none()));
        take_back(&self.counts.bytes, item.stat.size);
        add(&self.counts.bytes, entry.as_ref().map_or(0, |entry| entry.size));
        entry
    }

    /// Whether the repository holds what an old entry names: only then can it be used again.
    fn holds_what(&self, old: &Known) -> bool {
        if old.is_trusted {
            return true;
        }
        let is_stored = self.is_stored(old.entry).unwrap_or_else(|error| {
            self.fail(error);
            false
        });
        if !is_stored {
            self.note_damage();
        }
        is_stored
    }

    /// In a dry run: counts what a backup would read. Of names of one inode it reads the first.
    fn would_read(&self, name: &CStr, stat: &Stat) -> Entry {
        let entry = Entry { size: stat.size, ..Entry::new(name.to_bytes(), EntryKind::File) };
        if stat.links > 1 {
            if self.linked(stat).is_some() {
                return entry;
            }
            self.remember_link(stat, &entry);
        }
        add(&self.counts.bytes_to_read, stat.size);
        entry
    }

    pub(super) fn count_file(&self, counter: &AtomicU64, size: u64) {
        add(counter, 1);
        add(&self.watch.progress.files_done, 1);
        add(&self.watch.progress.bytes_done, size);
    }
}
