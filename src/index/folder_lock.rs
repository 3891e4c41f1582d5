//! The lock of the folder of segments, and the sweeping of what killed processes left in it.

use super::manifest::{ManifestRow, SUFFIX};
use crate::disk::own_files::{names_in, open_regular};
use crate::error::{Error, Kind, Result};
use std::fs::{File, OpenOptions, TryLockError};
use std::path::Path;
use std::time::{Duration, Instant};

/// What is not listed and has not changed for so long was left by a crash.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a lock of the folder is waited for, and how often it is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(5);

pub(super) fn open_lock(path: &Path) -> Result<File> {
    let opened = open_regular(OpenOptions::new().create(true).truncate(false).write(true), path);
    opened.map_err(|error| Error::io("open the lock", path.display(), error))
}

/// Waits for the lock; it ends when the file is closed, also by a crash. It is held for moments only: a process that holds
/// it for longer was stopped, and is not waited for.
pub(super) fn lock(path: &Path) -> Result<File> {
    let begun = Instant::now();
    loop {
        match try_lock(path)? {
            Some(file) => return Ok(file),
            None if begun.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_PAUSE),
            None => {
                return Err(Error::new(Kind::Locked, "lock", path.display())
                    .because("another process holds it and does not continue")
                    .hint("look for a silt process that was stopped (Ctrl-Z)"));
            }
        }
    }
}

pub(super) fn try_lock(path: &Path) -> Result<Option<File>> {
    let file = open_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path.display(), error)),
    }
}

/// Removes what crashes left. What cannot be looked at or removed costs only space, so errors are not worth a word.
pub(super) fn sweep(folder: &Path, rows: &[ManifestRow]) {
    for (name, _) in names_in(folder).unwrap_or_default() {
        let Some(name) = name.to_str().filter(|name| name.contains(SUFFIX)) else { continue };
        let path = folder.join(name);
        let changed = path.symlink_metadata().and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|changed| changed.elapsed().ok());
        if age.is_some_and(|age| age > LEFTOVER_AGE) && rows.iter().all(|row| row.name != name) {
            let _ = std::fs::remove_file(path);
        }
    }
}
