//! Walk the sources: directories spread over the readers by work stealing, each done when all below it is done.

use crate::backup::nested::{Place, missing_source};
use crate::backup::page::Page;
use crate::backup::previous::Previous;
use crate::backup::{Run, previous};
use crate::cache::FolderKey;
use crate::disk::stat::stat_path;
use crate::disk::{Directory, ListBuffer, Names, open};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::id::ChunkId;
use crate::repo::tree::{NamedPage, page_lengths, store_root};
use crate::repo::{Snapshot, Totals};
use crate::source::rules::Marker;
use rayon::Scope;
use std::cell::RefCell;
use std::collections::HashSet;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// What the run has dealt with, counted from all threads.
#[derive(Default)]
pub(super) struct Counts {
    pub files: AtomicU64,
    pub directories: AtomicU64,
    pub others: AtomicU64,
    pub streams: AtomicU64,
    pub bytes: AtomicU64,
    pub files_new: AtomicU64,
    pub files_changed: AtomicU64,
    pub files_unchanged: AtomicU64,
    pub files_removed: AtomicU64,
    pub files_unread: AtomicU64,
    pub bytes_read: AtomicU64,
    /// In a dry run, which reads nothing.
    pub bytes_to_read: AtomicU64,
    pub troubles: AtomicU64,
    pub sockets: AtomicU64,
    /// Set with the run's failure: tasks that have not begun end at once.
    pub failed: AtomicBool,
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// Takes back what was counted too early.
pub(super) fn take_back(counter: &AtomicU64, amount: u64) {
    counter.fetch_sub(amount, Ordering::Relaxed);
}

impl Counts {
    pub fn totals(&self) -> Totals {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Totals {
            files: get(&self.files),
            directories: get(&self.directories),
            others: get(&self.others),
            streams: get(&self.streams),
            bytes: get(&self.bytes),
            files_new: get(&self.files_new),
            files_changed: get(&self.files_changed),
            files_unchanged: get(&self.files_unchanged),
            files_removed: get(&self.files_removed),
            files_unread: get(&self.files_unread),
            bytes_read: get(&self.bytes_read),
            bytes_new: 0,
            bytes_stored: 0,
        }
    }
}

/// Who waits for a directory's tree.
pub(super) enum Above {
    /// An entry of a page of the directory above.
    Page(Arc<Page>, usize),
    /// A source.
    Source(Arc<Mutex<Option<ChunkId>>>),
}

/// A directory being walked.
pub(super) struct Folder {
    pub above: Above,
    /// Its rows in the local state.
    pub key: FolderKey,
    pub path: Vec<u8>,
    pub handle: Directory,
    names: Names,
    /// Which of the names are walked; none stands for all.
    kept: Option<Vec<u32>>,
    /// Where each page begins, in kept names.
    starts: Vec<usize>,
    pub previous: Previous,
    pub place: Place,
    pages: Mutex<Vec<Option<NamedPage>>>,
    left: AtomicUsize,
}

impl Folder {
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
    static LIST_BUFFER: RefCell<ListBuffer> = RefCell::default();
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

    /// Walks every path; gives an entry for each, in order.
    pub(super) fn walk_paths(&self, parent: Option<&Snapshot>) -> Result<Vec<(Vec<u8>, Entry)>> {
        open::raise_open_files();
        let mut entries = Vec::new();
        for (path, device) in self.expanded_paths() {
            let entry = match stat_path(&path, false) {
                Ok(stat) if stat.is(EntryKind::Directory) => {
                    let slot = Arc::new(Mutex::new(None));
                    let previous = self.previous_of_source(parent, &path)?;
                    let above = Above::Source(slot.clone());
                    let source = Place::source(device.unwrap_or(stat.device));
                    self.readers.pool.scope(|scope| match self.place_below(source, &path, stat.device) {
                        None => self.finish_empty(scope, above),
                        Some(place) => {
                            let handle = Directory::open_path(&path);
                            self.visit(scope, above, path.clone(), handle, previous, place);
                        }
                    });
                    if let Some(error) = self.take_failure() {
                        return Err(error);
                    }
                    let tree = slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).take();
                    let mut entry = self.describe_path(&path, &stat);
                    entry.content = tree.map_or(Content::Empty, Content::Tree);
                    add(&self.counts.directories, 1);
                    Some(entry)
                }
                Ok(stat) => self.walk_single(parent, &path, stat.device)?,
                Err(error) => return Err(missing_source(error)),
            };
            entries.extend(entry.map(|entry| (path, entry)));
        }
        Ok(entries)
    }

    /// A source that is no directory.
    fn walk_single(&self, parent: Option<&Snapshot>, path: &[u8], device: u64) -> Result<Option<Entry>> {
        let slash = path.iter().rposition(|byte| *byte == b'/').expect("paths of sources are absolute");
        let (above, name) = (&path[..slash.max(1)], &path[slash + 1..]);
        let handle = Directory::open_path(above)?;
        let mut names = Names::default();
        LIST_BUFFER.with_borrow_mut(|buffer| handle.names(&mut names, buffer))?;
        let index = (0..names.len()).find(|index| names.get(*index).to_bytes() == name);
        let Some(index) = index else { return Ok(None) };
        let previous = match (self.compare_with_parent, parent) {
            _ if self.options.force => Previous::Nothing,
            (true, Some(parent)) => previous::of_path(self, parent, above)?,
            _ => self.previous_from_state(path),
        };
        let folder = Folder {
            above: Above::Source(Arc::default()),
            key: FolderKey::of(path),
            path: above.to_vec(),
            handle,
            names,
            kept: Some(vec![index as u32]),
            starts: vec![0],
            previous,
            place: Place::source(device),
            pages: Mutex::default(),
            left: AtomicUsize::new(1),
        };
        let entry = self.readers.pool.in_place_scope(|scope| self.single(scope, &folder))?;
        match self.take_failure() {
            Some(error) => Err(error),
            None => Ok(entry),
        }
    }

    /// `/` stands for everything in it, so that streams can stand beside.
    ///
    /// Each path comes with the device that it must be on, when mount points are not entered.
    pub(super) fn expanded_paths(&self) -> Vec<(Vec<u8>, Option<u64>)> {
        let mut paths = Vec::new();
        for path in self.top_paths() {
            let path = path.as_os_str().as_bytes();
            match path {
                b"/" => match std::fs::read_dir("/") {
                    Ok(children) => {
                        let kept = |path: &std::path::PathBuf| {
                            !self.options.rules.leaves_out(path.as_os_str().as_bytes(), path.is_dir())
                        };
                        let below = children.filter_map(|child| child.ok()).map(|child| child.path()).filter(kept);
                        let mut below: Vec<Vec<u8>> =
                            below.map(|path| path.into_os_string().into_encoded_bytes()).collect();
                        below.sort();
                        let device = stat_path(path, true).ok().map(|stat| stat.device);
                        paths.extend(below.into_iter().map(|path| (path, device)));
                    }
                    Err(error) => self.trouble(path, Error::io("list", "/", error).to_string()),
                },
                _ => paths.push((path.to_vec(), None)),
            }
        }
        paths
    }

    /// Walks one directory; its tree goes to who waits for it when the last page below it is done.
    pub(super) fn visit<'s>(
        &'s self,
        scope: &Scope<'s>,
        above: Above,
        path: Vec<u8>,
        handle: Result<Directory>,
        previous: Previous,
        place: Place,
    ) {
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
                self.trouble(&path, format!("its contents are missing: {error}"));
                return self.finish_empty(scope, above);
            }
        };
        self.watch.progress.set_current(&path);
        let kept = self.kept_names(place, &path, &handle, &names);
        let mut folder = Folder {
            above,
            key: FolderKey::of(&path),
            path,
            handle,
            names,
            kept,
            starts: Vec::new(),
            previous,
            place,
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
            0 => self.finish_folder(scope, &folder),
            1 => self.do_page(scope, &folder, 0),
            // The newest task is taken first: pushed backwards, pages are done in the order of their names.
            _ => (0..pages).rev().for_each(|number| {
                let folder = folder.clone();
                scope.spawn(move |scope| self.do_page(scope, &folder, number));
            }),
        }
    }

    /// Which names are walked, by the rules or as the way to a source; none stands for all.
    pub(super) fn kept_names(&self, place: Place, path: &[u8], handle: &Directory, names: &Names) -> Option<Vec<u32>> {
        if place.is_passage {
            let leads = |at: &u32| self.leads_to_source(path, names.get(*at as usize));
            return Some((0..names.len() as u32).filter(leads).collect());
        }
        let rules = &self.options.rules;
        if rules.is_empty() {
            return None;
        }
        let marked = rules.markers().iter().find(|marker| has_marker(handle, marker));
        if let Some(marker) = marked {
            let keep = |index: &u32| marker.keeps_itself() && names.get(*index as usize).to_bytes() == marker.name();
            return Some((0..names.len() as u32).filter(keep).collect());
        }
        if !rules.has_patterns() {
            return None;
        }
        let mut child = path.to_vec();
        if child.last() != Some(&b'/') {
            child.push(b'/');
        }
        let length = child.len();
        let mut keep = |index: &u32| {
            let name = names.get(*index as usize);
            child.truncate(length);
            child.extend_from_slice(name.to_bytes());
            let is_directory = match names.hint(*index as usize) {
                crate::disk::read_dir::Hint::Directory => true,
                crate::disk::read_dir::Hint::Unknown => {
                    handle.stat(name).is_ok_and(|stat| stat.is(EntryKind::Directory))
                }
                _ => false,
            };
            !rules.leaves_out(&child, is_directory)
        };
        Some((0..names.len() as u32).filter(&mut keep).collect())
    }

    /// A page of a directory is done: with the last one the directory is.
    pub(super) fn page_done<'s>(
        &'s self,
        scope: &Scope<'s>,
        folder: &Arc<Folder>,
        number: usize,
        page: Option<ChunkId>,
    ) {
        if let Some(page) = page {
            let first = folder.name(folder.starts[number]).to_bytes().to_vec();
            folder.pages.lock().unwrap_or_else(|poisoned| poisoned.into_inner())[number] = Some((first, page));
        }
        if folder.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            self.finish_folder(scope, folder);
        }
    }

    fn finish_folder<'s>(&'s self, scope: &Scope<'s>, folder: &Arc<Folder>) {
        let pages = std::mem::take(&mut *folder.pages.lock().unwrap_or_else(|poisoned| poisoned.into_inner()));
        let pages: Vec<NamedPage> = pages.into_iter().flatten().collect();
        if let Previous::State(rows) = &folder.previous {
            let live: HashSet<&[u8]> = pages.iter().map(|(first, _)| first.as_slice()).collect();
            let gone: Vec<_> = rows.iter().filter(|row| !live.contains(row.first_name.as_slice())).collect();
            if !gone.is_empty() {
                self.noted().removed.extend(gone.into_iter().map(|row| (folder.key, row.first_name.clone())));
            }
        }
        self.finish_tree(scope, &folder.above, pages);
    }

    /// A directory that was not entered: empty.
    pub(super) fn finish_empty<'s>(&'s self, scope: &Scope<'s>, above: Above) {
        self.finish_tree(scope, &above, Vec::new());
    }

    fn finish_tree<'s>(&'s self, scope: &Scope<'s>, above: &Above, pages: Vec<NamedPage>) {
        match store_root(pages, &mut |bytes| self.store_tree(bytes)) {
            Ok(root) => match above {
                Above::Page(page, slot) => self.below_done(scope, page, *slot, root),
                Above::Source(slot) => {
                    *slot.lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(root);
                }
            },
            Err(error) => self.fail(error),
        }
    }

    /// Stores a page; in a dry run only names it.
    pub(super) fn store_tree(&self, bytes: Vec<u8>) -> Result<ChunkId> {
        match &self.writer {
            Some(writer) => writer.store_tree(self.lane(), &bytes),
            None => Ok(self.repo.keys().tree_id(&bytes)),
        }
    }

    fn previous_of_source(&self, parent: Option<&Snapshot>, path: &[u8]) -> Result<Previous> {
        if self.options.force {
            return Ok(Previous::Nothing);
        }
        match (&self.state, parent) {
            (_, Some(parent)) if self.compare_with_parent => previous::of_path(self, parent, path),
            (Some(_), _) => Ok(self.previous_from_state(path)),
            _ => Ok(Previous::Nothing),
        }
    }
}

fn has_marker(handle: &Directory, marker: &Marker) -> bool {
    let Ok(name) = std::ffi::CString::new(marker.name()) else { return false };
    let Ok(fd) = open::open_file(handle, name.as_c_str()) else { return false };
    let mut first = vec![0; marker.header_bytes()];
    open::read_full(&fd, &mut first).is_ok_and(|length| marker.matches(&first[..length]))
}
