//! Commit against expiry: the first one wins, a committed snapshot is always listed, and never twice.

use crate::fixture::{
    self, KEY, RENAMES, SWAPS, memory, open, options, plant, protocol_of, restored_differences, show,
};
use siltstone::browse::Filter;
use siltstone::error::{Error, Kind, Result};
use siltstone::format::CommitProtocol;
use siltstone::forward_storage;
use siltstone::id::WriterId;
use siltstone::lease::{RunningWriter, expire, settle, survey};
use siltstone::repo::{Repository, Snapshot};
use siltstone::seal::{Recipients, seal_object};
use siltstone::storage::{CrashPoint, CrashSide, ListedObject, Memory, ObjectBody, ObjectStat, ObjectVersion, Storage};
use siltstone::watch::{Event, Watch};
use siltstone::when::Selector;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Condvar, Mutex};

/// Two actors share it; each storage call waits until the schedule says that it is that actor's turn.
struct Stage {
    turns: Mutex<Vec<usize>>,
    moved: Condvar,
    ended: Mutex<[bool; 2]>,
}

impl Stage {
    /// The turns in order; an actor that finds none left goes on freely.
    fn new(mut turns: Vec<usize>) -> Arc<Self> {
        turns.reverse();
        Arc::new(Stage { turns: Mutex::new(turns), moved: Condvar::new(), ended: Mutex::default() })
    }

    fn step<T>(&self, actor: usize, act: impl FnOnce() -> T) -> T {
        let mut turns = self.turns.lock().expect("no actor panics on stage");
        while turns.last().is_some_and(|turn| *turn != actor) {
            let other_ended = self.ended.lock().expect("no actor panics on stage")[1 - actor];
            if other_ended {
                turns.retain(|turn| *turn == actor);
                continue;
            }
            turns = self.moved.wait(turns).expect("no actor panics on stage");
        }
        turns.pop();
        // The call is made while the turn is held: one at a time, as scheduled.
        let done = act();
        self.moved.notify_all();
        done
    }

    fn end(&self, actor: usize) {
        let _turns = self.turns.lock().expect("no actor panics on stage");
        self.ended.lock().expect("no actor panics on stage")[actor] = true;
        self.moved.notify_all();
    }
}

/// One actor's view of the storage.
struct Actor {
    inner: Memory,
    stage: Arc<Stage>,
    number: usize,
}

impl Storage for Actor {
    forward_storage!(self => self.inner; describe, capabilities, profile);

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        self.stage.step(self.number, || self.inner.put(name, body))
    }
    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        self.stage.step(self.number, || self.inner.put_new(name, body))
    }
    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
        self.stage.step(self.number, || self.inner.compare_and_swap(name, expected, body))
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.stage.step(self.number, || self.inner.rename(from, to))
    }
    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        self.stage.step(self.number, || self.inner.get(name, bytes_max))
    }
    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.stage.step(self.number, || self.inner.get_range(name, offset, length))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        self.stage.step(self.number, || self.inner.list(prefix))
    }
    fn remove(&self, name: &str) -> Result<()> {
        self.stage.step(self.number, || self.inner.remove(name))
    }
    fn stat(&self, name: &str) -> Result<ObjectStat> {
        self.stage.step(self.number, || self.inner.stat(name))
    }
}

/// Every order of this many calls of the first actor and of the second.
fn schedules(first: usize, second: usize) -> Vec<Vec<usize>> {
    if first == 0 || second == 0 {
        return vec![[vec![0; first], vec![1; second]].concat()];
    }
    let begin = |actor: usize, rest: Vec<Vec<usize>>| rest.into_iter().map(move |rest| [vec![actor], rest].concat());
    begin(0, schedules(first - 1, second)).chain(begin(1, schedules(first, second - 1))).collect()
}

const WRITER: WriterId = WriterId([7; 16]);
const SNAPSHOT: &str = "snapshots/20260101t000000z-00000000000000000000000000000001";

/// Looks once and expires whatever runs, giving whether it won.
fn expire_all(storage: &dyn Storage, repo: &Repository, protocol: CommitProtocol) -> Result<bool> {
    let running = survey(storage, repo.keys())?.running;
    let mut won = false;
    for seen in running {
        match expire(storage, repo.keys(), protocol, &seen) {
            Ok(()) => won = true,
            Err(error) if error.is(Kind::Conflict) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(won)
}

/// The commit of one token against one expiry, in one order of their calls.
fn race(repo: &Repository, base: &Memory, protocol: CommitProtocol, schedule: &[usize], renews: bool) {
    let case = format!("{protocol:?}, {schedule:?}, renews: {renews}");
    let storage = base.fork();
    let mut token = show(&storage, repo.keys(), protocol, WRITER).expect("it shows itself");
    let stage = Stage::new(schedule.to_vec());
    let actor = |number| Actor { inner: storage.clone(), stage: stage.clone(), number };
    let (writer, collector) = (actor(0), actor(1));
    let (committed, expired) = std::thread::scope(|scope| {
        let commit = scope.spawn(|| {
            let renewed = if renews { token.renew(&writer, repo.keys()) } else { Ok(()) };
            let done = renewed.and_then(|()| token.commit(&writer, repo.keys(), SNAPSHOT, b"body".to_vec()));
            stage.end(0);
            done
        });
        let expiry = scope.spawn(|| {
            let done = expire_all(&collector, repo, protocol);
            stage.end(1);
            done
        });
        (commit.join().expect("it ends"), expiry.join().expect("it ends"))
    });
    let expired = expired.unwrap_or_else(|error| panic!("{case}: the expiry failed: {error:?}"));
    match &committed {
        Ok(_) => assert!(!expired, "{case}: both won"),
        Err(error) => assert!(error.is(Kind::Locked) && expired, "{case}: nobody won: {error:?}"),
    }
    let looked = survey(&storage, repo.keys()).expect("it is surveyed");
    let (running, unpublished) = (looked.running, looked.unpublished);
    assert!(running.is_empty() && unpublished.is_empty(), "{case}: left behind: {running:?} {unpublished:?}");
    assert_eq!(storage.stat(SNAPSHOT).is_ok(), committed.is_ok(), "{case}");
}

#[test]
fn of_commit_and_expiry_exactly_one_wins_in_every_order_of_their_calls() {
    for (capabilities, protocol) in [(SWAPS, CommitProtocol::CompareAndSwap), (RENAMES, CommitProtocol::Rename)] {
        let base = memory(capabilities);
        let cache = tempfile::tempdir().expect("a folder");
        let repo = open(Arc::new(base.clone()), cache.path()).expect("it opens");
        for schedule in schedules(6, 4) {
            for renews in [false, true] {
                race(&repo, &base, protocol, &schedule, renews);
            }
        }
    }
}

/// Runs an expiry of all writers right before one mutating call of a backup.
struct Meddler {
    inner: Memory,
    calls: Mutex<u64>,
    at: u64,
    keys: Mutex<Option<Repository>>,
    won: Mutex<bool>,
    lists: Mutex<Vec<String>>,
}

impl Meddler {
    fn new(inner: Memory, at: u64) -> Arc<Self> {
        Arc::new(Meddler {
            inner,
            calls: Mutex::new(0),
            at,
            keys: Mutex::default(),
            won: Mutex::default(),
            lists: Mutex::default(),
        })
    }

    fn meddle(&self) {
        let mut calls = self.calls.lock().expect("whole");
        if let Some(repo) = self.keys.lock().expect("whole").as_ref() {
            if *calls == self.at {
                let won = expire_all(&self.inner, repo, protocol_of(repo)).expect("an expiry");
                *self.won.lock().expect("whole") = won;
            }
            *calls += 1;
        }
    }
}

impl Storage for Meddler {
    forward_storage!(self => self.inner; describe, capabilities, profile, get, get_range, stat);

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        self.meddle();
        self.inner.put(name, body)
    }
    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        self.meddle();
        self.inner.put_new(name, body)
    }
    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
        self.meddle();
        self.inner.compare_and_swap(name, expected, body)
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.meddle();
        self.inner.rename(from, to)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        self.lists.lock().expect("whole").push(prefix.to_owned());
        self.inner.list(prefix)
    }
    fn remove(&self, name: &str) -> Result<()> {
        self.meddle();
        self.inner.remove(name)
    }
}

#[test]
fn a_backup_that_is_expired_at_any_call_shows_itself_anew_and_commits_once() {
    let source = tempfile::tempdir().expect("a folder");
    plant(source.path(), 1);
    for capabilities in [SWAPS, RENAMES] {
        let (mut expired, mut at) = (0, 0);
        loop {
            let case = format!("{capabilities:?}, expired before call {at}");
            let inner = memory(capabilities);
            let meddler = Meddler::new(inner.clone(), at);
            let cache = tempfile::tempdir().expect("a folder");
            let repo = open(meddler.clone(), cache.path()).expect("it opens");
            *meddler.keys.lock().expect("whole") = Some(repo.clone());
            let report = repo.backup(options(source.path()), &Watch::silent());
            report.unwrap_or_else(|error| panic!("{case}: {error:?}"));
            let calls = *meddler.calls.lock().expect("whole");
            *meddler.keys.lock().expect("whole") = None;
            let snapshots = fixture::snapshots(&repo);
            assert_eq!(snapshots.len(), 1, "{case}");
            let found = restored_differences(&repo, &snapshots[0], source.path(), source.path()).expect("it restores");
            assert!(found.is_empty(), "{case}: {found:?}");
            expired += u32::from(*meddler.won.lock().expect("whole"));
            at += 1;
            if at > calls {
                break;
            }
        }
        assert!(expired >= 3, "{capabilities:?}: only {expired} of {at} expiries won");
    }
}

#[test]
fn what_a_dead_writer_relied_on_being_gone_its_commit_is_refused() {
    let source = tempfile::tempdir().expect("a folder");
    plant(source.path(), 1);
    let memory = memory(SWAPS);
    let cache = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(memory.clone()), cache.path()).expect("it opens");
    repo.backup(options(source.path()), &Watch::silent()).expect("a backup that others rely on");
    let writer_options = siltstone::repo::SinkOptions {
        lanes: 1,
        compression: siltstone::seal::Compression::Auto,
        memory_bytes: 32 << 20,
    };
    let writer = repo.writer("host", &writer_options, &Watch::silent()).expect("it begins");
    assert!(expire_all(&memory, &repo, CommitProtocol::CompareAndSwap).expect("an expiry"));
    for listed in memory.list("index/").expect("a list") {
        memory.remove(&listed.name).expect("it is collected");
    }
    let snapshot = fixture::snapshots(&repo).remove(0);
    let error: Error = writer.commit(&snapshot).expect_err("it must not commit");
    assert!(error.is(Kind::Stale), "{error:?}");
}

#[test]
fn a_snapshot_whose_writer_died_behind_the_commit_step_is_listed_once_and_can_be_published_by_anybody() {
    for (capabilities, protocol) in [(SWAPS, CommitProtocol::CompareAndSwap), (RENAMES, CommitProtocol::Rename)] {
        let base = memory(capabilities);
        let cache = tempfile::tempdir().expect("a folder");
        let repo = open(Arc::new(base.clone()), cache.path()).expect("it opens");
        let sealed = seal_object(repo.keys(), Recipients::SnapshotReaders, "snapshot", b"body").expect("sealed");
        let mut unpublished_seen = 0;
        for number in 0..6 {
            for side in [CrashSide::Before, CrashSide::After] {
                let case = format!("{protocol:?}, {side:?} {number}");
                let storage = base.fork();
                let token = show(&storage, repo.keys(), protocol, WRITER).expect("a token");
                let crash = CrashPoint::at(Arc::new(storage.clone()), number, side);
                let _may_die = token.commit(&crash, repo.keys(), SNAPSHOT, sealed.clone());
                let stepped = crash.trace().iter().position(|call| ["compare_and_swap", "rename"].contains(&call.verb));
                let done =
                    stepped.is_some_and(|at| (at as u64) < number || at as u64 == number && side == CrashSide::After);
                let unpublished = survey(&storage, repo.keys()).expect("a survey").unpublished;
                let there = storage.stat(SNAPSHOT).is_ok();
                assert_eq!(done, there || !unpublished.is_empty(), "{case}: {unpublished:?}");
                assert!(unpublished.len() <= 1, "{case}");
                for found in &unpublished {
                    unpublished_seen += 1;
                    let body = found.body(&storage, repo.keys()).expect("its body");
                    assert_eq!((found.snapshot.as_str(), body.as_slice()), (SNAPSHOT, sealed.as_slice()), "{case}");
                    found.publish(&storage, repo.keys()).expect("it is published");
                    found.publish(&storage, repo.keys()).expect("it is published again");
                }
                assert_eq!(storage.get(SNAPSHOT, 999).is_ok_and(|(bytes, _)| bytes == sealed), done, "{case}");
                let looked = survey(&storage, repo.keys()).expect("a survey");
                let (running, left): (Vec<RunningWriter>, _) = (looked.running, looked.unpublished);
                assert!(left.is_empty() && running.is_empty() == done, "{case}");
            }
        }
        assert!(unpublished_seen >= 2);
    }
}

/// Names in `pending/` and in `snapshots/`.
fn names(storage: &Memory) -> (Vec<String>, usize) {
    let names = |prefix| storage.list(prefix).expect("memory lists").into_iter().map(|listed| listed.name);
    (names("pending/").collect(), names("snapshots/").count())
}

/// Another user put an object at the place of a snapshot in the moment of its commit: it was taken for the snapshot, whose
/// only copy was removed, and the backup ended with 0. A writer that may not read removed that copy as well.
#[test]
fn an_object_in_the_place_of_a_snapshot_does_not_cost_it() {
    for (capabilities, may_read) in [(SWAPS, true), (SWAPS, false), (RENAMES, true)] {
        let case = format!("{capabilities:?}, {may_read}");
        let (source, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
        plant(source.path(), 1);
        let storage = memory(capabilities);
        let rubbish = storage.clone();
        let before = move |verb: &str, name: &str| {
            let place = match (verb, name.split_once(".draft.")) {
                ("get", _) if name.starts_with("snapshots/") && !may_read => {
                    return Err(Error::new(Kind::Denied, "read", name));
                }
                ("put_new", _) if name.starts_with("snapshots/") => name.to_owned(),
                ("put", Some((_, place))) => format!("snapshots/{place}"),
                _ => return Ok(()),
            };
            rubbish.put(&place, b"rubbish".as_slice().into()).map(|_| ())
        };
        let hooked = fixture::Hooked { inner: storage.clone(), before };
        let report = fixture::backup(Arc::new(hooked), folder.path(), source.path()).expect("a backup");
        // A restore that has to choose between the two is refused.
        assert_eq!(report.warnings.len(), usize::from(may_read), "{case}: {:?}", report.warnings);
        assert!(report.warnings.iter().all(|warning| {
            warning.path.0.starts_with(b"snapshots/") && warning.what.contains("another object has its name")
        }));
        for _ in 0..2 {
            let repo = open(Arc::new(storage.clone()), folder.path()).expect("it opens");
            let snapshots = repo.snapshots_settled(&Watch::silent()).expect("listed");
            assert_eq!(snapshots.len(), 1, "{case}");
            let found = restored_differences(&repo, &snapshots[0], source.path(), source.path()).expect("restored");
            assert!(found.is_empty(), "{case}: {found:?}");
        }
        // Once it is gone, the snapshot takes its place.
        let place = storage.list("snapshots/").expect("listed").remove(0).name;
        storage.remove(&place).expect("removed");
        let repo = open(Arc::new(storage.clone()), folder.path()).expect("it opens");
        assert_eq!(repo.snapshots_settled(&Watch::silent()).expect("listed").len(), 1, "{case}");
        assert!(storage.stat(&place).is_ok() && storage.list("pending/").expect("listed").is_empty(), "{case}");
    }
}

/// Of two objects that claimed to be one snapshot a list showed one and a restore took the other, and nothing said that there were two.
#[test]
fn two_objects_that_claim_to_be_one_snapshot_are_reported() {
    let (source, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    plant(source.path(), 1);
    for is_in_place in [true, false] {
        let storage = memory(SWAPS);
        fixture::backup(Arc::new(storage.clone()), folder.path(), source.path()).expect("a backup");
        let repo = open(Arc::new(storage.clone()), folder.path()).expect("it opens");
        let name = storage.list("snapshots/").expect("listed").remove(0).name;
        let honest = storage.get(&name, 1 << 20).expect("it is there").0;
        let forged = Snapshot { job: "another".to_owned(), ..fixture::snapshots(&repo).remove(0) };
        let forged =
            seal_object(repo.keys(), Recipients::SnapshotReaders, "snapshot", &forged.encode()).expect("sealed");
        storage.remove(&name).expect("removed");
        let refuse = |verb: &str, name: &str| {
            if verb == "put_new" && name.starts_with("snapshots/") {
                Err(Error::new(Kind::Denied, "write", name))
            } else {
                Ok(())
            }
        };
        let closed = fixture::Hooked { inner: storage.clone(), before: refuse };
        let commit = |body: &[u8], number: u8| {
            let token =
                show(&closed, repo.keys(), CommitProtocol::CompareAndSwap, WriterId([number; 16])).expect("shown");
            token.commit(&closed, repo.keys(), &name, body.to_vec()).expect("it is committed");
        };
        commit(&honest, 1);
        if is_in_place {
            storage.put(&name, forged.into()).expect("memory takes it");
        } else {
            commit(&forged, 2);
            let survey = survey(&storage, repo.keys()).expect("a survey");
            assert_eq!((survey.unpublished.len(), settle(&storage, repo.keys(), &survey).len()), (2, 2));
            assert!(storage.list("snapshots/").expect("listed").is_empty(), "neither takes the place");
        }
        let warned = Arc::new(AtomicUsize::new(0));
        let count = warned.clone();
        let watch = Watch::new(Arc::new(move |event| {
            if let Event::Warning(warning) = event {
                assert!(warning.what.contains("claim to be this snapshot, and differ"), "{}", warning.what);
                count.fetch_add(1, Ordering::SeqCst);
            }
        }));
        let listed = repo.snapshots(&watch).expect("listed");
        let (latest, all) = (Selector::Latest { back: 0 }, Filter::default());
        let chosen = repo.select(&latest, &all, &watch).expect("chosen");
        assert_eq!((listed.len(), &listed[0].job, warned.load(Ordering::SeqCst)), (1, &chosen.job, 2), "{is_in_place}");
        // A restore took the forged one, and deleted what only the honest one had, with a note.
        let refused = repo.select_certain(&latest, &all, &watch).expect_err("it is not clear which one is meant");
        assert!(refused.is(Kind::Corrupt) && refused.to_string().contains("not clear"), "{refused}");
        let by_id = Selector::Prefix(chosen.id.to_hex());
        assert!(repo.select_certain(&by_id, &all, &watch).expect_err("nor by its id").is(Kind::Corrupt));
        repo.select(&by_id, &all, &watch).expect("it is listed");
        assert_eq!(warned.load(Ordering::SeqCst), 3, "and damaged");
    }
}

/// Commits of one name, by writers with these numbers, that nobody has moved to its place.
fn commit_in_vain(storage: &Memory, repo: &Repository, name: &str, bodies: &[&[u8]]) {
    let refuse = |verb: &str, name: &str| {
        let is_refused = verb == "put_new" && name.starts_with("snapshots/");
        if is_refused { Err(Error::new(Kind::Denied, "write", name)) } else { Ok(()) }
    };
    let closed = fixture::Hooked { inner: storage.clone(), before: refuse };
    for (number, body) in bodies.iter().enumerate() {
        let writer = WriterId([number as u8; 16]);
        let token = show(&closed, repo.keys(), CommitProtocol::CompareAndSwap, writer).expect("shown");
        token.commit(&closed, repo.keys(), name, body.to_vec()).expect("it is committed");
    }
}

/// One snapshot, its name, and its sealed bytes, which are not in the repository any more.
fn taken_out(capabilities: siltstone::storage::Capabilities) -> (Memory, Repository, Snapshot, String, Vec<u8>) {
    let (source, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    plant(source.path(), 1);
    let storage = memory(capabilities);
    fixture::backup(Arc::new(storage.clone()), folder.path(), source.path()).expect("a backup");
    let repo = open(Arc::new(storage.clone()), folder.path()).expect("it opens");
    let snapshot = fixture::snapshots(&repo).remove(0);
    let name = storage.list("snapshots/").expect("listed").remove(0).name;
    let honest = storage.get(&name, 1 << 20).expect("it is there").0;
    storage.remove(&name).expect("removed");
    (storage, repo, snapshot, name, honest)
}

/// A commit that does not open, and comes first, hid the snapshot: everyone with the right to create objects could do that. But it may be
/// the true one, damaged, and the other one forged: a restore took the forged one, with exit code 0.
#[test]
fn a_commit_of_rubbish_does_not_hide_another_one() {
    let (storage, repo, snapshot, name, honest) = taken_out(SWAPS);
    commit_in_vain(&storage, &repo, &name, &[b"rubbish", b"more", &honest]);
    let all = Filter::default();
    assert_eq!(fixture::snapshots(&repo), std::slice::from_ref(&snapshot));
    let selectors = [Selector::Latest { back: 0 }, Selector::Prefix(snapshot.id.to_hex())];
    for selector in &selectors {
        assert_eq!(repo.select(selector, &all, &Watch::silent()).expect("it is read"), snapshot);
        let refused = repo.select_certain(selector, &all, &Watch::silent()).expect_err("it may be another");
        let rubbish = format!("pending/{KEY}/{}", "00".repeat(16));
        assert!(refused.is(Kind::Corrupt) && refused.to_string().contains(&rubbish), "{refused}");
    }
    // In its place, it is known.
    storage.put(&name, honest.clone().into()).expect("written");
    for selector in &selectors {
        assert_eq!(repo.select_certain(selector, &all, &Watch::silent()).expect("it is read"), snapshot);
    }
    // The same by renaming.
    let (storage, repo, snapshot, name, honest) = taken_out(RENAMES);
    for (number, body) in [("00", &b"rubbish"[..]), ("11", &honest)] {
        let pending = format!("pending/{KEY}/{}", number.repeat(16));
        storage.put(&format!("{pending}.committed"), Vec::new().into()).expect("written");
        storage.put(&format!("{pending}.draft.{}", &name["snapshots/".len()..]), body.into()).expect("written");
    }
    assert_eq!(fixture::snapshots(&repo), [snapshot]);
}

/// A forged snapshot of the same size was in the place of a committed one until it was removed. A host that had read it meanwhile restored
/// it from its cache ever after, with exit code 0.
#[test]
fn a_forged_snapshot_that_was_removed_is_not_in_the_cache() {
    let (source, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    plant(source.path(), 1);
    let storage = memory(SWAPS).remote();
    let report = fixture::backup(Arc::new(storage.clone()), folder.path(), source.path()).expect("a backup");
    let true_one = report.snapshot.expect("one was created");
    let name = storage.list("snapshots/").expect("listed").remove(0).name;
    let honest = storage.get(&name, 1 << 20).expect("it is there").0;
    storage.remove(&name).expect("removed");
    let repo = open(Arc::new(storage.clone()), folder.path()).expect("it opens");
    let forged = Snapshot { user: "forged".to_owned(), ..true_one.clone() };
    let sealed = seal_object(repo.keys(), Recipients::SnapshotReaders, "snapshot", &forged.encode()).expect("sealed");
    assert_eq!(sealed.len(), honest.len(), "the sizes are padded");
    storage.put(&name, sealed.into()).expect("written");
    for _ in 0..2 {
        assert_eq!(fixture::snapshots(&repo), std::slice::from_ref(&forged));
    }
    storage.remove(&name).expect("removed");
    storage.put(&name, honest.into()).expect("written");
    for _ in 0..2 {
        assert_eq!(fixture::snapshots(&repo), std::slice::from_ref(&true_one));
    }
}

/// A pending object that could not be read was no commit of any snapshot that is named by its id: a forged commit was taken instead.
#[test]
fn any_pending_object_that_cannot_be_read_may_be_the_commit_of_an_id() {
    let (storage, repo, snapshot, name, honest) = taken_out(SWAPS);
    commit_in_vain(&storage, &repo, &name, &[&honest]);
    storage.put(&format!("pending/{KEY}/{}", "07".repeat(16)), b"rotten".to_vec().into()).expect("written");
    let (by_id, all) = (Selector::Prefix(snapshot.id.to_hex()), Filter::default());
    let refused = repo.select_certain(&by_id, &all, &Watch::silent()).expect_err("it may be another");
    assert!(refused.is(Kind::Corrupt), "{refused}");
    storage.put(&name, honest.into()).expect("written");
    assert_eq!(repo.select_certain(&by_id, &all, &Watch::silent()).expect("it is in its place"), snapshot);
}

/// A forged commit of its name took the place of a snapshot of a newer version, which this one cannot read, in silence.
#[test]
fn no_commit_takes_the_place_of_a_snapshot_of_a_newer_version() {
    let (storage, repo, snapshot, name, forged) = taken_out(SWAPS);
    let newer = String::from_utf8(snapshot.encode()).expect("JSON").replacen('{', r#"{"features":["later"],"#, 1);
    let sealed = seal_object(repo.keys(), Recipients::SnapshotReaders, "snapshot", newer.as_bytes()).expect("sealed");
    storage.put(&name, sealed.into()).expect("written");
    commit_in_vain(&storage, &repo, &name, &[&forged]);
    assert_eq!(fixture::snapshots(&repo), []);
    for selector in [Selector::Latest { back: 0 }, Selector::Prefix(snapshot.id.to_hex())] {
        let refused = repo.select_certain(&selector, &Filter::default(), &Watch::silent()).expect_err("it is newer");
        assert!(refused.is(Kind::Unsupported), "{refused}");
    }
    // The same while both wait.
    let sealed = storage.get(&name, 1 << 20).expect("it is there").0;
    storage.remove(&name).expect("removed");
    for object in storage.list("pending/").expect("listed") {
        storage.remove(&object.name).expect("removed");
    }
    commit_in_vain(&storage, &repo, &name, &[&sealed, &forged]);
    assert_eq!(fixture::snapshots(&repo), []);
    repo.select_certain(&Selector::Latest { back: 0 }, &Filter::default(), &Watch::silent()).expect_err("it is newer");
    // Whatever says that it is of a later generation of secrets, and does not open, is not.
    let claim = [b"siltobj1\x02\x05\0\0\0".as_slice(), &[0; 200]].concat();
    storage.remove(&format!("pending/{KEY}/{}", "00".repeat(16))).expect("removed");
    storage.put(&name, claim.into()).expect("written");
    assert_eq!(fixture::snapshots(&repo), std::slice::from_ref(&snapshot));
    // One that is damaged does not count, and it is not certain that the commit is what was there.
    storage.put(&name, b"damaged".to_vec().into()).expect("written");
    assert_eq!(fixture::snapshots(&repo), [snapshot]);
    let latest = Selector::Latest { back: 0 };
    let refused = repo.select_certain(&latest, &Filter::default(), &Watch::silent()).expect_err("it may be another");
    assert!(refused.is(Kind::Corrupt), "{refused}");
}

/// What cannot be read in `pending/` may be the newest snapshot: a restore took the one before it, and deleted what only the newest had.
#[test]
fn a_pending_object_that_cannot_be_read_may_be_what_is_meant() {
    let (source, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    plant(source.path(), 1);
    let storage = memory(SWAPS);
    fixture::backup(Arc::new(storage.clone()), folder.path(), source.path()).expect("a backup");
    let repo = open(Arc::new(storage.clone()), folder.path()).expect("it opens");
    storage.put(&format!("pending/{KEY}/{}", "07".repeat(16)), b"rotten".to_vec().into()).expect("written");
    let warned = Arc::new(AtomicUsize::new(0));
    let count = warned.clone();
    let watch = Watch::new(Arc::new(move |event| {
        count.fetch_add(usize::from(matches!(event, Event::Warning(_))), Ordering::SeqCst);
    }));
    assert_eq!((repo.snapshots(&watch).expect("listed").len(), warned.load(Ordering::SeqCst)), (1, 1));
    let all = Filter::default();
    for selector in [Selector::Latest { back: 0 }, Selector::At(siltstone::watch::now())] {
        let refused = repo.select_certain(&selector, &all, &watch).expect_err("it may be another");
        assert!(refused.is(Kind::Corrupt), "{refused}");
    }
    let id = fixture::snapshots(&repo).remove(0).id.to_hex();
    repo.select_certain(&Selector::Prefix(id), &all, &watch).expect("it is named");
}

/// Of a snapshot dated in the future by a wrong clock a restore did not look whether it is contradicted.
#[test]
fn a_snapshot_of_the_future_is_not_more_certain_than_others() {
    let (storage, repo, snapshot, ..) = taken_out(SWAPS);
    let later = |job: &str| {
        let mut later = Snapshot { job: job.to_owned(), ..snapshot.clone() };
        later.started.seconds += 100_000;
        seal_object(repo.keys(), Recipients::SnapshotReaders, "snapshot", &later.encode()).expect("sealed")
    };
    let stamp = {
        let mut later = snapshot.started;
        later.seconds += 100_000;
        later.compact().expect("a time")
    };
    let name = format!("snapshots/{stamp}-{}", snapshot.id.to_hex());
    commit_in_vain(&storage, &repo, &name, &[&later("one"), &later("two")]);
    let latest = Selector::Latest { back: 0 };
    let refused = repo.select_certain(&latest, &Filter::default(), &Watch::silent()).expect_err("there are two");
    assert!(refused.is(Kind::Corrupt), "{refused}");
}

/// Drafts of rubbish were moved among the snapshots by the next backup, with the rights of its host.
#[test]
fn what_does_not_open_is_not_moved_to_the_snapshots() {
    let (storage, repo, _, name, honest) = taken_out(RENAMES);
    let place = &name["snapshots/".len()..];
    let other = format!("{}{}", &place[..place.len() - 4], if place.ends_with("0000") { "1111" } else { "0000" });
    for (number, place, body) in [("00", other.as_str(), &b"rubbish"[..]), ("11", place, &honest)] {
        let pending = format!("pending/{KEY}/{}", number.repeat(16));
        storage.put(&format!("{pending}.committed"), Vec::new().into()).expect("written");
        storage.put(&format!("{pending}.draft.{place}"), body.into()).expect("written");
    }
    assert_eq!(repo.snapshots_settled(&Watch::silent()).expect("listed").len(), 1);
    assert_eq!(storage.list("snapshots/").expect("listed").len(), 1);
    assert_eq!(storage.list("pending/").expect("listed").len(), 2, "the rubbish stays");
}

/// A draft of rubbish beside the draft of a commit was moved to the snapshots in its place, and the mark of the commit removed: the
/// snapshot was lost.
#[test]
fn a_second_draft_does_not_cost_a_commit() {
    let (source, folder) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    plant(source.path(), 1);
    let storage = memory(RENAMES);
    fixture::backup(Arc::new(storage.clone()), folder.path(), source.path()).expect("a backup");
    let repo = open(Arc::new(storage.clone()), folder.path()).expect("it opens");
    let name = storage.list("snapshots/").expect("listed").remove(0).name;
    let pending = format!("pending/{KEY}/{}", "07".repeat(16));
    let (draft, rubbish) = (
        format!("{pending}.draft.{}", &name["snapshots/".len()..]),
        format!("{pending}.draft.10000101t000000z-{}", "0".repeat(32)),
    );
    storage.rename(&name, &draft).expect("renamed");
    storage.put(&format!("{pending}.committed"), Vec::new().into()).expect("written");
    storage.put(&rubbish, b"rubbish".to_vec().into()).expect("written");
    for _ in 0..2 {
        fixture::backup(Arc::new(storage.clone()), folder.path(), source.path()).expect("a backup");
        assert!(storage.stat(&draft).is_ok() && storage.stat(&format!("{pending}.committed")).is_ok());
    }
    let listed = fixture::snapshots(&repo);
    assert_eq!(listed.len(), 3, "that of the dead writer, and two of now");
    storage.remove(&rubbish).expect("removed");
    assert_eq!(repo.snapshots_settled(&Watch::silent()).expect("listed").len(), 3);
    assert!(storage.stat(&name).is_ok() && storage.list("pending/").expect("listed").is_empty());
}

#[test]
fn the_next_backup_tidies_what_a_dead_one_left_behind_its_commit_step_and_asks_for_it_only_then() {
    let source = tempfile::tempdir().expect("a folder");
    plant(source.path(), 1);
    for (capabilities, is_remote) in [(SWAPS, false), (RENAMES, false), (SWAPS, true), (RENAMES, true)] {
        let base = if is_remote { memory(capabilities).remote() } else { memory(capabilities) };
        let caches = tempfile::tempdir().expect("a folder");
        let cache = |name: &str| caches.path().join(name);
        fixture::backup(Arc::new(base.clone()), &cache("base"), source.path()).expect("the first backup");
        let mut left_behind = 0;
        for (number, side) in (0..20).flat_map(|number| [(number, CrashSide::Before), (number, CrashSide::After)]) {
            let case = format!("{capabilities:?}, {side:?} {number}");
            let storage = base.fork();
            let here = cache(&format!("{side:?}{number}"));
            fixture::copy(&cache("base"), &here);
            let crash = Arc::new(CrashPoint::at(Arc::new(storage.clone()), number, side));
            let _may_die = fixture::backup(crash.clone(), &here, source.path());
            if !crash.is_dead() {
                break;
            }
            let repo = open(Arc::new(storage.clone()), &here).expect("it opens");
            let snapshots = fixture::snapshots(&repo).len();
            drop(repo);
            let committed = snapshots == 2;
            left_behind += u32::from(committed && !names(&storage).0.is_empty());
            for round in 1..=2 {
                let lists = Meddler::new(storage.clone(), 0);
                fixture::backup(lists.clone(), &here, source.path()).unwrap_or_else(|e| panic!("{case}: {e:?}"));
                let (pending, in_place) = names(&storage);
                assert_eq!(in_place, snapshots + round, "{case}: {pending:?}");
                assert!(!committed || pending.is_empty(), "{case}: {pending:?}");
                let asked = lists.lists.lock().expect("whole").iter().any(|prefix| prefix == "pending/");
                // The second time there is nothing to be suspected.
                assert!(!is_remote || round == 1 || !asked, "{case}: asked for nothing");
            }
        }
        assert!(left_behind >= 2, "{capabilities:?}: {left_behind}");
    }
}

#[test]
fn a_committed_mark_is_removed_only_when_its_draft_has_surely_moved() {
    let base = memory(RENAMES);
    let cache = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(base.clone()), cache.path()).expect("it opens");
    let mark = format!("pending/{KEY}/{WRITER}.committed");
    base.put(&mark, ObjectBody::default()).expect("a mark");
    let look = || survey(&base, repo.keys()).expect("a survey");
    let early = look();
    // The listing began before the draft was written and ended after the commit step.
    let draft = format!("pending/{KEY}/{WRITER}.draft.{}", SNAPSHOT.trim_start_matches("snapshots/"));
    let sealed = seal_object(repo.keys(), Recipients::SnapshotReaders, "snapshot", b"body").expect("sealed");
    base.put(&draft, sealed.clone().into()).expect("a draft");
    assert!(settle(&base, repo.keys(), &early).is_empty() && base.stat(&mark).is_ok());
    assert!(settle(&base, repo.keys(), &look()).is_empty());
    assert_eq!(base.get(SNAPSHOT, 999).expect("in its place").0, sealed);
    base.put(&mark, ObjectBody::default()).expect("a mark");
    assert!(settle(&base, repo.keys(), &look()).is_empty());
    assert!(base.list("pending/").expect("memory lists").is_empty());
}
