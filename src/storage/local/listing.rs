//! List what is in a directory of the repository: objects, and directories with more of them, behind links, too.

use super::LocalTree;
use super::errors::{failed, is_absent};
use super::folder::check_folder;
use crate::disk::own_files::names_behind_links;
use crate::error::Result;
use crate::storage::files::{TreeEntry, TreeEntryKind};
use rustix::fs::FileType;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

impl LocalTree {
    pub(super) fn entries_of(&self, folder: &str) -> Result<Vec<TreeEntry>> {
        let top = self.root.join(folder);
        // Further down an object may be in its place, and below one is nothing.
        if !folder.contains('/') {
            check_folder("list", &top)?;
        }
        let names = match names_behind_links(&top) {
            Ok(names) => names,
            // Removed after the directory above was listed, or not made yet.
            Err(error) if is_absent(&error) => return self.check_root().map(|()| Vec::new()),
            Err(error) => return Err(failed("list", &top, error)),
        };
        let mut entries = Vec::with_capacity(names.len());
        let mut has_absent = false;
        for (name, kind) in names.into_iter().filter(|(name, _)| !name.as_bytes().starts_with(b".")) {
            let Some(kind) = self.kind_of(&top.join(&name), kind, &mut has_absent)? else { continue };
            // No object has a name that is not UTF-8, nor is one below it.
            entries.extend(name.into_string().ok().map(|name| TreeEntry { name, kind }));
        }
        if has_absent {
            // Of a disk that was unmounted meanwhile, names can still be here.
            self.check_root()?;
        }
        Ok(entries)
    }

    /// What an entry of a directory is; none for what is neither a file nor a directory, or is gone.
    fn kind_of(&self, path: &Path, kind: FileType, has_absent: &mut bool) -> Result<Option<TreeEntryKind>> {
        if kind == FileType::Directory {
            return Ok(Some(TreeEntryKind::Directory));
        }
        if !matches!(kind, FileType::RegularFile | FileType::Symlink | FileType::Unknown) {
            return Ok(None);
        }
        // A directory of the repository may be on another disk: its objects are found when they are read. Further down, a link to a
        // directory could lead round in circles, and root through all of the machine.
        let is_followed = self.below(path).components().count() <= if self.owner.is_some() { 1 } else { 2 };
        match path.metadata() {
            Ok(meta) if meta.is_dir() => {
                let is_entered = is_followed || !path.is_symlink();
                Ok(is_entered.then_some(TreeEntryKind::Directory))
            }
            Ok(meta) if !self.may_follow(path, &meta) => Ok(Some(TreeEntryKind::File(0))),
            Ok(meta) => Ok(meta.is_file().then_some(TreeEntryKind::File(meta.len()))),
            // An object that is left out of a listing would count as lost, or be missed by nobody. Reading this one is an error.
            Err(_) if path.is_symlink() => Ok(Some(TreeEntryKind::File(0))),
            Err(error) if is_absent(&error) => {
                *has_absent = true;
                Ok(None)
            }
            Err(error) => Err(failed("list", path, error)),
        }
    }
}
