//! Decide what becomes of an entry whose name is taken: a plan and the restore decide alike.

use crate::disk::create::is_half_done;
use crate::disk::open::read_link;
use crate::disk::opened_up::open_own_file;
use crate::disk::{Stat, TargetDirectory, rights};
use crate::entry::{Entry, EntryKind};
use crate::error::{Kind, Result};
use crate::lock::locked;
use crate::restore::counts::EntryFate;
use crate::restore::decision::{EntryDecision, PlacingWay, UpToDateEntry};
use crate::restore::folder::{OpenFolder, TargetFolder};
use crate::restore::leftovers::is_tidied;
use crate::restore::options::Overwrite;
use crate::restore::paths::child_path;
use crate::restore::reasons::{APPEND_ONLY, FIXED, FOLLOWED, IN_USE, MOVED_SOURCE, NOT_EMPTY, OTHER_SOURCE, STICKY};
use crate::restore::run::RestoreRun;
use rustix::fd::OwnedFd;

/// Said of one of our own, of which a plan cannot name what is in it.
const CLOSED_DIRECTORY: &str = "a directory that its own mode does not let its owner read is in its place, and was kept: run \
                                `chmod u+rwx` on it, then restore again";
const MOUNTED: &str = "another file system is mounted on it, and it was kept";

impl RestoreRun<'_> {
    pub(crate) fn decide(&self, folder: &TargetFolder, here: &OpenFolder, entry: &Entry) -> Result<EntryDecision> {
        let new = here.facts.refuses.map_or(EntryDecision::Make(PlacingWay::New), EntryDecision::Blocked);
        let (Some(target), true) = (&here.target, here.facts.taken) else { return Ok(new) };
        let stat = match target.directory().stat(entry.name.as_slice()) {
            // The restore removes what an earlier one left unfinished, even if the snapshot has an entry of that name.
            Ok(stat) if !self.is_restore() && is_tidied(here, &entry.name, &stat) => return Ok(new),
            Ok(stat) => stat,
            Err(error) if error.is(Kind::NotFound) => return Ok(new),
            Err(error) => return Err(error),
        };
        let decision = match self.decide_existing(folder, here, target, entry, stat)? {
            EntryDecision::UpToDate(existing)
                if existing.restores_metadata && self.is_of_others(target, entry, &existing) =>
            {
                EntryDecision::Make(PlacingWay::Over)
            }
            decision => decision,
        };
        Ok(match (decision, self.stays(here, &stat)) {
            (EntryDecision::Make(_), Some(why)) => EntryDecision::Blocked(why),
            // What is mounted on a file has metadata of its own.
            (EntryDecision::UpToDate(existing), _)
                if existing.restores_metadata
                    && stat.mount != here.facts.mounted.1
                    && !self.is_as_saved(target, entry, &existing) =>
            {
                EntryDecision::Blocked(MOUNTED)
            }
            (EntryDecision::Make(_), None)
                if stat.is(EntryKind::Directory)
                    && self.leads_to_source(&child_path(&folder.path, &entry.name), &stat) =>
            {
                EntryDecision::Blocked(OTHER_SOURCE)
            }
            (EntryDecision::Make(_), None) if self.is_name_of_other(&folder.path, target.directory(), entry)? => {
                EntryDecision::Blocked(OTHER_SOURCE)
            }
            (EntryDecision::Make(_), None) if self.was_followed(&stat) => EntryDecision::Blocked(FOLLOWED),
            (EntryDecision::Make(PlacingWay::OverDirectory), None) if self.puts_off(entry) => EntryDecision::Late,
            (EntryDecision::UpToDate(existing), None)
                if existing.restores_metadata
                    && self.is_name_of_other(&folder.path, target.directory(), entry)?
                    && !self.is_as_saved(target, entry, &existing) =>
            {
                EntryDecision::Blocked(OTHER_SOURCE)
            }
            (decision, _) => decision,
        })
    }

    /// Why an entry of a directory in the target can be neither replaced nor removed.
    pub(crate) fn stays(&self, here: &OpenFolder, stat: &Stat) -> Option<&'static str> {
        match here.facts.refuses {
            None if here.facts.append_only => Some(APPEND_ONLY),
            None if stat.is_fixed => Some(FIXED),
            None if here.facts.keeps_others && !rights::owns(stat.uid, stat.gid) => Some(STICKY),
            None if stat.mount != here.facts.mounted.1 => Some(MOUNTED),
            None if stat.is(EntryKind::Directory) && self.scope.is_in_use(stat) => Some(IN_USE),
            refuses => refuses,
        }
    }

    /// Whether names outside of this entry's link group would get its metadata as well. Such an entry gets an inode of
    /// its own.
    fn is_of_others(&self, target: &TargetDirectory, entry: &Entry, existing: &UpToDateEntry) -> bool {
        let is_shared = entry.link_group == 0 || locked(&self.links).is_shared(entry.link_group);
        self.links_before(&existing.stat) > 1 && is_shared && !self.is_as_saved(target, entry, existing)
    }

    fn decide_existing(
        &self,
        folder: &TargetFolder,
        here: &OpenFolder,
        target: &TargetDirectory,
        entry: &Entry,
        stat: Stat,
    ) -> Result<EntryDecision> {
        self.links_before(&stat);
        if is_half_done(&stat, entry) {
            // No run is using it, and to compare it would take its mark away.
            return Ok(EntryDecision::Make(PlacingWay::Over));
        }
        let kind = entry.kind_of_inode();
        let is_source = || !folder.inside || self.scope.is_named(&child_path(&folder.path, &entry.name));
        match stat.kind {
            None => Ok(EntryDecision::Blocked("a socket is in its place, and was kept")),
            Some(EntryKind::File) if kind == EntryKind::File => self.decide_file(target, entry, stat),
            Some(found) if found == kind => self.decide_other(target, entry, stat),
            // Only a source is in a directory that is above all sources.
            Some(EntryKind::Symlink) if self.keeps_links_of_sources() && is_source() => {
                Ok(EntryDecision::Blocked(MOVED_SOURCE))
            }
            Some(_) if self.keeps(&stat, entry) => {
                Ok(EntryDecision::Blocked("something of another kind is in its place, and was kept"))
            }
            Some(_) if let Some(why) = self.keeps_other_kinds() => Ok(EntryDecision::Blocked(why)),
            Some(EntryKind::Directory) if stat.is_closed_to_owner(0o400) => {
                Ok(EntryDecision::Blocked(CLOSED_DIRECTORY))
            }
            Some(EntryKind::Directory) => self.decide_directory(folder, here, target, entry),
            Some(_) => Ok(EntryDecision::Make(PlacingWay::Over)),
        }
    }

    /// Whether `overwrite` keeps what is there, as far as its stat tells.
    fn keeps(&self, stat: &Stat, entry: &Entry) -> bool {
        match self.options.overwrite {
            Overwrite::Never => true,
            Overwrite::IfNewer => stat.modified >= entry.meta.modified,
            Overwrite::IfChanged | Overwrite::Always => false,
        }
    }

    /// Whether a link stays that has taken the place of a source: the data were moved elsewhere.
    pub(crate) fn keeps_links_of_sources(&self) -> bool {
        self.target.in_place.get() == Some(&true) && !self.options.delete
    }

    fn decide_file(&self, target: &TargetDirectory, entry: &Entry, stat: Stat) -> Result<EntryDecision> {
        let same_stat = stat.size == entry.size && stat.modified == entry.meta.modified;
        let keeps = self.keeps(&stat, entry);
        let up_to_date = |fd| Ok(EntryDecision::UpToDate(UpToDateEntry { stat, fd, restores_metadata: !keeps }));
        let must_compare = || !keeps && self.must_compare(entry);
        if same_stat && self.options.overwrite != Overwrite::Always && !must_compare() {
            return up_to_date(None);
        }
        if keeps {
            return Ok(EntryDecision::Left);
        }
        if stat.size == entry.size && self.compares() {
            let fd = match self.open_existing(target, entry, &stat) {
                // It counts as it would alone, and nothing is linked to it.
                Err(error) if same_stat && error.is(Kind::Denied) && self.options.overwrite != Overwrite::Always => {
                    return up_to_date(None);
                }
                opened => opened?,
            };
            if let Some(fd) = fd
                && self.matches(&fd, entry)?
            {
                return up_to_date(Some(fd));
            }
        }
        Ok(EntryDecision::Make(PlacingWay::Over))
    }

    fn decide_other(&self, target: &TargetDirectory, entry: &Entry, stat: Stat) -> Result<EntryDecision> {
        let same = match entry.kind {
            EntryKind::Symlink => read_link(target.directory(), entry.name.as_slice())? == entry.target,
            EntryKind::BlockDevice | EntryKind::CharDevice => stat.special == entry.device,
            _ => true,
        };
        let keeps = self.keeps(&stat, entry);
        Ok(match (same, keeps) {
            (true, _) => EntryDecision::UpToDate(UpToDateEntry { stat, fd: None, restores_metadata: !keeps }),
            (false, true) => EntryDecision::Left,
            (false, false) => EntryDecision::Make(PlacingWay::Over),
        })
    }

    /// A directory has the name of something else: it makes way empty, or when the plan deletes what is in it.
    fn decide_directory(
        &self,
        folder: &TargetFolder,
        here: &OpenFolder,
        target: &TargetDirectory,
        entry: &Entry,
    ) -> Result<EntryDecision> {
        let directory = target.directory().open_child(entry.name.as_slice())?;
        if directory.is_empty()? {
            return Ok(EntryDecision::Make(PlacingWay::OverEmptyDirectory));
        }
        let makes_way = self.clears_for(folder, here, &child_path(&folder.path, &entry.name));
        Ok(if makes_way { EntryDecision::Make(PlacingWay::OverDirectory) } else { EntryDecision::Blocked(NOT_EMPTY) })
    }

    /// Opens a file that is there; one of our own that does not let its owner read is made readable for that. None in a
    /// plan, which changes no mode.
    fn open_existing(&self, target: &TargetDirectory, entry: &Entry, stat: &Stat) -> Result<Option<OwnedFd>> {
        if !self.is_restore() && stat.is_closed_to_owner(0o400) {
            return Ok(None);
        }
        open_own_file(target.directory(), &entry.name).map(Some)
    }

    pub(crate) fn left(&self, folder: &TargetFolder, entry: &Entry) {
        self.fate(EntryFate::Left, || child_path(&folder.path, &entry.name));
    }

    pub(crate) fn blocked(&self, folder: &TargetFolder, entry: &Entry, why: &str) {
        self.blocked_at(child_path(&folder.path, &entry.name), why);
    }

    /// Counts and tells what does not make way.
    pub(crate) fn blocked_at(&self, path: Vec<u8>, why: &str) {
        self.warn(&path, why);
        self.fate(EntryFate::Blocked, || path);
    }
}
