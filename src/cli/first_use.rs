//! The repository of whoever configured nothing: made on first use, found again later.

use super::init::{key_file, prepare, recovery_words, show_and_finish};
use super::open::{
    Places, cache_folder, given_credentials, given_location, limited, location_of, open_limited, open_storage,
};
use super::options::GlobalOptions;
use super::output::Console;
use serde_json::json;
use siltstone::disk::device::same_device;
use siltstone::disk::whole::make_private_dir;
use siltstone::error::Result;
use siltstone::repo::{NewRepository, Repository};
use siltstone::watch::Watch;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Of a long list of sources the first tell whether they are on the disk of the repository.
const SOURCES_ASKED: usize = 100;

/// Opens the repository that is meant; the default one is made when there is none yet.
pub fn open_or_make(
    options: &GlobalOptions,
    sources: &[PathBuf],
    may_make: bool,
    limit_upload: Option<u64>,
    console: &Console,
    watch: &Watch,
) -> Result<Repository> {
    if given_location(options).is_some() {
        return open_limited(options, limit_upload, watch);
    }
    let places = Places::find()?;
    // A first use that was interrupted may have left the folder without a repository.
    let is_there = places.repository.exists()
        && Repository::exists(open_storage(location_of(&places.repository)?, false, options)?.as_ref())?;
    if is_there || !may_make {
        return open_limited(options, limit_upload, watch);
    }
    let mut credentials = given_credentials(options)?;
    credentials.recovery = None;
    let mut key = options.key_file.clone();
    if credentials.is_empty() {
        credentials.key_file = Some(key_file(&places.key)?.0);
        key = Some(places.key.clone());
    }
    make_private_dir(&places.repository)?;
    let storage = open_storage(location_of(&places.repository)?, true, options)?;
    let new = prepare(storage.as_ref(), credentials.clone(), false)?;
    let repository = places.repository.as_os_str().as_bytes();
    let same = sources
        .iter()
        .take(SOURCES_ASKED)
        .any(|source| same_device(source.as_os_str().as_bytes(), repository).unwrap_or(false));
    let text = match console.json() {
        true => event(&places, key.as_deref(), &new, same),
        false => words(&places, key.as_deref(), &new, same),
    };
    show_and_finish(&text, new)?;
    Repository::open(limited(storage, limit_upload), &credentials, &cache_folder(options)?, watch)
}

fn event(places: &Places, key: Option<&Path>, new: &NewRepository, same_disk: bool) -> String {
    let recovery: &str = &new.recovery_key().to_text();
    let event = json!({
        "event": "first-use",
        "repository": places.repository.display().to_string(),
        "key_file": key.map(|path| path.display().to_string()),
        "recovery_key": recovery,
        "same_disk": same_disk,
    });
    format!("{event}\n")
}

fn words(places: &Places, key: Option<&Path>, new: &NewRepository, same_disk: bool) -> String {
    let mut text = format!("First use: making an encrypted repository in {}\n", places.repository.display());
    if let Some(key) = key {
        text.push_str(&format!("Key file: {}\n", key.display()));
    }
    text.push_str(&recovery_words(new));
    if same_disk {
        text.push_str(
            "Note: the repository lies on the same disk as its source, and is lost with it when the disk fails.\n  \
             Choose another place with --repo.\n",
        );
    }
    text
}
