//! Walk the sources: directories spread over the readers by work stealing, each done when all below it is done.

pub(super) use crate::backup::counts::{Counts, add, take_back};

use crate::backup::Run;
use crate::backup::nested::Place;
use crate::backup::page::Page;
use crate::backup::previous::Previous;
use crate::backup::state::FolderKey;
use crate::disk::{Directory, Handle, Held, ListBuffer, Names};
use crate::entry::Entry;
use crate::error::{Error, Kind, Result};
use crate::format::tree::{NamedPage, page_lengths, store_root};
use crate::id::{ChunkId, ChunkKind};
use crate::lock::locked;
use rayon::Scope;
use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// The tree of a directory as it was saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct SavedTree {
    pub tree: ChunkId,
    /// It lacks something that the directory held: not entered, not readable, left out by a rule, never saved.
    pub is_partial: bool,
}

/// Who waits for a directory's tree.
pub(super) enum Above {
    /// An entry of a page of the directory above.
    Page(Arc<Page>, usize),
    /// A source.
    Source(Arc<Mutex<Option<SavedTree>>>),
    /// Sources that are no directories, all in one: their entries are wanted, not their tree.
    List(Arc<Mutex<Vec<Entry>>>),
    /// What was here has been taken out.
    Nobody,
}

/// A directory that is about to be walked.
pub(super) struct Found {
    pub above: Above,
    pub path: Vec<u8>,
    /// Its rows in the local state.
    pub key: FolderKey,
    pub place: Place,
    pub previous: Previous,
    /// The last snapshot does not have it: what the local state knows of it is older.
    pub is_new: bool,
}

/// A directory being walked.
pub(super) struct Folder {
    pub above: Above,
    pub key: FolderKey,
    pub path: Vec<u8>,
    handle: Handle,
    names: Names,
    /// Which of the names are walked; none stands for all.
    kept: Option<Vec<u32>>,
    /// Where each page begins, in kept names.
    starts: Vec<usize>,
    pub previous: Previous,
    /// As in [`Found`].
    pub is_new: bool,
    pub place: Place,
    /// Something that it holds is not saved.
    is_partial: AtomicBool,
    pages: Mutex<Vec<Option<NamedPage>>>,
    left: AtomicUsize,
}

impl Drop for Folder {
    /// One after the other: dropped by recursion, a deep tree would overflow the stack.
    fn drop(&mut self) {
        let mut above = std::mem::replace(&mut self.above, Above::Nobody);
        while let Above::Page(page, _) = above {
            let folder = Arc::into_inner(page).map(Page::into_folder);
            let Some(mut folder) = folder.and_then(Arc::into_inner) else { return };
            above = std::mem::replace(&mut folder.above, Above::Nobody);
        }
    }
}

impl Folder {
    /// The directory itself.
    pub fn directory(&self) -> Result<Held<'_>> {
        self.handle.get(&self.path)
    }

    /// Something that this directory holds is not saved.
    pub fn mark_partial(&self) {
        self.is_partial.store(true, Ordering::Relaxed);
    }

    fn kept_len(&self) -> usize {
        self.kept.as_ref().map_or(self.names.len(), Vec::len)
    }

    pub fn name(&self, index: usize) -> &std::ffi::CStr {
        let index = self.kept.as_ref().map_or(index, |kept| kept[index] as usize);
        self.names.get(index)
    }

    pub fn page_range(&self, number: usize) -> Range<usize> {
        let end = self.starts.get(number + 1).copied().unwrap_or_else(|| self.kept_len());
        self.starts[number]..end
    }

    /// The names that belong to a page: from its first to the next page's, open at both ends of the directory.
    pub fn name_range(&self, number: usize) -> (Option<&[u8]>, Option<&[u8]>) {
        let first = (number > 0).then(|| self.name(self.starts[number]).to_bytes());
        let next = self.starts.get(number + 1).map(|start| self.name(*start).to_bytes());
        (first, next)
    }

    pub fn child_path(&self, name: &[u8]) -> Vec<u8> {
        let mut path = Vec::with_capacity(self.path.len() + 1 + name.len());
        path.extend_from_slice(&self.path);
        if path.last() != Some(&b'/') {
            path.push(b'/');
        }
        path.extend_from_slice(name);
        path
    }
}

thread_local! {
    pub(super) static LIST_BUFFER: RefCell<ListBuffer> = RefCell::default();
}

impl<'a> Run<'a> {
    /// The lane of this thread: one for each reader, and one for whoever else stores.
    pub(super) fn lane(&self) -> usize {
        rayon::current_thread_index().unwrap_or(self.readers.most).min(self.readers.most)
    }

    pub(super) fn is_over(&self) -> bool {
        if self.watch.cancel.is_cancelled() {
            self.fail(Error::new(Kind::Cancelled, "finish the backup", "").because("it was interrupted"));
        }
        self.counts.failed.load(Ordering::Relaxed)
    }

    /// Walks one directory; its tree goes to who waits for it when the last page below it is done.
    pub(super) fn visit<'s>(&'s self, scope: &Scope<'s>, mut found: Found, handle: Result<Directory>) {
        if self.is_over() {
            return;
        }
        let mut names = Names::default();
        let handle = handle.and_then(|handle| {
            LIST_BUFFER.with_borrow_mut(|buffer| handle.names(&mut names, buffer))?;
            Ok(handle)
        });
        let handle = match handle {
            Ok(handle) => handle,
            Err(error) => {
                self.source_error(&found.path, "its contents are missing: ", error);
                return self.finish_empty(scope, &found.above);
            }
        };
        self.watch.progress.set_current(&found.path);
        self.expected.met(&found.path, &names);
        let kept = self.kept_names(&mut found.place, &found.path, &handle, &names, true);
        self.walk_names(scope, found, handle, names, kept);
    }

    /// Walks names of a directory, all of them or those that are kept.
    pub(super) fn walk_names<'s>(
        &'s self,
        scope: &Scope<'s>,
        found: Found,
        directory: Directory,
        names: Names,
        kept: Option<Vec<u32>>,
    ) {
        let handle = match Handle::new(directory, found.place.level <= self.levels_open) {
            Ok(handle) => handle,
            Err(error) => {
                self.source_error(&found.path, "its contents are missing: ", error);
                return self.finish_empty(scope, &found.above);
            }
        };
        let Found { above, path, key, place, previous, is_new } = found;
        let is_partial = place.is_passage || kept.as_ref().is_some_and(|kept| kept.len() < names.len());
        let mut folder = Folder {
            above,
            key,
            path,
            handle,
            names,
            kept,
            starts: Vec::new(),
            previous,
            is_new,
            place,
            is_partial: AtomicBool::new(is_partial),
            pages: Mutex::default(),
            left: AtomicUsize::new(0),
        };
        let lengths = page_lengths(0, (0..folder.kept_len()).map(|index| folder.name(index).to_bytes()));
        folder.starts = lengths.iter().scan(0, |at, length| Some(std::mem::replace(at, *at + length))).collect();
        let pages = folder.starts.len();
        folder.pages = Mutex::new(vec![None; pages]);
        folder.left = AtomicUsize::new(pages);
        let folder = Arc::new(folder);
        match pages {
            0 => {
                self.count_all_removed(&folder);
                let page = self.end_folder(&folder);
                self.climb(scope, page);
            }
            1 => self.do_page(scope, &folder, 0),
            // The newest task is taken first: pushed backwards, pages are done in the order of their names.
            _ => (0..pages).rev().for_each(|number| {
                let folder = folder.clone();
                scope.spawn(move |scope| self.do_page(scope, &folder, number));
            }),
        }
    }

    /// A page of a directory is done: with the last one the directory is.
    pub(super) fn page_done<'s>(
        &'s self,
        scope: &Scope<'s>,
        folder: &Arc<Folder>,
        number: usize,
        page: Option<ChunkId>,
    ) {
        let above = self.end_page(folder, number, page);
        self.climb(scope, above);
    }

    /// A directory that was not entered: empty, and marked so.
    pub(super) fn finish_empty<'s>(&'s self, scope: &Scope<'s>, above: &Above) {
        let page = self.end_tree(above, Vec::new(), true);
        self.climb(scope, page);
    }

    /// Finishes a page that waits for nothing more, then each above it for which it was the last. A loop, as a tree may
    /// have more levels than a stack has frames.
    pub(super) fn climb<'s>(&'s self, scope: &Scope<'s>, page: Option<Arc<Page>>) {
        let mut next = page;
        while let Some(page) = next {
            next = match self.finish_page(scope, &page) {
                Ok(id) => self.end_page(page.folder(), page.number(), id),
                Err(error) => return self.fail(error),
            };
        }
    }

    /// Notes a page of a directory; returns the page above that waits for nothing more, if it was the last.
    fn end_page(&self, folder: &Folder, number: usize, page: Option<ChunkId>) -> Option<Arc<Page>> {
        if let Some(page) = page {
            let first = folder.name(folder.starts[number]).to_bytes().to_vec();
            locked(&folder.pages)[number] = Some((first, page));
        }
        if folder.left.fetch_sub(1, Ordering::AcqRel) == 1 { self.end_folder(folder) } else { None }
    }

    fn end_folder(&self, folder: &Folder) -> Option<Arc<Page>> {
        let pages = std::mem::take(&mut *locked(&folder.pages));
        let pages: Vec<NamedPage> = pages.into_iter().flatten().collect();
        let stale;
        let rows = match (&folder.previous, &self.state) {
            (Previous::State(rows), _) => rows,
            // The local state is not asked, but it is kept for the next run.
            (_, Some(state)) if self.options.force || self.options.parent.is_some() => {
                stale = state.pages(folder.key);
                &stale
            }
            _ => &Vec::new(),
        };
        if !rows.is_empty() {
            let live: HashSet<&[u8]> = pages.iter().map(|(first, _)| first.as_slice()).collect();
            let gone: Vec<_> = rows.iter().filter(|row| !live.contains(row.first_name.as_slice())).collect();
            if !gone.is_empty() {
                self.noted().removed.extend(gone.into_iter().map(|row| (folder.key, row.first_name.clone())));
            }
        }
        self.end_tree(&folder.above, pages, folder.is_partial.load(Ordering::Relaxed))
    }

    /// Hands the tree of a directory to who waits for it; returns the page above that waits for nothing more.
    fn end_tree(&self, above: &Above, pages: Vec<NamedPage>, is_partial: bool) -> Option<Arc<Page>> {
        if matches!(above, Above::List(_) | Above::Nobody) {
            return None;
        }
        let saved = match store_root(pages, &mut |bytes| self.store_tree(bytes)) {
            Ok(tree) => SavedTree { tree, is_partial },
            Err(error) => {
                self.fail(error);
                return None;
            }
        };
        match above {
            Above::Page(page, slot) => {
                let waits_for_nothing = page.set_below(*slot, saved);
                (waits_for_nothing && !self.is_over()).then(|| page.clone())
            }
            Above::Source(place) => {
                *locked(&place) = Some(saved);
                None
            }
            Above::List(_) | Above::Nobody => None,
        }
    }

    /// Stores a page; in a dry run only names it.
    pub(super) fn store_tree(&self, bytes: Vec<u8>) -> Result<ChunkId> {
        match &self.writer {
            Some(writer) => writer.sink().store_tree(self.lane(), &bytes),
            None => Ok(self.repo.keys().chunk_id(ChunkKind::Tree, &bytes)),
        }
    }
}
