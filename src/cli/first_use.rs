//! The default repository: created on first use, found again later.

use super::init::{key_file, prepare, recovery_words, refuse_strangers, show_and_finish};
use super::open::{
    DefaultPlaces, given_location, given_locks, known_at_default, location_of, open, open_storage, open_with,
};
use super::options::GlobalOptions;
use super::output::Console;
use super::print::json_line;
use serde::Serialize;
use siltstone::disk::{make_private_dir, same_device};
use siltstone::error::{Error, Kind, Result};
use siltstone::repo::{NewRepository, Repository};
use siltstone::watch::Watch;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Of a long list of sources the first tell whether they are on the disk of the repository.
const SOURCES_ASKED: usize = 100;

/// Opens the repository that is meant; the default one is made when there is none yet.
pub(super) fn open_or_make(
    options: &GlobalOptions,
    sources: &[PathBuf],
    may_make: bool,
    console: &Console,
    watch: &Watch,
) -> Result<Repository> {
    if given_location(options).is_some() {
        return open(options, watch);
    }
    let places = DefaultPlaces::find()?;
    // A first use that was interrupted may have left the folder without a repository.
    let is_there = places.repository.exists()
        && Repository::exists(open_storage(location_of(&places.repository)?, false, options, watch)?.as_ref())?;
    if is_there || !may_make {
        return open(options, watch);
    }
    refuse_lost(&places, options)?;
    refuse_strangers(location_of(&places.repository)?)?;
    let mut credentials = given_locks(options, watch)?;
    let mut key = options.key_file.clone();
    if credentials.is_empty() {
        credentials.key_file = Some(key_file(&places.key, watch)?.0);
        key = Some(places.key.clone());
    }
    make_private_dir(&places.repository)?;
    let storage = open_storage(location_of(&places.repository)?, true, options, watch)?;
    let new = prepare(storage.as_ref(), credentials.clone(), false)?;
    let repository = places.repository.as_os_str().as_bytes();
    let same = sources
        .iter()
        .take(SOURCES_ASKED)
        .any(|source| same_device(source.as_os_str().as_bytes(), repository).unwrap_or(false));
    let text = if console.json() {
        event(&places, key.as_deref(), &new, same)
    } else {
        words(&places, key.as_deref(), &new, same)
    };
    show_and_finish(&text, new)?;
    open_with(storage, &credentials, options, watch)
}

/// Where a repository was before and is missing now, its disk may not be mounted: a second one would grow unseen below the
/// mount point, and the backups of years would seem gone.
fn refuse_lost(places: &DefaultPlaces, options: &GlobalOptions) -> Result<()> {
    let Some(id) = known_at_default(places, options)? else { return Ok(()) };
    let place = places.repository.display();
    let key = places.key.display();
    Err(Error::new(Kind::NotFound, "open the repository", &place)
        .because(format!("repository {} was there at the last run, and now there is none", id.to_hex()))
        .hint(format!(
            "mount the disk of the repository; if the repository is gone for good, create a new one: silt init --repo {place} --key-file {key}"
        )))
}

/// The event of a backup that made its repository.
#[derive(Serialize)]
struct FirstUse<'a> {
    event: &'static str,
    repository: String,
    key_file: Option<String>,
    recovery_key: &'a str,
    /// The repository is on the disk of a source.
    same_disk: bool,
}

fn event(places: &DefaultPlaces, key: Option<&Path>, new: &NewRepository, same_disk: bool) -> String {
    let recovery: &str = &new.recovery_key().to_text();
    let event = FirstUse {
        event: "first-use",
        repository: places.repository.display().to_string(),
        key_file: key.map(|path| path.display().to_string()),
        recovery_key: recovery,
        same_disk,
    };
    json_line(&event) + "\n"
}

fn words(places: &DefaultPlaces, key: Option<&Path>, new: &NewRepository, same_disk: bool) -> String {
    let mut text = format!("First use: creating an encrypted repository in {}\n", places.repository.display());
    if let Some(key) = key {
        text.push_str(&format!("Key file: {}\n", key.display()));
    }
    text.push_str(&recovery_words(new));
    if same_disk {
        let lock = key.map(|key| format!(" --key-file {}", key.display())).unwrap_or_default();
        text.push_str(&format!(
            "Note: the repository is on the same disk as what it protects: if the disk fails, both are lost.\n  \
             For one on another disk: silt init --repo DIR{lock}\n  \
             then: silt backup --repo DIR{lock} …\n",
        ));
    }
    text
}
