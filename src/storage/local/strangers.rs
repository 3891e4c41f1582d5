//! What is in a directory that belongs to no repository.

use crate::disk::own_files::names_behind_links;
use crate::error::{Error, Result};
use crate::storage::files::UNFINISHED;
use std::ffi::OsString;
use std::path::Path;

/// What may stand beside the objects of a repository, or be what an `init` that was interrupted left.
const EXPECTED: [&str; 11] = [
    "config",
    "expired",
    "index",
    "keys",
    "lost+found",
    "packs",
    "pending",
    "probe",
    "settings",
    "snapshots",
    UNFINISHED,
];

/// Something in a folder that belongs to no repository, if there is any; a folder that is not there has none.
pub fn stranger_in(folder: &Path) -> Result<Option<OsString>> {
    let failed = |error| Error::io("look into", folder.display(), error);
    let names = match names_behind_links(folder) {
        Ok(names) => names,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut names = names.into_iter().map(|(name, _)| name);
    Ok(names.find(|name| EXPECTED.iter().all(|expected| *expected != name)))
}
