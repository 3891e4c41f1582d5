//! Another program, written from docs/FORMAT.md alone, restores what this one saved.

use crate::attributes::attributes_of;
use crate::folder::Folder;
use crate::golden;
use crate::skip::skipped;
use siltstone::backup::BackupOptions;
use siltstone::chunk::ChunkTable;
use siltstone::entry::{Content, Entry, EntryKind, Time};
use siltstone::format::store_page;
use siltstone::id::SnapshotId;
use siltstone::repo::{Credentials, InitOptions, Repository, SinkOptions, Snapshot, Stamp, Totals, add_key};
use siltstone::seal::{KeyAccess, PasswordCost, Secret};
use siltstone::source::{Source, Stream};
use siltstone::storage::Storage;
use siltstone::watch::Watch;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

const COST: PasswordCost = PasswordCost { memory_kib: 1024, passes: 2, lanes: 2 };

fn run(command: &mut Command) -> Result<Output, String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() {
        Ok(output)
    } else {
        Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr)))
    }
}

/// The interpreter with what the reader needs, made if it is missing.
fn python() -> Result<PathBuf, String> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _guard = ONE_AT_A_TIME.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
    let tools = match (std::env::var_os("SILT_TEST_TOOLS"), std::env::var_os("HOME")) {
        (Some(tools), _) => PathBuf::from(tools),
        (None, Some(home)) => Path::new(&home).join(".cache/siltstone-test-tools"),
        (None, None) => return Err("neither SILT_TEST_TOOLS nor HOME is set".to_owned()),
    };
    let folder = tools.join("reader");
    let python = folder.join("bin/python");
    let needs = "import blake3, zstandard\nfrom cryptography.hazmat.primitives.kdf.argon2 import Argon2id";
    if run(Command::new(&python).args(["-c", needs])).is_err() {
        fs::create_dir_all(&tools).map_err(|error| error.to_string())?;
        run(Command::new("python3").args(["-m", "venv"]).arg(&folder))?;
        let packages = ["cryptography>=44", "blake3", "zstandard"];
        run(Command::new(&python).args(["-m", "pip", "install", "--quiet"]).args(packages))?;
        run(Command::new(&python).args(["-c", needs]))?;
    }
    Ok(python)
}

/// A command that runs the reader; None, and loud, where it cannot be run.
fn reader(repository: &Path) -> Option<Command> {
    match python() {
        Ok(python) => {
            let mut command = Command::new(python);
            command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reader/silt_reader.py")).arg(repository);
            Some(command)
        }
        Err(why) => {
            skipped("independent reader", why);
            None
        }
    }
}

fn set_times(path: &Path, seconds: i64) {
    let time = |tv_sec, tv_nsec| rustix::fs::Timespec { tv_sec, tv_nsec };
    let times = rustix::fs::Timestamps { last_access: time(seconds, 0), last_modification: time(seconds, 987_654_321) };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn make_tree(root: &Path) {
    fs::create_dir_all(root.join("many")).unwrap();
    fs::create_dir_all(root.join("empty-directory")).unwrap();
    fs::create_dir_all(root.join("deep/er")).unwrap();
    for n in 0..700 {
        fs::write(root.join(format!("many/file {n}")), format!("content of {n}")).unwrap();
    }
    fs::write(root.join("empty"), b"").unwrap();
    fs::write(root.join("inline"), b"short").unwrap();
    fs::write(root.join("two-chunks"), golden::noise(11_000, 1)).unwrap();
    fs::write(root.join("large"), golden::noise(9 << 20, 2)).unwrap();
    fs::write(root.join("text"), b"words that compress. ".repeat(100_000)).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"caf\xe9\n")), b"a name that is no UTF-8").unwrap();
    fs::write(root.join("deep/er/setuid"), b"x").unwrap();
    fs::set_permissions(root.join("deep/er/setuid"), fs::Permissions::from_mode(0o4710)).unwrap();
    fs::set_permissions(root.join("deep/er"), fs::Permissions::from_mode(0o1750)).unwrap();
    symlink("../not/there", root.join("symlink")).unwrap();
    fs::hard_link(root.join("two-chunks"), root.join("deep/same")).unwrap();
    let fifo = (rustix::fs::FileType::Fifo, rustix::fs::Mode::from_raw_mode(0o620));
    rustix::fs::mknodat(rustix::fs::CWD, root.join("fifo"), fifo.0, fifo.1, 0).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    sparse.write_all_at(&golden::noise(70_000, 3), 1 << 20).unwrap();
    sparse.set_len(64 << 20).unwrap();
    let attributed = File::create(root.join("attributes")).unwrap();
    // Where the file system has none, none are compared.
    let _set = rustix::fs::fsetxattr(&attributed, "user.note", b"a\0b", rustix::fs::XattrFlags::empty());
    for (n, name) in ["symlink", "large", "empty", "fifo", "deep/er", "many"].iter().enumerate() {
        set_times(&root.join(name), 1_600_000_000 + n as i64);
    }
    set_times(&root.join("inline"), -3);
}

fn names(folder: &Path) -> Vec<OsString> {
    let mut names: Vec<OsString> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    names
}

fn compare(one: &Path, two: &Path) {
    let (a, b) = (fs::symlink_metadata(one).unwrap(), fs::symlink_metadata(two).unwrap());
    assert_eq!(a.mode(), b.mode(), "{one:?}");
    assert_eq!((a.mtime(), a.mtime_nsec()), (b.mtime(), b.mtime_nsec()), "{one:?}");
    assert_eq!((a.uid(), a.gid()), (b.uid(), b.gid()), "{one:?}");
    if a.is_dir() {
        assert_eq!(names(one), names(two), "{one:?}");
        names(one).iter().for_each(|name| compare(&one.join(name), &two.join(name)));
    } else if a.is_file() {
        assert_eq!(a.nlink(), b.nlink(), "{one:?}");
        assert!(fs::read(one).unwrap() == fs::read(two).unwrap(), "{one:?}");
        assert_eq!(attributes_of(one), attributes_of(two), "{one:?}");
        if a.blocks() * 512 < a.len() {
            assert!(b.blocks() * 512 < b.len() / 2, "the holes of {one:?} are gone");
        }
    } else if a.file_type().is_symlink() {
        assert_eq!(fs::read_link(one).unwrap(), fs::read_link(two).unwrap());
    } else {
        assert!(a.file_type().is_fifo() && b.file_type().is_fifo());
    }
}

struct Made {
    folder: tempfile::TempDir,
    repo: Repository,
    recovery: Secret,
}

impl Made {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let storage: Arc<dyn Storage> = Arc::new(Folder(folder.path().join("repository")));
        let options = InitOptions {
            credentials: Credentials::password("pass wörd"),
            cost: COST,
            chunks: ChunkTable::default(),
            single_writer: false,
            capabilities: storage.capabilities(),
        };
        let recovery = Repository::init(storage.as_ref(), &options).unwrap();
        let cache = folder.path().join("cache");
        let repo = Repository::open(storage, &options.credentials, &cache, &Watch::silent()).unwrap();
        Made { folder, repo, recovery }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn reader(&self) -> Option<Command> {
        reader(&self.path("repository"))
    }
}

#[test]
fn an_independent_reader_restores_everything() {
    let made = Made::new();
    let source = made.path("source");
    make_tree(&source);
    let mut options = BackupOptions::new(vec![source.clone()], "here");
    options.sources.push(Source::stream(Stream::parse(b"database/dump.sql=seq 1 100000").unwrap()));
    let report = made.repo.backup(options, &Watch::silent()).unwrap();
    assert_eq!(report.warnings, []);
    let id = report.snapshot.unwrap().id.to_hex();

    let key = Secret::random().unwrap();
    fs::write(made.path("key"), key.to_text().as_bytes()).unwrap();
    let both = Credentials { key_file: Some(key.clone()), ..Credentials::password("two") };
    for credentials in [Credentials::key_file(key), both] {
        add_key(made.repo.storage(), made.repo.keys(), KeyAccess::Full, &credentials, COST).unwrap();
    }

    let ways = [
        vec![OsString::from("--password"), "pass wörd".into()],
        vec!["--key-file".into(), made.path("key").into()],
        vec!["--key-file".into(), made.path("key").into(), "--password".into(), "two".into()],
        vec!["--recovery".into(), made.recovery.to_text().to_lowercase().into()],
    ];
    for way in &ways {
        let Some(mut reader) = made.reader() else { return };
        let output = run(reader.args(way).arg("list")).unwrap();
        assert!(String::from_utf8(output.stdout).unwrap().starts_with(&id));
    }
    for (snapshot, target) in [("latest", "first"), (&id[..6], "second")] {
        let target = made.path(target);
        run(made.reader().unwrap().args(&ways[0]).args(["restore", snapshot]).arg(&target)).unwrap();
        compare(&source, &target.join(source.strip_prefix("/").unwrap()));
        let dump = fs::read_to_string(target.join("database/dump.sql")).unwrap();
        assert_eq!(dump.lines().count(), 100_000);
    }
    assert!(run(made.reader().unwrap().args(["--password", "wrong", "list"])).is_err());
}

/// Damage anywhere in what a restore reads must be noticed, and nothing wrong may come out.
#[test]
fn an_independent_reader_refuses_changed_packs() {
    let made = Made::new();
    fs::create_dir(made.path("source")).unwrap();
    fs::write(made.path("source/file"), golden::noise(50_000, 5)).unwrap();
    made.repo.backup(BackupOptions::new(vec![made.path("source")], "here"), &Watch::silent()).unwrap();
    for listed in made.repo.storage().list("packs/").unwrap() {
        let path = made.path("repository").join(&listed.name);
        let whole = fs::read(&path).unwrap();
        for at in [3, 20, 60, 100] {
            let mut bent = whole.clone();
            bent[at] ^= 1;
            fs::write(&path, bent).unwrap();
            let Some(mut reader) = made.reader() else { return };
            let target = made.path(&format!("target-{at}"));
            assert!(run(reader.args(["--password", "pass wörd", "restore", "latest"]).arg(&target)).is_err());
            fs::remove_dir_all(&target).unwrap();
        }
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn an_independent_reader_refuses_names_that_leave_the_target() {
    let watch = Watch::silent();
    for name in ["..", "../outside", "/outside", "a/b", ""] {
        let made = Made::new();
        let options = SinkOptions { lanes: 1, compression: siltstone::seal::Compression::Auto, memory_bytes: 64 << 20 };
        let writer = made.repo.writer("host", &options, &watch).unwrap();
        let mut entry = Entry::new(name, EntryKind::File);
        entry.content = Content::Inline(b"x".to_vec());
        entry.size = 1;
        let root = store_page(&[entry], &mut |bytes| writer.sink().store_tree(0, &bytes)).unwrap();
        let stamp = Stamp { seconds: 1_700_000_000, nanoseconds: 0, offset: 0 };
        let snapshot = Snapshot {
            version: 1,
            id: SnapshotId([1; 16]),
            started: stamp,
            ended: stamp,
            host: "evil".to_owned(),
            user: String::new(),
            job: String::new(),
            tags: vec![],
            program: String::new(),
            sources: vec![],
            root,
            root_directory: None,
            lacks_trusted: false,
            origin: None,
            all_sources: None,
            totals: Totals::default(),
            warnings: vec![],
            warnings_count: 0,
        };
        writer.commit(&snapshot).unwrap();
        let Some(mut reader) = made.reader() else { return };
        let target = made.path("inner/target");
        let end = run(reader.args(["--password", "pass wörd", "restore", "latest"]).arg(&target));
        assert!(end.unwrap_err().contains("Damaged: a name is invalid"), "{name}");
        assert_eq!((names(&made.path("inner")).len(), names(&target).len()), (1, 0));
    }
}

/// Objects that are no part of format 1, and damaged ones, hide nothing: both readers list the same.
#[test]
fn both_readers_pass_over_what_they_cannot_use() {
    let made = Made::new();
    fs::create_dir(made.path("source")).unwrap();
    fs::write(made.path("source/file"), golden::noise(50_000, 5)).unwrap();
    for time in [-62_167_219_200, 1_700_000_000, 253_402_207_200] {
        let options = BackupOptions::new(vec![made.path("source")], "here");
        let time = Some(Time { seconds: time, nanoseconds: 0 });
        made.repo.backup(BackupOptions { time, ..options }, &Watch::silent()).unwrap();
    }
    let last = made.repo.storage().list("snapshots/").unwrap().pop().unwrap().name;
    let put = |name: &str, body: &[u8]| made.repo.storage().put(name, body.into()).unwrap();
    let place = |name: &str| made.path("repository").join(name);
    for name in ["index/readme", "snapshots/readme", "keys/readme", "pending/readme", "packs/readme", "later/object"] {
        put(name, b"for people");
    }
    put(&format!("index/{}", "0".repeat(64)), b"damaged");
    put(&format!("snapshots/20200101t000000z-{}", "0".repeat(32)), b"damaged");
    put(&format!("pending/recovery/{}", "1".repeat(32)), b"damaged");
    put("keys/0000000000000000", b"damaged");
    // A key of another repository with the same password, that is tried first.
    let other = Made::new();
    let key = other.repo.storage().list("keys/").unwrap().remove(0).name;
    fs::copy(other.path("repository").join(key), place("keys/0000000000000001")).unwrap();
    // A commit that is not in its place, which has something else.
    let writer = format!("pending/recovery/{}", "2".repeat(32));
    put(&format!("{writer}.committed"), b"");
    put(&format!("{writer}.draft.{}", last.strip_prefix("snapshots/").unwrap()), &fs::read(place(&last)).unwrap());
    fs::write(place(&last), b"damaged").unwrap();

    let cache = made.path("other cache");
    let credentials = Credentials::password("pass wörd");
    let storage: Arc<dyn Storage> = Arc::new(Folder(made.path("repository")));
    let repo = Repository::open(storage, &credentials, &cache, &Watch::silent()).unwrap();
    let listed = repo.snapshots(&Watch::silent()).unwrap();
    assert_eq!(listed.len(), 3);
    let Some(mut reader) = made.reader() else { return };
    let output = run(reader.args(["--password", "pass wörd", "list"])).unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    let ids: Vec<&str> = said.lines().map(|line| line.split_whitespace().next().unwrap()).collect();
    assert_eq!(ids, listed.iter().map(|snapshot| snapshot.id.to_hex()).collect::<Vec<_>>());
    let target = made.path("target");
    run(made.reader().unwrap().args(["--password", "pass wörd", "restore", "latest"]).arg(&target)).unwrap();
    compare(&made.path("source"), &target.join(made.path("source").strip_prefix("/").unwrap()));
}

/// What the golden repository holds beyond what a test can make on every file system.
#[test]
fn an_independent_reader_restores_the_golden_repository() {
    let Some(mut reader) = reader(&golden::folder().join("repository")) else { return };
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("target");
    // 3: attributes and devices that this file system or this user cannot have.
    let output = reader.args(["--password", "golden", "restore", "latest"]).arg(&target).output().unwrap();
    assert!(matches!(output.status.code(), Some(0 | 3)), "{}", String::from_utf8_lossy(&output.stderr));
    check(&golden::things(), &target);
}

#[test]
fn the_independent_reader_reads_and_refuses_what_is_frozen() {
    let Some(mut reader) = reader(&crate::frozen::file()) else { return };
    let output = reader.arg("plain").output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let compared: usize = said.split(' ').next().unwrap().parse().unwrap();
    assert!(output.status.success() && compared >= 50, "{said}{}", String::from_utf8_lossy(&output.stderr));
}

fn check(things: &[golden::Thing], folder: &Path) {
    for thing in things {
        let path = folder.join(OsStr::from_bytes(&thing.entry.name));
        match thing.entry.kind {
            EntryKind::Directory => check(&thing.below, &path),
            EntryKind::Symlink => assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), thing.entry.target),
            EntryKind::Fifo => assert!(fs::symlink_metadata(&path).unwrap().file_type().is_fifo()),
            EntryKind::File | EntryKind::Stream => {
                let found = fs::symlink_metadata(&path).unwrap();
                assert_eq!((found.len(), found.mode() & 0o7777), (thing.entry.size, thing.entry.meta.mode));
                assert_eq!(found.mtime(), thing.entry.meta.modified.seconds);
                if thing.entry.holes.is_empty() {
                    assert!(fs::read(&path).unwrap() == thing.bytes, "{path:?}");
                }
            }
            _ => {}
        }
    }
}
