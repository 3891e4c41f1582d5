//! Read chunks: find them in the index, fetch and open their frame once, verify their names.

use crate::entry::{Content, Entry};
use crate::error::{Error, Kind, Result};
use crate::id::{ChunkId, PackId};
use crate::place::Located;
use crate::repo::Repository;
use crate::repo::format::pack_name;
use crate::repo::list::{LIST_DEPTH_MAX, decode_list};
use crate::repo::tree::{PAGE_DEPTH_MAX, Page, decode_inner, decode_page};
use crate::seal::{FrameKey, FrameOpener, PACK_HEADER_BYTES, open_pack_key};
use crate::watch::Watch;
use std::collections::{HashMap, VecDeque};
use std::ops::Deref;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// Opened frames kept for further chunks, in raw bytes.
const FRAMES_BYTES: usize = 48 << 20;
/// Keys of packs kept; a key is a few hundred bytes.
const PACK_KEYS_MAX: usize = 4096;

/// A chunk's verified bytes, kept alive with their frame.
#[derive(Clone)]
pub struct Chunk {
    frame: Arc<Vec<u8>>,
    offset: usize,
    length: usize,
}

impl Deref for Chunk {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.frame[self.offset..self.offset + self.length]
    }
}

impl Chunk {
    /// Grows by the chunk that follows it in the same frame; false when that is not where it rests.
    pub fn join(&mut self, next: &Chunk) -> bool {
        let follows = Arc::ptr_eq(&self.frame, &next.frame) && self.offset + self.length == next.offset;
        if follows {
            self.length += next.length;
        }
        follows
    }
}

type FrameSlot = Arc<OnceLock<std::result::Result<Arc<Vec<u8>>, (Kind, String)>>>;

#[derive(Default)]
struct Frames {
    slots: HashMap<(PackId, u32), (FrameSlot, usize)>,
    order: VecDeque<(PackId, u32)>,
    bytes: usize,
}

impl Frames {
    fn forget(&mut self, key: &(PackId, u32)) {
        if let Some((_, bytes)) = self.slots.remove(key) {
            self.bytes -= bytes;
            self.order.retain(|known| known != key);
        }
    }
}

/// Reads chunks and trees of a repository; shared by all threads of a verb.
#[derive(Clone)]
pub struct Reader(Arc<Inner>);

struct Inner {
    repo: Repository,
    frames: Mutex<Frames>,
    keys: Mutex<HashMap<PackId, Arc<FrameKey>>>,
    openers: Mutex<Vec<FrameOpener>>,
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Reader {
    pub(super) fn new(repo: &Repository) -> Self {
        Reader(Arc::new(Inner {
            repo: repo.clone(),
            frames: Mutex::default(),
            keys: Mutex::default(),
            openers: Mutex::default(),
        }))
    }

    /// Where a chunk rests. `Corrupt` when the repository does not have it.
    pub fn locate(&self, id: &ChunkId) -> Result<Located> {
        let found = match self.0.repo.view().locate(id) {
            // The local index is a cache: damaged, it is made anew and asked again.
            Err(error) if error.is(Kind::Corrupt) => {
                self.0.repo.rebuild_index(&Watch::silent())?;
                self.0.repo.view().locate(id)?
            }
            other => other?,
        };
        found.ok_or_else(|| {
            Error::corrupt("find the chunk", id, "no index object names it").hint("the repository is damaged: run `silt backup` again, which stores again what is missing, and keep a copy of the repository")
        })
    }

    pub fn content(&self, id: &ChunkId) -> Result<Chunk> {
        let chunk = self.read(&self.locate(id)?)?;
        self.verify(id, self.0.repo.keys().content_id(&chunk), chunk)
    }

    pub fn tree(&self, id: &ChunkId) -> Result<Chunk> {
        let chunk = self.read(&self.locate(id)?)?;
        self.verify(id, self.0.repo.keys().tree_id(&chunk), chunk)
    }

    fn verify(&self, id: &ChunkId, found: ChunkId, chunk: Chunk) -> Result<Chunk> {
        match found == *id {
            true => Ok(chunk),
            false => Err(Error::corrupt("read the chunk", id, "its bytes are not those that it is named by")),
        }
    }

    /// The bytes at a place; their name is for the caller to verify.
    fn read(&self, at: &Located) -> Result<Chunk> {
        let slot = self.slot(at);
        let opened =
            slot.get_or_init(|| self.open_frame(at).map(Arc::new).map_err(|error| (error.kind(), error.to_string())));
        let frame = match opened {
            Ok(frame) => frame.clone(),
            Err((kind, why)) => {
                // Not kept: a later try may find the storage in better health.
                locked(&self.0.frames).forget(&(at.pack, at.frame_number));
                return Err(Error::new(*kind, "read a frame of pack", at.pack).because(why.clone()));
            }
        };
        let (offset, length) = (at.offset as usize, at.length as usize);
        match offset.checked_add(length).is_some_and(|end| end <= frame.len()) {
            true => Ok(Chunk { frame, offset, length }),
            false => Err(Error::corrupt("read a chunk of pack", at.pack, "the index places it outside its frame")),
        }
    }

    fn slot(&self, at: &Located) -> FrameSlot {
        let key = (at.pack, at.frame_number);
        let mut frames = locked(&self.0.frames);
        if let Some((slot, _)) = frames.slots.get(&key) {
            return slot.clone();
        }
        let slot = FrameSlot::default();
        let bytes = at.frame_raw as usize;
        frames.slots.insert(key, (slot.clone(), bytes));
        frames.order.push_back(key);
        frames.bytes += bytes;
        while frames.bytes > FRAMES_BYTES && frames.order.len() > 1 {
            let Some(oldest) = frames.order.pop_front() else { break };
            if let Some((_, bytes)) = frames.slots.remove(&oldest) {
                frames.bytes -= bytes;
            }
        }
        slot
    }

    fn open_frame(&self, at: &Located) -> Result<Vec<u8>> {
        let key = self.pack_key(&at.pack)?;
        let name = pack_name(&at.pack);
        let sealed = self.0.repo.storage().get_range(&name, u64::from(at.frame_offset), u64::from(at.frame_stored))?;
        let mut opener = match locked(&self.0.openers).pop() {
            Some(opener) => opener,
            None => FrameOpener::new()?,
        };
        let mut raw = Vec::with_capacity(at.frame_raw as usize);
        let opened = opener.open(&key, at.frame_number, &sealed, at.frame_raw as usize, &mut raw);
        locked(&self.0.openers).push(opener);
        opened.map(|()| raw)
    }

    fn pack_key(&self, pack: &PackId) -> Result<Arc<FrameKey>> {
        if let Some(key) = locked(&self.0.keys).get(pack) {
            return Ok(key.clone());
        }
        let header = self.0.repo.storage().get_range(&pack_name(pack), 0, PACK_HEADER_BYTES as u64)?;
        let key = Arc::new(open_pack_key(self.0.repo.keys(), &header)?);
        let mut keys = locked(&self.0.keys);
        if keys.len() >= PACK_KEYS_MAX {
            keys.clear();
        }
        keys.insert(*pack, key.clone());
        Ok(key)
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
            return Err(Error::corrupt("read the directory", id, "its pages lie too deep"));
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

    /// The entries of one page, which must hold entries.
    pub fn page_entries(&self, page: &ChunkId) -> Result<Vec<Entry>> {
        match decode_page(&self.tree(page)?)? {
            Page::Entries(entries) => Ok(entries),
            Page::Inner { .. } => Err(Error::corrupt("read the page", page, "it holds no entries")),
        }
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
    pub fn walk_pages(&self, id: &ChunkId, depth: usize, each: &mut dyn FnMut(Vec<Entry>) -> Result<()>) -> Result<()> {
        if depth > PAGE_DEPTH_MAX {
            return Err(Error::corrupt("read the directory", id, "its pages lie too deep"));
        }
        match decode_page(&self.tree(id)?)? {
            // Empty pages below others could be repeated without end: there is no name in them to be out of order.
            Page::Entries(entries) if depth > 0 && entries.is_empty() => {
                Err(Error::corrupt("read the directory", id, "it has an empty page"))
            }
            Page::Entries(entries) => each(entries),
            Page::Inner { pages, .. } => pages.iter().try_for_each(|(_, page)| self.walk_pages(page, depth + 1, each)),
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
                Page::Entries(entries) => return Ok(entries.into_iter().find(|entry| entry.name == name)),
                Page::Inner { pages, .. } => {
                    let after = pages.partition_point(|(first, _)| first.as_slice() <= name);
                    match after.checked_sub(1) {
                        Some(at) => id = pages[at].1,
                        None => return Ok(None),
                    }
                }
            }
        }
        Err(Error::corrupt("read the directory", root, "its pages lie too deep"))
    }

    /// Calls `each` with the id of every chunk of an entry's content, in order.
    pub fn for_each_chunk(&self, entry: &Entry, each: &mut dyn FnMut(&ChunkId) -> Result<()>) -> Result<()> {
        match &entry.content {
            Content::Chunks(ids) => ids.iter().try_for_each(each),
            Content::List { depth, root } if *depth <= LIST_DEPTH_MAX => self.walk_list(*depth, root, each),
            Content::List { .. } => Err(Error::corrupt("read the chunk list", "", "its levels are too many")),
            Content::Empty | Content::Inline(_) | Content::Tree(_) => Ok(()),
        }
    }

    fn walk_list(&self, depth: u8, id: &ChunkId, each: &mut dyn FnMut(&ChunkId) -> Result<()>) -> Result<()> {
        match depth.checked_sub(1) {
            None => each(id),
            Some(level) => {
                let ids = decode_list(&self.tree(id)?, level)?;
                ids.iter().try_for_each(|id| self.walk_list(level, id, each))
            }
        }
    }
}
