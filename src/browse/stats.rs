//! Count what snapshots hold and what storing them takes.
//!
//! Memory is bounded however many chunks there are: unique chunks are counted exactly up to [`IDS_MAX`] of them;
//! beyond that only those are kept whose (uniformly distributed) ids begin with enough zero bits, and the totals are
//! scaled up: an error of well below one percent. A tree that the snapshot before has too is not walked again.

use super::content::wrong_size;
use super::path::{clean, resolve};
use super::series::{SeriesStep, SeriesWalk};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Kind, Result};
use crate::format::{INDEX_PREFIX, PACKS_PREFIX};
use crate::id::ChunkId;
use crate::repo::{Reader, Repository, Snapshot};
use crate::watch::Watch;
use hashbrown::HashMap;

/// Chunks that are remembered at the same time: about 120 MB.
const IDS_MAX: usize = 3 << 20;

/// Figures of one snapshot or of many.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Statistics {
    /// How many snapshots were counted.
    pub snapshots: u64,
    /// Files and streams, in every snapshot that they are in.
    pub files: u64,
    /// Directories, in every snapshot that they are in.
    pub directories: u64,
    /// Links, devices, FIFOs.
    pub others: u64,
    /// Sizes of all files and streams in every snapshot that they are in, holes included.
    pub bytes: u64,
    /// Chunks of content, each once.
    pub unique_chunks: u64,
    /// Bytes of content, each chunk once.
    pub unique_bytes: u64,
    /// What those take in packs, each chunk with its share of its frame.
    pub unique_stored_bytes: u64,
    /// Whether the three above were counted rather than estimated.
    pub exact: bool,
    /// Of the whole repository, whatever was asked for.
    pub packs: u64,
    /// Bytes of all packs of the repository.
    pub packs_bytes: u64,
    /// Index objects of the repository.
    pub indexes: u64,
    /// Bytes of all index objects of the repository.
    pub indexes_bytes: u64,
    /// Chunks that the index knows, trees included.
    pub indexed_chunks: u64,
}

impl Statistics {
    /// Unique bytes to what they take; above 1 is saved.
    pub fn compression_ratio(&self) -> f64 {
        ratio(self.unique_bytes, self.unique_stored_bytes)
    }

    /// All bytes to the unique ones.
    pub fn deduplication_ratio(&self) -> f64 {
        ratio(self.bytes, self.unique_bytes)
    }
}

fn ratio(over: u64, under: u64) -> f64 {
    if under == 0 { 1.0 } else { over as f64 / under as f64 }
}

/// Counts these snapshots, at and below `path` in each (`/` for all); snapshots without that path count as empty.
pub fn stats(repo: &Repository, snapshots: &[Snapshot], path: &[u8], watch: &Watch) -> Result<Statistics> {
    let reader = repo.reader();
    let path = clean(path)?;
    let mut statistics = Statistics { snapshots: snapshots.len() as u64, ..Statistics::default() };
    let mut sample = ChunkSample::default();
    let mut running = RunningTotals::default();
    let mut walk = SeriesWalk::new(&reader, watch);
    for snapshot in snapshots {
        let mut damage = Vec::new();
        let mut each = |step: SeriesStep| {
            let SeriesStep::Pair { path: at, old, new } = step else {
                if matches!(step, SeriesStep::Whole) {
                    running = RunningTotals::default();
                    damage.clear();
                }
                return Ok(());
            };
            old.into_iter().for_each(|entry| running.count(entry, -1));
            let Some(new) = new else { return Ok(()) };
            running.count(new, 1);
            if old.is_some_and(|old| old.content == new.content) {
                return Ok(());
            }
            match sample.add(&reader, new, watch) {
                Err(error) if error.is(Kind::Corrupt) => {
                    damage.push((at.to_vec(), format!("snapshot {}: {error}", snapshot.id.short())));
                    Ok(())
                }
                other => other,
            }
        };
        match resolve(&reader, snapshot, &path) {
            Err(error) if error.is(Kind::NotFound) => walk.walk(snapshot, None, &path, &mut each)?,
            Err(error) if error.is_damage() => walk.pass_damaged(snapshot, &path, &error.to_string(), &mut each)?,
            top => walk.walk(snapshot, Some(top?), &path, &mut each)?,
        }
        damage.into_iter().for_each(|(at, what)| watch.damage(&at, what));
        statistics.files += running.files as u64;
        statistics.directories += running.directories as u64;
        statistics.others += running.others as u64;
        statistics.bytes = statistics.bytes.saturating_add(running.bytes as u64);
    }
    sample.total(&mut statistics);
    count_objects(repo, &mut statistics)?;
    Ok(statistics)
}

/// Counts what the whole repository holds.
fn count_objects(repo: &Repository, statistics: &mut Statistics) -> Result<()> {
    let listed = |prefix: &str| {
        let objects = repo.storage().list(prefix)?;
        Ok::<_, crate::error::Error>((objects.len() as u64, objects.iter().map(|object| object.size).sum()))
    };
    (statistics.packs, statistics.packs_bytes) = listed(PACKS_PREFIX)?;
    (statistics.indexes, statistics.indexes_bytes) = listed(INDEX_PREFIX)?;
    statistics.indexed_chunks = repo.view().segments().iter().map(|segment| segment.chunks_count()).sum();
    Ok(())
}

/// What the snapshot at hand holds, kept up to date by differences.
#[derive(Default)]
struct RunningTotals {
    files: i64,
    directories: i64,
    others: i64,
    bytes: i128,
}

impl RunningTotals {
    fn count(&mut self, entry: &Entry, by: i64) {
        match entry.kind {
            EntryKind::File | EntryKind::Stream => self.files += by,
            EntryKind::Directory => self.directories += by,
            _ => self.others += by,
        }
        self.bytes += i128::from(entry.size) * i128::from(by);
    }
}

/// Distinct chunks by the bound of memory (Gibbons' distinct sampling).
#[derive(Default)]
struct ChunkSample {
    /// By half of the id, which is enough to tell them apart: length, and share of what is stored.
    chunks: HashMap<u64, (u32, f32)>,
    /// Only ids that begin with this many zero bits are among these. Inline content is not a chunk, so it never is.
    bits: u32,
}

impl ChunkSample {
    fn add(&mut self, reader: &Reader, entry: &Entry, watch: &Watch) -> Result<()> {
        if matches!(entry.content, Content::Tree(_)) {
            return Ok(());
        }
        let mut left = entry.content_bytes();
        reader.for_each_chunk(entry, &mut |id| {
            watch.cancel.check()?;
            // More than the file is long, however often a hostile list names the same chunks, is not looked at.
            left = left.checked_sub(self.add_chunk(reader, id)?).ok_or_else(|| wrong_size(entry))?;
            Ok(())
        })
    }

    /// Returns the chunk's length, at least 1: of those that only count for others, no more is known.
    fn add_chunk(&mut self, reader: &Reader, id: &ChunkId) -> Result<u64> {
        let (first, _) = id.as_bytes().split_first_chunk::<8>().expect("an id is longer");
        let number = u64::from_be_bytes(*first);
        if let Some((length, _)) = self.chunks.get(&number) {
            return Ok(u64::from(*length));
        }
        if number.leading_zeros() < self.bits {
            return Ok(1);
        }
        let at = reader.locate(id)?;
        let share = at.length as f32 * at.frame_stored as f32 / (at.frame_raw as f32).max(1.0);
        self.chunks.insert(number, (at.length, share));
        while self.chunks.len() > IDS_MAX {
            self.bits += 1;
            let bits = self.bits;
            self.chunks.retain(|number, _| number.leading_zeros() >= bits);
        }
        Ok(u64::from(at.length))
    }

    fn total(&self, statistics: &mut Statistics) {
        let scale = |count: u64| count << self.bits;
        statistics.unique_chunks = scale(self.chunks.len() as u64);
        statistics.unique_bytes = scale(self.chunks.values().map(|chunk| u64::from(chunk.0)).sum());
        statistics.unique_stored_bytes =
            scale(self.chunks.values().map(|chunk| f64::from(chunk.1)).sum::<f64>() as u64);
        statistics.exact = self.bits == 0;
    }
}
