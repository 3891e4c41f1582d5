//! Walk trees by pulling one entry after the other: a page a level is held, never a tree or a stack frame.

use super::shown;
use crate::entry::{Content, Entry, PATH_BYTES_MAX};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::repo::Reader;
use crate::repo::tree::{PAGE_DEPTH_MAX, Page, decode_page};
use std::iter::Peekable;
use std::vec::IntoIter;

/// One directory of a snapshot, its entries in the order of names.
pub(super) struct Pages<'r> {
    reader: &'r Reader,
    root: ChunkId,
    /// Pages still to be read, the next one last, each with how many lie above it.
    pending: Vec<(ChunkId, usize)>,
    entries: Peekable<IntoIter<Entry>>,
    /// The page that `entries` is all of.
    whole: Option<ChunkId>,
    last: Vec<u8>,
}

impl<'r> Pages<'r> {
    pub fn new(reader: &'r Reader, root: ChunkId) -> Self {
        let entries = Vec::new().into_iter().peekable();
        Pages { reader, root, pending: vec![(root, 0)], entries, whole: None, last: Vec::new() }
    }

    /// What is in a directory entry; None for an empty directory or anything else.
    pub fn of(reader: &'r Reader, entry: &Entry) -> Option<Self> {
        match entry.content {
            Content::Tree(root) => Some(Pages::new(reader, root)),
            _ => None,
        }
    }

    fn at_border(&mut self) -> bool {
        self.entries.peek().is_none()
    }

    /// Replaces the next page by what is in it.
    fn expand(&mut self) -> Result<()> {
        let Some((id, depth)) = self.pending.pop() else { return Ok(()) };
        if depth > PAGE_DEPTH_MAX {
            return Err(Error::corrupt("read the directory", self.root, "its pages lie too deep"));
        }
        match decode_page(&self.reader.tree(&id)?)? {
            Page::Inner { pages, .. } => {
                self.pending.extend(pages.into_iter().rev().map(|(_, page)| (page, depth + 1)));
            }
            Page::Entries(entries) => {
                // Across pages, too: a hostile repository must not present a name twice.
                if entries.first().is_some_and(|first| !self.last.is_empty() && first.name <= self.last) {
                    return Err(Error::corrupt("read the directory", self.root, "its pages are out of order"));
                }
                if let Some(last) = entries.last() {
                    self.last.clone_from(&last.name);
                }
                self.entries = entries.into_iter().peekable();
                self.whole = Some(id);
            }
        }
        Ok(())
    }

    pub fn peek(&mut self) -> Result<Option<&Entry>> {
        while self.at_border() && !self.pending.is_empty() {
            self.expand()?;
        }
        Ok(self.entries.peek())
    }

    pub fn next(&mut self) -> Result<Option<Entry>> {
        self.peek()?;
        self.whole = None;
        Ok(self.entries.next())
    }

    /// Passes over pages that come next in both: equal pages hold equal entries.
    pub fn skip_common(&mut self, other: &mut Self) -> Result<()> {
        loop {
            let (here, there) = (self.pending.last().map(|page| page.0), other.pending.last().map(|page| page.0));
            match (self.at_border(), other.at_border()) {
                (true, true) => match (here, there) {
                    (Some(a), Some(b)) if a == b => {
                        self.pending.pop();
                        other.pending.pop();
                    }
                    (Some(_), Some(_)) => {
                        self.expand()?;
                        other.expand()?;
                    }
                    _ => return Ok(()),
                },
                (true, false) if here.is_some() && here == other.whole => {
                    self.pending.pop();
                    other.drop_page();
                }
                (false, true) if there.is_some() && there == self.whole => {
                    other.pending.pop();
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

/// A path that grows and shrinks with a walk.
pub(super) struct WalkPath(pub Vec<u8>);

impl WalkPath {
    /// From a clean path; the root's slash comes with each name.
    pub fn new(clean: &[u8]) -> Self {
        WalkPath(if clean == b"/" { Vec::new() } else { clean.to_vec() })
    }

    /// Adds a name; gives the length to cut back to.
    pub fn push(&mut self, name: &[u8]) -> Result<usize> {
        let before = self.0.len();
        self.0.push(b'/');
        self.0.extend_from_slice(name);
        match self.0.len() <= PATH_BYTES_MAX + 1 {
            true => Ok(before),
            // Not only for the sake of the path: so no tree is too deep.
            false => {
                let start = shown(&self.0[..200.min(self.0.len())]);
                Err(Error::corrupt("walk the tree below", start, "its paths are longer than a saved path can be"))
            }
        }
    }
}

/// All entries below a directory, each directory before what is in it.
pub(super) struct Walk<'r> {
    reader: &'r Reader,
    /// Each with the length of its directory's path.
    levels: Vec<(Pages<'r>, usize)>,
    path: WalkPath,
}

impl<'r> Walk<'r> {
    /// Below this directory, whose clean path is given.
    pub fn new(reader: &'r Reader, root: &Entry, path: &[u8]) -> Self {
        let path = WalkPath::new(path);
        let levels = Pages::of(reader, root).map(|pages| (pages, path.0.len())).into_iter().collect();
        Walk { reader, levels, path }
    }

    /// The next entry, not going into it. [`Walk::path`] is its path.
    pub fn next(&mut self) -> Result<Option<Entry>> {
        while let Some((pages, length)) = self.levels.last_mut() {
            self.path.0.truncate(*length);
            match pages.next()? {
                Some(entry) => {
                    self.path.push(&entry.name)?;
                    return Ok(Some(entry));
                }
                None => {
                    self.levels.pop();
                }
            }
        }
        Ok(None)
    }

    /// Goes on with what is in this directory, which `next` gave last.
    pub fn enter(&mut self, entry: &Entry) {
        if let Some(pages) = Pages::of(self.reader, entry) {
            self.levels.push((pages, self.path.0.len()));
        }
    }

    pub fn path(&self) -> &[u8] {
        &self.path.0
    }
}
