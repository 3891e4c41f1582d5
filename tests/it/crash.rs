//! A crash at every call that changes the storage, on either side of its effect: nothing that was is lost, nothing half is.

use crate::fixture::{self, NEITHER, RENAMES, SWAPS, backup, copy, memory, open, plant, restored_differences};
use siltstone::error::{Kind, Result};
use siltstone::repo::{Credentials, Repository};
use siltstone::seal::Secret;
use siltstone::storage::{Capabilities, CrashPoint, CrashSide, Memory, Storage};
use siltstone::watch::Watch;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

/// The source with what it held at each backup kept aside.
struct Scene {
    folder: TempDir,
}

impl Scene {
    fn new() -> Self {
        let scene = Scene { folder: tempfile::tempdir().expect("a folder") };
        plant(&scene.kept(1), 1);
        plant(&scene.kept(2), 2);
        fs::remove_dir_all(scene.kept(2).join("empty")).expect("a folder is removed");
        fs::write(scene.kept(2).join("one/file3"), b"other content, longer than an inline file").expect("written");
        scene
    }

    fn kept(&self, number: u8) -> PathBuf {
        self.folder.path().join(format!("kept{number}"))
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    /// The source becomes what it was at that backup.
    fn show(&self, number: u8) -> PathBuf {
        let source = self.source();
        if source.exists() {
            fs::remove_dir_all(&source).expect("the source is cleared");
        }
        copy(&self.kept(number), &source);
        source
    }

    fn assert_exact(&self, repo: &Repository, snapshot: &siltstone::repo::Snapshot, number: u8, case: &str) {
        let found = restored_differences(repo, snapshot, &self.source(), &self.kept(number));
        let found = found.unwrap_or_else(|error| panic!("{case}: snapshot {number} does not restore: {error:?}"));
        assert!(found.is_empty(), "{case}: snapshot {number}: {found:?}");
    }
}

/// Crashes the second backup at one call; false when it ended before that call.
fn crash_second(
    scene: &Scene,
    base: &Memory,
    base_cache: &Path,
    number: u64,
    side: CrashSide,
    full_bytes: u64,
) -> bool {
    let case = format!("{:?}, {side:?} call {number}", base_capabilities(base));
    let storage = base.fork();
    let caches = tempfile::tempdir().expect("a folder");
    let cache = caches.path().join("cache");
    copy(base_cache, &cache);
    let crash = Arc::new(CrashPoint::at(Arc::new(storage.clone()), number, side));
    let crashed = backup(crash.clone(), &cache, &scene.source());
    assert!(crashed.is_ok() || crash.is_dead(), "{case}: {:?}", crashed.err());
    if number % 3 == 2 {
        fs::remove_dir_all(&cache).expect("the cache is removed");
    }
    let repo = open(Arc::new(storage.clone()), &cache).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let listed = fixture::snapshots(&repo);
    assert!(listed.len() == 1 || listed.len() == 2, "{case}");
    // A run that dies after the commit step may say either.
    assert!(crashed.is_err() || listed.len() == 2, "{case}: it said that it had succeeded");
    for (snapshot, number) in listed.iter().zip(1..) {
        scene.assert_exact(&repo, snapshot, number, &case);
    }
    drop(repo);
    let indexed = crash.trace().iter().any(|call| call.name.starts_with("index/")) && number > 3;
    let report = backup(Arc::new(storage.clone()), &cache, &scene.source());
    let report = report.unwrap_or_else(|error| panic!("{case}: the next backup: {error:?}"));
    // Objects are padded to 64 bytes, and the times of the folders above, which move with every test, may take one more.
    let stored = report.totals.bytes_stored;
    assert!(stored <= full_bytes + 4 * 64, "{case}: sent again, {stored} bytes and not {full_bytes}");
    if indexed && crash.is_dead() {
        // Only the pages of the folders above may be new: their times move with every test.
        assert!(report.totals.bytes_new < 1000, "{case}: indexed chunks were stored again");
    }
    let repo = open(Arc::new(storage), &cache).expect("it opens");
    let after = fixture::snapshots(&repo);
    assert_eq!(after.len(), listed.len() + 1, "{case}");
    assert_eq!(after[..listed.len()], listed, "{case}");
    for (snapshot, number) in after.iter().zip([1, 2, 2]) {
        scene.assert_exact(&repo, snapshot, number, &case);
    }
    crash.is_dead()
}

fn base_capabilities(storage: &Memory) -> Capabilities {
    storage.capabilities()
}

#[test]
fn a_second_backup_may_die_at_every_call() {
    let scene = Scene::new();
    for capabilities in [SWAPS, RENAMES, NEITHER] {
        let base = memory(capabilities);
        let cache = tempfile::tempdir().expect("a folder");
        backup(Arc::new(base.clone()), cache.path(), &scene.show(1)).expect("the first backup");
        scene.show(2);
        let full = {
            let other = tempfile::tempdir().expect("a folder");
            copy(cache.path(), &other.path().join("cache"));
            let report = backup(Arc::new(base.fork()), &other.path().join("cache"), &scene.source());
            report.expect("a backup without a crash").totals.bytes_stored
        };
        for side in [CrashSide::Before, CrashSide::After] {
            let died = (0..).take_while(|n| crash_second(&scene, &base, cache.path(), *n, side, full)).count();
            assert!(died >= 5, "{capabilities:?}: only {died} calls");
        }
    }
}

/// Every object that a location held when a first run died, init included, is either a repository or does not prevent one.
fn crash_first(scene: &Scene, capabilities: Capabilities, number: u64, side: CrashSide) -> bool {
    let case = format!("{capabilities:?}, first run, {side:?} call {number}");
    let storage = Memory::with_capabilities(capabilities);
    let cache = tempfile::tempdir().expect("a folder");
    let crash = Arc::new(CrashPoint::at(Arc::new(storage.clone()), number, side));
    let run = fixture::init(crash.as_ref()).and_then(|()| backup(crash.clone(), cache.path(), &scene.source()));
    assert!(run.is_ok() || crash.is_dead(), "{case}: {:?}", run.err());
    if !Repository::exists(&storage).expect("memory answers") {
        fixture::init(&storage).unwrap_or_else(|error| panic!("{case}: made again: {error:?}"));
    }
    let repo = open(Arc::new(storage.clone()), cache.path()).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let listed = fixture::snapshots(&repo);
    assert!(run.is_err() || listed.len() == 1, "{case}: it said that it had succeeded");
    listed.iter().for_each(|snapshot| scene.assert_exact(&repo, snapshot, 1, &case));
    drop(repo);
    backup(Arc::new(storage.clone()), cache.path(), &scene.source())
        .unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let repo = open(Arc::new(storage), cache.path()).expect("it opens");
    let after = fixture::snapshots(&repo);
    assert_eq!(after.len(), listed.len() + 1, "{case}");
    after.iter().for_each(|snapshot| scene.assert_exact(&repo, snapshot, 1, &case));
    crash.is_dead()
}

#[test]
fn a_first_run_may_die_at_every_call() {
    let scene = Scene::new();
    scene.show(1);
    for capabilities in [SWAPS, RENAMES, NEITHER] {
        for side in [CrashSide::Before, CrashSide::After] {
            let died = (0..).take_while(|n| crash_first(&scene, capabilities, *n, side)).count();
            assert!(died >= 7, "{capabilities:?}: only {died} calls");
        }
    }
}

/// One attempt to make a repository; returns the recovery keys that were shown.
fn make_shown(storage: &dyn Storage, shown: &mut Vec<Secret>) -> Result<()> {
    let new = Repository::prepare(storage, &fixture::init_options(storage.capabilities()))?;
    shown.push(new.recovery_key().clone());
    new.finish()
}

#[test]
fn whoever_dies_making_a_repository_has_none_or_saw_its_recovery_key() {
    let mut died = 0;
    for (number, side) in (0..4).flat_map(|n| [(n, CrashSide::Before), (n, CrashSide::After)]) {
        let storage = Memory::new();
        let crash = CrashPoint::at(Arc::new(storage.clone()), number, side);
        let mut shown = Vec::new();
        let made = make_shown(&crash, &mut shown);
        assert_eq!(made.is_err(), crash.is_dead(), "{side:?} call {number}");
        died += u8::from(crash.is_dead());
        if !Repository::exists(&storage).expect("memory answers") {
            make_shown(&storage, &mut shown).expect("the next attempt makes it");
        }
        let cache = tempfile::tempdir().expect("a folder");
        let by_paper = Credentials { recovery: shown.pop(), ..Credentials::default() };
        for credentials in [by_paper, fixture::credentials()] {
            Repository::open(Arc::new(storage.clone()), &credentials, cache.path(), &Watch::silent())
                .unwrap_or_else(|error| panic!("{side:?} call {number}: {error:?}"));
        }
    }
    assert_eq!(died, 6, "the key, the settings and the configuration");
}

#[test]
fn a_repository_that_is_not_finished_is_none_and_leaves_nothing_when_it_is_abandoned() {
    let storage = Memory::new();
    let prepare = || Repository::prepare(&storage, &fixture::init_options(SWAPS)).expect("it is prepared");
    let (first, second, third) = (prepare(), prepare(), prepare());
    assert_eq!([first.has_older_keys(), second.has_older_keys()], [false, true]);
    assert!(!Repository::exists(&storage).expect("memory answers"));
    third.abandon().expect("its key is removed");
    let recovery = second.recovery_key().clone();
    second.finish().expect("it is made");
    // Of two at once one is told so, and the repository of the other is whole.
    assert!(first.finish().is_err_and(|error| error.is(Kind::AlreadyExists)));
    assert_eq!(storage.list("keys/").expect("memory answers").len(), 2);
    let cache = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(storage), cache.path()).expect("the password opens it");
    assert_eq!(repo.keys().master(), Some(&recovery));
}

/// Each password opens what it was made for, even beside key objects that a first `init` left when it died.
#[test]
fn a_key_left_by_an_init_that_died_does_not_hide_the_repositorys_own() {
    // Names of key objects are random: in eight tries the stale one comes first in some and last in others.
    for _ in 0..8 {
        let storage = Memory::new();
        let crash = CrashPoint::at(Arc::new(storage.clone()), 1, CrashSide::Before);
        fixture::init(&crash).expect_err("it died before it wrote the configuration");
        fixture::init(&storage).expect("it is made again");
        let cache = tempfile::tempdir().expect("a folder");
        open(Arc::new(storage), cache.path()).expect("its own key opens it");
    }
}

fn files_below(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("a folder is listed") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files_below(&path, found) } else { found.push(path) }
    }
}

/// A power cut may leave any local file short, empty or gone: that costs time, never data.
#[test]
fn damage_to_local_files_costs_only_time() {
    let scene = Scene::new();
    let base = memory(SWAPS);
    let cache = tempfile::tempdir().expect("a folder");
    backup(Arc::new(base.clone()), cache.path(), &scene.show(1)).expect("the first backup");
    scene.show(2);
    let mut files = Vec::new();
    files_below(cache.path(), &mut files);
    files.sort();
    assert!(files.len() >= 3, "{files:?}");
    for file in &files {
        let length = fs::metadata(file).expect("it is there").len();
        let cuts = [Some(0), Some(length / 2), Some(length.saturating_sub(1)), Some(7.min(length)), None];
        for cut in cuts {
            let case = format!("{file:?} cut to {cut:?}");
            let storage = base.fork();
            let other = tempfile::tempdir().expect("a folder");
            let place = other.path().join("cache");
            copy(cache.path(), &place);
            let victim = place.join(file.strip_prefix(cache.path()).expect("it lies in the cache"));
            match cut {
                None => fs::remove_file(&victim).expect("it is removed"),
                Some(length) => {
                    let file = fs::File::options().write(true).open(&victim).expect("it is opened");
                    file.set_len(length).expect("it is cut");
                }
            }
            let report = backup(Arc::new(storage.clone()), &place, &scene.source());
            report.unwrap_or_else(|error| panic!("{case}: {error:?}"));
            let repo = open(Arc::new(storage), &place).unwrap_or_else(|error| panic!("{case}: {error:?}"));
            let snapshots = fixture::snapshots(&repo);
            assert_eq!(snapshots.len(), 2, "{case}");
            for (snapshot, number) in snapshots.iter().zip([1, 2]) {
                scene.assert_exact(&repo, snapshot, number, &case);
            }
        }
    }
}
