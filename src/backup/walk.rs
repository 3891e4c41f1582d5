//! Walk the sources: directories spread over the readers by work stealing, each done when all below it is done.

use crate::backup::baseline::Baseline;
use crate::backup::checkpoints::Checkpoints;
use crate::backup::chunk_store::ChunkStore;
use crate::backup::counts::{BackupCounts, add};
use crate::backup::entries::EntryBuilder;
use crate::backup::folder::{AboveFolder, FolderPage, FoundFolder, SavedTree, SourceFolder, WalkedNames};
use crate::backup::per_reader::PerReader;
use crate::backup::readers::Readers;
use crate::backup::selection::Selection;
use crate::disk::open::raise_open_files;
use crate::disk::{Directory, FolderHandle, ListBuffer, NameList, levels_open};
use crate::error::{Error, Result};
use crate::format::tree::{NamedPage, store_root};
use crate::id::ChunkId;
use crate::lock::locked;
use crate::watch::Ledger;
use rayon::Scope;
use std::collections::HashSet;
use std::sync::Arc;

pub(super) struct SourceWalk<'a> {
    pub selection: &'a Selection<'a>,
    pub baseline: &'a Baseline<'a>,
    pub entries: &'a EntryBuilder<'a>,
    pub store: &'a ChunkStore<'a>,
    pub checkpoints: &'a Checkpoints<'a>,
    pub readers: &'a Readers,
    pub counts: &'a BackupCounts,
    pub ledger: &'a Ledger<'a>,
    buffers: PerReader<WalkBuffers>,
    /// Directories down to this level are kept open while what is below them is walked.
    levels_open: usize,
}

#[derive(Default)]
pub(super) struct WalkBuffers {
    list: ListBuffer,
    pub fingerprint: Vec<u8>,
}

impl<'a> SourceWalk<'a> {
    pub(crate) fn new(
        selection: &'a Selection<'a>,
        entries: &'a EntryBuilder<'a>,
        checkpoints: &'a Checkpoints<'a>,
        readers: &'a Readers,
    ) -> Self {
        SourceWalk {
            selection,
            entries,
            checkpoints,
            readers,
            store: entries.baseline.store,
            baseline: entries.baseline,
            counts: entries.counts,
            ledger: entries.ledger,
            buffers: PerReader::new(readers.lanes()),
            levels_open: levels_open(raise_open_files(), readers.most),
        }
    }

    /// Calls `act` with the buffers of this thread.
    pub(crate) fn with_buffers<R>(&self, act: impl FnOnce(&mut WalkBuffers) -> R) -> R {
        self.buffers.with(self.store.lane(), act)
    }

    /// Walks one directory. What waits for its tree receives it when the last page below it is done.
    pub(crate) fn visit<'s>(&'s self, scope: &Scope<'s>, mut found: FoundFolder, handle: Result<Directory>) {
        if self.ledger.should_stop() {
            return;
        }
        let mut names = NameList::default();
        let handle = handle.and_then(|handle| {
            self.with_buffers(|buffers| handle.names(&mut names, &mut buffers.list))?;
            Ok(handle)
        });
        let handle = match handle {
            Ok(handle) => handle,
            Err(error) => return self.not_entered(scope, &found, error),
        };
        self.ledger.watch().progress.set_current(&found.path);
        self.selection.expected.met(&found.path, &names);
        let kept = self.selection.kept_names(&mut found.place, &found.path, &handle, &names, false);
        self.walk_names(scope, found, handle, WalkedNames::new(names, kept));
    }

    /// Walks names of a directory.
    pub(crate) fn walk_names<'s>(
        &'s self,
        scope: &Scope<'s>,
        found: FoundFolder,
        directory: Directory,
        names: WalkedNames,
    ) {
        let handle = match FolderHandle::new(directory, found.place.level <= self.levels_open) {
            Ok(handle) => handle,
            Err(error) => return self.not_entered(scope, &found, error),
        };
        let folder = Arc::new(SourceFolder::new(found, handle, names));
        match folder.pages_count() {
            0 => {
                self.count_all_removed(&folder);
                let page = self.end_folder(&folder);
                self.climb(scope, page);
            }
            1 => self.do_page(scope, &folder, 0),
            // The newest task is taken first: pushed backwards, pages are done in the order of their names.
            pages => (0..pages).rev().for_each(|number| {
                let folder = folder.clone();
                scope.spawn(move |scope| self.do_page(scope, &folder, number));
            }),
        }
    }

    fn not_entered<'s>(&'s self, scope: &Scope<'s>, found: &FoundFolder, error: Error) {
        self.ledger.source_error(&found.path, "its contents are missing: ", error);
        self.finish_empty(scope, &found.above)
    }

    /// A page of a directory is done: with the last one the directory is.
    pub(crate) fn page_done<'s>(
        &'s self,
        scope: &Scope<'s>,
        folder: &Arc<SourceFolder>,
        number: usize,
        page: Option<ChunkId>,
    ) {
        let above = self.end_page(folder, number, page);
        self.climb(scope, above);
    }

    /// A directory that was not entered: empty, and marked so.
    pub(crate) fn finish_empty<'s>(&'s self, scope: &Scope<'s>, above: &AboveFolder) {
        let page = self.end_tree(above, Vec::new(), true);
        self.climb(scope, page);
    }

    /// Finishes a page that waits for nothing more, then each above it for which it was the last. A loop, as a tree may
    /// have more levels than a stack has frames.
    pub(crate) fn climb<'s>(&'s self, scope: &Scope<'s>, page: Option<Arc<FolderPage>>) {
        let mut next = page;
        while let Some(page) = next {
            next = match self.finish_page(scope, &page) {
                Ok(id) => self.end_page(&page.folder, page.number, id),
                Err(error) => return self.ledger.fail(error),
            };
        }
    }

    /// Notes a page of a directory; returns the page above that waits for nothing more, if it was the last.
    fn end_page(&self, folder: &SourceFolder, number: usize, page: Option<ChunkId>) -> Option<Arc<FolderPage>> {
        if folder.page_done(number, page) { self.end_folder(folder) } else { None }
    }

    fn end_folder(&self, folder: &SourceFolder) -> Option<Arc<FolderPage>> {
        let pages = folder.take_pages();
        let rows = self.baseline.rows_to_replace(folder.key, &folder.baseline);
        if !rows.is_empty() {
            let live: HashSet<&[u8]> = pages.iter().map(|(first, _)| first.as_slice()).collect();
            let gone = rows.iter().map(|row| &row.first_name).filter(|first| !live.contains(first.as_slice()));
            self.checkpoints.note_removed(folder.key, gone.cloned().collect());
        }
        self.end_tree(&folder.above, pages, folder.is_partial())
    }

    /// Stores the tree of a directory, and passes it to what waits for it; returns the page above that waits for nothing more.
    fn end_tree(&self, above: &AboveFolder, pages: Vec<NamedPage>, is_partial: bool) -> Option<Arc<FolderPage>> {
        if matches!(above, AboveFolder::List(_) | AboveFolder::Nothing) {
            return None;
        }
        let saved = match store_root(pages, &mut |bytes| self.store.store_tree(&bytes)) {
            Ok(tree) => SavedTree { tree, is_partial },
            Err(error) => {
                self.ledger.fail(error);
                return None;
            }
        };
        match above {
            AboveFolder::Page(page, slot) => {
                let waits_for_nothing = page.set_below(*slot, saved);
                (waits_for_nothing && !self.ledger.should_stop()).then(|| page.clone())
            }
            AboveFolder::Source(place) => {
                *locked(place) = Some(saved);
                None
            }
            AboveFolder::List(_) | AboveFolder::Nothing => None,
        }
    }

    /// Counts the files of a directory in which nothing is left.
    fn count_all_removed(&self, folder: &SourceFolder) {
        let old = self.baseline.old_entries(&folder.baseline, folder.is_new, None, None);
        add(&self.counts.files_removed, old.files_removed);
        self.entries.count_removed(&old, 0..old.entries.len());
    }
}
