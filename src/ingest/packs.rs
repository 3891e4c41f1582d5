//! Packs that are being filled: a worker reserves a place for a frame, seals on its own, and brings the bytes.
//!
//! A pack is current until it is full or closed, then closing until every reserved frame has come, then leaving until it
//! is on its way to storage, then sent. A checkpoint waits for the packs that were closed before it and for no
//! later one, so that a stream of new packs does not hold it up.

use crate::error::Result;
use crate::format::index::INDEX_CHUNKS_MAX;
use crate::format::pack::OpenPack;
use crate::id::{ChunkId, ChunkKind};
use crate::lock::locked;
use crate::place::PackContents;
use crate::seal::{FrameKey, KeySet};
use std::collections::HashMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a waiter checks whether the run has failed.
const LOOK: Duration = Duration::from_millis(50);

/// Packs of one sort, content or trees.
pub(super) struct OpenPacks {
    kind: ChunkKind,
    pack_bytes: u64,
    state: Mutex<PacksState>,
    left: Condvar,
}

#[derive(Default)]
struct PacksState {
    current: Option<u64>,
    open: HashMap<u64, OpenPack>,
    /// Taken out of `open`, and not yet handed to the uploads.
    leaving: Vec<u64>,
    sent: Vec<PackContents>,
    next: u64,
}

/// A place for a frame in a pack.
pub(super) struct FrameReservation {
    serial: u64,
    pub number: u32,
    pub key: Arc<FrameKey>,
}

/// A complete pack; its holder sends it.
pub(super) struct FullPack {
    pub serial: u64,
    pub pack: OpenPack,
}

impl OpenPacks {
    /// A pack is full at this many bytes.
    pub(crate) fn new(kind: ChunkKind, pack_bytes: u64) -> Self {
        OpenPacks { kind, pack_bytes, state: Mutex::default(), left: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, PacksState> {
        // A panic of another thread fails the run anyway; its half-done data never reaches a snapshot.
        locked(&self.state)
    }

    /// Reserves a place in the current pack for a frame with this number of chunks. [`fill`](Self::fill) must supply its bytes.
    pub(crate) fn reserve(&self, keys: &KeySet, chunks: usize) -> Result<FrameReservation> {
        let mut state = self.lock();
        state.close_before(chunks);
        let serial = match state.current {
            Some(serial) => serial,
            None => {
                let serial = state.next;
                state.next += 1;
                state.open.insert(serial, OpenPack::new(keys, self.kind)?);
                state.current = Some(serial);
                serial
            }
        };
        let pack = state.open.get_mut(&serial).expect("the current pack is open");
        Ok(FrameReservation { serial, number: pack.reserve(chunks), key: pack.key.clone() })
    }

    /// Brings the bytes of a reserved frame. Returns the pack if that completed it.
    pub(crate) fn fill(
        &self,
        place: &FrameReservation,
        sealed: Vec<u8>,
        raw: u32,
        chunks: Vec<(ChunkId, u32)>,
    ) -> Option<FullPack> {
        let mut state = self.lock();
        let pack = state.open.get_mut(&place.serial).expect("a pack stays open while it awaits a frame");
        pack.fill(place.number, sealed, raw, chunks);
        // Of tiny chunks that compress well a pack could hold millions, more than one index object may describe.
        let is_full = pack.stored_bytes >= self.pack_bytes || pack.chunks >= INDEX_CHUNKS_MAX / 2;
        if is_full && state.current == Some(place.serial) {
            state.current = None;
        }
        state.take_complete(place.serial)
    }

    /// Closes the current pack. Returns it unless it awaits frames, with whose last one it leaves.
    pub(crate) fn close(&self) -> Option<FullPack> {
        let mut state = self.lock();
        let serial = state.current.take()?;
        state.take_complete(serial)
    }

    /// A pack is on its way: from now on [`take_sent`](Self::take_sent) returns its contents.
    pub(crate) fn has_left(&self, serial: u64, contents: PackContents) {
        let mut state = self.lock();
        state.leaving.retain(|leaving| *leaving != serial);
        state.sent.push(contents);
        drop(state);
        self.left.notify_all();
    }

    /// Waits until every pack that is closed by now is on its way. `check` fails when the run has failed, in which case
    /// one of them may never leave.
    pub(crate) fn wait_for_closed(&self, check: impl Fn() -> Result<()>) -> Result<()> {
        let mut state = self.lock();
        let waits = |state: &PacksState| {
            let open = state.open.keys().filter(|serial| state.current != Some(**serial));
            open.chain(&state.leaving).copied().collect::<Vec<u64>>()
        };
        let closed = waits(&state);
        while waits(&state).iter().any(|serial| closed.contains(serial)) {
            check()?;
            state = self.left.wait_timeout(state, LOOK).unwrap_or_else(PoisonError::into_inner).0;
        }
        Ok(())
    }

    /// What the packs hold that were sent since the last call.
    pub(crate) fn take_sent(&self) -> Vec<PackContents> {
        std::mem::take(&mut self.lock().sent)
    }
}

impl PacksState {
    /// Closes the current pack if it would exceed the number of chunks that an index object should describe. Only a pack that still
    /// awaits frames is closed here; it leaves with the last of them. All others are closed by `fill`, at half that number.
    fn close_before(&mut self, chunks: usize) {
        let pack = self.current.and_then(|serial| self.open.get(&serial));
        if pack.is_some_and(|pack| pack.awaited > 0 && pack.chunks_promised + chunks > INDEX_CHUNKS_MAX) {
            self.current = None;
        }
    }

    /// Takes a pack that is closed and awaits nothing.
    fn take_complete(&mut self, serial: u64) -> Option<FullPack> {
        let complete = self.current != Some(serial) && self.open.get(&serial).is_some_and(|pack| pack.awaited == 0);
        let pack = complete.then(|| self.open.remove(&serial)).flatten()?;
        self.leaving.push(serial);
        Some(FullPack { serial, pack })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::PACK_BYTES;
    use crate::id::PackId;
    use crate::seal::Secret;
    use std::sync::atomic::{AtomicBool, Ordering};

    fn contents() -> PackContents {
        PackContents {
            pack: PackId([0; 32]),
            kind: ChunkKind::Content,
            stored_bytes: 0,
            data_offset: 0,
            frames: Vec::new(),
        }
    }

    #[test]
    fn who_makes_packs_findable_waits_for_those_closed_before_and_no_later_one() -> Result<()> {
        let keys = KeySet::from_master(Secret([5; 32]));
        let packs = OpenPacks::new(ChunkKind::Content, PACK_BYTES);
        let (first, second) = (packs.reserve(&keys, 0)?, packs.reserve(&keys, 0)?);
        assert!(packs.close().is_none(), "it awaits two frames");
        assert!(packs.fill(&second, vec![1], 1, Vec::new()).is_none(), "it awaits one frame");
        let is_let_go = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let waiting = scope.spawn(|| {
                let done = packs.wait_for_closed(|| Ok(()));
                (done, is_let_go.load(Ordering::SeqCst))
            });
            std::thread::sleep(LOOK * 2);
            let leaving = packs.fill(&first, vec![1], 1, Vec::new()).expect("the last frame has come");
            // A later pack closes and stays.
            let third = packs.reserve(&keys, 0)?;
            assert!(packs.close().is_none());
            std::thread::sleep(LOOK * 2);
            is_let_go.store(true, Ordering::SeqCst);
            packs.has_left(leaving.serial, contents());
            let (done, was_let_go) = waiting.join().expect("it ends");
            assert!(was_let_go, "it did not wait for a pack that was taken and not yet on its way");
            drop(third);
            done
        })?;
        assert_eq!(packs.take_sent(), [contents()]);
        assert_eq!(packs.take_sent(), []);
        Ok(())
    }

    /// Each frame had a place before the chunks of the others counted, so one pack could get as many as there are lanes.
    #[test]
    fn a_pack_takes_no_more_chunks_than_an_index_object_should_describe() -> Result<()> {
        let keys = KeySet::from_master(Secret([5; 32]));
        let packs = OpenPacks::new(ChunkKind::Content, PACK_BYTES);
        let each = INDEX_CHUNKS_MAX / 4;
        let places = (0..6).map(|_| packs.reserve(&keys, each)).collect::<Result<Vec<_>>>()?;
        assert_eq!(places.iter().map(|place| place.serial).collect::<Vec<_>>(), [0, 0, 0, 0, 1, 1]);
        let full = places[..4].iter().filter_map(|place| packs.fill(place, vec![1], 1, Vec::new()));
        assert_eq!(full.map(|leaving| leaving.serial).collect::<Vec<_>>(), [0]);
        Ok(())
    }

    #[test]
    fn nobody_waits_for_a_frame_of_a_run_that_failed() -> Result<()> {
        let packs = OpenPacks::new(ChunkKind::Tree, PACK_BYTES);
        let _never_filled = packs.reserve(&KeySet::from_master(Secret([5; 32])), 0)?;
        assert!(packs.close().is_none());
        let failed = || Err(crate::error::Error::new(crate::error::Kind::Failed, "write a pack", ""));
        assert!(packs.wait_for_closed(failed).is_err());
        Ok(())
    }
}
