//! Files of our own that other programs may have replaced: opened without waiting, listed without panics.

use super::rights::may_be_root;
use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, open, statat};
use rustix::process::geteuid;
use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind, Result};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Opens whatever has this name without waiting: a FIFO in the place of a file would hold a run for ever.
pub(crate) fn open_at_once(options: &mut OpenOptions, path: &Path) -> Result<File> {
    options.custom_flags((OFlags::NONBLOCK | OFlags::NOCTTY).bits() as i32).open(path)
}

/// Opens a regular file without waiting; anything else is an error (see [`is_not_a_file`]).
pub(crate) fn open_regular(options: &mut OpenOptions, path: &Path) -> Result<File> {
    let file = open_at_once(options, path).map_err(|error| match path.metadata() {
        // A FIFO without a reader, a socket, a folder.
        Ok(meta) if !meta.is_file() => not_a_file(),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_a_file()) }
}

/// Opens a regular file to read it.
pub(crate) fn read_regular(path: &Path) -> Result<File> {
    open_regular(OpenOptions::new().read(true), path)
}

fn not_a_file() -> Error {
    Error::new(ErrorKind::InvalidData, "it is not a file")
}

/// Whether an error of these says that something else is in the place of a file.
pub(crate) fn is_not_a_file(error: &Error) -> bool {
    error.kind() == ErrorKind::InvalidData
}

/// Why another user may decide what is in a directory of our own, if so: it, or one above it, belongs to another user than this one and
/// root, or every user may replace what is in it. What is not there yet does not count.
pub fn why_not_own(directory: &Path) -> Option<String> {
    let why = |path: &Path| {
        let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        let is_directory = FileType::from_raw_mode(stat.st_mode) == FileType::Directory;
        let mode = Mode::from_raw_mode(stat.st_mode);
        if stat.st_uid != geteuid().as_raw() && !may_be_root(stat.st_uid) {
            return Some(format!("{} belongs to another user", path.display()));
        }
        let is_open = is_directory && mode.contains(Mode::WOTH) && !mode.contains(Mode::SVTX);
        is_open.then(|| format!("every user may write to {} (see `chmod o-w`)", path.display()))
    };
    let real = directory.ancestors().find_map(|path| path.canonicalize().ok());
    directory.ancestors().chain(real.iter().flat_map(|real| real.ancestors())).find_map(why)
}

/// The names in a folder, and what they are as far as the file system says so. A symbolic link to a folder is an error.
pub(crate) fn names_in(folder: &Path) -> Result<Vec<(OsString, FileType)>> {
    list(folder, OFlags::NOFOLLOW)
}

/// The same of a folder that a symbolic link may lead to.
pub(crate) fn names_behind_links(folder: &Path) -> Result<Vec<(OsString, FileType)>> {
    list(folder, OFlags::empty())
}

/// `std::fs::read_dir` panics when closing the folder fails, as it may on a network file system.
fn list(folder: &Path, more: OFlags) -> Result<Vec<(OsString, FileType)>> {
    let mut names = Vec::new();
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC | more;
    for entry in Dir::new(open(folder, flags, Mode::empty())?)? {
        let entry = entry?;
        let name = entry.file_name().to_bytes();
        if name != b"." && name != b".." {
            names.push((OsStr::from_bytes(name).to_owned(), entry.file_type()));
        }
    }
    Ok(names)
}

/// Removes a folder with the files and folders in it, which must not be nested deeply: each level takes a descriptor.
pub(crate) fn remove_folder(folder: &Path) -> Result<()> {
    for (name, kind) in names_in(folder)? {
        let path = folder.join(name);
        let is_folder = match kind {
            FileType::Unknown => path.symlink_metadata()?.is_dir(),
            kind => kind == FileType::Directory,
        };
        if is_folder { remove_folder(&path)? } else { std::fs::remove_file(&path)? }
    }
    std::fs::remove_dir(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_file_is_refused_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        rustix::fs::mknodat(rustix::fs::CWD, at("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        std::fs::write(at("folder/file"), "x").unwrap();
        for name in ["fifo", "socket", "folder"] {
            assert!(is_not_a_file(&read_regular(&at(name)).unwrap_err()), "{name}");
            let written = open_regular(OpenOptions::new().write(true).create(true), &at(name));
            assert!(is_not_a_file(&written.unwrap_err()), "{name}");
        }
        assert!(read_regular(&at("folder/file")).is_ok());
        assert_eq!(read_regular(&at("none")).unwrap_err().kind(), ErrorKind::NotFound);
        assert_eq!(names_in(folder.path()).unwrap().len(), 3);
        remove_folder(folder.path()).unwrap();
        assert!(!folder.path().exists());
        std::fs::create_dir(folder.path()).unwrap();
    }
}
