//! Restore links, devices and FIFOs: they are made in one call, and take the place of others by a rename.

use crate::disk::{Subject, TargetDirectory, apply_metadata, rights, unfinished};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::restore::counts::{EntryFate, add};
use crate::restore::decision::{EntryDecision, PlacingWay};
use crate::restore::folder::{OpenFolder, TargetFolder};
use crate::restore::links::Linkable;
use crate::restore::paths::child_path;
use crate::restore::reasons::SAME_NAME;
use crate::restore::rename_into_place::under_own_name;
use crate::restore::run::RestoreRun;
use std::borrow::Cow;

impl RestoreRun<'_> {
    /// Whether other names of its inode may be linked to it.
    pub(crate) fn restore_special(&self, folder: &TargetFolder, here: &OpenFolder, entry: &Entry) -> Result<Linkable> {
        let way = match self.decide(folder, here, entry)? {
            EntryDecision::Make(way) => way,
            EntryDecision::Late => return Ok(Linkable::Late),
            EntryDecision::UpToDate(existing) => return Ok(self.keep(here, folder, entry, existing)),
            EntryDecision::Left => {
                self.left(folder, entry);
                return Ok(Linkable::No);
            }
            EntryDecision::Blocked(why) => {
                self.blocked(folder, entry, why);
                return Ok(Linkable::No);
            }
        };
        match (&here.target, self.is_restore()) {
            (Some(target), true) => {
                if !self.make_special(folder, here, target, &*self.with_unsaved(target, entry, way)?, way)? {
                    return Ok(Linkable::No);
                }
            }
            _ => {
                if is_refused(entry) {
                    let error = Error::new(Kind::Denied, "create the device", "");
                    return Err(error.because("this user may not create devices"));
                }
                if !self.plan_way(folder, here, entry, way, || Ok(()))? {
                    return Ok(Linkable::No);
                }
                self.tell_foreseen(here, entry, &child_path(&folder.path, &entry.name));
            }
        }
        add(&self.counts.others, 1);
        Ok(Linkable::New)
    }

    fn make_special(
        &self,
        folder: &TargetFolder,
        here: &OpenFolder,
        target: &TargetDirectory,
        entry: &Entry,
        way: PlacingWay,
    ) -> Result<bool> {
        // It gets its own name only when it is whole, except in an append-only directory.
        let direct = way == PlacingWay::New && here.facts.append_only;
        let name = if direct { Cow::Borrowed(&entry.name) } else { Cow::Owned(unfinished::next_name()) };
        let create = |target: &TargetDirectory| match entry.kind {
            EntryKind::Symlink => target.create_symlink(&name, &entry.target),
            _ => target.create_special(&name, entry.kind, entry.device, &entry.meta),
        };
        let current = match self.in_folder(folder, target, create) {
            Err(error) if direct && error.is(Kind::AlreadyExists) => {
                self.blocked(folder, entry, SAME_NAME);
                return Ok(false);
            }
            other => other.map_err(|error| under_own_name(error, &name, entry))?,
        };
        let subject = Subject::Named(target.directory(), &name);
        let mut losses = apply_metadata(subject, Some(current), &entry.meta, entry.kind, &self.apply_options());
        for loss in &mut losses {
            loss.error = under_own_name(loss.error.clone(), &name, entry);
        }
        let path = || child_path(&folder.path, &entry.name);
        if direct {
            self.fate(EntryFate::Created, path);
        } else if !self.put_in_place(folder, here, target, &name, entry, way)? {
            return Ok(false);
        }
        self.tell_applied(here, entry, path, losses, || target.directory().stat(entry.name.as_slice()));
        Ok(true)
    }
}

/// Whether this user may not create this device. Any user may create the character device 0:0.
fn is_refused(entry: &Entry) -> bool {
    let is_device = match entry.kind {
        EntryKind::BlockDevice => true,
        EntryKind::CharDevice => entry.device != (0, 0),
        _ => false,
    };
    is_device && !rights::may_make_devices()
}
