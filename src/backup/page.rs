//! One page of a directory: stat its entries, keep what did not change, read what did, store the page.

use crate::backup::counts::{add, take_back};
use crate::backup::detect;
use crate::backup::entries::{BuiltPart, split};
use crate::backup::folder::{AboveFolder, FolderPage, FoundFolder, PageItem, PageWork, SourceFolder};
use crate::backup::mounted::FoundBelow;
use crate::backup::old_entries::{FolderBaseline, OldParts};
use crate::backup::page_row::{FileChange, FolderKey, PageRow};
use crate::backup::walk::SourceWalk;
use crate::disk::Stat;
use crate::disk::encrypted::unlocked;
use crate::entry::{Content, Entry, EntryKind, Time};
use crate::error::{Kind, Result};
use crate::format::tree::{check_entries, store_page};
use crate::id::ChunkId;
use crate::lock::locked;
use crate::watch::now;
use rayon::Scope;
use std::sync::Arc;

/// The entries of a page, with what the local state keeps of each.
#[derive(Default)]
struct BuiltPage {
    entries: Vec<Entry>,
    numbers: Vec<u64>,
    changes: Vec<FileChange>,
}

impl<'a> SourceWalk<'a> {
    pub(crate) fn do_page<'s>(&'s self, scope: &Scope<'s>, folder: &Arc<SourceFolder>, number: usize) {
        if self.ledger.should_stop() {
            return;
        }
        let seen = now();
        let Some(items) = self.stat_page(folder, number) else {
            return self.page_done(scope, folder, number, None);
        };
        let fingerprint = self.with_buffers(|buffers| {
            let named = items.iter().map(|item| (folder.name(item.index).to_bytes(), &item.stat));
            let owners = self.entries.describer.owners();
            self.entries.comparison.fingerprint(named, owners, &mut buffers.fingerprint)
        });
        let is_directory = |(_, item): &(usize, &PageItem)| item.stat.is(EntryKind::Directory);
        let directories = items.iter().enumerate().filter(is_directory);
        let directories: Vec<_> = directories.map(|(slot, item)| (slot, item.index, item.stat)).collect();
        let row = folder.baseline.row(folder.first_name(number));
        let row = row.filter(|row| row.fingerprint == fingerprint && self.baseline.is_row_trusted(row));
        let row = row.filter(|_| !self.entries.describer.has_idmapped(items.iter().map(|item| &item.stat)));
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
        let work = PageWork { parts, fingerprint, files_removed: 0, unchanged: row.cloned() };
        let page = Arc::new(FolderPage::new(folder.clone(), number, work, directories.len()));
        // Pushed backwards, they are walked in the order of their names.
        for (slot, index, stat) in directories.into_iter().rev() {
            let page = page.clone();
            let lacks = |old: &Arc<OldParts>| old.old.lacks_directory(folder.name(index).to_bytes());
            let is_new = folder.is_new || old.as_ref().is_some_and(lacks);
            let below = DirectoryBelow { page, slot, index, stat, is_new };
            scope.spawn(move |scope| self.visit_below(scope, below));
        }
        let Some(old) = old else { return self.one_less(scope, &page) };
        page.work().files_removed = old.old.files_removed;
        add(&self.counts.files_removed, old.old.files_removed);
        for part in (1..=begins.len()).rev() {
            let (page, old) = (page.clone(), old.clone());
            scope.spawn(move |scope| self.do_part(scope, &page, part, &old, seen));
        }
        self.do_part(scope, &page, 0, &old, seen);
    }

    /// What was in the place of a page before, and of each of its parts; `begins` are the first names of all but the
    /// first part.
    fn old_parts(&self, folder: &SourceFolder, number: usize, begins: &[usize]) -> OldParts {
        let (first, next) = folder.name_range(number);
        let old = self.baseline.old_entries(&folder.baseline, folder.is_new, first, next);
        OldParts::new(old, begins.iter().map(|begin| folder.name(*begin).to_bytes()))
    }

    /// Builds the entries of one part of a page.
    fn do_part<'s>(&'s self, scope: &Scope<'s>, page: &Arc<FolderPage>, part: usize, old: &OldParts, seen: Time) {
        if self.ledger.should_stop() {
            return;
        }
        let mut items = std::mem::take(&mut page.work().parts[part]);
        let BuiltPart { look_again, files_removed } =
            self.entries.build_part(scope, &page.folder, &mut items, seen, &old.old, old.range(part));
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
    fn stat_page(&self, folder: &SourceFolder, number: usize) -> Option<Vec<PageItem>> {
        let directory = match folder.directory() {
            Ok(directory) => directory,
            Err(error) => {
                folder.mark_partial();
                self.ledger.source_error(&folder.path, "some of its contents are missing: ", error);
                return None;
            }
        };
        let range = folder.page_range(number);
        let mut items = Vec::with_capacity(range.len());
        for index in range {
            let name = folder.name(index);
            let path = || folder.child_path(name.to_bytes());
            match self.selection.stat_in(folder.place, &directory, name, &path) {
                Ok(stat) if self.selection.is_saved(folder.place, &stat, &path) => {
                    items.push(PageItem::new(index, stat));
                    continue;
                }
                Ok(_) => {}
                Err(error) if error.is(Kind::NotFound) => {
                    let what = match folder.above {
                        AboveFolder::List(_) => "it does not exist",
                        _ => "it disappeared while its directory was read",
                    };
                    self.ledger.warn(&path(), what);
                }
                Err(error) => self.ledger.source_error(&path(), "", error),
            }
            folder.mark_partial();
        }
        Some(items)
    }

    /// Whether the entries of an unchanged page are where they are wanted: of sources that are no directories they are
    /// wanted one by one.
    fn is_at_hand(&self, folder: &SourceFolder, row: &PageRow, count: usize, no_directories: bool) -> bool {
        let AboveFolder::List(list) = &folder.above else { return true };
        if !no_directories {
            return false;
        }
        let pages = FolderBaseline::Pages(vec![row.clone()]);
        let mut entries = self.baseline.old_entries(&pages, folder.is_new, None, None).entries;
        let is_whole = entries.len() == count;
        if is_whole {
            locked(list).append(&mut entries);
        }
        is_whole
    }

    fn count_items(&self, items: &[PageItem]) {
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
        add(&self.ledger.watch().progress.entries, items.len() as u64);
    }

    /// Counts the items of a page that is as its row says: unchanged, unless the row is of a run that did not commit.
    fn count_as_known(&self, items: &[PageItem], row: &PageRow, is_new: bool) {
        let row = self.baseline.uncommitted(row);
        let removed = row.filter(|_| !is_new).map_or(0, |row| u64::from(row.files_removed));
        add(&self.counts.files_removed, removed);
        let (mut count, mut bytes, mut by_change) = (0, 0, [0; 3]);
        for (at, item) in items.iter().enumerate().filter(|(_, item)| item.stat.is(EntryKind::File)) {
            let change = change_of(row, at, is_new);
            by_change[change as usize] += 1;
            (count, bytes) = (count + 1, bytes + item.stat.size);
        }
        for change in [FileChange::Unchanged, FileChange::New, FileChange::Changed] {
            add(self.counts.files_by(change), by_change[change as usize]);
        }
        let progress = &self.ledger.watch().progress;
        add(&progress.files_done, count);
        add(&progress.bytes_done, bytes);
    }

    fn visit_below<'s>(&'s self, scope: &Scope<'s>, below: DirectoryBelow) {
        let DirectoryBelow { page, slot, index, stat, is_new } = below;
        let folder = page.folder.clone();
        let name = folder.name(index);
        let above = AboveFolder::Page(page, slot);
        let path = folder.child_path(name.to_bytes());
        let place = match self.selection.place_below(folder.place, &path, &stat) {
            Ok(place) => place,
            Err(reason) => {
                self.selection.report_left_out(&path, reason);
                return self.finish_empty(scope, &above);
            }
        };
        let handle = folder.directory().and_then(|directory| unlocked(directory.open_child(name)?, &stat));
        let name = name.to_bytes();
        let found = FoundBelow { folder: &folder, name, path: &path, stat: &stat, handle: &handle };
        let may_be_other = self.baseline.may_be_other_below(&found, self.selection);
        let baseline = self.baseline.of_child(&folder.baseline, name, &path, may_be_other);
        let key = FolderKey::of(&path);
        self.visit(scope, FoundFolder { above, path, key, place, baseline, is_new }, handle);
    }

    fn one_less<'s>(&'s self, scope: &Scope<'s>, page: &Arc<FolderPage>) {
        if page.one_done() && !self.ledger.should_stop() {
            self.climb(scope, Some(page.clone()));
        }
    }

    /// All below is done: the page's id, from before when nothing differs. None for a page without entries.
    pub(crate) fn finish_page<'s>(&'s self, scope: &Scope<'s>, page: &FolderPage) -> Result<Option<ChunkId>> {
        let mut work = page.work();
        let trees = page.take_below();
        let below = detect::hash_of_subtrees(trees.iter().flatten().copied());
        let folder = &page.folder;
        let mut items: Vec<PageItem> = std::mem::take(&mut work.parts).into_iter().flatten().collect();
        if let Some(row) = work.unchanged.take() {
            if row.below == below {
                return Ok(Some(row.page));
            }
            self.take_old_entries(scope, page, &mut work, &mut items, row);
        }
        let mut built = BuiltPage::default();
        for (item, tree) in items.into_iter().zip(trees) {
            let Some(mut entry) = item.entry else {
                folder.mark_partial();
                continue;
            };
            if let Some(saved) = tree {
                entry.content = Content::Tree(saved.tree);
                entry.is_partial = saved.is_partial;
            }
            built.entries.push(entry);
            built.numbers.push(item.number);
            built.changes.push(item.change);
        }
        if built.entries.is_empty() {
            return Ok(None);
        }
        let is_whole = self.drop_unreadable(folder, &mut built)?;
        if built.entries.is_empty() {
            return Ok(None);
        }
        let id = store_page(&built.entries, &mut |bytes| self.store.store_tree(&bytes))?;
        if let AboveFolder::List(list) = &folder.above {
            locked(list).append(&mut built.entries);
        }
        // Without a row, the next backup examines the dropped entries again.
        if let (Some(state), true) = (self.checkpoints.state(), is_whole) {
            let row = PageRow {
                first_name: folder.first_name(page.number).to_vec(),
                fingerprint: work.fingerprint,
                below,
                page: id,
                epoch: state.epoch(),
                run: state.run(),
                files_removed: u32::try_from(work.files_removed).unwrap_or(u32::MAX),
                stats: built.numbers,
                changes: built.changes,
            };
            self.checkpoints.note_row(folder.key, row);
        }
        Ok(Some(id))
    }

    /// Takes the entries of a page of which only directories below have changed from its old page. If that cannot be read any
    /// more, all of them are read again.
    fn take_old_entries<'s>(
        &'s self,
        scope: &Scope<'s>,
        page: &FolderPage,
        work: &mut PageWork,
        items: &mut [PageItem],
        row: PageRow,
    ) {
        let folder = &page.folder;
        let (first, next) = folder.name_range(page.number);
        let pages = FolderBaseline::Pages(vec![row.clone()]);
        let old = self.baseline.old_entries(&pages, folder.is_new, first, next);
        if old.entries.len() != items.len() {
            self.take_back_known(items, &row, folder.is_new);
            self.entries.rebuild(scope, folder, items);
            work.fingerprint = [0; 16];
            return;
        }
        work.files_removed = old.files_removed;
        let known = old.entries.into_iter().zip(old.changes).zip(row.stats);
        for (item, ((entry, change), number)) in items.iter_mut().zip(known) {
            item.entry = Some(entry);
            item.change = change;
            item.number = number;
        }
    }

    /// Drops entries that readers would refuse, each with a warning, so that invalid metadata of one file does not make the whole
    /// page unreadable. Returns true if it dropped none. A dry run is not checked: its entries lack their content.
    fn drop_unreadable(&self, folder: &SourceFolder, page: &mut BuiltPage) -> Result<bool> {
        if self.store.is_dry_run() {
            return Ok(true);
        }
        let Err(error) = check_entries(&page.entries) else { return Ok(true) };
        let count = page.entries.len();
        for at in (0..count).rev() {
            if let Err(error) = check_entries(&page.entries[at..=at]) {
                self.ledger.warn(&folder.child_path(&page.entries[at].name), error.why());
                folder.mark_partial();
                self.counts.count_dropped(&page.entries.remove(at), page.changes.remove(at));
                page.numbers.remove(at);
            }
        }
        if page.entries.len() < count { check_entries(&page.entries).map(|()| false) } else { Err(error) }
    }

    /// Takes back what was counted of a page as known.
    fn take_back_known(&self, items: &[PageItem], row: &PageRow, is_new: bool) {
        let row = self.baseline.uncommitted(row);
        for (at, _) in items.iter().enumerate().filter(|(_, item)| item.stat.is(EntryKind::File)) {
            take_back(self.counts.files_by(change_of(row, at, is_new)), 1);
        }
    }
}

/// A directory in a page, to be walked.
struct DirectoryBelow {
    page: Arc<FolderPage>,
    slot: usize,
    index: usize,
    stat: Stat,
    is_new: bool,
}

/// How an entry of a page that is as its row says differs from the last snapshot; `row` if it is of a run that did not commit.
fn change_of(row: Option<&PageRow>, at: usize, is_new: bool) -> FileChange {
    if is_new { FileChange::New } else { row.and_then(|row| row.changes.get(at)).copied().unwrap_or_default() }
}
