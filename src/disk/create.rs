//! Create what a snapshot holds, with as few system calls as the kernel allows.
//!
//! A plain file of the user who restores costs open, write, futimens, close. What makes more calls superfluous is
//! known, not assumed: the thread's umask ([`super::umask`]), who owns what is created here (asked once per tree) and
//! whether directories hand down an ACL.

use super::apply::{Current, MODE_UNKNOWN};
use super::flags::set_early_flags;
use super::read_dir::Directory;
use super::refused::{refused, shown};
use super::stat::{Stat, fstat};
use super::umask::taken_away;
use super::xattr;
use crate::entry::{EntryKind, Metadata};
use crate::error::{Error, Result};
use rustix::fd::OwnedFd;
use rustix::fs::{AtFlags, FileType, Mode, OFlags};
use std::sync::OnceLock;

/// A directory that entries are created in.
pub struct Target {
    directory: Directory,
    /// Who owns what is created here. Learned from the first one, since mount options (grpid, uid mapping, squashed
    /// root) and setgid decide it; the same in every directory created below.
    owner: OnceLock<(u32, u32)>,
    hands_down_acl: bool,
    hands_down_group: bool,
}

impl Target {
    /// A directory that was there before.
    pub fn new(directory: Directory) -> Result<Target> {
        let hands_down_group = fstat(&directory)?.mode & 0o2000 != 0;
        let hands_down_acl = xattr::has_default_acl(&directory);
        Ok(Target { directory, owner: OnceLock::new(), hands_down_acl, hands_down_group })
    }

    pub fn directory(&self) -> &Directory {
        &self.directory
    }

    fn current(&self, mode: u32, stat: impl FnOnce() -> Result<Stat>) -> Result<Current> {
        let (uid, gid) = match self.owner.get() {
            Some(known) => *known,
            None => {
                let stat = stat()?;
                *self.owner.get_or_init(|| (stat.uid, stat.gid))
            }
        };
        let mode = match self.hands_down_acl || mode & taken_away() != 0 {
            true => MODE_UNKNOWN,
            false => mode,
        };
        Ok(Current { uid, gid, mode, new: true, inherited_acl: self.hands_down_acl })
    }

    /// Creates a file, open for writing; `AlreadyExists` whatever has the name. Flags that must be there before the
    /// content are set.
    #[inline]
    pub fn create_file(&self, name: &[u8], meta: &Metadata) -> Result<(OwnedFd, Current)> {
        let mode = creation_mode(meta);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.directory, name, flags, Mode::from_raw_mode(mode))
            .map_err(|errno| refused("create", name, errno))?;
        // Best effort: what is missing is found when the flags are applied.
        let _ = set_early_flags(&fd, meta.flags);
        let current = self.current(mode, || fstat(&fd))?;
        Ok((fd, current))
    }

    /// Creates a directory and opens it. Until its own metadata are applied, after its children's, only its owner
    /// can write to it.
    pub fn create_directory(&self, name: &[u8], meta: &Metadata) -> Result<(Target, Current)> {
        let mode = (creation_mode(meta) & 0o755) | 0o700;
        rustix::fs::mkdirat(&self.directory, name, Mode::from_raw_mode(mode))
            .map_err(|errno| refused("create the directory", name, errno))?;
        let directory = self.directory.open_child(name)?;
        let _ = set_early_flags(&directory, meta.flags);
        let mut current = self.current(mode, || fstat(&directory))?;
        if self.hands_down_group {
            current.mode = MODE_UNKNOWN;
        }
        let owner = OnceLock::from((current.uid, current.gid));
        let (hands_down_acl, hands_down_group) = (self.hands_down_acl, self.hands_down_group);
        Ok((Target { directory, owner, hands_down_acl, hands_down_group }, current))
    }

    pub fn create_symlink(&self, name: &[u8], points_to: &[u8]) -> Result<Current> {
        rustix::fs::symlinkat(points_to, &self.directory, name)
            .map_err(|errno| refused("create the link", name, errno))?;
        self.current(0, || self.directory.stat(name))
    }

    /// Creates a device node (which takes privilege) or a FIFO.
    pub fn create_special(&self, name: &[u8], kind: EntryKind, device: (u32, u32), meta: &Metadata) -> Result<Current> {
        let (file_type, number) = match kind {
            EntryKind::Fifo => (FileType::Fifo, 0),
            EntryKind::BlockDevice => (FileType::BlockDevice, rustix::fs::makedev(device.0, device.1)),
            EntryKind::CharDevice => (FileType::CharacterDevice, rustix::fs::makedev(device.0, device.1)),
            _ => return Err(Error::invalid("create the device", shown(name), "it is no device and no FIFO")),
        };
        let mode = creation_mode(meta);
        rustix::fs::mknodat(&self.directory, name, file_type, Mode::from_raw_mode(mode), number)
            .map_err(|errno| refused("create the device", name, errno))?;
        self.current(mode, || self.directory.stat(name))
    }

    /// Another name for the inode that `from_name` in `from` is, a link itself if it is one.
    pub fn create_hard_link(&self, name: &[u8], from: &Directory, from_name: &[u8]) -> Result<()> {
        rustix::fs::linkat(from, from_name, &self.directory, name, AtFlags::empty())
            .map_err(|errno| refused("create the hard link", name, errno))
    }

    /// Moves a name of this directory over one in `to`, replacing it in one step.
    pub fn rename(&self, name: &[u8], to: &Target, to_name: &[u8]) -> Result<()> {
        rustix::fs::renameat(&self.directory, name, &to.directory, to_name)
            .map_err(|errno| refused("rename", name, errno))
    }

    /// Removes a name and all below it; see [`super::remove::remove_all`].
    pub fn remove(&self, name: &[u8]) -> Result<()> {
        super::remove::remove_all(&self.directory, name)
    }
}

/// With which mode something is created. The special bits come after the owner, who decides what they mean (and a
/// chown clears them); what has attributes stays private until they are there, since an ACL makes the group's bits
/// mean something else, and writable for its owner, since `user.*` takes the right to write.
#[inline]
pub fn creation_mode(meta: &Metadata) -> u32 {
    match meta.mode & 0o7000 != 0 || !meta.xattrs.is_empty() {
        true => (meta.mode & 0o700) | 0o600,
        false => meta.mode & 0o777,
    }
}
