//! Large files, streams and folders are saved with the help of all readers, and saved exactly as one reader alone saves
//! them.

use crate::fixture::{self, SWAPS, dump, look_old, memory, open, restored_differences};
use crate::golden::noise;
use siltstone::backup::{BackupOptions, BackupReport, Comparison};
use siltstone::error::{Kind, Result};
use siltstone::repo::{Repository, Snapshot};
use siltstone::restore::RestoreOptions;
use siltstone::source::{RulesBuilder, Source, Stream};
use siltstone::storage::{CrashPoint, CrashSide};
use siltstone::watch::Watch;
use std::fs;
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

const MIB: usize = 1 << 20;
/// More than the entries of a made folder and its files take; less than the smallest chunk of a large file.
const TREE_BYTES_MAX: u64 = 4096;

fn words(length: usize) -> Vec<u8> {
    let mut text = Vec::with_capacity(length + 16);
    for byte in noise(length / 4, 8) {
        text.extend_from_slice(
            ["one ", "and ", "another ", "is ", "not\n", "the ", "same, "][byte as usize % 7].as_bytes(),
        );
    }
    text.truncate(length);
    text
}

/// Files that are just not large, large, and larger than several batches, of every nature.
fn plant(root: &Path) {
    fs::create_dir_all(root).expect("made");
    let put = |name: &str, bytes: &[u8]| fs::write(root.join(name), bytes).expect("written");
    put("short", &noise(3 * MIB, 1));
    put("noise", &noise(41 * MIB + 17, 2));
    put("words", &words(19 * MIB));
    put("zeros", &vec![0; 23 * MIB + 1]);
    put("period", &noise(70_001, 3).repeat(400));
    put("whole batches", &noise(25 * MIB, 4));
    let sparse = fs::File::create(root.join("sparse")).expect("made");
    for number in 0..5 {
        sparse.write_all_at(&noise(7 * MIB, 10 + number), u64::from(number) * (11 * MIB as u64)).expect("written");
    }
    sparse.set_len(70 * MIB as u64).expect("lengthened");
}

fn options(source: &Path, readers: usize) -> BackupOptions {
    BackupOptions {
        readers: Some(readers),
        force: true,
        compression: siltstone::seal::Compression::Level(1),
        ..fixture::options(source)
    }
}

fn save(repo: &Repository, options: BackupOptions) -> Result<BackupReport> {
    repo.backup(options, &Watch::silent())
}

#[test]
fn many_readers_store_the_very_chunks_of_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    plant(&source);
    for (first, second) in [(1, 4), (4, 1)] {
        let repo = open(Arc::new(memory(SWAPS)), &folder.path().join(format!("cache{first}"))).expect("it opens");
        let saved = save(&repo, options(&source, first)).expect("saved");
        assert!(saved.totals.bytes_new > 80 * MIB as u64);
        let again = save(&repo, options(&source, second)).expect("saved");
        // Folders above the source may have changed in the meantime; no file has.
        assert!(again.warnings_count == 0 && again.totals.bytes_new < TREE_BYTES_MAX, "{:?}", again.totals);
        assert_eq!(again.totals.bytes_read, saved.totals.bytes_read);
        // One that is not a directory is read by the thread that walks it, with the help of all.
        let single = save(&repo, options(&source.join("noise"), 3)).expect("saved");
        assert!(single.totals.bytes_new < TREE_BYTES_MAX, "{}", single.totals.bytes_new);
        let snapshot = again.snapshot.expect("made");
        let found = restored_differences(&repo, &snapshot, &source, &source).expect("it restores");
        assert!(found.is_empty(), "{found:#?}");
    }
}

#[test]
fn large_files_in_many_folders_are_all_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    for number in 0..8 {
        let below = source.join(format!("{number}/below"));
        fs::create_dir_all(&below).expect("made");
        fs::write(below.join("large"), noise(10 * MIB + usize::from(number), number)).expect("written");
        fs::write(below.join("small"), noise(1000, number)).expect("written");
    }
    let repo = open(Arc::new(memory(SWAPS)), &folder.path().join("cache")).expect("it opens");
    let saved = save(&repo, options(&source, 3)).expect("saved");
    let found = restored_differences(&repo, &saved.snapshot.expect("made"), &source, &source).expect("it restores");
    assert!(found.is_empty(), "{found:#?}");
}

#[test]
fn a_folder_with_much_to_read_is_saved_by_several_readers() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    let put = |name: &str, seed: u8| fs::write(source.join(name), noise(3 * MIB / 2, seed)).expect("written");
    fs::create_dir_all(source.join("07 folder")).expect("made");
    (0..24).for_each(|number| put(&format!("{number:02}"), number));
    put("07 folder/below", 30);
    let repo = open(Arc::new(memory(SWAPS)), &folder.path().join("cache")).expect("it opens");
    let comparison = Comparison { ignore_ctime: true, ..Comparison::default() };
    let options = || BackupOptions { force: false, comparison, ..options(&source, 3) };
    look_old(&source);
    let first = save(&repo, options()).expect("saved").totals;
    assert_eq!((first.files, first.files_new, first.directories), (25, 25, 2));

    // Parts begin at every third name: what goes is first, last, or all of one; what comes is before, between, after.
    for name in ["03", "05", "09", "10", "11", "23"] {
        fs::remove_file(source.join(name)).expect("removed");
    }
    ["!", "03 new", "10", "zz"].iter().zip(40..).for_each(|(name, seed)| put(name, seed));
    ["00", "12", "20"].iter().zip(50..).for_each(|(name, seed)| put(name, seed));
    look_old(&source);
    let saved = save(&repo, options()).expect("saved");
    let totals = &saved.totals;
    let counts = (totals.files_new, totals.files_changed, totals.files_removed, totals.files_unchanged);
    assert_eq!((totals.files, counts), (23, (3, 4, 5, 16)));
    let found = restored_differences(&repo, &saved.snapshot.expect("made"), &source, &source).expect("it restores");
    assert!(found.is_empty(), "{found:#?}");
}

/// Returns its bytes in pieces of many lengths, and then the given end.
struct Trickle {
    bytes: Vec<u8>,
    at: usize,
    step: usize,
    end: Box<dyn Fn() -> io::Result<usize> + Send + Sync>,
}

impl Read for Trickle {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.bytes.len() {
            return (self.end)();
        }
        self.step = self.step * 7 % 100_003;
        let length = buffer.len().min(self.bytes.len() - self.at).min(1 + self.step);
        buffer[..length].copy_from_slice(&self.bytes[self.at..self.at + length]);
        self.at += length;
        Ok(length)
    }
}

fn stream(
    bytes: Vec<u8>,
    readers: usize,
    end: impl Fn() -> io::Result<usize> + Send + Sync + 'static,
) -> BackupOptions {
    let input = Trickle { bytes, at: 0, step: 1 + readers, end: Box::new(end) };
    let mut options = BackupOptions::new(Vec::new(), "host");
    options.sources.push(dump(input));
    BackupOptions { readers: Some(readers), compression: siltstone::seal::Compression::Level(1), ..options }
}

fn restored_stream(repo: &Repository, snapshot: &Snapshot) -> Vec<u8> {
    let target = tempfile::tempdir().expect("a folder");
    let options = RestoreOptions { writers: 2, ..RestoreOptions::new(target.path().join("out")) };
    repo.plan_restore(snapshot, options, &Watch::silent()).expect("planned").run(&Watch::silent()).expect("restored");
    fs::read(target.path().join("out/dump")).expect("it is there")
}

#[test]
fn a_stream_is_the_same_however_it_comes() {
    let folder = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(memory(SWAPS)), folder.path()).expect("it opens");
    // Around what is read before help is called, and around batches after it.
    for length in [0, 20, MIB, MIB + (128 << 10), MIB + (128 << 10) + 1, 8 * MIB, 9 * MIB + 77, 33 * MIB] {
        let bytes = [words(length / 2), noise(length - length / 2, 5)].concat();
        let first = save(&repo, stream(bytes.clone(), 1, || Ok(0))).expect("saved");
        let again = save(&repo, stream(bytes.clone(), 4, || Ok(0))).expect("saved");
        assert!(again.totals.bytes_new < TREE_BYTES_MAX, "{length}: {}", again.totals.bytes_new);
        for report in [first, again] {
            let snapshot = report.snapshot.expect("made");
            assert_eq!((snapshot.totals.streams, snapshot.totals.bytes), (1, length as u64));
            assert!(restored_stream(&repo, &snapshot) == bytes, "{length}");
        }
    }
}

#[test]
fn a_stream_that_fails_in_the_middle_ends_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(memory(SWAPS)), folder.path()).expect("it opens");
    let broken = || Err(io::Error::other("the producer died"));
    let error = save(&repo, stream(noise(30 * MIB, 6), 3, broken)).expect_err("it fails");
    assert!(error.to_string().contains("dump"), "{error}");
    assert!(fixture::snapshots(&repo).is_empty());
}

#[test]
fn a_large_stream_can_be_interrupted() {
    let folder = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(memory(SWAPS)), folder.path()).expect("it opens");
    let watch = Watch::silent();
    let cancel = watch.cancel.clone();
    // It would never end by itself.
    let mut options = stream(Vec::new(), 3, || Ok(0));
    options.sources = vec![dump(Endless { given: 0, cancel: move || cancel.cancel() })];
    let error = repo.backup(options, &watch).expect_err("it ends");
    assert_eq!(error.kind(), Kind::Cancelled);
}

struct Endless<F> {
    given: usize,
    cancel: F,
}

impl<F: Fn()> Read for Endless<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.given += buffer.len();
        if self.given > 20 * MIB {
            (self.cancel)();
        }
        Ok(buffer.len())
    }
}

#[test]
fn storage_that_dies_under_a_large_file_ends_the_run() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("large");
    fs::write(&source, noise(80 * MIB, 9)).expect("written");
    let storage = Arc::new(memory(SWAPS));
    let ended = |at: u64| {
        let chaos = Arc::new(CrashPoint::at(storage.clone(), at, CrashSide::Before));
        let cache = tempfile::tempdir().expect("a folder");
        let repo = open(chaos.clone(), cache.path()).expect("it opens");
        let result = save(&repo, options(&source, 3));
        assert_eq!(chaos.is_dead(), result.is_err(), "{result:?}");
        chaos.is_dead()
    };
    // The first call is the writer's own; the next are packs.
    assert!(ended(1) && ended(2));
    assert!(!ended(1000));
}

/// While a large file is read or written, the count grows; in the end each byte was counted once, holes too.
#[test]
fn progress_counts_each_byte_once_and_knows_how_many_will_come() {
    let folder = tempfile::tempdir().unwrap();
    let (source, cache) = (folder.path().join("source"), folder.path().join("cache"));
    plant(&source);
    let repo = open(Arc::new(memory(SWAPS)), &cache).unwrap();
    let counted = |watch: &Watch| {
        let get = |counter: &std::sync::atomic::AtomicU64| counter.load(std::sync::atomic::Ordering::Relaxed);
        let progress = &watch.progress;
        [&progress.bytes_done, &progress.bytes_expected, &progress.files_done, &progress.files_expected].map(get)
    };
    let mut snapshot = None;
    for (run, force) in [true, false, true].into_iter().enumerate() {
        let watch = Watch::silent();
        let report = repo.backup(BackupOptions { force, ..options(&source, 2) }, &watch).unwrap();
        let (bytes, files) = (report.totals.bytes, report.totals.files);
        let known = u64::from(run > 0);
        assert_eq!(counted(&watch), [bytes, bytes * known, files, files * known], "{run}");
        snapshot = report.snapshot;
    }
    let (snapshot, target) = (snapshot.unwrap(), folder.path().join("target"));
    let watch = Watch::silent();
    repo.plan_restore(&snapshot, RestoreOptions::new(target), &watch).unwrap().run(&watch).unwrap();
    let (bytes, files) = (snapshot.totals.bytes, snapshot.totals.files);
    assert_eq!(counted(&watch), [bytes, bytes, files, files]);
}

#[test]
fn a_first_backup_that_is_watched_counts_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fixture::plant(&source, 1);
    fs::write(source.join("one/left out"), noise(1000, 1)).unwrap();
    fs::write(source.join("one/too large"), noise(MIB, 2)).unwrap();
    let repo = open(Arc::new(memory(SWAPS)), &folder.path().join("cache")).unwrap();
    let rules =
        || RulesBuilder::new().exclude(b"left out").unwrap().exclude_larger_than(MIB as u64 - 1).build().unwrap();
    // The walk ends long before the stream, and so does the count.
    let stream = Stream::parse(b"late=sleep 2; echo late").unwrap();
    for (count_ahead, run) in [(false, "1"), (true, "2")] {
        let options = BackupOptions { count_ahead, rules: rules(), ..options(&source, 2) };
        let watch = Watch::silent();
        let mut options = BackupOptions { job: run.to_owned(), ..options };
        options.sources.push(Source::stream(stream.clone()));
        let report = repo.backup(options, &watch).unwrap();
        let expected = watch.progress.files_expected.load(std::sync::atomic::Ordering::Relaxed);
        let bytes = watch.progress.bytes_expected.load(std::sync::atomic::Ordering::Relaxed);
        let (files, walked) = (report.totals.files, report.totals.bytes - 5);
        assert_eq!((expected, bytes), if count_ahead { (files, walked) } else { (0, 0) });
    }
}
