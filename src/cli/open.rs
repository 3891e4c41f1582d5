//! Open the repository that is meant with what the user has to open it: files, environment, prompt, or the default.

use super::cache::{self, cache_folder};
use super::options::{GlobalOptions, absolute};
use super::password::{password_of_command, password_of_file, read_key_file, read_recovery_key};
use super::prompt::ask_password;
use super::xdg::folder;
use siltstone::disk::why_not_own;
use siltstone::error::{Error, Kind, Result};
use siltstone::id::RepositoryId;
use siltstone::repo::{Credentials, KnownRepository, Repository};
use siltstone::seal::Secret;
use siltstone::storage::{self, Capabilities, RETRY_FOR, S3Defaults, Storage, StorageAccess, folder_of};
use siltstone::watch::{NoticeKind, Watch};
use std::num::ParseIntError;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use zeroize::Zeroizing;

/// A bench aid: milliseconds by which every request to the storage takes longer, as if it were far away.
const DELAY_VARIABLE: &str = "SILT_DELAY_MS";

/// Where everything is without configuration.
pub(super) struct DefaultPlaces {
    pub repository: PathBuf,
    pub key: PathBuf,
}

impl DefaultPlaces {
    pub(super) fn find() -> Result<DefaultPlaces> {
        Ok(DefaultPlaces {
            repository: folder("XDG_DATA_HOME", ".local/share")?.join("siltstone/repository"),
            key: folder("XDG_CONFIG_HOME", ".config")?.join("siltstone/key"),
        })
    }
}

/// The location that was given.
pub(super) fn given_location(options: &GlobalOptions) -> Option<&str> {
    options.repo.as_deref()
}

/// The recovery key that was given or, without one, password and key file. Empty when there are none.
fn given_credentials(options: &GlobalOptions, watch: &Watch) -> Result<Credentials> {
    let recovery = match (&options.recovery_key_file, std::env::var("SILT_RECOVERY_KEY")) {
        (Some(path), _) => Some(read_recovery_key(path, watch).map_err(no_secret)?),
        (None, Ok(text)) if !text.is_empty() => Some(Secret::from_text(&Zeroizing::new(text)).map_err(|error| {
            Error::new(Kind::WrongKey, "read the recovery key in", "SILT_RECOVERY_KEY").because(error.why())
        })?),
        _ => None,
    };
    match recovery {
        // It opens by itself: the key file may be what was lost.
        Some(recovery) => Ok(Credentials { recovery: Some(recovery), ..Credentials::default() }),
        None => given_locks(options, watch),
    }
}

/// The password and the key file that were given. Of a password on the command line and one in the environment the former
/// counts.
pub(super) fn given_locks(options: &GlobalOptions, watch: &Watch) -> Result<Credentials> {
    let key_file = options.key_file.as_deref().map(|path| {
        read_key_file(path, watch).map_err(|error| match error.kind() {
            Kind::NotFound => no_secret(error.hint(LOST_KEY)),
            _ => no_secret(error),
        })
    });
    Ok(Credentials { password: given_password(options, watch)?, key_file: key_file.transpose()?, recovery: None })
}

const LOST_KEY: &str = "put the key file back, or use the recovery key that was shown when the repository was created: \
                        set SILT_RECOVERY_KEY, or name a file with it with --recovery-key-file; `silt init` makes a new key file for a new \
                        repository";

pub(super) fn given_password(options: &GlobalOptions, watch: &Watch) -> Result<Option<Zeroizing<Vec<u8>>>> {
    if let Some(path) = &options.password_file {
        return password_of_file(path, watch).map(Some).map_err(no_secret);
    }
    if let Some(command) = &options.password_command {
        return password_of_command(command, &watch.cancel).map(Some).map_err(no_secret);
    }
    match std::env::var_os("SILT_PASSWORD").filter(|password| !password.is_empty()) {
        Some(password) => Ok(Some(Zeroizing::new(password.as_bytes().to_vec()))),
        None => Ok(None),
    }
}

/// A secret that cannot be had opens as little as a wrong one.
pub(super) fn no_secret(error: Error) -> Error {
    match error.kind() {
        // A failure of the system does not concern the secret.
        Kind::Cancelled | Kind::Full | Kind::Temporary => error,
        _ => error.with_kind(Kind::WrongKey),
    }
}

/// Opens the location; it need not hold a repository yet.
pub(super) fn open_storage(
    location: &str,
    create: bool,
    options: &GlobalOptions,
    watch: &Watch,
) -> Result<Arc<dyn Storage>> {
    let access = StorageAccess {
        ca_file: options.cacert.as_deref().filter(|path| !path.as_os_str().is_empty()),
        retry_for: options.retry_for.unwrap_or(RETRY_FOR),
        limit_upload: options.limit_upload,
        limit_download: options.limit_download,
        s3: S3Defaults::from_environment(),
        delay: delay()?,
        watch: watch.clone(),
    };
    storage::open_location(location, create, &access)
}

/// How much longer each request is to take; for measuring.
fn delay() -> Result<Duration> {
    match std::env::var(DELAY_VARIABLE) {
        Ok(text) if !text.is_empty() => {
            let bad = |error: ParseIntError| Error::invalid("understand", DELAY_VARIABLE, error);
            text.parse().map(Duration::from_millis).map_err(bad)
        }
        _ => Ok(Duration::ZERO),
    }
}

pub(super) fn probe_storage(storage: &dyn Storage) -> Result<Capabilities> {
    storage::probe(storage)
}

/// The repository that is meant, open.
pub(super) fn open(options: &GlobalOptions, watch: &Watch) -> Result<Repository> {
    let mut credentials = given_credentials(options, watch)?;
    let (storage, default) = match given_location(options) {
        Some(location) => (open_storage(location, false, options, watch)?, None),
        None => {
            let places = DefaultPlaces::find()?;
            (open_default(&places, &mut credentials, options, watch)?, Some(places))
        }
    };
    if credentials.is_empty() && Repository::exists(storage.as_ref())? {
        // Do not ask for the password of a repository that does not exist: opening it returns that error.
        credentials.password = ask_password(&format!("Password for {}: ", storage.describe()), &watch.cancel)?;
        if let (true, Some(places)) = (credentials.is_empty(), &default) {
            let why = format!("no password was given, and its key file {} does not exist", places.key.display());
            return Err(Error::new(Kind::WrongKey, "open the repository", storage.describe())
                .because(why)
                .hint(LOST_KEY));
        }
    }
    open_with(storage, &credentials, options, watch)
}

/// Opens the repository in a storage.
pub(super) fn open_with(
    storage: Arc<dyn Storage>,
    credentials: &Credentials,
    options: &GlobalOptions,
    watch: &Watch,
) -> Result<Repository> {
    let cache = usable_cache(options, watch)?;
    let place = place_of(storage.as_ref(), options)?;
    let known = KnownRepository::at(&place, cache.as_deref());
    let opened = match &cache {
        Some(cache) => Repository::open(storage, credentials, cache, watch),
        None => Repository::open_uncached(storage, credentials, watch),
    };
    let repo = opened.map_err(|error| match known.id() {
        Some(id) if error.is(Kind::NotFound) => {
            error.hint(format!("repository {} was there at the last run: is its disk mounted?", id.to_hex()))
        }
        _ => error,
    })?;
    let id = repo.config().repository;
    if let Some(before) = known.note(id) {
        let (before, id) = (before.to_hex(), id.to_hex());
        watch.notice(
            NoticeKind::Repository,
            format!(
                "{place} holds another repository ({id}) than at the last run ({before}): is the right disk mounted?"
            ),
        );
    }
    if let Some(bytes) = options.memory {
        repo.limit_memory(bytes);
    }
    Ok(repo)
}

/// The folder of the cache, marked as one. Without a home there is none, which costs time and no more.
fn usable_cache(options: &GlobalOptions, watch: &Watch) -> Result<Option<PathBuf>> {
    if options.no_cache {
        return Ok(None);
    }
    match cache_folder(options) {
        // Another owner of it could make a backup believe that content is stored, or make root write elsewhere by links in it.
        Ok(cache) => match why_not_own(&cache) {
            Some(why) => {
                watch.notice(
                    NoticeKind::Cache,
                    format!("this run is slower, as it does not use the cache {}: {why}", cache.display()),
                );
                Ok(None)
            }
            None => {
                cache::tag(&cache);
                Ok(Some(cache))
            }
        },
        Err(error) if error.is(Kind::Invalid) => {
            watch.notice(NoticeKind::Cache, format!("this run is slower without a cache: {error}"));
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

/// The repository that was in the default place at the last run.
pub(super) fn known_at_default(places: &DefaultPlaces, options: &GlobalOptions) -> Result<Option<RepositoryId>> {
    let cache = if options.no_cache { None } else { cache_folder(options).ok() };
    Ok(KnownRepository::at(location_of(&places.repository)?, cache.as_deref()).id())
}

/// A name of the location that is the same wherever a run is started.
fn place_of(storage: &dyn Storage, options: &GlobalOptions) -> Result<String> {
    match given_location(options).map(folder_of).transpose()?.flatten() {
        Some(folder) => Ok(absolute(folder)?.to_string_lossy().into_owned()),
        None => Ok(storage.describe()),
    }
}

fn open_default(
    places: &DefaultPlaces,
    credentials: &mut Credentials,
    options: &GlobalOptions,
    watch: &Watch,
) -> Result<Arc<dyn Storage>> {
    if !places.repository.exists() {
        return Err(Error::new(Kind::NotFound, "open the repository", "")
            .because("none was named, and the default one does not exist yet")
            .hint("name one with --repo or SILT_REPOSITORY, or create the default one with `silt backup DIR`"));
    }
    if credentials.is_empty() {
        credentials.key_file = match read_key_file(&places.key, watch) {
            Ok(secret) => Some(secret),
            Err(error) if error.is(Kind::NotFound) => None,
            Err(error) => return Err(no_secret(error)),
        };
    }
    open_storage(location_of(&places.repository)?, false, options, watch)
}

/// Locations are text, as URLs are.
pub(super) fn location_of(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::invalid("use the directory", path.display(), "its name is not UTF-8").hint("name another with --repo")
    })
}
