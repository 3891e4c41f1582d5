//! An inode that gets metadata: open, or by its name in a directory.

use super::acl::{ACL_ACCESS, ACL_DEFAULT, with_mode};
use super::half_done::HALF_DONE_MODE;
use super::kept_xattrs::{has_saved_attributes, stays};
use super::loss::{Loss, setgid_dropped};
use super::read_dir::Directory;
use super::refused::{refused, shown};
use super::rights;
use super::stat::{Stat, fstat};
use super::xattr;
use crate::entry::{EntryKind, Metadata, Time, Xattr};
use crate::error::{Error, Kind, Result};
use rustix::fd::BorrowedFd;
use rustix::fs::{AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, UTIME_OMIT, Uid};
use rustix::io::Errno;

/// Between these every file system keeps a time.
const TIME_SECONDS_MIN: i64 = i32::MIN as i64 + 1;
const TIME_SECONDS_MAX: i64 = i32::MAX as i64;

/// An owner and a group, by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct OwnerIds {
    pub uid: u32,
    pub gid: u32,
}

/// What metadata are applied to.
#[derive(Clone, Copy)]
pub(crate) enum Subject<'a> {
    Open(BorrowedFd<'a>),
    /// A name in a directory, of a link itself.
    Named(&'a Directory, &'a [u8]),
}

/// What an inode has already, so that only differences cost calls.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CurrentMetadata {
    pub uid: u32,
    pub gid: u32,
    /// Permission bits; [`MODE_UNKNOWN`] where only a chmod makes sure.
    pub mode: u32,
    /// New in this restore: it has no attributes but perhaps inherited ACLs.
    pub new: bool,
    pub inherited_acl: bool,
    /// Flags of a new one that it was not saved with and keeps, as the system does not take them away.
    pub inherited_flags: u32,
    /// None where only setting it makes sure.
    pub modified: Option<Time>,
}

pub(crate) const MODE_UNKNOWN: u32 = u32::MAX;

impl From<&Stat> for CurrentMetadata {
    fn from(stat: &Stat) -> Self {
        CurrentMetadata {
            uid: stat.uid,
            gid: stat.gid,
            mode: stat.permissions(),
            new: false,
            inherited_acl: false,
            inherited_flags: 0,
            modified: Some(stat.modified),
        }
    }
}

impl Subject<'_> {
    pub(super) fn xattrs(&self) -> Result<Vec<Xattr>> {
        match self {
            Subject::Open(fd) => xattr::read_xattrs(fd),
            Subject::Named(directory, name) => xattr::read_xattrs_at(directory, *name),
        }
    }

    /// Whether it has the attributes that an entry was saved with, and no others but those that stay, as far as they can be read.
    pub(super) fn has_attributes(&self, meta: &Metadata, lacks_trusted: bool) -> bool {
        self.xattrs().is_ok_and(|found| has_saved_attributes(&found, meta, lacks_trusted))
    }

    pub(super) fn stat(&self) -> Result<Stat> {
        match self {
            Subject::Open(fd) => fstat(fd),
            Subject::Named(directory, name) => directory.stat(*name),
        }
    }

    pub(super) fn apply_owner(
        &self,
        current: &mut CurrentMetadata,
        wanted: OwnerIds,
        kind: EntryKind,
        lose: &mut impl FnMut(&str, Error),
    ) {
        let OwnerIds { uid, gid } = wanted;
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
        // The kernel takes these bits away, but not from directories.
        if kind != EntryKind::Directory && current.mode & 0o6000 != 0 {
            current.mode = MODE_UNKNOWN;
        }
    }

    /// Lets the owner set attributes where the mode denies that; the mode that was saved comes after the attributes.
    pub(super) fn open_to_attributes(
        &self,
        current: &mut CurrentMetadata,
        meta: &Metadata,
        kind: EntryKind,
        lacks_trusted: bool,
    ) {
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
            && !self.has_attributes(meta, lacks_trusted)
            && self.chmod(current.mode | 0o600).is_ok()
        {
            current.mode |= 0o600;
        }
    }

    pub(super) fn apply_time(&self, current: Option<Time>, wanted: Time, lose: &mut impl FnMut(&str, Error)) {
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

    pub(super) fn apply_mode(&self, mode: u32, lose: &mut impl FnMut(&str, Error)) {
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

    pub(super) fn name(&self) -> &[u8] {
        match self {
            Subject::Open(_) => b"",
            Subject::Named(_, name) => name,
        }
    }

    pub(super) fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
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

    pub(super) fn chmod(&self, mode: u32) -> Result<(), Errno> {
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
    pub(super) fn set_modified(&self, time: Time) -> Result<(), Errno> {
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
    pub(super) fn set_modified_unless(&self, current: Option<Time>, time: Time) -> Result<(), Errno> {
        if current == Some(time) {
            return Ok(());
        }
        self.set_modified(time)
    }

    /// Sets the attributes of the entry and removes those that it was saved without: inherited ACLs of a new one, all others
    /// of an older one but those that stay. What is right already is not touched. Whether the mode has to be set: that of a directory stays
    /// until then, and its ACL is whole only with its own mode.
    pub(super) fn apply_xattrs(
        &self,
        current: &CurrentMetadata,
        meta: &Metadata,
        kind: EntryKind,
        lacks_trusted: bool,
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
        let stays = |old: &Xattr| !current.new && stays(old, meta, lacks_trusted);
        for old in &there {
            let is_kept = stays(old)
                || (old.name == ACL_DEFAULT.to_bytes() && kind != EntryKind::Directory)
                || meta.xattrs.iter().any(|one| one.name == old.name);
            if is_kept {
                continue;
            }
            mode_changed |= old.name == ACL_ACCESS.to_bytes();
            if let Err(error) = self.remove_xattr(&old.name) {
                lose(&format!("attribute {}", shown(&old.name)), error);
            }
        }
        // An ACL may take the right to write away, which others need.
        let is_to_set = |one: &&Xattr| !there.iter().any(|old| old == *one || old.name == one.name && stays(old));
        let (acls, others): (Vec<&Xattr>, Vec<&Xattr>) =
            meta.xattrs.iter().filter(is_to_set).partition(|one| one.name.starts_with(b"system."));
        for one in others.into_iter().chain(acls) {
            mode_changed |= one.name == ACL_ACCESS.to_bytes();
            let set = if one.name == ACL_ACCESS.to_bytes() && kind == EntryKind::Directory {
                self.mode_of(current).and_then(|mode| self.set_xattr(&with_mode(one, mode)))
            } else {
                self.set_xattr(one)
            };
            if let Err(error) = set {
                lose(&format!("attribute {}", shown(&one.name)), error);
            }
        }
        mode_changed
    }

    pub(super) fn set_xattr(&self, one: &Xattr) -> Result<()> {
        match self {
            Subject::Open(fd) => xattr::set_xattr(fd, one),
            Subject::Named(directory, name) => xattr::set_xattr_at(directory, *name, one),
        }
    }

    /// The mode of a directory until it gets its own, which may be the mark of what is unfinished.
    pub(super) fn mode_of(&self, current: &CurrentMetadata) -> Result<u32> {
        match current.mode {
            MODE_UNKNOWN => self.stat().map(|stat| stat.permissions()),
            known => Ok(known),
        }
    }

    pub(super) fn remove_xattr(&self, name: &[u8]) -> Result<()> {
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
