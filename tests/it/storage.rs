//! One conformance suite for all storages; what the probe finds; a repository in a bucket.

use siltstone::error::{Error, Kind, Result};
use siltstone::forward_storage;
use siltstone::storage::{
    Capabilities, Delayed, ListedObject, Local, Memory, ObjectBody, ObjectStat, ObjectVersion, Retry, S3Defaults,
    Storage, StorageAccess, Throttle, probe,
};
use std::fs;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

const ALL: Capabilities = Capabilities { put_new: true, compare_and_swap: true, rename: true };

fn kind<T: std::fmt::Debug>(result: Result<T>) -> Kind {
    result.expect_err("a refusal is expected").kind()
}

fn opened(words: &str) -> Result<Arc<dyn Storage>> {
    let access = StorageAccess { s3: S3Defaults::from_environment(), ..StorageAccess::default() };
    siltstone::storage::open_location(words, true, &access)
}

fn body(text: &str) -> ObjectBody {
    ObjectBody::from(text.as_bytes())
}

fn read(storage: &dyn Storage, name: &str) -> Vec<u8> {
    storage.get(name, 1 << 30).unwrap().0
}

/// What every storage must do, and what it must do as far as it says that it can.
fn conforms(storage: &dyn Storage) {
    reads_what_was_written(storage);
    reads_ranges(storage);
    finds_nothing_below_an_object(storage);
    keeps_its_profile(storage);
    refuses_names(storage);
    lists(storage);
    let can = storage.capabilities();
    if can.put_new {
        puts_new_once(storage);
    }
    if can.compare_and_swap {
        swaps(storage);
    } else {
        storage.put("c/swap", body("x")).unwrap();
        let version = storage.stat("c/swap").unwrap().version;
        assert_eq!(kind(storage.compare_and_swap("c/swap", &version, body("y"))), Kind::Unsupported);
    }
    if can.rename {
        renames(storage);
    } else {
        assert_eq!(kind(storage.rename("c/swap", "c/other")), Kind::Unsupported);
    }
}

fn reads_what_was_written(storage: &dyn Storage) {
    assert_eq!(kind(storage.get("c/missing", 9)), Kind::NotFound);
    assert_eq!(kind(storage.stat("c/missing")), Kind::NotFound);
    assert_eq!(kind(storage.get_range("c/missing", 0, 1)), Kind::NotFound);
    storage.remove("c/missing").unwrap();

    let pieces = [&b"some "[..], b"", b"text"].map(|piece| piece.to_vec().into());
    storage.put("c/one", ObjectBody(pieces.to_vec())).unwrap();
    let (bytes, first) = storage.get("c/one", 9).unwrap();
    assert_eq!(bytes, b"some text");
    let stat = storage.stat("c/one").unwrap();
    assert_eq!((stat.size, stat.version), (9, first.clone()));
    assert_eq!(kind(storage.get("c/one", 8)), Kind::Corrupt, "one byte too many");
    storage.put("c/one", body("other words")).unwrap();
    assert_ne!(storage.stat("c/one").unwrap().version, first);
    assert_eq!(read(storage, "c/one"), b"other words");
    storage.remove("c/one").unwrap();
    assert_eq!(kind(storage.get("c/one", 99)), Kind::NotFound);

    storage.put("c/empty", ObjectBody::default()).unwrap();
    assert_eq!(storage.get("c/empty", 0).unwrap().0, b"");
    assert_eq!(storage.stat("c/empty").unwrap().size, 0);

    let large: Vec<u8> = (0..33u32 << 20).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    let pieces = large.chunks(1_000_003).map(|piece| piece.to_vec().into()).collect();
    storage.put("c/large", ObjectBody(pieces)).unwrap();
    assert!(read(storage, "c/large") == large);
    assert_eq!(kind(storage.get("c/large", 1 << 20)), Kind::Corrupt);
    let range = storage.get_range("c/large", 20_000_000, 5_000_000).unwrap();
    assert!(range == large[20_000_000..25_000_000]);
    storage.remove("c/large").unwrap();
}

fn reads_ranges(storage: &dyn Storage) {
    storage.put("c/range", body("0123456789")).unwrap();
    for (offset, length, wanted) in [(0, 10, "0123456789"), (3, 4, "3456"), (9, 1, "9"), (10, 0, ""), (0, 0, "")] {
        assert_eq!(storage.get_range("c/range", offset, length).unwrap(), wanted.as_bytes(), "{length} at {offset}");
    }
    for (offset, length) in [(0, 11), (9, 2), (10, 1), (11, 0), (5000, 1), (u64::MAX, 1)] {
        assert_eq!(kind(storage.get_range("c/range", offset, length)), Kind::Corrupt, "{length} at {offset}");
    }
    // Never those of an object that stood there before, whatever is kept open.
    let range = || storage.get_range("c/range", 1, 2);
    storage.put("c/range", body("abcdef")).unwrap();
    assert_eq!(range().unwrap(), b"bc");
    storage.remove("c/range").unwrap();
    assert_eq!(kind(range()), Kind::NotFound);
    if storage.capabilities().rename {
        storage.put("c/renamed", body("uvwxyz")).unwrap();
        assert_eq!(storage.get_range("c/renamed", 1, 2).unwrap(), b"vw");
        storage.rename("c/renamed", "c/range").unwrap();
        assert_eq!(kind(storage.get_range("c/renamed", 1, 2)), Kind::NotFound);
        storage.put("c/renamed", body("other")).unwrap();
        assert_eq!((range().unwrap(), storage.get_range("c/renamed", 1, 2).unwrap()), (b"vw".into(), b"th".into()));
    }
}

/// What a storage states of itself beside what it can do.
fn keeps_its_profile(storage: &dyn Storage) {
    let profile = storage.profile();
    assert!(profile.is_durable && profile.parallel_requests >= if profile.is_remote { 2 } else { 1 }, "{profile:?}");
    let is_listed = |name: &str| storage.list("p/").unwrap().iter().any(|listed| listed.name == name);
    for number in 0..20 {
        let name = format!("p/{number}");
        storage.put(&name, body("x")).unwrap();
        assert!(is_listed(&name) || !profile.listing_delay.is_zero());
        storage.remove(&name).unwrap();
        assert!(!is_listed(&name) || !profile.listing_delay.is_zero());
    }
}

fn finds_nothing_below_an_object(storage: &dyn Storage) {
    storage.put("c/object", body("x")).unwrap();
    // A name above objects is none, and nothing stands below one.
    for name in ["c/object/below", "c/object/further/below", "c"] {
        assert_eq!(kind(storage.get(name, 9)), Kind::NotFound, "{name}");
        assert_eq!(kind(storage.stat(name)), Kind::NotFound, "{name}");
        assert_eq!(kind(storage.get_range(name, 0, 1)), Kind::NotFound, "{name}");
    }
    // rclone's server, which is one for tests, removes the object itself then.
    if !storage.profile().is_remote {
        storage.remove("c/object/below").unwrap();
    }
    assert_eq!(storage.list("c/object/").unwrap(), []);
    assert_eq!(storage.list("c/object/further/").unwrap(), []);
    assert_eq!(read(storage, "c/object"), b"x");
}

fn refuses_names(storage: &dyn Storage) {
    let long = "a".repeat(201);
    for name in ["", "/a", "a/", "a//b", "../a", "a/.b", "A", "a b", "ä", "a\\b", long.as_str()] {
        assert_eq!(kind(storage.put(name, body("x"))), Kind::Invalid, "{name}");
        assert_eq!(kind(storage.get(name, 1)), Kind::Invalid, "{name}");
        assert_eq!(kind(storage.remove(name)), Kind::Invalid, "{name}");
        assert_eq!(kind(storage.stat(name)), Kind::Invalid, "{name}");
    }
}

fn lists(storage: &dyn Storage) {
    assert_eq!(storage.list("nothing/").unwrap(), []);
    let names: Vec<String> = (0..1100).map(|i| format!("l/{:x}/{i:04}", i % 3)).collect();
    std::thread::scope(|scope| {
        for part in names.chunks(100) {
            scope.spawn(move || {
                for name in part {
                    storage.put(name, ObjectBody::from(name.as_bytes())).unwrap();
                }
            });
        }
    });
    storage.put("ll", body("not below l/")).unwrap();
    let mut wanted: Vec<ListedObject> =
        names.iter().map(|name| ListedObject { name: name.clone(), size: name.len() as u64, fingerprint: 0 }).collect();
    wanted.sort();
    let plain = |mut listed: Vec<ListedObject>| {
        listed.iter_mut().for_each(|object| object.fingerprint = 0);
        listed
    };
    assert_eq!(plain(storage.list("l/").unwrap()), wanted);
    let between = |after: &str, until: Option<&str>| plain(storage.list_between("l/", after, until).unwrap());
    assert_eq!(between("", None), wanted);
    // The name that it begins after may be missing, and that at which it ends is included.
    let (first, last) = (&wanted[1020].name, &wanted[1040].name);
    assert_eq!(between(first, Some(last)), wanted[1021..=1040]);
    assert_eq!(between("l/0/", Some("l/0/0003")), wanted[..2]);
    assert_eq!(between(&wanted[1090].name, None), wanted[1091..]);
    assert_eq!(between("z", None), []);
    // A replaced object can be told from the one before, if the storage says anything of that.
    let before = storage.list("l/0/").unwrap()[0].fingerprint;
    storage.put("l/0/0000", body("another")).unwrap();
    let after = storage.list("l/0/").unwrap()[0].fingerprint;
    assert!(before == 0 && after == 0 || before != after, "{before} {after}");
    storage.put("l/0/0000", body("l/0/0000")).unwrap();
    let below = storage.list("l/1/").unwrap();
    assert!(below.len() == 367 && below.iter().all(|listed| listed.name.starts_with("l/1/")));
    let all = storage.list("").unwrap();
    assert!(all.is_sorted() && all.len() > 1100 && all.iter().any(|listed| listed.name == "ll"));
    std::thread::scope(|scope| {
        for part in names.chunks(100) {
            scope.spawn(move || part.iter().for_each(|name| storage.remove(name).unwrap()));
        }
    });
    assert_eq!(storage.list("l/").unwrap(), []);
}

fn puts_new_once(storage: &dyn Storage) {
    const RACERS: usize = 12;
    for round in 0..5 {
        let name = format!("c/new-{round}");
        let start = Barrier::new(RACERS);
        let racers: Vec<Result<ObjectVersion>> = std::thread::scope(|scope| {
            let race = |i: usize| {
                let (name, start) = (&name, &start);
                scope.spawn(move || {
                    start.wait();
                    storage.put_new(name, body(&format!("racer {i}")))
                })
            };
            let threads: Vec<_> = (0..RACERS).map(race).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        let winners: Vec<usize> = (0..RACERS).filter(|i| racers[*i].is_ok()).collect();
        assert_eq!(winners.len(), 1, "{racers:?}");
        assert_eq!(read(storage, &name), format!("racer {}", winners[0]).as_bytes());
        for lost in racers.into_iter().filter(Result::is_err) {
            // A store may say "two of you met, try again" instead; that is not a win.
            assert!(matches!(kind(lost), Kind::AlreadyExists | Kind::Temporary));
        }
        assert_eq!(kind(storage.put_new(&name, body("late"))), Kind::AlreadyExists);
        storage.remove(&name).unwrap();
    }
}

fn swaps(storage: &dyn Storage) {
    storage.put("c/swap", body("first")).unwrap();
    let first = storage.stat("c/swap").unwrap().version;
    let second = storage.compare_and_swap("c/swap", &first, body("second")).unwrap();
    assert_eq!(storage.get("c/swap", 99).unwrap(), (b"second".to_vec(), second.clone()));
    assert_eq!(kind(storage.compare_and_swap("c/swap", &first, body("third"))), Kind::Conflict);
    assert_eq!(read(storage, "c/swap"), b"second");
    storage.remove("c/swap").unwrap();
    assert_eq!(kind(storage.compare_and_swap("c/swap", &second, body("third"))), Kind::NotFound);
    assert_eq!(kind(storage.stat("c/swap")), Kind::NotFound);
}

fn renames(storage: &dyn Storage) {
    storage.put("c/from", body("moved")).unwrap();
    storage.put("c/taken", body("kept")).unwrap();
    assert_eq!(kind(storage.rename("c/from", "c/taken")), Kind::AlreadyExists);
    assert_eq!(read(storage, "c/taken"), b"kept");
    storage.rename("c/from", "c/new/to").unwrap();
    assert_eq!(read(storage, "c/new/to"), b"moved");
    assert_eq!(kind(storage.rename("c/from", "c/elsewhere")), Kind::NotFound);
}

/// The servers to test against, as `tests/servers/s3 start` names them.
fn servers() -> Vec<(String, String)> {
    let text = std::env::var("SILT_TEST_S3").unwrap_or_default();
    if text.is_empty() {
        println!("SKIPPED: S3 servers: SILT_TEST_S3 is not set");
    }
    let pairs = text.split(',').filter_map(|pair| pair.split_once('='));
    pairs.map(|(name, location)| (name.to_owned(), location.to_owned())).collect()
}

/// A prefix of its own, so that runs do not meet.
fn fresh(location: &str, purpose: &str) -> String {
    static SERIAL: AtomicU32 = AtomicU32::new(0);
    let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_nanos();
    format!("{location}/{purpose}-{now:x}-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed))
}

/// A storage whose capabilities are those that the probe has found.
struct Probed(Arc<dyn Storage>, Capabilities);

impl Storage for Probed {
    forward_storage!(self => self.0; describe, profile, put, put_new, rename, get, get_range, list, remove, stat);

    fn capabilities(&self) -> Capabilities {
        self.1
    }
    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
        if self.1.compare_and_swap {
            self.0.compare_and_swap(name, expected, body)
        } else {
            Err(Error::new(Kind::Unsupported, "conditionally replace", name))
        }
    }
}

#[test]
fn a_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Local::create(&folder.path().join("r")).unwrap();
    conforms(&storage);
    // "There is none" is not an error, though a folder of that name is there.
    storage.remove("c").unwrap();
    assert_eq!(read(&storage, "c/object"), b"x");
}

#[test]
fn a_folder_that_is_gone_is_not_an_empty_one() {
    let folder = tempfile::tempdir().unwrap();
    let storage = Local::create(&folder.path().join("r")).unwrap();
    storage.put("a/b", body("x")).unwrap();
    assert_eq!(storage.list("nothing/").unwrap(), []);
    fs::remove_dir_all(folder.path()).unwrap();
    for prefix in ["", "a/", "nothing/"] {
        assert_eq!(kind(storage.list(prefix)), Kind::Gone, "{prefix}");
    }
}

/// Another process may replace what this one keeps open.
#[test]
fn ranges_are_those_of_the_file_that_is_there_now() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (Local::create(folder.path()).unwrap(), Local::open(folder.path()).unwrap());
    one.put("a", body("first")).unwrap();
    assert_eq!(one.get_range("a", 0, 5).unwrap(), b"first");
    other.put("a", body("other")).unwrap();
    assert_eq!(one.get_range("a", 0, 5).unwrap(), b"other");
    other.remove("a").unwrap();
    assert_eq!(kind(one.get_range("a", 0, 5)), Kind::NotFound);
}

#[test]
fn memory_conforms_whatever_it_is_able_to() {
    conforms(&Memory::new());
    conforms(&Memory::with_capabilities(Capabilities { compare_and_swap: false, ..ALL }));
    conforms(&Memory::with_capabilities(Capabilities { rename: false, put_new: false, ..ALL }));
}

#[test]
fn wrappers_conform() {
    let memory: Arc<dyn Storage> = Arc::new(Memory::new());
    conforms(&Retry::new(Arc::new(Throttle::new(memory, Some(1 << 40), Some(1 << 40)))));
}

#[test]
fn s3_stores_conform() {
    for (name, server) in servers() {
        println!("{name}");
        let storage = opened(&fresh(&server, "conforms")).unwrap();
        let found = probe(storage.as_ref()).unwrap();
        conforms(&Probed(storage, found));
    }
}

#[test]
fn the_probe_finds_what_holds_and_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let local = Local::create(folder.path()).unwrap();
    assert_eq!(probe(&local).unwrap(), local.capabilities());
    assert_eq!(local.list("").unwrap(), []);
    let memory = Memory::new();
    assert_eq!(probe(&memory).unwrap(), ALL);
    assert_eq!(memory.list("").unwrap(), []);
    // It claims to put only what is new, and overwrites.
    let lying = Arc::new(Memory::with_capabilities(Capabilities { put_new: false, ..ALL }));
    let lying = Probed(lying, ALL);
    assert_eq!(probe(&lying).unwrap(), Capabilities { put_new: false, ..ALL });
    assert_eq!(lying.list("").unwrap(), []);
}

#[test]
fn the_probe_tells_s3_stores_apart() {
    let honest = Capabilities { put_new: true, compare_and_swap: true, rename: false };
    for (name, server) in servers() {
        let storage = opened(&fresh(&server, "probe")).unwrap();
        let found = probe(storage.as_ref()).unwrap();
        match name.as_str() {
            "versitygw" => assert_eq!(found, honest),
            "rclone" => assert_eq!(found, Capabilities { put_new: false, compare_and_swap: false, ..honest }),
            _ => println!("{name}: {found:?}"),
        }
        assert_eq!(storage.list("").unwrap(), [], "{name}");
    }
}

#[test]
fn an_unknown_scheme_is_told_what_is_known() {
    let folder = tempfile::tempdir().unwrap();
    for words in ["gopher://x", "memory:", "host:folder"] {
        let error = opened(words).err().unwrap();
        assert!(error.is(Kind::Invalid) && error.advice().unwrap().contains("s3://"), "{error:?}");
        assert!(!Path::new(words).exists());
    }
    // A folder of such a name is written as a path.
    let named = folder.path().join("memory:");
    opened(named.to_str().unwrap()).unwrap();
    assert!(named.is_dir());
}

/// Forwards requests, and loses the answer `lost` times.
struct Lossy {
    inner: Memory,
    lost: AtomicU32,
}

impl Lossy {
    fn losing<T>(&self, done: Result<T>) -> Result<T> {
        let lost = self.lost.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        if lost { Err(Error::new(Kind::Temporary, "hear the answer", "")) } else { done }
    }
}

impl Storage for Lossy {
    forward_storage!(self => self.inner; describe, capabilities, profile);

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        self.losing(self.inner.put(name, body))
    }
    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        self.losing(self.inner.put_new(name, body))
    }
    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
        self.losing(self.inner.compare_and_swap(name, expected, body))
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.losing(self.inner.rename(from, to))
    }
    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        self.losing(self.inner.get(name, bytes_max))
    }
    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.losing(self.inner.get_range(name, offset, length))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        self.losing(self.inner.list(prefix))
    }
    fn remove(&self, name: &str) -> Result<()> {
        self.losing(self.inner.remove(name))
    }
    fn stat(&self, name: &str) -> Result<ObjectStat> {
        self.losing(self.inner.stat(name))
    }
}

#[test]
fn lost_answers_are_found_out() {
    let lossy = Arc::new(Lossy { inner: Memory::new(), lost: AtomicU32::new(0) });
    let storage = Retry::new(lossy.clone());
    let lose = |times| lossy.lost.store(times, Ordering::SeqCst);
    lose(2);
    let first = storage.put_new("a", body("ours")).unwrap();
    assert_eq!(storage.get("a", 9).unwrap(), (b"ours".to_vec(), first.clone()));
    lose(1);
    let second = storage.compare_and_swap("a", &first, body("next")).unwrap();
    assert_eq!(storage.get("a", 9).unwrap(), (b"next".to_vec(), second));
    lose(1);
    storage.rename("a", "b").unwrap();
    assert_eq!(read(&storage, "b"), b"next");
    // An object of that name that another writer made before ours is tried again is not a success.
    lose(1);
    assert_eq!(kind(storage.put_new("b", body("mine"))), Kind::AlreadyExists);
    assert_eq!(read(&storage, "b"), b"next");
    lose(99);
    assert_eq!(kind(Retry::with_attempts(lossy.clone(), 2).stat("b")), Kind::Temporary);
    assert_eq!(lossy.lost.load(Ordering::SeqCst), 97);
}

#[test]
fn a_throttle_keeps_its_rate_over_all_threads() {
    let storage = Throttle::new(Arc::new(Memory::new()), Some(1 << 20), None);
    let start = Instant::now();
    std::thread::scope(|scope| {
        for i in 0..4 {
            let storage = &storage;
            scope.spawn(move || storage.put(&format!("{i}"), ObjectBody::from(vec![0; 256 << 10])).unwrap());
        }
    });
    let took = start.elapsed();
    // How much longer it takes on a busy machine is not known.
    assert!(took > Duration::from_millis(700) && took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn a_delay_is_that_of_one_request() {
    let storage = Delayed::new(Arc::new(Memory::new()), Duration::from_millis(30));
    let start = Instant::now();
    storage.put("a", body("x")).unwrap();
    storage.stat("a").unwrap();
    let took = AtomicU64::new(start.elapsed().as_millis() as u64).into_inner();
    assert!((60..60_000).contains(&took), "{took} ms");
}

fn silt(home: &Path, repo: &str, secret: Option<&str>, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_silt"));
    command.args(["--repo", repo]).args(args);
    command.env("HOME", home).env("SILT_PASSWORD", "test").env("SILT_CACHE_DIR", home.join("cache"));
    if let Some(secret) = secret {
        command.env("AWS_SECRET_ACCESS_KEY", secret);
    }
    command.output().unwrap()
}

fn succeeds(output: Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_repository_in_a_bucket() {
    for (name, server) in servers() {
        let home = tempfile::tempdir().unwrap();
        let repo = fresh(&server, "repository");
        let tree = home.path().join("tree");
        fs::create_dir_all(tree.join("sub/empty")).unwrap();
        fs::write(tree.join("text"), "hello").unwrap();
        fs::write(tree.join("sub/large"), vec![7; 3_000_000]).unwrap();
        std::os::unix::fs::symlink("text", tree.join("link")).unwrap();
        let run = |secret, args: &[&str]| silt(home.path(), &repo, secret, args);
        let path = tree.to_str().unwrap();

        let mut init = vec!["init"];
        if name == "rclone" {
            assert!(!run(None, &init).status.success(), "a store that ignores conditions needs a word of consent");
            init.push("--single-writer");
        }
        succeeds(run(None, &init));
        succeeds(run(None, &["backup", path]));
        fs::write(tree.join("text"), "hello again").unwrap();
        succeeds(run(None, &["backup", path]));

        let target = home.path().join("target");
        succeeds(run(None, &["restore", "latest", "--target", target.to_str().unwrap()]));
        let back = succeeds(Command::new("find").arg(&target).args(["-name", "text"]).output().unwrap());
        let back = Path::new(back.trim()).parent().unwrap();
        succeeds(Command::new("diff").args(["-r", "--no-dereference"]).arg(&tree).arg(back).output().unwrap());

        let denied = run(Some("wrong"), &["snapshots"]);
        let said = String::from_utf8_lossy(&denied.stderr).into_owned();
        assert!(!denied.status.success() && said.contains("AWS_ACCESS_KEY_ID"), "{name}: {said}");
    }
}
