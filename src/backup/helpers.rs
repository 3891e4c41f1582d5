//! Readers that help one another with large content: bytes in memory whose parts any idle reader works on.
//!
//! A part never waits for another part. The thread that waits for a batch works on it as well, and waits only for parts that
//! other threads have begun. So every batch is completed, even if no other reader is idle.

use crate::backup::chunks::ChunkSaver;
use crate::chunk::ContentKind;
use crate::disk::PageBuffer;
use crate::error::{Error, Kind, Result};
use crate::format::list::ListItem;
use crate::lock::locked;
use rayon::Scope;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// What all readers share.
#[derive(Default)]
pub(super) struct HelperPool(Mutex<PoolShared>);

#[derive(Default)]
struct PoolShared {
    /// The next part is taken from the first of these that has one left.
    batches: VecDeque<Arc<HelpBatch>>,
    /// Tasks in the thread pool that have not run out of work yet.
    helpers: usize,
    is_in_use: bool,
    spare: Vec<PageBuffer>,
}

/// What is to be done with one part of a batch.
pub(super) enum BatchPart {
    /// Find where chunks end, as if one began where the range does.
    Cut { kind: ContentKind, last: bool, piece: Range<usize> },
    /// Name and store the chunks that begin at `start` and end at `ends`, counted from there.
    Store { start: usize, ends: Vec<usize> },
}

struct HelpBatch {
    bytes: RwLock<PageBuffer>,
    filled: usize,
    parts: Vec<BatchPart>,
    progress: Mutex<BatchProgress>,
    ended: Condvar,
}

/// What has become of a batch: a place for each part.
struct BatchProgress {
    next: usize,
    running: usize,
    failure: Option<Error>,
    done: BatchDone,
}

/// In the order of the parts, empty for those of the other sort.
#[derive(Default)]
pub(super) struct BatchDone {
    pub ends: Vec<Vec<usize>>,
    pub stored: Vec<Vec<ListItem>>,
}

impl HelpBatch {
    fn claim(&self) -> Option<usize> {
        let mut progress = locked(&self.progress);
        let part = progress.next;
        if part == self.parts.len() {
            return None;
        }
        progress.next += 1;
        progress.running += 1;
        Some(part)
    }

    fn bytes(&self) -> RwLockReadGuard<'_, PageBuffer> {
        self.bytes.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn perform(&self, chunks: &ChunkSaver, number: usize) {
        let mut guard = PartGuard { batch: self, number, result: Err(broken_off()) };
        let bytes = self.bytes();
        let bytes = &bytes[..self.filled];
        guard.result = match &self.parts[number] {
            BatchPart::Cut { kind, last, piece } => {
                Ok(PartResult::Ends(chunks.cut_piece(*kind, bytes, *last, piece.clone())))
            }
            BatchPart::Store { start, ends } => chunks.store(&bytes[*start..], ends).map(PartResult::Stored),
        };
    }

    /// Waits until no thread works on it. No thread begins once all parts are taken.
    fn wait(&self) -> MutexGuard<'_, BatchProgress> {
        let progress = locked(&self.progress);
        self.ended.wait_while(progress, |progress| progress.running > 0).unwrap_or_else(PoisonError::into_inner)
    }
}

enum PartResult {
    Ends(Vec<usize>),
    Stored(Vec<ListItem>),
}

fn broken_off() -> Error {
    Error::new(Kind::Failed, "save a large file", "").because("a thread panicked")
}

/// A part in progress. Dropped, it ends in any case, so that no thread waits for it for ever.
struct PartGuard<'a> {
    batch: &'a HelpBatch,
    number: usize,
    result: Result<PartResult>,
}

impl Drop for PartGuard<'_> {
    fn drop(&mut self) {
        let mut progress = locked(&self.batch.progress);
        match std::mem::replace(&mut self.result, Err(broken_off())) {
            Ok(PartResult::Ends(ends)) => progress.done.ends[self.number] = ends,
            Ok(PartResult::Stored(stored)) => progress.done.stored[self.number] = stored,
            Err(error) => {
                progress.next = self.batch.parts.len();
                progress.failure.get_or_insert(error);
            }
        }
        progress.running -= 1;
        if progress.running == 0 {
            self.batch.ended.notify_all();
        }
    }
}

impl HelperPool {
    /// The right to have help: one content has it at a time. Helpers run in `scope`; `count` is their maximum number.
    pub(crate) fn permit<'h, 's>(
        &'s self,
        scope: &'h Scope<'s>,
        chunks: &'s ChunkSaver<'s>,
        count: usize,
    ) -> Option<HelpPermit<'h, 's>> {
        let mut shared = locked(&self.0);
        let is_free = count > 0 && !std::mem::replace(&mut shared.is_in_use, true);
        is_free.then(|| HelpPermit { pool: self, scope, chunks, count })
    }

    /// The next part, or none and one helper less.
    fn next(&self) -> Option<(Arc<HelpBatch>, usize)> {
        let mut shared = locked(&self.0);
        while let Some(batch) = shared.batches.front() {
            if let Some(part) = batch.claim() {
                return Some((batch.clone(), part));
            }
            shared.batches.pop_front();
        }
        shared.helpers -= 1;
        None
    }
}

/// Held while one content is read with help.
pub(super) struct HelpPermit<'h, 's> {
    pool: &'s HelperPool,
    scope: &'h Scope<'s>,
    chunks: &'s ChunkSaver<'s>,
    count: usize,
}

impl<'s> HelpPermit<'_, 's> {
    /// Returns a buffer of this length with anything in it.
    pub(crate) fn buffer(&self, length: usize) -> PageBuffer {
        let spare = locked(&self.pool.0).spare.pop();
        spare.filter(|buffer| buffer.len() == length).unwrap_or_else(|| PageBuffer::new(length))
    }

    /// Lets all helpers work on the first `filled` bytes: before the other batches if `is_urgent` is set, otherwise after them.
    pub(crate) fn place(
        &self,
        bytes: PageBuffer,
        filled: usize,
        parts: Vec<BatchPart>,
        is_urgent: bool,
    ) -> BatchHandle<'s> {
        let empty = BatchDone { ends: vec![Vec::new(); parts.len()], stored: vec![Vec::new(); parts.len()] };
        let wanted = parts.len().min(self.count);
        let batch = Arc::new(HelpBatch {
            bytes: RwLock::new(bytes),
            filled,
            parts,
            progress: Mutex::new(BatchProgress { next: 0, running: 0, failure: None, done: empty }),
            ended: Condvar::new(),
        });
        let mut shared = locked(&self.pool.0);
        if is_urgent {
            shared.batches.push_front(batch.clone())
        } else {
            shared.batches.push_back(batch.clone())
        }
        let missing = wanted.saturating_sub(shared.helpers);
        shared.helpers += missing;
        drop(shared);
        let (pool, chunks) = (self.pool, self.chunks);
        for _ in 0..missing {
            self.scope.spawn(move |_| {
                while let Some((batch, part)) = pool.next() {
                    batch.perform(chunks, part);
                }
            });
        }
        BatchHandle { pool, chunks, batch }
    }
}

impl Drop for HelpPermit<'_, '_> {
    fn drop(&mut self) {
        locked(&self.pool.0).is_in_use = false;
    }
}

/// A batch that helpers may work on. Dropped, its parts that have not begun are given up.
pub(super) struct BatchHandle<'s> {
    pool: &'s HelperPool,
    chunks: &'s ChunkSaver<'s>,
    batch: Arc<HelpBatch>,
}

impl BatchHandle<'_> {
    /// Works on the batch until all of it is done; returns its bytes, too.
    pub(crate) fn finish(self) -> Result<(PageBuffer, BatchDone)> {
        while let Some(part) = self.batch.claim() {
            self.batch.perform(self.chunks, part);
        }
        let mut progress = self.batch.wait();
        match progress.failure.take() {
            Some(error) => Err(error),
            None => Ok((self.take_bytes(), std::mem::take(&mut progress.done))),
        }
    }

    /// Works on the batch until all of it is done; its buffer is used again.
    pub(crate) fn finish_stored(self) -> Result<Vec<Vec<ListItem>>> {
        let pool = self.pool;
        let (bytes, done) = self.finish()?;
        locked(&pool.0).spare.push(bytes);
        Ok(done.stored)
    }

    fn take_bytes(&self) -> PageBuffer {
        std::mem::take(&mut self.batch.bytes.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for BatchHandle<'_> {
    fn drop(&mut self) {
        locked(&self.batch.progress).next = self.batch.parts.len();
        drop(self.batch.wait());
        locked(&self.pool.0).batches.retain(|batch| !Arc::ptr_eq(batch, &self.batch));
    }
}
