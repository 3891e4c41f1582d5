//! Walk trees by pulling one entry after the other: a page a level is held, never a tree or a stack frame.
//!
//! What of a directory cannot be read is reported and passed over: one damaged page hides itself and nothing else.

use super::shown;
use crate::entry::{Content, DEEP_PATH_BYTES_MAX, Entry, LEVELS_MAX, NAME_BYTES_MAX};
use crate::error::{Error, Result};
use crate::format::tree::{PAGE_DEPTH_MAX, TreePage, decode_page};
use crate::id::ChunkId;
use crate::repo::Reader;
use crate::watch::Watch;
use std::iter::Peekable;
use std::vec::IntoIter;

/// What is saved has shorter paths: a directory whose own is as long as it may be is saved with the names of its page.
const WALK_PATH_BYTES_MAX: usize = DEEP_PATH_BYTES_MAX + 2 * (NAME_BYTES_MAX + 1);

/// A page still to be read.
struct PendingPage {
    id: ChunkId,
    /// How many pages are above it.
    depth: usize,
    /// By which the page above names it; empty for the root.
    name: Vec<u8>,
}

/// One directory of a snapshot, its entries in the order of names.
pub(super) struct DirectoryPages<'r> {
    reader: &'r Reader,
    root: ChunkId,
    /// The next one last.
    pending: Vec<PendingPage>,
    entries: Peekable<IntoIter<Entry>>,
    /// The page that `entries` is all of.
    whole: Option<ChunkId>,
    last: Vec<u8>,
    /// What could not be read, until it is reported.
    damage: Vec<Error>,
    is_damaged: bool,
}

impl<'r> DirectoryPages<'r> {
    pub(crate) fn new(reader: &'r Reader, root: ChunkId) -> Self {
        let entries = Vec::new().into_iter().peekable();
        let pending = vec![PendingPage { id: root, depth: 0, name: Vec::new() }];
        DirectoryPages {
            reader,
            root,
            pending,
            entries,
            whole: None,
            last: Vec::new(),
            damage: Vec::new(),
            is_damaged: false,
        }
    }

    /// What is in a directory entry; None for an empty directory or anything else.
    pub(crate) fn of(reader: &'r Reader, entry: &Entry) -> Option<Self> {
        match entry.content {
            Content::Tree(root) => Some(DirectoryPages::new(reader, root)),
            _ => None,
        }
    }

    fn at_border(&mut self) -> bool {
        self.entries.peek().is_none()
    }

    /// Whether entries of it may have been passed over, as they cannot be read.
    pub(crate) fn is_damaged(&self) -> bool {
        self.is_damaged
    }

    /// Reports what could not be read since the last call.
    pub(crate) fn tell_damage(&mut self, path: &[u8], report: &mut dyn FnMut(&[u8], String)) {
        let path = if path.is_empty() { b"/" } else { path };
        self.damage.drain(..).for_each(|error| report(path, format!("some of its contents are missing: {error}")));
    }

    /// Replaces the next page by what is in it. One that cannot be read is passed over; after one that no backup wrote
    /// nothing more of the directory is read, as it could go on without end.
    fn expand(&mut self) -> Result<()> {
        let Some(next) = self.pending.pop() else { return Ok(()) };
        let read = match self.reader.tree(&next.id) {
            Ok(bytes) => decode_page(&bytes).and_then(|page| self.check(&next, &page).map(|()| page)),
            Err(error) if error.is_damage() => {
                // Its name counts as passed, so that a page cannot be named again and again.
                let is_new = next.depth == 0 || next.name > self.last;
                self.last = next.name;
                self.is_damaged = true;
                self.damage.push(error);
                if !is_new {
                    self.pending.clear();
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match read {
            Ok(TreePage::Inner { pages, .. }) => {
                let depth = next.depth + 1;
                self.pending.extend(pages.into_iter().rev().map(|(name, id)| PendingPage { id, depth, name }));
            }
            Ok(TreePage::Entries(entries)) => {
                if let Some(last) = entries.last() {
                    self.last.clone_from(&last.name);
                }
                self.entries = entries.into_iter().peekable();
                self.whole = Some(next.id);
            }
            Err(error) => {
                self.is_damaged = true;
                self.damage.push(error);
                self.pending.clear();
            }
        }
        Ok(())
    }

    /// A hostile repository must not present a name twice, nor pages without end.
    fn check(&self, next: &PendingPage, page: &TreePage) -> Result<()> {
        let bad = |why: &str| Err(Error::corrupt("read the directory", self.root, why));
        if next.depth > PAGE_DEPTH_MAX {
            return bad("its pages are nested too deeply");
        }
        if next.depth > 0 && !self.last.is_empty() && next.name <= self.last {
            return bad("its pages are out of order");
        }
        match page {
            TreePage::Entries(entries) if entries.is_empty() && next.depth > 0 => bad("it has an empty page"),
            TreePage::Entries(entries) if entries.first().is_some_and(|first| first.name <= self.last) => {
                bad("its pages are out of order")
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn peek(&mut self) -> Result<Option<&Entry>> {
        while self.at_border() && !self.pending.is_empty() {
            self.expand()?;
        }
        Ok(self.entries.peek())
    }

    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        self.peek()?;
        self.whole = None;
        Ok(self.entries.next())
    }

    /// Passes over the next page unread.
    fn pass_over(&mut self) {
        if let Some(passed) = self.pending.pop()
            && passed.depth > 0
        {
            self.last = passed.name;
        }
    }

    /// Passes over pages that come next in both: equal pages hold equal entries.
    pub(crate) fn skip_common(&mut self, other: &mut Self) -> Result<()> {
        loop {
            let (here, there) = (self.pending.last().map(|page| page.id), other.pending.last().map(|page| page.id));
            match (self.at_border(), other.at_border()) {
                (true, true) => match (here, there) {
                    (Some(a), Some(b)) if a == b => {
                        self.pass_over();
                        other.pass_over();
                    }
                    (Some(_), Some(_)) => {
                        self.expand()?;
                        other.expand()?;
                    }
                    _ => return Ok(()),
                },
                (true, false) if here.is_some() && here == other.whole => {
                    self.pass_over();
                    other.drop_page();
                }
                (false, true) if there.is_some() && there == self.whole => {
                    other.pass_over();
                    self.drop_page();
                }
                (false, false) if self.whole.is_some() && self.whole == other.whole => {
                    self.drop_page();
                    other.drop_page();
                }
                _ => return Ok(()),
            }
        }
    }

    fn drop_page(&mut self) {
        self.entries = Vec::new().into_iter().peekable();
        self.whole = None;
    }
}

/// Reports damage to a watch.
pub(super) fn damage_to(watch: &Watch) -> impl FnMut(&[u8], String) {
    |path: &[u8], what: String| watch.damage(path, what)
}

/// A path that grows and shrinks with a walk.
pub(super) struct WalkPath(pub Vec<u8>);

impl WalkPath {
    /// From a clean path; the root's slash comes with each name.
    pub(crate) fn new(clean: &[u8]) -> Self {
        WalkPath(if clean == b"/" { Vec::new() } else { clean.to_vec() })
    }

    /// Adds a name; returns the length to cut back to, or none when the path would be longer than any that is saved.
    pub(crate) fn push(&mut self, name: &[u8]) -> Option<usize> {
        let before = self.0.len();
        if before + 1 + name.len() > WALK_PATH_BYTES_MAX {
            return None;
        }
        self.0.push(b'/');
        self.0.extend_from_slice(name);
        Some(before)
    }

    /// Reports that what is below is not read: no backup made such a tree.
    pub(crate) fn tell_too_deep(&self, report: &mut dyn FnMut(&[u8], String)) {
        let start = shown(&self.0[..200.min(self.0.len())]);
        report(&self.0, format!("the contents of {start}… are skipped: they are deeper than what a backup saves"));
    }
}

/// Whether no backup saves a directory at this depth.
pub(super) fn is_too_deep(levels: usize) -> bool {
    levels > LEVELS_MAX
}

/// All entries below a directory, each directory before what is in it.
pub(super) struct SnapshotWalk<'r> {
    reader: &'r Reader,
    watch: &'r Watch,
    /// Each with the length of its directory's path.
    levels: Vec<(DirectoryPages<'r>, usize)>,
    path: WalkPath,
}

impl<'r> SnapshotWalk<'r> {
    /// Below this directory, whose clean path is given. What cannot be read is reported to the watch.
    pub(crate) fn new(reader: &'r Reader, root: &Entry, path: &[u8], watch: &'r Watch) -> Self {
        let path = WalkPath::new(path);
        let levels = DirectoryPages::of(reader, root).map(|pages| (pages, path.0.len())).into_iter().collect();
        SnapshotWalk { reader, watch, levels, path }
    }

    /// The next entry, not going into it. [`SnapshotWalk::path`] is its path.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        while let Some((pages, length)) = self.levels.last_mut() {
            self.path.0.truncate(*length);
            let next = pages.next()?;
            pages.tell_damage(&self.path.0, &mut damage_to(self.watch));
            match next {
                Some(entry) => match self.path.push(&entry.name) {
                    Some(_) => return Ok(Some(entry)),
                    None => self.path.tell_too_deep(&mut damage_to(self.watch)),
                },
                None => {
                    self.levels.pop();
                }
            }
        }
        Ok(None)
    }

    /// Goes on with what is in this directory, which `next` returned last.
    pub(crate) fn enter(&mut self, entry: &Entry) {
        let Some(pages) = DirectoryPages::of(self.reader, entry) else { return };
        if is_too_deep(self.levels.len()) {
            self.path.tell_too_deep(&mut damage_to(self.watch))
        } else {
            self.levels.push((pages, self.path.0.len()))
        }
    }

    pub(crate) fn path(&self) -> &[u8] {
        &self.path.0
    }
}
