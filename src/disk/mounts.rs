//! What is mounted where, as /proc/self/mountinfo lists it (proc(5)). The list decides where a restore may delete: it is read or it is an
//! error.

use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

const MOUNTS_BYTES_MAX: u64 = 16 << 20;

/// File systems that the kernel makes up: their files hold no data, and some never end.
const PSEUDO_KINDS: [&str; 30] = [
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
/// A directory of an overlay that holds data of it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct MountLayer {
    /// As the mount names it.
    pub name: Vec<u8>,
    /// Where it may be.
    pub places: Vec<PathBuf>,
}

/// What is mounted where.
#[derive(Default)]
pub(crate) struct MountPoint {
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
    /// Of the file system, not of this mount of it: as the kernel lists them, with its escapes.
    pub options: Vec<u8>,
    /// Nothing can be written to it by this mount.
    pub is_read_only: bool,
    /// It shows other owners than the file system has (mount_setattr(2)).
    pub is_idmapped: bool,
}

impl MountPoint {
    /// Whether the kernel makes up what is in it.
    pub(crate) fn is_pseudo(&self) -> bool {
        PSEUDO_KINDS.contains(&self.kind.as_str())
    }

    /// Whether it mounts others below or over itself when they are needed.
    pub(crate) fn is_automounter(&self) -> bool {
        self.kind == "autofs"
    }

    /// The layers of an overlay. None for other kinds.
    pub(crate) fn layers(&self) -> Vec<MountLayer> {
        if self.kind != "overlay" {
            return Vec::new();
        }
        let mut paths: Vec<Vec<u8>> = Vec::new();
        for option in self.options.split(|byte| *byte == b',').map(unescaped) {
            let Some(at) = option.iter().position(|byte| *byte == b'=') else { continue };
            match (&option[..at], &option[at + 1..]) {
                (b"lowerdir", value) => paths.extend(lower_layers(value).map(<[u8]>::to_vec)),
                (b"upperdir" | b"workdir" | b"lowerdir+" | b"datadir+", value) => paths.push(value.to_vec()),
                _ => {}
            }
        }
        // Container tools shorten paths by mounting from a directory that is above the mount point, or above the other layers.
        let absolute = || paths.iter().filter(|path| path.starts_with(b"/")).chain([&self.point]);
        let mut above = Vec::new();
        if paths.iter().any(|path| !path.starts_with(b"/")) {
            let directories = absolute().flat_map(|path| Path::new(OsStr::from_bytes(path)).ancestors().skip(1));
            above.extend(directories.map(Path::to_owned).collect::<BTreeSet<_>>());
        }
        paths.iter().map(|path| self.layer(path, &above)).collect()
    }

    /// A layer of this path. `above`: the directories that it may have been mounted from, if the path is relative.
    fn layer(&self, path: &[u8], above: &[PathBuf]) -> MountLayer {
        // The kernel lists some paths as they were given, with a backslash before what would end them, and others as they are.
        let mut spellings = vec![path.to_vec(), without_backslashes(path)];
        spellings.dedup();
        if !path.starts_with(b"/") {
            let place = |above: &PathBuf| spellings.iter().map(|path| above.join(OsStr::from_bytes(path))).collect();
            let places: Vec<Vec<PathBuf>> = above.iter().map(place).collect();
            return MountLayer { name: path.to_vec(), places: places.concat() };
        }
        let places = spellings.into_iter().map(|path| PathBuf::from(OsString::from_vec(path))).collect();
        MountLayer { name: path.to_vec(), places }
    }
}

/// All mounts that this process sees, in the order in which they cover each other. An error where /proc is hidden, or the
/// list cannot be read for another reason: that never means that nothing is mounted.
pub(crate) fn mount_points() -> Result<Vec<MountPoint>> {
    let list = Path::new("/proc/self/mountinfo");
    let text = super::whole::read_bounded(list, MOUNTS_BYTES_MAX)
        .map_err(|error| Error::new(error.kind(), "list the mounts", "").because(error))?;
    let lines = text.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let points: Option<Vec<MountPoint>> = lines.map(mount_point).collect();
    points.filter(|points| !points.is_empty()).ok_or_else(|| {
        Error::new(Kind::Unsupported, "list the mounts", "").because(format!("{} has another form", list.display()))
    })
}

/// A mount of the file system with this number, if the mounts can be listed.
pub(super) fn mount_of(device: u64) -> Option<MountPoint> {
    mount_points().ok()?.into_iter().find(|mount| mount.device == device)
}

/// Which mounts are idmapped, asked for when a walk meets an owner that such a mount may hide.
#[derive(Debug, Default)]
pub(crate) struct IdmappedMounts(Mutex<HashMap<u64, bool>>);

impl IdmappedMounts {
    /// Whether the mount of this number is idmapped. One that cannot be found is not: kernels that have such mounts list them.
    pub(crate) fn contains(&self, mount: u64) -> bool {
        let find = || mount_points().unwrap_or_default().into_iter().find(|listed| listed.number == mount);
        *locked(&self.0).entry(mount).or_insert_with(|| find().is_some_and(|found| found.is_idmapped))
    }
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
    let has = |options: &[u8], name: &[u8]| options.split(|byte| *byte == b',').any(|option| option == name);
    let of_mount = fields.next()?;
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source) = (text(fields.next()?), text(fields.next().unwrap_or_default()));
    let options = fields.next().unwrap_or_default().to_vec();
    let (is_read_only, is_idmapped) = (has(of_mount, b"ro") || has(&options, b"ro"), has(of_mount, b"idmapped"));
    Some(MountPoint { number, device, root, point, kind, source, options, is_read_only, is_idmapped })
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

/// The paths of an option that lists several, separated by colons; a backslash takes the meaning from the byte after it.
fn lower_layers(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut is_escaped = false;
    let ends = move |byte: &u8| {
        let ends = *byte == b':' && !is_escaped;
        is_escaped = *byte == b'\\' && !is_escaped;
        ends
    };
    value.split(ends).filter(|path| !path.is_empty())
}

fn without_backslashes(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut bytes = path.iter();
    while let Some(byte) = bytes.next() {
        // One at the end stands for itself.
        let byte = if *byte == b'\\' { bytes.next().unwrap_or(byte) } else { byte };
        plain.push(*byte);
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mount_points_are_read() {
        assert_eq!(unescaped(b"/a\\040b\\134c\\0"), b"/a b\\c\\0");
        let line = b"36 35 98:0 /mnt1 /mnt\\0402 rw,noatime master:1 - ext3 /dev/root rw";
        let mount = mount_point(line).expect("it is one");
        assert!(mount.layers().is_empty());
        assert_eq!((mount.number, mount.device, mount.is_pseudo()), (36, 98 << 32, false));
        assert_eq!((mount.kind.as_str(), mount.source.as_str(), &mount.options[..]), ("ext3", "/dev/root", &b"rw"[..]));
        assert_eq!((mount.root, mount.point, mount.is_read_only), (b"/mnt1".to_vec(), b"/mnt 2".to_vec(), false));
        for line in ["1 2 8:1 / /m ro - ext4 /dev/a rw", "1 2 8:1 / /m rw - ext4 /dev/a ro,noload"] {
            assert!(mount_point(line.as_bytes()).is_some_and(|mount| mount.is_read_only), "{line}");
        }
        let is_idmapped = |line: &[u8]| mount_point(line).is_some_and(|mount| mount.is_idmapped);
        assert!(is_idmapped(b"1 2 8:1 / /m rw,relatime,idmapped shared:1 - ext4 /dev/a rw"));
        assert!(!is_idmapped(b"1 2 8:1 / /m rw,relatime - ext4 /dev/a rw,idmapped"));
        assert!(mount_point(b"1 2 0:4 / /proc rw - proc proc rw").is_some_and(|mount| mount.is_pseudo()));
        assert!(mount_point(b"36 35 98:0 /mnt1").is_none());
        assert!(!mount_points().expect("they are listed").is_empty());
    }

    /// Commas and colons in paths cut them, and relative paths were looked for in the wrong directory: `--delete` deleted the layers.
    #[test]
    fn layers_of_overlays_are_found_whatever_their_paths_are() {
        let places = |options: &str| {
            let line = format!("9 1 0:40 / /m/n rw - overlay overlay {options}");
            let layers = mount_point(line.as_bytes()).expect("it is one").layers();
            let places = layers.into_iter().flat_map(|layer| layer.places).map(|place| place.display().to_string());
            places.collect::<Vec<_>>()
        };
        let plain = places(r"rw,lowerdir=/l/a:/l/b\040c::/data,upperdir=/u,workdir=/w,index=off");
        assert_eq!(plain, ["/l/a", "/l/b c", "/data", "/u", "/w"]);
        let escaped = places(r"ro,lowerdir=/a\134\054b:/a\134:b,lowerdir+=/c:d\054e");
        assert_eq!(escaped, [r"/a\,b", "/a,b", r"/a\:b", "/a:b", "/c:d,e"]);
        assert_eq!(places("rw,lowerdir=l/A,upperdir=/u"), ["/l/A", "/m/l/A", "/u"]);
        assert_eq!(places("rw,lowerdir=1/fs,upperdir=/s/2/fs")[2..], ["/s/1/fs", "/s/2/1/fs", "/s/2/fs"]);
        assert!(places("rw,redirect_dir=on,xino").is_empty());
    }
}
