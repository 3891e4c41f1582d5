//! Names of one inode: they come back as names of one file, and no others do.

use crate::compare::differences;
use crate::fixture::{self, Hooked, SWAPS, memory, open, options};
use crate::person::Person;
use crate::skip::skipped;
use siltstone::restore::RestoreOptions;
use siltstone::watch::{Event, Watch};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

fn set_time(path: &Path, days: u64) {
    let file = fs::File::options().write(true).open(path).expect("it opens");
    file.set_modified(UNIX_EPOCH + Duration::from_secs(days * 86400)).expect("its time is set");
}

fn inode(path: &Path) -> (u64, u64) {
    let metadata = fs::metadata(path).expect("it is there");
    (metadata.ino(), metadata.nlink())
}

/// `d/x` and `d/y` are names of one inode.
fn make(source: &Path) {
    for folder in ["d", "m", "z"] {
        fs::create_dir_all(source.join(folder)).expect("made");
    }
    fs::write(source.join("d/x"), "what was first in it").expect("written");
    set_time(&source.join("d/x"), 1000);
    fs::hard_link(source.join("d/x"), source.join("d/y")).expect("linked");
}

/// The inode of `d/x` and `d/y` is that of `z/p` and `z/q` now, with other content.
fn move_on(source: &Path) {
    fs::rename(source.join("d/x"), source.join("z/p")).expect("renamed");
    fs::remove_file(source.join("d/y")).expect("removed");
    fs::write(source.join("z/p"), "something else was written to it").expect("written");
    set_time(&source.join("z/p"), 2000);
    fs::hard_link(source.join("z/p"), source.join("z/q")).expect("linked");
}

/// Two files with two names each: `d/x` and `d/y`, `z/p` and `z/q`.
fn assert_apart(found: &Path) {
    let read = |name: &str| fs::read_to_string(found.join(name)).expect("it is there");
    for (one, other, content) in
        [("d/x", "d/y", "what was first in it"), ("z/p", "z/q", "something else was written to it")]
    {
        assert_eq!((read(one).as_str(), read(other).as_str()), (content, content));
        assert_eq!((inode(&found.join(one)), inode(&found.join(other)).1), (inode(&found.join(other)), 2), "{one}");
    }
}

/// Groups of names were numbered by device and inode, and kept with entries that did not change: when another file got the number
/// of an inode (with --ignore-inode; or two file systems that were mounted in another order), it was restored as a
/// link to that one, with its content, and the restore ended with 0.
#[test]
fn names_of_an_inode_number_that_another_file_had_before_are_not_linked() {
    let person = Person::new();
    let source = person.path("source");
    make(&source);
    let backup = ["backup", "--ignore-inode", "--ignore-ctime", "source"];
    person.silt(&backup).ends_with(0);
    // The same file with another inode; what reused that is new.
    fs::copy(source.join("d/x"), person.path("copy")).expect("copied");
    move_on(&source);
    fs::rename(person.path("copy"), source.join("d/x")).expect("renamed");
    set_time(&source.join("d/x"), 1000);
    fs::hard_link(source.join("d/x"), source.join("d/y")).expect("linked");
    person.silt(&backup).ends_with(0);

    let named = format!("latest:{}", source.display());
    person.silt(&["restore", &named, "--target", "out", "--verify"]).ends_with(0);
    assert_apart(&person.path("out"));
    person.silt(&["export", &named, "--output", "out.tar"]).ends_with(0);
    let unpacked = person.path("unpacked");
    fs::create_dir(&unpacked).expect("made");
    let tar = Command::new("tar").arg("-xf").arg(person.path("out.tar")).current_dir(&unpacked).status();
    assert!(tar.expect("tar runs").success());
    let found = walkdir::WalkDir::new(&unpacked).into_iter().map(|entry| entry.expect("listed").into_path());
    let folder = found.into_iter().find(|path| path.join("d/x").exists()).expect("it was unpacked");
    assert_apart(&folder);
    // Over the source, in which all is right, nothing changes.
    person.silt(&["restore", &named, "--target", "source"]).ends_with(0);
    assert_apart(&source);
}

/// A file was renamed and written to while a backup ran, so that two of its states are in one snapshot: the later names
/// were restored with the earlier content.
#[test]
fn two_states_of_one_inode_in_a_snapshot_come_back_as_two_files() {
    let world = tempfile::tempdir().expect("a folder");
    let (source, target) = (world.path().join("source"), world.path().join("target"));
    make(&source);
    fs::write(source.join("m/large"), crate::golden::noise(20 << 20, 1)).expect("written");
    let storage = memory(SWAPS);
    let (changing, is_done) = (source.clone(), AtomicBool::new(false));
    let before = move |verb: &str, name: &str| {
        if verb == "put" && name.starts_with("packs/") && !is_done.swap(true, Ordering::SeqCst) {
            move_on(&changing);
        }
    };
    let hooked = Arc::new(Hooked { inner: storage.clone(), before });
    let cache = world.path().join("cache");
    let small = siltstone::backup::BackupOptions { memory_bytes: 32 << 20, ..options(&source) };
    let repo = open(hooked, &cache).expect("it opens");
    repo.backup(small, &Watch::silent()).expect("a backup");
    let snapshot = fixture::snapshots(&repo).remove(0);
    let said = Arc::new(Mutex::new(Vec::new()));
    let notices = said.clone();
    let watch = Watch::new(Arc::new(move |event| {
        if let Event::Notice(notice) = event {
            notices.lock().expect("nobody panicked").push(notice.text);
        }
    }));
    let how = RestoreOptions {
        path: Some(source.as_os_str().as_encoded_bytes().to_vec()),
        ..RestoreOptions::new(target.clone())
    };
    repo.plan_restore(&snapshot, how, &watch).and_then(|plan| plan.run(&watch)).expect("a restore");
    assert_apart(&target);
    let said = said.lock().expect("nobody panicked");
    let told =
        said.iter().filter(|text| text.starts_with("1 file with several names changed while the backup")).count();
    assert_eq!(told, 1, "{said:?}");

    // The next backup has the one state that there is.
    fixture::backup(Arc::new(storage.clone()), &cache, &source).expect("a backup");
    let snapshot = fixture::snapshots(&repo).into_iter().next_back().expect("the second");
    let again = world.path().join("again");
    fixture::restore(&repo, &snapshot, &source, &again).expect("a restore");
    assert_eq!(differences(&source, &again), Vec::<String>::new());
}

/// What was wrong with an inode was said for one of its names; the others counted as whole, and a later backup of these ended with 0
/// and repeated the gap.
#[test]
fn what_is_wrong_with_an_inode_is_said_for_each_of_its_names() {
    let person = Person::new();
    // In memory, where attributes may take more than a block of a disk.
    let source = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).expect("a folder");
    let source = source.path().canonicalize().expect("it is there");
    for folder in ["d", "e"] {
        fs::create_dir(source.join(folder)).expect("made");
    }
    let first = source.join("d/first");
    fs::write(&first, "content").expect("written");
    fs::hard_link(&first, source.join("e/second")).expect("linked");
    set_time(&first, 1000);
    // More of them than a backup saves.
    for number in 0..20 {
        let (name, flags) = (format!("user.{number}"), rustix::fs::XattrFlags::empty());
        if let Err(error) = rustix::fs::setxattr(&first, name, &[7; 60_000], flags) {
            return skipped("a file with more attributes than are saved", error);
        }
    }
    let source = source.to_str().expect("it is text");
    let backup = ["backup", "--ignore-ctime", source];
    for round in 0..2 {
        let done = person.silt(&backup).ends_with(3);
        for name in ["d/first", "e/second"] {
            let told = format!("{source}/{name}: some of its extended attributes are missing");
            assert_eq!(done.err.matches(&told).count(), 1, "{round}: {}", done.err);
        }
    }
    let done = person.silt(&[&backup[..], &["--exclude", "first"]].concat()).ends_with(3);
    assert!(done.err.contains("e/second: some of its extended attributes are missing"), "{}", done.err);
    // They are names of one file all the same.
    person.silt(&backup).ends_with(3);
    let named = format!("latest:{source}");
    // In memory again.
    let out = format!("{source}/out");
    person.silt(&["restore", &named, "--target", &out]).ends_with(0);
    assert_eq!(inode(&Path::new(&out).join("d/first")), inode(&Path::new(&out).join("e/second")));
}
