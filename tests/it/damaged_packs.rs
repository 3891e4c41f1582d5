//! Packs of the right size with wrong bytes, and packs that are listed and cannot be fetched: a run that meets one remembers it,
//! and no backup that met one rests on it.

use crate::fixture::{self, Hooked, SWAPS, dump, init_small_chunks, open, options, plant, restored_differences};
use siltstone::backup::{BackupOptions, BackupReport};
use siltstone::entry::{Content, Entry, Time};
use siltstone::error::{Error, Kind, Result};
use siltstone::id::ChunkId;
use siltstone::repo::Repository;
use siltstone::source::{Source, Stream};
use siltstone::storage::{Capabilities, Local, Memory, Storage};
use siltstone::watch::{Event, Notice, Watch, now};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

pub struct World {
    pub directory: tempfile::TempDir,
    pub storage: Memory,
}

impl World {
    /// A source that was backed up once, in chunks so small that files have lists of them.
    pub fn new(capabilities: Capabilities) -> World {
        World::over(Memory::with_capabilities(capabilities))
    }

    pub fn over_a_network() -> World {
        World::over(Memory::with_capabilities(SWAPS).remote())
    }

    fn over(storage: Memory) -> World {
        let world = World { directory: tempfile::tempdir().expect("a directory"), storage };
        plant(&world.source(), 1);
        init_small_chunks(&world.storage).expect("a repository");
        let storage = world.storage.clone();
        world.backup(Arc::new(storage), "one", false).0.expect("the backup succeeds");
        world
    }

    pub fn source(&self) -> PathBuf {
        self.directory.path().join("source")
    }

    pub fn cache(&self, name: &str) -> PathBuf {
        self.directory.path().join("caches").join(name)
    }

    pub fn backup(&self, storage: Arc<dyn Storage>, cache: &str, force: bool) -> (Result<BackupReport>, Vec<String>) {
        self.backup_with(storage, Some(cache), |options| options.force = force)
    }

    /// Opens and backs up with some options changed; returns the notices as well.
    pub fn backup_with(
        &self,
        storage: Arc<dyn Storage>,
        cache: Option<&str>,
        change: impl FnOnce(&mut BackupOptions),
    ) -> (Result<BackupReport>, Vec<String>) {
        let notices: Arc<Mutex<Vec<String>>> = Arc::default();
        let heard = notices.clone();
        let watch = Watch::new(Arc::new(move |event| {
            if let Event::Notice(Notice { text, .. }) = event {
                heard.lock().expect("whole").push(text);
            }
        }));
        let mut wanted = options(&self.source());
        change(&mut wanted);
        let opened = match cache {
            Some(cache) => Repository::open(storage, &fixture::credentials(), &self.cache(cache), &watch),
            None => Repository::open_uncached(storage, &fixture::credentials(), &watch),
        };
        let done = opened.and_then(|repo| repo.backup(wanted, &watch).inspect(|report| report.confirm_shown(&repo)));
        let notices = notices.lock().expect("whole").clone();
        (done, notices)
    }

    /// Whether the newest snapshot comes back bit for bit.
    pub fn comes_back(&self, storage: &Memory, cache: &Path) -> bool {
        let repo = open(Arc::new(storage.clone()), cache).expect("it opens");
        let newest = fixture::snapshots(&repo).pop().expect("there is one");
        restored_differences(&repo, &newest, &self.source(), &self.source()).is_ok_and(|found| found.is_empty())
    }

    pub fn comes_back_elsewhere(&self, storage: &Memory) -> bool {
        let cache = tempfile::tempdir().expect("a directory");
        self.comes_back(storage, cache.path())
    }
}

/// Does something before it is read for the first time.
pub struct WhenRead<R, F> {
    pub inner: R,
    pub before: Option<F>,
}

impl<R: Read, F: FnOnce()> Read for WhenRead<R, F> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        self.before.take().into_iter().for_each(|before| before());
        self.inner.read(into)
    }
}

/// A copy in which a byte of this pack is another one.
fn damaged(storage: &Memory, pack: &str, sixteenth: usize) -> Memory {
    let copy = storage.fork();
    copy.corrupt(pack, |bytes| {
        let at = bytes.len() * sixteenth / 16;
        bytes[at] ^= 1;
    });
    copy
}

/// Every pack counted as damaged when the disk of the repository was unmounted during a restore, which ended with 6.
#[test]
fn a_repository_that_is_gone_is_not_a_damaged_one() {
    let place = tempfile::tempdir().expect("a folder");
    let at = |name: &str| place.path().join(name);
    fixture::plant(&at("source"), 1);
    let local = Local::create(&at("repository")).expect("a folder");
    fixture::init(&local).expect("a repository");
    let storage: Arc<dyn Storage> = Arc::new(local);
    let report = fixture::backup(storage.clone(), &at("cache"), &at("source")).expect("a backup");
    let snapshot = report.snapshot.expect("a snapshot");
    let repo = fixture::open(storage, &at("cache")).expect("it opens");
    fs::rename(at("repository"), at("elsewhere")).expect("moved");
    // Nothing is there, then an empty directory, as below a disk that is not mounted.
    for _ in 0..2 {
        let error = fixture::restore(&repo, &snapshot, &at("source"), &at("out")).expect_err("nothing can be read");
        assert!(error.is(Kind::Gone) && error.advice().is_some(), "{error:?}");
        fs::create_dir_all(at("repository")).expect("made");
    }
    assert!(
        walkdir::WalkDir::new(at("cache"))
            .into_iter()
            .all(|entry| entry.expect("listed").file_name() != "damaged-packs")
    );
}

/// A backup stored again what a pack held that links in a circle had replaced, and readers did not try that copy.
#[test]
fn readers_find_the_copy_of_a_pack_that_is_no_file() {
    let place = tempfile::tempdir().expect("a folder");
    let at = |name: &str| place.path().join(name);
    plant(&at("source"), 1);
    init_small_chunks(&Local::create(&at("repository")).expect("a folder")).expect("a repository");
    let backup = || {
        let storage = Arc::new(Local::open(&at("repository")).expect("a folder"));
        fixture::backup(storage, &at("cache"), &at("source")).expect("a backup")
    };
    let packs = || Local::open(&at("repository")).and_then(|local| local.list("packs/")).expect("listed");
    let replace = |name: &str| {
        let pack = at("repository").join(name);
        fs::rename(&pack, at("kept").join(pack.file_name().expect("a name"))).expect("moved");
        std::os::unix::fs::symlink(pack.file_name().expect("a name"), &pack).expect("made");
    };
    fs::create_dir(at("kept")).expect("made");
    let oldest = backup().snapshot.expect("a snapshot");
    let first = packs();
    first.iter().for_each(|pack| replace(&pack.name));
    let newest = backup().snapshot.expect("a snapshot");
    let comes_back = |cache: &str, snapshot| {
        let storage = Arc::new(Local::open(&at("repository")).expect("a folder"));
        let repo = open(storage, &at(cache)).expect("it opens");
        restored_differences(&repo, snapshot, &at("source"), &at("source")).is_ok_and(|found| found.is_empty())
    };
    let mut second = packs();
    second.retain(|pack| first.iter().all(|other| other.name != pack.name));
    assert!(comes_back("first reader", &newest));
    // The same with the copies in each other's place, as a reader may take any of them first. What is above the source may have
    // changed between both backups.
    for pack in &first {
        let name = at("repository").join(&pack.name);
        fs::remove_file(&name).expect("removed");
        fs::rename(at("kept").join(name.file_name().expect("a name")), name).expect("moved back");
    }
    second.iter().for_each(|pack| replace(&pack.name));
    assert!(comes_back("second reader", &oldest));
}

/// Where the system refuses a pack whose content is stored elsewhere, too, readers did not try that copy. A verdict stayed when the
/// rights came back.
#[test]
fn copies_of_a_pack_that_is_refused_are_read() {
    for kind in [Kind::Denied, Kind::Failed] {
        let world = World::new(SWAPS);
        let first: Vec<String> =
            world.storage.list("packs/").expect("listed").into_iter().map(|pack| pack.name).collect();
        let is_lost = Arc::new(AtomicBool::new(true));
        let (refused, lost) = (first.clone(), is_lost.clone());
        let before = move |verb: &str, name: &str| {
            let kind = if lost.load(Ordering::SeqCst) { Kind::Corrupt } else { kind };
            if verb.starts_with("get") && refused.iter().any(|one| one == name) {
                Err(Error::new(kind, verb, name))
            } else {
                Ok(())
            }
        };
        let storage = Arc::new(Hooked { inner: world.storage.clone(), before });
        let look = |cache: &str| {
            let repo = open(storage.clone(), &world.cache(cache)).expect("it opens");
            let newest = fixture::snapshots(&repo).pop().expect("there is one");
            restored_differences(&repo, &newest, &world.source(), &world.source()).is_ok_and(|found| found.is_empty())
        };
        is_lost.store(false, Ordering::SeqCst);
        assert!(!look("two"));
        let (done, _) = world.backup(Arc::new(world.storage.clone()), "two", false);
        assert!(done.expect("the backup succeeds").healing.is_none(), "a refusal is no damage");
        is_lost.store(true, Ordering::SeqCst);
        // First the tree, then the content that it leads to.
        for what in ["tree", "content"] {
            assert!(!look("one"), "{kind:?} {what}");
            let (done, _) = world.backup(storage.clone(), "one", true);
            assert!(done.expect("the backup succeeds").healing.is_some(), "{kind:?} {what}");
        }
        is_lost.store(false, Ordering::SeqCst);
        assert!((0..4).all(|reader| look(&format!("reader {reader}"))), "{kind:?}");
    }
}

/// A storage that refuses to read any pack was taken for a damaged one: a run made up to 16 snapshots, and ended with 4 or 0.
#[test]
fn a_backup_that_may_read_no_pack_ends_with_a_refusal() {
    let world = World::new(SWAPS);
    let before = |verb: &str, name: &str| {
        if verb.starts_with("get") && name.starts_with("packs/") {
            Err(Error::new(Kind::Denied, verb, name))
        } else {
            Ok(())
        }
    };
    fs::write(world.source().join("one/new"), "new").expect("written");
    for cache in ["one", "another"] {
        let storage = world.storage.fork();
        let refusing = Arc::new(Hooked { inner: storage.clone(), before });
        let (done, _) = world.backup(refusing, cache, false);
        let snapshots = storage.list("snapshots/").expect("listed").len();
        assert!(done.as_ref().is_err_and(|error| error.is(Kind::Denied)), "{cache}: {done:?}");
        assert!(snapshots <= 2, "{cache}: {snapshots}");
        // With the right to read, nothing is known to be damaged.
        let (done, _) = world.backup(Arc::new(storage.clone()), cache, false);
        assert!(done.expect("the backup succeeds").healing.is_none(), "{cache}");
        assert!(world.comes_back_elsewhere(&storage), "{cache}");
    }
}

#[test]
fn a_backup_that_meets_a_damaged_pack_does_not_rest_on_it() {
    // It said "its files are read again", took their chunks for stored as before, and ended with 0.
    for world in [World::new(SWAPS), World::over_a_network()] {
        fs::write(world.source().join("one/new"), "new").expect("written");
        let mut met = 0;
        for pack in world.storage.list("packs/").expect("listed") {
            for sixteenth in 0..16 {
                for cache in ["one", "none"] {
                    let storage = damaged(&world.storage, &pack.name, sixteenth);
                    let here = format!("{cache} {} {sixteenth}", pack.name);
                    _ = fs::remove_dir_all(world.cache(&here));
                    if cache == "one" {
                        fixture::copy(&world.cache(cache), &world.cache("copy"));
                    }
                    let (done, notices) = world.backup(Arc::new(storage.clone()), "copy", false);
                    let report = done.expect("the backup succeeds");
                    let has_met = notices.iter().any(|notice| notice.contains("starts over"));
                    assert!(!has_met || report.healing.is_some(), "{here}: {notices:?}");
                    assert!(!has_met || world.comes_back_elsewhere(&storage), "{here}: {notices:?}");
                    met += usize::from(has_met);
                    _ = fs::remove_dir_all(world.cache("copy"));
                }
            }
        }
        assert!(met > 8, "{met} backups met the damage");
    }
}

#[test]
fn what_a_restore_found_damaged_the_next_backup_stores_again() {
    let world = World::new(SWAPS);
    let mut met = 0;
    for pack in world.storage.list("packs/").expect("listed") {
        for sixteenth in 0..16 {
            let storage = damaged(&world.storage, &pack.name, sixteenth);
            let cache = format!("{} {sixteenth}", pack.name);
            let cache = cache.as_str();
            if world.comes_back(&storage, &world.cache(cache)) {
                continue;
            }
            met += 1;
            let (done, _) = world.backup(Arc::new(storage.clone()), cache, true);
            assert!(done.expect("the backup succeeds").healing.is_some(), "{cache}");
            assert!(world.comes_back_elsewhere(&storage), "{cache}");
        }
    }
    assert!(met > 8, "{met} restores met the damage");
}

/// Of two damaged copies only the first was noted, and of three only two were tried: a whole one did not help, and the next
/// backup ended with 0 and did not heal.
#[test]
fn every_copy_of_a_chunk_is_tried_and_noted() {
    let directory = tempfile::tempdir().expect("a directory");
    let source = directory.path().join("source");
    plant(&source, 1);
    let storage = Memory::with_capabilities(SWAPS);
    init_small_chunks(&storage).expect("a repository");
    let cache = |name: &str| directory.path().join("caches").join(name);
    // Three hosts back up the same at the same time.
    let mut packs = Vec::new();
    for (host, alone) in [storage.fork(), storage.fork(), storage.fork()].into_iter().enumerate() {
        fixture::backup(Arc::new(alone.clone()), &cache(&host.to_string()), &source).expect("the backup succeeds");
        // The one of content; directories above the source differ from backup to backup.
        packs.extend(alone.list("packs/").expect("listed").into_iter().max_by_key(|pack| pack.size));
        for (name, bytes) in alone.snapshot().into_iter().filter(|(name, _)| !name.starts_with("pending/")) {
            storage.put(&name, bytes.into()).expect("written");
        }
    }
    let damage = |storage: &Memory, hosts: &[usize]| {
        for pack in hosts.iter().map(|host| &packs[*host]) {
            storage.corrupt(&pack.name, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
        }
    };
    for hosts in [[0, 1], [0, 2], [1, 2]] {
        let (storage, name) = (storage.fork(), format!("{hosts:?}"));
        damage(&storage, &hosts);
        let repo = open(Arc::new(storage.clone()), &cache(&name)).expect("it opens");
        for snapshot in fixture::snapshots(&repo) {
            assert_eq!(restored_differences(&repo, &snapshot, &source, &source).expect("restored"), [""; 0], "{name}");
        }
        damage(&storage, &(0..3).filter(|host| !hosts.contains(host)).collect::<Vec<_>>());
        let again = cache(&format!("{name} again"));
        let repo = open(Arc::new(storage.clone()), &again).expect("it opens");
        let snapshot = fixture::snapshots(&repo).pop().expect("there is one");
        assert!(restored_differences(&repo, &snapshot, &source, &source).is_err());
        // The restore did not get as far as to meet all of them.
        for _ in 0..2 {
            let mut wanted = options(&source);
            wanted.force = true;
            let repo = open(Arc::new(storage.clone()), &again).expect("it opens");
            repo.backup(wanted, &Watch::silent()).expect("the backup succeeds");
            let newest = fixture::snapshots(&repo).pop().expect("there is one");
            _ = restored_differences(&repo, &newest, &source, &source);
        }
        let elsewhere = cache(&format!("{name} elsewhere"));
        let repo = open(Arc::new(storage.clone()), &elsewhere).expect("it opens");
        let newest = fixture::snapshots(&repo).pop().expect("there is one");
        assert_eq!(restored_differences(&repo, &newest, &source, &source).expect("restored"), [""; 0], "{name}");
    }
}

/// What two hosts store when they back up the same at the same time: two packs with the same content, damaged here and
/// there.
struct TwoCopies {
    pub directory: tempfile::TempDir,
    pub storage: Memory,
    packs: Vec<String>,
}

impl TwoCopies {
    /// `damage` is called with the bytes of either pack and its number.
    fn new(file_bytes: usize, damage: impl Fn(usize, &mut Vec<u8>)) -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let (source, storage) = (directory.path().join("source"), Memory::with_capabilities(SWAPS));
        fs::create_dir(&source).expect("made");
        fs::write(source.join("file"), crate::golden::noise(file_bytes, 1)).expect("written");
        fixture::init(&storage).expect("a repository");
        let mut packs = Vec::new();
        for (host, alone) in [storage.fork(), storage.fork()].into_iter().enumerate() {
            let mut wanted = options(&source);
            // One after the other, so that both packs have the same order.
            wanted.readers = Some(1);
            let repo = open(Arc::new(alone.clone()), &directory.path().join(host.to_string())).expect("it opens");
            repo.backup(wanted, &Watch::silent()).expect("the backup succeeds");
            let largest = alone.list("packs/").expect("listed").into_iter().max_by_key(|pack| pack.size);
            packs.extend(largest.map(|pack| pack.name));
            for (name, bytes) in alone.snapshot().into_iter().filter(|(name, _)| !name.starts_with("pending/")) {
                storage.put(&name, bytes.into()).expect("written");
            }
        }
        for (number, pack) in packs.iter().enumerate() {
            storage.corrupt(pack, |bytes| damage(number, bytes));
        }
        TwoCopies { directory, storage, packs }
    }

    fn open_through(&self, storage: Arc<dyn Storage>) -> Repository {
        open(storage, &self.directory.path().join("cache")).expect("it opens")
    }
}

/// A pack that was damaged somewhere was not asked for any of its chunks, though each was whole in one of two packs: a
/// restore ended with 6; another one with the same cache did so even where the first one had gone through.
#[test]
fn what_is_whole_in_a_damaged_pack_comes_back() {
    let world = TwoCopies::new(12 << 20, |number, bytes| {
        let at = bytes.len() / 8 * [1, 7][number];
        bytes[at] ^= 1;
    });
    let source = world.directory.path().join("source");
    for _ in 0..3 {
        let repo = world.open_through(Arc::new(world.storage.clone()));
        for snapshot in fixture::snapshots(&repo) {
            assert_eq!(restored_differences(&repo, &snapshot, &source, &source).expect("restored"), [""; 0]);
        }
    }
    let text = walkdir::WalkDir::new(world.directory.path().join("cache")).into_iter().filter_map(Result::ok);
    let noted = text.filter(|entry| entry.file_name() == "damaged-packs").map(|entry| fs::read_to_string(entry.path()));
    assert_eq!(noted.map(|text| text.expect("read").lines().count()).sum::<usize>(), 2, "both were noted");
}

/// The chunks of each file of the newest snapshot.
fn files_of(repo: &Repository) -> Vec<Vec<ChunkId>> {
    let (reader, mut files) = (repo.reader(), Vec::new());
    let mut trees = vec![fixture::snapshots(repo).pop().expect("there is one").root];
    while let Some(tree) = trees.pop() {
        let each = &mut |entry: Entry| {
            let mut chunks = Vec::new();
            reader.for_each_chunk(&entry, &mut |id| {
                chunks.push(*id);
                Ok(())
            })?;
            files.extend((!chunks.is_empty()).then_some(chunks));
            trees.extend(match entry.content {
                Content::Tree(below) => Some(below),
                _ => None,
            });
            Ok(())
        };
        reader.for_each_entry(&tree, each).expect("trees are whole");
    }
    files
}

/// From the seventeenth damaged pack on, what was whole in it counted as lost as well.
#[test]
fn what_is_whole_in_many_damaged_packs_is_read() {
    let directory = tempfile::tempdir().expect("a directory");
    let (source, storage) = (directory.path().join("source"), Memory::with_capabilities(SWAPS));
    fs::create_dir(&source).expect("made");
    fixture::init(&storage).expect("a repository");
    for number in 0..20 {
        for half in 0..2 {
            let content = crate::golden::noise(3 << 20, 2 * number + half);
            fs::write(source.join(format!("{number:02} {half}")), content).expect("written");
        }
        let mut wanted = options(&source);
        wanted.readers = Some(1);
        let repo = open(Arc::new(storage.clone()), &directory.path().join("writes")).expect("it opens");
        repo.backup(wanted, &Watch::silent()).expect("the backup succeeds");
    }
    for pack in storage.list("packs/").expect("listed").into_iter().filter(|pack| pack.size > 1 << 20) {
        storage.corrupt(&pack.name, |bytes| {
            let at = bytes.len() / 8;
            bytes[at] ^= 1;
        });
    }
    let repo = open(Arc::new(storage), &directory.path().join("reads")).expect("it opens");
    let (reader, files) = (repo.reader(), files_of(&repo));
    let is_whole = |file: &&Vec<ChunkId>| file.iter().filter(|id| reader.content(id).is_err()).count() == 0;
    assert_eq!((files.len(), files.iter().filter(is_whole).count()), (40, 20));
}

/// The newest snapshot is damaged, and the one before it is the same: "unchanged" was said of that one, and no restore of
/// the latest worked.
#[test]
fn a_damaged_snapshot_is_not_vouched_for() {
    let world = World::new(SWAPS);
    world.backup(Arc::new(world.storage.clone()), "one", false).0.expect("the backup succeeds");
    let newest = world.storage.list("snapshots/").expect("listed").pop().expect("there is one").name;
    world.storage.corrupt(&newest, |bytes| bytes[40] ^= 1);
    for (minutes, is_created) in [(1, true), (2, false)] {
        let mut wanted = options(&world.source());
        wanted.skip_if_unchanged = true;
        // Names tell seconds.
        wanted.time = Some(Time { seconds: now().seconds + 60 * minutes, nanoseconds: 0 });
        let repo = open(Arc::new(world.storage.clone()), &world.cache("one")).expect("it opens");
        let report = repo.backup(wanted, &Watch::silent()).expect("the backup succeeds");
        assert_eq!(report.snapshot.is_some(), is_created);
    }
}

/// Where else a chunk is could not be looked up once: from then on one damaged copy of it was read for ever.
#[test]
fn a_failed_look_for_other_copies_is_made_again() {
    let world = TwoCopies::new(20_000, |_, bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
    let reads: [AtomicUsize; 2] = Default::default();
    let packs = world.packs.clone();
    let is_down = Arc::new(AtomicBool::new(true));
    let may_fail = is_down.clone();
    let hooked = Hooked {
        inner: world.storage.clone(),
        before: move |verb: &'_ str, name: &'_ str| {
            if let Some(at) = packs.iter().position(|pack| pack == name && verb != "stat") {
                reads[at].fetch_add(1, Ordering::SeqCst);
            }
            let has_met_damage = reads.iter().any(|count| count.load(Ordering::SeqCst) > 0);
            if has_met_damage && may_fail.load(Ordering::SeqCst) && name.starts_with("index/") && verb == "get" {
                Err(Error::new(Kind::Temporary, verb, name))
            } else {
                Ok(())
            }
        },
    };
    let repo = world.open_through(Arc::new(hooked));
    let (reader, files) = (repo.reader(), files_of(&repo));
    let chunks = &files[0];
    for (is_down_now, expected) in [(true, Kind::Temporary), (true, Kind::Temporary), (false, Kind::Corrupt)] {
        is_down.store(is_down_now, Ordering::SeqCst);
        let error = reader.content(&chunks[0]).map(drop).expect_err("no copy can be read");
        assert!(error.is(expected), "{error:?}");
    }
}

/// Each attempt ended at the first damaged pack, and a third one with 4: with many damaged packs, many runs in a row made no
/// snapshot.
#[test]
fn a_run_that_meets_many_damaged_packs_makes_a_snapshot() {
    let world = World::new(SWAPS);
    for number in 0..12 {
        let folder = world.source().join(format!("folder-{number}"));
        fs::create_dir(&folder).expect("made");
        fs::write(folder.join("file"), crate::golden::noise(2000, number)).expect("written");
        fixture::look_old(&world.source());
        world.backup(Arc::new(world.storage.clone()), "one", false).0.expect("the backup succeeds");
    }
    for pack in world.storage.list("packs/").expect("listed") {
        world.storage.corrupt(&pack.name, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
    }
    for number in 0..12 {
        fs::write(world.source().join(format!("folder-{number}/new")), "new").expect("written");
    }
    let (done, notices) = world.backup(Arc::new(world.storage.clone()), "one", false);
    done.unwrap_or_else(|error| panic!("{error}: {notices:?}"));
    // What a backup need not read is found by a restore, and healed then.
    let healed = (0..4).any(|_| {
        let is_back = world.comes_back(&world.storage, &world.cache("one"));
        if !is_back {
            world.backup(Arc::new(world.storage.clone()), "one", false).0.expect("the backup succeeds");
        }
        is_back
    });
    assert!(healed, "four restores and backups did not heal it");
    assert!(world.comes_back_elsewhere(&world.storage));
}

/// `--skip-if-unchanged` vouched for a snapshot that had been removed meanwhile.
#[test]
fn nothing_has_changed_since_no_snapshot_that_is_gone() {
    for world in [World::new(SWAPS), World::over_a_network()] {
        let (storage, lists) = (world.storage.clone(), AtomicUsize::new(0));
        let before = move |call: &str, name: &str| {
            // Behind the comparison of the writer.
            if call == "list" && name == "packs/" && lists.fetch_add(1, Ordering::SeqCst) == 1 {
                for snapshot in storage.list("snapshots/").expect("listed") {
                    storage.remove(&snapshot.name).expect("removed");
                }
            }
        };
        let hooked = Arc::new(Hooked { inner: world.storage.clone(), before });
        let (done, _) = world.backup_with(hooked, Some("one"), |options| options.skip_if_unchanged = true);
        let report = done.expect("the backup succeeds");
        assert!(report.snapshot.is_some() && world.comes_back_elsewhere(&world.storage));
    }
}

#[test]
fn a_pack_that_vanishes_behind_its_listing_counts_as_lost() {
    // The storage answered 404 after its own listing: the backup went on, and its snapshot lacked what had been there.
    for world in [World::new(SWAPS), World::over_a_network()] {
        let packs = world.storage.list("packs/").expect("listed");
        fs::write(world.source().join("one/new"), "new").expect("written");
        let storage = world.storage.clone();
        let before = move |call: &str, name: &str| {
            if call == "get_range" && packs.iter().any(|pack| pack.name == name) {
                storage.remove(name).expect("removed");
            }
        };
        let (done, notices) = world.backup(Arc::new(Hooked { inner: world.storage.clone(), before }), "none", false);
        done.expect("the backup succeeds");
        assert!(notices.iter().any(|notice| notice.contains("starts over")), "{notices:?}");
        assert!(world.comes_back_elsewhere(&world.storage));
    }
}

#[test]
fn standard_input_is_not_read_twice() {
    let world = World::new(SWAPS);
    fs::write(world.source().join("one/new"), "new").expect("written");
    let storage = world.storage.fork();
    for pack in storage.list("packs/").expect("listed") {
        storage.corrupt(&pack.name, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
    }
    let input = || std::io::Cursor::new(b"a dump".to_vec());
    // Without a cache nothing is known of what an earlier run met: such backups never succeeded.
    for cache in [Some("none"), None] {
        let storage = storage.fork();
        let backup = || {
            let set_input = |options: &mut BackupOptions| options.sources.push(dump(input()));
            world.backup_with(Arc::new(storage.clone()), cache, set_input).0
        };
        let report = backup().expect("it starts over before it reads standard input");
        assert_eq!(report.snapshot.expect("a snapshot").totals.streams, 1);
        let Some(cache) = cache else { continue };
        // What no backup reads, a restore finds.
        assert!(!world.comes_back(&storage, &world.cache(cache)));
        backup().expect("it knows of the damage that the restore met");
        assert!(world.comes_back_elsewhere(&storage));
    }
}

#[test]
fn a_backup_that_creates_no_snapshot_as_nothing_changed_vouches_for_the_last_one() {
    // What vanished while it ran went unnoticed, as only a commit looked once more: "nothing has changed", exit 0.
    for world in [World::new(SWAPS), World::over_a_network()] {
        let storage = world.storage.clone();
        let lists = AtomicUsize::new(0);
        let before = move |call: &str, name: &str| {
            // Behind the comparison of the writer.
            if call == "list" && name == "packs/" && lists.fetch_add(1, Ordering::SeqCst) == 1 {
                for pack in storage.list("packs/").expect("listed") {
                    storage.remove(&pack.name).expect("removed");
                }
            }
        };
        let hooked = Arc::new(Hooked { inner: world.storage.clone(), before });
        let (done, _) = world.backup_with(hooked, Some("one"), |options| options.skip_if_unchanged = true);
        // Its last snapshot cannot be relied on, as what it had lost cannot always be made again.
        assert!(done.expect("the backup succeeds").snapshot.is_some());
        assert!(world.comes_back_elsewhere(&world.storage));
    }
}

#[test]
fn a_snapshot_that_refers_to_no_damaged_pack_is_not_created_twice() {
    // Damage that the look at earlier snapshots met threw the report of a whole snapshot away.
    let world = World::new(SWAPS);
    let kept = world.storage.snapshot();
    fs::remove_dir_all(world.source()).expect("removed");
    fs::create_dir(world.source()).expect("made");
    // No chunk of it is in the damaged packs: no backup reads those to see whether they are sound.
    let other: String = (0..2000).map(|number| format!("line {number} of another file\n")).collect();
    fs::write(world.source().join("other"), other).expect("written");
    for pack in kept.keys().filter(|name| name.starts_with("packs/")) {
        world.storage.corrupt(pack, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
    }
    // One object is gone as well, so that the backup looks at earlier snapshots.
    let lost = kept.keys().rfind(|name| name.starts_with("packs/")).expect("a pack");
    world.storage.remove(lost).expect("removed");
    let (done, _) = world.backup(Arc::new(world.storage.clone()), "none", true);
    assert!(done.expect("the backup succeeds").snapshot.is_some());
    assert!(world.comes_back_elsewhere(&world.storage));
    assert_eq!(world.storage.list("snapshots/").expect("listed").len(), 2);
}

/// A run that had read standard input could not start over: objects that were deleted meanwhile ended it with 4.
#[test]
fn streams_are_read_once_however_often_a_run_starts_over() {
    for is_in_repository in [false, true] {
        let world = World::new(SWAPS);
        let dump = if is_in_repository {
            fs::read(world.source().join("one/two/large")).expect("it is in the source")
        } else {
            crate::golden::noise(300_000, 77)
        };
        let runs = world.directory.path().join("runs");
        let command = format!("echo run >>{}; echo a table", runs.display());
        let (storage, packs) = (world.storage.clone(), world.storage.list("packs/").expect("listed"));
        let lose = move || packs.iter().for_each(|pack| storage.remove(&pack.name).expect("removed"));
        let input = WhenRead { inner: std::io::Cursor::new(dump.clone()), before: Some(lose) };
        fs::remove_file(world.source().join("one/two/large")).expect("removed");
        let (done, notices) = world.backup_with(Arc::new(world.storage.clone()), Some("one"), |options| {
            options.sources.push(Source::stream(Stream::new("table", command)));
            options.sources.push(fixture::dump(input));
        });
        assert_eq!(fs::read_to_string(&runs).expect("it ran"), "run\n");
        if is_in_repository {
            let error = done.expect_err("what it refers to is lost");
            assert!(error.is(Kind::Stale) && error.to_string().contains("standard input"), "{error}");
            continue;
        }
        let snapshot = done.expect("the backup succeeds").snapshot.expect("a snapshot");
        assert!(notices.iter().any(|notice| notice.contains("starts over")), "{notices:?}");
        assert_eq!(snapshot.totals.streams, 2);
        let repo = open(Arc::new(world.storage.clone()), &world.cache("fresh")).expect("it opens");
        let reader = repo.reader();
        let entry = reader.lookup(&snapshot.root, b"dump").expect("it can be read").expect("it is there");
        let mut saved = Vec::new();
        let mut add = |id: &ChunkId| reader.content(id).map(|chunk| saved.extend_from_slice(&chunk));
        reader.for_each_chunk(&entry, &mut add).expect("its content is stored");
        assert_eq!(saved, dump);
    }
}

/// Standard input was read before the tree of the last snapshot, which was damaged: such runs ended with 4, without a cache
/// each time.
#[test]
fn damage_to_what_a_stream_is_compared_with_is_met_before_it_is_read() {
    for cache in [Some("one"), None] {
        let world = World::new(SWAPS);
        let backup = || {
            let input = std::io::Cursor::new(crate::golden::noise(300_000, 77));
            world.backup_with(Arc::new(world.storage.clone()), cache, |options| {
                options.sources.clear();
                options.sources.push(dump(input));
                options.skip_if_unchanged = true;
            })
        };
        assert!(backup().0.expect("the backup succeeds").snapshot.is_some());
        assert!(backup().0.expect("the backup succeeds").snapshot.is_none());
        for pack in world.storage.list("packs/").expect("listed") {
            world.storage.corrupt(&pack.name, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
        }
        assert!(backup().0.expect("the backup succeeds").snapshot.is_some());
    }
}

/// A pack that was cut, and padded to its size again, counted as put back: no run had read it.
#[test]
fn a_pack_of_a_wrong_size_is_read_before_it_counts_again() {
    let world = World::new(SWAPS);
    fs::remove_file(world.source().join("one/two/large")).expect("removed");
    let packs = world.storage.list("packs/").expect("listed").into_iter().filter(|pack| pack.size > 50_000);
    let packs: Vec<(String, Vec<u8>)> =
        packs.map(|pack| (pack.name.clone(), world.storage.get(&pack.name, pack.size).expect("read").0)).collect();
    let put = |bytes_of: &dyn Fn(&[u8]) -> Vec<u8>| {
        for (name, bytes) in &packs {
            world.storage.put(name, bytes_of(bytes).into()).expect("written");
        }
    };
    let backup = || {
        let (done, notices) = world.backup(Arc::new(world.storage.clone()), "one", false);
        let healing = done.expect("the backup succeeds").healing;
        (healing.map(|healing| (healing.complete_again.len(), healing.still_incomplete.len())), notices)
    };
    put(&|bytes| bytes[..1000].to_vec());
    let (told, notices) = backup();
    assert_eq!((told, notices.len()), (Some((0, 1)), 1), "{notices:?}");
    put(&|bytes| [&bytes[..1000], &vec![0; bytes.len() - 1000]].concat());
    assert_eq!(backup(), (None, Vec::new()), "nothing is repaired");
    put(&|bytes| bytes.to_vec());
    assert_eq!(backup(), (Some((1, 0)), Vec::new()));
}
