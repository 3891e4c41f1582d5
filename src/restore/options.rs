//! What to restore, where to and what to do about what is there already.

use crate::source::rules::Rules;
use std::path::PathBuf;

/// What happens to a file that is there already and differs from the snapshot's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Its content is compared; what differs is replaced.
    Always,
    /// As `Always`, but a file whose size and time agree is taken for the same without reading it.
    #[default]
    IfChanged,
    /// Replaced only when the snapshot's is newer.
    IfNewer,
    /// Kept, whatever it is.
    Never,
}

#[derive(Clone)]
pub struct RestoreOptions {
    /// The folder to restore into; made when it is not there.
    pub target: PathBuf,
    /// Only what is at or below this path of the snapshot; a directory's contents go right into the target.
    pub path: Option<Vec<u8>>,
    /// gitignore patterns of what is left out, matched against paths in the snapshot.
    pub exclude: Rules,
    /// Only what one of these patterns matches, with all below it; directories above it are made when they are missing.
    pub include: Option<Rules>,
    pub overwrite: Overwrite,
    /// Remove from the target what the snapshot does not have, at or below its sources.
    pub delete: bool,
    /// Read every restored file back and compare it with its chunks' names.
    pub verify: bool,
    /// Make holes of zeros, also where the source had none.
    pub sparse: bool,
    /// Restore owners and groups (needs privilege).
    pub owner: bool,
    /// Take owners by number instead of by name.
    pub numeric_ids: bool,
    /// Let the plan say exactly what will happen, and which packs, frames and ranges will be read: compares files as the
    /// restore will, and looks up every chunk.
    pub detailed: bool,
    /// Files written at the same time; from storage that is not local at least 4.
    pub writers: usize,
}

impl RestoreOptions {
    pub fn new(target: PathBuf) -> Self {
        RestoreOptions {
            target,
            path: None,
            exclude: Rules::default(),
            include: None,
            overwrite: Overwrite::default(),
            delete: false,
            verify: false,
            sparse: false,
            owner: rustix::process::geteuid().is_root(),
            numeric_ids: false,
            detailed: false,
            writers: std::thread::available_parallelism().map_or(2, |count| count.get()),
        }
    }
}

impl RestoreOptions {
    /// Whether some entries may be left out.
    pub(super) fn has_filter(&self) -> bool {
        self.include.is_some() || self.exclude.has_patterns()
    }

    /// Whether an include pattern names this entry itself; all of them without such patterns.
    pub(super) fn includes(&self, path: &[u8], is_directory: bool) -> bool {
        self.include.as_ref().is_none_or(|include| include.leaves_out(path, is_directory))
    }

    /// Whether an include pattern names this entry or a directory above it.
    pub(super) fn includes_with_parents(&self, path: &[u8], is_directory: bool) -> bool {
        let above = |end: &usize| path[*end] == b'/' && *end > 0;
        self.includes(path, is_directory) || (0..path.len()).filter(above).any(|end| self.includes(&path[..end], true))
    }
}
