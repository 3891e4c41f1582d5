//! Give an entry its metadata, with as few system calls as the kernel allows.

use super::flags::set_flags;
use super::owner::Owners;
use super::read_dir::Directory;
use super::refused::{refused, shown};
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
    pub xattrs: bool,
    pub flags: bool,
}

/// Something that could not be kept: the entry is there, but not in every point as it was.
#[derive(Debug)]
pub struct Loss {
    /// "owner", "mode", "attribute user.x", "modification time", "flags", "setuid bit".
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

/// Gives an inode its metadata, in the one order that works: owner (clears setuid and capabilities), attributes (an
/// ACL sets the mode; `user.*` takes the right to write), times, mode (until then it may be the mark of what is unfinished),
/// flags (may forbid all further changes). The
/// access time stays. `current` is what a creator returned or a stat said; None asks. What cannot be kept is
/// returned and stops nothing.
pub fn apply_metadata(
    subject: Subject<'_>,
    current: Option<Current>,
    meta: &Metadata,
    kind: EntryKind,
    options: &ApplyOptions<'_>,
) -> Vec<Loss> {
    let mut losses = Vec::new();
    let mut lose = |what: &str, error: Error| losses.push(Loss { what: what.to_owned(), error });
    let stat = || match subject {
        Subject::Open(fd) => fstat(fd),
        Subject::Named(directory, name) => directory.stat(name),
    };
    let mut current = match current.map_or_else(|| stat().map(|stat| Current::from(&stat)), Ok) {
        Ok(current) => current,
        Err(error) => {
            lose("metadata", error);
            return losses;
        }
    };
    let (uid, gid) = wanted_owner(meta, options);

    if options.owner && (current.uid != uid || current.gid != gid) {
        match subject.chown((current.uid != uid).then_some(uid), (current.gid != gid).then_some(gid)) {
            Ok(()) => (current.uid, current.gid) = (uid, gid),
            Err(errno) => {
                // Without privilege one may still give a file to a group of one's own.
                if current.gid != gid && current.uid != uid && subject.chown(None, Some(gid)).is_ok() {
                    current.gid = gid;
                }
                lose("owner", refused("change the owner", subject.name(), errno));
            }
        }
        if kind == EntryKind::File && current.mode & 0o6000 != 0 {
            current.mode = MODE_UNKNOWN;
        }
    }
    let mut mode = meta.mode & 0o7777;
    // Who runs a setuid file is its owner: on somebody else's it would be a hole.
    let unsafe_bits = match kind {
        EntryKind::File => (u32::from(current.uid != uid) * 0o4000) | (u32::from(current.gid != gid) * 0o2000),
        _ => 0,
    };
    if mode & unsafe_bits != 0 {
        mode &= !unsafe_bits;
        lose(
            "setuid bit",
            Error::new(Kind::Denied, "set the setuid bit", "")
                .because("the file has another owner than when it was saved"),
        );
    }

    if options.xattrs && is_closed_to_attributes(&current) && kind != EntryKind::Symlink {
        // The mode that was saved comes after the attributes.
        if !subject.has_attributes(meta) && subject.chmod(current.mode | 0o600).is_ok() {
            current.mode |= 0o600;
        }
    }
    if options.xattrs && subject.apply_xattrs(&current, meta, kind, &mut lose) {
        current.mode = MODE_UNKNOWN;
    }

    match subject.set_modified_unless(current.modified, meta.modified) {
        // File systems with small time fields clamp without a word; within 32 bits all can keep it (at the very ends
        // the kernel drops the nanoseconds).
        Ok(()) if !(TIME_SECONDS_MIN..TIME_SECONDS_MAX).contains(&meta.modified.seconds) => match stat() {
            Ok(stat) if stat.modified == meta.modified => (),
            Ok(stat) => {
                let (got, asked) = (stat.modified.seconds, meta.modified.seconds);
                let why = format!("the file system keeps second {got} for {asked}");
                let error = Error::new(Kind::Unsupported, "set the modification time", shown(subject.name()));
                lose("modification time", error.because(why));
            }
            Err(error) => lose("modification time", error),
        },
        Ok(()) => (),
        Err(errno) => lose("modification time", refused("set the modification time", subject.name(), errno)),
    }

    // It may be what marked the inode as unfinished: all else comes before.
    if kind != EntryKind::Symlink
        && current.mode != mode
        && let Err(errno) = subject.chmod(mode)
    {
        lose("mode", refused("change the mode", subject.name(), errno));
    }

    if options.flags
        && let Some(loss) = apply_flags(subject, meta, kind)
    {
        losses.push(loss);
    }
    losses
}

/// Whether an inode that was there before is ours, and its mode denies its owner what attributes take: to read and to write.
fn is_closed_to_attributes(current: &Current) -> bool {
    let me = rustix::process::geteuid();
    !current.new && !me.is_root() && current.uid == me.as_raw() && current.mode & 0o600 != 0o600
}

/// Sets the flags of an inode, which may forbid every further change: hard links and renames come before it.
pub fn apply_flags(subject: Subject<'_>, meta: &Metadata, kind: EntryKind) -> Option<Loss> {
    if meta.flags == 0 || !matches!(kind, EntryKind::File | EntryKind::Directory) {
        return None;
    }
    let set = match subject {
        Subject::Open(fd) => set_flags(fd, meta.flags),
        Subject::Named(directory, name) => {
            super::open::open_file(directory, name).and_then(|fd| set_flags(&fd, meta.flags))
        }
    };
    set.err().map(|error| Loss { what: "flags".to_owned(), error })
}

/// Changes the mode of a name in a directory, never of what a link points to.
pub fn chmod_at(directory: &Directory, name: &[u8], mode: u32) -> Result<()> {
    Subject::Named(directory, name).chmod(mode).map_err(|errno| refused("change the mode", name, errno))
}

/// Gives a name in a directory the owner and the mode of what was there before, as far as the system lets us.
pub fn restore_owner_and_mode(directory: &Directory, name: &[u8], before: &Stat) {
    let subject = Subject::Named(directory, name);
    let _as_far_as_possible = subject.chown(Some(before.uid), Some(before.gid));
    let _as_far_as_possible = subject.chmod(before.permissions());
}

/// Changes the mode of an open file or directory.
pub fn chmod_open(fd: impl AsFd, mode: u32) -> Result<()> {
    Subject::Open(fd.as_fd()).chmod(mode).map_err(|errno| refused("change the mode", b"", errno))
}

/// Whether an inode has the metadata already, but for its flags.
pub fn is_as_saved(subject: Subject<'_>, stat: &Stat, meta: &Metadata, options: &ApplyOptions<'_>) -> bool {
    let has_owner = !options.owner || (stat.uid, stat.gid) == wanted_owner(meta, options);
    let has_mode = stat.is(EntryKind::Symlink) || stat.permissions() == meta.mode & 0o7777;
    has_owner && has_mode && stat.modified == meta.modified && (!options.xattrs || subject.has_attributes(meta))
}

/// The owner by name if this machine knows it, else by number.
#[inline]
fn wanted_owner(meta: &Metadata, options: &ApplyOptions<'_>) -> (u32, u32) {
    if options.numeric_ids || !options.owner {
        return (meta.uid, meta.gid);
    }
    // The same number on both sides needs no search: the usual case, a restore on the same machine.
    let uid = match options.owners.user_name(meta.uid) == meta.user || meta.user.is_empty() {
        true => meta.uid,
        false => options.owners.uid(&meta.user).unwrap_or(meta.uid),
    };
    let gid = match options.owners.group_name(meta.gid) == meta.group || meta.group.is_empty() {
        true => meta.gid,
        false => options.owners.gid(&meta.group).unwrap_or(meta.gid),
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
    fn has_attributes(&self, meta: &Metadata) -> bool {
        self.xattrs().is_ok_and(|mut found| {
            found.retain(|one| one.name != LABEL || meta.xattrs.iter().any(|wanted| wanted.name == LABEL));
            found == meta.xattrs
        })
    }

    fn name(&self) -> &[u8] {
        match self {
            Subject::Open(_) => b"",
            Subject::Named(_, name) => name,
        }
    }

    fn chown(&self, uid: Option<u32>, gid: Option<u32>) -> Result<(), Errno> {
        // All ones means "leave it" to the kernel and is nobody's number.
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

    /// Gives an inode the attributes of the entry and takes away those that it does not have: inherited ACLs of a new
    /// one, all others of an older one. What is right already is not touched. Whether the mode may have changed.
    fn apply_xattrs(
        &self,
        current: &Current,
        meta: &Metadata,
        kind: EntryKind,
        lose: &mut impl FnMut(&str, Error),
    ) -> bool {
        let inherits = current.inherited_acl && kind != EntryKind::Symlink;
        let mut mode_changed = current.new && inherits;
        let there = match current.new {
            true if inherits => [ACL_ACCESS, ACL_DEFAULT].map(unknown_value).to_vec(),
            true => Vec::new(),
            false => self.xattrs().unwrap_or_else(|error| {
                lose("attributes", error);
                Vec::new()
            }),
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
            let set = match self {
                Subject::Open(fd) => xattr::set_xattr(fd, one),
                Subject::Named(directory, name) => xattr::set_xattr_at(directory, *name, one),
            };
            if let Err(error) = set {
                lose(&format!("attribute {}", shown(&one.name)), error);
            }
        }
        mode_changed
    }

    fn remove_xattr(&self, name: &[u8]) -> Result<()> {
        let name = std::ffi::CString::new(name).map_err(|_| refused("remove the attribute", name, Errno::INVAL))?;
        match self {
            Subject::Open(fd) => xattr::remove_xattr(fd, &name),
            Subject::Named(directory, of) => xattr::remove_xattr_at(directory, *of, &name),
        }
    }
}

/// An attribute that is there with a value that nobody asked for: it equals none that an entry can have.
fn unknown_value(name: &std::ffi::CStr) -> Xattr {
    Xattr { name: name.to_bytes().to_vec(), value: Vec::new() }
}
