//! Sealed frames that are here or coming: which are fetched together, how far ahead, and which go first.
//!
//! A pack is divided into blocks of `window` bytes. A request for a frame fetches all frames of its block that are not here
//! yet. The window begins small, doubles when most of what was fetched together was used, and halves when frames are
//! dropped unused. At its full length the next blocks are fetched before they are asked for.

use crate::fetch::frame_run::{FrameKeyPlace, FrameRun, NearFrames, bytes_of};
use crate::id::PackId;
use crate::place::{FramePlace, Located};
use bytes::Bytes;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

/// What one request fetches; a frame that begins within it is fetched whole.
const RANGE_BYTES: u64 = 4 << 20;
/// The window after the first frame that was asked for.
const WINDOW_BYTES_MIN: u64 = 512 << 10;
/// Blocks that are fetched before they are asked for.
const BLOCKS_AHEAD: u64 = 2;
/// The header of a pack is fetched along with a range that begins within this many bytes of it.
const HEADER_REACH: u64 = 64 << 10;
/// Headers of packs that are kept until their keys are opened.
const HEADERS_MAX: usize = 4096;

enum HeldFrame {
    Coming(FrameArrival),
    Here { sealed: Bytes, is_asked: bool, serial: u64, run: Arc<FrameRun> },
}

/// Where waiting threads find a frame, even if it was dropped before their turn.
pub(super) type FrameArrival = Arc<OnceLock<Bytes>>;

/// What there is of something that was asked for.
pub(super) enum FrameStatus {
    Nothing,
    Coming(FrameArrival),
    Here(Bytes),
}

/// All frames of one sort that are here or coming.
pub(super) struct HeldFrames {
    frames: HashMap<FrameKeyPlace, HeldFrame>,
    /// What is dropped first comes first: what was asked for before what was not, then the older one.
    order: BTreeMap<(bool, u64), FrameKeyPlace>,
    headers: HashMap<PackId, Option<Bytes>>,
    /// Of all frames that are here or coming.
    bytes: u64,
    /// Of those that are coming, which cannot be dropped.
    bytes_coming: u64,
    bytes_max: u64,
    range_bytes: u64,
    window: u64,
    serial: u64,
}

impl HeldFrames {
    /// Frames take `bytes_max` together, or one frame more.
    pub(crate) fn new(bytes_max: u64) -> Self {
        HeldFrames {
            frames: HashMap::new(),
            order: BTreeMap::new(),
            headers: HashMap::new(),
            bytes: 0,
            bytes_coming: 0,
            bytes_max,
            range_bytes: RANGE_BYTES.min(bytes_max / 4),
            window: 0,
            serial: 0,
        }
    }

    /// A frame that is asked for; with it the run after which to read on.
    pub(crate) fn ask(&mut self, place: &FrameKeyPlace) -> (FrameStatus, Option<Arc<FrameRun>>) {
        match self.frames.get_mut(place) {
            None => (FrameStatus::Nothing, None),
            Some(HeldFrame::Coming(arrival)) => (FrameStatus::Coming(arrival.clone()), None),
            Some(HeldFrame::Here { sealed, is_asked, serial, run }) => {
                let (sealed, serial, run) = (sealed.clone(), *serial, run.clone());
                if std::mem::replace(is_asked, true) {
                    return (FrameStatus::Here(sealed), None);
                }
                self.order.remove(&(true, serial));
                self.order.insert((false, serial), *place);
                let bytes = sealed.len() as u64;
                let is_half_passed = run.passes_half(bytes);
                let is_full = self.window >= self.range_bytes;
                if is_half_passed && !is_full {
                    self.window = (self.window * 2).max(WINDOW_BYTES_MIN).min(self.range_bytes);
                }
                (FrameStatus::Here(sealed), (is_half_passed && is_full).then_some(run))
            }
        }
    }

    pub(crate) fn header(&self, pack: &PackId) -> FrameStatus {
        match self.headers.get(pack) {
            None => FrameStatus::Nothing,
            Some(None) => FrameStatus::Coming(FrameArrival::default()),
            Some(Some(header)) => FrameStatus::Here(header.clone()),
        }
    }

    /// What to fetch for a frame that is not here: it and those around it, or it alone without `near`. It is
    /// coming now. None while what is coming fills the memory: when some of that has come, ask again.
    pub(crate) fn around(&mut self, at: &Located, near: Option<NearFrames>) -> Option<Arc<FrameRun>> {
        let own = at.frame();
        let block = u64::from(own.offset).checked_div(self.window);
        let block = block.map(|block| block * self.window..(block + 1) * self.window);
        let frames = near.zip(block).map_or_else(Vec::new, |(near, block)| near(block));
        let mut frames = match frames.iter().position(|frame| *frame == own) {
            Some(position) => self.stretch(&at.pack, &frames, position),
            None => vec![own],
        };
        if !self.make_room(bytes_of(&frames), false) {
            frames = vec![own];
            // Nothing is beyond the memory: this one may be.
            if !self.make_room(bytes_of(&frames), false) && !self.make_room(0, false) {
                return None;
            }
        }
        Some(self.set_out(at.pack, frames, near.is_some()))
    }

    /// What to fetch of the blocks after a run, as far as there is room that costs nothing; it is coming now.
    pub(crate) fn behind(&mut self, run: &FrameRun, near: NearFrames) -> Vec<Arc<FrameRun>> {
        let block = run.frames.last().map_or(0, |last| u64::from(last.offset)) / self.window.max(1);
        let mut runs = Vec::new();
        for next in block + 1..=block + BLOCKS_AHEAD {
            let frames = near(next * self.window..(next + 1) * self.window);
            let missing = |frame: &FramePlace| !self.frames.contains_key(&(run.pack, *frame));
            let Some(first) = frames.iter().position(missing) else { continue };
            let frames = self.stretch(&run.pack, &frames, first);
            if !self.make_room(bytes_of(&frames), true) {
                break;
            }
            runs.push(self.set_out(run.pack, frames, true));
        }
        runs
    }

    /// The frames around one that are neither here nor coming and have no gap between them, as far as one request goes.
    fn stretch(&self, pack: &PackId, frames: &[FramePlace], around: usize) -> Vec<FramePlace> {
        let mut bytes = u64::from(frames[around].stored);
        let mut take = |before: FramePlace, after: FramePlace, new: FramePlace| {
            let takes = bytes < self.range_bytes
                && u64::from(new.stored) <= self.range_bytes
                && before.offset.checked_add(before.stored) == Some(after.offset)
                && !self.frames.contains_key(&(*pack, new));
            bytes += if takes { u64::from(new.stored) } else { 0 };
            takes
        };
        let (mut first, mut end) = (around, around + 1);
        while end < frames.len() && take(frames[end - 1], frames[end], frames[end]) {
            end += 1;
        }
        while first > 0 && take(frames[first - 1], frames[first], frames[first - 1]) {
            first -= 1;
        }
        frames[first..end].to_vec()
    }

    fn set_out(&mut self, pack: PackId, frames: Vec<FramePlace>, may_reach: bool) -> Arc<FrameRun> {
        let bytes = bytes_of(&frames);
        self.bytes += bytes;
        self.bytes_coming += bytes;
        for frame in &frames {
            self.frames.insert((pack, *frame), HeldFrame::Coming(FrameArrival::default()));
        }
        let is_near = may_reach && frames.first().is_some_and(|first| u64::from(first.offset) <= HEADER_REACH);
        let with_header = is_near && self.take_header(pack);
        FrameRun::new(pack, frames, with_header)
    }

    /// What to fetch for a header that is not here; it is coming now.
    pub(crate) fn header_alone(&mut self, pack: PackId) -> Option<Arc<FrameRun>> {
        self.take_header(pack).then(|| FrameRun::new(pack, Vec::new(), true))
    }

    fn take_header(&mut self, pack: PackId) -> bool {
        if self.headers.contains_key(&pack) {
            return false;
        }
        if self.headers.len() >= HEADERS_MAX {
            self.headers.retain(|_, header| header.is_none());
        }
        self.headers.insert(pack, None);
        true
    }

    pub(crate) fn land(&mut self, run: &Arc<FrameRun>, pieces: Vec<Bytes>) {
        for (frame, sealed) in run.frames.iter().zip(pieces) {
            let place = (run.pack, *frame);
            self.bytes_coming -= u64::from(frame.stored);
            self.serial += 1;
            self.order.insert((true, self.serial), place);
            let arrived = sealed.clone();
            let here = HeldFrame::Here { sealed, is_asked: false, serial: self.serial, run: run.clone() };
            if let Some(HeldFrame::Coming(arrival)) = self.frames.insert(place, here) {
                _ = arrival.set(arrived);
            }
        }
    }

    pub(crate) fn land_header(&mut self, pack: PackId, header: Option<Bytes>) {
        match header {
            Some(header) => drop(self.headers.insert(pack, Some(header))),
            None => drop(self.headers.remove(&pack)),
        }
    }

    /// Forgets what of a run has not come.
    pub(crate) fn give_up(&mut self, run: &FrameRun) {
        for frame in &run.frames {
            let place = (run.pack, *frame);
            if let Some(HeldFrame::Coming(_)) = self.frames.get(&place) {
                self.frames.remove(&place);
                self.bytes -= u64::from(frame.stored);
                self.bytes_coming -= u64::from(frame.stored);
                self.window = 0;
            }
        }
        if run.with_header
            && let Some(None) = self.headers.get(&run.pack)
        {
            self.headers.remove(&run.pack);
        }
    }

    /// Drops what is first in order until this many bytes fit; false when they do not. Nothing is dropped where what is
    /// coming leaves too little room by itself.
    fn make_room(&mut self, bytes: u64, only_asked: bool) -> bool {
        if self.bytes_coming + bytes > self.bytes_max {
            return false;
        }
        let mut is_wasted = false;
        while self.bytes + bytes > self.bytes_max {
            let Some((&(is_unasked, serial), &place)) = self.order.first_key_value() else { break };
            if is_unasked && only_asked {
                break;
            }
            self.order.remove(&(is_unasked, serial));
            if let Some(HeldFrame::Here { sealed, .. }) = self.frames.remove(&place) {
                self.bytes -= sealed.len() as u64;
            }
            is_wasted |= is_unasked;
        }
        if is_wasted {
            self.window = (self.window / 2).max(WINDOW_BYTES_MIN).min(self.range_bytes);
        }
        self.bytes + bytes <= self.bytes_max
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::ops::Range;

    const FRAME: u32 = 300 << 10;

    fn place(number: u32) -> FramePlace {
        FramePlace { number, offset: 88 + number * FRAME, stored: FRAME }
    }

    fn near(bytes: Range<u64>) -> Vec<FramePlace> {
        (0..100).map(place).filter(|place| bytes.contains(&u64::from(place.offset))).collect()
    }

    fn located(pack: PackId, number: u32) -> Located {
        let FramePlace { offset, stored, .. } = place(number);
        Located {
            pack,
            frame_offset: offset,
            frame_stored: stored,
            frame_raw: 1 << 20,
            frame_number: number,
            offset: 0,
            length: 1,
            kind: crate::id::ChunkKind::Content,
        }
    }

    fn land(held: &mut HeldFrames, run: &Arc<FrameRun>) {
        let pieces = run.frames.iter().map(|frame| Bytes::from(vec![0; frame.stored as usize])).collect();
        held.land(run, pieces);
    }

    /// Asks for a frame and lets all land that is fetched for it; says how many requests that took.
    fn ask(held: &mut HeldFrames, pack: PackId, number: u32) -> usize {
        let mut requests = 0;
        if let FrameStatus::Nothing = held.ask(&(pack, place(number))).0 {
            let run = held.around(&located(pack, number), Some(&near)).expect("nothing else is coming");
            land(held, &run);
            requests += 1;
        }
        if let Some(run) = held.ask(&(pack, place(number))).1 {
            for run in held.behind(&run, &near) {
                land(held, &run);
                requests += 1;
            }
        }
        assert!(held.bytes <= held.bytes_max, "{} bytes are held", held.bytes);
        assert_eq!(held.order.len(), held.frames.len());
        requests
    }

    #[test]
    fn reading_in_order_takes_few_requests_and_reading_here_and_there_little_more_than_was_asked_for() {
        let mut held = HeldFrames::new(96 << 20);
        let requests: usize = (0..300).map(|n| ask(&mut held, PackId([(n / 100) as u8; 32]), n % 100)).sum();
        assert!((25..35).contains(&requests), "{requests} requests for 90 MB");
        assert_eq!(held.window, RANGE_BYTES);

        let mut held = HeldFrames::new(96 << 20);
        (0..40).for_each(|n| _ = ask(&mut held, PackId([n; 32]), 50));
        assert!(held.bytes <= 40 * (3 * u64::from(FRAME)), "{} bytes for 40 frames", held.bytes);
    }

    #[test]
    fn what_nobody_asks_for_goes_last_and_makes_the_window_smaller() {
        let mut held = HeldFrames::new(16 << 20);
        (0..20).for_each(|n| _ = ask(&mut held, PackId([1; 32]), n));
        assert_eq!(held.window, RANGE_BYTES.min(4 << 20));
        // From each of many packs one frame: most of what comes with it is for nothing.
        (2..30).for_each(|n| _ = ask(&mut held, PackId([n; 32]), 50));
        assert_eq!(held.window, WINDOW_BYTES_MIN);
    }

    #[test]
    fn what_does_not_come_is_forgotten() {
        let mut held = HeldFrames::new(16 << 20);
        (0..20).for_each(|n| _ = ask(&mut held, PackId([1; 32]), n));
        let (bytes, frames) = (held.bytes, held.frames.len());
        let run = held.around(&located(PackId([2; 32]), 0), Some(&near)).expect("nothing else is coming");
        assert!(run.with_header && run.range().start == 0 && matches!(held.header(&run.pack), FrameStatus::Coming(_)));
        assert!(matches!(held.ask(&(run.pack, place(0))).0, FrameStatus::Coming(_)));
        held.give_up(&run);
        assert!(matches!(held.header(&run.pack), FrameStatus::Nothing) && held.window == 0);
        assert!(held.bytes <= bytes && held.frames.len() <= frames);
        // A frame larger than the budget can still be read.
        let mut small = HeldFrames::new(1 << 10);
        let run = small.around(&located(PackId([2; 32]), 7), Some(&near)).expect("nothing else is coming");
        assert_eq!(run.frames, [place(7)]);
        // But one after the other.
        assert!(small.around(&located(PackId([2; 32]), 8), Some(&near)).is_none());
        land(&mut small, &run);
        assert!(small.around(&located(PackId([2; 32]), 8), Some(&near)).is_some());
        assert_eq!((small.bytes, small.bytes_coming), (u64::from(FRAME), u64::from(FRAME)));
    }
}
