//! What the system does not allow to be replaced, deleted or linked stays in a restore, and the plan knows it.

use crate::fixture::copy;
use crate::person::Person;
use crate::restore::{as_nobody, chmod, is_root, latest, saved, text};
use crate::restore_overlap::{self as overlap, in_out};
use crate::restore_way::{as_stranger, both};
use crate::skip::skipped;
use crate::undone::{Undone, changed, mounted};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;
use std::process::Command;

fn chattr(how: &str, path: &Path) -> Option<Undone> {
    changed(&["chattr", how], path, &["chattr", "-i", "-a"])
}

/// Plans and restores `source` over `target`; both end with this code and agree on what is kept. Returns what the restore said.
fn plan_and_restore(person: &Person, more: &[&str], code: i32) -> String {
    let named = latest(person, "source");
    let restore = |words: &[&str]| {
        let words = [&["restore", &named, "--target", "target", "--json"][..], more, words].concat();
        person.silt(&words).ends_with(code)
    };
    let (plan, done) = (restore(&["--dry-run"]), restore(&[]));
    let (plan, done) = (plan.last_event(), done.last_event());
    for (planned, done_as) in [
        ("created_count", "created"),
        ("replaced_count", "replaced"),
        ("blocked_count", "blocked"),
        ("deletions_count", "files_deleted"),
    ] {
        assert_eq!(plan[planned], done[done_as], "{planned}: {plan}\n{done}");
    }
    assert_eq!(plan["event"], "plan");
    assert_eq!(done["event"], "summary", "it is the last event");
    done.to_string()
}

#[test]
fn what_is_immutable_or_mounted_is_kept_by_the_plan_as_by_the_restore() {
    // The plan replaced and deleted what the restore could not: exit 0 for the one, 3 for the other.
    let person = saved(|person| {
        for name in ["file", "mounted", "sealed/new", "sealed/old", "plain"] {
            person.write(&format!("source/{name}"), "saved");
        }
    });
    for name in ["file", "extra/kept", "extra/goes", "sealed/old", "sealed/extra", "plain"] {
        person.write(&format!("target/{name}"), "there");
    }
    fs::create_dir_all(person.path("target/mounted")).expect("made");
    let target = person.path("target");
    let held = [
        mounted(&["-t", "tmpfs", "none"], &target.join("mounted")),
        chattr("+i", &target.join("file")),
        chattr("+a", &target.join("extra/kept")),
        chattr("+i", &target.join("sealed")),
    ];
    if !is_root() || held.iter().any(Option::is_none) {
        return skipped("what is immutable in a target", "chattr or mount is refused");
    }
    let done = plan_and_restore(&person, &["--delete"], 3);
    for name in ["file", "extra/kept", "sealed/old", "sealed/extra"] {
        assert_eq!(text(&person, &format!("target/{name}")), "there", "{name}: {done}");
    }
    assert!(!target.join("extra/goes").exists() && !target.join("sealed/new").exists());
    assert_eq!(text(&person, "target/plain"), "saved");
    assert!(done.contains("immutable or append-only") && done.contains("mounted on it"), "{done}");
}

#[test]
fn names_that_cannot_be_linked_become_entries_of_their_own() {
    // The second name of a symbolic link on another file system was not restored at all.
    let person = saved(|person| {
        fs::create_dir_all(person.path("source/far")).expect("made");
        symlink("nowhere", person.path("source/link")).expect("linked");
        fs::hard_link(person.path("source/link"), person.path("source/far/link")).expect("linked");
    });
    fs::create_dir_all(person.path("target/far")).expect("made");
    let mounted = mounted(&["-t", "tmpfs", "none"], &person.path("target/far"));
    if mounted.is_none() {
        return skipped("names on two file systems", "nothing can be mounted");
    }
    let done = plan_and_restore(&person, &[], 3);
    for name in ["link", "far/link"] {
        assert_eq!(fs::read_link(person.path("target").join(name)).expect("a link"), Path::new("nowhere"), "{done}");
    }
}

/// A file of the right size and time was taken for the saved one, and names that were missing or different got its content, with exit
/// code 0 and in spite of `--verify`.
#[test]
fn names_are_linked_only_to_a_file_with_the_saved_content() {
    for (content, kept) in [("other", 0), ("saved", 1)] {
        let person = saved(|person| {
            person.write("source/b", "saved");
            ["a", "c"].iter().for_each(|name| {
                fs::hard_link(person.path("source/b"), person.path("source").join(name)).expect("linked");
            });
        });
        person.write("target/b", content);
        person.write("target/c", "of another size");
        let modified = fs::metadata(person.path("source/b")).and_then(|meta| meta.modified()).expect("it has a time");
        let file = fs::File::options().write(true).open(person.path("target/b")).expect("it opens");
        file.set_modified(modified).expect("its time is set");
        let done = plan_and_restore(&person, &[], 0);
        assert!(done.contains("\"created\":1,") && done.contains(&format!("\"replaced\":{},", 2 - kept)), "{done}");
        for name in ["a", "b", "c"] {
            assert_eq!(fs::read(person.path("target").join(name)).expect("read"), b"saved", "{name}");
        }
        assert_eq!(fs::metadata(person.path("target/a")).expect("there").nlink(), 3);
    }
}

/// A file of another user that cannot be read is not compared: it counts by its size and time, as one without other names does, and no name is
/// linked to it.
#[test]
fn no_name_is_linked_to_a_file_that_cannot_be_read() {
    if !is_root() {
        return skipped("files of other users", "it takes root to give files away");
    }
    let person = saved(|person| {
        person.write("source/a", "saved");
        chmod(person, "source/a", 0o600);
        fs::hard_link(person.path("source/a"), person.path("source/b")).expect("linked");
    });
    person.write("target/a", "other");
    chmod(&person, "target/a", 0o600);
    let modified = fs::metadata(person.path("source/a")).and_then(|meta| meta.modified()).expect("it has a time");
    let file = fs::File::options().write(true).open(person.path("target/a")).expect("it opens");
    file.set_modified(modified).expect("its time is set");
    let named = latest(&person, "source");
    as_nobody(&person, &["snapshots"]).ends_with(0);
    lchown(person.path("target"), Some(65534), Some(65534)).expect("given");
    lchown(person.path("target/a"), Some(0), Some(0)).expect("given");
    for code in [3, 0] {
        let done = as_stranger(&person, &["restore", &named, "--target", "target"]).ends_with(code);
        assert_eq!(done.err.contains("could not be linked"), code == 3, "{}", done.err);
        assert_eq!(fs::read(person.path("target/a")).expect("read"), b"other");
        assert_eq!(fs::read(person.path("target/b")).expect("read"), b"saved");
    }
}

#[test]
fn a_link_over_another_name_of_its_inode_leaves_nothing_behind() {
    // rename(2) does nothing then, and succeeds: the unfinished name stayed, and another file mounted on the name showed.
    let person = saved(|person| {
        person.write("source/one", "saved");
        fs::hard_link(person.path("source/one"), person.path("source/two")).expect("linked");
    });
    person.write("target/one", "saved");
    fs::hard_link(person.path("target/one"), person.path("target/two")).expect("linked");
    person.write("elsewhere", "other");
    let bound = person.path("elsewhere").display().to_string();
    let Some(_mounted) = changed(&["mount", "--bind", &bound], &person.path("target/two"), &["umount"]) else {
        return skipped("a file mounted on another", "nothing can be mounted");
    };
    plan_and_restore(&person, &[], 3);
    let names: Vec<_> =
        fs::read_dir(person.path("target")).expect("listed").map(|entry| entry.expect("one").file_name()).collect();
    assert_eq!(names.len(), 2, "{names:?}");
}

#[test]
fn a_directory_that_goes_is_opened_up_for_its_owner() {
    // The plan named what is in it, and the restore was refused.
    let person = saved(|person| person.write("source/file", "saved"));
    person.write("target/closed/below/file", "extra");
    for name in ["target/closed/below", "target/closed"] {
        fs::set_permissions(person.path(name), Permissions::from_mode(0o500)).expect("set");
    }
    let named = latest(&person, "source");
    let words = ["restore", &named, "--target", "target", "--delete"];
    // Root is refused nothing.
    as_nobody(&person, &[&words[..], &["--dry-run"]].concat()).ends_with(0);
    as_nobody(&person, &words).ends_with(0);
    assert!(!person.path("target/closed").exists());
    assert_eq!(fs::metadata(person.path("target/file")).expect("there").size(), 5);
}

#[test]
fn a_target_that_its_mode_closes_is_opened_up_and_closed_again() {
    // It ended with 1, "cannot open the directory .", and so did each restore into the own place after the first one.
    let person = saved(|person| person.write("source/file", "saved"));
    let named = latest(&person, "source");
    for mode in [0o600, 0o000] {
        fs::create_dir_all(person.path("target")).expect("made");
        fs::set_permissions(person.path("target"), Permissions::from_mode(mode)).expect("set");
        let words = ["restore", &named, "--target", "target"];
        as_nobody(&person, &[&words[..], &["--dry-run"]].concat()).ends_with(0);
        as_nobody(&person, &words).ends_with(0);
        as_nobody(&person, &words).ends_with(0);
        let found = fs::metadata(person.path("target")).expect("there").mode() & 0o7777;
        fs::set_permissions(person.path("target"), Permissions::from_mode(0o700)).expect("set");
        assert_eq!((found, text(&person, "target/file").as_str()), (mode, "saved"));
        fs::remove_dir_all(person.path("target")).expect("removed");
    }
}

#[test]
fn what_the_plan_could_not_look_into_keeps_its_mode() {
    let person = saved(|person| person.write("source/file", "saved"));
    person.write("target/closed/file", "extra");
    fs::create_dir_all(person.path("target/empty")).expect("made");
    for name in ["closed", "empty"] {
        fs::set_permissions(person.path("target").join(name), Permissions::from_mode(0o600)).expect("set");
    }
    let named = latest(&person, "source");
    let words = ["restore", &named, "--target", "target", "--delete"];
    as_nobody(&person, &[&words[..], &["--dry-run"]].concat()).ends_with(3);
    as_nobody(&person, &words).ends_with(3);
    for name in ["closed", "empty"] {
        assert_eq!(fs::metadata(person.path("target").join(name)).expect("it stays").mode() & 0o7777, 0o600, "{name}");
    }
}

/// An immutable file that was up to date lost its flag when another name was linked to it. The plan linked it, and changed
/// metadata of what cannot be changed.
#[test]
fn immutable_files_keep_their_flags_and_metadata() {
    let person = saved(|person| {
        for name in ["file", "dir/f", "one", "append"] {
            person.write(&format!("source/{name}"), "saved");
        }
        fs::hard_link(person.path("source/one"), person.path("source/two")).expect("linked");
        fs::create_dir(person.path("source/both")).expect("made");
    });
    copy(&person.path("source"), &person.path("target"));
    let target = person.path("target");
    fs::remove_file(target.join("two")).expect("removed");
    person.write("source/both/new", "saved");
    person.silt(&["backup", "source"]).ends_with(0);
    for name in ["file", "dir", "append"] {
        fs::set_permissions(target.join(name), Permissions::from_mode(0o700)).expect("set");
    }
    let locks = [("+i", "file"), ("+i", "dir"), ("+a", "append"), ("+i", "one"), ("+ia", "both")];
    let held: Vec<_> = locks.map(|(how, name)| chattr(how, &target.join(name))).into();
    if !is_root() || held.iter().any(Option::is_none) {
        return skipped("metadata of what is immutable", "chattr is refused");
    }
    let done = plan_and_restore(&person, &[], 3);
    assert_eq!(done.matches("its metadata differ and were kept, as it is immutable").count(), 4, "{done}");
    assert!(done.contains("could not be linked") && done.contains("its directory is immutable"), "{done}");
    // The directory was counted although its mode had stayed.
    assert!(!done.contains("Metadata "), "{done}");
    for (how, name) in locks {
        let flags = flags_of(&target.join(name));
        assert!(how[1..].chars().all(|flag| flags.contains(flag)), "{name}: {flags}");
    }
    assert_eq!(text(&person, "target/two"), "saved");
    assert!(!target.join("both/new").exists());
}

fn flags_of(path: &Path) -> String {
    let told = Command::new("lsattr").arg("-d").arg(path).output().expect("it runs");
    String::from_utf8_lossy(&told.stdout).split(' ').next().unwrap_or_default().to_owned()
}

/// A file had the saved content and metadata, but not its saved flags, and a name outside of the target: that name became
/// immutable as well, with exit 0.
#[test]
fn a_name_outside_of_the_target_does_not_get_the_flags_of_the_saved_file() {
    let person = saved(|person| {
        person.write("source/f", "saved");
        person.write("source/one", "saved too");
        fs::hard_link(person.path("source/one"), person.path("source/two")).expect("linked");
    });
    copy(&person.path("source"), &person.path("target"));
    let held =
        ["f", "one"].map(|name| changed(&["chattr", "+d"], &person.path("source").join(name), &["chattr", "-d"]));
    if held.iter().any(Option::is_none) {
        return skipped("flags of what has names outside", "chattr is refused");
    }
    person.silt(&["backup", "source"]).ends_with(0);
    for name in ["f", "one"] {
        fs::hard_link(person.path("target").join(name), person.path(&format!("outside {name}"))).expect("linked");
    }
    plan_and_restore(&person, &[], 0);
    for name in ["f", "one", "two"] {
        assert!(flags_of(&person.path("target").join(name)).contains('d'), "{name} has its flag");
    }
    for name in ["outside f", "outside one"] {
        assert!(!flags_of(&person.path(name)).contains('d'), "{name} has none");
    }
    let inode = |name: &str| fs::metadata(person.path(name)).expect("it is there").ino();
    assert_eq!(inode("target/one"), inode("target/two"));
    assert_eq!(text(&person, "outside one"), "saved too");
}

/// What a restore made in a directory with `chattr +dASc` got these flags and kept them, although it was not saved with them,
/// without a word.
#[test]
fn what_a_restore_makes_has_the_flags_that_it_was_saved_with_and_no_others() {
    let person = saved(|person| {
        for name in ["f", "sub/g", "own"] {
            person.write(&format!("source/dir/{name}"), "saved");
        }
    });
    let set = |how: &str, name: &str| changed(&["chattr", how], &person.path(name), &["chattr", "-A"]);
    let held = [set("+d", "source/dir/own"), set("+dASc", "source/dir")];
    if held.iter().any(Option::is_none) {
        return skipped("flags that a directory hands down", "chattr is refused");
    }
    person.silt(&["backup", "source"]).ends_with(0);
    let is_as_saved = || {
        for (name, flags) in [("dir", "dASc"), ("dir/f", ""), ("dir/sub", ""), ("dir/sub/g", ""), ("dir/own", "d")] {
            let found = flags_of(&person.path("target").join(name));
            for flag in "dASc".chars() {
                assert_eq!(found.contains(flag), flags.contains(flag), "{name}: {found}");
            }
        }
    };
    plan_and_restore(&person, &[], 0);
    is_as_saved();
    // In a directory that has them already: what is missing and what differs are made anew.
    for name in ["dir/sub/g", "dir/own"] {
        fs::remove_file(person.path("target").join(name)).expect("removed");
    }
    fs::remove_dir(person.path("target/dir/sub")).expect("removed");
    person.write("target/dir/f", "changed");
    plan_and_restore(&person, &[], 0);
    is_as_saved();
}

/// What a read-only mount does not let change was a warning of the restore only.
#[test]
fn metadata_on_a_read_only_mount_are_kept_by_the_plan_as_by_the_restore() {
    let person = saved(|person| {
        person.write("source/dir/f", "saved");
        symlink("nowhere", person.path("source/dir/link")).expect("linked");
    });
    copy(&person.path("source"), &person.path("target"));
    let dir = person.path("target/dir");
    fs::set_permissions(dir.join("f"), Permissions::from_mode(0o600)).expect("set");
    fs::set_permissions(&dir, Permissions::from_mode(0o700)).expect("set");
    let bound = dir.display().to_string();
    let held = mounted(&["--bind", &bound], &dir);
    if held.is_none() || changed(&["mount", "-o", "remount,bind,ro"], &dir, &["true"]).is_none() {
        return skipped("metadata on a read-only mount", "nothing can be mounted");
    }
    let done = plan_and_restore(&person, &[], 3);
    assert_eq!(done.matches("as its file system is mounted read-only").count(), 2, "{done}");
}

/// An empty target in which nothing can be made: the plan did not ask, and ended with 0.
#[test]
fn an_empty_target_that_refuses_everything_is_known_to_the_plan() {
    if !is_root() {
        return skipped("a target of another user", "it takes root to create one");
    }
    let person = saved(|person| {
        person.write("source/f", "saved");
        person.write("source/d/f", "saved");
    });
    fs::create_dir(person.path("target")).expect("made");
    as_nobody(&person, &["snapshots"]).ends_with(0);
    lchown(person.path("target"), Some(0), Some(0)).expect("given");
    let done = both(&person, |words| as_stranger(&person, words), &[], 3);
    assert_eq!(done.err.matches("does not let this user create anything").count(), 2, "{}", done.err);
}

/// Only the first link was asked whose it is: root restored into, and deleted in, the directory that another user chose, with exit 0.
#[test]
fn a_link_that_leads_through_one_of_another_user_is_not_followed() {
    if !is_root() {
        return skipped("links of other users", "it takes root to make them");
    }
    for is_in_place in [true, false] {
        let person = Person::new();
        person.write("site/x/f", "saved");
        person.silt(&["backup", "site/x"]).ends_with(0);
        let at = |name: &str| if is_in_place { person.path(name) } else { in_out(&person, name) };
        let link_text = |name: &str| person.path(name);
        if is_in_place {
            fs::remove_dir_all(at("site")).expect("removed");
        }
        for name in ["etc/x", "anna"] {
            fs::create_dir_all(at(name)).expect("made");
        }
        for name in ["etc/x/f", "etc/x/extra"] {
            fs::write(at(name), "precious").expect("written");
        }
        symlink(link_text("anna/site"), at("site")).expect("linked");
        symlink("../etc", at("anna/site")).expect("linked");
        for name in ["anna", "anna/site"] {
            lchown(at(name), Some(65534), Some(65534)).expect("given");
        }
        let target = if is_in_place { "/" } else { "out" };
        let done = overlap::both(&person, &["restore", "latest", "--target", target, "--delete"], 3);
        assert!(
            done.err.contains("site: the symbolic link in its place above a source leads through a link of"),
            "{}",
            done.err
        );
        assert_eq!(fs::read_to_string(at("etc/x/f")).expect("it is there"), "precious");
        assert!(at("etc/x/extra").exists());
        // Once it is root's own, it is followed.
        lchown(at("anna/site"), Some(0), Some(0)).expect("given");
        overlap::both(&person, &["restore", "latest", "--target", target], 0);
        assert_eq!(fs::read_to_string(at("etc/x/f")).expect("it is there"), "saved");
    }
}
