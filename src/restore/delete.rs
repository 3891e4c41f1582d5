//! Delete what the snapshot does not have: only what the plan named, inside a source, on its file system, where the backup
//! saw everything, and never what rules protect, a repository or a cache.

use crate::disk::{Directory, Identity, TargetDirectory, unfinished};
use crate::entry::Entry;
use crate::error::{Kind, Result};
use crate::lock::locked;
use crate::restore::counts::get;
use crate::restore::delete_entry::{ListedEntry, list};
use crate::restore::delete_place::{DeletePlace, NotedDirectory};
use crate::restore::folder::{FolderFacts, OpenFolder, TargetFolder};
use crate::restore::leftovers::is_rest_of_a_directory;
use crate::restore::paths::child_path;
use crate::restore::planned_deletions::FoundForDeletion;
use crate::restore::reasons::NOT_EMPTY;
use crate::restore::run::{RestoreRun, RunMode};
use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Reported for a directory whose contents the plan could not see, so that nothing in it is deleted: the first text if
/// its mode is open now, the second if it is closed again.
const CLOSED_TO_PLAN: &str = "extra entries in it were not deleted, because its mode prevented the plan from reading it: run \
                              the restore again";
const CLOSED_TO_PLANS: &str = "extra entries in it were not deleted, because its mode prevents the plan from reading it: run \
                               `chmod u+rwx` on it, then restore again";

/// Said of a directory below such a one.
const CLOSED_ABOVE: &str = "extra entries in it were not deleted, because the mode of a directory above it prevented the plan from \
                            reading it: run the restore again; if that directory is still closed, run `chmod u+rwx` on it first";
/// Said of entries that came or changed after the plan, and where it met an error.
const NOT_NAMED: &str = "extra entries in it were not deleted, because they came or changed after the plan, or the plan could not read \
                         them: run the restore again";

/// Said of the target, once, where nothing is deleted.
const NOT_ALL_RESTORED: &str =
    "extra entries were not deleted, because something could not be restored: they may be the only copy of it";

/// Whether a directory makes way.
pub(super) enum Cleared {
    /// In a plan: these paths are deleted for it.
    Yes(Vec<(Vec<u8>, FoundForDeletion)>),
    /// Why it stays.
    No(String),
}

/// The inodes of names that a directory has and does not list: a file system that ignores case, or normalises names, lists
/// them in another spelling.
struct NameSpellings(HashSet<Identity>);

impl NameSpellings {
    /// `known` are the names of the snapshot's directory.
    pub(super) fn of(directory: &Directory, known: &HashSet<Vec<u8>>, listed: &[ListedEntry]) -> Result<Self> {
        let listed: HashSet<&[u8]> = listed.iter().map(|one| one.name.as_slice()).collect();
        let mut inodes = HashSet::new();
        for name in known.iter().filter(|name| !listed.contains(name.as_slice())) {
            match directory.stat(name.as_slice()) {
                Ok(stat) => drop(inodes.insert(stat.identity())),
                // The file system has, or can have, no such name.
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(NameSpellings(inodes))
    }

    /// Whether a listed name is another spelling of a known one.
    fn has(&self, directory: &Directory, name: &[u8]) -> Result<bool> {
        if self.0.is_empty() {
            return Ok(false);
        }
        match directory.stat(name) {
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            stat => stat.map(|stat| self.0.contains(&stat.identity())),
        }
    }
}

impl RestoreRun<'_> {
    /// Whether anything may be deleted in this directory.
    pub(crate) fn deletes_in(&self, folder: &TargetFolder, here: &OpenFolder) -> bool {
        let saved_whole = folder.entry.as_ref().is_none_or(|entry| !entry.is_partial)
            && !folder.names.are_incomplete.load(Ordering::Relaxed)
            && !self.scope.has_warning(&folder.path);
        folder.inside && saved_whole && self.may_delete(here)
    }

    /// Whether the content of a directory that is in the place of this entry is deleted, so that it makes way.
    pub(crate) fn clears_for(&self, folder: &TargetFolder, here: &OpenFolder, path: &[u8]) -> bool {
        let is_source = !folder.inside && self.scope.is_source(path);
        self.deletes_in(folder, here) || (is_source && !self.scope.has_warning(path) && self.may_delete(here))
    }

    /// Whether nothing but the snapshot itself speaks against deleting here.
    fn may_delete(&self, here: &OpenFolder) -> bool {
        let FolderFacts { keeps_extra, append_only, refuses, .. } = here.facts;
        let is_seen =
            self.overlap().is_none() && self.target.other_sources.get().is_none_or(|others| others.unknown.is_none());
        let may_be = is_seen && !keeps_extra && !append_only && refuses.is_none();
        self.options.delete && !self.scope.warnings_cut && may_be && here.facts.mounted == here.facts.deletes_on
    }

    /// Notes a directory in which something is to be deleted when everything is restored. A plan deletes nothing, and need not wait.
    pub(crate) fn delete_later(&self, folder: &Arc<TargetFolder>, here: &OpenFolder) {
        if !self.is_restore() {
            return self.delete_others(folder, here);
        }
        let (Some(target), true) = (&here.target, self.deletes_in(folder, here)) else { return };
        let has_others = || -> Result<bool> {
            let listed = list(&target.directory().open_child(c".")?)?;
            let saved = locked(&folder.names.saved);
            Ok(listed.iter().any(|one| !saved.contains(&one.name)))
        };
        match has_others() {
            Ok(true) => {
                folder.names.has_others.store(true, Ordering::Relaxed);
                self.hold_back(folder, &mut locked(&self.links));
            }
            Ok(false) => drop(std::mem::take(&mut *locked(&folder.names.saved))),
            Err(error) => self.failed_entry(&folder.path, error),
        }
    }

    /// Whether everything has been restored, so that what the snapshot does not have may go: it may be the only copy of what could not.
    pub(crate) fn may_delete_now(&self, has_others: bool) -> bool {
        let may = get(&self.counts.failed) == 0;
        if !may && has_others {
            self.warn(self.options.target.as_os_str().as_bytes(), NOT_ALL_RESTORED);
        }
        may
    }

    /// Deletes what is in a directory and not in the snapshot.
    pub(crate) fn delete_others(&self, folder: &TargetFolder, here: &OpenFolder) {
        let (Some(target), true) = (&here.target, self.deletes_in(folder, here)) else { return };
        let known = std::mem::take(&mut *locked(&folder.names.saved));
        let mut is_unnamed = false;
        let mut delete = || -> Result<()> {
            let directory = target.directory();
            let listed = list(&directory.open_child(c".")?)?;
            let spellings = NameSpellings::of(directory, &known, &listed)?;
            let place = DeletePlace::new(directory, here.facts.keeps_others);
            for one in listed {
                if known.contains(&one.name) || self.should_stop() {
                    continue;
                }
                if unfinished::is_unfinished(&one.name) && !is_rest_of_a_directory(directory, &one.name) {
                    continue;
                }
                if spellings.has(directory, &one.name)? {
                    continue;
                }
                let noted = NotedDirectory::on(here);
                let path = child_path(&folder.path, &one.name);
                match self.delete_extra(folder, place, target, &one, &path, &noted) {
                    Ok(true) => folder.changed.store(true, Ordering::Relaxed),
                    Ok(false) => {}
                    Err(error) => self.not_deleted(&path, error, &noted),
                }
                is_unnamed |= noted.is_unnamed.get();
            }
            Ok(())
        };
        if let Err(error) = delete() {
            self.failed_step(&folder.path, error);
        }
        if is_unnamed {
            self.warn(&folder.path, self.why_unnamed(folder, here));
        }
    }

    /// Why a plan did not name what it should have.
    fn why_unnamed(&self, folder: &TargetFolder, here: &OpenFolder) -> &'static str {
        let closed = |folder: &TargetFolder| locked(&folder.opened_up).filter(|mode| mode & 0o500 != 0o500);
        if let Some(mode) = closed(folder) {
            let mode_then = folder.entry.as_ref().filter(|_| here.facts.apply).map_or(mode, |entry| entry.meta.mode);
            return if mode_then & 0o500 == 0o500 { CLOSED_TO_PLAN } else { CLOSED_TO_PLANS };
        }
        let mut above = std::iter::successors(folder.above.as_deref(), |folder| folder.above.as_deref());
        if above.any(|folder| closed(folder).is_some()) { CLOSED_ABOVE } else { NOT_NAMED }
    }

    /// Deletes an entry that the snapshot does not have; whether it is gone.
    fn delete_extra(
        &self,
        folder: &TargetFolder,
        place: DeletePlace<'_>,
        target: &TargetDirectory,
        one: &ListedEntry,
        path: &[u8],
        noted: &NotedDirectory,
    ) -> Result<bool> {
        if one.is_directory != Some(true) {
            return self.in_folder(folder, target, |_| self.delete_leaf(place, one, path, noted));
        }
        // A closed directory of this user is opened up before anything in it is deleted.
        if matches!(&self.mode, RunMode::Restore { deletions } if deletions.contains(path)) {
            self.open_up(folder, target)?;
        }
        self.delete_tree(place, &one.name, path.to_vec(), noted)
    }

    /// Deletes what is in a directory that makes way, but not itself. Where a part of it stays, a plan deletes nothing of it, and
    /// so neither does the restore. `path` is what the plan calls it, whatever its name is now.
    pub(crate) fn delete_content(
        &self,
        here: &OpenFolder,
        target: &TargetDirectory,
        name: &[u8],
        path: &[u8],
    ) -> Result<Cleared> {
        let noted = NotedDirectory { content_of: Some(path.len()), ..NotedDirectory::on(here) };
        let place = DeletePlace::new(target.directory(), here.facts.keeps_others);
        match self.delete_tree(place, name, path.to_vec(), &noted) {
            Ok(true) => return Ok(Cleared::Yes(noted.paths.into_inner())),
            Ok(false) => {}
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Conflict | Kind::NotFound) => {
                self.not_deleted(path, error, &noted);
            }
            Err(error) => return Err(error),
        }
        Ok(Cleared::No(noted.why_kept()))
    }

    /// Returns why a directory does not make way, as far as that shows before anything in it is deleted: the plan did not
    /// name all of it.
    pub(crate) fn why_not_cleared(
        &self,
        target: &TargetDirectory,
        entry: &Entry,
        path: &[u8],
    ) -> Result<Option<String>> {
        let RunMode::Restore { deletions } = &self.mode else { return Ok(None) };
        if let Some(why) = deletions.why_kept(path) {
            return Ok(Some(why.to_owned()));
        }
        let directory = target.directory().open_child(entry.name.as_slice())?;
        let place = DeletePlace::new(&directory, false);
        for one in list(&directory.open_child(c".")?)? {
            let stat = match directory.stat(one.name.as_slice()) {
                Err(error) if error.is(Kind::NotFound) => continue,
                stat => stat?,
            };
            if !deletions.names(&child_path(path, &one.name), place.found(&stat)) {
                return Ok(Some(NOT_EMPTY.to_owned()));
            }
        }
        Ok(None)
    }
}
