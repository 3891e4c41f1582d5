//! Small files of our own, written whole or not at all and read with a bound.

use super::own_files::read_regular;
use crate::error::{Error, Kind, Result};
use rustix::fd::AsFd;
use rustix::fs::{AtFlags, CWD, RenameFlags, linkat, renameat_with};
use rustix::io::Errno;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// What names of unfinished writes start with; those of a killed process may remain.
pub(crate) const UNFINISHED_PREFIX: &str = ".silt-unfinished-";

/// Writes a file so that after a crash there is the old one or the new one, and when it returns, the new one.
/// Readable for other users as far as the umask allows.
pub fn write_whole(path: &Path, bytes: &[u8]) -> Result<()> {
    write_with(path, bytes, 0o666, |from, to| std::fs::rename(from, to))
        .map_err(|error| Error::io("write", path.display(), error))
}

/// Writes a new file for a secret: at every moment only the owner can read it. Returns whether it did: what has the name already
/// stays.
pub fn write_new_private(path: &Path, bytes: &[u8]) -> Result<bool> {
    match write_with(path, bytes, 0o600, rename_new) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(Error::io("write", path.display(), error)),
    }
}

/// Writes a file beside its place; `rename` takes it there.
fn write_with(
    path: &Path,
    bytes: &[u8],
    mode: u32,
    rename: impl FnOnce(&Path, &Path) -> std::io::Result<()>,
) -> std::io::Result<()> {
    let folder = folder_of(path);
    let (mut file, unfinished) = create_unfinished(&folder, mode)?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| rename(&unfinished, path));
    if let Err(error) = written {
        // Nothing more can be done about it; the name says what it is.
        let _ = std::fs::remove_file(&unfinished);
        return Err(error);
    }
    // The new name must outlive a crash too.
    File::open(&folder).and_then(sync_directory)
}

fn rename_new(from: &Path, to: &Path) -> std::io::Result<()> {
    match renameat_with(CWD, from, CWD, to, RenameFlags::NOREPLACE) {
        // A file system without that flag (NFS).
        Err(Errno::INVAL | Errno::NOSYS) => match linkat(CWD, from, CWD, to, AtFlags::empty()) {
            // Nor with links: nothing better is left there than to look first.
            Err(Errno::PERM | Errno::NOTSUP | Errno::NOSYS | Errno::INVAL)
                if std::fs::symlink_metadata(to).is_err() =>
            {
                std::fs::rename(from, to)
            }
            linked => Ok(linked?).and_then(|()| std::fs::remove_file(from)),
        },
        renamed => Ok(renamed?),
    }
}

/// Makes names in an open directory outlive a crash, as far as its file system can: some have no such operation (VirtualBox' shared
/// folders, AFS), and keep names their own way.
pub(crate) fn sync_directory(directory: impl AsFd) -> std::io::Result<()> {
    match rustix::fs::fsync(directory) {
        Err(Errno::INVAL | Errno::NOTSUP | Errno::NOSYS) => Ok(()),
        synced => Ok(synced?),
    }
}

fn folder_of(path: &Path) -> PathBuf {
    match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => PathBuf::from("."),
    }
}

/// A new file in the same folder: only there a rename is one step. Its own name, since the final one may have the
/// greatest length already.
fn create_unfinished(folder: &Path, mode: u32) -> std::io::Result<(File, PathBuf)> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{UNFINISHED_PREFIX}{}-{number}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&path) {
            Ok(file) => return Ok((file, path)),
            // Of a killed process with our number.
            Err(error) if error.kind() == ErrorKind::AlreadyExists => (),
            Err(error) => return Err(error),
        }
    }
}

/// The whole file of our own; whatever else has its name is refused at once, as a FIFO would hold us for ever.
pub(crate) fn read_own(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let failed = |error| Error::io("read", path.display(), error);
    read_to_bound(read_regular(path).map_err(failed)?, path, bytes_max)
}

/// The whole file; `Invalid` if it has more than `bytes_max` bytes.
pub fn read_bounded(path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let failed = |error| Error::io("read", path.display(), error);
    read_to_bound(File::open(path).map_err(failed)?, path, bytes_max)
}

fn read_to_bound(file: File, path: &Path, bytes_max: u64) -> Result<Vec<u8>> {
    let failed = |error| Error::io("read", path.display(), error);
    let mut bytes = Vec::new();
    // One more than allowed tells; a size asked before could change.
    file.take(bytes_max.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    if bytes.len() as u64 > bytes_max {
        Err(Error::invalid("read", path.display(), format!("it has more than {bytes_max} bytes")))
    } else {
        Ok(bytes)
    }
}

/// Makes a directory, and those above it, that only their owner can enter; one that is there already is taken as it
/// is if it is a directory.
pub fn make_private_dir(path: &Path) -> Result<()> {
    let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.map_err(|error| {
        let there = error.kind() == ErrorKind::AlreadyExists;
        let error = Error::io("create the directory", path.display(), error);
        if there {
            error
                .with_kind(Kind::AlreadyExists)
                .hint("remove or rename it: something other than a directory has that name")
        } else {
            error
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn replaces_whole_and_leaves_nothing_behind() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n".repeat(255));
        write_whole(&path, b"old").unwrap();
        write_whole(&path, b"new").unwrap();
        assert_eq!(read_bounded(&path, 3).unwrap(), b"new");
        assert_eq!(read_bounded(&path, 2).unwrap_err().kind(), Kind::Invalid);
        assert!(write_whole(&folder.path().join("no/where"), b"").unwrap_err().is(Kind::NotFound));
        // A directory has the name: the rename fails.
        std::fs::create_dir(folder.path().join("d")).unwrap();
        assert!(write_whole(&folder.path().join("d"), b"").is_err());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
    }

    /// Of two runs that made one key file at the same time, the later one replaced that of the other, whose repository then opened with
    /// its recovery key only.
    #[test]
    fn a_new_secret_does_not_replace_another() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        assert!(write_new_private(&path, b"first").unwrap());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!write_new_private(&path, b"second").unwrap());
        assert_eq!(std::fs::read(&path).unwrap(), b"first");
        assert!(write_new_private(&folder.path().join("no/where"), b"").unwrap_err().is(Kind::NotFound));
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn private_directories_are_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a/b");
        make_private_dir(&path).unwrap();
        make_private_dir(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        std::fs::write(path.join("f"), b"").unwrap();
        assert!(make_private_dir(&path.join("f")).unwrap_err().is(Kind::AlreadyExists));
    }
}
