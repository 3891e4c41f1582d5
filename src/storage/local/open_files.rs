//! Files that stay open for further ranges.

use crate::disk::own_files::open_at_once;
use crate::lock::locked;
use std::collections::VecDeque;
use std::fs::{File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

const OPEN_FILES_MAX: usize = 16;

/// Device and inode of a file. No other file has them while it exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FileNumber {
    device: u64,
    inode: u64,
}

impl FileNumber {
    pub(crate) fn of(meta: &Metadata) -> Self {
        FileNumber { device: meta.dev(), inode: meta.ino() }
    }
}

#[derive(Default)]
pub(super) struct OpenFiles(Mutex<VecDeque<OpenFile>>);

struct OpenFile {
    path: PathBuf,
    number: FileNumber,
    file: Arc<File>,
}

impl OpenFiles {
    /// The file that is at `path` now, open since an earlier range if it is still the same: `meta` is what is there. If the file was
    /// replaced or removed, here or in another process, its number differs. Returns its size in bytes, too.
    pub(crate) fn get(&self, path: &Path, meta: &Metadata) -> io::Result<(Arc<File>, u64)> {
        let number = FileNumber::of(meta);
        let find = |open: &mut VecDeque<OpenFile>| {
            open.retain(|known| known.path != path || known.number == number);
            open.iter().find(|known| known.path == path).map(|known| known.file.clone())
        };
        let known = find(&mut locked(&self.0));
        if let Some(file) = known {
            return Ok((file, meta.len()));
        }
        let file = Arc::new(open_at_once(OpenOptions::new().read(true), path)?);
        let meta = file.metadata()?;
        let mut open = locked(&self.0);
        open.push_back(OpenFile { path: path.to_owned(), number: FileNumber::of(&meta), file: file.clone() });
        if open.len() > OPEN_FILES_MAX {
            open.pop_front();
        }
        Ok((file, meta.len()))
    }
}
