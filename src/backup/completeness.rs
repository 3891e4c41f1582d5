//! Find out whether the repository has everything that a snapshot refers to: now, and before a backup.

use crate::entry::{Content, Entry};
use crate::error::{Error, Kind, Result};
use crate::format::tree::{TreePage, decode_page};
use crate::id::ChunkId;
use crate::index::IndexView;
use crate::repo::{Reader, Repository, Snapshot};
use crate::watch::Watch;
use std::collections::{HashMap, HashSet};

/// Whether the repository has everything that a snapshot refers to, by a comparison made now.
pub(super) fn is_whole(repo: &Repository, snapshot: &Snapshot, watch: &Watch) -> Result<bool> {
    watch.stage("checking the snapshot");
    repo.compare_index(watch)?;
    let (reader, view) = (repo.reader(), repo.view());
    let mut look = CompletenessCheck::new(&reader, std::slice::from_ref(&view), &view, watch);
    Ok(look.tree(&snapshot.root)?.after)
}

/// Whether something was whole before the backup, and is after it.
#[derive(Clone, Copy)]
pub(super) struct BeforeAndAfter {
    pub before: bool,
    pub after: bool,
}

impl BeforeAndAfter {
    fn and(&mut self, other: BeforeAndAfter) {
        self.before &= other.before;
        self.after &= other.after;
    }
}

pub(super) struct CompletenessCheck<'a> {
    reader: &'a Reader,
    /// What has been stored from the first attempt on is in all of them.
    before: &'a [IndexView],
    after: &'a IndexView,
    watch: &'a Watch,
    /// What came of each page, with all below it: snapshots share most of them.
    known: HashMap<ChunkId, BeforeAndAfter>,
    /// The same of each list of chunks, by its level.
    known_lists: HashMap<(ChunkId, u8), BeforeAndAfter>,
    /// Chunks that were missing before, and are there now.
    pub healed: HashSet<ChunkId>,
}

/// A page on the way from the root, and the pages below it that are still to be looked at.
struct CompletenessStep {
    page: ChunkId,
    below: Vec<ChunkId>,
    whole: BeforeAndAfter,
}

impl<'a> CompletenessCheck<'a> {
    pub(crate) fn new(reader: &'a Reader, before: &'a [IndexView], after: &'a IndexView, watch: &'a Watch) -> Self {
        let (known, known_lists, healed) = Default::default();
        CompletenessCheck { reader, before, after, watch, known, known_lists, healed }
    }

    /// A page with everything below it. A loop and not a recursion, as trees may be deep.
    pub(crate) fn tree(&mut self, root: &ChunkId) -> Result<BeforeAndAfter> {
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

    fn enter(&mut self, page: &ChunkId) -> Result<CompletenessStep> {
        let mut step = CompletenessStep { page: *page, below: Vec::new(), whole: self.chunk(page)? };
        if !step.whole.after {
            return Ok(step);
        }
        match self.readable(self.reader.tree(page).and_then(|bytes| decode_page(&bytes)))? {
            Some(TreePage::Inner { pages, .. }) => step.below.extend(pages.into_iter().map(|(_, page)| page)),
            Some(TreePage::Entries(entries)) => {
                for entry in entries {
                    step.whole.and(self.content(&entry, &mut step.below)?);
                }
            }
            None => step.whole.after = false,
        }
        Ok(step)
    }

    fn content(&mut self, entry: &Entry, below: &mut Vec<ChunkId>) -> Result<BeforeAndAfter> {
        let mut whole = BeforeAndAfter { before: true, after: true };
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
    fn list(&mut self, depth: u8, id: &ChunkId) -> Result<BeforeAndAfter> {
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

    fn list_of_level(&mut self, level: u8, id: &ChunkId) -> Result<BeforeAndAfter> {
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

    fn chunk(&mut self, id: &ChunkId) -> Result<BeforeAndAfter> {
        let mut whole = BeforeAndAfter { before: true, after: self.after.contains(id)? };
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
