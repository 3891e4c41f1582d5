//! What the errors of a file system mean for objects.

use crate::disk::device::{Medium, medium_of};
use crate::error::{Error, Kind, Result};
use rustix::io::Errno;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// Whether nothing is at a path, as far as that matters for objects: links that form a loop lead nowhere.
pub(super) fn is_absent(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || is_no_way(error)
}

/// Whether a component of a path is not a directory, or its symbolic links form a loop.
fn is_no_way(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotADirectory || error.raw_os_error() == Some(Errno::LOOP.raw_os_error())
}

pub(super) fn failed(doing: &str, path: &Path, error: io::Error) -> Error {
    // Nothing can be below an object, which may be where a directory is asked for.
    let is_below_object = is_no_way(&error);
    let is_file_above = error.kind() == io::ErrorKind::NotADirectory;
    let may_pass = error.raw_os_error().is_some_and(|number| may_pass(Errno::from_raw_os_error(number), path));
    let is_across = error.kind() == io::ErrorKind::CrossesDevices;
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    let error = Error::io(doing, path.display(), error);
    match error.kind() {
        _ if is_below_object => {
            let error = error.with_kind(Kind::NotFound);
            if is_file_above {
                error.hint("a file is in the place of a directory of the repository: move it away")
            } else {
                error
            }
        }
        _ if may_pass => {
            error.with_kind(Kind::Temporary).hint("check the file system and the server that it comes from")
        }
        _ if is_across => {
            error.hint("all directories of a repository must be on one file system, as objects are renamed into them")
        }
        _ if is_full => error.hint("free space on that file system; what is stored already stays good"),
        Kind::Denied => {
            error.hint("check who owns the directory of the repository, and whether it is mounted read-only")
        }
        _ => error,
    }
}

/// Whether the disk cannot read what it has.
fn is_unreadable(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    // The last two are what the kernel makes of errors of the medium, too.
    let known = [Errno::IO, Errno::UCLEAN, Errno::BADMSG, Errno::NODATA, Errno::REMOTEIO];
    errno.is_some_and(|errno| known.contains(&errno))
}

/// Whether something else is in the place of an object: a directory, or a socket.
fn is_no_object(error: &io::Error) -> bool {
    let errno = error.raw_os_error().map(Errno::from_raw_os_error);
    errno.is_some_and(|errno| matches!(errno, Errno::ISDIR | Errno::NXIO))
}

/// Classifies a failed read: if the disk cannot read the object, it is damaged; if the object is not a file, it is missing.
pub(super) fn cannot_read(path: &Path, error: io::Error) -> Error {
    let (is_unreadable, is_no_object) = (is_unreadable(&error), is_no_object(&error));
    let error = failed("read", path, error);
    if is_unreadable && !error.is(Kind::Temporary) {
        error.with_kind(Kind::Corrupt).hint("check the disk: it cannot read this file")
    } else if is_no_object {
        error.with_kind(Kind::NotFound)
    } else {
        error
    }
}

/// Whether an error may be over soon: of a disk of this machine none is, of a network file system several.
fn may_pass(errno: Errno, path: &Path) -> bool {
    let folder = path.parent().unwrap_or(path);
    let is_remote = || medium_of(folder.as_os_str().as_bytes()).is_ok_and(|medium| medium == Medium::Network);
    match errno {
        Errno::AGAIN | Errno::INTR | Errno::STALE | Errno::TIMEDOUT | Errno::HOSTDOWN | Errno::NOLINK => true,
        // A disk that cannot be read, or the answer of a mount that gave up on its server.
        Errno::IO | Errno::REMOTEIO => is_remote(),
        _ => false,
    }
}

/// `NotFound` if what is at a path is not a file.
pub(super) fn check_object(doing: &str, path: &Path, meta: &std::fs::Metadata) -> Result<()> {
    if meta.is_file() {
        Ok(())
    } else {
        Err(Error::new(Kind::NotFound, doing, path.display()).because("it is not a file"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A network file system whose server was restarted ended a backup; a broken disk must end one.
    #[test]
    fn only_what_may_pass_is_temporary() {
        let kind = |errno: Errno| failed("read", Path::new("/tmp/x"), errno.into()).kind();
        for errno in [Errno::STALE, Errno::AGAIN, Errno::INTR, Errno::TIMEDOUT, Errno::HOSTDOWN] {
            assert_eq!(kind(errno), Kind::Temporary, "{errno}");
        }
        // /tmp is on a disk of this machine, or in its memory.
        for errno in [Errno::IO, Errno::NOSPC, Errno::ACCESS, Errno::ROFS, Errno::NOENT, Errno::MFILE] {
            assert_ne!(kind(errno), Kind::Temporary, "{errno}");
        }
        // What a broken disk cannot read is lost, and is stored again like all that is.
        for (errno, expected) in
            [(Errno::IO, Kind::Corrupt), (Errno::UCLEAN, Kind::Corrupt), (Errno::NOMEM, Kind::Full)]
        {
            assert_eq!(cannot_read(Path::new("/tmp/x"), errno.into()).kind(), expected, "{errno}");
        }
    }
}
