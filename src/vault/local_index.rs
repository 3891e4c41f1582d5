//! The local index in step with the repository: it knows what the repository lists, and nothing else.
//!
//! A chunk counts as stored only if an index object that is listed now names it, in a pack that is listed now with the
//! size that the index states. Index objects that are damaged count as absent, so that their content is stored again.

use crate::error::{Kind, Result};
use crate::id::{ChunkId, IndexId, PackId};
use crate::index::{IndexBasis, IndexView, Segments};
use crate::lock::locked;
use crate::place::{IndexContents, Located, PackContents, PackSizes};
use crate::vault::false_indexes::{FalseIndexes, is_false};
use crate::vault::index_check::IndexCheck;
use crate::vault::index_fetch::IndexFetch;
use crate::vault::index_repair::{add_missing, drop_segments, replace_folder};
use crate::vault::listing::RepositoryListing;
use crate::vault::losses::LossMarks;
use crate::vault::opened::OpenedRepository;
use crate::watch::{NoticeKind, Watch};
use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

/// How often the listing is made anew because an index object vanished after it.
const LISTINGS_MAX: usize = 8;

/// The segments of this process, and the view of them that readers ask.
pub(super) struct LocalIndex {
    segments: Mutex<Segments>,
    view: RwLock<IndexView>,
    /// How often something that was in use turned out to be gone.
    losses: AtomicU64,
    marks: Arc<LossMarks>,
    /// Index objects that are damaged, and of which that was said.
    reported: Mutex<HashSet<IndexId>>,
    false_indexes: FalseIndexes,
}

impl LocalIndex {
    /// In a folder of the cache, or in memory where there is none or it cannot be used. `reported` are index objects of which an
    /// earlier run has said that they are damaged.
    pub(crate) fn open(cache: Option<&Path>, marks: Arc<LossMarks>, reported: HashSet<IndexId>, watch: &Watch) -> Self {
        let opened = cache.map(|cache| Segments::open(&cache.join("segments")));
        let segments = match opened {
            Some(Ok((segments, notices))) => {
                notices.into_iter().for_each(|notice| watch.notice(NoticeKind::Cache, notice));
                segments
            }
            Some(Err(error)) => {
                watch.notice(NoticeKind::Cache, format!("{error}; the index is kept in memory"));
                Segments::in_memory()
            }
            None => Segments::in_memory(),
        };
        LocalIndex {
            view: RwLock::new(IndexView::default()),
            segments: Mutex::new(segments),
            losses: AtomicU64::new(0),
            reported: Mutex::new(reported),
            marks,
            false_indexes: FalseIndexes::open(cache),
        }
    }

    /// Those that count as damaged, as a pack refutes them.
    pub(super) fn false_indexes(&self) -> &FalseIndexes {
        &self.false_indexes
    }

    pub(super) fn segments(&self) -> MutexGuard<'_, Segments> {
        locked(&self.segments)
    }

    /// What is known as of the last comparison.
    pub(crate) fn view(&self) -> IndexView {
        self.view.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn publish(&self, segments: &Segments) {
        *self.view.write().unwrap_or_else(PoisonError::into_inner) = segments.view();
    }

    /// Grows whenever something that this process took for stored turned out to be gone.
    pub(crate) fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }

    /// The view as it is now, and what it rests on.
    pub(crate) fn view_and_basis(&self) -> (IndexView, IndexBasis) {
        let segments = self.segments();
        (segments.view(), segments.basis())
    }

    pub(crate) fn packs_known(&self) -> usize {
        self.view().segments().iter().map(|segment| segment.pack_count()).sum()
    }

    /// Adds what this process itself has just made findable. `Corrupt` when a segment is damaged: then the index has to be
    /// [rebuilt](Self::rebuild).
    pub(crate) fn learn(&self, indexes: &[IndexContents], watch: &Watch) -> Result<()> {
        let mut segments = self.segments();
        let before = segments.basis();
        let added = match segments.add(indexes) {
            Err(error) if !error.is(Kind::Corrupt) => {
                replace_folder(&mut segments, &error, watch).and_then(|()| segments.add(indexes))
            }
            added => added,
        };
        self.note_losses(&segments, &before);
        added?;
        self.publish(&segments);
        Ok(())
    }

    /// Drops everything and learns it again, as a segment is damaged; `in_memory` where that happened before.
    pub(crate) fn rebuild(
        &self,
        opened: &OpenedRepository,
        list: impl FnMut() -> Result<RepositoryListing>,
        in_memory: bool,
        watch: &Watch,
    ) -> Result<IndexCheck> {
        // If this process dies meanwhile, no record of it remains.
        let ahead = self.marks.mark(&HashSet::new());
        let before = {
            let mut segments = self.segments();
            let before = segments.basis();
            if in_memory {
                segments.leave_folder();
            }
            drop_segments(&mut segments)?;
            before
        };
        let compared = self.compare(opened, list, watch);
        let has_lost = self.note_losses(&self.segments(), &before);
        let check = compared?;
        self.marks.remove(&ahead);
        Ok(IndexCheck { has_lost: check.has_lost || has_lost, ..check })
    }

    /// Counts it when something that was in use had to be given up: a writer that relied on it must not commit.
    fn note_losses(&self, segments: &Segments, before: &IndexBasis) -> bool {
        let has_lost = !segments.basis().includes(before);
        if has_lost {
            self.losses.fetch_add(1, Ordering::SeqCst);
        }
        has_lost
    }

    /// Marks the index objects that the segments are about to forget as they are gone: the process may end before it reports
    /// that. What is damaged, and which packs are missing, each comparison finds again.
    fn mark_ahead(
        &self,
        opened: &OpenedRepository,
        segments: &Segments,
        live: &HashMap<IndexId, u64>,
        packs: Option<&PackSizes>,
        lost: &HashSet<IndexId>,
    ) -> Result<()> {
        if !lost.is_empty() || packs.is_some_and(|packs| !segments.rests_on(live, packs)) {
            opened.check_is_there()?;
        }
        if !lost.is_empty() {
            self.marks.mark(lost);
        }
        Ok(())
    }

    /// Says once that an index object is damaged: it stays where it is, and every command meets it again.
    fn report_damaged(&self, index: &IndexId, what: String, watch: &Watch) {
        if locked(&self.reported).insert(*index) {
            watch.notice(
                NoticeKind::Damage,
                format!("{what}; a backup stores again the content that it lists, if the sources still have it"),
            );
        }
    }

    /// Reports false index objects once, together: a host with a key can write any number of them.
    fn report_false(&self, indexes: &HashSet<IndexId>, watch: &Watch) {
        let mut reported = locked(&self.reported);
        let new: Vec<&IndexId> = indexes.iter().filter(|index| reported.insert(**index)).collect();
        let Some(first) = new.first() else { return };
        let others = match new.len() {
            1 => String::new(),
            count => format!("; {} more are false, too", count - 1),
        };
        let healed = "a backup stores again the content that only such an object lists, if the sources still have it";
        watch.notice(NoticeKind::Damage, format!("{}{others}; {healed}", is_false(first)));
    }

    /// Brings the index into step with what `list` shows, which is called again when an index object vanishes before it is
    /// read.
    pub(crate) fn compare(
        &self,
        opened: &OpenedRepository,
        mut list: impl FnMut() -> Result<RepositoryListing>,
        watch: &Watch,
    ) -> Result<IndexCheck> {
        let mut check = IndexCheck::default();
        let mut damaged = self.false_indexes.all();
        let mut is_verified = false;
        let mut is_settled = false;
        for _ in 0..LISTINGS_MAX {
            let (listing, mut segments) = self.listing_of_all(&mut list)?;
            let has_listed_packs = listing.packs.is_some();
            let before = segments.basis();
            let mut live = listing.indexes();
            let lost = segments.known().filter(|index| !live.contains_key(*index)).copied().collect();
            damaged.retain(|index| live.contains_key(index));
            self.report_false(&damaged, watch);
            live.retain(|index, _| !damaged.contains(index));
            self.mark_ahead(opened, &segments, &live, listing.packs.as_ref(), &lost)?;
            check.lost_indexes.extend(lost);
            let chosen = segments.use_only(live.clone(), listing.packs).or_else(|error| {
                replace_folder(&mut segments, &error, watch)?;
                // The packs were taken over already.
                segments.use_only(live.clone(), None)
            });
            let fetched = chosen.and_then(|()| add_missing(&mut segments, opened, &live, watch));
            check.has_lost |= self.note_losses(&segments, &before);
            self.publish(&segments);
            let fetched = fetched?;
            (check.packs_missing, check.packs_of_wrong_size) = if has_listed_packs {
                (segments.left_out().copied().collect(), segments.of_wrong_size())
            } else {
                (HashSet::new(), Vec::new())
            };
            drop(segments);
            for (index, error) in fetched.damaged {
                self.report_damaged(&index, error.to_string(), watch);
                damaged.insert(index);
            }
            let mut is_done = fetched.vanished.is_empty();
            if has_listed_packs && !opened.storage().profile().is_remote && !std::mem::replace(&mut is_verified, true) {
                for index in self.find_damaged(opened)? {
                    self.report_damaged(&index, format!("the index object {index} is damaged"), watch);
                    damaged.insert(index);
                    is_done = false;
                }
            }
            if is_done {
                is_settled = true;
                break;
            }
        }
        if !is_settled {
            watch.notice(
                NoticeKind::Damage,
                format!(
                    "index objects vanished during each of {LISTINGS_MAX} listings: what they list is stored again"
                ),
            );
        }
        check.indexes_damaged = damaged;
        Ok(check)
    }

    /// Whether a pack is missing, of another size, or was known to be damaged at the last comparison.
    pub(crate) fn is_left_out(&self, pack: &PackId) -> bool {
        self.segments().left_out().any(|left_out| left_out == pack)
    }

    /// All places of the chunks of these packs: two backups at once each store what both have found new. Those in packs that count as
    /// missing come last. Reads all index objects twice.
    pub(crate) fn copies_of(
        &self,
        packs: &HashSet<PackId>,
        opened: &OpenedRepository,
    ) -> Result<HashMap<ChunkId, Vec<Located>>> {
        let (wanted, left_out): (Vec<IndexId>, HashSet<PackId>) = {
            let segments = self.segments();
            (segments.live().copied().collect(), segments.left_out().copied().collect())
        };
        let mut places: HashMap<ChunkId, Vec<Located>> = HashMap::new();
        let each_pack = |each: &mut dyn FnMut(&PackContents)| {
            let sizes = HashMap::new();
            let mut fetch = IndexFetch::new(opened, wanted.clone(), &sizes);
            fetch.by_ref().for_each(|index| index.packs.iter().for_each(&mut *each));
            fetch.finish()
        };
        each_pack(&mut |pack| {
            if packs.contains(&pack.pack) {
                places.extend(pack.places().map(|(id, _)| (id, Vec::new())));
            }
        })?;
        each_pack(&mut |pack| {
            for (id, place) in pack.places() {
                // The same pack may be described by several index objects.
                if let Some(known) = places.get_mut(&id).filter(|known| !known.contains(&place)) {
                    known.push(place);
                }
            }
        })?;
        places.retain(|_, places| !places.is_empty());
        places.values_mut().for_each(|places| places.sort_by_key(|place| left_out.contains(&place.pack)));
        Ok(places)
    }

    /// Packs that are missing, of another size, or were known to be damaged at the last comparison.
    pub(crate) fn left_out(&self) -> HashSet<PackId> {
        self.segments().left_out().copied().collect()
    }

    /// What index objects say of these packs, in memory: of a pack that was cut, most can still be read. And all that false index
    /// objects say: some of it may be true.
    pub(crate) fn of_packs(&self, packs: &HashSet<PackId>, opened: &OpenedRepository) -> Result<IndexView> {
        let mut wanted: Vec<IndexId> = self.segments().live().copied().collect();
        let refuted = self.false_indexes.all();
        wanted.extend(&refuted);
        let mut segments = Segments::in_memory();
        if !packs.is_empty() || !refuted.is_empty() {
            let sizes = HashMap::new();
            let mut fetch = IndexFetch::new(opened, wanted, &sizes);
            let of_packs = fetch.by_ref().map(|mut contents| {
                contents.packs.retain(|pack| packs.contains(&pack.pack) || refuted.contains(&contents.index));
                Ok(contents)
            });
            segments.add_all(of_packs)?;
            fetch.finish()?;
        }
        Ok(segments.view())
    }

    /// A listing, made anew where it lacks something that is known: another process that shares the cache, or another
    /// thread, may have added that after the listing was made. The segments stay locked, so that nothing more is added.
    fn listing_of_all(
        &self,
        list: &mut impl FnMut() -> Result<RepositoryListing>,
    ) -> Result<(RepositoryListing, MutexGuard<'_, Segments>)> {
        for _ in 0..2 {
            let listing = list()?;
            let segments = self.segments();
            let live = listing.indexes();
            if segments.known().all(|index| live.contains_key(index)) {
                return Ok((listing, segments));
            }
        }
        let listing = list()?;
        Ok((listing, self.segments()))
    }

    /// Whether everything that the view rests on is listed: index objects, and packs with their sizes.
    pub(crate) fn is_listed(&self, listing: &RepositoryListing) -> bool {
        let live = listing.indexes();
        listing.packs.as_ref().is_some_and(|packs| self.segments().rests_on(&live, packs))
    }
}
