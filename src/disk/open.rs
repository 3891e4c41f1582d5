//! Open files for reading without leaving traces, read them fully and find their holes.

use super::read_dir::Directory;
use super::refused::{refused, refused_name};
use super::stat::{Stat, fstat};
use crate::entry::{EntryKind, Hole};
use crate::error::{Error, Kind, Result};
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{Advice, OFlags, SeekFrom};
use rustix::io::Errno;
use rustix::path::Arg;

/// From this size on the kernel is told how a file will be read; below it the call costs more than it brings.
pub(crate) const ADVISE_BYTES_MIN: u64 = 1 << 20;

/// How many holes of one file are found at once; [`next_run`] finds those beyond.
pub(crate) const HOLES_MAX: usize = 1 << 20;

/// Opens a file for reading: no link followed, access time left alone, never waiting for the other end of a FIFO that
/// took the file's place. It may still be something else than a file: compare with [`fstat`] before or after reading
/// (a reader stats afterwards anyway, so this saves a call), or use [`open_file_checked`].
#[inline]
pub(crate) fn open_file(directory: &Directory, name: impl Arg + Copy) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = match directory.open_without_atime(name, flags) {
        // Only a regular file that another process holds a lease on answers so: waiting for it is right.
        Err(Errno::AGAIN) => directory.open_without_atime(name, flags - OFlags::NONBLOCK),
        other => other,
    };
    opened.map_err(|errno| refused_name("open", name, errno))
}

/// [`open_file`], and its stat; `Conflict` if it is not a regular file (any more).
pub(crate) fn open_file_checked(directory: &Directory, name: impl Arg + Copy) -> Result<(OwnedFd, Stat)> {
    let fd = open_file(directory, name)?;
    let stat = fstat(&fd)?;
    match stat.kind {
        Some(EntryKind::File) => Ok((fd, stat)),
        _ => {
            let shown = name.as_cow_c_str().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            Err(Error::new(Kind::Conflict, "read", shown).because("it is no longer a file"))
        }
    }
}

/// Says that a file will be read once from front to back: a larger read-ahead. Nothing for small files.
pub(crate) fn advise_sequential(fd: impl AsFd, size: u64) {
    if size >= ADVISE_BYTES_MIN {
        // Advice: that it is refused (a pipe, a FUSE) changes nothing.
        let _ = rustix::fs::fadvise(fd, 0, None, Advice::Sequential);
    }
}

/// Reads until the buffer is full or the file ends; returns the number of bytes.
#[inline]
pub(crate) fn read_full(fd: impl AsFd, buffer: &mut [u8]) -> Result<usize> {
    read_expected(fd, buffer, 0)
}

/// The same where a stat told how many bytes to expect: a read that stops short of the buffer and brings them to that many
/// or more is the end, which spares the call that would return nothing. With 0 expected only that call is the end.
#[inline]
pub(crate) fn read_expected(fd: impl AsFd, buffer: &mut [u8], expected: u64) -> Result<usize> {
    let fd = fd.as_fd();
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::read(fd, &mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => {
                filled += count;
                if expected > 0 && filled as u64 >= expected && filled < buffer.len() {
                    break;
                }
            }
            Err(Errno::INTR) => (),
            Err(errno) => return Err(refused("read", b"", errno)),
        }
    }
    Ok(filled)
}

/// The same at an offset; the descriptor's position stays, so that threads can share it.
#[inline]
pub(crate) fn read_full_at(fd: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    let fd = fd.as_fd();
    let mut filled = 0;
    while filled < buffer.len() {
        match rustix::io::pread(fd, &mut buffer[filled..], offset + filled as u64) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(Errno::INTR) => (),
            Err(errno) => return Err(refused("read", b"", errno)),
        }
    }
    Ok(filled)
}

/// The holes of a file of that size, in order; call it only where [`Stat::may_be_sparse`]. None where the file system
/// cannot tell. Leaves the descriptor at its start. `go_on` is asked before each of them; its error ends the search.
pub(crate) fn holes(fd: impl AsFd, size: u64, go_on: &dyn Fn() -> Result<()>) -> Result<Vec<Hole>> {
    let fd = fd.as_fd();
    let mut found = Vec::new();
    let mut at = 0;
    while at < size && found.len() < HOLES_MAX {
        go_on()?;
        // It was cut meanwhile, or the file system cannot tell, for which FUSE and network file systems have any error.
        // What is left is read as it is, and reading tells whether something is wrong with it.
        let Ok(offset) = rustix::fs::seek(fd, SeekFrom::Hole(at)) else { break };
        // What a FUSE file system says may make no sense.
        if offset >= size || offset < at {
            break;
        }
        let end = match rustix::fs::seek(fd, SeekFrom::Data(offset)) {
            Ok(end) => end.min(size),
            // No data up to the end.
            Err(Errno::NXIO) => size,
            Err(_) => break,
        };
        if end > offset {
            found.push(Hole { offset, length: end - offset });
        }
        at = end.max(offset + 1);
    }
    match rustix::fs::seek(fd, SeekFrom::Start(0)) {
        // One that can only be read from front to back has not moved.
        Ok(_) | Err(Errno::SPIPE) => Ok(found),
        Err(errno) => Err(refused("find the holes of a file", b"", errno)),
    }
}

/// What an open file has from `at` on, before `limit`: whether it is a hole, and where that or the data ends. All is data
/// where the file system cannot tell. Moves the descriptor's position.
pub(crate) fn next_run(fd: impl AsFd, at: u64, limit: u64) -> Result<(bool, u64)> {
    let fd = fd.as_fd();
    let failed = |errno| refused("find the holes of a file", b"", errno);
    let bounded = |end: u64| if end > at { end.min(limit) } else { limit };
    match rustix::fs::seek(fd, SeekFrom::Data(at)) {
        Ok(data) if data > at => Ok((true, data.min(limit))),
        Ok(_) => match rustix::fs::seek(fd, SeekFrom::Hole(at)) {
            Ok(hole) => Ok((false, bounded(hole))),
            // It was cut meanwhile: reading tells where it ends.
            Err(Errno::NXIO | Errno::INVAL | Errno::NOTSUP) => Ok((false, limit)),
            Err(errno) => Err(failed(errno)),
        },
        // No data up to the end, which may be nearer than it was.
        Err(Errno::NXIO) => {
            let end = rustix::fs::seek(fd, SeekFrom::End(0)).map_err(failed)?;
            Ok((end > at, bounded(end)))
        }
        Err(Errno::INVAL | Errno::NOTSUP) => Ok((false, limit)),
        Err(errno) => Err(failed(errno)),
    }
}

/// What a symbolic link points to.
pub(crate) fn read_link(directory: &Directory, name: impl Arg + Copy) -> Result<Vec<u8>> {
    match rustix::fs::readlinkat(directory, name, Vec::new()) {
        Ok(target) => Ok(target.into_bytes()),
        Err(errno) => Err(refused_name("read the link", name, errno)),
    }
}

/// As many open files as silt needs; more would only cost the commands that inherit the limit.
const OPEN_FILES_MAX: u64 = 65_536;

/// Raises this process' limit of open files to what silt needs, as far as that is allowed; returns the limit. A walk holds one directory
/// open per level and thread.
pub fn raise_open_files() -> u64 {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES_MAX, |maximum| maximum.min(OPEN_FILES_MAX));
    if limit.current.is_some_and(|current| current < wanted) {
        // Where it is refused, fewer files are open at a time.
        let _best_effort = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_fifo_in_a_files_place_is_found_without_waiting() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open_path(folder.path().as_os_str().as_bytes()).unwrap();
        rustix::fs::mknodat(&directory, c"f", rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
        assert_eq!(open_file_checked(&directory, c"f").unwrap_err().kind(), Kind::Conflict);
        std::os::unix::fs::symlink("f", folder.path().join("l")).unwrap();
        assert_eq!(open_file(&directory, c"l").unwrap_err().kind(), Kind::Conflict);
        assert_eq!(read_link(&directory, c"l").unwrap(), b"f");
    }

    #[test]
    fn reads_to_the_end_of_buffer_or_file() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("f"), b"0123456789").unwrap();
        let directory = Directory::open_path(folder.path().as_os_str().as_bytes()).unwrap();
        let (fd, stat) = open_file_checked(&directory, c"f").unwrap();
        assert_eq!(stat.size, 10);
        let mut buffer = [0; 7];
        assert_eq!(read_full(&fd, &mut buffer).unwrap(), 7);
        assert_eq!(read_full(&fd, &mut buffer).unwrap(), 3);
        rustix::fs::seek(&fd, SeekFrom::Start(0)).unwrap();
        assert_eq!(read_expected(&fd, &mut [0; 20], 4).unwrap(), 10, "more than expected comes all the same");
        assert_eq!(read_full_at(&fd, &mut buffer[..2], 4).unwrap(), 2);
        assert_eq!(&buffer[..2], b"45");
    }
}
