//! From the words of a location to its storage. Folders only, until the other storages land.

use super::{Abilities, Storage, local::Local};
use crate::error::{Error, Kind, Result};
use std::path::Path;
use std::sync::Arc;

/// Opens the storage at a path or URL; with `create`, an empty one may be made.
pub fn open(location: &str, create: bool) -> Result<Arc<dyn Storage>> {
    let path = match location.split_once("://") {
        Some(("file", path)) => Path::new(path),
        Some((scheme, _)) => {
            return Err(Error::new(Kind::Unsupported, "open the storage", "")
                .because(format!("this program knows no {scheme}:// storage yet")));
        }
        None => Path::new(location),
    };
    Ok(Arc::new(if create { Local::create(path)? } else { Local::open(path)? }))
}

/// What a storage really does.
pub fn probe(storage: &dyn Storage) -> Result<Abilities> {
    Ok(storage.abilities())
}
