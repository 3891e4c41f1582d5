//! Take a directory of the target that was there: note what was met, and open it again later.

use crate::disk::opened_up::OpenedUp;
use crate::disk::stat::fstat;
use crate::disk::{Directory, Target};
use crate::entry::Entry;
use crate::error::Result;
use crate::restore::counts::Fate;
use crate::restore::find_directory::Found;
use crate::restore::find_directory::moved;
use crate::restore::folder::{Facts, Folder, Here, mounted};
use crate::restore::location::Location;
use crate::restore::paths::shown;
use crate::restore::reached::Reached;
use crate::restore::reasons::IN_USE;
use crate::restore::run::Run;
use crate::restore::scope::{Ours, is_repository_in_use};
use std::sync::Arc;

impl Run<'_> {
    /// A directory that a link above a source leads to: it may be in a repository.
    pub(super) fn take_followed(
        &self,
        above: &Here,
        folder: &Folder,
        entry: &Entry,
        directory: Directory,
    ) -> Result<Option<Here>> {
        let ours = self.ours_above(&directory)?;
        if ours == Ours::InUse {
            self.blocked_at(folder.path.clone(), IN_USE);
            return Ok(None);
        }
        let mut above = above.clone();
        above.facts.keeps_extra |= ours == Ours::Other;
        self.take(&above, folder, entry, directory, None)
    }

    /// A directory that was there before.
    pub(super) fn take(
        &self,
        above: &Here,
        folder: &Folder,
        entry: &Entry,
        directory: Directory,
        mut opened_up: Option<OpenedUp>,
    ) -> Result<Option<Here>> {
        let (target, stat) = Target::with_stat(directory)?;
        if self.scope.is_in_use(&stat) || is_repository_in_use(self.repo, target.directory()) {
            if self.has_entries(entry)? {
                self.blocked_at(folder.path.clone(), IN_USE);
            } else {
                // A backup leaves out what is in it.
                self.fate(Fate::Kept, || folder.path.clone());
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
                let reached = Reached::of(target.directory(), &stat, overlap.mounts.as_ref());
                let location = || Location::of(target.directory());
                self.is_first(self.met_before(&reached, location, folder, entry)?, folder)
            }
            None => true,
        };
        if !is_first || self.is_spared(&folder.path, target.directory(), &stat, entry) {
            return Ok(None);
        }
        // One that may be listed and not entered was opened all the same.
        if stat.is_closed_to_owner(0o500) {
            if !self.is_deed() {
                return Ok(Some(self.closed(above, folder, &stat)));
            }
            opened_up = Some(OpenedUp::open(target.directory(), &stat)?);
        }
        self.remove_leftovers(folder, &target)?;
        let in_place = self.target.in_place.get().copied().unwrap_or(false);
        let changes = folder.inside && folder.wanted && self.changes_directory(&stat, entry);
        let facts = Facts {
            taken: true,
            apply: self.applies(&stat, entry, changes),
            // A source that is mounted where it was saved is one file system with itself.
            deletes_on: if folder.is_source && in_place { mounted(&stat) } else { above.facts.deletes_on },
            keeps_extra: above.facts.keeps_extra || self.keeps_extra(folder, target.directory())?,
            ..self.facts_of(&folder.path, &target, &stat)
        };
        folder.closes_later(opened_up);
        Ok(Some(Here { target: Some(Arc::new(target)), facts }))
    }

    pub(super) fn open_again(&self, above: &Here, folder: &Folder, facts: Facts) -> Result<Here> {
        let entry = folder.entry.as_ref().expect("the top of the target is never closed");
        let target = above.target.as_ref().expect("what was closed was opened in a directory that is there");
        let (directory, opened_up) = match self.find(above, target, folder, entry)? {
            Found::Opened(directory, opened_up) => (directory, opened_up),
            Found::Followed(directory) => (directory, None),
            _ => return Err(moved(entry)),
        };
        let here = self.reopened(folder, facts, directory)?;
        folder.closes_later(opened_up);
        Ok(here)
    }

    /// Takes over a directory that was closed and is open again; refuses anything else that has its name now.
    pub fn reopened(&self, folder: &Folder, facts: Facts, directory: Directory) -> Result<Here> {
        if !Folder::is_same(&facts, &fstat(&directory)?) {
            return Err(moved(folder.entry.as_ref().expect("the top of the target is never closed")));
        }
        let here = Here { target: Some(Arc::new(Target::new(directory)?)), facts };
        folder.set(here.clone(), &self.open_folders);
        Ok(here)
    }
}
