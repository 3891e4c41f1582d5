//! Sources below other sources: saved with the upper one where they lie on a file system that it does not enter.

use crate::backup::Run;
use crate::disk::stat::stat_path;
use crate::error::{Error, Result};
use std::ffi::CStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Where a walk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    /// The file system of the source.
    pub device: u64,
    /// Only on the way to a source further down: nothing else here is saved.
    pub is_passage: bool,
}

impl Place {
    pub fn source(device: u64) -> Self {
        Place { device, is_passage: false }
    }
}

pub(super) fn missing_source(error: Error) -> Error {
    error.hint("check the path: a source that is not there is an error")
}

/// Drops each path that the walk of a path above meets anyway: all below it, or when mount points are not entered those
/// with no other file system on the way. Sorts them.
pub(super) fn fold(mut paths: Vec<PathBuf>, one_file_system: bool) -> Result<Vec<PathBuf>> {
    paths.sort();
    let mut kept: Vec<PathBuf> = Vec::with_capacity(paths.len());
    // The kept paths above the current one, the nearest last.
    let mut above: Vec<PathBuf> = Vec::new();
    for path in paths {
        while above.last().is_some_and(|above| !path.starts_with(above)) {
            above.pop();
        }
        let is_met = match above.last() {
            Some(above) if one_file_system => is_on_the_same(above, &path)?,
            Some(_) => true,
            None => false,
        };
        if !is_met {
            above.push(path.clone());
            kept.push(path);
        }
    }
    Ok(kept)
}

/// Whether all from `above` down to `path` lie on one file system.
fn is_on_the_same(above: &Path, path: &Path) -> Result<bool> {
    let device = |path: &Path| stat_path(path.as_os_str().as_bytes(), false).map(|stat| stat.device);
    let wanted = device(above)?;
    for step in path.ancestors().take_while(|step| *step != above) {
        if device(step).map_err(missing_source)? != wanted {
            return Ok(false);
        }
    }
    Ok(true)
}

impl Run<'_> {
    /// Paths that lie below no other: where walks begin.
    pub(super) fn top_paths(&self) -> impl Iterator<Item = &PathBuf> {
        let mut top: Option<&PathBuf> = None;
        self.options.paths.iter().filter(move |path| {
            let is_top = !top.is_some_and(|top| path.starts_with(top));
            if is_top {
                top = Some(path);
            }
            is_top
        })
    }

    /// How a directory below is entered, if at all.
    pub(super) fn place_below(&self, above: Place, path: &[u8], device: u64) -> Option<Place> {
        if !above.is_passage && !self.options.rules.leaves_out_device(above.device, device) {
            return Some(above);
        }
        let below = |source: &&PathBuf| source.starts_with(Path::new(std::ffi::OsStr::from_bytes(path)));
        // Sorted: a source itself comes before those below it.
        let first = self.options.paths.iter().find(below)?;
        Some(Place { device, is_passage: first.as_os_str().as_bytes() != path })
    }

    /// Whether a name in a passage leads to a source.
    pub(super) fn leads_to_source(&self, folder: &[u8], name: &CStr) -> bool {
        let path = Path::new(std::ffi::OsStr::from_bytes(folder)).join(std::ffi::OsStr::from_bytes(name.to_bytes()));
        self.options.paths.iter().any(|source| source.starts_with(&path))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_met_anyway_is_dropped() {
        let table: &[(&[&str], &[&str])] = &[
            (&["/a/b", "/a-b", "/a"], &["/a", "/a-b"]),
            (&["/ab", "/a/c/d", "/a/c"], &["/a/c", "/ab"]),
            (&["/home", "/"], &["/"]),
            (&["/a", "/b"], &["/a", "/b"]),
        ];
        for (paths, expected) in table {
            let got = fold(paths.iter().map(PathBuf::from).collect(), false).unwrap();
            assert_eq!(got, expected.iter().map(PathBuf::from).collect::<Vec<_>>(), "{paths:?}");
        }
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let paths = || vec![below.clone(), folder.path().to_owned()];
        assert_eq!(fold(paths(), true).unwrap(), [folder.path()], "one file system");
        std::fs::remove_dir(&below).unwrap();
        assert!(fold(paths(), true).unwrap_err().advice().is_some());
    }
}
