//! What lies below a path: the medium, whether two paths share a disk, whether the kernel makes it up, and whether it is
//! mounted read-only.
//!
//! The first two are guesses and only steer speed: they come from /proc/self/mountinfo and /sys/dev/block, and where those are
//! hidden, an SSD is assumed. The list of mounts decides where a restore may delete: it is read or it is an error.

use super::stat::stat_path;
use crate::error::{Error, Kind, Result};
use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

/// Disks below disks (RAID on LVM on a loop file on …) are followed so far.
const DEPTH_MAX: usize = 8;
const MOUNTS_BYTES_MAX: u64 = 16 << 20;

/// `f_type` of file systems whose data lie on other machines.
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

/// File systems that the kernel makes up: their files are no data of anybody, and some never end.
const PSEUDO_KINDS: [&str; 31] = [
    "proc",
    "sysfs",
    "cgroup",
    "cgroup2",
    "cpuset",
    "debugfs",
    "tracefs",
    "devpts",
    "securityfs",
    "apparmorfs",
    "selinuxfs",
    "smackfs",
    "pstore",
    "bpf",
    "configfs",
    "mqueue",
    "hugetlbfs",
    "autofs",
    "binfmt_misc",
    "efivarfs",
    "fusectl",
    "nsfs",
    "rpc_pipefs",
    "nfsd",
    "resctrl",
    "sockfs",
    "pipefs",
    "anon_inodefs",
    "openpromfs",
    "usbfs",
    "xenfs",
];
/// The same by their `f_type`, for where the list of mounts does not tell.
const PSEUDO_MAGICS: [u32; 25] = [
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
    0x0187,      // autofs
    0x4249_4e4d, // binfmt_misc
    0xde5e_81e4, // efivarfs
    0x6573_5543, // fusectl
    0x6e73_6673, // nsfs
    0x6759_6969, // rpc_pipefs
    0x6e66_7364, // nfsd
    0x0765_5821, // resctrl
    0xabba_1974, // xenfs
];

/// Which file systems are pseudo ones, asked for when a walk comes to one; each is looked up once.
#[derive(Debug, Default)]
pub struct Mounts(Mutex<HashMap<u64, bool>>);

impl Mounts {
    /// Whether the file system of that number, met at `path`, is one that the kernel makes up. Nothing is mounted by
    /// asking. What cannot be found out is taken for a real one.
    pub fn is_pseudo(&self, path: &[u8], device: u64) -> bool {
        let mut known = self.0.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
        if let Some(is_pseudo) = known.get(&device) {
            return *is_pseudo;
        }
        let is_pseudo = match mount_of(device) {
            Some(mount) => mount.is_pseudo(),
            None => rustix::fs::statfs(path).is_ok_and(|found| PSEUDO_MAGICS.contains(&(found.f_type as u32))),
        };
        known.insert(device, is_pseudo);
        is_pseudo
    }
}

/// What holds the data of a file system.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Medium {
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
pub fn medium_of(path: &[u8]) -> Result<Medium> {
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

/// What is mounted where.
#[derive(Default)]
pub struct MountPoint {
    /// Which mount it is: [`Stat::mount`](super::Stat) of what is on it.
    pub number: u64,
    /// The number of the file system.
    pub device: u64,
    /// The directory or file of the file system that is mounted.
    pub root: Vec<u8>,
    pub point: Vec<u8>,
    /// As the kernel names it: "ext4".
    pub kind: String,
    /// The disk or directory below it, for some kinds.
    pub source: String,
    /// Of the file system, not of this mount of it.
    pub options: String,
}

impl MountPoint {
    /// Whether the kernel makes up what is in it.
    pub fn is_pseudo(&self) -> bool {
        PSEUDO_KINDS.contains(&self.kind.as_str())
    }
}

/// All mounts that this process sees, in the order in which they cover each other. An error where /proc is hidden, or the
/// list cannot be read for another reason: that never means that nothing is mounted.
pub fn mount_points() -> Result<Vec<MountPoint>> {
    let list = Path::new("/proc/self/mountinfo");
    let text = super::whole::read_bounded(list, MOUNTS_BYTES_MAX)
        .map_err(|error| Error::new(error.kind(), "list the mounts", "").because(error))?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let points: Option<Vec<MountPoint>> = lines.map(mount_point).collect();
    points.filter(|points| !points.is_empty()).ok_or_else(|| {
        Error::new(Kind::Unsupported, "list the mounts", "").because(format!("{} has another form", list.display()))
    })
}

/// The files and directories that hold the data of a mount, by their paths: the image behind a loop device, the layers of an
/// overlay. Nothing for other kinds.
pub fn backing_of(mount: &MountPoint) -> Result<Vec<PathBuf>> {
    if mount.kind == "overlay" {
        let layers = mount.options.split(',').filter_map(|option| {
            let (name, layers) = option.split_once('=')?;
            ["upperdir", "lowerdir", "workdir", "lowerdir+", "datadir+"].contains(&name).then_some(layers)
        });
        let layers = layers.flat_map(|layers| layers.split(':')).filter(|layer| !layer.is_empty());
        return Ok(layers.map(PathBuf::from).collect());
    }
    let block = format!("/sys/dev/block/{}:{}/loop/backing_file", mount.device >> 32, mount.device as u32);
    match std::fs::read_to_string(&block) {
        Ok(path) => Ok(vec![PathBuf::from(path.trim_end_matches('\n'))]),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(Error::io("read", block, error)),
    }
}

/// A mount of the file system with this number, if the mounts can be listed.
fn mount_of(device: u64) -> Option<MountPoint> {
    mount_points().ok()?.into_iter().find(|mount| mount.device == device)
}

/// A line of mountinfo: number, parent, major:minor, root, point, options, fields that may be absent, -, kind, source, options.
fn mount_point(line: &[u8]) -> Option<MountPoint> {
    let mut fields = line.split(|byte| *byte == b' ');
    let number = std::str::from_utf8(fields.next()?).ok()?.parse().ok()?;
    let mut fields = fields.skip(1);
    let (major, minor) = std::str::from_utf8(fields.next()?).ok()?.split_once(':')?;
    let device = major.parse::<u64>().ok()? << 32 | minor.parse::<u64>().ok()?;
    let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
    let text = |field: &[u8]| String::from_utf8_lossy(&unescaped(field)).into_owned();
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1).map(text);
    let (kind, source, options) =
        (fields.next()?, fields.next().unwrap_or_default(), fields.next().unwrap_or_default());
    Some(MountPoint { number, device, root, point, kind, source, options })
}

/// A path of mountinfo, in which spaces and others are written as a backslash and three octal digits.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let [byte, after @ ..] = rest {
        let digits = after.get(..3).filter(|_| *byte == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(escaped) => {
                plain.push(escaped);
                rest = &after[3..];
            }
            None => {
                plain.push(*byte);
                rest = after;
            }
        }
    }
    plain
}

/// The whole disks below a file system, by their paths in /sys.
fn disks_of(device: u64) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    collect_disks(device, &mut found, 0);
    found
}

fn collect_disks(device: u64, found: &mut BTreeSet<PathBuf>, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    let block = PathBuf::from(format!("/sys/dev/block/{}:{}", device >> 32, device as u32));
    if let Ok(at) = std::fs::canonicalize(&block) {
        return collect_below(&at, found, depth);
    }
    // File systems of many disks (btrfs, ZFS) and layers (overlay) have numbers of their own.
    let Some(mount) = mount_of(device) else { return };
    let layer = mount.options.split(',').find_map(|option| option.strip_prefix("upperdir="));
    if let Some(below) = layer.or(mount.source.starts_with('/').then_some(mount.source.as_str()))
        && let Ok(stat) = stat_path(below.as_bytes(), true)
    {
        let is_block = stat.is(crate::entry::EntryKind::BlockDevice);
        let next = if is_block { u64::from(stat.special.0) << 32 | u64::from(stat.special.1) } else { stat.device };
        if next != device {
            collect_disks(next, found, depth + 1);
        }
    }
}

/// From a block device in /sys down to whole disks: through partitions, mappers and loop files.
fn collect_below(at: &Path, found: &mut BTreeSet<PathBuf>, depth: usize) {
    if depth > DEPTH_MAX {
        return;
    }
    if at.join("partition").exists() {
        if let Some(disk) = at.parent() {
            collect_below(disk, found, depth + 1);
        }
        return;
    }
    if let Ok(backing) = std::fs::read_to_string(at.join("loop/backing_file"))
        && let Ok(stat) = stat_path(backing.trim_end_matches('\n').as_bytes(), true)
    {
        return collect_disks(stat.device, found, depth + 1);
    }
    let mut slaves = std::fs::read_dir(at.join("slaves")).into_iter().flatten().flatten().peekable();
    if slaves.peek().is_none() {
        found.insert(at.to_owned());
        return;
    }
    for slave in slaves {
        if let Ok(below) = std::fs::canonicalize(slave.path()) {
            collect_below(&below, found, depth + 1);
        }
    }
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

/// Whether two looks at one file find the same inode number. What cannot be found out may be otherwise.
pub fn has_lasting_inodes(fd: impl rustix::fd::AsFd) -> bool {
    rustix::fs::fstatfs(fd).is_ok_and(|found| !PASSING_INODES.contains(&(found.f_type as u32)))
}

/// Whether the file system that an open file or directory is on is mounted read-only there.
pub fn is_read_only(fd: impl rustix::fd::AsFd) -> bool {
    rustix::fs::fstatvfs(fd).is_ok_and(|found| found.f_flag.contains(rustix::fs::StatVfsMountFlags::RDONLY))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read() {
        assert_eq!(unescaped(b"/a\\040b\\134c\\0"), b"/a b\\c\\0");
        let line = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw";
        let mount = mount_point(line).expect("it is one");
        assert!(backing_of(&mount).expect("no loop device has it").is_empty());
        let overlay =
            b"9 1 0:40 / /m rw - overlay overlay rw,lowerdir=/l/a:/l/b\\040c,upperdir=/u,workdir=/w,index=off";
        let layers = backing_of(&mount_point(overlay).expect("it is one")).expect("its options tell");
        assert_eq!(layers, ["/l/a", "/l/b c", "/u", "/w"].map(PathBuf::from));
        assert_eq!((mount.number, mount.device, mount.is_pseudo()), (36, 98 << 32, false));
        assert_eq!((mount.kind.as_str(), mount.source.as_str(), mount.options.as_str()), ("ext3", "/dev/root", "rw"));
        assert_eq!((mount.root, mount.point), (b"/mnt1".to_vec(), b"/mnt 2".to_vec()));
        assert!(mount_point(b"1 2 0:4 / /proc rw - proc proc rw").is_some_and(|mount| mount.is_pseudo()));
        assert!(mount_point(b"36 35 98:0 /mnt1").is_none());
        assert!(!mount_points().expect("they are listed").is_empty());
    }

    #[test]
    fn a_path_shares_its_own_disk() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().as_os_str().as_encoded_bytes();
        assert!(same_device(path, path).unwrap());
        assert!(medium_of(path).is_ok());
        assert!(medium_of(b"/no/such/path").is_err());
        assert!(has_lasting_inodes(std::fs::File::open(folder.path()).unwrap()));
    }

    #[test]
    fn memory_is_told_from_disks() {
        match mount_points().unwrap().iter().find(|mount| mount.kind == "tmpfs" && mount.root == b"/") {
            Some(mount) => assert_eq!(medium_of(&mount.point).unwrap(), Medium::Memory),
            None => eprintln!("nothing is mounted in memory here: not tested"),
        }
    }
}
