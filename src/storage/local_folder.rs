//! Folders of a repository on this machine: what is in them, and whether they are folders at all.

use crate::error::{Error, Kind, Result};
use rustix::fs::{Dir, FileType, Mode, OFlags, open};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// The names in a folder and what its entries say that they are. `std::fs::read_dir` panics when closing a folder fails, as
/// it may on a network file system.
pub(super) fn names_in(folder: &Path) -> std::io::Result<Vec<(OsString, FileType)>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut names = Vec::new();
    for entry in Dir::new(open(folder, flags, Mode::empty())?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

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
