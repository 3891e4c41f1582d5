//! List what a snapshot holds, as a stream of entries.

use super::path::{clean, resolve};
use super::walk::SnapshotWalk;
use crate::entry::Entry;
use crate::error::{Error, Result};
use crate::repo::{Reader, Snapshot};
use crate::watch::Watch;
use std::sync::atomic::Ordering;

/// Calls `each` with path and entry: of everything in the directory at `path` (with `recursive` also below its
/// directories, each directory before what is in it), or of the one thing there that is not a directory. A page for each
/// level is all that is held in memory. The first damaged page ends it.
pub fn list(
    reader: &Reader,
    snapshot: &Snapshot,
    path: &[u8],
    recursive: bool,
    each: &mut dyn FnMut(&[u8], &Entry) -> Result<()>,
) -> Result<()> {
    let watch = Watch::silent();
    let whole = |watch: &Watch| match watch.progress.damaged.load(Ordering::Relaxed) {
        0 => Ok(()),
        _ => {
            Err(Error::corrupt("list all of the snapshot", snapshot.id.short(), "a page of a directory cannot be read"))
        }
    };
    list_skipping_damage(reader, snapshot, path, recursive, &watch, &mut |path, entry| {
        whole(&watch)?;
        each(path, entry)
    })?;
    whole(&watch)
}

/// The same, going on past damaged pages, which are told to the watch.
pub fn list_skipping_damage(
    reader: &Reader,
    snapshot: &Snapshot,
    path: &[u8],
    recursive: bool,
    watch: &Watch,
    each: &mut dyn FnMut(&[u8], &Entry) -> Result<()>,
) -> Result<()> {
    let path = clean(path)?;
    let top = resolve(reader, snapshot, &path)?;
    if !top.is_directory() {
        return each(&path, &top);
    }
    let mut walk = SnapshotWalk::new(reader, &top, &path, watch);
    while let Some(entry) = walk.next()? {
        each(walk.path(), &entry)?;
        if recursive {
            walk.enter(&entry);
        }
    }
    Ok(())
}
