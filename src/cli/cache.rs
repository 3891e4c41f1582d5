//! The cache directory: where it is, and that it is marked as one.

use super::options::{GlobalOptions, absolute};
use super::xdg::folder;
use siltstone::disk::{make_private_dir, write_whole};
use siltstone::error::Result;
use std::path::{Path, PathBuf};

/// Tells other programs what may be left out (<https://bford.info/cachedir/>).
const TAG_NAME: &str = "CACHEDIR.TAG";
const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n\
                     # Cache of silt. This directory may be deleted: the next backup takes longer.\n";

pub(super) fn cache_folder(options: &GlobalOptions) -> Result<PathBuf> {
    match options.cache_dir.as_ref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => absolute(path),
        None => Ok(folder("XDG_CACHE_HOME", ".cache")?.join("siltstone")),
    }
}

/// Marks the folder as a cache.
pub(super) fn tag(cache: &Path) {
    let path = cache.join(TAG_NAME);
    if !path.exists() {
        // It only spares others to save the cache.
        let _best_effort = make_private_dir(cache).and_then(|()| write_whole(&path, TAG));
    }
}
