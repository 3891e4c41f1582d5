//! Give what is finished its name: in one step, over what had it, or not at all.

use crate::disk::apply::apply_flags;
use crate::disk::{Subject, Target};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::restore::existing::{NOT_EMPTY, Way};
use crate::restore::file::SAME_NAME;
use crate::restore::folder::{Folder, Here};
use crate::restore::plan::{child_path, shown};
use crate::restore::run::{Fate, Run};
use std::sync::atomic::Ordering;

impl Run<'_> {
    /// Gives something that stands under an unfinished name the name of its entry. Whatever fails, what had the name
    /// keeps it, and the unfinished one is gone. False when something does not make way, which was said.
    pub fn put_in_place(
        &self,
        folder: &Folder,
        here: &Here,
        target: &Target,
        unfinished: &[u8],
        entry: &Entry,
        way: Way,
    ) -> Result<bool> {
        let number = || target.directory().stat(unfinished).map(|stat| (stat.device, stat.inode)).ok();
        let may_change_places = matches!(way, Way::OverDirectory | Way::OverEmptyDirectory);
        let made = if may_change_places { number() } else { None };
        let placed = self.move_to_name(folder, here, target, unfinished, entry, way);
        // Other programs can have put something of theirs where the two changed places.
        if !matches!(placed, Ok(true)) && (!may_change_places || number() == made) {
            // Should it stay, the next restore into this directory removes it.
            let _best_effort = target.remove_name(unfinished);
        }
        match placed {
            Err(error) if way == Way::New && error.is(Kind::AlreadyExists) => {
                self.blocked(folder, entry, SAME_NAME);
                return Ok(false);
            }
            Err(error) => return Err(with_hint(error)),
            Ok(false) => return Ok(false),
            Ok(true) => {}
        }
        let fate = if way == Way::New { Fate::Created } else { Fate::Replaced };
        self.fate(fate, || child_path(&folder.path, &entry.name));
        Ok(true)
    }

    fn move_to_name(
        &self,
        folder: &Folder,
        here: &Here,
        target: &Target,
        unfinished: &[u8],
        entry: &Entry,
        way: Way,
    ) -> Result<bool> {
        match way {
            Way::New => target.rename_new(unfinished, &entry.name)?,
            Way::Over if entry.link_group != 0 => target.rename_link(unfinished, &entry.name)?,
            Way::Over => target.rename(unfinished, &entry.name)?,
            Way::OverDirectory => return self.replace_directory(folder, here, target, unfinished, entry),
            Way::OverEmptyDirectory => target.exchange(unfinished, &entry.name, true)?,
        }
        Ok(true)
    }

    /// Replaces a directory whose content the plan deletes. The new entry takes the name first, so that nothing is deleted
    /// where it cannot; what cannot be deleted then has its name back. Where the file system moves no such directory, it has
    /// its name until it is empty.
    fn replace_directory(
        &self,
        folder: &Folder,
        here: &Here,
        target: &Target,
        unfinished: &[u8],
        entry: &Entry,
    ) -> Result<bool> {
        let path = child_path(&folder.path, &entry.name);
        if !self.will_clear(target, entry, &path)? {
            self.blocked(folder, entry, NOT_EMPTY);
            return Ok(false);
        }
        let displaced = target.change_places(unfinished, &entry.name)?;
        let old = displaced.as_ref().map_or(&entry.name, |displaced| &displaced.aside);
        let replaced = self.delete_content(here, target, old, &path).and_then(|cleared| match (cleared, &displaced) {
            (false, _) => Ok(false),
            (true, Some(displaced)) => target
                .remove_directory(&displaced.aside)
                .map(|()| true)
                .map_err(|error| Error::new(error.kind(), "replace", shown(&entry.name)).because(error.why())),
            (true, None) => target.replace_empty_directory(unfinished, &entry.name).map(|()| true),
        });
        if let (Ok(false) | Err(_), Some(displaced)) = (&replaced, &displaced) {
            target.change_back(displaced, unfinished, &entry.name)?;
        }
        if let Ok(false) = replaced {
            self.blocked(folder, entry, NOT_EMPTY);
        }
        replaced
    }

    /// For a plan: counts what an entry that will be made does to what has its name; false when that does not make way.
    pub fn plan_way(&self, folder: &Folder, here: &Here, entry: &Entry, way: Way) -> Result<bool> {
        if let (Way::OverDirectory, Some(target)) = (way, &here.target) {
            let cleared = self.delete_content(here, target, &entry.name, &child_path(&folder.path, &entry.name));
            // The restore deletes nothing in a directory that it cannot clear.
            let refused = |error: &Error| matches!(error.kind(), Kind::Denied | Kind::Conflict | Kind::NotFound);
            match cleared {
                Ok(true) => {}
                Err(error) if !refused(&error) => return Err(error),
                Ok(false) | Err(_) => {
                    self.blocked(folder, entry, NOT_EMPTY);
                    return Ok(false);
                }
            }
        }
        folder.changed.store(true, Ordering::Relaxed);
        let fate = if way == Way::New { Fate::Created } else { Fate::Replaced };
        self.fate(fate, || child_path(&folder.path, &entry.name));
        Ok(true)
    }

    /// The flags of something that has its name: they may forbid all that comes before. Those of an inode with several
    /// names wait for its links.
    pub fn apply_flags_last(&self, folder: &Folder, target: &Target, entry: &Entry) {
        if entry.meta.flags == 0 || !entry.kind.has_content() || entry.link_group != 0 {
            return;
        }
        let subject = Subject::Named(target.directory(), &entry.name);
        if let Some(loss) = apply_flags(subject, &entry.meta, EntryKind::File) {
            self.report_losses(&child_path(&folder.path, &entry.name), vec![loss]);
        }
    }
}

fn with_hint(error: Error) -> Error {
    match error.is(Kind::Denied) {
        true => error.hint("if the existing file is immutable or append-only, run `chattr -i -a` on it first"),
        false => error,
    }
}
