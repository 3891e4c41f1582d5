//! Packs on their way: a bounded number of them is written at the same time by threads of their own.

use crate::error::{Error, Kind, Result};
use crate::format::pack_name;
use crate::id::PackId;
use crate::lock::locked;
use crate::storage::{ObjectBody, Storage};
use crate::watch::Progress;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread::JoinHandle;

/// A pack on its way: its number in the order in which packs were handed over, its pieces, its name.
type Upload = (u64, Vec<Bytes>, PackId);

/// The threads that write packs, and what they have written.
pub(super) struct Uploads {
    queue: Option<Sender<Upload>>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<UploadShared>,
}

struct UploadShared {
    storage: Arc<dyn Storage>,
    progress: Arc<Progress>,
    state: Mutex<UploadState>,
    changed: Condvar,
    failed: AtomicBool,
    bytes_sent: AtomicU64,
}

#[derive(Default)]
struct UploadState {
    /// Packs sent and not yet written.
    on_their_way: BTreeSet<u64>,
    next: u64,
    failure: Option<Error>,
}

impl Uploads {
    /// One pack waits in the queue beside those being written, so that workers rarely wait.
    pub(crate) fn start(storage: Arc<dyn Storage>, concurrency: usize, progress: Arc<Progress>) -> Result<Self> {
        let shared = Arc::new(UploadShared {
            storage,
            progress,
            state: Mutex::default(),
            changed: Condvar::new(),
            failed: AtomicBool::new(false),
            bytes_sent: AtomicU64::new(0),
        });
        let (queue, packs) = bounded::<Upload>(1);
        let spawn = |_| {
            let (packs, shared) = (packs.clone(), shared.clone());
            std::thread::Builder::new().name("upload".to_owned()).spawn(move || write_packs(&packs, &shared))
        };
        let mut threads = vec![spawn(0).map_err(Error::no_thread)?];
        // With fewer of them it takes longer, no more.
        threads.extend((1..concurrency).filter_map(|number| spawn(number).ok()));
        Ok(Uploads { queue: Some(queue), threads, shared })
    }

    /// The failure of a pack, as soon as there is one.
    pub(crate) fn check(&self) -> Result<()> {
        if !self.shared.failed.load(Ordering::Relaxed) { Ok(()) } else { Err(self.shared.failure()) }
    }

    /// Held by a thread while others wait for what it does.
    pub(crate) fn alive(&self) -> UploadGuard<'_> {
        UploadGuard(&self.shared)
    }

    /// Whether handing over a pack would block now.
    pub(crate) fn is_full(&self) -> bool {
        self.queue.as_ref().is_some_and(Sender::is_full)
    }

    pub(crate) fn count(&self, bytes: u64) {
        self.shared.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub(crate) fn bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Ordering::Relaxed)
    }

    /// Hands a pack over; waits while too many are on their way.
    pub(crate) fn send(&self, pieces: Vec<Bytes>, pack: PackId) -> Result<()> {
        self.check()?;
        let number = {
            let mut state = self.shared.lock();
            let number = state.next;
            state.next += 1;
            state.on_their_way.insert(number);
            number
        };
        let queue = self.queue.as_ref().expect("the queue is open until the writer is dropped");
        queue.send((number, pieces, pack)).map_err(|_| {
            // What ended them is the error to tell.
            let ended =
                || Error::new(Kind::Failed, "write packs", "").because("the threads that write packs have ended");
            self.check().err().unwrap_or_else(ended)
        })
    }

    /// Waits until all packs are written that were handed over before, not for later ones.
    pub(crate) fn settle(&self) -> Result<()> {
        let mut state = self.shared.lock();
        let later = state.next;
        while state.failure.is_none() && state.on_their_way.first().is_some_and(|first| *first < later) {
            state = self.shared.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        drop(state);
        self.check()
    }

    /// Ends the run: what was to be written is lost, and nothing may rely on it.
    pub(crate) fn fail(&self, error: Error) {
        self.shared.fail(error);
        self.shared.changed.notify_all();
    }
}

impl Drop for Uploads {
    fn drop(&mut self) {
        drop(self.queue.take());
        for thread in self.threads.drain(..) {
            let _ended = thread.join();
        }
    }
}

/// Ends the run when its thread panics, so that no thread waits for packs that it was to write.
pub(super) struct UploadGuard<'a>(&'a UploadShared);

impl Drop for UploadGuard<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail(Error::new(Kind::Failed, "write packs", "").because("a thread of this run panicked"));
            self.0.changed.notify_all();
        }
    }
}

impl UploadShared {
    fn lock(&self) -> std::sync::MutexGuard<'_, UploadState> {
        locked(&self.state)
    }

    fn fail(&self, error: Error) {
        self.lock().failure.get_or_insert(error);
        self.failed.store(true, Ordering::Relaxed);
    }

    /// The first failure, for each caller that asks.
    fn failure(&self) -> Error {
        match &self.lock().failure {
            Some(error) => error.clone(),
            None => Error::new(Kind::Failed, "write a pack", ""),
        }
    }
}

fn write_packs(packs: &Receiver<Upload>, shared: &UploadShared) {
    let _alive = UploadGuard(shared);
    for (number, pieces, pack) in packs {
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        // After a failure the rest is let go: the run ends, and nothing names these packs.
        let done = if shared.failed.load(Ordering::Relaxed) {
            Ok(())
        } else {
            shared.storage.put(&pack_name(&pack), ObjectBody(pieces)).map(|_| ())
        };
        match done {
            Ok(()) => {
                shared.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
                shared.progress.bytes_stored.fetch_add(bytes, Ordering::Relaxed);
            }
            Err(error) => shared.fail(error),
        }
        shared.lock().on_their_way.remove(&number);
        shared.changed.notify_all();
    }
}
