//! Maps directories to parts of file systems, whatever mounts or links lead there. Two directories can only be the same, or one
//! contain the other, if the same is true of their parts.

use crate::disk::mounts::{MountPoint, mount_points};
use crate::disk::stat::{fstat, stat_path};
use crate::disk::{Directory, Stat};
use crate::error::{Error, Kind, Result};
use crate::restore::keep_reason::KeepReason;
use crate::restore::paths::shown;
use crate::restore::scope::is_at_or_below;
use rustix::fd::{AsFd, AsRawFd};
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;

/// Kinds of file systems that may not answer: their server can be away.
const REMOTE_KINDS: [&str; 9] = ["nfs", "nfs4", "cifs", "smb3", "smbfs", "ceph", "9p", "afs", "lustre"];

/// The device of all that is on mounts that are not listed.
const UNLISTED_DEVICE: u64 = u64::MAX;

/// Where a directory is, or will be.
pub(super) struct DirectoryLocation {
    pub path: Vec<u8>,
    /// The number of its mount.
    pub mount: u64,
    pub device: u64,
}

/// A part of a file system, and where it is reached.
pub(super) struct FileSystemPart {
    device: u64,
    /// On the file system.
    path: Vec<u8>,
    /// The path may be wrong, as the list of mounts does not contain it.
    is_vague: bool,
    pub location: Vec<u8>,
}

/// What is mounted where.
pub(super) struct MountTable {
    pub points: Vec<MountPoint>,
    /// Where each is in the list, by its number.
    by_number: HashMap<u64, usize>,
}

impl DirectoryLocation {
    pub(crate) fn of(directory: &Directory) -> Result<DirectoryLocation> {
        Ok(DirectoryLocation::at(real_path(directory)?, &fstat(directory)?))
    }

    /// Of a directory with this path, in which there are no links.
    pub(crate) fn at(path: Vec<u8>, stat: &Stat) -> DirectoryLocation {
        DirectoryLocation { path, mount: stat.mount, device: stat.device }
    }

    /// A path below it. What is not there yet will be on the mount of the directory that it is made in.
    pub(crate) fn child(&self, below: &[u8]) -> Result<DirectoryLocation> {
        let path = [&self.path, below].concat();
        match stat_path(&path, false) {
            Ok(stat) => Ok(DirectoryLocation::at(path, &stat)),
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => {
                Ok(DirectoryLocation { path, ..*self })
            }
            Err(error) => Err(error),
        }
    }
}

/// The path of a directory, without links in it; `/` is the empty one.
pub(super) fn real_path(directory: &Directory) -> Result<Vec<u8>> {
    let link = format!("/proc/self/fd/{}", directory.as_fd().as_raw_fd());
    let path = std::fs::read_link(&link).map_err(|error| Error::io("read the link", link, error))?;
    Ok(without_slash(path.as_os_str().as_bytes()).to_vec())
}

/// The paths above a path, from the top on; `/` is the empty one.
pub(super) fn paths_above(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    (0..path.len()).filter(|at| path[*at] == b'/').map(|at| &path[..at])
}

fn without_slash(path: &[u8]) -> &[u8] {
    path.strip_suffix(b"/").unwrap_or(path)
}

impl FileSystemPart {
    /// All of a mount.
    fn of_mount(mount: &MountPoint) -> FileSystemPart {
        // The list names no root for NFS. What is exported is a part of the source; if a directory of that is mounted again,
        // nothing shows which one.
        let is_vague = mount.kind.starts_with("nfs");
        let exported = mount.source.find(":/").map(|at| &mount.source.as_bytes()[at + 1..]);
        let root = exported.filter(|_| is_vague).unwrap_or(&mount.root);
        FileSystemPart {
            device: mount.device,
            path: without_slash(root).to_vec(),
            is_vague,
            location: mount.point.clone(),
        }
    }

    /// The part to compare when looking for parts that may meet: all of the file system if the path may be wrong.
    fn widened(self) -> FileSystemPart {
        let path = if self.is_vague { Vec::new() } else { self.path };
        FileSystemPart { path, ..self }
    }
}

impl MountTable {
    pub(crate) fn new(points: Vec<MountPoint>) -> MountTable {
        let by_number = points.iter().enumerate().map(|(at, mount)| (mount.number, at)).collect();
        MountTable { points, by_number }
    }

    pub(crate) fn list() -> Result<MountTable> {
        mount_points().map(MountTable::new)
    }

    /// All mounts that hold data of their own.
    pub(crate) fn of_files(&self) -> impl Iterator<Item = &MountPoint> {
        self.points.iter().filter(|mount| !mount.is_pseudo() && !mount.is_automounter())
    }

    /// The mount that a directory is on, if it is listed.
    pub(crate) fn covering(&self, location: &DirectoryLocation) -> Option<&MountPoint> {
        match location.mount {
            // Linux before 5.8 does not number mounts: the last one at the deepest point.
            0 => {
                let covers = |on: &&MountPoint| is_at_or_below(&location.path, without_slash(&on.point));
                self.points.iter().filter(covers).max_by_key(|on| on.point.len())
            }
            number => self.by_number.get(&number).map(|at| &self.points[*at]),
        }
    }

    /// Whether a mount may not answer, or only its owner, and is the only way to its file system.
    pub(crate) fn is_only_way_to_remote(&self, mount: &MountPoint) -> bool {
        is_remote(mount) && self.points.iter().filter(|other| other.device == mount.device).count() == 1
    }

    /// Whether a path is on a file system that may not answer, and that is not the one with this number. As far as the list of
    /// mounts tells: the path is not looked up, and links in it are not followed.
    pub(crate) fn is_on_another_remote(&self, path: &[u8], device: u64) -> bool {
        let place = DirectoryLocation { path: without_slash(path).to_vec(), mount: 0, device };
        self.covering(&place).is_some_and(|mount| is_remote(mount) && mount.device != device)
    }

    /// Whether nothing can be written to a directory by the mount that it is on; None if that is not listed.
    pub(crate) fn is_read_only(&self, stat: &Stat) -> Option<bool> {
        self.by_number.get(&stat.mount).map(|at| self.points[*at].is_read_only)
    }

    /// The path by another mount, which has this number, of a directory at this location; None if it cannot be told.
    pub(crate) fn path_by(&self, number: u64, location: &DirectoryLocation) -> Option<Vec<u8>> {
        let part = self.part_of(location).ok().filter(|part| !part.is_vague)?;
        let mount = &self.points[*self.by_number.get(&number)?];
        let below = part.path.strip_prefix(without_slash(&mount.root)).filter(|_| mount.device == part.device)?;
        Some([without_slash(&mount.point), below].concat())
    }

    /// The part of a file system that begins with a directory. Returns an error if the mount is not listed. This is the case in a
    /// chroot whose root directory is not a mount point.
    pub(crate) fn part_of(&self, location: &DirectoryLocation) -> Result<FileSystemPart> {
        let path = &location.path;
        let below = self.covering(location).and_then(|on| Some((on, path.strip_prefix(without_slash(&on.point))?)));
        let (on, below) = below.ok_or_else(|| {
            Error::new(Kind::Unsupported, "find the mount of", shown(path)).because("it is not listed")
        })?;
        let on = FileSystemPart::of_mount(on);
        Ok(FileSystemPart { path: [&on.path, below].concat(), location: path.clone(), ..on })
    }

    /// The same where a mount that is not listed is one of its own, unless a directory of its file system is mounted elsewhere.
    pub(crate) fn part_or_own(&self, location: &DirectoryLocation) -> Result<FileSystemPart> {
        self.part_of(location).or_else(|error| {
            if self.of_files().any(|mount| mount.device == location.device) {
                Err(error)
            } else {
                let path = location.path.clone();
                Ok(FileSystemPart { device: UNLISTED_DEVICE, location: path.clone(), path, is_vague: false })
            }
        })
    }
}

fn is_remote(mount: &MountPoint) -> bool {
    mount.kind.starts_with("fuse") || REMOTE_KINDS.contains(&mount.kind.as_str())
}

/// Why two of these places, or a place and itself, may lead to one directory through mounts.
pub(super) fn mounted_twice(places: &[DirectoryLocation]) -> Option<KeepReason> {
    let parts = match MountTable::list().and_then(|mounts| parts_of(places, &mounts)) {
        Ok(parts) => parts,
        Err(error) => return Some(KeepReason::failure(format!("cannot tell what is mounted where: {error}"))),
    };
    first_meeting(&parts).map(|(one, other)| {
        let (one, other) = (shown(&one.location), shown(&other.location));
        KeepReason::state(format!("{one} and {other} are, or are in, one directory of a file system"))
    })
}

/// Two parts of which one is in the other one, if there are any.
fn first_meeting(parts: &[FileSystemPart]) -> Option<(&FileSystemPart, &FileSystemPart)> {
    let mut known: HashMap<(u64, &[u8]), &FileSystemPart> = HashMap::new();
    for part in parts {
        if let Some(other) = known.insert((part.device, &part.path), part) {
            return Some((other, part));
        }
    }
    for part in parts {
        if let Some(other) = paths_above(&part.path).find_map(|above| known.get(&(part.device, above))) {
            return Some((other, part));
        }
    }
    None
}

/// The parts of file systems that are at and below these places, none of which is in another one.
fn parts_of(places: &[DirectoryLocation], mounts: &MountTable) -> Result<Vec<FileSystemPart>> {
    let by_path: HashSet<&[u8]> = places.iter().map(|place| place.path.as_slice()).collect();
    let part_of = |place| mounts.part_of(place).map(FileSystemPart::widened);
    let mut parts = places.iter().map(part_of).collect::<Result<Vec<FileSystemPart>>>()?;
    for mount in mounts.of_files() {
        if paths_above(without_slash(&mount.point)).any(|above| by_path.contains(above)) {
            parts.push(FileSystemPart::of_mount(mount).widened());
        }
    }
    Ok(parts)
}

/// Paths of the snapshot by the part of a file system that each is at now.
#[derive(Default)]
pub(super) struct FileSystemParts(HashMap<(u64, Vec<u8>), Vec<Vec<u8>>>);

impl FileSystemParts {
    pub(crate) fn add(&mut self, part: FileSystemPart, path: Vec<u8>) {
        self.0.entry((part.device, part.path)).or_default().push(path);
    }

    pub(crate) fn add_mount(&mut self, mount: &MountPoint, path: Vec<u8>) {
        self.add(FileSystemPart::of_mount(mount), path);
    }

    /// All paths that a part has: one for each recorded part that contains it.
    pub(crate) fn names_of(&self, part: &FileSystemPart) -> Vec<Vec<u8>> {
        let ends = paths_above(&part.path).chain([part.path.as_slice()]);
        let above = ends.filter_map(|end| Some((end, self.0.get(&(part.device, end.to_vec()))?)));
        let named = |(end, paths): (&[u8], &Vec<Vec<u8>>)| -> Vec<Vec<u8>> {
            paths.iter().map(|path| [path, &part.path[end.len()..]].concat()).collect()
        };
        above.flat_map(named).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Mounts by device, root and point, numbered in their order.
    fn mounts(them: &[(u64, &str, &str)]) -> MountTable {
        let numbered = them.iter().zip(1..);
        let mount = |(&(device, root, point), number): (&(u64, &str, &str), u64)| MountPoint {
            number,
            device,
            root: root.into(),
            point: point.into(),
            ..MountPoint::default()
        };
        MountTable::new(numbered.map(mount).collect())
    }

    fn place(path: &str, mount: u64) -> DirectoryLocation {
        DirectoryLocation { path: path.as_bytes().to_vec(), mount, device: 3 }
    }

    /// Whether places, each on the mount of that number, meet.
    fn meet(places: &[(&str, u64)], them: &[(u64, &str, &str)]) -> bool {
        let places: Vec<DirectoryLocation> = places.iter().map(|(path, mount)| place(path, *mount)).collect();
        first_meeting(&parts_of(&places, &mounts(them)).expect("they are listed")).is_some()
    }

    /// Any second mount of a file system counted, and one source was never looked at.
    #[test]
    fn only_parts_that_are_restored_can_meet() {
        let plain = [(1, "/", "/"), (2, "/", "/home")];
        let with = |more: (u64, &'static str, &'static str)| [plain[0], plain[1], more];
        assert!(!meet(&[("/work", 1), ("/home/a", 2)], &plain));
        assert!(!meet(&[("", 1)], &plain));
        // A directory of one source is mounted on one of another, or of itself.
        assert!(meet(&[("/one", 1), ("/two", 1)], &with((1, "/two/a", "/one/a"))));
        assert!(meet(&[("/one", 1)], &with((1, "/one/a", "/one/b"))));
        assert!(meet(&[("/one", 3), ("/two", 1)], &with((1, "/two", "/one"))));
        assert!(meet(&[("", 1)], &with((1, "/usr/share/x", "/var/x"))));
        // The mounted directory is outside of what is restored, or all of the target is on one mount.
        assert!(!meet(&[("/one", 1), ("/two", 1)], &with((1, "/other", "/one/a"))));
        assert!(!meet(&[("/mnt/one", 3), ("/mnt/two", 3)], &with((1, "/real", "/mnt"))));
        // The mount that is seen counts, not one that another one hides.
        let hidden = [plain[0], (3, "/", "/x/y"), (1, "/other", "/x")];
        assert!(meet(&[("/x/y/s", 3), ("/other/y/s", 1)], &hidden));
        // The mount of a chroot directory is not listed if that directory is not a mount point.
        assert!(mounts(&plain).part_of(&place("/one", 9)).is_err());
        assert!(mounts(&plain).part_or_own(&place("/one", 9)).is_ok());
        assert!(mounts(&with((3, "/real", "/two"))).part_or_own(&place("/one", 9)).is_err());
    }

    #[test]
    fn a_part_has_the_names_of_those_that_it_is_in() {
        let mounts = mounts(&[(1, "/", "/"), (1, "/x/s", "/p"), (2, "/", "/m")]);
        let mut parts = FileSystemParts::default();
        for (path, mount) in [("/x", 1), ("/m", 3)] {
            parts.add(mounts.part_of(&place(path, mount)).expect("it is listed"), path.into());
        }
        parts.add_mount(&mounts.points[1], b"/p".to_vec());
        let names = |path: &str, mount: u64| {
            let names = parts.names_of(&mounts.part_of(&place(path, mount)).expect("it is listed"));
            names.into_iter().map(|name| String::from_utf8(name).expect("text")).collect::<Vec<String>>()
        };
        assert_eq!(names("/p/t", 2), ["/x/s/t", "/p/t"]);
        assert_eq!((names("/x", 1), names("/xs", 1)), (vec!["/x".to_owned()], Vec::new()));
        assert_eq!(names("/m/deep", 3), ["/m/deep"]);
    }

    /// All exports of one server have one number, and the list names no root for them.
    #[test]
    fn exports_of_one_server_may_meet_and_are_told_apart() {
        let export = |source: &str, point: &str, number| MountPoint {
            number,
            device: 1,
            root: b"/".to_vec(),
            point: point.into(),
            kind: "nfs4".into(),
            source: source.into(),
            ..MountPoint::default()
        };
        let mounts = MountTable::new(vec![export("host:/vol/a", "/a", 1), export("[fe80::1]:/vol/b", "/b", 2)]);
        let places = [place("/a", 1), place("/b", 2)];
        // Asking a server that is away where the data came from would never end.
        assert!(mounts.is_on_another_remote(b"/a/x", 3) && !mounts.is_on_another_remote(b"/a/x", 1));
        assert!(!mounts.is_on_another_remote(b"/ax", 3) && !mounts.is_on_another_remote(b"/", 3));
        assert!(first_meeting(&parts_of(&places, &mounts).expect("they are listed")).is_some());
        let mut parts = FileSystemParts::default();
        parts.add(mounts.part_of(&places[0]).expect("it is listed"), b"/a".to_vec());
        let names = |place: &DirectoryLocation| parts.names_of(&mounts.part_of(place).expect("it is listed"));
        assert!(names(&places[0]) == [b"/a"] && names(&places[1]).is_empty());
    }
}
