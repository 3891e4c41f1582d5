//! A dry run says what a run does: on random trees, restored into targets that were edited at random.

use crate::fixture::{self, SWAPS, backup, memory, open, plant};
use crate::person::{Person, contents};
use crate::restore::{latest, saved};
use crate::skip::skipped;
use crate::undone::mounted;
use proptest::prelude::*;
use siltstone::restore::{Overwrite, RestoreOptions};
use siltstone::source::RulesBuilder;
use siltstone::watch::Watch;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Whatever can be seen of each name: enough to say whether it was replaced, and whether it is as it was.
fn look(root: &Path) -> BTreeMap<PathBuf, (u64, u32, Vec<u8>)> {
    let mut found = BTreeMap::new();
    for entry in walkdir::WalkDir::new(root).min_depth(1) {
        let entry = entry.expect("listed");
        let meta = entry.metadata().expect("there");
        let bytes = match entry.file_type() {
            kind if kind.is_symlink() => {
                fs::read_link(entry.path()).expect("read").into_os_string().into_encoded_bytes()
            }
            kind if kind.is_file() => fs::read(entry.path()).expect("read"),
            _ => Vec::new(),
        };
        found.insert(entry.path().strip_prefix(root).expect("below").to_owned(), (meta.ino(), meta.mode(), bytes));
    }
    found
}

/// One change of a target, as its number says.
fn change(target: &Path, what: u8, turn: usize) {
    let mut paths: Vec<PathBuf> = look(target).into_keys().map(|path| target.join(path)).collect();
    paths.sort();
    let Some(path) = paths.get(turn % paths.len().max(1)) else { return };
    let folder = path.parent().expect("it has one").to_owned();
    let is_directory = path.is_dir() && !path.is_symlink();
    let remove = || {
        if is_directory { fs::remove_dir_all(path).expect("removed") } else { fs::remove_file(path).expect("removed") }
    };
    match what % 10 {
        0 => remove(),
        1 if !is_directory => {
            remove();
            fs::write(path, b"other content").expect("written");
        }
        2 if path.is_file() && !path.is_symlink() => {
            // The same size, another content or another time.
            let mut bytes = fs::read(path).expect("read");
            bytes.iter_mut().take(turn % 2).for_each(|byte| *byte ^= 1);
            fs::write(path, bytes).expect("written");
        }
        3 => {
            remove();
            symlink("nowhere", path).expect("linked");
        }
        4 => {
            remove();
            fs::create_dir(path).expect("made");
        }
        5 => {
            remove();
            fs::create_dir_all(path.join("below/deep")).expect("made");
            fs::write(path.join("below/new"), b"n").expect("written");
        }
        6 => fs::write(folder.join(format!("new {turn}")), b"new").expect("written"),
        7 => {
            fs::create_dir_all(folder.join(format!("newer {turn}/x"))).expect("made");
            fs::write(folder.join(format!("newer {turn}/x/y")), b"new").expect("written");
        }
        8 => {
            remove();
            fs::write(path, b"a file").expect("written");
        }
        _ if !is_directory => {
            let _may_exist = fs::hard_link(path, folder.join(format!("linked {turn}")));
        }
        _ => {}
    }
}

/// `SILT_TEST_PLANS` asks for more.
fn cases() -> u32 {
    std::env::var("SILT_TEST_PLANS").ok().and_then(|count| count.parse().ok()).unwrap_or(40)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, max_shrink_iters: 100, ..ProptestConfig::default() })]

    #[test]
    fn a_plan_is_what_is_done(
        changes in proptest::collection::vec((any::<u8>(), any::<usize>()), 0..12),
        overwrite in 0..4usize,
        delete in any::<bool>(),
        include in proptest::option::weighted(0.3, Just("one/")),
        exclude in proptest::option::weighted(0.3, Just("*3")),
    ) {
        let place = tempfile::tempdir().expect("a folder");
        let (source, target) = (place.path().join("source"), place.path().join("target"));
        plant(&source, 1);
        fs::hard_link(source.join("short"), source.join("one/also short")).expect("linked");
        fs::hard_link(source.join("short"), source.join("again short")).expect("linked");
        let (storage, cache) = (memory(SWAPS), place.path().join("cache"));
        backup(Arc::new(storage.clone()), &cache, &source).expect("a backup");
        fixture::copy(&source, &target);
        changes.iter().for_each(|(what, turn)| change(&target, *what, *turn));
        let before = look(&target);

        let repo = open(Arc::new(storage), &cache).expect("it opens");
        let snapshot = fixture::snapshots(&repo).remove(0);
        let rules = |pattern: &str| RulesBuilder::new().exclude(pattern.as_bytes()).expect("a pattern").build().expect("rules");
        let options = RestoreOptions {
            path: Some(source.as_os_str().as_encoded_bytes().to_vec()),
            overwrite: [Overwrite::Always, Overwrite::IfChanged, Overwrite::IfNewer, Overwrite::Never][overwrite],
            delete,
            include: include.map(rules),
            exclude: exclude.map(rules).unwrap_or_default(),
            detailed: true,
            ..RestoreOptions::new(target.clone())
        };
        let plan = repo.plan_restore(&snapshot, options, &Watch::silent()).expect("planned");
        prop_assert!(look(&target) == before, "a plan changes nothing");
        let summary = plan.summary.clone();
        let report = plan.run(&Watch::silent()).expect("restored");
        let after = look(&target);

        let planned = (summary.created.count, summary.replaced.count, summary.kept, summary.kept_different.count);
        prop_assert_eq!(planned, (report.created, report.replaced, report.files_kept, report.files_kept_different), "{:?}", report.warnings);
        prop_assert_eq!(summary.metadata.count, report.metadata_restored, "{:?}", summary.metadata);
        prop_assert_eq!((summary.blocked.count, summary.deletions.count), (report.blocked, report.files_deleted));
        prop_assert_eq!((summary.directories, summary.warnings_count), (report.directories, report.warnings_count));
        let below = |paths: &[Vec<u8>]| -> Vec<PathBuf> {
            let text = |path: &Vec<u8>| PathBuf::from(String::from_utf8(path.clone()).expect("text"));
            paths.iter().map(|path| text(path).strip_prefix(&source).expect("below").to_owned()).collect()
        };
        let created = below(&summary.created.first);
        let replaced = below(&summary.replaced.first);
        let deleted = below(&summary.deletions.first);
        for path in before.keys().chain(after.keys()) {
            let (old, new) = (before.get(path), after.get(path));
            match (old, new) {
                (None, Some(_)) => prop_assert!(
                    // What is below a directory that takes the place of a file is created as well.
                    created.contains(path), "{path:?} was made unplanned"),
                (Some(_), None) => prop_assert!(deleted.contains(path), "{path:?} was removed unplanned"),
                (Some(old), Some(new)) if old.0 != new.0 || old.2 != new.2 => {
                    prop_assert!(replaced.contains(path) || (deleted.contains(path) && created.contains(path)), "{path:?} was replaced unplanned");
                }
                _ => prop_assert!(!created.contains(path) && !deleted.contains(path), "{path:?} was not {:?}", summary),
            }
        }
        prop_assert!(after.keys().all(|path| !path.to_string_lossy().contains(".silt-restore-")));
    }
}

#[test]
fn a_name_that_is_right_stays_whichever_name_of_its_inode_is_met_first() {
    // A missing name that was met first was written anew, and the name that was there replaced by a link to it: the plan and
    // the restore, which meet them in another order, did not agree.
    let person = saved(|person| {
        for n in 0..40 {
            person.write(&format!("source/a/{n}"), format!("number {n}"));
            fs::create_dir_all(person.path("source/z")).expect("made");
            fs::hard_link(person.path(&format!("source/a/{n}")), person.path(&format!("source/z/{n}")))
                .expect("linked");
        }
    });
    fs::remove_dir_all(person.path("source/a")).expect("removed");
    let inode = |name: &str| fs::metadata(person.path(name)).expect("it is there").ino();
    let before: Vec<u64> = (0..40).map(|n| inode(&format!("source/z/{n}"))).collect();
    let said =
        person.silt(&["restore", &latest(&person, "source"), "--target", "source", "--json"]).ends_with(0).last_event();
    assert_eq!(
        (said["created"].as_u64(), said["replaced"].as_u64(), said["files_kept"].as_u64()),
        (Some(41), Some(0), Some(40))
    );
    for (n, before) in before.iter().enumerate() {
        assert_eq!((inode(&format!("source/a/{n}")), inode(&format!("source/z/{n}"))), (*before, *before));
    }
}

#[test]
fn a_dry_run_names_what_will_be_replaced_and_what_is_read() {
    // It named every file that was there, changed or not, and no link or directory that would make way.
    let person = saved(|person| {
        for n in 1..=5 {
            person.write(&format!("source/f{n}"), format!("number {n}, a text that is longer than an inline one"));
        }
        fs::create_dir(person.path("source/dir")).expect("made");
    });
    person.write("source/f3", "other");
    fs::remove_dir(person.path("source/dir")).expect("removed");
    symlink("/etc", person.path("source/dir")).expect("linked");
    fs::remove_file(person.path("source/f5")).expect("removed");
    let words = |more: &'static [&'static str]| {
        let (named, target) = (latest(&person, "source"), person.path("source").display().to_string());
        [
            &["restore".to_owned(), named, "--target".to_owned(), target][..],
            &more.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>(),
        ]
        .concat()
    };
    let run = |more| {
        let words = words(more);
        person.silt(&words.iter().map(String::as_str).collect::<Vec<_>>())
    };
    let before = contents(&person.path("source"));
    let plan = run(&["--dry-run", "--json"]).ends_with(0).last_event();
    let path = |name: &str| person.path("source").join(name).display().to_string();
    assert_eq!(plan["replaced"], serde_json::json!([path("dir"), path("f3")]), "{plan}");
    assert_eq!((&plan["created"], &plan["kept_count"]), (&serde_json::json!([path("f5")]), &3.into()));
    assert!(plan["bytes_to_read"].as_u64().expect("a number") > 0 && plan["packs"] == 1, "{plan}");
    assert!(contents(&person.path("source")) == before);
    let plan = run(&["--dry-run", "--json", "--overwrite", "never"]).ends_with(3).last_event();
    assert_eq!(
        (&plan["kept_different"], &plan["blocked"]),
        (&serde_json::json!([path("f3")]), &serde_json::json!([path("dir")]))
    );
}

#[test]
fn a_dry_run_of_a_new_target_counts_all_of_it() {
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    let named = latest(&person, "source");
    let plan = person.silt(&["restore", &named, "--target", "out", "--dry-run", "--json"]).ends_with(0).last_event();
    let done = person.silt(&["restore", &named, "--target", "out", "--json"]).ends_with(0).last_event();
    assert_eq!(plan["created_count"], done["created"], "{plan}{done}");
    assert_eq!((&plan["replaced_count"], &plan["blocked_count"]), (&0.into(), &0.into()));
}

#[test]
fn names_of_one_inode_count_their_bytes_once() {
    // Of three names of a file of 4 bytes a plan said 12 bytes, and the restore wrote 4.
    let person = saved(|person| {
        person.write("source/one", "four");
        for name in ["two", "three"] {
            fs::hard_link(person.path("source/one"), person.path("source").join(name)).expect("linked");
        }
    });
    let named = latest(&person, "source");
    let plan = person.silt(&["restore", &named, "--target", "out", "--dry-run", "--json"]).ends_with(0).last_event();
    let done = person.silt(&["restore", &named, "--target", "out", "--json"]).ends_with(0).last_event();
    assert_eq!((&plan["files"], &plan["bytes"]), (&3.into(), &4.into()));
    assert_eq!((&done["files"], &done["bytes_written"]), (&3.into(), &4.into()));
}

#[test]
fn a_target_that_is_mounted_read_only_is_named_by_the_plan() {
    // A dry run ended with 0, and the restore could do nothing of it.
    let person = saved(|person| person.write("source/file", "x"));
    fs::create_dir(person.path("target")).expect("made");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "ro", "none"]).arg(person.path("target")).output();
    if !mount.as_ref().is_ok_and(|mount| mount.status.success()) {
        return skipped("a target that is mounted read-only", "tmpfs cannot be mounted");
    }
    let run = |target: &str, more: &[&str]| {
        person.silt(&[&["restore", &latest(&person, "source"), "--target", target][..], more].concat())
    };
    let said = [run("target", &["--dry-run"]), run("target/new", &["--dry-run"]), run("target", &[])];
    let unmounted = Command::new("umount").arg(person.path("target")).status();
    assert!(unmounted.expect("umount runs").success());
    let [plan, new, done] = said;
    assert!(plan.ends_with(3).err.contains("mounted read-only"));
    assert!(new.ends_with(1).err.contains("Read-only file system"));
    done.ends_with(3);
}

/// The root of a system that is never changed, with data mounted below it: a plan warned that nothing could be restored, and the restore did
/// all of it.
#[test]
fn a_read_only_target_with_writable_sources_is_no_warning() {
    let person = saved(|person| person.write("source/file", "x"));
    let (target, source) = (person.path("target"), person.path("source"));
    let inner = target.join(source.strip_prefix("/").expect("it is absolute"));
    let tmpfs = ["-t", "tmpfs", "none"];
    let outer = mounted(&tmpfs, &target);
    let below = outer.as_ref().and_then(|_| mounted(&tmpfs, &inner));
    let remounted = Command::new("mount").args(["-o", "remount,ro"]).arg(&target).output();
    if below.is_none() || !remounted.is_ok_and(|output| output.status.success()) {
        return skipped("a read-only target with writable sources", "tmpfs cannot be mounted");
    }
    person.silt(&["restore", "latest", "--target", "target", "--dry-run"]).ends_with(0);
    person.silt(&["restore", "latest", "--target", "target"]).ends_with(0);
    assert_eq!(fs::read(inner.join("file")).expect("restored"), b"x");
}
