//! Restore files: each is created, written and given its metadata in one visit; large ones by several writers.

use crate::disk::open::{open_file, read_full_at};
use crate::disk::{Subject, apply, apply_metadata};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::id::ChunkId;
use crate::repo::Chunk;
use crate::restore::folder::Folder;
use crate::restore::plan::child_path;
use crate::restore::{Run, add};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::Ordering;

/// Files of this size are written by several writers at offsets.
const PARALLEL_BYTES: u64 = 32 << 20;
/// Chunks that one of them takes at a time.
const PART_CHUNKS: usize = 256;
/// Parts in hand at a time, so that memory does not grow with the file.
const PARTS_AT_ONCE: usize = 64;
/// Chunks of neighbouring places are written together up to this.
const JOIN_BYTES: usize = 1 << 20;

/// A chunk and where its bytes go: offset and length, more than one where a hole lies between.
type Placed = (ChunkId, Vec<(u64, u64)>);
type Part = Vec<Placed>;

/// Gives each chunk its offset in a file with holes.
struct Offsets<'a> {
    holes: &'a [crate::entry::Hole],
    next_hole: usize,
    at: u64,
}

impl<'a> Offsets<'a> {
    fn new(entry: &'a Entry) -> Self {
        Offsets { holes: &entry.holes, next_hole: 0, at: 0 }
    }

    /// Where the next bytes go and how many of `length` fit before the next hole.
    fn next(&mut self, length: u64) -> (u64, u64) {
        while let Some(hole) = self.holes.get(self.next_hole).filter(|hole| hole.offset <= self.at) {
            self.at = hole.offset + hole.length;
            self.next_hole += 1;
        }
        let room = self.holes.get(self.next_hole).map_or(u64::MAX, |hole| hole.offset - self.at);
        let at = self.at;
        let taken = length.min(room);
        self.at += taken;
        (at, taken)
    }
}

impl<'a> Run<'a> {
    pub(super) fn restore_file(&self, folder: &Folder, entry: &Entry) -> Result<()> {
        let (fd, current) = match folder.target.create_file(&entry.name, &entry.meta) {
            Ok(created) => created,
            Err(error) if error.is(Kind::AlreadyExists) => return self.restore_existing(folder, entry),
            Err(error) => return Err(error),
        };
        if entry.size >= PARALLEL_BYTES {
            self.watch.progress.set_current(&child_path(&folder.path, &entry.name));
        }
        let written = self.write_content(&fd, entry);
        if let Err(error) = written {
            // Half a file must not pass for a whole one.
            drop(fd);
            let _best_effort = folder.target.remove(&entry.name);
            return Err(error);
        }
        let losses = apply_metadata(
            Subject::Open(fd.as_fd()),
            Some(current),
            &entry.meta,
            EntryKind::File,
            &self.apply_options(),
        );
        if !losses.is_empty() {
            self.report_losses(folder, entry, losses);
        }
        self.file_done(folder, entry)
    }

    /// Counts a file, and reads it back when that is wanted.
    pub(super) fn file_done(&self, folder: &Folder, entry: &Entry) -> Result<()> {
        add(&self.counts.files, 1);
        add(&self.watch.progress.files_done, 1);
        // Its content was counted while it was written.
        add(&self.watch.progress.bytes_done, entry.size - entry.content_bytes());
        match self.options().verify {
            true => self.verify(folder, entry),
            false => Ok(()),
        }
    }

    fn write_content(&self, fd: &OwnedFd, entry: &Entry) -> Result<()> {
        match &entry.content {
            Content::Empty | Content::Tree(_) => {}
            Content::Inline(bytes) => self.write_pieces(fd.as_fd(), &mut Offsets::new(entry), bytes)?,
            Content::List { .. } if entry.size >= PARALLEL_BYTES => self.write_parallel(fd, entry)?,
            Content::Chunks(_) | Content::List { .. } => self.write_chunks(fd, entry)?,
        }
        if !entry.holes.is_empty() || self.options().sparse || (entry.size > 0 && entry.content == Content::Empty) {
            apply::set_size(fd, entry.size)?;
        }
        Ok(())
    }

    /// Chunk by chunk; neighbours in one frame go out together.
    fn write_chunks(&self, fd: &OwnedFd, entry: &Entry) -> Result<()> {
        let mut offsets = Offsets::new(entry);
        let mut joined: Option<Chunk> = None;
        let mut total = 0;
        self.reader.for_each_chunk(entry, &mut |id| {
            let chunk = self.reader.content(id)?;
            total += chunk.len() as u64;
            if let Some(before) = &mut joined {
                if before.len() < JOIN_BYTES && before.join(&chunk) {
                    return Ok(());
                }
                self.write_pieces(fd.as_fd(), &mut offsets, before)?;
            }
            joined = Some(chunk);
            Ok(())
        })?;
        if let Some(last) = joined {
            self.write_pieces(fd.as_fd(), &mut offsets, &last)?;
        }
        self.check_length(entry, total)
    }

    fn check_length(&self, entry: &Entry, total: u64) -> Result<()> {
        match total == entry.content_bytes() {
            true => Ok(()),
            false => Err(Error::corrupt("restore the content", "", "its chunks are not as long as the file was")),
        }
    }

    fn write_pieces(&self, fd: BorrowedFd, offsets: &mut Offsets, mut bytes: &[u8]) -> Result<()> {
        while !bytes.is_empty() {
            let (at, length) = offsets.next(bytes.len() as u64);
            let (piece, rest) = bytes.split_at(length as usize);
            self.write_at(fd, piece, at)?;
            bytes = rest;
        }
        Ok(())
    }

    fn write_at(&self, fd: BorrowedFd, bytes: &[u8], at: u64) -> Result<()> {
        add(&self.watch.progress.bytes_done, bytes.len() as u64);
        if self.options().sparse && bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        add(&self.counts.bytes_written, bytes.len() as u64);
        apply::write_all_at(fd, bytes, at)
    }

    /// Large files: parts of the list of chunks are taken by whoever is free.
    fn write_parallel(&self, fd: &OwnedFd, entry: &Entry) -> Result<()> {
        if entry.holes.is_empty() && !self.options().sparse {
            apply::preallocate(fd, entry.size)?;
        }
        let mut offsets = Offsets::new(entry);
        let mut parts: Vec<Part> = vec![Vec::new()];
        let mut total = 0;
        self.reader.for_each_chunk(entry, &mut |id| {
            let length = u64::from(self.reader.locate(id)?.length);
            total += length;
            let (mut left, mut places) = (length, Vec::with_capacity(1));
            while left > 0 {
                let (at, taken) = offsets.next(left);
                places.push((at, taken));
                left -= taken;
            }
            if parts.last().is_none_or(|part| part.len() == PART_CHUNKS) {
                if parts.len() == PARTS_AT_ONCE {
                    self.write_parts(fd, std::mem::take(&mut parts))?;
                }
                parts.push(Vec::with_capacity(PART_CHUNKS));
            }
            parts.last_mut().expect("one was just made sure of").push((*id, places));
            Ok(())
        })?;
        self.write_parts(fd, parts)?;
        self.check_length(entry, total)
    }

    fn write_parts(&self, fd: &OwnedFd, parts: Vec<Part>) -> Result<()> {
        let failure = Mutex::new(None);
        rayon::scope(|scope| {
            for part in parts {
                let failure = &failure;
                scope.spawn(move |_| {
                    if self.counts.failed.load(Ordering::Relaxed) || super::locked(failure).is_some() {
                        return;
                    }
                    if let Err(error) = self.write_part(fd, &part) {
                        super::locked(failure).get_or_insert(error);
                    }
                });
            }
        });
        self.watch.cancel.check()?;
        failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).map_or(Ok(()), Err)
    }

    fn write_part(&self, fd: &OwnedFd, part: &[Placed]) -> Result<()> {
        for (id, places) in part {
            let chunk = self.reader.content(id)?;
            let mut rest: &[u8] = &chunk;
            for (at, length) in places {
                let cut = (*length as usize).min(rest.len());
                self.write_at(fd.as_fd(), &rest[..cut], *at)?;
                rest = &rest[cut..];
            }
        }
        Ok(())
    }

    /// Reads a restored file back and compares it with what its chunks are named by.
    fn verify(&self, folder: &Folder, entry: &Entry) -> Result<()> {
        let fd = open_file(folder.target.directory(), entry.name.as_slice())?;
        if !self.matches(&fd, entry)? {
            return Err(Error::corrupt("verify what was restored", "", "the file reads back differently")
                .hint("the disk or the memory of this machine is faulty"));
        }
        add(&self.counts.bytes_verified, entry.size);
        Ok(())
    }

    /// Whether an open file has this entry's content; stops at the first difference.
    pub(super) fn matches(&self, fd: &OwnedFd, entry: &Entry) -> Result<bool> {
        let stat = crate::disk::stat::fstat(fd)?;
        if stat.size != entry.size {
            return Ok(false);
        }
        let mut offsets = Offsets::new(entry);
        if let Content::Inline(bytes) = &entry.content {
            return self.same_bytes(fd, &mut offsets, bytes.len(), |found| found == bytes.as_slice());
        }
        let mut same = true;
        let keys = self.plan.repo.keys();
        self.reader.for_each_chunk(entry, &mut |id| {
            if same {
                let length = self.reader.locate(id)?.length as usize;
                same = self.same_bytes(fd, &mut offsets, length, |found| keys.content_id(found) == *id)?;
            }
            Ok(())
        })?;
        Ok(same)
    }

    fn same_bytes(
        &self,
        fd: &OwnedFd,
        offsets: &mut Offsets,
        length: usize,
        is_it: impl Fn(&[u8]) -> bool,
    ) -> Result<bool> {
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
}
