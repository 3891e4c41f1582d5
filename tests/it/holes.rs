//! Files with more holes than an entry records: the others are saved as the zeros that they read as, and not read.

use crate::fixture::{self, Hooked, SWAPS, init_options, open, restore};
use crate::golden::noise;
use crate::person::Person;
use crate::skip::skipped;
use rustix::fs::{SeekFrom, seek};
use siltstone::backup::BackupOptions;
use siltstone::chunk::{ChunkSizes, ChunkTable};
use siltstone::repo::{InitOptions, Repository};
use siltstone::storage::Memory;
use siltstone::watch::Watch;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// So many holes of one file are recorded.
const RECORDED: usize = 4096;
const BLOCK: u64 = 4096;
/// More than the entries of a made folder and its files take; less than the list of a file of many chunks.
const TREE_BYTES_MAX: u64 = 4096;

/// Makes a file of blocks, each after a hole of the given length, which ends with a hole; returns its content without
/// the holes that are recorded, which are those of at least `recorded` bytes.
fn plant(path: &Path, holes: &[u64], recorded: u64) -> Vec<u8> {
    let file = File::create(path).expect("made");
    let mut content = Vec::new();
    let mut at = 0;
    for (number, hole) in holes.iter().enumerate() {
        if *hole < recorded {
            content.resize(content.len() + *hole as usize, 0);
        }
        at += hole;
        if number + 1 < holes.len() {
            let block = noise(BLOCK as usize, (number % 251) as u8);
            file.write_all_at(&block, at).expect("written");
            content.extend_from_slice(&block);
            at += BLOCK;
        }
    }
    file.set_len(at).expect("lengthened");
    content
}

/// Holes as many as are recorded, of at least a MiB, and among them shorter ones, in which no chunk ends or many do.
fn many_holes() -> Vec<u64> {
    let lengths = noise(RECORDED, 3);
    let mut holes = Vec::new();
    for (number, length) in lengths.into_iter().enumerate() {
        holes.push((1 << 20) + BLOCK * (number as u64 % 5));
        if number % 7 == 0 && length < 40 {
            holes.push(BLOCK * (1 + u64::from(length) * 6));
        }
    }
    holes
}

/// In memory where the system has such a place, which takes files of any length.
fn fast_folder() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder is made")
}

/// Where data is: what is not a hole.
fn data(file: &File) -> Vec<(u64, u64)> {
    let (mut found, mut at) = (Vec::new(), 0);
    while let Ok(start) = seek(file, SeekFrom::Data(at)) {
        at = seek(file, SeekFrom::Hole(start)).expect("a hole behind it");
        found.push((start, at));
    }
    found
}

fn assert_same_bytes(one: &Path, other: &Path) {
    let [one, other] = [one, other].map(|path| File::open(path).expect("opened"));
    assert_eq!(one.metadata().expect("a size").len(), other.metadata().expect("a size").len());
    for (start, end) in data(&one).into_iter().chain(data(&other)) {
        let [mut first, mut second] = [(), ()].map(|()| vec![0; (end - start) as usize]);
        one.read_exact_at(&mut first, start).expect("read");
        other.read_exact_at(&mut second, start).expect("read");
        assert!(first == second, "they differ between {start} and {end}");
    }
}

/// A repository that cuts large files and streams alike, into chunks of which a hole can have many.
fn repository(cache: &Path) -> Repository {
    let sizes = ChunkSizes { min: 2048, average: 4096, max: 32 << 10, fixed: false };
    let chunks = ChunkTable { large_file: sizes, dump: sizes, ..ChunkTable::default() };
    let memory = Memory::with_capabilities(SWAPS);
    Repository::init(&memory, &InitOptions { chunks, ..init_options(SWAPS) }).expect("made");
    open(Arc::new(memory), cache).expect("it opens")
}

#[test]
fn more_holes_than_an_entry_records_come_back_and_are_the_chunks_that_reading_them_makes() {
    let folder = fast_folder();
    let [sparse, dense] = ["sparse", "dense"].map(|name| folder.path().join(name));
    for folder in [&sparse, &dense] {
        fs::create_dir(folder).expect("made");
    }
    let file = sparse.join("file");
    let holes = many_holes();
    let content = plant(&file, &holes, 1 << 20);
    if data(&File::open(&file).expect("opened")).len() < RECORDED {
        return skipped("files with many holes", "the file system keeps no holes of this size");
    }
    fs::write(dense.join("file"), &content).expect("written");
    let size = fs::metadata(&file).expect("a size").len();
    let options =
        |source: &Path, readers| BackupOptions { readers: Some(readers), force: true, ..fixture::options(source) };
    for (first, second) in [(1, 4), (4, 1)] {
        let repo = repository(&folder.path().join(format!("cache{first}")));
        let watch = Watch::silent();
        let saved = repo.backup(options(&sparse, first), &watch).expect("saved");
        let totals = saved.totals;
        let blocks = (holes.len() as u64 - 1) * BLOCK;
        // File systems may keep more than was written, but no hole of this length.
        assert!((blocks..blocks * 5 / 4).contains(&totals.bytes_read), "{totals:?}");
        assert!(content.len() as u64 > blocks * 3 / 2, "there are zeros that could be read");
        assert_eq!((saved.warnings_count, totals.bytes), (0, size));
        assert_eq!(watch.progress.bytes_done.load(Ordering::Relaxed), size);

        let again = repo.backup(options(&sparse, second), &Watch::silent()).expect("saved").totals;
        assert!(again.bytes_new < TREE_BYTES_MAX && again.bytes_read == totals.bytes_read, "{again:?}");
        let whole = repo.backup(options(&dense, second), &Watch::silent()).expect("saved").totals;
        assert!(whole.bytes_new < TREE_BYTES_MAX && whole.bytes_read == content.len() as u64, "{whole:?}");
        let sources = vec![fixture::dump(std::io::Cursor::new(content.clone()))];
        let streamed = BackupOptions { sources, ..options(&dense, first) };
        let streamed = repo.backup(streamed, &Watch::silent()).expect("saved").totals;
        assert!(streamed.bytes_new < TREE_BYTES_MAX, "{streamed:?}");

        let target = fast_folder();
        let report = restore(&repo, &saved.snapshot.expect("made"), &sparse, target.path()).expect("it restores");
        assert_eq!(report.warnings_count, 0, "{:?}", report.warnings);
        assert_same_bytes(&file, &target.path().join("file"));
    }
}

/// Blocks that were preallocated behind the end hid that a file was one hole: it came back as 64 MiB of written zeros.
#[test]
fn blocks_behind_the_end_hide_no_hole_of_a_large_file() {
    const SIZE: u64 = 8 << 20;
    let place = tempfile::tempdir().expect("a folder");
    let source = place.path().join("source");
    fs::create_dir(&source).expect("made");
    let path = source.join("file");
    let file = File::create(&path).expect("made");
    file.write_all_at(&noise(BLOCK as usize, 1), 0).expect("written");
    file.set_len(SIZE).expect("lengthened");
    let behind = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::KEEP_SIZE, SIZE, SIZE);
    if behind.is_err() || !seek(&file, SeekFrom::Hole(0)).is_ok_and(|hole| hole < SIZE) {
        return skipped("holes that other blocks hide", "the file system preallocates nothing, or keeps no holes");
    }
    assert!(file.metadata().expect("a stat").blocks() * 512 >= SIZE, "its blocks do not show the hole");
    let repo = open(Arc::new(fixture::memory(SWAPS)), &place.path().join("cache")).expect("it opens");
    let saved = repo.backup(fixture::options(&source), &Watch::silent()).expect("saved");
    assert!(saved.totals.bytes == SIZE && saved.totals.bytes_read < SIZE / 2, "{:?}", saved.totals);
    let target = tempfile::tempdir().expect("a folder");
    restore(&repo, &saved.snapshot.expect("made"), &source, target.path()).expect("it restores");
    let restored = target.path().join("file");
    assert_same_bytes(&path, &restored);
    assert_eq!(data(&File::open(restored).expect("opened")), data(&file));
}

#[test]
fn holes_that_no_snapshot_can_hold_are_told_and_the_rest_is_saved() {
    const TIB: u64 = 1 << 40;
    let folder = fast_folder();
    let person = Person::new();
    let source = folder.path().canonicalize().expect("a path");
    let made = File::create(source.join("long")).and_then(|file| file.set_len(8000 * TIB));
    if let Err(error) = made {
        return skipped("files of 8 PiB", error);
    }
    // The largest are recorded; of the others, each a TiB long, one file has 20 and the other one 70.
    plant(&source.join("long"), &[TIB; RECORDED + 20], TIB);
    plant(&source.join("longer"), &[TIB; RECORDED + 70], TIB);
    fs::write(source.join("short"), "short").expect("written");
    person.write("password", "right\n");
    let words = ["-r", "repository", "--password-file", "password"];
    person.silt(&[&["init"], &words[..]].concat()).ends_with(0);
    let path = source.to_str().expect("a name");
    let saved = person.silt(&[&["backup", path], &words[..]].concat()).ends_with(3);
    let told: Vec<&str> = saved.err.lines().filter(|line| line.contains(path)).collect();
    let is_told = |line: &&str| line.contains("/longer") && line.contains("64 TiB") && line.contains("exclude it");
    assert!(told.len() == 1 && told.iter().all(is_told), "{}", saved.err);
    let listed = person.silt(&[&["ls", "latest", "--recursive"], &words[..]].concat()).ends_with(0).out;
    let names: Vec<&str> = listed.lines().filter_map(|line| line.rsplit('/').next()).collect();
    assert!(names.contains(&"long") && names.contains(&"short") && !names.contains(&"longer"), "{listed}");
    let short = person.silt(&[&["cat", &format!("latest:{path}/short")], &words[..]].concat()).ends_with(0);
    assert_eq!(short.out, "short");
}

/// Its later holes were counted although reading had ended before them: neither a restore nor an export could use the entry.
#[test]
fn a_file_that_is_made_shorter_while_it_is_read_comes_back_as_far_as_it_was_read() {
    const MIB: u64 = 1 << 20;
    for cut_at in [5 * MIB, 26 * MIB] {
        let (place, storage) = (tempfile::tempdir().expect("a folder"), fixture::memory(SWAPS));
        let source = place.path().join("source");
        fs::create_dir(&source).expect("made");
        let path = source.join("file");
        let file = File::create(&path).expect("made");
        let (first, second) = (noise(24 * MIB as usize, 1), noise(MIB as usize, 2));
        file.write_all_at(&first, 0).expect("written");
        file.write_all_at(&second, 32 * MIB).expect("written");
        file.set_len(64 * MIB).expect("lengthened");
        let before = move |verb: &str, name: &str| {
            // Packs are sent while the file is read.
            if verb == "put" && name.starts_with("packs/") {
                file.set_len(cut_at).expect("cut");
            }
        };
        let cache = place.path().join("cache");
        let hooked = Arc::new(Hooked { inner: storage, before });
        let repo = open(hooked, &cache).expect("it opens");
        let small = BackupOptions { memory_bytes: 32 * MIB, ..fixture::options(&source) };
        let saved = repo.backup(small, &Watch::silent()).expect("saved");
        assert_eq!(saved.warnings_count, 1, "{:?}", saved.warnings);
        let snapshot = saved.snapshot.expect("made");
        let target = tempfile::tempdir().expect("a folder");
        let report = restore(&repo, &snapshot, &source, target.path()).expect("it restores");
        assert_eq!(report.warnings_count, 0, "{:?}", report.warnings);
        let mut whole = first;
        whole.resize(32 * MIB as usize, 0);
        whole.extend_from_slice(&second);
        let found = fs::read(target.path().join("file")).expect("read");
        let has = found.len().min(whole.len());
        assert!(found[..has] == whole[..has] && found[has..].iter().all(|byte| *byte == 0), "{}", found.len());
    }
}
