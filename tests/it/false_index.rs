//! Every host with a key can write an index object that states something false of the packs of others. One of a few kilobytes made
//! sound packs count as damaged, and files of all earlier snapshots could not be restored.

use crate::fixture::{self, SWAPS, open, restored_differences, snapshots};
use siltstone::backup::BackupReport;
use siltstone::format::{decode_index, encode_index, index_name};
use siltstone::id::IndexId;
use siltstone::place::PackContents;
use siltstone::repo::{Repository, Snapshot};
use siltstone::seal::{Compression, FrameSealer, Recipients, new_pack_key, open_object, seal_object};
use siltstone::storage::{Memory, Storage};
use siltstone::watch::Watch;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const BACKUPS: u8 = 24;

struct World {
    folder: tempfile::TempDir,
    storage: Memory,
}

impl World {
    /// Each file is in packs of its own.
    fn new() -> Self {
        let world = World { folder: tempfile::tempdir().expect("made"), storage: fixture::memory(SWAPS) };
        for number in 0..BACKUPS {
            let directory = world.source().join(number.to_string());
            fs::create_dir_all(&directory).expect("made");
            // Of one length, so that the lengths of chunks do not tell packs apart.
            fs::write(directory.join("file"), crate::golden::noise(3000, number)).expect("written");
            fixture::look_old(&world.source());
            world.backup("first");
        }
        world
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("source")
    }

    fn cache(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn repo(&self, cache: &str) -> Repository {
        open(Arc::new(self.storage.clone()), &self.cache(cache)).expect("it opens")
    }

    fn backup(&self, cache: &str) -> BackupReport {
        fixture::backup(Arc::new(self.storage.clone()), &self.cache(cache), &self.source()).expect("a backup")
    }

    /// What all index objects say.
    fn packs(&self) -> Vec<PackContents> {
        let keys = self.repo("attacker").keys().clone();
        let contents = |name: &str| {
            let (sealed, _) = self.storage.get(name, 1 << 20).expect("read");
            decode_index(&open_object(&keys, "index", &sealed, 1 << 20).expect("opened")).expect("decoded")
        };
        let listed = self.storage.list("index/").expect("listed");
        listed.iter().flat_map(|listed| contents(&listed.name)).collect()
    }

    fn add_index(&self, packs: &[PackContents]) {
        let keys = self.repo("attacker").keys().clone();
        let sealed = seal_object(&keys, Recipients::Writers, "index", &encode_index(packs)).expect("sealed");
        let name = index_name(&IndexId(*blake3::hash(&sealed).as_bytes()));
        self.storage.put(&name, sealed.into()).expect("written");
    }

    fn assert_comes_back(&self, cache: &str, snapshot: &Snapshot, expected: &Path, when: &str) {
        let found = restored_differences(&self.repo(cache), snapshot, &self.source(), expected);
        assert_eq!(found.expect(when), Vec::<String>::new(), "{when}");
    }
}

/// Of each pack, that it holds what the next one of its kind holds.
fn shifted(packs: &[PackContents], change: impl Fn(&PackContents, &PackContents) -> PackContents) -> Vec<PackContents> {
    let of_kind = |pack: &PackContents| packs.iter().filter(|other| other.kind == pack.kind).collect::<Vec<_>>();
    let next = |pack: &PackContents| {
        let others = of_kind(pack);
        let at = others.iter().position(|other| other.pack == pack.pack).expect("it is there");
        change(pack, others[(at + 1) % others.len()])
    };
    packs.iter().map(next).collect()
}

#[test]
fn a_false_index_object_takes_nothing_from_anybody() {
    type Lie = fn(&PackContents, &PackContents) -> PackContents;
    let lies: [(&str, Lie); 3] = [
        ("frames", |pack, next| PackContents { frames: next.frames.clone(), ..pack.clone() }),
        ("sizes", |pack, _| PackContents { stored_bytes: pack.stored_bytes + 1, ..pack.clone() }),
        ("ids", |pack, next| {
            let mut lie = pack.clone();
            let ids = next.frames.iter().flat_map(|frame| &frame.chunks).map(|(id, _)| *id);
            lie.frames.iter_mut().flat_map(|frame| &mut frame.chunks).zip(ids).for_each(|(chunk, id)| chunk.0 = id);
            lie
        }),
    ];
    for (what, lie) in lies {
        let world = World::new();
        let last = snapshots(&world.repo("first")).pop().expect("there are some");
        let packs = world.packs();
        assert!(packs.len() > 2 * 16, "more than copies are looked up of");
        let stored =
            |world: &World| -> u64 { world.storage.list("packs/").expect("listed").iter().map(|pack| pack.size).sum() };
        let before = stored(&world);
        // One for each file, and one that says it of all.
        let lied = shifted(&packs, lie);
        lied.chunks(7).for_each(|some| world.add_index(some));
        world.add_index(&lied);
        for cache in ["first", "fresh", "first", "fresh"] {
            world.assert_comes_back(cache, &last, &world.source(), what);
        }
        for cache in ["first", "fresh", "other", "other"] {
            let report = world.backup(cache);
            let healing = report.healing.filter(|healing| !healing.still_incomplete.is_empty());
            assert!(healing.is_none(), "{what}: {healing:?}");
            world.assert_comes_back(cache, &report.snapshot.expect("a snapshot"), &world.source(), what);
        }
        // Where the lie is not known yet, something new may be stored; not everything anew.
        assert!(stored(&world) < before + before / 2, "{what}: {before}, then {}", stored(&world));
        for cache in ["first", "fresh", "other"] {
            let noted =
                fs::read_dir(world.cache(cache)).expect("listed").flatten().map(|of| of.path().join("damaged-packs"));
            let noted: String = noted.filter_map(|path| fs::read_to_string(path).ok()).collect();
            assert!(!noted.contains(" damaged"), "{what}: {noted}");
        }
        world.assert_comes_back("fresh", &last, &world.source(), what);
    }
}

/// What a false index object lists and no other one does is still read, as far as it is true, and stored again.
#[test]
fn what_is_true_in_a_false_index_object_is_read() {
    let world = World::new();
    let last = snapshots(&world.repo("first")).pop().expect("there are some");
    let packs = world.packs();
    for listed in world.storage.list("index/").expect("listed") {
        world.storage.remove(&listed.name).expect("removed");
    }
    let mut stated = packs.clone();
    let content = stated.iter_mut().find(|pack| pack.frames[0].chunks[0].1 == 3000).expect("a file");
    content.frames[0].raw += 1;
    content.frames[0].chunks[0].1 += 1;
    world.add_index(&stated);
    let restore = || {
        let target = tempfile::tempdir().expect("made");
        fixture::restore(&world.repo("fresh"), &last, &world.source(), target.path())
            .map(|report| report.warnings_count)
    };
    for _ in 0..2 {
        assert_eq!(restore().expect("the rest is restored"), 1, "what it says of one pack is false");
    }
    let report = world.backup("fresh");
    world.assert_comes_back("another", &report.snapshot.expect("a snapshot"), &world.source(), "stored again");
    world.assert_comes_back("another", &last, &world.source(), "healed");
}

/// A restore from a remote storage gave files up when another thread had just refuted an index object about another pack; and a chunk
/// whose only other place was the true one was lost, if its pack was damaged elsewhere.
#[test]
fn many_false_index_objects_about_one_pack_each_cost_no_file() {
    let world = World::new();
    let last = snapshots(&world.repo("first")).pop().expect("there are some");
    let packs = world.packs();
    let lies = shifted(&packs, |pack, next| PackContents { frames: next.frames.clone(), ..pack.clone() });
    lies.iter().for_each(|lie| world.add_index(std::slice::from_ref(lie)));
    for cache in ["fresh", "first", "fresh"] {
        world.assert_comes_back(cache, &last, &world.source(), cache);
    }
    // Without a cache each attempt of a backup would find the next ones only.
    let repo = Repository::open_uncached(Arc::new(world.storage.clone()), &fixture::credentials(), &Watch::silent());
    let options = fixture::options(&world.source());
    let report = repo.expect("it opens").backup(options, &Watch::silent()).expect("a backup");
    world.assert_comes_back("another", &report.snapshot.expect("a snapshot"), &world.source(), "without a cache");
}

#[test]
fn a_false_index_object_and_a_damaged_pack_together_cost_no_more_than_the_damage() {
    let world = World::new();
    let last = snapshots(&world.repo("first")).pop().expect("there are some");
    let packs = world.packs();
    // The length of the trailer: frames are whole.
    for pack in packs.iter().step_by(3) {
        let name = siltstone::format::pack_name(&pack.pack);
        world.storage.corrupt(&name, |bytes| *bytes.last_mut().expect("a byte") ^= 1);
    }
    let lies = shifted(&packs, |pack, next| PackContents { frames: next.frames.clone(), ..pack.clone() });
    lies.chunks(packs.len() / 2).for_each(|some| world.add_index(some));
    for cache in ["first", "fresh", "first", "fresh"] {
        world.assert_comes_back(cache, &last, &world.source(), cache);
    }
}

/// A file of the cache in the place of another one of its length made a sound pack count as damaged: the restore lacked a part.
#[test]
fn exchanged_files_in_the_cache_cost_nothing() {
    let world = World::new();
    let remote = || Arc::new(world.storage.clone().remote());
    let repo = || open(remote(), &world.cache("remote")).expect("it opens");
    // Trees of one length.
    for number in 0..3 {
        fs::write(world.source().join("0/file"), crate::golden::noise(3000, 50 + number)).expect("written");
        fixture::look_old(&world.source());
        world.backup("first");
    }
    let last = snapshots(&repo()).pop().expect("there are some");
    let restored = || restored_differences(&repo(), &last, &world.source(), &world.source()).expect("restored");
    assert_eq!(restored(), Vec::<String>::new());
    for earlier in snapshots(&repo()).iter().rev().take(3) {
        restored_differences(&repo(), earlier, &world.source(), &world.source()).expect("restored");
    }
    let mut kept: Vec<PathBuf> = Vec::new();
    let mut directories = vec![world.cache("remote")];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("listed").map(|entry| entry.expect("one").path()) {
            if entry.is_dir() {
                directories.push(entry);
            } else if entry.parent().is_some_and(|parent| parent.ends_with("trees")) {
                kept.push(entry);
            }
        }
    }
    kept.sort();
    let mut by_length: std::collections::BTreeMap<usize, Vec<(PathBuf, Vec<u8>)>> = Default::default();
    for path in kept {
        let bytes = fs::read(&path).expect("read");
        by_length.entry(bytes.len()).or_default().push((path, bytes));
    }
    let mut exchanged = 0;
    for group in by_length.values().filter(|group| group.len() > 1) {
        for ((path, _), (_, other)) in group.iter().zip(group.iter().cycle().skip(1)) {
            fs::write(path, other).expect("written");
            exchanged += 1;
        }
    }
    assert!(exchanged > 1);
    assert_eq!(restored(), Vec::<String>::new());
}

/// A pack that only a newer program reads says nothing against the index objects that describe it.
#[test]
fn a_pack_of_a_newer_program_refutes_nothing() {
    let world = World::new();
    let last = snapshots(&world.repo("first")).pop().expect("there are some");
    let (packs, keys) = (world.packs(), world.repo("attacker").keys().clone());
    let true_ones = world.storage.list("index/").expect("listed");
    for pack in &packs {
        let (key, header) = new_pack_key(&keys, pack.kind).expect("a key");
        let mut sealer = FrameSealer::new(Compression::STORE).expect("a sealer");
        let trailer = [2, 0, 0];
        sealer.compress(&trailer).expect("it is taken");
        let sealed = sealer.seal(&key, u32::MAX, &trailer).expect("it is sealed");
        let footer = (sealed.len() as u32).to_le_bytes();
        let mut bytes = header.to_vec();
        let room = pack.stored_bytes as usize - header.len() - sealed.len() - footer.len();
        bytes.extend_from_slice(&vec![7; room]);
        bytes.extend_from_slice(&sealed);
        bytes.extend_from_slice(&footer);
        let id = siltstone::id::PackId(*blake3::hash(&bytes).as_bytes());
        world.storage.put(&siltstone::format::pack_name(&id), bytes.into()).expect("written");
        // One for each, so that what a true one says counts.
        world.add_index(&[PackContents { pack: id, ..pack.clone() }]);
    }
    let listed = world.storage.list("index/").expect("listed");
    let newer: Vec<&str> = listed
        .iter()
        .filter(|object| !true_ones.contains(object))
        .map(|object| &object.name["index/".len()..])
        .collect();
    let lies = shifted(&packs, |pack, next| PackContents { frames: next.frames.clone(), ..pack.clone() });
    lies.iter().for_each(|lie| world.add_index(std::slice::from_ref(lie)));
    world.assert_comes_back("fresh", &last, &world.source(), "beside packs of a newer program");
    let caches = fs::read_dir(world.cache("fresh")).expect("listed").flatten();
    let known = caches.filter_map(|of| fs::read_to_string(of.path().join("false-indexes")).ok()).collect::<String>();
    assert!(!known.is_empty() && known.lines().all(|index| !newer.contains(&index)), "{known}");
}
