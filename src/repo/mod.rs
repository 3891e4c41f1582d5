//! The repository: the format and its order of writes. [`Repository`] → [`Writer`] → snapshot; [`Reader`] back.

mod ahead;
mod fetch;
pub mod format;
mod frames;
mod held;
pub mod index;
mod init;
pub mod key;
pub mod list;
pub mod pack;
mod packs;
pub mod pending;
mod reader;
mod run;
pub mod snapshot;
pub mod tree;
mod upload;
mod wire;
mod writer;

use fetch::fetch_all;
pub use init::{InitOptions, NewRepository};
pub use key::Credentials;
use key::LastKey;
pub use reader::{Chunk, Reader};
pub use snapshot::{PathText, Snapshot, SnapshotSource, Stamp, Totals, Trouble};
pub use writer::{Writer, WriterOptions};

use crate::cache::{Segments, View};
use crate::chunk::Chunker;
use crate::disk::whole::make_private_dir;
use crate::error::{Error, Kind, Result};
use crate::id::IndexId;
use crate::place::PackContents;
use crate::repo::format::{CONFIG_NAME, Config, INDEX_PREFIX, OBJECT_BYTES_MAX, SNAPSHOTS_PREFIX};
use crate::repo::snapshot::{SNAPSHOT_BYTES_MAX, SNAPSHOT_PURPOSE};
use crate::seal::{KeySet, open_object, sealed_object_bytes_max};
use crate::storage::{Listed, Storage};
use crate::watch::Watch;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

/// An open repository. Cheap to clone; everything else hangs from it.
#[derive(Clone)]
pub struct Repository(Arc<Inner>);

struct Inner {
    storage: Arc<dyn Storage>,
    keys: KeySet,
    config: Config,
    chunker: Chunker,
    /// This repository's part of the cache.
    cache: PathBuf,
    segments: Mutex<Segments>,
    view: RwLock<View>,
    /// Bytes that a reader may take.
    memory: AtomicU64,
}

/// What a reader may take unless it is told otherwise.
const MEMORY_BYTES: u64 = 256 << 20;

impl Repository {
    /// Opens a repository and brings the local index up to date. `cache` is the folder of all repositories' caches.
    pub fn open(storage: Arc<dyn Storage>, credentials: &Credentials, cache: &Path, watch: &Watch) -> Result<Self> {
        // What needs no key is asked for while the key is being unlocked.
        let listing = {
            let storage = storage.clone();
            std::thread::spawn(move || storage.list(INDEX_PREFIX))
        };
        let unlocking = {
            let (storage, credentials) = (storage.clone(), credentials.clone());
            let last = LastKey::of(storage.as_ref(), cache);
            std::thread::spawn(move || key::unlock(storage.as_ref(), &credentials, &last))
        };
        let config = storage.get(CONFIG_NAME, OBJECT_BYTES_MAX).map_err(|error| match error.kind() {
            Kind::NotFound => Error::new(Kind::NotFound, "open the repository", storage.describe())
                .because("there is none")
                .hint("make it with `silt init`, or check the location"),
            _ => error,
        });
        let keys = join(unlocking);
        let listed = join(listing);
        let (config, _) = config?;
        let repository = Config::peek(&config)?;
        let keys = keys?;
        let (keys, config) = match (Config::decode(&keys, &config), &credentials.recovery) {
            (Ok(decoded), _) => (keys, decoded),
            (Err(_), Some(_)) => {
                return Err(Error::new(Kind::WrongKey, "open the repository", storage.describe())
                    .because("this recovery key belongs to another repository"));
            }
            (Err(error), None) => {
                // The first key that opened may be the leftover of an `init` that died before it wrote the configuration.
                let fits = |keys: &KeySet| Config::decode(keys, &config).is_ok();
                let last = LastKey::of(storage.as_ref(), cache);
                let keys = key::unlock_where(storage.as_ref(), credentials, &last, &fits).map_err(|_| error)?;
                let decoded = Config::decode(&keys, &config)?;
                (keys, decoded)
            }
        };
        let cache = cache.join(repository.to_hex());
        make_private_dir(&cache)?;
        let (segments, notices) = Segments::open(&cache.join("segments"))?;
        notices.into_iter().for_each(|notice| watch.notice(notice));
        let chunker = Chunker::new(config.chunks, keys.gear_secret());
        let view = RwLock::new(segments.view());
        let (segments, memory) = (Mutex::new(segments), AtomicU64::new(MEMORY_BYTES));
        let inner = Inner { storage, keys, config, chunker, cache, segments, view, memory };
        let repo = Repository(Arc::new(inner));
        repo.learn_listed(&listed?, watch)?;
        Ok(repo)
    }

    pub fn storage(&self) -> &dyn Storage {
        self.0.storage.as_ref()
    }

    pub(crate) fn storage_shared(&self) -> Arc<dyn Storage> {
        self.0.storage.clone()
    }

    pub fn keys(&self) -> &KeySet {
        &self.0.keys
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub fn chunker(&self) -> &Chunker {
        &self.0.chunker
    }

    /// This repository's folder in the cache.
    pub fn cache(&self) -> &Path {
        &self.0.cache
    }

    /// Whether storage is not on this machine, so that each request costs a wait.
    pub fn is_far(&self) -> bool {
        !self.storage().abilities().local
    }

    /// The memory that all buffers of a reader together may take, in bytes; counts for readers made from now on.
    pub fn limit_memory(&self, bytes: u64) {
        self.0.memory.store(bytes, Ordering::Relaxed);
    }

    fn memory(&self) -> u64 {
        self.0.memory.load(Ordering::Relaxed)
    }

    /// The local index as it is now.
    pub fn view(&self) -> View {
        self.0.view.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Begins a backup: shows it to others before it relies on anything.
    pub fn writer(&self, options: &WriterOptions, watch: &Watch) -> Result<Writer> {
        Writer::start(self, options, watch)
    }

    pub fn reader(&self) -> Reader {
        Reader::new(self)
    }

    fn segments(&self) -> std::sync::MutexGuard<'_, Segments> {
        self.0.segments.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    fn set_view(&self, view: View) {
        *self.0.view.write().unwrap_or_else(|poisoned| poisoned.into_inner()) = view;
    }

    /// Adds what index objects say to the local index.
    fn learn(&self, indexes: &[(IndexId, Vec<PackContents>)]) -> Result<View> {
        let mut segments = self.segments();
        segments.add(indexes)?;
        let view = segments.view();
        self.set_view(view.clone());
        Ok(view)
    }

    /// Fetches the index objects that the local index lacks and drops it when one that it covers is gone.
    fn learn_listed(&self, listed: &[Listed], watch: &Watch) -> Result<()> {
        let id_of = |listed: &Listed| IndexId::from_hex(&listed.name[INDEX_PREFIX.len()..]).ok();
        let live: HashSet<IndexId> = listed.iter().filter_map(id_of).collect();
        let mut segments = self.segments();
        if !segments.covered().is_subset(&live) {
            watch.notice("the local index was dropped and is made anew: index objects that it covered are gone");
            segments.clear()?;
        }
        let missing: Vec<IndexId> = live.difference(segments.covered()).copied().collect();
        if missing.is_empty() {
            self.set_view(segments.view());
            return Ok(());
        }
        watch.stage("reading the index");
        let names: Vec<String> = missing.iter().map(format::index_name).collect();
        let fetched = fetch_all(self.storage(), &names, sealed_object_bytes_max(index::INDEX_BYTES_MAX));
        let decoded = missing.iter().zip(fetched).map(|(id, bytes)| {
            let bytes = bytes?;
            let damaged = |error: Error| Error::corrupt("read the index object", id, error);
            if blake3::hash(&bytes).as_bytes() != id.as_bytes() {
                return Err(damaged(Error::corrupt("trust", "it", "its bytes are not what its name says")));
            }
            let plain = open_object(self.keys(), "index", &bytes, index::INDEX_BYTES_MAX).map_err(damaged)?;
            Ok((*id, index::decode_index(&plain).map_err(damaged)?))
        });
        segments.add_all(decoded)?;
        self.set_view(segments.view());
        Ok(())
    }

    /// Drops the local index and reads it anew, for when it turned out to be damaged.
    pub fn rebuild_index(&self, watch: &Watch) -> Result<()> {
        self.segments().clear()?;
        self.learn_listed(&self.storage().list(INDEX_PREFIX)?, watch)
    }

    /// After somebody took this writer for dead: whatever it relied on must still be there.
    fn revalidate(&self) -> Result<()> {
        let listed = self.storage().list(INDEX_PREFIX)?;
        let live: HashSet<String> = listed.into_iter().map(|listed| listed.name).collect();
        match self.segments().covered().iter().all(|id| live.contains(&format::index_name(id))) {
            true => Ok(()),
            false => Err(Error::new(Kind::Locked, "commit the snapshot", "")
                .because("chunks that it refers to were removed while this backup was taken for dead")
                .hint("run the backup again: it stores again only what is missing")),
        }
    }

    /// Names of all snapshot objects, oldest first.
    pub fn snapshot_names(&self) -> Result<Vec<String>> {
        Ok(self.storage().list(SNAPSHOTS_PREFIX)?.into_iter().map(|listed| listed.name).collect())
    }

    /// Every snapshot, oldest first, those included whose writer died right after its commit.
    pub fn snapshots(&self, watch: &Watch) -> Result<Vec<Snapshot>> {
        self.snapshots_of(self.survey(watch)?, watch)
    }

    /// The same for who writes: commits whose writer died are moved to their place on the way.
    pub fn snapshots_settled(&self, watch: &Watch) -> Result<Vec<Snapshot>> {
        let survey = self.survey(watch)?;
        pending::settle(self.storage(), &survey).iter().for_each(|error| watch.notice(error.to_string()));
        self.snapshots_of(survey, watch)
    }

    /// Moves commits whose writer died to their place under `snapshots/`.
    pub fn settle(&self, watch: &Watch) -> Result<()> {
        let survey = self.survey(watch)?;
        pending::settle(self.storage(), &survey).iter().for_each(|error| watch.notice(error.to_string()));
        Ok(())
    }

    fn survey(&self, watch: &Watch) -> Result<pending::Survey> {
        let survey = pending::survey(self.storage(), self.keys(), self.config().sharing)?;
        survey.damaged.iter().for_each(|error| watch.notice(error.to_string()));
        Ok(survey)
    }

    fn snapshots_of(&self, survey: pending::Survey, watch: &Watch) -> Result<Vec<Snapshot>> {
        let mut bodies: HashMap<String, Vec<u8>> =
            survey.unpublished.into_iter().map(|unpublished| (unpublished.snapshot, unpublished.body)).collect();
        let names = self.snapshot_names()?;
        for (name, body) in names.iter().zip(fetch_all(self.storage(), &names, OBJECT_BYTES_MAX)) {
            match body {
                Ok(body) => drop(bodies.insert(name.clone(), body)),
                // Removed by somebody between the listing and now.
                Err(error) if error.is(Kind::NotFound) => {}
                Err(error) => return Err(error),
            }
        }
        let mut snapshots = Vec::with_capacity(bodies.len());
        for (name, body) in bodies {
            match self.open_snapshot(&name, &body) {
                Ok(snapshot) => snapshots.push(snapshot),
                // One damaged snapshot must not hide the others; that it is damaged is told.
                Err(error) if error.is(Kind::Corrupt) => watch.trouble(name.as_bytes(), error.to_string()),
                Err(error) => return Err(error),
            }
        }
        snapshots.sort_by_key(|snapshot| (snapshot.started.time(), snapshot.id));
        Ok(snapshots)
    }

    fn open_snapshot(&self, name: &str, body: &[u8]) -> Result<Snapshot> {
        let plain = open_object(self.keys(), SNAPSHOT_PURPOSE, body, SNAPSHOT_BYTES_MAX)?;
        let snapshot = Snapshot::decode(&plain)?;
        let stated = format::snapshot_name(&snapshot.started.compact()?, &snapshot.id);
        match stated == name {
            true => Ok(snapshot),
            false => Err(Error::corrupt("read the snapshot", name, "it stands under the name of another")),
        }
    }
}

fn join<T>(thread: std::thread::JoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::new(Kind::Failed, "open the repository", "").because("a thread panicked")))
}
