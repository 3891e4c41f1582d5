//! A checkpoint makes findable what came before it, and what comes after does not hold it up.

use crate::fixture::{RENAMES, memory, open, options};
use crate::golden::noise;
use siltstone::backup::BackupOptions;
use siltstone::error::Result;
use siltstone::format::PACK_BYTES;
use siltstone::forward_storage;
use siltstone::repo::SinkOptions;
use siltstone::seal::Compression;
use siltstone::storage::{Memory, ObjectBody, Storage, StorageProfile};
use siltstone::watch::Watch;
use std::fs;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

/// Storage over a network that is slow: each pack waits until it may be written, in the order in which they came.
struct Slow {
    inner: Memory,
    is_remote: bool,
    packs: Mutex<Packs>,
    changed: Condvar,
}

#[derive(Default)]
struct Packs {
    come: usize,
    allowed: usize,
    /// At this one the thread that writes it panics.
    panics_at: Option<usize>,
}

impl Slow {
    fn allow(&self, packs: usize) {
        self.packs.lock().expect("no test panics with it").allowed = packs;
        self.changed.notify_all();
    }

    fn wait_for(&self, packs: usize) {
        let held = self.packs.lock().expect("no test panics with it");
        let (_held, waited) = self
            .changed
            .wait_timeout_while(held, Duration::from_secs(60), |held| held.come < packs)
            .expect("no test panics with it");
        assert!(!waited.timed_out(), "pack {packs} was not sent");
    }
}

impl Storage for Slow {
    forward_storage!(self => self.inner; capabilities, put_new, compare_and_swap, rename, get, get_range, list, remove, stat);

    fn describe(&self) -> String {
        "slow".to_owned()
    }
    fn profile(&self) -> StorageProfile {
        if self.is_remote { StorageProfile::REMOTE } else { StorageProfile::LOCAL }
    }
    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        if name.starts_with("packs/") {
            let mut held = self.packs.lock().expect("no test panics with it");
            let number = held.come;
            held.come += 1;
            self.changed.notify_all();
            let held = self.changed.wait_while(held, |held| held.allowed <= number).expect("no test panics with it");
            let panics = held.panics_at == Some(number);
            drop(held);
            assert!(!panics, "a bug of ours");
        }
        self.inner.put(name, body)
    }
}

#[test]
fn a_checkpoint_does_not_wait_for_packs_that_were_sent_after_it_began() {
    let inner = memory(RENAMES);
    let slow = Arc::new(Slow { inner, is_remote: true, packs: Mutex::default(), changed: Condvar::new() });
    let cache = tempfile::tempdir().expect("a folder");
    let repo = open(slow.clone(), cache.path()).expect("it opens");
    let options = SinkOptions { lanes: 2, compression: Compression::STORE, memory_bytes: 256 << 20 };
    let writer = repo.writer("host", &options, &Watch::silent()).expect("it begins");
    writer.sink().store_content(0, &noise(100_000, 1)).expect("it is stored");
    let (told, findable) = crossbeam_channel::bounded(1);
    std::thread::scope(|scope| {
        let writer = &writer;
        let checkpoint = scope.spawn(move || writer.sink().checkpoint(|_, _| told.send(()).expect("somebody listens")));
        slow.wait_for(1);
        for part in 0..=(PACK_BYTES >> 20) as u8 + 3 {
            writer.sink().store_content(1, &noise(1 << 20, part)).expect("it is stored");
        }
        slow.wait_for(2);
        assert!(findable.is_empty() && slow.list("index/").expect("listed").is_empty(), "before it was written");
        slow.allow(1);
        let told = findable.recv_timeout(Duration::from_secs(60));
        let indexes = slow.list("index/").expect("listed").len();
        slow.allow(usize::MAX);
        assert!(told.is_ok() && indexes == 1, "it waits for what came after it");
        checkpoint.join().expect("no panic").expect("it is findable");
    });
    writer.abandon(|_, _| ()).expect("it ends");
    assert_eq!(slow.list("index/").expect("listed").len(), 2);
}

#[test]
fn a_run_whose_last_pack_fails_does_not_look_like_one_that_runs() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("file"), noise(100_000, 1)).expect("written");
    let packs = Packs { allowed: usize::MAX, panics_at: Some(0), ..Packs::default() };
    let slow = Slow { inner: memory(RENAMES), is_remote: false, packs: Mutex::new(packs), changed: Condvar::new() };
    let slow = Arc::new(slow);
    let repo = open(slow.clone(), &folder.path().join("cache")).expect("it opens");
    repo.backup(options(&source), &Watch::silent()).expect_err("its only pack is missing");
    let pending = slow.list("pending/").expect("listed");
    assert!(pending.is_empty(), "{pending:?}");
}

#[test]
fn a_thread_that_panics_ends_the_run_instead_of_being_waited_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    fs::create_dir(&source).expect("made");
    for number in 0..20 {
        fs::write(source.join(number.to_string()), noise(2 << 20, number)).expect("written");
    }
    for is_remote in [false, true] {
        let packs = Packs { allowed: usize::MAX, panics_at: Some(1), ..Packs::default() };
        let slow = Slow { inner: memory(RENAMES), is_remote, packs: Mutex::new(packs), changed: Condvar::new() };
        let repo = open(Arc::new(slow), &folder.path().join(format!("cache{is_remote}"))).expect("it opens");
        let options = BackupOptions { readers: Some(2), memory_bytes: 64 << 20, ..options(&source) };
        let (told, ended) = crossbeam_channel::bounded(1);
        std::thread::spawn(move || told.send(repo.backup(options, &Watch::silent()).map(|_| ())));
        let result = ended.recv_timeout(Duration::from_secs(60)).expect("it does not wait for ever");
        let error = result.expect_err("a pack is missing").to_string();
        assert!(error.contains("panicked"), "remote {is_remote}: {error}");
    }
}

/// The order was that in which threads came, so one tree became packs that damage hit differently.
#[test]
fn a_checkpoint_puts_the_frames_of_the_lanes_into_a_pack_in_their_order() {
    const LANES: usize = 8;
    let folder = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(memory(RENAMES)), &folder.path().join("cache")).expect("it opens");
    let options = SinkOptions { lanes: LANES, compression: Compression::Auto, memory_bytes: 32 << 20 };
    let writer = repo.writer("host", &options, &Watch::silent()).expect("it begins");
    for round in 0..8 {
        let store =
            |lane: usize| writer.sink().store_tree(lane, &[round, lane as u8].repeat(40)).expect("it is stored");
        let mut chunks: Vec<_> = (0..LANES).rev().map(store).collect();
        chunks.reverse();
        writer.sink().checkpoint(|_, _| ()).expect("it is findable");
        let numbers = chunks.iter().map(|id| repo.reader().locate(id).expect("it is there").frame_number);
        assert!(numbers.eq(0..LANES as u32), "round {round}");
    }
    writer.abandon(|_, _| ()).expect("it ends");
}
