//! The devices that a file system is on: whole disks, and image files of loop devices, through partitions, mappers (RAID, LVM, LUKS) and overlays.
//! From /sys/dev/block and /sys/block (sysfs(5)), and the list of mounts.

use super::mounts::{MountPoint, mount_points};
use super::stat::{Stat, stat_path};
use crate::entry::EntryKind;
use crate::error::{Error, Kind, Result};
use std::collections::{BTreeSet, HashSet};
use std::io::ErrorKind;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Disks below disks (RAID on LVM on a loop file on …) are followed so far.
const DEPTH_MAX: usize = 8;

/// The major number of loop devices.
const LOOP_MAJOR: u64 = 7;

/// The whole disks below a file system, by their paths in /sys, as far as they can be found.
pub(super) fn disks_of(device: u64) -> BTreeSet<PathBuf> {
    let mounts = mount_points().unwrap_or_default();
    let mut below = MediaBelow::new(&mounts);
    below.add_device(device, None, 0);
    below.disks
}

/// The image files that a mounted file system is on, by their paths. An error if there may be more. Not found are those of file systems
/// on several devices (btrfs, ZFS), except those of the device that the mount names. `mounts` are all that there are.
pub(crate) fn images_below(mount: &MountPoint, mounts: &[MountPoint]) -> Result<BTreeSet<PathBuf>> {
    let mut below = MediaBelow::new(mounts);
    below.add_device(mount.device, Some(mount), 0);
    below.error.map_or(Ok(below.images), Err)
}

struct MediaBelow<'a> {
    mounts: &'a [MountPoint],
    /// Devices that were looked at: an overlay can have very many layers on one.
    seen: HashSet<u64>,
    /// By their paths in /sys.
    disks: BTreeSet<PathBuf>,
    images: BTreeSet<PathBuf>,
    /// The first one: more may be below.
    error: Option<Error>,
}

impl<'a> MediaBelow<'a> {
    fn new(mounts: &'a [MountPoint]) -> Self {
        MediaBelow { mounts, seen: HashSet::new(), disks: BTreeSet::new(), images: BTreeSet::new(), error: None }
    }

    /// `mount`: one of the file system, if it is known.
    fn add_device(&mut self, device: u64, mount: Option<&MountPoint>, depth: usize) {
        if depth > DEPTH_MAX {
            return self.note(
                Error::new(Kind::Unsupported, "find the disks of a file system", "")
                    .because("there are too many layers"),
            );
        }
        if !self.seen.insert(device) {
            return;
        }
        let (major, minor) = (device >> 32, device as u32);
        let block = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
        match std::fs::canonicalize(&block) {
            Ok(at) => return self.add_block(&at, depth),
            Err(error) if error.kind() == ErrorKind::NotFound && major != LOOP_MAJOR => {}
            Err(error) => return self.note(Error::io("read the link", block.display(), error)),
        }
        // File systems of many disks (btrfs, ZFS) and layers (overlay) have numbers of their own.
        let Some(mount) = mount.or_else(|| self.mounts.iter().find(|mount| mount.device == device)) else { return };
        let layers = mount.layers().into_iter().flat_map(|layer| layer.places);
        let source = mount.source.starts_with('/').then(|| PathBuf::from(&mount.source));
        for place in layers.chain(source) {
            if let Some(stat) = self.stat(&place) {
                let is_block = stat.is(EntryKind::BlockDevice);
                let next =
                    if is_block { u64::from(stat.special.0) << 32 | u64::from(stat.special.1) } else { stat.device };
                if next != device {
                    self.add_device(next, None, depth + 1);
                }
            }
        }
    }

    /// From a block device in /sys down.
    fn add_block(&mut self, at: &Path, depth: usize) {
        if depth > DEPTH_MAX {
            return self.note(
                Error::new(Kind::Unsupported, "find the disks below", at.display())
                    .because("there are too many layers"),
            );
        }
        if at.join("partition").exists() {
            if let Some(disk) = at.parent() {
                self.add_block(disk, depth + 1);
            }
            return;
        }
        let backing = at.join("loop/backing_file");
        match std::fs::read(&backing) {
            Ok(path) => {
                let image = PathBuf::from(std::ffi::OsStr::from_bytes(path.strip_suffix(b"\n").unwrap_or(&path)));
                if let Some(stat) = self.stat(&image) {
                    self.images.insert(image);
                    return self.add_device(stat.device, None, depth + 1);
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => self.note(Error::io("read", backing.display(), error)),
        }
        let slaves = at.join("slaves");
        let listed = match std::fs::read_dir(&slaves).and_then(Iterator::collect::<std::io::Result<Vec<_>>>) {
            Err(error) if error.kind() == ErrorKind::NotFound => Vec::new(),
            Err(error) => return self.note(Error::io("list", slaves.display(), error)),
            Ok(listed) => listed,
        };
        if listed.is_empty() {
            self.disks.insert(at.to_owned());
        }
        for slave in listed {
            match std::fs::canonicalize(slave.path()) {
                Ok(below) => self.add_block(&below, depth + 1),
                Err(error) => self.note(Error::io("read the link", slave.path().display(), error)),
            }
        }
    }

    /// None for what is not there: an image was deleted, or it is in another mount namespace.
    fn stat(&mut self, path: &Path) -> Option<Stat> {
        match stat_path(path.as_os_str().as_bytes(), true) {
            Ok(stat) => Some(stat),
            // This user cannot reach it, to delete it neither.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict | Kind::Denied) => None,
            Err(error) => {
                self.note(error);
                None
            }
        }
    }

    fn note(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }
}
