//! What an ended restore leaves half-done is known as such: cleaned, gone on with, and never taken for whole.

use crate::fixture::{self, Hooked, SWAPS, backup, memory, open, options};
use crate::left_out::{deepen, flatten};
use crate::person::{Person, contents};
use crate::restore::{is_root, restore, saved};
use crate::restore_way::leftover;
use crate::skip::skipped;
use siltstone::disk::unfinished_mode;
use siltstone::entry::{Content, Entry, EntryKind, Metadata, PathText};
use siltstone::error::Kind;
use siltstone::format::store_page;
use siltstone::repo::{SinkOptions, SnapshotSource};
use siltstone::restore::RestoreOptions;
use siltstone::source::RulesBuilder;
use siltstone::watch::Watch;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The mode of a directory of 0755 that a restore did not finish.
fn mark(path: &Path) {
    let mode = unfinished_mode(&Metadata { mode: 0o755, ..Metadata::default() });
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
}

/// The mode of a file that a restore began under its own name, and did not finish.
const HALF_DONE: u32 = 0o1200;

/// A killed restore of the first of two snapshots: half of `new/file` stands under its name.
fn killed_half_way(change: impl FnOnce(&Person)) -> (Person, Vec<String>) {
    let person = saved(|person| {
        person.write("source/new/file", crate::golden::noise(50_000, 1));
        person.write("source/new/other", "other");
        fs::set_permissions(person.path("source/new"), Permissions::from_mode(0o755)).expect("set");
    });
    change(&person);
    person.silt(&["backup", "source"]).ends_with(0);
    let second = crate::restore::latest(&person, "source");
    let first = second.replacen("latest", "latest~1", 1);
    fs::create_dir_all(person.path("out/new")).expect("made");
    person.write("out/new/file", &crate::golden::noise(50_000, 1)[..20_000]);
    fs::set_permissions(person.path("out/new/file"), Permissions::from_mode(HALF_DONE)).expect("set");
    mark(&person.path("out/new"));
    (person, vec![first, second])
}

#[test]
fn a_half_done_file_is_not_kept_as_if_it_were_the_users() {
    // After kill -9 a file of half its length stayed, and --overwrite never and if-newer kept it for good.
    let person = saved(|person| {
        person.write("source/new/file", crate::golden::noise(50_000, 1));
        person.write("source/new/inline", "few bytes");
        person.write("source/new/whole", "but for its mode and time");
        fs::set_permissions(person.path("source/new"), Permissions::from_mode(0o755)).expect("set");
    });
    let before = contents(&person.path("source"));
    let half = |name: &str| {
        fs::set_permissions(person.path(&format!("source/new/{name}")), Permissions::from_mode(HALF_DONE))
            .expect("set");
    };
    for overwrite in ["never", "if-newer"] {
        person.write("source/new/file", &crate::golden::noise(50_000, 1)[..20_000]);
        person.write("source/new/inline", "");
        ["file", "inline", "whole"].iter().for_each(|name| half(name));
        mark(&person.path("source/new"));
        restore(&person, &["--overwrite", overwrite]).ends_with(0);
        assert!(contents(&person.path("source")) == before, "{overwrite}");
        // Without the mark it is the user's, whatever its directory looks like.
        person.write("source/new/file", &crate::golden::noise(50_000, 1)[..20_000]);
        mark(&person.path("source/new"));
        restore(&person, &["--overwrite", overwrite]).ends_with(0);
        assert_eq!(fs::metadata(person.path("source/new/file")).expect("there").len(), 20_000);
        assert_eq!(fs::metadata(person.path("source/new")).expect("there").mode() & 0o7777, 0o755);
    }
}

/// Its directory alone had a mark, which the restore of a part, of another snapshot, or beside another restore took away: half
/// a file passed for a whole one.
#[test]
fn half_a_file_is_known_whatever_is_restored_around_it() {
    let changes: [fn(&Person); 3] = [
        |person| fs::remove_file(person.path("source/new/file")).expect("removed"),
        |person| fs::set_permissions(person.path("source/new"), Permissions::from_mode(0o700)).expect("set"),
        |person| person.write("source/new/file", "another content"),
    ];
    let words = ["", "--exclude file", "--include other", "--overwrite never --exclude file", "--overwrite if-newer"];
    for change in changes {
        for words in words {
            let (person, snapshots) = killed_half_way(change);
            let words = words.split_whitespace().chain(["--target", "out"]);
            person.silt(&["restore", &snapshots[1]].into_iter().chain(words.clone()).collect::<Vec<_>>()).ends_with(0);
            let found = fs::metadata(person.path("out/new/file")).expect("there");
            let is_half = found.len() == 20_000;
            assert_eq!(found.mode() & 0o7777 == HALF_DONE, is_half);
            let again = ["restore", &snapshots[0], "--target", "out", "--overwrite", "never"];
            person.silt(&again).ends_with(0);
            assert!(
                !is_half || fs::read(person.path("out/new/file")).expect("read") == crate::golden::noise(50_000, 1)
            );
        }
    }
}

/// Killed between its owner and its mode, a directory belonged to another user, and kept the mode of one under construction.
#[test]
fn an_unfinished_directory_that_has_its_owner_already_gets_its_mode() {
    if !is_root() {
        return skipped("directories of other users", "it takes root to give them away");
    }
    let person = saved(|person| {
        person.write("source/new/f", "f");
        std::os::unix::fs::chown(person.path("source/new"), Some(1234), Some(1234)).expect("changed");
        fs::set_permissions(person.path("source/new"), Permissions::from_mode(0o775)).expect("set");
    });
    let mode = unfinished_mode(&Metadata { mode: 0o775, ..Metadata::default() });
    fs::set_permissions(person.path("source/new"), Permissions::from_mode(mode)).expect("set");
    restore(&person, &["--overwrite", "never"]).ends_with(0);
    assert_eq!(fs::metadata(person.path("source/new")).expect("there").mode() & 0o7777, 0o775);
}

#[test]
fn a_target_that_a_killed_restore_made_gets_its_metadata() {
    // It kept the mode of a directory under construction.
    let person = saved(|person| {
        person.write("source/f", "f");
        fs::set_permissions(person.path("source"), Permissions::from_mode(0o755)).expect("set");
    });
    fs::create_dir(person.path("out")).expect("made");
    mark(&person.path("out"));
    let named = crate::restore::latest(&person, "source");
    person.silt(&["restore", &named, "--target", "out", "--overwrite", "never"]).ends_with(0);
    assert_eq!(fs::metadata(person.path("out")).expect("there").mode() & 0o7777, 0o755);
}

#[test]
fn leftovers_go_and_what_looks_like_them_stays() {
    // Nothing cleaned up after a restore that was killed.
    let person = saved(|person| person.write("source/below/f", "f"));
    let own = String::from_utf8(siltstone::disk::next_name()).expect("text");
    // Of a process that has ended: a number beyond all, with the checksum that its name then has.
    let gone = renumbered(&own, "7ffffff0");
    assert!(siltstone::disk::is_leftover(gone.as_bytes()));
    let like = format!("{gone}~");
    for name in [&gone, &like, &own] {
        person.write(&format!("source/below/{name}"), "x");
        person.write(&format!("source/{name}"), "x");
    }
    restore(&person, &[]).ends_with(0);
    for folder in ["source", "source/below"] {
        let there = |name: &str| person.path(folder).join(name).exists();
        assert!(!there(&gone), "{folder}");
        assert!(there(&like) && there(&own), "{folder}: a name of one who runs, and one that is another");
    }
    // Not even --delete takes the unfinished file of a restore that runs.
    restore(&person, &["--delete"]).ends_with(0);
    assert!(person.path("source").join(&own).exists() && !person.path("source").join(&like).exists());
}

/// The name that a process of this number would have given.
fn renumbered(name: &str, pid: &str) -> String {
    let kept = &name[..name.len() - 16];
    let changed = format!("{}{pid}{}", &kept[..14], &kept[22..]);
    let check = changed
        .bytes()
        .fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    format!("{changed}{check:016x}")
}

#[test]
fn one_who_stops_within_a_large_file_has_the_old_one() {
    // A stop was noticed only after the file, and the old one was gone by then.
    let place = tempfile::tempdir().expect("a folder");
    let source = place.path().join("source");
    fs::create_dir(&source).expect("made");
    fs::write(source.join("large"), crate::golden::noise(60 << 20, 1)).expect("written");
    let (storage, cache) = (memory(SWAPS), place.path().join("cache"));
    backup(Arc::new(storage.clone()), &cache, &source).expect("a backup");
    let snapshot = fixture::snapshots(&open(Arc::new(storage.clone()), &cache).expect("it opens")).remove(0);
    for exists in [true, false] {
        let target = place.path().join(format!("target {exists}"));
        fs::create_dir(&target).expect("made");
        if exists {
            fs::write(target.join("large"), b"old").expect("written");
        }
        let watch = Watch::silent();
        let (cancel, reads) = (watch.cancel.clone(), AtomicUsize::new(0));
        // In the middle of the file's content.
        let before = move |call: &str, _: &str| {
            if call == "get_range" && reads.fetch_add(1, Ordering::SeqCst) == 8 {
                cancel.cancel();
            }
        };
        let repo = open(Arc::new(Hooked { inner: storage.clone(), before }), &cache).expect("it opens");
        let how = RestoreOptions {
            path: Some(source.as_os_str().as_bytes().to_vec()),
            writers: 1,
            ..RestoreOptions::new(target.clone())
        };
        let stopped = repo.plan_restore(&snapshot, how, &watch).expect("planned").run(&watch);
        assert!(stopped.is_err_and(|error| error.is(Kind::Cancelled)));
        assert!(watch.progress.bytes_done.load(Ordering::Relaxed) < 60 << 20, "it stopped within the file");
        if exists {
            assert_eq!(fs::read(target.join("large")).expect("there"), b"old")
        } else {
            assert!(!target.join("large").exists())
        }
        assert!(fs::read_dir(&target).expect("listed").count() <= 1);
    }
}

/// The unfinished name of a link that a killed restore left counted as another file's name: the plan replaced what the
/// restore kept.
#[test]
fn an_unfinished_link_is_no_name_of_its_inode() {
    let person = saved(|person| {
        person.write("source/a", "saved");
        fs::hard_link(person.path("source/a"), person.path("source/b")).expect("linked");
    });
    person.write("target/a", "saved");
    let saved_at = fs::metadata(person.path("source/a")).and_then(|meta| meta.modified()).expect("it has a time");
    let file = fs::File::options().write(true).open(person.path("target/a")).expect("opened");
    file.set_modified(saved_at).expect("its time is set");
    fs::set_permissions(person.path("target/a"), Permissions::from_mode(0o600)).expect("set");
    fs::hard_link(person.path("target/a"), person.path(&format!("target/{}", leftover()))).expect("linked");
    let named = crate::restore::latest(&person, "source");
    let words = ["restore", &named, "--target", "target"];
    let plan = person.silt(&[&words[..], &["--dry-run"]].concat()).ends_with(0);
    assert!(plan.out.contains("saved metadata: 1") && !plan.out.contains("replaced"), "{}", plan.out);
    let done = person.silt(&words).ends_with(0);
    assert!(done.out.contains("Metadata 1 restored"), "{}", done.out);
    assert_eq!(fs::metadata(person.path("target/b")).expect("it is there").nlink(), 2);
}

#[test]
fn a_tree_deeper_than_any_path_does_not_crash() {
    // Each level held a descriptor, and a hostile snapshot could overflow the stack.
    let place = tempfile::tempdir().expect("a folder");
    let repo = open(Arc::new(memory(SWAPS)), &place.path().join("cache")).expect("it opens");
    fs::create_dir(place.path().join("empty")).expect("made");
    let report = repo.backup(options(&place.path().join("empty")), &Watch::silent()).expect("a backup");
    let mut snapshot = report.snapshot.expect("it was made");
    let how = SinkOptions { lanes: 1, compression: siltstone::seal::Compression::Auto, memory_bytes: 32 << 20 };
    let writer = repo.writer("host", &how, &Watch::silent()).expect("it begins");
    let mut page = store_page(&[], &mut |bytes| writer.sink().store_tree(0, &bytes)).expect("stored");
    for level in 0..20_000 {
        let mut entries = vec![Entry::new(&b"d"[..], EntryKind::Directory)];
        (entries[0].content, entries[0].meta.mode) = (Content::Tree(page), 0o755);
        if level == 19_999 {
            entries.push(Entry::new(&b"y.o"[..], EntryKind::File));
        }
        page = store_page(&entries, &mut |bytes| writer.sink().store_tree(0, &bytes)).expect("stored");
    }
    snapshot.root = page;
    snapshot.id.0[0] ^= 1;
    writer.commit(&snapshot).expect("it commits");
    let target = place.path().join("target");
    for detailed in [true, false] {
        let how = RestoreOptions { detailed, writers: 2, ..RestoreOptions::new(target.clone()) };
        let plan = repo.plan_restore(&snapshot, how, &Watch::silent()).expect("planned");
        let report = plan.run(&Watch::silent()).expect("restored");
        assert_eq!((report.directories, report.warnings_count), (4096, 1), "{:?}", report.warnings);
    }
    flatten(&target);
    // What was not read of a directory was taken for extra entries.
    snapshot.sources = vec![SnapshotSource::Tree { path: PathText(b"/".to_vec()) }];
    deepen(&target, 4098);
    let here = (0..4098).fold(fs::File::open(&target).expect("it is there"), |above, _| {
        use rustix::fs::{Mode, OFlags, openat};
        openat(above, "d", OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).expect("it is there").into()
    });
    rustix::fs::mknodat(&here, "x.o", rustix::fs::FileType::RegularFile, rustix::fs::Mode::RUSR, 0).expect("made");
    let how = RestoreOptions {
        delete: true,
        include: Some(RulesBuilder::new().exclude(b"*.o").and_then(|rules| rules.build()).expect("a pattern")),
        ..RestoreOptions::new(target.clone())
    };
    let plan = repo.plan_restore(&snapshot, how, &Watch::silent()).expect("planned");
    assert_eq!(plan.summary.deletions.count, 0);
    plan.run(&Watch::silent()).expect("restored");
    assert!(rustix::fs::statat(&here, "x.o", rustix::fs::AtFlags::empty()).is_ok());
    rustix::fs::unlinkat(&here, "x.o", rustix::fs::AtFlags::empty()).expect("removed");
    flatten(&target);
}

/// The directory of a name stayed open for each name that was linked to it.
#[test]
fn links_take_no_more_descriptors_than_there_are() {
    let person = Person::new();
    for count in 1..100 {
        let deep = format!("source/{}", vec!["d"; count].join("/"));
        person.write(&format!("{deep}/s/l"), count.to_string());
        fs::hard_link(person.path(&format!("{deep}/s/l")), person.path(&format!("{deep}/l2"))).expect("linked");
    }
    person.silt(&["backup", "source"]).ends_with(0);
    let before = contents(&person.path("source"));
    for count in 1..100 {
        fs::remove_file(person.path(&format!("source/{}/l2", vec!["d"; count].join("/")))).expect("removed");
    }
    let named = crate::restore::latest(&person, "source");
    let done = crate::limits::limited(&person, "-n 80", &["restore", &named, "--target", "source"]);
    done.ends_with(0);
    assert!(contents(&person.path("source")) == before);
}

/// A directory that one writer had closed was opened again by another one, which left it open.
#[test]
fn writers_that_wait_for_each_other_take_no_more_descriptors_than_there_are() {
    let person = Person::new();
    for count in 1..400 {
        let deep = format!("source/{}", vec!["d"; count].join("/"));
        person.write(&format!("{deep}/s/f"), "s");
        (0..30).for_each(|number| person.write(&format!("{deep}/a{number}.o"), "o"));
        person.write(&format!("{deep}/z"), "z");
    }
    person.silt(&["backup", "source"]).ends_with(0);
    let named = crate::restore::latest(&person, "source");
    // Patterns that take their time before a writer looks into its directory, while the other one has gone on.
    let patterns: Vec<String> = (0..300).map(|number| format!("**/a*/{number}/*.x{number}")).collect();
    let mut words = vec!["restore", named.as_str(), "--target", "out", "--exclude", "*.o"];
    patterns.iter().for_each(|pattern| words.extend(["--exclude", pattern.as_str()]));
    for _ in 0..6 {
        crate::limits::limited(&person, "-n 56", &words).ends_with(0);
        fs::remove_dir_all(person.path("out")).expect("removed");
    }
}

#[test]
fn depth_takes_no_more_descriptors_than_there_are() {
    // A tree deeper than the limit of open files ended with "too many open files".
    let person = Person::new();
    let deep = vec!["d"; 700].join("/");
    person.write(&format!("source/{deep}/f"), "deep down");
    person.write("source/d/wide/a/f", "a");
    person.write("source/d/wide/b/f", "b");
    person.silt(&["backup", "source"]).ends_with(0);
    let before = contents(&person.path("source"));
    let named = crate::restore::latest(&person, "source");
    for words in ["", "--delete", "--overwrite always"] {
        let script =
            format!("ulimit -n 64; exec {} restore '{named}' --target out {words}", env!("CARGO_BIN_EXE_silt"));
        let mut command = std::process::Command::new("sh");
        let silt = person.command(&[] as &[&str]);
        command.envs(silt.get_envs().filter_map(|(name, value)| value.map(|value| (name, value))));
        let output = command.arg("-c").arg(script).current_dir(person.home.path()).output().expect("it runs");
        crate::person::said(output).ends_with(0);
        assert!(contents(&person.path("out")) == before, "{words}");
    }
}
