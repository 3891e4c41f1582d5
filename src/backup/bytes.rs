//! Where content comes from: files, files with holes, streams; all fill a buffer.

use crate::backup::left_out::UNSIZED_BYTES_MAX;
use crate::disk::open;
use crate::disk::stat::fstat;
use crate::entry::{EntryKind, Hole};
use crate::error::{Error, Kind, Result};
use crate::format::tree::HOLES_MAX;
use crate::source::stream::{looks_compressed, read_error};
use crate::watch::{NoticeKind, Watch};
use rustix::fd::{AsFd, OwnedFd};
use std::io::Read;

pub(super) trait ContentBytes {
    /// How many bytes were put into the buffer, 0 at the end of the content. What knows of zeros ends before them.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize>;

    /// How many zeros are known to come next, which need not be read.
    fn zeros_ahead(&mut self) -> Result<u64> {
        Ok(0)
    }

    /// Skips this many of the zeros that come next.
    fn pass_zeros(&mut self, _count: u64) -> Result<()> {
        Ok(())
    }
}

/// Limit for the zeros of one file that are saved as content because its entry has no room for their holes. The largest file of
/// ext4 reaches a quarter of this limit. Without it, a file on XFS or tmpfs could have enough zeros to keep a restore busy for years.
const ZEROS_BYTES_MAX: u64 = 64 << 40;

/// Holes too many to keep are given up, the smallest first: they are then saved as the zeros that they read as.
pub(super) fn large_holes(mut holes: Vec<Hole>) -> Vec<Hole> {
    if holes.len() > HOLES_MAX {
        holes.sort_unstable_by_key(|hole| std::cmp::Reverse(hole.length));
        holes.truncate(HOLES_MAX);
        holes.sort_unstable_by_key(|hole| hole.offset);
    }
    holes
}

/// Returns how many of the holes of a file begin at or before its end, if its data, without the holes, has this many bytes. A file that
/// was truncated while it was read ends within data, and its later holes no longer exist.
pub(super) fn holes_before_end(holes: &[Hole], content_bytes: u64) -> usize {
    let mut in_holes = 0;
    let is_before_end = |hole: &&Hole| {
        let is_before_end = hole.offset - in_holes <= content_bytes;
        in_holes += hole.length;
        is_before_end
    };
    holes.iter().take_while(is_before_end).count()
}

/// A file from front to back. One that grows is read up to where it ended when that was seen, so that a file that
/// grows faster than it is read does not hold the backup up for ever.
pub(super) struct PlainFile<'a> {
    fd: &'a OwnedFd,
    /// Its size by its stat.
    size: u64,
    read: u64,
    /// Where reading ends; found out once there is more than the stat said.
    limit: Option<u64>,
    /// What has grown in holes.
    grown: Option<SparseFile<'a>>,
}

impl<'a> PlainFile<'a> {
    pub(crate) fn new(fd: &'a OwnedFd, size: u64) -> Self {
        PlainFile { fd, size, read: 0, limit: None, grown: None }
    }

    /// There is more than the stat said: a FIFO or a device may have taken the file's place, or it grows.
    fn find_limit(&mut self) -> Result<u64> {
        let stat = fstat(self.fd)?;
        if !stat.is(EntryKind::File) {
            return Err(Error::new(Kind::Conflict, "read", "").because("it is no longer a file"));
        }
        if stat.size > self.read && stat.may_be_sparse() {
            let mut grown = SparseFile::new(self.fd, &[], stat.size, true);
            grown.at = self.read;
            self.grown = Some(grown);
        }
        Ok(if stat.size >= self.read { stat.size } else { self.read.max(UNSIZED_BYTES_MAX) })
    }
}

impl ContentBytes for PlainFile<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.read > self.size && self.limit.is_none() {
            self.limit = Some(self.find_limit()?);
        }
        if let Some(grown) = &mut self.grown {
            return grown.fill(buffer);
        }
        let wanted = match self.limit {
            Some(limit) => buffer.len().min(usize::try_from(limit.saturating_sub(self.read)).unwrap_or(usize::MAX)),
            None => buffer.len(),
        };
        let expected = self.size.saturating_sub(self.read);
        let filled = open::read_expected(self.fd.as_fd(), &mut buffer[..wanted], expected)?;
        self.read += filled as u64;
        Ok(filled)
    }

    fn zeros_ahead(&mut self) -> Result<u64> {
        self.grown.as_mut().map_or(Ok(0), SparseFile::zeros_ahead)
    }

    fn pass_zeros(&mut self, count: u64) -> Result<()> {
        self.grown.as_mut().map_or(Ok(()), |grown| grown.pass_zeros(count))
    }
}

/// Reads a sparse file without the holes that its entry records. Other holes are looked up one at a time, when reading gets there,
/// so that memory does not grow with their number.
pub(super) struct SparseFile<'a> {
    fd: &'a OwnedFd,
    holes: &'a [Hole],
    size: u64,
    at: u64,
    hole: usize,
    /// What is known to come next ends here.
    known_until: u64,
    is_zeros: bool,
    has_more_holes: bool,
    zeros: u64,
    /// It was made shorter while it was read. That is its end, whatever is written to it later.
    is_cut: bool,
}

impl<'a> SparseFile<'a> {
    /// `has_more_holes`: whether there may be others than these.
    pub(crate) fn new(fd: &'a OwnedFd, holes: &'a [Hole], size: u64, has_more_holes: bool) -> Self {
        let (is_zeros, is_cut) = (false, false);
        SparseFile { fd, holes, size, at: 0, hole: 0, known_until: 0, is_zeros, has_more_holes, zeros: 0, is_cut }
    }

    /// Steps over recorded holes and finds out what comes after them; returns how many bytes of it, 0 at the end.
    fn look(&mut self) -> Result<u64> {
        if self.is_cut {
            return Ok(0);
        }
        while let Some(hole) = self.holes.get(self.hole).filter(|hole| hole.offset <= self.at) {
            self.at = hole.offset + hole.length;
            self.hole += 1;
        }
        if self.at >= self.size {
            return Ok(0);
        }
        if self.at >= self.known_until {
            let limit = self.holes.get(self.hole).map_or(self.size, |hole| hole.offset);
            let (is_zeros, end) =
                if self.has_more_holes { open::next_run(self.fd, self.at, limit)? } else { (false, limit) };
            (self.is_zeros, self.known_until) = (is_zeros, end);
        }
        Ok(self.known_until - self.at)
    }
}

impl ContentBytes for SparseFile<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let known = self.look()?;
            if known == 0 || self.is_zeros {
                break;
            }
            let length = usize::try_from(known).unwrap_or(usize::MAX).min(buffer.len() - filled);
            let count = open::read_full_at(self.fd.as_fd(), &mut buffer[filled..filled + length], self.at)?;
            filled += count;
            self.at += count as u64;
            self.is_cut = count < length;
        }
        Ok(filled)
    }

    fn zeros_ahead(&mut self) -> Result<u64> {
        let known = self.look()?;
        Ok(if self.is_zeros { known } else { 0 })
    }

    fn pass_zeros(&mut self, count: u64) -> Result<()> {
        self.at += count;
        self.zeros += count;
        if self.zeros > ZEROS_BYTES_MAX { Err(too_many_zeros()) } else { Ok(()) }
    }
}

fn too_many_zeros() -> Error {
    Error::new(Kind::Unsupported, "save it", "").because(format!(
        "beside its {HOLES_MAX} largest holes, which are all that a snapshot records of a file, it has more than {} TiB of \
         others; exclude it, or make it shorter",
        ZEROS_BYTES_MAX >> 40
    ))
}

/// What a command or standard input returns.
pub(super) struct StreamBytes<'a, R> {
    pub name: &'a [u8],
    pub source: R,
    pub watch: &'a Watch,
    pub warned: bool,
}

impl<R: Read> ContentBytes for StreamBytes<'_, R> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let count = loop {
            match self.source.read(buffer) {
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                read => break read.map_err(|error| read_error(self.name, error))?,
            }
        };
        if !self.warned && count > 0 {
            self.warned = true;
            if let Some(format) = looks_compressed(&buffer[..count]) {
                let name = String::from_utf8_lossy(self.name);
                self.watch.notice(
                    NoticeKind::Stream,
                    format!(
                        "the stream {name} is compressed ({format}) and will hardly deduplicate: save it uncompressed"
                    ),
                );
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::zeros::{FillLimits, fill};
    use std::cell::Cell;
    use std::os::unix::fs::FileExt;

    /// Reading went on after the next hole, so what was written there later came back at the wrong place.
    #[test]
    fn where_a_file_was_cut_is_its_end() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 300], 0).unwrap();
        let holes = [Hole { offset: 200, length: 50 }];
        let fd = OwnedFd::from(file.try_clone().unwrap());
        let mut from = SparseFile::new(&fd, &holes, 300, false);
        let mut buffer = [0; 100];
        assert_eq!(from.fill(&mut buffer).unwrap(), 100);
        file.set_len(110).unwrap();
        assert_eq!(from.fill(&mut buffer).unwrap(), 10);
        file.write_all_at(&[8; 300], 0).unwrap();
        assert_eq!((from.fill(&mut buffer).unwrap(), from.zeros_ahead().unwrap()), (0, 0));
        assert_eq!(holes_before_end(&holes, 110), 0);
    }

    #[test]
    fn holes_behind_the_end_of_what_was_read_do_not_count() {
        let holes = [(0, 10), (15, 5), (30, 20)].map(|(offset, length)| Hole { offset, length });
        // Data: 5 bytes, then 10.
        for (content_bytes, expected) in [(0, 1), (4, 1), (5, 2), (14, 2), (15, 3)] {
            assert_eq!(holes_before_end(&holes, content_bytes), expected, "{content_bytes}");
        }
        assert_eq!(holes_before_end(&[], 7), 0);
    }

    #[test]
    fn a_file_that_grows_in_holes_while_it_is_read_is_not_read_in_them() {
        let file = tempfile::tempfile().unwrap();
        let end = 1 << 30;
        file.write_all_at(b"begin", 0).unwrap();
        file.set_len(end - 3).unwrap();
        file.write_all_at(b"end", end - 3).unwrap();
        let fd = OwnedFd::from(file);
        let mut from = PlainFile::new(&fd, 5);
        let (read, done) = (Cell::new(0), Cell::new(0));
        let tell = |more_read, more_done| {
            read.set(read.get() + more_read);
            done.set(done.get() + more_done);
        };
        let limits = FillLimits { chunk_bytes_max: 1024, expected: 5 };
        let mut buffer = vec![1; 64 << 10];
        let (mut last, mut filled) = (false, 0);
        while !last {
            let ahead = from.zeros_ahead().unwrap();
            let passed = if ahead > 4096 { ahead - 100 } else { 0 };
            from.pass_zeros(passed).unwrap();
            tell(0, passed);
            filled = 0;
            last = fill(&mut from, &mut buffer, &mut filled, limits, &tell).unwrap();
        }
        assert_eq!(&buffer[filled - 4..filled], b"\0end");
        assert_eq!(done.get(), end);
        assert!(read.get() < 256 << 10, "{}", read.get());
    }
}
