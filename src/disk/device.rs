//! What a path is on: the medium, whether two paths share a disk, whether the kernel makes it up, and whether it is
//! mounted read-only.
//!
//! The first two are guesses and only steer speed: they come from /proc/self/mountinfo and /sys/dev/block, and where those are
//! hidden, an SSD is assumed.

use super::backing_devices::disks_of;
use super::mounts::mount_of;
use super::stat::stat_path;
use crate::error::Result;
use crate::lock::locked;
use rustix::fd::AsFd;
use rustix::fs::{Dir, Mode, OFlags};
use rustix::io::Errno;
use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;

/// `f_type` of file systems whose data are on other machines.
const NETWORK_MAGICS: [u32; 13] = [
    0x6969,      // NFS
    0x517b,      // SMB
    0xff53_4d42, // CIFS
    0xfe53_4d42, // SMB 2 and later
    0x00c3_6400, // Ceph
    0x0102_1997, // 9P
    0x5346_414f, // AFS
    0x6b41_4653, // the kernel's AFS
    0x7375_7245, // Coda
    0x0bd0_0bd0, // Lustre
    0x4750_4653, // GPFS
    0x1983_0326, // BeeGFS
    0x786f_4256, // VirtualBox' shared folders
];
/// tmpfs, ramfs, hugetlbfs.
const MEMORY_MAGICS: [u32; 3] = [0x0102_1994, 0x8584_58f6, 0x9584_58f6];
const FUSE_MAGIC: u32 = 0x6573_5546;
const OVERLAY_MAGIC: u32 = 0x794c_7630;
const AUTOFS_MAGIC: u32 = 0x0187;
/// File systems on which the inode number of a file can change when the file is looked up again.
const PASSING_INODES: [u32; 6] = [
    FUSE_MAGIC,
    0x4d44,      // msdos, vfat
    0x2011_bab0, // exfat
    0xff53_4d42, // cifs
    0xfe53_4d42, // smb2
    0x0102_1997, // 9p
];
/// FUSE file systems that read from a disk of this machine.
const FUSE_LOCAL: [&str; 6] =
    ["fuseblk", "fuse.ntfs-3g", "fuse.mergerfs", "fuse.gocryptfs", "fuse.bindfs", "fuse.encfs"];

/// Pseudo file systems by their `f_type`, for where the list of mounts does not tell.
const PSEUDO_MAGICS: [u32; 24] = [
    0x9fa0,      // proc
    0x6265_6572, // sysfs
    0x0027_e0eb, // cgroup
    0x6367_7270, // cgroup2
    0x6462_6720, // debugfs
    0x7472_6163, // tracefs
    0x1cd1,      // devpts
    0x7363_6673, // securityfs
    0x5a3c_69f0, // apparmorfs
    0xf97c_ff8c, // selinuxfs
    0x4341_5d53, // smackfs
    0x6165_676c, // pstore
    0xcafe_4a11, // bpf
    0x6265_6570, // configfs
    0x1980_0202, // mqueue
    0x9584_58f6, // hugetlbfs
    0x4249_4e4d, // binfmt_misc
    0xde5e_81e4, // efivarfs
    0x6573_5543, // fusectl
    0x6e73_6673, // nsfs
    0x6759_6969, // rpc_pipefs
    0x6e66_7364, // nfsd
    0x0765_5821, // resctrl
    0xabba_1974, // xenfs
];

/// How a walk treats a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileSystemKind {
    /// It holds data.
    Data,
    /// The kernel makes it up.
    Pseudo,
    /// Others are mounted below or over it when they are needed (autofs).
    Automounter,
}

/// Remembers what kind each file system is, so that each is looked up once in a walk.
#[derive(Debug, Default)]
pub(crate) struct FileSystems(Mutex<HashMap<u64, FileSystemKind>>);

impl FileSystems {
    /// What the file system of that number is, which was met at `path`. Nothing is mounted by asking. What cannot be found out is
    /// taken for one that holds data.
    pub(crate) fn kind_of(&self, path: &[u8], device: u64) -> FileSystemKind {
        *locked(&self.0).entry(device).or_insert_with(|| match mount_of(device) {
            Some(mount) if mount.is_pseudo() => FileSystemKind::Pseudo,
            Some(mount) if mount.is_automounter() => FileSystemKind::Automounter,
            Some(_) => FileSystemKind::Data,
            None => match rustix::fs::statfs(path).map(|found| found.f_type as u32) {
                Ok(AUTOFS_MAGIC) => FileSystemKind::Automounter,
                Ok(magic) if PSEUDO_MAGICS.contains(&magic) => FileSystemKind::Pseudo,
                _ => FileSystemKind::Data,
            },
        })
    }

    /// Whether the kernel makes up the file system of that number, which was met at `path`.
    pub(crate) fn is_pseudo(&self, path: &[u8], device: u64) -> bool {
        self.kind_of(path, device) == FileSystemKind::Pseudo
    }
}

/// What holds the data of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Medium {
    Rotational,
    Sata,
    Nvme,
    Network,
    Memory,
}

/// Whether one broken disk would take both: the same file system, or file systems on the same disk. Unknown (network,
/// or two volumes in the same rack) is "no".
pub fn same_device(one: &[u8], other: &[u8]) -> Result<bool> {
    let (a, b) = (stat_path(one, true)?, stat_path(other, true)?);
    if a.device == b.device {
        return Ok(true);
    }
    let (a, b) = (disks_of(a.device), disks_of(b.device));
    Ok(a.intersection(&b).next().is_some())
}

/// The slowest medium among those that hold the path's file system.
pub(crate) fn medium_of(path: &[u8]) -> Result<Medium> {
    let stat = stat_path(path, true)?;
    let magic = rustix::fs::statfs(path)
        .map(|found| found.f_type as u32)
        .map_err(|errno| super::refused::refused("ask for the file system of", path, errno))?;
    if NETWORK_MAGICS.contains(&magic) {
        return Ok(Medium::Network);
    }
    if MEMORY_MAGICS.contains(&magic) {
        return Ok(Medium::Memory);
    }
    if magic == FUSE_MAGIC {
        let local = mount_of(stat.device).is_some_and(|mount| FUSE_LOCAL.contains(&mount.kind.as_str()));
        return Ok(if local { Medium::Sata } else { Medium::Network });
    }
    Ok(disks_of(stat.device).iter().map(|disk| medium_of_disk(disk)).min().unwrap_or(Medium::Sata))
}

fn medium_of_disk(disk: &Path) -> Medium {
    let name = disk.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if name.starts_with("nvme") || name.starts_with("pmem") {
        return Medium::Nvme;
    }
    if name.starts_with("ram") || name.starts_with("zram") {
        return Medium::Memory;
    }
    if name.starts_with("nbd") || name.starts_with("rbd") || name.starts_with("drbd") {
        return Medium::Network;
    }
    // Virtual disks say "rotational" unless the host was told otherwise.
    let is_virtual = name.starts_with("vd") || name.starts_with("xvd");
    let rotational = std::fs::read_to_string(disk.join("queue/rotational")).is_ok_and(|text| text.trim() == "1");
    if rotational && !is_virtual { Medium::Rotational } else { Medium::Sata }
}

/// Whether two looks at one entry of a directory's file system find the same inode number, also when it was not open between them.
/// Where this cannot be found out, they may not.
pub(crate) fn has_lasting_inodes(directory: impl AsFd) -> Result<bool> {
    let failed = |errno| super::refused::refused("ask for the file system of", b"an open directory", errno);
    match rustix::fs::fstatfs(&directory).map(|found| found.f_type as u32).map_err(failed)? {
        OVERLAY_MAGIC => lists_its_own_inode(directory).map_err(failed),
        magic => Ok(!PASSING_INODES.contains(&magic)),
    }
}

/// An overlay on several file systems, without `xino`, makes up the inode numbers of directories anew whenever the kernel has forgotten
/// them. Then a listing has other ones than stat ("Inode properties" in the kernel's overlayfs.rst).
fn lists_its_own_inode(directory: impl AsFd) -> rustix::io::Result<bool> {
    // The descriptor may be one that cannot be listed.
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let listed = match rustix::fs::openat(&directory, c".", flags, Mode::empty()) {
        Ok(listed) => Dir::new(listed)?,
        // Whether they last stays unknown: a directory that this user cannot list.
        Err(Errno::ACCESS | Errno::PERM) => return Ok(false),
        Err(errno) => return Err(errno),
    };
    let stat = rustix::fs::fstat(&directory)?;
    for entry in listed {
        let entry = entry?;
        if entry.file_name() == c"." {
            return Ok(entry.ino() == stat.st_ino);
        }
    }
    Ok(false)
}

/// Whether a directory can be the same and show other content: an overlay whose lower layers were exchanged, or whatever a FUSE program
/// shows. True if it cannot be found out.
pub(crate) fn may_show_other_content(path: &Path) -> bool {
    rustix::fs::statfs(path).map_or(true, |found| [OVERLAY_MAGIC, FUSE_MAGIC].contains(&(found.f_type as u32)))
}

/// Whether the file system that an open file or directory is on is mounted read-only there.
pub(crate) fn is_read_only(fd: impl rustix::fd::AsFd) -> bool {
    rustix::fs::fstatvfs(fd).is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::mounts::mount_points;

    #[test]
    fn a_path_shares_its_own_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str().as_encoded_bytes();
        assert!(same_device(path, path).unwrap());
        assert!(medium_of(path).is_ok());
        assert!(medium_of(b"/no/such/path").is_err());
        assert!(has_lasting_inodes(std::fs::File::open(folder.path()).unwrap()).unwrap());
    }

    /// Overlays were never taken for what they are, as sources are looked at through such descriptors.
    #[test]
    fn a_directory_that_is_only_looked_at_can_be_asked_for_its_inode() {
        let folder = tempfile::tempdir().unwrap();
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        assert!(lists_its_own_inode(rustix::fs::open(folder.path(), flags, Mode::empty()).unwrap()).unwrap());
    }

    #[test]
    fn memory_is_told_from_disks() {
        match mount_points().unwrap().iter().find(|mount| mount.kind == "tmpfs" && mount.root == b"/") {
            Some(mount) => assert_eq!(medium_of(&mount.point).unwrap(), Medium::Memory),
            None => eprintln!("nothing is mounted in memory here: not tested"),
        }
    }
}
