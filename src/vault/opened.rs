//! A repository as it was opened: its storage, its keys, and how to tell that the same repository is still there.

use crate::error::{Error, Kind, Result};
use crate::format::{CONFIG_NAME, OBJECT_BYTES_MAX};
use crate::seal::KeySet;
use crate::storage::Storage;
use std::sync::Arc;

pub(super) struct OpenedRepository {
    storage: Arc<dyn Storage>,
    keys: KeySet,
    /// Of the configuration as it is stored.
    config_hash: blake3::Hash,
}

impl OpenedRepository {
    /// `config` is the configuration as it is stored.
    pub(crate) fn new(storage: Arc<dyn Storage>, keys: KeySet, config: &[u8]) -> Self {
        OpenedRepository { storage, keys, config_hash: blake3::hash(config) }
    }

    pub(crate) fn storage(&self) -> &dyn Storage {
        self.storage.as_ref()
    }

    pub(crate) fn storage_shared(&self) -> Arc<dyn Storage> {
        self.storage.clone()
    }

    pub(crate) fn keys(&self) -> &KeySet {
        &self.keys
    }

    /// Refuses to continue where the repository is not the one that was opened: its disk was unmounted, unplugged, or another
    /// one mounted. Until then nothing that is missing or cannot be read counts as lost or damaged.
    pub(crate) fn check_is_there(&self) -> Result<()> {
        let why = match self.storage.get_uncached(CONFIG_NAME, OBJECT_BYTES_MAX) {
            Ok((config, _)) if blake3::hash(&config) == self.config_hash => return Ok(()),
            Ok(_) => {
                "its configuration has changed: another repository has taken its place, or its disk returns wrong data"
                    .to_owned()
            }
            Err(error) if error.is(Kind::NotFound) => "it no longer exists".to_owned(),
            // If the configuration cannot be read, nothing can be concluded about other objects.
            Err(error) if error.is(Kind::Corrupt) => error.to_string(),
            Err(error) => return Err(error),
        };
        let hint = if !self.storage.profile().is_remote {
            "check whether its disk is mounted and can be read"
        } else {
            "check whether the bucket is still there"
        };
        Err(Error::new(Kind::Gone, "continue with the repository", self.storage.describe()).because(why).hint(hint))
    }
}
