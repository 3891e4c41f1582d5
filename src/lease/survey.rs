//! Look at all pending objects: which writers run, and which commits are not in their place yet.

use crate::error::{Error, Kind, Result};
use crate::format::snapshot::SEALED_SNAPSHOT_BYTES_MAX;
use crate::format::{
    CommitProtocol, EXPIRED_PREFIX, OBJECT_BYTES_MAX, PENDING_PREFIX, SNAPSHOTS_PREFIX, is_snapshot_name,
};
use crate::id::WriterId;
use crate::lease::pending::{
    PENDING_BYTES_IN_ALL_MAX, PENDING_BYTES_MAX, PendingName, PendingState, decode_body, open_plain, parse, seal,
};
use crate::lease::publish::UnpublishedCommit;
use crate::seal::KeySet;
use crate::storage::{ListedObject, ObjectVersion, Storage};
use crate::vault::parallel::each_at_once;
use std::collections::BTreeMap;

/// How many states are fetched together, and how many bytes of them.
const FETCHED_MAX: usize = 256;
const FETCHED_BYTES_MAX: u64 = 32 << 20;

/// A writer that has not committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunningWriter {
    /// The name of the writer.
    pub writer: WriterId,
    /// What tells one heartbeat from the next: compare two looks, never two clocks.
    pub beat_seen: String,
    name: String,
}

/// What the pending objects say.
#[derive(Debug, Default)]
pub struct PendingSurvey {
    /// Writers that have not committed.
    pub running: Vec<RunningWriter>,
    /// Commits that are not yet in their place.
    pub unpublished: Vec<UnpublishedCommit>,
    /// `.committed` objects beside which no draft was listed: as a rule their snapshots are in place.
    pub finished: Vec<String>,
    /// Objects that could not be read; they must not hide the others.
    pub damaged: Vec<Error>,
    /// Objects that were not read, as all together are too large.
    pub unread: Vec<Error>,
    /// What they opened to, together.
    plain_bytes: u64,
}

/// Looks at all pending objects: which writers run, and which commits are not yet in their place. An object's name says by which protocol
/// it was made: the repository may have moved to another storage since.
pub fn survey(storage: &dyn Storage, keys: &KeySet) -> Result<PendingSurvey> {
    let mut survey = PendingSurvey::default();
    let listed = storage.list(PENDING_PREFIX)?;
    let mut states = Vec::new();
    for object in &listed {
        // Every user with the right to create objects may create these: what no writer makes is not fetched.
        if object.size > PENDING_BYTES_MAX {
            survey.damaged.push(Error::corrupt("read the pending object", &object.name, "it is too large"));
            continue;
        }
        let Some((name, tail)) = PendingName::parse(&object.name) else { continue };
        let looked = match tail {
            "" => {
                states.push((name, object.size));
                Ok(())
            }
            "committed" => look_at_drafts(&name, &listed, &mut survey),
            tail if tail.starts_with("draft.") => Ok(()),
            beat => {
                let (beat_seen, name, writer) = (beat.to_owned(), object.name.clone(), name.writer);
                survey.running.push(RunningWriter { writer, beat_seen, name });
                Ok(())
            }
        };
        match looked {
            // Somebody finished it between the listing and now.
            Err(error) if error.is(Kind::NotFound) => {}
            Err(error) if is_of_one_object(&error) => survey.damaged.push(error),
            other => other?,
        }
    }
    look_at_states(storage, keys, &states, &mut survey)?;
    // The first one that opens counts, by its name and not by its protocol.
    survey.unpublished.sort_by(|a, b| a.object().cmp(b.object()));
    Ok(survey)
}

/// Fetches the states of writers, several at a time, and looks at them in the order of their names.
fn look_at_states(
    storage: &dyn Storage,
    keys: &KeySet,
    states: &[(PendingName, u64)],
    survey: &mut PendingSurvey,
) -> Result<()> {
    let mut rest = states;
    while let Some((_, first)) = rest.first() {
        let mut bytes = *first;
        let fits = |(_, size): &&(PendingName, u64)| {
            bytes += size;
            bytes <= FETCHED_BYTES_MAX
        };
        let count = 1 + rest[1..].iter().take(FETCHED_MAX - 1).take_while(fits).count();
        let (batch, later) = rest.split_at(count);
        rest = later;
        let at_once = storage.profile().parallel_requests;
        let fetched = each_at_once(batch, at_once, |(name, _)| storage.get(&name.state(), OBJECT_BYTES_MAX));
        for ((name, size), fetched) in batch.iter().zip(fetched) {
            if survey.plain_bytes + size > PENDING_BYTES_IN_ALL_MAX {
                let why = "all pending objects together are larger than 256 MiB: it was not read";
                survey.unread.push(Error::corrupt("read the pending object", name.state(), why));
                continue;
            }
            match fetched.and_then(|fetched| {
                let (bytes, version) = fetched;
                look_at_state(keys, name, &bytes, version, survey)
            }) {
                // Another process finished it between the listing and now.
                Err(error) if error.is(Kind::NotFound) => {}
                Err(error) if is_of_one_object(&error) => {
                    let named = Error::new(error.kind(), "read the pending object", name.state());
                    survey.damaged.push(named.because(error));
                }
                other => other?,
            }
        }
    }
    Ok(())
}

/// Whether an error says something of the object that was read, and not of the storage as a whole. One object that cannot
/// be read must not hide the others.
pub(crate) fn is_of_one_object(error: &Error) -> bool {
    matches!(
        error.kind(),
        Kind::Corrupt | Kind::Denied | Kind::WrongKey | Kind::Invalid | Kind::Unsupported | Kind::Failed
    )
}

/// A commit by renaming. Every user with the right to create objects can put a second draft beside the true one: each is listed, and
/// none of them is moved.
fn look_at_drafts(name: &PendingName, listed: &[ListedObject], survey: &mut PendingSurvey) -> Result<()> {
    let prefix = name.draft("");
    let mut drafts = drafts_of(listed, &prefix).peekable();
    if drafts.peek().is_none() {
        survey.finished.push(name.committed());
        return Ok(());
    }
    for draft in drafts {
        let bad = |why: &str| Error::corrupt("read the draft of a commit", &draft.name, why);
        let snapshot = format!("{SNAPSHOTS_PREFIX}{}", &draft.name[prefix.len()..]);
        if !is_snapshot_name(&snapshot) {
            survey.damaged.push(bad("it does not name a snapshot"));
        } else if draft.size > SEALED_SNAPSHOT_BYTES_MAX {
            survey.damaged.push(bad("it is too large"));
        } else {
            let (pending, draft) = (name.committed(), Some(draft.name.clone()));
            survey.unpublished.push(UnpublishedCommit { snapshot, pending, draft });
        }
    }
    Ok(())
}

fn look_at_state(
    keys: &KeySet,
    name: &PendingName,
    bytes: &[u8],
    version: ObjectVersion,
    survey: &mut PendingSurvey,
) -> Result<()> {
    let (state, writer) = (name.state(), name.writer);
    let plain = open_plain(keys, bytes)?;
    survey.plain_bytes += plain.len() as u64;
    match parse(&plain)? {
        PendingState::Running { .. } => {
            survey.running.push(RunningWriter { writer, beat_seen: version.0, name: state })
        }
        PendingState::Expired => {}
        PendingState::Committed { snapshot, body } => {
            decode_body(&snapshot, &body)?;
            survey.unpublished.push(UnpublishedCommit { snapshot, pending: state, draft: None });
        }
    }
    Ok(())
}

/// Finishes the commits of writers that died after their commit step. Returns what could not be finished; nothing is lost by that, as
/// every reader counts those snapshots.
pub fn settle(storage: &dyn Storage, keys: &KeySet, survey: &PendingSurvey) -> Vec<Error> {
    let (mut by_name, mut by_mark) = (CommitGroups::new(), CommitGroups::new());
    for commit in &survey.unpublished {
        by_name.entry(&commit.snapshot).or_default().push(commit);
        by_mark.entry(&commit.pending).or_default().push(commit);
    }
    let published = by_name.values().flat_map(|claims| {
        // Of drafts beside one mark of a commit only one is what the writer committed.
        let rival =
            claims.iter().find_map(|claim| by_mark[claim.pending.as_str()].iter().find(|other| *other != claim));
        match rival.map_or_else(|| find_contradiction(claims, storage, keys), |rival| Ok(Some(*rival))) {
            Ok(None) => claims.iter().map(|claim| claim.publish(storage, keys)).collect::<Vec<_>>(),
            Ok(Some(other)) => {
                let against =
                    |claim: &&UnpublishedCommit| if *claim == other { claims[0].object() } else { other.object() };
                claims.iter().map(|claim| Err(claim.contradicts(against(claim)))).collect()
            }
            Err(error) => vec![Err(error)],
        }
    });
    let published: Vec<Result<()>> = published.collect();
    let removed = remove_finished(storage, &survey.finished).err();
    published.into_iter().filter_map(Result::err).chain(removed).collect()
}

/// Commits that can be only one: by the name of their snapshot, or by the mark of their commit.
type CommitGroups<'a> = BTreeMap<&'a str, Vec<&'a UnpublishedCommit>>;

/// The first of these claims to one name whose bytes are not those of the first claim.
fn find_contradiction<'a>(
    claims: &[&'a UnpublishedCommit],
    storage: &dyn Storage,
    keys: &KeySet,
) -> Result<Option<&'a UnpublishedCommit>> {
    let Some((first, others)) = claims.split_first().filter(|(_, others)| !others.is_empty()) else { return Ok(None) };
    let body = first.body(storage, keys)?;
    for other in others {
        if other.body(storage, keys)? != body {
            return Ok(Some(other));
        }
    }
    Ok(None)
}

/// A draft is written before its `.committed`: one that a second listing does not show either has moved to its place.
/// The first may have begun before there was a draft.
fn remove_finished(storage: &dyn Storage, marks: &[String]) -> Result<()> {
    if marks.is_empty() {
        return Ok(());
    }
    let listed = storage.list(PENDING_PREFIX)?;
    let has_draft = |mark: &&String| {
        let writer = mark.strip_suffix(".committed").unwrap_or(mark);
        drafts_of(&listed, &format!("{writer}.draft.")).next().is_some()
    };
    let finished: Vec<&String> = marks.iter().filter(|mark| !has_draft(mark)).collect();
    let at_once = storage.profile().parallel_requests;
    each_at_once(&finished, at_once, |mark| storage.remove(mark)).into_iter().collect()
}

/// The listed objects whose names begin like this; listings are sorted.
fn drafts_of<'l>(listed: &'l [ListedObject], prefix: &'l str) -> impl Iterator<Item = &'l ListedObject> {
    let first = listed.partition_point(|object| object.name.as_str() < prefix);
    listed[first..].iter().take_while(move |object| object.name.starts_with(prefix))
}

/// Ends a writer's right to commit, if it has shown no heartbeat since `seen`. `Conflict` when it has, or when it
/// committed: then it keeps its right.
pub fn expire(storage: &dyn Storage, keys: &KeySet, protocol: CommitProtocol, seen: &RunningWriter) -> Result<()> {
    let alive = || Error::new(Kind::Conflict, "expire the writer", seen.writer).because("it is alive or has committed");
    let done = match protocol {
        CommitProtocol::CompareAndSwap => {
            let body = seal(keys, &PendingState::Expired)?;
            storage.compare_and_swap(&seen.name, &ObjectVersion(seen.beat_seen.clone()), body.into()).map(|_| ())
        }
        CommitProtocol::Rename => storage.rename(&seen.name, &format!("{EXPIRED_PREFIX}{}", seen.writer)),
        CommitProtocol::SingleWriter => storage.remove(&seen.name),
    };
    done.map_err(|error| match error.kind() {
        Kind::Conflict | Kind::NotFound => alive(),
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use data_encoding::BASE64;

    use crate::lease::pending::{PendingName, PendingState, open, seal};
    use crate::seal::{Recipients, Secret, seal_object};
    use crate::storage::memory::Memory;

    const SNAPSHOT: &str = "snapshots/20260101t000000z-00000000000000000000000000000001";

    fn name(writer: u8) -> PendingName {
        PendingName::new("00112233445566ff", WriterId([writer; 16]))
    }

    fn committed(snapshot: &str, body: String) -> PendingState {
        PendingState::Committed { snapshot: snapshot.to_owned(), body }
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
            storage.put(&name(number as u8).state(), sealed.into()).expect("it is put");
        }
        let survey = survey(&storage, &keys).expect("a survey");
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
            storage.put(&name(1).committed(), Vec::new().into()).expect("it is put");
            storage.put(&name(1).draft(snapshot), vec![0; bytes].into()).expect("it is put");
            let survey = survey(&storage, &keys).expect("a survey");
            assert_eq!((survey.unpublished.len() == 1, survey.damaged.is_empty()), (is_sound, is_sound), "{survey:?}");
        }
    }

    /// Of three claims to one snapshot, two that agreed were moved into its place, although the third one may be the true one.
    #[test]
    fn none_of_three_claims_is_moved_while_one_of_them_differs() {
        let keys = KeySet::from_master(Secret([5; 32]));
        let sealed = |text: &str| seal_object(&keys, Recipients::SnapshotReaders, "snapshot", text.as_bytes()).unwrap();
        let of_text: BTreeMap<&str, Vec<u8>> = ["a", "b", "c"].map(|text| (text, sealed(text))).into();
        for bodies in [["a", "a", "b"], ["a", "b", "a"], ["b", "a", "a"], ["a", "b", "c"], ["a", "a", "a"]] {
            let storage = Memory::new();
            for (writer, body) in bodies.iter().enumerate() {
                let state = committed(SNAPSHOT, BASE64.encode(&of_text[body]));
                storage.put(&name(writer as u8).state(), seal(&keys, &state).unwrap().into()).unwrap();
            }
            let settled = || settle(&storage, &keys, &survey(&storage, &keys).unwrap());
            let (errors, left) = (settled(), storage.list(PENDING_PREFIX).unwrap().len());
            if bodies == ["a"; 3] {
                assert_eq!((errors.len(), left), (0, 0), "{errors:?}");
                assert_eq!(storage.get(SNAPSHOT, 999).unwrap().0, of_text["a"]);
                continue;
            }
            assert_eq!((errors.len(), left), (3, 3), "{bodies:?}: {errors:?}");
            assert!(storage.get(SNAPSHOT, 999).is_err(), "{bodies:?}");
            // The wrong ones are removed, and the rest moves.
            for (writer, _) in bodies.iter().enumerate().filter(|(_, body)| **body != "a") {
                storage.remove(&name(writer as u8).state()).unwrap();
            }
            assert_eq!(settled().len(), 0);
            assert_eq!(storage.get(SNAPSHOT, 999).unwrap().0, of_text["a"]);
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
