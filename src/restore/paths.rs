//! Paths of entries, for the walk and for people.

use crate::error::Error;

/// The most levels of directories that a restore creates.
pub(super) const DEPTH_MAX: usize = 4096;

/// A path for people. That of the root directory is empty in a snapshot.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(if path.is_empty() { b"/" } else { path }).into_owned()
}

pub(super) fn child_path(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut child = Vec::with_capacity(path.len() + 1 + name.len());
    child.extend_from_slice(path);
    child.push(b'/');
    child.extend_from_slice(name);
    child
}

/// The error with this path wherever it names only the last part of it, or the directory itself.
pub(super) fn named_in_full(error: Error, path: &str) -> Error {
    let name = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path);
    error.renamed(".", path).renamed(name, path)
}
