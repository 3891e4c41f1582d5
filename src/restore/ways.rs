//! Two ways to one directory, through mounts: what is restored by the first way is there by the second one, unless something else is
//! mounted below one of them.

use crate::disk::device::is_read_only;
use crate::disk::mounts::MountPoint;
use crate::disk::{Directory, Identity, Stat};
use crate::error::{Error, Kind, Result};
use crate::restore::location::{Mounts, real_path};
use crate::restore::run::Run;
use std::collections::BTreeSet;

/// A directory of the target, and how it was reached.
pub(super) struct Reached {
    pub identity: Identity,
    /// None for one that this run makes, or that cannot be opened.
    pub way: Option<Way>,
    /// Nothing can be restored by this way.
    pub is_read_only: bool,
}

#[derive(Clone)]
pub(super) struct Way {
    /// The number of the mount.
    mount: u64,
    /// What is mounted below the directory by this way; None where that cannot be told.
    below: Option<BTreeSet<Below>>,
}

/// What is mounted below a directory.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Below {
    /// From that directory on.
    path: Vec<u8>,
    device: u64,
    root: Vec<u8>,
}

impl Reached {
    pub fn by_any_way(identity: Identity) -> Reached {
        Reached { identity, way: None, is_read_only: false }
    }

    /// `mounts`: None where they cannot be listed.
    pub fn of(directory: &Directory, stat: &Stat, mounts: Option<&Mounts>) -> Reached {
        let below = mounts.and_then(|mounts| Some(mounts_below(mounts, &real_path(directory).ok()?)));
        let way = Way { mount: stat.mount, below };
        Reached { identity: stat.identity(), way: Some(way), is_read_only: is_read_only(directory) }
    }
}

impl Run<'_> {
    /// Returns what the snapshot has below `path` that is not at the same place by both ways to that directory, if there is
    /// something.
    pub fn only_by_one_way(&self, path: &[u8], one: &Way, other: &Way) -> Result<Option<Vec<u8>>> {
        // Before Linux 5.8 mounts have no numbers.
        if one.mount == other.mount && one.mount != 0 {
            return Ok(None);
        }
        let (Some(one), Some(other)) = (&one.below, &other.below) else {
            return Err(Error::new(Kind::Unsupported, "tell what is mounted where", "").because("/proc is hidden"));
        };
        for below in one.symmetric_difference(other) {
            let place = [path, &below.path].concat();
            if let Some(saved) = self.stored(self.scope.saved_at(&self.reader, &place))?
                && (!saved.is_directory() || self.has_entries(&saved)?)
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }
}

fn mounts_below(mounts: &Mounts, directory: &[u8]) -> BTreeSet<Below> {
    let below = |mount: &MountPoint| {
        let path = mount.point.strip_prefix(directory).filter(|path| path.len() > 1 && path[0] == b'/')?;
        Some(Below { path: path.to_vec(), device: mount.device, root: mount.root.clone() })
    };
    mounts.of_files().filter_map(below).collect()
}
