//! Look inside: what was backed up is listed, found, compared, read and exported as it was.

use crate::skip::skipped;
use siltstone::backup::BackupOptions;
use siltstone::browse::{self, Archive, Change, ChangeKind, Filter, FindOptions, FolderDiff};
use siltstone::chunk::ChunkTable;
use siltstone::entry::Time;
use siltstone::error::{Error, Kind, Result};
use siltstone::repo::{Credentials, InitOptions, Repository, Snapshot};
use siltstone::seal::PasswordCost;
use siltstone::storage::{Capabilities, ListedObject, ObjectBody, ObjectStat, ObjectVersion, Storage, StorageProfile};
use siltstone::watch::Watch;
use siltstone::when::Selector;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};

/// Objects in a map, as plain as can be.
#[derive(Default)]
struct Objects(Mutex<BTreeMap<String, (Vec<u8>, u64)>>);

impl Objects {
    fn write(
        &self,
        name: &str,
        body: ObjectBody,
        allowed: impl Fn(Option<u64>) -> Result<()>,
    ) -> Result<ObjectVersion> {
        let mut objects = self.0.lock().unwrap();
        let before = objects.get(name).map(|object| object.1);
        allowed(before)?;
        let number = before.unwrap_or(0) + 1;
        objects.insert(name.to_owned(), (body.to_vec(), number));
        Ok(ObjectVersion(number.to_string()))
    }
}

impl Storage for Objects {
    fn describe(&self) -> String {
        "memory".into()
    }
    fn capabilities(&self) -> Capabilities {
        Capabilities { put_new: true, compare_and_swap: true, rename: false }
    }

    fn profile(&self) -> StorageProfile {
        StorageProfile::LOCAL
    }
    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        self.write(name, body, |_| Ok(())).map(drop)
    }
    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        self.write(name, body, |there| match there {
            None => Ok(()),
            Some(_) => Err(Error::new(Kind::AlreadyExists, "put", name)),
        })
    }
    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
        self.write(name, body, |there| match there.map(|number| number.to_string()) {
            None => Err(Error::new(Kind::NotFound, "swap", name)),
            Some(number) if number == expected.0 => Ok(()),
            Some(_) => Err(Error::new(Kind::Conflict, "swap", name)),
        })
    }
    fn rename(&self, from: &str, _: &str) -> Result<()> {
        Err(Error::new(Kind::Unsupported, "rename", from))
    }
    fn get(&self, name: &str, _: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        let objects = self.0.lock().unwrap();
        let (bytes, number) = objects.get(name).ok_or_else(|| Error::new(Kind::NotFound, "get", name))?;
        Ok((bytes.clone(), ObjectVersion(number.to_string())))
    }
    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let (bytes, _) = self.get(name, 0)?;
        let range = bytes.get(offset as usize..(offset + length) as usize);
        range.map(<[u8]>::to_vec).ok_or_else(|| Error::corrupt("get", name, "it is too short"))
    }
    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        let objects = self.0.lock().unwrap();
        let fits = objects.iter().filter(|(name, _)| name.starts_with(prefix));
        let listed = |(name, (bytes, number)): (&String, &(Vec<u8>, u64))| ListedObject {
            name: name.clone(),
            size: bytes.len() as u64,
            fingerprint: *number,
        };
        Ok(fits.map(listed).collect())
    }
    fn remove(&self, name: &str) -> Result<()> {
        self.0.lock().unwrap().remove(name);
        Ok(())
    }
    fn stat(&self, name: &str) -> Result<ObjectStat> {
        let (bytes, version) = self.get(name, 0)?;
        Ok(ObjectStat { size: bytes.len() as u64, version, written: String::new() })
    }
}

struct World {
    folder: tempfile::TempDir,
    repo: Repository,
    watch: Watch,
}

impl World {
    fn new() -> World {
        let folder = tempfile::tempdir().unwrap();
        let storage = Arc::new(Objects::default());
        let credentials = Credentials::password("p");
        let cost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };
        let capabilities = storage.capabilities();
        let chunks = ChunkTable::default();
        let options =
            InitOptions { credentials: credentials.clone(), cost, chunks, single_writer: false, capabilities };
        Repository::init(storage.as_ref(), &options).unwrap();
        let watch = Watch::silent();
        let repo = Repository::open(storage, &credentials, &folder.path().join("cache"), &watch).unwrap();
        std::fs::create_dir(folder.path().join("src")).unwrap();
        World { folder, repo, watch }
    }

    fn source(&self) -> PathBuf {
        self.folder.path().join("src")
    }

    fn inside(&self, name: &str) -> Vec<u8> {
        self.source().join(name).as_os_str().as_bytes().to_vec()
    }

    fn backup(&self, seconds: i64) -> Snapshot {
        let mut options = BackupOptions::new(vec![self.source()], "host");
        options.time = Some(Time { seconds, nanoseconds: 0 });
        let report = self.repo.backup(options, &self.watch).unwrap();
        assert_eq!(report.warnings_count, 0, "{:?}", report.warnings);
        report.snapshot.unwrap()
    }
}

fn noise(bytes: usize) -> Vec<u8> {
    let mut noise = vec![0; bytes];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}

fn set_time(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = rustix::fs::Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

#[test]
fn two_dates_are_listed_found_compared_and_read() {
    let world = World::new();
    let (source, watch) = (world.source(), &world.watch);
    let large = noise(9 << 20);
    std::fs::create_dir(source.join("sub")).unwrap();
    std::fs::write(source.join("sub/large"), &large).unwrap();
    std::fs::write(source.join("a.txt"), b"one").unwrap();
    std::fs::write(source.join("gone"), b"x").unwrap();
    let first = world.backup(1000);
    std::fs::write(source.join("a.txt"), b"other").unwrap();
    std::fs::remove_file(source.join("gone")).unwrap();
    std::fs::write(source.join("new"), b"").unwrap();
    std::fs::set_permissions(source.join("sub/large"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let second = world.backup(2000);
    world.backup(3000);

    let selected = |selector| world.repo.select(&selector, &Filter::default(), watch);
    assert_eq!(selected(Selector::Latest { back: 2 }).unwrap().id, first.id);
    assert_eq!(selected(Selector::At(Time { seconds: 2500, nanoseconds: 0 })).unwrap().id, second.id);
    let reader = world.repo.reader();
    let mut listed = Vec::new();
    browse::list(&reader, &first, &world.inside(""), true, &mut |path, _| {
        listed.push(path.to_vec());
        Ok(())
    })
    .unwrap();
    assert_eq!(listed, ["a.txt", "gone", "sub", "sub/large"].map(|name| world.inside(name)));
    let missing = browse::resolve(&reader, &first, &world.inside("sub/none/x")).unwrap_err();
    assert!(missing.is(Kind::NotFound) && missing.to_string().contains("src/sub, but no none in it"), "{missing}");

    let mut changes = BTreeMap::new();
    let totals =
        browse::diff_snapshots(&reader, &first, &second, &world.inside(""), watch, &mut |path, change, _, _| {
            changes.insert(path.to_vec(), change);
            Ok(())
        })
        .unwrap();
    assert_eq!(changes[&world.inside("a.txt")], Change::Changed(ChangeKind::Content));
    assert_eq!(changes[&world.inside("gone")], Change::Removed);
    assert_eq!(changes[&world.inside("new")], Change::Added);
    assert_eq!(changes[&world.inside("sub/large")], Change::Changed(ChangeKind::Metadata));
    assert_eq!((totals.added, totals.removed, totals.bytes_added, totals.bytes_removed), (1, 1, 5, 4));

    let options = FindOptions { patterns: vec![b"*.TXT".to_vec(), b"src/gone".to_vec()], ignore_case: true };
    let mut found = Vec::new();
    browse::find(&world.repo, &Filter::default(), &options, watch, &mut |path, versions| {
        let seen = versions.iter().map(|v| (v.first.1.seconds, v.last.1.seconds, v.snapshots, v.entry.size));
        found.push((path.to_vec(), seen.collect::<Vec<_>>()));
        Ok(())
    })
    .unwrap();
    let a = (world.inside("a.txt"), vec![(1000, 1000, 1, 3), (2000, 3000, 2, 5)]);
    assert_eq!(found, [a, (world.inside("gone"), vec![(1000, 1000, 1, 1)])]);

    let entry = browse::resolve(&reader, &second, &world.inside("sub/large")).unwrap();
    let mut out = Vec::new();
    assert_eq!(world.repo.copy_content(&reader, &entry, &mut out, watch).unwrap(), 9 << 20);
    assert!(out == large);

    let all = world.repo.snapshots(watch).unwrap();
    let statistics = browse::stats(&world.repo, &all, b"/", watch).unwrap();
    assert_eq!((statistics.snapshots, statistics.files, statistics.bytes), (3, 9, 3 * (9 << 20) + 4 + 5 + 5));
    assert!(statistics.exact && (9 << 20..(9 << 20) + 20).contains(&statistics.unique_bytes));
    assert!(statistics.packs > 0 && statistics.deduplication_ratio() > 2.9);
}

#[test]
fn a_folder_is_compared_with_a_snapshot() {
    let world = World::new();
    let source = world.source();
    let bytes = noise(3 << 20);
    std::fs::write(source.join("f"), &bytes).unwrap();
    std::fs::write(source.join("same"), b"same").unwrap();
    let sparse = std::fs::File::create(source.join("sparse")).unwrap();
    sparse.set_len(4 << 20).unwrap();
    sparse.write_all_at(&bytes[..100_000], 2 << 20).unwrap();
    for name in ["f", "same", "sparse"] {
        set_time(&source.join(name), 5, 0);
    }
    let snapshot = world.backup(1000);
    let diff = |content| {
        let mut changes = BTreeMap::new();
        let at = world.inside("");
        let wanted = FolderDiff { snapshot: &snapshot, path: &at, folder: &source, content };
        browse::diff_folder(&world.repo, &wanted, &world.watch, &mut |path, change, _, _| {
            changes.insert(path.to_vec(), change);
            Ok(())
        })
        .unwrap();
        changes
    };
    assert!(diff(false).is_empty() && diff(true).is_empty());
    // Behind the back of the times.
    let file = std::fs::OpenOptions::new().write(true).open(source.join("f")).unwrap();
    file.write_all_at(b"other bytes", 2_000_000).unwrap();
    set_time(&source.join("f"), 5, 0);
    assert!(diff(false).is_empty());
    assert_eq!(diff(true), BTreeMap::from([(world.inside("f"), Change::Changed(ChangeKind::Content))]));
    std::fs::write(source.join("added"), b"").unwrap();
    assert_eq!(diff(false)[&world.inside("added")], Change::Added);
}

#[test]
fn archives_are_read_by_the_tar_programs() {
    let world = World::new();
    let source = world.source();
    let long = "n".repeat(200);
    let odd = OsStr::from_bytes(b"odd \xff\n name");
    std::fs::create_dir_all(source.join(&long).join(&long)).unwrap();
    std::fs::write(source.join(&long).join(&long).join("f"), noise(3 << 20)).unwrap();
    std::fs::write(source.join(odd), b"odd").unwrap();
    std::fs::hard_link(source.join(odd), source.join("z-link")).unwrap();
    std::os::unix::fs::symlink("t".repeat(150), source.join("symlink")).unwrap();
    rustix::fs::mknodat(rustix::fs::CWD, source.join("fifo"), rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0)
        .unwrap();
    let sparse = std::fs::File::create(source.join("sparse")).unwrap();
    sparse.set_len(8 << 20).unwrap();
    sparse.write_all_at(b"data", 4 << 20).unwrap();
    let flags = rustix::fs::XattrFlags::empty();
    let xattrs = rustix::fs::setxattr(source.join("sparse"), "user.a", b"v\0\n=", flags).is_ok();
    std::fs::set_permissions(source.join("z-link"), std::fs::Permissions::from_mode(0o4750)).unwrap();
    set_time(&source.join("z-link"), -5, 123_456_789);
    set_time(&source.join("symlink"), 1_234_567_890, 987_654_321);
    let snapshot = world.backup(1000);

    for (program, form) in [("tar", Archive::Tar), ("bsdtar", Archive::Tar), ("tar", Archive::TarZst { level: 3 })] {
        if Command::new(program).arg("--version").output().is_err() {
            skipped(program, "it is not installed, so it did not read the archive");
            continue;
        }
        let mut archive = Vec::new();
        let path = world.inside("");
        let members = browse::export(&world.repo, &snapshot, &path, form, &mut archive, &world.watch).unwrap();
        assert_eq!(members, 9);
        if form != Archive::Tar {
            archive = zstd::stream::decode_all(archive.as_slice()).unwrap();
        }
        let target = tempfile::tempdir().unwrap();
        let file = target.path().join("a.tar");
        std::fs::write(&file, &archive).unwrap();
        let mut command = Command::new(program);
        command.arg("-xpf").arg(&file).arg("-C").arg(target.path());
        if program == "tar" {
            command.args(["--xattrs", "--xattrs-include=*", "--warning=no-timestamp"]);
        }
        let done = command.output().unwrap();
        let said = String::from_utf8_lossy(&done.stderr).into_owned();
        assert!(done.status.success() && said.is_empty(), "{program}: {said}");
        let came = target.path().join(source.strip_prefix("/").unwrap());
        for path in [
            long.clone(),
            format!("{long}/{long}"),
            format!("{long}/{long}/f"),
            "sparse".into(),
            "fifo".into(),
            "symlink".into(),
            "z-link".into(),
        ] {
            same(&source.join(&path), &came.join(&path), program);
        }
        same(&source.join(odd), &came.join(odd), program);
        let inode = |path: PathBuf| std::fs::metadata(path).unwrap().ino();
        assert_eq!(inode(came.join(odd)), inode(came.join("z-link")));
        if xattrs {
            let mut value = [0; 16];
            let length = rustix::fs::getxattr(came.join("sparse"), "user.a", &mut value).unwrap();
            assert_eq!(&value[..length], b"v\0\n=", "{program}");
        }
        assert!(std::fs::metadata(came.join("sparse")).unwrap().blocks() < 1000, "{program}");
    }
}

fn same(old: &Path, new: &Path, program: &str) {
    let [a, b] = [old, new].map(|path| std::fs::symlink_metadata(path).unwrap_or_else(|e| panic!("{path:?}: {e}")));
    // bsdtar 3.6 reads the fraction of a time before 1970 with the wrong sign.
    let time = |m: &std::fs::Metadata| (program != "bsdtar" || a.mtime() >= 0).then(|| (m.mtime(), m.mtime_nsec()));
    let what = |m: &std::fs::Metadata| (m.mode(), m.uid(), m.gid(), time(m), m.nlink());
    assert_eq!(what(&a), what(&b), "{program} {old:?}");
    if a.is_symlink() {
        assert_eq!(std::fs::read_link(old).unwrap(), std::fs::read_link(new).unwrap());
    }
    if a.is_file() {
        assert!(std::fs::read(old).unwrap() == std::fs::read(new).unwrap(), "{program} {old:?}");
    }
}
