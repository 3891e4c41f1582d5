//! The repository: the format and its order of writes. [`Repository`] → [`Writer`] → snapshot; [`Reader`] back.

mod ahead;
mod copies;
mod damaged_packs;
mod fetch;
mod frame_files;
mod frames;
mod heart;
mod held;
mod index_fetch;
mod init;
pub mod key;
mod known;
mod local_index;
mod losses;
mod opened;
mod own;
mod packs;
pub mod pending;
mod reader;
mod run;
mod snapshot_list;
mod told;
mod unlock;
mod upload;
mod writer;

pub use crate::format::snapshot::{PathText, Snapshot, SnapshotSource, Stamp, Totals, Trouble};
use damaged_packs::{DamagedPacks, PackVersion};
pub use init::{InitOptions, NewRepository};
pub use key::Credentials;
use key::LastKey;
pub use known::Known;
pub use local_index::IndexCheck;
use local_index::{Listing, LocalIndex};
use losses::Losses;
pub(crate) use losses::Marks;
use opened::Opened;
pub(crate) use own::{Own, OwnFolders};
pub use reader::{Chunk, Reader};
use snapshot_list::SnapshotList;
pub(crate) use told::{Told, basis_of};
pub use writer::{Writer, WriterOptions};

use crate::chunk::Chunker;
use crate::disk::own_files;
use crate::disk::whole::make_private_dir;
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::{SEALED_SNAPSHOT_BYTES_MAX, SNAPSHOT_BYTES_MAX, SNAPSHOT_PURPOSE};
use crate::format::{CONFIG_NAME, Config, INDEX_PREFIX, OBJECT_BYTES_MAX, SNAPSHOTS_PREFIX, snapshot_name};
use crate::id::{ChunkId, IndexId, PackId, RepositoryId};
use crate::index::{Basis, View};
use crate::place::{IndexContents, Located};
use crate::seal::{KeySet, Power, open_object};
use crate::storage::Storage;
use crate::watch::Watch;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// What is in the folder of all caches beside the caches themselves.
pub(crate) const CACHE_NOTES: [&str; 2] = [known::FOLDER, unlock::LAST_KEYS];

/// An open repository. Cheap to clone; everything else hangs from it.
#[derive(Clone)]
pub struct Repository(Arc<Inner>);

struct Inner {
    opened: Opened,
    config: Config,
    chunker: Chunker,
    /// This repository's part of the cache; none where there is no cache or it cannot be used.
    cache: Option<PathBuf>,
    index: LocalIndex,
    /// How often it was rebuilt, as it was damaged. Held while that is done.
    index_rebuilds: Mutex<u32>,
    damaged_packs: DamagedPacks,
    losses: Arc<Losses>,
    /// Bytes that a reader may take.
    memory: AtomicU64,
    /// For what is noticed in the middle of other work.
    notices: Watch,
}

/// More often a local index is not rebuilt in one process.
const INDEX_REBUILDS_MAX: u32 = 3;

/// What a reader may take unless it is told otherwise.
const MEMORY_BYTES: u64 = 256 << 20;

impl Repository {
    /// Opens a repository and brings the local index up to date. `cache` is the folder of all repositories' caches; where
    /// it cannot be used, a notice says so and the repository is used without one.
    pub fn open(storage: Arc<dyn Storage>, credentials: &Credentials, cache: &Path, watch: &Watch) -> Result<Self> {
        Repository::open_with(storage, credentials, Some(cache), watch)
    }

    /// Opens a repository without a cache: the index is fetched whole and kept in memory (about 45 bytes a chunk), and
    /// nothing is known of earlier backups.
    pub fn open_uncached(storage: Arc<dyn Storage>, credentials: &Credentials, watch: &Watch) -> Result<Self> {
        Repository::open_with(storage, credentials, None, watch)
    }

    fn open_with(
        storage: Arc<dyn Storage>,
        credentials: &Credentials,
        cache: Option<&Path>,
        watch: &Watch,
    ) -> Result<Self> {
        // What needs no key is asked for while the key is being unlocked.
        let listing = {
            let storage = storage.clone();
            beside(move || storage.list(INDEX_PREFIX))?
        };
        let unlocking = {
            let (storage, credentials) = (storage.clone(), credentials.clone());
            let last = LastKey::of(storage.as_ref(), cache);
            beside(move || key::unlock(storage.as_ref(), &credentials, &last))?
        };
        let config = storage.get(CONFIG_NAME, OBJECT_BYTES_MAX).map_err(|error| match error.kind() {
            Kind::NotFound => Error::new(Kind::NotFound, "open the repository", storage.describe())
                .because("there is no repository at this location")
                .hint("check the location, or create a repository with `silt init`"),
            _ => error,
        });
        let keys = join(unlocking);
        let listed = join(listing);
        let (stored_config, _) = config?;
        let repository = Config::peek(&stored_config)?;
        let keys = keys?;
        let (keys, config) = match (Config::decode(&keys, &stored_config), &credentials.recovery) {
            (Ok(decoded), _) => (keys, decoded),
            (Err(_), Some(_)) => {
                return Err(Error::new(Kind::WrongKey, "open the repository", storage.describe())
                    .because("this recovery key belongs to another repository"));
            }
            (Err(error), None) => {
                // The first key that opened may be the leftover of an `init` that died before it wrote the configuration.
                let fits = |keys: &KeySet| Config::decode(keys, &stored_config).is_ok();
                let last = LastKey::of(storage.as_ref(), cache);
                let keys = key::unlock_where(storage.as_ref(), credentials, &last, &fits).map_err(|_| error)?;
                let decoded = Config::decode(&keys, &stored_config)?;
                (keys, decoded)
            }
        };
        let cache = cache.and_then(|cache| open_cache(cache, &repository, storage.as_ref(), watch));
        let losses = Arc::new(Losses::at(cache.as_deref()));
        let index = {
            let segments = cache.as_ref().map(|cache| cache.join("segments"));
            let told = told_path(cache.as_deref(), &keys).map(|path| Told::read(&path)).unwrap_or_default();
            LocalIndex::open(segments.as_deref(), losses.clone(), told.damaged_indexes, watch)
        };
        let damaged_packs = DamagedPacks::open(cache.as_deref(), watch);
        let chunker = Chunker::new(config.chunks, keys.gear_secret());
        let memory = AtomicU64::new(MEMORY_BYTES);
        let repo = Repository(Arc::new(Inner {
            opened: Opened::new(storage, keys, &stored_config),
            config,
            chunker,
            index,
            index_rebuilds: Mutex::new(0),
            losses,
            damaged_packs,
            cache,
            memory,
            notices: watch.notices_only(),
        }));
        let mut first = Some(listed?);
        let list = || match first.take() {
            Some(listed) => Ok(Listing::of_index(listed)),
            None => repo.storage().list(INDEX_PREFIX).map(Listing::of_index),
        };
        repo.0.index.compare(&repo.0.opened, list, watch)?;
        Ok(repo)
    }

    pub fn storage(&self) -> &dyn Storage {
        self.0.opened.storage()
    }

    pub(crate) fn storage_shared(&self) -> Arc<dyn Storage> {
        self.0.opened.storage_shared()
    }

    pub fn keys(&self) -> &KeySet {
        self.0.opened.keys()
    }

    pub fn config(&self) -> &Config {
        &self.0.config
    }

    pub fn chunker(&self) -> &Chunker {
        &self.0.chunker
    }

    /// This repository's folder in the cache; none without a cache.
    pub fn cache(&self) -> Option<&Path> {
        self.0.cache.as_deref()
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
        self.0.index.view()
    }

    /// Begins a backup: shows it to others before it relies on anything.
    pub fn writer(&self, options: &WriterOptions, watch: &Watch) -> Result<Writer> {
        Writer::start(self, options, watch)
    }

    pub fn reader(&self) -> Reader {
        Reader::new(self)
    }

    /// Adds to the local index what index objects say that this process wrote.
    fn learn(&self, indexes: &[IndexContents], watch: &Watch) -> Result<()> {
        let rebuilds = self.index_rebuilds();
        match self.0.index.learn(indexes, watch) {
            Err(error) if error.is(Kind::Corrupt) => self.rebuild_index(&error, rebuilds, watch),
            learned => learned,
        }
    }

    /// Brings the local index into step with what the repository lists now: its index objects and the packs that they name.
    pub fn compare_index(&self, watch: &Watch) -> Result<IndexCheck> {
        let check = self.0.index.compare(&self.0.opened, || self.list_all(), watch)?;
        self.0.damaged_packs.note_of_wrong_size(&check.packs_of_wrong_size, self.storage());
        Ok(check)
    }

    fn list_all(&self) -> Result<Listing> {
        let mut listing = Listing::whole(self.storage(), self.0.index.packs_known())?;
        self.take_out_damaged_packs(&mut listing)?;
        Ok(listing)
    }

    fn take_out_damaged_packs(&self, listing: &mut Listing) -> Result<()> {
        match listing.packs_mut() {
            Some(packs) => self.0.damaged_packs.take_out(packs, self.storage()),
            None => Ok(()),
        }
    }

    fn pack_version(&self, pack: &PackId) -> PackVersion {
        PackVersion::of(pack, self.storage())
    }

    /// A pack could not be read at this version: from now on it counts as missing, so that what it holds is stored again.
    fn note_damaged_pack(&self, pack: &PackId, version: PackVersion) {
        self.0.damaged_packs.note(pack, version);
    }

    /// Whether this process has noted the pack as damaged.
    fn is_noted_as_damaged(&self, pack: &PackId) -> bool {
        self.0.damaged_packs.is_noted(pack)
    }

    /// How many damaged packs this process has found.
    pub(crate) fn damaged_packs_found(&self) -> u64 {
        self.0.damaged_packs.found()
    }

    /// Marks that the repository has lost something, among it these index objects, which a backup is to tell.
    pub(crate) fn mark_loss(&self, indexes: &HashSet<IndexId>) {
        self.0.losses.mark(indexes);
    }

    /// Losses that no backup has told yet; those that are met from now on are not among them.
    pub(crate) fn untold_losses(&self) -> Marks {
        let mut marks = self.0.losses.all();
        if !marks.is_empty() {
            marks.leave_out(&self.told().unwrap_or_default().marks);
        }
        marks
    }

    /// Removes the marks of what is there again.
    pub(crate) fn forget_losses(&self, marks: &Marks) {
        self.0.losses.remove(marks);
    }

    /// Losses that this process has met and marked.
    pub(crate) fn losses_marked_here(&self) -> Marks {
        self.0.losses.marked_here()
    }

    /// Whether losses, and that they are told, can be noted for later runs.
    pub(crate) fn remembers_losses(&self) -> bool {
        self.0.losses.can_mark()
    }

    /// What backups have told of damage; none without a cache.
    pub(crate) fn told(&self) -> Option<Told> {
        Some(Told::read(&told_path(self.cache(), self.keys())?))
    }

    /// Notes what stays told of damage that is partly gone. What is not noted, the next run tries to note again.
    pub(crate) fn rewrite_told(&self, told: &Told) {
        let _best_effort = told_path(self.cache(), self.keys()).map(|path| told.write(&path));
    }

    /// Notes what is told by now, and removes the marks of these losses. A put-only key cannot find out what a loss means, so
    /// it leaves them to the others that use this cache.
    pub(crate) fn note_told(&self, told: &Told, marks: &Marks) {
        let Some(path) = told_path(self.cache(), self.keys()) else { return };
        let is_put_only = self.keys().power() == Power::Put;
        let noted = if is_put_only {
            Told { marks: marks.names().cloned().collect(), ..told.clone() }.write(&path)
        } else {
            told.write(&path)
        };
        if noted.is_ok() && !is_put_only { self.0.losses.remove(marks) } else { self.0.losses.forget_here(marks) }
    }

    /// Passes on notices, and nothing else: for what is noticed in the middle of other work.
    fn notices(&self) -> &Watch {
        &self.0.notices
    }

    /// How often the local index was rebuilt.
    fn index_rebuilds(&self) -> u32 {
        *self.0.index_rebuilds.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Drops the local index and reads it anew, as a lookup said that it is damaged; `rebuilds` were made before that
    /// lookup. Of several threads that met the same damage one does it.
    fn rebuild_index(&self, damage: &Error, rebuilds: u32, watch: &Watch) -> Result<()> {
        let mut done = self.0.index_rebuilds.lock().unwrap_or_else(PoisonError::into_inner);
        if *done > rebuilds {
            return Ok(());
        }
        if *done >= INDEX_REBUILDS_MAX {
            return Err(damage.copy());
        }
        watch.notice(format!("{damage}: the local index is rebuilt"));
        // Where it is damaged again, its directory is not to be trusted.
        let in_memory = *done > 0;
        *done += 1;
        self.0.index.rebuild(&self.0.opened, || self.list_all(), in_memory, watch)?;
        Ok(())
    }

    /// Asks the local index; one that turns out to be damaged is rebuilt, and asked again.
    fn with_sound_index<T>(&self, watch: &Watch, ask: impl Fn(&View) -> Result<T>) -> Result<T> {
        loop {
            let rebuilds = self.index_rebuilds();
            match ask(&self.view()) {
                Err(error) if error.is(Kind::Corrupt) => self.rebuild_index(&error, rebuilds, watch)?,
                asked => return asked,
            }
        }
    }

    /// Whether a chunk is stored.
    pub fn contains(&self, id: &ChunkId, watch: &Watch) -> Result<bool> {
        self.with_sound_index(watch, |view| view.contains(id))
    }

    /// All places of the chunks of these packs, of chunks that have several.
    fn copies_of(&self, packs: &HashSet<PackId>) -> Result<HashMap<ChunkId, Vec<Located>>> {
        self.0.index.copies_of(packs, &self.0.opened)
    }

    /// Packs that count as missing, by the last comparison.
    fn left_out(&self) -> HashSet<PackId> {
        self.0.index.left_out()
    }

    /// Whether a pack counts as missing, by the last comparison.
    fn is_left_out(&self, pack: &PackId) -> bool {
        self.0.index.is_left_out(pack)
    }

    /// Where chunks are in these packs, which may be missing or cut.
    fn index_of_packs(&self, packs: &HashSet<PackId>) -> Result<View> {
        self.0.index.of_packs(packs, &self.0.opened)
    }

    /// The local index as it is now, and what it rests on.
    pub(crate) fn view_and_basis(&self) -> (View, Basis) {
        self.0.index.view_and_basis()
    }

    /// Grows whenever something that this process took for stored turned out to be gone.
    pub(crate) fn index_losses(&self) -> u64 {
        self.0.index.losses()
    }

    /// Refuses to continue where the repository is not the one that was opened.
    pub(crate) fn check_is_there(&self) -> Result<()> {
        self.0.opened.check_is_there()
    }

    /// Whether everything that the local index rests on is still listed in the repository.
    fn is_index_listed(&self) -> Result<bool> {
        let is_there = || self.check_is_there();
        let mut listing = Listing::whole_at_once(self.storage(), self.0.index.packs_known(), is_there)?;
        self.take_out_damaged_packs(&mut listing)?;
        Ok(self.0.index.is_listed(&listing))
    }

    /// Names of all snapshot objects, oldest first.
    pub fn snapshot_names(&self) -> Result<Vec<String>> {
        Ok(self.list_snapshots()?.0.into_iter().map(|listed| listed.name).collect())
    }

    /// Every snapshot, oldest first, those included whose writer died right after its commit.
    pub fn snapshots(&self, watch: &Watch) -> Result<Vec<Snapshot>> {
        Ok(self.snapshots_and_unreadable(watch)?.0)
    }

    /// The same, with the names of those that cannot be read.
    pub(crate) fn snapshots_and_unreadable(&self, watch: &Watch) -> Result<(Vec<Snapshot>, Vec<String>)> {
        self.snapshots_of(self.survey(watch)?, watch)
    }

    /// The same for commands that write: commits whose writer died are moved to their place on the way.
    pub fn snapshots_settled(&self, watch: &Watch) -> Result<Vec<Snapshot>> {
        Ok(self.snapshots_settled_and_unreadable(watch)?.0)
    }

    pub(crate) fn snapshots_settled_and_unreadable(&self, watch: &Watch) -> Result<(Vec<Snapshot>, Vec<String>)> {
        let survey = self.survey(watch)?;
        pending::settle(self.storage(), self.keys(), &survey).iter().for_each(|error| watch.notice(error.to_string()));
        self.snapshots_of(survey, watch)
    }

    /// Moves commits whose writer died to their place under `snapshots/`.
    pub fn settle(&self, watch: &Watch) -> Result<()> {
        let survey = self.survey(watch)?;
        pending::settle(self.storage(), self.keys(), &survey).iter().for_each(|error| watch.notice(error.to_string()));
        Ok(())
    }

    fn survey(&self, watch: &Watch) -> Result<pending::Survey> {
        let survey = pending::survey(self.storage(), self.keys(), self.config().sharing)?;
        survey.damaged.iter().for_each(|error| watch.notice(error.to_string()));
        Ok(survey)
    }

    fn snapshots_of(&self, survey: pending::Survey, watch: &Watch) -> Result<(Vec<Snapshot>, Vec<String>)> {
        let (listed, others) = self.list_snapshots()?;
        if let Some(first) = others.first() {
            let count = crate::when::format_counted(others.len() as u64, "object", "objects");
            watch.notice(format!(
                "ignored {count} without the name of a snapshot in {SNAPSHOTS_PREFIX} (first: {first})"
            ));
        }
        let mut list = SnapshotList::new(self, watch);
        list.add_listed(&listed)?;
        list.add_unpublished(survey.unpublished, &listed)?;
        Ok(list.finish())
    }

    /// Whether a snapshot is still stored.
    pub(crate) fn has_snapshot(&self, snapshot: &Snapshot) -> Result<bool> {
        match self.storage().stat(&snapshot_name(&snapshot.started.compact()?, &snapshot.id)) {
            Ok(_) => Ok(true),
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// The snapshot that is stored under this name.
    pub(crate) fn snapshot_named(&self, name: &str) -> Result<Snapshot> {
        let (body, _) = self.storage().get(name, SEALED_SNAPSHOT_BYTES_MAX)?;
        Ok(self.open_snapshot(name, &body)?.0)
    }

    /// The snapshot, and how many plain bytes it has.
    fn open_snapshot(&self, name: &str, body: &[u8]) -> Result<(Snapshot, u64)> {
        let plain = open_object(self.keys(), SNAPSHOT_PURPOSE, body, SNAPSHOT_BYTES_MAX)?;
        let snapshot = Snapshot::decode(&plain)?;
        let stated = snapshot_name(&snapshot.started.compact()?, &snapshot.id);
        if stated == name {
            Ok((snapshot, plain.len() as u64))
        } else {
            Err(Error::corrupt("read the snapshot", name, "it is stored under the name of another snapshot"))
        }
    }
}

/// The part of the cache that belongs to this repository at this location: a copy of a repository elsewhere has the same
/// id and other content. None, with a notice, where it cannot be used.
fn open_cache(cache: &Path, repository: &RepositoryId, storage: &dyn Storage, watch: &Watch) -> Option<PathBuf> {
    let location = blake3::hash(storage.identity().as_bytes()).to_hex();
    let folder = cache.join(format!("{repository}-{}", &location[..16]));
    let why = match make_private_dir(&folder) {
        // Whoever owns it could tell a backup that content is stored.
        Ok(()) => match own_files::why_not_own(&folder) {
            None => return Some(folder),
            Some(why) => why,
        },
        Err(error) => error.to_string(),
    };
    watch.notice(format!("running without a cache, which is slower: {why}"));
    None
}

/// Where backups with a key of this power note what they have told.
fn told_path(cache: Option<&Path>, keys: &KeySet) -> Option<PathBuf> {
    let name = match keys.power() {
        Power::Put => "told-put-only",
        _ => "told",
    };
    Some(cache?.join(name))
}

fn beside<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<std::thread::JoinHandle<Result<T>>> {
    std::thread::Builder::new().name("open".to_owned()).spawn(work).map_err(Error::no_thread)
}

fn join<T>(thread: std::thread::JoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::new(Kind::Failed, "open the repository", "").because("a thread panicked")))
}
