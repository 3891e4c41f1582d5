//! A directory that is being filled: made or opened when the first thing below it is restored, and kept open while there
//! is room for that.

use crate::disk::opened_up::OpenedUp;
use crate::disk::stat::fstat;
use crate::disk::{CurrentMetadata, Identity, Stat, TargetDirectory};
use crate::entry::Entry;
use crate::error::Result;
use crate::lock::locked;
use crate::restore::paths::child_path;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

/// A file system as it is mounted somewhere: device and mount. One mounted elsewhere as well has another mount.
pub(super) type MountedAt = (u64, u64);

pub(super) fn mounted(stat: &Stat) -> MountedAt {
    (stat.device, stat.mount)
}

/// What is known of a directory of the target since it was made or opened.
#[derive(Clone, Copy, Default)]
pub(super) struct FolderFacts {
    /// It contained something, or may have: each name must be looked up before it is used.
    pub taken: bool,
    /// This run made it, so that no other program knows it yet.
    pub is_new: bool,
    /// What it has already of its metadata; None asks.
    pub current: Option<CurrentMetadata>,
    /// Whether it gets the metadata of its entry.
    pub apply: bool,
    /// Names in it can be made, and neither removed nor renamed.
    pub append_only: bool,
    /// It is a sticky directory of another user: entries of other users in it can be neither replaced nor removed.
    pub keeps_others: bool,
    /// The group that it hands down to what is made in it, where it does.
    pub group: Option<u32>,
    /// Why nothing in it can be created, replaced or deleted.
    pub refuses: Option<&'static str>,
    /// Its file system is mounted read-only.
    pub is_read_only: bool,
    /// It takes the place of something else.
    pub replaces: bool,
    pub mounted: MountedAt,
    /// It is, or is inside, a repository or a cache of silt, or another source: nothing is deleted in it.
    pub keeps_extra: bool,
    /// Nothing is deleted but on this file system.
    pub deletes_on: MountedAt,
    /// Set when its descriptor is closed.
    pub identity: Option<Identity>,
    /// In a plan with an overlap: what stands for a directory that is not open, as the restore will make it or open it up.
    pub imagined: Option<Identity>,
}

/// A directory in the target.
#[derive(Default)]
struct FolderPlace {
    /// Held by the thread that makes or opens it.
    making: Mutex<()>,
    place: Mutex<FolderStage>,
}

#[derive(Default)]
pub(super) enum FolderStage {
    #[default]
    Unmade,
    /// Something that stays has its name: nothing below it is restored.
    Refused,
    Made(FolderFacts, OpenHandle),
}

pub(super) enum OpenHandle {
    /// In a plan: it will be made.
    None,
    Open {
        target: Arc<TargetDirectory>,
        _held: HeldFolder,
    },
    Closed,
}

/// Counts the directories that are held open.
#[derive(Default)]
pub(super) struct OpenFolders {
    count: Arc<AtomicUsize>,
    max: usize,
}

/// One of them, until it is dropped.
pub(super) struct HeldFolder(Arc<AtomicUsize>);

impl OpenFolders {
    /// At most this many are to be open.
    pub(crate) fn up_to(max: usize) -> Self {
        OpenFolders { count: Arc::default(), max }
    }

    pub(crate) fn hold(&self) -> HeldFolder {
        self.count.fetch_add(1, Ordering::Relaxed);
        HeldFolder(self.count.clone())
    }

    pub(crate) fn are_too_many(&self) -> bool {
        self.count.load(Ordering::Relaxed) > self.max
    }
}

impl Drop for HeldFolder {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A directory that can be worked in.
#[derive(Clone)]
pub(super) struct OpenFolder {
    /// None in a plan, where it will be made.
    pub target: Option<Arc<TargetDirectory>>,
    pub facts: FolderFacts,
}

/// What a folder can be right now.
pub(super) enum FolderState {
    Unmade,
    Refused,
    Ready(OpenFolder),
    /// Made, and its descriptor given back.
    Closed(FolderFacts),
}

/// What is known of the names in a directory.
#[derive(Default)]
pub(super) struct FolderNames {
    /// Those that the snapshot has, when others are to be deleted.
    pub saved: Mutex<HashSet<Vec<u8>>>,
    /// Others are there, which are deleted when everything is restored.
    pub has_others: AtomicBool,
    /// Those of directories that an interrupted restore was replacing.
    pub leftovers: Mutex<Vec<Vec<u8>>>,
    /// Not all saved names are known: nothing is deleted.
    pub are_incomplete: AtomicBool,
}

pub(super) struct TargetFolder {
    /// Its path in the snapshot.
    pub path: Vec<u8>,
    pub above: Option<Arc<TargetFolder>>,
    /// Its own entry. None if the target stands for no entry of the snapshot.
    pub entry: Option<Entry>,
    /// At or below a source of the snapshot.
    pub inside: bool,
    /// It is a source itself: directories above it belong to no source, or to another one.
    pub is_source: bool,
    /// All below it is restored; else only what an include pattern matches.
    pub wanted: bool,
    pub depth: usize,
    /// Tasks below it that are not done, plus one for itself.
    pub left: AtomicUsize,
    place: FolderPlace,
    pub names: FolderNames,
    /// Something was created or replaced in it, or is going to be: that changes its time.
    pub changed: AtomicBool,
    /// The mode that it had before its owner's rights were added to work in it.
    pub opened_up: Mutex<Option<u32>>,
}

impl TargetFolder {
    pub(crate) fn new(
        path: Vec<u8>,
        above: Option<Arc<TargetFolder>>,
        entry: Option<Entry>,
        inside: bool,
        wanted: bool,
    ) -> Self {
        TargetFolder {
            path,
            is_source: inside && above.as_ref().is_some_and(|above| !above.inside),
            depth: above.as_ref().map_or(0, |above| above.depth + 1),
            above,
            entry,
            inside,
            wanted,
            left: AtomicUsize::new(1),
            place: FolderPlace::default(),
            names: FolderNames::default(),
            changed: AtomicBool::new(false),
            opened_up: Mutex::default(),
        }
    }

    /// The target itself.
    pub(crate) fn top(path: Vec<u8>, entry: Option<Entry>, inside: bool, wanted: bool, here: OpenFolder) -> Self {
        let folder = TargetFolder::new(path, None, entry, inside, wanted);
        folder.set(here, &OpenFolders::default());
        folder
    }

    /// A directory below another one, not made yet. `is_named`: a source has exactly its path.
    pub(crate) fn below(above: &Arc<TargetFolder>, entry: Entry, inside: bool, is_named: bool, wanted: bool) -> Self {
        let path = child_path(&above.path, &entry.name);
        let mut below = TargetFolder::new(path, Some(above.clone()), Some(entry), inside, wanted);
        below.is_source |= is_named;
        below
    }

    /// Held by the thread that makes or opens it.
    pub(crate) fn making(&self) -> MutexGuard<'_, ()> {
        locked(&self.place.making)
    }

    pub(crate) fn state(&self) -> FolderState {
        match &*locked(&self.place.place) {
            FolderStage::Unmade => FolderState::Unmade,
            FolderStage::Refused => FolderState::Refused,
            FolderStage::Made(facts, OpenHandle::None) => {
                FolderState::Ready(OpenFolder { target: None, facts: *facts })
            }
            FolderStage::Made(facts, OpenHandle::Open { target, .. }) => {
                FolderState::Ready(OpenFolder { target: Some(target.clone()), facts: *facts })
            }
            FolderStage::Made(facts, OpenHandle::Closed) => FolderState::Closed(*facts),
        }
    }

    /// Stores its facts and its descriptor.
    pub(crate) fn set(&self, here: OpenFolder, open: &OpenFolders) {
        let handle = here.target.map_or(OpenHandle::None, |target| OpenHandle::Open { target, _held: open.hold() });
        *locked(&self.place.place) = FolderStage::Made(here.facts, handle);
    }

    /// Its mode is put back when it is finished.
    pub(crate) fn closes_later(&self, opened_up: Option<OpenedUp>) {
        if let Some(opened_up) = opened_up {
            // The first mode is the one to reset.
            locked(&self.opened_up).get_or_insert(opened_up.hand_on());
        }
    }

    pub(crate) fn refuse(&self) {
        *locked(&self.place.place) = FolderStage::Refused;
    }

    /// Whether this is the directory that was closed.
    pub(crate) fn is_same(facts: &FolderFacts, stat: &Stat) -> bool {
        facts.identity == Some(stat.identity())
    }

    /// Closes its descriptor; `enter` opens it again. The target itself stays open.
    pub(crate) fn close(&self) -> Result<()> {
        let mut place = locked(&self.place.place);
        let FolderStage::Made(facts, handle) = &mut *place else { return Ok(()) };
        let OpenHandle::Open { target, .. } = handle else { return Ok(()) };
        let stat = fstat(target.directory())?;
        facts.identity = Some(stat.identity());
        *handle = OpenHandle::Closed;
        Ok(())
    }
}

impl Drop for TargetFolder {
    /// In a loop: a chain as deep as a tree must not take a stack frame for each level.
    fn drop(&mut self) {
        let mut above = self.above.take();
        while let Some(mut folder) = above.and_then(Arc::into_inner) {
            above = folder.above.take();
        }
    }
}

/// The group that a directory hands down to what is made in it, where it does.
pub(super) fn group_of_new(directory: &Stat) -> Option<u32> {
    (directory.mode & 0o2000 != 0).then_some(directory.gid)
}
