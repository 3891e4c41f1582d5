//! List what a snapshot holds, as a stream of entries.

use super::path::{clean, resolve};
use super::walk::Walk;
use crate::entry::Entry;
use crate::error::Result;
use crate::repo::{Reader, Snapshot};

/// Calls `each` with path and entry: of everything in the directory at `path` (with `recursive` also below its
/// directories, each directory before what is in it), or of the one thing there that is no directory. A page for each
/// level is all that is held in memory.
pub fn list(
    reader: &Reader,
    snapshot: &Snapshot,
    path: &[u8],
    recursive: bool,
    each: &mut dyn FnMut(&[u8], &Entry) -> Result<()>,
) -> Result<()> {
    let path = clean(path)?;
    let top = resolve(reader, snapshot, &path)?;
    if !top.is_directory() {
        return each(&path, &top);
    }
    let mut walk = Walk::new(reader, &top, &path);
    while let Some(entry) = walk.next()? {
        each(walk.path(), &entry)?;
        if recursive {
            walk.enter(&entry);
        }
    }
    Ok(())
}
