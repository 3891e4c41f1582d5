//! Two ways to one directory, through mounts: what is restored by the first way is there by the second one, unless something else is
//! mounted below one of them.

use crate::disk::Stat;
use crate::disk::stat::stat_path;
use crate::error::{Kind, Result};
use crate::restore::location::{DirectoryLocation, MountTable};
use crate::restore::run::RestoreRun;
use std::collections::BTreeSet;

impl RestoreRun<'_> {
    /// Returns the places below `path` that have saved entries and were not restored by the first way, which has this mount number.
    /// `second` is where another way to the same directory leads; at these places the two ways lead to different entries. None if the
    /// first way is not known.
    pub(crate) fn only_by_second_way(
        &self,
        path: &[u8],
        mounts: &MountTable,
        first: u64,
        second: &DirectoryLocation,
    ) -> Result<Option<Vec<Vec<u8>>>> {
        let Some(first) = mounts.path_by(first, second) else { return Ok(None) };
        let mut places = Vec::new();
        for below in mounts_below(mounts, &first).union(&mounts_below(mounts, &second.path)) {
            let place = [path, below].concat();
            let saved = self.stored(self.scope.saved_at(&self.reader, &place))?;
            let has_saved = match &saved {
                Some(saved) => !saved.is_directory() || self.has_entries(saved)?,
                None => false,
            };
            if has_saved && !is_one(&[&first, *below].concat(), &[&second.path, *below].concat(), mounts)? {
                places.push(place);
            }
        }
        Ok(Some(places))
    }
}

/// Whether what is restored at the first path is there by the second one.
fn is_one(first: &[u8], second: &[u8], mounts: &MountTable) -> Result<bool> {
    let look = |path: &[u8]| match stat_path(path, false) {
        Ok(stat) => Ok(Some(stat)),
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => Ok(None),
        Err(error) => Err(error),
    };
    let (Some(first), Some(second)) = (look(first)?, look(second)?) else { return Ok(false) };
    let is_closed = |stat: &Stat| mounts.is_read_only(stat) == Some(true);
    Ok(first.identity() == second.identity() && (!is_closed(&first) || is_closed(&second)))
}

/// The paths, from a directory on, of what is mounted below it.
fn mounts_below<'m>(mounts: &'m MountTable, directory: &[u8]) -> BTreeSet<&'m [u8]> {
    let below = |point: &'m [u8]| point.strip_prefix(directory).filter(|path| path.len() > 1 && path[0] == b'/');
    mounts.of_files().filter_map(|mount| below(&mount.point)).collect()
}
