//! Store objects: the trait [`Storage`], its kinds (local directory, S3, memory), and wrappers that retry, throttle and inject faults.
//!
//! An object has a name of `[a-z0-9._-]` segments joined by `/`, is written whole or not at all and is small enough to
//! be held in memory (packs are the largest). No backend knows chunks, keys or the repository.

use crate::error::{Error, Result};
use bytes::Bytes;
pub use chaos::StorageCall;
pub use files::Files;
pub use local::LocalTree;
pub use s3::S3Keys;
use std::time::Duration;

pub(crate) mod chaos;
mod files;
mod forward;
pub(crate) mod local;
pub(crate) mod location;
pub(crate) mod memory;
mod object_errors;
mod objects;
mod outage;
pub(crate) mod probe;
pub(crate) mod retry;
pub(crate) mod s3;
pub(crate) mod throttle;
mod tls;

pub use chaos::{Chaos, ChaosRates, CrashPoint, CrashSide};
pub use local::{Local, stranger_in};
pub use location::{StorageAccess, folder_of, open_location};
pub use memory::Memory;
pub use probe::probe;
pub use retry::{RETRY_FOR, Retry};
pub use s3::S3Defaults;
pub use throttle::{Delayed, Throttle};

/// The bytes of an object to be written, in pieces, so that a pack is not copied to be sent.
#[derive(Clone, Debug, Default)]
pub struct ObjectBody(pub Vec<Bytes>);

impl ObjectBody {
    pub(crate) fn len(&self) -> u64 {
        self.0.iter().map(|piece| piece.len() as u64).sum()
    }

    /// All pieces joined.
    pub fn to_vec(&self) -> Vec<u8> {
        self.0.concat()
    }
}

impl From<Vec<u8>> for ObjectBody {
    fn from(bytes: Vec<u8>) -> Self {
        ObjectBody(vec![Bytes::from(bytes)])
    }
}

impl From<&[u8]> for ObjectBody {
    fn from(bytes: &[u8]) -> Self {
        ObjectBody(vec![Bytes::copy_from_slice(bytes)])
    }
}

/// Tells one state of an object from the next (an ETag, a generation); only for comparing within one storage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectVersion(pub String);

/// What a storage knows of an object without reading it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectStat {
    /// Bytes.
    pub size: u64,
    /// Changes whenever the bytes do.
    pub version: ObjectVersion,
    /// Tells one writing of an object from the next, even where the bytes and so the version are the same, as far as the
    /// storage records that; empty where it does not.
    pub written: String,
}

/// An object in a listing.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ListedObject {
    /// The whole name, prefix included.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// Differs if the object was replaced (by its etag, and the time of the last change); 0 if a listing does not tell.
    pub fingerprint: u64,
}

/// What a storage does atomically. [`probe()`] finds out which of the claims hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Capabilities {
    /// `put_new` never replaces an object, even if two clients race.
    pub put_new: bool,
    /// `compare_and_swap` replaces only the expected version.
    pub compare_and_swap: bool,
    /// `rename` moves an object in one step, and if two clients move one object, one of them fails.
    pub rename: bool,
}

/// What a storage promises, and how it is best used. Each backend states this, and the tests of all backends check it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StorageProfile {
    /// Requests travel over a network: each takes long, may fail for a while, and what it reads is worth caching.
    pub is_remote: bool,
    /// How many requests at the same time use the line well.
    pub parallel_requests: usize,
    /// What was put survives a power cut once the call has returned.
    pub is_durable: bool,
    /// How long a listing may lack what was put, or show what was removed, before the listing began.
    pub listing_delay: Duration,
}

impl StorageProfile {
    /// A disk or the memory of this machine.
    pub const LOCAL: StorageProfile =
        StorageProfile { is_remote: false, parallel_requests: 1, is_durable: true, listing_delay: Duration::ZERO };
    /// A server that lists what was written before, as S3 does.
    pub const REMOTE: StorageProfile =
        StorageProfile { is_remote: true, parallel_requests: 8, ..StorageProfile::LOCAL };
}

/// Where objects are kept. Every call blocks, may be made from many threads at once and is complete when it returns. What was put
/// can then be read by every client, and is durable if [`StorageProfile::is_durable`] says so.
pub trait Storage: Send + Sync {
    /// The location for people, without secrets.
    fn describe(&self) -> String;

    /// Tells this location from any other, also where [`describe`](Self::describe) depends on how it was named. Never shown.
    fn identity(&self) -> String {
        self.describe()
    }

    /// What it does atomically.
    fn capabilities(&self) -> Capabilities;

    /// What it promises, and how it is best used.
    fn profile(&self) -> StorageProfile;

    /// The folder of the storage on this machine; `None` for all other storage.
    fn local_path(&self) -> Option<&std::path::Path> {
        None
    }

    /// Writes the whole object, replacing what is there.
    fn put(&self, name: &str, body: ObjectBody) -> Result<()>;

    /// Writes the whole object if there is none of that name; else `AlreadyExists`.
    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion>;

    /// Replaces the object if it is still at `expected`; else `Conflict` (`NotFound` when it is gone).
    /// `Unsupported` without [`Capabilities::compare_and_swap`].
    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion>;

    /// Moves an object in one step; `NotFound` when `from` is not there, `AlreadyExists` when `to` is.
    /// `Unsupported` without [`Capabilities::rename`].
    fn rename(&self, from: &str, to: &str) -> Result<()>;

    /// The whole object; `NotFound`. Refuses (`Corrupt`) an object of more than `bytes_max` before reading it.
    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)>;

    /// The same, read from the medium itself and not from a copy in the memory of this machine, where there is a choice.
    fn get_uncached(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        self.get(name, bytes_max)
    }

    /// Exactly `length` bytes from `offset`; fewer there is `Corrupt`.
    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>>;

    /// Every object whose name starts with `prefix` (which ends in `/` or is empty), sorted by name. Leftovers of
    /// unfinished writes are not objects.
    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>>;

    /// Those of [`list`](Self::list) whose names are greater than `after` and not greater than `until`, if it is given. Long listings
    /// are sooner done in several such parts at the same time, where a request returns a limited number of names.
    fn list_between(&self, prefix: &str, after: &str, until: Option<&str>) -> Result<Vec<ListedObject>> {
        let mut listed = self.list(prefix)?;
        listed.retain(|object| object.name.as_str() > after && until.is_none_or(|until| object.name.as_str() <= until));
        Ok(listed)
    }

    /// Removes the object; it is not an error if there is none.
    fn remove(&self, name: &str) -> Result<()>;

    /// `NotFound` when there is none.
    fn stat(&self, name: &str) -> Result<ObjectStat>;
}

/// The longest object name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 200;

/// Refuses names that a backend could take for something else.
pub(crate) fn check_name(name: &str) -> Result<()> {
    let bad = |why: &str| Err(Error::invalid("use the object name", name.escape_debug(), why.to_owned()));
    if name.is_empty() || name.len() > NAME_BYTES_MAX {
        return bad("it is empty or too long");
    }
    for segment in name.split('/') {
        if segment.is_empty() || segment.starts_with('.') {
            return bad("a segment is empty or starts with a dot");
        }
        if !segment.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b)) {
            return bad("only a-z, 0-9, '.', '_' and '-' are allowed");
        }
    }
    Ok(())
}
