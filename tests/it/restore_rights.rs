//! What the system refuses to this user a plan knows as the restore does, and nothing of it is lost without a word.

use crate::person::{Person, Said, said};
use crate::restore::{as_nobody, chmod, is_root, latest, saved, set_time, text};
use crate::skip::skipped;
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
    let copied = Command::new("cp").args(["-a", "source", "target"]).current_dir(person.home.path()).status();
    assert!(copied.expect("cp runs").success());
}

fn mode(person: &Person, name: &str) -> u32 {
    fs::symlink_metadata(person.path(name)).expect("it is there").mode() & 0o7777
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
    assert!(!done.err.contains("keeps times less exactly"), "{}", done.err);
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
        let strace = ["strace", "-f", "-qq", "-o", &log, "-e", &trace, "-e", inject, "taskset", "-c", "0"];
        let by = [&strace[..], &["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]].concat();
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
    for (limit, closed) in [(14, 0o300), (20, 0o000), (24, 0o400), (28, 0o000), (32, 0o400)] {
        copy_of_source(&person);
        as_nobody(&person, &["snapshots"]).ends_with(0);
        (1..40).rev().for_each(|count| chmod(&person, &format!("target/{}", deep(count)), closed));
        let limited = format!("ulimit -n {limit}; exec \"$@\"");
        let by = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "sh", "-c", &limited, "sh"];
        started_by(&person, &by, &["restore", &named, "--target", "target", "--overwrite", "never"]);
        for count in 1..40 {
            assert_eq!(mode(&person, &format!("target/{}", deep(count))), closed, "{limit} {count}");
        }
        fs::remove_dir_all(person.path("target")).expect("removed");
    }
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
