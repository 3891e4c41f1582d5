//! Cut one content in several threads: each cuts a piece as if a chunk began where the piece does, and joining the pieces returns
//! the cuts that one thread would have found.
//!
//! Where a chunk ends depends only on where it begins and on the bytes that follow. So two ways of cutting that share one cut
//! share all that follow; at the joins they mostly meet after a few chunks.

use super::{Chunker, ContentKind};
use std::ops::Range;

impl Chunker {
    /// Where chunks end in `bytes` when one begins at the start of `piece`: up to the first end at or after the end of
    /// `piece`, or as far as it can be known ([`Chunker::cut`] with `last`).
    pub(crate) fn cut_piece(&self, kind: ContentKind, bytes: &[u8], last: bool, piece: Range<usize>) -> Vec<usize> {
        let mut at = piece.start;
        let mut ends = Vec::new();
        while at < piece.end
            && let Some(length) = self.cut(kind, &bytes[at..], last)
        {
            at += length;
            ends.push(at);
        }
        ends
    }

    /// Where chunks end in `bytes` when one begins at 0, as far as that can be known. `pieces` is what
    /// [`Chunker::cut_piece`] returned for ranges that follow one another from 0 to the end of `bytes`.
    pub(crate) fn join_pieces(
        &self,
        kind: ContentKind,
        bytes: &[u8],
        last: bool,
        pieces: Vec<Vec<usize>>,
    ) -> Vec<usize> {
        let mut pieces = pieces.into_iter();
        let mut ends = pieces.next().unwrap_or_default();
        for piece in pieces {
            let mut at = ends.last().copied().unwrap_or(0);
            // What this piece has before `at` is of no use, nor is the piece when `at` has passed it.
            let mut rest = piece.as_slice();
            loop {
                rest = &rest[rest.partition_point(|end| *end < at)..];
                match rest.first() {
                    Some(end) if *end == at => {
                        ends.extend_from_slice(&rest[1..]);
                        break;
                    }
                    Some(_) => {}
                    None => break,
                }
                let Some(length) = self.cut(kind, &bytes[at..], last) else { break };
                at += length;
                ends.push(at);
            }
        }
        // Behind the last piece's last end there may be more, when the pieces never met.
        let at = ends.last().copied().unwrap_or(0);
        ends.extend(self.cut_piece(kind, bytes, last, at..bytes.len()));
        ends
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::ChunkTable;
    use proptest::prelude::*;

    const KINDS: [ContentKind; 4] =
        [ContentKind::SmallFile, ContentKind::LargeFile, ContentKind::Dump, ContentKind::Pages];

    fn chunker() -> Chunker {
        Chunker::new(ChunkTable::default(), &[3; 32])
    }

    /// Content of several natures; `seed` makes each different.
    fn content(nature: usize, length: usize, seed: u64) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let fill = |bytes: &mut [u8]| blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof().fill(bytes);
        match nature {
            0 => fill(&mut bytes),
            // Zeros, and one byte again and again.
            1 => {}
            2 => bytes.fill(seed as u8),
            // A period: never the length of a chunk, so that pieces hardly ever meet.
            3 => {
                let mut period = vec![0; 1 + seed as usize % 70_000];
                fill(&mut period);
                bytes.iter_mut().zip(period.iter().cycle()).for_each(|(byte, from)| *byte = *from);
            }
            // Words.
            4 => {
                fill(&mut bytes);
                let words = ["alpha ", "beta ", "gamma\n", "delta, ", "epsilon; "];
                let text: Vec<u8> = bytes.iter().flat_map(|byte| words[*byte as usize % 5].bytes()).collect();
                bytes.copy_from_slice(&text[..length]);
            }
            // Noise with long runs of zeros, as in images of disks.
            _ => {
                fill(&mut bytes);
                bytes.chunks_mut(300_000).skip(1).step_by(2).for_each(|run| run.fill(0));
            }
        }
        bytes
    }

    fn in_sequence(chunker: &Chunker, kind: ContentKind, bytes: &[u8], last: bool) -> Vec<usize> {
        let (mut at, mut ends) = (0, Vec::new());
        while let Some(length) = chunker.cut(kind, &bytes[at..], last) {
            at += length;
            ends.push(at);
        }
        ends
    }

    fn in_pieces(chunker: &Chunker, kind: ContentKind, bytes: &[u8], last: bool, starts: &[usize]) -> Vec<usize> {
        let bounds: Vec<usize> = starts.iter().copied().chain([bytes.len()]).collect();
        let cut = |pair: &[usize]| chunker.cut_piece(kind, bytes, last, pair[0]..pair[1]);
        chunker.join_pieces(kind, bytes, last, bounds.windows(2).map(cut).collect())
    }

    fn assert_same(nature: usize, length: usize, seed: u64, starts: &[usize]) {
        let (chunker, bytes) = (chunker(), content(nature, length, seed));
        for kind in KINDS {
            for last in [false, true] {
                let expected = in_sequence(&chunker, kind, &bytes, last);
                let found = in_pieces(&chunker, kind, &bytes, last, starts);
                assert_eq!(found, expected, "{kind:?}, nature {nature}, {length} bytes, {last}, {starts:?}");
            }
        }
    }

    #[test]
    fn lengths_around_every_boundary_are_cut_as_by_one_thread() {
        let table = ChunkTable::default();
        let sizes = [table.small_file, table.large_file, table.dump, table.pages];
        for size in sizes.iter().flat_map(|sizes| [sizes.min, sizes.average, sizes.max, 2 * sizes.max]) {
            for length in [size - 1, size, size + 1] {
                for nature in 0..6 {
                    let piece = length.div_ceil(3);
                    assert_same(nature, length, 7, &[0, piece, (2 * piece).min(length)]);
                }
            }
        }
        for nature in 0..6 {
            for length in [0, 1, 2, 65] {
                assert_same(nature, length, 7, &[0]);
                assert_same(nature, length, 7, &[0, length / 2, length]);
            }
        }
    }

    #[test]
    fn pieces_that_begin_at_a_true_cut_or_beside_one_are_joined() {
        let bytes = content(0, 2 << 20, 11);
        for kind in KINDS {
            let ends = in_sequence(&chunker(), kind, &bytes, true);
            let middle = ends[ends.len() / 2];
            for start in [middle - 1, middle, middle + 1] {
                assert_same(0, 2 << 20, 11, &[0, start]);
                assert_same(0, 2 << 20, 11, &[0, start, start + 1, start + 2]);
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn pieces_anywhere_are_cut_as_by_one_thread(
            nature in 0usize..6,
            length in prop_oneof![0usize..5000, 5000usize..600_000, 600_000usize..3_000_000],
            seed in any::<u64>(),
            places in proptest::collection::vec(0.0f64..1.0, 0..6),
        ) {
            let mut starts: Vec<usize> = places.iter().map(|place| (place * length as f64) as usize).collect();
            starts.push(0);
            starts.sort_unstable();
            assert_same(nature, length, seed, &starts);
        }
    }
}
