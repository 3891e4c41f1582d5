//! Directories that were separate when they were saved can turn out to be the same directory in the target: a link above a source
//! leads into another one, or one file system is mounted twice. Such a restore deletes nothing, because what one of them lacks may
//! belong to the other; it restores no directory twice; and it uses one writer, so that plan and restore reach them in the same
//! order.

use crate::disk::Identity;
use crate::entry::{Content, Entry, Metadata, Time};
use crate::lock::locked;
use crate::restore::folder::TargetFolder;
use crate::restore::keep_reason::KeepReason;
use crate::restore::location::MountTable;
use crate::restore::reached::ReachedDirectory;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

/// Reported for an entry that is not replaced by one of another kind.
pub(super) const MAY_BE_OF_OTHERS: &str =
    "its place is taken by an entry of another kind, which was kept, as it may belong to another source";

/// The device of directories that a plan only imagines.
pub(super) const UNMADE_DEVICE: u64 = u64::MAX;

pub(super) struct SourceOverlap {
    /// Why directories may meet.
    pub reason: KeepReason,
    /// Each source by itself does not meet itself.
    pub is_of_many: bool,
    /// Something was not restored for that.
    has_blocked: AtomicBool,
    /// Paths in the target whose links led nowhere when the restore began: what is restored must not change where they lead.
    dangling: HashSet<Vec<u8>>,
    /// What is mounted where; None where that cannot be listed.
    pub mounts: Option<MountTable>,
    pub state: Mutex<OverlapState>,
}

#[derive(Default)]
pub(super) struct OverlapState {
    /// The directories at and below sources that are restored.
    pub entered: HashMap<Identity, EnteredDirectory>,
    /// What was restored into directories above sources, by directory and name.
    pub sources: HashMap<(Identity, Vec<u8>), RestoredName>,
    /// In a plan: the directories that the restore will make, by what they will be in.
    unmade: HashMap<(Identity, Vec<u8>), Identity>,
}

/// What was restored into a directory.
pub(super) struct EnteredDirectory {
    pub path: Vec<u8>,
    /// The number of the mount that it was reached by, if this run did not make it.
    mount: Option<u64>,
    pub content: Content,
    pub meta: Metadata,
    /// It was saved empty.
    is_empty: bool,
    /// All of it is restored.
    pub is_wanted: bool,
}

/// What stands for a directory that a restore will make.
pub(super) struct ImaginedDirectory {
    pub identity: Identity,
    /// No other way to it was met.
    pub is_first: bool,
}

pub(super) struct RestoredName {
    pub path: Vec<u8>,
    pub entry: Entry,
}

/// Whether a directory or another entry was restored before, through another way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum RestoredBefore {
    No,
    /// The same: there is nothing left to do.
    Same,
    /// The same, restored through another path of the snapshot, except what is at these places below it. None if they cannot be told.
    SameBut {
        other: Vec<u8>,
        places: Option<Vec<Vec<u8>>>,
    },
    /// Another one, with this path in the snapshot.
    Other(Vec<u8>),
}

impl SourceOverlap {
    pub(crate) fn new(reason: KeepReason, is_of_many: bool, dangling: HashSet<Vec<u8>>) -> Self {
        let (has_blocked, state) = Default::default();
        SourceOverlap { reason, is_of_many, has_blocked, dangling, mounts: MountTable::list().ok(), state }
    }

    /// One in which all links above sources lead somewhere.
    pub(crate) fn of(reason: KeepReason, is_of_many: bool) -> Self {
        SourceOverlap::new(reason, is_of_many, HashSet::new())
    }

    pub(crate) fn has_dangling(&self) -> bool {
        !self.dangling.is_empty()
    }

    pub(crate) fn has_blocked(&self) -> bool {
        self.has_blocked.load(Ordering::Relaxed)
    }

    /// Notes that something was kept, or not restored, for this reason.
    pub(crate) fn blocks(&self) {
        self.has_blocked.store(true, Ordering::Relaxed);
    }

    /// Whether a link above a source led nowhere when the restore began.
    pub(crate) fn is_dangling(&self, path: &[u8]) -> bool {
        self.dangling.contains(path)
    }

    /// Records a directory that is restored. Directories above sources do not count: only sources are restored into them; nor do
    /// those that are read-only by this way. With No, a path can be returned that was saved empty and whose metadata are replaced now.
    pub(crate) fn before(
        &self,
        at: &ReachedDirectory,
        folder: &TargetFolder,
        entry: &Entry,
        is_empty: bool,
    ) -> (RestoredBefore, Option<Vec<u8>>) {
        if !folder.inside {
            return (RestoredBefore::No, None);
        }
        let mut state = locked(&self.state);
        let was_empty = match state.entered.get(&at.identity) {
            Some(before) if before.path == folder.path => return (RestoredBefore::No, None),
            Some(before) if before.content == entry.content && before.meta == entry.meta => {
                return (RestoredBefore::Same, None);
            }
            // A backup of one file system saves a mount point as an empty directory.
            Some(before) if is_empty || before.is_empty => {
                let is_alike = without_time(&before.meta) == without_time(&entry.meta);
                if is_empty {
                    let before =
                        if is_alike { RestoredBefore::Same } else { RestoredBefore::Other(before.path.clone()) };
                    return (before, None);
                }
                (!is_alike).then(|| before.path.clone())
            }
            Some(before) => return (RestoredBefore::Other(before.path.clone()), None),
            None => None,
        };
        if !at.is_read_only {
            let (content, meta) = (entry.content.clone(), entry.meta.clone());
            let (path, mount) = (folder.path.clone(), at.mount);
            let entered = EnteredDirectory { path, mount, content, meta, is_empty, is_wanted: folder.wanted };
            state.entered.insert(at.identity, entered);
        }
        (RestoredBefore::No, was_empty)
    }

    /// The path in the snapshot by which a directory was entered first, and the mount that it was reached by.
    pub(crate) fn first_way(&self, directory: Identity) -> Option<(Vec<u8>, u64)> {
        let state = locked(&self.state);
        let first = state.entered.get(&directory)?;
        Some((first.path.clone(), first.mount?))
    }

    /// In a plan: what stands for a directory that will be made.
    pub(crate) fn unmade(&self, above: Identity, name: &[u8]) -> ImaginedDirectory {
        let unmade = &mut locked(&self.state).unmade;
        let inode = unmade.len() as u64;
        let identity = *unmade.entry((above, name.to_vec())).or_insert(Identity { device: UNMADE_DEVICE, inode });
        ImaginedDirectory { identity, is_first: identity.inode == inode }
    }
}

/// Metadata but the time, which changes while directories are read.
pub(super) fn without_time(meta: &Metadata) -> Metadata {
    Metadata { modified: Time::default(), ..meta.clone() }
}

/// Whether two entries would be restored alike, whatever their names are.
pub(super) fn is_alike(one: &Entry, other: &Entry) -> bool {
    let mut other = other.clone();
    // Numbers of link groups tell names of one snapshot apart, not content, and marks say how it was saved.
    (other.name, other.link_group) = (one.name.clone(), one.link_group);
    (other.is_doubtful, other.is_mounted) = (one.is_doubtful, one.is_mounted);
    *one == other
}
