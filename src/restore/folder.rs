//! Restore directories: spread over the writers by work stealing, each one's own metadata last.

use crate::disk::{ListBuffer, Names, Subject, Target, apply_metadata, remove};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::id::ChunkId;
use crate::restore::plan::{DEPTH_MAX, child_path};
use crate::restore::{Overwrite, Run, add};
use rayon::Scope;
use rustix::fd::AsFd;
use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// A directory of the target that is being filled.
pub(super) struct Folder {
    pub target: Arc<Target>,
    /// Its path in the snapshot.
    pub path: Vec<u8>,
    above: Option<Arc<Folder>>,
    /// What its metadata become once all below it is there.
    entry: Option<Entry>,
    current: Option<crate::disk::Current>,
    /// Whether entries may be there already.
    pub taken: bool,
    depth: usize,
    /// Tasks below that are not done, and one for itself.
    left: AtomicUsize,
    /// Names that the snapshot has, when the others are to be deleted.
    names: Mutex<HashSet<Vec<u8>>>,
}

impl Folder {
    pub fn top(target: Arc<Target>, path: Vec<u8>, entry: Option<Entry>, taken: bool) -> Self {
        Folder {
            target,
            path,
            above: None,
            entry,
            current: None,
            taken,
            depth: 0,
            left: AtomicUsize::new(1),
            names: Mutex::default(),
        }
    }
}

impl<'a> Run<'a> {
    /// Restores what is in a directory.
    pub(super) fn visit<'s>(&'s self, scope: &Scope<'s>, folder: Arc<Folder>, tree: ChunkId) {
        if folder.depth > DEPTH_MAX {
            self.trouble(&folder.path, "its directories lie too deep: the snapshot is damaged or hostile");
        } else if !self.is_over() {
            self.watch.progress.set_current(&folder.path);
            match self.reader.leaf_pages(&tree) {
                Ok(pages) if pages.len() == 1 => self.restore_page(scope, &folder, &pages[0]),
                Ok(pages) => {
                    for page in pages.into_iter().rev() {
                        folder.left.fetch_add(1, Ordering::Relaxed);
                        let folder = folder.clone();
                        scope.spawn(move |scope| {
                            self.restore_page(scope, &folder, &page);
                            self.one_less(folder);
                        });
                    }
                }
                Err(error) => self.failed_entry(&folder.path, error),
            }
        }
        self.one_less(folder);
    }

    fn restore_page<'s>(&'s self, scope: &Scope<'s>, folder: &Arc<Folder>, page: &ChunkId) {
        let restored = self.reader.page_entries(page).map(|entries| {
            // Pushed backwards, directories are restored in the order of their names, after this page's files.
            let (below, others): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(Entry::is_directory);
            for entry in below.into_iter().rev() {
                self.restore_entry(scope, folder, entry);
            }
            for entry in others {
                if self.is_over() {
                    return;
                }
                self.restore_entry(scope, folder, entry);
            }
        });
        if let Err(error) = restored {
            self.failed_entry(&folder.path, error);
        }
    }

    pub(super) fn restore_entry<'s>(&'s self, scope: &Scope<'s>, folder: &Arc<Folder>, entry: Entry) {
        let options = self.options();
        if folder.taken && options.delete {
            super::locked(&folder.names).insert(entry.name.clone());
        }
        if options.is_partial() && !options.takes(&child_path(&folder.path, &entry.name), entry.is_directory()) {
            return;
        }
        let done = match entry.kind {
            EntryKind::Directory => self.restore_directory(scope, folder, &entry),
            _ if entry.link_group != 0 => self.restore_linked(folder, &entry),
            EntryKind::File | EntryKind::Stream => self.restore_file(folder, &entry),
            _ => self.restore_special(folder, &entry),
        };
        if let Err(error) = done {
            self.failed_entry(&child_path(&folder.path, &entry.name), error);
        }
    }

    fn restore_directory<'s>(&'s self, scope: &Scope<'s>, folder: &Arc<Folder>, entry: &Entry) -> Result<()> {
        let made = match folder.target.create_directory(&entry.name, &entry.meta) {
            Ok((target, current)) => Some((target, Some(current), false)),
            Err(error) if error.is(Kind::AlreadyExists) => self.take_directory(folder, entry)?,
            Err(error) => return Err(error),
        };
        let Some((target, current, taken)) = made else { return Ok(()) };
        add(&self.counts.directories, 1);
        folder.left.fetch_add(1, Ordering::Relaxed);
        let below = Arc::new(Folder {
            target: Arc::new(target),
            path: child_path(&folder.path, &entry.name),
            above: Some(folder.clone()),
            entry: Some(entry.clone()),
            current,
            taken,
            depth: folder.depth + 1,
            left: AtomicUsize::new(1),
            names: Mutex::default(),
        });
        match &entry.content {
            Content::Tree(tree) => {
                let tree = *tree;
                scope.spawn(move |scope| self.visit(scope, below, tree));
            }
            _ => self.one_less(below),
        }
        Ok(())
    }

    /// Something has the name of a directory already: another directory is filled, anything else makes way.
    #[allow(clippy::type_complexity)]
    fn take_directory(
        &self,
        folder: &Folder,
        entry: &Entry,
    ) -> Result<Option<(Target, Option<crate::disk::Current>, bool)>> {
        let name = entry.name.as_slice();
        // Links are not followed: whoever put one there does not decide where we write.
        if let Ok(handle) = folder.target.directory().open_child(name) {
            return Ok(Some((Target::new(handle)?, None, true)));
        }
        match self.options().overwrite {
            Overwrite::Never | Overwrite::IfNewer => {
                self.trouble(&child_path(&folder.path, name), "something else than a directory is there and was kept");
                Ok(None)
            }
            Overwrite::Always | Overwrite::IfChanged => {
                folder.target.remove(name)?;
                let (target, current) = folder.target.create_directory(name, &entry.meta)?;
                Ok(Some((target, Some(current), false)))
            }
        }
    }

    /// Links, devices and FIFOs.
    pub(super) fn restore_special(&self, folder: &Folder, entry: &Entry) -> Result<()> {
        let name = entry.name.as_slice();
        let create = || match entry.kind {
            EntryKind::Symlink => folder.target.create_symlink(name, &entry.target),
            _ => folder.target.create_special(name, entry.kind, entry.device, &entry.meta),
        };
        let current = match create() {
            Err(error) if error.is(Kind::AlreadyExists) => {
                if !self.make_way(folder, entry)? {
                    return Ok(());
                }
                create()?
            }
            other => other?,
        };
        add(&self.counts.others, 1);
        let subject = Subject::Named(folder.target.directory(), name);
        let losses = apply_metadata(subject, Some(current), &entry.meta, entry.kind, &self.apply_options());
        self.report_losses(folder, entry, losses);
        Ok(())
    }

    pub(super) fn report_losses(&self, folder: &Folder, entry: &Entry, losses: Vec<crate::disk::Loss>) {
        for loss in losses {
            let path = child_path(&folder.path, &entry.name);
            self.trouble(&path, format!("its {} could not be restored: {}", loss.what, loss.error));
        }
    }

    /// A task of a directory is done; after the last one its metadata are applied, and the one above learns of it.
    fn one_less(&self, folder: Arc<Folder>) {
        let mut folder = folder;
        while folder.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            if self.counts.failed.load(Ordering::Relaxed) {
                return;
            }
            self.finish_folder(&folder);
            match &folder.above {
                Some(above) => folder = above.clone(),
                None => return,
            }
        }
    }

    fn finish_folder(&self, folder: &Folder) {
        if folder.taken
            && self.options().delete
            && let Err(error) = self.delete_others(folder)
        {
            self.failed_entry(&folder.path, error);
        }
        if folder.entry.is_some() && !super::locked(&self.links).defer(folder) {
            self.apply_folder(folder);
        }
    }

    /// Gives a directory its metadata.
    pub(super) fn apply_folder(&self, folder: &Folder) {
        let Some(entry) = &folder.entry else { return };
        let subject = Subject::Open(folder.target.directory().as_fd());
        let options = self.apply_options();
        for loss in apply_metadata(subject, folder.current, &entry.meta, EntryKind::Directory, &options) {
            self.trouble(&folder.path, format!("its {} could not be restored: {}", loss.what, loss.error));
        }
    }

    fn delete_others(&self, folder: &Folder) -> Result<()> {
        let directory = folder.target.directory();
        let mut listed = Names::default();
        // A descriptor lists once: another one is opened for the names as they are now.
        directory.open_child(c".")?.names(&mut listed, &mut ListBuffer::default())?;
        let names = std::mem::take(&mut *super::locked(&folder.names));
        for (name, _) in listed.iter() {
            let path = child_path(&folder.path, name.to_bytes());
            if names.contains(name.to_bytes()) || !self.options().takes(&path, false) {
                continue;
            }
            match remove::remove_all(directory, name.to_bytes()) {
                Ok(()) => add(&self.counts.files_deleted, 1),
                Err(error) => self.failed_entry(&path, Error::new(error.kind(), "delete", "").because(error)),
            }
        }
        Ok(())
    }
}
