//! Renames a finished entry to its name, in one step or not at all.

use crate::disk::apply::apply_flags;
use crate::disk::{Subject, TargetDirectory};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use crate::restore::counts::EntryFate;
use crate::restore::decision::PlacingWay;
use crate::restore::delete::Cleared;
use crate::restore::folder::{OpenFolder, TargetFolder};
use crate::restore::paths::{child_path, shown};
use crate::restore::reasons::SAME_NAME;
use crate::restore::run::{RestoreRun, RunMode};
use std::sync::atomic::Ordering;

impl RestoreRun<'_> {
    /// Moves an entry from its unfinished name to its own. If that fails, the old entry keeps the name, and the
    /// unfinished one is removed. Returns false if something does not make way; that was reported.
    pub(crate) fn put_in_place(
        &self,
        folder: &TargetFolder,
        here: &OpenFolder,
        target: &TargetDirectory,
        unfinished: &[u8],
        entry: &Entry,
        way: PlacingWay,
    ) -> Result<bool> {
        let number = || target.directory().stat(unfinished).map(|stat| stat.identity()).ok();
        let may_change_places = matches!(way, PlacingWay::OverDirectory | PlacingWay::OverEmptyDirectory);
        let made = if may_change_places { number() } else { None };
        let placed = self.move_to_name(folder, here, target, unfinished, entry, way);
        // Other programs can have put something of theirs where the two changed places.
        if !matches!(placed, Ok(true)) && (!may_change_places || (made.is_some() && number() == made)) {
            // Should it stay, the next restore into this directory removes it.
            let _best_effort = target.remove_name(unfinished);
        }
        match placed {
            Err(error) if way == PlacingWay::New && error.is(Kind::AlreadyExists) => {
                self.blocked(folder, entry, SAME_NAME);
                return Ok(false);
            }
            Err(error) => return Err(under_own_name(error, unfinished, entry)),
            Ok(false) => return Ok(false),
            Ok(true) => {}
        }
        let fate = if way == PlacingWay::New { EntryFate::Created } else { EntryFate::Replaced };
        self.fate(fate, || child_path(&folder.path, &entry.name));
        Ok(true)
    }

    fn move_to_name(
        &self,
        folder: &TargetFolder,
        here: &OpenFolder,
        target: &TargetDirectory,
        unfinished: &[u8],
        entry: &Entry,
        way: PlacingWay,
    ) -> Result<bool> {
        match way {
            PlacingWay::New => target.rename_new(unfinished, &entry.name)?,
            PlacingWay::Over if entry.link_group != 0 => target.rename_link(unfinished, &entry.name)?,
            PlacingWay::Over => target.rename(unfinished, &entry.name)?,
            PlacingWay::OverDirectory => return self.replace_directory(folder, here, target, unfinished, entry),
            PlacingWay::OverEmptyDirectory => target.exchange(unfinished, &entry.name, true)?,
        }
        Ok(true)
    }

    /// Replaces a directory whose content the plan deletes. First the new entry takes the name; if it cannot, nothing is
    /// deleted. If the directory cannot be cleared, it gets its name back. If the file system cannot move the directory,
    /// it keeps its name until it is empty.
    fn replace_directory(
        &self,
        folder: &TargetFolder,
        here: &OpenFolder,
        target: &TargetDirectory,
        unfinished: &[u8],
        entry: &Entry,
    ) -> Result<bool> {
        let path = child_path(&folder.path, &entry.name);
        if let Some(why) = self.why_not_cleared(target, entry, &path)? {
            self.blocked(folder, entry, &why);
            return Ok(false);
        }
        let displaced = target.change_places(unfinished, &entry.name)?;
        let old = displaced.as_ref().map_or(&entry.name, |displaced| &displaced.aside);
        let kept = self.delete_content(here, target, old, &path).and_then(|cleared| match (cleared, &displaced) {
            (Cleared::No(why), _) => Ok(Some(why)),
            (Cleared::Yes(_), Some(displaced)) => target
                .remove_directory(&displaced.aside)
                .map(|()| None)
                .map_err(|error| Error::new(error.kind(), "replace", shown(&entry.name)).because(error.why())),
            (Cleared::Yes(_), None) => target.replace_empty_directory(unfinished, &entry.name).map(|()| None),
        });
        if let (Ok(Some(_)) | Err(_), Some(displaced)) = (&kept, &displaced) {
            target.change_back(displaced, unfinished, &entry.name)?;
        }
        let kept = kept?;
        kept.iter().for_each(|why| self.blocked(folder, entry, why));
        Ok(kept.is_none())
    }

    /// For a plan: counts what an entry that will be made does to what has its name; false when that does not make way. `make` is
    /// what has to succeed before the name is taken.
    pub(crate) fn plan_way(
        &self,
        folder: &TargetFolder,
        here: &OpenFolder,
        entry: &Entry,
        way: PlacingWay,
        make: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        let mut to_delete = Vec::new();
        if let (PlacingWay::OverDirectory, Some(target), RunMode::Plan(planning)) = (way, &here.target, &self.mode) {
            let path = child_path(&folder.path, &entry.name);
            match self.delete_content(here, target, &entry.name, &path)? {
                Cleared::Yes(paths) => to_delete = paths,
                Cleared::No(why) => {
                    // The restore deletes nothing in a directory that it cannot clear.
                    self.blocked(folder, entry, &why);
                    locked(&planning.deletions).keep(&path, why);
                    return Ok(false);
                }
            }
        }
        make()?;
        self.plan_deletions(to_delete);
        folder.changed.store(true, Ordering::Relaxed);
        let fate = if way == PlacingWay::New { EntryFate::Created } else { EntryFate::Replaced };
        self.fate(fate, || child_path(&folder.path, &entry.name));
        Ok(true)
    }

    /// The flags of something that has its name: they may forbid all that comes before. Those of an inode with several
    /// names wait for its links.
    pub(crate) fn apply_flags_last(&self, folder: &TargetFolder, target: &TargetDirectory, entry: &Entry) {
        if entry.meta.flags == 0 || !entry.kind.has_content() || entry.link_group != 0 {
            return;
        }
        let subject = Subject::Named(target.directory(), &entry.name);
        if let Some(loss) = apply_flags(subject, &entry.meta, EntryKind::File) {
            self.report_losses(&child_path(&folder.path, &entry.name), vec![loss]);
        }
    }
}

/// Replaces the unfinished name in an error by the name of the entry.
pub(super) fn under_own_name(error: Error, unfinished: &[u8], entry: &Entry) -> Error {
    error.renamed(&shown(unfinished), &shown(&entry.name))
}
