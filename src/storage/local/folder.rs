//! Directories of a repository on this machine: created, synced, checked, and moves between them that replace nothing.

use crate::disk::whole::sync_directory;
use crate::error::{Error, Kind, Result};
use crate::storage::files::is_unfinished_name;
use crate::storage::local::errors::{failed, is_absent};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, open, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;
use std::fs::{DirBuilder, File};
use std::os::unix::fs::DirBuilderExt;
use std::path::Path;

/// Refuses a folder of the repository that is not a directory: a listing of it would seem to be empty.
pub(super) fn check_folder(doing: &str, path: &Path) -> Result<()> {
    let why = match (path.symlink_metadata(), std::fs::metadata(path)) {
        (Ok(_), Ok(meta)) if meta.is_dir() => return Ok(()),
        (Ok(link), Err(error)) if link.is_symlink() && is_absent(&error) => "it is a broken symbolic link",
        (Ok(_), Ok(_)) => "it is not a directory",
        // That it is absent, or cannot be looked into, shows when it is listed.
        _ => return Ok(()),
    };
    Err(Error::new(Kind::Failed, doing, path.display()).because(why).hint(
        "a repository keeps objects there, in a directory or a symbolic link to one: check whether its disk is mounted",
    ))
}

/// Removes unfinished files that were last written before `seconds` (since 1970). Never through a symbolic link, and nothing else that
/// other programs put there.
pub(super) fn remove_unfinished(folder: &Path, seconds: i64) -> std::io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let folder = open(folder, flags, Mode::empty())?;
    for entry in Dir::read_from(&folder)? {
        let entry = entry?;
        let name = entry.file_name();
        if !is_unfinished_name(name.to_bytes()) {
            continue;
        }
        // Another writer may have finished it.
        let Ok(stat) = statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) else { continue };
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && stat.st_mtime < seconds {
            let _somebody_else_did = unlinkat(&folder, name, AtFlags::empty());
        }
    }
    Ok(())
}

/// Moves a file in one step, never onto another.
pub(super) fn rename_new(
    from: impl AsFd,
    name: impl Arg + Copy,
    to: impl AsFd,
    new_name: impl Arg + Copy,
) -> std::io::Result<()> {
    match renameat_with(&from, name, &to, new_name, RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        // File systems without that flag (NFS): of two movers of one file a plain rename still lets one win, which is
        // what commits rely on; two links would both succeed.
        Err(Errno::INVAL | Errno::NOSYS) => match statat(&to, new_name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(_) => Err(std::io::ErrorKind::AlreadyExists.into()),
            Err(Errno::NOENT) => Ok(renameat(&from, name, &to, new_name)?),
            Err(errno) => Err(errno.into()),
        },
        Err(errno) => Err(errno.into()),
    }
}

pub(super) fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(sync_directory);
    synced.map_err(|error| failed("sync the directory", folder, error))
}

/// Creates a directory and its missing parents, and syncs the parent of each. Returns an error if one of the names belongs to something else.
pub(super) fn make_folders(folder: &Path) -> Result<()> {
    let above = folder.parent().filter(|above| !above.as_os_str().is_empty());
    let make = || DirBuilder::new().mode(0o700).create(folder);
    let made = match (make(), above) {
        (Err(error), Some(above)) if error.kind() == std::io::ErrorKind::NotFound => {
            make_folders(above)?;
            make()
        }
        (made, _) => made,
    };
    match made {
        Ok(()) => above.map_or(Ok(()), sync_folder),
        Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => check_folder("use the directory", folder),
        Err(error) => Err(failed("create the directory", folder, error)),
    }
}
