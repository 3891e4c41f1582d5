//! After damage: which earlier snapshots are whole again, as this backup stored again what they had lost.

use crate::backup::Run;
use crate::cache::View;
use crate::disk::whole::{read_own, write_whole};
use crate::entry::{Content, Entry};
use crate::error::{Error, Kind, Result};
use crate::id::{ChunkId, IndexId, PackId};
use crate::repo::tree::{Page, decode_page};
use crate::repo::{IndexCheck, Reader, Repository, Snapshot};
use crate::seal::Power;
use crate::watch::Watch;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;

/// How many damaged snapshots the cache remembers.
const TOLD_SNAPSHOTS_MAX: usize = 1000;
const TOLD_BYTES_MAX: u64 = 64 << 10;

/// What a backup healed in a repository that had lost something.
#[derive(Clone, Debug, Default)]
pub struct Healing {
    /// Chunks of earlier snapshots that were lost and are stored again.
    pub chunks: u64,
    /// Snapshots that lacked content before this backup and lack none now, oldest first.
    pub whole_again: Vec<Snapshot>,
    /// Snapshots that still lack content, oldest first.
    pub still_damaged: Vec<Snapshot>,
}

impl<'a> Run<'a> {
    /// Looks at the earlier snapshots that may lack something. That it cannot be told is worth a notice, and no more: the
    /// backup is done.
    pub(super) fn look_at_healing(&self, view_before: &View, check: &IndexCheck, own: &Snapshot) -> Option<Healing> {
        let is_untold = self.repo.untold_loss().is_some();
        let told = Told::of(self.repo, check);
        self.repo.begin_to_tell_loss();
        if self.repo.keys().power() == Power::Put {
            self.watch.notice("which snapshots are complete again cannot be told with a put-only key");
            note_told(self.repo, check, &[]);
            self.repo.loss_is_told(check);
            return None;
        }
        self.watch.stage("checking earlier snapshots");
        let looked = self.repo.snapshots(&self.watch.aside()).and_then(|snapshots| {
            // What is new can only complete those that were incomplete.
            let may_lack = |snapshot: &Snapshot| told.as_ref().is_none_or(|told| told.is_damaged(snapshot));
            let earlier = snapshots.into_iter().filter(|snapshot| snapshot.id != own.id && may_lack(snapshot));
            compare(&self.reader, view_before, &self.repo.view(), earlier, self.watch)
        });
        let healing = looked.map_err(|error| {
            self.watch.notice(format!("cannot tell which earlier snapshots are complete again: {error}"));
        });
        if let Ok(healing) = &healing {
            note_told(self.repo, check, &healing.still_damaged);
            if healing.still_damaged.is_empty() && healing.chunks == 0 && is_untold {
                self.watch.notice("all earlier snapshots are complete");
            }
            self.repo.loss_is_told(check);
        }
        healing.ok().filter(|healing| healing.chunks > 0 || !healing.still_damaged.is_empty())
    }
}

/// What an earlier run of this host has said of the damage that is there.
pub(super) struct Told {
    still_damaged: Vec<String>,
}

impl Told {
    /// None if there is damage that no run has told.
    pub fn of(repo: &Repository, check: &IndexCheck) -> Option<Told> {
        let told = read_own(&told_path(repo)?, TOLD_BYTES_MAX).ok().filter(|_| repo.untold_loss().is_none())?;
        let text = String::from_utf8(told).ok()?;
        let (damage, snapshots) = text.split_once('\n')?;
        let still_damaged = || snapshots.lines().map(str::to_owned).collect();
        (damage == name_of(check)).then(|| Told { still_damaged: still_damaged() })
    }

    /// Whether no snapshot lacks anything.
    pub fn is_all_whole(&self) -> bool {
        self.still_damaged.is_empty()
    }

    /// Whether a snapshot lacks something, or may, as there were more of those than are remembered.
    pub fn is_damaged(&self, snapshot: &Snapshot) -> bool {
        self.still_damaged.len() >= TOLD_SNAPSHOTS_MAX || self.still_damaged.contains(&snapshot.id.to_string())
    }
}

/// Names what is damaged and missing: another word stands for other damage.
fn name_of(check: &IndexCheck) -> String {
    let packs = check.packs_missing.iter().map(PackId::as_bytes);
    let mut names: Vec<&[u8; 32]> = packs.chain(check.indexes_damaged.iter().map(IndexId::as_bytes)).collect();
    names.sort();
    let mut hasher = blake3::Hasher::new();
    for name in names {
        hasher.update(name);
    }
    hasher.finalize().to_hex().to_string()
}

fn told_path(repo: &Repository) -> Option<PathBuf> {
    Some(repo.cache()?.join("healed"))
}

/// So that what was said and done about this damage once is not said and done again.
fn note_told(repo: &Repository, check: &IndexCheck, still_damaged: &[Snapshot]) {
    let snapshots = still_damaged.iter().take(TOLD_SNAPSHOTS_MAX).map(|snapshot| snapshot.id.to_string());
    let lines: Vec<String> = [name_of(check)].into_iter().chain(snapshots).collect();
    // Without it the next run looks again.
    let _best_effort = told_path(repo).map(|path| write_whole(&path, (lines.join("\n") + "\n").as_bytes()));
}

fn compare(
    reader: &Reader,
    before: &View,
    after: &View,
    snapshots: impl Iterator<Item = Snapshot>,
    watch: &Watch,
) -> Result<Healing> {
    let mut look = Look { reader, before, after, known: HashMap::new(), healed: HashSet::new() };
    let mut healing = Healing::default();
    for snapshot in snapshots {
        let whole = look.tree(&snapshot.root, watch)?;
        match (whole.before, whole.after) {
            (_, false) => healing.still_damaged.push(snapshot),
            (false, true) => healing.whole_again.push(snapshot),
            (true, true) => {}
        }
    }
    healing.chunks = look.healed.len() as u64;
    Ok(healing)
}

/// Whether the repository has everything that a snapshot refers to, by a comparison made now.
pub(super) fn is_whole(repo: &Repository, snapshot: &Snapshot, watch: &Watch) -> Result<bool> {
    watch.stage("checking the snapshot");
    repo.compare_index(watch)?;
    let (reader, view) = (repo.reader(), repo.view());
    let mut look = Look { reader: &reader, before: &view, after: &view, known: HashMap::new(), healed: HashSet::new() };
    Ok(look.tree(&snapshot.root, watch)?.after)
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
    before: &'a View,
    after: &'a View,
    /// What came of each page, with all below it: snapshots share most of them.
    known: HashMap<ChunkId, Whole>,
    healed: HashSet<ChunkId>,
}

/// A page on the way from the root, and the pages below it that are still to be looked at.
struct Step {
    page: ChunkId,
    below: Vec<ChunkId>,
    whole: Whole,
}

impl Look<'_> {
    /// A page with everything below it. A loop and not a recursion, as trees may be deep.
    fn tree(&mut self, root: &ChunkId, watch: &Watch) -> Result<Whole> {
        if let Some(whole) = self.known.get(root) {
            return Ok(*whole);
        }
        let mut way = vec![self.enter(root)?];
        loop {
            watch.cancel.check()?;
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

    fn list(&mut self, depth: u8, id: &ChunkId) -> Result<Whole> {
        let mut whole = self.chunk(id)?;
        let Some(level) = depth.checked_sub(1).filter(|_| whole.after) else { return Ok(whole) };
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
        let whole = Whole { before: self.before.contains(id)?, after: self.after.contains(id)? };
        if whole.after && !whole.before {
            self.healed.insert(*id);
        }
        Ok(whole)
    }

    /// None for what is damaged; other trouble ends the look.
    fn readable<T>(&self, read: Result<T>) -> Result<Option<T>> {
        match read {
            Err(error) if error.is_damage() => Ok(None),
            read => read.map(Some),
        }
    }
}
