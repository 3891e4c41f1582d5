//! The settings of a repository that is opened: without them it can be read, and not written to.

use crate::error::{Error, Kind, Result};
use crate::format::{Config, SETTINGS_NAME, Settings};
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
        Err(error) if error.is(Kind::NotFound) && found.is_new => write_initial(storage, keys, config),
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

fn write_initial(storage: &dyn Storage, keys: &KeySet, config: &Config) -> Result<Settings> {
    let settings = Settings::initial(config);
    storage.put(SETTINGS_NAME, settings.encode(keys)?.into())?;
    Ok(settings)
}
