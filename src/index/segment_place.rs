//! Where a segment is written, and names that no other process uses.

use crate::error::Error;
use std::hash::Hasher;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};

/// An unpredictable number.
pub(super) fn unforeseen() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Where a segment is written.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// It appears under this path when it is finished.
    File(PathBuf),
    Memory,
}

impl Place {
    /// For messages.
    pub fn shown(&self) -> String {
        match self {
            Place::File(path) => path.display().to_string(),
            Place::Memory => "in memory".to_owned(),
        }
    }

    pub fn apart(&self, what: &str) -> Place {
        match self {
            Place::File(path) => Place::File(named_apart(path, what)),
            Place::Memory => Place::Memory,
        }
    }

    pub fn failed(&self, error: std::io::Error) -> Error {
        Error::io("write the index segment", self.shown(), error)
    }
}

/// The name of a file that does not have its own yet; removed unless it got it.
pub(super) struct Unfinished(pub(super) PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the renaming there is nothing under this name; names are never used twice.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A name beside this one that no other process uses.
pub(super) fn named_apart(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{what}-{:016x}", unforeseen()));
    path.with_file_name(name)
}
