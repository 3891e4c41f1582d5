//! Two ways to one directory, through mounts: what is restored by the first way is there by the second one, unless something else is
//! mounted below one of them.

use crate::disk::device::is_read_only;
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
    /// The real path; None where it cannot be told.
    path: Option<Vec<u8>>,
}

impl Reached {
    pub fn by_any_way(identity: Identity) -> Reached {
        Reached { identity, way: None, is_read_only: false }
    }

    pub fn of(directory: &Directory, stat: &Stat) -> Reached {
        let way = Way { mount: stat.mount, path: real_path(directory).ok() };
        Reached { identity: stat.identity(), way: Some(way), is_read_only: is_read_only(directory) }
    }
}

impl Run<'_> {
    /// Returns what the snapshot has below `path` that is not at the same place by both ways to that directory, if there is
    /// something.
    pub fn is_not_in_both(&self, path: &[u8], one: &Way, other: &Way) -> Result<Option<Vec<u8>>> {
        // Before Linux 5.8 mounts have no numbers.
        if one.mount == other.mount && one.mount != 0 {
            return Ok(None);
        }
        let (Some(one), Some(other)) = (&one.path, &other.path) else {
            return Err(Error::new(Kind::Unsupported, "tell what is mounted where", "").because("/proc is hidden"));
        };
        let mounts = Mounts::list()?;
        for below in mounts_below(&mounts, one).symmetric_difference(&mounts_below(&mounts, other)) {
            let place = [path, below.path].concat();
            if let Some(saved) = self.stored(self.scope.saved_at(&self.reader, &place))?
                && (!saved.is_directory() || self.has_entries(&saved)?)
            {
                return Ok(Some(place));
            }
        }
        Ok(None)
    }
}

/// What is mounted below a directory.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Below<'m> {
    /// From that directory on.
    path: &'m [u8],
    device: u64,
    root: &'m [u8],
}

fn mounts_below<'m>(mounts: &'m Mounts, directory: &[u8]) -> BTreeSet<Below<'m>> {
    let below = |point: &'m [u8]| point.strip_prefix(directory).filter(|path| path.len() > 1 && path[0] == b'/');
    let mounts = mounts.of_files().filter_map(|mount| Some((below(&mount.point)?, mount)));
    mounts.map(|(path, mount)| Below { path, device: mount.device, root: &mount.root }).collect()
}
