//! Large files and streams: one thread reads, and every idle reader helps to cut and to store.
//!
//! A batch is read while the one before is being stored. Its pieces are cut at the same time and joined
//! (`chunk/pieces.rs`), so that the chunks are those that one thread would have found. Then runs of neighbouring chunks, each
//! as long as a frame, are hashed, claimed and stored, each run by one thread and so into one frame.

use crate::backup::bytes::ContentBytes;
use crate::backup::chunks::{ExpectedContent, SaveError};
use crate::backup::helpers::{BatchHandle, BatchPart, HelpPermit};
use crate::backup::intake::Intake;
use crate::backup::zeros::ZeroChunk;
use crate::chunk::CHUNK_BYTES_MAX;
use crate::error::Result;
use crate::format::FRAME_RAW_BYTES;
use crate::format::list::ListItem;

/// Minimum remaining bytes of a file for help. A stream always has help.
pub(super) const HELPED_BYTES_MIN: u64 = 8 << 20;
/// A batch is two frames long for each reader, between these limits. At most two batches are in memory, however many large
/// files there are: one content at a time has help, the others are read as small ones are.
const BATCH_BYTES_MIN: usize = 8 << 20;
const BATCH_BYTES_MAX: usize = 32 << 20;
/// Minimum length of a piece. The first chunks of a piece are searched for twice, because they are found anew at the join.
const PIECE_BYTES_MIN: usize = 1 << 20;

const _: () = assert!(BATCH_BYTES_MIN > CHUNK_BYTES_MAX, "a batch must always hold a whole chunk");

/// How large batches and pieces are.
#[derive(Clone, Copy)]
pub(super) struct BatchSizes {
    batch_bytes: usize,
    readers: usize,
}

impl BatchSizes {
    pub(crate) fn new(readers: usize, memory_bytes: u64) -> Self {
        let batch_bytes_max = (memory_bytes as usize / 8).clamp(BATCH_BYTES_MIN, BATCH_BYTES_MAX);
        BatchSizes { batch_bytes: (2 * FRAME_RAW_BYTES * readers).clamp(BATCH_BYTES_MIN, batch_bytes_max), readers }
    }

    fn pieces(&self, filled: usize) -> usize {
        filled.div_ceil(self.readers).max(PIECE_BYTES_MIN)
    }
}

/// Takes chunks in their order, each with how often it follows itself.
pub(super) type PushChunk<'p> = dyn FnMut(ListItem, u64) -> Result<()> + 'p;

/// Content that is read with the help of other readers.
pub(super) struct HelpedContent<'h, 's> {
    pub intake: &'h Intake<'h>,
    pub permit: HelpPermit<'h, 's>,
    pub sizes: BatchSizes,
    pub expected: ExpectedContent,
}

impl HelpedContent<'_, '_> {
    /// Reads the content to its end, from the beginning of a chunk of which `begun` has been read already. Returns the length in
    /// bytes.
    pub(crate) fn save(
        &self,
        from: &mut impl ContentBytes,
        begun: &[u8],
        push: &mut PushChunk,
    ) -> Result<u64, SaveError> {
        let mut carried = begun.to_vec();
        let mut zero_chunk = ZeroChunk::default();
        let mut total = 0;
        let mut stored = None;
        loop {
            let passed = self.intake.pass_zeros(from, self.expected, &carried, &mut zero_chunk)?;
            if let Some(passed) = &passed {
                carried.truncate(carried.len() - passed.run.of_begun);
                total += passed.run.bytes;
            }
            let mut bytes = self.permit.buffer(self.sizes.batch_bytes);
            let mut filled = carried.len();
            bytes[..filled].copy_from_slice(&carried);
            let last = self.intake.fill(from, &mut bytes, &mut filled, self.expected)?;

            let piece_bytes = self.sizes.pieces(filled);
            let kind = self.expected.kind;
            let piece = |start| BatchPart::Cut { kind, last, piece: start..filled.min(start + piece_bytes) };
            let pieces = (0..filled).step_by(piece_bytes).map(piece).collect();
            let (bytes, found) = self.permit.place(bytes, filled, pieces, true).finish().map_err(SaveError::Store)?;
            let ends = self.intake.chunks.join_pieces(kind, &bytes[..filled], last, found.ends);

            let whole = ends.last().copied().unwrap_or(0);
            total += whole as u64;
            carried.clear();
            carried.extend_from_slice(&bytes[whole..filled]);
            let storing = self.permit.place(bytes, whole, frames(&ends), false);
            if let Some(before) = stored.replace(storing) {
                push_all(before, push)?;
            }
            if let Some(passed) = passed {
                push(passed.chunk, passed.run.count).map_err(SaveError::Store)?;
            }
            if last {
                break;
            }
            self.intake.check_cancel()?;
        }
        stored.map_or(Ok(()), |storing| push_all(storing, push))?;
        Ok(total)
    }
}

fn push_all(storing: BatchHandle, push: &mut PushChunk) -> Result<(), SaveError> {
    let chunks = storing.finish_stored().map_err(SaveError::Store)?;
    chunks.into_iter().flatten().try_for_each(|chunk| push(chunk, 1)).map_err(SaveError::Store)
}

/// Runs of neighbouring chunks, each as many as fill a frame.
fn frames(ends: &[usize]) -> Vec<BatchPart> {
    let mut parts = Vec::new();
    let (mut start, mut rest) = (0, ends);
    while let Some(end) = rest.last() {
        let count = if end - start > FRAME_RAW_BYTES {
            rest.partition_point(|end| end - start < FRAME_RAW_BYTES) + 1
        } else {
            rest.len()
        };
        let (run, after) = rest.split_at(count);
        parts.push(BatchPart::Store { start, ends: run.iter().map(|end| end - start).collect() });
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
                let BatchPart::Store { start, ends } = part else { panic!("it stores") };
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
