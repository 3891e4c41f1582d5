//! Finish directories: after everything below one is done, delete extra entries, apply its metadata, and go on with the
//! directory above.

use crate::disk::apply::{apply_flags, chmod_open};
use crate::disk::opened_up::close_below;
use crate::disk::stat::fstat;
use crate::disk::{Directory, Loss, Stat, Subject, TargetDirectory, apply_metadata, rights};
use crate::entry::{Entry, EntryKind, Time};
use crate::error::{Kind, Result};
use crate::lock::locked;
use crate::restore::counts::{EntryFate, add, get};
use crate::restore::folder::{FolderFacts, FolderState, OpenFolder, TargetFolder};
use crate::restore::keep::may_keep_metadata;
use crate::restore::links::LinkGroups;
use crate::restore::paths::child_path;
use crate::restore::reasons::KEPT_FOR_OTHERS;
use crate::restore::run::RestoreRun;
use rustix::fd::AsFd;
use std::borrow::Cow;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::sync::atomic::Ordering;

impl RestoreRun<'_> {
    /// A task of a directory is done; after the last one it is finished, and the one above learns of it.
    pub(crate) fn one_less(&self, mut folder: Arc<TargetFolder>) {
        while folder.left.fetch_sub(1, Ordering::AcqRel) == 1 {
            let here = self.finish(&folder);
            let Some(above) = folder.above.clone() else { return };
            if let Some(target) = here.as_ref().and_then(|here| here.target.as_ref()) {
                self.open_above(&above, target);
            }
            folder = above;
        }
    }

    /// Finishes a directory. In a run that has failed, it only resets the mode of the directory.
    fn finish(&self, folder: &Arc<TargetFolder>) -> Option<OpenFolder> {
        let here = match folder.state() {
            FolderState::Ready(here) => here,
            FolderState::Closed(facts) if self.ledger.has_failed() => {
                self.close_again(folder, &facts);
                return None;
            }
            FolderState::Closed(facts) => match self.enter(folder) {
                Ok(Some(here)) => here,
                Ok(None) => return None,
                Err(error) => {
                    self.failed_entry(&folder.path, error);
                    self.close_again(folder, &facts);
                    return None;
                }
            },
            // A filter leaves nothing to restore in it, but its extra entries are deleted all the same.
            FolderState::Unmade
                if self.options.delete && folder.inside && !folder.wanted && !self.ledger.has_failed() =>
            {
                match self.enter_existing(folder) {
                    Ok(Some(here)) => here,
                    Ok(None) => return None,
                    Err(error) => {
                        self.failed_entry(&folder.path, error);
                        return None;
                    }
                }
            }
            FolderState::Unmade | FolderState::Refused => return None,
        };
        if !self.ledger.has_failed() && self.options.delete && here.facts.taken {
            if folder.inside && !self.deletes_in(folder, &here) {
                add(&self.counts.spared_directories, 1);
            }
            self.delete_later(folder, &here);
        }
        self.tell_leftovers(folder, &here);
        // Links that are still to come would change its time, or lead through it.
        if !locked(&self.links).waits_for(folder) {
            self.apply_folder(folder, &here);
        }
        // Links may still need it; else its descriptor goes with it.
        self.close_if_many(folder);
        Some(here)
    }

    /// Whether a directory with content makes way for this entry only when everything else is restored.
    pub(crate) fn puts_off(&self, entry: &Entry) -> bool {
        self.is_restore() && entry.link_group == 0 && !locked(&self.target.late).is_last_step
    }

    pub(crate) fn put_off(&self, folder: &Arc<TargetFolder>, entry: &Entry) {
        locked(&self.target.late).waiting.push((folder.clone(), entry.clone()));
        self.hold_back(folder, &mut locked(&self.links));
    }

    /// Restores what was put off, unless something could not be restored: it may be in the directories that would make way.
    pub(crate) fn restore_late(&self) {
        let late = {
            let mut late = locked(&self.target.late);
            late.is_last_step = true;
            std::mem::take(&mut late.waiting)
        };
        for (folder, entry) in late {
            let done = match self.enter(&folder) {
                Ok(Some(_)) if get(&self.counts.failed) > 0 => {
                    self.blocked(&folder, &entry, KEPT_FOR_OTHERS);
                    Ok(())
                }
                Ok(Some(here)) if !self.should_stop() => self.restore_single(&folder, &here, &entry).map(drop),
                Ok(_) => Ok(()),
                Err(error) => Err(error),
            };
            if let Err(error) = done {
                self.failed_entry(&child_path(&folder.path, &entry.name), error);
            }
            self.close_if_many(&folder);
        }
    }

    /// Finishes a directory only when everything is restored.
    pub(crate) fn hold_back(&self, folder: &Arc<TargetFolder>, links: &mut LinkGroups) {
        if rights::opens_everything() {
            links.hold(folder);
        } else {
            links.hold_with_parents(folder);
        }
    }

    /// Finishes the directories that waited for links, or for what is deleted in them when everything is restored.
    pub(crate) fn finish_held(&self, mut held: Vec<Arc<TargetFolder>>) {
        let has_others = |folder: &Arc<TargetFolder>| folder.names.has_others.load(Ordering::Relaxed);
        let deletes = self.may_delete_now(self.counts.fate(EntryFate::Deleted) > 0 || held.iter().any(has_others));
        // The mode of one must not close the way to those below it.
        held.sort_by_key(|folder| std::cmp::Reverse(folder.depth));
        for folder in &held {
            match folder.state() {
                FolderState::Closed(facts) if self.ledger.has_failed() => self.close_again(folder, &facts),
                FolderState::Unmade | FolderState::Refused => {}
                FolderState::Closed(_) | FolderState::Ready(_) => self.finish_one_held(folder, deletes),
            }
        }
    }

    fn finish_one_held(&self, folder: &Arc<TargetFolder>, deletes: bool) {
        match self.enter(folder) {
            Ok(Some(here)) => {
                if deletes && folder.names.has_others.load(Ordering::Relaxed) && !self.ledger.has_failed() {
                    self.delete_others(folder, &here);
                }
                self.apply_folder(folder, &here);
            }
            Ok(None) => {}
            Err(error) => {
                self.failed_entry(&folder.path, error);
                if let FolderState::Closed(facts) = folder.state() {
                    self.close_again(folder, &facts);
                }
            }
        }
        self.close_if_many(folder);
    }

    /// Applies what is left to do to a directory when all in it is restored.
    pub(crate) fn apply_folder(&self, folder: &TargetFolder, here: &OpenFolder) {
        self.apply_metadata_of(folder, here);
        self.mend_time(folder, here);
    }

    /// Applies the metadata of a directory, or resets its mode.
    fn apply_metadata_of(&self, folder: &TargetFolder, here: &OpenFolder) {
        let Some(target) = &here.target else {
            if let (true, Some(entry)) = (here.facts.apply, &folder.entry) {
                self.tell_foreseen(here, entry, &folder.path);
            }
            return;
        };
        // A directory that this run created belongs to this user.
        let may_be_kept = here.facts.apply && !here.facts.is_new && !self.ledger.has_failed();
        let kept = may_be_kept && self.keeps_folder_metadata(folder, here, target);
        if !self.is_restore() {
            if let (true, Some(entry), Ok(stat)) = (may_be_kept && !kept, &folder.entry, fstat(target.directory())) {
                let losses = self.foresee(Subject::Open(target.directory().as_fd()), &stat, entry);
                self.report_losses(&folder.path, losses);
            }
            return;
        }
        let done = !self.ledger.has_failed();
        let mut opened_up = locked(&folder.opened_up).take();
        if let (true, true, Some(entry)) = (here.facts.apply && !kept, done, &folder.entry) {
            let subject = Subject::Open(target.directory().as_fd());
            let kind = EntryKind::Directory;
            let (mut meta, mut options) = (Cow::Borrowed(&entry.meta), self.apply_options());
            if (meta.lacks_xattrs || options.lacks_trusted)
                && fstat(target.directory()).is_ok_and(|stat| self.is_own_unfinished(&stat, entry))
            {
                // What it has, it got from the directory above it.
                meta.to_mut().lacks_xattrs = false;
                options.lacks_trusted = false;
            }
            let mut losses = apply_metadata(subject, here.facts.current, &meta, kind, &options);
            losses.extend(apply_flags(subject, &entry.meta, kind));
            // It was opened up to be worked in; that is over, whatever its mode is now.
            opened_up = opened_up.filter(|_| losses.iter().any(|loss| matches!(&*loss.what, "metadata" | "mode")));
            self.tell_applied(here, entry, || folder.path.clone(), losses, || fstat(target.directory()));
        }
        if let Some(mode) = opened_up
            && let Err(error) = chmod_open(target.directory(), mode)
        {
            self.warn(&folder.path, format!("its mode could not be reset: {error}"));
        }
    }

    /// Puts the mode back of a directory that was opened up and whose descriptor was given back.
    pub(crate) fn close_again(&self, folder: &TargetFolder, facts: &FolderFacts) {
        let (Some(mode), Some(identity)) = (locked(&folder.opened_up).take(), facts.identity) else { return };
        let (mut names, mut above) = (Vec::new(), folder);
        let nearest = loop {
            match (above.state(), &above.entry, &above.above) {
                (FolderState::Ready(OpenFolder { target: Some(target), .. }), _, _) => break target,
                (_, Some(entry), Some(next)) => {
                    names.push(entry.name.as_slice());
                    above = next;
                }
                _ => return,
            }
        };
        names.reverse();
        if let Err(error) = close_below(nearest.directory(), &names, identity, mode) {
            self.warn(&folder.path, format!("its mode could not be reset: {error}"));
        }
    }

    /// Tells what of an entry's metadata was lost, and whether its file system cut its time.
    pub(crate) fn tell_applied(
        &self,
        here: &OpenFolder,
        entry: &Entry,
        path: impl FnOnce() -> Vec<u8>,
        losses: Vec<Loss>,
        stat: impl FnOnce() -> Result<Stat>,
    ) {
        if !losses.iter().any(|loss| matches!(&*loss.what, "metadata" | "modification time")) {
            self.check_times(here, entry, stat);
        }
        if !losses.is_empty() {
            self.report_losses(&path(), losses);
        }
    }

    /// Reports once per file system that it stores times less precisely than they were saved, as it truncates them
    /// silently. The first entry whose time shows this is read back.
    fn check_times(&self, here: &OpenFolder, entry: &Entry, stat: impl FnOnce() -> Result<Stat>) {
        let saved = entry.meta.modified;
        if saved.nanoseconds == 0 || self.target.times_checked.met_before(here.facts.mounted.0) {
            return;
        }
        // A second that the file system cannot store was reported when the time was set.
        let differs = |found: &Stat| found.modified != saved && found.modified.seconds.abs_diff(saved.seconds) <= 2;
        if stat().is_ok_and(|found| differs(&found)) {
            let why = "its file system stores times less precisely than the snapshot: the times of all entries on it are truncated";
            self.warn(self.options.target.as_os_str().as_bytes(), why);
        }
    }

    /// Whether the metadata of a directory stay although they differ, which is said; in a plan, whether they will differ.
    fn keeps_folder_metadata(&self, folder: &TargetFolder, here: &OpenFolder, target: &TargetDirectory) -> bool {
        let (Some(entry), Ok(mut stat)) = (&folder.entry, fstat(target.directory())) else { return false };
        if !may_keep_metadata(&stat, here.facts.is_read_only) {
            return false;
        }
        if !self.is_restore() && folder.changed.load(Ordering::Relaxed) {
            // What is created in it changes its time.
            stat.modified = Time { seconds: i64::MIN, nanoseconds: 0 };
        }
        let subject = Subject::Open(target.directory().as_fd());
        let why = self.keeps_metadata(subject, &stat, entry, here.facts.is_read_only);
        if let Some(why) = why {
            self.warn(&folder.path, why);
        }
        why.is_some()
    }

    pub(crate) fn report_losses(&self, path: &[u8], losses: Vec<Loss>) {
        for loss in losses {
            self.warn(path, format!("its {} could not be restored: {}", loss.what, loss.error));
        }
    }

    /// Opens the directory above one that is open: one step, however deep both are.
    fn open_above(&self, above: &TargetFolder, target: &TargetDirectory) {
        let FolderState::Closed(facts) = above.state() else { return };
        let _making = above.making();
        if matches!(above.state(), FolderState::Closed(_)) {
            // If a link leads here, or the directory was moved, `enter` looks for it from the top when it is needed.
            let _otherwise_later = open_parent(target).and_then(|directory| self.reopened(above, facts, directory));
        }
    }

    /// Acts in a directory of the target; opens it up and tries again if it is this user's own and its mode denies access.
    pub(crate) fn in_folder<T>(
        &self,
        folder: &TargetFolder,
        target: &TargetDirectory,
        act: impl Fn(&TargetDirectory) -> Result<T>,
    ) -> Result<T> {
        match act(target) {
            Err(error) if error.is(Kind::Denied) && self.open_up(folder, target)? => act(target),
            other => other,
        }
    }

    /// Opens up a directory of this user whose mode denies its owner access. Returns whether access is granted now.
    pub(crate) fn open_up(&self, folder: &TargetFolder, target: &TargetDirectory) -> Result<bool> {
        if !self.is_restore() {
            return Ok(false);
        }
        let mut opened_up = locked(&folder.opened_up);
        if opened_up.is_some() {
            return Ok(true);
        }
        let stat = fstat(target.directory())?;
        if !stat.is_closed_to_owner(0o300) {
            return Ok(false);
        }
        chmod_open(target.directory(), stat.permissions() | 0o700)?;
        *opened_up = Some(stat.permissions());
        Ok(true)
    }
}

fn open_parent(target: &TargetDirectory) -> Result<Directory> {
    target.directory().open_child(c"..")
}
