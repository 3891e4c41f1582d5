//! Pending objects: how a running backup shows itself, and how its commit and its expiry exclude each other.
//!
//! Whoever expires a writer and the writer that commits take the same atomic step on the same object, so exactly one
//! wins, and no clocks of two machines are compared:
//! - `Swap` storage: `pending/W` holds a state; commit replaces `running` by `committed` (which carries the snapshot),
//!   expiry replaces it by `expired`, both conditionally on the version they saw.
//! - `Rename` storage: `pending/W.<beat>` is a token; commit renames it to `pending/W.committed` (after the snapshot was
//!   written to `pending/W.draft`), expiry renames it to `expired/W`.
//!
//! From that step on the snapshot exists; moving it to its place under `snapshots/` can be done by anybody.

use crate::error::{Error, Kind, Result};
use crate::id::WriterId;
use crate::repo::format::{EXPIRED_PREFIX, OBJECT_BYTES_MAX, PENDING_PREFIX, Sharing, pending_name};
use crate::seal::{Audience, KeySet, open_object, seal_object};
use crate::storage::{Storage, Version};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

const PURPOSE: &str = "pending";

/// What a pending object says; readable by every writer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "state")]
pub enum Pending {
    Running {
        host: String,
        started: String,
        beat: u64,
    },
    /// `snapshot` is the name of the object to be, `body` its sealed bytes in base64.
    Committed {
        snapshot: String,
        body: String,
    },
    Expired,
}

/// A writer's visible right to commit; lost when somebody expires it.
pub struct Token {
    writer: WriterId,
    host: String,
    started: String,
    beat: u64,
    sharing: Sharing,
    version: Option<Version>,
}

fn seal(keys: &KeySet, pending: &Pending) -> Result<Vec<u8>> {
    let plain = serde_json::to_vec(pending).expect("plain data serialises");
    seal_object(keys, Audience::Writers, PURPOSE, &plain)
}

fn open(keys: &KeySet, bytes: &[u8]) -> Result<Pending> {
    let plain = open_object(keys, PURPOSE, bytes, OBJECT_BYTES_MAX)?;
    serde_json::from_slice(&plain).map_err(|error| Error::corrupt("read the pending object", "", error))
}

fn lost(writer: &WriterId) -> Error {
    Error::new(Kind::Locked, "commit the snapshot of writer", writer)
        .because("its right to commit was ended by somebody else while it was silent")
        .hint("run the backup again: what it stored is found and not sent twice")
}

impl Token {
    /// Shows the writer; must happen before it relies on any chunk being there.
    pub fn create(
        storage: &dyn Storage,
        keys: &KeySet,
        sharing: Sharing,
        writer: WriterId,
        host: &str,
        started: &str,
    ) -> Result<Self> {
        let mut token =
            Token { writer, host: host.to_owned(), started: started.to_owned(), beat: 0, sharing, version: None };
        let body = seal(keys, &token.running())?;
        let version = storage.put_new(&token.name(), body.into())?;
        token.version = Some(version);
        Ok(token)
    }

    fn running(&self) -> Pending {
        Pending::Running { host: self.host.clone(), started: self.started.clone(), beat: self.beat }
    }

    fn name(&self) -> String {
        match self.sharing {
            Sharing::Rename => token_name(&self.writer, self.beat),
            Sharing::Swap | Sharing::SingleWriter => pending_name(&self.writer),
        }
    }

    fn version(&self) -> &Version {
        self.version.as_ref().expect("a token has the version that it was created with")
    }

    /// Shows that the writer is alive. `Locked` when it was expired.
    pub fn renew(&mut self, storage: &dyn Storage, keys: &KeySet) -> Result<()> {
        let old_name = self.name();
        self.beat += 1;
        let done = match self.sharing {
            Sharing::Rename => storage.rename(&old_name, &self.name()),
            Sharing::Swap => {
                let body = seal(keys, &self.running())?;
                storage.swap(&old_name, self.version(), body.into()).map(|version| self.version = Some(version))
            }
            Sharing::SingleWriter => storage.put(&old_name, seal(keys, &self.running())?.into()).map(|_| ()),
        };
        done.map_err(|error| self.explain(error))
    }

    fn explain(&self, error: Error) -> Error {
        match error.kind() {
            Kind::Conflict | Kind::NotFound => lost(&self.writer),
            _ => error,
        }
    }

    /// The commit: afterwards the snapshot exists, whatever happens to this process.
    pub fn commit(self, storage: &dyn Storage, keys: &KeySet, snapshot: &str, body: Vec<u8>) -> Result<()> {
        match self.sharing {
            Sharing::Swap => {
                let committed = Pending::Committed { snapshot: snapshot.to_owned(), body: BASE64.encode(&body) };
                let bytes = seal(keys, &committed)?;
                storage.swap(&self.name(), self.version(), bytes.into()).map_err(|error| self.explain(error))?;
                publish(storage, &self.name(), snapshot, body)
            }
            Sharing::Rename => {
                let committed = Pending::Committed { snapshot: snapshot.to_owned(), body: BASE64.encode(&body) };
                storage.put(&draft_name(&self.writer), seal(keys, &committed)?.into())?;
                storage.rename(&self.name(), &committed_name(&self.writer)).map_err(|error| self.explain(error))?;
                publish(storage, &committed_name(&self.writer), snapshot, body)?;
                storage.remove(&draft_name(&self.writer))
            }
            Sharing::SingleWriter => publish(storage, &self.name(), snapshot, body),
        }
    }

    /// Withdraws a writer that will not commit.
    pub fn withdraw(self, storage: &dyn Storage) -> Result<()> {
        storage.remove(&self.name())
    }
}

fn publish(storage: &dyn Storage, pending: &str, snapshot: &str, body: Vec<u8>) -> Result<()> {
    storage.put(snapshot, body.into())?;
    storage.remove(pending)
}

fn token_name(writer: &WriterId, beat: u64) -> String {
    format!("{}.{beat:08}", pending_name(writer))
}

fn draft_name(writer: &WriterId) -> String {
    format!("{}.draft", pending_name(writer))
}

fn committed_name(writer: &WriterId) -> String {
    format!("{}.committed", pending_name(writer))
}

/// A snapshot whose commit is done and whose place under `snapshots/` is not yet filled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpublished {
    pub snapshot: String,
    pub body: Vec<u8>,
    pending: String,
    draft: Option<String>,
}

impl Unpublished {
    /// Finishes what the writer began; harmless when several do it.
    pub fn publish(&self, storage: &dyn Storage) -> Result<()> {
        publish(storage, &self.pending, &self.snapshot, self.body.clone())?;
        self.draft.as_ref().map_or(Ok(()), |draft| storage.remove(draft))
    }
}

/// A writer that has not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Running {
    pub writer: WriterId,
    /// What tells one sign of life from the next: compare two looks, never two clocks.
    pub sign: String,
    name: String,
}

/// Looks at all pending objects: who runs, and which commits are not yet in their place.
pub fn survey(storage: &dyn Storage, keys: &KeySet, sharing: Sharing) -> Result<(Vec<Running>, Vec<Unpublished>)> {
    let (mut running, mut unpublished) = (Vec::new(), Vec::new());
    for listed in storage.list(PENDING_PREFIX)? {
        let rest = &listed.name[PENDING_PREFIX.len()..];
        let (hex, tail) = rest.split_once('.').unwrap_or((rest, ""));
        let Ok(writer) = WriterId::from_hex(hex) else { continue };
        let body_name = match (sharing, tail) {
            (Sharing::Rename, "committed") => draft_name(&writer),
            (Sharing::Rename, "draft") => continue,
            (Sharing::Rename, _) => {
                running.push(Running { writer, sign: tail.to_owned(), name: listed.name });
                continue;
            }
            _ => listed.name.clone(),
        };
        let (bytes, version) = match storage.get(&body_name, OBJECT_BYTES_MAX) {
            Ok(got) => got,
            // Somebody finished it between the listing and now.
            Err(error) if error.is(Kind::NotFound) => continue,
            Err(error) => return Err(error),
        };
        match open(keys, &bytes)? {
            Pending::Running { .. } => running.push(Running { writer, sign: version.0, name: listed.name }),
            Pending::Expired => {}
            Pending::Committed { snapshot, body } => {
                let body = BASE64
                    .decode(body.as_bytes())
                    .map_err(|_| Error::corrupt("read the pending object", &listed.name, "its body is damaged"))?;
                let draft = (sharing == Sharing::Rename).then_some(body_name);
                unpublished.push(Unpublished { snapshot, body, pending: listed.name, draft });
            }
        }
    }
    Ok((running, unpublished))
}

/// Ends a writer's right to commit, if it has shown no sign of life since `seen`. `Conflict` when it has, or when it
/// committed: then it keeps its right.
pub fn expire(storage: &dyn Storage, keys: &KeySet, sharing: Sharing, seen: &Running) -> Result<()> {
    let alive = || Error::new(Kind::Conflict, "expire the writer", seen.writer).because("it is alive or has committed");
    let done = match sharing {
        Sharing::Swap => {
            let body = seal(keys, &Pending::Expired)?;
            storage.swap(&seen.name, &Version(seen.sign.clone()), body.into()).map(|_| ())
        }
        Sharing::Rename => storage.rename(&seen.name, &format!("{EXPIRED_PREFIX}{}", seen.writer)),
        Sharing::SingleWriter => storage.remove(&seen.name),
    };
    done.map_err(|error| match error.kind() {
        Kind::Conflict | Kind::NotFound => alive(),
        _ => error,
    })
}
