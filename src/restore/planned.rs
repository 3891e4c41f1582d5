//! What a plan found: paths by what becomes of them, and the packs to be read.

use crate::entry::PathText;
use crate::id::PackId;
use crate::restore::counts::{EntryFate, FATES};
use serde::{Serialize, Serializer};
use std::collections::{BTreeSet, HashMap, HashSet};

/// How many paths of one fate a plan names.
const NAMED_MAX: usize = 1000;
/// How many paths share a fate, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FirstPaths {
    /// How many there are.
    pub count: u64,
    /// In the snapshot, or where it would have them; in order, at most 1000.
    pub first: Vec<Vec<u8>>,
}

/// The figures of a plan. All but the first four are exact for a detailed plan only, and may be empty for another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanSummary {
    /// Directories to create or to bring up to date.
    pub directories: u64,
    /// Files.
    pub files: u64,
    /// Links, devices and FIFOs.
    pub others: u64,
    /// Bytes of content to be had in the target at the end, once where several names share it.
    pub bytes: u64,
    /// Packs that are read from and frames in them.
    pub packs: u64,
    /// See `packs`.
    pub frames: u64,
    /// Bytes to be read from storage for the content of what is made and replaced.
    pub bytes_to_read: u64,
    /// What is not there yet.
    pub created: FirstPaths,
    /// What makes way for an entry of its name.
    pub replaced: FirstPaths,
    /// What is there and up to date.
    pub kept: u64,
    /// What is there and gets nothing but its metadata. The time of a directory does not count.
    pub metadata: FirstPaths,
    /// What is there, differs and is kept, since `overwrite` says so.
    pub kept_different: FirstPaths,
    /// Entries that are not restored, because something that stays has their name.
    pub blocked: FirstPaths,
    /// What `delete` removes.
    pub deletions: FirstPaths,
    /// What is known already not to come back as it was.
    pub warnings_count: u64,
    /// How much of that is damage of the repository.
    pub damaged: u64,
}

impl Serialize for PlanSummary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct PlanInfo {
            pub directories: u64,
            pub files: u64,
            pub others: u64,
            pub bytes: u64,
            pub packs: u64,
            pub frames: u64,
            pub bytes_to_read: u64,
            pub created: Vec<PathText>,
            pub created_count: u64,
            pub replaced: Vec<PathText>,
            pub replaced_count: u64,
            pub kept_count: u64,
            pub metadata: Vec<PathText>,
            pub metadata_count: u64,
            pub kept_different: Vec<PathText>,
            pub kept_different_count: u64,
            pub blocked: Vec<PathText>,
            pub blocked_count: u64,
            pub deletions: Vec<PathText>,
            pub deletions_count: u64,
        }
        let list = |paths: &FirstPaths| paths.first.iter().cloned().map(PathText).collect();
        let fields = PlanInfo {
            directories: self.directories,
            files: self.files,
            others: self.others,
            bytes: self.bytes,
            packs: self.packs,
            frames: self.frames,
            bytes_to_read: self.bytes_to_read,
            created: list(&self.created),
            created_count: self.created.count,
            replaced: list(&self.replaced),
            replaced_count: self.replaced.count,
            kept_count: self.kept,
            metadata: list(&self.metadata),
            metadata_count: self.metadata.count,
            kept_different: list(&self.kept_different),
            kept_different_count: self.kept_different.count,
            blocked: list(&self.blocked),
            blocked_count: self.blocked.count,
            deletions: list(&self.deletions),
            deletions_count: self.deletions.count,
        };
        fields.serialize(serializer)
    }
}

/// Paths by their fate.
#[derive(Default)]
pub(super) struct NamedPaths([BTreeSet<Vec<u8>>; FATES]);

impl NamedPaths {
    pub(crate) fn add(&mut self, fate: EntryFate, path: Vec<u8>) {
        let paths = &mut self.0[fate as usize];
        // The first ones in order, whatever thread met them first.
        if paths.len() < NAMED_MAX || paths.last().is_some_and(|last| path < *last) {
            paths.insert(path);
            if paths.len() > NAMED_MAX {
                paths.pop_last();
            }
        }
    }

    pub(crate) fn paths(&mut self, fate: EntryFate, count: u64) -> FirstPaths {
        FirstPaths { count, first: std::mem::take(&mut self.0[fate as usize]).into_iter().collect() }
    }
}

/// Frames that will be read, with their places: bytes from the pack's start, and length.
#[derive(Default)]
pub(super) struct PlannedReads(HashMap<PackId, HashSet<(u32, u32)>>);

impl PlannedReads {
    pub(crate) fn add(&mut self, pack: PackId, frame_offset: u32, frame_stored: u32) {
        self.0.entry(pack).or_default().insert((frame_offset, frame_stored));
    }

    pub(crate) fn count(&self, summary: &mut PlanSummary) {
        summary.packs = self.0.len() as u64;
        for frames in self.0.values() {
            summary.frames += frames.len() as u64;
            summary.bytes_to_read += frames.iter().map(|(_, length)| u64::from(*length)).sum::<u64>();
        }
    }
}
