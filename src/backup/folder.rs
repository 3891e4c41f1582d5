//! Directories while they are walked: their names, and their pages, each with what it still waits for.

use crate::backup::nested::WalkPlace;
use crate::backup::old_entries::FolderBaseline;
use crate::backup::page_row::{FileChange, FolderKey, PageRow};
use crate::disk::{FolderHandle, HeldHandle, NameList, Stat};
use crate::entry::Entry;
use crate::error::Result;
use crate::format::tree::{NamedPage, page_lengths};
use crate::id::ChunkId;
use crate::lock::locked;
use std::ffi::CStr;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// The tree of a directory as it was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SavedTree {
    pub tree: ChunkId,
    /// It lacks something that the directory held: not entered, not readable, left out by a rule, never saved.
    pub is_partial: bool,
}

/// What waits for a directory's tree.
pub(super) enum AboveFolder {
    /// An entry of a page of the directory above.
    Page(Arc<FolderPage>, usize),
    /// A source.
    Source(Arc<Mutex<Option<SavedTree>>>),
    /// Sources in one directory that are not directories themselves: their entries are wanted, not their tree.
    List(Arc<Mutex<Vec<Entry>>>),
    /// What was here has been taken out.
    Nothing,
}

/// A directory that is about to be walked.
pub(super) struct FoundFolder {
    pub above: AboveFolder,
    pub path: Vec<u8>,
    /// Its rows in the local state.
    pub key: FolderKey,
    pub place: WalkPlace,
    pub baseline: FolderBaseline,
    /// The last snapshot does not have it: what the local state knows of it is older.
    pub is_new: bool,
}

/// A directory being walked.
pub(super) struct SourceFolder {
    pub above: AboveFolder,
    pub key: FolderKey,
    pub path: Vec<u8>,
    pub place: WalkPlace,
    pub baseline: FolderBaseline,
    /// As in [`FoundFolder`].
    pub is_new: bool,
    handle: FolderHandle,
    names: WalkedNames,
    progress: FolderProgress,
}

/// The names of a directory that are walked, in pages.
pub(super) struct WalkedNames {
    names: NameList,
    /// Which of the names are walked; none stands for all.
    kept: Option<Vec<u32>>,
    /// Where each page begins, in kept names.
    starts: Vec<usize>,
}

struct FolderProgress {
    /// Something that the directory holds is not saved.
    is_partial: AtomicBool,
    pages: Mutex<Vec<Option<NamedPage>>>,
    /// Pages that are not done.
    remaining: AtomicUsize,
}

impl WalkedNames {
    pub(crate) fn new(names: NameList, kept: Option<Vec<u32>>) -> Self {
        let mut walked = WalkedNames { names, kept, starts: Vec::new() };
        let lengths = page_lengths(0, (0..walked.len()).map(|index| walked.get(index).to_bytes()));
        walked.starts = lengths.iter().scan(0, |at, length| Some(std::mem::replace(at, *at + length))).collect();
        walked
    }

    fn len(&self) -> usize {
        self.kept.as_ref().map_or(self.names.len(), Vec::len)
    }

    fn is_whole(&self) -> bool {
        self.len() == self.names.len()
    }

    fn get(&self, index: usize) -> &CStr {
        let index = self.kept.as_ref().map_or(index, |kept| kept[index] as usize);
        self.names.get(index)
    }
}

impl SourceFolder {
    pub(crate) fn new(found: FoundFolder, handle: FolderHandle, names: WalkedNames) -> Self {
        let FoundFolder { above, path, key, place, baseline, is_new } = found;
        let pages = names.starts.len();
        let progress = FolderProgress {
            is_partial: AtomicBool::new(place.is_passage || !names.is_whole()),
            pages: Mutex::new(vec![None; pages]),
            remaining: AtomicUsize::new(pages),
        };
        SourceFolder { above, key, path, place, baseline, is_new, handle, names, progress }
    }

    /// The directory itself.
    pub(crate) fn directory(&self) -> Result<HeldHandle<'_>> {
        self.handle.get(&self.path)
    }

    /// Something that this directory holds is not saved.
    pub(crate) fn mark_partial(&self) {
        self.progress.is_partial.store(true, Ordering::Relaxed);
    }

    pub(crate) fn is_partial(&self) -> bool {
        self.progress.is_partial.load(Ordering::Relaxed)
    }

    pub(crate) fn name(&self, index: usize) -> &CStr {
        self.names.get(index)
    }

    pub(crate) fn pages_count(&self) -> usize {
        self.names.starts.len()
    }

    /// The names of a page, by their index.
    pub(crate) fn page_range(&self, page: usize) -> Range<usize> {
        let starts = &self.names.starts;
        let end = starts.get(page + 1).copied().unwrap_or_else(|| self.names.len());
        starts[page]..end
    }

    /// The first name of a page.
    pub(crate) fn first_name(&self, page: usize) -> &[u8] {
        self.name(self.names.starts[page]).to_bytes()
    }

    /// The names that belong to a page: from its first to the next page's, open at both ends of the directory.
    pub(crate) fn name_range(&self, page: usize) -> (Option<&[u8]>, Option<&[u8]>) {
        let first = (page > 0).then(|| self.first_name(page));
        let next = (page + 1 < self.pages_count()).then(|| self.first_name(page + 1));
        (first, next)
    }

    pub(crate) fn child_path(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.path.len() + 1 + name.len());
        path.extend_from_slice(&self.path);
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }

    /// A page is done; `id` is none for one without entries. Returns whether it was the last.
    pub(crate) fn page_done(&self, page: usize, id: Option<ChunkId>) -> bool {
        if let Some(id) = id {
            locked(&self.progress.pages)[page] = Some((self.first_name(page).to_vec(), id));
        }
        self.progress.remaining.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Takes the pages, once all are done.
    pub(crate) fn take_pages(&self) -> Vec<NamedPage> {
        std::mem::take(&mut *locked(&self.progress.pages)).into_iter().flatten().collect()
    }
}

impl Drop for SourceFolder {
    /// One after the other: dropped by recursion, a deep tree would overflow the stack.
    fn drop(&mut self) {
        let mut above = std::mem::replace(&mut self.above, AboveFolder::Nothing);
        while let AboveFolder::Page(page, _) = above {
            let folder = Arc::into_inner(page).map(|page| page.folder);
            let Some(mut folder) = folder.and_then(Arc::into_inner) else { return };
            above = std::mem::replace(&mut folder.above, AboveFolder::Nothing);
        }
    }
}

/// A page whose directories below are not done yet.
pub(super) struct FolderPage {
    pub folder: Arc<SourceFolder>,
    pub number: usize,
    work: Mutex<PageWork>,
    /// The trees of directories, as they are done; a place for each item.
    below: Mutex<Vec<Option<SavedTree>>>,
    /// Directories below and parts of its own that are not done.
    remaining: AtomicUsize,
}

pub(super) struct PageWork {
    /// What is in the page, in parts that different readers may build.
    pub parts: Vec<Vec<PageItem>>,
    pub fingerprint: [u8; 16],
    /// Files that are no more, those included that runs which did not commit saw removed.
    pub files_removed: u64,
    /// The row of the state when neither names nor stats have changed; then no entry was built.
    pub unchanged: Option<PageRow>,
}

/// One name of a page.
pub(super) struct PageItem {
    /// In the directory's names.
    pub index: usize,
    pub stat: Stat,
    pub entry: Option<Entry>,
    /// What goes to the local state: 0 for "look again".
    pub number: u64,
    /// How it differs from the last snapshot.
    pub change: FileChange,
    /// Its mount shows other owners than its file system has: its metadata are read each time.
    pub is_idmapped: bool,
}

impl PageItem {
    pub(crate) fn new(index: usize, stat: Stat) -> Self {
        PageItem { index, stat, entry: None, number: 0, change: FileChange::Unchanged, is_idmapped: false }
    }

    /// Whether nothing that the stat tells has changed since an entry with this number in the local state was saved.
    pub(crate) fn has_number(&self, old: Option<u64>) -> bool {
        old.is_some_and(|number| number != 0 && number == self.number)
    }
}

impl FolderPage {
    /// `directories` is how many of its items are directories.
    pub(crate) fn new(folder: Arc<SourceFolder>, number: usize, work: PageWork, directories: usize) -> Self {
        FolderPage {
            folder,
            number,
            remaining: AtomicUsize::new(directories + work.parts.len()),
            below: Mutex::new(vec![None; work.parts.iter().map(Vec::len).sum()]),
            work: Mutex::new(work),
        }
    }

    pub(crate) fn work(&self) -> MutexGuard<'_, PageWork> {
        locked(&self.work)
    }

    /// The tree of a directory below has come. Returns whether the page waits for nothing more.
    pub(crate) fn set_below(&self, slot: usize, saved: SavedTree) -> bool {
        locked(&self.below)[slot] = Some(saved);
        self.one_done()
    }

    /// A part of the page, or a directory below it, is done. Returns whether the page waits for nothing more.
    pub(crate) fn one_done(&self) -> bool {
        self.remaining.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Takes the trees of the directories below, once all are done.
    pub(crate) fn take_below(&self) -> Vec<Option<SavedTree>> {
        std::mem::take(&mut *locked(&self.below))
    }
}
