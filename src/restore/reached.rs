//! A directory that a walk has reached, and by which way.

use crate::disk::device::is_read_only;
use crate::disk::{Directory, Identity, Stat};
use crate::restore::location::MountTable;

/// A directory of the target, and how it was reached.
pub(super) struct ReachedDirectory {
    pub identity: Identity,
    /// The number of the mount that it was reached by. None for a directory that this run makes.
    pub mount: Option<u64>,
    /// Nothing can be restored by this way.
    pub is_read_only: bool,
}

impl ReachedDirectory {
    /// A directory that this run makes.
    pub(crate) fn made(identity: Identity) -> ReachedDirectory {
        ReachedDirectory { identity, mount: None, is_read_only: false }
    }

    /// `directory`: it, or the one above it on the same mount.
    pub(crate) fn of(directory: &Directory, stat: &Stat, mounts: Option<&MountTable>) -> ReachedDirectory {
        let listed = mounts.and_then(|mounts| mounts.is_read_only(stat));
        let is_read_only = listed.unwrap_or_else(|| is_read_only(directory));
        ReachedDirectory { identity: stat.identity(), mount: Some(stat.mount), is_read_only }
    }
}
