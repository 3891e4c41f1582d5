//! Compress the raw bytes of frames with zstd, at a fixed level or in the cheapest way that packs well enough.

use crate::error::{Error, Result};
use zstd::zstd_safe::{CCtx, CParameter, ResetDirective, Strategy, compress_bound};

/// How frames are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compression {
    /// About as small as zstd's level 3, in the cheapest way that does it for the data at hand
    /// (docs/decisions/0012-compression-by-trial.md).
    Auto,
    /// zstd's level, from -7 to 22; 0 stores.
    Level(i32),
}

impl Compression {
    /// No compression at all.
    pub const STORE: Self = Self::Level(0);
}

impl std::fmt::Display for Compression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Self::Auto => f.write_str("by trial"),
            Self::STORE => f.write_str("not at all"),
            Self::Level(level) => write!(f, "level {level}"),
        }
    }
}

/// One way to compress: a level and, where they are not the level's own, strategy, logarithms of the sizes of the two
/// tables of positions (in entries of 4 bytes) and the shortest match.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct CompressionWay {
    level: i32,
    tuned: Option<(Strategy, u32, u32, u32)>,
}

impl CompressionWay {
    const fn level(level: i32) -> Self {
        CompressionWay { level, tuned: None }
    }
}

/// Dearest last: that one is the measure of the others. Level 3's own tables, 768 KiB, do not fit the second cache of
/// common processors; the third way's, 160 KiB, do.
const WAYS: [CompressionWay; 4] = [
    CompressionWay { level: 2, tuned: Some((Strategy::ZSTD_fast, 15, 6, 5)) },
    CompressionWay::level(2),
    CompressionWay { level: 3, tuned: Some((Strategy::ZSTD_dfast, 15, 13, 5)) },
    CompressionWay::level(3),
];
/// The parts by which the cheaper ways may come out larger: 1/50 and 1/30. The loss of the first two depends most on the
/// data, and a sample that happens to suit them costs 6 to 9 % of the frames up to the next trial.
const LOSS_PARTS: [usize; 3] = [50, 50, 30];
/// What a trial compresses in every way; shorter frames take the last.
const TRIAL_BYTES: usize = 512 << 10;
/// Frames between two trials; twice as many each time that a trial finds the way that served before, up to the most. A
/// trial takes as long as a frame.
const TRIAL_EVERY_MIN: u32 = 64;
const TRIAL_EVERY_MAX: u32 = 256;

/// zstd looks where to split blocks of its greatest length, 128 KiB, only: 3 % of the time for 0.2 % of size.
const UNSPLIT_BLOCK_BYTES: u32 = (128 << 10) - 1;

/// Compresses one frame after the other; keeps its context. One per worker.
pub(super) struct Compressor {
    context: CCtx<'static>,
    compression: Compression,
    /// What the context is set to.
    set: CompressionWay,
    /// What the last trial found, for this many frames, of which this many remain.
    found: CompressionWay,
    every: u32,
    frames_left: u32,
}

impl Compressor {
    pub(crate) fn new(compression: Compression) -> Result<Self> {
        let first = match compression {
            Compression::Auto => WAYS[WAYS.len() - 1],
            Compression::Level(level) => CompressionWay::level(level.clamp(-7, 22)),
        };
        let mut context = CCtx::create();
        set(&mut context, first)?;
        Ok(Compressor { context, compression, set: first, found: first, every: 0, frames_left: 0 })
    }

    /// Compresses `raw` into `packed`, whose old content is lost. False when storing was asked for.
    pub(crate) fn compress(&mut self, raw: &[u8], packed: &mut Vec<u8>) -> Result<bool> {
        packed.clear();
        let way = match self.compression {
            Compression::STORE => return Ok(false),
            Compression::Level(_) => self.set,
            Compression::Auto if raw.len() < TRIAL_BYTES => WAYS[WAYS.len() - 1],
            Compression::Auto => self.way_by_trial(&raw[..TRIAL_BYTES], packed)?,
        };
        self.compress_in(way, raw, packed)?;
        Ok(true)
    }

    /// The way for a frame that begins with `sample`.
    fn way_by_trial(&mut self, sample: &[u8], packed: &mut Vec<u8>) -> Result<CompressionWay> {
        if self.frames_left == 0 {
            let before = self.found;
            let [cheaper @ .., last] = WAYS;
            let measure = self.compress_in(last, sample, packed)?;
            self.found = last;
            for (way, part) in cheaper.into_iter().zip(LOSS_PARTS) {
                if self.compress_in(way, sample, packed)? <= measure + measure / part {
                    self.found = way;
                    break;
                }
            }
            let every = if self.found == before { self.every * 2 } else { 0 };
            self.every = every.clamp(TRIAL_EVERY_MIN, TRIAL_EVERY_MAX);
            self.frames_left = self.every;
        }
        self.frames_left -= 1;
        Ok(self.found)
    }

    /// Returns how many bytes it came to.
    fn compress_in(&mut self, way: CompressionWay, raw: &[u8], packed: &mut Vec<u8>) -> Result<usize> {
        if self.set != way {
            set(&mut self.context, way)?;
            self.set = way;
        }
        packed.clear();
        packed.reserve(compress_bound(raw.len()));
        self.context.compress2(packed, raw).map_err(|code| failed("compress a frame", way, code))
    }
}

fn set(context: &mut CCtx<'static>, way: CompressionWay) -> Result<()> {
    let error = |code| failed("prepare compression", way, code);
    context.reset(ResetDirective::SessionAndParameters).map_err(error)?;
    let mut set = |parameter| context.set_parameter(parameter).map_err(error).map(|_| ());
    set(CParameter::CompressionLevel(way.level))?;
    if let Some((strategy, hash, chain, shortest)) = way.tuned {
        set(CParameter::Strategy(strategy))?;
        set(CParameter::HashLog(hash))?;
        set(CParameter::ChainLog(chain))?;
        set(CParameter::MinMatch(shortest))?;
        set(CParameter::MaxBlockSize(UNSPLIT_BLOCK_BYTES))?;
    }
    // The frame's tag and the chunk ids already protect the content; the raw length stands before it.
    set(CParameter::ChecksumFlag(false))?;
    set(CParameter::ContentSizeFlag(false))
}

fn failed(doing: &str, way: CompressionWay, code: usize) -> Error {
    let why = zstd::zstd_safe::get_error_name(code);
    Error::new(crate::error::Kind::Failed, doing, format!("at level {}", way.level)).because(why)
}

/// Decompresses a zstd frame of at most `bytes_max`; `None` for damage or more than that.
pub(super) fn decompress_bounded(packed: &[u8], bytes_max: u64) -> Option<Vec<u8>> {
    let stated = zstd::zstd_safe::get_frame_content_size(packed).ok().flatten()?;
    if stated > bytes_max {
        return None;
    }
    zstd::bulk::decompress(packed, usize::try_from(stated).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(compression: Compression, raw: &[u8]) -> Option<usize> {
        let mut compressor = Compressor::new(compression).unwrap();
        let mut packed = Vec::new();
        compressor.compress(raw, &mut packed).unwrap().then(|| {
            assert_eq!(zstd::bulk::decompress(&packed, raw.len()).unwrap(), raw);
            packed.len()
        })
    }

    /// Words of a vocabulary, by a small generator of numbers.
    fn words(bytes: usize, vocabulary: u32) -> Vec<u8> {
        let mut state = 1u32;
        let mut out = Vec::new();
        while out.len() < bytes {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let word = blake3::hash(&(state >> 8).checked_rem(vocabulary).unwrap().to_le_bytes()).to_hex();
            out.extend_from_slice(&word.as_bytes()[..3 + (state >> 28) as usize]);
        }
        out.truncate(bytes);
        out
    }

    #[test]
    fn the_way_that_a_trial_finds_is_hardly_larger_than_level_3() {
        for vocabulary in [30, 3000, 300_000] {
            let raw = words(2 << 20, vocabulary);
            let (auto, three) =
                (packed(Compression::Auto, &raw).unwrap(), packed(Compression::Level(3), &raw).unwrap());
            assert!(auto <= three + three / 10, "vocabulary of {vocabulary}: {auto} bytes, level 3 has {three}");
        }
    }

    #[test]
    fn trials_come_once_in_a_while_and_short_frames_need_none() {
        let mut compressor = Compressor::new(Compression::Auto).unwrap();
        let mut packed = Vec::new();
        compressor.compress(&words(TRIAL_BYTES - 1, 3000), &mut packed).unwrap();
        assert_eq!((compressor.frames_left, compressor.set), (0, WAYS[3]));
        let raw = words(TRIAL_BYTES, 3000);
        for left in (0..TRIAL_EVERY_MIN).rev().chain((0..2 * TRIAL_EVERY_MIN).rev()).chain([TRIAL_EVERY_MAX - 1]) {
            compressor.compress(&raw, &mut packed).unwrap();
            assert_eq!((compressor.frames_left, compressor.set), (left, compressor.found));
        }
    }

    #[test]
    fn every_level_packs_and_0_stores() {
        let raw = words(300_000, 500);
        for level in (-7..=19).filter(|level| *level != 0) {
            assert!(packed(Compression::Level(level), &raw).unwrap() < raw.len());
        }
        assert_eq!(packed(Compression::STORE, &raw), None);
        assert!(packed(Compression::Auto, b"").unwrap() < 20);
    }
}
