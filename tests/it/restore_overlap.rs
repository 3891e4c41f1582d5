//! Sources that were apart when they were saved, and may be in one another now: nothing is deleted, and nothing restored twice.

use crate::person::{Person, Said, contents, on_one_processor};
use crate::restore::text;
use crate::skip::skipped;
use crate::undone::mounted;
use std::collections::{BTreeSet, HashMap};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

/// A person with a snapshot of `work` and `home/anna/docs`.
fn two_sources() -> Person {
    let person = Person::new();
    person.write("work/d", "work");
    person.write("home/anna/docs/thesis", "thesis");
    person.silt(&["backup", "work", "home/anna/docs"]).ends_with(0);
    person
}

/// `home` was moved into `work`, with a link at its old place. `--delete` in `work` deleted what was restored through the link.
#[test]
fn a_source_that_is_inside_another_one_now_is_not_deleted_for_it() {
    for is_there in [true, false] {
        let person = two_sources();
        person.write("work/extra/x", "extra");
        fs::rename(person.path("home"), person.path("work/home")).expect("moved");
        symlink(person.path("work/home"), person.path("home")).expect("linked");
        if !is_there {
            fs::remove_dir_all(person.path("work/home/anna/docs")).expect("removed");
        }
        for more in [&["--dry-run"][..], &[]] {
            let words = [&["restore", "latest", "--target", "/", "--delete"][..], more].concat();
            let done = person.silt(&words).ends_with(0);
            assert!(done.err.contains("work/home was not deleted: it is on the way to a source"), "{}", done.err);
        }
        assert_eq!(text(&person, "home/anna/docs/thesis") + &text(&person, "work/d"), "thesiswork");
        assert!(!person.path("work/extra").exists());
        // By itself, a source is what it was.
        person.write("work/extra/x", "extra");
        let named = format!("latest:{}", person.path("home/anna/docs").display());
        person.write("home/anna/docs/extra", "extra");
        person.silt(&["restore", &named, "--target", "home/anna/docs", "--delete"]).ends_with(0);
        assert!(!person.path("home/anna/docs/extra").exists());
        let named = format!("latest:{}", person.path("work").display());
        person.silt(&["restore", &named, "--target", "work", "--delete"]).ends_with(0);
        assert!(!person.path("work/extra").exists());
        assert_eq!(text(&person, "home/anna/docs/thesis"), "thesis");
    }
}

/// The same in a target elsewhere.
#[test]
fn a_link_in_the_target_leads_into_another_source() {
    let person = two_sources();
    let below = |name: &str| in_out(&person, name);
    fs::create_dir_all(below("work/home/anna")).expect("made");
    symlink(person.path("work").join("home"), below("home")).expect("linked");
    for more in [&[][..], &["--delete"]] {
        person.silt(&[&["restore", "latest", "--target", "out"][..], more].concat()).ends_with(0);
        assert_eq!(fs::read_to_string(below("work/home/anna/docs/thesis")).expect("it is there"), "thesis");
    }
}

/// Two sources were one directory through a mount: one took the files of the other, or deleted them, and all was well.
#[test]
fn nothing_is_restored_into_a_directory_that_is_two_sources() {
    let person = Person::new();
    for (name, content) in [("one/a/f", "one"), ("one/a/only", "1"), ("two/a/f", "second"), ("two/a/other", "2")] {
        person.write(name, content);
    }
    person.silt(&["backup", "one/a", "two/a"]).ends_with(0);
    let before = contents(&person.path("two/a"));
    let held = mounted(&["--bind", person.path("two/a").to_str().expect("text")], &person.path("one/a"));
    if held.is_none() {
        return skipped("two sources in one directory", "nothing can be mounted");
    }
    for more in [&["--delete", "--dry-run"][..], &[], &["--delete"]] {
        let done = person.silt(&[&["restore", "latest", "--target", "/"][..], more].concat()).ends_with(3);
        assert_eq!(
            done.err.matches("which belongs to another source of the snapshot, and was not restored").count(),
            2,
            "{}",
            done.err
        );
        assert!(person.path("two/a/other").exists() && person.path("two/a").exists());
    }
    assert!(contents(&person.path("two/a")) == before, "neither of them is restored");
    for name in ["one/a", "two/a"] {
        let named = format!("latest:{}", person.path(name).display());
        let target = person.path("two/a").display().to_string();
        person.silt(&["restore", &named, "--target", &target, "--delete"]).ends_with(0);
    }
}

/// A link above a source leads to a directory of another source, in which both have a file of one name: the last one won.
#[test]
fn no_file_is_restored_twice() {
    let person = Person::new();
    for name in ["one/f", "two/f", "three/sub/f", "four/f"] {
        person.write(name, name);
    }
    person.silt(&["backup", "one/f", "two/f", "three", "four/f"]).ends_with(0);
    for (name, to) in [("two", "one"), ("four", "three/sub")] {
        fs::remove_dir_all(person.path(name)).expect("removed");
        symlink(person.path(to), person.path(name)).expect("linked");
    }
    for _ in 0..2 {
        let done = person.silt(&["restore", "latest", "--target", "/", "--overwrite", "always"]).ends_with(3);
        assert_eq!(done.err.matches("  /").count(), 2, "{}", done.err);
        assert_eq!(
            text(&person, "one/f") + &text(&person, "three/sub/f"),
            "one/ffour/f",
            "the first one in the order of paths"
        );
    }
}

/// What was already so when it was saved is saved twice: the restore of what had not changed ended with 3.
#[test]
fn what_was_saved_twice_is_no_conflict() {
    let person = Person::new();
    person.write("work/below/data/f", "saved");
    symlink(person.path("work/below"), person.path("link")).expect("linked");
    person.silt(&["backup", "work", "link/data"]).ends_with(0);
    // With the directory itself removed, two threads met it, and one said that another program had created it.
    for round in 0..20 {
        match round % 2 {
            0 => fs::remove_file(person.path("work/below/data/f")).expect("removed"),
            _ => fs::remove_dir_all(person.path("work/below/data")).expect("removed"),
        }
        person.silt(&["restore", "latest", "--target", "/"]).ends_with(0);
        assert_eq!(text(&person, "work/below/data/f"), "saved");
    }
}

/// A target in a directory that may be written and not be listed was refused.
#[test]
fn a_target_can_be_made_where_nothing_can_be_listed() {
    let person = two_sources();
    fs::create_dir(person.path("drop")).expect("made");
    crate::restore::chmod(&person, "drop", 0o300);
    let named = format!("latest:{}", person.path("work").display());
    let done = crate::restore::as_nobody(&person, &["restore", &named, "--target", "drop/new"]);
    crate::restore::chmod(&person, "drop", 0o700);
    done.ends_with(0);
    assert_eq!(text(&person, "drop/new/d"), "work");
}

/// A link above a source led into another repository, of which packs were deleted.
#[test]
fn a_link_above_a_source_into_a_repository_is_seen() {
    let person = two_sources();
    person.silt(&["init", "--repo", "other", "--key-file", "other.key"]).ends_with(0);
    person.silt(&["backup", "work", "--repo", "other", "--key-file", "other.key"]).ends_with(0);
    let name =
        fs::read_dir(person.path("other/packs")).expect("listed").next().expect("a folder").expect("read").file_name();
    let name = name.to_str().expect("text");
    person.write(&format!("above/{name}/f"), "saved");
    person.silt(&["backup", &format!("above/{name}")]).ends_with(0);
    fs::remove_dir_all(person.path("above")).expect("removed");
    symlink(person.path("other/packs"), person.path("above")).expect("linked");
    let before = contents(&person.path("other/packs"));
    person.silt(&["restore", "latest", "--target", "/", "--delete"]).ends_with(0);
    fs::remove_file(person.path(&format!("other/packs/{name}/f"))).expect("it was restored");
    assert_eq!(contents(&person.path("other/packs")).len(), before.len());
    // Of the repository in use nothing is touched.
    fs::remove_file(person.path("above")).expect("removed");
    let packs = person.path("data/siltstone/repository/packs");
    symlink(packs, person.path("above")).expect("linked");
    let done = person.silt(&["restore", "latest", "--target", "/", "--delete"]).ends_with(3);
    assert!(done.err.contains("repository or the cache in use"), "{}", done.err);
}

/// Restores with these words after a dry run of the same: both end with the code.
pub fn both(person: &Person, words: &[&str], code: i32) -> Said {
    let plan = person.silt(&[words, &["--dry-run"]].concat()).ends_with(code);
    let done = person.silt(words).ends_with(code);
    // In any order, as several threads meet them.
    let warnings = |said: &Said| {
        let lines = said.err.lines().filter(|line| line.starts_with("  /"));
        lines.map(str::to_owned).collect::<BTreeSet<_>>()
    };
    assert_eq!(warnings(&plan), warnings(&done));
    done
}

/// What `latest:` calls a path.
/// Where a restore of everything into `out` puts what has this name.
pub fn in_out(person: &Person, name: &str) -> PathBuf {
    person.path("out").join(person.path(name).strip_prefix("/").expect("absolute"))
}

pub fn named(person: &Person, name: &str) -> String {
    format!("latest:{}", person.path(name).display())
}

/// Only sources were kept that a link above them led into: not those that are links themselves.
#[test]
fn a_source_that_was_moved_and_linked_is_not_deleted() {
    let person = Person::new();
    person.write("work/d", "work");
    person.write("docs/f", "saved");
    person.silt(&["backup", "work", "docs"]).ends_with(0);
    fs::rename(person.path("docs"), person.path("work/docs")).expect("moved");
    symlink(person.path("work/docs"), person.path("docs")).expect("linked");
    person.write("work/docs/newer", "newer");
    person.write("work/extra", "extra");
    let (part, target) = (named(&person, "work"), person.path("work").display().to_string());
    let done = both(&person, &["restore", &part, "--target", &target, "--delete"], 0);
    assert!(done.err.contains("work/docs was not deleted: it is "), "{}", done.err);
    assert_eq!(text(&person, "work/docs/newer") + &text(&person, "docs/f"), "newersaved");
    assert!(!person.path("work/extra").exists());
}

/// With a path above a source, other sources were deleted without a word.
#[test]
fn a_part_above_a_source_keeps_other_sources() {
    let person = Person::new();
    person.write("home/anna/f", "anna");
    person.write("srv/x/f", "saved");
    person.silt(&["backup", "home/anna", "srv/x"]).ends_with(0);
    fs::rename(person.path("srv"), person.path("home/anna/srv")).expect("moved");
    symlink(person.path("home/anna/srv"), person.path("srv")).expect("linked");
    person.write("srv/x/newer", "newer");
    for name in ["home", "home/anna"] {
        let target = person.path(name).display().to_string();
        both(&person, &["restore", &named(&person, name), "--target", &target, "--delete"], 0);
        assert_eq!(text(&person, "srv/x/newer") + &text(&person, "srv/x/f"), "newersaved");
    }
}

/// The snapshot had a directory where another source is now: what the other source had was deleted and replaced, in it and in the
/// directories below.
#[test]
fn nothing_is_restored_into_what_is_another_source_now() {
    let person = Person::new();
    person.write("data/k/sub/f", "old data");
    person.write("data/file", "data");
    person.write("g/sub/f", "g");
    person.write("e/b", "saved");
    person.silt(&["backup", "data", "g", "e/b"]).ends_with(0);
    fs::remove_dir_all(person.path("data/k")).expect("removed");
    fs::rename(person.path("g"), person.path("data/k")).expect("moved");
    symlink(person.path("data/k"), person.path("g")).expect("linked");
    person.write("g/sub/f", "newer");
    person.write("g/sub/new", "new");
    person.write("e/b", "newer");
    fs::rename(person.path("e/b"), person.path("data/file")).expect("moved");
    symlink(person.path("data/file"), person.path("e/b")).expect("linked");
    let target = person.path("data").display().to_string();
    let part = named(&person, "data");
    for more in [&["--delete"][..], &[], &["--overwrite", "always"]] {
        let words = [&["restore", &part, "--target", &target], more].concat();
        let done = both(&person, &words, 3);
        assert!(
            done.err.contains("which belongs to another source of the snapshot, and was not restored"),
            "{}",
            done.err
        );
        assert!(done.err.contains("file: it now is, leads to or holds the data of another source"), "{}", done.err);
        assert_eq!(text(&person, "g/sub/f") + &text(&person, "g/sub/new") + &text(&person, "e/b"), "newernewnewer");
    }
    // By itself, it is restored.
    let target = person.path("g").display().to_string();
    person.silt(&["restore", &named(&person, "g"), "--target", &target]).ends_with(0);
    assert_eq!(text(&person, "g/sub/f"), "g");
}

/// Two sources became one directory: the restore of one of them deleted what the other one had more.
#[test]
fn nothing_is_deleted_in_a_target_that_is_another_source() {
    let person = Person::new();
    person.write("a/f", "a");
    person.write("a/sub/f", "a");
    person.write("b/g", "b");
    person.write("b/sub/g", "b");
    person.write("x/src/f", "x");
    person.write("y/src/g", "y");
    person.silt(&["backup", "a", "b", "x/src", "y/src"]).ends_with(0);
    for (gone, into) in [("a", "b"), ("x", "y")] {
        fs::remove_dir_all(person.path(gone)).expect("removed");
        symlink(person.path(into), person.path(gone)).expect("linked");
    }
    person.write("b/new", "new");
    person.write("b/sub/new", "new");
    person.write("y/src/new", "new");
    for (name, code, kept) in [("a", 0, "b"), ("x", 3, "y/src"), ("a/sub", 0, "b")] {
        let target = person.path(name).display().to_string();
        let done = both(&person, &["restore", &named(&person, name), "--target", &target, "--delete"], code);
        assert!(done.err.contains("which belongs to another source of the snapshot"), "{}", done.err);
        assert!(person.path(&format!("{kept}/g")).exists() && person.path(&format!("{kept}/new")).exists());
        assert!(person.path("b/sub/new").exists() && person.path("b/sub/g").exists());
    }
}

/// What led to another source was deleted or replaced as extra: a link on the way, or the directory of a mount in it.
#[test]
fn the_way_to_another_source_is_kept() {
    let person = Person::new();
    person.write("a/f", "a");
    person.write("g/g", "saved");
    person.write("m/sub/f", "m");
    person.silt(&["backup", "a", "g", "m"]).ends_with(0);
    fs::create_dir_all(person.path("a/passed")).expect("made");
    fs::rename(person.path("g"), person.path("far")).expect("moved");
    symlink("passed/../../far", person.path("a/link")).expect("linked");
    symlink(person.path("a/link"), person.path("g")).expect("linked");
    fs::rename(person.path("m/sub"), person.path("a/sub")).expect("moved");
    fs::create_dir(person.path("m/sub")).expect("made");
    let held = mounted(&["--bind", person.path("a/sub").to_str().expect("text")], &person.path("m/sub"));
    person.write("a/extra", "extra");
    let target = person.path("a").display().to_string();
    let done = both(&person, &["restore", &named(&person, "a"), "--target", &target, "--delete"], 0);
    assert_eq!(text(&person, "g/g"), "saved");
    assert!(!person.path("a/extra").exists(), "{}", done.err);
    match held {
        Some(_held) => assert_eq!(text(&person, "m/sub/f"), "m"),
        None => skipped("a directory mounted in another source", "nothing can be mounted"),
    }
}

/// What stays of extra entries stayed without a word.
#[test]
fn extra_entries_that_stay_are_told() {
    let person = Person::new();
    person.write("a/f", "a");
    person.silt(&["backup", "a"]).ends_with(0);
    for name in ["keys", "packs", "index", "snapshots"] {
        person.write(&format!("a/other/{name}/x"), "x");
    }
    fs::create_dir_all(person.path("a/extra/mount")).expect("made");
    let held = mounted(&["-t", "tmpfs", "none"], &person.path("a/extra/mount"));
    let done = both(&person, &["restore", "latest", "--target", "/", "--delete"], 0);
    assert!(done.err.contains("other was not deleted: it is a repository"), "{}", done.err);
    match held {
        Some(_held) => assert!(done.err.contains("mount was not deleted: another file system"), "{}", done.err),
        None => skipped("a mount in an extra directory", "nothing can be mounted"),
    }
}

/// A link above the only source hid from the restore what is mounted in it.
#[test]
fn mounts_behind_a_link_are_seen() {
    let person = Person::new();
    person.write("x/src/a/f", "a");
    person.write("x/src/b/f", "second");
    person.silt(&["backup", "x/src"]).ends_with(0);
    fs::rename(person.path("x"), person.path("real")).expect("moved");
    symlink(person.path("real"), person.path("x")).expect("linked");
    let from = person.path("real/src/a").display().to_string();
    let Some(_held) = mounted(&["--bind", &from], &person.path("real/src/b")) else {
        return skipped("mounts behind a link", "nothing can be mounted");
    };
    let done = both(&person, &["restore", "latest", "--target", "/", "--delete"], 3);
    assert!(done.err.contains("has the same place now, and was restored instead"), "{}", done.err);
    assert_eq!(text(&person, "x/src/a/f"), "a");
}

/// A link above a source led through a link that the restore itself replaced: the plan went one way, the restore another.
#[test]
fn a_link_on_the_way_to_another_source_is_not_replaced() {
    let person = Person::new();
    for name in ["a/v1/e", "a/v2/e"] {
        fs::create_dir_all(person.path(name)).expect("made");
    }
    symlink("v2", person.path("a/current")).expect("linked");
    person.write("b/src/f", "saved");
    person.silt(&["backup", "a", "b/src"]).ends_with(0);
    fs::remove_file(person.path("a/current")).expect("removed");
    symlink("v1", person.path("a/current")).expect("linked");
    fs::rename(person.path("b"), person.path("moved")).expect("moved");
    symlink(person.path("a/current/e"), person.path("b")).expect("linked");
    person.write("a/v2/e/src/f", "mine");
    fs::create_dir(person.path("a/v1/e/src")).expect("made");
    let done = both(&person, &["restore", "latest", "--target", "/"], 3);
    assert!(done.err.contains("current: it now is, leads to or holds the data of another source"), "{}", done.err);
    assert_eq!(text(&person, "a/v2/e/src/f") + &text(&person, "a/v1/e/src/f"), "minesaved");
}

/// A directory that was met before counted as restored, whatever the filters had left out of it there.
#[test]
fn filters_let_through_what_another_way_left_out() {
    let person = Person::new();
    person.write("work/below/data/a", "a");
    person.write("work/below/data/b", "b");
    symlink(person.path("work/below"), person.path("link")).expect("linked");
    person.silt(&["backup", "work", "link/data"]).ends_with(0);
    let path = |name: &str| person.path(name).display().to_string();
    let filters = [
        ["--include", &path("work/below/data/a"), "--include", &path("link/data/b")],
        ["--exclude", &path("link/data/a"), "--exclude", &path("work/below/data/b")],
    ];
    for filter in &filters {
        for name in ["a", "b"] {
            fs::remove_file(person.path(&format!("work/below/data/{name}"))).expect("removed");
        }
        both(&person, &[&["restore", "latest", "--target", "/"], &filter[..]].concat(), 0);
        assert_eq!(text(&person, "work/below/data/a") + &text(&person, "work/below/data/b"), "ab");
    }
}

/// A file was refused for a name that the other source did not have, and links that differ only in what they point to were
/// taken for the same.
#[test]
fn a_name_is_taken_only_if_another_source_has_it() {
    for (directory, file) in [("a", "b"), ("b", "a")] {
        let person = Person::new();
        person.write(&format!("{directory}/g"), "g");
        person.write(&format!("{file}/f"), "f");
        person.silt(&["backup", directory, &format!("{file}/f")]).ends_with(0);
        fs::remove_dir_all(person.path(file)).expect("removed");
        symlink(person.path(directory), person.path(file)).expect("linked");
        both(&person, &["restore", "latest", "--target", "/"], 0);
        assert_eq!(text(&person, &format!("{directory}/f")), "f");
    }
    let person = Person::new();
    for name in ["one", "two"] {
        fs::create_dir(person.path(name)).expect("made");
        symlink(name, person.path(&format!("{name}/link"))).expect("linked");
    }
    person.silt(&["backup", "one/link", "two/link"]).ends_with(0);
    fs::remove_dir_all(person.path("two")).expect("removed");
    symlink(person.path("one"), person.path("two")).expect("linked");
    let done = both(&person, &["restore", "latest", "--target", "/"], 3);
    assert!(done.err.contains("has the same place now, and was restored instead"), "{}", done.err);
}

/// Which source won depended on the threads, and a plan did not foresee that directories which are still to be made would meet.
#[test]
fn the_plan_knows_which_directory_wins() {
    let person = Person::new();
    for number in 0..8 {
        person.write(&format!("one/d{number}/f"), "one");
        person.write(&format!("two/d{number}/f"), "second");
    }
    let second: Vec<String> = (0..8).map(|number| format!("two/d{number}")).collect();
    let words: Vec<&str> = ["backup", "one"].into_iter().chain(second.iter().map(String::as_str)).collect();
    person.silt(&words).ends_with(0);
    fs::remove_dir_all(person.path("two")).expect("removed");
    symlink(person.path("one"), person.path("two")).expect("linked");
    for _ in 0..4 {
        let done = both(&person, &["restore", "latest", "--target", "/"], 3);
        assert_eq!(
            done.err.matches("which belongs to another source of the snapshot, and was not restored").count(),
            8,
            "{}",
            done.err
        );
        assert!((0..8).all(|number| text(&person, &format!("one/d{number}/f")) == "second"));
    }
    for is_there in [true, false] {
        let person = Person::new();
        person.write("p/a/x", "1");
        person.write("q/a/y", "2");
        person.silt(&["backup", "p/a", "q/a"]).ends_with(0);
        let below = |name: &str| in_out(&person, name);
        fs::create_dir_all(below(if is_there { "p" } else { "" })).expect("made");
        symlink("p", below("q")).expect("linked");
        let done = both(&person, &["restore", "latest", "--target", "out"], 3);
        let why = if is_there { "Restore one source at a time" } else { "does not lead to a directory" };
        assert!(done.err.contains(why), "{}", done.err);
        both(&person, &["restore", "latest", "--target", "out"], 3);
    }
}

/// The restore met a file that it had just restored itself in the place of a source, and the plan did not foresee it.
#[test]
fn a_file_and_a_directory_of_one_name_meet_in_the_plan_as_well() {
    for (file, directory) in [("work", "x"), ("x", "a")] {
        let person = Person::new();
        person.write(&format!("{file}/sub/name"), "file");
        person.write(&format!("{directory}/sub/name/f"), "directory");
        let sources = [("work", "work"), ("x", "x/sub/name"), ("a", "a")];
        let of = |name: &str| sources.iter().find(|(known, _)| *known == name).expect("it is one").1;
        person.silt(&["backup", of(file), of(directory)]).ends_with(0);
        // The one that is a source by its name comes back through a link above it.
        let (linked, to) = if file == "x" { ("x", directory) } else { ("x", file) };
        fs::remove_dir_all(person.path(linked)).expect("removed");
        fs::remove_dir_all(person.path(&format!("{to}/sub"))).expect("removed");
        fs::create_dir(person.path(&format!("{to}/sub"))).expect("made");
        symlink(person.path(to), person.path(linked)).expect("linked");
        let done = both(&person, &["restore", "latest", "--target", "/"], 3);
        assert!(done.err.contains("has the same place now, and was restored instead"), "{}", done.err);
    }
}

/// Two directories of one source were one by a mount, and the last one won; a mount of something else kept all extra entries.
#[test]
fn mounts_matter_only_where_they_meet_what_is_restored() {
    let person = Person::new();
    for (name, content) in [("one/a/f", "first"), ("one/b/f", "second"), ("other/x", "x"), ("two/f", "two")] {
        person.write(name, content);
    }
    fs::create_dir(person.path("one/c")).expect("made");
    person.silt(&["backup", "one", "two"]).ends_with(0);
    let words = ["restore", "latest", "--target", "/", "--delete"];
    let bind = |from: &str, to: &str| mounted(&["--bind", person.path(from).to_str().expect("text")], &person.path(to));
    let Some(held) = bind("other", "one/c") else {
        return skipped("mounts in what is restored", "nothing can be mounted");
    };
    person.write("two/extra", "extra");
    both(&person, &words, 0);
    assert!(!person.path("two/extra").exists() && person.path("other/x").exists());
    drop(held);
    let held = bind("one/a", "one/b");
    for _ in 0..2 {
        let done = both(&person, &words, 3);
        assert!(done.err.contains("has the same place now, and was restored instead"), "{}", done.err);
        assert_eq!(text(&person, "one/a/f"), "first");
    }
    drop(held);
}

/// Without /proc, mounts are not known: that counted as none, and later ended with 0.
#[test]
fn without_proc_nothing_is_deleted() {
    let person = two_sources();
    person.write("work/extra", "extra");
    let mut command = std::process::Command::new("unshare");
    let silt = person.command(&["restore", "latest", "--target", "/", "--delete"]);
    command.args(["-m", "sh", "-c", "mount -t tmpfs none /proc && exec \"$0\" \"$@\""]);
    command.arg(silt.get_program()).args(silt.get_args()).current_dir(person.home.path());
    command.envs(silt.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let done = command.output().map(crate::person::said);
    let Some(done) = done.ok().filter(|done| !done.err.contains("unshare") && !done.err.contains("mount:")) else {
        return skipped("a restore without /proc", "unshare cannot be used");
    };
    let done = done.ends_with(3);
    assert!(done.err.contains("nothing is deleted: cannot tell"), "{}", done.err);
    assert!(person.path("work/extra").exists());
}

/// A source inside another one was no source: its own file system was left alone, and a link in its place was replaced.
#[test]
fn a_source_inside_another_one_is_a_source() {
    let person = Person::new();
    person.write("a/f", "f");
    person.write("a/b/c/f", "saved");
    person.write("a/b/other", "other");
    let excluded = person.path("a/b").display().to_string();
    person.silt(&["backup", "a", "a/b/c", "--exclude", &excluded]).ends_with(0);
    fs::rename(person.path("a/b/c"), person.path("moved")).expect("moved");
    symlink(person.path("moved"), person.path("a/b/c")).expect("linked");
    let done = both(&person, &["restore", "latest", "--target", "/"], 3);
    assert!(done.err.contains("this source is now a symbolic link"), "{}", done.err);
    assert!(person.path("a/b/c").is_symlink() && person.path("a/b/other").exists());
    fs::remove_file(person.path("a/b/c")).expect("removed");
    fs::create_dir(person.path("a/b/c")).expect("made");
    let Some(_held) = mounted(&["-t", "tmpfs", "none"], &person.path("a/b/c")) else {
        return skipped("a source with a file system of its own", "nothing can be mounted");
    };
    person.write("a/b/c/extra", "extra");
    both(&person, &["restore", "latest", "--target", "/", "--delete"], 0);
    assert!(!person.path("a/b/c/extra").exists() && person.path("a/b/other").exists());
    assert_eq!(text(&person, "a/b/c/f"), "saved");
}

/// A source that came back below a directory of another one left it with the time of the restore, and exit code 0.
#[test]
fn a_directory_in_which_a_source_comes_back_has_its_time() {
    let person = Person::new();
    person.write("b/sub/f", "f");
    person.write("x/data/f", "saved");
    person.silt(&["backup", "b", "x/data"]).ends_with(0);
    fs::remove_dir_all(person.path("x")).expect("removed");
    symlink(person.path("b/sub"), person.path("x")).expect("linked");
    let time = || fs::metadata(person.path("b/sub")).and_then(|found| found.modified()).expect("it has one");
    let saved = time();
    both(&person, &["restore", "latest", "--target", "/"], 0);
    assert_eq!(time(), saved);
    assert_eq!(text(&person, "b/sub/data/f"), "saved");
}

/// A source that is a link was taken for the directory that it leads to, which was another source: nothing was restored into that.
#[test]
fn a_source_that_is_a_link_is_only_the_link() {
    let person = Person::new();
    person.write("releases/two/f", "saved");
    symlink("releases/two", person.path("current")).expect("linked");
    symlink(person.path("current"), person.path("newest")).expect("linked");
    person.silt(&["backup", "current", "newest", "releases"]).ends_with(0);
    fs::remove_file(person.path("releases/two/f")).expect("removed");
    person.write("releases/two/extra", "extra");
    both(&person, &["restore", "latest", "--target", "/", "--delete"], 0);
    assert_eq!(text(&person, "releases/two/f"), "saved");
    assert!(!person.path("releases/two/extra").exists());
}

/// What one source has mounted in another one was saved once, with `--one-file-system`: the empty mount point kept the content
/// from coming back.
#[test]
fn what_a_source_has_mounted_in_another_one_comes_back() {
    for more in [&["--one-file-system"][..], &[]] {
        let person = Person::new();
        person.write("srv/pub/f", "saved");
        person.write("home/ftp/f", "home");
        fs::create_dir(person.path("home/ftp/pub")).expect("made");
        let from = person.path("srv/pub").display().to_string();
        let Some(_held) = mounted(&["--bind", &from], &person.path("home/ftp/pub")) else {
            return skipped("what one source has mounted in another one", "nothing can be mounted");
        };
        person.silt(&[&["backup", "srv", "home"], more].concat()).ends_with(0);
        fs::remove_file(person.path("srv/pub/f")).expect("removed");
        both(&person, &["restore", "latest", "--target", "/"], 0);
        assert_eq!(text(&person, "srv/pub/f"), "saved");
        fs::remove_file(person.path("srv/pub/f")).expect("removed");
        let target = person.path("srv").display().to_string();
        both(&person, &["restore", &named(&person, "srv"), "--target", &target, "--delete"], 0);
        assert_eq!(text(&person, "srv/pub/f"), "saved");
    }
}

/// A directory stayed open for each directory that a source is in: with many of them, nothing was deleted.
#[test]
fn more_sources_than_descriptors_are_told_apart() {
    let person = Person::new();
    let sources: Vec<String> = (0..100).map(|number| format!("in{number}/source")).collect();
    sources.iter().for_each(|source| person.write(&format!("{source}/f"), "saved"));
    let words: Vec<&str> = ["backup"].into_iter().chain(sources.iter().map(String::as_str)).collect();
    person.silt(&words).ends_with(0);
    person.write("in7/source/extra", "extra");
    let done = crate::limits::limited(&person, "-n 64", &["restore", "latest", "--target", "/", "--delete"]);
    let done = done.ends_with(0);
    assert!(!person.path("in7/source/extra").exists(), "{}", done.err);
}

/// One error while the restore looked for mounts counted as "nothing is mounted there": two directories were mixed, with exit 0.
#[test]
fn no_error_hides_what_is_mounted() {
    let person = Person::new();
    person.write("in/one/a/f", "first");
    person.write("in/one/b/f", "second");
    person.silt(&["backup", "in/one"]).ends_with(0);
    let strace = std::process::Command::new("strace").args(["-o", "/dev/null", "true"]).status();
    let from = person.path("in/one/a").display().to_string();
    let held = mounted(&["--bind", &from], &person.path("in/one/b"));
    if held.is_none() || !strace.is_ok_and(|status| status.success()) {
        return skipped("errors while a restore looks for mounts", "nothing can be mounted, or strace is not there");
    }
    let silt = person.command(&["restore", "latest", "--target", "/"]);
    let restore = |by: &[&str]| {
        let mut traced = std::process::Command::new("strace");
        traced.args(["-f", "-qq"]).args(by).args(on_one_processor());
        traced.arg(silt.get_program()).args(silt.get_args()).current_dir(person.home.path());
        traced.envs(silt.get_envs().filter_map(|(name, value)| Some((name, value?))));
        crate::person::said(traced.output().expect("strace runs"))
    };
    let log = person.path("log").display().to_string();
    restore(&["-o", &log, "-e", "trace=openat"]);
    // Of each thread, which of its calls look at directories of the target: strace counts the calls of each.
    let mut calls: HashMap<String, usize> = HashMap::new();
    let mut of_target = BTreeSet::new();
    for line in text(&person, "log").lines() {
        let (thread, call) = line.split_once(' ').expect("a thread and its call");
        let count = calls.entry(thread.to_owned()).or_default();
        *count += usize::from(call.contains("openat("));
        if call.contains("O_DIRECTORY") && !call.contains("AT_FDCWD") {
            of_target.insert(*count);
        }
    }
    assert!(!of_target.is_empty(), "no directory is opened");
    for when in of_target {
        let inject = format!("inject=openat:error=EIO:when={when}");
        person.write("in/one/a/f", "first");
        let done = restore(&["-o", &log, "-e", "trace=openat", "-e", &inject]);
        assert!(text(&person, "log").contains("INJECTED"), "{when}: nothing failed");
        assert_ne!(done.code, 0, "{when}: {}{}", done.out, done.err);
        // What could not be opened was not restored, which is reported.
        let is_told = done.err.contains("in/one/a: cannot") || done.err.contains("in/one/a/f: cannot");
        assert!(text(&person, "in/one/a/f") == "first" || is_told, "{when}: {}", done.err);
    }
}
