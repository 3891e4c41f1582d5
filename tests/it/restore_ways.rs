//! One directory that is reached in two ways, of which one is closed, or has something else mounted below it.

use crate::person::Person;
use crate::restore::text;
use crate::restore_overlap::both;
use crate::skip::skipped;
use crate::undone::mounted;
use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};

/// A read-only mount was entered first, and what could not be restored there counted as restored for the other way, too.
#[test]
fn what_a_read_only_mount_refuses_is_restored_in_the_other_way() {
    for sources in [&["export", "srv"][..], &["."]] {
        let person = Person::new();
        person.write("in/srv/data/f", "f");
        person.write("in/srv/data/sub/g", "g");
        let from = person.path("in/srv/data").display().to_string();
        let Some(_held) = mounted(&["-o", "bind,ro", &from], &person.path("in/export/data")) else {
            return skipped("a directory that is mounted read-only elsewhere", "nothing can be mounted");
        };
        let sources: Vec<String> = sources.iter().map(|source| format!("in/{source}")).collect();
        let words: Vec<&str> = ["backup"].into_iter().chain(sources.iter().map(String::as_str)).collect();
        person.silt(&words).ends_with(0);
        fs::remove_dir_all(person.path("in/srv/data/sub")).expect("removed");
        person.write("in/srv/data/f", "changed");
        let done = both(&person, &["restore", "latest", "--target", "/"], 3);
        assert!(done.err.contains("export/data/f") && !done.err.contains("srv/data"), "{}", done.err);
        assert_eq!(text(&person, "in/srv/data/f") + &text(&person, "in/srv/data/sub/g"), "fg");
        both(&person, &["restore", "latest", "--target", "/"], 0);
    }
}

/// Names that the other way has of one inode were linked to what the read-only mount has, which failed, and made anew.
#[test]
fn names_of_one_file_stay_together_beside_a_read_only_mount() {
    let person = Person::new();
    person.write("a/f1", "one file");
    (2..5).for_each(|name| {
        fs::hard_link(person.path("a/f1"), person.path(&format!("a/f{name}"))).expect("linked");
    });
    let from = person.path("a").display().to_string();
    let Some(whole) = mounted(&["--bind", &from], &person.path("b")) else {
        return skipped("names of one file beside a read-only mount", "nothing can be mounted");
    };
    person.silt(&["backup", "a", "b"]).ends_with(0);
    drop(whole);
    for (closed, open) in [("a", "b"), ("b", "a")] {
        let real = person.path("a").display().to_string();
        let other = person.path("real");
        fs::create_dir_all(&other).expect("made");
        let held = [
            mounted(&["--bind", &real], &other),
            mounted(&["-o", "bind,ro", &real], &person.path(closed)),
            mounted(&["--bind", other.to_str().expect("text")], &person.path(open)),
        ];
        let inode = |name: &str| fs::metadata(person.path(&format!("{open}/{name}"))).expect("there").ino();
        let before = ["f1", "f3", "f4"].map(inode);
        fs::remove_file(person.path(&format!("{open}/f2"))).expect("removed");
        // The way that comes first is restored first.
        both(&person, &["restore", "latest", "--target", "/"], if closed == "a" { 3 } else { 0 });
        assert_eq!(["f1", "f3", "f4"].map(inode), before);
        assert_eq!(inode("f2"), before[0], "{open}");
        held.into_iter().rev().for_each(drop);
    }
}

/// What was restored in one way was taken for restored in the other way, though another file system hid it there; exit code 0.
#[test]
fn what_is_mounted_in_one_way_only_is_told() {
    for (hidden, open) in [("srv/data", "home/data"), ("home/data", "srv/data")] {
        let person = Person::new();
        person.write("srv/data/f", "f");
        person.write("srv/data/sub/g", "g");
        person.write("srv/data/too/h", "h");
        person.write("srv/data/empty/dropped", "");
        fs::remove_file(person.path("srv/data/empty/dropped")).expect("removed");
        let from = person.path("srv/data").display().to_string();
        let Some(_held) = mounted(&["--bind", &from], &person.path("home/data")) else {
            return skipped("a mount below one of two ways", "nothing can be mounted");
        };
        person.silt(&["backup", "srv", "home"]).ends_with(0);
        fs::remove_file(person.path("srv/data/sub/g")).expect("removed");
        // A mount of which nothing was saved hides nothing.
        let empty = mounted(&["-t", "tmpfs", "none"], &person.path(&format!("{hidden}/empty")));
        both(&person, &["restore", "latest", "--target", "/"], 0);
        assert_eq!(text(&person, "srv/data/sub/g"), "g");
        // Nor does one that has the same directory on itself.
        let too = person.path(&format!("{hidden}/too"));
        let itself = mounted(&["--bind", too.to_str().expect("text")], &too);
        both(&person, &["restore", "latest", "--target", "/"], 0);
        drop(itself);
        fs::remove_file(person.path("srv/data/sub/g")).expect("removed");
        let disks =
            ["sub", "too"].map(|name| mounted(&["-t", "tmpfs", "none"], &person.path(&format!("{hidden}/{name}"))));
        let done = both(&person, &["restore", "latest", "--target", "/"], 3);
        let named = |name: &str| {
            done.err.lines().any(|line| line.contains("by itself: ") && line.contains(&format!("srv/data/{name}")))
        };
        assert!(named("sub") && named("too") && !named("empty"), "{}", done.err);
        let found = |way: &str| person.path(&format!("{way}/sub/g")).exists();
        assert!(found("home/data") && !found("srv/data"), "{hidden}: {open}");
        let sub = person.path("srv/data/sub").display().to_string();
        both(&person, &["restore", &format!("latest:{sub}"), "--target", &sub], 0);
        assert!(found("srv/data"));
        drop((disks, empty));
    }
}

/// The warning named 20 of them at most, and was silent about the rest.
#[test]
fn all_places_that_one_way_lacks_are_told() {
    let person = Person::new();
    let names: Vec<String> = (0..25).map(|n| format!("sub{n:02}")).collect();
    names.iter().for_each(|name| person.write(&format!("srv/data/{name}/g"), "g"));
    let from = person.path("srv/data").display().to_string();
    let Some(_held) = mounted(&["--bind", &from], &person.path("home/data")) else {
        return skipped("mounts below one of two ways", "nothing can be mounted");
    };
    person.silt(&["backup", "srv", "home"]).ends_with(0);
    let disk = |name: &String| mounted(&["-t", "tmpfs", "none"], &person.path(&format!("home/data/{name}")));
    let _disks: Vec<_> = names.iter().map(disk).collect();
    let done = both(&person, &["restore", "latest", "--target", "/"], 3);
    for name in &names {
        let is_named = |line: &str| line.contains("by itself: ") && line.contains(&format!("srv/data/{name}"));
        assert!(done.err.lines().any(is_named), "{name}: {}", done.err);
    }
}

/// A file, or a link, on a way that leads to no source any more was taken for a source: neither it nor what was below it came back.
#[test]
fn what_leads_to_no_source_any_more_makes_way() {
    let person = Person::new();
    person.write("in/x", "x");
    person.write("in/var/keep/k", "k");
    let excluded = person.path("in/var").display().to_string();
    person.silt(&["backup", "in", "in/var/keep", "--exclude", &excluded]).ends_with(0);
    let makes: [fn(&Person); 2] = [
        |person| person.write("in/var", "junk"),
        |person| {
            fs::create_dir_all(person.path("elsewhere")).expect("made");
            symlink(person.path("elsewhere"), person.path("in/var")).expect("linked");
        },
    ];
    for make in makes {
        fs::remove_dir_all(person.path("in/var")).expect("removed");
        make(&person);
        both(&person, &["restore", "latest", "--target", "/"], 0);
        assert_eq!(text(&person, "in/var/keep/k"), "k");
        assert!(!person.path("in/var").is_symlink());
    }
}
