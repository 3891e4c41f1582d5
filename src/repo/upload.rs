//! Packs on their way: a bounded number of them is written at the same time by threads of their own.

use crate::error::{Error, Kind, Result};
use crate::place::PackContents;
use crate::repo::format::pack_name;
use crate::storage::{Body, Storage};
use crate::watch::Progress;
use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

type Upload = (Vec<Bytes>, PackContents);

/// The threads that write packs, and what they have written.
pub(super) struct Uploads {
    queue: Option<Sender<Upload>>,
    threads: Vec<JoinHandle<()>>,
    shared: Arc<Shared>,
}

struct Shared {
    storage: Arc<dyn Storage>,
    progress: Arc<Progress>,
    state: Mutex<State>,
    changed: Condvar,
    failed: AtomicBool,
    bytes_sent: AtomicU64,
}

#[derive(Default)]
struct State {
    /// Packs sent and not yet written.
    on_their_way: usize,
    /// Packs written that no index object names yet.
    written: Vec<PackContents>,
    failure: Option<Error>,
}

impl Uploads {
    /// One pack waits in the queue beside those being written, so that workers rarely wait.
    pub fn start(storage: Arc<dyn Storage>, concurrency: usize, progress: Arc<Progress>) -> Self {
        let shared = Arc::new(Shared {
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
            std::thread::spawn(move || write_packs(&packs, &shared))
        };
        let threads = (0..concurrency).map(spawn).collect();
        Uploads { queue: Some(queue), threads, shared }
    }

    /// The failure of a pack, as soon as there is one.
    pub fn check(&self) -> Result<()> {
        match self.shared.failed.load(Ordering::Relaxed) {
            false => Ok(()),
            true => Err(self.shared.failure()),
        }
    }

    pub fn count(&self, bytes: u64) {
        self.shared.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn bytes_sent(&self) -> u64 {
        self.shared.bytes_sent.load(Ordering::Relaxed)
    }

    /// Hands a pack over; waits while too many are on their way.
    pub fn send(&self, pieces: Vec<Bytes>, contents: PackContents) -> Result<()> {
        self.check()?;
        self.shared.lock().on_their_way += 1;
        let queue = self.queue.as_ref().expect("the queue is open until the writer is dropped");
        queue
            .send((pieces, contents))
            .map_err(|_| Error::new(Kind::Failed, "write packs", "").because("the threads ended"))
    }

    /// Waits until all that was sent is written (and `ready` holds); takes what was written.
    pub fn settle(&self, ready: impl Fn() -> bool) -> Result<Vec<PackContents>> {
        loop {
            let is_ready = ready();
            let mut state = self.shared.lock();
            if state.failure.is_some() {
                drop(state);
                return Err(self.shared.failure());
            }
            if is_ready && state.on_their_way == 0 {
                return Ok(std::mem::take(&mut state.written));
            }
            let wait = if is_ready { Duration::from_secs(1) } else { Duration::from_millis(2) };
            drop(self.shared.changed.wait_timeout(state, wait));
        }
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

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// The first failure, for each caller that asks.
    fn failure(&self) -> Error {
        let state = self.lock();
        match &state.failure {
            Some(error) => {
                let copy = Error::new(error.kind(), "write a pack", "").because(error.to_string());
                error.advice().map(str::to_owned).into_iter().fold(copy, |copy, hint| copy.hint(hint))
            }
            None => Error::new(Kind::Failed, "write a pack", ""),
        }
    }
}

fn write_packs(packs: &Receiver<Upload>, shared: &Shared) {
    for (pieces, contents) in packs {
        let bytes: u64 = pieces.iter().map(|piece| piece.len() as u64).sum();
        // After a failure the rest is let go: the run ends, and nothing names these packs.
        let done = match shared.failed.load(Ordering::Relaxed) {
            true => Ok(()),
            false => shared.storage.put(&pack_name(&contents.pack), Body(pieces)).map(|_| ()),
        };
        let mut state = shared.lock();
        state.on_their_way -= 1;
        match done {
            Ok(()) => {
                shared.bytes_sent.fetch_add(bytes, Ordering::Relaxed);
                shared.progress.bytes_stored.fetch_add(bytes, Ordering::Relaxed);
                state.written.push(contents);
            }
            Err(error) => {
                state.failure.get_or_insert(error);
                shared.failed.store(true, Ordering::Relaxed);
            }
        }
        drop(state);
        shared.changed.notify_all();
    }
}
