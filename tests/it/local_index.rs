//! The local index is a cache: damaged or outdated, it costs time; and a repository that is gone is reported.

use crate::fixture::{self, Hooked, RENAMES, SWAPS, memory, open, options};
use crate::trust::{World, noted};
use siltstone::backup::BackupOptions;
use siltstone::repo::Repository;
use siltstone::storage::{Memory, Storage};
use siltstone::watch::Watch;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

#[test]
fn a_damaged_local_index_is_rebuilt_while_the_backup_runs() {
    // Damaged entries of a segment ended the backup with "corrupt", and where it had to be merged, also the next ones.
    let world = World::new();
    let storage = memory(SWAPS);
    for round in 0..3 {
        world.write(&format!("one/round {round}"), round);
        world.backup(&storage, "one");
    }
    let is_segment = |path: &Path| path.extension().is_some_and(|end| end == "segment");
    let segments = || {
        let files = walkdir::WalkDir::new(world.cache("one")).into_iter().map(|file| file.expect("listed").into_path());
        files.filter(|path| is_segment(path)).collect::<Vec<_>>()
    };
    let mut rebuilt = 0;
    for part in 0..24u8 {
        for path in segments() {
            let mut bytes = fs::read(&path).expect("it is read");
            let at = bytes.len() * usize::from(part) / 24;
            bytes[at] ^= 1;
            fs::write(&path, bytes).expect("it is written");
        }
        // A backup adds the new content to the damaged index, and looks up every other chunk in it.
        world.write("one/new", part);
        for is_repaired in [false, true] {
            let mut wanted = options(&world.source());
            wanted.force = true;
            let (notices, watch) = noted();
            let repo =
                Repository::open(Arc::new(storage.clone()), &fixture::credentials(), &world.cache("one"), &watch);
            let report = repo.expect("it opens").backup(wanted, &watch).expect("the backup succeeds");
            let notices = notices.lock().expect("whole");
            assert!(
                report.healing.is_none() && report.totals.bytes_new < 20_000,
                "what is stored is found: {report:?}"
            );
            assert!(!is_repaired || notices.is_empty(), "{notices:?}");
            rebuilt += usize::from(notices.iter().any(|notice| notice.contains("rebuilt")));
        }
        world.assert_newest_comes_back(&storage);
    }
    assert!(rebuilt > 12, "{rebuilt} of 24 were noticed");
}

#[test]
fn an_index_object_that_goes_while_the_local_index_is_rebuilt_is_not_relied_on_by_the_next_attempt() {
    // The first attempt noted as relied on what was left after the loss; the second one trusted its rows, and ended with 0.
    let is_segment = |path: &Path| path.extension().is_some_and(|end| end == "segment");
    let mut attempts = 0;
    for part in 0..24 {
        let world = World::new();
        let storage = Memory::with_capabilities(SWAPS).remote();
        // So many chunks that some are looked up before the damage is met.
        fixture::init_small_chunks(&storage).expect("a repository");
        for file in 0..40 {
            world.write(&format!("many/{file}"), file);
        }
        world.backup(&storage, "one");
        for file in walkdir::WalkDir::new(world.cache("one")).into_iter().map(|file| file.expect("listed").into_path())
        {
            if is_segment(&file) {
                let mut bytes = fs::read(&file).expect("it is read");
                let at = bytes.len() * part / 24;
                bytes[at] ^= 1;
                fs::write(&file, bytes).expect("it is written");
            }
        }
        let lists = Arc::new(AtomicUsize::new(0));
        let (objects, counted) = (storage.clone(), lists.clone());
        let before = move |call: &str, name: &str| {
            // Opening lists the index, and the writer lists both: what comes then comes after the comparison.
            if call == "list" && name == "index/" && counted.fetch_add(1, Ordering::SeqCst) == 2 {
                for listed in objects.list("index/").expect("listed") {
                    objects.remove(&listed.name).expect("removed");
                }
            }
        };
        let hooked = Arc::new(Hooked { inner: storage.clone(), before });
        let (notices, watch) = noted();
        let repo = Repository::open(hooked, &fixture::credentials(), &world.cache("one"), &watch).expect("it opens");
        let wanted = BackupOptions { job: "another".to_owned(), ..options(&world.source()) };
        repo.backup(wanted, &watch).expect("the backup succeeds");
        world.assert_newest_comes_back(&storage);
        attempts += usize::from(notices.lock().expect("whole").iter().any(|notice| notice.contains("starts over")));
    }
    assert!(attempts > 0, "no attempt met the loss");
}

#[test]
fn a_repository_that_is_not_there_any_more_is_not_begun_anew() {
    // Its disk was unmounted while the backup ran: the backup stored everything in the empty mount point, and ended with 0.
    for storage in [memory(SWAPS), memory(RENAMES), memory(SWAPS).remote()] {
        let world = World::new();
        world.backup(&storage, "one");
        let (objects, is_gone) = (storage.clone(), AtomicBool::new(false));
        let before = move |call: &str, _: &str| {
            if matches!(call, "put" | "put_new") && !is_gone.swap(true, Ordering::SeqCst) {
                objects.snapshot().keys().for_each(|name| objects.remove(name).expect("removed"));
            }
        };
        let hooked = Arc::new(Hooked { inner: storage.clone(), before });
        world.write("one/new", 7);
        let done =
            open(hooked, &world.cache("one")).and_then(|repo| repo.backup(options(&world.source()), &Watch::silent()));
        let error = done.expect_err("there is no repository");
        assert!(error.to_string().contains("it no longer exists"), "{error}");
        assert_eq!(storage.list("snapshots/").expect("listed"), []);
    }
}
