//! The chunk index as it is at one moment, and what it rests on.

use super::segment::Segment;
use crate::error::Result;
use crate::id::{ChunkId, IndexId, PackId};
use crate::place::{FramePlace, Located};
use std::collections::HashSet;
use std::ops::Range;
use std::sync::Arc;

/// How many ids before its turn what an id's filters hold is read, and then its entries.
const FILTERS_AHEAD: usize = 16;
const ENTRIES_AHEAD: usize = 8;

/// The segments as they were at one moment: cheap to clone, to be asked by many threads.
#[derive(Clone, Default)]
pub struct IndexView(Arc<[Arc<Segment>]>);

impl IndexView {
    /// A view of these segments, those first in which most are found.
    pub(super) fn of(segments: Arc<[Arc<Segment>]>) -> Self {
        IndexView(segments)
    }

    /// Whether a segment has this chunk; an error if one is damaged.
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

    /// Where this chunk is; an error if a segment is damaged.
    pub fn locate(&self, id: &ChunkId) -> Result<Option<Located>> {
        for segment in self.0.iter() {
            if let Some(located) = segment.locate(id)? {
                return Ok(Some(located));
            }
        }
        Ok(None)
    }

    /// The frames of this chunk's pack that begin within these bytes of the pack, in order; none for an unknown chunk.
    pub(crate) fn frames_within(&self, id: &ChunkId, bytes: &Range<u64>) -> Result<Vec<FramePlace>> {
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

/// What lookups rest on at one moment: index objects, but for their packs that are missing.
#[derive(Clone, Debug, Default)]
pub struct IndexBasis {
    /// The index objects.
    pub indexes: HashSet<IndexId>,
    /// Packs of theirs that are missing.
    pub packs_left_out: HashSet<PackId>,
}

impl IndexBasis {
    /// Whether everything that an earlier basis had is still in this one.
    pub(crate) fn includes(&self, earlier: &IndexBasis) -> bool {
        earlier.indexes.is_subset(&self.indexes) && self.packs_left_out.is_subset(&earlier.packs_left_out)
    }

    /// Merges another basis: a user of both relies on the index objects of either, and on every pack that was present in
    /// either.
    pub(crate) fn join(&mut self, other: IndexBasis) {
        self.indexes.extend(other.indexes);
        self.packs_left_out.retain(|pack| other.packs_left_out.contains(pack));
    }
}
