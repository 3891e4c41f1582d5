//! A restore makes nothing worse: what exists stays until its replacement is complete, and what was not asked for stays.

use crate::person::{Person, Said, contents, said};
use crate::skip::skipped;
use rustix::fs::XattrFlags;
use serde_json::json;
use std::fs::{self, Permissions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// A repository with one backup of `source`, as `make` leaves it.
pub fn saved(make: impl FnOnce(&Person)) -> Person {
    let person = Person::new();
    fs::create_dir(person.path("source")).expect("made");
    make(&person);
    person.silt(&["backup", "source"]).ends_with(0);
    person
}

/// Restores the source where it was.
pub fn restore(person: &Person, words: &[&str]) -> Said {
    let (named, target) = (latest(person, "source"), person.path("source").display().to_string());
    person.silt(&[&["restore", &named, "--target", &target], words].concat())
}

pub fn latest(person: &Person, path: &str) -> String {
    format!("latest:{}", person.path(path).display())
}

pub fn text(person: &Person, name: &str) -> String {
    fs::read_to_string(person.path(name)).unwrap_or_else(|error| format!("{name}: {error}"))
}

pub fn set_time(path: &Path, seconds: u64) {
    let file = fs::File::open(path).expect("opened");
    file.set_modified(UNIX_EPOCH + Duration::from_secs(seconds)).expect("its time is set");
}

fn mode(person: &Person, name: &str) -> u32 {
    fs::symlink_metadata(person.path(name)).expect("it is there").mode() & 0o7777
}

pub fn chmod(person: &Person, name: &str, mode: u32) {
    fs::set_permissions(person.path(name), Permissions::from_mode(mode)).expect("its mode is set");
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Overwrites bytes in the middle of every pack of content; packs of trees are small here.
pub fn damage_content(person: &Person) {
    for pack in walkdir::WalkDir::new(person.path("data/siltstone/repository/packs")) {
        let pack = pack.expect("listed");
        let length = pack.metadata().expect("there").len();
        if pack.file_type().is_file() && length > 100_000 {
            let file = fs::File::options().write(true).open(pack.path()).expect("opened");
            file.write_all_at(b"XXXXXXXX", length / 2).expect("damaged");
        }
    }
}

#[test]
fn what_was_written_into_a_hole_since_goes() {
    // A sparse file kept what was written into its holes, and --verify said that it was right.
    let person = saved(|person| {
        let file = fs::File::create(person.path("source/disk")).expect("made");
        file.write_all_at(&[7; 65536], 2 << 20).expect("written");
        file.set_len(4 << 20).expect("lengthened");
    });
    let before = contents(&person.path("source"));
    for words in [&["--overwrite", "always", "--verify"][..], &["--overwrite", "always"], &[]] {
        let file = fs::File::options().write(true).open(person.path("source/disk")).expect("opened");
        file.write_all_at(b"since", 5 << 16).expect("written");
        drop(file);
        restore(&person, words).ends_with(0);
        assert!(contents(&person.path("source")) == before, "{words:?}");
    }
}

#[test]
fn a_damaged_pack_leaves_the_files_that_are_there() {
    // The old file was removed before its replacement could be read, and the exit code was 3.
    let person = saved(|person| person.write("source/report", crate::golden::noise(300_000, 1)));
    person.write("source/report", "work of today");
    damage_content(&person);
    let said = restore(&person, &[]).ends_with(6);
    assert!(said.err.contains("report"), "{}", said.err);
    assert_eq!(text(&person, "source/report"), "work of today");
    person.silt(&["restore", &latest(&person, "source"), "--target", "out"]).ends_with(6);
    assert!(!person.path("out/report").exists());
    assert_eq!(fs::read_dir(person.path("source")).expect("listed").count(), 1);
}

#[test]
fn a_full_disk_leaves_the_files_that_are_there_and_is_named() {
    // Nothing was left of the old file, and the error did not say which file did not fit.
    let person = saved(|person| person.write("source/report", crate::golden::noise(3_000_000, 1)));
    fs::create_dir(person.path("small")).expect("made");
    let mount = Command::new("mount").args(["-t", "tmpfs", "-o", "size=1m", "none"]).arg(person.path("small")).output();
    if !mount.as_ref().is_ok_and(|mount| mount.status.success()) {
        return skipped("a full disk", "tmpfs cannot be mounted");
    }
    person.write("small/report", "work of today");
    let said = person.silt(&["restore", &latest(&person, "source"), "--target", "small"]);
    let (kept, left) = (text(&person, "small/report"), fs::read_dir(person.path("small")).expect("listed").count());
    let unmounted = Command::new("umount").arg(person.path("small")).status();
    assert!(unmounted.expect("umount runs").success());
    let said = said.ends_with(1);
    assert!(said.err.contains("source/report") && said.err.contains("hint: free space"), "{}", said.err);
    assert_eq!((kept.as_str(), left), ("work of today", 1));
}

#[test]
fn a_directory_with_something_in_it_is_not_replaced() {
    // A whole directory was removed where the snapshot has a file or a link, without --delete and without a word.
    let person = saved(|person| {
        person.write("source/data", "a file");
        person.write("source/empty", "a file");
        symlink("data", person.path("source/current")).expect("linked");
    });
    let before = contents(&person.path("source"));
    for name in ["data", "current", "empty"] {
        fs::remove_file(person.path("source").join(name)).expect("removed");
        fs::create_dir(person.path("source").join(name)).expect("made");
    }
    person.write("source/data/new", "work");
    person.write("source/current/new", "work");
    let said = restore(&person, &[]).ends_with(3);
    assert!(said.err.contains("source/data: ") && said.err.contains("source/current: "), "{}", said.err);
    assert_eq!(text(&person, "source/data/new") + &text(&person, "source/current/new"), "workwork");
    assert_eq!(text(&person, "source/empty"), "a file", "an empty directory makes way");
    // On request, it becomes what the snapshot has.
    restore(&person, &["--delete"]).ends_with(0);
    assert!(contents(&person.path("source")) == before);
}

#[test]
fn a_file_or_link_makes_way_for_a_directory_only_where_it_may() {
    // What had the name of a directory was removed before the directory was there.
    let person = saved(|person| {
        person.write("source/one/below", "1");
        person.write("source/two/below", "2");
    });
    for name in ["one", "two"] {
        fs::remove_dir_all(person.path("source").join(name)).expect("removed");
    }
    person.write("source/one", "a file now");
    symlink(person.path("elsewhere"), person.path("source/two")).expect("linked");
    for words in ["never", "if-newer"] {
        restore(&person, &["--overwrite", words]).ends_with(3);
        assert_eq!(text(&person, "source/one"), "a file now");
        assert!(person.path("source/two").is_symlink());
    }
    restore(&person, &[]).ends_with(0);
    assert_eq!(text(&person, "source/one/below") + &text(&person, "source/two/below"), "12");
    assert!(!person.path("elsewhere").exists());
}

#[test]
fn a_source_that_became_a_link_stays_one() {
    // After a folder was moved to a larger disk, a folder with old files came in the place of the link.
    let person = Person::new();
    person.write("root/photos/one", "1");
    person.write("root/notes", "n");
    person.silt(&["backup", "root/photos", "root/notes"]).ends_with(0);
    fs::create_dir(person.path("disk")).expect("made");
    for name in ["photos", "notes"] {
        fs::rename(person.path("root").join(name), person.path("disk").join(name)).expect("moved");
        symlink(person.path("disk").join(name), person.path("root").join(name)).expect("linked");
    }
    person.write("disk/photos/two", "2");
    let before = contents(person.home.path());
    for words in [&[][..], &["--overwrite", "always"], &["--dry-run"]] {
        let words = [&["restore", "latest", "--target", "/", "--no-cache"], words].concat();
        let said = person.silt(&words).ends_with(3);
        assert_eq!(said.err.matches("is now a symbolic link").count(), 2, "{}", said.err);
        let links = contents(person.home.path()).into_iter().filter(|(path, _)| path.starts_with("root"));
        assert!(links.eq(before.clone().into_iter().filter(|(path, _)| path.starts_with("root"))), "{words:?}");
    }
    // What the link points to is restored by its own path; on request, the link becomes what the snapshot has.
    person.silt(&["restore", &latest(&person, "root/photos"), "--target", "root/photos"]).ends_with(0);
    assert!(person.path("root/photos").is_symlink());
    person.silt(&["restore", "latest", "--target", "/", "--delete"]).ends_with(0);
    assert!(!person.path("root/photos").is_symlink() && !person.path("root/notes").is_symlink());
    assert_eq!(
        text(&person, "root/photos/one") + &text(&person, "root/notes") + &text(&person, "disk/photos/two"),
        "1n2"
    );
}

#[test]
fn a_link_above_a_source_is_followed_and_stays() {
    // The link to another disk became a directory, and what else it led to was out of reach.
    let person = Person::new();
    person.write("disk/home/anna/f", "a");
    person.write("disk/home/bob/f", "b");
    fs::create_dir(person.path("root")).expect("made");
    symlink(person.path("disk/home"), person.path("root/home")).expect("linked");
    person.silt(&["backup", "root/home/anna"]).ends_with(0);
    fs::remove_file(person.path("disk/home/anna/f")).expect("removed");
    person.silt(&["restore", "latest", "--target", "/"]).ends_with(0);
    assert_eq!(text(&person, "disk/home/anna/f"), "a");
    assert!(person.path("root/home").is_symlink());
    // In place, with a path above the source.
    fs::remove_file(person.path("disk/home/anna/f")).expect("removed");
    person.silt(&["restore", &latest(&person, "root"), "--target", "root"]).ends_with(0);
    assert_eq!(text(&person, "disk/home/anna/f"), "a");
    // Elsewhere a link means what it would mean there: it leads out of no target.
    person.write("copy/other/keep", "k");
    symlink("/other", person.path("copy/home")).expect("linked");
    person.silt(&["restore", &latest(&person, "root"), "--target", "copy"]).ends_with(0);
    assert_eq!(text(&person, "copy/other/anna/f"), "a");
    assert!(person.path("copy/home").is_symlink());
    fs::remove_file(person.path("copy/home")).expect("removed");
    symlink(person.path("disk"), person.path("copy/home")).expect("linked");
    person.silt(&["restore", &latest(&person, "root"), "--target", "copy"]).ends_with(3);
    assert!(!person.path("disk/anna").exists() && person.path("copy/home").is_symlink());
}

#[test]
fn a_link_of_another_user_above_a_source_is_not_followed() {
    // A planted link would decide where root writes.
    if !is_root() {
        return skipped("links of other users", "only root can make them");
    }
    let person = Person::new();
    person.write("root/home/anna/f", "a");
    person.silt(&["backup", "root/home/anna"]).ends_with(0);
    fs::rename(person.path("root/home"), person.path("moved")).expect("renamed");
    fs::remove_file(person.path("moved/anna/f")).expect("removed");
    symlink(person.path("moved"), person.path("root/home")).expect("linked");
    std::os::unix::fs::lchown(person.path("root/home"), Some(65534), None).expect("given away");
    person.silt(&["restore", "latest", "--target", "/"]).ends_with(3);
    assert!(!person.path("moved/anna/f").exists() && person.path("root/home").is_symlink());
}

#[test]
fn a_target_that_was_there_keeps_its_mode() {
    // `restore latest:/x/private --target /tmp` gave /tmp the mode of `private`.
    let person = saved(|person| {
        person.write("source/private/f", "x");
        chmod(person, "source/private", 0o700);
    });
    fs::create_dir(person.path("target")).expect("made");
    chmod(&person, "target", 0o1777);
    let named = latest(&person, "source/private");
    person.silt(&["restore", &named, "--target", "target"]).ends_with(0);
    assert_eq!(mode(&person, "target"), 0o1777);
    // The source's own path is as it was, and so is a target that the restore makes.
    chmod(&person, "source/private", 0o755);
    person.silt(&["restore", &named, "--target", "source/private"]).ends_with(0);
    person.silt(&["restore", &named, "--target", "new"]).ends_with(0);
    assert_eq!((mode(&person, "source/private"), mode(&person, "new")), (0o700, 0o700));
}

#[test]
fn one_file_is_asked_for_and_nothing_else_is_touched() {
    // --include of one file gave all other directories their old modes, brought deleted ones back and replaced files.
    let person = saved(|person| {
        person.write("source/deep/er/want", "want");
        for name in ["other", "gone", "notes/below", "mail"] {
            fs::create_dir_all(person.path("source").join(name)).expect("made");
        }
    });
    fs::remove_dir_all(person.path("source/deep")).expect("removed");
    fs::remove_dir_all(person.path("source/notes")).expect("removed");
    for name in ["gone", "mail"] {
        fs::remove_dir(person.path("source").join(name)).expect("removed");
    }
    person.write("source/notes", "a file now");
    symlink("other", person.path("source/mail")).expect("linked");
    chmod(&person, "source/other", 0o700);
    chmod(&person, "source", 0o711);
    restore(&person, &["--include", "deep/er/want"]).ends_with(0);
    assert_eq!(text(&person, "source/deep/er/want") + &text(&person, "source/notes"), "wanta file now");
    assert!(person.path("source/mail").is_symlink() && !person.path("source/gone").exists());
    assert_eq!((mode(&person, "source/other"), mode(&person, "source")), (0o700, 0o711));
    assert_eq!(mode(&person, "source/deep"), 0o755, "a directory that was missing is as it was");
}

#[test]
fn an_include_that_matches_nothing_is_an_error() {
    // A typo restored nothing and ended with 0.
    let person = saved(|person| person.write("source/file", "x"));
    for more in [&[][..], &["--dry-run"]] {
        let words = [&["restore", "latest", "--target", "out", "--include", "fiel"], more].concat();
        let said = person.silt(&words).ends_with(1);
        assert!(said.err.contains("--include") && said.err.contains("hint: "), "{}", said.err);
        // Of several patterns, one that matched hid the others.
        let said = person.silt(&[&words[..], &["--include", "file"]].concat()).ends_with(1);
        assert!(said.err.contains("nothing in the snapshot matches fiel"), "{}", said.err);
        let said = person.silt(&[&words[..], &["--include", "fi*", "--include", "fi?"]].concat()).ends_with(1);
        assert!(said.err.contains("matches fiel, nor 1 other pattern"), "{}", said.err);
        assert!(!person.path("out").exists());
    }
    // What a later pattern matches, too, an earlier one has matched all the same.
    let words = ["restore", "latest", "--target", "out", "--include", "source", "--include", "file", "--include", "*"];
    person.silt(&words).ends_with(0);
}

#[test]
fn what_is_kept_is_not_changed_and_said_to_differ() {
    // With --overwrite never a name was linked to the user's own file, modes went back, and all "were right already".
    let person = saved(|person| {
        person.write("source/a/first", "one inode with two names, as it was saved");
        fs::hard_link(person.path("source/a/first"), person.path("source/a/second")).expect("linked");
        person.write("source/a/same", "same");
        set_time(&person.path("source/a/same"), 1_000_000_000);
    });
    for words in ["never", "if-newer"] {
        person.write("source/a/first", "the user's own");
        let _missing = fs::remove_file(person.path("source/a/second"));
        chmod(&person, "source/a", 0o700);
        chmod(&person, "source/a/same", 0o600);
        let said = restore(&person, &["--overwrite", words, "--json"]).ends_with(0).last_event();
        // The directory, the file of other content, and the one whose mode differs.
        assert_eq!((&said["files_kept"], &said["files_kept_different"]), (&0.into(), &3.into()), "{words}: {said}");
        assert_eq!(text(&person, "source/a/first"), "the user's own");
        assert_eq!(text(&person, "source/a/second"), "one inode with two names, as it was saved");
        assert_eq!((mode(&person, "source/a"), mode(&person, "source/a/same")), (0o700, 0o600), "{words}");
        let inode = |name| fs::metadata(person.path(name)).expect("there").ino();
        assert_ne!(inode("source/a/first"), inode("source/a/second"));
    }
    let said = restore(&person, &["--overwrite", "never"]).ends_with(0);
    assert!(said.out.contains("Kept     3, although different"), "{}", said.out);
}

/// What had the saved content counted as up to date, in the plan, too, although the restore changed its mode, owner or attributes; of
/// directories nothing was said at all.
#[test]
fn metadata_that_differ_are_in_the_plan_and_the_report() {
    let person = saved(|person| {
        for name in ["mode", "attribute", "time", "same"] {
            person.write(&format!("source/{name}"), name);
        }
        fs::create_dir_all(person.path("source/d/same")).expect("made");
    });
    chmod(&person, "source/mode", 0o600);
    chmod(&person, "source/d", 0o700);
    let has_attributes =
        rustix::fs::setxattr(person.path("source/attribute"), "user.x", b"1", XattrFlags::empty()).is_ok();
    set_time(&person.path("source/time"), 1_000_000_000);
    let differ = if has_attributes { &["attribute", "d", "mode", "time"][..] } else { &["d", "mode", "time"] };
    let named: Vec<String> = differ.iter().map(|name| person.path("source").join(name).display().to_string()).collect();
    let plan = restore(&person, &["--dry-run", "--json"]).ends_with(0).last_event();
    assert_eq!((&plan["metadata"], &plan["metadata_count"]), (&json!(named), &json!(named.len())), "{plan}");
    assert_eq!(plan["kept_count"], 1 + usize::from(!has_attributes), "{plan}");
    let shown = restore(&person, &["--dry-run"]).ends_with(0);
    assert!(shown.out.contains(&format!("To get their saved metadata: {}", named.len())), "{}", shown.out);
    let never = restore(&person, &["--overwrite", "never", "--json"]).ends_with(0).last_event();
    assert_eq!(
        (&never["metadata_restored"], &never["files_kept_different"]),
        (&json!(0), &json!(named.len())),
        "{never}"
    );
    let done = restore(&person, &["--json"]).ends_with(0).last_event();
    assert_eq!(
        (&done["metadata_restored"], &done["files_kept"]),
        (&plan["metadata_count"], &plan["kept_count"]),
        "{done}"
    );
    let again = restore(&person, &["--json"]).ends_with(0).last_event();
    assert_eq!(again["metadata_restored"], 0, "{again}");
}

#[test]
fn a_snapshot_with_warnings_is_announced() {
    // A restore did not say that something was missing in the snapshot itself.
    let person = saved(|person| person.write("source/file", "x"));
    let quiet = restore(&person, &[]).ends_with(0);
    assert!(!quiet.err.contains("warning"), "{}", quiet.err);
    person.write("locked/in/x", "y");
    chmod(&person, "locked/in", 0o000);
    let warned = as_nobody(&person, &["backup", "locked"]);
    if warned.code == 3 {
        let said = person.silt(&["restore", "latest", "--target", "out"]).ends_with(0);
        assert!(said.err.contains("ended with 1 warning:"), "{}", said.err);
    } else {
        skipped("a snapshot with warnings", warned.err);
    }
}

#[test]
fn a_plan_foresees_that_closed_directories_are_opened() {
    // Without root a dry run ended with 3 for a directory of mode 000, and the restore itself filled it.
    let person = saved(|person| {
        person.write("source/closed/below/f", "f");
        person.write("source/none", "of one size");
    });
    let as_user = |words: &[&str]| {
        let (named, target) = (latest(&person, "source"), person.path("source").display().to_string());
        as_nobody(&person, &[&["restore", &named, "--target", &target, "--overwrite", "always"], words].concat())
    };
    if as_nobody(&person, &["snapshots"]).code != 0 {
        return skipped("closed directories of others", "another user cannot run silt here");
    }
    chmod(&person, "source/closed", 0o000);
    chmod(&person, "source/none", 0o000);
    let plan = as_user(&["--dry-run"]);
    let done = as_user(&[]);
    assert!(plan.ends_with(0).err.contains("denies access"));
    done.ends_with(0);
    assert_eq!(text(&person, "source/closed/below/f"), "f");
}

/// The same command as a user without rights, to whom everything here is given; as the same user where that is not root.
pub fn as_nobody(person: &Person, words: &[&str]) -> Said {
    let mut command = person.command(words);
    if is_root() {
        let given = Command::new("chown").args(["-R", "65534:65534"]).arg(person.home.path()).status();
        assert!(given.expect("chown runs").success());
        command.uid(65534).gid(65534);
    }
    said(command.output().expect("it runs"))
}

#[test]
fn without_root_own_directories_and_files_that_are_closed_are_mended() {
    // Nothing went back into a directory of 0555, and a file of mode 000 was not mended.
    if !is_root() {
        return skipped("a file that nobody may read", "only root can save it");
    }
    let person = saved(|person| {
        person.write("source/closed/below/f", "f");
        person.write("source/none", "a file that nobody may read");
        person.write("source/secret", "s");
        chmod(person, "source/closed/below", 0o555);
        chmod(person, "source/secret", 0o000);
    });
    let before = contents(&person.path("source"));
    chmod(&person, "source/closed/below", 0o755);
    fs::remove_file(person.path("source/closed/below/f")).expect("removed");
    chmod(&person, "source/closed/below", 0o555);
    chmod(&person, "source/closed", 0o000);
    chmod(&person, "source/none", 0o000);
    set_mode_of_other_time(&person, "source/none");
    let (named, target) = (latest(&person, "source"), person.path("source").display().to_string());
    let restore = ["restore", &named, "--target", &target, "--verify"];
    let first = as_nobody(&person, &restore);
    let now = contents(&person.path("source"));
    assert!(now == before, "{}{}\n{now:?}", first.out, first.err);
    first.ends_with(0);
    // What fails leaves the modes as they were, too.
    chmod(&person, "source/closed/below", 0o755);
    fs::remove_file(person.path("source/closed/below/f")).expect("removed");
    chmod(&person, "source/closed/below", 0o555);
    as_nobody(&person, &[&restore[..], &["--overwrite", "never"]].concat()).ends_with(0);
    assert_eq!(text(&person, "source/closed/below/f"), "f");
    assert_eq!(mode(&person, "source/closed/below"), 0o555);
}

/// Only its content tells that it is right.
fn set_mode_of_other_time(person: &Person, name: &str) {
    let times = rustix::fs::Timespec { tv_sec: 5, tv_nsec: 0 };
    let times = rustix::fs::Timestamps { last_access: times, last_modification: times };
    rustix::fs::utimensat(rustix::fs::CWD, person.path(name), &times, rustix::fs::AtFlags::empty()).expect("set");
}

fn chattr(person: &Person, how: &str, name: &str) -> bool {
    Command::new("chattr").arg(how).arg(person.path(name)).output().is_ok_and(|output| output.status.success())
}

#[test]
fn immutable_files_come_back_with_all_names_and_are_left_alone_when_right() {
    // Two names of an immutable file came back as two files, and a second restore reported losses.
    let person = Person::new();
    person.write("source/one", "an inode that nobody may change");
    fs::hard_link(person.path("source/one"), person.path("source/two")).expect("linked");
    person.write("source/log", "only longer");
    fs::create_dir(person.path("source/kept")).expect("made");
    let locked = ["one", "log", "kept"];
    let lock = |folder: &str| {
        [("+i", "one"), ("+a", "log"), ("+i", "kept")]
            .iter()
            .all(|(how, name)| chattr(&person, how, &format!("{folder}/{name}")))
    };
    let unlock = |folder: &str| {
        for name in locked {
            let _best_effort = chattr(&person, "-ia", &format!("{folder}/{name}"));
        }
    };
    if !is_root() || !lock("source") {
        unlock("source");
        return skipped("immutable files", "chattr is refused");
    }
    person.silt(&["backup", "source"]).ends_with(0);
    let restore = || person.silt(&["restore", &latest(&person, "source"), "--target", "out", "--json"]);
    let first = restore();
    let inodes = ["one", "two"].map(|name| fs::metadata(person.path("out").join(name)).expect("there").ino());
    let changed =
        |name: &str| fs::metadata(person.path("out").join(name)).map(|meta| (meta.ctime(), meta.ctime_nsec())).ok();
    let before = locked.map(changed);
    let second = restore();
    let after = locked.map(changed);
    let refused = fs::write(person.path("out/one"), "other").is_err();
    unlock("source");
    unlock("out");
    first.ends_with(0);
    let second = second.ends_with(0).last_event();
    assert_eq!(inodes[0], inodes[1]);
    assert!(refused, "it is immutable again");
    assert_eq!((&second["warnings_count"], &second["bytes_written"]), (&0.into(), &0.into()));
    assert_eq!(before, after, "a second restore changes nothing");
}

#[test]
fn an_append_only_directory_gets_what_is_missing_and_keeps_the_rest() {
    // Files could not get their names: they stayed under unfinished ones, and what was missing was not made.
    let person = saved(|person| {
        person.write("source/missing", crate::golden::noise(3000, 1));
        person.write("source/same", "same");
        person.write("source/differs", "as it was saved");
        person.write("source/was a folder/f", "f");
        fs::hard_link(person.path("source/same"), person.path("source/other name")).expect("linked");
        symlink("same", person.path("source/link")).expect("linked");
    });
    let copied = Command::new("cp").args(["-a", "-T"]).arg(person.path("source")).arg(person.path("out")).status();
    assert!(copied.expect("cp runs").success());
    for name in ["missing", "link", "other name"] {
        fs::remove_file(person.path("out").join(name)).expect("removed");
    }
    fs::remove_dir_all(person.path("out/was a folder")).expect("removed");
    person.write("out/was a folder", "a file now");
    person.write("out/differs", "work of today");
    if !is_root() || !chattr(&person, "+a", "out") {
        return skipped("an append-only directory", "chattr is refused");
    }
    let restore =
        |more: &[&str]| person.silt(&[&["restore", &latest(&person, "source"), "--target", "out"][..], more].concat());
    let plan = restore(&["--dry-run", "--json"]);
    let done = restore(&["--delete"]);
    assert!(chattr(&person, "-a", "out"));
    assert_eq!(plan.ends_with(3).last_event()["created_count"], 3);
    let done = done.ends_with(3);
    assert_eq!(done.err.matches("`chattr -a`").count(), 1, "{}", done.err);
    assert!(done.err.contains("out/differs") || done.err.contains("source/differs"), "{}", done.err);
    let names = ["differs", "link", "missing", "other name", "same", "was a folder"];
    let found: Vec<String> = contents(&person.path("out")).into_keys().map(|path| path.display().to_string()).collect();
    assert_eq!(found, names);
    assert_eq!(text(&person, "out/differs") + &text(&person, "out/was a folder"), "work of todaya file now");
    assert!(fs::read(person.path("out/missing")).expect("there") == crate::golden::noise(3000, 1));
}

#[test]
fn a_file_in_the_place_of_the_target_says_what_to_do() {
    // The error said "Not a directory", and no more.
    let person = saved(|person| person.write("source/f.txt", "old"));
    person.write("f.txt", "new");
    let named = latest(&person, "source/f.txt");
    for (named, word) in [(named.as_str(), "the file goes into"), ("latest", "name another directory with --target")] {
        let said = person.silt(&["restore", named, "--target", "f.txt"]).ends_with(1);
        assert!(said.err.contains("hint: ") && said.err.contains(word), "{}", said.err);
    }
    assert_eq!(text(&person, "f.txt"), "new");
    person.silt(&["restore", &named, "--target", "."]).ends_with(0);
    assert_eq!(text(&person, "f.txt"), "old");
}

#[test]
fn an_include_leaves_what_it_does_not_match_also_above_a_match() {
    // `--include n3` made directories of a file and a link of the user that were called as the directories above n3.
    let person = saved(|person| {
        for name in ["one/n3", "two/n3", "three/n3"] {
            person.write(&format!("source/{name}"), "saved");
        }
    });
    let plant = || {
        let _not_there = fs::remove_dir_all(person.path("source"));
        person.write("source/one", "mine");
        person.write("elsewhere/n3", "mine");
        std::os::unix::fs::symlink(person.path("elsewhere"), person.path("source/two")).expect("linked");
    };
    plant();
    let said = restore(&person, &["--include", "n3"]).ends_with(3);
    assert!(said.err.contains("--include does not match it"), "{}", said.err);
    assert_eq!(text(&person, "source/one") + &text(&person, "elsewhere/n3"), "minemine");
    assert!(person.path("source/two").is_symlink());
    assert_eq!(text(&person, "source/three/n3"), "saved");
    plant();
    restore(&person, &["--include", "one", "--include", "two"]).ends_with(0);
    assert_eq!(text(&person, "source/one/n3") + &text(&person, "source/two/n3"), "savedsaved");
}

#[test]
fn what_others_may_write_to_is_no_directory_that_a_restore_began() {
    // In a directory of mode 1777, as /tmp has it, `--overwrite never` replaced files that began as the saved ones.
    let person = saved(|person| person.write("source/d/log", "line 1\nline 2\n"));
    for other_mode in [0o1777, 0o1770, 0o1757, 0o0700] {
        person.write("source/d/log", "line 1\n");
        chmod(&person, "source/d", other_mode);
        restore(&person, &["--overwrite", "never"]).ends_with(0);
        assert_eq!((text(&person, "source/d/log").as_str(), mode(&person, "source/d")), ("line 1\n", other_mode));
    }
}
