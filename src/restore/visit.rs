//! Visit directories: the writers share them by work stealing, a page at a time; damage affects only what is damaged.

use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::format::tree::{PAGE_DEPTH_MAX, TreePage, decode_inner, decode_page};
use crate::id::ChunkId;
use crate::lock::locked;
use crate::restore::counts::{EntryFate, add};
use crate::restore::folder::{OpenFolder, TargetFolder};
use crate::restore::links::Linkable;
use crate::restore::overlap::RestoredBefore;
use crate::restore::paths::{DEPTH_MAX, child_path, named_in_full, shown};
use crate::restore::run::RestoreRun;
use rayon::Scope as Tasks;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a directory of the snapshot holds.
#[derive(Clone, Copy)]
pub(super) struct DirectoryContents {
    tree: Option<ChunkId>,
    is_partial: bool,
}

impl DirectoryContents {
    pub(super) fn of(entry: &Entry) -> Self {
        let tree = match &entry.content {
            Content::Tree(tree) => Some(*tree),
            _ => None,
        };
        DirectoryContents { tree, is_partial: entry.is_partial }
    }
}

impl<'a> RestoreRun<'a> {
    /// Restores what is in a directory.
    pub(super) fn visit<'s>(&'s self, tasks: &Tasks<'s>, folder: Arc<TargetFolder>, contents: DirectoryContents) {
        if !self.should_stop() && self.visits(&folder, contents) {
            if self.is_restore() {
                self.watch.progress.set_current(&folder.path);
            }
            let pages = contents.tree.map_or_else(Vec::new, |tree| self.leaf_pages(&folder, &tree));
            if let [page] = pages.as_slice() {
                self.restore_page(tasks, &folder, page);
            } else {
                for page in pages.into_iter().rev() {
                    folder.left.fetch_add(1, Ordering::Relaxed);
                    let folder = folder.clone();
                    tasks.spawn(move |tasks| {
                        self.restore_page(tasks, &folder, &page);
                        self.one_less(folder);
                    });
                }
            }
        }
        self.one_less(folder);
    }

    /// Whether there is a directory to fill, now or once something below it is restored.
    fn visits(&self, folder: &Arc<TargetFolder>, contents: DirectoryContents) -> bool {
        // Above a source only the way to it was saved, which is nothing to tell.
        if contents.is_partial && folder.inside {
            add(&self.counts.partial_directories, 1);
        }
        if folder.depth > DEPTH_MAX {
            self.warn(&folder.path, format!("it is more than {DEPTH_MAX} directories deep and was not restored"));
            folder.names.are_incomplete.store(true, Ordering::Relaxed);
            return false;
        }
        if !folder.wanted {
            return true;
        }
        match self.enter(folder) {
            Ok(here) => here.is_some(),
            Err(error) => {
                self.failed_entry(&folder.path, error);
                false
            }
        }
    }

    /// Returns the pages with entries of a directory. A page that cannot be read loses only its own entries.
    fn leaf_pages(&self, folder: &TargetFolder, root: &ChunkId) -> Vec<ChunkId> {
        let mut leaves = Vec::new();
        // With the first name of each page: they must grow, also over lost pages, or a hostile repository could name pages again and
        // again.
        let mut pending: Vec<(Vec<u8>, ChunkId, usize)> = vec![(Vec::new(), *root, 0)];
        let mut last: Option<Vec<u8>> = None;
        while let Some((name, id, depth)) = pending.pop() {
            if self.should_stop() {
                break;
            }
            let read = || {
                if depth > PAGE_DEPTH_MAX {
                    Err(Error::corrupt("read the directory", id, "its pages are nested too deeply"))
                } else {
                    decode_inner(&self.stored(self.reader.tree(&id))?)
                }
            };
            let found = match read() {
                Ok(Some(pages)) => {
                    pending.extend(pages.into_iter().rev().map(|(name, page)| (name, page, depth + 1)));
                    continue;
                }
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if last.as_ref().is_some_and(|last| name <= *last) {
                self.page_is_lost(folder, Error::corrupt("read the directory", id, "its pages are out of order"));
                return leaves;
            }
            last = Some(name);
            match found {
                Ok(()) => leaves.push(id),
                Err(error) => self.page_is_lost(folder, error),
            }
        }
        leaves
    }

    fn page_is_lost(&self, folder: &TargetFolder, error: Error) {
        // The names on that page are unknown: nothing here may be deleted as extra.
        folder.names.are_incomplete.store(true, Ordering::Relaxed);
        let error =
            if error.is(Kind::Corrupt) { Error::corrupt("restore a part of what is in it", "", error) } else { error };
        self.failed_entry(&folder.path, error);
    }

    fn page_entries(&self, page: &ChunkId) -> Result<Vec<Entry>> {
        match decode_page(&self.stored(self.reader.tree(page))?)? {
            TreePage::Entries(mut entries) => {
                if entries.iter().any(|entry| entry.link_group != 0) {
                    locked(&self.links).number(&mut entries);
                }
                Ok(entries)
            }
            TreePage::Inner { .. } => Err(Error::corrupt("read the page", page, "it has no entries")),
        }
    }

    fn restore_page<'s>(&'s self, tasks: &Tasks<'s>, folder: &Arc<TargetFolder>, page: &ChunkId) {
        let entries = match self.page_entries(page) {
            Ok(entries) => entries,
            Err(error) => return self.page_is_lost(folder, error),
        };
        if self.options.delete {
            locked(&folder.names.saved).extend(entries.iter().map(|entry| entry.name.clone()));
        }
        self.restore_entries(tasks, folder, entries);
        // A task below it may have closed it before it was needed here.
        self.close_if_many(folder);
    }

    fn restore_entries<'s>(&'s self, tasks: &Tasks<'s>, folder: &Arc<TargetFolder>, entries: Vec<Entry>) {
        let mut here = None;
        // Pushed backwards, directories are restored in the order of their names, after this page's files.
        let (below, others): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(Entry::is_directory);
        for entry in below.into_iter().rev() {
            self.restore_entry(tasks, folder, &mut here, entry);
        }
        for entry in others {
            if self.should_stop() {
                return;
            }
            self.restore_entry(tasks, folder, &mut here, entry);
        }
    }

    /// Restores one entry, if it is among those wanted. `here` is its directory once something in it was.
    pub(super) fn restore_entry<'s>(
        &'s self,
        tasks: &Tasks<'s>,
        folder: &Arc<TargetFolder>,
        here: &mut Option<OpenFolder>,
        entry: Entry,
    ) {
        let mut wanted = folder.wanted;
        if self.options.has_filter() {
            let path = child_path(&folder.path, &entry.name);
            wanted |= self.options.includes(&path, entry.is_directory());
            let passes = wanted || entry.is_directory();
            if !passes || self.options.exclude.leaves_out(&path, entry.is_directory()) {
                return;
            }
            if wanted {
                self.note_included(&path, entry.is_directory());
            }
        }
        if entry.is_directory() {
            return self.spawn_directory(tasks, folder, entry, wanted);
        }
        self.want(&entry);
        if here.is_none() {
            *here = match self.enter(folder) {
                Ok(Some(here)) => Some(here),
                Ok(None) => return,
                Err(error) => {
                    let error = named_in_full(error, &shown(&folder.path));
                    return self.failed_entry(&child_path(&folder.path, &entry.name), error);
                }
            };
        }
        let Some(here) = here else { return };
        if self.rehearsal().is_some() && folder.inside {
            return;
        }
        let done = self.restored_before(folder, here, &entry).and_then(|before| match before {
            RestoredBefore::No if entry.link_group == 0 => self.restore_single(folder, here, &entry).map(|how| {
                if how == Linkable::Late {
                    self.put_off(folder, &entry);
                }
            }),
            RestoredBefore::No => self.restore_linked(folder, here, &entry),
            RestoredBefore::Same => {
                self.fate(EntryFate::Kept, || child_path(&folder.path, &entry.name));
                Ok(())
            }
            RestoredBefore::Other(other) | RestoredBefore::SameBut { other, .. } => {
                self.met(child_path(&folder.path, &entry.name), &other);
                Ok(())
            }
        });
        if let Err(error) = done {
            self.failed_entry(&child_path(&folder.path, &entry.name), error);
        }
    }

    /// A directory is made or opened by its own task, so that only those being filled are open.
    fn spawn_directory<'s>(&'s self, tasks: &Tasks<'s>, folder: &Arc<TargetFolder>, entry: Entry, wanted: bool) {
        let path = child_path(&folder.path, &entry.name);
        let inside = folder.inside || self.scope.is_source(&path);
        let is_named = self.scope.is_named(&path);
        folder.left.fetch_add(1, Ordering::Relaxed);
        let folder = folder.clone();
        tasks.spawn(move |tasks| {
            let contents = DirectoryContents::of(&entry);
            let below = Arc::new(TargetFolder::below(&folder, entry, inside, is_named, wanted));
            // From now on only what is below holds it, and lets it go when it is finished.
            drop(folder);
            self.visit(tasks, below, contents);
        });
    }

    /// Counts what the target will contain in the end.
    fn want(&self, entry: &Entry) {
        if entry.kind.has_content() {
            add(&self.counts.files_wanted, 1);
            add(&self.counts.bytes_wanted, entry.size);
            add(&self.counts.bytes_linked, if self.is_counted(entry) { entry.size } else { 0 });
        } else {
            add(&self.counts.others_wanted, 1);
        }
    }

    /// Restores an entry that is not a directory; returns whether other names of its inode may be linked to it.
    pub(crate) fn restore_single(&self, folder: &TargetFolder, here: &OpenFolder, entry: &Entry) -> Result<Linkable> {
        match entry.kind {
            EntryKind::File | EntryKind::Stream => self.restore_file(folder, here, entry),
            _ => self.restore_special(folder, here, entry),
        }
    }
}
