//! Read chunks: find them in the index, fetch and open their frame once, verify their names.

use crate::entry::{Content, Entry};
use crate::error::{Error, Kind, Result};
use crate::fetch::chunk::Chunk;
use crate::fetch::copies::ChunkCopies;
use crate::fetch::frames::Frames;
use crate::format::list::{LIST_DEPTH_MAX, decode_list};
use crate::format::tree::{PAGE_DEPTH_MAX, TreePage, decode_inner, decode_page};
use crate::id::{ChunkId, ChunkKind, PackId};
use crate::index::IndexView;
use crate::place::Located;
use crate::vault::Vault;
use std::collections::HashSet;
use std::sync::{Arc, Mutex};

pub(super) const LOST_HINT: &str =
    "the repository is damaged: run `silt backup`, which stores again what the sources still have";

/// Whether an error may concern only the pack that was read: it is damaged, or the system refuses it. Then other copies of
/// what it holds may be readable.
pub(super) fn is_of_one_pack(error: &Error) -> bool {
    error.is_damage() || matches!(error.kind(), Kind::Denied | Kind::Unsupported | Kind::Invalid | Kind::Failed)
}

/// Reads chunks and trees of a repository; shared by all threads of a verb.
#[derive(Clone)]
pub struct Reader(pub(super) Arc<ReaderInner>);

pub(super) struct ReaderInner {
    pub vault: Vault,
    frames: Frames,
    /// Set when the local index was compared with the repository because something could not be read. Once is enough: then
    /// it knows of no pack that is missing.
    pub has_compared: Mutex<bool>,
    /// Packs that count as missing, how many index objects are false, and where chunks rest by these, once that was asked for.
    pub damaged: Mutex<Option<(HashSet<PackId>, usize, IndexView)>>,
    pub copies: ChunkCopies,
}

impl ReaderInner {
    /// Compares the local index with the repository. If that cannot be listed, it is not damage of one chunk: each chunk would list
    /// it again, with all attempts.
    pub(crate) fn compare_index(&self) -> Result<()> {
        self.vault
            .compare_index(self.vault.notices())
            .map_err(|error| if error.is(Kind::NotFound) { error.with_kind(Kind::Gone) } else { error })?;
        Ok(())
    }
}

impl Reader {
    pub(crate) fn new(vault: &Vault) -> Self {
        Reader(Arc::new(ReaderInner {
            vault: vault.clone(),
            frames: Frames::new(vault),
            has_compared: Mutex::default(),
            copies: ChunkCopies::default(),
            damaged: Mutex::default(),
        }))
    }

    /// Where a chunk rests. `Corrupt` when the repository does not have it.
    pub fn locate(&self, id: &ChunkId) -> Result<Located> {
        let vault = &self.0.vault;
        let locate = || vault.with_sound_index(vault.notices(), |view| view.locate(id));
        let found = match locate()? {
            None => {
                self.compare_once()?;
                match locate()? {
                    None => self.damaged_packs()?.locate(id)?,
                    found => found,
                }
            }
            found => found,
        };
        found.ok_or_else(|| Error::corrupt("find the chunk", id, "no index object lists it").hint(LOST_HINT))
    }

    /// A chunk of this kind, whose bytes have the id.
    fn read(&self, id: &ChunkId, kind: ChunkKind) -> Result<Chunk> {
        let at = self.locate(id)?;
        match self.read_at(id, &at, kind) {
            Err(error) if is_of_one_pack(&error) => self.read_elsewhere(id, kind),
            read => read,
        }
    }

    pub(super) fn read_at(&self, id: &ChunkId, at: &Located, kind: ChunkKind) -> Result<Chunk> {
        let chunk = self.0.frames.read(id, at)?;
        if self.0.vault.keys().chunk_id(kind, &chunk) == *id {
            Ok(chunk)
        } else {
            Err(Error::corrupt("read the chunk", id, "content hash does not match the chunk's name"))
        }
    }

    /// Reads a chunk of content and verifies it; [`Kind::NotFound`] if the repository does not have it.
    pub fn content(&self, id: &ChunkId) -> Result<Chunk> {
        self.read(id, ChunkKind::Content)
    }

    pub(crate) fn tree(&self, id: &ChunkId) -> Result<Chunk> {
        self.read(id, ChunkKind::Tree)
    }

    /// The pages with entries of a directory, in order.
    pub fn leaf_pages(&self, root: &ChunkId) -> Result<Vec<ChunkId>> {
        let mut pages = Vec::new();
        self.collect_leaves(root, 0, b"", &mut Vec::new(), &mut pages)?;
        Ok(pages)
    }

    /// `name` is the first of the page, `last` that of the page before: they must grow, or a hostile repository could
    /// name the same pages again and again.
    fn collect_leaves(
        &self,
        id: &ChunkId,
        depth: usize,
        name: &[u8],
        last: &mut Vec<u8>,
        leaves: &mut Vec<ChunkId>,
    ) -> Result<()> {
        if depth > PAGE_DEPTH_MAX {
            return Err(Error::corrupt("read the directory", id, "its pages are nested too deeply"));
        }
        match decode_inner(&self.tree(id)?)? {
            None if !leaves.is_empty() && name <= last.as_slice() => {
                return Err(Error::corrupt("read the directory", id, "its pages are out of order"));
            }
            None => {
                last.clear();
                last.extend_from_slice(name);
                leaves.push(*id);
            }
            Some(pages) => {
                for (name, page) in &pages {
                    self.collect_leaves(page, depth + 1, name, last, leaves)?;
                }
            }
        }
        Ok(())
    }

    /// Calls `each` for every entry of a directory, in the order of names. Pages are read one at a time.
    pub fn for_each_entry(&self, root: &ChunkId, each: &mut dyn FnMut(Entry) -> Result<()>) -> Result<()> {
        let mut last = Vec::new();
        self.walk_pages(root, 0, &mut |entries| {
            for entry in entries {
                // Across pages, too: a hostile repository must not present a name twice.
                if !last.is_empty() && entry.name <= last {
                    return Err(Error::corrupt("read the directory", root, "its pages are out of order"));
                }
                last.clone_from(&entry.name);
                each(entry)?;
            }
            Ok(())
        })
    }

    /// Calls `each` with the entries of every page of a directory.
    pub(crate) fn walk_pages(
        &self,
        id: &ChunkId,
        depth: usize,
        each: &mut dyn FnMut(Vec<Entry>) -> Result<()>,
    ) -> Result<()> {
        if depth > PAGE_DEPTH_MAX {
            return Err(Error::corrupt("read the directory", id, "its pages are nested too deeply"));
        }
        match decode_page(&self.tree(id)?)? {
            // Empty pages below others could be repeated without end: they have no names that could be out of order.
            TreePage::Entries(entries) if depth > 0 && entries.is_empty() => {
                Err(Error::corrupt("read the directory", id, "it has an empty page"))
            }
            TreePage::Entries(entries) => each(entries),
            TreePage::Inner { pages, .. } => {
                pages.iter().try_for_each(|(_, page)| self.walk_pages(page, depth + 1, each))
            }
        }
    }

    /// All entries of a directory.
    pub fn directory(&self, root: &ChunkId) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        self.for_each_entry(root, &mut |entry| {
            entries.push(entry);
            Ok(())
        })?;
        Ok(entries)
    }

    /// One entry of a directory; reads only the pages on the way to it.
    pub fn lookup(&self, root: &ChunkId, name: &[u8]) -> Result<Option<Entry>> {
        let mut id = *root;
        for _ in 0..=PAGE_DEPTH_MAX {
            match decode_page(&self.tree(&id)?)? {
                TreePage::Entries(entries) => return Ok(entries.into_iter().find(|entry| entry.name == name)),
                TreePage::Inner { pages, .. } => {
                    let after = pages.partition_point(|(first, _)| first.as_slice() <= name);
                    match after.checked_sub(1) {
                        Some(at) => id = pages[at].1,
                        None => return Ok(None),
                    }
                }
            }
        }
        Err(Error::corrupt("read the directory", root, "its pages are nested too deeply"))
    }

    /// Calls `each` with the id of every chunk of an entry's content, in order. An error of `each` ends it.
    pub fn for_each_chunk(&self, entry: &Entry, each: &mut dyn FnMut(&ChunkId) -> Result<()>) -> Result<()> {
        match &entry.content {
            Content::Chunks(ids) => ids.iter().try_for_each(each),
            Content::List { depth, root } if *depth <= LIST_DEPTH_MAX => {
                // A hostile list can name itself so often that reading it never ends. No chunk is empty.
                let mut left = entry.content_bytes();
                self.walk_list(*depth, root, &mut |id| {
                    let too_long = || Error::corrupt("read the chunk list", root, "it is longer than the file");
                    left = left.checked_sub(1).ok_or_else(too_long)?;
                    each(id)
                })
            }
            Content::List { .. } => Err(Error::corrupt("read the chunk list", "", "it has too many levels")),
            Content::Empty | Content::Inline(_) | Content::Tree(_) => Ok(()),
        }
    }

    /// The ids in one page of a chunk list, which must be of this level (0 lists content).
    pub(crate) fn list_ids(&self, id: &ChunkId, level: u8) -> Result<Vec<ChunkId>> {
        if level >= LIST_DEPTH_MAX {
            return Err(Error::corrupt("read the chunk list", id, "it has too many levels"));
        }
        Ok(decode_list(&self.tree(id)?, level)?.ids)
    }

    fn walk_list(&self, depth: u8, id: &ChunkId, each: &mut dyn FnMut(&ChunkId) -> Result<()>) -> Result<()> {
        match depth.checked_sub(1) {
            None => each(id),
            Some(level) => {
                let ids = self.list_ids(id, level)?;
                ids.iter().try_for_each(|id| self.walk_list(level, id, each))
            }
        }
    }
}
