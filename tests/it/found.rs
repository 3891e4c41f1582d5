//! Faults that the world test found, each as a small test that opens with its story.

use crate::fixture::{
    self, Hooked, RENAMES, SWAPS, backup, look_old, memory, open, plant, protocol_of, restored_differences, show,
};
use crate::golden::noise;
use siltstone::backup::{BackupOptions, Comparison};
use siltstone::error::{Error, Kind};
use siltstone::id::WriterId;
use siltstone::restore::RestoreOptions;
use siltstone::source::{Source, Stream};
use siltstone::storage::{Memory, Storage};
use siltstone::watch::Watch;
use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// There are `count` snapshots, and the `newest` of them are whole for a reader without a cache of this repository.
#[track_caller]
fn assert_newest_whole(storage: &Memory, source: &Path, count: usize, newest: usize) {
    let cache = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(storage.clone()), cache.path()).expect("it opens");
    let snapshots = fixture::snapshots(&repo);
    assert_eq!(snapshots.len(), count);
    for snapshot in snapshots.iter().rev().take(newest) {
        let found = restored_differences(&repo, snapshot, source, source).expect("it comes back");
        assert!(found.is_empty(), "{found:?}");
    }
}

#[track_caller]
fn assert_whole(storage: &Memory, source: &Path, count: usize) {
    assert_newest_whole(storage, source, count, count);
}

/// An index object was cut short; a host whose cache knew what it had said took that for stored, and its next backup
/// ended well with a snapshot that no other host could read.
#[test]
fn an_index_object_of_another_size_counts_as_lost_whatever_the_cache_knows() {
    let source = tempfile::tempdir().expect("a folder");
    plant(source.path(), 1);
    let (storage, cache) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
    backup(Arc::new(storage.clone()), cache.path(), source.path()).expect("the first backup");
    let index = storage.list("index/").expect("memory lists").remove(0);
    storage.corrupt(&index.name, |bytes| bytes.truncate(bytes.len() / 2));
    backup(Arc::new(storage.clone()), cache.path(), source.path()).expect("the second backup");
    // Of the first one the pages above the source may be lost for good, as other tests change the folders there.
    assert_newest_whole(&storage, source.path(), 2, 1);
}

/// Removes everything of a repository but what makes it one, and the cache.
fn forget_all(storage: &Memory, cache: &Path) {
    // What the run makes in it meanwhile may stay.
    let _best_effort = fs::remove_dir_all(cache);
    let is_kept = |name: &str| name.starts_with("keys/") || name == "config" || name == "settings";
    let all = storage.list("").expect("memory lists");
    all.iter().filter(|object| !is_kept(&object.name)).for_each(|object| storage.remove(&object.name).expect("gone"));
}

/// A backup ran when its cache was removed, and with it the memory of what the backup relied on; when the repository was
/// then rolled back, it showed itself anew, found nothing amiss and ended well with a snapshot that lacked content.
#[test]
fn a_writer_knows_what_it_relied_on_when_its_cache_is_removed() {
    let source = tempfile::tempdir().expect("a folder");
    plant(source.path(), 1);
    look_old(source.path());
    let comparison = Comparison { ignore_ctime: true, ..Comparison::default() };
    let options = || BackupOptions { comparison, ..fixture::options(source.path()) };
    for (capabilities, call) in
        [SWAPS, RENAMES].into_iter().flat_map(|capabilities| (0..30).map(move |call| (capabilities, call)))
    {
        let (storage, caches) = (memory(capabilities), tempfile::tempdir().expect("a folder"));
        let cache = caches.path().join("cache");
        let mut failing = options();
        failing.sources.push(Source::stream(Stream::new("fails", "exit 1")));
        let repo = open(Arc::new(storage.clone()), &cache).expect("it opens");
        repo.backup(failing, &Watch::silent()).expect_err("a command fails");
        drop(repo);
        // What is new makes an index object of its own.
        fs::write(source.path().join("more"), crate::golden::noise(500, call)).expect("written");
        let (inner, removed) = (storage.clone(), cache.clone());
        let (calls, is_committed) = (AtomicU64::new(0), AtomicBool::new(false));
        let at_call = move |verb: &str, _: &str| {
            // What is removed after the commit step was saved when it happened.
            let is_now = calls.fetch_add(1, Ordering::SeqCst) == u64::from(call);
            if is_now && !is_committed.load(Ordering::SeqCst) {
                forget_all(&inner, &removed);
            }
            is_committed.fetch_or(["compare_and_swap", "rename"].contains(&verb), Ordering::SeqCst);
        };
        let hooked = Arc::new(Hooked { inner: storage.clone(), before: at_call });
        let ended = open(hooked, &cache).and_then(|repo| repo.backup(options(), &Watch::silent()));
        // It may well fail; what it must not do is to end well without its content.
        println!("{capabilities:?}, call {call}: {:?}", ended.as_ref().map(|_| ()).map_err(|error| error.to_string()));
        assert_whole(&storage, source.path(), usize::from(ended.is_ok()));
    }
}

/// If packs could neither be read nor listed, each file listed them again, with all attempts: the restore never ended.
#[test]
fn a_restore_ends_if_packs_can_neither_be_read_nor_listed() {
    for storage in [memory(SWAPS), memory(SWAPS).remote()] {
        let source = tempfile::tempdir().expect("a folder");
        for number in 0..30u8 {
            std::fs::write(source.path().join(number.to_string()), noise(20_000, number)).expect("written");
        }
        let cache = tempfile::tempdir().expect("a folder");
        backup(Arc::new(storage.clone()), cache.path(), source.path()).expect("a backup");
        let lists = Arc::new(AtomicU64::new(0));
        let (count, is_over) = (lists.clone(), Arc::new(AtomicBool::new(false)));
        let is_gone = is_over.clone();
        let before = move |verb: &str, name: &str| {
            if name.starts_with("packs/") && is_gone.load(Ordering::SeqCst) {
                count.fetch_add(u64::from(verb == "list"), Ordering::SeqCst);
                Err(Error::new(Kind::NotFound, verb, name))
            } else {
                Ok(())
            }
        };
        let repo = open(Arc::new(Hooked { inner: storage, before }), cache.path()).expect("it opens");
        let snapshot = fixture::snapshots(&repo).remove(0);
        let target = tempfile::tempdir().expect("a folder");
        let options = RestoreOptions::new(target.path().to_owned());
        let plan = repo.plan_restore(&snapshot, options, &Watch::silent()).expect("planned");
        is_over.store(true, Ordering::SeqCst);
        let failed = plan.run(&Watch::silent()).expect_err("nothing can be read");
        assert!(failed.is(Kind::Gone), "{failed:?}");
        assert!(lists.load(Ordering::SeqCst) <= 4, "{lists:?}");
    }
}

/// One bit of one snapshot's object flipped, in the byte that says which keys open it: no snapshot could be listed any more,
/// and so none restored.
#[test]
fn no_damage_to_one_snapshot_hides_the_others() {
    let source = tempfile::tempdir().expect("a folder");
    plant(source.path(), 1);
    let (storage, cache) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
    for _ in 0..2 {
        backup(Arc::new(storage.clone()), cache.path(), source.path()).expect("a backup");
    }
    let name = storage.list("snapshots/").expect("memory lists").remove(0).name;
    let repo = open(Arc::new(storage.clone()), cache.path()).expect("it opens");
    for bit in 0..48 * 8 {
        let flip = || storage.corrupt(&name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        flip();
        let listed = repo.snapshots(&Watch::silent());
        assert_eq!(listed.unwrap_or_else(|error| panic!("bit {bit}: {error}")).len(), 1, "bit {bit}");
        flip();
    }
}

/// The same of one pending object: with it no snapshot could be listed, and no backup begin.
#[test]
fn no_damage_to_one_pending_object_is_in_the_way_of_others() {
    let source = tempfile::tempdir().expect("a folder");
    plant(source.path(), 1);
    let (storage, cache) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
    backup(Arc::new(storage.clone()), cache.path(), source.path()).expect("a backup");
    let repo = open(Arc::new(storage.clone()), cache.path()).expect("it opens");
    let (keys, protocol) = (repo.keys(), protocol_of(&repo));
    let _ghost = show(&storage, keys, protocol, WriterId([7; 16])).expect("a pending object");
    let name = storage.list("pending/").expect("memory lists").remove(0).name;
    for bit in 0..48 * 8 {
        let flip = || storage.corrupt(&name, |bytes| bytes[bit / 8] ^= 1 << (bit % 8));
        flip();
        let listed = repo.snapshots(&Watch::silent());
        assert_eq!(listed.unwrap_or_else(|error| panic!("bit {bit}: {error}")).len(), 1, "bit {bit}");
        flip();
    }
}

/// A repository with two snapshots of the same source, neither of which knew what the other was storing.
fn saved_twice_at_once(source: &Path) -> Memory {
    let (storage, caches) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
    let (inner, cache, path) = (storage.clone(), caches.path().join("other"), source.to_owned());
    let is_done = AtomicBool::new(false);
    let beside = move |verb: &str, name: &str| {
        if verb == "put" && name.starts_with("packs/") && !is_done.swap(true, Ordering::SeqCst) {
            backup(Arc::new(inner.clone()), &cache, &path).expect("the backup beside it");
        }
    };
    let hooked = Hooked { inner: storage.clone(), before: beside };
    backup(Arc::new(hooked), &caches.path().join("cache"), source).expect("a backup");
    storage
}

fn has_one_root(storage: &Memory) -> bool {
    let cache = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(storage.clone()), cache.path()).expect("it opens");
    let snapshots = fixture::snapshots(&repo);
    snapshots[0].root == snapshots[1].root
}

/// Two backups at once stored the same content, each in a pack of its own; when one of the packs was damaged, restores
/// failed although the other was whole.
#[test]
fn of_two_copies_of_a_chunk_the_whole_one_is_read() {
    let source = tempfile::tempdir().expect("a folder");
    plant(source.path(), 1);
    // The trees of both are the same only while nothing changes a folder above the source, which other tests share.
    let storage = (0..1000).map(|_| saved_twice_at_once(source.path())).find(has_one_root).expect("a quiet moment");
    assert_whole(&storage, source.path(), 2);
    let packs = storage.list("packs/").expect("memory lists");
    assert_eq!(packs.len(), 4, "content and trees of each");
    for pack in packs {
        for changed in [0..pack.size as usize, pack.size as usize / 2..pack.size as usize / 2 + 1] {
            let copy = storage.fork();
            copy.corrupt(&pack.name, |bytes| bytes[changed].iter_mut().for_each(|byte| *byte ^= 1));
            assert_whole(&copy, source.path(), 2);
        }
    }
}

/// In the target of a restore, files that were saved as two, or a file of the user, were further names of one inode: all of
/// them got the time of the one that came last.
#[test]
fn metadata_of_an_entry_reach_no_other_name_of_its_inode() {
    use std::os::unix::fs::MetadataExt;
    let set_time = |path: &Path, seconds: u64| {
        let file = fs::File::options().write(true).open(path).expect("it opens");
        file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).expect("its time is set");
    };
    for is_group in [false, true] {
        let world = tempfile::tempdir().expect("a folder");
        let (source, target) = (world.path().join("source"), world.path().join("target"));
        fs::create_dir(&source).expect("made");
        for (number, name) in ["a", "b", "c"].into_iter().enumerate() {
            if is_group && number > 0 {
                fs::hard_link(source.join("a"), source.join(name)).expect("linked")
            } else {
                fs::write(source.join(name), "the same content").expect("written")
            }
            set_time(&source.join(name), 1000 + number as u64);
        }
        let storage = memory(SWAPS);
        backup(Arc::new(storage.clone()), &world.path().join("cache"), &source).expect("a backup");
        fs::create_dir(&target).expect("made");
        fs::write(target.join("a"), "the same content").expect("written");
        set_time(&target.join("a"), 1001);
        for name in ["target/b", "target/c", "outside"] {
            fs::hard_link(target.join("a"), world.path().join(name)).expect("linked");
        }
        let repo = open(Arc::new(storage), &world.path().join("cache")).expect("it opens");
        let snapshot = fixture::snapshots(&repo).remove(0);
        let report = fixture::restore(&repo, &snapshot, &source, &target).expect("a restore");
        assert_eq!(report.warnings_count, 0);
        assert_eq!(crate::compare::differences(&source, &target), Vec::<String>::new());
        assert_eq!(fs::metadata(world.path().join("outside")).expect("it is there").mtime(), 1001);
        let inode = |name: &str| fs::metadata(target.join(name)).expect("it is there").ino();
        assert_eq!(is_group, inode("a") == inode("c"));
    }
}
