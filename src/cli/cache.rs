//! The cache directory: where it is, that it is marked as one, and whom it belongs to.

use super::open::folder;
use super::options::{GlobalOptions, absolute};
use rustix::fs::{AtFlags, CWD, statat};
use rustix::process::{Uid, geteuid};
use siltstone::disk::whole::{make_private_dir, write_whole};
use siltstone::error::Result;
use std::path::{Path, PathBuf};

/// Tells other programs what may be left out (<https://bford.info/cachedir/>).
const TAG_NAME: &str = "CACHEDIR.TAG";
const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n\
                     # Cache of silt. This directory may be deleted: the next backup takes longer.\n";

pub fn cache_folder(options: &GlobalOptions) -> Result<PathBuf> {
    match options.cache_dir.as_ref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => absolute(path),
        None => Ok(folder("XDG_CACHE_HOME", ".cache")?.join("siltstone")),
    }
}

/// Marks the folder as a cache.
pub fn tag(cache: &Path) {
    let path = cache.join(TAG_NAME);
    if !path.exists() {
        // It only spares others to save the cache.
        let _best_effort = make_private_dir(cache).and_then(|()| write_whole(&path, TAG));
    }
}

/// Whether this is root, and the cache is not.
pub fn is_of_somebody_else(cache: &Path) -> bool {
    geteuid().is_root() && owner_of(cache).is_some()
}

/// The owner of the folder or of one above it; none where all of them are root's. The owner of a folder can replace what
/// is in it by links to elsewhere, and what root makes in it would lock that user out.
fn owner_of(cache: &Path) -> Option<Uid> {
    let owner = |path: &Path| {
        let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (stat.st_uid != 0).then(|| Uid::from_raw(stat.st_uid))
    };
    let real = cache.ancestors().find_map(|path| path.canonicalize().ok());
    cache.ancestors().chain(real.iter().flat_map(|real| real.ancestors())).find_map(owner)
}
