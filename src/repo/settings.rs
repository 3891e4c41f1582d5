//! The settings of a repository that is opened: without them it can be read, and not written to.

use crate::error::{Error, Kind, Result};
use crate::format::{Config, PACKS_PREFIX, PENDING_PREFIX, SETTINGS_NAME, SNAPSHOTS_PREFIX, Settings};
use crate::lease::is_of_one_object;
use crate::seal::KeySet;
use crate::storage::Storage;
use crate::watch::{NoticeKind, Watch};

/// What the storage returned for the settings.
pub(super) struct FoundSettings {
    pub stored: Result<Vec<u8>>,
    /// The repository has no index object, so nothing that a backup without settings could harm.
    pub is_new: bool,
}

/// Returns the settings, or why they cannot be read. An error where the repository cannot be read either.
pub(super) fn read(
    storage: &dyn Storage,
    keys: &KeySet,
    config: &Config,
    found: FoundSettings,
    watch: &Watch,
) -> Result<Result<Settings>> {
    let decoded = match found.stored {
        Ok(stored) => Settings::decode(keys, &config.repository, &stored),
        // The `init` that made it was interrupted before its last step.
        Err(error) if error.is(Kind::NotFound) && found.is_new && is_without_content(storage)? => {
            write_initial(storage, keys, config)
        }
        Err(error) if error.is(Kind::NotFound) => Err(lost()),
        Err(error) => Err(error),
    };
    match decoded {
        Ok(settings) => settings.check_readable().map(|()| Ok(settings)),
        Err(error) if error.is(Kind::Unsupported) || !is_of_one_object(&error) && !error.is(Kind::NotFound) => {
            Err(error)
        }
        Err(error) => {
            watch.notice(
                NoticeKind::Repository,
                format!("{error}; the repository can be read but not written to: {HINT}"),
            );
            Ok(Err(error.hint(HINT)))
        }
    }
}

const HINT: &str = "run `silt relocate`, which writes new settings for the storage where the repository is";

fn lost() -> Error {
    Error::corrupt("read", SETTINGS_NAME, "the repository has lost this object")
}

/// Whether nothing was ever saved. An index alone that is not listed may be on its way here, with a copy, or on another disk.
fn is_without_content(storage: &dyn Storage) -> Result<bool> {
    for prefix in [PACKS_PREFIX, SNAPSHOTS_PREFIX, PENDING_PREFIX] {
        if !storage.list(prefix)?.is_empty() {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write_initial(storage: &dyn Storage, keys: &KeySet, config: &Config) -> Result<Settings> {
    let settings = Settings::initial(config);
    match storage.put_new(SETTINGS_NAME, settings.encode(keys)?.into()) {
        // Another program was faster; what it wrote counts from the next run on.
        Err(error) if error.is(Kind::AlreadyExists) => Err(Error::new(Kind::Stale, "read", SETTINGS_NAME)
            .because("another process wrote this object meanwhile")
            .hint("run the command again")),
        done => done.map(|_| settings),
    }
}
