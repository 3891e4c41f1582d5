//! Parses the location of a repository and opens its storage.

use super::Storage;
use super::local::Local;
use super::retry::{RETRY_FOR, Retry, open_patiently};
use super::s3::{self, S3Defaults, S3Location};
use super::throttle::{Delayed, Throttle};
use crate::error::{Error, Result};
use crate::watch::Watch;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// How a storage is reached, and how patiently.
pub struct StorageAccess<'a> {
    /// Over https, trusts the authorities in this file instead of the system's.
    pub ca_file: Option<&'a Path>,
    /// How long a request that failed for a temporary reason is retried; zero is not at all.
    pub retry_for: Duration,
    /// Bytes a second; none is as fast as it goes.
    pub limit_upload: Option<u64>,
    /// See `limit_upload`.
    pub limit_download: Option<u64>,
    /// What the location of a bucket leaves open.
    pub s3: S3Defaults,
    /// For measuring: how much longer each request takes, as if the storage were far away.
    pub delay: Duration,
    /// Receives notices about outages; its cancel ends every request.
    pub watch: Watch,
}

impl Default for StorageAccess<'_> {
    fn default() -> Self {
        StorageAccess {
            ca_file: None,
            retry_for: RETRY_FOR,
            limit_upload: None,
            limit_download: None,
            s3: S3Defaults::default(),
            delay: Duration::ZERO,
            watch: Watch::silent(),
        }
    }
}

/// Opens the storage at a path or URL. With `create`, a missing directory is created; a bucket never is.
pub fn open_location(location: &str, create: bool, access: &StorageAccess) -> Result<Arc<dyn Storage>> {
    let mut storage = open_patiently(access.retry_for, &access.watch, || open_bare(location, create, access))?;
    if !access.delay.is_zero() {
        storage = Arc::new(Delayed::new(storage, access.delay));
    }
    let storage: Arc<dyn Storage> = match (access.limit_upload, access.limit_download) {
        (None, None) => storage,
        (upload, download) => Arc::new(Throttle::new(storage, upload, download).with_cancel(&access.watch.cancel)),
    };
    Ok(Arc::new(Retry::patient(storage, access.retry_for, &access.watch)))
}

fn open_bare(location: &str, create: bool, access: &StorageAccess) -> Result<Arc<dyn Storage>> {
    match parse(location)? {
        StoragePlace::Folder(path) => Ok(Arc::new(if create { Local::create(path)? } else { Local::open(path)? })),
        StoragePlace::Bucket => {
            let location = S3Location::parse(location)?;
            Ok(Arc::new(s3::open(&location, &access.s3, access.ca_file, &access.watch.cancel)?))
        }
    }
}

enum StoragePlace<'a> {
    Folder(&'a Path),
    Bucket,
}

/// The folder that a location names, if it names one.
pub fn folder_of(location: &str) -> Result<Option<&Path>> {
    match parse(location)? {
        StoragePlace::Folder(path) => Ok(Some(path)),
        StoragePlace::Bucket => Ok(None),
    }
}

fn parse(location: &str) -> Result<StoragePlace<'_>> {
    let known = "write a path, or a URL that begins with file://, s3://, s3+https:// or s3+http://";
    if location.is_empty() {
        return Err(Error::invalid("open the storage", "", "the location is empty").hint(known));
    }
    match location.split_once("://") {
        None => match scheme_of(location) {
            None => Ok(StoragePlace::Folder(Path::new(location))),
            Some(scheme) => {
                let why = format!("there is no kind of storage called {}:", scheme.escape_debug());
                let hint = format!("{known}; for a directory of that name, write ./{location}");
                Err(Error::invalid("open the storage", "", why).hint(hint))
            }
        },
        Some(("file", path)) => Ok(StoragePlace::Folder(Path::new(path))),
        Some(("s3" | "s3+http" | "s3+https", _)) => Ok(StoragePlace::Bucket),
        Some((scheme, _)) => {
            let why = format!("there is no kind of storage called {}://", scheme.escape_debug());
            Err(Error::invalid("open the storage", "", why).hint(known))
        }
    }
}

/// The part before a colon, if it looks like a scheme: a directory of such a name must be written with a slash (`./name:…`).
fn scheme_of(location: &str) -> Option<&str> {
    let (scheme, _) = location.split_once(':')?;
    (!scheme.is_empty() && !scheme.contains('/')).then_some(scheme)
}
