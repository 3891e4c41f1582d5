//! Sources below other sources: each must be met by a walk, or is reported as missing. A folder above one may have become a
//! link, or be gone, since the sources were looked at.

use crate::disk::NameList;
use crate::lock::locked;
use std::collections::HashMap;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Names by the folder that they are in.
type MissedSource = HashMap<Vec<u8>, Vec<Vec<u8>>>;

/// Sources that no walk has met yet.
#[derive(Default)]
pub(super) struct ExpectedSources {
    folders: AtomicUsize,
    missed: Mutex<MissedSource>,
}

impl ExpectedSources {
    pub(crate) fn add<'p>(&self, paths: impl Iterator<Item = &'p Path>) {
        let mut missed = locked(&self.missed);
        for path in paths {
            let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else { continue };
            let folder = folder.as_os_str().as_bytes();
            match missed.get_mut(folder) {
                Some(names) => names.push(name.as_bytes().to_vec()),
                None => drop(missed.insert(folder.to_vec(), vec![name.as_bytes().to_vec()])),
            }
        }
        self.folders.store(missed.len(), Ordering::Release);
    }

    /// A folder was listed: what has its name in it is met, and whatever is wrong with it is reported there.
    pub(crate) fn met(&self, folder: &[u8], names: &NameList) {
        if self.folders.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut missed = locked(&self.missed);
        if let Some(expected) = missed.get_mut(folder) {
            expected.retain(|name| names.find(name).is_none());
        }
    }

    /// The paths that no walk has met.
    pub(crate) fn take(&self) -> Vec<Vec<u8>> {
        let missed = std::mem::take(&mut *locked(&self.missed));
        let path = |folder: &[u8], name: &[u8]| [folder.strip_suffix(b"/").unwrap_or(folder), b"/", name].concat();
        let paths = missed.iter().flat_map(|(folder, names)| names.iter().map(|name| path(folder, name)));
        let mut paths: Vec<Vec<u8>> = paths.collect();
        paths.sort();
        paths
    }
}
