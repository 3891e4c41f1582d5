//! Fetch and open snapshots, several at the same time: sealed bodies from the cache, where they are known.

use crate::error::{Error, Kind, Result};
use crate::format::snapshot::{SEALED_SNAPSHOT_BYTES_MAX, SNAPSHOT_BYTES_MAX, SNAPSHOT_PURPOSE, Snapshot};
use crate::format::{SNAPSHOTS_PREFIX, snapshot_name};
use crate::lease::is_of_one_object;
use crate::lock::locked;
use crate::repo::Repository;
use crate::repo::unreadable::UnreadableSnapshot;
use crate::seal::{KeyAccess, KeySet, open_object};
use crate::storage::{ListedObject, Storage};
use crate::vault::kept_files::KeptFiles;
use crate::vault::parallel::each_at_once;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

/// Plain bytes of the snapshots that are kept with all that they say; of others, what names them.
const WHOLE_BYTES_MAX: u64 = 128 << 20;
/// What sealed snapshots take in the cache.
const KEPT_BYTES_MAX: u64 = 128 << 20;
const KEPT_FOLDER: &str = "snapshots";
/// At least this many are opened at the same time: opening one takes a tenth of a millisecond.
const AT_ONCE_MIN: usize = 4;
const LARGE_BYTES_MIN: usize = 256 << 10;

/// Reads snapshots, and bounds what all that it has read take in memory: a host that may add snapshots may add any number of large
/// ones, which take little space in the repository.
pub(super) struct SnapshotReader<'a> {
    repo: &'a Repository,
    /// None for storage that is as near as the cache.
    kept: Option<KeptFiles>,
    /// For how many plain bytes there still is room.
    room: AtomicU64,
    /// Held while a large one is decoded, which takes several times its length.
    large: Mutex<()>,
    fetched: AtomicU64,
}

impl<'a> SnapshotReader<'a> {
    pub(crate) fn new(repo: &'a Repository) -> Self {
        let cache = repo.cache().filter(|_| repo.is_remote());
        let kept = cache.map(|cache| KeptFiles::new(cache.join(KEPT_FOLDER), KEPT_BYTES_MAX));
        SnapshotReader {
            repo,
            kept,
            room: AtomicU64::new(WHOLE_BYTES_MAX),
            large: Mutex::default(),
            fetched: AtomicU64::default(),
        }
    }

    /// How many were fetched from storage.
    pub(crate) fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Relaxed)
    }

    /// Reads these objects, in the order of the listing.
    pub(crate) fn read(&self, listed: &[ListedObject]) -> Vec<Result<Snapshot>> {
        let at_once = self.repo.storage().profile().parallel_requests.max(AT_ONCE_MIN);
        each_at_once(listed, at_once, |object| self.read_one(object))
    }

    fn read_one(&self, object: &ListedObject) -> Result<Snapshot> {
        let name = object.name.as_str();
        if object.size > SEALED_SNAPSHOT_BYTES_MAX {
            return Err(Error::corrupt("read the snapshot", name, "it is too large"));
        }
        // The cache tells objects of one name apart: a forged one may have been there before the true one.
        let file = format!("{}-{:016x}", name.strip_prefix(SNAPSHOTS_PREFIX).unwrap_or(name), object.fingerprint);
        let kept = self.kept.as_ref().filter(|_| object.fingerprint != 0);
        if let Some(kept) = kept
            && let Some(body) = kept.read(&file, object.size as usize)
        {
            match self.open(name, &body) {
                Ok(snapshot) => return Ok(snapshot),
                Err(_) => kept.forget(&file),
            }
        }
        self.fetched.fetch_add(1, Ordering::Relaxed);
        let (body, _) = self.repo.storage().get(name, SEALED_SNAPSHOT_BYTES_MAX)?;
        let snapshot = self.open(name, &body)?;
        if let Some(kept) = kept {
            kept.keep(&file, &[&body]);
        }
        Ok(snapshot)
    }

    pub(super) fn storage(&self) -> &dyn Storage {
        self.repo.storage()
    }

    pub(super) fn keys(&self) -> &KeySet {
        self.repo.keys()
    }

    /// What the failure to read one snapshot means: it cannot be read; or nothing, as it was removed or moved since it was listed; or an
    /// error, as others cannot be read either.
    pub(crate) fn unreadable(&self, name: &str, error: Error) -> Result<Option<UnreadableSnapshot>> {
        match error.kind() {
            Kind::NotFound => Ok(None),
            // A put-only key opens none.
            _ if self.keys().access() < KeyAccess::List => Err(error),
            // One damaged snapshot must not hide the others, whatever its damage looks like; it is reported.
            _ if is_of_one_object(&error) => Ok(Some(UnreadableSnapshot::new(name, error))),
            _ => Err(error),
        }
    }

    /// Opens a sealed snapshot that is, or will be, stored under this name. All of it while there is room, then what names it. That it
    /// is not whole shows, so nothing is deleted or left out because a list is shorter than it was.
    pub(super) fn open(&self, name: &str, body: &[u8]) -> Result<Snapshot> {
        let plain = open_plain(self.repo.keys(), body)?;
        let _one_at_a_time = (plain.len() >= LARGE_BYTES_MIN).then(|| locked(&self.large));
        let snapshot = decode_named(name, &plain)?;
        let take = |room: u64| room.checked_sub(plain.len() as u64);
        if self.room.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok() {
            return Ok(snapshot);
        }
        let too_large =
            || Error::corrupt("list the snapshot", name, "it is too large for a list with so many large ones");
        snapshot.cut_short().ok_or_else(too_large)
    }

    #[cfg(test)]
    pub(crate) fn with_room(self, bytes: u64) -> Self {
        SnapshotReader { room: AtomicU64::new(bytes), ..self }
    }
}

impl Repository {
    /// The snapshot that is stored under this name.
    pub(crate) fn snapshot_named(&self, name: &str) -> Result<Snapshot> {
        let (body, _) = self.storage().get(name, SEALED_SNAPSHOT_BYTES_MAX)?;
        decode_named(name, &open_plain(self.keys(), &body)?)
    }

    /// A snapshot of a list with all that it says, as far as that can be read: the list may have cut it.
    pub(crate) fn whole(&self, listed: Snapshot) -> Snapshot {
        if !listed.may_be_cut_short() {
            return listed;
        }
        let name = listed.started.compact().map(|stamp| snapshot_name(&stamp, &listed.id));
        name.and_then(|name| self.snapshot_named(&name)).unwrap_or(listed)
    }
}

/// Everyone can state that an object was sealed with secrets of a later generation: only what opens is of a newer program.
fn open_plain(keys: &KeySet, body: &[u8]) -> Result<Vec<u8>> {
    let opened = open_object(keys, SNAPSHOT_PURPOSE, body, SNAPSHOT_BYTES_MAX);
    opened.map_err(|error| if error.is(Kind::Unsupported) { error.with_kind(Kind::Corrupt) } else { error })
}

fn decode_named(name: &str, plain: &[u8]) -> Result<Snapshot> {
    let snapshot = Snapshot::decode(plain)?;
    if snapshot_name(&snapshot.started.compact()?, &snapshot.id) == name {
        Ok(snapshot)
    } else {
        Err(Error::corrupt("read the snapshot", name, "it is stored under the name of another snapshot"))
    }
}
