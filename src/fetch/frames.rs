//! Opened frames: each is fetched and opened once for all readers, and kept while there is room.

use crate::error::{Error, Kind, Result};
use crate::fetch::chunk::Chunk;
use crate::fetch::read_ahead::ReadAhead;
use crate::format::pack_name;
use crate::id::{ChunkId, ChunkKind, PackId};
use crate::lock::locked;
use crate::place::{FramePlace, Located};
use crate::seal::{FrameKey, FrameOpener, PACK_HEADER_BYTES, open_pack_key};
use crate::vault::Vault;
use crate::vault::kept_files::KeptFiles;
use bytes::Bytes;
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, OnceLock};

/// Opened frames kept for further chunks, in raw bytes, where memory allows: a quarter of it at most.
const OPENED_BYTES_MAX: u64 = 48 << 20;
/// Sealed frames of trees that wait to be opened, where memory allows: a sixteenth of it at most. Of content it is five
/// sixteenths.
const TREES_BYTES_MAX: u64 = 16 << 20;
/// Keys of packs kept; a key is a few hundred bytes.
const PACK_KEYS_MAX: usize = 4096;
/// What sealed frames of trees take in the cache folder.
const TREE_FILES_BYTES_MAX: u64 = 512 << 20;

type FrameSlot = Arc<OnceLock<Result<Arc<Vec<u8>>>>>;

/// A frame as an index object describes it: its pack, its place there, its raw bytes, and what it holds.
type FrameSlotKey = (PackId, FramePlace, u32, ChunkKind);

fn slot_key(at: &Located) -> FrameSlotKey {
    (at.pack, at.frame(), at.frame_raw, at.kind)
}

#[derive(Default)]
struct FrameSlots {
    slots: HashMap<FrameSlotKey, (FrameSlot, usize)>,
    order: VecDeque<FrameSlotKey>,
    bytes: usize,
    /// Frames that turned out to be damaged: the second time is enough.
    damaged: HashSet<FrameSlotKey>,
}

impl FrameSlots {
    /// Keeps that a frame is damaged from the second time on: it is read once more for one chunk of it, not for each.
    fn failed(&mut self, key: &FrameSlotKey, kind: Kind) {
        if !kind.is_damage() || self.damaged.insert(*key) {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: &FrameSlotKey) {
        if let Some((_, bytes)) = self.slots.remove(key) {
            self.bytes -= bytes;
            self.order.retain(|known| known != key);
        }
    }
}

struct PackKey {
    key: FrameKey,
    header: [u8; PACK_HEADER_BYTES],
}

/// What reading from remote storage takes besides.
struct RemoteFrames {
    content: ReadAhead,
    trees: ReadAhead,
    /// None without a cache.
    files: Option<KeptFiles>,
}

/// What the file of a frame is called in the cache.
fn file_name(at: &Located) -> String {
    format!("{}-{}", at.pack, at.frame_number)
}

/// The frames that a reader and its clones share.
pub(super) struct Frames {
    vault: Vault,
    bytes_max: usize,
    slots: Mutex<FrameSlots>,
    keys: Mutex<HashMap<PackId, Arc<PackKey>>>,
    openers: Mutex<Vec<FrameOpener>>,
    /// None where storage is as near as the cache.
    remote: Option<RemoteFrames>,
}

impl Frames {
    pub(crate) fn new(vault: &Vault) -> Self {
        let memory = vault.memory();
        let remote = vault.is_remote().then(|| RemoteFrames {
            content: ReadAhead::new(vault.storage_shared(), memory / 16 * 5),
            trees: ReadAhead::new(vault.storage_shared(), TREES_BYTES_MAX.min(memory / 16)),
            files: vault.cache().map(|cache| KeptFiles::new(cache.join("trees"), TREE_FILES_BYTES_MAX)),
        });
        Frames {
            vault: vault.clone(),
            bytes_max: OPENED_BYTES_MAX.min(memory / 4) as usize,
            slots: Mutex::default(),
            keys: Mutex::default(),
            openers: Mutex::default(),
            remote,
        }
    }

    /// The bytes of a chunk at its place; their name is for the caller to verify.
    pub(crate) fn read(&self, id: &ChunkId, at: &Located) -> Result<Chunk> {
        let slot = self.slot(at);
        let open = || self.open_frame(id, at).map(Arc::new);
        let frame = match slot.get_or_init(open) {
            Ok(frame) => frame.clone(),
            Err(error) => {
                locked(&self.slots).failed(&slot_key(at), error.kind());
                let failed = Error::new(error.kind(), "read a frame of pack", at.pack);
                return Err(failed.because(error.clone()));
            }
        };
        Chunk::within(frame, at.offset as usize, at.length as usize)
            .ok_or_else(|| Error::corrupt("read a chunk of pack", at.pack, "the index places it outside its frame"))
    }

    fn slot(&self, at: &Located) -> FrameSlot {
        let key = slot_key(at);
        let mut slots = locked(&self.slots);
        if let Some((slot, _)) = slots.slots.get(&key) {
            return slot.clone();
        }
        let slot = FrameSlot::default();
        let bytes = at.frame_raw as usize;
        slots.slots.insert(key, (slot.clone(), bytes));
        slots.order.push_back(key);
        slots.bytes += bytes;
        while slots.bytes > self.bytes_max && slots.order.len() > 1 {
            let Some(oldest) = slots.order.pop_front() else { break };
            if let Some((_, bytes)) = slots.slots.remove(&oldest) {
                slots.bytes -= bytes;
            }
        }
        slot
    }

    fn open_frame(&self, id: &ChunkId, at: &Located) -> Result<Vec<u8>> {
        let Some(remote) = &self.remote else {
            let header = || self.range(&at.pack, 0, PACK_HEADER_BYTES as u64);
            let key = self.pack_key(at, header)?;
            let sealed = self.range(&at.pack, u64::from(at.frame_offset), u64::from(at.frame_stored))?;
            return self.open(&key.key, at, &sealed);
        };
        if let Some(raw) = (at.kind == ChunkKind::Tree).then(|| self.open_kept(remote, id, at)).flatten() {
            return Ok(raw);
        }
        let ahead = match at.kind {
            ChunkKind::Content => &remote.content,
            ChunkKind::Tree => &remote.trees,
        };
        let view = self.vault.view();
        // An index that cannot tell means only that frames come one by one.
        let near = |bytes| view.frames_within(id, &bytes).unwrap_or_default();
        let sealed = match ahead.frame(at, &near) {
            // Frames that were fetched along with it may be past the end of a truncated pack.
            Err(error) if error.is(Kind::Corrupt) => {
                Bytes::from(self.range(&at.pack, u64::from(at.frame_offset), u64::from(at.frame_stored))?)
            }
            sealed => sealed?,
        };
        let key = self.pack_key(at, || ahead.header(&at.pack))?;
        let raw = self.open(&key.key, at, &sealed)?;
        if let Some(files) = remote.files.as_ref().filter(|_| at.kind == ChunkKind::Tree) {
            files.keep(&file_name(at), &[&key.header, &sealed]);
        }
        Ok(raw)
    }

    fn range(&self, pack: &PackId, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.vault.storage().get_range(&pack_name(pack), offset, length)
    }

    /// From the cache folder; what does not hold the chunk is dropped, and fetched as if it had never been there.
    fn open_kept(&self, remote: &RemoteFrames, id: &ChunkId, at: &Located) -> Option<Vec<u8>> {
        let length = PACK_HEADER_BYTES + at.frame_stored as usize;
        let files = remote.files.as_ref()?;
        let kept = files.read(&file_name(at), length)?;
        let (header, sealed) = kept.split_at(PACK_HEADER_BYTES);
        // The file may be that of another pack: its header must not be remembered as that of this one.
        let keys = self.vault.keys();
        let known = locked(&self.keys).get(&at.pack).filter(|known| known.header == header).cloned();
        let opened = match known {
            Some(known) => self.open(&known.key, at, sealed),
            None => open_pack_key(keys, at.kind, header).and_then(|key| self.open(&key, at, sealed)),
        };
        let range = at.offset as usize..(at.offset as usize).saturating_add(at.length as usize);
        let has_chunk = |raw: &Vec<u8>| raw.get(range).is_some_and(|chunk| keys.chunk_id(at.kind, chunk) == *id);
        let raw = opened.ok().filter(has_chunk);
        if raw.is_none() {
            files.forget(&file_name(at));
        }
        raw
    }

    fn open(&self, key: &FrameKey, at: &Located, sealed: &[u8]) -> Result<Vec<u8>> {
        let mut opener = match locked(&self.openers).pop() {
            Some(opener) => opener,
            None => FrameOpener::new()?,
        };
        let mut raw = Vec::with_capacity(at.frame_raw as usize);
        let opened = opener.open(key, at.frame_number, sealed, at.frame_raw as usize, &mut raw);
        locked(&self.openers).push(opener);
        opened.map(|()| raw)
    }

    fn pack_key<B: AsRef<[u8]>>(&self, at: &Located, header: impl FnOnce() -> Result<B>) -> Result<Arc<PackKey>> {
        if let Some(key) = locked(&self.keys).get(&at.pack) {
            return Ok(key.clone());
        }
        let header = header()?;
        let key = open_pack_key(self.vault.keys(), at.kind, header.as_ref())?;
        let header = *header.as_ref().first_chunk().expect("a key was in it");
        let key = Arc::new(PackKey { key, header });
        let mut keys = locked(&self.keys);
        if keys.len() >= PACK_KEYS_MAX {
            keys.clear();
        }
        keys.insert(at.pack, key.clone());
        Ok(key)
    }
}
