//! Fetch sealed frames from remote storage: neighbours in one request, ahead of use, in bounded memory.
//!
//! `read_ahead_state.rs` decides what is fetched together and when; here are the requests and the threads that wait for them.
//! docs/decisions/0011-reading-ahead-by-blocks.md says why there is no plan.
//!
//! Memory: frames that are here or coming take the budget and at most one frame more, so that a frame larger than the budget
//! can still be read. While what is coming takes more, a thread that needs a frame waits. Headers, frames that were returned
//! to callers, and the second copy of a range while it is cut into frames do not count.
//!
//! Why no thread waits for ever:
//! - A thread that needs room may drop every frame that is here, including frames that are wanted or that callers still hold.
//! - So waiting for room is waiting for requests alone. The thread that makes a request waits for storage and for nothing
//!   else: it has its room before it begins, and holds no lock meanwhile.
//! - Each mark "coming" belongs to one request, and `FetchGuard` takes it back when that ends: it succeeded, failed or panicked. Then
//!   all waiting threads wake and look again. When nothing is coming any more, there is room for the first one that looks.
//! - Each request that a thread made for a frame serves that thread: it keeps the lock from the landing until it holds its
//!   frame. Threads that waited for the same frame find it in its `FrameArrival`, even if it was dropped before their turn. So
//!   rounds of dropping and fetching end when there is nothing more to read.
//! - A thread that holds a frame waits only for that pack's header, and fetching a header never waits for room.
//! - While a thread waits for room, nothing is fetched ahead.

use crate::error::{Error, Kind, Result};
use crate::fetch::frame_run::{FrameRun, NearFrames};
use crate::fetch::read_ahead_state::{FrameArrival, FrameStatus, HeldFrames};
use crate::format::pack_name;
use crate::id::PackId;
use crate::lock::locked;
use crate::place::Located;
use crate::seal::PACK_HEADER_BYTES;
use crate::storage::Storage;
use bytes::Bytes;
use memmap2::MmapMut;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// Requests in flight ahead of use.
const IN_FLIGHT_MAX: usize = 4;
/// Frames of this size are kept in memory of their own.
const MAPPED_BYTES_MIN: usize = 64 << 10;

/// Sealed frames of one sort (content or trees), here or on their way.
#[derive(Clone)]
pub(super) struct ReadAhead(Arc<ReadAheadShared>);

struct ReadAheadShared {
    storage: Arc<dyn Storage>,
    state: Mutex<ReadAheadState>,
    changed: Condvar,
}

struct ReadAheadState {
    held: HeldFrames,
    /// Requests that are made by threads of their own.
    in_flight: usize,
    /// Threads that wait for room.
    waiting: usize,
}

impl ReadAhead {
    /// Frames that are here or coming take `bytes_max` and at most one frame more, however many threads ask.
    pub(crate) fn new(storage: Arc<dyn Storage>, bytes_max: u64) -> Self {
        let state = ReadAheadState { held: HeldFrames::new(bytes_max), in_flight: 0, waiting: 0 };
        ReadAhead(Arc::new(ReadAheadShared { storage, state: Mutex::new(state), changed: Condvar::new() }))
    }

    fn lock(&self) -> MutexGuard<'_, ReadAheadState> {
        locked(&self.0.state)
    }

    fn wait<'a>(&'a self, state: MutexGuard<'a, ReadAheadState>) -> MutexGuard<'a, ReadAheadState> {
        self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner)
    }

    /// A sealed frame.
    pub(crate) fn frame(&self, at: &Located, near: NearFrames) -> Result<Bytes> {
        let place = (at.pack, at.frame());
        let mut state = self.lock();
        let mut around = Some(near);
        let mut arrival = FrameArrival::default();
        loop {
            let (there, used) = state.held.ask(&place);
            match there {
                FrameStatus::Here(sealed) => {
                    if let Some(run) = used {
                        self.read_on(&mut state, &run, near);
                    }
                    return Ok(sealed);
                }
                FrameStatus::Coming(coming) => {
                    arrival = coming;
                    state = self.wait(state);
                }
                FrameStatus::Nothing => {
                    if let Some(sealed) = arrival.get() {
                        return Ok(sealed.clone());
                    }
                    let Some(run) = state.held.around(at, around) else {
                        state.waiting += 1;
                        state = self.wait(state);
                        state.waiting -= 1;
                        continue;
                    };
                    self.fetch_header(&mut state, at.pack);
                    drop(state);
                    state = match self.fetch(&run) {
                        Ok(state) => state,
                        // Damage of another part of the range must not fail the request for this one.
                        Err(error) if error.is(Kind::Corrupt) && around.is_some() => {
                            around = None;
                            self.lock()
                        }
                        Err(error) => return Err(error),
                    };
                }
            }
        }
    }

    /// The header of a pack: from a range that was fetched, or by itself.
    pub(crate) fn header(&self, pack: &PackId) -> Result<Bytes> {
        let mut state = self.lock();
        loop {
            match state.held.header(pack) {
                FrameStatus::Here(header) => return Ok(header),
                FrameStatus::Coming(_) => state = self.wait(state),
                FrameStatus::Nothing => break,
            }
        }
        drop(state);
        self.range(pack, 0, PACK_HEADER_BYTES as u64)
    }

    fn range(&self, pack: &PackId, offset: u64, length: u64) -> Result<Bytes> {
        self.0.storage.get_range(&pack_name(pack), offset, length).map(Bytes::from)
    }

    /// Asks for the blocks after a run while that is being used.
    fn read_on(&self, state: &mut ReadAheadState, run: &FrameRun, near: NearFrames) {
        if state.in_flight >= IN_FLIGHT_MAX || state.waiting > 0 {
            return;
        }
        for run in state.held.behind(run, near) {
            self.fetch_beside(state, run);
        }
    }

    /// Asks at the same time for a header that is too far from the range that is fetched of its pack.
    fn fetch_header(&self, state: &mut ReadAheadState, pack: PackId) {
        if state.in_flight >= IN_FLIGHT_MAX {
            return;
        }
        if let Some(run) = state.held.header_alone(pack) {
            self.fetch_beside(state, run);
        }
    }

    /// Fetches a run in a thread of its own, if one can be started. A thread that needs what does not come asks again, and gets
    /// the error.
    fn fetch_beside(&self, state: &mut ReadAheadState, run: Arc<FrameRun>) {
        let (ahead, coming) = (self.clone(), run.clone());
        let thread = std::thread::Builder::new().name("fetch".to_owned()).spawn(move || {
            drop(ahead.fetch(&coming));
            ahead.lock().in_flight -= 1;
        });
        match thread {
            Ok(_) => state.in_flight += 1,
            Err(_) => state.held.give_up(&run),
        }
    }

    /// Fetches a run; afterwards no thread waits for it, even if it failed. What came cannot be dropped before the lock is released.
    fn fetch(&self, run: &Arc<FrameRun>) -> Result<MutexGuard<'_, ReadAheadState>> {
        let mut landing = FetchGuard { ahead: self, run, is_done: false };
        let range = run.range();
        let bytes = self.range(&run.pack, range.start, range.end - range.start)?;
        let piece = |offset: u32, length: usize| {
            let start = (u64::from(offset) - range.start) as usize;
            bytes.get(start..start + length).map(copy_of)
        };
        let pieces = run.frames.iter().map(|frame| piece(frame.offset, frame.stored as usize)).collect();
        let pieces: Option<Vec<Bytes>> = pieces;
        let pieces = pieces.ok_or_else(|| Error::corrupt("read the pack", run.pack, "the range is truncated"))?;
        let header = if run.with_header { piece(0, PACK_HEADER_BYTES) } else { None };
        drop(bytes);
        let mut state = self.lock();
        state.held.land(run, pieces);
        landing.is_done = true;
        if run.with_header {
            state.held.land_header(run.pack, header);
        }
        Ok(state)
    }
}

/// A copy, so that what is dropped is free even while its neighbours stay; and free for the system, as allocators keep
/// for each thread what threads give back.
fn copy_of(bytes: &[u8]) -> Bytes {
    if bytes.len() >= MAPPED_BYTES_MIN
        && let Ok(mut map) = MmapMut::map_anon(bytes.len())
    {
        map.copy_from_slice(bytes);
        return Bytes::from_owner(map);
    }
    Bytes::copy_from_slice(bytes)
}

struct FetchGuard<'a> {
    ahead: &'a ReadAhead,
    run: &'a FrameRun,
    is_done: bool,
}

impl Drop for FetchGuard<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.ahead.lock().held.give_up(self.run);
        }
        self.ahead.0.changed.notify_all();
    }
}
