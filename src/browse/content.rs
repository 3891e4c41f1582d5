//! Write out a file's bytes: frames are fetched and opened ahead by a few threads, in memory that is bounded.

use super::shown;
use crate::entry::{Content, Entry, Hole};
use crate::error::{Error, Kind, Result};
use crate::id::{ChunkId, PackId};
use crate::repo::{Chunk, Reader, Repository};
use crate::watch::Watch;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::io::Write;
use std::sync::atomic::Ordering;

/// Threads that fetch and open.
const FETCHERS: usize = 4;
/// Frames in flight; with about 2 MiB each (and at most a chunk more) well below what the reader keeps anyway.
const FRAMES_AHEAD: usize = 8;
/// Chunks of one frame that are fetched as one.
const CHUNKS_TOGETHER: usize = 256;

static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

impl Repository {
    /// Writes all bytes of a file or stream, holes as zeros; returns how many.
    pub fn copy_content(&self, reader: &Reader, entry: &Entry, out: &mut dyn Write, watch: &Watch) -> Result<u64> {
        if !entry.kind.has_content() {
            return Err(Error::invalid("read the content of", shown(&entry.name), "it is not a file or stream"));
        }
        copy(reader, entry, out, watch)
    }
}

/// As [`Repository::copy_content`].
pub(super) fn copy(reader: &Reader, entry: &Entry, out: &mut dyn Write, watch: &Watch) -> Result<u64> {
    let mut at = 0;
    let mut holes = entry.holes.iter().copied().peekable();
    for_each_piece(reader, entry, watch, &mut |mut bytes| {
        while !bytes.is_empty() {
            zeros_at(&mut at, &mut holes, out, watch)?;
            let until = holes.peek().map_or(u64::MAX, |hole: &Hole| hole.offset);
            let count = bytes.len().min(usize::try_from(until.saturating_sub(at)).unwrap_or(usize::MAX));
            if count == 0 || at.saturating_add(count as u64) > entry.size {
                return Err(wrong_size(entry));
            }
            write(out, &bytes[..count])?;
            at += count as u64;
            bytes = &bytes[count..];
        }
        Ok(())
    })?;
    zeros_at(&mut at, &mut holes, out, watch)?;
    if at == entry.size && holes.peek().is_none() { Ok(at) } else { Err(wrong_size(entry)) }
}

/// Writes the holes that begin here.
fn zeros_at(
    at: &mut u64,
    holes: &mut std::iter::Peekable<impl Iterator<Item = Hole>>,
    out: &mut dyn Write,
    watch: &Watch,
) -> Result<()> {
    while let Some(hole) = holes.next_if(|hole| hole.offset == *at) {
        let mut left = hole.length;
        while left > 0 {
            watch.cancel.check()?;
            let count = left.min(ZEROS.len() as u64);
            write(out, &ZEROS[..count as usize])?;
            left -= count;
        }
        *at = at.saturating_add(hole.length);
    }
    Ok(())
}

pub(super) fn write(out: &mut dyn Write, bytes: &[u8]) -> Result<()> {
    out.write_all(bytes).map_err(|error| Error::io("write", "the output", error))
}

pub(super) fn wrong_size(entry: &Entry) -> Error {
    Error::corrupt("read the content of", shown(&entry.name), "its chunks and holes do not add up to its size")
}

/// The first byte at `at` or later that is in no hole, and where the next hole or the file begins to end.
pub(super) fn hole_free(entry: &Entry, at: u64) -> (u64, u64) {
    let after = entry.holes.partition_point(|hole| hole.offset.saturating_add(hole.length) <= at);
    match entry.holes.get(after) {
        Some(hole) if hole.offset <= at => hole_free(entry, hole.offset.saturating_add(hole.length)),
        Some(hole) => (at, hole.offset),
        None => (at.min(entry.size), entry.size),
    }
}

/// Calls `each` with the content's bytes in order, holes left out.
pub(super) fn for_each_piece(
    reader: &Reader,
    entry: &Entry,
    watch: &Watch,
    each: &mut dyn FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut tell = |bytes: &[u8]| {
        watch.cancel.check()?;
        watch.progress.bytes_done.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        each(bytes)
    };
    match &entry.content {
        Content::Inline(bytes) => tell(bytes),
        // No threads for a few chunks.
        Content::Chunks(ids) => ids.iter().try_for_each(|id| tell(&reader.content(id)?)),
        Content::List { .. } => fetch_ahead(reader, entry, &mut tell),
        Content::Empty | Content::Tree(_) => Ok(()),
    }
}

type Fetched = Result<Vec<Chunk>>;

/// Chunks of one frame, and where they are awaited.
struct FrameBatch {
    ids: Vec<ChunkId>,
    to: Sender<Fetched>,
}

fn fetch_ahead(reader: &Reader, entry: &Entry, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    let (batches, work) = bounded::<FrameBatch>(FRAMES_AHEAD);
    let (promise, promised) = bounded::<Receiver<Fetched>>(FRAMES_AHEAD);
    std::thread::scope(|scope| {
        let thread = || std::thread::Builder::new().name("fetch".to_owned());
        for number in 0..FETCHERS {
            let work = work.clone();
            let fetcher = thread().spawn_scoped(scope, move || {
                for batch in work {
                    let chunks = batch.ids.iter().map(|id| reader.content(id)).collect();
                    // No thread waits any more once writing failed.
                    let _ = batch.to.send(chunks);
                }
            });
            // With fewer of them it takes longer, no more.
            if let Err(error) = fetcher
                && number == 0
            {
                return Err(Error::no_thread(error));
            }
        }
        drop(work);
        let planner = thread().spawn_scoped(scope, move || plan(reader, entry, &batches, &promise));
        let planner = planner.map_err(Error::no_thread)?;
        // Moved in, so that an error here ends the planner too.
        let consumed = consume(promised, each);
        let planned = planner.join().unwrap_or_else(|_| Err(Error::new(Kind::Failed, "read the chunk list", "")));
        consumed.and(planned)
    })
}

fn consume(promised: Receiver<Receiver<Fetched>>, each: &mut dyn FnMut(&[u8]) -> Result<()>) -> Result<()> {
    for fetched in promised {
        let gone = |_| Error::new(Kind::Failed, "read the content", "").because("a thread panicked");
        for chunk in fetched.recv().map_err(gone)?? {
            each(&chunk)?;
        }
    }
    Ok(())
}

/// Groups the ids by the frames that they are in and hands them out in order. Ends quietly when the receiver is gone.
fn plan(
    reader: &Reader,
    entry: &Entry,
    batches: &Sender<FrameBatch>,
    promise: &Sender<Receiver<Fetched>>,
) -> Result<()> {
    let stopped = || Error::new(Kind::Cancelled, "continue reading", "");
    let mut ids: Vec<ChunkId> = Vec::new();
    let mut frame: Option<(PackId, u32)> = None;
    let hand_out = |ids: Vec<ChunkId>| {
        if ids.is_empty() {
            return Ok(());
        }
        let (to, fetched) = bounded(1);
        promise.send(fetched).map_err(|_| stopped())?;
        batches.send(FrameBatch { ids, to }).map_err(|_| stopped())
    };
    reader.for_each_chunk(entry, &mut |id| {
        let at = reader.locate(id)?;
        let here = Some((at.pack, at.frame_number));
        if here != frame || ids.len() == CHUNKS_TOGETHER {
            hand_out(std::mem::take(&mut ids))?;
            frame = here;
        }
        ids.push(*id);
        Ok(())
    })?;
    hand_out(ids)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::EntryKind;

    #[test]
    fn what_is_between_holes() {
        let mut entry = Entry::new(*b"f", EntryKind::File);
        entry.size = 100;
        entry.holes = vec![Hole { offset: 0, length: 10 }, Hole { offset: 50, length: 20 }];
        assert_eq!(hole_free(&entry, 0), (10, 50));
        assert_eq!(hole_free(&entry, 49), (49, 50));
        assert_eq!(hole_free(&entry, 50), (70, 100));
        assert_eq!(hole_free(&entry, 100), (100, 100));
    }
}
