//! Restore files: each is created, written and given its metadata in one visit; large ones by several writers.

use crate::disk::create::close_written;
use crate::disk::stat::fstat;
use crate::disk::{CurrentMetadata, Loss, Subject, TargetDirectory, apply_metadata, unfinished, write};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::id::ChunkId;
use crate::lock::locked;
use crate::repo::Chunk;
use crate::restore::counts::{EntryFate, add};
use crate::restore::decision::{EntryDecision, PlacingWay};
use crate::restore::folder::{OpenFolder, TargetFolder};
use crate::restore::links::Linkable;
use crate::restore::offsets::SparseOffsets;
use crate::restore::paths::child_path;
use crate::restore::reasons::SAME_NAME;
use crate::restore::rename_into_place::under_own_name;
use crate::restore::run::{RestoreRun, RunMode};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};

/// Files of this size are written by several writers at offsets.
const PARALLEL_BYTES: u64 = 32 << 20;
/// Chunks that one of them takes at a time.
const PART_CHUNKS: usize = 256;
/// Parts in hand at a time, so that memory does not grow with the file.
const PARTS_AT_ONCE: usize = 64;
/// Chunks of neighbouring places are written together up to this.
const JOIN_BYTES: usize = 1 << 20;

/// A chunk and where its bytes go: offset and length, more than one where a hole is between.
type PlacedChunk = (ChunkId, Vec<(u64, u64)>);
type FilePart = Vec<PlacedChunk>;

/// The damage found in a file. The rest of it is read all the same: then the next backup knows all of its packs that are
/// damaged, and stores their content again.
#[derive(Default)]
struct DamagedParts(Mutex<Option<Error>>);

impl DamagedParts {
    /// None if damage prevents the read.
    fn pass_over<T>(&self, read: Result<T>) -> Result<Option<T>> {
        match read {
            Err(error) if error.is(Kind::Corrupt) => {
                locked(&self.0).get_or_insert(error);
                Ok(None)
            }
            read => read.map(Some),
        }
    }

    /// Returns the first damage, as the reason why the file cannot be restored.
    fn end(self) -> Result<()> {
        self.0.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }
}

/// Whether a name still leads to this open file.
fn is_same(target: &TargetDirectory, name: &[u8], fd: &OwnedFd) -> Result<bool> {
    match target.directory().stat(name) {
        Ok(named) => Ok(fstat(fd)?.identity() == named.identity()),
        Err(error) if error.is(Kind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

impl RestoreRun<'_> {
    /// Restores a file; whether other names of its inode may be linked to it.
    pub(crate) fn restore_file(&self, folder: &TargetFolder, here: &OpenFolder, entry: &Entry) -> Result<Linkable> {
        let way = match self.decide(folder, here, entry)? {
            EntryDecision::Make(way) => way,
            EntryDecision::Late => return Ok(Linkable::Late),
            EntryDecision::UpToDate(existing) => {
                self.progress(1, entry.size);
                return Ok(self.keep(here, folder, entry, existing));
            }
            EntryDecision::Left => {
                self.progress(1, entry.size);
                self.left(folder, entry);
                return Ok(Linkable::No);
            }
            EntryDecision::Blocked(why) => {
                self.blocked(folder, entry, why);
                return Ok(Linkable::No);
            }
        };
        match (&here.target, self.is_restore()) {
            (Some(target), true) => {
                if !self.make_file(folder, here, target, &*self.with_unsaved(target, entry, way)?, way)? {
                    return Ok(Linkable::No);
                }
            }
            _ => {
                if !self.plan_way(folder, here, entry, way, || self.count_reads(entry))? {
                    return Ok(Linkable::No);
                }
                self.tell_foreseen(here, entry, &child_path(&folder.path, &entry.name));
            }
        }
        add(&self.counts.files, 1);
        Ok(Linkable::New)
    }

    /// Creates a file with its content and metadata. It is created under its own name only in a directory that this run
    /// created, where its mode marks it as half-done until it is complete, or in an append-only directory; elsewhere it
    /// is created next to it, and takes the name when it is complete. Returns false if something does not make way; that
    /// was reported.
    fn make_file(
        &self,
        folder: &TargetFolder,
        here: &OpenFolder,
        target: &TargetDirectory,
        entry: &Entry,
        way: PlacingWay,
    ) -> Result<bool> {
        let path = || child_path(&folder.path, &entry.name);
        if entry.size >= PARALLEL_BYTES {
            self.watch.progress.set_current(&path());
        }
        if way == PlacingWay::OverDirectory
            && let Some(why) = self.why_not_cleared(target, entry, &path())?
        {
            self.blocked(folder, entry, &why);
            return Ok(false);
        }
        let may_grow = || here.facts.is_new && entry.size < PARALLEL_BYTES && target.keeps_mark_of(&entry.meta);
        let direct = way == PlacingWay::New && (here.facts.append_only || may_grow());
        let name = if direct { Cow::Borrowed(&entry.name) } else { Cow::Owned(unfinished::next_name()) };
        let (fd, current) = match self.in_folder(folder, target, |target| target.create_file(&name, &entry.meta)) {
            Ok(created) => created,
            Err(error) if direct && error.is(Kind::AlreadyExists) => {
                self.blocked(folder, entry, SAME_NAME);
                return Ok(false);
            }
            Err(error) => return Err(under_own_name(error, &name, entry)),
        };
        let filled = self.fill(&fd, current, entry);
        // If another restore has put its file there meanwhile, that file stays.
        let is_ours = if filled.is_ok() { Ok(true) } else { is_same(target, &name, &fd) };
        let losses = filled.and_then(|losses| close_written(fd).map(|()| losses)).map_err(|error| {
            // Half a file must not pass for a whole one.
            match is_ours.and_then(|is_ours| if is_ours { target.remove_name(&name) } else { Ok(()) }) {
                Err(_) if direct => {
                    let rest = "write the file and remove its incomplete copy";
                    Error::new(error.kind(), rest, "").because(error)
                }
                _ => error,
            }
        })?;
        if !direct && !self.put_in_place(folder, here, target, &name, entry, way)? {
            return Ok(false);
        }
        self.tell_applied(here, entry, path, losses, || target.directory().stat(entry.name.as_slice()));
        if direct {
            self.fate(EntryFate::Created, path);
        }
        self.apply_flags_last(folder, target, entry);
        // Its content was counted while it was written.
        self.progress(1, entry.size - entry.content_bytes());
        Ok(true)
    }

    /// Writes content and metadata, before the file has its name.
    fn fill(&self, fd: &OwnedFd, current: CurrentMetadata, entry: &Entry) -> Result<Vec<Loss>> {
        self.write_content(fd, entry)?;
        if self.options.verify {
            self.verify(fd, entry)?;
        }
        let subject = Subject::Open(fd.as_fd());
        Ok(apply_metadata(subject, Some(current), &entry.meta, EntryKind::File, &self.apply_options()))
    }

    /// Reads a file back and compares it with the ids of its chunks.
    fn verify(&self, fd: &OwnedFd, entry: &Entry) -> Result<()> {
        if !self.matches(fd, entry)? {
            return Err(Error::new(Kind::Failed, "verify what was restored", "")
                .because("the file reads back differently: the disk or the memory of this machine may be faulty"));
        }
        add(&self.counts.bytes_verified, entry.size);
        Ok(())
    }

    /// For a plan: what has to be read for this file.
    fn count_reads(&self, entry: &Entry) -> Result<()> {
        let RunMode::Plan(planning) = &self.mode else { return Ok(()) };
        if !planning.detailed {
            return Ok(());
        }
        let mut total = 0;
        self.each_chunk(entry, &mut |id| {
            let at = self.stored(self.reader.locate(id))?;
            total += u64::from(at.length);
            check_fits(entry, total)?;
            locked(&planning.reads).add(at.pack, at.frame_offset, at.frame_stored);
            Ok(())
        })
    }

    fn write_content(&self, fd: &OwnedFd, entry: &Entry) -> Result<()> {
        match &entry.content {
            Content::Empty | Content::Tree(_) => {}
            Content::Inline(bytes) => self.write_pieces(fd.as_fd(), &mut SparseOffsets::new(entry), bytes)?,
            Content::List { .. } if entry.size >= PARALLEL_BYTES => self.write_parallel(fd, entry)?,
            Content::Chunks(_) | Content::List { .. } => self.write_chunks(fd, entry)?,
        }
        if !entry.holes.is_empty() || self.options.sparse || (entry.size > 0 && entry.content == Content::Empty) {
            write::set_size(fd, entry.size)?;
        }
        Ok(())
    }

    /// Writes chunk by chunk; neighbours in one frame are written together.
    fn write_chunks(&self, fd: &OwnedFd, entry: &Entry) -> Result<()> {
        let (damage, mut offsets) = (DamagedParts::default(), SparseOffsets::new(entry));
        let mut joined: Option<Chunk> = None;
        let mut total = 0;
        self.each_chunk(entry, &mut |id| {
            let Some(chunk) = damage.pass_over(self.content(id))? else { return self.check() };
            total += chunk.len() as u64;
            check_fits(entry, total)?;
            if let Some(before) = &mut joined {
                if before.len() < JOIN_BYTES && before.join(&chunk) {
                    return Ok(());
                }
                self.write_pieces(fd.as_fd(), &mut offsets, before)?;
            }
            joined = Some(chunk);
            Ok(())
        })?;
        damage.end()?;
        if let Some(last) = joined {
            self.write_pieces(fd.as_fd(), &mut offsets, &last)?;
        }
        check_length(entry, total)
    }

    fn write_pieces(&self, fd: BorrowedFd, offsets: &mut SparseOffsets, mut bytes: &[u8]) -> Result<()> {
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
        if self.options.sparse && bytes.iter().all(|byte| *byte == 0) {
            return Ok(());
        }
        add(&self.counts.bytes_written, bytes.len() as u64);
        write::write_all_at(fd, bytes, at)
    }

    /// For large files: free writers take parts of the list of chunks.
    fn write_parallel(&self, fd: &OwnedFd, entry: &Entry) -> Result<()> {
        if entry.holes.is_empty() && !self.options.sparse {
            write::preallocate(fd, entry.size)?;
        }
        let (damage, mut offsets) = (DamagedParts::default(), SparseOffsets::new(entry));
        let mut parts: Vec<FilePart> = vec![Vec::new()];
        let mut total = 0;
        self.each_chunk(entry, &mut |id| {
            let Some(length) = damage.pass_over(self.length(id))? else { return self.check() };
            total += length;
            check_fits(entry, total)?;
            let (mut left, mut places) = (length, Vec::with_capacity(1));
            while left > 0 {
                let (at, taken) = offsets.next(left);
                places.push((at, taken));
                left -= taken;
            }
            if parts.last().is_none_or(|part| part.len() == PART_CHUNKS) {
                if parts.len() == PARTS_AT_ONCE {
                    self.write_parts(fd, std::mem::take(&mut parts), &damage)?;
                }
                parts.push(Vec::with_capacity(PART_CHUNKS));
            }
            parts.last_mut().expect("one was just made sure of").push((*id, places));
            Ok(())
        })?;
        self.write_parts(fd, parts, &damage)?;
        damage.end()?;
        check_length(entry, total)
    }

    fn write_parts(&self, fd: &OwnedFd, parts: Vec<FilePart>, damage: &DamagedParts) -> Result<()> {
        let failure = Mutex::new(None);
        rayon::scope(|scope| {
            for part in parts {
                let failure = &failure;
                scope.spawn(move |_| {
                    if self.ledger.has_failed() || locked(failure).is_some() {
                        return;
                    }
                    if let Err(error) = self.write_part(fd, &part, damage) {
                        locked(failure).get_or_insert(error);
                    }
                });
            }
        });
        self.check()?;
        failure.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
    }

    fn write_part(&self, fd: &OwnedFd, part: &[PlacedChunk], damage: &DamagedParts) -> Result<()> {
        for (id, places) in part {
            let Some(chunk) = damage.pass_over(self.content(id))? else { continue };
            let mut rest: &[u8] = &chunk;
            for (at, length) in places {
                let cut = (*length as usize).min(rest.len());
                self.write_at(fd.as_fd(), &rest[..cut], *at)?;
                rest = &rest[cut..];
            }
        }
        Ok(())
    }
}

/// Content that is longer than its file would fill the disk.
fn check_fits(entry: &Entry, total: u64) -> Result<()> {
    if total > entry.content_bytes() { Err(wrong_length()) } else { Ok(()) }
}

fn check_length(entry: &Entry, total: u64) -> Result<()> {
    if total == entry.content_bytes() { Ok(()) } else { Err(wrong_length()) }
}

fn wrong_length() -> Error {
    Error::corrupt("restore the content", "", "its chunks do not add up to the size of the file")
}
