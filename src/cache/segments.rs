//! The local chunk index: the segments in one folder, shared by several processes.
//!
//! Files never change. What belongs to the set is said by the manifest alone, which is replaced under a lock; whoever
//! has a segment mapped keeps it when it leaves the set and its name is removed.

use super::manifest::{self, Row, SUFFIX, is_lost};
use super::segment::Segment;
use super::segment_merge::merge_into;
use super::segment_write::{Builder, unforeseen};
use crate::error::{Error, Result};
use crate::id::{ChunkId, IndexId};
use crate::place::{FramePlace, Located, PackContents};
use std::collections::HashSet;
use std::fs::{File, OpenOptions, TryLockError};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

/// Each lookup asks all segments, so there are never more than this.
const SEGMENTS_MAX: usize = 8;
/// What is not listed and has not changed for so long was left by a crash.
const LEFTOVER_AGE: Duration = Duration::from_secs(24 * 60 * 60);

/// How many ids before its turn what an id's filters hold is read, and then its entries.
const FILTERS_AHEAD: usize = 16;
const ENTRIES_AHEAD: usize = 8;

/// The segments as they were at one moment: cheap to clone, to be asked by many threads.
#[derive(Clone, Default)]
pub struct View(Arc<[Arc<Segment>]>);

impl View {
    pub fn contains(&self, id: &ChunkId) -> Result<bool> {
        for segment in self.0.iter() {
            if segment.contains(id)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Whether each of these is known: several times faster than one by one, for memory is read ahead.
    pub fn contains_each(&self, ids: &[ChunkId]) -> Result<Vec<bool>> {
        let mut known = Vec::with_capacity(ids.len());
        self.ahead(ids, |id| self.contains(id).map(|is_known| known.push(is_known)))?;
        Ok(known)
    }

    /// Does something with each id in turn, while what looking them up will read is on its way to the processor.
    pub(super) fn ahead(&self, ids: &[ChunkId], mut look: impl FnMut(&ChunkId) -> Result<()>) -> Result<()> {
        let large = || self.0.iter().filter(|segment| segment.is_large());
        for at in 0..ids.len() + FILTERS_AHEAD {
            for segment in large() {
                if let Some(id) = ids.get(at) {
                    segment.fetch_filter(id);
                }
                if let Some(id) = at.checked_sub(FILTERS_AHEAD - ENTRIES_AHEAD).and_then(|at| ids.get(at)) {
                    segment.fetch_entries(id);
                }
            }
            if let Some(id) = at.checked_sub(FILTERS_AHEAD).and_then(|at| ids.get(at)) {
                look(id)?;
            }
        }
        Ok(())
    }

    pub fn locate(&self, id: &ChunkId) -> Result<Option<Located>> {
        for segment in self.0.iter() {
            if let Some(located) = segment.locate(id)? {
                return Ok(Some(located));
            }
        }
        Ok(None)
    }

    /// The frames of this chunk's pack that begin within these bytes of the pack, in order; none for an unknown chunk.
    pub fn frames_within(&self, id: &ChunkId, bytes: &Range<u64>) -> Result<Vec<FramePlace>> {
        for segment in self.0.iter() {
            if let Some(places) = segment.frames_within(id, bytes)? {
                return Ok(places);
            }
        }
        Ok(Vec::new())
    }

    /// The segments, newest first.
    pub fn segments(&self) -> &[Arc<Segment>] {
        &self.0
    }
}

/// The set of segments in a folder.
pub struct Segments {
    folder: PathBuf,
    listed: Vec<Listed>,
    covered: HashSet<IndexId>,
    view: View,
}

struct Listed {
    row: Row,
    segment: Arc<Segment>,
}

impl Segments {
    /// Opens what the folder holds. What is missing or damaged leaves the set, with a notice; what it covered has to be
    /// added again.
    pub fn open(folder: &Path) -> Result<(Self, Vec<String>)> {
        std::fs::create_dir_all(folder).map_err(|error| Error::io("create the folder", folder.display(), error))?;
        let covered = HashSet::new();
        let mut set = Segments { folder: folder.to_owned(), listed: Vec::new(), covered, view: View::default() };
        let notices = set.commit(|_| ())?;
        Ok((set, notices))
    }

    /// The index objects whose chunks are known here. Where the repository no longer has one of them, its chunks may be
    /// gone too: see [`Segments::retain`].
    pub fn covered(&self) -> &HashSet<IndexId> {
        &self.covered
    }

    pub fn contains(&self, id: &ChunkId) -> Result<bool> {
        self.view.contains(id)
    }

    pub fn locate(&self, id: &ChunkId) -> Result<Option<Located>> {
        self.view.locate(id)
    }

    /// For threads that ask while this set goes on changing.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Adds the chunks of these index objects.
    pub fn add(&mut self, indexes: &[(IndexId, Vec<PackContents>)]) -> Result<()> {
        self.add_each(indexes.iter().map(|(index, packs)| Ok((*index, packs))))
    }

    /// Adds the chunks of any number of index objects in bounded memory. The first error ends it, and nothing is added.
    pub fn add_all(&mut self, indexes: impl IntoIterator<Item = Result<(IndexId, Vec<PackContents>)>>) -> Result<()> {
        self.add_each(indexes)
    }

    fn add_each<P: AsRef<[PackContents]>>(
        &mut self,
        indexes: impl IntoIterator<Item = Result<(IndexId, P)>>,
    ) -> Result<()> {
        let name = new_name();
        let mut builder = Builder::new(&self.folder.join(&name));
        let mut covers = Vec::new();
        for index in indexes {
            let (index, packs) = index?;
            packs.as_ref().iter().try_for_each(|pack| builder.push(pack))?;
            covers.push(index);
        }
        if covers.is_empty() {
            return Ok(());
        }
        builder.finish()?;
        self.commit(|rows| rows.push(Row { name, covers }))?;
        self.compact()
    }

    /// Drops what covers index objects that are not in `live`; what else that covered has to be added again.
    pub fn retain(&mut self, live: &HashSet<IndexId>) -> Result<()> {
        if self.covered.is_subset(live) {
            return Ok(());
        }
        self.commit(|rows| rows.retain(|row| row.covers.iter().all(|index| live.contains(index))))?;
        Ok(())
    }

    /// Drops everything: for when a lookup found damage.
    pub fn clear(&mut self) -> Result<()> {
        self.commit(|rows| rows.clear())?;
        Ok(())
    }

    /// Changes the manifest as it is now, which others may have changed since we read it, and takes over what it lists.
    fn commit(&mut self, change: impl FnOnce(&mut Vec<Row>)) -> Result<Vec<String>> {
        let _locked = lock(&self.folder.join("manifest.lock"))?;
        let path = self.folder.join("manifest");
        let mut notices = Vec::new();
        let before = match manifest::read(&path) {
            Ok(rows) => rows,
            Err(error) if is_lost(&error) => {
                notices.push(format!("the local chunk index will be rebuilt: {error}"));
                None
            }
            Err(error) => return Err(error),
        };
        let existed = before.is_some();
        let before = before.unwrap_or_default();
        let mut rows = before.clone();
        change(&mut rows);
        let mut listed = Vec::with_capacity(rows.len());
        for row in rows {
            match self.take_or_open(&row) {
                Ok(segment) => listed.push(Listed { row, segment }),
                Err(error) if is_lost(&error) => {
                    notices.push(format!("a part of the local chunk index will be rebuilt: {error}"));
                }
                Err(error) => return Err(error),
            }
        }
        let rows: Vec<Row> = listed.iter().map(|listed| listed.row.clone()).collect();
        if !existed || rows != before {
            manifest::replace(&path, &rows)?;
        }
        for gone in before.iter().filter(|old| rows.iter().all(|row| row.name != old.name)) {
            // It may be missing already; and if it stays, it is swept away later.
            let _ = std::fs::remove_file(self.folder.join(&gone.name));
        }
        sweep(&self.folder, &rows);
        self.covered = rows.into_iter().flat_map(|row| row.covers).collect();
        self.view = View(listed.iter().rev().map(|listed| listed.segment.clone()).collect());
        self.listed = listed;
        Ok(notices)
    }

    fn take_or_open(&self, row: &Row) -> Result<Arc<Segment>> {
        match self.listed.iter().find(|listed| listed.row.name == row.name) {
            Some(listed) => Ok(listed.segment.clone()),
            None => Segment::open(&self.folder.join(&row.name)).map(Arc::new),
        }
    }

    /// Merges segments of similar size until there are few.
    fn compact(&mut self) -> Result<()> {
        let path = self.folder.join("merging.lock");
        while let Some(chosen) = choose(&self.listed.iter().map(|listed| listed.segment.len()).collect::<Vec<_>>()) {
            // Merging can take minutes: others go on meanwhile, but do not do the same work.
            let Some(_merging) = try_lock(&path)? else { return Ok(()) };
            let inputs: Vec<_> = chosen.iter().map(|&at| self.listed[at].segment.clone()).collect();
            let names: HashSet<String> = chosen.iter().map(|&at| self.listed[at].row.name.clone()).collect();
            let merged = new_name();
            merge_into(&inputs, &self.folder.join(&merged))?;
            let mut used = false;
            self.commit(|rows| {
                let (old, mut kept): (Vec<_>, Vec<_>) = rows.drain(..).partition(|row| names.contains(&row.name));
                used = old.len() == names.len();
                if used {
                    let covers = old.into_iter().flat_map(|row| row.covers).collect();
                    kept.insert(0, Row { name: merged.clone(), covers });
                } else {
                    // Somebody dropped one of them meanwhile, and with reason.
                    kept.splice(0..0, old);
                }
                *rows = kept;
            })?;
            if !used {
                let _ = std::fs::remove_file(self.folder.join(&merged));
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Which segments to merge, by their sizes: the smallest, and with them each next one that is less than twice as large as
/// those before it together. Ten thousand runs then write each chunk less than ten times; to merge whatever is of similar
/// size wrote it 25 to 130 times, for the middle sizes were written again and again.
fn choose(sizes: &[u64]) -> Option<Vec<usize>> {
    if sizes.len() <= SEGMENTS_MAX {
        return None;
    }
    let mut by_size: Vec<usize> = (0..sizes.len()).collect();
    by_size.sort_by_key(|&at| sizes[at]);
    let mut sum = sizes[by_size[0]] + sizes[by_size[1]];
    let mut count = 2;
    while let Some(size) = by_size.get(count).map(|&at| sizes[at]).filter(|&size| size < sum.saturating_mul(2)) {
        sum += size;
        count += 1;
    }
    by_size.truncate(count);
    Some(by_size)
}

fn new_name() -> String {
    format!("{:016x}{:016x}{SUFFIX}", unforeseen(), unforeseen())
}

fn open_lock(path: &Path) -> Result<File> {
    let opened = OpenOptions::new().create(true).truncate(false).write(true).open(path);
    opened.map_err(|error| Error::io("open the lock", path.display(), error))
}

/// Waits for the lock; it ends when the file is closed, also by a crash.
fn lock(path: &Path) -> Result<File> {
    let file = open_lock(path)?;
    file.lock().map_err(|error| Error::io("lock", path.display(), error))?;
    Ok(file)
}

fn try_lock(path: &Path) -> Result<Option<File>> {
    let file = open_lock(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(Error::io("lock", path.display(), error)),
    }
}

/// Removes what crashes left. What cannot be looked at or removed costs only space, so errors are not worth a word.
fn sweep(folder: &Path, rows: &[Row]) {
    for file in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = file.file_name();
        let Some(name) = name.to_str().filter(|name| name.contains(SUFFIX)) else { continue };
        let changed = file.metadata().and_then(|metadata| metadata.modified());
        let age = changed.ok().and_then(|changed| changed.elapsed().ok());
        if age.is_some_and(|age| age > LEFTOVER_AGE) && rows.iter().all(|row| row.name != name) {
            let _ = std::fs::remove_file(file.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_segments_are_merged_and_large_ones_left_alone() {
        assert_eq!(choose(&[]), None);
        assert_eq!(choose(&[100_000_000, 10, 20, 30, 40, 50, 60, 70]), None);
        assert_eq!(choose(&[100_000_000, 9, 0, 30, 5, 500, 5000, 6000, 70_000]), Some(vec![2, 4, 1]));
        assert_eq!(choose(&[0; 9]).map(|chosen| chosen.len()), Some(2));
    }

    #[test]
    fn years_of_small_runs_leave_few_segments_and_write_each_chunk_few_times() {
        let (mut sizes, mut written) = (vec![100_000_000], 0);
        for _ in 0..10_000 {
            sizes.push(5_000);
            while let Some(chosen) = choose(&sizes) {
                let merged = chosen.iter().map(|&at| sizes[at]).sum();
                written += merged;
                let mut at = 0;
                sizes.retain(|_| (at += 1, !chosen.contains(&(at - 1))).1);
                sizes.insert(0, merged);
            }
            assert!(sizes.len() <= SEGMENTS_MAX, "{sizes:?}");
        }
        assert!(written < 10 * 50_000_000, "{written}");
    }
}
