//! From the words of a location to its storage.

use super::Storage;
use super::local::Local;
use super::retry::Retry;
use super::s3::{S3, S3Location};
use super::throttle::Delayed;
use crate::error::{Error, Result};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

/// A bench aid: milliseconds by which every request to the storage takes longer, as if it were far away.
const DELAY_VARIABLE: &str = "SILT_DELAY_MS";

/// Opens the storage at a path or URL; with `create`, an empty folder may be made (a bucket is never made).
pub fn open(location: &str, create: bool) -> Result<Arc<dyn Storage>> {
    open_trusting(location, create, None)
}

/// The same; over https it trusts the authorities in `ca_file` instead of the system's, if that is given.
pub fn open_trusting(location: &str, create: bool, ca_file: Option<&Path>) -> Result<Arc<dyn Storage>> {
    let local = |path: &str| -> Result<Arc<dyn Storage>> {
        let path = Path::new(path);
        Ok(Arc::new(if create { Local::create(path)? } else { Local::open(path)? }))
    };
    let known = "known are a path, file://, s3://, s3+https:// and s3+http://";
    let storage: Arc<dyn Storage> = match location.split_once("://") {
        None => match scheme_of(location) {
            None => local(location)?,
            Some(scheme) => {
                let why = format!("no storage is called {}:", scheme.escape_debug());
                let hint = format!("{known}; a folder of that name is written ./{location}");
                return Err(Error::invalid("open the storage", "", why).hint(hint));
            }
        },
        Some(("file", path)) => local(path)?,
        Some(("s3" | "s3+http" | "s3+https", _)) => {
            let s3 = delayed(Arc::new(S3::open(&S3Location::parse(location)?, ca_file)?))?;
            return Ok(Arc::new(Retry::new(s3)));
        }
        Some((scheme, _)) => {
            let why = format!("no storage is called {}://", scheme.escape_debug());
            return Err(Error::invalid("open the storage", "", why).hint(known));
        }
    };
    delayed(storage)
}

/// What stands before a colon like a scheme or a host: hardly the name of a folder, which a slash before it would tell.
fn scheme_of(location: &str) -> Option<&str> {
    let (scheme, _) = location.split_once(':')?;
    (!scheme.is_empty() && !scheme.contains('/')).then_some(scheme)
}

fn delayed(storage: Arc<dyn Storage>) -> Result<Arc<dyn Storage>> {
    match std::env::var(DELAY_VARIABLE) {
        Ok(text) if !text.is_empty() => {
            let bad = |error| Error::invalid("understand", DELAY_VARIABLE, error);
            let delay = Duration::from_millis(text.parse().map_err(|error: std::num::ParseIntError| bad(error))?);
            Ok(Arc::new(Delayed::new(storage, delay)))
        }
        _ => Ok(storage),
    }
}
