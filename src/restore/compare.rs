//! Compare files with what was saved: contents by the names of their chunks, holes by their zeros.

use crate::disk::open::read_full_at;
use crate::disk::stat::fstat;
use crate::disk::zeros::reads_as_zeros;
use crate::entry::{Content, Entry, Hole};
use crate::error::{Error, Kind, Result};
use crate::id::ChunkKind;
use crate::restore::offsets::SparseOffsets;
use crate::restore::run::RestoreRun;
use rustix::fd::OwnedFd;

impl RestoreRun<'_> {
    /// Whether an open file has this entry's content, and zeros where it has holes. Reads nothing of the file after the
    /// first difference.
    pub(crate) fn matches(&self, fd: &OwnedFd, entry: &Entry) -> Result<bool> {
        if fstat(fd)?.size != entry.size || !self.holes_are_zeros(fd, entry)? {
            return Ok(false);
        }
        let mut offsets = SparseOffsets::new(entry);
        if let Content::Inline(bytes) = &entry.content {
            return same_bytes(fd, &mut offsets, bytes.len(), |found| found == bytes.as_slice());
        }
        let mut same = true;
        let keys = self.repo.keys();
        let walked = self.each_chunk(entry, &mut |id| {
            let length = self.length(id)? as usize;
            same = same_bytes(fd, &mut offsets, length, |found| keys.chunk_id(ChunkKind::Content, found) == *id)?;
            if same { Ok(()) } else { Err(Error::new(Kind::Failed, "compare the content", "")) }
        });
        // Nothing after the first difference matters: a hostile list would never end.
        if same { walked.map(|()| true) } else { Ok(false) }
    }

    fn holes_are_zeros(&self, fd: &OwnedFd, entry: &Entry) -> Result<bool> {
        let all = [Hole { offset: 0, length: entry.size }];
        let holes = match entry.content {
            // Without content all of it reads as zeros.
            Content::Empty | Content::Tree(_) => &all[..],
            _ => &entry.holes,
        };
        for hole in holes {
            if !reads_as_zeros(fd, hole.offset, hole.length, &|| self.check())? {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn same_bytes(fd: &OwnedFd, offsets: &mut SparseOffsets, length: usize, is_it: impl Fn(&[u8]) -> bool) -> Result<bool> {
    let mut found = vec![0; length];
    let mut filled = 0;
    while filled < length {
        let (at, taken) = offsets.next((length - filled) as u64);
        let end = filled + taken as usize;
        if read_full_at(fd, &mut found[filled..end], at)? < taken as usize {
            return Ok(false);
        }
        filled = end;
    }
    Ok(is_it(&found))
}
