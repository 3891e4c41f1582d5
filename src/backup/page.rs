//! One page of a directory: stat its entries, keep what did not change, read what did, store the page.

use crate::backup::build::{Built, OldParts, split};
use crate::backup::previous::Previous;
use crate::backup::walk::{Above, Folder, Found, SavedTree, add, take_back};
use crate::backup::{Run, detect};
use crate::cache::{Change, FolderKey, PageRow};
use crate::disk::Stat;
use crate::entry::{Content, Entry, EntryKind, Time};
use crate::error::{Error, Kind};
use crate::id::ChunkId;
use crate::repo::tree::{check_entries, store_page};
use crate::watch::now;
use rayon::Scope;
use std::cell::RefCell;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// A page whose directories below are not done yet.
pub(super) struct Page {
    folder: Arc<Folder>,
    number: usize,
    work: Mutex<Work>,
    /// The trees of directories, as they are done; a place for each item.
    below: Mutex<Vec<Option<SavedTree>>>,
    /// Directories below and parts of its own that are not done.
    left: AtomicUsize,
}

struct Work {
    /// What is in the page, in parts that different readers may build.
    parts: Vec<Vec<Item>>,
    fingerprint: [u8; 16],
    /// Files that are no more, those included that runs which did not commit saw removed.
    files_removed: u64,
    /// The row of the state when neither names nor stats have changed; then no entry was built.
    unchanged: Option<PageRow>,
}

/// One name of a page.
pub(super) struct Item {
    /// In the folder's kept names.
    pub index: usize,
    pub stat: Stat,
    pub entry: Option<Entry>,
    /// What goes to the local state: 0 for "look again".
    pub number: u64,
    /// How it differs from the last snapshot.
    pub change: Change,
}

impl Page {
    pub fn folder(&self) -> &Arc<Folder> {
        &self.folder
    }

    pub fn number(&self) -> usize {
        self.number
    }

    pub fn into_folder(self) -> Arc<Folder> {
        self.folder
    }

    /// The tree of a directory below has come; says whether the page waits for nothing more.
    pub fn set_below(&self, slot: usize, saved: SavedTree) -> bool {
        self.below.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[slot] = Some(saved);
        self.left.fetch_sub(1, Ordering::AcqRel) == 1
    }

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
        let Some(items) = self.stat_page(folder, number) else {
            return self.page_done(scope, folder, number, None);
        };
        let compare = self.options.comparison;
        let fingerprint = FINGERPRINT_BUFFER.with_borrow_mut(|buffer| {
            let named = items.iter().map(|item| (folder.name(item.index).to_bytes(), &item.stat));
            compare.fingerprint(named, buffer)
        });
        let first_name = folder.name(folder.page_range(number).start).to_bytes();
        let row =
            folder.previous.row(first_name).filter(|row| row.fingerprint == fingerprint && self.is_row_trusted(row));
        let is_directory = |(_, item): &(usize, &Item)| item.stat.is(EntryKind::Directory);
        let directories = items.iter().enumerate().filter(is_directory);
        let directories: Vec<_> = directories.map(|(slot, item)| (slot, item.index, item.stat)).collect();
        let row = row.filter(|row| self.is_at_hand(folder, row, items.len(), directories.is_empty()));
        self.count_items(&items);
        if let Some(row) = row {
            self.count_as_known(&items, row, folder.is_new);
            if directories.is_empty() {
                return self.page_done(scope, folder, number, Some(row.page));
            }
        }
        let parts = if row.is_some() { vec![items] } else { split(items) };
        let begins: Vec<usize> = parts.iter().skip(1).map(|part| part[0].index).collect();
        let old = row.is_none().then(|| Arc::new(self.old_parts(folder, number, &begins)));
        let page = Arc::new(Page {
            folder: folder.clone(),
            number,
            left: AtomicUsize::new(directories.len() + parts.len()),
            below: Mutex::new(vec![None; parts.iter().map(Vec::len).sum()]),
            work: Mutex::new(Work { parts, fingerprint, files_removed: 0, unchanged: row.cloned() }),
        });
        // Pushed backwards, they are walked in the order of their names.
        for (slot, index, stat) in directories.into_iter().rev() {
            let page = page.clone();
            let lacks = |old: &Arc<OldParts>| old.lacks_directory(folder.name(index).to_bytes());
            let is_new = folder.is_new || old.as_ref().is_some_and(lacks);
            scope.spawn(move |scope| self.visit_below(scope, page, slot, index, &stat, is_new));
        }
        let Some(old) = old else { return self.one_less(scope, &page) };
        page.work().files_removed = old.files_removed();
        add(&self.counts.files_removed, old.files_removed());
        for part in (1..=begins.len()).rev() {
            let (page, old) = (page.clone(), old.clone());
            scope.spawn(move |scope| self.do_part(scope, &page, part, &old, seen));
        }
        self.do_part(scope, &page, 0, &old, seen);
    }

    /// Builds the entries of one part of a page.
    fn do_part<'s>(&'s self, scope: &Scope<'s>, page: &Arc<Page>, part: usize, old: &OldParts, seen: Time) {
        if self.is_over() {
            return;
        }
        let mut items = std::mem::take(&mut page.work().parts[part]);
        let Built { look_again, files_removed } =
            self.build_entries(scope, &page.folder, old.part(part), &mut items, seen);
        let mut work = page.work();
        work.parts[part] = items;
        work.files_removed += files_removed;
        if look_again {
            work.fingerprint = [0; 16];
        }
        drop(work);
        self.one_less(scope, page);
    }

    /// The stats of a page's names; none when the directory itself cannot be reached any more.
    fn stat_page(&self, folder: &Folder, number: usize) -> Option<Vec<Item>> {
        let directory = match folder.directory() {
            Ok(directory) => directory,
            Err(error) => {
                folder.mark_partial();
                self.source_error(&folder.path, "some of its contents are missing: ", error);
                return None;
            }
        };
        let range = folder.page_range(number);
        let mut items = Vec::with_capacity(range.len());
        for index in range {
            let name = folder.name(index);
            match directory.stat(name) {
                Ok(stat) if self.is_saved(folder, name, &stat) => {
                    items.push(Item { index, stat, entry: None, number: 0, change: Change::Unchanged });
                    continue;
                }
                Ok(_) => {}
                Err(error) if error.is(Kind::NotFound) => {
                    let what = match folder.above {
                        Above::List(_) => "it does not exist",
                        _ => "it disappeared while its directory was read",
                    };
                    self.trouble(&folder.child_path(name.to_bytes()), what);
                }
                Err(error) => self.source_error(&folder.child_path(name.to_bytes()), "", error),
            }
            folder.mark_partial();
        }
        Some(items)
    }

    /// Whether the entries of an unchanged page are where they are wanted: of sources that are no directories they are
    /// wanted one by one.
    fn is_at_hand(&self, folder: &Folder, row: &PageRow, count: usize, no_directories: bool) -> bool {
        let Above::List(list) = &folder.above else { return true };
        if !no_directories {
            return false;
        }
        let mut entries = self.old_entries(folder, &Previous::State(vec![row.clone()]), None, None).entries;
        let is_whole = entries.len() == count;
        if is_whole {
            list.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).append(&mut entries);
        }
        is_whole
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

    fn is_row_trusted(&self, row: &PageRow) -> bool {
        self.state.as_ref().is_some_and(|state| state.is_trusted(row))
    }

    /// The row, if no snapshot has been committed since it was written.
    fn uncommitted<'r>(&self, row: &'r PageRow) -> Option<&'r PageRow> {
        self.state.as_ref().filter(|state| state.is_uncommitted(row)).map(|_| row)
    }

    /// Counts the items of a page that is as its row says: unchanged, unless the row is of a run that did not commit.
    fn count_as_known(&self, items: &[Item], row: &PageRow, is_new: bool) {
        let row = self.uncommitted(row);
        let removed = row.filter(|_| !is_new).map_or(0, |row| u64::from(row.files_removed));
        add(&self.counts.files_removed, removed);
        let (mut count, mut bytes, mut by_change) = (0, 0, [0; 3]);
        for (at, item) in items.iter().enumerate().filter(|(_, item)| item.stat.is(EntryKind::File)) {
            let change = change_of(row, at, is_new);
            by_change[change as usize] += 1;
            (count, bytes) = (count + 1, bytes + item.stat.size);
        }
        for change in [Change::Unchanged, Change::New, Change::Changed] {
            add(self.counts.files_by(change), by_change[change as usize]);
        }
        add(&self.watch.progress.files_done, count);
        add(&self.watch.progress.bytes_done, bytes);
    }

    fn visit_below<'s>(
        &'s self,
        scope: &Scope<'s>,
        page: Arc<Page>,
        slot: usize,
        index: usize,
        stat: &Stat,
        is_new: bool,
    ) {
        let folder = page.folder.clone();
        let name = folder.name(index);
        let above = Above::Page(page, slot);
        let path = folder.child_path(name.to_bytes());
        let place = match self.place_below(folder.place, &path, stat) {
            Ok(place) => place,
            Err(reason) => {
                self.tell_left_out(&path, reason);
                return self.finish_empty(scope, &above);
            }
        };
        let previous = self.previous_below(&folder.previous, name.to_bytes(), &path);
        let handle = folder.directory().and_then(|directory| directory.open_child(name));
        let key = FolderKey::of(&path);
        let found = Found { above, path, key, place, previous, is_new };
        self.visit(scope, found, handle);
    }

    fn one_less<'s>(&'s self, scope: &Scope<'s>, page: &Arc<Page>) {
        if page.left.fetch_sub(1, Ordering::AcqRel) == 1 && !self.is_over() {
            self.climb(scope, Some(page.clone()));
        }
    }

    /// All below is done: the page's id, from before when nothing differs. None for a page without entries.
    pub(super) fn finish_page<'s>(&'s self, scope: &Scope<'s>, page: &Page) -> Result<Option<ChunkId>, Error> {
        let mut work = page.work();
        let trees = std::mem::take(&mut *page.below.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        let below = detect::below(trees.iter().flatten().copied());
        let folder = &page.folder;
        let mut items: Vec<Item> = std::mem::take(&mut work.parts).into_iter().flatten().collect();
        let (mut fingerprint, mut files_removed) = (work.fingerprint, work.files_removed);
        let mut stats: Option<Vec<u64>> = None;
        if let Some(row) = work.unchanged.take() {
            if row.below == below {
                return Ok(Some(row.page));
            }
            let (first, next) = folder.name_range(page.number);
            let old = self.old_entries(folder, &Previous::State(vec![row.clone()]), first, next);
            if old.entries.len() == items.len() {
                files_removed = old.files_removed;
                for ((item, entry), change) in items.iter_mut().zip(old.entries).zip(old.changes) {
                    item.entry = Some(entry);
                    item.change = change;
                }
                stats = Some(row.stats);
            } else {
                // The old page cannot be read any more: everything of it is read anew.
                self.take_back_known(&items, &row, folder.is_new);
                for item in &mut items {
                    item.number = 0;
                    item.entry = self.build_entry(scope, folder, item, None);
                }
                fingerprint = [0; 16];
            }
        }
        let mut entries = Vec::with_capacity(items.len());
        let mut numbers = Vec::with_capacity(items.len());
        let mut changes = Vec::with_capacity(items.len());
        for (at, item) in items.into_iter().enumerate() {
            let Some(mut entry) = item.entry else {
                folder.mark_partial();
                continue;
            };
            if let Some(saved) = trees[at] {
                entry.content = Content::Tree(saved.tree);
                entry.is_partial = saved.is_partial;
            }
            entries.push(entry);
            numbers.push(stats.as_ref().map_or(item.number, |stats| stats[at]));
            changes.push(item.change);
        }
        if entries.is_empty() {
            return Ok(None);
        }
        let is_whole = self.drop_unreadable(folder, &mut entries, &mut numbers, &mut changes)?;
        if entries.is_empty() {
            return Ok(None);
        }
        let id = store_page(&entries, &mut |bytes| self.store_tree(bytes))?;
        if let Above::List(list) = &folder.above {
            list.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).append(&mut entries);
        }
        // Without a row, the next backup examines the dropped entries again.
        if let (Some(state), Some(_), true) = (&self.state, &self.writer, is_whole) {
            let row = PageRow {
                first_name: folder.name(folder.page_range(page.number).start).to_bytes().to_vec(),
                fingerprint,
                below,
                page: id,
                epoch: state.epoch(),
                run: state.run(),
                files_removed: u32::try_from(files_removed).unwrap_or(u32::MAX),
                stats: numbers,
                changes,
            };
            self.noted().rows.push((folder.key, row));
        }
        Ok(Some(id))
    }

    /// Drops entries that readers would refuse, each with a trouble, so that invalid metadata of one file does not make the whole page
    /// unreadable. Returns true if it dropped none. A dry run is not checked: its entries lack their content.
    fn drop_unreadable(
        &self,
        folder: &Folder,
        entries: &mut Vec<Entry>,
        numbers: &mut Vec<u64>,
        changes: &mut Vec<Change>,
    ) -> Result<bool, Error> {
        if self.writer.is_none() {
            return Ok(true);
        }
        let Err(error) = check_entries(entries) else { return Ok(true) };
        let count = entries.len();
        for at in (0..count).rev() {
            if let Err(error) = check_entries(&entries[at..=at]) {
                self.trouble(&folder.child_path(&entries[at].name), error.why());
                folder.mark_partial();
                self.counts.count_dropped(&entries.remove(at), changes.remove(at));
                numbers.remove(at);
            }
        }
        match entries.len() < count {
            true => check_entries(entries).map(|()| false),
            false => Err(error),
        }
    }

    /// Takes back what was counted of a page as known.
    fn take_back_known(&self, items: &[Item], row: &PageRow, is_new: bool) {
        let row = self.uncommitted(row);
        for (at, _) in items.iter().enumerate().filter(|(_, item)| item.stat.is(EntryKind::File)) {
            let change = change_of(row, at, is_new);
            take_back(self.counts.files_by(change), 1);
        }
    }
}

/// How an entry of a page that is as its row says differs from the last snapshot; `row` if it is of a run that did not commit.
fn change_of(row: Option<&PageRow>, at: usize, is_new: bool) -> Change {
    match is_new {
        true => Change::New,
        false => row.and_then(|row| row.changes.get(at)).copied().unwrap_or_default(),
    }
}
