//! A repository that was copied to another storage, or whose settings were lost: reading goes on, writing is refused until
//! `silt relocate` has found out what the storage does.

use crate::fixture::{NEITHER, RENAMES, SWAPS, backup, memory, open, protocol_of, restored_differences, snapshots};
use crate::person::Person;
use siltstone::error::Kind;
use siltstone::repo::{CommitProtocol, Credentials, Repository, Settings, add_key};
use siltstone::restore::RestoreOptions;
use siltstone::seal::{KeyAccess, PasswordCost};
use siltstone::storage::{Memory, Storage};
use siltstone::watch::Watch;
use std::fs;
use std::path::Path;
use std::sync::Arc;

const CASES: [(siltstone::storage::Capabilities, CommitProtocol); 2] =
    [(SWAPS, CommitProtocol::CompareAndSwap), (RENAMES, CommitProtocol::Rename)];

/// The objects of one storage in another that does other things atomically.
fn copied(from: &Memory, to: siltstone::storage::Capabilities) -> Memory {
    let copy = Memory::with_capabilities(to);
    for (name, bytes) in from.snapshot() {
        copy.put(&name, bytes.to_vec().into()).expect("memory takes it");
    }
    copy
}

#[test]
fn a_copy_on_another_kind_of_storage_is_read_and_written_to_after_it_was_adapted() {
    let folder = tempfile::tempdir().expect("a folder");
    let source = folder.path().join("source");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("f"), "before").expect("written");
    for (from, _) in CASES {
        let first = memory(from);
        backup(Arc::new(first.clone()), &folder.path().join("cache"), &source).expect("it is saved");
        for (to, protocol) in CASES {
            let moved = Arc::new(copied(&first, to));
            let cache = tempfile::tempdir().expect("a folder");
            let repo = open(moved.clone(), cache.path()).expect("it opens");
            let saved = snapshots(&repo);
            assert_eq!(restored_differences(&repo, &saved[0], &source, &source).expect("restored"), [""; 0]);
            // What the settings of the first ask for, the second has as well unless it cannot swap.
            let refused = backup(moved.clone(), cache.path(), &source).err();
            let fits = from == to || to.compare_and_swap;
            assert_eq!(refused.as_ref().map(|error| error.kind()), (!fits).then_some(Kind::Unsupported), "{refused:?}");
            if let Some(error) = refused {
                assert!(error.advice().is_some_and(|hint| hint.contains("silt relocate")), "{error:?}");
                assert_eq!(snapshots(&repo).len(), 1);
            }
            let done = open(moved.clone(), cache.path()).and_then(|repo| repo.relocate(to, false)).expect("adapted");
            assert_eq!((done.now.commit_protocol, done.is_unchanged()), (protocol, from == to));
            let again = open(moved.clone(), cache.path()).expect("it opens");
            assert_eq!(protocol_of(&again), protocol);
            assert!(again.relocate(to, false).expect("it looks").is_unchanged(), "the second time nothing is written");
            backup(moved.clone(), cache.path(), &source).expect("it is saved");
        }
    }
}

#[test]
fn a_storage_that_excludes_no_writers_is_accepted_only_when_that_is_asked_for() {
    let folder = tempfile::tempdir().expect("a folder");
    let moved = Arc::new(copied(&memory(SWAPS), NEITHER));
    let repo = open(moved.clone(), folder.path()).expect("it opens");
    let before = moved.snapshot();
    let refused = repo.relocate(NEITHER, false).expect_err("two backups could not be kept apart");
    assert!(refused.is(Kind::Unsupported) && refused.advice().is_some_and(|hint| hint.contains("--single-writer")));
    assert_eq!(moved.snapshot(), before);
    let done = repo.relocate(NEITHER, true).expect("it was asked for");
    assert_eq!(done.now.commit_protocol, CommitProtocol::SingleWriter);
    let source = tempfile::tempdir().expect("a folder");
    backup(moved, folder.path(), source.path()).expect("it is saved");
}

#[test]
fn settings_of_another_repository_are_not_taken() {
    let (one, other) = (memory(SWAPS), memory(RENAMES));
    let foreign = other.get("settings", 1 << 20).expect("they are there").0;
    one.put("settings", foreign.into()).expect("memory takes it");
    let cache = tempfile::tempdir().expect("a folder");
    let storage: Arc<dyn Storage> = Arc::new(one);
    let repo = open(storage.clone(), cache.path()).expect("it is read");
    assert!(repo.settings().is_err());
    assert!(backup(storage, cache.path(), cache.path()).is_err());
}

/// A program that must not write to a repository probed its storage, which writes, before it said so.
#[test]
fn a_repository_with_a_feature_that_writers_must_know_is_not_written_to() {
    let storage = memory(SWAPS);
    let cache = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(storage.clone()), cache.path()).expect("it opens");
    let settings = repo.settings().expect("they are there").clone();
    let newer = Settings { writer_features: vec!["later".to_owned()], ..settings };
    storage.put("settings", newer.encode(repo.keys()).expect("sealed").into()).expect("memory takes it");
    let before = storage.snapshot();
    let repo = open(Arc::new(storage.clone()), cache.path()).expect("it is read");
    for refused in [repo.check_relocatable().err(), repo.relocate(SWAPS, false).err()] {
        let refused = refused.expect("it is refused");
        assert!(refused.is(Kind::Unsupported) && refused.to_string().contains("`later`"), "{refused}");
    }
    assert!(backup(Arc::new(storage.clone()), cache.path(), cache.path()).is_err());
    assert_eq!(storage.snapshot(), before);
}

/// Settings that were lost were written anew, without the features that the repository used, by any command that found no index
/// object: a copy that was not complete yet.
#[test]
fn lost_settings_are_not_written_anew_where_anything_was_saved() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("f"), "saved").expect("written");
    for kept in ["packs/", "snapshots/"] {
        let storage = memory(SWAPS);
        backup(Arc::new(storage.clone()), &folder.path().join(kept), folder.path()).expect("it is saved");
        let gone = ["settings", "index/", "packs/", "snapshots/"].into_iter().filter(|prefix| *prefix != kept);
        for name in gone.flat_map(|prefix| storage.list(prefix).expect("memory lists")).map(|listed| listed.name) {
            storage.remove(&name).expect("removed");
        }
        let cache = tempfile::tempdir().expect("a folder");
        let repo = open(Arc::new(storage.clone()), cache.path()).expect("it is read");
        assert!(repo.settings().is_err() && storage.stat("settings").is_err(), "{kept}");
    }
    // An `init` that was interrupted before its last step saved nothing.
    let storage = memory(SWAPS);
    storage.remove("settings").expect("removed");
    let repo = open(Arc::new(storage.clone()), folder.path()).expect("it opens");
    assert!(repo.settings().is_ok() && storage.stat("settings").is_ok());
}

/// Another program had replaced the settings between the reading and the writing of `silt relocate`, which took that back.
#[test]
fn settings_that_were_replaced_meanwhile_are_not_overwritten() {
    let storage = memory(SWAPS);
    let cache = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(storage.clone()), cache.path()).expect("it opens");
    let settings = repo.settings().expect("they are there").clone();
    let newer = Settings { revision: 1, writer_features: vec!["later".to_owned()], ..settings };
    storage.put("settings", newer.encode(repo.keys()).expect("sealed").into()).expect("memory takes it");
    let before = storage.snapshot();
    let refused = repo.relocate(SWAPS, true).expect_err("they are others now");
    assert!(refused.is(Kind::Stale) && refused.to_string().contains("replaced them meanwhile"), "{refused}");
    assert_eq!(storage.snapshot(), before);
}

fn person() -> Person {
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    person
}

const SETTINGS: &str = "data/siltstone/repository/settings";

#[test]
fn lost_or_damaged_settings_stop_backups_and_nothing_else() {
    for harm in ["lost", "empty", "other bytes", "cut"] {
        let person = person();
        let path = person.path(SETTINGS);
        let bytes = fs::read(&path).expect("they are there");
        match harm {
            "lost" => fs::remove_file(&path).expect("removed"),
            "empty" => fs::write(&path, "").expect("written"),
            "cut" => fs::write(&path, &bytes[..bytes.len() - 1]).expect("written"),
            _ => fs::write(&path, vec![7; bytes.len()]).expect("written"),
        }
        let refused = person.silt(&["backup", "source"]).ends_with(6);
        assert!(refused.err.contains("settings") && refused.err.contains("silt relocate"), "{harm}: {}", refused.err);
        for words in [&["snapshots"][..], &["ls", "latest"], &["stats"], &["find", "text"]] {
            let said = person.silt(words).ends_with(0);
            assert!(said.err.contains("the repository can be read but not written to"), "{harm}: {}", said.err);
        }
        let named = format!("latest:{}", person.path("source").display());
        person.silt(&["restore", &named, "--target", "out"]).ends_with(0);
        assert_eq!(fs::read(person.path("out/text")).expect("restored"), b"hello");
        assert_eq!(person.snapshots(&[]).len(), 1, "{harm}");

        let adapted = person.silt(&["relocate"]).ends_with(0);
        assert!(adapted.out.contains("in place of those that could not be read"), "{harm}: {}", adapted.out);
        let quiet = person.silt(&["backup", "source"]).ends_with(0);
        assert!(!quiet.err.contains("settings"), "{harm}: {}", quiet.err);
        assert_eq!(person.snapshots(&[]).len(), 2, "{harm}");
    }
}

#[test]
fn relocate_says_what_it_did_and_writes_only_what_it_must() {
    let person = person();
    let before = fs::read(person.path(SETTINGS)).expect("they are there");
    let said = person.silt(&["relocate"]).ends_with(0);
    assert!(said.out.contains("fit its storage"), "{}", said.out);
    let told = person.silt(&["relocate", "--json"]).ends_with(0).json();
    assert_eq!((told["changed"].as_bool(), &told["before"]), (Some(false), &told["commit_protocol"]));
    assert_eq!(fs::read(person.path(SETTINGS)).expect("they are there"), before);

    let told = person.silt(&["relocate", "--single-writer", "--json"]).ends_with(0).json();
    assert_eq!((told["changed"].as_bool(), told["commit_protocol"].as_str()), (Some(true), Some("single-writer")));
    let said = person.silt(&["relocate"]).ends_with(0);
    assert!(said.out.contains("Before, only one backup may run at a time"), "{}", said.out);
    person.silt(&["backup", "source"]).ends_with(0);

    // What was copied is at another path; the settings fit there, too.
    let copy = person.path("copy");
    copy_folder(&person.path("data/siltstone/repository"), &copy);
    let key = person.path("config/siltstone/key");
    let there = ["--repo", "copy", "--key-file", key.to_str().expect("text")];
    let said = person.silt(&[&["relocate"][..], &there].concat());
    assert!(said.ends_with(0).out.contains("fit its storage"));
    person.silt(&[&["backup", "source"][..], &there].concat()).ends_with(0);
}

/// All was done, and only the words about it were lost: that is 3, not 1.
#[test]
fn a_full_output_does_not_call_the_work_failed() {
    let person = person();
    for words in [&["relocate", "--single-writer"][..], &["export", "latest", "--output", "out.tar"]] {
        let full = fs::File::options().write(true).open("/dev/full").expect("it opens");
        let done = person.command(words).stdout(full).output().expect("it runs");
        assert_eq!(done.status.code(), Some(3), "{words:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
    assert!(person.path("out.tar").exists());
    assert!(person.silt(&["relocate"]).ends_with(0).out.contains("Before, only one backup may run"));
}

/// A restore with a key that may only list said "Restored", restored nothing, and called the repository damaged.
#[test]
fn a_restore_with_a_key_that_may_only_list_is_refused() {
    let storage = memory(SWAPS);
    let folder = tempfile::tempdir().expect("a folder");
    let (source, target) = (folder.path().join("source"), folder.path().join("target"));
    fs::create_dir(&source).expect("made");
    backup(Arc::new(storage.clone()), &folder.path().join("cache"), &source).expect("it is saved");
    let repo = open(storage_of(&storage), &folder.path().join("cache")).expect("it opens");
    let (list, cost) = (Credentials::password("list"), PasswordCost { memory_kib: 64, passes: 1, lanes: 1 });
    add_key(&storage, repo.keys(), KeyAccess::List, &list, cost).expect("it is added");
    let repo = Repository::open_uncached(storage_of(&storage), &list, &Watch::silent()).expect("it opens");
    let snapshot = snapshots(&repo).remove(0);
    let refused = repo.plan_restore(&snapshot, RestoreOptions::new(target.clone()), &Watch::silent()).err();
    assert!(refused.is_some_and(|error| error.is(Kind::Denied) && error.advice().is_some()) && !target.exists());
}

fn storage_of(memory: &Memory) -> Arc<dyn Storage> {
    Arc::new(memory.clone())
}

#[test]
fn relocate_ends_as_other_verbs_do() {
    let person = person();
    person.silt(&["relocate", "--no-such-option"]).ends_with(2);
    person.silt(&["relocate", "--repo", ""]).ends_with(2);
    fs::create_dir(person.path("empty")).expect("made");
    person.silt_with(&[("SILT_PASSWORD", "x")], &["relocate", "--repo", "empty"]).ends_with(1);
    assert_eq!(fs::read_dir(person.path("empty")).expect("listed").count(), 0);
    let before = fs::read(person.path(SETTINGS)).expect("they are there");
    person.silt_with(&[("SILT_RECOVERY_KEY", "AAAAA")], &["relocate"]).ends_with(5);
    fs::write(person.path("data/siltstone/repository/config"), "no configuration").expect("written");
    person.silt(&["relocate"]).ends_with(6);
    assert_eq!(fs::read(person.path(SETTINGS)).expect("they are there"), before);
}

fn copy_folder(from: &Path, to: &Path) {
    for entry in walkdir::WalkDir::new(from) {
        let entry = entry.expect("listed");
        let path = to.join(entry.path().strip_prefix(from).expect("it is below"));
        if entry.file_type().is_dir() {
            fs::create_dir(path).expect("made");
        } else {
            fs::copy(entry.path(), path).expect("copied");
        }
    }
}
