//! One running backup's way into the repository: claims chunks, fills frames and packs, writes packs, then the index,
//! then the snapshot, in that order and no other.

use crate::cache::{Claim, Claims};
use crate::error::{Error, Kind, Result};
use crate::id::{ChunkId, IndexId, WriterId};
use crate::place::PackContents;
use crate::repo::Repository;
use crate::repo::format::{CHUNK_BYTES_MAX, FRAME_RAW_BYTES, INDEX_PREFIX, PACK_BYTES, index_name, snapshot_name};
use crate::repo::index::{INDEX_CHUNKS_MAX, encode_index};
use crate::repo::packs::{Leaving, Packs};
use crate::repo::pending::Token;
use crate::repo::snapshot::{SNAPSHOT_PURPOSE, Snapshot};
use crate::repo::upload::Uploads;
use crate::seal::{Audience, Compression, FrameSealer, random, seal_object};
use crate::watch::Watch;
use rayon::prelude::*;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

/// How often a writer shows that it is alive.
const RENEW: Duration = Duration::from_secs(60);
/// Raw bytes of a frame of tree pages: smaller than of content, as trees are read a page here and there.
const TREE_FRAME_RAW_BYTES: usize = 512 << 10;
/// With little memory packs are closed sooner, but not below so many bytes.
const PACK_BYTES_MIN: u64 = 4 << 20;
/// How often a commit is tried again after its right was taken away.
const COMMIT_TRIES: usize = 3;

#[derive(Clone, Debug)]
pub struct WriterOptions {
    /// Threads that store chunks at the same time; each has a lane of its own.
    pub lanes: usize,
    pub compression: Compression,
    pub host: String,
    /// Bytes that packs on their way may take.
    pub memory_bytes: u64,
}

/// A running backup. Dropped without a commit, what it stored stays as chunks that the next run finds.
pub struct Writer {
    repo: Repository,
    claims: Claims,
    lanes: Vec<Mutex<Lane>>,
    /// Of content and of trees.
    packs: [Packs; 2],
    uploads: Uploads,
    heart: Heart,
    checkpointing: Mutex<()>,
    host: String,
    /// Raw bytes of chunks that were new.
    pub bytes_new: AtomicU64,
    pub chunks_new: AtomicU64,
}

/// What one worker has in hand: its frames that are being filled, content and tree.
struct Lane {
    sealer: FrameSealer,
    frames: [Filling; 2],
}

#[derive(Default)]
struct Filling {
    raw: Vec<u8>,
    chunks: Vec<(ChunkId, u32)>,
}

/// An index object's name and the packs that it names.
type Index = (IndexId, Vec<PackContents>);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // A panic of another thread fails the run anyway; its half-done data never reaches a snapshot.
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

impl Writer {
    pub(super) fn start(repo: &Repository, options: &WriterOptions, watch: &Watch) -> Result<Self> {
        let heart = Heart::start(repo, &options.host)?;
        // Only now: what a collector removes from here on, it removes knowing of this writer.
        repo.learn_listed(&repo.storage().list(INDEX_PREFIX)?, watch)?;
        let lanes = (0..options.lanes.max(1))
            .map(|_| {
                let sealer = FrameSealer::new(options.compression)?;
                Ok(Mutex::new(Lane { sealer, frames: Default::default() }))
            })
            .collect::<Result<_>>()?;
        let pack_bytes = (options.memory_bytes / 8).clamp(PACK_BYTES_MIN, PACK_BYTES);
        let concurrency = match repo.storage().abilities().local {
            true => 1,
            false => ((options.memory_bytes / pack_bytes).saturating_sub(3) as usize).clamp(1, 5),
        };
        Ok(Writer {
            claims: Claims::new(repo.view()),
            lanes,
            packs: [Packs::new(false, pack_bytes), Packs::new(true, pack_bytes)],
            uploads: Uploads::start(repo.storage_shared(), concurrency, watch.progress.clone()),
            heart,
            checkpointing: Mutex::new(()),
            host: options.host.clone(),
            bytes_new: AtomicU64::new(0),
            chunks_new: AtomicU64::new(0),
            repo: repo.clone(),
        })
    }

    /// Whether storage takes packs more slowly than they come.
    pub fn is_held_up(&self) -> bool {
        self.uploads.is_full()
    }

    /// Names a chunk of content and stores it if nobody has.
    pub fn store_content(&self, lane: usize, bytes: &[u8]) -> Result<ChunkId> {
        let id = self.repo.keys().content_id(bytes);
        self.store(lane, id, bytes, false)
    }

    /// Names neighbouring chunks of content, which end in `bytes` where `ends` says, and stores those that nobody has.
    pub fn store_contents(&self, lane: usize, bytes: &[u8], ends: &[usize]) -> Result<Vec<ChunkId>> {
        let starts = std::iter::once(0).chain(ends.iter().copied());
        let chunks = || starts.clone().zip(ends).map(|(start, end)| &bytes[start..*end]);
        let ids: Vec<ChunkId> = chunks().map(|chunk| self.repo.keys().content_id(chunk)).collect();
        let mut lane = locked(&self.lanes[lane]);
        let claims = self.claims.claim_each(&ids)?;
        for ((id, chunk), claim) in ids.iter().zip(chunks()).zip(claims) {
            if claim == Claim::Mine {
                self.put(&mut lane, *id, chunk, false)?;
            }
        }
        Ok(ids)
    }

    /// Names a chunk of a tree (a page or a list) and stores it if nobody has.
    pub fn store_tree(&self, lane: usize, bytes: &[u8]) -> Result<ChunkId> {
        let id = self.repo.keys().tree_id(bytes);
        self.store(lane, id, bytes, true)
    }

    fn store(&self, lane: usize, id: ChunkId, bytes: &[u8], tree: bool) -> Result<ChunkId> {
        // The lane is held from the claim until the chunk is in its frame, so that a checkpoint that has passed all
        // lanes has every chunk claimed before it.
        let mut lane = locked(&self.lanes[lane]);
        if self.claims.claim(&id)? == Claim::Mine {
            self.put(&mut lane, id, bytes, tree)?;
        }
        Ok(id)
    }

    /// Puts a claimed chunk into the frame of a lane.
    fn put(&self, lane: &mut Lane, id: ChunkId, bytes: &[u8], tree: bool) -> Result<()> {
        if bytes.len() as u64 > CHUNK_BYTES_MAX {
            return Err(Error::new(Kind::Failed, "store a chunk", "").because("it is longer than the format allows"));
        }
        self.uploads.check()?;
        self.bytes_new.fetch_add(bytes.len() as u64, Ordering::Relaxed);
        self.chunks_new.fetch_add(1, Ordering::Relaxed);
        let limit = if tree { TREE_FRAME_RAW_BYTES } else { FRAME_RAW_BYTES };
        let filling = &mut lane.frames[usize::from(tree)];
        filling.raw.extend_from_slice(bytes);
        filling.chunks.push((id, bytes.len() as u32));
        match filling.raw.len() >= limit {
            true => self.flush_frame(lane, tree),
            false => Ok(()),
        }
    }

    /// Compresses and seals what a lane has gathered, and puts it into the current pack.
    fn flush_frame(&self, lane: &mut Lane, tree: bool) -> Result<()> {
        let filling = &mut lane.frames[usize::from(tree)];
        if filling.chunks.is_empty() {
            return Ok(());
        }
        // From the place in a pack until the pack is sent, checkpoints wait for this thread.
        let _alive = self.uploads.alive();
        let packs = &self.packs[usize::from(tree)];
        lane.sealer.compress(&filling.raw)?;
        let place = packs.reserve(self.repo.keys())?;
        // The pack waits for this frame: without it, it can never be sent.
        let sealed = lane.sealer.seal(&place.key, place.number, &filling.raw);
        let sealed = sealed.inspect_err(|error| self.uploads.fail(error.copy()))?;
        let raw = filling.raw.len() as u32;
        let chunks = std::mem::take(&mut filling.chunks);
        filling.raw.clear();
        let full = packs.fill(&place, sealed, raw, chunks);
        full.map_or(Ok(()), |leaving| self.send(packs, leaving))
    }

    fn send(&self, packs: &Packs, leaving: Leaving) -> Result<()> {
        let sent = leaving.pack.finish().and_then(|(pieces, contents)| {
            self.uploads.send(pieces, contents.pack)?;
            Ok(contents)
        });
        let contents = sent.inspect_err(|error| self.uploads.fail(error.copy()))?;
        packs.has_left(leaving.serial, contents);
        Ok(())
    }

    /// Makes everything stored so far findable: packs are written, then the index object that names them, and the
    /// local index learns of it. What a caller noted before it called is safe to rely on when `findable` is called.
    pub fn checkpoint(&self, findable: impl FnOnce() + Send) -> Result<()> {
        let _one_at_a_time = locked(&self.checkpointing);
        // What one checkpoint lost no later one may pass over.
        self.make_findable(findable).inspect_err(|error| self.uploads.fail(error.copy()))
    }

    fn make_findable(&self, findable: impl FnOnce() + Send) -> Result<()> {
        self.uploads.check()?;
        self.lanes.par_iter().try_for_each(|lane| {
            let mut lane = locked(lane);
            self.flush_frame(&mut lane, false)?;
            self.flush_frame(&mut lane, true)
        })?;
        let mut contents = Vec::new();
        for packs in &self.packs {
            packs.close().map_or(Ok(()), |leaving| self.send(packs, leaving))?;
            packs.wait_for_closed(|| self.uploads.check())?;
            contents.append(&mut packs.take_sent());
        }
        // Sealed while the last packs are on their way, and written only behind them.
        let indexes = self.seal_index(contents)?;
        self.uploads.settle()?;
        let mut named = Vec::with_capacity(indexes.len());
        for (sealed, index) in indexes {
            self.uploads.count(sealed.len() as u64);
            self.repo.storage().put(&index_name(&index.0), sealed.into())?;
            named.push(index);
        }
        let (learned, ()) = rayon::join(|| self.learn(&named), findable);
        learned
    }

    /// Index objects that name all this: the bytes of each, and what it names.
    fn seal_index(&self, contents: Vec<PackContents>) -> Result<Vec<(Vec<u8>, Index)>> {
        let mut sealed = Vec::new();
        let mut group: Vec<PackContents> = Vec::new();
        let mut chunks = 0;
        let mut rest = contents.into_iter().peekable();
        while let Some(pack) = rest.next() {
            chunks += pack.frames.iter().map(|frame| frame.chunks.len()).sum::<usize>();
            group.push(pack);
            if chunks >= INDEX_CHUNKS_MAX || rest.peek().is_none() {
                let bytes = seal_object(self.repo.keys(), Audience::Writers, "index", &encode_index(&group))?;
                let id = IndexId(*blake3::hash(&bytes).as_bytes());
                sealed.push((bytes, (id, std::mem::take(&mut group))));
                chunks = 0;
            }
        }
        Ok(sealed)
    }

    /// Takes into the local index what is findable for everybody.
    fn learn(&self, indexes: &[Index]) -> Result<()> {
        if indexes.is_empty() {
            return Ok(());
        }
        let view = self.repo.learn(indexes)?;
        self.claims.refresh(&view);
        let frames = indexes.iter().flat_map(|(_, packs)| packs).flat_map(|pack| &pack.frames);
        self.claims.settled(frames.flat_map(|frame| frame.chunks.iter().map(|(id, _)| id)));
        Ok(())
    }

    /// Bytes sent to storage so far.
    pub fn bytes_stored(&self) -> u64 {
        self.uploads.bytes_sent()
    }

    /// The commit: after it the snapshot exists, for everybody and for good. Gives the name of its object, and what
    /// went wrong in moving it to its place, which whoever lists snapshots does again.
    pub fn commit(self, snapshot: &Snapshot) -> Result<(String, Option<Error>)> {
        if let Err(error) = self.checkpoint(|| ()) {
            // Nothing is left to save; the error that ended the run is what the caller must see.
            let _best_effort = self.withdraw();
            return Err(error);
        }
        let name = snapshot_name(&snapshot.started.compact()?, &snapshot.id);
        let body = seal_object(self.repo.keys(), Audience::Readers, SNAPSHOT_PURPOSE, &snapshot.encode())?;
        let (storage, keys) = (self.repo.storage(), self.repo.keys());
        let mut token = self.heart.stop();
        for _ in 1..COMMIT_TRIES {
            match token.commit(storage, keys, &name, body.clone()) {
                Err(error) if error.is(Kind::Locked) => {
                    // Somebody took this writer for dead. What it relied on may have been collected since.
                    // Shown first, so that nothing more is collected while we look.
                    token = new_token(&self.repo, &self.host)?;
                    self.repo.revalidate()?;
                }
                done => return done.map(|unpublished| (name, unpublished)),
            }
        }
        token.commit(storage, keys, &name, body).map(|unpublished| (name, unpublished))
    }

    /// Ends without a snapshot; what was stored is made findable for the next run.
    pub fn abandon(self) -> Result<()> {
        let saved = self.checkpoint(|| ());
        self.withdraw()?;
        saved
    }

    /// Ends without a snapshot and without another byte written, where there is no room for any.
    pub fn withdraw(self) -> Result<()> {
        self.heart.stop().withdraw(self.repo.storage())
    }
}

fn new_token(repo: &Repository, host: &str) -> Result<Token> {
    let started = jiff::Timestamp::now().to_string();
    Token::create(repo.storage(), repo.keys(), repo.config().sharing, WriterId(random()?), host, &started)
}

/// Keeps the pending object fresh until it is stopped.
struct Heart {
    token: Arc<Mutex<Option<Token>>>,
    stop: Option<crossbeam_channel::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Heart {
    fn start(repo: &Repository, host: &str) -> Result<Self> {
        let token = Arc::new(Mutex::new(Some(new_token(repo, host)?)));
        let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
        let (beating, repo) = (token.clone(), repo.clone());
        let beat = move || {
            while let Err(crossbeam_channel::RecvTimeoutError::Timeout) = stopped.recv_timeout(RENEW) {
                let mut token = locked(&beating);
                let Some(token) = token.as_mut() else { return };
                // A lost right shows at the commit, which then re-validates; other trouble may pass until the next beat.
                if token.renew(repo.storage(), repo.keys()).is_err_and(|error| error.is(Kind::Locked)) {
                    return;
                }
            }
        };
        let thread = std::thread::Builder::new()
            .name("heart".to_owned())
            .spawn(beat)
            .map_err(|error| Error::io("start a thread", "", error))?;
        Ok(Heart { token, stop: Some(stop), thread: Some(thread) })
    }

    fn stop(&self) -> Token {
        locked(&self.token).take().expect("a heart is stopped once")
    }
}

impl Drop for Heart {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ended = thread.join();
        }
    }
}
