//! What the system refuses to this user a plan knows as the restore does, and nothing of it is lost without a word.

use crate::fixture::copy;
use crate::person::{Person, Said, on_one_processor, said};
use crate::restore::{as_nobody, chmod, is_root, latest, saved, set_time, text};
use crate::restore_way::{as_stranger, both, plan_and_deed};
use crate::skip::skipped;
use crate::undone::{changed, mounted};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, lchown};
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

/// The same silt started by another program.
fn started_by(person: &Person, by: &[&str], words: &[&str]) -> Said {
    let silt = person.command(words);
    let mut command = Command::new(by[0]);
    command.args(&by[1..]).arg(silt.get_program()).args(silt.get_args()).current_dir(person.home.path());
    command.envs(silt.get_envs().filter_map(|(name, value)| Some((name, value?))));
    said(command.output().expect("it runs"))
}

fn works(by: &[&str]) -> bool {
    Command::new(by[0]).args(&by[1..]).arg("true").output().is_ok_and(|output| output.status.success())
}

fn copy_of_source(person: &Person) {
    copy(&person.path("source"), &person.path("target"));
}

fn mode(person: &Person, name: &str) -> u32 {
    fs::symlink_metadata(person.path(name)).expect("it is there").mode() & 0o7777
}

/// The kernel takes the setgid bit of a group that the user is not in: it was gone, and the restore ended with 0.
#[test]
fn a_setgid_bit_that_is_refused_is_a_warning() {
    if !is_root() {
        return skipped("setgid bits of other groups", "it takes root to give them");
    }
    let person = saved(|person| {
        person.write("source/dir/f", "saved");
        person.write("source/plain", "saved");
    });
    as_nobody(&person, &["snapshots"]).ends_with(0);
    fs::create_dir(person.path("target")).expect("made");
    for name in ["source", "source/dir", "source/dir/f", "source/plain", "target"] {
        lchown(person.path(name), Some(65534), Some(1234)).expect("given");
    }
    for (name, mode) in [("source/dir", 0o2775), ("source/dir/f", 0o2755), ("target", 0o2775)] {
        chmod(&person, name, mode);
    }
    let run =
        |words: &[&str]| started_by(&person, &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], words);
    run(&["backup", "source"]).ends_with(0);
    // The second time, files and directories are there.
    for _ in 0..2 {
        let done = both(&person, run, &[], 3);
        let lost = "its setgid bit could not be restored: cannot set the setgid bit: this user is not in its group";
        assert_eq!(done.err.matches(lost).count(), 2, "{}", done.err);
    }
    assert_eq!((mode(&person, "target/dir"), mode(&person, "target/dir/f")), (0o775, 0o755));
    let in_group = ["setpriv", "--reuid=65534", "--regid=65534", "--groups=1234"];
    both(&person, |words| started_by(&person, &in_group, words), &[], 0);
    assert_eq!((mode(&person, "target/dir"), mode(&person, "target/dir/f")), (0o2775, 0o2755));
}

/// The plan said 0 where root without a capability was refused something, and without `CAP_FSETID` so did the restore.
#[test]
fn what_capabilities_allow_the_plan_knows_as_the_restore() {
    let drops = |capability: &str| ["setpriv".to_owned(), format!("--bounding-set=-{capability}")];
    if !is_root() || !works(&["setpriv", "--bounding-set=-fsetid"]) {
        return skipped("root without some capabilities", "it takes root and setpriv");
    }
    let person = Person::new();
    for name in
        ["source/dir/setgid", "source/dir/capable", "source/dir/trusted", "source/dir/fixed", "source/dir/plain"]
    {
        person.write(name, "saved");
    }
    let set = |attribute: &str, value: &str, name: &str| {
        let words = ["-n", attribute, "-v", value];
        let done = Command::new("setfattr").args(words).arg(person.path(name)).output();
        done.is_ok_and(|output| output.status.success())
    };
    let capability = "0x0100000200040000000000000000000000000000";
    let is_set =
        set("security.capability", capability, "source/dir/capable") && set("trusted.x", "1", "source/dir/trusted");
    for name in ["source/dir", "source/dir/setgid"] {
        lchown(person.path(name), Some(1000), Some(1234)).expect("given");
        chmod(&person, name, 0o2775);
    }
    let made = Command::new("mknod").arg(person.path("source/dir/device")).args(["c", "1", "3"]).output();
    let fixed = Command::new("chattr").arg("+i").arg(person.path("source/dir/fixed")).output();
    person.silt(&["backup", "source"]).ends_with(0);
    let loosen = |name: &str| Command::new("chattr").arg("-i").arg(person.path(name)).output();
    let _not_everywhere = loosen("source/dir/fixed");
    let succeeded = |output: std::io::Result<std::process::Output>| output.is_ok_and(|output| output.status.success());
    if !is_set || !succeeded(made) || !succeeded(fixed) {
        return skipped("root without some capabilities", "attributes, devices or flags are refused");
    }
    let all = ["chown", "fowner", "fsetid", "setfcap", "sys_admin", "linux_immutable", "mknod", "dac_override"];
    for capability in all {
        let by = drops(capability);
        let by: Vec<&str> = by.iter().map(String::as_str).collect();
        for before in ["nothing", "the same", "another mode and owner"] {
            fs::create_dir_all(person.path("target")).expect("made");
            if before != "nothing" {
                fs::remove_dir(person.path("target")).expect("removed");
                copy_of_source(&person);
            }
            if before == "another mode and owner" {
                lchown(person.path("target/dir/setgid"), Some(7), Some(7)).expect("given");
                lchown(person.path("target/dir"), Some(7), Some(7)).expect("given");
                chmod(&person, "target/dir/setgid", 0o600);
                chmod(&person, "target/dir", 0o700);
            }
            let named = latest(&person, "source");
            let words = ["restore", &named, "--target", "target"];
            let plan = started_by(&person, &by, &[&words[..], &["--dry-run"]].concat());
            let done = started_by(&person, &by, &words);
            let told = format!("{capability}, {before}:\n{}{}\n{}{}", plan.out, plan.err, done.out, done.err);
            assert_eq!(plan.code, done.code, "{told}");
            let is_whole = ["target/dir", "target/dir/setgid"].iter().all(|name| mode(&person, name) == 0o2775);
            assert!(done.code == 3 || is_whole, "{told}");
            let _not_everywhere = loosen("target/dir/fixed");
            fs::remove_dir_all(person.path("target")).expect("removed");
        }
    }
}

/// In a user namespace root is not root to what belongs to users that it does not know; the plan took it for that.
#[test]
fn a_user_namespace_reaches_only_the_users_that_it_knows() {
    let by = ["unshare", "-Ur"];
    if !is_root() || !works(&by) {
        return skipped("a restore in a user namespace", "it takes root and unshare");
    }
    let person = saved(|person| {
        for name in ["source/mode", "source/owner", "source/dir/f", "source/content/f"] {
            person.write(name, "saved");
        }
    });
    type Change = fn(&Person);
    let changes: [(Change, &[&str]); 4] = [
        (|person| chmod(person, "target/mode", 0o600), &["target/mode"]),
        (|_| {}, &["target/owner"]),
        (|person| chmod(person, "target/dir", 0o700), &["target/dir"]),
        (
            |person| {
                person.write("target/content/f", "of somebody else");
                chmod(person, "target/content", 0o1777);
            },
            &["target/content", "target/content/f"],
        ),
    ];
    for (change, given) in changes {
        copy_of_source(&person);
        change(&person);
        given.iter().for_each(|name| lchown(person.path(name), Some(1000), Some(1000)).expect("given"));
        both(&person, |words| started_by(&person, &by, words), &[], 3);
        fs::remove_dir_all(person.path("target")).expect("removed");
    }
    copy_of_source(&person);
    both(&person, |words| started_by(&person, &by, words), &[], 0);
    // An ACL that names an unknown user is refused.
    let named = Command::new("setfacl").args(["-m", "u:7:rw"]).arg(person.path("source/mode")).output();
    if named.is_ok_and(|output| output.status.success()) {
        person.silt(&["backup", "source"]).ends_with(0);
        both(&person, |words| started_by(&person, &by, words), &[], 3);
        fs::remove_dir_all(person.path("target")).expect("removed");
        both(&person, |words| started_by(&person, &by, words), &[], 3);
    }
}

/// A time that was refused was told as one that the file system cuts.
#[test]
fn a_time_that_is_refused_is_not_called_cut() {
    if !works(&["strace", "-f", "-qq", "-o", "/dev/null"]) {
        return skipped("a refused time", "strace is not there or may not trace");
    }
    let at = |person: &Person, name: &str, nanoseconds: u32| {
        let file = fs::File::open(person.path(name)).expect("opened");
        file.set_modified(UNIX_EPOCH + Duration::new(1_500_000_000, nanoseconds)).expect("its time is set");
    };
    let person = saved(|person| {
        person.write("source/file", "saved");
        at(person, "source/file", 123_456_789);
    });
    copy_of_source(&person);
    at(&person, "target/file", 500_000_000);
    let inject = "inject=utimensat:error=EPERM";
    let by = ["strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=utimensat", "-e", inject];
    let named = latest(&person, "source");
    let done = started_by(&person, &by, &["restore", &named, "--target", "target"]).ends_with(3);
    assert!(done.err.contains("its modification time could not be restored"), "{}", done.err);
    assert!(!done.err.contains("stores times less precisely"), "{}", done.err);
}

/// What was opened up to be worked in stayed open to all whom its new mode lets in when that work failed.
#[test]
fn what_was_opened_up_is_closed_again_whatever_fails() {
    if !is_root() || !works(&["strace", "-f", "-qq", "-o", "/dev/null"]) {
        return skipped("faults in closed directories", "it takes root and strace");
    }
    let person = saved(|person| person.write("source/closed/f", "saved"));
    as_nobody(&person, &["snapshots"]).ends_with(0);
    let named = latest(&person, "source");
    let words = ["restore", &named, "--target", "target", "--overwrite", "never", "--delete"];
    let log = person.path("log").display().to_string();
    let run = |call: &str, inject: &str| {
        let trace = format!("trace={call}");
        let strace = ["strace", "-f", "-qq", "-o", &log, "-e", &trace, "-e", inject];
        let one = on_one_processor();
        let one = one.each_ref().map(String::as_str);
        let by = [&strace[..], &one, &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]].concat();
        started_by(&person, &by, &words);
        text(&person, "log")
    };
    for (call, closed) in [("openat", 0o300), ("openat", 0o700), ("statx", 0o300)] {
        plant_closed(&person, closed);
        let numbers = calls_from(&run(call, &format!("trace={call}")), "\"closed\"");
        let mut met = 0;
        for number in numbers {
            fs::remove_dir_all(person.path("target")).expect("removed");
            plant_closed(&person, closed);
            let log = run(call, &format!("inject={call}:error=EIO:when={number}"));
            met += usize::from(log.contains("(INJECTED)"));
            assert_eq!(mode(&person, "target/closed"), closed, "{call} {number}");
            if person.path("target/closed/extra").exists() {
                assert_eq!(mode(&person, "target/closed/extra"), 0o500, "{call} {number}");
            }
        }
        assert!(met > 0, "no call failed");
        fs::remove_dir_all(person.path("target")).expect("removed");
    }
}

/// Deep down in closed directories, the few descriptors that there were did not suffice to close them again.
#[test]
fn few_descriptors_suffice_to_close_deep_directories() {
    if !is_root() {
        return skipped("few descriptors in closed directories", "it takes root to give them away");
    }
    let deep = |count: usize| vec!["x"; count].join("/");
    let person = saved(|person| {
        (1..40).for_each(|count| person.write(&format!("source/{}/f", deep(count)), count.to_string()));
    });
    let named = latest(&person, "source");
    let (mut is_met, mut is_through) = (false, false);
    for (limit, closed) in [(14, 0o300), (20, 0o000), (24, 0o400), (28, 0o000), (32, 0o400)] {
        copy_of_source(&person);
        as_nobody(&person, &["snapshots"]).ends_with(0);
        (1..40).rev().for_each(|count| chmod(&person, &format!("target/{}", deep(count)), closed));
        let limited = format!("ulimit -n {limit}; exec \"$@\"");
        let by = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &limited, "sh"];
        let done = started_by(&person, &by, &["restore", &named, "--target", "target", "--overwrite", "never"]);
        is_met |= done.code == 1 && done.err.contains("x/x/x: Too many open files");
        is_through |= done.code == 0;
        for count in 1..40 {
            assert_eq!(mode(&person, &format!("target/{}", deep(count))), closed, "{limit} {count}");
        }
        fs::remove_dir_all(person.path("target")).expect("removed");
    }
    assert!(is_met && is_through, "the limits are none, or too low");
}

fn plant_closed(person: &Person, mode: u32) {
    person.write("target/closed/f", "saved");
    person.write("target/closed/extra/f", "extra");
    for name in ["target", "target/closed", "target/closed/f", "target/closed/extra", "target/closed/extra/f"] {
        lchown(person.path(name), Some(65534), Some(65534)).expect("given");
    }
    chmod(person, "target/closed/extra", 0o500);
    chmod(person, "target/closed", mode);
}

/// The numbers of the calls of threads that name this, each counted in its thread, from the first one that does.
fn calls_from(log: &str, name: &str) -> std::ops::RangeInclusive<usize> {
    let mut threads: BTreeMap<&str, (usize, Option<usize>)> = BTreeMap::new();
    for line in log.lines().filter(|line| !line.contains("resumed>") && line.contains('(')) {
        let (count, first) = threads.entry(line.split(' ').next().unwrap_or_default()).or_default();
        *count += 1;
        if first.is_none() && line.contains(name) {
            *first = Some(*count);
        }
    }
    let naming = || threads.values().filter_map(|(count, first)| Some((*count, (*first)?)));
    let first = naming().map(|(_, first)| first).min().expect("it is named");
    first..=naming().map(|(count, _)| count).max().unwrap_or(first)
}

/// "Run the restore again" was the advice where each restore found the directory closed again, and where nothing would be
/// deleted.
#[test]
fn the_advice_for_closed_directories_helps() {
    let person = saved(|person| {
        person.write("source/dir/f", "saved");
        person.write("source/other/log", "saved");
        set_time(&person.path("source/dir/f"), 1_500_000_000);
    });
    let close = |person: &Person| {
        copy_of_source(person);
        person.write("target/dir/mine", "mine");
        chmod(person, "target/dir", 0o000);
    };
    let named = latest(&person, "source");
    let restore =
        |more: &[&str]| as_nobody(&person, &[&["restore", &named, "--target", "target", "--delete"], more].concat());
    let clear = || {
        chmod(&person, "target/dir", 0o700);
        fs::remove_dir_all(person.path("target")).expect("removed");
    };
    // It keeps its mode: only the user can open it.
    close(&person);
    let done = restore(&["--overwrite", "never"]).ends_with(3);
    assert!(done.err.contains("chmod u+rwx"), "{}", done.err);
    assert_eq!(mode(&person, "target/dir"), 0o000);
    chmod(&person, "target/dir", 0o700);
    restore(&["--overwrite", "never"]).ends_with(0);
    assert!(!person.path("target/dir/mine").exists());
    clear();
    // It gets the mode that was saved: the next restore sees what is in it.
    close(&person);
    let done = restore(&[]).ends_with(3);
    assert!(done.err.contains("run the restore again"), "{}", done.err);
    restore(&[]).ends_with(0);
    assert!(!person.path("target/dir/mine").exists());
    clear();
    // Nothing in it is to be deleted.
    for words in [["--include", "log"], ["--exclude", "mine"]] {
        close(&person);
        restore(&words).ends_with(0);
        clear();
    }
}

/// In a directory of 0555, or of which only a part goes, the plan said 0, and the restore deleted a part and ended with 3.
#[test]
fn own_directories_are_opened_up_for_what_is_deleted_in_them() {
    let person = saved(|person| {
        person.write("source/dir/f", "saved");
        chmod(person, "source/dir", 0o555);
    });
    copy_of_source(&person);
    chmod(&person, "target/dir", 0o755);
    for name in ["target/dir/extra/x", "target/part/x.o", "target/part/kept", "target/other/x.o", "target/other/y"] {
        person.write(name, "extra");
    }
    for name in ["target/dir", "target/part", "target/other"] {
        chmod(&person, name, 0o555);
    }
    both(&person, |words| as_nobody(&person, words), &["--delete", "--exclude", "kept", "--exclude", "y"], 0);
    assert!(!person.path("target/dir/extra").exists() && !person.path("target/part/x.o").exists());
    assert!(person.path("target/part/kept").exists() && !person.path("target/other/x.o").exists());
    assert_eq!(["dir", "part", "other"].map(|name| mode(&person, &format!("target/{name}"))), [0o555; 3]);
}

/// The plan did not look for what interrupted restores left in a directory that may not be listed, and ended with 0.
#[test]
fn a_directory_of_another_user_that_stays_as_it_is_is_no_failure() {
    if !is_root() {
        return skipped("directories of another user", "it takes root to create one");
    }
    let person = saved(|person| {
        fs::create_dir(person.path("source/dir")).expect("made");
        chmod(person, "source/dir", 0o744);
    });
    copy_of_source(&person);
    as_nobody(&person, &["snapshots"]).ends_with(0);
    lchown(person.path("target/dir"), Some(0), Some(0)).expect("given");
    let run =
        |words: &[&str]| started_by(&person, &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], words);
    both(&person, run, &[], 0);
}

/// Of a read-only mount the kernel tells the mode of the directory first: the plan ended with 0, the restore with 3.
#[test]
fn a_read_only_mount_is_known_whatever_the_modes_in_it() {
    if !is_root() {
        return skipped("own directories on a read-only mount", "it takes root to mount it");
    }
    let person = saved(|person| {
        person.write("source/own/f", "saved");
        person.write("source/others/f", "saved");
    });
    copy_of_source(&person);
    fs::remove_file(person.path("target/own/f")).expect("removed");
    as_nobody(&person, &["snapshots"]).ends_with(0);
    chmod(&person, "target/own", 0o555);
    chmod(&person, "target/others/f", 0o600);
    lchown(person.path("target/others"), Some(0), Some(0)).expect("given");
    let target = person.path("target");
    let held = mounted(&["--bind", &target.display().to_string()], &target);
    if held.is_none() || changed(&["mount", "-o", "remount,bind,ro"], &target, &["true"]).is_none() {
        return skipped("own directories on a read-only mount", "nothing can be mounted");
    }
    let run =
        |words: &[&str]| started_by(&person, &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"], words);
    let done = both(&person, run, &[], 3);
    assert_eq!(done.err.matches("mounted read-only").count(), 3, "{}", done.err);
}

/// Two names of one file are saved; in the target the first one belongs to root, and the other one is missing.
fn with_a_name_of_root() -> Person {
    let person = saved(|person| {
        person.write("source/a", "saved");
        fs::hard_link(person.path("source/a"), person.path("source/b")).expect("linked");
    });
    copy_of_source(&person);
    fs::remove_file(person.path("target/b")).expect("removed");
    as_nobody(&person, &["snapshots"]).ends_with(0);
    lchown(person.path("target/a"), Some(0), Some(0)).expect("given");
    person
}

/// A missing name of an inode became a file of its own without a word.
#[test]
fn names_that_cannot_be_linked_are_told() {
    if !is_root() {
        return skipped("a name that belongs to another user", "it takes root to create one");
    }
    let person = with_a_name_of_root();
    chmod(&person, "target/a", 0o606);
    let (plan, done) = plan_and_deed(&person, |words| as_stranger(&person, words), &[], 3);
    for said in [plan.err, done.err] {
        assert!(said.contains("belongs to another user") && said.contains("/b: it could not be linked"), "{said}");
    }
    assert_eq!(text(&person, "target/b"), "saved");
}

/// Flags were looked at only where something is immutable: the plan ended with 0, the restore with 3.
#[test]
fn flags_that_cannot_be_set_are_known_to_the_plan() {
    let mut has_flags = is_root();
    let person = saved(|person| {
        person.write("source/f", "saved");
        let set = Command::new("chattr").arg("+d").arg(person.path("source/f")).output();
        has_flags &= set.is_ok_and(|output| output.status.success());
    });
    if !has_flags {
        return skipped("flags that cannot be set", "it takes root and a file system with flags");
    }
    copy_of_source(&person);
    as_nobody(&person, &["snapshots"]).ends_with(0);
    lchown(person.path("target/f"), Some(0), Some(0)).expect("given");
    let (plan, done) = plan_and_deed(&person, |words| as_stranger(&person, words), &[], 3);
    for said in [plan.err, done.err] {
        assert!(said.contains("its flags could not be restored"), "{said}");
    }
    let target = person.path("target");
    let held = mounted(&["--bind", &target.display().to_string()], &target);
    if held.is_none() || changed(&["mount", "-o", "remount,bind,ro"], &target, &["true"]).is_none() {
        return skipped("flags on a read-only mount", "nothing can be mounted");
    }
    let done = both(&person, |words| person.silt(words), &["--no-owner"], 3);
    assert_eq!(done.err.matches("mounted read-only").count(), 1, "{}", done.err);
}

/// The directory of the first name had its mode already when others were to be linked to that: the plan ended with 0, the
/// restore with 3, and two files took the place of one.
#[test]
fn names_are_linked_out_of_directories_that_are_closed_in_the_end() {
    if !is_root() {
        return skipped("links out of closed directories", "only root can save them");
    }
    let mut has_flags = true;
    let person = saved(|person| {
        for closed in ["none", "listed"] {
            person.write(&format!("source/a/{closed}/below/f"), closed);
            fs::create_dir_all(person.path("source/b")).expect("made");
            let name = format!("source/b/{closed}");
            fs::hard_link(person.path(&format!("source/a/{closed}/below/f")), person.path(&name)).expect("linked");
        }
        person.write("source/flags", "a file that its owner may not read");
        let set = Command::new("chattr").arg("+d").arg(person.path("source/flags")).output();
        has_flags = set.is_ok_and(|output| output.status.success());
        for (name, mode) in [("a/none/below", 0o000), ("a/none", 0o000), ("a/listed", 0o400), ("flags", 0o200)] {
            chmod(person, &format!("source/{name}"), mode);
        }
    });
    both(&person, |words| as_nobody(&person, words), &[], 0);
    for (name, closed) in [("a/none", 0o000), ("a/listed", 0o400)] {
        assert_eq!(mode(&person, &format!("target/{name}")), closed);
        chmod(&person, &format!("target/{name}"), 0o700);
    }
    chmod(&person, "target/a/none/below", 0o700);
    for closed in ["none", "listed"] {
        let inode = |name: String| fs::metadata(person.path(&name)).expect("it is there").ino();
        assert_eq!(inode(format!("target/a/{closed}/below/f")), inode(format!("target/b/{closed}")), "{closed}");
    }
    if !has_flags {
        skipped("flags of files that cannot be read", "chattr is refused");
    }
}

/// The kernel clears the setuid and setgid bits of a FIFO, as of a file, when its owner changes: the restore lost them and ended with 0.
#[test]
fn a_fifo_that_gets_its_owner_back_keeps_its_setuid_bit() {
    if !is_root() {
        return skipped("setuid bits of other users", "it takes root to give files away");
    }
    let make = |person: &Person, directory: &str| {
        let made = Command::new("mkfifo").arg(person.path(&format!("{directory}/fifo"))).status().expect("it runs");
        assert!(made.success());
        chmod(person, &format!("{directory}/fifo"), 0o6711);
    };
    let person = saved(|person| {
        fs::create_dir_all(person.path("source")).expect("made");
        make(person, "source");
    });
    fs::create_dir(person.path("target")).expect("made");
    make(&person, "target");
    lchown(person.path("target/fifo"), Some(1000), None).expect("given");
    chmod(&person, "target/fifo", 0o6711);
    both(&person, |words| person.silt(words), &[], 0);
    assert_eq!(mode(&person, "target/fifo"), 0o6711);
}

/// With `--no-owner`, root becomes the owner of another user's file, which then loses its setuid bit: the plan did not report it.
#[test]
fn setuid_bits_that_another_owner_takes_are_told_by_the_plan() {
    if !is_root() {
        return skipped("setuid bits of other users", "it takes root to give files away");
    }
    let person = saved(|person| {
        person.write("source/f", "saved");
        lchown(person.path("source/f"), Some(65534), Some(65534)).expect("given");
        chmod(person, "source/f", 0o4755);
        person.write("source/both", "saved");
        lchown(person.path("source/both"), Some(65534), Some(65534)).expect("given");
        chmod(person, "source/both", 0o6755);
    });
    for _ in ["new", "there"] {
        let (plan, done) = plan_and_deed(&person, |words| person.silt(words), &["--no-owner"], 3);
        for bits in ["setuid bit", "setuid and setgid bits"] {
            assert!(plan.err.contains(bits) && done.err.contains(bits), "{}{}", plan.err, done.err);
        }
    }
}

/// With `fs.protected_hardlinks`, the kernel refuses hard links to files of other users: the plan did not report it.
#[test]
fn files_that_nobody_else_may_link_to_are_known_to_the_plan() {
    let is_protected = fs::read("/proc/sys/fs/protected_hardlinks").is_ok_and(|value| value.trim_ascii() == b"1");
    if !is_root() || !is_protected {
        return skipped("protected hard links", "it takes root, and fs.protected_hardlinks");
    }
    let person = with_a_name_of_root();
    let (plan, done) = plan_and_deed(&person, |words| as_stranger(&person, words), &[], 3);
    for said in [plan.err, done.err] {
        assert_eq!(said.matches("/b: it could not be linked").count(), 1, "{said}");
    }
}

/// A target that its directory refuses: the plan ended with 0, the restore with 1.
#[test]
fn a_target_that_cannot_be_created_is_an_error_of_the_plan() {
    if !is_root() {
        return skipped("a target in a directory of another user", "it takes root to create one");
    }
    let person = saved(|person| person.write("source/f", "saved"));
    fs::create_dir(person.path("others")).expect("made");
    as_nobody(&person, &["snapshots"]).ends_with(0);
    lchown(person.path("others"), Some(0), Some(0)).expect("given");
    let named = latest(&person, "source");
    for more in [&["--dry-run"][..], &[]] {
        let words = [&["restore", &named, "--target", "others/new/target"][..], more].concat();
        let done = as_stranger(&person, &words).ends_with(1);
        assert!(done.err.contains("others/new/target: Permission denied"), "{}", done.err);
    }
}

/// A target in the repository that its mode closes was refused by the restore only.
#[test]
fn a_closed_target_in_the_repository_is_refused_by_the_plan() {
    let person = saved(|person| person.write("source/f", "saved"));
    let target = person.path("data/siltstone/repository/packs/closed");
    fs::create_dir(&target).expect("made");
    fs::set_permissions(&target, std::os::unix::fs::PermissionsExt::from_mode(0o000)).expect("set");
    let named = latest(&person, "source");
    for more in [&["--dry-run"][..], &[]] {
        let words = [&["restore", &named, "--target", target.to_str().expect("text")][..], more].concat();
        let done = as_nobody(&person, &words).ends_with(1);
        assert!(done.err.contains("inside the repository"), "{}", done.err);
    }
}

/// Each directory that was opened up to be deleted kept a descriptor: the plan said 0, and the restore ran out of them.
#[test]
fn few_descriptors_suffice_to_delete_deep_closed_directories() {
    if !is_root() {
        return skipped("few descriptors in closed directories", "it takes root to give them away");
    }
    let person = saved(|person| person.write("source/f", "saved"));
    copy_of_source(&person);
    let deep = |count: usize| format!("target/{}", vec!["x"; count].join("/"));
    person.write(&format!("{}/f", deep(100)), "extra");
    as_nobody(&person, &["snapshots"]).ends_with(0);
    (1..=100).rev().for_each(|count| chmod(&person, &deep(count), 0o555));
    let by =
        ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", "ulimit -n 64; exec \"$@\"", "sh"];
    both(&person, |words| started_by(&person, &by, words), &["--delete"], 0);
    assert!(!person.path("target/x").exists());
}

/// One thread closed a directory that it had opened up only to look, while another one worked in it: one run in four ended
/// with 3.
#[test]
fn threads_share_a_directory_that_is_opened_up() {
    let person = saved(|person| {
        (0..8).for_each(|number| person.write(&format!("source/closed/{number}/kept"), "saved"));
        person.write("source/other.o", "saved");
    });
    for _ in 0..10 {
        let _not_there = fs::remove_dir_all(person.path("target"));
        copy_of_source(&person);
        as_nobody(&person, &["snapshots"]).ends_with(0);
        chmod(&person, "target/closed", 0o000);
        both(&person, |words| as_nobody(&person, words), &["--delete", "--include", "*.o"], 0);
        assert_eq!(mode(&person, "target/closed"), 0);
        chmod(&person, "target/closed", 0o755);
    }
}

/// A `/home` that others may search and not list: nothing below it was restored for the users whose homes are there.
#[test]
fn a_directory_above_a_source_is_passed_without_the_right_to_list_it() {
    if !is_root() {
        return skipped("directories of others that can be searched", "it takes root to create one");
    }
    let person = Person::new();
    person.write("home/me/data/f", "saved");
    person.write("home/me/more/g", "saved");
    as_nobody(&person, &["backup", "home/me/data", "home/me/more"]).ends_with(0);
    person.write("home/me/data/extra", "extra");
    as_nobody(&person, &["snapshots"]).ends_with(0);
    fs::remove_file(person.path("home/me/data/f")).expect("removed");
    lchown(person.path("home"), Some(0), Some(0)).expect("given");
    chmod(&person, "home", 0o711);
    let words = ["restore", "latest", "--target", "/", "--delete"];
    let plan = as_stranger(&person, &[&words[..], &["--dry-run"]].concat()).ends_with(0);
    assert!(plan.out.contains("home/me/data/extra"), "{}", plan.out);
    let done = as_stranger(&person, &words).ends_with(0);
    assert_eq!(done.err, "", "{}", done.out);
    assert_eq!(text(&person, "home/me/data/f"), "saved");
    assert!(!person.path("home/me/data/extra").exists());
    assert_eq!(mode(&person, "home"), 0o711);
    // What may not even be searched is an error.
    chmod(&person, "home", 0o700);
    let done = as_stranger(&person, &words).ends_with(3);
    assert!(done.err.contains("Permission denied"), "{}", done.err);
}
