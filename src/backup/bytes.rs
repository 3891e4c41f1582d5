//! Where content comes from: files, files with holes, streams; all fill a buffer.

use crate::backup::left_out::UNSIZED_BYTES_MAX;
use crate::disk::open;
use crate::disk::stat::fstat;
use crate::entry::{EntryKind, Hole};
use crate::error::{Error, Kind, Result};
use crate::repo::tree::HOLES_MAX;
use crate::source::stream::{looks_compressed, read_error};
use crate::watch::Watch;
use rustix::fd::{AsFd, OwnedFd};
use std::io::Read;

pub(super) trait Bytes {
    /// How many bytes were put into the buffer, 0 at the end of the content.
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize>;
}

/// Holes too many to keep are given up, the smallest first: they are then stored as the zeros that they read as.
pub(super) fn large_holes(mut holes: Vec<Hole>) -> Vec<Hole> {
    if holes.len() > HOLES_MAX {
        holes.sort_unstable_by_key(|hole| std::cmp::Reverse(hole.length));
        holes.truncate(HOLES_MAX);
        holes.sort_unstable_by_key(|hole| hole.offset);
    }
    holes
}

/// A file from front to back. One that grows is read up to where it ended when that was seen, so that nobody who writes
/// faster than it is read keeps a backup for ever.
pub(super) struct Plain<'a> {
    fd: &'a OwnedFd,
    /// Its size by its stat.
    size: u64,
    read: u64,
    /// Where reading ends; found out once there is more than the stat said.
    limit: Option<u64>,
}

impl<'a> Plain<'a> {
    pub fn new(fd: &'a OwnedFd, size: u64) -> Self {
        Plain { fd, size, read: 0, limit: None }
    }

    /// There is more than the stat said: a FIFO or a device may have taken the file's place, or it grows.
    fn find_limit(&self) -> Result<u64> {
        let stat = fstat(self.fd)?;
        if !stat.is(EntryKind::File) {
            return Err(Error::new(Kind::Conflict, "read", "").because("it is no longer a file"));
        }
        Ok(if stat.size >= self.read { stat.size } else { self.read.max(UNSIZED_BYTES_MAX) })
    }
}

impl Bytes for Plain<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        if self.read > self.size && self.limit.is_none() {
            self.limit = Some(self.find_limit()?);
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
}

/// The data of a sparse file without its holes.
pub(super) struct Sparse<'a> {
    fd: &'a OwnedFd,
    holes: &'a [Hole],
    size: u64,
    at: u64,
    hole: usize,
}

impl<'a> Sparse<'a> {
    pub fn new(fd: &'a OwnedFd, holes: &'a [Hole], size: u64) -> Self {
        Sparse { fd, holes, size, at: 0, hole: 0 }
    }
}

impl Bytes for Sparse<'_> {
    fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() && self.at < self.size {
            let next = self.holes.get(self.hole);
            if let Some(hole) = next.filter(|hole| hole.offset <= self.at) {
                self.at = hole.offset + hole.length;
                self.hole += 1;
                continue;
            }
            let end = next.map_or(self.size, |hole| hole.offset);
            let length = usize::try_from(end - self.at).unwrap_or(usize::MAX).min(buffer.len() - filled);
            let count = open::read_full_at(self.fd.as_fd(), &mut buffer[filled..filled + length], self.at)?;
            filled += count;
            self.at += count as u64;
            if count < length {
                // Cut short while it was read: the rest is not there.
                self.at = self.size;
            }
        }
        Ok(filled)
    }
}

/// What a command or standard input returns.
pub(super) struct Streamed<'a, R> {
    pub name: &'a [u8],
    pub source: R,
    pub watch: &'a Watch,
    pub warned: bool,
}

impl<R: Read> Bytes for Streamed<'_, R> {
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
                self.watch.notice(format!(
                    "the stream {name} is compressed ({format}) and will hardly deduplicate: save it uncompressed"
                ));
            }
        }
        Ok(count)
    }
}
