//! Keep an entry or a directory whose content is up to date: restore its metadata, or say that they differ.

use crate::disk::apply::{apply_flags, has_owner_and_mode, is_as_saved, unsafe_bits, wanted_owner};
use crate::disk::device::is_read_only;
use crate::disk::open::open_file;
use crate::disk::opened_up::open_own_file;
use crate::disk::{CurrentMetadata, Directory, Stat, Subject, TargetDirectory, apply_metadata, flags, rights};
use crate::entry::{Entry, EntryKind, Metadata};
use crate::restore::counts::EntryFate;
use crate::restore::decision::UpToDateEntry;
use crate::restore::folder::{OpenFolder, TargetFolder};
use crate::restore::links::Linkable;
use crate::restore::paths::child_path;
use crate::restore::run::RestoreRun;
use rustix::fd::{AsFd, OwnedFd};

/// Warnings about an existing entry that has the saved content and other metadata, which cannot be changed.
const FIXED_METADATA: &str =
    "its metadata differ and were kept, as it is immutable or append-only: run `chattr -i -a` on it first";
const READ_ONLY_METADATA: &str = "its metadata differ and were kept, as its file system is mounted read-only";
const METADATA_OF_OTHERS: &str = "its metadata differ and were kept, as it belongs to another user";

impl RestoreRun<'_> {
    /// Whether the metadata and flags of an existing entry are as they were saved.
    pub(crate) fn is_as_saved(&self, target: &TargetDirectory, entry: &Entry, existing: &UpToDateEntry) -> bool {
        let named = Subject::Named(target.directory(), &entry.name);
        let subject = existing.fd.as_ref().map_or(named, |fd| Subject::Open(fd.as_fd()));
        is_as_saved(subject, &existing.stat, &entry.meta, &self.apply_options())
            && !may_lack_flags(target, entry, existing.fd.as_ref(), settable_flags(entry))
    }

    /// Why metadata that differ stay as they are, where that is known before it is tried.
    pub(crate) fn keeps_metadata(
        &self,
        subject: Subject<'_>,
        stat: &Stat,
        entry: &Entry,
        is_read_only: bool,
    ) -> Option<&'static str> {
        let differ = || !is_as_saved(subject, stat, &entry.meta, &self.apply_options());
        let lacks_flags = || matches!(subject, Subject::Open(fd) if flags::lacks(fd, entry.meta.flags));
        // The right to write includes the right to set attributes, even on entries of other users.
        let of_others_differ = || !stat.has_mode(entry.meta.mode) || stat.modified != entry.meta.modified;
        if stat.is_fixed && (differ() || lacks_flags()) {
            Some(FIXED_METADATA)
        } else if is_read_only && (differ() || lacks_flags()) {
            Some(READ_ONLY_METADATA)
        } else if !rights::owns(stat.uid, stat.gid) && of_others_differ() {
            Some(METADATA_OF_OTHERS)
        } else {
            None
        }
    }

    /// Counts an entry that is up to date, and restores its metadata; whether other names may be linked to it.
    pub(crate) fn keep(
        &self,
        here: &OpenFolder,
        folder: &TargetFolder,
        entry: &Entry,
        mut existing: UpToDateEntry,
    ) -> Linkable {
        let path = || child_path(&folder.path, &entry.name);
        let kind = entry.kind_of_inode();
        let is_unproven = existing.fd.is_none() && kind == EntryKind::File && self.must_compare(entry);
        let how = if !existing.restores_metadata {
            Linkable::No
        } else if is_unproven {
            Linkable::Unmended
        } else {
            Linkable::Old
        };
        let Some(target) = &here.target else {
            self.fate(EntryFate::Kept, path);
            return how;
        };
        if !existing.restores_metadata {
            self.kept_as_it_is(target, entry, &existing, path);
            return how;
        }
        // An open file saves further lookups of its name. Devices and FIFOs stay closed: opening them can have side effects.
        let open = || {
            if self.is_restore() {
                open_own_file(target.directory(), &entry.name).ok()
            } else {
                open_file(target.directory(), entry.name.as_slice()).ok()
            }
        };
        let stat = existing.stat;
        let is_kept = may_keep_metadata(&stat, here.facts.is_read_only || stat.mount != here.facts.mounted.1);
        let opens = is_kept || self.is_restore() || flags::has_locking(entry.meta.flags);
        existing.fd = existing.fd.take().or_else(|| (opens && kind == EntryKind::File).then(open).flatten());
        let is_right = self.compares()
            && self.is_as_saved(target, entry, &existing)
            && !self.loses_special(&stat, entry)
            && !may_lack_flags(target, entry, existing.fd.as_ref(), entry.meta.flags);
        let named = Subject::Named(target.directory(), &entry.name);
        let subject = existing.fd.as_ref().map_or(named, |fd| Subject::Open(fd.as_fd()));
        if is_kept {
            let is_read_only = here.facts.is_read_only || existing.fd.as_ref().is_some_and(is_read_only);
            if let Some(why) = self.keeps_metadata(subject, &stat, entry, is_read_only) {
                self.fate(EntryFate::Kept, path);
                self.warn(&path(), why);
                return Linkable::Unmended;
            }
        }
        self.fate(if is_right { EntryFate::Kept } else { EntryFate::Updated }, path);
        if !self.is_restore() {
            let losses = self.foresee(subject, &stat, entry);
            self.report_losses(&path(), losses);
            return how;
        }
        if is_right {
            return how;
        }
        let mut losses =
            apply_metadata(subject, Some(CurrentMetadata::from(&stat)), &entry.meta, kind, &self.apply_options());
        // Those of an inode with several names wait for its links.
        if entry.link_group == 0 {
            losses.extend(apply_flags(subject, &entry.meta, kind));
        }
        self.tell_applied(here, entry, path, losses, || target.directory().stat(entry.name.as_slice()));
        how
    }

    /// Counts an entry whose content is up to date and whose metadata `overwrite` keeps.
    pub(crate) fn kept_as_it_is(
        &self,
        target: &TargetDirectory,
        entry: &Entry,
        existing: &UpToDateEntry,
        path: impl FnOnce() -> Vec<u8>,
    ) {
        let is_right = !self.compares() || self.is_as_saved(target, entry, existing);
        self.fate(if is_right { EntryFate::Kept } else { EntryFate::Left }, path);
    }

    /// Counts a directory that was there and whose metadata differ, but for its time, which changes with what is in it. `open`: unless
    /// its own mode hides it from its owner.
    pub(super) fn count_directory(
        &self,
        path: &[u8],
        entry: &Entry,
        stat: &Stat,
        open: Option<&Directory>,
        applies: bool,
    ) {
        if !self.compares() {
            return;
        }
        let but_time = Metadata { modified: stat.modified, ..entry.meta.clone() };
        let options = self.apply_options();
        let is_right = match open {
            Some(open) => {
                is_as_saved(Subject::Open(open.as_fd()), stat, &but_time, &options)
                    && !flags::lacks(open, settable_flags(entry))
            }
            None => has_owner_and_mode(stat, &but_time, &options),
        };
        if !is_right {
            let keeps = |open: &Directory| {
                self.keeps_metadata(Subject::Open(open.as_fd()), stat, entry, is_read_only(open)).is_some()
            };
            let applies = applies && !open.is_some_and(keeps);
            self.fate(if applies { EntryFate::Updated } else { EntryFate::Left }, || path.to_vec());
        }
    }

    /// Whether an existing file has special bits that it was saved with, and must not have with its owner.
    fn loses_special(&self, stat: &Stat, entry: &Entry) -> bool {
        let wanted = wanted_owner(&entry.meta, &self.apply_options());
        entry.meta.mode & unsafe_bits((stat.uid, stat.gid), wanted, entry.kind_of_inode()) != 0
    }
}

/// Whether it is worth asking if the metadata of what is there can be changed.
pub(super) fn may_keep_metadata(stat: &Stat, may_be_read_only: bool) -> bool {
    stat.is_fixed || may_be_read_only || !rights::owns(stat.uid, stat.gid)
}

/// Whether an existing entry lacks some of these flags. One that cannot be opened may lack them.
fn may_lack_flags(target: &TargetDirectory, entry: &Entry, opened: Option<&OwnedFd>, wanted: u32) -> bool {
    if wanted == 0 || entry.kind_of_inode() != EntryKind::File {
        return false;
    }
    match opened {
        Some(fd) => flags::lacks(fd, wanted),
        None => open_file(target.directory(), entry.name.as_slice()).map_or(true, |fd| flags::lacks(fd, wanted)),
    }
}

/// The saved flags without those that this user may not set: they make no difference.
fn settable_flags(entry: &Entry) -> u32 {
    if rights::may_lock_files() { entry.meta.flags } else { flags::without_locking(entry.meta.flags) }
}
