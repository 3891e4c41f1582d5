//! Where a segment is written, and names that no other process uses.

use crate::error::Error;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::path::{Path, PathBuf};

/// An unpredictable number.
pub(super) fn unforeseen() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Where a segment is written.
#[derive(Clone, Debug)]
pub(super) enum SegmentPlace {
    /// It appears under this path when it is finished.
    File(PathBuf),
    Memory,
}

impl SegmentPlace {
    /// For messages.
    pub(crate) fn shown(&self) -> String {
        match self {
            SegmentPlace::File(path) => path.display().to_string(),
            SegmentPlace::Memory => "in memory".to_owned(),
        }
    }

    pub(crate) fn apart(&self, what: &str) -> SegmentPlace {
        match self {
            SegmentPlace::File(path) => SegmentPlace::File(named_apart(path, what)),
            SegmentPlace::Memory => SegmentPlace::Memory,
        }
    }

    pub(crate) fn failed(&self, error: std::io::Error) -> Error {
        Error::io("write the index segment", self.shown(), error)
    }
}

/// The name of a file that does not have its own yet; removed unless it got it.
pub(super) struct UnfinishedSegment(pub(super) PathBuf);

impl Drop for UnfinishedSegment {
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
