//! What to restore, where to, and how to treat existing files.

use crate::source::rules::Rules;
use std::path::PathBuf;

/// What happens to a file that is there already and differs from the snapshot's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Overwrite {
    /// Its content is compared; what differs is replaced.
    Always,
    /// Like `Always`, but a file with the same size and modification time counts as the same and is not read.
    #[default]
    IfChanged,
    /// Replaced only when the snapshot's is newer.
    IfNewer,
    /// Kept, whatever it is.
    Never,
}

/// What to restore and how.
#[derive(Clone)]
pub struct RestoreOptions {
    /// The directory to restore into; created if it does not exist.
    pub target: PathBuf,
    /// Restores only what is at or below this path of the snapshot; the contents of a directory are restored directly
    /// into the target.
    pub path: Option<Vec<u8>>,
    /// gitignore patterns of what is left out, matched against paths in the snapshot.
    pub exclude: Rules,
    /// Restores only what one of these patterns matches and everything below it; missing parent directories are created.
    pub include: Option<Rules>,
    /// What happens to existing files.
    pub overwrite: Overwrite,
    /// Remove from the target what the snapshot does not have, at or below its sources.
    pub delete: bool,
    /// Read every restored file back and compare it with the ids of its chunks.
    pub verify: bool,
    /// Write runs of zeros as holes, even where the source had none.
    pub sparse: bool,
    /// Restore owners and groups (needs privilege).
    pub owner: bool,
    /// Take owners by number instead of by name.
    pub numeric_ids: bool,
    /// Let the plan say exactly what will happen, and which packs and frames will be read: compares files as the
    /// restore will, and looks up every chunk.
    pub detailed: bool,
    /// How many threads write files; at least 4 if the storage is remote.
    pub writers: usize,
}

impl RestoreOptions {
    /// Restores everything, with every setting at its default.
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
