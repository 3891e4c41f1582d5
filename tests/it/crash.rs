//! A crash at every call that changes the storage, on either side of its effect: nothing that was is lost, nothing half is.

use crate::fixture::{self, NEITHER, RENAMES, SWAPS, backup, copy, init, memory, open, plant, restored_differences};
use siltstone::repo::Repository;
use siltstone::storage::Abilities;
use siltstone::storage::chaos::{Crash, Side};
use siltstone::storage::memory::Memory;
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
fn crash_second(scene: &Scene, base: &Memory, base_cache: &Path, number: u64, side: Side, full_bytes: u64) -> bool {
    let case = format!("{:?}, {side:?} call {number}", base_abilities(base));
    let storage = base.fork();
    let caches = tempfile::tempdir().expect("a folder");
    let cache = caches.path().join("cache");
    copy(base_cache, &cache);
    let crash = Arc::new(Crash::at(Arc::new(storage.clone()), number, side));
    let crashed = backup(crash.clone(), &cache, &scene.source());
    assert_eq!(crashed.is_err(), crash.is_dead(), "{case}: who dies must not say it succeeded");
    if number % 3 == 2 {
        fs::remove_dir_all(&cache).expect("the cache is removed");
    }
    let repo = open(Arc::new(storage.clone()), &cache).unwrap_or_else(|error| panic!("{case}: {error:?}"));
    let listed = fixture::snapshots(&repo);
    assert!(listed.len() == 1 || listed.len() == 2, "{case}");
    for (snapshot, number) in listed.iter().zip(1..) {
        scene.assert_exact(&repo, snapshot, number, &case);
    }
    drop(repo);
    let indexed = crash.trace().iter().any(|call| call.name.starts_with("index/")) && number > 3;
    let report = backup(Arc::new(storage.clone()), &cache, &scene.source());
    let report = report.unwrap_or_else(|error| panic!("{case}: the next backup: {error:?}"));
    assert!(report.totals.bytes_stored <= full_bytes, "{case}: sent again");
    if indexed && crash.is_dead() {
        assert_eq!(report.totals.bytes_new, 0, "{case}: indexed chunks were stored again");
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

fn base_abilities(storage: &Memory) -> Abilities {
    siltstone::storage::Storage::abilities(storage)
}

#[test]
fn a_second_backup_may_die_at_every_call() {
    let scene = Scene::new();
    for abilities in [SWAPS, RENAMES, NEITHER] {
        let base = memory(abilities);
        let cache = tempfile::tempdir().expect("a folder");
        backup(Arc::new(base.clone()), cache.path(), &scene.show(1)).expect("the first backup");
        scene.show(2);
        let full = {
            let other = tempfile::tempdir().expect("a folder");
            copy(cache.path(), &other.path().join("cache"));
            let report = backup(Arc::new(base.fork()), &other.path().join("cache"), &scene.source());
            report.expect("a backup without a crash").totals.bytes_stored
        };
        for side in [Side::Before, Side::After] {
            let died = (0..).take_while(|n| crash_second(&scene, &base, cache.path(), *n, side, full)).count();
            assert!(died >= 5, "{abilities:?}: only {died} calls");
        }
    }
}
