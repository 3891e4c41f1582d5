//! How a walk reaches a directory later on: open for as long as it lasts, or opened again for each use.

use super::read_dir::Directory;
use super::refused::shown;
use super::stat::{Identity, fstat};
use crate::error::{Error, Kind, Result};
use std::ops::Deref;

/// Each thread keeps at most this many levels of directories open, and fewer where descriptors are short.
const LEVELS_OPEN_MAX: usize = 128;

/// How many levels of directories are kept open below each other when this many threads walk at once: of the descriptors that
/// the process may have, half are for these.
pub(crate) fn levels_open(descriptors: u64, threads: usize) -> usize {
    let share = usize::try_from(descriptors / 2).unwrap_or(usize::MAX) / threads.max(1);
    share.clamp(1, LEVELS_OPEN_MAX)
}

pub(crate) enum FolderHandle {
    Open(Directory),
    /// Too far down to be kept open, as a tree has more levels than a process has descriptors: what it must still be when it
    /// is opened again.
    Closed(Identity),
}

/// A directory in use.
pub(crate) enum HeldHandle<'f> {
    Kept(&'f Directory),
    Again(Directory),
}

impl Deref for HeldHandle<'_> {
    type Target = Directory;
    fn deref(&self) -> &Directory {
        match self {
            HeldHandle::Kept(directory) => directory,
            HeldHandle::Again(directory) => directory,
        }
    }
}

impl FolderHandle {
    /// Keeps the directory open, or only what it is known by.
    pub(crate) fn new(directory: Directory, keep_open: bool) -> Result<Self> {
        if keep_open {
            return Ok(FolderHandle::Open(directory));
        }
        Ok(FolderHandle::Closed(fstat(&directory)?.identity()))
    }

    /// The directory, whose path is needed where it was closed.
    pub(crate) fn get(&self, path: &[u8]) -> Result<HeldHandle<'_>> {
        let identity = match self {
            FolderHandle::Open(directory) => return Ok(HeldHandle::Kept(directory)),
            FolderHandle::Closed(identity) => *identity,
        };
        let directory = Directory::open_path(path)?;
        if fstat(&directory)?.identity() == identity {
            Ok(HeldHandle::Again(directory))
        } else {
            Err(Error::new(Kind::Conflict, "open the directory", shown(path)).because("it was replaced by another one"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_last_for_all_readers() {
        assert_eq!(levels_open(1 << 20, 16), LEVELS_OPEN_MAX);
        assert_eq!(levels_open(1024, 16), 32);
        assert_eq!(levels_open(16, 16), 1);
    }
}
