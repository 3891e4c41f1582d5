//! Readers who help one another: bytes in memory whose parts are worked on by whoever of them has time.
//!
//! A part never waits for another part, and who has a batch done works on it too and waits only for parts that somebody
//! is just doing: so it is done even when nobody else comes.

use crate::backup::Run;
use crate::chunk::ContentKind;
use crate::disk::PageBuffer;
use crate::error::{Error, Kind, Result};
use crate::id::ChunkId;
use crate::lock::locked;
use rayon::Scope;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard};

/// What the readers share.
#[derive(Default)]
pub(super) struct Crew(Mutex<Shared>);

#[derive(Default)]
struct Shared {
    /// The next part is taken from the first of these that has one left.
    batches: VecDeque<Arc<Batch>>,
    /// Tasks that were put into the pool and have not found themselves without work yet.
    helpers: usize,
    held: bool,
    spare: Vec<PageBuffer>,
}

/// What is to be done with one part of a batch.
pub(super) enum Part {
    /// Find where chunks end, as if one began where the range does.
    Cut { kind: ContentKind, last: bool, piece: Range<usize> },
    /// Name and store the chunks that begin at `start` and end at `ends`, counted from there.
    Store { start: usize, ends: Vec<usize> },
}

struct Batch {
    bytes: RwLock<PageBuffer>,
    filled: usize,
    parts: Vec<Part>,
    progress: Mutex<Progress>,
    ended: Condvar,
}

/// What has become of a batch: a place for each part.
struct Progress {
    next: usize,
    running: usize,
    failure: Option<Error>,
    done: Done,
}

/// In the order of the parts, empty for those of the other sort.
#[derive(Default)]
pub(super) struct Done {
    pub ends: Vec<Vec<usize>>,
    pub ids: Vec<Vec<ChunkId>>,
}

impl Batch {
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

    fn perform(&self, run: &Run, number: usize) {
        let mut ending = Ending { batch: self, number, result: Err(broken_off()) };
        let bytes = self.bytes();
        let bytes = &bytes[..self.filled];
        ending.result = match &self.parts[number] {
            Part::Cut { kind, last, piece } => {
                Ok(Found::Ends(run.repo.chunker().cut_piece(*kind, bytes, *last, piece.clone())))
            }
            Part::Store { start, ends } => {
                let writer = run.writer.as_ref().expect("content is read only when it is stored");
                writer.sink().store_contents(run.lane(), &bytes[*start..], ends).map(Found::Ids)
            }
        };
    }

    /// Until nobody works on it; nobody begins any more when all parts are taken.
    fn wait(&self) -> MutexGuard<'_, Progress> {
        let progress = locked(&self.progress);
        self.ended.wait_while(progress, |progress| progress.running > 0).unwrap_or_else(PoisonError::into_inner)
    }
}

enum Found {
    Ends(Vec<usize>),
    Ids(Vec<ChunkId>),
}

fn broken_off() -> Error {
    Error::new(Kind::Failed, "save a large file", "").because("a thread panicked")
}

/// A part being done: it ends in any case, so that who waits for it does not wait for ever.
struct Ending<'a> {
    batch: &'a Batch,
    number: usize,
    result: Result<Found>,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        let mut progress = locked(&self.batch.progress);
        match std::mem::replace(&mut self.result, Err(broken_off())) {
            Ok(Found::Ends(ends)) => progress.done.ends[self.number] = ends,
            Ok(Found::Ids(ids)) => progress.done.ids[self.number] = ids,
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

impl Crew {
    /// The right to have help: one content has it at a time.
    pub fn hold(&self) -> Option<Hold<'_>> {
        let mut shared = locked(&self.0);
        (!std::mem::replace(&mut shared.held, true)).then(|| Hold(self))
    }

    /// The next part, or none and one helper less.
    fn next(&self) -> Option<(Arc<Batch>, usize)> {
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
pub(super) struct Hold<'a>(&'a Crew);

impl<'a> Hold<'a> {
    /// A buffer of this length with anything in it.
    pub fn buffer(&self, length: usize) -> PageBuffer {
        let spare = locked(&self.0.0).spare.pop();
        spare.filter(|buffer| buffer.len() == length).unwrap_or_else(|| PageBuffer::new(length))
    }

    /// Lets everybody work on these bytes; at once where `first` is set, else when what came before is done.
    pub fn place<'s>(
        &self,
        run: &'s Run<'_>,
        scope: &Scope<'s>,
        bytes: PageBuffer,
        filled: usize,
        parts: Vec<Part>,
        first: bool,
    ) -> Placed<'a> {
        let empty = Done { ends: vec![Vec::new(); parts.len()], ids: vec![Vec::new(); parts.len()] };
        let wanted = parts.len().min(run.helpers_max());
        let batch = Arc::new(Batch {
            bytes: RwLock::new(bytes),
            filled,
            parts,
            progress: Mutex::new(Progress { next: 0, running: 0, failure: None, done: empty }),
            ended: Condvar::new(),
        });
        let mut shared = locked(&self.0.0);
        if first {
            shared.batches.push_front(batch.clone())
        } else {
            shared.batches.push_back(batch.clone())
        }
        let missing = wanted.saturating_sub(shared.helpers);
        shared.helpers += missing;
        drop(shared);
        for _ in 0..missing {
            scope.spawn(move |_| {
                while let Some((batch, part)) = run.crew.next() {
                    batch.perform(run, part);
                }
            });
        }
        Placed { crew: self.0, batch }
    }
}

impl Drop for Hold<'_> {
    fn drop(&mut self) {
        locked(&self.0.0).held = false;
    }
}

/// A batch that may be worked on. Dropped, its parts that have not begun are given up.
pub(super) struct Placed<'a> {
    crew: &'a Crew,
    batch: Arc<Batch>,
}

impl Placed<'_> {
    /// Works on it until all is done; returns the bytes, too.
    pub fn finish(self, run: &Run) -> Result<(PageBuffer, Done)> {
        while let Some(part) = self.batch.claim() {
            self.batch.perform(run, part);
        }
        let mut progress = self.batch.wait();
        match progress.failure.take() {
            Some(error) => Err(error),
            None => Ok((self.take_bytes(), std::mem::take(&mut progress.done))),
        }
    }

    /// Works on it until all is done; the bytes are needed no more.
    pub fn finish_ids(self, run: &Run) -> Result<Vec<Vec<ChunkId>>> {
        let crew = self.crew;
        let (bytes, done) = self.finish(run)?;
        locked(&crew.0).spare.push(bytes);
        Ok(done.ids)
    }

    fn take_bytes(&self) -> PageBuffer {
        std::mem::take(&mut self.batch.bytes.write().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Placed<'_> {
    fn drop(&mut self) {
        locked(&self.batch.progress).next = self.batch.parts.len();
        drop(self.batch.wait());
        locked(&self.crew.0).batches.retain(|batch| !Arc::ptr_eq(batch, &self.batch));
    }
}
