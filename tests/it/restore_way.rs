//! What makes way in a restore does so last or has its name back, and a restore without root opens up what is its own.

use crate::fixture::{self, SWAPS, backup, memory, open};
use crate::person::{Person, Said, said};
use crate::restore::{as_nobody, chmod, is_root, latest, saved, text};
use crate::skip::skipped;
use crate::undone::mounted;
use siltstone::restore::RestoreOptions;
use siltstone::watch::Watch;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, UNIX_EPOCH};

/// Runs silt as a user without rights on what belongs to others, and changes no owner before.
pub fn as_stranger(person: &Person, words: &[&str]) -> Said {
    let mut command = person.command(words);
    said(command.uid(65534).gid(65534).output().expect("it runs"))
}

/// Plans and restores the source into `target` with this; both end with the code. Returns what the restore said.
pub fn both(person: &Person, run: impl Fn(&[&str]) -> Said, more: &[&str], code: i32) -> Said {
    plan_and_deed(person, run, more, code).1
}

/// The same; returns what both said.
pub fn plan_and_deed(person: &Person, run: impl Fn(&[&str]) -> Said, more: &[&str], code: i32) -> (Said, Said) {
    let named = latest(person, "source");
    let words = [&["restore", &named, "--target", "target"][..], more].concat();
    let plan = run(&[&words[..], &["--dry-run"]].concat());
    let done = run(&words);
    assert_eq!((plan.code, done.code), (code, code), "\n{}{}\n{}{}", plan.out, plan.err, done.out, done.err);
    (plan, done)
}

fn mode(person: &Person, name: &str) -> u32 {
    fs::symlink_metadata(person.path(name)).expect("it is there").mode() & 0o7777
}

/// The name of what a restore that has ended did not finish.
pub fn leftover() -> String {
    let name = format!(".silt-restore-{:08x}-{:016x}-{:08x}-", 0x7fff_fff0, 7, 3);
    let mix = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3);
    let check = name.bytes().fold(0xcbf2_9ce4_8422_2325, mix);
    format!("{name}{check:016x}")
}

/// On overlayfs, which cannot move a directory of a lower layer, the content was deleted and nothing was restored.
#[test]
fn a_directory_that_its_file_system_cannot_move_makes_way() {
    let person = saved(|person| {
        person.write("source/file", "saved");
        person.write("source/empty", "saved");
    });
    let layers = person.path("layers");
    for name in ["low/file/below", "low/empty", "up", "work"] {
        fs::create_dir_all(layers.join(name)).expect("made");
    }
    person.write("layers/low/file/below/x", "extra");
    fs::create_dir(person.path("target")).expect("made");
    let options = format!("lowerdir={0}/low,upperdir={0}/up,workdir={0}/work", layers.display());
    let Some(_mounted) = mounted(&["-t", "overlay", "none", "-o", &options], &person.path("target")) else {
        return skipped("directories of a lower layer", "an overlay cannot be mounted");
    };
    both(&person, |words| person.silt(words), &["--delete"], 0);
    assert_eq!(text(&person, "target/file") + &text(&person, "target/empty"), "savedsaved");
}

/// Its content was deleted first, and then the file was refused its name.
#[test]
fn a_directory_that_cannot_be_replaced_keeps_its_content() {
    if !is_root() {
        return skipped("the directory of another user", "it takes root to create one");
    }
    let person = saved(|person| person.write("source/file", "saved"));
    person.write("target/file/x", "precious");
    as_nobody(&person, &["snapshots"]).ends_with(0);
    lchown(person.path("target"), Some(0), Some(0)).expect("given");
    lchown(person.path("target/file"), Some(0), Some(0)).expect("given");
    chmod(&person, "target", 0o1777);
    chmod(&person, "target/file", 0o777);
    let done = both(&person, |words| as_stranger(&person, words), &["--delete"], 3);
    assert!(done.err.contains("its directory is sticky"), "{}", done.err);
    assert_eq!(text(&person, "target/file/x"), "precious");
}

/// What a killed restore leaves of a directory that made way stands under an unfinished name: with `--delete` the plan names
/// it, and it is gone.
#[test]
fn the_rest_of_a_directory_that_made_way_is_deleted() {
    let person = saved(|person| person.write("source/file", "saved"));
    let left = leftover();
    person.write(&format!("target/{left}/below/x"), "extra");
    // The plan did not name it, and no restore did with --delete and a filter.
    for more in [&[][..], &["--delete", "--include", "file"]] {
        let (plan, done) = plan_and_deed(&person, |words| person.silt(words), more, 0);
        for said in [plan.err, done.err] {
            assert!(said.contains(&left) && said.contains("restore with --delete"), "{more:?}: {said}");
        }
        assert_eq!(text(&person, &format!("target/{left}/below/x")), "extra");
    }
    let named = latest(&person, "source");
    let plan = person.silt(&["restore", &named, "--target", "target", "--delete", "--dry-run"]).ends_with(0);
    assert!(plan.out.contains(&format!("{left}/below/x")), "{}", plan.out);
    both(&person, |words| person.silt(words), &["--delete"], 0);
    assert!(!person.path(&format!("target/{left}")).exists());
}

/// The plan warned twice; the restore said only that it is not empty.
#[test]
fn why_a_directory_does_not_make_way_is_said_by_both() {
    if !is_root() {
        return skipped("a directory of another user in the place of a file", "it takes root to create one");
    }
    let person = saved(|person| person.write("source/file", "saved"));
    person.write("target/file/below/x", "extra");
    person.write("target/file/y", "extra");
    as_nobody(&person, &["snapshots"]).ends_with(0);
    lchown(person.path("target/file/below"), Some(0), Some(0)).expect("given");
    let (plan, done) = plan_and_deed(&person, |words| as_stranger(&person, words), &["--delete"], 3);
    for said in [plan.err, done.err] {
        assert_eq!(said.matches("warning").count(), 1, "{said}");
        let why = "kept: cannot delete /";
        assert!(said.contains(why) && said.contains("/file/below: its mode does not let this user"), "{said}");
    }
    assert_eq!(text(&person, "target/file/below/x") + &text(&person, "target/file/y"), "extraextra");
}

/// Extra entries below a closed directory, which the plan did not see, stayed with exit 0.
#[test]
fn what_is_below_a_closed_directory_is_told() {
    let person = saved(|person| person.write("source/closed/open/f", "saved"));
    person.write("target/closed/open/f", "saved");
    person.write("target/closed/open/extra", "extra");
    chmod(&person, "target/closed", 0o000);
    let named = latest(&person, "source");
    let words = ["restore", &named, "--target", "target", "--delete"];
    if !is_root() {
        return skipped("extra entries below a closed directory", "it takes root to give it away");
    }
    let done = as_nobody(&person, &words).ends_with(3);
    assert!(done.err.contains("closed/open: extra entries in it were not deleted"), "{}", done.err);
    as_nobody(&person, &words).ends_with(0);
    assert!(!person.path("target/closed/open/extra").exists());
}

/// An error that only the silent plan of a restore met left extra entries there, with exit 0.
#[test]
fn what_the_plan_of_a_restore_could_not_read_is_told() {
    let person = saved(|person| person.write("source/f", "saved"));
    let named = latest(&person, "source");
    let restore = person.command(&["restore", &named, "--target", "target", "--delete"]);
    let failing = |when: usize| {
        let mut traced = Command::new("strace");
        let inject = format!("inject=getdents64:error=EIO:when={when}");
        traced.args(["-f", "-qq", "-o", "/dev/null", "-e", "trace=getdents64", "-e", &inject]);
        traced.arg(restore.get_program()).args(restore.get_args()).current_dir(person.home.path());
        traced.envs(restore.get_envs().filter_map(|(name, value)| Some((name, value?))));
        traced.output().map(said)
    };
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success()) {
        return skipped("errors that only a plan meets", "strace is refused or not there");
    }
    let mut failures = 0;
    for when in 1.. {
        person.write("target/extra/x", "extra");
        let done = failing(when).expect("strace runs");
        let is_gone = !person.path("target/extra").exists();
        assert!(done.code != 0 || is_gone, "{when}: {}{}", done.out, done.err);
        failures += usize::from(done.code != 0);
        if done.code == 0 && when > 20 {
            break;
        }
    }
    assert!(failures > 1, "{failures} runs met an error");
}

/// A plan cannot name what is in an own directory of mode 000: both ended with "permission denied" and no advice.
#[test]
fn a_closed_directory_in_the_place_of_a_file_is_kept_with_advice() {
    let person = saved(|person| person.write("source/file", "saved"));
    person.write("target/file/x", "extra");
    chmod(&person, "target/file", 0o000);
    if !is_root() {
        return skipped("a closed directory in the place of a file", "it takes root to give it away");
    }
    let (plan, done) = plan_and_deed(&person, |words| as_nobody(&person, words), &["--delete"], 3);
    for said in [plan.err, done.err] {
        assert!(said.contains("chmod u+rwx"), "{said}");
    }
    assert_eq!(text(&person, "target/file/x"), "extra");
    // So is one that is extra itself.
    person.write("target/more/x", "extra");
    for mode in [0o000, 0o300, 0o400] {
        chmod(&person, "target/more", mode);
        let (plan, done) = plan_and_deed(&person, |words| as_nobody(&person, words), &["--delete"], 3);
        for said in [plan.err, done.err] {
            assert!(said.contains("/more: cannot delete: its mode prevents the plan"), "{mode:o}: {said}");
        }
    }
    chmod(&person, "target/more", 0o700);
    chmod(&person, "target/file", 0o700);
    both(&person, |words| as_nobody(&person, words), &["--delete"], 0);
    assert_eq!(text(&person, "target/file"), "saved");
}

/// A read-only directory of one's own in the place of a file was not opened up, and a part of it was deleted.
#[test]
fn an_own_directory_in_the_place_of_a_file_is_opened_up() {
    let person = saved(|person| person.write("source/file", "saved"));
    person.write("target/file/below/x", "extra");
    person.write("target/file/y", "extra");
    chmod(&person, "target/file/below", 0o555);
    chmod(&person, "target/file", 0o555);
    both(&person, |words| as_nobody(&person, words), &["--delete"], 0);
    assert_eq!(text(&person, "target/file"), "saved");
}

/// Own directories that may be listed and not entered (600, 400) were not opened up: nothing in them was restored, and each
/// restore of one that was saved so ended with 3.
#[test]
fn an_own_directory_that_may_be_listed_only_is_opened_up() {
    let person = saved(|person| {
        person.write("source/dir/f", "saved");
        fs::create_dir(person.path("source/closed")).expect("made");
        chmod(person, "source/closed", 0o444);
    });
    for closed in [0o600, 0o400, 0o444] {
        person.write("target/dir/g", "g");
        chmod(&person, "target/dir", closed);
        for _ in 0..2 {
            both(&person, |words| as_nobody(&person, words), &[], 0);
        }
        assert_eq!((mode(&person, "target/dir"), mode(&person, "target/closed")), (0o755, 0o444));
        assert_eq!(text(&person, "target/dir/f"), "saved");
        fs::remove_file(person.path("target/dir/f")).expect("removed");
    }
}

/// The plan deleted what the restore could not, and an own directory below was emptied and kept.
#[test]
fn directories_of_others_are_kept_whole_by_the_plan_as_by_the_restore() {
    if !is_root() {
        return skipped("the directory of another user", "it takes root to create one");
    }
    let person = saved(|person| person.write("source/file", "saved"));
    person.write("target/extra/own/x", "extra");
    fs::create_dir(person.path("target/empty")).expect("made");
    chmod(&person, "target/extra/own", 0o500);
    as_nobody(&person, &["snapshots"]).ends_with(0);
    for name in ["target/extra", "target/empty"] {
        lchown(person.path(name), Some(0), Some(0)).expect("given");
    }
    let done = both(&person, |words| as_stranger(&person, words), &["--delete"], 3);
    assert!(done.err.contains("does not let this user delete anything"), "{}", done.err);
    assert_eq!(text(&person, "target/extra/own/x"), "extra");
    assert_eq!(fs::metadata(person.path("target/extra/own")).expect("there").permissions().mode() & 0o777, 0o500);
    assert!(!person.path("target/empty").exists());
}

/// Attributes of own files and directories that their mode closes were not restored; those of new ones are.
#[test]
fn attributes_of_what_is_closed_to_its_owner_are_restored() {
    let set = |person: &Person, words: &[&str], name: &str| {
        let done = Command::new("setfattr").args(words).arg(person.path(name)).output();
        done.is_ok_and(|output| output.status.success())
    };
    let mut can_set = true;
    let person = saved(|person| {
        for name in ["source/closed", "source/none", "source/plain"] {
            person.write(name, "saved");
        }
        fs::create_dir(person.path("source/dir")).expect("made");
        for name in ["source/closed", "source/none", "source/dir"] {
            can_set &= set(person, &["-n", "user.x", "-v", "1"], name);
        }
        chmod(person, "source/closed", 0o444);
    });
    if !can_set {
        return skipped("attributes of closed files", "setfattr is refused");
    }
    for name in ["closed", "none", "plain"] {
        person.write(&format!("target/{name}"), "saved");
    }
    fs::create_dir(person.path("target/dir")).expect("made");
    assert!(set(&person, &["-n", "user.extra", "-v", "1"], "target/plain"));
    for (name, mode) in [("closed", 0o444), ("none", 0o000), ("plain", 0o444), ("dir", 0o500)] {
        chmod(&person, &format!("target/{name}"), mode);
    }
    both(&person, |words| as_nobody(&person, words), &["--overwrite", "always"], 0);
    let has = |name: &str, attribute: &str| {
        let said = Command::new("getfattr").arg(person.path(name)).output().expect("it runs");
        String::from_utf8_lossy(&said.stdout).contains(attribute)
    };
    for (name, mode_then) in [("target/closed", 0o444), ("target/none", 0o644), ("target/dir", 0o755)] {
        assert!(has(name, "user.x"), "{name}");
        assert_eq!(mode(&person, name), mode_then, "{name}");
    }
    assert!(!has("target/plain", "user.extra") && mode(&person, "target/plain") == 0o644);
}

/// The ACL was set first, and took away the right to write that the other attributes need.
#[test]
fn attributes_come_before_an_acl_that_closes_the_directory() {
    let person = Person::new();
    person.write("source/dir/f", "saved");
    let runs = |words: &[&str]| {
        let done = Command::new(words[0]).args(&words[1..]).arg(person.path("source/dir")).output();
        done.is_ok_and(|output| output.status.success())
    };
    let acl = "u::r-x,u:12:rwx,g::r-x,o::---";
    if !runs(&["setfattr", "-n", "user.x", "-v", "1"]) || !runs(&["setfacl", "-m", acl]) {
        return skipped("attributes beside an ACL", "setfattr or setfacl is refused");
    }
    as_nobody(&person, &["backup", "source"]).ends_with(0);
    both(&person, |words| as_nobody(&person, words), &[], 0);
    both(&person, |words| as_nobody(&person, words), &[], 0);
    let said = Command::new("getfattr").arg(person.path("target/dir")).output().expect("it runs");
    assert!(String::from_utf8_lossy(&said.stdout).contains("user.x"));
}

/// What the metadata of another user's files cannot be made the plan did not know: 0, and 3 for the restore.
#[test]
fn metadata_of_others_are_kept_by_the_plan_as_by_the_restore() {
    if !is_root() {
        return skipped("files of another user", "it takes root to create one");
    }
    let person = saved(|person| {
        for name in ["source/file", "source/dir/missing", "source/open/f"] {
            person.write(name, "saved");
        }
    });
    fixture::copy(&person.path("source"), &person.path("target"));
    fs::remove_file(person.path("target/dir/missing")).expect("removed");
    as_nobody(&person, &["snapshots"]).ends_with(0);
    for name in ["target/file", "target/dir", "target/open"] {
        lchown(person.path(name), Some(0), Some(0)).expect("given");
    }
    chmod(&person, "target/file", 0o640);
    chmod(&person, "target/dir", 0o777);
    let done = both(&person, |words| as_stranger(&person, words), &[], 3);
    assert_eq!(done.err.matches("as it belongs to another user").count(), 2, "{}", done.err);
    assert_eq!(text(&person, "target/dir/missing"), "saved");
}

/// With a umask that takes its owner's rights away, the restore could not enter the target that it had created.
#[test]
fn a_target_is_usable_whatever_the_umask() {
    let person = saved(|person| person.write("source/file", "saved"));
    let named = latest(&person, "source");
    as_nobody(&person, &["snapshots"]).ends_with(0);
    for (number, target) in ["first", "second/below/it"].into_iter().enumerate() {
        let mut silt = person.command(&["restore", &named, "--target", target]);
        if number == 1 {
            silt = person.command(&["restore", "latest", "--target", target]);
        }
        let mut shell = Command::new("/bin/sh");
        shell.args(["-c", "umask 777; exec \"$0\" \"$@\""]).arg(silt.get_program()).args(silt.get_args());
        shell.current_dir(person.home.path());
        shell.envs(silt.get_envs().filter_map(|(name, value)| Some((name, value?))));
        if is_root() {
            shell.uid(65534).gid(65534);
        }
        said(shell.output().expect("it runs")).ends_with(0);
    }
    assert_eq!(text(&person, "first/file"), "saved");
    assert_eq!(text(&person, &format!("second/below/it{}/file", person.path("source").display())), "saved");
}

/// A file system with whole seconds cut all times, and the restore ended with 0.
#[test]
fn a_file_system_that_cuts_times_is_a_warning() {
    let person = saved(|person| {
        for name in ["one", "two", "three"] {
            person.write(&format!("source/{name}"), name);
            let file = fs::File::open(person.path("source").join(name)).expect("opened");
            file.set_modified(UNIX_EPOCH + Duration::new(1_500_000_000, 123_456_789)).expect("its time is set");
        }
    });
    fs::create_dir(person.path("mounted")).expect("made");
    let image = fs::File::create(person.path("image")).expect("made");
    image.set_len(16 << 20).expect("lengthened");
    let image = person.path("image").display().to_string();
    let made = Command::new("mkfs.ext4").args(["-q", "-I", "128", &image]).output();
    let is_made = made.is_ok_and(|output| output.status.success());
    let mounted = is_made.then(|| mounted(&["-o", "loop", &image], &person.path("mounted"))).flatten();
    if mounted.is_none() {
        return skipped("a file system with whole seconds", "mkfs.ext4 or mount is refused");
    }
    let named = latest(&person, "source");
    for _ in 0..2 {
        let done = person.silt(&["restore", &named, "--target", "mounted/target"]).ends_with(3);
        assert!(done.err.contains("1 warning") && done.err.contains("stores times less precisely"), "{}", done.err);
    }
    assert_eq!(text(&person, "mounted/target/one"), "one");
}

/// They said "cannot open the directory .", and "… d" for what is somewhere in the target.
#[test]
fn errors_name_whole_paths_once() {
    if !is_root() {
        return skipped("the directory of another user", "it takes root to create one");
    }
    let person = saved(|person| person.write("source/dir/f", "saved"));
    fs::create_dir_all(person.path("target/dir")).expect("made");
    as_nobody(&person, &["snapshots"]).ends_with(0);
    lchown(person.path("target/dir"), Some(0), Some(0)).expect("given");
    chmod(&person, "target/dir", 0o711);
    let done = both(&person, |words| as_stranger(&person, words), &["--delete"], 3);
    let named = format!("cannot open the directory {}: ", person.path("source/dir").display());
    assert!(done.err.contains(&named) && done.err.contains("1 warning"), "{}", done.err);
    lchown(person.path("target"), Some(0), Some(0)).expect("given");
    chmod(&person, "target", 0o711);
    let refused = both(&person, |words| as_stranger(&person, words), &[], 1);
    let named = format!("cannot open the directory {}: ", person.path("target").display());
    assert!(refused.err.contains(&named), "{}", refused.err);
}

/// What came into a directory after the plan, which deletes the rest of it, was deleted with it or kept the name from the file
/// that had to replace the directory.
#[test]
fn a_directory_that_cannot_be_cleared_has_its_name_back() {
    let place = tempfile::tempdir().expect("a folder");
    let (source, target, cache) =
        (place.path().join("source"), place.path().join("target"), place.path().join("cache"));
    fs::create_dir(&source).expect("made");
    fs::write(source.join("file"), "saved").expect("written");
    let storage = memory(SWAPS);
    backup(Arc::new(storage.clone()), &cache, &source).expect("a backup");
    fs::create_dir_all(target.join("file/below")).expect("made");
    fs::write(target.join("file/below/x"), "extra").expect("written");
    let repo = open(Arc::new(storage), &cache).expect("it opens");
    let snapshot = fixture::snapshots(&repo).remove(0);
    let options = RestoreOptions {
        path: Some(source.as_os_str().as_encoded_bytes().to_vec()),
        delete: true,
        ..RestoreOptions::new(target.clone())
    };
    let plan = repo.plan_restore(&snapshot, options.clone(), &Watch::silent()).expect("planned");
    fs::write(target.join("file/below/since"), "precious").expect("written");
    let report = plan.run(&Watch::silent()).expect("restored");
    assert_eq!((report.blocked, report.warnings_count), (1, 1), "{:?}", report.warnings);
    let names = || fs::read_dir(&target).expect("listed").map(|one| one.expect("one").file_name());
    assert_eq!(names().collect::<Vec<_>>(), ["file"]);
    assert_eq!(fs::read_to_string(target.join("file/below/since")).expect("it is there"), "precious");
    // The next plan knows it.
    let plan = repo.plan_restore(&snapshot, options, &Watch::silent()).expect("planned");
    plan.run(&Watch::silent()).expect("restored");
    assert_eq!(fs::read_to_string(target.join("file")).expect("it is a file"), "saved");
}

/// A plan named only paths: what came under such a name after the plan, or was written since, was deleted with exit 0.
#[test]
fn what_came_under_a_planned_name_or_changed_after_the_plan_is_not_deleted() {
    let place = tempfile::tempdir().expect("a folder");
    let at = |name: &str| place.path().join(name);
    let write = |name: &str, content: &str| fs::write(at("target").join(name), content).expect("written");
    fs::create_dir(at("source")).expect("made");
    fs::write(at("source/file"), "saved").expect("written");
    let storage = memory(SWAPS);
    backup(Arc::new(storage.clone()), &at("cache"), &at("source")).expect("a backup");
    for name in ["target/directory", "target/below/deep"] {
        fs::create_dir_all(at(name)).expect("made");
    }
    for name in ["moved", "written", "linked", "same", "directory/x", "below/deep/moved", "below/same"] {
        write(name, "extra");
    }
    fs::hard_link(at("target/same"), at("target/also same")).expect("linked");
    let repo = open(Arc::new(storage), &at("cache")).expect("it opens");
    let snapshot = fixture::snapshots(&repo).remove(0);
    let options = RestoreOptions {
        path: Some(at("source").as_os_str().as_encoded_bytes().to_vec()),
        delete: true,
        ..RestoreOptions::new(at("target"))
    };
    let plan = repo.plan_restore(&snapshot, options, &Watch::silent()).expect("planned");
    for name in ["moved", "below/deep/moved"] {
        fs::write(at("new"), "newer").expect("written");
        fs::rename(at("new"), at("target").join(name)).expect("moved");
    }
    write("written", "more than before");
    fs::remove_file(at("target/linked")).expect("removed");
    std::os::unix::fs::symlink("elsewhere", at("target/linked")).expect("linked");
    fs::rename(at("target/directory"), at("away")).expect("moved");
    fs::create_dir(at("target/directory")).expect("made");
    write("directory/y", "newer");
    let report = plan.run(&Watch::silent()).expect("restored");
    for (name, content) in [
        ("moved", "newer"),
        ("below/deep/moved", "newer"),
        ("written", "more than before"),
        ("directory/y", "newer"),
        ("file", "saved"),
    ] {
        assert_eq!(fs::read_to_string(at("target").join(name)).expect("it is there"), content, "{name}");
    }
    assert!(at("target/linked").is_symlink());
    for name in ["same", "also same", "below/same"] {
        assert!(!at("target").join(name).exists(), "{name} is as the plan found it");
    }
    let told = report.warnings.iter().any(|warning| warning.what.contains("came or changed after the plan"));
    assert!(told, "{:?}", report.warnings);
}

/// What a capability allows a user to do is done as for root.
#[test]
fn a_user_who_may_do_what_owners_may_mends_metadata_of_others() {
    let person = saved(|person| person.write("source/file", "saved"));
    fixture::copy(&person.path("source"), &person.path("target"));
    let setpriv = ["--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=+fowner", "--ambient-caps=+fowner"];
    let may_be = Command::new("setpriv").args(setpriv).arg("true").status().is_ok_and(|status| status.success());
    if !is_root() || !may_be {
        return skipped("a user with a capability", "it takes root and setpriv");
    }
    as_nobody(&person, &["snapshots"]).ends_with(0);
    lchown(person.path("target/file"), Some(0), Some(0)).expect("given");
    chmod(&person, "target/file", 0o600);
    let run = |words: &[&str]| {
        let silt = person.command(words);
        let mut given = Command::new("setpriv");
        given.args(setpriv).arg(silt.get_program()).args(silt.get_args()).current_dir(person.home.path());
        given.envs(silt.get_envs().filter_map(|(name, value)| Some((name, value?))));
        said(given.output().expect("it runs"))
    };
    both(&person, run, &[], 0);
    assert_eq!(mode(&person, "target/file"), 0o644);
}
