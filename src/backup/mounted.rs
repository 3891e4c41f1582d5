//! Without local state, a directory is compared with what a snapshot has at its path. Where something is mounted, or was when that snapshot
//! was made, these may be two directories, with files of the same sizes and times.

use crate::backup::baseline::Baseline;
use crate::backup::folder::SourceFolder;
use crate::backup::old_entries::FolderBaseline;
use crate::backup::selection::Selection;
use crate::backup::tops::WalkTop;
use crate::disk::stat::fstat;
use crate::disk::{Directory, Stat};
use crate::error::Result;

/// A directory below another one, as it was met and as it was opened.
pub(super) struct FoundBelow<'f> {
    pub folder: &'f SourceFolder,
    pub name: &'f [u8],
    pub path: &'f [u8],
    pub stat: &'f Stat,
    pub handle: &'f Result<Directory>,
}

impl Baseline<'_> {
    /// Whether the directory where a walk begins may be another one than the snapshot has.
    pub(crate) fn may_be_other_top(&self, top: &WalkTop, handle: &Result<Directory>, selection: &Selection) -> bool {
        let Ok(handle) = handle else { return true };
        if selection.is_snapshot_source(&top.path) {
            return self.note_if_exchanged(&top.path, fstat(handle));
        }
        top.is_mounted || !is_as_met(&top.stat, handle) || self.was_mounted(&top.path)
    }

    /// Whether the directory of a source is not the one that the snapshot was chosen for. Then the new snapshot states no origin.
    pub(crate) fn note_if_exchanged(&self, path: &[u8], opened: Result<Stat>) -> bool {
        opened.map_or(true, |opened| self.choice.identity.note_if_exchanged(path, &opened))
    }

    /// Whether a directory below another one may be another one than the snapshot has.
    pub(crate) fn may_be_other_below(&self, found: &FoundBelow, selection: &Selection) -> bool {
        let FoundBelow { folder, name, path, stat, handle } = found;
        let Ok(handle) = handle else { return true };
        let is_left = folder.place.is_left_by(stat);
        // A source below another one has a walk of its own, or is on another file system.
        if is_left && selection.is_snapshot_source(path) {
            return self.note_if_exchanged(path, fstat(handle));
        }
        let FolderBaseline::Entries(_) = &folder.baseline else { return false };
        is_left || folder.baseline.was_mounted(name) || !is_as_met(stat, handle)
    }

    /// Whether the snapshot that the sources are compared with has there what was mounted.
    fn was_mounted(&self, path: &[u8]) -> bool {
        let parent = self.parent().filter(|_| self.choice.compare_with_parent && self.may_read());
        let entry = parent.map(|parent| self.entry_at(parent, path));
        matches!(entry, Some(Ok(Some(entry))) if entry.is_mounted)
    }
}

/// Whether a directory is still the one that was met: meanwhile another one may have been mounted over it, or have taken its name.
fn is_as_met(stat: &Stat, handle: &Directory) -> bool {
    fstat(handle).is_ok_and(|opened| opened.identity() == stat.identity() && opened.mount == stat.mount)
}
