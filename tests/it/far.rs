//! Reading from far storage: few requests, nothing twice, bounded memory, and the same clear errors.

use crate::compare::differences;
use crate::fixture::{backup, init, open, restore, snapshots};
use crate::golden::noise;
use siltstone::error::Result;
use siltstone::forward_storage;
use siltstone::repo::Repository;
use siltstone::storage::{ListedObject, Memory, Storage, StorageProfile};
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

const RANGE_BYTES: u64 = 4 << 20;
/// A range ends with the frame that begins in it, and begins with the pack when that is near.
const FRAME_BYTES_MAX: u64 = 5 << 19;
const HEADER_REACH: u64 = 64 << 10;

/// Objects in memory that are a request away, and a list of the ranges that were asked for.
struct Far {
    inner: Memory,
    delay: Duration,
    ranges: Mutex<Vec<(String, u64, u64)>>,
    in_flight: AtomicU64,
    in_flight_max: AtomicU64,
}

impl Far {
    fn new(inner: Memory) -> Arc<Self> {
        let delay = Duration::from_millis(2);
        Arc::new(Far { inner, delay, ranges: Mutex::default(), in_flight: 0.into(), in_flight_max: 0.into() })
    }

    /// What was asked for since the last time: name, offset, length.
    fn taken(&self) -> Vec<(String, u64, u64)> {
        std::mem::take(&mut self.ranges.lock().expect("no test panics with it"))
    }
}

impl Storage for Far {
    forward_storage!(self => self.inner; capabilities, put, put_new, compare_and_swap, rename, get, list, remove, stat);

    fn describe(&self) -> String {
        "far".to_owned()
    }
    fn profile(&self) -> StorageProfile {
        StorageProfile::REMOTE
    }
    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.ranges.lock().expect("no test panics with it").push((name.to_owned(), offset, length));
        let now = self.in_flight.fetch_add(length, Ordering::SeqCst) + length;
        self.in_flight_max.fetch_max(now, Ordering::SeqCst);
        std::thread::sleep(self.delay);
        let bytes = self.inner.get_range(name, offset, length);
        self.in_flight.fetch_sub(length, Ordering::SeqCst);
        bytes
    }
}

struct World {
    source: tempfile::TempDir,
    scratch: tempfile::TempDir,
    storage: Memory,
}

impl World {
    /// About 27 MB stored in frames that shrink to a half, and in frames of one large file that do not.
    fn new() -> Self {
        World::of(8, 40 << 20)
    }

    fn of(folders: usize, large_bytes: usize) -> Self {
        let source = tempfile::tempdir().expect("a folder");
        for folder in 0..folders {
            let folder = source.path().join(format!("folder{folder}"));
            fs::create_dir(&folder).expect("a folder is made");
            for file in 0..20 {
                let seed = blake3::hash(format!("{} {file}", folder.display()).as_bytes()).as_bytes()[0];
                let hex = data_encoding::HEXLOWER.encode(&noise(70_000 + file * 1000, seed ^ file as u8));
                fs::write(folder.join(format!("file{file}")), format!("{} {file} {hex}", folder.display()))
                    .expect("a file is written");
            }
        }
        fs::write(source.path().join("large"), noise(large_bytes, 9)).expect("a file is written");
        let storage = Memory::new();
        init(&storage).expect("a repository");
        let scratch = tempfile::tempdir().expect("a folder");
        backup(Arc::new(storage.clone()), &scratch.path().join("first"), source.path()).expect("a backup");
        World { source, scratch, storage }
    }

    fn cache(&self) -> std::path::PathBuf {
        self.scratch.path().join("cache")
    }

    fn packs(&self) -> Vec<ListedObject> {
        self.storage.list("packs/").expect("a listing")
    }

    fn restore_into(&self, repo: &Repository, name: &str) -> siltstone::restore::RestoreReport {
        let snapshot = snapshots(repo).pop().expect("a snapshot");
        restore(repo, &snapshot, self.source.path(), &self.scratch.path().join(name)).expect("a restore")
    }
}

#[test]
fn a_restore_asks_for_ranges_and_not_for_frames() {
    let world = World::new();
    let far = Far::new(world.storage.clone());
    let repo = open(far.clone(), &world.cache()).expect("it opens");
    let report = world.restore_into(&repo, "target");
    assert_eq!(report.warnings, []);
    assert!(differences(world.source.path(), &world.scratch.path().join("target")).is_empty());

    let (taken, packs) = (far.taken(), world.packs());
    let stored: u64 = packs.iter().map(|pack| pack.size).sum();
    let fetched: u64 = taken.iter().map(|(_, _, length)| length).sum();
    // The window grows to its full length first, for content and for trees.
    let bound = (stored / RANGE_BYTES) as usize + 2 * packs.len() + 8;
    assert!(taken.len() <= bound, "{} requests for {stored} bytes in {} packs", taken.len(), packs.len());
    assert!(fetched <= stored, "{fetched} of {stored} bytes");
    assert!(taken.iter().all(|(_, _, length)| *length <= RANGE_BYTES + FRAME_BYTES_MAX + HEADER_REACH));
    for pack in &packs {
        let headers = taken.iter().filter(|(name, offset, _)| *name == pack.name && *offset == 0).count();
        assert!(headers <= 1, "{headers} times the header of one pack");
    }
}

#[test]
fn memory_is_bounded_and_less_of_it_only_costs_requests() {
    let world = World::new();
    let far = Far::new(world.storage.clone());
    let repo = open(far.clone(), &world.cache()).expect("it opens");
    let memory = 16 << 20;
    repo.limit_memory(memory);
    assert_eq!(world.restore_into(&repo, "target").warnings, []);
    let at_once = far.in_flight_max.load(Ordering::SeqCst);
    // Five sixteenths for content and a sixteenth for trees, and one frame however many writers want one.
    assert!(at_once <= memory / 16 * 6 + FRAME_BYTES_MAX, "{at_once} bytes in flight");
    assert!(far.taken().iter().all(|(_, _, length)| *length <= memory / 64 * 5 + FRAME_BYTES_MAX + HEADER_REACH));
}

#[test]
fn threads_go_on_one_after_the_other_where_memory_does_not_hold_a_frame() {
    let world = World::of(1, 6 << 20);
    let far = Far::new(world.storage.clone());
    let repo = open(far.clone(), &world.cache()).expect("it opens");
    let memory = 2 << 20;
    repo.limit_memory(memory);
    let (reader, watch) = (repo.reader(), siltstone::watch::Watch::silent());
    let snapshot = snapshots(&repo).pop().expect("a snapshot");
    let mut files = Vec::new();
    let each = &mut |_: &[u8], entry: &siltstone::entry::Entry| {
        files.extend((entry.kind == siltstone::entry::EntryKind::File).then(|| entry.clone()));
        Ok(())
    };
    siltstone::browse::list(&reader, &snapshot, b"/", true, each).expect("it lists");
    assert_eq!(files.len(), 21);
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let (repo, reader, watch, files) = (&repo, &reader, &watch, &files);
            scope.spawn(move || {
                // Each begins elsewhere, so that all want other frames.
                for file in files.iter().cycle().skip(thread * 5).take(files.len()) {
                    let read = repo.copy_content(reader, file, &mut std::io::sink(), watch).expect("it is read");
                    assert_eq!(read, file.size);
                }
            });
        }
    });
    let at_once = far.in_flight_max.load(Ordering::SeqCst);
    assert!(at_once <= memory / 16 * 6 + FRAME_BYTES_MAX, "{at_once} bytes in flight");
    assert!(far.taken().iter().any(|(_, _, length)| *length > memory / 16 * 5), "no frame is larger than the memory");
}

#[test]
fn one_small_file_of_a_large_pack_does_not_cost_the_pack() {
    let world = World::new();
    let far = Far::new(world.storage.clone());
    let repo = open(far.clone(), &world.cache()).expect("it opens");
    let snapshot = snapshots(&repo).pop().expect("a snapshot");
    far.taken();
    let file = world.source.path().join("folder5/file7");
    let target = world.scratch.path().join("one");
    let report = restore(&repo, &snapshot, &file, &target).expect("a restore");
    assert_eq!((report.files, report.warnings_count), (1, 0));
    assert!(fs::read(target.join("file7")).expect("it is there") == fs::read(&file).expect("it is there"));
    std::thread::sleep(Duration::from_millis(50));
    let fetched: u64 = far.taken().iter().map(|(_, _, length)| length).sum();
    // A file in two frames looks like the beginning of a longer read: up to five frames of 1 MiB, of 27.
    assert!(fetched < 6 << 20, "{fetched} bytes");
}

/// Walks the whole tree; says how many ranges that took.
fn walk(far: &Arc<Far>, cache: &Path) -> usize {
    let repo = open(far.clone(), cache).expect("it opens");
    let snapshot = snapshots(&repo).pop().expect("a snapshot");
    far.taken();
    let mut count = 0;
    let each = &mut |_: &[u8], _: &siltstone::entry::Entry| {
        count += 1;
        Ok(())
    };
    siltstone::browse::list(&repo.reader(), &snapshot, b"/", true, each).expect("it lists");
    assert!(count > 160, "{count} entries");
    far.taken().len()
}

#[test]
fn trees_are_kept_in_the_cache_folder_which_may_be_lost_or_damaged() {
    let world = World::new();
    let far = Far::new(world.storage.clone());
    assert!(walk(&far, &world.cache()) > 0);
    assert_eq!(walk(&far, &world.cache()), 0, "all is kept");
    let kept: Vec<_> = walkdir::WalkDir::new(world.cache())
        .into_iter()
        .filter_map(|file| file.ok().map(|file| file.into_path()))
        .filter(|path| path.extension().is_some_and(|extension| extension == "sealed"))
        .collect();
    assert!(!kept.is_empty());
    // In the header, in the frame, and cut short.
    for damage in 0..3 {
        for path in &kept {
            let mut bytes = fs::read(path).expect("it is there");
            match damage {
                0 => bytes[20] ^= 1,
                1 => *bytes.last_mut().expect("it is not empty") ^= 1,
                _ => bytes.truncate(100),
            }
            fs::write(path, bytes).expect("it is changed");
        }
        assert!(walk(&far, &world.cache()) > 0, "damage {damage} goes unnoticed");
        assert_eq!(walk(&far, &world.cache()), 0, "it is kept anew");
    }
    fs::remove_dir_all(world.cache()).expect("it is removed");
    assert!(walk(&far, &world.cache()) > 0);
}

#[test]
fn damage_in_a_range_harms_only_the_files_that_it_hit() {
    let world = World::new();
    let largest = world.packs().into_iter().max_by_key(|pack| pack.size).expect("a pack").name;
    let cut = |bytes: &mut Vec<u8>| bytes.truncate(bytes.len() - (3 << 20));
    let bend = |bytes: &mut Vec<u8>| bytes[9 << 20] ^= 1;
    let bend = (bend as fn(&mut Vec<u8>), "was changed since it was written");
    let damages = [(cut as fn(&mut Vec<u8>), "shorter than the requested range"), bend];
    for (number, (damage, words)) in damages.into_iter().enumerate() {
        let messages = |storage: Arc<dyn Storage>, name: String| {
            let repo = open(storage, &world.scratch.path().join(&name)).expect("it opens");
            let target = world.scratch.path().join(name + " target");
            let snapshot = snapshots(&repo).pop().expect("a snapshot");
            let report = restore(&repo, &snapshot, world.source.path(), &target).expect("a restore");
            assert!(report.warnings_count > 0 && report.files > 100, "{} files", report.files);
            report.warnings.iter().map(|warning| format!("{:?} {}", warning.path, warning.what)).collect::<Vec<_>>()
        };
        let damaged = world.storage.fork();
        damaged.corrupt(&largest, damage);
        let near = messages(Arc::new(damaged.clone()), format!("near {number}"));
        let far = messages(Far::new(damaged), format!("far {number}"));
        assert_eq!(near, far, "far storage tells of damage as near storage does");
        assert!(far.iter().all(|message| message.contains(words)), "{far:?}");
    }
}
