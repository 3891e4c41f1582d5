//! Any tree comes back as it was, and again after any edit: as a property, and for trees that are hard on purpose.

use crate::compare::differences;
use crate::fixture::{self, Hooked, SWAPS, backup, memory, open, restore, restored_differences};
use proptest::prelude::*;
use siltstone::backup::BackupOptions;
use siltstone::repo::{Repository, Snapshot};
use siltstone::watch::Watch;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[derive(Clone, Debug)]
enum Thing {
    File {
        bytes: usize,
        seed: u8,
    },
    Repeated {
        bytes: usize,
    },
    Sparse {
        holes: Vec<(u64, u64)>,
    },
    Folder(Vec<(Vec<u8>, Thing, Looks)>),
    Link(Vec<u8>),
    /// Another name of the nth file before it.
    HardLink(usize),
    Fifo,
}

#[derive(Clone, Debug)]
struct Looks {
    mode: u32,
    seconds: i64,
    nanoseconds: u32,
    xattr: Option<(u8, Vec<u8>)>,
}

fn looks() -> impl Strategy<Value = Looks> {
    let seconds = prop_oneof![-2_000_000_000i64..4_000_000_000, Just(-1), Just(0)];
    let xattr = proptest::option::weighted(0.2, (any::<u8>(), proptest::collection::vec(any::<u8>(), 0..200)));
    (0u32..0o10000, seconds, 0u32..1_000_000_000, xattr).prop_map(|(mode, seconds, nanoseconds, xattr)| Looks {
        mode,
        seconds,
        nanoseconds,
        xattr,
    })
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    let byte = any::<u8>().prop_map(|byte| if byte == 0 || byte == b'/' { b'\n' } else { byte });
    let wild = proptest::collection::vec(byte, 1..40);
    let known =
        prop_oneof![Just(b"\xff\xfe".to_vec()), Just(b"a\nb".to_vec()), Just(vec![b'x'; 255]), Just(b"...".to_vec())];
    prop_oneof![4 => wild, 1 => known].prop_filter("not a name", |name| name != b"." && name != b"..")
}

/// Sizes around what decides where content goes: inline, one chunk, the least and most of a chunk, lists.
fn size() -> impl Strategy<Value = usize> {
    let edges = [0, 1, 32, 33, 4095, 4096, 4097, 8192, 16384, 65535, 65536, 65537, 131_072, 131_073];
    prop_oneof![2 => 0usize..200, 2 => 200usize..20_000, 1 => 20_000usize..200_000, 2 => proptest::sample::select(edges.to_vec())]
}

fn leaf() -> impl Strategy<Value = Thing> {
    prop_oneof![
        6 => (size(), any::<u8>()).prop_map(|(bytes, seed)| Thing::File { bytes, seed }),
        2 => size().prop_map(|bytes| Thing::Repeated { bytes }),
        1 => proptest::collection::vec((1u64..300_000, 1u64..5000), 1..4).prop_map(|holes| Thing::Sparse { holes }),
        1 => name().prop_map(Thing::Link),
        1 => any::<usize>().prop_map(Thing::HardLink),
        1 => Just(Thing::Fifo),
    ]
}

fn folder() -> impl Strategy<Value = Thing> {
    let below =
        |inner: BoxedStrategy<Thing>| proptest::collection::vec((name(), inner, looks()), 0..7).prop_map(Thing::Folder);
    leaf().prop_recursive(3, 30, 6, move |inner| below(inner).boxed()).prop_filter_map(
        "a folder",
        |thing| match thing {
            Thing::Folder(_) => Some(thing),
            leaf => Some(Thing::Folder(vec![(
                b"alone".to_vec(),
                leaf,
                Looks { mode: 0o644, seconds: 1, nanoseconds: 1, xattr: None },
            )])),
        },
    )
}

fn set_time(path: &Path, looks: &Looks) {
    let time = rustix::fs::Timespec { tv_sec: looks.seconds, tv_nsec: looks.nanoseconds.into() };
    let times = rustix::fs::Timestamps { last_access: time, last_modification: time };
    rustix::fs::utimensat(rustix::fs::CWD, path, &times, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).expect("a time is set");
}

fn dress(path: &Path, thing: &Thing, looks: &Looks) {
    let plain = matches!(thing, Thing::File { .. } | Thing::Repeated { .. } | Thing::Sparse { .. } | Thing::Folder(_));
    if let Some((number, value)) = looks.xattr.as_ref().filter(|_| plain) {
        // Not every place for temporary files takes attributes.
        let _taken = rustix::fs::lsetxattr(path, format!("user.n{number}"), value, rustix::fs::XattrFlags::empty());
    }
    if !matches!(thing, Thing::Link(_)) {
        // It must be readable without being root.
        fs::set_permissions(path, fs::Permissions::from_mode(looks.mode | 0o600 | if plain { 0o100 } else { 0 }))
            .expect("a mode is set");
    }
    set_time(path, looks);
}

/// Makes the tree; `files` gathers what hard links can point to.
fn plant(at: &Path, thing: &Thing, files: &mut Vec<PathBuf>) {
    match thing {
        Thing::File { bytes, seed } => fs::write(at, crate::golden::noise(*bytes, *seed)).expect("written"),
        Thing::Repeated { bytes } => fs::write(at, b"all the same ".repeat(bytes / 13)).expect("written"),
        Thing::Sparse { holes } => {
            let file = fs::File::create(at).expect("created");
            let mut offset = 0;
            for (hole, data) in holes {
                offset += hole;
                file.write_all_at(&crate::golden::noise(*data as usize, 1), offset).expect("written");
                offset += data;
            }
            file.set_len(offset + 1_000_000).expect("lengthened");
        }
        Thing::Link(target) => symlink(OsStr::from_bytes(target), at).expect("linked"),
        Thing::HardLink(which) => match files.len() {
            0 => fs::write(at, b"nothing to link to").expect("written"),
            count => fs::hard_link(&files[which % count], at).expect("linked"),
        },
        Thing::Fifo => rustix::fs::mkfifoat(rustix::fs::CWD, at, 0o600.into()).expect("made"),
        Thing::Folder(below) => {
            fs::create_dir_all(at).expect("made");
            for (name, thing, looks) in below {
                let path = at.join(OsStr::from_bytes(name));
                if fs::symlink_metadata(&path).is_err() {
                    plant(&path, thing, files);
                    dress(&path, thing, looks);
                }
            }
        }
    }
    if matches!(thing, Thing::File { .. } | Thing::Sparse { .. }) {
        files.push(at.to_owned());
    }
}

/// Changes about every third thing of a tree in a way that its number decides.
fn edit(folder: &Path, turn: &mut u64) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(folder).expect("listed").map(|entry| entry.expect("read").path()).collect();
    entries.sort();
    for path in entries {
        *turn = turn.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let kind = fs::symlink_metadata(&path).expect("there").file_type();
        match ((*turn >> 33) % 12, kind.is_file(), kind.is_dir()) {
            (0, _, false) => fs::remove_file(&path).expect("removed"),
            (0, _, true) => fs::remove_dir_all(&path).expect("removed"),
            (1, true, _) => fs::write(&path, crate::golden::noise(700, 77)).expect("written"),
            (2, true, _) => {
                let file = fs::File::options().append(true).open(&path).expect("opened");
                std::io::Write::write_all(&mut &file, b"and more").expect("written");
            }
            (3, true, _) => fs::File::options().write(true).open(&path).expect("opened").set_len(10).expect("cut"),
            (4, _, false) if !kind.is_symlink() => {
                fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("set")
            }
            (5, _, _) => fs::rename(&path, folder.join(format!("renamed {turn}"))).expect("renamed"),
            (_, _, true) => edit(&path, turn),
            _ => {}
        }
    }
    if (*turn).is_multiple_of(5) {
        fs::write(folder.join(format!("new {turn}")), crate::golden::noise(5000, 5)).expect("written");
    }
}

fn assert_restores(repo: &Repository, snapshot: &Snapshot, source: &Path, expected: &Path) {
    let found = restored_differences(repo, snapshot, source, expected).expect("it restores");
    assert!(found.is_empty(), "{found:#?}");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, max_shrink_iters: 60, ..ProptestConfig::default() })]

    #[test]
    fn any_tree_comes_back_and_again_after_any_edit(tree in folder(), turn in any::<u64>()) {
        let place = tempfile::tempdir().expect("a folder");
        let (source, before) = (place.path().join("source"), place.path().join("before"));
        plant(&source, &tree, &mut Vec::new());
        let storage = memory(SWAPS);
        let cache = place.path().join("cache");
        let report = backup(Arc::new(storage.clone()), &cache, &source).expect("a backup");
        prop_assert_eq!(report.warnings_count, 0, "{:?}", report.warnings);
        fixture::copy(&source, &before);
        let mut turn = turn;
        edit(&source, &mut turn);
        let report = backup(Arc::new(storage.clone()), &cache, &source).expect("a second backup");
        prop_assert_eq!(report.warnings_count, 0, "{:?}", report.warnings);
        let repo = open(Arc::new(storage), &cache).expect("it opens");
        let snapshots = fixture::snapshots(&repo);
        prop_assert_eq!(snapshots.len(), 2);
        assert_restores(&repo, &snapshots[0], &source, &before);
        assert_restores(&repo, &snapshots[1], &source, &source);
    }
}

/// Ends a meddling thread also when its test fails: a scope waits for its threads.
struct Ends<'a>(&'a AtomicBool);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Backs up once; what was there comes back.
fn comes_back(source: &Path) {
    let (storage, cache) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
    let report = backup(Arc::new(storage.clone()), cache.path(), source).expect("a backup");
    assert_eq!(report.warnings_count, 0, "{:?}", report.warnings);
    let repo = open(Arc::new(storage), cache.path()).expect("it opens");
    assert_restores(&repo, &fixture::snapshots(&repo)[0], source, source);
}

#[test]
fn a_folder_of_three_thousand_entries_comes_back() {
    let source = tempfile::tempdir().expect("a folder");
    (0..3000).for_each(|n| fs::write(source.path().join(format!("entry {n}")), format!("{n}")).expect("written"));
    comes_back(source.path());
}

#[test]
fn a_path_as_long_as_the_system_allows_comes_back() {
    let source =
        tempfile::Builder::new().prefix("a-long-prefix-so-that-the-target-is-shorter-").tempdir().expect("a folder");
    // Both the source's and the target's whole path must stay nameable for the comparison.
    let mut path = source.path().to_owned();
    while path.as_os_str().len() + 101 < 4095 {
        path.push("d".repeat(100));
        fs::create_dir(&path).expect("made");
    }
    let left = 4095 - path.as_os_str().len() - 1;
    fs::write(path.join("f".repeat(left)), b"deep down").expect("written");
    comes_back(source.path());
}

#[test]
fn a_file_that_grows_while_it_is_read_is_reported() {
    let source = tempfile::tempdir().expect("a folder");
    let path = source.path().join("grows");
    fs::write(&path, crate::golden::noise(24 << 20, 1)).expect("written");
    // The first pack is sent while most of the file has still to be read.
    let growing = path.clone();
    let grow = move |_: &str, name: &str| {
        if name.starts_with("packs/") {
            let file = fs::File::options().append(true).open(&growing).expect("opened");
            std::io::Write::write_all(&mut &file, b"more").expect("written");
        }
    };
    let (storage, cache) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
    let hooked = Hooked { inner: storage.clone(), before: grow };
    let options = BackupOptions { memory_bytes: 32 << 20, ..fixture::options(source.path()) };
    let repo = open(Arc::new(hooked), cache.path()).expect("it opens");
    let report = repo.backup(options, &Watch::silent()).expect("the backup goes on");
    assert!(report.warnings.iter().any(|warning| warning.path.0.ends_with(b"grows")), "{:?}", report.warnings);
    drop(repo);
    // What was saved is a state that the file could have had: its beginning is right.
    let repo = open(Arc::new(storage.clone()), cache.path()).expect("it opens");
    let target = tempfile::tempdir().expect("a folder");
    restore(&repo, &fixture::snapshots(&repo)[0], source.path(), target.path()).expect("it restores");
    let found = fs::read(target.path().join("grows")).expect("it is there");
    assert!(found.len() >= 24 << 20 && found[..24 << 20] == crate::golden::noise(24 << 20, 1));
    // The next backup takes it as it is then.
    let report = backup(Arc::new(storage), cache.path(), source.path()).expect("a quiet backup");
    assert_eq!(report.warnings_count, 0, "{:?}", report.warnings);
}

#[test]
fn files_that_vanish_while_a_backup_runs_are_reported_and_the_rest_is_saved() {
    let source = tempfile::tempdir().expect("a folder");
    fs::write(source.path().join("stays"), b"it stays, and is longer than an inline file").expect("written");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                for n in 0..50 {
                    fs::write(source.path().join(format!("comes and goes {n}")), vec![n; 3000]).expect("written");
                }
                for n in 0..50 {
                    fs::remove_file(source.path().join(format!("comes and goes {n}"))).expect("removed");
                }
            }
        });
        let _ends = Ends(&done);
        for _ in 0..10 {
            let (storage, cache) = (memory(SWAPS), tempfile::tempdir().expect("a folder"));
            let report = backup(Arc::new(storage.clone()), cache.path(), source.path()).expect("the backup goes on");
            let named = |path: &[u8]| path.windows(14).any(|part| part == b"comes and goes");
            assert!(report.warnings.iter().all(|warning| named(&warning.path.0)), "{:?}", report.warnings);
            let repo = open(Arc::new(storage), cache.path()).expect("it opens");
            let target = tempfile::tempdir().expect("a folder");
            let report =
                restore(&repo, &fixture::snapshots(&repo)[0], source.path(), target.path()).expect("it restores");
            assert_eq!(report.warnings_count, 0, "{:?}", report.warnings);
            assert!(target.path().join("stays").exists());
        }
    });
}

#[test]
fn the_comparison_sees_what_it_is_for() {
    let place = tempfile::tempdir().expect("a folder");
    let (one, other) = (place.path().join("one"), place.path().join("other"));
    crate::fixture::plant(&one, 1);
    fixture::copy(&one, &other);
    assert_eq!(differences(&one, &other), Vec::<String>::new());
    fs::write(other.join("short"), b"other").expect("written");
    fs::remove_file(other.join("nothing")).expect("removed");
    fs::write(other.join("too much"), b"").expect("written");
    assert!(differences(&one, &other).len() >= 3);
}
