//! Build a segment of any number of packs: runs of bounded size are sorted and written, then merged.

use super::segment::Segment;
use super::segment_layout::*;
use super::segment_merge::merge_into;
use super::segment_place::SegmentPlace;
use super::segment_write::{SegmentTables, SegmentWriter};
use crate::error::{Error, Result};
use crate::place::PackContents;
use rayon::slice::ParallelSliceMut;
use std::sync::Arc;

/// How many entries are sorted in memory at a time (36 bytes each).
const RUN_ENTRIES_MAX: usize = 1 << 20;
/// How large the tables of a run get: a row for each pack and frame, of which a hostile index object can name many.
const RUN_TABLE_BYTES_MAX: usize = 64 << 20;
/// Minimum number of entries to sort with several threads.
const SORTED_IN_PARALLEL_MIN: usize = 1 << 17;

/// Makes one segment of any number of packs: sorts runs of bounded size, then merges them.
pub(crate) struct SegmentBuilder {
    place: SegmentPlace,
    run_entries_max: usize,
    run_table_bytes_max: usize,
    tables: SegmentTables,
    entries: Vec<SegmentEntry>,
    runs: Vec<Arc<Segment>>,
}

impl SegmentBuilder {
    pub(super) fn at(place: SegmentPlace) -> Self {
        SegmentBuilder::with_runs_of(place, RUN_ENTRIES_MAX, RUN_TABLE_BYTES_MAX)
    }

    fn with_runs_of(place: SegmentPlace, run_entries_max: usize, run_table_bytes_max: usize) -> Self {
        SegmentBuilder {
            place,
            run_entries_max,
            run_table_bytes_max,
            tables: SegmentTables::default(),
            entries: Vec::new(),
            runs: Vec::new(),
        }
    }

    pub(crate) fn push(&mut self, pack: &PackContents) -> Result<()> {
        self.tables.add(pack, &mut self.entries)?;
        let is_full = self.entries.len() >= self.run_entries_max || self.tables.bytes() >= self.run_table_bytes_max;
        if is_full { self.end_run() } else { Ok(()) }
    }

    /// Puts the segment in its place and returns it, open.
    pub(crate) fn finish(mut self) -> Result<Segment> {
        if self.runs.is_empty() {
            return self.write(self.place.clone(), true);
        }
        if !self.tables.packs.is_empty() {
            self.end_run()?;
        }
        merge_into(&self.runs, self.place)
    }

    fn end_run(&mut self) -> Result<()> {
        let place = self.place.apart("run");
        let run = self.write(place.clone(), false);
        if let SegmentPlace::File(path) = &place {
            // The mapping keeps the bytes; without a name there is nothing to clean up after a crash.
            std::fs::remove_file(path).map_err(|error| Error::io("remove", path.display(), error))?;
        }
        self.runs.push(Arc::new(run?));
        Ok(())
    }

    fn write(&mut self, place: SegmentPlace, for_use: bool) -> Result<Segment> {
        // The caller holds a lock. A pool thread that waits for a parallel sort runs other tasks of its pool, which could
        // need that lock; and all threads of the common pool may be waiting for it. So a pool of its own sorts.
        let is_large = self.entries.len() >= SORTED_IN_PARALLEL_MIN && rayon::current_thread_index().is_none();
        match is_large.then(|| rayon::ThreadPoolBuilder::new().build()) {
            Some(Ok(pool)) => pool.install(|| self.entries.par_sort_unstable_by(SegmentEntry::order)),
            _ => self.entries.sort_unstable_by(SegmentEntry::order),
        }
        let mut writer = SegmentWriter::begin(place, self.entries.len() as u64, for_use)?;
        for entry in self.entries.drain(..) {
            writer.push(&entry)?;
        }
        writer.finish(&std::mem::take(&mut self.tables))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::{ChunkId, PackId};
    use crate::index::segment_place::unforeseen;
    use crate::place::FrameContents;

    fn pack(number: u64) -> PackContents {
        let hash = |what: &str, number: u64| *blake3::hash(format!("{what}{number}").as_bytes()).as_bytes();
        let id = |chunk: u64| ChunkId::from_slice(&hash("chunk", chunk)[..24]).expect("24 bytes make an id");
        // Neighbouring packs share half of their chunks.
        let chunks = (number * 50..number * 50 + 100).map(|chunk| (id(chunk), 7)).collect();
        let frames = vec![FrameContents { stored: 90, raw: 700, chunks }];
        PackContents {
            pack: PackId(hash("pack", number)),
            kind: crate::id::ChunkKind::Content,
            stored_bytes: 100,
            data_offset: 10,
            frames,
        }
    }

    #[test]
    fn many_sorted_runs_make_the_same_segment_as_one() -> Result<()> {
        let folder = std::env::temp_dir().join(format!("silt-runs-{:016x}", unforeseen()));
        std::fs::create_dir(&folder).map_err(|error| Error::io("create", folder.display(), error))?;
        let paths = [folder.join("runs"), folder.join("one")];
        for (path, run_entries_max) in paths.iter().zip([150, usize::MAX]) {
            let mut builder =
                SegmentBuilder::with_runs_of(SegmentPlace::File(path.clone()), run_entries_max, usize::MAX);
            (0..41).try_for_each(|number| builder.push(&pack(number)))?;
            assert_eq!(builder.finish()?.chunks_count(), 42 * 50);
        }
        let mut in_memory = SegmentBuilder::with_runs_of(SegmentPlace::Memory, 150, usize::MAX);
        (0..41).try_for_each(|number| in_memory.push(&pack(number)))?;
        let in_memory = in_memory.finish()?;
        let [runs, one] = [Segment::open(&paths[0])?, Segment::open(&paths[1])?];
        for (id, _) in (0..41).flat_map(|number| pack(number).frames.remove(0).chunks) {
            assert!(runs.contains(&id)?);
            assert_eq!(runs.locate(&id)?, one.locate(&id)?);
            assert_eq!(in_memory.locate(&id)?, one.locate(&id)?);
        }
        let left = std::fs::read_dir(&folder).map(|files| files.count()).unwrap_or_default();
        std::fs::remove_dir_all(&folder).map_err(|error| Error::io("remove", folder.display(), error))?;
        assert_eq!(left, 2, "runs must not stay behind");
        Ok(())
    }

    /// The tables of all packs were in memory at once when they had few chunks.
    #[test]
    fn a_run_also_ends_when_its_tables_are_large() -> Result<()> {
        let mut builder =
            SegmentBuilder::with_runs_of(SegmentPlace::Memory, usize::MAX, 3 * (PACK_BYTES + FRAME_BYTES));
        for number in 0..10 {
            builder.push(&pack(number))?;
            assert!(builder.tables.pack_count() < 3);
        }
        assert_eq!(builder.runs.len(), 3);
        let segment = builder.finish()?;
        assert_eq!((segment.pack_count(), segment.chunks_count()), (10, 11 * 50));
        Ok(())
    }
}
