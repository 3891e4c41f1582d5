//! A directory of this user whose mode denies access, opened up while work is done in it.

use super::open::open_file;
use super::read_dir::Directory;
use super::refused::{refused, refused_name};
use super::stat::{Identity, Stat, fstat};
use crate::entry::EntryKind;
use crate::error::{Error, Kind, Result};
use rustix::fd::{AsFd, AsRawFd, OwnedFd};
use rustix::fs::{Mode, OFlags};
use rustix::io::{Errno, fcntl_dupfd_cloexec};

/// Resets the mode when it is dropped, unless the caller took that over ([`OpenedUp::hand_on`]).
pub(crate) struct OpenedUp {
    fd: OwnedFd,
    /// The mode that it had.
    mode: u32,
    is_handed_on: bool,
}

impl OpenedUp {
    /// Adds all rights of the owner to the directory at this name, which must have this stat.
    pub(crate) fn named(directory: &Directory, name: &[u8], stat: &Stat) -> Result<OpenedUp> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(directory, name, flags, Mode::empty());
        OpenedUp::of(fd.map_err(|errno| refused_name("open the directory", name, errno))?, stat, 0o700)
    }

    /// The same of an open directory.
    pub(crate) fn open(directory: &Directory, stat: &Stat) -> Result<OpenedUp> {
        let fd = fcntl_dupfd_cloexec(directory.as_fd(), 0);
        OpenedUp::of(fd.map_err(|errno| refused("open the directory", b".", errno))?, stat, 0o700)
    }

    fn of(fd: OwnedFd, stat: &Stat, rights: u32) -> Result<OpenedUp> {
        let mode = stat.permissions();
        change_mode(&fd, mode | rights).map_err(|errno| refused("change the mode", b"", errno))?;
        Ok(OpenedUp { fd, mode, is_handed_on: false })
    }

    /// The stat that it had, of one that it has now.
    pub(crate) fn stat_before(&self, now: &Stat) -> Stat {
        Stat { mode: now.mode & !0o7777 | self.mode, ..*now }
    }

    /// The mode that the caller puts back from now on.
    pub(crate) fn hand_on(mut self) -> u32 {
        self.is_handed_on = true;
        self.mode
    }
}

impl Drop for OpenedUp {
    fn drop(&mut self) {
        if !self.is_handed_on {
            // The error that ended the work in it is the one to tell.
            let _best_effort = change_mode(&self.fd, self.mode);
        }
    }
}

/// Opens a file for reading. One of our own whose mode denies its owner that is made readable for the moment.
pub(crate) fn open_own_file(directory: &Directory, name: &[u8]) -> Result<OwnedFd> {
    let denied = match open_file(directory, name) {
        Err(error) if error.is(Kind::Denied) => error,
        opened => return opened,
    };
    let stat = directory.stat(name)?;
    if !stat.is(EntryKind::File) || !stat.is_closed_to_owner(0o400) {
        return Err(denied);
    }
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(directory, name, flags, Mode::empty());
    let fd = fd.map_err(|errno| refused_name("open", name, errno))?;
    if fstat(&fd)?.identity() != stat.identity() {
        return Err(denied);
    }
    // What is open stays open when the mode is reset.
    let _opened_up = OpenedUp::of(fd, &stat, 0o400)?;
    open_file(directory, name)
}

/// Resets the mode of a directory below `from`, at these names, if it is still this inode. Needs two descriptors,
/// however deep it is.
pub(crate) fn close_below(from: &Directory, names: &[&[u8]], identity: Identity, mode: u32) -> Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut below: Option<OwnedFd> = None;
    for name in names {
        let above = below.as_ref().map_or(from.as_fd(), AsFd::as_fd);
        let opened = rustix::fs::openat(above, *name, flags, Mode::empty());
        below = Some(opened.map_err(|errno| refused_name("open the directory", *name, errno))?);
    }
    let found = below.as_ref().map(|fd| Ok((fd, fstat(fd)?))).transpose()?;
    match found {
        Some((fd, stat)) if stat.identity() == identity => {
            change_mode(fd, mode).map_err(|errno| refused("change the mode", b"", errno))
        }
        _ => Err(Error::new(Kind::Conflict, "change the mode", "").because("another directory has its name now")),
    }
}

fn change_mode(fd: &OwnedFd, mode: u32) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(mode);
    match rustix::fs::fchmod(fd, mode) {
        // It was opened as a mere path, as its mode allowed no more.
        Err(Errno::BADF) => rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode),
        changed => changed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn the_mode_comes_back_unless_somebody_else_puts_it_back() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open_path(folder.path().as_os_str().as_bytes()).unwrap();
        rustix::fs::mkdirat(&directory, c"d", Mode::from_raw_mode(0o050)).unwrap();
        let before = directory.stat(c"d").unwrap();
        let mode = || directory.stat(c"d").unwrap().permissions();
        let opened_up = OpenedUp::named(&directory, b"d", &before).unwrap();
        assert_eq!(mode(), 0o750);
        let below = directory.open_child(c"d").unwrap();
        drop(opened_up);
        assert_eq!(mode(), 0o050);
        drop(OpenedUp::open(&below, &fstat(&below).unwrap()).unwrap());
        assert_eq!(mode(), 0o050);
        assert_eq!(OpenedUp::open(&below, &before).unwrap().hand_on(), 0o050);
        assert_eq!(mode(), 0o750);
        rustix::fs::mkdirat(&below, c"deeper", Mode::from_raw_mode(0o700)).unwrap();
        let deeper = below.stat(c"deeper").unwrap();
        let close = |inode| close_below(&directory, &[b"d", b"deeper"], Identity { inode, ..deeper.identity() }, 0o500);
        assert!(close(before.inode).is_err());
        close(deeper.inode).unwrap();
        assert_eq!(below.stat(c"deeper").unwrap().permissions(), 0o500);
    }
}
