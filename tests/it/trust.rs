//! A backup that ends well names only content that the repository holds, whatever happened before or beside it to the
//! repository, the cache and the local state; and the next backup heals what was lost.

use crate::fixture::{
    self, Hooked, NEITHER, RENAMES, SWAPS, backup, memory, open, options, plant, protocol_of, restored_differences,
    show,
};
use siltstone::backup::BackupReport;
use siltstone::error::{Error, Kind, Result};
use siltstone::format::CommitProtocol;
use siltstone::forward_storage;
use siltstone::id::WriterId;
use siltstone::lease::{expire, survey};
use siltstone::repo::{Repository, SinkOptions, Writer};
use siltstone::storage::{ListedObject, Memory, ObjectBody, ObjectVersion, Storage};
use siltstone::watch::{Event, Notice, Watch};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

/// A source, and a folder for caches.
pub struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        let world = World { folder: tempfile::tempdir().expect("a folder") };
        plant(&world.source(), 1);
        world
    }

    pub fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    pub fn cache(&self, name: &str) -> PathBuf {
        self.folder.path().join("caches").join(name)
    }

    pub fn write(&self, name: &str, seed: u8) {
        let path = self.source().join(name);
        fs::create_dir_all(path.parent().expect("it lies in a folder")).expect("made");
        fs::write(path, crate::golden::noise(5000, seed)).expect("written");
    }

    pub fn backup(&self, storage: &Memory, cache: &str) -> BackupReport {
        backup(Arc::new(storage.clone()), &self.cache(cache), &self.source()).expect("the backup succeeds")
    }

    /// A run that stores everything, writes its local state, and fails before its commit.
    fn fail(&self, storage: &Memory, cache: &str) {
        let mut wanted = options(&self.source());
        wanted.sources.push(fixture::dump(BrokenInput));
        let repo = open(Arc::new(storage.clone()), &self.cache(cache)).expect("it opens");
        repo.backup(wanted, &Watch::silent()).expect_err("its input is broken");
    }

    /// The newest snapshot comes back bit for bit, read by a host that knows nothing.
    #[track_caller]
    pub fn assert_newest_comes_back(&self, storage: &Memory) {
        let cache = tempfile::tempdir().expect("a folder");
        let repo = open(Arc::new(storage.clone()), cache.path()).expect("it opens");
        let newest = fixture::snapshots(&repo).pop().expect("there is one");
        let found = restored_differences(&repo, &newest, &self.source(), &self.source()).expect("it restores");
        assert!(found.is_empty(), "{found:?}");
    }
}

struct BrokenInput;

impl std::io::Read for BrokenInput {
    fn read(&mut self, _: &mut [u8]) -> std::io::Result<usize> {
        Err(std::io::Error::other("broken"))
    }
}

/// What a host knows from before.
const CACHES: [&str; 2] = ["the same", "none"];

#[test]
fn a_repository_rolled_back_behind_a_failed_run_loses_nothing() {
    // The local state named pages that only the failed run had stored: exit 0, "unchanged", and the source was missing.
    for capabilities in [SWAPS, RENAMES, NEITHER] {
        for cache in CACHES {
            let world = World::new();
            let storage = memory(capabilities);
            world.backup(&storage, "the same");
            let older = storage.fork();
            world.write("one/new", 7);
            world.fail(&storage, "the same");
            world.backup(&older, cache);
            world.assert_newest_comes_back(&older);
            world.backup(&older, cache);
            world.assert_newest_comes_back(&older);
        }
    }
}

#[test]
fn a_repository_rolled_back_behind_good_runs_loses_nothing() {
    let world = World::new();
    let storage = memory(SWAPS);
    let empty = storage.fork();
    world.backup(&storage, "one");
    let first = storage.fork();
    world.write("one/new", 7);
    world.backup(&storage, "one");
    for older in [first, empty] {
        world.backup(&older, "one");
        world.assert_newest_comes_back(&older);
        world.backup(&older, "one");
        world.assert_newest_comes_back(&older);
    }
}

#[test]
fn a_first_run_whose_chunks_were_collected_is_done_again() {
    // The state of an interrupted first run was taken for good, as it had no base snapshot that could be missing.
    let world = World::new();
    let storage = memory(SWAPS);
    world.fail(&storage, "one");
    for prefix in ["index/", "packs/"] {
        for listed in storage.list(prefix).expect("listed") {
            storage.remove(&listed.name).expect("removed");
        }
    }
    world.backup(&storage, "one");
    world.assert_newest_comes_back(&storage);
}

#[test]
fn two_copies_of_a_repository_with_one_cache_do_not_lend_each_other_chunks() {
    let world = World::new();
    let storage = memory(RENAMES);
    world.backup(&storage, "one");
    let copy = storage.fork();
    for round in 0..3 {
        world.write(&format!("one/round {round}"), round);
        match round {
            1 => world.fail(&storage, "one"),
            _ => drop(world.backup(&storage, "one")),
        }
        world.backup(&copy, "one");
        world.assert_newest_comes_back(&copy);
    }
    world.backup(&storage, "one");
    world.assert_newest_comes_back(&storage);
}

#[test]
fn two_copies_of_a_repository_with_one_cache_at_once_do_not_lend_each_other_chunks() {
    let world = World::new();
    let storage = memory(SWAPS);
    let copy = storage.fork();
    let cache = world.cache("one");
    // Both opened before either has stored anything, and each learns what the other adds to the shared cache.
    let one = open(Arc::new(storage.clone()), &cache).expect("it opens");
    let two = open(Arc::new(copy.clone()), &cache).expect("it opens");
    one.backup(options(&world.source()), &Watch::silent()).expect("it succeeds");
    let mut wanted = options(&world.source());
    wanted.job = "another".to_owned();
    two.backup(wanted, &Watch::silent()).expect("it succeeds");
    world.assert_newest_comes_back(&storage);
    world.assert_newest_comes_back(&copy);
}

#[test]
fn a_lost_index_object_is_healed_by_the_next_backup_and_stays_healed() {
    for cache in CACHES {
        let world = World::new();
        let storage = memory(SWAPS);
        world.backup(&storage, "the same");
        let first = storage.list("index/").expect("listed").remove(0);
        world.write("one/new", 7);
        world.backup(&storage, "the same");
        storage.remove(&first.name).expect("removed");
        let report = world.backup(&storage, cache);
        assert!(report.healing.expect("it says so").chunks > 0);
        world.assert_newest_comes_back(&storage);
        world.backup(&storage, cache);
        world.assert_newest_comes_back(&storage);
    }
}

/// Restores all snapshots without a warning.
#[track_caller]
fn assert_all_come_back(storage: &Memory, source: &Path) {
    let cache = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(storage.clone()), cache.path()).expect("it opens");
    for snapshot in fixture::snapshots(&repo) {
        restored_differences(&repo, &snapshot, source, source).expect("it restores");
    }
}

/// Whether a pack holds trees. What was lost of the trees of an old snapshot cannot come back when the directories above
/// its sources have changed since.
fn is_of_trees(storage: &Memory, cache: &Path, pack: &str) -> bool {
    let repo = open(Arc::new(storage.clone()), cache).expect("it opens");
    let newest = fixture::snapshots(&repo).pop().expect("there is one");
    pack.ends_with(&repo.reader().locate(&newest.root).expect("it is there").pack.to_hex())
}

type Damage = fn(&Memory, &str);

#[test]
fn any_lost_or_cut_pack_is_healed_by_the_next_backup() {
    let remove: Damage = |storage, name| storage.remove(name).expect("removed");
    let cut: Damage = |storage, name| storage.corrupt(name, |bytes| bytes.truncate(bytes.len() / 2));
    let cut_last_byte: Damage = |storage, name| storage.corrupt(name, |bytes| bytes.truncate(bytes.len() - 1));
    let grow: Damage = |storage, name| storage.corrupt(name, |bytes| bytes.push(0));
    for (damage, cache) in
        [(remove, CACHES[0]), (remove, CACHES[1]), (cut, CACHES[0]), (cut_last_byte, CACHES[0]), (grow, CACHES[1])]
    {
        let world = World::new();
        let storage = memory(SWAPS);
        world.backup(&storage, "the same");
        for pack in storage.list("packs/").expect("listed") {
            let damaged = storage.fork();
            damage(&damaged, &pack.name);
            let cache_of = world.cache(&format!("{cache} {}", &pack.name[6..8]));
            if cache == CACHES[0] {
                fixture::copy(&world.cache(cache), &cache_of);
            }
            let report = backup_into(&damaged, &world.source(), &cache_of);
            let healing = report.healing.expect("it says so");
            if !is_of_trees(&storage, &world.cache("looks"), &pack.name) {
                assert_eq!(healing.complete_again.len(), 1, "{}", pack.name);
                assert_all_come_back(&damaged, &world.source());
            }
            world.assert_newest_comes_back(&damaged);
            // The pack stays missing, and nothing rests on it any more.
            let report = backup_into(&damaged, &world.source(), &cache_of);
            assert!(report.totals.bytes_new < 5000, "only folders above may differ: {report:?}");
            world.assert_newest_comes_back(&damaged);
        }
    }
}

/// With a cache of its own, as known from a backup of the same repository.
#[test]
fn a_pack_at_another_place_than_its_own_counts_as_lost() {
    // Moved into another folder of packs/, it was listed and could not be read: exit 0, and nothing came back.
    let world = World::new();
    let storage = memory(SWAPS);
    world.backup(&storage, "one");
    for listed in storage.list("packs/").expect("listed") {
        let (bytes, _) = storage.get(&listed.name, listed.size).expect("it is read");
        let (_, hex) = listed.name.rsplit_once('/').expect("a name of two parts");
        storage.put(&format!("packs/zz/{hex}"), bytes.into()).expect("it is written");
        storage.remove(&listed.name).expect("it is removed");
    }
    let report = world.backup(&storage, "one");
    assert!(report.healing.is_some());
    world.assert_newest_comes_back(&storage);
}

fn backup_into(storage: &Memory, source: &Path, cache: &Path) -> BackupReport {
    backup(Arc::new(storage.clone()), cache, source).expect("it succeeds")
}

#[test]
fn what_the_sources_no_longer_have_is_said_to_be_lost() {
    let world = World::new();
    let storage = memory(SWAPS);
    world.write("gone", 9);
    world.backup(&storage, "one");
    fs::remove_file(world.source().join("gone")).expect("removed");
    for pack in storage.list("packs/").expect("listed") {
        if !is_of_trees(&storage, &world.cache("looks"), &pack.name) {
            storage.remove(&pack.name).expect("removed");
        }
    }
    let (notices, watch) = noted();
    let repo = open(Arc::new(storage.clone()), &world.cache("one")).expect("it opens");
    let report = repo.backup(options(&world.source()), &watch).expect("it succeeds");
    let healing = report.healing.expect("it says so");
    assert!(
        healing.chunks > 0 && healing.complete_again.is_empty() && healing.still_incomplete.len() == 1,
        "{healing:?}"
    );
    assert!(notices.lock().expect("whole").iter().any(|notice| notice.contains("missing from the repository")));
    world.assert_newest_comes_back(&storage);
}

pub fn noted() -> (Arc<Mutex<Vec<String>>>, Watch) {
    let notices: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = notices.clone();
    let watch = Watch::new(Arc::new(move |event| {
        if let Event::Notice(Notice { text, .. }) = event {
            heard.lock().expect("whole").push(text);
        }
    }));
    (notices, watch)
}

#[test]
fn a_pack_that_comes_back_is_used_again_and_may_go_again() {
    let world = World::new();
    let storage = memory(SWAPS);
    world.backup(&storage, "one");
    let whole = storage.snapshot();
    let pack = storage.list("packs/").expect("listed").remove(0).name;
    storage.remove(&pack).expect("removed");
    world.backup(&storage, "one");
    storage.put(&pack, whole[&pack].as_slice().into()).expect("it is back");
    world.write("one/new", 7);
    world.backup(&storage, "one");
    storage.remove(&pack).expect("removed again");
    world.backup(&storage, "one");
    world.assert_newest_comes_back(&storage);
}

#[test]
fn a_damaged_index_object_counts_as_lost_and_hides_nothing_else() {
    let damages: [fn(&mut Vec<u8>); 3] = [|bytes| bytes.truncate(10), |bytes| bytes[20] ^= 1, |bytes| bytes.clear()];
    for damage in damages {
        let world = World::new();
        let storage = memory(SWAPS);
        world.backup(&storage, "one");
        let index = storage.list("index/").expect("listed").remove(0).name;
        storage.corrupt(&index, damage);
        world.backup(&storage, "two");
        world.assert_newest_comes_back(&storage);
        world.write("one/new", 7);
        world.backup(&storage, "one");
        world.assert_newest_comes_back(&storage);
    }
}

#[test]
fn an_index_object_of_the_right_size_with_wrong_bytes_is_found_behind_a_warm_cache() {
    // The cache knew what it had said, so it was never fetched again: exit 0 for ever, and no other host could restore.
    let world = World::new();
    let storage = memory(SWAPS);
    world.backup(&storage, "one");
    let index = storage.list("index/").expect("listed").remove(0).name;
    storage.corrupt(&index, |bytes| bytes[50] ^= 1);
    let report = world.backup(&storage, "one");
    assert!(report.healing.is_some());
    world.assert_newest_comes_back(&storage);
}

#[test]
fn what_vanishes_while_a_backup_runs_ends_it() {
    // A run was stopped, the packs that it relied on were removed, and it went on and ended with 0.
    let storages = |prefix| [(prefix, memory(RENAMES)), (prefix, memory(SWAPS).remote())];
    for (prefix, storage) in ["packs/", "index/"].into_iter().flat_map(storages) {
        let world = World::new();
        world.backup(&storage, "one");
        let repo = open(Arc::new(storage.clone()), &world.cache("one")).expect("it opens");
        let writer = writer_of(&repo);
        for listed in storage.list(prefix).expect("listed") {
            storage.remove(&listed.name).expect("removed");
        }
        let snapshot = fixture::snapshots(&repo).remove(0);
        assert!(writer.commit(&snapshot).is_err_and(|error| error.is(Kind::Stale)), "{prefix}");
        assert_eq!(storage.list("pending/").expect("listed"), []);
    }
}

#[test]
fn a_lost_pack_that_was_dealt_with_is_not_told_of_again() {
    let world = World::new();
    let storage = memory(SWAPS);
    world.backup(&storage, "one");
    for pack in storage.list("packs/").expect("listed") {
        if !is_of_trees(&storage, &world.cache("looks"), &pack.name) {
            storage.remove(&pack.name).expect("removed");
        }
    }
    assert!(world.backup(&storage, "one").healing.is_some());
    world.write("one/new", 7);
    let (notices, watch) = noted();
    let repo = open(Arc::new(storage.clone()), &world.cache("one")).expect("it opens");
    let report = repo.backup(options(&world.source()), &watch).expect("it succeeds");
    assert!(report.healing.is_none() && report.totals.bytes_new > 0);
    assert_eq!(*notices.lock().expect("whole"), Vec::<String>::new());
}

#[test]
fn an_older_cache_takes_nothing_for_stored_that_is_gone() {
    let world = World::new();
    let storage = memory(SWAPS);
    world.backup(&storage, "one");
    fixture::copy(&world.cache("one"), &world.cache("old"));
    world.write("one/new", 7);
    world.backup(&storage, "one");
    world.backup(&storage, "old");
    world.assert_newest_comes_back(&storage);
    for (name, rewritten) in storage.snapshot() {
        if name.starts_with("index/") || name.starts_with("packs/") {
            drop(rewritten);
            storage.remove(&name).expect("removed");
        }
    }
    world.backup(&storage, "old");
    world.assert_newest_comes_back(&storage);
}

#[test]
fn entries_of_a_parent_tree_are_looked_up_also_where_their_pages_can_be_read() {
    // Content packs are lost, tree packs are not: without a cache the parent's tree named content that was gone.
    let world = World::new();
    let storage = memory(SWAPS);
    world.write("one/large", 3);
    fs::write(world.source().join("many chunks"), crate::golden::noise(3_000_000, 5)).expect("written");
    world.backup(&storage, "one");
    for pack in storage.list("packs/").expect("listed") {
        if !is_of_trees(&storage, &world.cache("looks"), &pack.name) {
            storage.remove(&pack.name).expect("removed");
        }
    }
    let report = world.backup(&storage, "none");
    assert_eq!(report.healing.expect("it says so").complete_again.len(), 1);
    world.assert_newest_comes_back(&storage);
}

fn writer_of(repo: &Repository) -> Writer {
    let wanted = SinkOptions { lanes: 1, compression: siltstone::seal::Compression::Auto, memory_bytes: 32 << 20 };
    repo.writer("host", &wanted, &Watch::silent()).expect("it begins")
}

fn expire_all(storage: &dyn Storage, repo: &Repository) -> bool {
    let protocol = protocol_of(repo);
    let running = survey(storage, repo.keys()).expect("a survey").running;
    running.iter().filter(|seen| expire(storage, repo.keys(), protocol, seen).is_ok()).count() > 0
}

#[test]
fn a_writer_taken_for_dead_does_not_commit_when_its_own_unnamed_packs_are_gone() {
    // Suspended, expired, its packs removed as nothing named them, woken: it looked at index objects only, and committed.
    for capabilities in [SWAPS, RENAMES] {
        let world = World::new();
        let storage = memory(capabilities);
        world.backup(&storage, "one");
        let before: Vec<ListedObject> = storage.list("packs/").expect("listed");
        let repo = open(Arc::new(storage.clone()), &world.cache("one")).expect("it opens");
        let writer = writer_of(&repo);
        // More than a pack, so that one is written before there is an index object for it.
        for part in 0..6u8 {
            let bytes = crate::golden::noise(1 << 20, part);
            writer.sink().store_content(0, &bytes).expect("it is stored");
        }
        let sent = || storage.list("packs/").expect("listed").into_iter().find(|pack| !before.contains(pack));
        let pack = loop {
            match sent() {
                Some(pack) => break pack,
                None => std::thread::yield_now(),
            }
        };
        assert!(expire_all(&storage, &repo));
        storage.remove(&pack.name).expect("it is collected");
        let snapshot = fixture::snapshots(&repo).remove(0);
        let error = writer.commit(&snapshot).expect_err("it must not commit");
        assert!(error.is(Kind::Stale), "{error:?}");
        assert_eq!(survey(&storage, repo.keys()).expect("a survey").running, [], "it withdrew");
    }
}

#[test]
fn a_writer_taken_for_dead_looks_for_what_itself_relied_on() {
    // Another process with the same cache had made its own of the shared list meanwhile, and that was looked at.
    let world = World::new();
    let storage = memory(SWAPS);
    world.backup(&storage, "one");
    let repo = open(Arc::new(storage.clone()), &world.cache("one")).expect("it opens");
    let writer = writer_of(&repo);
    assert!(expire_all(&storage, &repo));
    for listed in storage.list("index/").expect("listed") {
        storage.remove(&listed.name).expect("it is collected");
    }
    // It drops from the shared cache what is gone.
    open(Arc::new(storage.clone()), &world.cache("one")).expect("it opens");
    let snapshot = fixture::snapshots(&repo).remove(0);
    let error = writer.commit(&snapshot).expect_err("it must not commit");
    assert!(error.is(Kind::Stale), "{error:?}");
}

#[test]
fn a_writer_that_ends_without_a_word_leaves_no_ghost() {
    for capabilities in [SWAPS, RENAMES, NEITHER] {
        let world = World::new();
        let storage = memory(capabilities);
        let repo = open(Arc::new(storage.clone()), &world.cache("one")).expect("it opens");
        drop(writer_of(&repo));
        assert_eq!(storage.list("pending/").expect("listed"), []);
    }
}

/// Forwards requests, and returns an error: the answer was lost.
struct LostAnswers {
    inner: Memory,
    loses: AtomicBool,
}

impl LostAnswers {
    fn answer<T>(&self, done: Result<T>) -> Result<T> {
        if self.loses.load(Ordering::SeqCst) {
            done.and(Err(Error::new(Kind::Temporary, "hear the answer", "")))
        } else {
            done
        }
    }
}

impl Storage for LostAnswers {
    forward_storage!(self => self.inner; describe, capabilities, profile, put_new, get, get_range, list, remove, stat);

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        self.answer(self.inner.put(name, body))
    }
    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
        self.answer(self.inner.compare_and_swap(name, expected, body))
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.answer(self.inner.rename(from, to))
    }
}

#[test]
fn a_beat_whose_answer_was_lost_costs_no_right_and_leaves_no_ghost() {
    const SNAPSHOT: &str = "snapshots/20260101t000000z-one";
    for (capabilities, protocol) in [
        (SWAPS, CommitProtocol::CompareAndSwap),
        (RENAMES, CommitProtocol::Rename),
        (NEITHER, CommitProtocol::SingleWriter),
    ] {
        for commits in [true, false] {
            for beats_lost in 1..3 {
                let case = format!("{protocol:?}, commits: {commits}, {beats_lost} beats lost");
                let world = World::new();
                let base = memory(capabilities);
                let repo = open(Arc::new(base.clone()), &world.cache("one")).expect("it opens");
                let storage = LostAnswers { inner: base.clone(), loses: AtomicBool::new(false) };
                let writer = WriterId([7; 16]);
                let mut token = show(&storage, repo.keys(), protocol, writer).expect("it shows itself");
                storage.loses.store(true, Ordering::SeqCst);
                for _ in 0..beats_lost {
                    // Also a beat that only finds out what became of the one before is a good one.
                    let _lost = token.renew(&storage, repo.keys());
                }
                storage.loses.store(false, Ordering::SeqCst);
                if beats_lost == 2 {
                    token.renew(&storage, repo.keys()).unwrap_or_else(|error| panic!("{case}: {error:?}"));
                }
                if commits {
                    let done = token.commit(&storage, repo.keys(), SNAPSHOT, b"body".to_vec());
                    done.unwrap_or_else(|error| panic!("{case}: {error:?}"));
                    assert!(base.stat(SNAPSHOT).is_ok(), "{case}");
                } else {
                    token.withdraw(&storage).expect("it withdraws")
                }
                assert_eq!(base.list("pending/").expect("listed"), [], "{case}");
            }
        }
    }
}

#[test]
fn an_expired_single_writer_neither_beats_nor_commits() {
    let world = World::new();
    let storage = memory(NEITHER);
    let repo = open(Arc::new(storage.clone()), &world.cache("one")).expect("it opens");
    let show = || {
        let keys = repo.keys();
        let token = show(&storage, keys, CommitProtocol::SingleWriter, WriterId([7; 16]));
        let token = token.expect("it shows itself");
        assert!(expire_all(&storage, &repo));
        token
    };
    assert!(show().renew(&storage, repo.keys()).is_err_and(|error| error.is(Kind::Locked)));
    let committed = show().commit(&storage, repo.keys(), "snapshots/x", b"body".to_vec());
    assert!(committed.is_err_and(|error| error.is(Kind::Locked)));
    assert_eq!(storage.list("snapshots/").expect("listed"), []);
}

#[test]
fn an_index_object_that_vanishes_behind_its_listing_is_listed_again() {
    let world = World::new();
    let storage = memory(SWAPS);
    world.backup(&storage, "one");
    world.write("one/new", 7);
    world.backup(&storage, "one");
    let gone = storage.list("index/").expect("listed").remove(0).name;
    let inner = storage.clone();
    let vanishes = move |verb: &str, name: &str| {
        if verb == "get" && name == gone {
            inner.remove(name).expect("removed");
        }
    };
    let vanishing = Hooked { inner: storage.clone(), before: vanishes };
    let repo = open(Arc::new(vanishing), &world.cache("two")).expect("it opens all the same");
    repo.backup(options(&world.source()), &Watch::silent()).expect("it succeeds");
    world.assert_newest_comes_back(&storage);
}

#[test]
fn objects_that_cannot_be_read_or_are_too_large_hide_no_snapshot() {
    // One junk object in snapshots/ or pending/, which any writer can make, must not keep the others from being used.
    for name in ["snapshots/20260101t000000z-junk", "pending/0011223344556677/ffffffffffffffffffffffffffffffff"] {
        let world = World::new();
        let storage = memory(SWAPS);
        world.backup(&storage, "one");
        for junk in [&b""[..], &[7; 100], &vec![0; 30 << 20]] {
            storage.put(name, junk.into()).expect("it is put");
            world.backup(&storage, "one");
            world.assert_newest_comes_back(&storage);
        }
    }
}

#[test]
fn without_a_cache_everything_works_and_nothing_is_written() {
    let world = World::new();
    let storage = memory(SWAPS);
    for round in 0..3 {
        world.write("one/new", round);
        let repo = Repository::open_uncached(Arc::new(storage.clone()), &fixture::credentials(), &Watch::silent());
        let repo = repo.expect("it opens");
        let report = repo.backup(options(&world.source()), &Watch::silent()).expect("it succeeds");
        assert!(round == 0 || report.totals.files_unchanged > 5, "the last snapshot serves instead: {report:?}");
        world.assert_newest_comes_back(&storage);
    }
    assert!(!world.cache("").exists());
}

#[test]
fn a_cache_that_cannot_be_used_costs_a_notice_and_nothing_else() {
    let world = World::new();
    let storage = memory(SWAPS);
    fs::create_dir_all(world.cache("")).expect("made");
    fs::write(world.cache("file"), "no folder").expect("written");
    let (notices, watch) = noted();
    let repo = Repository::open(Arc::new(storage.clone()), &fixture::credentials(), &world.cache("file"), &watch);
    repo.expect("it opens").backup(options(&world.source()), &watch).expect("it succeeds");
    assert!(notices.lock().expect("whole").iter().any(|notice| notice.contains("cache")));
    world.assert_newest_comes_back(&storage);
    // A part of it that cannot be used is enough.
    for part in ["segments", "state"] {
        let cache = world.cache(part);
        world.backup(&storage, part);
        let folder = fs::read_dir(&cache).expect("listed").map(|entry| entry.expect("one").path());
        let folder = folder.into_iter().find(|path| path.join(part).exists()).expect("it is there");
        fs::remove_dir_all(folder.join(part)).expect("removed");
        fs::write(folder.join(part), "no folder").expect("written");
        world.write("one/new", 7);
        let (notices, watch) = noted();
        let repo = Repository::open(Arc::new(storage.clone()), &fixture::credentials(), &cache, &watch);
        repo.expect("it opens").backup(options(&world.source()), &watch).expect("it succeeds");
        assert!(!notices.lock().expect("whole").is_empty());
        world.assert_newest_comes_back(&storage);
    }
}

#[test]
fn what_a_failed_run_saw_change_is_counted_by_the_run_that_commits_it() {
    let world = World::new();
    let storage = memory(SWAPS);
    let count = |report: &BackupReport| {
        let totals = report.totals;
        (totals.files_new, totals.files_changed, totals.files_removed)
    };
    let first = world.backup(&storage, "one");
    assert_eq!(count(&first), (18, 0, 0));
    world.write("one/new", 7);
    world.write("short", 8);
    fs::remove_file(world.source().join("repeated")).expect("removed");
    world.fail(&storage, "one");
    world.fail(&storage, "one");
    let second = world.backup(&storage, "one");
    assert_eq!(count(&second), (1, 1, 1));
    let third = world.backup(&storage, "one");
    assert_eq!(count(&third), (0, 0, 0));
}
