//! Long runs of zeros in holes that an entry cannot record: they are content, and neither read nor hashed.
//!
//! Where a chunk ends depends only on the bytes from its start, up to the maximum chunk size. A chunk that starts with at least
//! that many zeros is therefore always the same one: it is hashed and stored once, and after that only its id is listed.

use crate::backup::bytes::ContentBytes;
use crate::backup::chunks::{ChunkSaver, SaveError};
use crate::chunk::ContentKind;
use crate::error::Result;
use crate::format::list::ListItem;

/// Minimum length of a run of zeros that is skipped, in maximum chunk sizes. For a shorter run it costs less to put zeros into
/// the buffer.
const RUN_CHUNKS_MIN: u64 = 4;

/// The chunk that is cut from nothing but zeros; made when it is first needed.
#[derive(Default)]
pub(super) struct ZeroChunk(Option<ListItem>);

/// A run of chunks of zeros that was passed over.
pub(super) struct PassedZeros {
    pub chunk: ListItem,
    pub run: ZeroRun,
    /// How many bytes were skipped in the source.
    pub skipped: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ZeroRun {
    /// How many chunks, and how many bytes they are.
    pub count: u64,
    pub bytes: u64,
    /// How many of these bytes had been taken from the content already.
    pub of_begun: usize,
}

impl ZeroRun {
    /// The chunks of zeros, `length` long, that certainly come next in `begun` zeros that have been taken and `ahead` that
    /// come; the last of them ends where fewer zeros than the longest chunk has are left.
    fn new(begun: usize, ahead: u64, max: usize, length: usize) -> Self {
        let count = (begun as u64 + ahead - max as u64) / length as u64 + 1;
        let bytes = count * length as u64;
        ZeroRun { count, bytes, of_begun: usize::try_from(bytes).unwrap_or(usize::MAX).min(begun) }
    }
}

/// Whether the chunk that has `begun` so is zeros, and goes on in zeros until it ends.
fn begins_in_zeros(begun: &[u8], ahead: u64, max: usize) -> bool {
    ahead >= max as u64 && begun.iter().all(|byte| *byte == 0)
}

#[derive(Clone, Copy)]
pub(super) struct FillLimits {
    pub chunk_bytes_max: usize,
    /// The size of the content, or `u64::MAX` for a stream.
    pub expected: u64,
}

/// Fills the buffer from `filled` on, and reports the bytes read and the bytes of content done to `tell`. Returns whether the
/// content ends there. In a long run of zeros it stops before the buffer is full, after one maximum chunk size of zeros: every chunk
/// that contains other bytes can then be cut.
pub(super) fn fill(
    from: &mut impl ContentBytes,
    buffer: &mut [u8],
    filled: &mut usize,
    limits: FillLimits,
    tell: &dyn Fn(u64, u64),
) -> Result<bool> {
    let FillLimits { chunk_bytes_max: max, expected } = limits;
    while *filled < buffer.len() {
        let wanted = buffer.len() - *filled;
        let zeros = from.zeros_ahead()?;
        if zeros > 0 {
            let is_long = zeros >= RUN_CHUNKS_MIN * max as u64;
            let taken =
                wanted.min(usize::try_from(zeros).unwrap_or(usize::MAX)).min(if is_long { max } else { wanted });
            buffer[*filled..*filled + taken].fill(0);
            from.pass_zeros(taken as u64)?;
            *filled += taken;
            tell(0, taken as u64);
            if is_long {
                return Ok(false);
            }
            continue;
        }
        let count = from.fill(&mut buffer[*filled..])?;
        *filled += count;
        tell(count as u64, count as u64);
        let is_short = count == 0 || (expected != u64::MAX && count < wanted);
        if is_short && from.zeros_ahead()? == 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Passes over chunks of zeros, if such chunks come next. `begun` is what has been read of the chunk that begins here.
pub(super) fn pass_zeros(
    chunks: &ChunkSaver,
    from: &mut impl ContentBytes,
    kind: ContentKind,
    begun: &[u8],
    known: &mut ZeroChunk,
) -> Result<Option<PassedZeros>, SaveError> {
    let max = chunks.chunk_bytes_max(kind);
    let ahead = from.zeros_ahead().map_err(SaveError::Source)?;
    if !begins_in_zeros(begun, ahead, max) {
        return Ok(None);
    }
    let chunk = match known.0 {
        Some(chunk) => chunk,
        None => *known.0.insert(chunks.store_zero_chunk(kind).map_err(SaveError::Store)?),
    };
    let run = ZeroRun::new(begun.len(), ahead, max, chunk.bytes as usize);
    let skipped = run.bytes - run.of_begun as u64;
    from.pass_zeros(skipped).map_err(SaveError::Source)?;
    Ok(Some(PassedZeros { chunk, run, skipped }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::chunks::zero_chunk;
    use crate::chunk::{ChunkSizes, ChunkTable, Chunker};
    use proptest::prelude::*;
    use std::cell::Cell;

    /// Content as runs: how many bytes, and whether they are zeros that need not be read.
    struct Layout<'a> {
        bytes: &'a [u8],
        /// Where runs end, and whether they are known zeros.
        runs: Vec<(usize, bool)>,
        at: usize,
    }

    impl Layout<'_> {
        fn run(&self) -> (usize, bool) {
            let next = self.runs.iter().find(|(end, _)| *end > self.at);
            next.map_or((0, false), |(end, is_zeros)| (end - self.at, *is_zeros))
        }
    }

    impl ContentBytes for Layout<'_> {
        fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
            let mut filled = 0;
            while let (left @ 1.., false) = self.run()
                && filled < buffer.len()
            {
                let count = left.min(buffer.len() - filled);
                buffer[filled..filled + count].copy_from_slice(&self.bytes[self.at..self.at + count]);
                (filled, self.at) = (filled + count, self.at + count);
            }
            Ok(filled)
        }

        fn zeros_ahead(&mut self) -> Result<u64> {
            let (left, is_zeros) = self.run();
            Ok(if is_zeros { left as u64 } else { 0 })
        }

        fn pass_zeros(&mut self, count: u64) -> Result<()> {
            assert!(self.run().1 && count <= self.run().0 as u64);
            self.at += count as usize;
            Ok(())
        }
    }

    /// Lengths of chunks as a reader finds them, how many bytes it read and how many it has done.
    fn cut_like_a_reader(
        chunker: &Chunker,
        kind: ContentKind,
        mut from: Layout,
        buffer: usize,
    ) -> (Vec<usize>, u64, u64) {
        let max = chunker.sizes(kind).max;
        let (length, _) = zero_chunk(chunker, kind);
        let limits = FillLimits { chunk_bytes_max: max, expected: 1 << 40 };
        let (read, done) = (Cell::new(0), Cell::new(0));
        let tell = |more_read, more_done| {
            read.set(read.get() + more_read);
            done.set(done.get() + more_done);
        };
        let mut buffer = vec![9; buffer.max(max + 1)];
        let (mut filled, mut lengths) = (0, Vec::new());
        loop {
            let ahead = from.zeros_ahead().unwrap();
            if begins_in_zeros(&buffer[..filled], ahead, max) {
                let run = ZeroRun::new(filled, ahead, max, length);
                from.pass_zeros(run.bytes - run.of_begun as u64).unwrap();
                tell(0, run.bytes - run.of_begun as u64);
                filled -= run.of_begun;
                lengths.extend((0..run.count).map(|_| length));
            }
            let last = fill(&mut from, &mut buffer, &mut filled, limits, &tell).unwrap();
            let mut at = 0;
            while let Some(length) = chunker.cut(kind, &buffer[at..filled], last) {
                at += length;
                lengths.push(length);
            }
            buffer.copy_within(at..filled, 0);
            filled -= at;
            if last {
                assert_eq!(filled, 0);
                return (lengths, read.get(), done.get());
            }
        }
    }

    fn assert_same_chunks(runs: &[(usize, u8)], buffer: usize) {
        let small = ChunkSizes { min: 64, average: 256, max: 1024, fixed: false };
        let pages = ChunkSizes { min: 512, average: 512, max: 512, fixed: true };
        let table = ChunkTable { small_file: small, pages, ..ChunkTable::default() };
        let chunker = Chunker::new(table, &[5; 32]);
        let (mut bytes, mut ends) = (Vec::new(), Vec::new());
        for (number, (length, nature)) in runs.iter().enumerate() {
            let start = bytes.len();
            bytes.resize(start + length, 0);
            // Data; zeros that are known; zeros that have to be read.
            if *nature == 0 {
                let mut hasher = blake3::Hasher::new();
                hasher.update(&number.to_le_bytes()).finalize_xof().fill(&mut bytes[start..]);
            }
            ends.push((bytes.len(), *nature == 1));
        }
        for kind in [ContentKind::SmallFile, ContentKind::Pages] {
            let layout = Layout { bytes: &bytes, runs: ends.clone(), at: 0 };
            let (found, read, done) = cut_like_a_reader(&chunker, kind, layout, buffer);
            let (mut at, mut expected) = (0, Vec::new());
            while let Some(length) = chunker.cut(kind, &bytes[at..], true) {
                at += length;
                expected.push(length);
            }
            assert_eq!(found, expected, "{kind:?} {runs:?} {buffer}");
            let to_read: usize = runs.iter().filter(|(_, nature)| *nature != 1).map(|(length, _)| length).sum();
            assert_eq!((read, done), (to_read as u64, bytes.len() as u64));
        }
    }

    #[test]
    fn runs_of_zeros_around_every_boundary_make_the_chunks_that_reading_them_makes() {
        for zeros in [1, 511, 512, 1023, 1024, 1025, 2048, 4095, 4096, 4097, 5120, 100_000] {
            for data in [1, 63, 64, 512, 1024, 3000] {
                for buffer in [0, 5000, 1 << 20] {
                    assert_same_chunks(&[(zeros, 1)], buffer);
                    assert_same_chunks(&[(zeros, 1), (data, 0)], buffer);
                    assert_same_chunks(&[(data, 0), (zeros, 1)], buffer);
                    assert_same_chunks(&[(data, 2), (zeros, 1), (data, 2), (zeros, 1), (data, 0), (zeros, 1)], buffer);
                }
            }
        }
        assert_same_chunks(&[], 0);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn any_layout_makes_the_chunks_that_reading_all_of_it_makes(
            runs in proptest::collection::vec((prop_oneof![1usize..200, 1usize..6000, 1usize..60_000], 0u8..3), 0..20),
            buffer in 1usize..50_000,
        ) {
            assert_same_chunks(&runs, buffer);
        }
    }
}
