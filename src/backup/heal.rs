//! After damage: which earlier snapshots are whole again, as this backup stored again what they had lost.

use crate::backup::damage::Damage;
use crate::backup::{BackupReport, Run};
use crate::entry::{Content, Entry};
use crate::error::{Error, Kind, Result};
use crate::format::tree::{Page, decode_page};
use crate::format::{snapshot_id, snapshot_name};
use crate::id::{ChunkId, SnapshotId};
use crate::index::View;
use crate::repo::{Reader, Repository, Snapshot, Writer};
use crate::seal::Power;
use crate::vault::{Marks, Told};
use crate::watch::Watch;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What a backup healed in a repository that had lost something.
#[derive(Clone, Debug, Default)]
pub struct Healing {
    /// Chunks of earlier snapshots that were lost and are stored again.
    pub chunks: u64,
    /// Snapshots that lacked content, before this backup or when an earlier one looked, and lack none now, oldest first.
    pub whole_again: Vec<Snapshot>,
    /// Snapshots that still lack content, oldest first.
    pub still_damaged: Vec<Snapshot>,
}

/// What was there when a backup began.
#[derive(Default)]
pub(super) struct Before {
    /// The chunks that were stored when each attempt began, of the latest one as well.
    pub views: Vec<View>,
    /// Names of the snapshots, if something was amiss.
    snapshots: Option<BTreeSet<String>>,
    /// The attempt that listed these names, counted from 0.
    listed_by: usize,
}

impl Before {
    /// Notes which snapshots are there, if the run may look at them in the end. Without these names, those that others make
    /// meanwhile can be called complete again.
    pub fn note_snapshots(&mut self, repo: &Repository, damage: &Damage) {
        if damage.is_known() && self.snapshots.is_none() && repo.keys().power() != Power::Put {
            self.snapshots = repo.snapshot_names().ok().map(BTreeSet::from_iter);
            self.listed_by = self.views.len().saturating_sub(1);
        }
    }

    /// Whether a snapshot was there. What one that another backup made since refers to was never lost.
    fn had(&self, snapshot: &Snapshot) -> Result<bool> {
        let Some(names) = &self.snapshots else { return Ok(true) };
        Ok(names.contains(&snapshot_name(&snapshot.started.compact()?, &snapshot.id)))
    }

    /// The views to compare a snapshot with that was there. Attempts before the names were listed knew of no damage, and
    /// others may have made some of these snapshots since: what the earlier views lack of them was not lost.
    fn views_with_snapshots(&self) -> &[View] {
        self.views.get(self.listed_by..).unwrap_or(&self.views)
    }
}

/// What a run tells of damage, and which losses that covers.
#[derive(Clone, Debug)]
pub(super) struct Telling {
    told: Told,
    marks: Marks,
}

impl BackupReport {
    /// Notes that this report was shown. Until then, each further backup reports the same damage again: a report that was
    /// never printed, because the program was killed or the output could not be written, is not lost.
    pub fn confirm_shown(&self, repo: &Repository) {
        if let Some(Telling { told, marks }) = &self.telling {
            repo.note_told(told, marks);
        }
    }
}

impl<'a> Run<'a> {
    /// Whether this run may have healed something, or is the first that can tell what a loss means.
    pub(super) fn must_look_at_healing(&self, writer: &Writer) -> bool {
        let told = self.damage.told(self.repo);
        let may_heal = match told {
            Some(told) => !told.incomplete.is_empty() && self.has_stored_sources(),
            None => self.may_lack_something(writer) && (self.has_stored_sources() || self.repo.remembers_losses()),
        };
        let has_untold = !self.damage.untold(self.repo).is_empty() || (self.has_met_damage() && told.is_none());
        has_untold || may_heal || self.damage.may_be_over() || told.is_some_and(|told| self.may_have_missed_some(told))
    }

    /// Whether there are snapshots that no run has looked at since the repository was damaged: they could not be read then, or
    /// were away.
    fn may_have_missed_some(&self, told: &Told) -> bool {
        if !told.has_damage() || self.repo.keys().power() == Power::Put {
            return false;
        }
        let is_missed = |name: &String| {
            let missed = snapshot_id(name).filter(|id| !told.has_looked_at(id));
            // One that still cannot be read was told.
            missed.is_some_and(|id| !told.unread.contains(&id) || self.repo.snapshot_named(name).is_ok())
        };
        // If they cannot be listed, that is told by the look that follows.
        self.repo.snapshot_names().map_or(true, |names| names.iter().any(is_missed))
    }

    /// Looks at the earlier snapshots that may lack something; `marks` are the losses that this tells. Returns what is to be
    /// noted once that is shown, too. If it cannot be found out, a notice says so: the backup itself is complete.
    pub(super) fn look_at_healing(
        &self,
        before: &Before,
        marks: Marks,
        own: &Snapshot,
    ) -> (Option<Healing>, Option<Telling>) {
        if self.repo.keys().power() == Power::Put {
            self.watch.notice("which snapshots are complete again cannot be told with a put-only key");
            let told = self.damage.as_told(self.repo, &marks, &self.damage.check);
            return (None, Some(Telling { told, marks }));
        }
        self.watch.stage("checking earlier snapshots");
        let earlier = self.damage.told(self.repo);
        let looked = self.repo.snapshots_and_unreadable(&self.watch.aside()).and_then(|(snapshots, unread)| {
            let is_new = |snapshot: &Snapshot| earlier.is_none_or(|told| !told.complete.contains(&snapshot.id));
            let unknown = snapshots.into_iter().filter(|snapshot| snapshot.id != own.id && is_new(snapshot));
            let is_over = |snapshot: &Snapshot| self.damage.was_incomplete(&snapshot.id);
            // After the list: what others stored for these snapshots shows. Losses that show are for the next run to tell.
            let now = self.repo.compare_index(self.watch)?;
            let (healing, complete) = compare(&self.reader, before, &self.repo.view(), unknown, &is_over, self.watch)?;
            Ok((healing, complete, now, unread))
        });
        let (healing, complete, now, unread) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                self.watch.notice(format!("cannot tell which earlier snapshots are complete again: {error}"));
                return (None, None);
            }
        };
        let is_empty = healing.still_damaged.is_empty() && healing.whole_again.is_empty() && healing.chunks == 0;
        if is_empty && !marks.is_empty() {
            self.watch.notice(if unread.is_empty() {
                "all earlier snapshots are complete"
            } else {
                "all earlier snapshots that can be read are complete"
            });
        }
        let mut told = self.damage.as_told(self.repo, &marks, &now);
        told.incomplete = healing.still_damaged.iter().map(|snapshot| snapshot.id).collect();
        told.unread = unread.iter().filter_map(|name| snapshot_id(name)).collect();
        told.complete = earlier.map(|told| told.complete.clone()).unwrap_or_default();
        told.complete.extend(complete.into_iter().chain([own.id]));
        let is_known = earlier.is_some_and(|earlier| earlier.incomplete == told.incomplete);
        let is_news = healing.chunks > 0 || !healing.whole_again.is_empty() || !is_known;
        ((is_news && !is_empty).then_some(healing), Some(Telling { told, marks }))
    }
}

/// What became of these snapshots; the ids are of those that are complete now.
fn compare(
    reader: &Reader,
    before: &Before,
    after: &View,
    snapshots: impl Iterator<Item = Snapshot>,
    was_incomplete: &dyn Fn(&Snapshot) -> bool,
    watch: &Watch,
) -> Result<(Healing, Vec<SnapshotId>)> {
    let mut look = Look::new(reader, before.views_with_snapshots(), after, watch);
    let mut look_since = Look::new(reader, std::slice::from_ref(after), after, watch);
    let (mut healing, mut complete) = (Healing::default(), Vec::new());
    for snapshot in snapshots {
        let whole =
            if before.had(&snapshot)? { look.tree(&snapshot.root)? } else { look_since.tree(&snapshot.root)? };
        if whole.after {
            complete.push(snapshot.id);
        }
        match (whole.before, whole.after) {
            (_, false) => healing.still_damaged.push(snapshot),
            (false, true) => healing.whole_again.push(snapshot),
            (true, true) if was_incomplete(&snapshot) => healing.whole_again.push(snapshot),
            (true, true) => {}
        }
    }
    healing.chunks = look.healed.len() as u64;
    Ok((healing, complete))
}

/// Whether the repository has everything that a snapshot refers to, by a comparison made now.
pub(super) fn is_whole(repo: &Repository, snapshot: &Snapshot, watch: &Watch) -> Result<bool> {
    watch.stage("checking the snapshot");
    repo.compare_index(watch)?;
    let (reader, view) = (repo.reader(), repo.view());
    let mut look = Look::new(&reader, std::slice::from_ref(&view), &view, watch);
    Ok(look.tree(&snapshot.root)?.after)
}

/// Whether something was whole before the backup, and is after it.
#[derive(Clone, Copy)]
struct Whole {
    before: bool,
    after: bool,
}

impl Whole {
    fn and(&mut self, other: Whole) {
        self.before &= other.before;
        self.after &= other.after;
    }
}

struct Look<'a> {
    reader: &'a Reader,
    /// What has been stored from the first attempt on is in all of them.
    before: &'a [View],
    after: &'a View,
    watch: &'a Watch,
    /// What came of each page, with all below it: snapshots share most of them.
    known: HashMap<ChunkId, Whole>,
    /// The same of each list of chunks, by its level.
    known_lists: HashMap<(ChunkId, u8), Whole>,
    healed: HashSet<ChunkId>,
}

/// A page on the way from the root, and the pages below it that are still to be looked at.
struct Step {
    page: ChunkId,
    below: Vec<ChunkId>,
    whole: Whole,
}

impl<'a> Look<'a> {
    fn new(reader: &'a Reader, before: &'a [View], after: &'a View, watch: &'a Watch) -> Self {
        let (known, known_lists, healed) = Default::default();
        Look { reader, before, after, watch, known, known_lists, healed }
    }

    /// A page with everything below it. A loop and not a recursion, as trees may be deep.
    fn tree(&mut self, root: &ChunkId) -> Result<Whole> {
        if let Some(whole) = self.known.get(root) {
            return Ok(*whole);
        }
        let mut way = vec![self.enter(root)?];
        loop {
            self.watch.cancel.check()?;
            let Some(step) = way.last_mut() else {
                return Err(Error::new(Kind::Failed, "look at a tree", root));
            };
            if let Some(next) = step.below.pop() {
                match self.known.get(&next) {
                    Some(whole) => step.whole.and(*whole),
                    None => way.push(self.enter(&next)?),
                }
                continue;
            }
            let (page, whole) = (step.page, step.whole);
            self.known.insert(page, whole);
            way.pop();
            match way.last_mut() {
                Some(above) => above.whole.and(whole),
                None => return Ok(whole),
            }
        }
    }

    fn enter(&mut self, page: &ChunkId) -> Result<Step> {
        let mut step = Step { page: *page, below: Vec::new(), whole: self.chunk(page)? };
        if !step.whole.after {
            return Ok(step);
        }
        match self.readable(self.reader.tree(page).and_then(|bytes| decode_page(&bytes)))? {
            Some(Page::Inner { pages, .. }) => step.below.extend(pages.into_iter().map(|(_, page)| page)),
            Some(Page::Entries(entries)) => {
                for entry in entries {
                    step.whole.and(self.content(&entry, &mut step.below)?);
                }
            }
            None => step.whole.after = false,
        }
        Ok(step)
    }

    fn content(&mut self, entry: &Entry, below: &mut Vec<ChunkId>) -> Result<Whole> {
        let mut whole = Whole { before: true, after: true };
        match &entry.content {
            Content::Empty | Content::Inline(_) => {}
            Content::Chunks(ids) => {
                for id in ids {
                    whole.and(self.chunk(id)?);
                }
            }
            Content::List { depth, root } => whole = self.list(*depth, root)?,
            Content::Tree(page) => below.push(*page),
        }
        Ok(whole)
    }

    /// A list of that many levels, or a chunk of content.
    fn list(&mut self, depth: u8, id: &ChunkId) -> Result<Whole> {
        let Some(level) = depth.checked_sub(1) else { return self.chunk(id) };
        // A hostile repository could name one list again and again, on each level.
        if let Some(whole) = self.known_lists.get(&(*id, level)) {
            return Ok(*whole);
        }
        self.watch.cancel.check()?;
        let whole = self.list_of_level(level, id)?;
        self.known_lists.insert((*id, level), whole);
        Ok(whole)
    }

    fn list_of_level(&mut self, level: u8, id: &ChunkId) -> Result<Whole> {
        let mut whole = self.chunk(id)?;
        if !whole.after {
            return Ok(whole);
        }
        match self.readable(self.reader.list_ids(id, level))? {
            Some(ids) => {
                for id in ids {
                    whole.and(self.list(level, &id)?);
                }
            }
            None => whole.after = false,
        }
        Ok(whole)
    }

    fn chunk(&mut self, id: &ChunkId) -> Result<Whole> {
        let mut whole = Whole { before: true, after: self.after.contains(id)? };
        for view in self.before {
            whole.before &= view.contains(id)?;
        }
        if whole.after && !whole.before {
            self.healed.insert(*id);
        }
        Ok(whole)
    }

    /// None for what is damaged; another error ends the check.
    fn readable<T>(&self, read: Result<T>) -> Result<Option<T>> {
        match read {
            Err(error) if error.is_damage() => Ok(None),
            read => read.map(Some),
        }
    }
}
