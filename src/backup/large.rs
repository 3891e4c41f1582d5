//! Large files and streams: one thread reads them, and every reader that has time helps to cut and to store.
//!
//! A batch is read while the one before is being stored. Its pieces are cut at the same time and joined
//! (`chunk/pieces.rs`), so that the chunks are those that one thread would have found. Then neighbouring chunks, a
//! frame's worth at a time, are named, claimed and stored, each such run by one thread and so into one frame.

use crate::backup::Run;
use crate::backup::bytes::Bytes;
use crate::backup::content::ReadError;
use crate::backup::crew::{Hold, Part, Placed};
use crate::backup::zeros::ZeroChunk;
use crate::chunk::{CHUNK_BYTES_MAX, ContentKind};
use crate::error::Result;
use crate::format::FRAME_RAW_BYTES;
use crate::id::ChunkId;
use rayon::Scope;

/// From so many bytes to come on, content is worth the help of others; that of a stream always is.
pub(super) const HELPED_BYTES_MIN: u64 = 8 << 20;
/// A batch has two frames' worth for each reader, between these. There are at most two batches in memory, however many
/// large files there are and however large: one content at a time has help, the others are read as small ones are.
const BATCH_BYTES_MIN: usize = 8 << 20;
const BATCH_BYTES_MAX: usize = 32 << 20;
/// No piece is shorter: what the first chunks of a piece cost twice, as they are found anew at the join, stays little.
const PIECE_BYTES_MIN: usize = 1 << 20;

const _: () = assert!(BATCH_BYTES_MIN > CHUNK_BYTES_MAX, "a batch must always hold a whole chunk");

impl<'a> Run<'a> {
    /// How many readers can help the one that asks.
    pub(super) fn helpers_max(&self) -> usize {
        self.readers.least.saturating_sub(usize::from(rayon::current_thread_index().is_some()))
    }

    /// Reads content to its end, from a chunk's beginning on, of which `begun` has been read; tells the ids in order,
    /// and how often each follows itself. Returns how many bytes it was.
    pub(super) fn read_helped<'s>(
        &'s self,
        (scope, hold): (&Scope<'s>, &Hold<'_>),
        from: &mut impl Bytes,
        (kind, expected): (ContentKind, u64),
        begun: &[u8],
        push: &mut dyn FnMut(ChunkId, u64) -> Result<()>,
    ) -> Result<u64, ReadError> {
        let batch_bytes_max = (self.options.memory_bytes as usize / 8).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX);
        let batch_bytes = (2 * FRAME_RAW_BYTES * self.readers.least).clamp(BATCH_BYTES_MIN, batch_bytes_max);
        let push_all = |storing: Placed, push: &mut dyn FnMut(ChunkId, u64) -> Result<()>| {
            storing.finish_ids(self)?.into_iter().flatten().try_for_each(|id| push(id, 1))
        };
        let mut carried = begun.to_vec();
        let mut zero_chunk = ZeroChunk::default();
        let mut total = 0;
        let mut stored = None;
        loop {
            let passed = self.pass_zeros(from, kind, &carried, &mut zero_chunk)?;
            if let Some(passed) = &passed {
                carried.truncate(carried.len() - passed.run.of_begun);
                total += passed.run.bytes;
            }
            let mut bytes = hold.buffer(batch_bytes);
            let mut filled = carried.len();
            bytes[..filled].copy_from_slice(&carried);
            let last = self.fill(from, &mut bytes, &mut filled, (kind, expected)).map_err(ReadError::Source)?;

            let piece_bytes = filled.div_ceil(self.readers.least).max(PIECE_BYTES_MIN);
            let piece = |start| Part::Cut { kind, last, piece: start..filled.min(start + piece_bytes) };
            let pieces = (0..filled).step_by(piece_bytes).map(piece).collect();
            let cut = hold.place(self, scope, bytes, filled, pieces, true);
            let (bytes, found) = cut.finish(self).map_err(ReadError::Store)?;
            let ends = self.repo.chunker().join_pieces(kind, &bytes[..filled], last, found.ends);

            let whole = ends.last().copied().unwrap_or(0);
            total += whole as u64;
            carried.clear();
            carried.extend_from_slice(&bytes[whole..filled]);
            let storing = hold.place(self, scope, bytes, whole, frames(&ends), false);
            if let Some(before) = stored.replace(storing) {
                push_all(before, push).map_err(ReadError::Store)?;
            }
            if let Some(passed) = passed {
                push(passed.id, passed.run.count).map_err(ReadError::Store)?;
            }
            if last {
                break;
            }
            self.watch.cancel.check().map_err(ReadError::Store)?;
        }
        if let Some(storing) = stored {
            push_all(storing, push).map_err(ReadError::Store)?;
        }
        Ok(total)
    }
}

/// Runs of neighbouring chunks, each as many as fill a frame.
fn frames(ends: &[usize]) -> Vec<Part> {
    let mut parts = Vec::new();
    let (mut start, mut rest) = (0, ends);
    while let Some(end) = rest.last() {
        let count = if end - start > FRAME_RAW_BYTES {
            rest.partition_point(|end| end - start < FRAME_RAW_BYTES) + 1
        } else {
            rest.len()
        };
        let (run, after) = rest.split_at(count);
        parts.push(Part::Store { start, ends: run.iter().map(|end| end - start).collect() });
        start = run[count - 1];
        rest = after;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_hold_a_frames_worth_and_miss_nothing() {
        for (chunk, count) in [(1, 0), (1, 1), (1000, 5000), (FRAME_RAW_BYTES, 3), (FRAME_RAW_BYTES - 1, 4)] {
            let ends: Vec<usize> = (1..=count).map(|number| number * chunk).collect();
            let mut found = Vec::new();
            let parts = frames(&ends);
            for (number, part) in parts.iter().enumerate() {
                let Part::Store { start, ends } = part else { panic!("it stores") };
                assert_eq!(*start, found.last().copied().unwrap_or(0));
                let length = *ends.last().unwrap();
                assert!(length >= FRAME_RAW_BYTES || number + 1 == parts.len());
                assert!(length < FRAME_RAW_BYTES + chunk);
                found.extend(ends.iter().map(|end| start + end));
            }
            assert_eq!(found, ends);
        }
    }
}
