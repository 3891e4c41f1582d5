//! What one core of this machine does: cut, name, compress, seal and open, in bytes a second.

use crate::bench::{content, median};
use crate::chunk::{ChunkTable, Chunker, ContentKind};
use crate::error::Result;
use crate::format::FRAME_RAW_BYTES;
use crate::id::ChunkKind;
use crate::seal::{Compression, FrameOpener, FrameSealer, KeySet, Secret, new_pack_key};
use crate::watch::Watch;
use serde::Serialize;
use std::time::Instant;

/// Bytes a second of one core.
#[derive(Clone, Debug, Default, Serialize)]
pub struct MachineFigures {
    /// Find the cuts of chunks.
    pub chunk: f64,
    /// Hash with BLAKE3.
    pub hash: f64,
    /// Compress as asked for, in frames of the size that a backup makes.
    pub compress: f64,
    /// How many times smaller the bytes get.
    pub ratio: f64,
    /// Encrypt and verify by opening again.
    pub seal: f64,
    /// Decrypt and decompress.
    pub open: f64,
    /// Processors that this process may use.
    pub cores: usize,
}

const BYTES: usize = 32 << 20;
const FRAME: usize = FRAME_RAW_BYTES;

/// Takes some seconds; `rounds` of each step, medians. A cancelled watch ends it after the round.
pub fn measure_machine(compression: Compression, rounds: usize, watch: &Watch) -> Result<MachineFigures> {
    let bytes = content(1, BYTES);
    let keys = KeySet::from_master(Secret([7; 32]));
    let chunker = Chunker::new(ChunkTable::default(), keys.gear_secret());
    let (key, _) = new_pack_key(&keys, ChunkKind::Content)?;
    let mut sealer = FrameSealer::new(compression)?;
    let mut opener = FrameOpener::new()?;
    let mut rates: [Vec<f64>; 5] = Default::default();
    let mut stored = 0;
    for _ in 0..rounds.max(1) {
        watch.cancel.check()?;
        let mut cuts = Vec::new();
        rates[0].push(rate(|| {
            let mut at = 0;
            while let Some(length) = chunker.cut(ContentKind::SmallFile, &bytes[at..], true) {
                cuts.push(at..at + length);
                at += length;
            }
            Ok(())
        })?);
        rates[1].push(rate(|| {
            for cut in &cuts {
                std::hint::black_box(keys.chunk_id(ChunkKind::Content, &bytes[cut.clone()]));
            }
            Ok(())
        })?);
        rates[2].push(rate(|| bytes.chunks(FRAME).try_for_each(|frame| sealer.compress(frame)))?);
        let mut sealed = Vec::new();
        let compressing = rates[2].last().copied().unwrap_or(1.0);
        let both = rate(|| {
            for (number, frame) in bytes.chunks(FRAME).enumerate() {
                sealer.compress(frame)?;
                sealed.push(sealer.seal(&key, number as u32, frame)?);
            }
            Ok(())
        })?;
        rates[3].push(1.0 / (1.0 / both - 1.0 / compressing).max(1e-12));
        stored = sealed.iter().map(Vec::len).sum();
        let mut raw = Vec::new();
        rates[4].push(rate(|| {
            for (number, (frame, sealed)) in bytes.chunks(FRAME).zip(&sealed).enumerate() {
                opener.open(&key, number as u32, sealed, frame.len(), &mut raw)?;
            }
            Ok(())
        })?);
    }
    let [chunk, hash, compress, seal, open] = rates.map(median);
    let cores = std::thread::available_parallelism().map_or(1, |count| count.get());
    Ok(MachineFigures { chunk, hash, compress, ratio: BYTES as f64 / stored.max(1) as f64, seal, open, cores })
}

fn rate(mut work: impl FnMut() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(BYTES as f64 / begun.elapsed().as_secs_f64().max(1e-9))
}
