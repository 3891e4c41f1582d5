//! Create what a snapshot holds, with as few system calls as the kernel allows.
//!
//! A plain file of the user who restores costs openat, pwrite, utimensat, fchmod and close. What makes more calls
//! superfluous is known, not assumed: the thread's umask ([`super::umask`]), the owner of what is created here (asked once
//! per tree) and whether directories hand down an ACL or flags.

use super::apply::{CurrentMetadata, MODE_UNKNOWN, chmod_at};
use super::flags;
pub(crate) use super::half_done::is_half_done;
use super::half_done::{HALF_DONE_MODE, is_markable};
use super::read_dir::Directory;
use super::refused::{refused, shown};
use super::stat::{Stat, fstat};
use super::umask::taken_away;
use super::xattr;
use crate::entry::{EntryKind, Metadata};
use crate::error::{Error, Kind, Result};
use rustix::fd::{AsFd, IntoRawFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, RenameFlags};
use rustix::io::{Errno, retry_on_intr};
use std::borrow::Cow;
use std::sync::OnceLock;

/// A directory that entries are created in.
pub(crate) struct TargetDirectory {
    directory: Directory,
    /// The owner of what is created here, learned from the first entry: mount options (grpid, uid mapping, squashed root)
    /// and setgid decide it. It is the same in every directory created below.
    owner: OnceLock<(u32, u32)>,
    /// Whether the file system keeps the modes that mark what is unfinished; known of directories that were created here.
    keeps_marks: OnceLock<bool>,
    hands_down_acl: bool,
    hands_down_group: bool,
    hands_down_flags: bool,
}

impl TargetDirectory {
    /// A directory that was there before.
    pub(crate) fn new(directory: Directory) -> Result<TargetDirectory> {
        TargetDirectory::with_stat(directory).map(|(target, _)| target)
    }

    /// The same, and what the directory said about itself.
    pub(crate) fn with_stat(directory: Directory) -> Result<(TargetDirectory, Stat)> {
        let stat = fstat(&directory)?;
        let hands_down_group = stat.mode & 0o2000 != 0;
        let hands_down_acl = xattr::has_default_acl(&directory);
        let hands_down_flags = flags::hands_down_flags(&directory);
        let (owner, keeps_marks) = Default::default();
        let target =
            TargetDirectory { directory, owner, keeps_marks, hands_down_acl, hands_down_group, hands_down_flags };
        Ok((target, stat))
    }

    pub(crate) fn directory(&self) -> &Directory {
        &self.directory
    }

    fn current(&self, mode: u32, stat: impl FnOnce() -> Result<Stat>) -> Result<CurrentMetadata> {
        let (uid, gid) = match self.owner.get() {
            Some(known) => *known,
            None => {
                let stat = stat()?;
                *self.owner.get_or_init(|| (stat.uid, stat.gid))
            }
        };
        let mode = if self.hands_down_acl || mode & taken_away() != 0 { MODE_UNKNOWN } else { mode };
        let inherited_acl = self.hands_down_acl;
        Ok(CurrentMetadata { uid, gid, mode, new: true, inherited_acl, inherited_flags: 0, modified: None })
    }

    /// Sets the flags that a new inode must have before its content, and takes away those that it was not saved with; returns
    /// those that stay all the same.
    fn begin_flags(&self, made: impl AsFd, saved: u32) -> u32 {
        if self.hands_down_flags {
            return flags::replace_handed_down(made, saved);
        }
        // Best effort: what is missing is found when the flags are applied.
        let _ = flags::set_early_flags(made, saved);
        0
    }

    /// Whether a file of this metadata can have a mark until it is finished, so that it may be created under its own name.
    pub(crate) fn keeps_mark_of(&self, meta: &Metadata) -> bool {
        self.keeps_marks.get() == Some(&true) && is_markable(meta)
    }

    /// Creates a file, open for writing and for reading back; `AlreadyExists` whatever has the name. Flags that must be
    /// there before the content are set, and inherited ones are taken away. If its own mode leaves room for it, its mode says
    /// that it is not finished ([`is_half_done`]) until its metadata are applied.
    #[inline]
    pub(crate) fn create_file(&self, name: &[u8], meta: &Metadata) -> Result<(OwnedFd, CurrentMetadata)> {
        let mode = if is_markable(meta) { HALF_DONE_MODE } else { creation_mode(meta) };
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let open = || rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(mode));
        let fd = retry_on_intr(open).map_err(|errno| refused("create", name, errno))?;
        let inherited_flags = self.begin_flags(&fd, meta.flags);
        match self.current(mode, || fstat(&fd)) {
            Ok(current) => Ok((fd, CurrentMetadata { inherited_flags, ..current })),
            Err(error) => {
                // An empty file must not pass for the one that was to come.
                let _best_effort = self.remove_name(name);
                Err(error)
            }
        }
    }

    /// Creates a directory and opens it. Until its own metadata are applied, after its children's, only its owner
    /// can write to it, and its mode says that it is not finished ([`unfinished_mode`]). Where the umask or an inherited ACL
    /// clears bits of that mode, the directory gets its name only once they are set again.
    pub(crate) fn create_directory(&self, name: &[u8], meta: &Metadata) -> Result<(TargetDirectory, CurrentMetadata)> {
        let mode = unfinished_mode(meta);
        let is_exact = !self.hands_down_acl && mode & taken_away() == 0;
        let is_aside = !is_exact && !flags::is_append_only(&self.directory);
        let made = if is_aside { Cow::Owned(super::unfinished::next_name()) } else { Cow::Borrowed(name) };
        retry_on_intr(|| rustix::fs::mkdirat(&self.directory, &*made, Mode::from_raw_mode(mode)))
            .map_err(|errno| refused("create the directory", name, errno))?;
        let opened = self.open_made(&made, mode, is_exact, meta).and_then(|opened| {
            if is_aside {
                self.rename_new(&made, name)?;
            }
            Ok(opened)
        });
        opened.inspect_err(|_| {
            // It is empty: a later restore would take it for one that was there before.
            let _ = self.remove_directory(&made);
        })
    }

    /// Opens a directory that was just made, after setting this mode if it is not exact.
    fn open_made(
        &self,
        name: &[u8],
        mode: u32,
        is_exact: bool,
        meta: &Metadata,
    ) -> Result<(TargetDirectory, CurrentMetadata)> {
        let mut keeps_marks = self.keeps_marks.get().copied();
        if !is_exact {
            let found = self.directory.stat(name)?;
            keeps_marks.get_or_insert(is_marked(&found));
            // A file system without modes refuses that, and keeps no marks.
            let _best_effort = chmod_at(&self.directory, name, mode | (found.permissions() & 0o2000));
        }
        let directory = self.directory.open_child(name)?;
        let inherited_flags = self.begin_flags(&directory, meta.flags);
        let may_hand_down = self.hands_down_flags || flags::has_early(meta.flags);
        let hands_down_flags = may_hand_down && flags::hands_down_flags(&directory);
        let keeps_marks = match keeps_marks {
            Some(known) => known,
            None => is_marked(&fstat(&directory)?),
        };
        let mut current = CurrentMetadata { inherited_flags, ..self.current(mode, || fstat(&directory))? };
        let mut owner = OnceLock::from((current.uid, current.gid));
        let mut hands_down_group = self.hands_down_group;
        if hands_down_group {
            current.mode = MODE_UNKNOWN;
            if !is_exact && fstat(&directory)?.mode & 0o2000 == 0 {
                // The change of mode took it, as this user is not in the group: what is made in it has another one.
                (owner, hands_down_group) = (OnceLock::new(), false);
            }
        }
        let (keeps_marks, hands_down_acl) = (OnceLock::from(keeps_marks), self.hands_down_acl);
        let target =
            TargetDirectory { directory, owner, keeps_marks, hands_down_acl, hands_down_group, hands_down_flags };
        Ok((target, current))
    }

    pub(crate) fn create_symlink(&self, name: &[u8], points_to: &[u8]) -> Result<CurrentMetadata> {
        retry_on_intr(|| rustix::fs::symlinkat(points_to, &self.directory, name))
            .map_err(|errno| refused("create the link", name, errno))?;
        self.current(0, || self.directory.stat(name))
    }

    /// Creates a device node (which takes privilege) or a FIFO.
    pub(crate) fn create_special(
        &self,
        name: &[u8],
        kind: EntryKind,
        device: (u32, u32),
        meta: &Metadata,
    ) -> Result<CurrentMetadata> {
        let (file_type, number) = match kind {
            EntryKind::Fifo => (FileType::Fifo, 0),
            EntryKind::BlockDevice => (FileType::BlockDevice, rustix::fs::makedev(device.0, device.1)),
            EntryKind::CharDevice => (FileType::CharacterDevice, rustix::fs::makedev(device.0, device.1)),
            _ => return Err(Error::invalid("create the device", shown(name), "it is neither a device nor a FIFO")),
        };
        let mode = creation_mode(meta);
        retry_on_intr(|| rustix::fs::mknodat(&self.directory, name, file_type, Mode::from_raw_mode(mode), number))
            .map_err(|errno| refused("create the device", name, errno))?;
        self.current(mode, || self.directory.stat(name))
    }

    /// Another name for the inode that `from_name` in `from` is, a link itself if it is one.
    pub(crate) fn create_hard_link(&self, name: &[u8], from: &Directory, from_name: &[u8]) -> Result<()> {
        retry_on_intr(|| rustix::fs::linkat(from, from_name, &self.directory, name, AtFlags::empty()))
            .map_err(|errno| refused("create the hard link", name, errno))
    }

    /// Moves a name of this directory over another one of it, replacing it in one step.
    pub(crate) fn rename(&self, name: &[u8], to: &[u8]) -> Result<()> {
        retry_on_intr(|| rustix::fs::renameat(&self.directory, name, &self.directory, to))
            .map_err(|errno| refused("replace", to, errno))
    }

    /// The same for what may be another name of the same inode, where a rename does nothing (see rename(2)): the new name
    /// leads to it in the end, and the old one is gone.
    pub(crate) fn rename_link(&self, name: &[u8], to: &[u8]) -> Result<()> {
        let wanted = self.directory.stat(name)?.identity();
        self.rename(name, to)?;
        match self.directory.stat(name) {
            Err(error) if error.is(Kind::NotFound) => return Ok(()),
            left => drop(left?),
        }
        self.remove_name(name)?;
        if self.directory.stat(to)?.identity() == wanted {
            Ok(())
        } else {
            Err(Error::new(Kind::Conflict, "replace", shown(to)).because("another file is mounted on it"))
        }
    }

    /// The same as a rename where nothing has the new name; `AlreadyExists` when something has.
    pub(crate) fn rename_new(&self, name: &[u8], to: &[u8]) -> Result<()> {
        let here = &self.directory;
        match retry_on_intr(|| rustix::fs::renameat_with(here, name, here, to, RenameFlags::NOREPLACE)) {
            // The file system (or a kernel before 3.15) cannot do both in one step: look first.
            Err(Errno::INVAL | Errno::NOSYS) => match here.stat(to) {
                Ok(_) => Err(refused("create", to, Errno::EXIST)),
                Err(error) if error.is(Kind::NotFound) => self.rename(name, to),
                Err(error) => Err(error),
            },
            other => other.map_err(|errno| refused("create", to, errno)),
        }
    }

    /// Removes a name that is not a directory.
    pub(crate) fn remove_name(&self, name: &[u8]) -> Result<()> {
        super::remove::remove_name(&self.directory, name)
    }

    /// Removes an empty directory.
    pub(crate) fn remove_directory(&self, name: &[u8]) -> Result<()> {
        super::remove::remove_directory(&self.directory, name)
    }
}

/// Closes a file that was written. Network file systems say only here that the content did not arrive.
#[inline]
pub(crate) fn close_written(fd: OwnedFd) -> Result<()> {
    // SAFETY: the descriptor is ours alone, and nothing uses it after this, whatever the call returns.
    match unsafe { libc::close(fd.into_raw_fd()) } {
        0 => Ok(()),
        _ => Err(Error::io("write", "", std::io::Error::last_os_error())),
    }
}

/// The mode of a directory that has not got its own metadata yet: the sticky bit, which the finished one mostly does not
/// have, and writable for its owner only.
#[inline]
pub fn unfinished_mode(meta: &Metadata) -> u32 {
    (creation_mode(meta) & 0o055) | 0o1700
}

/// Whether a new directory has all of its mark that does not depend on its entry: then files in it have theirs as well.
fn is_marked(made: &Stat) -> bool {
    made.permissions() & 0o1700 == 0o1700
}

/// Whether a directory that stands for this entry is one that a restore did not finish: of exactly that mode (the setgid bit
/// may be inherited), and ours, or owned already by the user who is to own it on this machine, by number or by name.
pub(crate) fn is_unfinished(found: &Stat, meta: &Metadata, owner_here: u32) -> bool {
    let is_ours = [rustix::process::geteuid().as_raw(), meta.uid, owner_here].contains(&found.uid);
    is_ours && found.permissions() & !0o2000 == unfinished_mode(meta)
}

/// With which mode something is created. The special bits come after the owner, which decides what they mean (and a
/// chown clears them); what has attributes stays private until they are there, since an ACL makes the group's bits
/// mean something else, and writable for its owner, since `user.*` takes the right to write.
#[inline]
pub(crate) fn creation_mode(meta: &Metadata) -> u32 {
    if meta.mode & 0o7000 != 0 || !meta.xattrs.is_empty() { (meta.mode & 0o700) | 0o600 } else { meta.mode & 0o777 }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Killed between its owner and its mode, a directory of a user who has another number here was taken for that user's own.
    #[test]
    fn an_unfinished_directory_is_known_by_its_owner_here() {
        let meta = Metadata { mode: 0o775, uid: 4_000_000_001, ..Metadata::default() };
        let mode = unfinished_mode(&meta);
        let of = |uid, mode| Stat { uid, mode, kind: Some(EntryKind::Directory), ..Stat::default() };
        let here = 4_000_000_002;
        assert!(is_unfinished(&of(here, mode), &meta, here) && is_unfinished(&of(meta.uid, mode), &meta, here));
        assert!(!is_unfinished(&of(4_000_000_003, mode), &meta, here));
        assert!(!is_unfinished(&of(here, 0o775), &meta, here));
    }
}
