//! One page of a directory: stat its entries, keep what did not change, read what did, store the page.

use crate::backup::previous::{OldEntries, Previous};
use crate::backup::walk::{Above, Folder, add, take_back};
use crate::backup::{Run, TROUBLED, detect};
use crate::cache::PageRow;
use crate::disk::Stat;
use crate::entry::{Content, Entry, EntryKind, Time};
use crate::error::{Error, Kind};
use crate::id::ChunkId;
use crate::repo::tree::store_page;
use crate::watch::now;
use rayon::Scope;
use std::cell::RefCell;
use std::ffi::CStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// A page whose directories below are not done yet.
pub(super) struct Page {
    folder: Arc<Folder>,
    number: usize,
    work: Mutex<Work>,
    /// The trees of directories, as they are done; a place for each item.
    below: Mutex<Vec<Option<ChunkId>>>,
    /// Directories below that are not done, and one for the page's own files.
    left: AtomicUsize,
}

struct Work {
    items: Vec<Item>,
    fingerprint: [u8; 16],
    /// The row of the state when neither names nor stats have changed; then no entry was built.
    unchanged: Option<PageRow>,
}

struct Item {
    /// In the folder's kept names.
    index: usize,
    stat: Stat,
    entry: Option<Entry>,
    /// What goes to the local state: 0 for "look again".
    number: u64,
}

impl Page {
    fn work(&self) -> MutexGuard<'_, Work> {
        self.work.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }
}

thread_local! {
    static FINGERPRINT_BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

impl<'a> Run<'a> {
    pub(super) fn do_page<'s>(&'s self, scope: &Scope<'s>, folder: &Arc<Folder>, number: usize) {
        if self.is_over() {
            return;
        }
        let seen = now();
        let items = self.stat_page(folder, number);
        let compare = self.options.comparison;
        let fingerprint = FINGERPRINT_BUFFER.with_borrow_mut(|buffer| {
            let named = items.iter().map(|item| (folder.name(item.index).to_bytes(), &item.stat));
            compare.fingerprint(named, buffer)
        });
        let first_name = folder.name(folder.page_range(number).start).to_bytes();
        let row = folder.previous.row(first_name).filter(|row| row.fingerprint == fingerprint);
        let directories: Vec<usize> = (0..items.len()).filter(|at| items[*at].stat.is(EntryKind::Directory)).collect();
        self.count_items(&items);
        if let Some(row) = row {
            self.count_unchanged(&items);
            if directories.is_empty() {
                return self.page_done(scope, folder, number, Some(row.page));
            }
        }
        let page = Arc::new(Page {
            folder: folder.clone(),
            number,
            left: AtomicUsize::new(directories.len() + 1),
            below: Mutex::new(vec![None; items.len()]),
            work: Mutex::new(Work { items, fingerprint, unchanged: row.cloned() }),
        });
        // Pushed backwards, they are walked in the order of their names.
        for slot in directories.into_iter().rev() {
            let (index, device) = {
                let work = page.work();
                (work.items[slot].index, work.items[slot].stat.device)
            };
            let page = page.clone();
            scope.spawn(move |scope| self.visit_below(scope, page, slot, index, device));
        }
        if row.is_none() {
            let mut items = std::mem::take(&mut page.work().items);
            let look_again = self.build_entries(scope, folder, number, &mut items, seen);
            let mut work = page.work();
            work.items = items;
            if look_again {
                work.fingerprint = [0; 16];
            }
        }
        self.one_less(scope, &page);
    }

    /// The one entry of a folder that stands for a source which is no directory.
    pub(super) fn single<'s>(&'s self, scope: &Scope<'s>, folder: &Folder) -> Result<Option<Entry>, Error> {
        let seen = now();
        let mut items = self.stat_page(folder, 0);
        self.count_items(&items);
        let named = items.iter().map(|item| (folder.name(item.index).to_bytes(), &item.stat));
        let fingerprint = self.options.comparison.fingerprint(named, &mut Vec::new());
        let row = folder.previous.row(folder.name(0).to_bytes()).filter(|row| row.fingerprint == fingerprint);
        if row.is_some()
            && let [entry] = self.old_entries(&folder.previous, None, None).entries.as_slice()
        {
            self.count_unchanged(&items);
            return Ok(Some(entry.clone()));
        }
        let look_again = self.build_entries(scope, folder, 0, &mut items, seen);
        let Some(Item { entry: Some(entry), number, .. }) = items.into_iter().next() else { return Ok(None) };
        if self.state.is_some() && self.writer.is_some() {
            let first_name = folder.name(0).to_bytes().to_vec();
            let page = store_page(std::slice::from_ref(&entry), &mut |bytes| self.store_tree(bytes))?;
            let fingerprint = if look_again { [0; 16] } else { fingerprint };
            let row = PageRow { first_name, fingerprint, below: [0; 16], page, stats: vec![number] };
            self.noted().rows.push((folder.key, row));
        }
        Ok(Some(entry))
    }

    fn stat_page(&self, folder: &Folder, number: usize) -> Vec<Item> {
        let range = folder.page_range(number);
        let mut items = Vec::with_capacity(range.len());
        for index in range {
            let name = folder.name(index);
            match folder.handle.stat(name) {
                Ok(stat) if stat.kind.is_none() => add(&self.counts.sockets, 1),
                Ok(stat) if stat.is(EntryKind::File) && self.options.rules.leaves_out_file(stat.size) => {}
                Ok(stat) => items.push(Item { index, stat, entry: None, number: 0 }),
                Err(error) if error.is(Kind::NotFound) => {
                    self.trouble(&folder.child_path(name.to_bytes()), "it vanished while its directory was read");
                }
                Err(error) => self.trouble(&folder.child_path(name.to_bytes()), error.to_string()),
            }
        }
        items
    }

    fn count_items(&self, items: &[Item]) {
        let (mut files, mut directories, mut bytes) = (0, 0, 0);
        for item in items {
            match item.stat.kind {
                Some(EntryKind::File) => (files, bytes) = (files + 1, bytes + item.stat.size),
                Some(EntryKind::Directory) => directories += 1,
                _ => {}
            }
        }
        add(&self.counts.files, files);
        add(&self.counts.directories, directories);
        add(&self.counts.bytes, bytes);
        add(&self.counts.others, items.len() as u64 - files - directories);
        add(&self.watch.progress.entries, items.len() as u64);
    }

    fn count_unchanged(&self, items: &[Item]) {
        let files = items.iter().filter(|item| item.stat.is(EntryKind::File));
        let (count, bytes) = files.fold((0, 0), |(count, bytes), item| (count + 1, bytes + item.stat.size));
        add(&self.counts.files_unchanged, count);
        add(&self.watch.progress.files_done, count);
        add(&self.watch.progress.bytes_done, bytes);
    }

    fn visit_below<'s>(&'s self, scope: &Scope<'s>, page: Arc<Page>, slot: usize, index: usize, device: u64) {
        let folder = page.folder.clone();
        let name = folder.name(index);
        let above = Above::Page(page, slot);
        let path = folder.child_path(name.to_bytes());
        let Some(place) = self.place_below(folder.place, &path, device) else {
            return self.finish_empty(scope, above);
        };
        let previous = self.previous_below(&folder.previous, name.to_bytes(), &path);
        let handle = folder.handle.open_child(name);
        self.visit(scope, above, path, handle, previous, place);
    }

    /// The tree of a directory below has come.
    pub(super) fn below_done<'s>(&'s self, scope: &Scope<'s>, page: &Arc<Page>, slot: usize, tree: ChunkId) {
        page.below.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[slot] = Some(tree);
        self.one_less(scope, page);
    }

    fn one_less<'s>(&'s self, scope: &Scope<'s>, page: &Arc<Page>) {
        if page.left.fetch_sub(1, Ordering::AcqRel) == 1 && !self.is_over() {
            match self.finish_page(scope, page) {
                Ok(id) => self.page_done(scope, &page.folder, page.number, id),
                Err(error) => self.fail(error),
            }
        }
    }

    /// Builds the entries of a page, reading what changed. Says whether any must be looked at again next time.
    fn build_entries<'s>(
        &'s self,
        scope: &Scope<'s>,
        folder: &Folder,
        number: usize,
        items: &mut [Item],
        seen: Time,
    ) -> bool {
        let (first, next) = folder.name_range(number);
        let old = self.old_entries(&folder.previous, first, next);
        let compare = self.options.comparison;
        let mut look_again = false;
        let mut matched = 0;
        for item in items.iter_mut() {
            if self.is_over() {
                return true;
            }
            let name = folder.name(item.index);
            let known = old.entries[matched..].binary_search_by(|entry| entry.name.as_slice().cmp(name.to_bytes()));
            self.count_removed(&old, matched, known.unwrap_or_else(|at| at));
            let known = match known {
                Ok(at) => {
                    let at = matched + at;
                    matched = at + 1;
                    Some((&old.entries[at], old.stats.get(at).copied()))
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
        self.count_removed(&old, matched, old.entries.len() - matched);
        look_again
    }

    fn count_removed(&self, old: &OldEntries, from: usize, count: usize) {
        for entry in &old.entries[from..from + count] {
            let files = match &entry.content {
                Content::Tree(tree) => self.count_files(tree),
                _ => u64::from(entry.kind == EntryKind::File),
            };
            add(&self.counts.files_removed, files);
        }
    }

    fn build_entry<'s>(
        &'s self,
        scope: &Scope<'s>,
        folder: &Folder,
        item: &mut Item,
        known: Option<(&Entry, Option<u64>)>,
    ) -> Option<Entry> {
        let name = folder.name(item.index);
        let same_kind = known.filter(|(old, _)| item.stat.kind == Some(old.kind));
        let is_file = item.stat.is(EntryKind::File);
        if let Some((old, Some(number))) = same_kind
            && number != 0
            && number == item.number
        {
            if is_file {
                self.count_file(&self.counts.files_unchanged, item.stat.size);
            }
            return Some(old.clone());
        }
        if !is_file {
            let entry = self.build_special(folder, name, &item.stat);
            if entry.is_none() {
                take_back(&self.counts.others, 1);
            }
            return entry;
        }
        // Without stats from before, size and time have to do; metadata is read anew.
        let content = same_kind.filter(|(old, number)| {
            number.is_none() && old.size == item.stat.size && old.meta.modified == item.stat.modified
        });
        let entry = match content {
            Some((old, _)) => self.describe_file(folder, name, &item.stat, old),
            None if self.writer.is_none() => Some(self.would_read(name, &item.stat)),
            None => self.read_file(scope, folder, name, &mut item.stat),
        };
        let counter = match (&entry, &content, known) {
            (None, _, _) => &self.counts.files_unread,
            (_, Some(_), _) => &self.counts.files_unchanged,
            (_, None, Some(_)) => &self.counts.files_changed,
            (_, None, None) => &self.counts.files_new,
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

    fn count_file(&self, counter: &std::sync::atomic::AtomicU64, size: u64) {
        add(counter, 1);
        add(&self.watch.progress.files_done, 1);
        add(&self.watch.progress.bytes_done, size);
    }

    /// All below is done: the page's id, from before when nothing differs. None for a page without entries.
    fn finish_page<'s>(&'s self, scope: &Scope<'s>, page: &Page) -> Result<Option<ChunkId>, Error> {
        let mut work = page.work();
        let trees = std::mem::take(&mut *page.below.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        let below = detect::below(trees.iter().flatten().copied());
        let folder = &page.folder;
        let mut fingerprint = work.fingerprint;
        let mut stats: Option<Vec<u64>> = None;
        if let Some(row) = work.unchanged.take() {
            if row.below == below {
                return Ok(Some(row.page));
            }
            let (first, next) = folder.name_range(page.number);
            let old = self.old_entries(&Previous::State(vec![row.clone()]), first, next);
            if old.entries.len() == work.items.len() {
                for (item, entry) in work.items.iter_mut().zip(old.entries) {
                    item.entry = Some(entry);
                }
                stats = Some(row.stats);
            } else {
                // The old page is not to be had any more: read everything of it anew.
                let mut items = std::mem::take(&mut work.items);
                let files = items.iter().filter(|item| item.stat.is(EntryKind::File)).count();
                take_back(&self.counts.files_unchanged, files as u64);
                for item in &mut items {
                    item.number = 0;
                    item.entry = self.build_entry(scope, folder, item, None);
                }
                fingerprint = [0; 16];
                work.items = items;
            }
        }
        let mut entries = Vec::with_capacity(work.items.len());
        let mut numbers = Vec::with_capacity(work.items.len());
        for (at, item) in work.items.iter_mut().enumerate() {
            let Some(mut entry) = item.entry.take() else { continue };
            if let Some(tree) = trees[at] {
                entry.content = Content::Tree(tree);
            }
            entries.push(entry);
            numbers.push(stats.as_ref().map_or(item.number, |stats| stats[at]));
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let id = store_page(&entries, &mut |bytes| self.store_tree(bytes))?;
        let first_name = folder.name(folder.page_range(page.number).start).to_bytes().to_vec();
        let row = PageRow { first_name, fingerprint, below, page: id, stats: numbers };
        if self.state.is_some() && self.writer.is_some() {
            self.noted().rows.push((folder.key, row));
        }
        Ok(Some(id))
    }
}
