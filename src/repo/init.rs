//! Creating a repository: all but its configuration first, so that nobody has a repository without its recovery key.

use crate::chunk::ChunkTable;
use crate::error::{Error, Kind, Result};
use crate::format::{
    CONFIG_NAME, Config, INDEX_PREFIX, KEYS_PREFIX, OBJECT_BYTES_MAX, PACKS_PREFIX, SNAPSHOTS_PREFIX, Sharing,
};
use crate::id::RepositoryId;
use crate::repo::{Credentials, Repository, key};
use crate::seal::{KeySet, PasswordCost, Power, Secret, random};
use crate::storage::{Capabilities, Storage};

/// What a new repository is made with.
pub struct InitOptions {
    pub credentials: Credentials,
    pub cost: PasswordCost,
    pub chunks: ChunkTable,
    /// Accept a storage that cannot tell two writers apart.
    pub single_writer: bool,
    /// What the storage really does ([`crate::storage::probe`]).
    pub capabilities: Capabilities,
}

/// A repository that lacks only its configuration. Left so it is no repository and in nobody's way.
pub struct NewRepository<'a> {
    storage: &'a dyn Storage,
    key_name: String,
    /// Sealed.
    config: Vec<u8>,
    recovery_key: Secret,
    has_older_keys: bool,
}

impl NewRepository<'_> {
    /// Shown before [`finish`](Self::finish), it is not lost to a process that dies between the two.
    pub fn recovery_key(&self) -> &Secret {
        &self.recovery_key
    }

    /// Keys lie there that somebody made who did not finish; a recovery key that was shown then opens nothing.
    pub fn has_older_keys(&self) -> bool {
        self.has_older_keys
    }

    /// Makes the location a repository.
    pub fn finish(self) -> Result<()> {
        let Err(error) = self.storage.put_new(CONFIG_NAME, self.config.into()) else { return Ok(()) };
        let failed = Error::new(error.kind(), "create a repository in", self.storage.describe());
        Err(if error.is(Kind::AlreadyExists) {
            failed
                .because("somebody else created one there at the same time")
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
    /// Makes a repository in an empty location; returns the recovery key. Opening it is a step of its own. Who shows the
    /// key to somebody takes [`prepare`](Self::prepare), to do so before there is a repository.
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
            return Err(Error::new(Kind::AlreadyExists, doing, place).because("there is one already"));
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
        let sharing = match (options.capabilities.compare_and_swap, options.capabilities.rename, options.single_writer)
        {
            (_, _, true) => Sharing::SingleWriter,
            (true, _, _) if options.capabilities.put_new => Sharing::Swap,
            (_, true, _) => Sharing::Rename,
            _ => {
                return Err(Error::new(Kind::Unsupported, doing, place)
                    .because("this storage ignores conditional writes, so two backups at the same time could not be told apart")
                    .hint("use --single-writer if there will never be two backups to it at the same time"));
            }
        };
        let recovery_key = Secret::random()?;
        let keys = KeySet::from_master(recovery_key.clone());
        let created = jiff::Timestamp::now().to_string();
        let repository = RepositoryId(random()?);
        let config = Config { repository, sharing, chunks: options.chunks, created };
        let config = config.encode(&keys)?;
        // Others than ours stay: they may be of somebody who is making the repository at this moment.
        let has_older_keys = !storage.list(KEYS_PREFIX)?.is_empty();
        let key_name = key::first_key_name(&repository);
        key::add_key_named(storage, &keys, Power::Full, &options.credentials, options.cost, &key_name)?;
        Ok(NewRepository { storage, key_name, config, recovery_key, has_older_keys })
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
