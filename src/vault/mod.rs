//! What readers and writers of an open repository share: storage, keys, configuration, settings, the local index in step with the
//! repository, and what is known of damage. It makes neither readers nor writers; they hold it.

mod damage;
mod damaged_indexes;
mod damaged_packs;
mod false_indexes;
mod index_check;
mod index_fetch;
mod index_repair;
pub(crate) mod kept_files;
mod listing;
mod local_index;
mod losses;
mod opened;
pub(crate) mod parallel;
mod read_fault;
mod reported_damage;

pub(crate) use damaged_packs::PackVersion;
pub use index_check::IndexCheck;
pub(crate) use losses::LossSet;
pub(crate) use read_fault::ReadFault;
pub(crate) use reported_damage::{ReportedDamage, basis_of};

use crate::chunk::Chunker;
use crate::error::{Error, Kind, Result};
use crate::format::{CommitProtocol, Config, INDEX_PREFIX, Settings};
use crate::id::{ChunkId, PackId};
use crate::index::{IndexBasis, IndexView};
use crate::lock::locked;
use crate::place::{IndexContents, Located};
use crate::seal::KeySet;
use crate::storage::{ListedObject, Storage};
use crate::watch::{NoticeKind, Watch};
use damaged_packs::DamagedPacks;
use listing::RepositoryListing;
use local_index::LocalIndex;
use losses::LossMarks;
use opened::OpenedRepository;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// Cheap to clone.
#[derive(Clone)]
pub struct Vault(Arc<VaultInner>);

struct VaultInner {
    opened: OpenedRepository,
    config: Config,
    /// Or why they cannot be read.
    settings: Result<Settings>,
    /// The name of the key object that opened the repository, without its prefix.
    key_name: String,
    chunker: Chunker,
    /// The directory of this repository in the cache; `None` without a cache, or with one that cannot be used.
    cache: Option<PathBuf>,
    index: LocalIndex,
    /// How often it was rebuilt, as it was damaged. Held while that is done.
    index_rebuilds: Mutex<u32>,
    damaged_packs: DamagedPacks,
    losses: Arc<LossMarks>,
    /// Bytes that a reader may take.
    memory: AtomicU64,
    /// For what is noticed in the middle of other work.
    notices: Watch,
}

/// What a vault is opened with.
pub(crate) struct VaultOpening<'a> {
    pub storage: Arc<dyn Storage>,
    pub keys: KeySet,
    /// The name of the key object that they were in, without its prefix.
    pub key_name: String,
    /// The configuration as it is stored, and what it says.
    pub stored_config: &'a [u8],
    pub config: Config,
    /// Or why they cannot be read.
    pub settings: Result<Settings>,
    pub cache: Option<PathBuf>,
    /// The index objects, if they were listed already.
    pub listed: Option<Vec<ListedObject>>,
}

/// More often a local index is not rebuilt in one process.
const INDEX_REBUILDS_MAX: u32 = 3;

/// The memory of a reader unless the caller sets another limit.
const MEMORY_BYTES: u64 = 256 << 20;

impl Vault {
    /// Opens it and brings the local index up to date.
    pub(crate) fn open(opening: VaultOpening, watch: &Watch) -> Result<Self> {
        let VaultOpening { storage, keys, key_name, stored_config, config, settings, cache, mut listed } = opening;
        let losses = Arc::new(LossMarks::at(cache.as_deref()));
        let index = {
            let reported = damage::reported_path(cache.as_deref(), &keys)
                .map(|path| ReportedDamage::read(&path))
                .unwrap_or_default();
            LocalIndex::open(cache.as_deref(), losses.clone(), reported.damaged_indexes, watch)
        };
        let damaged_packs = DamagedPacks::open(cache.as_deref(), watch);
        let chunker = Chunker::new(config.chunks, keys.gear_secret());
        let vault = Vault(Arc::new(VaultInner {
            opened: OpenedRepository::new(storage, keys, stored_config),
            config,
            settings,
            key_name,
            chunker,
            index,
            index_rebuilds: Mutex::new(0),
            losses,
            damaged_packs,
            cache,
            memory: AtomicU64::new(MEMORY_BYTES),
            notices: watch.notices_only(),
        }));
        let list = || match listed.take() {
            Some(listed) => Ok(RepositoryListing::of_index(listed)),
            None => vault.storage().list(INDEX_PREFIX).map(RepositoryListing::of_index),
        };
        vault.0.index.compare(&vault.0.opened, list, watch)?;
        Ok(vault)
    }

    /// Where its objects are.
    pub fn storage(&self) -> &dyn Storage {
        self.0.opened.storage()
    }

    pub(crate) fn storage_shared(&self) -> Arc<dyn Storage> {
        self.0.opened.storage_shared()
    }

    /// The keys that it was opened with.
    pub fn keys(&self) -> &KeySet {
        self.0.opened.keys()
    }

    /// What never changes about it.
    pub fn config(&self) -> &Config {
        &self.0.config
    }

    /// The settings; an error where they cannot be read. Then nothing is written to the repository.
    pub fn settings(&self) -> Result<&Settings> {
        self.0.settings.as_ref().map_err(Error::clone)
    }

    /// Refuses to write to a repository that uses what this program does not know, or whose storage cannot do what its settings state.
    pub(crate) fn check_writable(&self) -> Result<()> {
        let settings = self.settings()?;
        settings.check_writable()?;
        let capabilities = self.storage().capabilities();
        let missing = match settings.commit_protocol {
            CommitProtocol::CompareAndSwap if !capabilities.compare_and_swap => "conditional writes",
            CommitProtocol::Rename if !capabilities.rename => "renaming",
            _ => return Ok(()),
        };
        Err(Error::new(Kind::Unsupported, "write to the repository", self.storage().describe())
            .because(format!("its backups commit by {missing}, which this storage does not have"))
            .hint("if it was copied here from another storage, run `silt relocate` first"))
    }

    /// The name of the key object that opened the repository, without its prefix.
    pub(crate) fn key_name(&self) -> &str {
        &self.0.key_name
    }

    /// Cuts content as its configuration says.
    pub fn chunker(&self) -> &Chunker {
        &self.0.chunker
    }

    /// This repository's folder in the cache; none without a cache.
    pub fn cache(&self) -> Option<&Path> {
        self.0.cache.as_deref()
    }

    /// Whether storage is not on this machine, so that each request costs a wait.
    pub(crate) fn is_remote(&self) -> bool {
        self.storage().profile().is_remote
    }

    /// The memory that all buffers of a reader together may take, in bytes; counts for readers made from now on.
    pub fn limit_memory(&self, bytes: u64) {
        self.0.memory.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn memory(&self) -> u64 {
        self.0.memory.load(Ordering::Relaxed)
    }

    /// The local index as it is now.
    pub(crate) fn view(&self) -> IndexView {
        self.0.index.view()
    }

    /// Adds to the local index what index objects say that this process wrote.
    pub(crate) fn learn(&self, indexes: &[IndexContents], watch: &Watch) -> Result<()> {
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

    fn list_all(&self) -> Result<RepositoryListing> {
        let mut listing = RepositoryListing::whole(self.storage(), self.0.index.packs_known())?;
        self.take_out_damaged_packs(&mut listing)?;
        Ok(listing)
    }

    fn take_out_damaged_packs(&self, listing: &mut RepositoryListing) -> Result<()> {
        match listing.packs_mut() {
            Some(packs) => self.0.damaged_packs.take_out(packs, self.storage()),
            None => Ok(()),
        }
    }

    pub(crate) fn pack_version(&self, pack: &PackId) -> PackVersion {
        PackVersion::of(pack, self.storage())
    }

    /// A pack could not be read at this version: from now on it counts as missing, so that what it holds is stored again.
    pub(crate) fn note_damaged_pack(&self, pack: &PackId, version: PackVersion) {
        self.0.damaged_packs.note(pack, version);
    }

    /// Finds out why a chunk cannot be read from a pack: the pack, or what index objects say of it, which then counts no longer.
    pub(crate) fn find_fault(&self, pack: &PackId) -> Result<ReadFault> {
        let fault = self.0.index.find_fault(pack, &self.0.opened)?;
        if let ReadFault::Indexes = fault {
            self.compare_index(self.notices())?;
        }
        Ok(fault)
    }

    /// How many index objects are known to be false.
    pub(crate) fn false_indexes(&self) -> usize {
        self.0.index.false_indexes().count()
    }

    /// Whether this process has noted the pack as damaged.
    pub(crate) fn is_noted_as_damaged(&self, pack: &PackId) -> bool {
        self.0.damaged_packs.is_noted(pack)
    }

    /// How many damaged packs this process has found.
    pub(crate) fn damaged_packs_found(&self) -> u64 {
        self.0.damaged_packs.found()
    }

    /// Passes on notices, and nothing else: for what is noticed in the middle of other work.
    pub(crate) fn notices(&self) -> &Watch {
        &self.0.notices
    }

    /// How often the local index was rebuilt.
    pub(crate) fn index_rebuilds(&self) -> u32 {
        *locked(&self.0.index_rebuilds)
    }

    /// Drops the local index and reads it anew, as a lookup said that it is damaged; `rebuilds` were made before that
    /// lookup. Of several threads that met the same damage one does it.
    pub(crate) fn rebuild_index(&self, damage: &Error, rebuilds: u32, watch: &Watch) -> Result<()> {
        let mut done = locked(&self.0.index_rebuilds);
        if *done > rebuilds {
            return Ok(());
        }
        if *done >= INDEX_REBUILDS_MAX {
            return Err(damage.clone());
        }
        watch.notice(NoticeKind::Cache, format!("{damage}; the local index is rebuilt"));
        // Where it is damaged again, its directory is not to be trusted.
        let in_memory = *done > 0;
        *done += 1;
        self.0.index.rebuild(&self.0.opened, || self.list_all(), in_memory, watch)?;
        Ok(())
    }

    /// Asks the local index; one that turns out to be damaged is rebuilt, and asked again.
    pub(crate) fn with_sound_index<T>(&self, watch: &Watch, ask: impl Fn(&IndexView) -> Result<T>) -> Result<T> {
        loop {
            let rebuilds = self.index_rebuilds();
            match ask(&self.view()) {
                Err(error) if error.is(Kind::Corrupt) => self.rebuild_index(&error, rebuilds, watch)?,
                asked => return asked,
            }
        }
    }

    /// Whether a chunk is stored.
    pub(crate) fn contains(&self, id: &ChunkId, watch: &Watch) -> Result<bool> {
        self.with_sound_index(watch, |view| view.contains(id))
    }

    /// All places of the chunks of these packs.
    pub(crate) fn copies_of(&self, packs: &HashSet<PackId>) -> Result<HashMap<ChunkId, Vec<Located>>> {
        self.0.index.copies_of(packs, &self.0.opened)
    }

    /// Packs that count as missing, by the last comparison.
    pub(crate) fn left_out(&self) -> HashSet<PackId> {
        self.0.index.left_out()
    }

    /// Whether a pack counts as missing, by the last comparison.
    pub(crate) fn is_left_out(&self, pack: &PackId) -> bool {
        self.0.index.is_left_out(pack)
    }

    /// Where chunks are in these packs, which may be missing or cut.
    pub(crate) fn index_of_packs(&self, packs: &HashSet<PackId>) -> Result<IndexView> {
        self.0.index.of_packs(packs, &self.0.opened)
    }

    /// The local index as it is now, and what it rests on.
    pub(crate) fn view_and_basis(&self) -> (IndexView, IndexBasis) {
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
    pub(crate) fn is_index_listed(&self) -> Result<bool> {
        let is_there = || self.check_is_there();
        let mut listing = RepositoryListing::whole_at_once(self.storage(), self.0.index.packs_known(), is_there)?;
        self.take_out_damaged_packs(&mut listing)?;
        Ok(self.0.index.is_listed(&listing))
    }
}
