//! Whether the folders of a repository on this machine are folders at all.

use crate::error::{Error, Kind, Result};
use std::path::Path;

/// Refuses a folder of the repository that is none: to whoever lists it, nothing would seem to be there.
pub(super) fn check_folder(path: &Path) -> Result<()> {
    let why = match (path.symlink_metadata(), std::fs::metadata(path)) {
        (Ok(_), Ok(meta)) if meta.is_dir() => return Ok(()),
        (Ok(link), Err(error)) if link.is_symlink() && is_absent(&error) => "it is a symbolic link that leads nowhere",
        (Ok(_), Ok(_)) => "it is not a directory",
        // That it is absent, or cannot be looked into, shows when it is listed.
        _ => return Ok(()),
    };
    Err(Error::new(Kind::Failed, "list", path.display()).because(why).hint(
        "a repository keeps objects there, in a directory or a symbolic link to one: check whether its disk is mounted",
    ))
}

pub(super) fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}
