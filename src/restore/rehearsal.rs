//! Finds out whether directories that may be one in the target are one: a walk over the directories of a restore, before the
//! restore itself, that changes nothing. It looks at what each directory is, and not at where it is mounted or linked.

use crate::disk::Identity;
use crate::error::Result;
use crate::lock::locked;
use crate::restore::keep_reason::KeepReason;
use crate::restore::overlap::UNMADE_DEVICE;
use crate::restore::paths::shown;
use std::collections::hash_map::Entry as Slot;
use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, OnceLock};

#[derive(Default)]
pub(super) struct Rehearsal {
    pub seen: Mutex<HashMap<Identity, SeenDirectory>>,
    /// The devices of file systems that were entered and whose inode numbers do not last.
    pub devices: Mutex<HashSet<u64>>,
    /// Directories of which nothing but metadata would be restored, by their paths, and that have the same place as another path.
    pub spared: Mutex<HashMap<Vec<u8>, SparedEntry>>,
    /// Set when directories meet, or when it cannot be told whether they do.
    pub met: OnceLock<MetDirectories>,
}

pub(super) enum MetDirectories {
    /// With the paths of both.
    Yes(Vec<u8>, Vec<u8>),
    /// Why it cannot be told.
    Maybe(KeepReason),
}

/// A directory of the target, and what one path of the snapshot does with it.
pub(super) struct SeenDirectory {
    pub path: Vec<u8>,
    pub does: RehearsedAction,
    /// Of its mode, owner and attributes.
    pub meta: u64,
    /// The paths that get no metadata because this one has the same place.
    pub spares: Vec<Vec<u8>>,
}

/// A directory that gets no metadata, as another path has the same place.
pub(super) struct SparedEntry {
    pub other: Vec<u8>,
    /// The other path restores the same metadata, except for the time.
    pub is_restored: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum RehearsedAction {
    /// It was saved empty, and nothing is deleted in it: only its metadata are restored.
    Nothing,
    /// It is above a source: only sources are restored into it.
    LeadsOn,
    Restores,
}

impl Rehearsal {
    /// Whether the answer is known.
    pub(crate) fn is_over(&self) -> bool {
        self.met.get().is_some()
    }

    /// Notes why a directory may be another one.
    pub(crate) fn cannot_tell(&self, why: impl FnOnce() -> String) {
        self.met.get_or_init(|| MetDirectories::Maybe(KeepReason::state(why())));
    }

    /// The same where a call failed.
    pub(crate) fn fail_to_tell(&self, error: impl std::fmt::Display) {
        self.met.get_or_init(|| MetDirectories::Maybe(KeepReason::failure(error.to_string())));
    }

    /// Notes that a directory is on a file system whose inode numbers do not last, or that this cannot be found out.
    pub(crate) fn note_passing(&self, path: &[u8], lasts: Result<bool>) {
        match lasts {
            Ok(true) => {}
            Ok(false) => {
                self.cannot_tell(|| format!("{} is on a file system whose inode numbers do not last", shown(path)));
            }
            Err(error) => self.fail_to_tell(error),
        }
    }

    /// Notes that two paths of the snapshot have one place in the target.
    pub(crate) fn meet(&self, one: &[u8], other: &[u8]) {
        self.met.get_or_init(|| MetDirectories::Yes(one.to_vec(), other.to_vec()));
    }

    pub(crate) fn see(&self, directory: Identity, mut new: SeenDirectory) {
        match locked(&self.seen).entry(directory) {
            Slot::Vacant(slot) => drop(slot.insert(new)),
            Slot::Occupied(seen) if seen.get().path == new.path => {}
            // The first path that makes the directory sets its metadata. With several threads, which one is first would be random.
            Slot::Occupied(seen) if directory.device == UNMADE_DEVICE => self.meet(&seen.get().path, &new.path),
            Slot::Occupied(mut seen) => match (seen.get().does, new.does) {
                (RehearsedAction::LeadsOn, RehearsedAction::LeadsOn) => {}
                (RehearsedAction::LeadsOn, RehearsedAction::Nothing) => self.spare(new.path, seen.get_mut()),
                (_, RehearsedAction::Nothing) if seen.get().meta == new.meta => self.spare(new.path, seen.get_mut()),
                (RehearsedAction::Nothing, does) if does == RehearsedAction::LeadsOn || seen.get().meta == new.meta => {
                    let SeenDirectory { path, spares, .. } = seen.get_mut();
                    let paths = std::mem::take(spares).into_iter().chain([std::mem::take(path)]);
                    paths.for_each(|path| self.spare(path, &mut new));
                    seen.insert(new);
                }
                _ => self.meet(&seen.get().path, &new.path),
            },
        }
    }

    fn spare(&self, path: Vec<u8>, other: &mut SeenDirectory) {
        let spared = SparedEntry { other: other.path.clone(), is_restored: other.does != RehearsedAction::LeadsOn };
        locked(&self.spared).insert(path.clone(), spared);
        other.spares.push(path);
    }
}
