//! Creating a repository: all but its configuration first, so that there is never a repository whose recovery key was not shown.

use crate::chunk::ChunkTable;
use crate::error::{Error, Kind, Result};
use crate::format::{
    CONFIG_NAME, CommitProtocol, Config, FoundCapabilities, INDEX_PREFIX, InitialSettings, KEYS_PREFIX,
    OBJECT_BYTES_MAX, PACKS_PREFIX, SETTINGS_NAME, SNAPSHOTS_PREFIX, Settings,
};
use crate::id::RepositoryId;
use crate::repo::{Credentials, Repository, key};
use crate::seal::{KeyAccess, KeySet, PasswordCost, Secret, random};
use crate::storage::{Capabilities, Storage};

/// Options of a new repository.
pub struct InitOptions {
    /// What the repository can be opened with.
    pub credentials: Credentials,
    /// What trying a password costs.
    pub cost: PasswordCost,
    /// How content is cut; it cannot be changed later.
    pub chunks: ChunkTable,
    /// Accept a storage that cannot tell two writers apart.
    pub single_writer: bool,
    /// What the storage really does ([`crate::storage::probe`]).
    pub capabilities: Capabilities,
}

/// A repository that lacks only its configuration. Without that it is not a repository, and does not prevent another one.
pub struct NewRepository<'a> {
    storage: &'a dyn Storage,
    key_name: String,
    /// Sealed.
    config: Vec<u8>,
    /// Sealed, too.
    settings: Vec<u8>,
    recovery_key: Secret,
    has_older_keys: bool,
}

pub(super) const SINGLE_WRITER: &str = "use --single-writer if there will never be two backups to it at the same time";

/// How writers exclude each other on a storage that was found to do this; an error says why they cannot.
pub(super) fn commit_protocol(found: Capabilities, single_writer: bool) -> Result<CommitProtocol, &'static str> {
    match (found.compare_and_swap && found.put_new, found.rename) {
        _ if single_writer => Ok(CommitProtocol::SingleWriter),
        (true, _) => Ok(CommitProtocol::CompareAndSwap),
        (false, true) => Ok(CommitProtocol::Rename),
        (false, false) => {
            Err("this storage ignores conditional writes, so two backups at the same time could not be told apart")
        }
    }
}

pub(super) fn found(capabilities: Capabilities) -> FoundCapabilities {
    let Capabilities { put_new, compare_and_swap, rename } = capabilities;
    FoundCapabilities { put_new, compare_and_swap, rename }
}

impl NewRepository<'_> {
    /// Shown before [`finish`](Self::finish), it is not lost to a process that dies between the two.
    pub fn recovery_key(&self) -> &Secret {
        &self.recovery_key
    }

    /// The location has keys of an earlier, unfinished `init`; a recovery key that was shown then opens nothing.
    pub fn has_older_keys(&self) -> bool {
        self.has_older_keys
    }

    /// Makes the location a repository.
    pub fn finish(self) -> Result<()> {
        let Err(error) = self.storage.put_new(CONFIG_NAME, self.config.into()) else {
            // Before it was there, this could have been the settings of a repository that another process was making. A program that found
            // the repository in between may have written these already, or newer ones.
            return match self.storage.put_new(SETTINGS_NAME, self.settings.into()) {
                Err(error) if !error.is(Kind::AlreadyExists) => Err(error),
                _ => Ok(()),
            };
        };
        let failed = Error::new(error.kind(), "create a repository in", self.storage.describe());
        Err(if error.is(Kind::AlreadyExists) {
            failed
                .because("another process created one there at the same time")
                .hint("use that one: only the recovery key that was shown for it opens it")
        } else {
            failed.because(error).hint("try again; if that shows another recovery key, only that one counts")
        })
    }

    /// Takes its key back, when the recovery key could not be shown.
    pub fn abandon(self) -> Result<()> {
        self.storage.remove(&self.key_name)
    }
}

impl Repository {
    /// Makes a repository in an empty location; returns the recovery key. Opening it is a step of its own. To show the key
    /// before there is a repository, use [`prepare`](Self::prepare).
    pub fn init(storage: &dyn Storage, options: &InitOptions) -> Result<Secret> {
        let new = Repository::prepare(storage, options)?;
        let recovery_key = new.recovery_key().clone();
        new.finish()?;
        Ok(recovery_key)
    }

    /// Writes all that a new repository needs but the configuration, which comes last, as it is what makes the location
    /// a repository.
    pub fn prepare<'a>(storage: &'a dyn Storage, options: &InitOptions) -> Result<NewRepository<'a>> {
        let doing = "create a repository in";
        let place = storage.describe();
        if storage.stat(CONFIG_NAME).is_ok() {
            return Err(Error::new(Kind::AlreadyExists, doing, place)
                .because("there is one already")
                .hint("use it with `silt backup --repo …`, or name another location"));
        }
        for prefix in [SNAPSHOTS_PREFIX, INDEX_PREFIX, PACKS_PREFIX] {
            if let Some(listed) = storage.list(prefix)?.first() {
                return Err(Error::new(Kind::AlreadyExists, doing, place)
                    .because(format!("it holds a repository that has lost its `config`: {} is there", listed.name))
                    .hint("copy `config` back from a copy of the repository, or choose another location"));
            }
        }
        if options.credentials.is_empty() {
            return Err(Error::invalid(doing, place, "neither a password nor a key file was given"));
        }
        let commit_protocol = commit_protocol(options.capabilities, options.single_writer)
            .map_err(|why| Error::new(Kind::Unsupported, doing, place).because(why).hint(SINGLE_WRITER))?;
        let recovery_key = Secret::random()?;
        let keys = KeySet::from_master(recovery_key.clone());
        let created = jiff::Timestamp::now().to_string();
        let repository = RepositoryId(random()?);
        let initial = InitialSettings { commit_protocol, capabilities: found(options.capabilities) };
        let config = Config { repository, chunks: options.chunks, created, initial };
        let settings = Settings::initial(&config).encode(&keys)?;
        let config = config.encode(&keys)?;
        // Others than ours stay: another process may be making the repository at this moment.
        let has_older_keys = !storage.list(KEYS_PREFIX)?.is_empty();
        let key_name = key::first_key_name(&repository);
        key::add_key_named(storage, &keys, KeyAccess::Full, &options.credentials, options.cost, &key_name)?;
        Ok(NewRepository { storage, key_name, config, settings, recovery_key, has_older_keys })
    }

    /// Whether there is a repository in this location.
    pub fn exists(storage: &dyn Storage) -> Result<bool> {
        // Read and not only looked at: of a store that refuses, only such an answer says why.
        match storage.get(CONFIG_NAME, OBJECT_BYTES_MAX) {
            Ok(_) => Ok(true),
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }
}
