//! A directory that a walk has reached, and by which way; links that were followed.

use crate::disk::device::is_read_only;
use crate::disk::{Directory, Identity, Stat};
use crate::restore::location::MountTable;
use std::collections::HashSet;

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

/// Links that were followed, and what they lead through.
#[derive(Default)]
pub(super) struct FollowedLinks {
    pub passed: HashSet<Identity>,
    pub links: Vec<FollowedLink>,
}

/// A link that was followed.
pub(super) struct FollowedLink {
    /// What was restored by it.
    pub path: Vec<u8>,
    /// The link itself: on this machine if the restore is in place, else below the target.
    pub link: Vec<u8>,
    pub end: Identity,
}
