//! The local chunk index: the segments in one folder, shared by several processes.
//!
//! Files never change. The manifest alone says what belongs to the set, and is replaced under a lock. A process that has
//! a segment mapped keeps it when the segment leaves the set and its name is removed.

use super::manifest::ManifestRow;
use super::segment_builder::SegmentBuilder;
use super::view::{IndexBasis, IndexView};
use crate::error::{Error, Result};
use crate::id::{IndexId, PackId};
use crate::index::listed_segment::{ListedSegment, are_live, is_usable, new_name};
use crate::place::{IndexContents, PackSizes};
use std::borrow::Borrow;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Each lookup asks all segments, so there are never more than this.
pub(super) const SEGMENTS_MAX: usize = 8;

/// The set of segments in a directory or, without a writable one, in memory.
///
/// Other processes share the folder, and what they add or merge may cover index objects that this process has not seen
/// listed. So it uses only segments that cover nothing but index objects of its own listing and hold nothing but packs of
/// its own listing: see [`Segments::use_only`].
#[derive(Default)]
pub struct Segments {
    pub(super) folder: Option<PathBuf>,
    /// What the manifest lists, as of the last time it was read.
    pub(super) listed: Vec<ListedSegment>,
    /// What lookups ask: some of the listed ones, and some that left the list since.
    pub(super) used: Vec<ListedSegment>,
    /// The index objects that may be used, with their sizes in bytes; all while nothing was said.
    live: Option<HashMap<IndexId, u64>>,
    /// The packs that are there; all while nothing was said.
    packs: Option<PackSizes>,
    pub(super) covered: HashSet<IndexId>,
    /// Index objects that were dropped as a segment is damaged, until [`Segments::use_only`] has said what is there.
    pub(super) dropped: HashSet<IndexId>,
    pub(super) view: IndexView,
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
    pub(crate) fn in_memory() -> Self {
        Segments::default()
    }

    /// Goes on in memory, for when the folder cannot be written any more.
    pub(crate) fn leave_folder(&mut self) {
        self.folder = None;
    }

    pub(crate) fn is_in_memory(&self) -> bool {
        self.folder.is_none()
    }

    /// The index objects whose chunks are known here, but for chunks in packs that are missing.
    pub fn covered(&self) -> &HashSet<IndexId> {
        &self.covered
    }

    /// All index objects that are known to have been there: those whose chunks are known to this process or to others, and
    /// those of segments that turned out to be damaged.
    pub(crate) fn known(&self) -> impl Iterator<Item = &IndexId> {
        let listed = self.used.iter().chain(&self.listed).flat_map(|listed| &listed.row.covers);
        listed.map(|(index, _)| index).chain(&self.dropped)
    }

    /// The covered ones with their sizes in bytes.
    pub(crate) fn covered_sizes(&self) -> Vec<(IndexId, u64)> {
        let covers = self.used.iter().flat_map(|used| &used.row.covers).copied();
        covers.collect::<HashMap<IndexId, u64>>().into_iter().collect()
    }

    /// For threads that ask while this set goes on changing.
    pub fn view(&self) -> IndexView {
        self.view.clone()
    }

    /// The index objects that may be used, if that was said.
    pub(crate) fn live(&self) -> impl Iterator<Item = &IndexId> {
        self.live.iter().flat_map(HashMap::keys)
    }

    /// What lookups rest on now.
    pub(crate) fn basis(&self) -> IndexBasis {
        IndexBasis { indexes: self.covered.clone(), packs_left_out: self.left_out().copied().collect() }
    }

    /// Packs that covered index objects name and that are missing or of another size. If only one of several index objects states
    /// another size, the pack is there.
    pub(crate) fn left_out(&self) -> impl Iterator<Item = &PackId> {
        let is_any = self.used.iter().any(|used| !used.row.left_out.is_empty());
        let segments = self.used.iter().filter(|_| is_any);
        let there: HashSet<PackId> =
            segments.flat_map(|used| used.segment.pack_sizes()).map(|(pack, _)| pack).collect();
        let named = self.used.iter().flat_map(|used| &used.row.left_out).map(|(pack, _)| pack);
        named.filter(move |pack| !there.contains(*pack))
    }

    /// Packs that covered index objects name and that are listed with another size, which is stated here.
    pub(crate) fn of_wrong_size(&self) -> Vec<(PackId, u64)> {
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
    pub(crate) fn to_be_added(&self) -> Vec<IndexId> {
        self.live().filter(|index| !self.covered.contains(*index)).copied().collect()
    }

    /// Counts an index object as not live, as it vanished or is damaged.
    pub(crate) fn forget(&mut self, index: &IndexId) {
        if let Some(live) = &mut self.live {
            live.remove(index);
        }
    }

    /// Whether everything in use rests on index objects and packs that are in these.
    pub(crate) fn rests_on(&self, live: &HashMap<IndexId, u64>, packs: &PackSizes) -> bool {
        self.used.iter().all(|used| {
            are_live(&used.row, live) && used.segment.pack_sizes().all(|(pack, bytes)| packs.has(&pack, bytes))
        })
    }

    pub(super) fn may_use(&self, listed: &ListedSegment) -> bool {
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
        let mut row = ManifestRow { name: new_name(), hash: [0; 32], covers: Vec::new(), left_out: Vec::new() };
        let mut builder = SegmentBuilder::at(self.place_of(&row.name));
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
        let added = ListedSegment { row: row.clone(), segment };
        self.commit(Some(added), |rows| rows.push(row))?;
        self.compact()
    }

    /// Drops everything, as a segment is damaged.
    pub(crate) fn clear(&mut self) -> Result<()> {
        self.dropped = self.known().copied().collect();
        self.used.clear();
        self.commit(None, |rows| rows.clear())?;
        Ok(())
    }
}
