//! What is true of a directory of the target: what is deleted in it, and whether its metadata change.

use crate::disk::apply::wanted_owner;
use crate::disk::create::is_unfinished;
use crate::disk::device::is_read_only;
use crate::disk::mounts::mount_points;
use crate::disk::{Directory, Stat, TargetDirectory, flags};
use crate::entry::{Content, Entry};
use crate::error::Result;
use crate::format::tree::{TreePage, decode_page};
use crate::restore::folder::{FolderFacts, TargetFolder, group_of_new, mounted};
use crate::restore::keep_reason::KeepReason;
use crate::restore::options::Overwrite;
use crate::restore::paths::shown;
use crate::restore::run::RestoreRun;
use crate::restore::scope::looks_like_ours;
use crate::watch::NoticeKind;
use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Why nothing can be changed in a directory.
pub(super) const READ_ONLY: &str = "its file system is mounted read-only";

/// Why nothing in a directory can be created, replaced or deleted, as far as the system tells before it is tried.
pub(super) fn refusal(directory: &Directory, stat: &Stat) -> Option<&'static str> {
    let is_immutable = stat.is_fixed && !flags::is_append_only(directory);
    match accessat(directory, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Err(Errno::ROFS) => Some(READ_ONLY),
        // Of a mount that is read-only, the kernel tells the mode of the directory first.
        Err(_) if is_read_only(directory) => Some(READ_ONLY),
        _ if is_immutable => Some("its directory is immutable: run `chattr -i` on that first"),
        // One of our own is opened up.
        Err(Errno::ACCESS) if !stat.is_own() => Some("its directory does not let this user create anything"),
        _ => None,
    }
}

/// Whether a directory lets this user replace and delete only what the user may treat as the user's own.
pub(super) fn keeps_others(directory: &Stat) -> bool {
    directory.mode & 0o1000 != 0 && !directory.is_own()
}

impl RestoreRun<'_> {
    /// Whether nothing is deleted in a directory because it is a repository, a cache, or in another source. The last is reported.
    pub(super) fn keeps_extra(&self, folder: &TargetFolder, directory: &Directory) -> Result<bool> {
        if !self.options.delete {
            return Ok(false);
        }
        match looks_like_ours(directory) {
            Ok(false) => {}
            Ok(true) => return Ok(true),
            Err(error) => {
                let why = format!("nothing is deleted in it: cannot tell whether it is a repository: {error}");
                self.warn(&folder.path, why);
                return Ok(true);
            }
        }
        let others = self.target.other_sources.get().filter(|_| folder.is_source && folder.inside);
        let reason =
            others.map(|others| self.why_nothing_is_deleted(others, &folder.path, directory, folder.entry.as_ref()));
        let reason = reason.transpose()?.flatten();
        match &reason {
            Some(KeepReason { why, is_failure: true }) => {
                self.warn(&folder.path, format!("nothing is deleted in it: {why}"));
            }
            Some(KeepReason { why, .. }) if self.compares() => {
                self.watch
                    .notice(NoticeKind::Deletion, format!("nothing is deleted in {}: {why}", shown(&folder.path)));
            }
            _ => {}
        }
        Ok(reason.is_some())
    }

    /// What a directory that was there says about itself.
    pub(crate) fn facts_of(&self, path: &[u8], target: &TargetDirectory, stat: &Stat) -> FolderFacts {
        let refuses = refusal(target.directory(), stat);
        FolderFacts {
            append_only: self.is_append_only(path, target),
            refuses,
            is_read_only: refuses == Some(READ_ONLY),
            keeps_others: keeps_others(stat),
            group: group_of_new(stat),
            mounted: mounted(stat),
            ..FolderFacts::default()
        }
    }

    /// Whether a directory of the snapshot has anything in it.
    pub(crate) fn has_entries(&self, entry: &Entry) -> Result<bool> {
        let Content::Tree(tree) = &entry.content else { return Ok(false) };
        match decode_page(&self.stored(self.reader.tree(tree))?)? {
            TreePage::Entries(entries) => Ok(!entries.is_empty()),
            TreePage::Inner { .. } => Ok(true),
        }
    }

    /// Whether an automounter mounted what is on a directory, and the backup did not enter it: then the saved metadata may be those of
    /// the directory that waits to be mounted over.
    pub(super) fn is_stub_of_automounter(&self, stat: &Stat, entry: &Entry) -> Result<bool> {
        if !entry.is_partial || self.has_entries(entry)? {
            return Ok(false);
        }
        let mounts = mount_points()?;
        let Some(own) = mounts.iter().find(|mount| mount.number == stat.mount) else { return Ok(false) };
        let point = Path::new(OsStr::from_bytes(&own.point));
        let mut automounters = mounts.iter().filter(|mount| mount.is_automounter());
        Ok(automounters.any(|mount| point.starts_with(OsStr::from_bytes(&mount.point))))
    }

    /// Whether a directory that was there is append-only, which is said once for all that is in it.
    pub(super) fn is_append_only(&self, path: &[u8], target: &TargetDirectory) -> bool {
        let append_only = flags::is_append_only(target.directory());
        if append_only && self.compares() {
            self.watch.notice(NoticeKind::Target, format!(
                "the directory {} is append-only: missing entries are created, those that differ stay; run `chattr -a` \
                 on it to restore them, too",
                shown(path)
            ));
        }
        append_only
    }

    /// Whether an existing directory gets the metadata of its entry: if `changes` says so, or if an earlier restore did not
    /// finish it.
    pub(crate) fn applies(&self, stat: &Stat, entry: &Entry, changes: bool) -> bool {
        changes || self.is_own_unfinished(stat, entry)
    }

    /// Whether an earlier restore created the directory and did not finish it.
    pub(super) fn is_own_unfinished(&self, stat: &Stat, entry: &Entry) -> bool {
        is_unfinished(stat, &entry.meta, wanted_owner(&entry.meta, &self.apply_options()).0)
    }

    /// Whether an existing directory gets the metadata of the snapshot's.
    pub(crate) fn changes_directory(&self, stat: &Stat, entry: &Entry) -> bool {
        match self.options.overwrite {
            Overwrite::Always | Overwrite::IfChanged => true,
            Overwrite::IfNewer => stat.modified < entry.meta.modified,
            Overwrite::Never => false,
        }
    }
}
