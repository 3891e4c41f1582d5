//! The repository: creating, opening and listing it, and its order of writes. [`Repository`] → [`Writer`] → snapshot; [`Reader`] back.

mod init;
pub(crate) mod key;
mod known;
mod own;
mod relocate;
mod settings;
mod snapshot_claims;
mod snapshot_info;
mod snapshot_list;
mod snapshot_names;
mod snapshot_reader;
mod snapshot_search;
mod unlock;
mod unreadable;

pub use crate::fetch::{Chunk, Reader};
pub use crate::format::snapshot::{Snapshot, Totals};
pub use crate::format::snapshot_source::{AllSources, SnapshotSource, UnknownSource};
pub use crate::format::stamp::Stamp;
pub use crate::format::{CommitProtocol, Settings};
pub use crate::ingest::{ChunkSink, SinkOptions, Writer};
pub use crate::vault::{IndexCheck, Vault};
pub use init::{InitOptions, NewRepository};
pub use key::{Credentials, TriedKey, add_key, try_key};
pub use known::KnownRepository;
pub(crate) use own::{OwnFolder, OwnFolders};
pub use relocate::Relocation;
use settings::FoundSettings;
pub use snapshot_info::SnapshotInfo;
use snapshot_list::SnapshotList;
pub(crate) use snapshot_names::parts_of;
pub(crate) use snapshot_search::SnapshotSearch;
use unlock::{LastKey, Unlocked, unlock, unlock_where};
pub(crate) use unreadable::UnreadableSnapshot;

use crate::disk::own_files;
use crate::disk::whole::make_private_dir;
use crate::error::{Error, Kind, Result};
use crate::format::{CONFIG_NAME, Config, INDEX_PREFIX, OBJECT_BYTES_MAX, SETTINGS_NAME, snapshot_name};
use crate::id::RepositoryId;
use crate::lease;
use crate::seal::{KeyAccess, KeySet};
use crate::storage::Storage;
use crate::vault::VaultOpening;
use crate::watch::{NoticeKind, Watch};
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Files in the directory of all caches that belong to no single repository.
pub(crate) const CACHE_NOTES: [&str; 2] = [known::FOLDER, unlock::LAST_KEYS];

/// An open repository. Cheap to clone; everything else hangs from it.
#[derive(Clone)]
pub struct Repository(Vault);

/// What a vault can do, a repository can.
impl Deref for Repository {
    type Target = Vault;

    fn deref(&self) -> &Vault {
        &self.0
    }
}

impl Repository {
    /// Opens a repository and brings the local index up to date. `cache` is the directory that holds the caches of all
    /// repositories; if it cannot be used, a notice says so and the repository is used without one.
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
            spawn(move || storage.list(INDEX_PREFIX))?
        };
        let unlocking = {
            let (storage, credentials) = (storage.clone(), credentials.clone());
            let last = LastKey::of(storage.as_ref(), cache);
            spawn(move || unlock(storage.as_ref(), &credentials, &last))?
        };
        let fetching = {
            let storage = storage.clone();
            spawn(move || storage.get(SETTINGS_NAME, OBJECT_BYTES_MAX).map(|(bytes, _)| bytes))?
        };
        let config = storage.get(CONFIG_NAME, OBJECT_BYTES_MAX).map_err(|error| match error.kind() {
            Kind::NotFound => Error::new(Kind::NotFound, "open the repository", storage.describe())
                .because("there is no repository at this location")
                .hint("check the location, or create a repository with `silt init`"),
            _ => error,
        });
        let unlocked = join(unlocking);
        let listed = join(listing);
        let stored_settings = join(fetching);
        let (stored_config, _) = config?;
        let repository = Config::peek(&stored_config)?;
        let unlocked = unlocked?;
        let (unlocked, config) = match (Config::decode(&unlocked.keys, &stored_config), &credentials.recovery) {
            (Ok(decoded), _) => (unlocked, decoded),
            (Err(_), Some(_)) => {
                return Err(Error::new(Kind::WrongKey, "open the repository", storage.describe())
                    .because("this recovery key belongs to another repository"));
            }
            (Err(error), None) => {
                // The first key that opened may be the leftover of an `init` that died before it wrote the configuration.
                let fits = |keys: &KeySet| Config::decode(keys, &stored_config).is_ok();
                let last = LastKey::of(storage.as_ref(), cache);
                let unlocked = unlock_where(storage.as_ref(), credentials, &last, &fits).map_err(|_| error)?;
                let decoded = Config::decode(&unlocked.keys, &stored_config)?;
                (unlocked, decoded)
            }
        };
        let cache = cache.and_then(|cache| open_cache(cache, &repository, storage.as_ref(), watch));
        let Unlocked { key, keys } = unlocked;
        let listed = listed?;
        let found = FoundSettings { stored: stored_settings, is_new: listed.is_empty() };
        let settings = settings::read(storage.as_ref(), &keys, &config, found, watch)?;
        let stored_config = &stored_config;
        let opening =
            VaultOpening { storage, keys, key_name: key, stored_config, config, settings, cache, listed: Some(listed) };
        Vault::open(opening, watch).map(Repository)
    }

    /// Begins a backup: shows it to others before it relies on anything.
    pub fn writer(&self, host: &str, options: &SinkOptions, watch: &Watch) -> Result<Writer> {
        Writer::start(&self.0, host, options, watch)
    }

    /// Refuses a key that may not read files.
    pub(crate) fn check_access_to_files(&self, doing: &str) -> Result<()> {
        match self.keys().access() {
            KeyAccess::Full => Ok(()),
            _ => Err(Error::new(Kind::Denied, doing, self.storage().describe())
                .because("the key that opened the repository may not read files")
                .hint("use the password, key file or recovery key of the owner")),
        }
    }

    /// Reads trees and content. Each reader has caches of its own.
    pub fn reader(&self) -> Reader {
        Reader::new(&self.0)
    }

    /// Names of all snapshot objects, oldest first.
    pub(crate) fn snapshot_names(&self) -> Result<Vec<String>> {
        Ok(self.list_snapshots()?.listed.into_iter().map(|listed| listed.name).collect())
    }

    /// Every snapshot, oldest first, those included whose writer died right after its commit.
    pub fn snapshots(&self, watch: &Watch) -> Result<Vec<Snapshot>> {
        Ok(self.snapshots_and_unreadable(watch)?.0)
    }

    /// The same, with those that cannot be read.
    pub(crate) fn snapshots_and_unreadable(&self, watch: &Watch) -> Result<(Vec<Snapshot>, Vec<UnreadableSnapshot>)> {
        self.snapshots_of(self.survey()?, watch)
    }

    /// The same for commands that write: commits whose writer died are moved to their place on the way.
    pub fn snapshots_settled(&self, watch: &Watch) -> Result<Vec<Snapshot>> {
        Ok(self.snapshots_settled_and_unreadable(watch)?.0)
    }

    pub(crate) fn snapshots_settled_and_unreadable(
        &self,
        watch: &Watch,
    ) -> Result<(Vec<Snapshot>, Vec<UnreadableSnapshot>)> {
        let survey = self.survey_and_settle(watch)?;
        self.snapshots_of(survey, watch)
    }

    /// Moves commits whose writer died to their place under `snapshots/`.
    pub(crate) fn settle(&self, watch: &Watch) -> Result<()> {
        let survey = self.survey_and_settle(watch)?;
        survey
            .damaged
            .iter()
            .chain(&survey.unread)
            .for_each(|error| watch.notice(NoticeKind::Repository, error.to_string()));
        Ok(())
    }

    fn survey_and_settle(&self, watch: &Watch) -> Result<lease::PendingSurvey> {
        self.check_writable()?;
        let survey = self.survey()?;
        lease::settle(self.storage(), self.keys(), &survey)
            .iter()
            .for_each(|error| watch.notice(NoticeKind::Repository, error.to_string()));
        Ok(survey)
    }

    fn survey(&self) -> Result<lease::PendingSurvey> {
        lease::survey(self.storage(), self.keys())
    }

    fn snapshots_of(
        &self,
        survey: lease::PendingSurvey,
        watch: &Watch,
    ) -> Result<(Vec<Snapshot>, Vec<UnreadableSnapshot>)> {
        let names = self.list_snapshots()?;
        names.tell_of_others(watch);
        let mut list = SnapshotList::new(self, watch);
        list.add_listed(&names.listed)?;
        list.add_unpublished(survey.unpublished)?;
        list.add_pending(survey.damaged, survey.unread);
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
}

/// The part of the cache that belongs to this repository at this location: a copy of a repository elsewhere has the same
/// id and other content. None, with a notice, where it cannot be used.
fn open_cache(cache: &Path, repository: &RepositoryId, storage: &dyn Storage, watch: &Watch) -> Option<PathBuf> {
    let location = blake3::hash(storage.identity().as_bytes()).to_hex();
    let folder = cache.join(format!("{repository}-{}", &location[..16]));
    let why = match make_private_dir(&folder) {
        // Another owner of it could make a backup believe that content is stored.
        Ok(()) => match own_files::why_not_own(&folder) {
            None => return Some(folder),
            Some(why) => why,
        },
        Err(error) => error.to_string(),
    };
    watch.notice(NoticeKind::Cache, format!("running without a cache, which is slower: {why}"));
    None
}

fn spawn<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<std::thread::JoinHandle<Result<T>>> {
    std::thread::Builder::new().name("open".to_owned()).spawn(work).map_err(Error::no_thread)
}

fn join<T>(thread: std::thread::JoinHandle<Result<T>>) -> Result<T> {
    thread
        .join()
        .unwrap_or_else(|_| Err(Error::new(Kind::Failed, "open the repository", "").because("a thread panicked")))
}
