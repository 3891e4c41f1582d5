//! Inode flags (`chattr`, `lsattr`) of files and directories: those that a user can set.
//!
//! Best effort on both sides: file systems know different ones and refuse the rest. Left out are flags that the kernel
//! sets by itself (extents, index), those of states that a flag cannot bring (encryption, verity, inline data) and
//! project inheritance, whose project number is not kept.

use super::refused::refused;
use crate::error::{Error, Kind, Result};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, IFlags, StatxAttributes, StatxFlags, ioctl_getflags, ioctl_setflags, statx};
use rustix::io::{Errno, retry_on_intr};

/// `FS_NOCOMP_FL`, which rustix does not name.
const NO_COMPRESSION: IFlags = IFlags::from_bits_retain(0x400);
/// `FS_CASEFOLD_FL`: only an empty directory takes it.
const CASE_FOLD: IFlags = IFlags::from_bits_retain(0x4000_0000);

/// Flags that take effect only on an empty file, or that what is created in a directory inherits.
const EARLY: IFlags = IFlags::NOCOW.union(IFlags::COMPRESSED).union(NO_COMPRESSION).union(CASE_FOLD);
/// Flags that forbid every further change.
const LOCKING: IFlags = IFlags::IMMUTABLE.union(IFlags::APPEND);
/// Flags that are kept.
const KEPT: IFlags = EARLY
    .union(LOCKING)
    .union(IFlags::NODUMP)
    .union(IFlags::NOATIME)
    .union(IFlags::SYNC)
    .union(IFlags::DIRSYNC)
    .union(IFlags::JOURNALING)
    .union(IFlags::TOPDIR)
    .union(IFlags::NOTAIL);
/// Flags that an inode may get from the directory that it is made in.
const HANDED_DOWN: IFlags = KEPT.difference(LOCKING).difference(IFlags::TOPDIR);
/// Each flag that is kept with its letter.
const KEPT_LETTERS: [(IFlags, char); 13] = [
    (IFlags::APPEND, 'a'),
    (IFlags::NOATIME, 'A'),
    (IFlags::COMPRESSED, 'c'),
    (IFlags::NOCOW, 'C'),
    (IFlags::NODUMP, 'd'),
    (IFlags::DIRSYNC, 'D'),
    (CASE_FOLD, 'F'),
    (IFlags::IMMUTABLE, 'i'),
    (IFlags::JOURNALING, 'j'),
    (NO_COMPRESSION, 'm'),
    (IFlags::SYNC, 'S'),
    (IFlags::NOTAIL, 't'),
    (IFlags::TOPDIR, 'T'),
];

/// The flags of an open regular file or directory (drivers of devices may take the call for something else); 0 where
/// there are none or the file system has no such thing.
#[inline]
pub(crate) fn read_flags(fd: impl AsFd) -> Result<u32> {
    match retry_on_intr(|| ioctl_getflags(&fd)) {
        Ok(flags) => Ok((flags & KEPT).bits()),
        // The disk or the network failed: there may be flags.
        Err(errno @ (Errno::IO | Errno::STALE | Errno::TIMEDOUT | Errno::NOMEM | Errno::NOTCONN)) => {
            Err(refused("read the flags (chattr)", b"", errno))
        }
        // ENOTTY, EOPNOTSUPP, ENOSYS; FUSE file systems say about anything else.
        Err(_) => Ok(0),
    }
}

/// Whether names in this open directory can be made, and neither removed nor renamed (`chattr +a`); in one that is immutable
/// as well none can be made. Asked by `statx`, as FUSE file systems answer the other call with about anything.
pub(crate) fn is_append_only(directory: impl AsFd) -> bool {
    statx(directory, c"", AtFlags::EMPTY_PATH, StatxFlags::empty()).is_ok_and(|found| {
        let attributes = found.stx_attributes_mask & found.stx_attributes;
        attributes.contains(StatxAttributes::APPEND) && !attributes.contains(StatxAttributes::IMMUTABLE)
    })
}

/// Whether these flags have one that forbids changes.
pub(crate) fn has_locking(flags: u32) -> bool {
    IFlags::from_bits_retain(flags).intersects(LOCKING)
}

/// These flags without those that forbid changes.
pub(crate) fn without_locking(flags: u32) -> u32 {
    (IFlags::from_bits_retain(flags) - LOCKING).bits()
}

/// Whether an open file or directory lacks one of these flags, as far as the file system tells.
pub(crate) fn lacks(fd: impl AsFd, flags: u32) -> bool {
    let wanted = IFlags::from_bits_retain(flags) & KEPT;
    !wanted.is_empty() && ioctl_getflags(fd).is_ok_and(|now| !now.contains(wanted))
}

/// Sets what must be set before the first byte or the first child. Costs nothing when there is none of them.
#[inline]
pub(crate) fn set_early_flags(fd: impl AsFd, flags: u32) -> Result<()> {
    match IFlags::from_bits_retain(flags) & EARLY {
        none if none.is_empty() => Ok(()),
        early => change(fd, early),
    }
}

/// Whether a directory hands flags down to what is made in it. One that was opened to search does not say.
pub(crate) fn hands_down_flags(directory: impl AsFd) -> bool {
    ioctl_getflags(directory).map_or_else(|errno| errno == Errno::BADF, |flags| flags.intersects(HANDED_DOWN))
}

/// Whether a new directory with these flags may hand some of them down before it is finished.
pub(crate) fn has_early(flags: u32) -> bool {
    IFlags::from_bits_retain(flags).intersects(EARLY)
}

/// The same as [`set_early_flags`] for a new inode in a directory that hands flags down: takes away those that it was not
/// saved with, in the same call, as some exclude others. Returns those that this user may not take away.
pub(crate) fn replace_handed_down(fd: impl AsFd, saved: u32) -> u32 {
    let fd = fd.as_fd();
    let saved = IFlags::from_bits_retain(saved) & KEPT;
    let Ok(now) = ioctl_getflags(fd) else { return 0 };
    let wanted = (now - KEPT) | (now & saved) | (saved & EARLY);
    if wanted == now || ioctl_setflags(fd, wanted).is_ok() {
        return 0;
    }
    // One that may not be changed must not keep the others. Any other error may come from a file system without flags.
    let is_refused = |one: IFlags| {
        let cleared = ioctl_getflags(fd).and_then(|now| ioctl_setflags(fd, now - one));
        cleared == Err(Errno::PERM)
    };
    let extra = KEPT_LETTERS.into_iter().map(|(one, _)| one).filter(|one| (now - wanted).contains(*one));
    let stay: IFlags = extra.filter(|one| is_refused(*one)).collect();
    let _what_is_missing_is_found_at_the_end = set_early_flags(fd, saved.bits());
    stay.bits()
}

/// The error for flags that [`replace_handed_down`] could not take away.
pub(crate) fn still_handed_down(flags: u32) -> Error {
    let letters = letters(IFlags::from_bits_retain(flags));
    let why = format!("its directory hands them down, and the system refuses `chattr -{letters}`");
    Error::new(Kind::Unsupported, "clear the flags", "").because(why)
}

/// Sets the rest, those that forbid further changes in the same call: this must be the last change of the inode.
#[inline]
pub(crate) fn set_flags(fd: impl AsFd, flags: u32) -> Result<()> {
    match IFlags::from_bits_retain(flags) & KEPT {
        none if none.is_empty() => Ok(()),
        wanted => change(fd, wanted),
    }
}

/// Takes away what forbids changing or removing an inode; returns the flags that it had for that.
pub(crate) fn unlock(fd: impl AsFd) -> Result<u32> {
    let failed = |errno| refused("unlock a file", b"", errno);
    let fd = fd.as_fd();
    let now = ioctl_getflags(fd).map_err(failed)?;
    if now.intersects(LOCKING) {
        ioctl_setflags(fd, now - LOCKING).map_err(failed)?;
    }
    Ok((now & LOCKING).bits())
}

/// The letters that `chattr` and `lsattr` have for flags.
fn letters(flags: IFlags) -> String {
    let known = KEPT_LETTERS.iter().filter(|(flag, _)| flags.contains(*flag));
    known.map(|(_, letter)| letter).collect()
}

fn change(fd: impl AsFd, wanted: IFlags) -> Result<()> {
    let fd = fd.as_fd();
    let failed = |errno| refused("set the flags", b"", errno);
    let now = ioctl_getflags(fd).map_err(failed)?;
    if now.contains(wanted) {
        return Ok(());
    }
    match ioctl_setflags(fd, now | wanted) {
        Ok(()) => (),
        // One that this file system does not know, or that we may not set, must not take the others along.
        Err(Errno::NOTSUP | Errno::PERM | Errno::INVAL) => {
            for (one, _) in KEPT_LETTERS.into_iter().filter(|(one, _)| wanted.contains(*one)) {
                if let Ok(now) = ioctl_getflags(fd) {
                    let _ = ioctl_setflags(fd, now | one);
                }
            }
        }
        Err(errno) => return Err(failed(errno)),
    }
    // Some file systems drop silently what they do not know.
    let missing = wanted - ioctl_getflags(fd).map_err(failed)?;
    if missing.is_empty() {
        Ok(())
    } else {
        let why = format!("the file system does not know, or this user may not set, `chattr +{}`", letters(missing));
        Err(Error::new(Kind::Unsupported, "set the flags", "").because(why))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flag_that_is_kept_has_a_letter() {
        assert_eq!(letters(KEPT).len(), KEPT.bits().count_ones() as usize);
        assert_eq!(letters(IFlags::NODUMP | IFlags::IMMUTABLE), "di");
    }
}
