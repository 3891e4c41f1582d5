//! Stores chunks: claims them, fills frames and packs, writes packs, then the index objects that name them, in that order and no
//! other.

use crate::error::{Error, Kind, Result};
use crate::format::{CHUNK_BYTES_MAX, FRAME_RAW_BYTES, PACK_BYTES};
use crate::id::{ChunkId, ChunkKind, IndexId};
use crate::index::{Claim, Claims, IndexBasis, IndexView};
use crate::ingest::packs::{FrameReservation, FullPack, OpenPacks};
use crate::ingest::upload::Uploads;
use crate::lock::locked;
use crate::seal::{Compression, FrameSealer};
use crate::vault::{IndexCheck, Vault};
use crate::watch::Watch;
use rayon::prelude::*;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Raw bytes of a frame of tree pages: smaller than of content, as trees are read a page here and there.
const TREE_FRAME_RAW_BYTES: usize = 512 << 10;
/// Maximum number of chunks in a frame. It bounds frames of tiny chunks: readers refuse an index object that describes more than
/// [`OBJECT_CHUNKS_MAX`](crate::format::index::OBJECT_CHUNKS_MAX) chunks.
const FRAME_CHUNKS_MAX: usize = 64 << 10;
/// With little memory packs are closed sooner, but not below this size.
const PACK_BYTES_MIN: u64 = 4 << 20;

/// How chunks are stored.
#[derive(Clone, Debug)]
pub struct SinkOptions {
    /// Threads that store chunks at the same time; each has a lane of its own.
    pub lanes: usize,
    /// How frames are compressed.
    pub compression: Compression,
    /// Bytes that packs on their way may take.
    pub memory_bytes: u64,
}

/// Stores chunks, each once, and makes them findable. Dropped, what it stored stays as chunks that the next run finds.
pub struct ChunkSink {
    pub(super) vault: Vault,
    pub(super) claims: Claims,
    pub(super) lanes: Vec<Mutex<SinkLane>>,
    /// Of content and of trees.
    pub(super) packs: [OpenPacks; 2],
    pub(super) uploads: Uploads,
    checkpointing: Mutex<()>,
    /// What the claims rest on, in all views of the local index that they had. Held while they get another one.
    pub(super) relied: Mutex<IndexBasis>,
    pub(super) watch: Watch,
    before: IndexBefore,
    /// Raw bytes of chunks that were new.
    pub bytes_new: AtomicU64,
    /// How many chunks were new.
    pub chunks_new: AtomicU64,
}

/// What there was when the local index was compared with the repository, after this writer had registered.
struct IndexBefore {
    check: IndexCheck,
    /// The chunks that were stored.
    view: IndexView,
    /// How often the local index had lost something.
    losses: u64,
}

/// What one worker has in hand: its frames that are being filled, content and tree.
pub(super) struct SinkLane {
    sealer: FrameSealer,
    frames: [FrameBuilder; 2],
}

#[derive(Default)]
struct FrameBuilder {
    raw: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
}

impl ChunkSink {
    /// Must not be called before the writer has registered: what is removed from here on is removed knowing of it.
    pub(crate) fn open(vault: &Vault, options: &SinkOptions, watch: &Watch) -> Result<Self> {
        let check = vault.compare_index(watch)?;
        let losses_before = vault.index_losses();
        let (view_before, basis) = vault.view_and_basis();
        let lanes = (0..options.lanes.max(1))
            .map(|_| {
                let sealer = FrameSealer::new(options.compression)?;
                Ok(Mutex::new(SinkLane { sealer, frames: Default::default() }))
            })
            .collect::<Result<_>>()?;
        let pack_bytes = (options.memory_bytes / 8).clamp(PACK_BYTES_MIN, PACK_BYTES);
        let concurrency = if !vault.storage().profile().is_remote {
            1
        } else {
            ((options.memory_bytes / pack_bytes).saturating_sub(3) as usize).clamp(1, 5)
        };
        Ok(ChunkSink {
            claims: Claims::new(view_before.clone()),
            lanes,
            packs: [OpenPacks::new(ChunkKind::Content, pack_bytes), OpenPacks::new(ChunkKind::Tree, pack_bytes)],
            uploads: Uploads::start(vault.storage_shared(), concurrency, watch.progress.clone())?,
            checkpointing: Mutex::new(()),
            relied: Mutex::new(basis),
            watch: watch.clone(),
            before: IndexBefore { check, view: view_before, losses: losses_before },
            bytes_new: AtomicU64::new(0),
            chunks_new: AtomicU64::new(0),
            vault: vault.clone(),
        })
    }

    pub(super) fn vault(&self) -> &Vault {
        &self.vault
    }

    /// What was found when the local index was compared with the repository at the start.
    pub(crate) fn check(&self) -> &IndexCheck {
        &self.before.check
    }

    /// Whether the repository had lost something by then.
    pub(crate) fn has_met_damage(&self) -> bool {
        !self.before.check.is_sound() || self.before.losses > 0
    }

    /// Whether something that it may have relied on turned out to be gone: it cannot commit any more.
    pub(crate) fn has_lost_something(&self) -> bool {
        self.vault.index_losses() != self.before.losses
    }

    /// The chunks that were stored when this writer began.
    pub(crate) fn view_before(&self) -> &IndexView {
        &self.before.view
    }

    /// Whether a chunk is in the repository, or will be before the commit as a worker of this run is storing it.
    pub(crate) fn has(&self, id: &ChunkId) -> Result<bool> {
        self.with_sound_index(|claims| claims.contains(id))
    }

    /// Asks the claims; a local index that turns out to be damaged is rebuilt, and they are asked once more.
    fn with_sound_index<T>(&self, ask: impl Fn(&Claims) -> Result<T>) -> Result<T> {
        loop {
            let rebuilds = self.vault.index_rebuilds();
            match ask(&self.claims) {
                Err(error) if error.is(Kind::Corrupt) => {
                    self.vault.rebuild_index(&error, rebuilds, &self.watch)?;
                    self.refresh_claims(&mut locked(&self.relied));
                }
                asked => return asked,
            }
        }
    }

    /// Hands the claims the local index as it is now.
    pub(super) fn refresh_claims(&self, relied: &mut IndexBasis) {
        let (view, basis) = self.vault.view_and_basis();
        self.claims.refresh(&view);
        relied.join(basis);
    }

    /// What this writer has relied on so far: all index objects, and the packs that were missing all the time.
    pub(crate) fn relied(&self) -> IndexBasis {
        locked(&self.relied).clone()
    }

    /// Whether storage takes packs more slowly than they come.
    pub(crate) fn is_held_up(&self) -> bool {
        self.uploads.is_full()
    }

    /// Computes the id of a chunk of content, and stores the chunk if it is new.
    pub fn store_content(&self, lane: usize, bytes: &[u8]) -> Result<ChunkId> {
        let id = self.vault.keys().chunk_id(ChunkKind::Content, bytes);
        self.store(lane, id, bytes, ChunkKind::Content)
    }

    /// Computes the ids of neighbouring chunks of content, which end in `bytes` at `ends`, and stores those that are new.
    pub(crate) fn store_contents(&self, lane: usize, bytes: &[u8], ends: &[usize]) -> Result<Vec<ChunkId>> {
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let chunks = || starts.clone().zip(ends).map(|(start, end)| &bytes[start..*end]);
        let ids: Vec<ChunkId> = chunks().map(|chunk| self.vault.keys().chunk_id(ChunkKind::Content, chunk)).collect();
        let mut lane = locked(&self.lanes[lane]);
        let mut claims = Vec::with_capacity(ids.len());
        let claimed = self.claims.ahead(&ids, |id| {
            claims.push(self.with_sound_index(|claims| claims.claim(id))?);
            Ok(())
        });
        let put = claimed.and_then(|()| {
            let mut claimed = ids.iter().zip(chunks()).zip(claims).filter(|(_, claim)| *claim == Claim::Mine);
            claimed.try_for_each(|((id, chunk), _)| self.put(&mut lane, *id, chunk, ChunkKind::Content))
        });
        self.keep_promise(put)?;
        Ok(ids)
    }

    /// What was claimed and is not stored, others refer to already: then nothing of this run may be relied on. Called
    /// while the lane is held, so that no checkpoint passes meanwhile.
    fn keep_promise(&self, stored: Result<()>) -> Result<()> {
        stored.inspect_err(|error| self.uploads.fail(error.clone()))
    }

    /// Computes the id of a chunk of a tree (a page or a list), and stores the chunk if it is new.
    pub fn store_tree(&self, lane: usize, bytes: &[u8]) -> Result<ChunkId> {
        let id = self.vault.keys().chunk_id(ChunkKind::Tree, bytes);
        self.store(lane, id, bytes, ChunkKind::Tree)
    }

    fn store(&self, lane: usize, id: ChunkId, bytes: &[u8], kind: ChunkKind) -> Result<ChunkId> {
        // The lane is held from the claim until the chunk is in its frame, so that a checkpoint that has passed all
        // lanes has every chunk claimed before it.
        let mut lane = locked(&self.lanes[lane]);
        if self.with_sound_index(|claims| claims.claim(&id))? == Claim::Mine {
            let put = self.put(&mut lane, id, bytes, kind);
            self.keep_promise(put)?;
        }
        Ok(id)
    }

    /// Puts a claimed chunk into the frame of a lane.
    fn put(&self, lane: &mut SinkLane, id: ChunkId, bytes: &[u8], kind: ChunkKind) -> Result<()> {
        if bytes.len() as u64 > CHUNK_BYTES_MAX {
            return Err(Error::new(Kind::Failed, "store a chunk", "").because("it is longer than the format allows"));
        }
        self.uploads.check()?;
        self.bytes_new.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.chunks_new.fetch_add(1, Ordering::Relaxed);
        let limit = match kind {
            ChunkKind::Content => FRAME_RAW_BYTES,
            ChunkKind::Tree => TREE_FRAME_RAW_BYTES,
        };
        let filling = &mut lane.frames[kind as usize];
        filling.raw.extend_from_slice(bytes);
        filling.chunks.push((id, bytes.len() as u32));
        if filling.raw.len() >= limit || filling.chunks.len() >= FRAME_CHUNKS_MAX {
            self.flush_frame(lane, kind)
        } else {
            Ok(())
        }
    }

    /// Compresses and seals what a lane has gathered, and puts it into the current pack.
    fn flush_frame(&self, lane: &mut SinkLane, kind: ChunkKind) -> Result<()> {
        // From the place in a pack until the pack is sent, checkpoints wait for this thread.
        let _alive = self.uploads.alive();
        let SinkLane { sealer, frames } = lane;
        let filling = &mut frames[kind as usize];
        sealer.compress(&filling.raw)?;
        let place = self.packs[kind as usize].reserve(self.vault.keys(), filling.chunks.len())?;
        self.seal_frame(sealer, filling, kind, &place)
    }

    /// Puts what the lanes have gathered into the current packs, in the order of the lanes: what the readers stored stands before what
    /// the whole tree needs.
    pub(super) fn flush_lanes(&self) -> Result<()> {
        // Until the packs are sent, later checkpoints wait for this thread.
        let _alive = self.uploads.alive();
        let mut gathered = Vec::new();
        for lane in &self.lanes {
            let mut held = locked(lane);
            for kind in [ChunkKind::Content, ChunkKind::Tree] {
                let filling = std::mem::take(&mut held.frames[kind as usize]);
                if !filling.chunks.is_empty() {
                    let place = self.packs[kind as usize].reserve(self.vault.keys(), filling.chunks.len())?;
                    gathered.push((lane, kind, filling, place));
                }
            }
        }
        gathered.into_par_iter().try_for_each(|(lane, kind, mut filling, place)| {
            let sealer = &mut locked(lane).sealer;
            sealer.compress(&filling.raw)?;
            self.seal_frame(sealer, &mut filling, kind, &place)
        })
    }

    /// Seals a frame that the sealer has just compressed, brings it to its place, and sends the pack if that completed it.
    fn seal_frame(
        &self,
        sealer: &mut FrameSealer,
        filling: &mut FrameBuilder,
        kind: ChunkKind,
        place: &FrameReservation,
    ) -> Result<()> {
        let packs = &self.packs[kind as usize];
        // The pack waits for this frame: without it, it can never be sent.
        let sealed = sealer.seal(&place.key, place.number, &filling.raw);
        let sealed = sealed.inspect_err(|error| self.uploads.fail(error.clone()))?;
        let raw = filling.raw.len() as u32;
        let chunks = std::mem::take(&mut filling.chunks);
        filling.raw.clear();
        let full = packs.fill(place, sealed, raw, chunks);
        full.map_or(Ok(()), |leaving| self.send(packs, leaving))
    }

    pub(super) fn send(&self, packs: &OpenPacks, leaving: FullPack) -> Result<()> {
        let sent = leaving.pack.finish().and_then(|(pieces, contents)| {
            self.uploads.send(pieces, contents.pack)?;
            Ok(contents)
        });
        let contents = sent.inspect_err(|error| self.uploads.fail(error.clone()))?;
        packs.has_left(leaving.serial, contents);
        Ok(())
    }

    /// Makes everything stored so far findable: packs are written, then the index object that names them, and the
    /// local index learns of it. What a caller noted before it called is safe to rely on when `findable` is called.
    /// It gets what this writer has relied on, and the index objects that list what is stored now, as the local index learns
    /// of them at the same time.
    pub fn checkpoint(&self, findable: impl FnOnce(IndexBasis, &[IndexId]) + Send) -> Result<()> {
        let _one_at_a_time = locked(&self.checkpointing);
        // What one checkpoint lost no later one may pass over.
        self.make_findable(findable).inspect_err(|error| self.uploads.fail(error.clone()))
    }

    /// Bytes sent to storage so far.
    pub(crate) fn bytes_stored(&self) -> u64 {
        self.uploads.bytes_sent()
    }

    /// `Stale` when something that this writer relied on or stored is gone: it may have been removed, or the
    /// repository replaced by an older copy, while the writer ran. After a lost right to commit the writer is shown again
    /// by then, so nothing more is collected meanwhile.
    pub(crate) fn check_nothing_is_gone(&self) -> Result<()> {
        if !self.has_lost_something() && self.vault.is_index_listed()? {
            return Ok(());
        }
        Err(Error::new(Kind::Stale, "commit the snapshot", "")
            .because("objects that the snapshot needs were deleted from the repository, or turned out to be damaged, during the backup")
            .hint("run the backup again: it stores again only what is missing"))
    }
}
