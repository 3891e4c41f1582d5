//! Delete one entry of the target, or say why it stays.

use crate::disk::{Directory, ListBuffer, NameList, Stat, remove, rights};
use crate::entry::EntryKind;
use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use crate::restore::counts::EntryFate;
use crate::restore::delete_place::{DeletePlace, NotedDirectory};
use crate::restore::folder::{MountedAt, mounted};
use crate::restore::paths::shown;
use crate::restore::planned_deletions::FoundForDeletion;
use crate::restore::reasons::{FIXED, STICKY};
use crate::restore::run::{RestoreRun, RunMode};
use crate::restore::scope::looks_like_ours;

/// What an error says was attempted where that is to delete something.
pub(super) const DELETE: &str = "delete";

const LEADS_TO_SOURCE: &str = "it leads to a source that was restored";

/// The error of something that stays.
pub(super) fn undeletable(kind: Kind, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(kind, DELETE, "").because(why)
}

/// A name in a directory.
pub(super) struct ListedEntry {
    pub name: Vec<u8>,
    /// None where only a stat tells.
    pub is_directory: Option<bool>,
}

/// What is in a directory.
pub(super) fn list(directory: &Directory) -> Result<Vec<ListedEntry>> {
    use crate::disk::read_dir::OpenHint;
    let mut names = NameList::default();
    directory.names(&mut names, &mut ListBuffer::default())?;
    let mut listed = Vec::with_capacity(names.len());
    for (name, hint) in names.iter() {
        let is_directory = match hint {
            OpenHint::Directory => Some(true),
            OpenHint::File | OpenHint::Symlink => Some(false),
            OpenHint::Unknown => {
                let stat = directory.stat(name);
                stat.is_ok_and(|stat| stat.is(EntryKind::Directory)).then_some(true)
            }
            OpenHint::Other => None,
        };
        listed.push(ListedEntry { name: name.to_bytes().to_vec(), is_directory });
    }
    Ok(listed)
}

impl RestoreRun<'_> {
    /// Says why something was not deleted; of what is in a directory that is to make way, that is the reason why it stays.
    pub(crate) fn not_deleted(&self, path: &[u8], error: Error, noted: &NotedDirectory) {
        let error = if error.doing() == DELETE { error } else { undeletable(error.kind(), error) };
        if noted.content_of.is_none() || matches!(error.kind(), Kind::Cancelled | Kind::Full) {
            return self.failed_step(path, error);
        }
        let why = || Error::new(error.kind(), DELETE, shown(path)).because(error.why()).to_string();
        noted.why_kept.borrow_mut().get_or_insert_with(why);
    }

    /// Whether a rule or a warning of the backup protects this path and everything below it.
    pub(super) fn is_protected(&self, path: &[u8], is_directory: bool) -> bool {
        self.options.exclude.leaves_out(path, is_directory) || self.scope.has_warning(path)
    }

    /// Whether a directory that goes may be looked into.
    pub(crate) fn may_look_into(
        &self,
        path: &[u8],
        directory: &Directory,
        stat: &Stat,
        deletes_on: MountedAt,
    ) -> Result<bool> {
        if stat.is_fixed {
            return Err(undeletable(Kind::Denied, FIXED));
        }
        if self.is_protected(path, true) || self.keeps_other_source(path, stat)? {
            return Ok(false);
        }
        if self.was_followed(stat) {
            self.tell_kept(path, LEADS_TO_SOURCE);
            return Ok(false);
        }
        if mounted(stat) != deletes_on {
            self.tell_kept(path, "another file system is mounted on it");
            return Ok(false);
        }
        if self.scope.is_own(stat) {
            return Ok(false);
        }
        let is_ours = looks_like_ours(directory)?;
        if is_ours {
            self.tell_kept(path, "it is a repository or a cache of silt");
        }
        Ok(!is_ours)
    }

    /// Deletes a name that is not a directory, according to its listing; returns whether it is gone.
    pub(crate) fn delete_leaf(
        &self,
        place: DeletePlace<'_>,
        one: &ListedEntry,
        path: &[u8],
        noted: &NotedDirectory,
    ) -> Result<bool> {
        let stat = match place.directory.stat(one.name.as_slice()) {
            Err(error) if error.is(Kind::NotFound) => return Ok(true),
            other => other?,
        };
        // Sockets are never saved: a socket that the snapshot lacks is not extra.
        if one.is_directory.is_none() && (stat.kind.is_none() || stat.is(EntryKind::Directory)) {
            return Ok(false);
        }
        if self.is_protected(path, false)
            || !self.options.includes_with_parents(path, false)
            || self.keeps_other_source_at(path, place.directory, &one.name, &stat)?
        {
            return Ok(false);
        }
        if self.was_followed(&stat) {
            self.tell_kept(path, LEADS_TO_SOURCE);
            return Ok(false);
        }
        if stat.mount != noted.on.1 {
            self.tell_kept(path, "another file system is mounted on it");
            return Ok(false);
        }
        if stat.is_fixed {
            return Err(undeletable(Kind::Denied, FIXED));
        }
        if place.keeps_others && !rights::owns(stat.uid, stat.gid) {
            return Err(undeletable(Kind::Denied, STICKY));
        }
        self.delete_name(path, place.found(&stat), noted, || {
            // Counted first: that this name is gone must not change what becomes of the other names of its inode.
            self.links_before(&stat);
            remove::remove_name(place.directory, &one.name)
        })
    }

    /// In a plan, notes what was found at a path; in a restore, removes it if the plan noted it. Returns whether it is gone.
    pub(crate) fn delete_name(
        &self,
        path: &[u8],
        found: FoundForDeletion,
        noted: &NotedDirectory,
        remove: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        match &self.mode {
            RunMode::Plan(_) if noted.content_of.is_some() => noted.paths.borrow_mut().push((path.to_vec(), found)),
            RunMode::Plan(planning) => {
                locked(&planning.deletions).insert(path, found);
                self.fate(EntryFate::Deleted, || path.to_vec());
            }
            RunMode::Restore { deletions } if !deletions.names(path, found) => {
                noted.is_unnamed.set(true);
                return Ok(false);
            }
            RunMode::Restore { .. } => {
                remove().map_err(|error| undeletable(error.kind(), error.why()))?;
                self.fate(EntryFate::Deleted, || path.to_vec());
            }
        }
        Ok(true)
    }

    /// For a plan: these paths will be deleted.
    pub(crate) fn plan_deletions(&self, paths: Vec<(Vec<u8>, FoundForDeletion)>) {
        let RunMode::Plan(planning) = &self.mode else { return };
        for (path, found) in paths {
            locked(&planning.deletions).insert(&path, found);
            self.fate(EntryFate::Deleted, || path);
        }
    }
}
