//! Take a directory of the target that was there: note what was met, and open it again later.

use crate::disk::opened_up::OpenedUp;
use crate::disk::stat::fstat;
use crate::disk::{Directory, TargetDirectory};
use crate::entry::Entry;
use crate::error::Result;
use crate::restore::counts::EntryFate;
use crate::restore::find_directory::{FoundDirectory, moved};
use crate::restore::folder::{FolderFacts, OpenFolder, TargetFolder, mounted};
use crate::restore::location::DirectoryLocation;
use crate::restore::paths::shown;
use crate::restore::reached::ReachedDirectory;
use crate::restore::reasons::IN_USE;
use crate::restore::run::RestoreRun;
use crate::restore::scope::{OurFolders, is_repository_in_use};
use std::sync::Arc;

impl RestoreRun<'_> {
    /// A directory that a link above a source leads to: it may be in a repository.
    pub(super) fn take_followed(
        &self,
        above: &OpenFolder,
        folder: &TargetFolder,
        entry: &Entry,
        directory: Directory,
    ) -> Result<Option<OpenFolder>> {
        let ours = self.ours_above(&directory)?;
        if ours == OurFolders::InUse {
            self.blocked_at(folder.path.clone(), IN_USE);
            return Ok(None);
        }
        let mut above = above.clone();
        above.facts.keeps_extra |= ours == OurFolders::Other;
        self.take(&above, folder, entry, directory, None)
    }

    /// A directory that was there before.
    pub(super) fn take(
        &self,
        above: &OpenFolder,
        folder: &TargetFolder,
        entry: &Entry,
        directory: Directory,
        mut opened_up: Option<OpenedUp>,
    ) -> Result<Option<OpenFolder>> {
        let (target, stat) = TargetDirectory::with_stat(directory)?;
        if self.scope.is_in_use(&stat) || is_repository_in_use(self.repo, target.directory()) {
            if self.has_entries(entry)? {
                self.blocked_at(folder.path.clone(), IN_USE);
            } else {
                // A backup leaves out what is in it.
                self.fate(EntryFate::Kept, || folder.path.clone());
            }
            return Ok(None);
        }
        let is_mount_point = mounted(&stat) != above.facts.mounted;
        let other = if folder.inside {
            match self.other_source(&folder.path, &stat, Some(entry))? {
                None if is_mount_point => self.other_mounted_on_empty(&folder.path, target.directory(), entry)?,
                other => other,
            }
        } else {
            None
        };
        if let Some(other) = other {
            self.overlap().iter().for_each(|overlap| overlap.blocks());
            let other = shown(&other);
            let why = format!(
                "it is now {other}, which belongs to another source of the snapshot, and was not restored: restore it by itself"
            );
            self.blocked_at(folder.path.clone(), &why);
            return Ok(None);
        }
        let is_first = match self.overlap() {
            Some(overlap) => {
                let reached = ReachedDirectory::of(target.directory(), &stat, overlap.mounts.as_ref());
                let location = || DirectoryLocation::of(target.directory());
                self.is_first(self.met_before(&reached, location, folder, entry)?, folder)
            }
            None => true,
        };
        if !is_first || self.is_spared(&folder.path, target.directory(), &stat, entry) {
            return Ok(None);
        }
        let is_stub = is_mount_point && self.is_stub_of_automounter(&stat, entry)?;
        let changes = folder.inside && folder.wanted && !is_stub && self.changes_directory(&stat, entry);
        let apply = self.applies(&stat, entry, changes);
        if folder.inside && folder.wanted && !is_stub {
            let is_closed = opened_up.is_some() || stat.is_closed_to_owner(0o500);
            let before = opened_up.as_ref().map_or(stat, |opened_up| opened_up.stat_before(&stat));
            let open = (!is_closed).then_some(target.directory());
            self.count_directory(&folder.path, entry, &before, open, apply);
        }
        // One that may be listed and not entered was opened all the same.
        if stat.is_closed_to_owner(0o500) {
            if !self.is_restore() {
                return Ok(Some(self.closed(above, folder, &stat)));
            }
            opened_up = Some(OpenedUp::open(target.directory(), &stat)?);
        }
        self.remove_leftovers(folder, &target)?;
        let in_place = self.target.in_place.get().copied().unwrap_or(false);
        let facts = FolderFacts {
            taken: true,
            apply,
            // A source that is mounted where it was saved is one file system with itself.
            deletes_on: if folder.is_source && in_place { mounted(&stat) } else { above.facts.deletes_on },
            keeps_extra: above.facts.keeps_extra || self.keeps_extra(folder, target.directory())?,
            ..self.facts_of(&folder.path, &target, &stat)
        };
        folder.closes_later(opened_up);
        Ok(Some(OpenFolder { target: Some(Arc::new(target)), facts }))
    }

    pub(super) fn open_again(
        &self,
        above: &OpenFolder,
        folder: &TargetFolder,
        facts: FolderFacts,
    ) -> Result<OpenFolder> {
        let entry = folder.entry.as_ref().expect("the top of the target is never closed");
        let target = above.target.as_ref().expect("what was closed was opened in a directory that is there");
        let (directory, opened_up) = match self.find(above, target, folder, entry)? {
            FoundDirectory::Opened(directory, opened_up) => (directory, opened_up),
            FoundDirectory::Followed(directory) => (directory, None),
            _ => return Err(moved(entry)),
        };
        let here = self.reopened(folder, facts, directory)?;
        folder.closes_later(opened_up);
        Ok(here)
    }

    /// Takes over a directory that was closed and is open again; refuses anything else that has its name now.
    pub(crate) fn reopened(
        &self,
        folder: &TargetFolder,
        facts: FolderFacts,
        directory: Directory,
    ) -> Result<OpenFolder> {
        if !TargetFolder::is_same(&facts, &fstat(&directory)?) {
            return Err(moved(folder.entry.as_ref().expect("the top of the target is never closed")));
        }
        let here = OpenFolder { target: Some(Arc::new(TargetDirectory::new(directory)?)), facts };
        folder.set(here.clone(), &self.open_folders);
        Ok(here)
    }
}
