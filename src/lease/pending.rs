//! Pending objects: how a running backup shows itself, and how its commit and its expiry exclude each other.
//!
//! Whoever expires a writer and the writer that commits take the same atomic step on the same object, so exactly one
//! wins, and no clocks of two machines are compared:
//! - `Swap` storage: `pending/W` holds a state; commit replaces `running` by `committed` (which carries the snapshot),
//!   expiry replaces it by `expired`, both conditionally on the version they saw.
//! - `Rename` storage: `pending/W.<beat>` is a token; commit renames it to `pending/W.committed` (after the snapshot was
//!   written to `pending/W.draft.<its name>`), expiry renames it to `expired/W`.
//!
//! From that step on the snapshot exists; moving it to its place under `snapshots/` can be done by anybody.

use crate::error::{Error, Kind, Result};
use crate::format::snapshot::{SEALED_SNAPSHOT_BYTES_MAX, SNAPSHOT_BYTES_MAX};
use crate::format::{
    EXPIRED_PREFIX, OBJECT_BYTES_MAX, PENDING_PREFIX, SNAPSHOTS_PREFIX, Sharing, is_snapshot_name, pending_name,
};
use crate::id::WriterId;
use crate::seal::{Audience, KeySet, open_object, seal_object};
use crate::storage::{Listed, Storage, Version};
use data_encoding::BASE64;
use serde::{Deserialize, Serialize};

const PURPOSE: &str = "pending";
/// A commit carries a snapshot, sealed and then in base64.
const PENDING_BYTES_MAX: u64 = SNAPSHOT_BYTES_MAX * 3 / 2;
/// What is read of all pending objects together, as plain bytes.
const PENDING_BYTES_IN_ALL_MAX: u64 = 256 << 20;
/// Plain bytes that any object may open to, beyond twice its stored ones: a sealed body does not compress, but what base64
/// adds to it. A few bytes must not unfold into many.
const PENDING_BYTES_FREE: u64 = 64 << 10;

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

fn plain_bytes_max(stored_bytes: u64) -> u64 {
    stored_bytes.saturating_mul(2).saturating_add(PENDING_BYTES_FREE).min(PENDING_BYTES_MAX)
}

fn open(keys: &KeySet, bytes: &[u8]) -> Result<Pending> {
    parse(&open_plain(keys, bytes)?)
}

fn open_plain(keys: &KeySet, bytes: &[u8]) -> Result<Vec<u8>> {
    open_object(keys, PURPOSE, bytes, plain_bytes_max(bytes.len() as u64))
}

fn parse(plain: &[u8]) -> Result<Pending> {
    serde_json::from_slice(plain).map_err(|error| Error::corrupt("read the pending object", "", error))
}

/// The sealed snapshot of a commit, if it can be one.
fn decode_body(snapshot: &str, body: &str) -> Result<Vec<u8>> {
    let bad = |why: &str| Error::corrupt("read the commit of", snapshot, why);
    if !is_snapshot_name(snapshot) {
        return Err(bad("this is not the name of a snapshot"));
    }
    let body = BASE64.decode(body.as_bytes()).map_err(|_| bad("its body is damaged"))?;
    if body.len() as u64 <= SEALED_SNAPSHOT_BYTES_MAX { Ok(body) } else { Err(bad("its body is too large")) }
}

fn lost(writer: &WriterId) -> Error {
    Error::new(Kind::Locked, "commit the snapshot of writer", writer)
        .because("another process declared this backup dead, as it had not renewed its pending object for too long")
        .hint("run the backup again: what it has stored already is not sent again")
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
        let body = seal(keys, &token.running(0))?;
        let version = storage.put_new(&token.name(), body.into())?;
        token.version = Some(version);
        Ok(token)
    }

    fn running(&self, beat: u64) -> Pending {
        Pending::Running { host: self.host.clone(), started: self.started.clone(), beat }
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

    /// Shows that the writer is alive. `Locked` when it was expired. A failure in between is no loss: what came of a beat
    /// whose answer was lost is looked up at the next one.
    pub fn renew(&mut self, storage: &dyn Storage, keys: &KeySet) -> Result<()> {
        match self.sharing {
            Sharing::Rename => self.renew_by_rename(storage),
            Sharing::Swap => {
                let body = seal(keys, &self.running(self.beat + 1))?;
                let version = self.swap_own(storage, keys, body)?;
                self.beat += 1;
                self.version = Some(version);
                Ok(())
            }
            Sharing::SingleWriter => {
                // Expired by its owner's word, it must not come back.
                storage.stat(&self.name()).map_err(|error| self.explain(error))?;
                let body = seal(keys, &self.running(self.beat + 1))?;
                storage.put(&self.name(), body.into())?;
                self.beat += 1;
                Ok(())
            }
        }
    }

    fn renew_by_rename(&mut self, storage: &dyn Storage) -> Result<()> {
        let next = token_name(&self.writer, self.beat + 1);
        match storage.rename(&self.name(), &next) {
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
        Ok(!is_there(&self.name())? && is_there(name)?)
    }

    /// Replaces the own object conditionally. A version that nobody else wrote, but that is not the one we know, is of a
    /// beat of ours whose answer was lost.
    fn swap_own(&self, storage: &dyn Storage, keys: &KeySet, body: Vec<u8>) -> Result<Version> {
        match storage.compare_and_swap(&self.name(), self.version(), body.clone().into()) {
            Err(error) if error.is(Kind::Conflict) => match self.own_version(storage, keys)? {
                Some(version) => {
                    storage.compare_and_swap(&self.name(), &version, body.into()).map_err(|error| self.explain(error))
                }
                None => Err(self.explain(error)),
            },
            done => done.map_err(|error| self.explain(error)),
        }
    }

    /// The version of the pending object while it is our own running state.
    fn own_version(&self, storage: &dyn Storage, keys: &KeySet) -> Result<Option<Version>> {
        let (bytes, version) = match storage.get(&self.name(), OBJECT_BYTES_MAX) {
            Err(error) if error.is(Kind::NotFound) => return Ok(None),
            found => found?,
        };
        // What cannot be opened is not ours.
        let is_own = match open(keys, &bytes) {
            Ok(Pending::Running { host, started, .. }) => host == self.host && started == self.started,
            Ok(_) | Err(_) => false,
        };
        Ok(is_own.then_some(version))
    }

    fn explain(&self, error: Error) -> Error {
        match error.kind() {
            Kind::Conflict | Kind::NotFound => lost(&self.writer),
            _ => error,
        }
    }

    /// The commit: afterwards the snapshot exists, whatever happens to this process. Returns what went wrong in moving it
    /// to its place, which anybody can do later.
    pub fn commit(self, storage: &dyn Storage, keys: &KeySet, snapshot: &str, body: Vec<u8>) -> Result<Option<Error>> {
        let published = match self.sharing {
            Sharing::Swap => {
                let committed = Pending::Committed { snapshot: snapshot.to_owned(), body: BASE64.encode(&body) };
                let bytes = seal(keys, &committed)?;
                self.swap_own(storage, keys, bytes)?;
                publish_body(storage, &self.name(), snapshot, body)
            }
            Sharing::Rename => {
                let draft = draft_name(&self.writer, snapshot);
                if let Err(error) = storage.put(&draft, body.into()) {
                    // It must not stay behind as a writer that seems to run.
                    let _best_effort = self.withdraw(storage);
                    return Err(error);
                }
                if let Err(error) = self.rename_to_committed(storage) {
                    // Only when it surely did not happen: if but the answer was lost, the draft is the snapshot.
                    if matches!(error.kind(), Kind::Conflict | Kind::NotFound) {
                        let _best_effort = storage.remove(&draft);
                    }
                    return Err(self.explain(error));
                }
                publish_draft(storage, &committed_name(&self.writer), &draft, snapshot)
            }
            Sharing::SingleWriter => {
                storage.stat(&self.name()).map_err(|error| self.explain(error))?;
                storage.put(snapshot, body.into())?;
                storage.remove(&self.name())
            }
        };
        match published {
            Err(error) if error.is(Kind::Stale) => Err(error),
            published => Ok(published.err()),
        }
    }

    /// The token may stand under the name of a beat whose answer was lost.
    fn rename_to_committed(&self, storage: &dyn Storage) -> Result<()> {
        let (committed, next) = (committed_name(&self.writer), token_name(&self.writer, self.beat + 1));
        match storage.rename(&self.name(), &committed) {
            Err(error) if may_have_moved(&error) && self.has_moved_to(storage, &next)? => {
                storage.rename(&next, &committed)
            }
            done => done,
        }
    }

    /// Withdraws a writer that will not commit.
    pub fn withdraw(self, storage: &dyn Storage) -> Result<()> {
        storage.remove(&self.name())?;
        match self.sharing {
            // A beat whose answer was lost may have moved it.
            Sharing::Rename => storage.remove(&token_name(&self.writer, self.beat + 1)),
            Sharing::Swap | Sharing::SingleWriter => Ok(()),
        }
    }
}

/// `Swap`: the body stands in the pending object.
fn publish_body(storage: &dyn Storage, pending: &str, snapshot: &str, body: Vec<u8>) -> Result<()> {
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

/// Whether the object in the place of a snapshot certainly is that snapshot: anybody who may create objects can create one of that
/// name. An error if it is another one. Then, and while it is not certain, the pending object stays: it may be the only copy.
fn is_published(storage: &dyn Storage, snapshot: &str, body: &[u8]) -> Result<bool> {
    let is_same = match storage.get(snapshot, body.len() as u64) {
        Ok((found, _)) => found == body,
        // A longer one.
        Err(error) if error.is(Kind::Corrupt) => false,
        // This user may create and not read; somebody who may read removes the pending object.
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

/// `Rename`: the body is the draft, which moves in one step and never comes back.
fn publish_draft(storage: &dyn Storage, committed: &str, draft: &str, snapshot: &str) -> Result<()> {
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
fn undone(snapshot: &str) -> Error {
    Error::new(Kind::Stale, "commit", snapshot)
        .because("the repository was replaced by an older copy at the same moment")
        .hint("run the backup again")
}

/// Whether a move that failed with this error may be due to an earlier one.
fn may_have_moved(error: &Error) -> bool {
    error.is(Kind::NotFound) || error.is(Kind::AlreadyExists)
}

fn token_name(writer: &WriterId, beat: u64) -> String {
    format!("{}.{beat:08}", pending_name(writer))
}

/// Carries the name of the snapshot to be, `snapshots/` left out.
fn draft_name(writer: &WriterId, snapshot: &str) -> String {
    let place = snapshot.strip_prefix(SNAPSHOTS_PREFIX).unwrap_or(snapshot);
    format!("{}.draft.{place}", pending_name(writer))
}

fn committed_name(writer: &WriterId) -> String {
    format!("{}.committed", pending_name(writer))
}

/// A snapshot whose commit is done and whose place under `snapshots/` is not yet filled. Its body is read when it is needed:
/// all of them together may be more than the memory of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unpublished {
    pub snapshot: String,
    pending: String,
    draft: Option<String>,
}

impl Unpublished {
    /// Finishes what the writer began; harmless when several do it.
    pub fn publish(&self, storage: &dyn Storage, keys: &KeySet) -> Result<()> {
        match &self.draft {
            Some(draft) => publish_draft(storage, &self.pending, draft, &self.snapshot),
            None => publish_body(storage, &self.pending, &self.snapshot, self.body(storage, keys)?),
        }
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
            Pending::Committed { snapshot, body } if snapshot == self.snapshot => decode_body(&snapshot, &body),
            _ => Err(Error::new(Kind::NotFound, "read the commit of", &self.snapshot)),
        }
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

/// What the pending objects say.
#[derive(Debug, Default)]
pub struct Survey {
    pub running: Vec<Running>,
    /// Commits that are not yet in their place.
    pub unpublished: Vec<Unpublished>,
    /// `.committed` objects beside which no draft was listed: as a rule their snapshots are in place.
    pub finished: Vec<String>,
    /// Objects that could not be read; they must not hide the others.
    pub damaged: Vec<Error>,
    /// What they opened to, together.
    plain_bytes: u64,
}

/// Looks at all pending objects: who runs, and which commits are not yet in their place.
pub fn survey(storage: &dyn Storage, keys: &KeySet, sharing: Sharing) -> Result<Survey> {
    let mut survey = Survey::default();
    let listed = storage.list(PENDING_PREFIX)?;
    for object in &listed {
        // Anybody who may create objects may create these: what no writer makes is not fetched.
        if object.size > PENDING_BYTES_MAX || survey.plain_bytes + object.size > PENDING_BYTES_IN_ALL_MAX {
            survey.damaged.push(Error::corrupt("read the pending object", &object.name, "it is too large"));
            continue;
        }
        let Some(rest) = object.name.strip_prefix(PENDING_PREFIX) else { continue };
        let (hex, tail) = rest.split_once('.').unwrap_or((rest, ""));
        let Ok(writer) = WriterId::from_hex(hex) else { continue };
        let looked = match (sharing, tail) {
            (Sharing::Rename, "committed") => look_at_draft(&writer, &object.name, &listed, &mut survey),
            (Sharing::Rename, tail) if tail.starts_with("draft.") => Ok(()),
            (Sharing::Rename, beat) => {
                survey.running.push(Running { writer, sign: beat.to_owned(), name: object.name.clone() });
                Ok(())
            }
            _ => look_at_state(storage, keys, writer, &object.name, &mut survey),
        };
        match looked {
            // Somebody finished it between the listing and now.
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) if is_of_one_object(&error) => survey.damaged.push(error),
            other => other?,
        }
    }
    Ok(survey)
}

/// Whether an error says something of the object that was read, and not of the storage as a whole. One object that cannot
/// be read must not hide the others.
pub(crate) fn is_of_one_object(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::Corrupt | Kind::Denied | Kind::WrongKey | Kind::Invalid | Kind::Unsupported | Kind::Failed
    )
}

fn look_at_draft(writer: &WriterId, committed: &str, listed: &[Listed], survey: &mut Survey) -> Result<()> {
    let prefix = draft_name(writer, "");
    let Some(draft) = listed.iter().find(|object| object.name.starts_with(&prefix)) else {
        survey.finished.push(committed.to_owned());
        return Ok(());
    };
    let bad = |why: &str| Err(Error::corrupt("read the draft of a commit", &draft.name, why));
    let snapshot = format!("{SNAPSHOTS_PREFIX}{}", &draft.name[prefix.len()..]);
    if !is_snapshot_name(&snapshot) {
        return bad("it does not name a snapshot");
    }
    if draft.size > SEALED_SNAPSHOT_BYTES_MAX {
        return bad("it is too large");
    }
    let (pending, draft) = (committed.to_owned(), Some(draft.name.clone()));
    survey.unpublished.push(Unpublished { snapshot, pending, draft });
    Ok(())
}

fn look_at_state(
    storage: &dyn Storage,
    keys: &KeySet,
    writer: WriterId,
    name: &str,
    survey: &mut Survey,
) -> Result<()> {
    let (bytes, version) = storage.get(name, OBJECT_BYTES_MAX)?;
    let plain = open_plain(keys, &bytes)?;
    survey.plain_bytes += plain.len() as u64;
    match parse(&plain)? {
        Pending::Running { .. } => survey.running.push(Running { writer, sign: version.0, name: name.to_owned() }),
        Pending::Expired => {}
        Pending::Committed { snapshot, body } => {
            decode_body(&snapshot, &body)?;
            survey.unpublished.push(Unpublished { snapshot, pending: name.to_owned(), draft: None });
        }
    }
    Ok(())
}

/// Finishes what writers began that died behind their commit step; returns what could not be finished, which is no loss:
/// every reader counts those snapshots.
pub fn settle(storage: &dyn Storage, keys: &KeySet, survey: &Survey) -> Vec<Error> {
    let published = survey.unpublished.iter().map(|unpublished| unpublished.publish(storage, keys));
    let removed = survey.finished.iter().map(|committed| remove_finished(storage, committed));
    published.chain(removed).filter_map(Result::err).collect()
}

/// A draft is written before its `.committed`: one that a second listing does not show either has moved to its place.
/// The first may have begun before there was a draft.
fn remove_finished(storage: &dyn Storage, committed: &str) -> Result<()> {
    let writer = committed.strip_suffix(".committed").unwrap_or(committed);
    let draft = format!("{writer}.draft.");
    if storage.list(PENDING_PREFIX)?.iter().any(|listed| listed.name.starts_with(&draft)) {
        Ok(())
    } else {
        storage.remove(committed)
    }
}

/// Ends a writer's right to commit, if it has shown no sign of life since `seen`. `Conflict` when it has, or when it
/// committed: then it keeps its right.
pub fn expire(storage: &dyn Storage, keys: &KeySet, sharing: Sharing, seen: &Running) -> Result<()> {
    let alive = || Error::new(Kind::Conflict, "expire the writer", seen.writer).because("it is alive or has committed");
    let done = match sharing {
        Sharing::Swap => {
            let body = seal(keys, &Pending::Expired)?;
            storage.compare_and_swap(&seen.name, &Version(seen.sign.clone()), body.into()).map(|_| ())
        }
        Sharing::Rename => storage.rename(&seen.name, &format!("{EXPIRED_PREFIX}{}", seen.writer)),
        Sharing::SingleWriter => storage.remove(&seen.name),
    };
    done.map_err(|error| match error.kind() {
        Kind::Conflict | Kind::NotFound => alive(),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::Secret;
    use crate::storage::memory::Memory;

    const SNAPSHOT: &str = "snapshots/20260101t000000z-00000000000000000000000000000001";

    fn committed(snapshot: &str, body: String) -> Pending {
        Pending::Committed { snapshot: snapshot.to_owned(), body }
    }

    /// Each of 79 MiB of one letter, sealed in 3 KB, was kept decoded: thirty of them took 1.9 GiB.
    #[test]
    fn commits_that_no_writer_makes_are_damaged_and_hide_no_other() {
        let keys = KeySet::from_master(Secret([5; 32]));
        let storage = Memory::new();
        let body: Vec<u8> = blake3::Hasher::new().finalize_xof().take_bytes(100_000);
        let cases = [
            ("unfolds", committed(SNAPSHOT, "A".repeat(1 << 20)), false),
            ("has another name", committed("snapshots/elsewhere", BASE64.encode(b"x")), false),
            ("is no base64", committed(SNAPSHOT, "?".to_owned()), false),
            ("is sound", committed(SNAPSHOT, BASE64.encode(&body)), true),
        ];
        for (number, (_, pending, _)) in cases.iter().enumerate() {
            let sealed = seal(&keys, pending).expect("it is sealed");
            storage.put(&pending_name(&WriterId([number as u8; 16])), sealed.into()).expect("it is put");
        }
        let survey = survey(&storage, &keys, Sharing::Swap).expect("a survey");
        let sound = cases.iter().filter(|(_, _, is_sound)| *is_sound).count();
        assert_eq!((survey.damaged.len(), survey.unpublished.len()), (cases.len() - sound, sound), "{survey:?}");
        assert_eq!(survey.unpublished[0].body(&storage, &keys).expect("its body"), body);
        assert!(survey.plain_bytes < 200_000, "what unfolds is not opened: {}", survey.plain_bytes);
    }

    #[test]
    fn the_largest_snapshot_that_compresses_least_can_be_committed() {
        let keys = KeySet::from_master(Secret([5; 32]));
        let body = blake3::Hasher::new().finalize_xof().take_bytes(SEALED_SNAPSHOT_BYTES_MAX as usize);
        let pending = committed(SNAPSHOT, BASE64.encode(&body));
        let sealed = seal(&keys, &pending).expect("it is sealed");
        assert_eq!(open(&keys, &sealed).expect("it opens"), pending);
    }

    /// A draft was fetched although its listed size had been called too large.
    #[test]
    fn drafts_are_refused_by_their_listed_size_and_name() {
        let keys = KeySet::from_master(Secret([5; 32]));
        for (snapshot, bytes, is_sound) in [
            (SNAPSHOT, SEALED_SNAPSHOT_BYTES_MAX as usize, true),
            (SNAPSHOT, SEALED_SNAPSHOT_BYTES_MAX as usize + 1, false),
            ("snapshots/elsewhere", 10, false),
        ] {
            let storage = Memory::new();
            let writer = WriterId([1; 16]);
            storage.put(&committed_name(&writer), Vec::new().into()).expect("it is put");
            storage.put(&draft_name(&writer, snapshot), vec![0; bytes].into()).expect("it is put");
            let survey = survey(&storage, &keys, Sharing::Rename).expect("a survey");
            assert_eq!((survey.unpublished.len() == 1, survey.damaged.is_empty()), (is_sound, is_sound), "{survey:?}");
        }
    }

    trait Take {
        fn take_bytes(self, length: usize) -> Vec<u8>;
    }

    impl Take for blake3::OutputReader {
        fn take_bytes(mut self, length: usize) -> Vec<u8> {
            let mut bytes = vec![0; length];
            self.fill(&mut bytes);
            bytes
        }
    }
}
