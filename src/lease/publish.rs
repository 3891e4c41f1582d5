//! Move a committed snapshot to its place: the writer does it after its commit, or another process after the writer died.

use crate::error::{Error, Kind, Result};
use crate::format::OBJECT_BYTES_MAX;
use crate::format::snapshot::{SEALED_SNAPSHOT_BYTES_MAX, SNAPSHOT_BYTES_MAX, SNAPSHOT_PURPOSE};
use crate::lease::pending::{PendingState, decode_body, open};
use crate::seal::{KeyAccess, KeySet, open_object};
use crate::storage::Storage;

/// Publishes a commit made with [`CommitProtocol::CompareAndSwap`](crate::format::CommitProtocol): the body is in the pending object.
pub(super) fn publish_body(storage: &dyn Storage, pending: &str, snapshot: &str, body: Vec<u8>) -> Result<()> {
    match storage.put_new(snapshot, body.clone().into()) {
        Ok(_) => storage.remove(pending),
        Err(error) if error.is(Kind::AlreadyExists) => {
            if is_published(storage, snapshot, &body)? {
                storage.remove(pending)
            } else {
                Ok(())
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether the object in the place of a snapshot certainly is that snapshot: every user with the right to create objects can create one of
/// that name. An error if it is another one. Then, and while it is not certain, the pending object stays: it may be the only copy.
pub(super) fn is_published(storage: &dyn Storage, snapshot: &str, body: &[u8]) -> Result<bool> {
    let is_same = match storage.get(snapshot, body.len() as u64) {
        Ok((found, _)) => found == body,
        // A longer one.
        Err(error) if error.is(Kind::Corrupt) => false,
        // This user may create and not read; a user who may read removes the pending object.
        Err(error) if error.is(Kind::Denied) => return Ok(false),
        Err(error) => return Err(error),
    };
    if is_same {
        Ok(true)
    } else {
        Err(Error::new(Kind::Conflict, "move the snapshot to", snapshot)
            .because("another object has its name")
            .hint("delete that object: the snapshot is read from its pending object until then"))
    }
}

/// Publishes a commit made with [`CommitProtocol::Rename`](crate::format::CommitProtocol): the body is the draft, which moves in one step and
/// never comes back.
pub(super) fn publish_draft(storage: &dyn Storage, committed: &str, draft: &str, snapshot: &str) -> Result<()> {
    let moved = match storage.rename(draft, snapshot) {
        // The draft is still there if another object was created in its place.
        Err(error) if error.is(Kind::AlreadyExists) => match storage.get(draft, SEALED_SNAPSHOT_BYTES_MAX) {
            Ok((body, _)) => {
                if is_published(storage, snapshot, &body)? {
                    return storage.remove(draft).and_then(|()| storage.remove(committed));
                } else {
                    return Ok(());
                }
            }
            Err(error) => Err(error),
        },
        done => done,
    };
    match moved {
        Ok(()) => storage.remove(committed),
        // Somebody moved it, if it is there.
        Err(error) if error.is(Kind::NotFound) => {
            storage.stat(snapshot).map_err(|missing| match missing.kind() {
                Kind::NotFound => undone(snapshot),
                _ => missing,
            })?;
            storage.remove(committed)
        }
        Err(error) => Err(error),
    }
}

/// The commit step was done, and then somebody took it back with the rest of the repository.
pub(super) fn undone(snapshot: &str) -> Error {
    Error::new(Kind::Stale, "commit", snapshot)
        .because("the repository was replaced by an older copy at the same moment")
        .hint("run the backup again")
}

/// Whether a move that failed with this error may be due to an earlier one.
pub(super) fn may_have_moved(error: &Error) -> bool {
    error.is(Kind::NotFound) || error.is(Kind::AlreadyExists)
}

/// A snapshot whose commit is done and whose place under `snapshots/` is not yet filled. Its body is read when it is needed:
/// all of them together may be more than the memory of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnpublishedCommit {
    /// The name of the snapshot object.
    pub snapshot: String,
    pub(super) pending: String,
    pub(super) draft: Option<String>,
}

impl UnpublishedCommit {
    /// Finishes what the writer began; harmless when several do it. What does not open is not moved, if the key can tell.
    pub fn publish(&self, storage: &dyn Storage, keys: &KeySet) -> Result<()> {
        let mut opened = None;
        if keys.access() >= KeyAccess::List {
            let body = self.body(storage, keys)?;
            open_object(keys, SNAPSHOT_PURPOSE, &body, SNAPSHOT_BYTES_MAX).map_err(|error| self.unreadable(error))?;
            opened = Some(body);
        }
        let body = || opened.map_or_else(|| self.body(storage, keys), Ok);
        match &self.draft {
            Some(draft) if storage.capabilities().rename => {
                publish_draft(storage, &self.pending, draft, &self.snapshot)
            }
            // The repository has moved to this storage since.
            Some(draft) => {
                publish_body(storage, draft, &self.snapshot, body()?)?;
                match storage.stat(draft) {
                    Err(error) if error.is(Kind::NotFound) => storage.remove(&self.pending),
                    kept => kept.map(|_| ()),
                }
            }
            None => publish_body(storage, &self.pending, &self.snapshot, body()?),
        }
    }

    /// The object that holds the snapshot.
    pub(super) fn object(&self) -> &str {
        self.draft.as_ref().unwrap_or(&self.pending)
    }

    /// The error for a commit that cannot be read, which keeps its kind.
    pub(crate) fn unreadable(&self, error: Error) -> Error {
        let why = format!("{}: {}", self.object(), error.why());
        Error::new(error.kind(), "read the commit of", &self.snapshot).because(why)
    }

    /// The error for two objects that claim to be one snapshot: every user with the right to create objects can make such a claim.
    pub(crate) fn contradicts(&self, other: &str) -> Error {
        let why = format!("{} and {other} claim to be this snapshot, and differ", self.object());
        Error::corrupt("use the snapshot", &self.snapshot, why)
            .hint("compare both with what the host of the snapshot reported, and remove the wrong one from the storage")
    }

    /// The sealed snapshot, which somebody may have moved to its place meanwhile.
    pub fn body(&self, storage: &dyn Storage, keys: &KeySet) -> Result<Vec<u8>> {
        let in_its_place = |name: &str| storage.get(name, SEALED_SNAPSHOT_BYTES_MAX).map(|(bytes, _)| bytes);
        let pending = match &self.draft {
            Some(draft) => in_its_place(draft),
            None => self.body_of_state(storage, keys),
        };
        match pending {
            Err(error) if error.is(Kind::NotFound) => in_its_place(&self.snapshot),
            pending => pending,
        }
    }

    fn body_of_state(&self, storage: &dyn Storage, keys: &KeySet) -> Result<Vec<u8>> {
        let (bytes, _) = storage.get(&self.pending, OBJECT_BYTES_MAX)?;
        match open(keys, &bytes)? {
            PendingState::Committed { snapshot, body } if snapshot == self.snapshot => decode_body(&snapshot, &body),
            _ => Err(Error::new(Kind::NotFound, "read the commit of", &self.snapshot)),
        }
    }
}
