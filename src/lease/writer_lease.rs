//! The right of a writer to commit: created, renewed by each beat, used once by the commit, or withdrawn.

use crate::error::{Error, Kind, Result};
use crate::format::{CommitProtocol, OBJECT_BYTES_MAX};
use crate::id::WriterId;
use crate::lease::pending::{PendingName, PendingState, open, seal};
use crate::lease::publish::{may_have_moved, publish_body, publish_draft};
use crate::seal::KeySet;
use crate::storage::{ObjectVersion, Storage};
use data_encoding::BASE64;

/// A writer's visible right to commit; lost when another process expires it.
pub struct WriterLease {
    name: PendingName,
    host: String,
    started: String,
    beat: u64,
    protocol: CommitProtocol,
    version: Option<ObjectVersion>,
}

/// What a token shows of its writer.
pub struct LeaseHolder<'a> {
    /// The name of the key object that the repository was opened with, without its prefix.
    pub key: &'a str,
    /// The name of the writer.
    pub writer: WriterId,
    /// The host that it runs on.
    pub host: &'a str,
    /// When it began: RFC 3339.
    pub started: String,
}

pub(super) fn lost(writer: &WriterId) -> Error {
    Error::new(Kind::Locked, "commit the snapshot of writer", writer)
        .because("its pending object was removed or replaced by another process")
        .hint("run the backup again: what it has stored already is not sent again")
}

impl WriterLease {
    /// Shows the writer; must happen before it relies on any chunk being there.
    pub fn create(storage: &dyn Storage, keys: &KeySet, protocol: CommitProtocol, shown: LeaseHolder) -> Result<Self> {
        let LeaseHolder { key, writer, host, started } = shown;
        let name = PendingName::new(key, writer);
        let mut token = WriterLease { name, host: host.to_owned(), started, beat: 0, protocol, version: None };
        let body = seal(keys, &token.running(0))?;
        let version = storage.put_new(&token.object_name(), body.into())?;
        token.version = Some(version);
        Ok(token)
    }

    fn running(&self, beat: u64) -> PendingState {
        PendingState::Running { host: self.host.clone(), started: self.started.clone(), beat }
    }

    /// The object that shows it now.
    fn object_name(&self) -> String {
        match self.protocol {
            CommitProtocol::Rename => self.name.token(self.beat),
            CommitProtocol::CompareAndSwap | CommitProtocol::SingleWriter => self.name.state(),
        }
    }

    fn version(&self) -> &ObjectVersion {
        self.version.as_ref().expect("a token has the version that it was created with")
    }

    /// Shows that the writer is alive. `Locked` when it was expired. A failure in between does no harm: the next beat finds
    /// out what came of one whose answer was lost.
    pub fn renew(&mut self, storage: &dyn Storage, keys: &KeySet) -> Result<()> {
        match self.protocol {
            CommitProtocol::Rename => self.renew_by_rename(storage),
            CommitProtocol::CompareAndSwap => {
                let body = seal(keys, &self.running(self.beat + 1))?;
                let version = self.swap_own(storage, keys, body)?;
                self.beat += 1;
                self.version = Some(version);
                Ok(())
            }
            CommitProtocol::SingleWriter => {
                // Expired by its owner's word, it must not come back.
                storage.stat(&self.object_name()).map_err(|error| self.explain(error))?;
                let body = seal(keys, &self.running(self.beat + 1))?;
                storage.put(&self.object_name(), body.into())?;
                self.beat += 1;
                Ok(())
            }
        }
    }

    fn renew_by_rename(&mut self, storage: &dyn Storage) -> Result<()> {
        let next = self.name.token(self.beat + 1);
        match storage.rename(&self.object_name(), &next) {
            Err(error) if may_have_moved(&error) && self.has_moved_to(storage, &next)? => {}
            done => done.map_err(|error| self.explain(error))?,
        }
        self.beat += 1;
        Ok(())
    }

    /// Whether the token stands under another name, as an earlier beat happened though its answer was lost.
    fn has_moved_to(&self, storage: &dyn Storage, name: &str) -> Result<bool> {
        let is_there = |name: &str| match storage.stat(name) {
            Ok(_) => Ok(true),
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            Err(error) => Err(error),
        };
        Ok(!is_there(&self.object_name())? && is_there(name)?)
    }

    /// Replaces the own object conditionally. If it is our own state at a version that we do not know, an earlier beat
    /// succeeded and its answer was lost.
    fn swap_own(&self, storage: &dyn Storage, keys: &KeySet, body: Vec<u8>) -> Result<ObjectVersion> {
        match storage.compare_and_swap(&self.object_name(), self.version(), body.clone().into()) {
            Err(error) if error.is(Kind::Conflict) => match self.own_version(storage, keys)? {
                Some(version) => storage
                    .compare_and_swap(&self.object_name(), &version, body.into())
                    .map_err(|error| self.explain(error)),
                None => Err(self.explain(error)),
            },
            done => done.map_err(|error| self.explain(error)),
        }
    }

    /// The version of the pending object while it is our own running state.
    fn own_version(&self, storage: &dyn Storage, keys: &KeySet) -> Result<Option<ObjectVersion>> {
        let (bytes, version) = match storage.get(&self.object_name(), OBJECT_BYTES_MAX) {
            Err(error) if error.is(Kind::NotFound) => return Ok(None),
            found => found?,
        };
        // What cannot be opened is not ours.
        let is_own = match open(keys, &bytes) {
            Ok(PendingState::Running { host, started, .. }) => host == self.host && started == self.started,
            Ok(_) | Err(_) => false,
        };
        Ok(is_own.then_some(version))
    }

    /// No writer makes the mark of another one's commit.
    fn is_taken(&self) -> Error {
        let name = self.name.committed();
        Error::new(Kind::Failed, "commit the snapshot", "")
            .because(format!("another program made {name}, the mark of this commit"))
            .hint("remove that object from the storage, and run the backup again")
    }

    fn explain(&self, error: Error) -> Error {
        match error.kind() {
            Kind::Conflict | Kind::NotFound => lost(&self.name.writer),
            _ => error,
        }
    }

    /// The commit: afterwards the snapshot exists, whatever happens to this process. Returns what went wrong in moving it
    /// to its place, which anybody can do later.
    pub fn commit(self, storage: &dyn Storage, keys: &KeySet, snapshot: &str, body: Vec<u8>) -> Result<Option<Error>> {
        let published = match self.protocol {
            CommitProtocol::CompareAndSwap => {
                let committed = PendingState::Committed { snapshot: snapshot.to_owned(), body: BASE64.encode(&body) };
                let bytes = seal(keys, &committed)?;
                self.swap_own(storage, keys, bytes)?;
                publish_body(storage, &self.object_name(), snapshot, body)
            }
            CommitProtocol::Rename => {
                let draft = self.name.draft(snapshot);
                if let Err(error) = storage.put(&draft, body.into()) {
                    // Otherwise it would stay as a writer that seems to run.
                    let _best_effort = self.withdraw(storage);
                    return Err(error);
                }
                if let Err(error) = self.rename_to_committed(storage) {
                    // Only when it surely did not happen: if but the answer was lost, the draft is the snapshot.
                    let is_taken = error.is(Kind::AlreadyExists);
                    if is_taken || matches!(error.kind(), Kind::Conflict | Kind::NotFound) {
                        let _best_effort = storage.remove(&draft);
                    }
                    if is_taken {
                        let error = self.is_taken();
                        let _best_effort = self.withdraw(storage);
                        return Err(error);
                    }
                    return Err(self.explain(error));
                }
                publish_draft(storage, &self.name.committed(), &draft, snapshot)
            }
            CommitProtocol::SingleWriter => {
                storage.stat(&self.object_name()).map_err(|error| self.explain(error))?;
                storage.put(snapshot, body.into())?;
                storage.remove(&self.object_name())
            }
        };
        match published {
            Err(error) if error.is(Kind::Stale) => Err(error),
            published => Ok(published.err()),
        }
    }

    /// The token may stand under the name of a beat whose answer was lost.
    fn rename_to_committed(&self, storage: &dyn Storage) -> Result<()> {
        let (committed, next) = (self.name.committed(), self.name.token(self.beat + 1));
        match storage.rename(&self.object_name(), &committed) {
            Err(error) if may_have_moved(&error) && self.has_moved_to(storage, &next)? => {
                storage.rename(&next, &committed)
            }
            done => done,
        }
    }

    /// Withdraws a writer that will not commit.
    pub fn withdraw(self, storage: &dyn Storage) -> Result<()> {
        storage.remove(&self.object_name())?;
        match self.protocol {
            // A beat whose answer was lost may have moved it.
            CommitProtocol::Rename => storage.remove(&self.name.token(self.beat + 1)),
            CommitProtocol::CompareAndSwap | CommitProtocol::SingleWriter => Ok(()),
        }
    }
}
