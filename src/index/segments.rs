//! The local chunk index: the segments in one folder, shared by several processes.
//!
//! Files never change. What belongs to the set is said by the manifest alone, which is replaced under a lock; whoever
//! has a segment mapped keeps it when it leaves the set and its name is removed.

use super::folder_lock::{lock, sweep, try_lock};
use super::manifest::{self, Row, SUFFIX};
use super::segment::Segment;
use super::segment_builder::Builder;
use super::segment_merge::merge_into;
use super::segment_write::{Place, unforeseen};
use super::view::{Basis, View};
use crate::error::{Error, Result};
use crate::id::{ChunkId, IndexId, PackId};
use crate::place::{IndexContents, Located, PackSizes};
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Each lookup asks all segments, so there are never more than this.
const SEGMENTS_MAX: usize = 8;

/// The set of segments in a folder, or in memory where there is no folder to write to.
///
/// Other processes share the folder, and what they add or merge may cover index objects that this process has not seen
/// listed. So it uses only segments that cover nothing but index objects of its own listing and hold nothing but packs of
/// its own listing: see [`Segments::use_only`].
#[derive(Default)]
pub struct Segments {
    folder: Option<PathBuf>,
    /// What the manifest lists, as of the last time it was read.
    listed: Vec<Listed>,
    /// What lookups ask: some of the listed ones, and some that left the list since.
    used: Vec<Listed>,
    /// The index objects that may be used, with their sizes in bytes; all while nothing was said.
    live: Option<HashMap<IndexId, u64>>,
    /// The packs that are there; all while nothing was said.
    packs: Option<PackSizes>,
    covered: HashSet<IndexId>,
    /// Index objects that were dropped as a segment is damaged, until [`Segments::use_only`] has said what is there.
    dropped: HashSet<IndexId>,
    view: View,
}

#[derive(Clone)]
struct Listed {
    row: Row,
    segment: Arc<Segment>,
}

impl Segments {
    /// Opens what the folder holds. What is missing or damaged leaves the set, with a notice; what it covered has to be
    /// added again.
    pub fn open(folder: &Path) -> Result<(Self, Vec<String>)> {
        std::fs::create_dir_all(folder).map_err(|error| Error::io("create the directory", folder.display(), error))?;
        let mut set = Segments { folder: Some(folder.to_owned()), ..Segments::default() };
        let notices = set.commit(None, |_| ())?;
        Ok((set, notices))
    }

    /// An empty set that is kept in memory: about 45 bytes a chunk.
    pub fn in_memory() -> Self {
        Segments::default()
    }

    /// Goes on in memory, for when the folder cannot be written any more.
    pub fn leave_folder(&mut self) {
        self.folder = None;
    }

    pub fn is_in_memory(&self) -> bool {
        self.folder.is_none()
    }

    /// The index objects whose chunks are known here, but for chunks in packs that are missing.
    pub fn covered(&self) -> &HashSet<IndexId> {
        &self.covered
    }

    /// All index objects that are known to have been there: those whose chunks are known to this process or to others, and
    /// those of segments that turned out to be damaged.
    pub fn known(&self) -> impl Iterator<Item = &IndexId> {
        let listed = self.used.iter().chain(&self.listed).flat_map(|listed| &listed.row.covers);
        listed.map(|(index, _)| index).chain(&self.dropped)
    }

    /// The covered ones with their sizes in bytes.
    pub fn covered_sizes(&self) -> Vec<(IndexId, u64)> {
        let covers = self.used.iter().flat_map(|used| &used.row.covers).copied();
        covers.collect::<HashMap<IndexId, u64>>().into_iter().collect()
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

    /// The index objects that may be used, as far as that was said.
    pub fn live(&self) -> impl Iterator<Item = &IndexId> {
        self.live.iter().flat_map(HashMap::keys)
    }

    /// What lookups rest on now.
    pub fn basis(&self) -> Basis {
        Basis { indexes: self.covered.clone(), packs_left_out: self.left_out().copied().collect() }
    }

    /// Packs that covered index objects name and that are missing or of another size.
    pub fn left_out(&self) -> impl Iterator<Item = &PackId> {
        self.used.iter().flat_map(|used| &used.row.left_out).map(|(pack, _)| pack)
    }

    /// Packs that covered index objects name and that are listed with another size, which is stated here.
    pub fn of_wrong_size(&self) -> Vec<(PackId, u64)> {
        let sizes = |pack: &PackId| self.packs.as_ref()?.get(pack);
        self.left_out().filter_map(|pack| Some((*pack, sizes(pack)?))).collect()
    }

    /// Uses from now on only what covers index objects in `live`, of the sizes there, and holds packs in `packs`. Without
    /// `packs` the last ones count, or all where none were ever said. What may not be used leaves the folder, too.
    pub fn use_only(&mut self, live: HashMap<IndexId, u64>, packs: Option<PackSizes>) -> Result<()> {
        self.live = Some(live);
        if packs.is_some() {
            self.packs = packs;
        }
        let stale: HashSet<String> =
            self.listed.iter().filter(|listed| !self.may_use(listed)).map(|listed| listed.row.name.clone()).collect();
        let (live, packs) = (self.live.as_ref(), self.packs.as_ref());
        self.used.retain(|used| is_usable(used, live, packs));
        if stale.is_empty() {
            self.choose_used();
        } else {
            self.commit(None, |rows| rows.retain(|row| !stale.contains(&row.name)))?;
        }
        self.dropped.clear();
        Ok(())
    }

    /// The live index objects that nothing in use covers, in no particular order.
    pub fn to_be_added(&self) -> Vec<IndexId> {
        self.live().filter(|index| !self.covered.contains(*index)).copied().collect()
    }

    /// Counts an index object as not live, as it vanished or is damaged.
    pub fn forget(&mut self, index: &IndexId) {
        if let Some(live) = &mut self.live {
            live.remove(index);
        }
    }

    /// Whether everything in use rests on index objects and packs that are in these.
    pub fn rests_on(&self, live: &HashMap<IndexId, u64>, packs: &PackSizes) -> bool {
        self.used.iter().all(|used| {
            are_live(&used.row, live) && used.segment.pack_sizes().all(|(pack, bytes)| packs.has(&pack, bytes))
        })
    }

    fn may_use(&self, listed: &Listed) -> bool {
        is_usable(listed, self.live.as_ref(), self.packs.as_ref())
    }

    /// Adds the chunks of these index objects, whose packs are there.
    pub fn add(&mut self, indexes: &[IndexContents]) -> Result<()> {
        if let Some(sizes) = &mut self.packs {
            let packs = indexes.iter().flat_map(|index| &index.packs);
            packs.for_each(|pack| sizes.insert(pack.pack, pack.stored_bytes));
        }
        self.add_each(indexes.iter().map(Ok))
    }

    /// Adds the chunks of any number of index objects in bounded memory, but for those in packs that are missing. The
    /// first error ends it, and nothing is added.
    pub fn add_all(&mut self, indexes: impl IntoIterator<Item = Result<IndexContents>>) -> Result<()> {
        self.add_each(indexes)
    }

    fn add_each<I: Borrow<IndexContents>>(&mut self, indexes: impl IntoIterator<Item = Result<I>>) -> Result<()> {
        let mut row = Row { name: new_name(), hash: [0; 32], covers: Vec::new(), left_out: Vec::new() };
        let mut builder = Builder::at(self.place_of(&row.name));
        for index in indexes {
            let index = index?;
            let IndexContents { index, bytes, packs } = index.borrow();
            // One object can name one pack again and again.
            let mut left_out = HashSet::new();
            for pack in packs {
                let is_there = self.packs.as_ref().is_none_or(|sizes| sizes.has(&pack.pack, pack.stored_bytes));
                if is_there {
                    builder.push(pack)?;
                } else if left_out.insert((pack.pack, pack.stored_bytes)) {
                    row.left_out.push((pack.pack, pack.stored_bytes));
                }
            }
            row.covers.push((*index, *bytes));
        }
        if row.covers.is_empty() {
            return Ok(());
        }
        if let Some(live) = &mut self.live {
            live.extend(row.covers.iter().copied());
        }
        let segment = Arc::new(builder.finish()?);
        row.hash = segment.hash();
        let added = Listed { row: row.clone(), segment };
        self.commit(Some(added), |rows| rows.push(row))?;
        self.compact()
    }

    /// Drops everything, as a segment is damaged.
    pub fn clear(&mut self) -> Result<()> {
        self.dropped = self.known().copied().collect();
        self.used.clear();
        self.commit(None, |rows| rows.clear())?;
        Ok(())
    }

    fn place_of(&self, name: &str) -> Place {
        match &self.folder {
            Some(folder) => Place::File(folder.join(name)),
            None => Place::Memory,
        }
    }

    /// Changes the list of segments and takes over what it lists then. In a folder that is the manifest as it is now, which
    /// others may have changed since it was read here. `added` is open already.
    fn commit(&mut self, added: Option<Listed>, change: impl FnOnce(&mut Vec<Row>)) -> Result<Vec<String>> {
        let Some(folder) = self.folder.clone() else {
            let mut rows = self.listed.iter().map(|listed| listed.row.clone()).collect();
            change(&mut rows);
            let known: Vec<Listed> = self.listed.drain(..).chain(added).collect();
            let find = |row: &Row| known.iter().find(|known| known.row.name == row.name).cloned();
            self.listed = rows.iter().filter_map(find).collect();
            self.choose_used();
            return Ok(Vec::new());
        };
        let _locked = lock(&folder.join("manifest.lock"))?;
        let path = folder.join("manifest");
        let mut notices = Vec::new();
        let before = match manifest::read(&path) {
            Ok(rows) => rows,
            Err(error) if error.is_damage() => {
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
            match self.take_or_open(&folder, &row, added.as_ref()) {
                Ok(segment) => listed.push(Listed { row, segment }),
                Err(error) if error.is_damage() => {
                    notices.push(format!("a part of the local chunk index will be rebuilt: {error}"));
                    self.dropped.extend(row.covers.iter().map(|(index, _)| *index));
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
            let _ = std::fs::remove_file(folder.join(&gone.name));
        }
        sweep(&folder, &rows);
        self.listed = listed;
        self.choose_used();
        Ok(notices)
    }

    fn take_or_open(&self, folder: &Path, row: &Row, added: Option<&Listed>) -> Result<Arc<Segment>> {
        if let Some(listed) = self.listed.iter().chain(added).find(|listed| listed.row.name == row.name) {
            return Ok(listed.segment.clone());
        }
        let path = folder.join(&row.name);
        let segment = Segment::open(&path)?;
        if segment.hash() == row.hash {
            Ok(Arc::new(segment))
        } else {
            Err(Error::corrupt("use the index segment", path.display(), "it is another one under this name"))
        }
    }

    /// Takes into use what is listed and may be used. What was in use and is not listed any more stays, unless what is
    /// listed covers the same: others may have merged it with what may not be used here.
    fn choose_used(&mut self) {
        let usable: Vec<Listed> = self.listed.iter().filter(|listed| self.may_use(listed)).cloned().collect();
        let covered = |listed: &[Listed]| -> HashSet<IndexId> {
            listed.iter().flat_map(|listed| &listed.row.covers).map(|(index, _)| *index).collect()
        };
        let again = covered(&usable);
        let kept = std::mem::take(&mut self.used);
        let kept = kept.into_iter().filter(|used| !used.row.covers.iter().all(|(index, _)| again.contains(index)));
        self.used = kept.chain(usable).collect();
        self.covered = covered(&self.used);
        self.view = View::of(self.used.iter().rev().map(|used| used.segment.clone()).collect());
    }

    /// Merges segments of similar size until there are few.
    fn compact(&mut self) -> Result<()> {
        while let Some(chosen) = choose(&self.listed.iter().map(|listed| listed.segment.len()).collect::<Vec<_>>()) {
            // Merging can take minutes: others go on meanwhile, but do not do the same work.
            let merging = self.folder.as_ref().map(|folder| try_lock(&folder.join("merging.lock"))).transpose()?;
            if let Some(None) = merging {
                return Ok(());
            }
            let inputs: Vec<_> = chosen.iter().map(|&at| self.listed[at].segment.clone()).collect();
            let names: HashSet<String> = chosen.iter().map(|&at| self.listed[at].row.name.clone()).collect();
            let mut merged = Row { name: new_name(), hash: [0; 32], covers: Vec::new(), left_out: Vec::new() };
            let segment = Arc::new(merge_into(&inputs, self.place_of(&merged.name))?);
            merged.hash = segment.hash();
            for row in chosen.iter().map(|&at| &self.listed[at].row) {
                merged.covers.extend(&row.covers);
                merged.left_out.extend(&row.left_out);
            }
            let mut used = false;
            self.commit(Some(Listed { row: merged.clone(), segment }), |rows| {
                let (old, mut kept): (Vec<_>, Vec<_>) = rows.drain(..).partition(|row| names.contains(&row.name));
                used = old.len() == names.len();
                if used {
                    kept.insert(0, merged.clone());
                } else {
                    // Somebody dropped one of them meanwhile, and with reason.
                    kept.splice(0..0, old);
                }
                *rows = kept;
            })?;
            if !used {
                if let Some(folder) = &self.folder {
                    let _ = std::fs::remove_file(folder.join(&merged.name));
                }
                return Ok(());
            }
        }
        Ok(())
    }
}

/// Whether all index objects of a row are there with their sizes.
fn are_live(row: &Row, live: &HashMap<IndexId, u64>) -> bool {
    row.covers.iter().all(|(index, bytes)| live.get(index) == Some(bytes))
}

/// Whether a segment covers nothing but live index objects, holds nothing but packs that are there, and left out nothing
/// that is there again. Without a listing of packs, their absence is found out when they are read.
fn is_usable(listed: &Listed, live: Option<&HashMap<IndexId, u64>>, packs: Option<&PackSizes>) -> bool {
    live.is_none_or(|live| are_live(&listed.row, live))
        && packs.is_none_or(|sizes| {
            listed.segment.pack_sizes().all(|(pack, bytes)| sizes.has(&pack, bytes))
                && listed.row.left_out.iter().all(|(pack, bytes)| !sizes.has(pack, *bytes))
        })
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
