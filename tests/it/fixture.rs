//! A small repository to break: made cheaply, backed up to and restored from in one call each.

use crate::compare::differences;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, utimensat};
use siltstone::backup::{BackupOptions, BackupReport, Comparison};
use siltstone::chunk::{ChunkSizes, ChunkTable};
use siltstone::error::{Error, Kind, Result};
use siltstone::format::CommitProtocol;
use siltstone::forward_storage;
use siltstone::id::WriterId;
use siltstone::lease::{LeaseHolder, WriterLease};
use siltstone::repo::{Credentials, InitOptions, Repository, Snapshot};
use siltstone::restore::{RestoreOptions, RestoreReport};
use siltstone::seal::{KeySet, PasswordCost};
use siltstone::source::{ReadOnce, Source};
use siltstone::storage::{Capabilities, ListedObject, Memory, ObjectBody, ObjectStat, ObjectVersion, Storage};
use siltstone::watch::Watch;
use std::fs;
use std::io::Read;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

pub const SWAPS: Capabilities = Capabilities { put_new: true, compare_and_swap: true, rename: true };
pub const RENAMES: Capabilities = Capabilities { put_new: true, compare_and_swap: false, rename: true };
pub const NEITHER: Capabilities = Capabilities { put_new: false, compare_and_swap: false, rename: false };

pub fn credentials() -> Credentials {
    Credentials::password("trouble")
}

pub fn init_options(capabilities: Capabilities) -> InitOptions {
    InitOptions {
        credentials: credentials(),
        cost: PasswordCost { memory_kib: 64, passes: 1, lanes: 1 },
        chunks: ChunkTable::default(),
        single_writer: !capabilities.compare_and_swap && !capabilities.rename,
        capabilities,
    }
}

/// These trees as the sources of a backup.
pub fn trees<P: Into<PathBuf>>(paths: impl IntoIterator<Item = P>) -> Vec<Source> {
    paths.into_iter().map(|path| Source::Tree(path.into())).collect()
}

/// What a reader returns, as a stream that is called `dump` and can be read once.
pub fn dump(reader: impl Read + Send + 'static) -> Source {
    Source::stream(ReadOnce::new(b"dump", reader).expect("a stream can have this name"))
}

/// The name of a key object that tokens of tests are shown under.
pub const KEY: &str = "0011223344556677";

/// Shows a writer, as a backup does.
pub fn show(storage: &dyn Storage, keys: &KeySet, protocol: CommitProtocol, writer: WriterId) -> Result<WriterLease> {
    let shown = LeaseHolder { key: KEY, writer, host: "host", started: "now".to_owned() };
    WriterLease::create(storage, keys, protocol, shown)
}

pub fn protocol_of(repo: &Repository) -> CommitProtocol {
    repo.settings().expect("the settings are there").commit_protocol
}

pub fn init(storage: &dyn Storage) -> Result<()> {
    Repository::init(storage, &init_options(storage.capabilities())).map(|_| ())
}

/// Chunks so small that a file of a few kilobytes has many, and lists of them.
pub fn init_small_chunks(storage: &dyn Storage) -> Result<()> {
    let small = ChunkSizes { min: 64, average: 256, max: 1024, fixed: false };
    let defaults = ChunkTable::default();
    let chunks = ChunkTable { small_file: small, dump: small, ..defaults };
    Repository::init(storage, &InitOptions { chunks, ..init_options(storage.capabilities()) }).map(|_| ())
}

pub fn open(storage: Arc<dyn Storage>, cache: &Path) -> Result<Repository> {
    Repository::open(storage, &credentials(), cache, &Watch::silent())
}

pub fn options(source: &Path) -> BackupOptions {
    BackupOptions {
        readers: Some(1),
        memory_bytes: 256 << 20,
        // Files are made right before they are saved: what they were like is trusted all the same.
        comparison: Comparison { mapped: Duration::ZERO, ..Comparison::default() },
        ..BackupOptions::new(vec![source.to_owned()], "host")
    }
}

/// Opens and backs up, as one run of the program does.
pub fn backup(storage: Arc<dyn Storage>, cache: &Path, source: &Path) -> Result<BackupReport> {
    let repo = open(storage, cache)?;
    repo.backup(options(source), &Watch::silent()).inspect(|report| report.confirm_shown(&repo))
}

/// A new repository in memory.
pub fn memory(capabilities: Capabilities) -> Memory {
    let memory = Memory::with_capabilities(capabilities);
    init(&memory).expect("an empty memory takes a repository");
    memory
}

pub fn snapshots(repo: &Repository) -> Vec<Snapshot> {
    repo.snapshots(&Watch::silent()).expect("snapshots are listed")
}

/// Restores what lay at `source` when it was saved.
pub fn restore(repo: &Repository, snapshot: &Snapshot, source: &Path, target: &Path) -> Result<RestoreReport> {
    let options = RestoreOptions {
        path: Some(source.as_os_str().as_encoded_bytes().to_vec()),
        writers: 1,
        ..RestoreOptions::new(target.to_owned())
    };
    repo.plan_restore(snapshot, options, &Watch::silent())?.run(&Watch::silent())
}

/// Restores a snapshot of `source` into a folder of its own and says how it differs from `expected`.
pub fn restored_differences(
    repo: &Repository,
    snapshot: &Snapshot,
    source: &Path,
    expected: &Path,
) -> Result<Vec<String>> {
    let target = tempfile::tempdir().map_err(|error| Error::io("make", "a folder", error))?;
    let report = restore(repo, snapshot, source, target.path())?;
    if report.warnings_count > 0 {
        return Err(Error::new(Kind::Corrupt, "restore", "").because(format!("{:?}", report.warnings)));
    }
    Ok(differences(expected, target.path()))
}

/// A small tree with a file of every size that matters, the same for the same seed.
pub fn plant(root: &Path, seed: u8) {
    let noise = crate::golden::noise;
    for folder in ["", "one", "one/two", "empty"] {
        fs::create_dir_all(root.join(folder)).expect("a folder is made");
    }
    // Two trees planted within a tick of the clock would else have changed files of the same size and time.
    let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_600_000_000 + u64::from(seed));
    let put = |name: &str, bytes: &[u8]| {
        fs::write(root.join(name), bytes).expect("a file is written");
        let file = fs::File::options().write(true).open(root.join(name)).expect("a file is opened");
        file.set_modified(time).expect("its time is set");
    };
    put("nothing", b"");
    put("short", &[seed; 20]);
    for n in 0..12 {
        put(&format!("one/file{n}"), &noise(100 + usize::from(n) * 700, n));
    }
    put("one/two/changes", &noise(3000, seed));
    put("one/two/large", &noise(120_000, 99));
    put("repeated", &b"the same words again. ".repeat(500));
    put(&format!("only in {seed}"), &noise(500, seed ^ 0x55));
    std::os::unix::fs::symlink("one/two", root.join("link")).expect("a link is made");
}

/// How many seconds after [`LONG_AGO`] the last entry got its time.
static NEXT_TIME: AtomicI64 = AtomicI64::new(0);
const LONG_AGO: i64 = 1_000_000_000;

/// Gives every entry at and below a folder that was changed of late a time of long ago that nothing else has.
///
/// What is as young as a test is not trusted to be unchanged, however long the test sleeps. So a test that says what is
/// not read again does this, and has change times ignored (`--ignore-ctime`), which cannot be set back.
pub fn look_old(folder: &Path) {
    for entry in walkdir::WalkDir::new(folder).contents_first(true) {
        let entry = entry.expect("a folder is listed");
        if entry.metadata().expect("it is looked at").mtime() > LONG_AGO + 500_000_000 {
            let time = Timespec { tv_sec: LONG_AGO + NEXT_TIME.fetch_add(1, Ordering::Relaxed), tv_nsec: 5_000_000 };
            let times = Timestamps { last_access: time, last_modification: time };
            utimensat(CWD, entry.path(), &times, AtFlags::SYMLINK_NOFOLLOW).expect("a time is set");
        }
    }
}

/// A storage that calls a function before each request, with the verb and the name.
pub struct Hooked<F> {
    pub inner: Memory,
    pub before: F,
}

/// What becomes of a call before it is made: nothing, or what the hook returns.
pub trait Outcome {
    fn result(self) -> Result<()>;
}

impl Outcome for () {
    fn result(self) -> Result<()> {
        Ok(())
    }
}

impl Outcome for Result<()> {
    fn result(self) -> Result<()> {
        self
    }
}

impl<F: Fn(&str, &str) -> R + Send + Sync, R: Outcome> Storage for Hooked<F> {
    forward_storage!(self => self.inner; describe, capabilities, profile);

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        (self.before)("put", name).result()?;
        self.inner.put(name, body)
    }
    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        (self.before)("put_new", name).result()?;
        self.inner.put_new(name, body)
    }
    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
        (self.before)("compare_and_swap", name).result()?;
        self.inner.compare_and_swap(name, expected, body)
    }
    fn rename(&self, from: &str, to: &str) -> Result<()> {
        (self.before)("rename", from).result()?;
        self.inner.rename(from, to)
    }
    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        (self.before)("get", name).result()?;
        self.inner.get(name, bytes_max)
    }
    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        (self.before)("get_range", name).result()?;
        self.inner.get_range(name, offset, length)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        (self.before)("list", prefix).result()?;
        self.inner.list(prefix)
    }
    fn remove(&self, name: &str) -> Result<()> {
        (self.before)("remove", name).result()?;
        self.inner.remove(name)
    }
    fn stat(&self, name: &str) -> Result<ObjectStat> {
        (self.before)("stat", name).result()?;
        self.inner.stat(name)
    }
}

/// Copies a folder as it is, times included, by moving nothing: hard links would share later changes.
pub fn copy(from: &Path, to: &Path) {
    let done = std::process::Command::new("cp").arg("-a").arg("-T").arg(from).arg(to).status();
    assert!(done.expect("cp runs").success());
}

/// Copies a folder of plain files.
pub fn copy_files(from: &Path, to: &Path) {
    let _not_there = fs::remove_dir_all(to);
    for entry in walkdir::WalkDir::new(from) {
        // What a run that goes on removes meanwhile was not there for a copy.
        let Ok(entry) = entry else { continue };
        let at = to.join(entry.path().strip_prefix(from).expect("it lies below"));
        let _gone_meanwhile =
            if entry.file_type().is_dir() { fs::create_dir_all(at) } else { fs::copy(entry.path(), at).map(|_| ()) };
    }
}
