//! Folders of a repository on this machine: whether they are folders at all, and moves between them that replace nothing.

use crate::error::{Error, Kind, Result};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, RenameFlags, open, renameat, renameat_with, statat, unlinkat};
use rustix::io::Errno;
use rustix::path::Arg;
use std::hash::{BuildHasher, RandomState};
use std::path::Path;

/// Refuses a folder of the repository that is none: to whoever lists it, nothing would seem to be there.
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

/// The name of an unfinished file, which no other process uses.
pub(super) fn unfinished_name(serial: u64) -> String {
    let unique = RandomState::new().hash_one(0);
    format!("{}-{serial}-{unique:x}", std::process::id())
}

fn is_unfinished_name(name: &[u8]) -> bool {
    let mut parts = name.split(|byte| *byte == b'-');
    let mut has_next =
        |is_valid: fn(&u8) -> bool| parts.next().is_some_and(|part| !part.is_empty() && part.iter().all(is_valid));
    let is_whole = has_next(u8::is_ascii_digit) && has_next(u8::is_ascii_digit) && has_next(u8::is_ascii_hexdigit);
    is_whole && parts.next().is_none()
}

/// Removes unfinished files that were last written before `seconds` (since 1970). Never behind a symbolic link, and nothing else that
/// somebody put there.
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

/// Whether nothing is at a path, as far as that goes for objects: links that lead round in circles lead nowhere.
pub(super) fn is_absent(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotFound || is_no_way(error)
}

/// Whether a component of a path is not a directory, or its symbolic links form a loop.
pub(super) fn is_no_way(error: &std::io::Error) -> bool {
    error.kind() == std::io::ErrorKind::NotADirectory || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}
