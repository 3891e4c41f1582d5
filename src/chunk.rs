//! Content-defined chunking: FastCDC (v2020) with a gear table of the repository's own; pure.
//!
//! The secret table is hardening only: what really hides chunk lengths is that they are never stored in plain
//! (eprint 2025/532 and 2025/558 break keyed gear tables).

mod pieces;

use fastcdc::v2020::{Normalization, cut_gear, select_masks};

/// Sizes in bytes that the chunks of one kind of content have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkSizes {
    /// No chunk is shorter, but for the last one.
    pub min: usize,
    /// About the mean length of chunks.
    pub average: usize,
    /// No chunk is longer.
    pub max: usize,
    /// Cuts every `average` bytes instead of by content: database page files.
    pub fixed: bool,
}

impl ChunkSizes {
    const fn by_content(average: usize) -> Self {
        ChunkSizes { min: average / 2, average, max: average * 8, fixed: false }
    }

    /// Whether these sizes can be used: what comes from a stored configuration may be hostile.
    pub(crate) fn are_valid(&self) -> bool {
        let even = [self.min, self.average, self.max].iter().all(|size| size % 2 == 0);
        even && (64..=1 << 20).contains(&self.min)
            && (256..=4 << 20).contains(&self.average)
            && (1024..=CHUNK_BYTES_MAX).contains(&self.max)
            && self.min <= self.average
            && self.average <= self.max
    }
}

/// No chunk is longer, whatever the configuration says.
pub(crate) const CHUNK_BYTES_MAX: usize = 4 << 20;

/// Which sizes apply; the repository's configuration holds the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ContentKind {
    /// Files below [`ChunkTable::large_file_bytes`].
    SmallFile,
    /// Files of [`ChunkTable::large_file_bytes`] and more.
    LargeFile,
    /// Output of a command, the standard input.
    Dump,
    /// Files of databases that are written in pages of a fixed size; no source uses this yet.
    Pages,
}

/// The sizes for each kind of content (docs/decisions/0003-chunk-sizes.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkTable {
    /// For [`ContentKind::SmallFile`].
    pub small_file: ChunkSizes,
    /// For [`ContentKind::LargeFile`].
    pub large_file: ChunkSizes,
    /// For [`ContentKind::Dump`].
    pub dump: ChunkSizes,
    /// For [`ContentKind::Pages`].
    pub pages: ChunkSizes,
    /// Files of this many bytes and more are large.
    pub large_file_bytes: u64,
}

impl Default for ChunkTable {
    fn default() -> Self {
        ChunkTable {
            small_file: ChunkSizes::by_content(8 << 10),
            large_file: ChunkSizes::by_content(32 << 10),
            dump: ChunkSizes::by_content(16 << 10),
            pages: ChunkSizes { min: 8 << 10, average: 8 << 10, max: 8 << 10, fixed: true },
            large_file_bytes: 16 << 20,
        }
    }
}

/// Finds cuts. Made once per repository, shared by all workers.
pub struct Chunker {
    table: ChunkTable,
    gear: [u64; 256],
    /// The table shifted left by one, as the algorithm takes two bytes a round.
    gear_shifted: [u64; 256],
}

impl Chunker {
    /// The secret decides where cuts are, so that sizes of chunks tell nothing about known content.
    pub fn new(table: ChunkTable, secret: &[u8; 32]) -> Self {
        let mut bytes = [0; 256 * 8];
        blake3::Hasher::new_keyed(secret).finalize_xof().fill(&mut bytes);
        let mut gear = [0; 256];
        for (word, bytes) in gear.iter_mut().zip(bytes.chunks_exact(8)) {
            *word = u64::from_le_bytes(bytes.try_into().expect("eight bytes"));
        }
        Chunker { table, gear, gear_shifted: gear.map(|word| word << 1) }
    }

    pub(crate) fn kind_of_file(&self, size: u64) -> ContentKind {
        if size < self.table.large_file_bytes { ContentKind::SmallFile } else { ContentKind::LargeFile }
    }

    /// The sizes for a kind of content.
    pub fn sizes(&self, kind: ContentKind) -> ChunkSizes {
        match kind {
            ContentKind::SmallFile => self.table.small_file,
            ContentKind::LargeFile => self.table.large_file,
            ContentKind::Dump => self.table.dump,
            ContentKind::Pages => self.table.pages,
        }
    }

    /// How long the chunk at the start of `bytes` is; `None` when that depends on bytes that come later. At the end
    /// of the content (`last`) there is always an answer, unless `bytes` is empty.
    pub fn cut(&self, kind: ContentKind, bytes: &[u8], last: bool) -> Option<usize> {
        let sizes = self.sizes(kind);
        if bytes.len() < sizes.max && !last || bytes.is_empty() {
            return None;
        }
        if sizes.fixed || bytes.len() <= sizes.min {
            return Some(bytes.len().min(sizes.average.max(sizes.min)));
        }
        let window = &bytes[..bytes.len().min(sizes.max)];
        let (strict, loose) = select_masks(sizes.average, Normalization::Level2);
        let (_, length) = cut_gear(
            window,
            sizes.min,
            sizes.average,
            sizes.max,
            strict,
            loose,
            strict << 1,
            loose << 1,
            &self.gear,
            &self.gear_shifted,
        );
        Some(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(length: usize, seed: u8) -> Vec<u8> {
        let mut bytes = vec![0; length];
        blake3::Hasher::new_keyed(&[seed; 32]).finalize_xof().fill(&mut bytes);
        bytes
    }

    fn cuts(chunker: &Chunker, kind: ContentKind, bytes: &[u8]) -> Vec<usize> {
        let mut at = 0;
        let mut lengths = Vec::new();
        while let Some(length) = chunker.cut(kind, &bytes[at..], true) {
            lengths.push(length);
            at += length;
        }
        assert_eq!(at, bytes.len());
        lengths
    }

    #[test]
    fn lengths_stay_in_bounds_and_average_near_the_nominal() {
        let chunker = Chunker::new(ChunkTable::default(), &[1; 32]);
        let bytes = noise(8 << 20, 9);
        for kind in [ContentKind::SmallFile, ContentKind::LargeFile, ContentKind::Dump, ContentKind::Pages] {
            let sizes = chunker.sizes(kind);
            assert!(sizes.are_valid());
            let lengths = cuts(&chunker, kind, &bytes);
            let (_, but_last) = lengths.split_last().unwrap();
            assert!(but_last.iter().all(|l| (sizes.min..=sizes.max).contains(l)));
            let mean = bytes.len() / lengths.len();
            assert!((sizes.average / 2..sizes.average * 2).contains(&mean), "{kind:?}: {mean}");
        }
    }

    #[test]
    fn a_byte_put_in_front_changes_only_the_first_chunks() {
        let chunker = Chunker::new(ChunkTable::default(), &[1; 32]);
        let bytes = noise(1 << 20, 4);
        let shifted = [&b"x"[..], &bytes].concat();
        let ends = |lengths: Vec<usize>, from: usize| -> Vec<usize> {
            lengths
                .iter()
                .scan(0, |at, l| {
                    *at += l;
                    Some(*at - from)
                })
                .collect()
        };
        let old = ends(cuts(&chunker, ContentKind::SmallFile, &bytes), 0);
        let new = ends(cuts(&chunker, ContentKind::SmallFile, &shifted), 1);
        let kept = new.iter().filter(|end| old.contains(end)).count();
        assert!(kept + 8 >= old.len(), "{kept} of {}", old.len());
    }

    /// A silent change of the algorithm would store every repository's content again.
    #[test]
    fn cuts_never_change() {
        let chunker = Chunker::new(ChunkTable::default(), &[42; 32]);
        let bytes = noise(200_000, 7);
        let mut hasher = blake3::Hasher::new();
        for kind in [ContentKind::SmallFile, ContentKind::LargeFile, ContentKind::Dump] {
            for length in cuts(&chunker, kind, &bytes) {
                hasher.update(&(length as u64).to_le_bytes());
            }
        }
        assert_eq!(hasher.finalize().to_hex()[..16], *"2f03ef73938dc7b0");
    }

    #[test]
    fn more_bytes_are_asked_for_when_the_cut_may_lie_behind_them() {
        let chunker = Chunker::new(ChunkTable::default(), &[1; 32]);
        let bytes = noise(100_000, 1);
        let max = chunker.sizes(ContentKind::SmallFile).max;
        assert_eq!(chunker.cut(ContentKind::SmallFile, &bytes[..max - 1], false), None);
        assert!(chunker.cut(ContentKind::SmallFile, &bytes[..max], false).is_some());
        assert_eq!(chunker.cut(ContentKind::SmallFile, &[], true), None);
    }
}
