//! Compare the content of a saved file with that of a file on disk, without reading more than it takes.

use super::content::hole_free;
use crate::browse::diff_directory::DiskComparison;
use crate::disk::Directory;
use crate::disk::open::{open_file_checked, read_full_at};
use crate::entry::{Content, Entry};
use crate::error::{Error, Kind, Result};
use crate::id::ChunkKind;
use rustix::fd::OwnedFd;

impl DiskComparison<'_> {
    /// Whether a file on disk has the bytes that were saved.
    pub(super) fn same_bytes(&mut self, directory: &Directory, old: &Entry) -> Result<bool> {
        let (file, stat) = open_file_checked(directory, old.name.as_slice())?;
        if stat.size != old.size {
            return Ok(false);
        }
        for hole in &old.holes {
            if !self.is_zero(&file, hole.offset, hole.length)? {
                return Ok(false);
            }
        }
        let mut at = 0;
        if let Content::Inline(bytes) = &old.content {
            return Ok(self.read_content(&file, old, &mut at, bytes.len() as u64)? && self.bytes == *bytes);
        }
        let (reader, mut same) = (self.reader, true);
        let walked = reader.for_each_chunk(old, &mut |id| {
            self.watch.cancel.check()?;
            let length = u64::from(self.reader.locate(id)?.length);
            same = self.read_content(&file, old, &mut at, length)?
                && self.repo.keys().chunk_id(ChunkKind::Content, &self.bytes) == *id;
            if same { Ok(()) } else { Err(Error::new(Kind::Failed, "compare the content", "")) }
        });
        // Nothing after the first difference matters: a hostile list would never end.
        if same { walked.map(|()| true) } else { Ok(false) }
    }

    pub(super) fn is_zero(&mut self, file: &OwnedFd, mut offset: u64, mut length: u64) -> Result<bool> {
        while length > 0 {
            self.watch.cancel.check()?;
            self.bytes.resize(length.min(1 << 20) as usize, 0);
            let count = read_full_at(file, &mut self.bytes, offset)?;
            if count < self.bytes.len() || self.bytes.iter().any(|byte| *byte != 0) {
                return Ok(false);
            }
            offset += count as u64;
            length -= count as u64;
        }
        Ok(true)
    }

    /// Reads the next bytes that are not in holes; false when the file ends before.
    pub(super) fn read_content(&mut self, file: &OwnedFd, entry: &Entry, at: &mut u64, length: u64) -> Result<bool> {
        self.bytes.resize(length as usize, 0);
        let mut filled = 0;
        while filled < self.bytes.len() {
            let (from, until) = hole_free(entry, *at);
            let count = (self.bytes.len() - filled).min(usize::try_from(until - from).unwrap_or(usize::MAX));
            if count == 0 || read_full_at(file, &mut self.bytes[filled..filled + count], from)? < count {
                return Ok(false);
            }
            filled += count;
            *at = from + count as u64;
        }
        Ok(true)
    }
}
