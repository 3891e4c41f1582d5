//! What `restore --delete` may delete, and all that it may not.

use crate::fixture::{SWAPS, memory, open, options};
use crate::person::{Person, Said, contents};
use crate::restore::{as_nobody, chmod, latest, restore, saved, text};
use crate::restore_way::leftover;
use crate::skip::skipped;
use crate::undone::mounted;
use siltstone::entry::{Content, Entry, EntryKind, PathText, Warning};
use siltstone::format::store_page;
use siltstone::repo::{Repository, SinkOptions, Snapshot, SnapshotSource};
use siltstone::restore::{RestoreOptions, RestoreReport};
use siltstone::watch::Watch;
use std::fs;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;

#[test]
fn only_what_is_at_or_below_a_source_is_deleted() {
    // A backup of home/anna alone removed home/bob and /usr from the target.
    let person = Person::new();
    person.write("home/anna/f", "a");
    person.silt(&["backup", "home/anna"]).ends_with(0);
    let below = |target: &str, name: &str| format!("{target}{}", person.path(name).display());
    for name in [below("target", "home/bob/f"), below("target", "home/anna/g"), "target/usr/f".to_owned()] {
        person.write(&name, "there");
    }
    person.silt(&["restore", "latest", "--target", "target", "--delete"]).ends_with(0);
    assert_eq!(text(&person, &below("target", "home/bob/f")) + &text(&person, "target/usr/f"), "therethere");
    assert!(!person.path(&below("target", "home/anna/g")).exists());
    // With a path above the source, too.
    person.write("home/bob/f", "b");
    person.write("home/anna/g", "g");
    person.silt(&["restore", &latest(&person, "home"), "--target", "home", "--delete"]).ends_with(0);
    assert_eq!(text(&person, "home/bob/f"), "b");
    assert!(!person.path("home/anna/g").exists());
    // A single file says nothing of its neighbours.
    person.write("home/anna/g", "g");
    person.silt(&["restore", &latest(&person, "home/anna/f"), "--target", "home/anna", "--delete"]).ends_with(0);
    assert_eq!(text(&person, "home/anna/g"), "g");
}

#[test]
fn rules_protect_what_they_match() {
    // `--delete --exclude cache/` deleted cache/, and --include of one folder emptied the others.
    let person = saved(|person| person.write("source/dir/f", "f"));
    let plant = || {
        for name in ["cache/x", "dir/later/cache/x", "dir/later/y", "dir/new.log", "other/new.log", "other/z"] {
            person.write(&format!("source/{name}"), "later");
        }
    };
    let left = || {
        let all = contents(&person.path("source"));
        let files = all.iter().filter(|(path, _)| person.path("source").join(path).is_file());
        files.map(|(path, _)| path.display().to_string()).collect::<Vec<_>>()
    };
    plant();
    restore(&person, &["--delete", "--exclude", "cache/"]).ends_with(0);
    assert_eq!(left(), ["cache/x", "dir/f", "dir/later/cache/x"]);
    plant();
    restore(&person, &["--delete", "--include", "/**/dir/"]).ends_with(0);
    assert_eq!(left(), ["cache/x", "dir/f", "other/new.log", "other/z"]);
    plant();
    restore(&person, &["--delete"]).ends_with(0);
    assert_eq!(left(), ["dir/f"]);
}

/// With `--include`, extras were deleted only in directories where something saved matches.
#[test]
fn extras_that_include_matches_go_in_every_directory() {
    let person = saved(|person| {
        for name in ["some/a.o", "none/text", "none/below/text", "missing/text"] {
            person.write(&format!("source/{name}"), "saved");
        }
    });
    fs::remove_dir_all(person.path("source/missing")).expect("removed");
    for name in ["x.o", "some/x.o", "none/x.o", "none/below/x.o", "none/below/x", "new/x.o", "new/x"] {
        person.write(&format!("source/{name}"), "extra");
    }
    let include = ["--delete", "--include", "*.o"];
    let plan = restore(&person, &[&include[..], &["--dry-run"]].concat()).ends_with(0);
    assert!(plan.out.contains("To be deleted: 5"), "{}", plan.out);
    restore(&person, &include).ends_with(0);
    let all = contents(&person.path("source"));
    let left: Vec<_> = all.keys().filter(|path| person.path("source").join(path).is_file()).collect();
    let expected = ["new/x", "none/below/text", "none/below/x", "none/text", "some/a.o"].map(PathBuf::from);
    assert_eq!(left, expected.iter().collect::<Vec<_>>());
    assert!(!person.path("source/missing").exists(), "it is not made for this");
}

#[test]
fn repositories_caches_and_sockets_are_kept() {
    // The repository that is restored from was deleted when it was in the target.
    let person = Person::new();
    person.write("source/f", "f");
    person.write("source/whole/f", "f");
    let (repository, cache) = (person.path("source/backups"), person.path("source/cache"));
    let environment = [
        ("SILT_REPOSITORY", repository.to_str().expect("text")),
        ("SILT_CACHE_DIR", cache.to_str().expect("text")),
        ("SILT_PASSWORD", "p"),
    ];
    let silt = |words: &[&str]| person.silt_with(&environment, words);
    silt(&["init"]).ends_with(0);
    silt(&["backup", "source", "--exclude", "backups", "--exclude", "cache"]).ends_with(0);
    // Another repository, and a tagged cache of ours.
    let other = [("SILT_REPOSITORY", "source/below/other"), ("SILT_PASSWORD", "p")];
    fs::create_dir(person.path("source/below")).expect("made");
    person.silt_with(&other, &["init"]).ends_with(0);
    person.write("source/tagged/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n# of silt\n");
    person.write("source/tagged/x", "x");
    // Rules left something out of the source itself; in this directory nothing.
    person.write("source/whole/later/x", "x");
    fs::create_dir(person.path("source/run")).expect("made");
    let _socket = UnixListener::bind(person.path("source/run/socket")).expect("bound");
    let target = person.path("source").display().to_string();
    let named = latest(&person, "source");
    let plan = silt(&["restore", &named, "--target", &target, "--delete", "--dry-run"]).ends_with(0);
    assert!(plan.out.contains("later/x") && !plan.out.contains("backups"), "{}", plan.out);
    silt(&["restore", &named, "--target", &target, "--delete"]).ends_with(0);
    silt(&["snapshots"]).ends_with(0);
    person.silt_with(&other, &["snapshots"]).ends_with(0);
    assert!(person.path("source/tagged/x").exists() && person.path("source/run/socket").exists());
    assert!(!person.path("source/whole/later").exists());
    // Nor is anything restored into the repository in use. The snapshot has it empty, so nothing is missing.
    silt(&["backup", "source"]).ends_with(0);
    silt(&["restore", &named, "--target", &target, "--overwrite", "always"]).ends_with(0);
    assert_eq!(silt(&["snapshots", "--json"]).ends_with(0).json()["snapshots"].as_array().expect("a list").len(), 2);
}

/// The packs of the repository in use lay in the target, where `packs` of the repository is a link to or is mounted from: they
/// were deleted, and a restore into their directory was accepted.
#[test]
fn parts_of_the_repository_in_use_that_lie_elsewhere_are_kept() {
    let person = saved(|person| person.write("source/f", "f"));
    let (packs, big) = (person.path("data/siltstone/repository/packs"), person.path("source/big/packs"));
    fs::create_dir(person.path("source/big")).expect("made");
    fs::rename(&packs, &big).expect("moved");
    std::os::unix::fs::symlink(&big, &packs).expect("linked");
    let readable = || assert_eq!(person.silt(&["cat", &latest(&person, "source/f")]).ends_with(0).out, "f");
    let plan = restore(&person, &["--delete", "--dry-run"]).ends_with(0);
    assert!(!plan.out.contains("big"), "{}", plan.out);
    restore(&person, &["--delete"]).ends_with(0);
    readable();
    let named = latest(&person, "source");
    for target in [big.clone(), big.join("new")] {
        let target = target.display().to_string();
        let refused = person.silt(&["restore", &named, "--target", &target, "--delete"]).ends_with(1);
        assert!(refused.err.contains("repository"), "{}", refused.err);
    }
    // A directory of the repository does not make way either, even empty.
    let pending = person.path("data/siltstone/repository/pending");
    fs::create_dir(person.path("elsewhere")).expect("made");
    fs::remove_dir_all(&pending).expect("removed");
    std::os::unix::fs::symlink(person.path("elsewhere/f"), &pending).expect("linked");
    fs::create_dir(person.path("elsewhere/f")).expect("made");
    let into = ["restore", &named, "--target", "elsewhere", "--delete"];
    for more in [&["--dry-run"][..], &[]] {
        let said = person.silt(&[&into[..], more].concat()).ends_with(3);
        assert!(said.out.contains("in use") || said.err.contains("in use"), "{}{}", said.out, said.err);
    }
    assert!(person.path("elsewhere/f").is_dir());
    readable();
}

#[test]
fn other_file_systems_in_the_target_are_kept() {
    // What was mounted below a source was emptied when the backup was made with -x.
    let person = saved(|person| person.write("source/f", "f"));
    person.write("elsewhere/data", "other");
    let bound = person.path("elsewhere").display().to_string();
    let mounts = [
        mounted(&["-t", "tmpfs", "none"], &person.path("source/mnt")),
        mounted(&["--bind", &bound], &person.path("source/later/bound")),
    ];
    let [Some(_tmpfs), Some(_bound)] = &mounts else { return skipped("mounts in a target", "nothing can be mounted") };
    person.write("source/mnt/data", "other");
    person.write("source/later/x", "x");
    person.silt(&["backup", "-x", "source"]).ends_with(0);
    fs::remove_file(person.path("source/f")).expect("removed");
    person
        .silt(&["restore", &latest(&person, "source").replace("latest", "latest~1"), "--target", "source", "--delete"])
        .ends_with(0);
    assert_eq!(text(&person, "source/mnt/data") + &text(&person, "elsewhere/data"), "otherother");
    assert!(!person.path("source/later/x").exists() && person.path("source/f").exists());
}

/// A snapshot of `/s` with the directories `whole` and `part`, each with a file `f`.
fn handmade(folder: &Path, change: impl FnOnce(&mut Snapshot, &mut Vec<Entry>)) -> (Repository, Snapshot) {
    let repo = open(Arc::new(memory(SWAPS)), &folder.join("cache")).expect("it opens");
    fs::create_dir_all(folder.join("empty")).expect("made");
    let report = repo.backup(options(&folder.join("empty")), &Watch::silent()).expect("a backup");
    let mut snapshot = report.snapshot.expect("it was made");
    let how = SinkOptions { lanes: 1, compression: siltstone::seal::Compression::Auto, memory_bytes: 32 << 20 };
    let writer = repo.writer("host", &how, &Watch::silent()).expect("it begins");
    let mut store = |bytes: Vec<u8>| writer.sink().store_tree(0, &bytes);
    let mut file = Entry::new(&b"f"[..], EntryKind::File);
    (file.size, file.content, file.meta.mode) = (4, Content::Inline(b"kept".to_vec()), 0o644);
    let page = store_page(&[file], &mut store).expect("stored");
    let directory = |name: &[u8], page| {
        let mut entry = Entry::new(name, EntryKind::Directory);
        (entry.content, entry.meta.mode) = (Content::Tree(page), 0o755);
        entry
    };
    let mut entries = vec![directory(b"part", page), directory(b"whole", page)];
    change(&mut snapshot, &mut entries);
    let below = store_page(&entries, &mut store).expect("stored");
    snapshot.root = store_page(&[directory(b"s", below)], &mut store).expect("stored");
    snapshot.sources = vec![SnapshotSource::Tree { path: PathText(b"/s".to_vec()) }];
    snapshot.id.0[0] ^= 1;
    writer.commit(&snapshot).expect("it commits");
    (repo, snapshot)
}

fn deletes(repo: &Repository, snapshot: &Snapshot, target: &Path) -> RestoreReport {
    for name in ["part", "whole"] {
        fs::create_dir_all(target.join(name)).expect("made");
        fs::write(target.join(name).join("later"), b"later").expect("written");
    }
    let how = RestoreOptions { path: Some(b"/s".to_vec()), delete: true, ..RestoreOptions::new(target.to_owned()) };
    repo.plan_restore(snapshot, how, &Watch::silent()).expect("planned").run(&Watch::silent()).expect("restored")
}

#[test]
fn nothing_is_deleted_where_the_backup_did_not_see_everything() {
    // A directory that was filtered, unreadable or left out was emptied.
    let folder = tempfile::tempdir().expect("a folder");
    let (repo, snapshot) = handmade(folder.path(), |_, entries| entries[0].is_partial = true);
    let target = folder.path().join("marked");
    let report = deletes(&repo, &snapshot, &target);
    assert_eq!((report.partial_directories, report.files_deleted), (1, 1));
    assert!(target.join("part/later").exists() && !target.join("whole/later").exists());

    // Snapshots without marks name what could not be read.
    let folder = tempfile::tempdir().expect("a folder");
    let warning = |path: &str| Warning { path: PathText(path.into()), what: "cannot be read".to_owned() };
    let (repo, snapshot) = handmade(folder.path(), |snapshot, _| {
        snapshot.warnings = vec![warning("/s/part"), warning("/s/whole/secret")];
        snapshot.warnings_count = 2;
    });
    let target = folder.path().join("named");
    fs::create_dir_all(target.join("whole/secret/below")).expect("made");
    deletes(&repo, &snapshot, &target);
    assert!(target.join("part/later").exists() && target.join("whole/secret/below").exists());
    assert!(!target.join("whole/later").exists());

    // Or have more warnings than they name.
    let folder = tempfile::tempdir().expect("a folder");
    let (repo, snapshot) = handmade(folder.path(), |snapshot, _| snapshot.warnings_count = 1);
    let target = folder.path().join("cut");
    deletes(&repo, &snapshot, &target);
    assert!(target.join("whole/later").exists());
}

#[test]
fn a_page_that_cannot_be_read_deletes_nothing_and_costs_itself_only() {
    // One damaged page, and nothing at all was restored; what it names must not be taken for too much either, nor what it may name.
    let folder = tempfile::tempdir().expect("a folder");
    let (repo, snapshot) = handmade(folder.path(), |_, entries| {
        entries[0].content = Content::Tree(siltstone::id::ChunkId([9; 24]));
    });
    let target = folder.path().join("target");
    let report = deletes(&repo, &snapshot, &target);
    assert_eq!((report.damaged, report.warnings_count, report.files), (1, 2, 1));
    assert!(target.join("part/later").exists() && target.join("whole/later").exists());
    assert_eq!(fs::read(target.join("whole/f")).expect("restored"), b"kept");
}

#[test]
fn only_what_the_plan_named_is_deleted() {
    // What came into being between plan and deed would be deleted unseen.
    let folder = tempfile::tempdir().expect("a folder");
    let (repo, snapshot) = handmade(folder.path(), |_, _| {});
    let target = folder.path().join("target");
    fs::create_dir_all(target.join("whole/later")).expect("made");
    fs::write(target.join("whole/later/x"), b"x").expect("written");
    let how = RestoreOptions { path: Some(b"/s".to_vec()), delete: true, ..RestoreOptions::new(target.clone()) };
    let plan = repo.plan_restore(&snapshot, how, &Watch::silent()).expect("planned");
    assert_eq!(plan.summary.deletions.first, [&b"/s/whole/later"[..], b"/s/whole/later/x"]);
    fs::write(target.join("whole/later/new"), b"n").expect("written");
    let report = plan.run(&Watch::silent()).expect("restored");
    assert_eq!(report.files_deleted, 1);
    assert!(target.join("whole/later/new").exists() && !target.join("whole/later/x").exists());
}

/// A silt repository of a person, made by a first backup of some folder.
fn repository_of(person: &Person, name: &str, source: &str) -> [(&'static str, String); 3] {
    person.write(&format!("{source}/f"), "f");
    let environment = [
        ("SILT_REPOSITORY", person.path(name).display().to_string()),
        ("SILT_CACHE_DIR", person.path("caches").display().to_string()),
        ("SILT_PASSWORD", "p".to_owned()),
    ];
    with(person, &environment, &["init"]).ends_with(0);
    with(person, &environment, &["backup", source]).ends_with(0);
    environment
}

fn with(person: &Person, environment: &[(&'static str, String); 3], words: &[&str]) -> Said {
    let environment: Vec<(&str, &str)> = environment.iter().map(|(name, value)| (*name, value.as_str())).collect();
    person.silt_with(&environment, words)
}

#[test]
fn nothing_is_restored_into_the_repository_or_the_cache_in_use() {
    // `--target repo/packs --delete` removed all packs of the repository that it restored from, and ended with 0.
    let person = Person::new();
    let environment = repository_of(&person, "repo", "source");
    let before = contents(&person.path("repo"));
    let named = latest(&person, "source");
    for target in ["repo", "repo/packs", "repo/keys", "repo/new", "repo/new/below", "caches", "caches/last-key"] {
        for more in [&["--delete"][..], &[], &["--dry-run"]] {
            let words = [&["restore", &named, "--target", target], more].concat();
            let said = with(&person, &environment, &words).ends_with(1);
            assert!(said.err.contains("inside the repository in use or a cache"), "{target}: {}", said.err);
        }
    }
    assert!(contents(&person.path("repo")) == before && person.path("caches/CACHEDIR.TAG").exists());
    std::os::unix::fs::symlink("nowhere", person.path("dangling")).unwrap();
    for (target, why) in [("dangling", "a broken symbolic link"), ("caches/CACHEDIR.TAG", "not a directory")] {
        let said = with(&person, &environment, &["restore", &named, "--target", target]).ends_with(1);
        assert!(said.err.contains(&format!("it is {why}\nhint: ")), "{target}: {}", said.err);
    }
}

#[test]
fn another_repository_loses_nothing_to_a_restore_with_delete() {
    // One that was saved as plain files was rolled back by `--delete`; one that was the target itself was wiped.
    let person = Person::new();
    let other = repository_of(&person, "data/other", "source");
    let own = repository_of(&person, "repo", "docs");
    with(&person, &own, &["backup", "data"]).ends_with(0);
    let saved = latest(&person, "data");
    with(&person, &other, &["backup", "source"]).ends_with(0);
    let count =
        || with(&person, &other, &["snapshots", "--json"]).ends_with(0).json()["snapshots"].as_array().map(Vec::len);
    let target = person.path("data").display().to_string();
    with(&person, &own, &["restore", &saved, "--target", &target, "--delete"]).ends_with(0);
    assert_eq!(count(), Some(2));
    let docs = format!("latest~1:{}", person.path("docs").display());
    let part = person.path("data/other").display().to_string();
    with(&person, &own, &["restore", &docs, "--target", &part, "--delete"]).ends_with(0);
    assert_eq!(count(), Some(2));
    // One whose configuration is damaged can still be rescued.
    let config = fs::read(person.path("data/other/config")).expect("read");
    fs::write(person.path("data/other/config"), [b"x", &config[1..]].concat()).expect("written");
    person.write("data/extra", "extra");
    with(&person, &own, &["restore", &docs, "--target", &target, "--delete"]).ends_with(0);
    fs::write(person.path("data/other/config"), config).expect("written");
    assert!(!person.path("data/extra").exists());
    assert_eq!(count(), Some(2));
}

#[test]
fn a_directory_in_the_way_is_emptied_only_if_all_of_it_goes() {
    // What could go was deleted, then a part stayed, and so did the directory: files were lost for nothing.
    let person = Person::new();
    let environment = repository_of(&person, "repo", "source");
    person.write("target/f/goes", "x");
    person.write("target/f/deep/stays.log", "x");
    let words = ["restore", &latest(&person, "source"), "--target", "target", "--delete", "--exclude", "*.log"];
    let plan = with(&person, &environment, &[&words[..], &["--dry-run"]].concat());
    assert!(!plan.out.contains("goes"), "{}", plan.out);
    with(&person, &environment, &words).ends_with(3);
    assert!(person.path("target/f/goes").exists() && person.path("target/f/deep/stays.log").exists());
}

#[test]
fn folders_above_the_sources_are_not_told_of_as_saved_in_part() {
    let person = Person::new();
    let environment = repository_of(&person, "repo", "source");
    let said = with(&person, &environment, &["restore", "latest", "--target", "out"]).ends_with(0);
    assert!(!said.err.contains("only a part"), "{}", said.err);
}

#[test]
fn what_a_closed_directory_hid_from_the_plan_is_told() {
    // Without root, a directory of mode 000 was opened up, and what should have been deleted in it stayed: exit 0.
    let person = saved(|person| person.write("source/d/f", "f"));
    for mode in [0, 0o100, 0o300, 0o500] {
        person.write("source/d/later", "later");
        chmod(&person, "source/d", mode);
        let words = ["restore", &latest(&person, "source"), "--target", "source", "--delete"];
        let is_hidden = mode != 0o500;
        let said = as_nobody(&person, &words).ends_with(if is_hidden { 3 } else { 0 });
        assert_eq!(said.err.contains("run the restore again"), is_hidden, "{}", said.err);
        as_nobody(&person, &words).ends_with(0);
        assert!(!person.path("source/d/later").exists());
    }
}

/// A directory in the place of a source that is a file stayed for ever, even with --delete.
#[test]
fn a_directory_in_the_place_of_a_source_that_is_a_file_makes_way() {
    let person = Person::new();
    person.write("dir/file", "saved");
    person.write("dir/other", "other");
    person.silt(&["backup", "dir/file"]).ends_with(0);
    fs::remove_file(person.path("dir/file")).expect("removed");
    person.write("dir/file/below/x", "extra");
    person.silt(&["restore", "latest", "--target", "/"]).ends_with(3);
    assert!(person.path("dir/file/below/x").exists());
    let words = ["restore", "latest", "--target", "/", "--delete"];
    let plan = person.silt(&[&words[..], &["--dry-run"]].concat()).ends_with(0);
    assert!(plan.out.contains("file/below/x"), "{}", plan.out);
    person.silt(&words).ends_with(0);
    assert_eq!(text(&person, "dir/file") + &text(&person, "dir/other"), "savedother");
    // What an interrupted restore leaves there is not called extra, and a person learns what to do.
    let left = leftover();
    person.write(&format!("dir/{left}/x"), "extra");
    let done = person.silt(&words).ends_with(0);
    assert!(done.err.contains(&left) && done.err.contains("delete it by hand"), "{}", done.err);
    assert!(person.path(&format!("dir/{left}/x")).exists());
}

/// A file was renamed since the backup, and its content in the repository was damaged: the restore deleted the file, which was the only
/// copy, and from which the next backup would have repaired the repository.
#[test]
fn nothing_is_deleted_if_something_could_not_be_restored() {
    let person = saved(|person| {
        person.write("source/other/f", "f");
        person.write("source/a-file", "file");
    });
    let letter = crate::golden::noise(300_000, 7);
    person.write("source/docs/letter", &letter);
    person.silt(&["backup", "source"]).ends_with(0);
    let packs = contents(&person.path("data/siltstone/repository/packs"));
    let sizes = packs.keys().map(|path| person.path("data/siltstone/repository/packs").join(path));
    let largest = sizes.filter(|path| path.is_file()).max_by_key(|path| path.metadata().map_or(0, |meta| meta.len()));
    let largest = largest.expect("there are packs");
    let pack = fs::read(&largest).expect("read");
    fs::write(&largest, vec![0; pack.len()]).expect("damaged");
    fs::rename(person.path("source/docs"), person.path("source/docs2")).expect("renamed");
    person.write("source/other/extra", "extra");
    // In the place of a file.
    fs::remove_file(person.path("source/a-file")).expect("removed");
    person.write("source/a-file/letter", &letter);
    let done = restore(&person, &["--delete"]).ends_with(6);
    assert!(done.err.contains("they may be the only copy of it"), "{}", done.err);
    assert_eq!(fs::read(person.path("source/docs2/letter")).expect("it is there"), letter);
    assert_eq!(text(&person, "source/other/extra"), "extra");
    assert!(done.err.contains("/a-file: a directory is in its place, and was kept, because"), "{}", done.err);
    assert_eq!(fs::read(person.path("source/a-file/letter")).expect("it is there"), letter);
    // Once it can be restored, the others go.
    fs::write(&largest, pack).expect("repaired");
    fs::remove_dir_all(person.path("cache")).expect("removed");
    restore(&person, &["--delete"]).ends_with(0);
    assert!(!person.path("source/docs2").exists() && !person.path("source/other/extra").exists());
    assert_eq!(fs::read(person.path("source/docs/letter")).expect("it is there"), letter);
    assert_eq!(text(&person, "source/a-file"), "file");
}
