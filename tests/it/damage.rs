//! Damage to stored objects: noticed by every reader, or without effect; never silently wrong data.

use crate::compare::differences;
use crate::fixture::{SWAPS, backup, memory, open, restore};
use siltstone::backup::BackupOptions;
use siltstone::chunk::ContentKind;
use siltstone::entry::{Content, Entry, EntryKind, PathText};
use siltstone::error::{Kind, Result};
use siltstone::format::{decode_page, encode_entries, encode_index, index_name, store_page};
use siltstone::id::{ChunkId, ChunkKind, IndexId, PackId};
use siltstone::place::{FrameContents, PackContents};
use siltstone::repo::{Repository, SinkOptions, SnapshotSource, Writer};
use siltstone::restore::RestoreOptions;
use siltstone::seal::{
    Compression, FrameOpener, FrameSealer, KeySet, Recipients, Secret, new_pack_key, open_pack_key, seal_object,
};
use siltstone::source::{Source, Stream};
use siltstone::storage::{Memory, Storage};
use siltstone::watch::{Event, Watch};
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

struct Victim {
    source: tempfile::TempDir,
    objects: BTreeMap<String, Vec<u8>>,
}

impl Victim {
    /// Few bytes in every kind of object: each byte costs a whole restore.
    fn new() -> Self {
        let source = tempfile::tempdir().expect("a folder");
        let put = |name: &str, bytes: &[u8]| fs::write(source.path().join(name), bytes).expect("written");
        put("inline", b"few bytes");
        put("chunked", &crate::golden::noise(300, 1));
        put("repeated", &b"the same words again. ".repeat(20));
        fs::create_dir(source.path().join("folder")).expect("a folder is made");
        put("folder/below", &crate::golden::noise(60, 2));
        let storage = memory(SWAPS);
        let cache = tempfile::tempdir().expect("a folder");
        backup(Arc::new(storage.clone()), cache.path(), source.path()).expect("a backup");
        Victim { source, objects: storage.snapshot() }
    }

    /// Opens, lists and restores with a fresh cache; true when the damage was noticed. Wrong data panics.
    fn notices(&self, storage: Memory, scratch: &Path, case: &dyn Fn() -> String) -> bool {
        let _older = fs::remove_dir_all(scratch);
        let (cache, target) = (scratch.join("cache"), scratch.join("target"));
        let warnings = Arc::new(AtomicU64::new(0));
        let heard = warnings.clone();
        let watch = Watch::new(Arc::new(move |event| {
            if matches!(event, Event::Warning { .. }) {
                heard.fetch_add(1, Ordering::Relaxed);
            }
        }));
        let run = || -> Result<u64> {
            let repo = open(Arc::new(storage), &cache)?;
            // Without them it can be read, and not written to.
            warnings.fetch_add(u64::from(repo.settings().is_err()), Ordering::Relaxed);
            let snapshots = repo.snapshots(&watch)?;
            for snapshot in &snapshots {
                let report = restore(&repo, snapshot, self.source.path(), &target)?;
                if report.warnings_count == 0 {
                    let found = differences(self.source.path(), &target);
                    assert!(found.is_empty(), "{}: silently wrong: {found:?}", case());
                }
                warnings.fetch_add(report.warnings_count, Ordering::Relaxed);
            }
            Ok(snapshots.len() as u64)
        };
        match run() {
            Err(_) => true,
            Ok(snapshots) => snapshots == 0 || warnings.load(Ordering::Relaxed) > 0,
        }
    }

    fn changed(&self, change: impl FnOnce(&mut BTreeMap<String, Vec<u8>>)) -> Memory {
        let mut objects = self.objects.clone();
        change(&mut objects);
        Memory::from_objects(&objects)
    }
}

/// In memory where the system has such a place: thousands of caches are made and thrown away.
fn fast_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder")
}

fn kind_of(name: &str) -> &str {
    name.split('/').next().expect("a name has a first segment")
}

#[test]
fn one_lost_pack_is_told_once() {
    // It was told when the index was read, when the local state was chosen, and for each folder of the old tree.
    let person = crate::person::Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    crate::fixture::copy(&person.path("data"), &person.path("kept"));
    crate::fixture::copy(&person.path("cache"), &person.path("known"));
    let repository = person.path("data/siltstone/repository");
    let packs: Vec<_> =
        walkdir::WalkDir::new(repository.join("packs")).into_iter().map(|entry| entry.expect("listed")).collect();
    for pack in packs.iter().filter(|pack| pack.file_type().is_file()) {
        for has_cache in [true, false] {
            std::fs::remove_dir_all(person.path("cache")).expect("removed");
            if has_cache {
                crate::fixture::copy(&person.path("known"), &person.path("cache"));
            }
            std::fs::remove_file(pack.path()).expect("removed");
            let said = person.silt(&["backup", "source"]).ends_with(0);
            assert_eq!(said.err.matches("note: ").count(), 1, "{}", said.err);
            assert!(said.err.contains("missing from the repository"), "{}", said.err);
            std::fs::remove_dir_all(person.path("data")).expect("removed");
            crate::fixture::copy(&person.path("kept"), &person.path("data"));
        }
    }
}

#[test]
fn a_flipped_bit_anywhere_is_noticed_or_harmless() {
    let victim = Victim::new();
    let whole = victim.changed(|_| {});
    assert!(!victim.notices(whole, fast_folder().path(), &|| "undamaged".to_owned()));
    // Every bit of small objects, of the others one of each byte.
    let masks = |at: usize, length: usize| {
        if length < 600 {
            (0..8).map(|bit| 1 << bit).collect()
        } else {
            vec![1u8 << (blake3::hash(&at.to_le_bytes()).as_bytes()[0] % 8)]
        }
    };
    let mut flips = Vec::new();
    for (name, bytes) in &victim.objects {
        for at in 0..bytes.len() {
            flips.extend(masks(at, bytes.len()).into_iter().map(|mask| (name, at, mask)));
        }
    }
    let next = AtomicUsize::new(0);
    let unnoticed: Mutex<BTreeMap<&str, u64>> = Mutex::default();
    let work = || {
        let scratch = fast_folder();
        while let Some((name, at, mask)) = flips.get(next.fetch_add(1, Ordering::Relaxed)) {
            let storage = victim.changed(|objects| objects.get_mut(*name).expect("it is there")[*at] ^= mask);
            let case = || format!("{name}, byte {at} ^ {mask:#x}");
            if !victim.notices(storage, scratch.path(), &case) {
                *unnoticed.lock().expect("whole").entry(kind_of(name)).or_default() += 1;
            }
        }
    };
    std::thread::scope(|scope| (0..2).for_each(|_| drop(scope.spawn(work))));
    let (unnoticed, flips) = (unnoticed.into_inner().expect("whole"), flips.len());
    // Trailers of packs and their padding are not read by a restore, a key's JSON has spaces; all the rest is read.
    for name in ["config", "index", "settings", "snapshots"] {
        assert_eq!(unnoticed.get(name).copied().unwrap_or(0), 0, "of {flips}: {unnoticed:?}");
    }
    println!("{flips} flips, harmless: {unnoticed:?}");
}

#[test]
fn objects_cut_emptied_removed_or_swapped_are_noticed() {
    let victim = Victim::new();
    let scratch = tempfile::tempdir().expect("a folder");
    let names: Vec<&String> = victim.objects.keys().collect();
    for name in &names {
        let length = victim.objects[*name].len();
        // The last bytes of a pack are its trailer, for rebuilding an index; a restore does not read it.
        let cuts = if kind_of(name) == "packs" { vec![0, 1, 60, 113] } else { vec![0, 1, length / 2, length - 1] };
        for cut in cuts {
            let storage = victim.changed(|objects| objects.get_mut(*name).expect("it is there").truncate(cut));
            let case = || format!("{name} cut to {cut} of {length}");
            assert!(victim.notices(storage, scratch.path(), &case), "{}", case());
        }
        let storage = victim.changed(|objects| drop(objects.remove(*name)));
        let case = || format!("{name} removed");
        assert!(victim.notices(storage, scratch.path(), &case), "{}", case());
        for other in names.iter().filter(|other| other > &name) {
            let storage = victim.changed(|objects| {
                let (one, two) = (objects[*name].clone(), objects[*other].clone());
                objects.insert((*name).clone(), two);
                objects.insert((*other).clone(), one);
            });
            let case = || format!("{name} and {other} swapped");
            assert!(victim.notices(storage, scratch.path(), &case), "{}", case());
        }
    }
}

/// A directory entry's name as the encoder takes it: a holder of the keys can write any tree.
fn tree_with(name: &[u8]) -> Vec<u8> {
    let mut entry = Entry::new(name, EntryKind::File);
    entry.size = 4;
    entry.content = Content::Inline(b"evil".to_vec());
    entry.meta.mode = 0o644;
    encode_entries(&[entry])
}

#[test]
fn a_hostile_tree_does_not_leave_the_target() {
    for name in [&b".."[..], b".", b"a/b", b"../outside", b"/etc/evil", b"a\0b", b""] {
        let page = tree_with(name);
        assert!(decode_page(&page).is_err_and(|error| error.is(Kind::Corrupt)), "{name:?}");
        let (storage, folder) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
        let repo = open(Arc::new(storage), &folder.path().join("cache")).expect("it opens");
        let snapshot = commit_page(&repo, &page);
        let target = folder.path().join("inside/target");
        let planned = repo.plan_restore(&snapshot, RestoreOptions::new(target), &Watch::silent());
        let run = planned.and_then(|plan| plan.run(&Watch::silent()));
        match run {
            Ok(report) => assert!(report.files == 0 && report.warnings_count > 0, "{name:?}: {report:?}"),
            Err(error) => assert!(error.is(Kind::Corrupt), "{name:?}: {error:?}"),
        }
        let left = || fs::read_dir(folder.path()).expect("it is listed").map(|entry| entry.expect("read").file_name());
        assert!(left().all(|name| name == "cache" || name == "inside"), "{:?}", left().collect::<Vec<_>>());
    }
}

/// Stores this page as the root of a snapshot.
fn commit_page(repo: &Repository, page: &[u8]) -> siltstone::repo::Snapshot {
    commit_page_of(repo, page, None)
}

/// The same, as a snapshot of these sources.
fn commit_page_of(repo: &Repository, page: &[u8], of: Option<Vec<SnapshotSource>>) -> siltstone::repo::Snapshot {
    let source = tempfile::tempdir().expect("a folder");
    let report = repo.backup(crate::fixture::options(source.path()), &Watch::silent()).expect("a backup");
    let writer = hostile_writer(repo);
    let mut snapshot = report.snapshot.expect("it was written");
    snapshot.sources = of.unwrap_or(snapshot.sources);
    snapshot.root = writer.sink().store_tree(0, page).expect("it is stored");
    snapshot.id.0[0] ^= 1;
    writer.commit(&snapshot).expect("it commits");
    snapshot
}

/// A snapshot that names one list of chunks a hundred times on each of six levels kept the next backup that looked for what is
/// incomplete busy for ever.
#[test]
fn a_hostile_list_does_not_keep_the_backup_that_heals() {
    let (storage, folder) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
    let (cache, source) = (folder.path().join("cache"), folder.path().join("source"));
    fs::create_dir(&source).expect("made");
    fs::write(source.join("file"), crate::golden::noise(100_000, 3)).expect("written");
    backup(Arc::new(storage.clone()), &cache, &source).expect("a backup");
    let packs = storage.list("packs/").expect("listed");
    let repo = open(Arc::new(storage.clone()), &cache).expect("it opens");
    let hostile = long_list(&repo, ChunkId([7; 24]), EntryKind::File);
    commit_page(&repo, &encode_entries(&[hostile]));
    // The next backup looks at all snapshots.
    for pack in packs {
        storage.remove(&pack.name).expect("removed");
    }
    let done = backup(Arc::new(storage), &cache, &source).expect("a backup");
    assert!(done.healing.is_some_and(|healing| !healing.still_incomplete.is_empty()), "it has looked");
}

/// One KB could say of a pack that it has millions of frames, and ten such objects filled the memory of every host.
#[test]
fn an_index_object_that_unfolds_into_many_times_its_size_is_damaged() {
    let (storage, folder) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
    let repo = open(Arc::new(storage.clone()), &folder.path().join("cache")).expect("it opens");
    let frame = FrameContents { stored: 1, raw: 1, chunks: vec![(ChunkId([9; 24]), 1)] };
    for (count, is_honest) in [(1, true), (20_000, false)] {
        let pack = PackId([count as u8; 32]);
        let frames = vec![frame.clone(); count];
        let packs = [PackContents { pack, kind: ChunkKind::Content, stored_bytes: 100_000, data_offset: 88, frames }];
        let sealed =
            seal_object(repo.keys(), Recipients::Writers, "index", &encode_index(&packs)).expect("it is sealed");
        let index = IndexId(*blake3::hash(&sealed).as_bytes());
        storage.put(&index_name(&index), sealed.into()).expect("it is put");
        let check = repo.compare_index(&Watch::silent()).expect("it is compared");
        assert_eq!(check.indexes_damaged.contains(&index), !is_honest, "{count} frames");
        assert_eq!(check.packs_missing.contains(&pack), is_honest, "{count} frames");
    }
}

fn hostile_writer(repo: &Repository) -> Writer {
    let options = SinkOptions { lanes: 1, compression: siltstone::seal::Compression::Auto, memory_bytes: 32 << 20 };
    repo.writer("host", &options, &Watch::silent()).expect("it begins")
}

/// An entry of 2^40 bytes whose list names one list a hundred times on each of six levels, and this chunk at the end.
fn long_list(repo: &Repository, chunk: ChunkId, kind: EntryKind) -> Entry {
    let writer = hostile_writer(repo);
    let mut root = chunk;
    for level in 0..6 {
        // Above the lowest level, each id has a length.
        let length: &[u8] = if level > 0 { &[1, 0, 0, 0, 0, 0, 0, 0] } else { &[] };
        let item = [&root.as_bytes()[..], length].concat();
        let list = [&[b'L', 1, level][..], &item.repeat(100)].concat();
        root = writer.sink().store_tree(0, &list).expect("it is stored");
    }
    writer.sink().checkpoint(|_, _| ()).expect("it is findable");
    writer.abandon(|_, _| ()).expect("it ends");
    let mut hostile = Entry::new(&b"x"[..], kind);
    hostile.size = 1 << 40;
    hostile.content = Content::List { depth: 6, root };
    hostile
}

/// Something that is stored, to be named as content.
fn stored_chunk(repo: &Repository) -> ChunkId {
    let writer = hostile_writer(repo);
    let id = writer.sink().store_tree(0, b"stored").expect("it is stored");
    writer.sink().checkpoint(|_, _| ()).expect("it is findable");
    writer.abandon(|_, _| ()).expect("it ends");
    id
}

/// The run looked up each chunk of such a list, and never got to its end, nor to a signal.
#[test]
fn a_hostile_list_does_not_keep_a_backup_that_compares_with_it() {
    let (storage, folder) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
    let repo = open(Arc::new(storage), &folder.path().join("cache")).expect("it opens");
    let hostile = long_list(&repo, stored_chunk(&repo), EntryKind::Stream);
    let source = SnapshotSource::Stream { name: PathText(b"x".to_vec()), command: None };
    let parent = commit_page_of(&repo, &encode_entries(&[hostile]), Some(vec![source])).id;
    let options = BackupOptions {
        sources: vec![Source::stream(Stream::new(b"x", b"echo hello"))],
        parent: Some(parent),
        skip_if_unchanged: true,
        ..BackupOptions::new(Vec::new(), "host")
    };
    let done = repo.backup(options, &Watch::silent()).expect("a backup");
    assert_eq!(done.totals.streams, 1);
}

/// A list that is longer than its file says ends where the file does.
#[test]
fn no_list_is_walked_beyond_the_length_of_its_file() {
    let (storage, folder) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
    let repo = open(Arc::new(storage), &folder.path().join("cache")).expect("it opens");
    let mut hostile = long_list(&repo, stored_chunk(&repo), EntryKind::File);
    hostile.size = 1000;
    let mut seen = 0;
    let walked = repo.reader().for_each_chunk(&hostile, &mut |_| {
        seen += 1;
        Ok(())
    });
    let error = walked.expect_err("it ends");
    assert!(error.is(Kind::Corrupt) && error.to_string().contains("longer than the file"), "{error}");
    assert_eq!(seen, 1000);
}

/// Directories that name one below them twice, forty levels of them, were counted 2^40 times when they were gone.
#[test]
fn a_hostile_tree_of_few_directories_is_counted_as_fast_as_they_are() {
    let (storage, folder) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
    let source = folder.path().join("source");
    fs::create_dir(&source).expect("made");
    let repo = open(Arc::new(storage.clone()), &folder.path().join("cache")).expect("it opens");
    let writer = hostile_writer(&repo);
    let directory = |name: &[u8], below: ChunkId| {
        let mut entry = Entry::new(name, EntryKind::Directory);
        entry.content = Content::Tree(below);
        entry
    };
    let store = |entries: &[Entry]| writer.sink().store_tree(0, &encode_entries(entries)).expect("it is stored");
    let mut tree = store(&[Entry::new(&b"file"[..], EntryKind::File)]);
    for _ in 0..40 {
        tree = store(&[directory(b"a", tree), directory(b"b", tree)]);
    }
    let mut root = vec![directory(b"gone", tree)];
    let path = source.as_os_str().as_encoded_bytes();
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()).rev() {
        root = vec![directory(name, store(&root))];
    }
    writer.sink().checkpoint(|_, _| ()).expect("it is findable");
    writer.abandon(|_, _| ()).expect("it ends");
    let of = SnapshotSource::Tree { path: PathText(path.to_vec()) };
    let parent = Some(commit_page_of(&repo, &encode_entries(&root), Some(vec![of])).id);
    drop(repo);
    let repo = open(Arc::new(storage), &folder.path().join("another cache")).expect("it opens");
    let options = BackupOptions { parent, ..crate::fixture::options(&source) };
    let done = repo.backup(options, &Watch::silent()).expect("a backup");
    assert_eq!(done.totals.files_removed, 1 << 40);
}

#[test]
fn a_link_below_which_a_tree_wants_to_write_is_not_followed() {
    let (storage, folder) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
    let repo = open(Arc::new(storage), &folder.path().join("cache")).expect("it opens");
    // The same name twice, first as a link out of the target and then as a directory, is refused as out of order; a
    // link that is in the target already is what remains.
    let mut below = Entry::new(&b"evil"[..], EntryKind::File);
    below.size = 4;
    below.content = Content::Inline(b"evil".to_vec());
    let options = SinkOptions { lanes: 1, compression: siltstone::seal::Compression::Auto, memory_bytes: 32 << 20 };
    let writer = repo.writer("host", &options, &Watch::silent()).expect("it begins");
    let mut store = |bytes: Vec<u8>| writer.sink().store_tree(0, &bytes);
    let mut directory = Entry::new(&b"d"[..], EntryKind::Directory);
    directory.meta.mode = 0o755;
    directory.content = Content::Tree(store_page(&[below], &mut store).expect("it is stored"));
    writer.sink().checkpoint(|_, _| ()).expect("it is findable");
    writer.abandon(|_, _| ()).expect("it ends");
    let snapshot = commit_page(&repo, &encode_entries(&[directory]));
    let (target, outside) = (folder.path().join("target"), folder.path().join("outside"));
    fs::create_dir(&target).expect("made");
    fs::create_dir(&outside).expect("made");
    std::os::unix::fs::symlink(&outside, target.join("d")).expect("linked");
    let planned = repo.plan_restore(&snapshot, RestoreOptions::new(target), &Watch::silent());
    let _either_way = planned.and_then(|plan| plan.run(&Watch::silent()));
    assert_eq!(fs::read_dir(&outside).expect("listed").count(), 0);
}

#[test]
fn a_frame_that_opens_to_more_than_it_says_is_refused() {
    let keys = KeySet::from_master(Secret([1; 32]));
    let (key, header) = new_pack_key(&keys, ChunkKind::Content).expect("a key");
    let bomb = vec![0; 4 << 20];
    let mut sealer = FrameSealer::new(Compression::Auto).expect("a sealer");
    sealer.compress(&bomb).expect("it compresses");
    let sealed = sealer.seal(&key, 0, &bomb).expect("it is sealed");
    assert!(sealed.len() < 10_000, "{} bytes are no bomb", sealed.len());
    let key = open_pack_key(&keys, ChunkKind::Content, &header).expect("the key opens");
    let mut opener = FrameOpener::new().expect("an opener");
    for stated in [0, 1, 1000, (4 << 20) - 1, (4 << 20) + 1] {
        let mut raw = Vec::new();
        let opened = opener.open(&key, 0, &sealed, stated, &mut raw);
        assert!(opened.is_err_and(|error| error.is(Kind::Corrupt)), "{stated}");
        assert!(raw.capacity() <= 5 << 20, "{stated} bytes took {}", raw.capacity());
    }
    let mut raw = Vec::new();
    opener.open(&key, 0, &sealed, bomb.len(), &mut raw).expect("it opens as what it is");
    assert!(raw == bomb);
}

#[test]
fn chunks_are_never_longer_than_their_limit() {
    let storage = memory(SWAPS);
    let cache = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(storage.clone()), cache.path()).expect("it opens");
    assert!(storage.list("").is_ok_and(|objects| objects.len() == 3), "configuration, settings and key");
    let zeros = vec![0; 5 << 20];
    for kind in [ContentKind::SmallFile, ContentKind::LargeFile, ContentKind::Dump, ContentKind::Pages] {
        let most = repo.chunker().sizes(kind).max;
        assert!(repo.chunker().cut(kind, &zeros, true).is_some_and(|length| length <= most));
    }
}
