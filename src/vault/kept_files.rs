//! Pieces of remote storage in the cache, sealed as they came: a file each, and the oldest go when there are too many.
//!
//! Opening a piece tells whether its file is whole. Nothing here fails: what cannot be kept or read is fetched again.

use crate::disk::own_files::{names_in, open_regular, read_regular};
use crate::lock::locked;
use std::fs::{self, OpenOptions};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

/// What the names of files begin with that are being written, or were when their writer died.
const UNFINISHED: &str = "new-";
const SUFFIX: &str = ".sealed";
/// What is not finished after so long was left by a crash.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);
/// A file's time says when it was last of use, to within this.
const TOUCH_AGE: Duration = Duration::from_secs(60 * 60);

/// A folder of sealed pieces, which several processes may share.
pub(crate) struct KeptFiles {
    folder: PathBuf,
    bytes_max: u64,
    /// Bytes in the folder as far as this process knows; none before it looked.
    bytes: Mutex<Option<u64>>,
}

impl KeptFiles {
    /// The files of this folder together take `bytes_max` at most. The folder is made when there is something to keep.
    pub(crate) fn new(folder: PathBuf, bytes_max: u64) -> Self {
        KeptFiles { folder, bytes_max, bytes: Mutex::default() }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(format!("{name}{SUFFIX}"))
    }

    /// What was kept under this name, if it is of that length.
    pub(crate) fn read(&self, name: &str, length: usize) -> Option<Vec<u8>> {
        let mut file = read_regular(&self.path(name)).ok()?;
        let metadata = file.metadata().ok().filter(|metadata| metadata.len() == length as u64)?;
        let mut bytes = vec![0; length];
        file.read_exact(&mut bytes).ok()?;
        if is_older(&metadata, TOUCH_AGE) {
            // Else it goes earlier than it should.
            let _ = file.set_modified(SystemTime::now());
        }
        Some(bytes)
    }

    /// Keeps these bytes, one piece after the other, under a name that can be a file's.
    pub(crate) fn keep(&self, name: &str, pieces: &[&[u8]]) {
        let length = pieces.iter().map(|piece| piece.len() as u64).sum::<u64>();
        if length <= self.bytes_max && self.write(&self.path(name), pieces).is_ok() {
            self.count(length);
        }
    }

    pub(crate) fn forget(&self, name: &str) {
        // It may be gone already.
        let _ = fs::remove_file(self.path(name));
    }

    fn write(&self, path: &Path, pieces: &[&[u8]]) -> std::io::Result<()> {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let unfinished = format!("{UNFINISHED}{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let unfinished = self.folder.join(unfinished);
        let create = || open_regular(OpenOptions::new().write(true).create(true).truncate(true), &unfinished);
        let file = create().or_else(|_| {
            fs::create_dir_all(&self.folder)?;
            create()
        });
        let written = file.and_then(|mut file| pieces.iter().try_for_each(|piece| file.write_all(piece)));
        let named = written.and_then(|()| fs::rename(&unfinished, path));
        if named.is_err() {
            // What stays is swept away later.
            let _ = fs::remove_file(&unfinished);
        }
        named
    }

    /// Sweeps when there is too much; what others add meanwhile is seen at the next sweep.
    fn count(&self, added: u64) {
        let mut bytes = locked(&self.bytes);
        let now = bytes.map_or(u64::MAX, |bytes| bytes + added);
        *bytes = Some(if now > self.bytes_max { self.sweep() } else { now });
    }

    /// Removes the files that were of no use for longest until there is some room; says how many bytes are left.
    fn sweep(&self) -> u64 {
        let mut files = Vec::new();
        for (name, _) in names_in(&self.folder).unwrap_or_default() {
            let path = self.folder.join(&name);
            let Ok(metadata) = path.symlink_metadata() else { continue };
            let Some(name) = name.to_str() else { continue };
            match (name.ends_with(SUFFIX), metadata.modified()) {
                (true, Ok(modified)) => files.push((modified, metadata.len(), path)),
                _ if name.starts_with(UNFINISHED) && is_older(&metadata, LEFTOVER_AGE) => drop(fs::remove_file(path)),
                _ => {}
            }
        }
        files.sort_unstable();
        let mut bytes: u64 = files.iter().map(|(_, length, _)| length).sum();
        if bytes > self.bytes_max {
            let enough = self.bytes_max / 8 * 7;
            for (_, length, path) in files {
                if bytes <= enough {
                    break;
                }
                if fs::remove_file(path).is_ok() {
                    bytes -= length;
                }
            }
        }
        bytes
    }
}

fn is_older(metadata: &fs::Metadata, age: Duration) -> bool {
    metadata.modified().ok().and_then(|modified| modified.elapsed().ok()).is_some_and(|since| since > age)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn pieces_come_back_and_the_oldest_go_first() {
        let folder = tempfile::tempdir().unwrap();
        let files = KeptFiles::new(folder.path().join("trees"), 1000);
        assert_eq!(files.read("0", 100), None);
        for number in 0..10 {
            files.keep(&number.to_string(), &[&[number as u8; 40], &[1; 60]]);
            let old = SystemTime::now() - Duration::from_secs(1000 - number as u64);
            File::open(files.path(&number.to_string())).unwrap().set_modified(old).unwrap();
        }
        assert_eq!(files.read("3", 100).unwrap()[..41], [[3; 40].as_slice(), &[1]].concat());
        assert_eq!(files.read("3", 99), None, "another length than expected");
        files.keep("10", &[&[0; 100]]);
        let left: Vec<u32> = (0..11).filter(|number| files.read(&number.to_string(), 100).is_some()).collect();
        assert_eq!(left, [3, 4, 5, 6, 7, 8, 9, 10]);
        files.forget("10");
        assert_eq!(files.read("10", 100), None);
        assert_eq!(fs::read_dir(folder.path().join("trees")).unwrap().count(), 7);
    }

    #[test]
    fn what_cannot_be_kept_is_no_error() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), b"").unwrap();
        let files = KeptFiles::new(folder.path().join("file"), 1000);
        files.keep("0", &[b"x"]);
        files.keep("1", &[&[0; 2000]]);
        assert_eq!(files.read("0", 1), None);
    }
}
