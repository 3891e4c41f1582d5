//! Apply metadata to an entry with as few system calls as the kernel allows.

use super::flags::set_flags;
use super::half_done::HALF_DONE_MODE;
use super::opened_up::open_own_file;
use super::owner::Owners;
use super::read_dir::Directory;
use super::refused::{refused, shown};
use super::rights;
use super::stat::{Stat, fstat};
use super::xattr::{self, ACL_ACCESS, ACL_DEFAULT};
use crate::entry::{EntryKind, Metadata, Time, Xattr};
use crate::error::{Error, Kind, Result};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

/// Between these every file system keeps a time.
const TIME_SECONDS_MIN: i64 = i32::MIN as i64 + 1;
const TIME_SECONDS_MAX: i64 = i32::MAX as i64;

/// What of the metadata is to be brought back.
#[derive(Clone, Copy, Debug)]
pub struct ApplyOptions<'a> {
    /// User and group; without privilege it is mostly refused.
    pub owner: bool,
    /// By number even if this machine knows the name.
    pub numeric_ids: bool,
    pub owners: &'a Owners,
}

/// Metadata that could not be restored: the entry exists, but not in every respect as it was saved.
#[derive(Debug)]
pub struct Loss {
    /// "owner", "mode", "attribute user.x", "modification time", "flags", "setuid bit", "setgid bit".
    pub what: String,
    pub error: Error,
}

/// What metadata are applied to.
#[derive(Clone, Copy)]
pub enum Subject<'a> {
    Open(BorrowedFd<'a>),
    /// A name in a directory, of a link itself.
    Named(&'a Directory, &'a [u8]),
}

/// What an inode has already, so that only differences cost calls.
#[derive(Clone, Copy, Debug)]
pub struct Current {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits; [`MODE_UNKNOWN`] where only a chmod makes sure.
    pub mode: u32,
    /// New in this restore: it has no attributes but perhaps inherited ACLs.
    pub new: bool,
    pub inherited_acl: bool,
    /// None where only setting it makes sure.
    pub modified: Option<Time>,
}

pub const MODE_UNKNOWN: u32 = u32::MAX;

impl From<&Stat> for Current {
    fn from(stat: &Stat) -> Self {
        Current {
            uid: stat.uid,
            gid: stat.gid,
            mode: stat.permissions(),
            new: false,
            inherited_acl: false,
            modified: Some(stat.modified),
        }
    }
}

/// Applies metadata to an inode in the only order that works: owner (clears setuid and capabilities), attributes (an ACL
/// sets the mode of a file; `user.*` takes the right to write), times, mode (until then it may be the mark of what is
/// unfinished). Flags, which may forbid all further changes, are left to [`apply_flags`]. The access time stays. `current` comes from the call that created
/// the inode, or from a stat; with None, this function stats it. Returns what could not be restored; such a loss does not
/// stop the rest.
pub fn apply_metadata(
    subject: Subject<'_>,
    current: Option<Current>,
    meta: &Metadata,
    kind: EntryKind,
    options: &ApplyOptions<'_>,
) -> Vec<Loss> {
    let mut losses = Vec::new();
    let mut current = match current.map_or_else(|| subject.stat().map(|stat| Current::from(&stat)), Ok) {
        Ok(current) => current,
        Err(error) => {
            losses.push(Loss { what: "metadata".to_owned(), error });
            return losses;
        }
    };
    let mut lose = |what: &str, error: Error| losses.push(Loss { what: what.to_owned(), error });
    let wanted = wanted_owner(meta, options);
    if options.owner {
        subject.apply_owner(&mut current, wanted, kind, &mut lose);
    }
    let mut mode = meta.mode & 0o7777;
    let unsafe_bits = unsafe_bits((current.uid, current.gid), wanted, kind);
    if mode & unsafe_bits != 0 {
        mode &= !unsafe_bits;
        let Loss { what, error } = unsafe_setuid();
        lose(&what, error);
    }
    if kind != EntryKind::Symlink {
        subject.open_to_attributes(&mut current, meta, kind);
    }
    if subject.apply_xattrs(&current, meta, kind, &mut lose) {
        current.mode = MODE_UNKNOWN;
    }
    subject.apply_time(current.modified, meta.modified, &mut lose);
    // It may be what marked the inode as unfinished: all else comes before.
    if kind != EntryKind::Symlink && current.mode != mode {
        subject.apply_mode(mode, &mut lose);
    }
    losses
}

/// The special bits that must not be set for this owner: a setuid file runs with the rights of its owner, so on another
/// user's file the bit would be a security hole.
pub(super) fn unsafe_bits(owner: (u32, u32), wanted: (u32, u32), kind: EntryKind) -> u32 {
    match kind {
        EntryKind::File => (u32::from(owner.0 != wanted.0) * 0o4000) | (u32::from(owner.1 != wanted.1) * 0o2000),
        _ => 0,
    }
}

pub(super) fn unsafe_setuid() -> Loss {
    let error = Error::new(Kind::Denied, "set the setuid bit", "")
        .because("the file no longer has the owner that it was saved with");
    Loss { what: "setuid bit".to_owned(), error }
}

/// The kernel clears the setgid bit without a word where the user is not in the group.
pub(super) fn setgid_dropped(name: &[u8]) -> Loss {
    let error = Error::new(Kind::Denied, "set the setgid bit", shown(name)).because("this user is not in its group");
    Loss { what: "setgid bit".to_owned(), error }
}

/// Sets the flags of an inode, which may forbid every further change: hard links and renames come before it.
pub fn apply_flags(subject: Subject<'_>, meta: &Metadata, kind: EntryKind) -> Option<Loss> {
    if meta.flags == 0 || !matches!(kind, EntryKind::File | EntryKind::Directory) {
        return None;
    }
    let set = match subject {
        Subject::Open(fd) => set_flags(fd, meta.flags),
        Subject::Named(directory, name) => open_own_file(directory, name).and_then(|fd| set_flags(&fd, meta.flags)),
    };
    set.err().map(|error| Loss { what: "flags".to_owned(), error })
}

/// Changes the mode of a name in a directory, never of what a link points to.
pub fn chmod_at(directory: &Directory, name: &[u8], mode: u32) -> Result<()> {
    Subject::Named(directory, name).chmod(mode).map_err(|errno| refused("change the mode", name, errno))
}

/// Sets the owner and the mode that a name had before, as far as the system allows.
pub fn restore_owner_and_mode(directory: &Directory, name: &[u8], before: &Stat) {
    let subject = Subject::Named(directory, name);
    let _as_far_as_possible = subject.chown(Some(before.uid), Some(before.gid));
    let _as_far_as_possible = subject.chmod(before.permissions());
}

/// Changes the mode of an open file or directory.
pub fn chmod_open(fd: impl AsFd, mode: u32) -> Result<()> {
    Subject::Open(fd.as_fd()).chmod(mode).map_err(|errno| refused("change the mode", b"", errno))
}

/// Sets the time of the last modification of an open file or directory.
pub fn set_time(fd: impl AsFd, time: Time) -> Result<()> {
    Subject::Open(fd.as_fd()).set_modified(time).map_err(|errno| refused("set the time", b"", errno))
}

/// Whether an inode has the metadata already, but for its flags.
pub fn is_as_saved(subject: Subject<'_>, stat: &Stat, meta: &Metadata, options: &ApplyOptions<'_>) -> bool {
    let has_owner = !options.owner || (stat.uid, stat.gid) == wanted_owner(meta, options);
    has_owner && stat.has_mode(meta.mode) && stat.modified == meta.modified && subject.has_attributes(meta)
}

/// The owner by name if this machine knows it, else by number.
#[inline]
pub fn wanted_owner(meta: &Metadata, options: &ApplyOptions<'_>) -> (u32, u32) {
    if options.numeric_ids || !options.owner {
        return (meta.uid, meta.gid);
    }
    // The same number on both sides needs no search: the usual case, a restore on the same machine.
    let uid = if options.owners.user_name(meta.uid) == meta.user || meta.user.is_empty() {
        meta.uid
    } else {
        options.owners.uid(&meta.user).unwrap_or(meta.uid)
    };
    let gid = if options.owners.group_name(meta.gid) == meta.group || meta.group.is_empty() {
        meta.gid
    } else {
        options.owners.gid(&meta.group).unwrap_or(meta.gid)
    };
    (uid, gid)
}

/// The label of SELinux comes from the policy of this machine: it stays where the entry has none.
const LABEL: &[u8] = b"security.selinux";

impl Subject<'_> {
    fn xattrs(&self) -> Result<Vec<Xattr>> {
        match self {
            Subject::Open(fd) => xattr::read_xattrs(fd),
            Subject::Named(directory, name) => xattr::read_xattrs_at(directory, *name),
        }
    }

    /// Whether it has the attributes of an entry and no others, as far as they can be read.
    pub(super) fn has_attributes(&self, meta: &Metadata) -> bool {
        self.xattrs().is_ok_and(|mut found| {
            found.retain(|one| one.name != LABEL || meta.xattrs.iter().any(|wanted| wanted.name == LABEL));
            found == meta.xattrs
        })
    }

    fn stat(&self) -> Result<Stat> {
        match self {
            Subject::Open(fd) => fstat(fd),
            Subject::Named(directory, name) => directory.stat(*name),
        }
    }

    fn apply_owner(
        &self,
        current: &mut Current,
        (uid, gid): (u32, u32),
        kind: EntryKind,
        lose: &mut impl FnMut(&str, Error),
    ) {
        if (current.uid, current.gid) == (uid, gid) {
            return;
        }
        match self.chown((current.uid != uid).then_some(uid), (current.gid != gid).then_some(gid)) {
            Ok(()) => (current.uid, current.gid) = (uid, gid),
            Err(errno) => {
                // Without privilege one may still give a file to a group of one's own.
                if current.gid != gid && current.uid != uid && self.chown(None, Some(gid)).is_ok() {
                    current.gid = gid;
                }
                lose("owner", refused("change the owner", self.name(), errno));
            }
        }
        if kind == EntryKind::File && current.mode & 0o6000 != 0 {
            current.mode = MODE_UNKNOWN;
        }
    }

    /// Lets the owner set attributes where the mode denies that; the mode that was saved comes after the attributes.
    fn open_to_attributes(&self, current: &mut Current, meta: &Metadata, kind: EntryKind) {
        let me = rustix::process::geteuid();
        if rights::opens_everything() || current.uid != me.as_raw() {
            return;
        }
        if current.new {
            // An ACL that it inherited may have taken the right to write away.
            if current.inherited_acl && kind == EntryKind::File && !meta.xattrs.is_empty() {
                let _what_is_refused_is_told = self.chmod(HALF_DONE_MODE);
            }
        } else if current.mode & 0o600 != 0o600
            && !self.has_attributes(meta)
            && self.chmod(current.mode | 0o600).is_ok()
        {
            current.mode |= 0o600;
        }
    }

    fn apply_time(&self, current: Option<Time>, wanted: Time, lose: &mut impl FnMut(&str, Error)) {
        let what = "modification time";
        match self.set_modified_unless(current, wanted) {
            // File systems with small time fields clamp without a word; within 32 bits all can keep it (at the very ends
            // the kernel drops the nanoseconds).
            Ok(()) if !(TIME_SECONDS_MIN..TIME_SECONDS_MAX).contains(&wanted.seconds) => match self.stat() {
                Ok(stat) if stat.modified == wanted => (),
                Ok(stat) => {
                    let why = format!(
                        "the file system stored second {} instead of {}",
                        stat.modified.seconds, wanted.seconds
                    );
                    let error = Error::new(Kind::Unsupported, "set the modification time", shown(self.name()));
                    lose(what, error.because(why));
                }
                Err(error) => lose(what, error),
            },
            Ok(()) => (),
            Err(errno) => lose(what, refused("set the modification time", self.name(), errno)),
        }
    }

    fn apply_mode(&self, mode: u32, lose: &mut impl FnMut(&str, Error)) {
        if let Err(errno) = self.chmod(mode) {
            return lose("mode", refused("change the mode", self.name(), errno));
        }
        if mode & 0o7000 == 0 {
            return;
        }
        match self.stat().map(|stat| mode & 0o7000 & !stat.permissions()) {
            Ok(0) => (),
            Ok(0o2000) => {
                let Loss { what, error } = setgid_dropped(self.name());
                lose(&what, error);
            }
            Ok(dropped) => {
                let error = Error::new(Kind::Unsupported, "change the mode", shown(self.name()));
                lose(
                    "special bits",
                    error.because(format!("the file system did not keep {dropped:05o} of {mode:05o}")),
                );
            }
            Err(error) => lose("special bits", error),
        }
    }

    fn name(&self) -> &[u8] {
        match self {
            Subject::Open(_) => b"",
            Subject::Named(_, name) => name,
        }
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        // To the kernel, -1 means "do not change": it is not a valid user or group.
        if uid == Some(u32::MAX) || gid == Some(u32::MAX) {
            return Err(Errno::INVAL);
        }
        let (uid, gid) = (uid.map(Uid::from_raw), gid.map(Gid::from_raw));
        match self {
            Subject::Open(fd) => rustix::fs::fchown(fd, uid, gid),
            Subject::Named(directory, name) => {
                rustix::fs::chownat(directory, *name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    fn chmod(&self, mode: u32) -> Result<(), Errno> {
        let mode = Mode::from_raw_mode(mode);
        match self {
            Subject::Open(fd) => rustix::fs::fchmod(fd, mode),
            // fchmodat follows links, and the call that does not is younger than Linux 6.6.
            Subject::Named(directory, name) => {
                use rustix::fd::AsRawFd;
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fd = rustix::fs::openat(directory, *name, flags, Mode::empty())?;
                rustix::fs::chmod(format!("/proc/self/fd/{}", fd.as_raw_fd()), mode)
            }
        }
    }

    #[inline]
    fn set_modified(&self, time: Time) -> Result<(), Errno> {
        // Larger ones are the kernel's words for "now" and "leave it".
        if time.nanoseconds >= 1_000_000_000 {
            return Err(Errno::INVAL);
        }
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() },
        };
        match self {
            Subject::Open(fd) => rustix::fs::futimens(fd, &times),
            Subject::Named(directory, name) => {
                rustix::fs::utimensat(directory, *name, &times, AtFlags::SYMLINK_NOFOLLOW)
            }
        }
    }

    /// Nothing to do where the time is right already: an immutable file would refuse it.
    #[inline]
    fn set_modified_unless(&self, current: Option<Time>, time: Time) -> Result<(), Errno> {
        if current == Some(time) {
            return Ok(());
        }
        self.set_modified(time)
    }

    /// Sets the attributes of the entry and removes those that it does not have: inherited ACLs of a new one, all others
    /// of an older one. What is right already is not touched. Whether the mode has to be set: that of a directory stays
    /// until then, and its ACL is whole only with its own mode.
    fn apply_xattrs(
        &self,
        current: &Current,
        meta: &Metadata,
        kind: EntryKind,
        lose: &mut impl FnMut(&str, Error),
    ) -> bool {
        let inherits = current.inherited_acl && kind != EntryKind::Symlink;
        let mut mode_changed = current.new && inherits;
        let there = if current.new && inherits {
            [ACL_ACCESS, ACL_DEFAULT].map(unknown_value).to_vec()
        } else if current.new {
            Vec::new()
        } else {
            self.xattrs().unwrap_or_else(|error| {
                lose("attributes", error);
                Vec::new()
            })
        };
        for old in &there {
            let stays = old.name == LABEL
                || (old.name == ACL_DEFAULT.to_bytes() && kind != EntryKind::Directory)
                || meta.xattrs.iter().any(|one| one.name == old.name);
            if stays {
                continue;
            }
            mode_changed |= old.name == ACL_ACCESS.to_bytes();
            if let Err(error) = self.remove_xattr(&old.name) {
                lose(&format!("attribute {}", shown(&old.name)), error);
            }
        }
        // An ACL may take the right to write away, which others need.
        let (acls, others): (Vec<&Xattr>, Vec<&Xattr>) =
            meta.xattrs.iter().filter(|one| !there.contains(one)).partition(|one| one.name.starts_with(b"system."));
        for one in others.into_iter().chain(acls) {
            mode_changed |= one.name == ACL_ACCESS.to_bytes();
            let set = if one.name == ACL_ACCESS.to_bytes() && kind == EntryKind::Directory {
                self.mode_of(current).and_then(|mode| self.set_xattr(&xattr::with_mode(one, mode)))
            } else {
                self.set_xattr(one)
            };
            if let Err(error) = set {
                lose(&format!("attribute {}", shown(&one.name)), error);
            }
        }
        mode_changed
    }

    fn set_xattr(&self, one: &Xattr) -> Result<()> {
        match self {
            Subject::Open(fd) => xattr::set_xattr(fd, one),
            Subject::Named(directory, name) => xattr::set_xattr_at(directory, *name, one),
        }
    }

    /// The mode of a directory until it gets its own, which may be the mark of what is unfinished.
    fn mode_of(&self, current: &Current) -> Result<u32> {
        match current.mode {
            MODE_UNKNOWN => self.stat().map(|stat| stat.permissions()),
            known => Ok(known),
        }
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let name = std::ffi::CString::new(name).map_err(|_| refused("remove the attribute", name, Errno::INVAL))?;
        match self {
            Subject::Open(fd) => xattr::remove_xattr(fd, &name),
            Subject::Named(directory, of) => xattr::remove_xattr_at(directory, *of, &name),
        }
    }
}

/// An existing attribute whose value was not read: it equals no value of an entry.
fn unknown_value(name: &std::ffi::CStr) -> Xattr {
    Xattr { name: name.to_bytes().to_vec(), value: Vec::new() }
}
