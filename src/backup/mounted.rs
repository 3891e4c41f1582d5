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
    /// Whether the directory where a walk begins may be another one.
    pub(crate) fn is_another_top(&self, top: &WalkTop, handle: &Result<Directory>, selection: &Selection) -> bool {
        match handle {
            Ok(handle) if selection.is_kept_source(&top.path) => self.is_another_source(&top.path, fstat(handle)),
            _ => top.is_mounted || self.was_mounted(&top.path),
        }
    }

    /// Whether the directory of a source is not the one that the snapshot was chosen for. Notes that for the origin of the new one.
    pub(crate) fn is_another_source(&self, path: &[u8], opened: Result<Stat>) -> bool {
        !opened.is_ok_and(|opened| self.choice.identity.is_of(path, &opened))
    }

    /// Whether a directory below another one may be another one.
    pub(crate) fn is_another_below(&self, found: &FoundBelow, selection: &Selection) -> bool {
        let FoundBelow { folder, name, path, stat, handle } = found;
        let (FolderBaseline::Entries(_), Ok(handle)) = (&folder.baseline, handle) else { return false };
        let Ok(opened) = fstat(handle) else { return true };
        if selection.is_kept_source(path) {
            return self.is_another_source(path, Ok(opened));
        }
        // Between the two looks it may have been mounted over.
        let is_as_met = opened.identity() == stat.identity() && opened.mount == stat.mount;
        !is_as_met || folder.place.is_left_by(stat) || folder.baseline.was_mounted(name)
    }

    /// Whether the snapshot that the sources are compared with has there what was mounted.
    fn was_mounted(&self, path: &[u8]) -> bool {
        let parent = self.parent().filter(|_| self.choice.compare_with_parent && self.may_read());
        let entry = parent.map(|parent| self.entry_at(parent, path));
        matches!(entry, Some(Ok(Some(entry))) if entry.is_mounted)
    }
}
