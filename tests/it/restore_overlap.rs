//! Sources that were apart when they were saved, and may be in one another now: nothing is deleted, and nothing restored twice.

use crate::person::{Person, contents};
use crate::restore::text;
use crate::skip::skipped;
use crate::undone::mounted;
use std::fs;
use std::os::unix::fs::symlink;

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
            assert!(done.err.contains("nothing is deleted") && done.err.contains("symbolic link"), "{}", done.err);
        }
        assert_eq!(text(&person, "home/anna/docs/thesis") + &text(&person, "work/d"), "thesiswork");
        assert!(person.path("work/extra/x").exists());
        // By itself, a source is what it was.
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
    let below = |name: &str| person.path("out").join(person.path(name).strip_prefix("/").expect("absolute"));
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
        assert_eq!(done.err.matches("is the same directory as another one").count(), 1, "{}", done.err);
        assert!(person.path("two/a/other").exists() && person.path("two/a").exists());
    }
    // Whatever source was met first, no file is a mixture and nothing that was there is gone.
    assert!(["one", "second"].contains(&text(&person, "two/a/f").as_str()));
    assert!(before.keys().all(|name| contents(&person.path("two/a")).contains_key(name)));
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
    }
}

/// What was already so when it was saved is saved twice: the restore of what had not changed ended with 3.
#[test]
fn what_was_saved_twice_is_no_conflict() {
    let person = Person::new();
    person.write("work/below/data/f", "saved");
    symlink(person.path("work/below"), person.path("link")).expect("linked");
    person.silt(&["backup", "work", "link/data"]).ends_with(0);
    fs::remove_file(person.path("work/below/data/f")).expect("removed");
    for _ in 0..2 {
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
