//! What an inode says about itself: one `statx` with a narrow mask, nothing allocated.

use super::read_dir::Directory;
use super::refused::{refused, refused_name};
use crate::entry::{EntryKind, Metadata, Time};
use crate::error::Result;
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, FileType, StatxAttributes, StatxFlags, statx};
use rustix::io::Errno;
use rustix::path::Arg;

/// What tells an inode from all others, for as long as it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Identity {
    /// The number of its file system.
    pub device: u64,
    pub inode: u64,
}

/// The metadata of one inode, as far as a backup uses it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stat {
    /// The whole `st_mode`, type bits included.
    pub mode: u32,
    /// None is what cannot be saved: a socket.
    pub kind: Option<EntryKind>,
    /// In bytes.
    pub size: u64,
    /// The number of its user.
    pub uid: u32,
    /// The number of its group.
    pub gid: u32,
    /// When its content was last changed.
    pub modified: Time,
    /// When the inode was last changed.
    pub changed: Time,
    /// When the inode was made; 1970 where the file system does not say.
    pub born: Time,
    /// The number of the inode.
    pub inode: u64,
    /// The number of its file system.
    pub device: u64,
    /// What a device node stands for: major and minor.
    pub special: (u32, u32),
    /// How many names it has.
    pub links: u32,
    /// Of 512 bytes, whatever the file system's own are.
    pub blocks: u64,
    /// 0 before Linux 5.8.
    pub mount: u64,
    /// Immutable or append-only (`chattr +i`, `+a`): it can be neither replaced nor removed.
    pub is_fixed: bool,
    /// Encrypted by its file system.
    pub is_encrypted: bool,
    /// A directory over which its file system mounts another one when it is needed (NFS, CIFS, AFS).
    pub is_automounted: bool,
}

const WANTED: StatxFlags = StatxFlags::TYPE
    .union(StatxFlags::MODE)
    .union(StatxFlags::NLINK)
    .union(StatxFlags::UID)
    .union(StatxFlags::GID)
    .union(StatxFlags::MTIME)
    .union(StatxFlags::CTIME)
    .union(StatxFlags::BTIME)
    .union(StatxFlags::INO)
    .union(StatxFlags::SIZE)
    .union(StatxFlags::BLOCKS)
    .union(StatxFlags::MNT_ID);

const FIXED: StatxAttributes = StatxAttributes::IMMUTABLE.union(StatxAttributes::APPEND);

/// From this size on, the holes of a file are always asked for.
const LARGE_BYTES: u64 = 1 << 20;

impl Stat {
    /// The permission bits with setuid, setgid and sticky.
    #[inline]
    pub(crate) fn permissions(&self) -> u32 {
        self.mode & 0o7777
    }

    /// Whether it has the permission bits of this mode. A symbolic link has none of its own.
    pub(crate) fn has_mode(&self, mode: u32) -> bool {
        self.is(EntryKind::Symlink) || self.permissions() == mode & 0o7777
    }

    /// Whether it is of this kind.
    #[inline]
    pub fn is(&self, kind: EntryKind) -> bool {
        self.kind == Some(kind)
    }

    #[inline]
    pub(crate) fn identity(&self) -> Identity {
        Identity { device: self.device, inode: self.inode }
    }

    /// Whether it belongs to the user of this process.
    pub(crate) fn is_own(&self) -> bool {
        self.uid == rustix::process::geteuid().as_raw()
    }

    /// Whether it belongs to this user, and its mode denies its owner one of these rights (`0o500`: to list and to
    /// enter). A process that may ignore modes, as root usually may, is denied nothing.
    pub(crate) fn is_closed_to_owner(&self, rights: u32) -> bool {
        self.permissions() & rights != rights && !super::rights::opens_everything() && self.is_own()
    }

    /// Whether its holes are worth asking for, which costs two calls where there are none: of large files, and of those for
    /// whose size blocks are missing. A count of blocks includes those behind the end and those of attributes, so in
    /// a small file they can hide a hole. Compressing file systems have fewer blocks for most files.
    #[inline]
    pub(crate) fn may_be_sparse(&self) -> bool {
        self.size >= LARGE_BYTES || self.blocks.saturating_mul(512) < self.size
    }

    /// Whether it can still be the same content: what a reader compares before and after.
    #[inline]
    pub(crate) fn same_content(&self, other: &Stat) -> bool {
        self.inode == other.inode
            && self.device == other.device
            && self.size == other.size
            && self.modified == other.modified
            && self.changed == other.changed
    }

    /// What of it belongs to an entry; names of owners, attributes and flags are left empty.
    pub(crate) fn metadata(&self) -> Metadata {
        Metadata {
            mode: self.permissions(),
            uid: self.uid,
            gid: self.gid,
            modified: self.modified,
            ..Metadata::default()
        }
    }

    #[inline]
    fn from_statx(from: &rustix::fs::Statx) -> Stat {
        let time = |at: rustix::fs::StatxTimestamp| valid_time(at.tv_sec, at.tv_nsec);
        let is_birth_known = from.stx_mask & StatxFlags::BTIME.bits() != 0;
        Stat {
            mode: u32::from(from.stx_mode),
            kind: kind_of(FileType::from_raw_mode(u32::from(from.stx_mode))),
            size: from.stx_size,
            uid: from.stx_uid,
            gid: from.stx_gid,
            modified: time(from.stx_mtime),
            changed: time(from.stx_ctime),
            born: if is_birth_known { time(from.stx_btime) } else { Time::default() },
            inode: from.stx_ino,
            device: device_number(from.stx_dev_major, from.stx_dev_minor),
            special: (from.stx_rdev_major, from.stx_rdev_minor),
            links: from.stx_nlink,
            blocks: from.stx_blocks,
            mount: from.stx_mnt_id,
            is_fixed: (from.stx_attributes_mask & from.stx_attributes).intersects(FIXED),
            is_encrypted: from.stx_attributes.intersects(StatxAttributes::ENCRYPTED),
            is_automounted: from.stx_attributes.intersects(StatxAttributes::AUTOMOUNT),
        }
    }

    /// Where `statx` is forbidden: sandboxes older than it.
    #[cold]
    fn from_stat(from: &rustix::fs::Stat) -> Stat {
        let parts = |number: u64| (rustix::fs::major(number), rustix::fs::minor(number));
        let device = parts(from.st_dev);
        Stat {
            mode: from.st_mode,
            kind: kind_of(FileType::from_raw_mode(from.st_mode)),
            size: from.st_size as u64,
            uid: from.st_uid,
            gid: from.st_gid,
            modified: valid_time(from.st_mtime, from.st_mtime_nsec as u32),
            changed: valid_time(from.st_ctime, from.st_ctime_nsec as u32),
            born: Time::default(),
            inode: from.st_ino,
            device: device_number(device.0, device.1),
            special: parts(from.st_rdev),
            links: from.st_nlink as u32,
            blocks: from.st_blocks as u64,
            mount: 0,
            is_fixed: false,
            is_encrypted: false,
            is_automounted: false,
        }
    }
}

/// The time nearest to one that a damaged inode (ext4, FUSE) may state: more nanoseconds than a second has.
#[inline]
fn valid_time(seconds: i64, nanoseconds: u32) -> Time {
    Time { seconds, nanoseconds: nanoseconds.min(999_999_999) }
}

/// One number for major and minor, the same from both calls.
#[inline]
fn device_number(major: u32, minor: u32) -> u64 {
    u64::from(major) << 32 | u64::from(minor)
}

#[inline]
fn kind_of(kind: FileType) -> Option<EntryKind> {
    Some(match kind {
        FileType::RegularFile => EntryKind::File,
        FileType::Directory => EntryKind::Directory,
        FileType::Symlink => EntryKind::Symlink,
        FileType::BlockDevice => EntryKind::BlockDevice,
        FileType::CharacterDevice => EntryKind::CharDevice,
        FileType::Fifo => EntryKind::Fifo,
        FileType::Socket | FileType::Unknown => return None,
    })
}

// No AT_STATX_DONT_SYNC: on a network file system it would answer from a cache and hide changes of other hosts from a
// backup; on local ones it changes nothing.
const HOW: AtFlags = AtFlags::SYMLINK_NOFOLLOW.union(AtFlags::NO_AUTOMOUNT);

impl Directory {
    /// The stat of a name in this directory, links not followed and automounts not woken.
    #[inline]
    pub fn stat(&self, name: impl Arg + Copy) -> Result<Stat> {
        self.stat_how(name, HOW)
    }

    /// The stat of a name in this directory, links not followed. What an automounter mounts there is mounted.
    pub(crate) fn stat_mounted(&self, name: impl Arg + Copy) -> Result<Stat> {
        self.stat_how(name, AtFlags::SYMLINK_NOFOLLOW)
    }

    #[inline]
    fn stat_how(&self, name: impl Arg + Copy, how: AtFlags) -> Result<Stat> {
        match statx(self, name, how, WANTED) {
            Ok(found) => Ok(Stat::from_statx(&found)),
            Err(Errno::NOSYS) => match rustix::fs::statat(self, name, how) {
                Ok(found) => Ok(Stat::from_stat(&found)),
                Err(errno) => Err(refused_name("stat", name, errno)),
            },
            Err(errno) => Err(refused_name("stat", name, errno)),
        }
    }
}

/// The stat of an open file or directory.
#[inline]
pub(crate) fn fstat(fd: impl AsFd) -> Result<Stat> {
    match statx(fd.as_fd(), c"", AtFlags::EMPTY_PATH, WANTED) {
        Ok(found) => Ok(Stat::from_statx(&found)),
        Err(Errno::NOSYS) => match rustix::fs::fstat(fd) {
            Ok(found) => Ok(Stat::from_stat(&found)),
            Err(errno) => Err(refused("stat an open file", b"", errno)),
        },
        Err(errno) => Err(refused("stat an open file", b"", errno)),
    }
}

/// The stat of a path; `follow` says whether a link at its end is followed.
pub fn stat_path(path: &[u8], follow: bool) -> Result<Stat> {
    let how = if follow { AtFlags::empty() } else { AtFlags::SYMLINK_NOFOLLOW };
    match statx(rustix::fs::CWD, path, how, WANTED) {
        Ok(found) => Ok(Stat::from_statx(&found)),
        Err(Errno::NOSYS) => match rustix::fs::statat(rustix::fs::CWD, path, how) {
            Ok(found) => Ok(Stat::from_stat(&found)),
            Err(errno) => Err(refused("stat", path, errno)),
        },
        Err(errno) => Err(refused("stat", path, errno)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_small_file_with_all_its_blocks_is_taken_to_be_without_holes() {
        let of = |size, blocks| Stat { size, blocks, ..Stat::default() }.may_be_sparse();
        assert!(!of(0, 0) && !of(4096, 8) && !of(4096, 16) && !of((1 << 20) - 1, 2048));
        assert!(of(4096, 0) && of(4097, 8) && of(1 << 20, 2048) && of(1 << 30, u64::MAX));
    }

    #[test]
    fn both_calls_say_the_same() {
        for path in [c"/", c"/dev/null", c"/proc"] {
            let new = stat_path(path.to_bytes(), true).unwrap();
            let old = Stat::from_stat(&rustix::fs::stat(path).unwrap());
            // The older one does not say when an inode was made.
            assert_eq!(Stat { mount: 0, born: Time::default(), ..new }, old);
        }
        assert_eq!(stat_path(b"/dev/null", true).unwrap().special, (1, 3));
    }
}
