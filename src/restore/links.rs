//! Hard links: the first name of an inode is restored, the others become links to it when all files are there.

use crate::entry::{Entry, EntryKind};
use crate::error::{Kind, Result};
use crate::restore::folder::Folder;
use crate::restore::{Run, add, locked};
use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Names of one inode that have been met.
#[derive(Default)]
pub(super) struct Links {
    /// By group: where the first name is.
    first: HashMap<u64, (Arc<Folder>, Vec<u8>)>,
    others: Vec<(Arc<Folder>, Entry)>,
    /// Addresses of the folders among `others`, which hold them in place.
    waiting: HashSet<usize>,
}

impl Links {
    /// Whether this directory gets another link later, which would change its time: then its metadata wait.
    pub fn defer(&self, folder: &Folder) -> bool {
        self.waiting.contains(&(std::ptr::from_ref(folder) as usize))
    }
}

impl<'a> Run<'a> {
    pub(super) fn restore_linked(&self, folder: &Arc<Folder>, entry: &Entry) -> Result<()> {
        {
            let mut links = locked(&self.links);
            match links.first.entry(entry.link_group) {
                Slot::Occupied(_) => {
                    links.waiting.insert(Arc::as_ptr(folder) as usize);
                    links.others.push((folder.clone(), entry.clone()));
                    return Ok(());
                }
                Slot::Vacant(slot) => {
                    slot.insert((folder.clone(), entry.name.clone()));
                }
            }
        }
        match entry.kind {
            EntryKind::File | EntryKind::Stream => self.restore_file(folder, entry),
            _ => self.restore_special(folder, entry),
        }
    }

    /// Makes the links that were put off, and then applies the metadata of the directories that got them.
    pub(super) fn make_links(&self) {
        let links = std::mem::take(&mut *locked(&self.links));
        let mut folders: Vec<Arc<Folder>> = Vec::new();
        for (folder, entry) in links.others {
            if self.is_over() {
                return;
            }
            let path = super::plan::child_path(&folder.path, &entry.name);
            let (first, name) = &links.first[&entry.link_group];
            if let Err(error) = self.make_link(&folder, &entry, first, name) {
                self.failed_entry(&path, error);
            }
            if folders.last().is_none_or(|last| !Arc::ptr_eq(last, &folder)) {
                folders.push(folder);
            }
        }
        for folder in folders {
            self.apply_folder(&folder);
        }
    }

    fn make_link(&self, folder: &Folder, entry: &Entry, first: &Folder, name: &[u8]) -> Result<()> {
        let link = || folder.target.create_hard_link(&entry.name, first.target.directory(), name);
        match link() {
            Err(error) if error.is(Kind::AlreadyExists) => {
                let there = folder.target.directory().stat(entry.name.as_slice())?;
                let wanted = first.target.directory().stat(name)?;
                if (there.device, there.inode) == (wanted.device, wanted.inode) {
                    add(&self.counts.files_kept, 1);
                    return Ok(());
                }
                if !self.make_way(folder, entry)? {
                    return Ok(());
                }
                link()?;
            }
            // The file system has no hard links, or the first name could not be restored: a file of its own then.
            Err(_) if entry.kind.has_content() => {
                let path = super::plan::child_path(&folder.path, &entry.name);
                self.trouble(&path, "it could not be linked to its other name and was restored as a file of its own");
                return self.restore_file(folder, entry);
            }
            other => other?,
        }
        add(if entry.kind.has_content() { &self.counts.files } else { &self.counts.others }, 1);
        Ok(())
    }
}
