//! The marks of what is half-done hold from the first moment to the last, whatever ACLs, owners and kills do, and mark nothing
//! else.

use crate::fixture::{self, Hooked, SWAPS, backup, memory, open};
use crate::person::{Person, Said, contents, on_one_processor};
use crate::restore::{as_nobody, chmod, is_root, latest, restore, saved, set_time, text};
use crate::restore_way::both;
use crate::skip::skipped;
use siltstone::error::Kind;
use siltstone::restore::RestoreOptions;
use siltstone::watch::Watch;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

const HALF_DONE: u32 = 0o1200;

fn runs(words: &[&str], path: &Path) -> bool {
    let done = Command::new(words[0]).args(&words[1..]).arg(path).output();
    done.is_ok_and(|output| output.status.success())
}

/// Contents, modes, times and attributes of all that is below a folder.
fn everything(folder: &Path) -> (crate::person::Contents, Vec<String>) {
    let words = ["-R", "-h", "-d", "-m", "-", "-e", "hex", "."];
    let attributes = Command::new("getfattr").args(words).current_dir(folder).output().expect("getfattr runs");
    let mut of_each: Vec<_> =
        String::from_utf8_lossy(&attributes.stdout).split("\n\n").map(ToOwned::to_owned).collect();
    of_each.sort();
    (contents(folder), of_each)
}

/// Whether kills can be injected, and attributes be read.
fn may_trace() -> bool {
    let runs = |words: &[&str]| {
        let output = Command::new(words[0]).args(&words[1..]).output();
        output.is_ok_and(|output| output.status.success())
    };
    runs(&["strace", "-f", "-qq", "-o", "/dev/null", "true"]) && runs(&["getfattr", "--version"])
}

/// Restores with one writer that dies at the Nth of these system calls; whether it did.
fn dies(person: &Person, call: &str, number: usize, words: &[&str], user: Option<u32>) -> bool {
    let silt = person.command(words);
    let mut strace = Command::new("strace");
    strace.args(["-f", "-qq", "-o", "/dev/null", "-e", &format!("trace={call}")]);
    strace.args(["-e", &format!("inject={call}:signal=SIGKILL:when={number}")]).args(on_one_processor());
    strace.arg(silt.get_program()).args(silt.get_args()).current_dir(person.home.path());
    strace.envs(silt.get_envs().filter_map(|(name, value)| Some((name, value?))));
    if let Some(user) = user {
        strace.uid(user).gid(user);
    }
    let output = strace.output().expect("strace runs");
    assert!(matches!(output.status.code(), None | Some(0)), "{}", String::from_utf8_lossy(&output.stderr));
    output.status.code().is_none()
}

/// Kills a restore into `prepare`'s target at each of these calls in turn: a restore with `--overwrite never` then makes it whole.
fn is_whole_after_each_kill(
    person: &Person,
    calls: &[&str],
    prepare: impl Fn(),
    user: Option<u32>,
    again: impl Fn(&[&str]) -> Said,
) {
    let named = latest(person, "source");
    let expected = everything(&person.path("source"));
    for call in calls {
        for number in 1.. {
            let _not_there_at_first = fs::remove_dir_all(person.path("out"));
            prepare();
            let words = ["restore", &named, "--target", "out/new"];
            if !dies(person, call, number, &words, user) {
                assert!(number > 1, "{call} was not met");
                break;
            }
            again(&[&words[..], &["--overwrite", "never"]].concat()).ends_with(0);
            let found = everything(&person.path("out/new"));
            assert!(found == expected, "{call} {number}: {found:?} for {expected:?}");
        }
    }
}

/// Whatever had the mode of half-done files was replaced, also if it was saved so, and what has a similar mode.
#[test]
fn what_was_saved_with_the_mode_of_half_done_files_is_kept() {
    if !is_root() {
        return skipped("files with the mode of half-done ones", "only root can save them");
    }
    let person = saved(|person| {
        for (name, mode) in [("so", HALF_DONE), ("similar", 0o644), ("same", 0o1000)] {
            person.write(&format!("source/{name}"), "saved");
            chmod(person, &format!("source/{name}"), mode);
        }
    });
    for overwrite in ["never", "if-newer"] {
        for (name, mode) in [("so", HALF_DONE), ("similar", 0o1000), ("same", 0o1000)] {
            person.write(&format!("source/{name}"), "mine, and newer");
            chmod(&person, &format!("source/{name}"), mode);
        }
        restore(&person, &["--overwrite", overwrite]).ends_with(0);
        for name in ["so", "similar", "same"] {
            chmod(&person, &format!("source/{name}"), 0o600);
            assert_eq!(text(&person, &format!("source/{name}")), "mine, and newer", "{name} {overwrite}");
        }
    }
}

/// It was made readable to be compared, and a kill at that moment left it without its mark.
#[test]
fn a_half_done_file_keeps_its_mark_until_it_is_replaced() {
    if !is_root() || !may_trace() {
        return skipped("kills beside a half-done file", "it takes root, strace and getfattr");
    }
    let person = saved(|person| {
        person.write("source/dir/file", "saved");
        set_time(&person.path("source/dir/file"), 1_500_000_000);
        set_time(&person.path("source/dir"), 1_500_000_000);
    });
    as_nobody(&person, &["snapshots"]).ends_with(0);
    let prepare = || {
        person.write("out/new/dir/file", "saved");
        for name in ["out", "out/new", "out/new/dir", "out/new/dir/file"] {
            set_time(&person.path(name), 1_500_000_000);
            std::os::unix::fs::chown(person.path(name), Some(65534), Some(65534)).expect("given");
        }
        // Only its content, which would have to be read, is as it was saved.
        set_time(&person.path("out/new/dir/file"), 1_400_000_000);
        chmod(&person, "out/new/dir/file", HALF_DONE);
        chmod(&person, "out/new/dir", 0o1755);
    };
    let calls = ["fchmod", "renameat"];
    is_whole_after_each_kill(&person, &calls, prepare, Some(65534), |words| as_nobody(&person, words));
}

/// An ACL that a directory inherited or that was saved with it changed the mark of unfinished ones: what a killed restore left
/// was kept as it was.
#[test]
fn directories_keep_their_mark_through_acls() {
    let person = saved(|person| {
        for name in ["source/plain/f", "source/own/f"] {
            person.write(name, "saved");
        }
        chmod(person, "source/plain", 0o755);
    });
    let own = person.path("source/own");
    let acl = ["setfacl", "-m", "u:7:rwx,g:8:rx,o::-,d:g:7:rwx"];
    if !runs(&acl, &own) || !runs(&["setfattr", "-n", "user.x", "-v", "1"], &own) || !may_trace() {
        return skipped("marks of directories with ACLs", "setfacl, setfattr, getfattr or strace is refused");
    }
    for name in ["own/f", "own", "plain/f", "plain"] {
        set_time(&person.path("source").join(name), 1_500_000_000);
    }
    person.silt(&["backup", "source"]).ends_with(0);
    let calls = ["mkdirat", "fchmod", "fsetxattr", "pwrite64", "utimensat", "fremovexattr"];
    for inherited in [None, Some("u:9:rwx,g::rwx,o::-"), Some("u::r-x,g::rwx,o::rwx")] {
        let prepare = || {
            fs::create_dir(person.path("out")).expect("made");
            if let Some(inherited) = inherited {
                assert!(runs(&["setfacl", "-d", "-m", inherited], &person.path("out")));
            }
        };
        // Only an inherited ACL has to be removed.
        let calls = &calls[..calls.len() - usize::from(inherited.is_none())];
        is_whole_after_each_kill(&person, calls, prepare, None, |words| person.silt(words));
    }
}

/// If a default ACL denied the owner rights, new directories could not be opened, and attributes were refused.
#[test]
fn a_default_acl_that_denies_the_owner_stops_nothing() {
    let person = saved(|person| {
        person.write("source/dir/below/f", "saved");
        person.write("source/g", "saved");
    });
    if !runs(&["setfattr", "-n", "user.x", "-v", "1"], &person.path("source/g")) {
        return skipped("default ACLs that deny the owner", "setfattr is refused");
    }
    as_nobody(&person, &["backup", "source"]).ends_with(0);
    let expected = everything(&person.path("source"));
    for acl in ["u::-,g::rwx,o::-", "u::r-x,g::rwx,o::-", "u::-w-,u:9:rwx,g::-,o::-"] {
        fs::create_dir(person.path("target")).expect("made");
        if !runs(&["setfacl", "-d", "-m", acl], &person.path("target")) {
            return skipped("default ACLs that deny the owner", "setfacl is refused");
        }
        both(&person, |words| as_nobody(&person, words), &[], 0);
        let mut found = everything(&person.path("target"));
        // The target was there before, and keeps its ACL.
        found.1.retain(|attributes| !attributes.starts_with("# file: .\n"));
        assert!(found == expected, "{acl}: {found:?} for {expected:?}");
        fs::remove_dir_all(person.path("target")).expect("removed");
    }
}

/// Half a file in the place of a link or a directory stayed with `--overwrite never`.
#[test]
fn half_a_file_makes_way_for_what_is_no_file() {
    let person = saved(|person| {
        symlink("nowhere", person.path("source/link")).expect("linked");
        person.write("source/dir/f", "saved");
    });
    for overwrite in ["never", "if-newer"] {
        for (name, mode) in [("link", HALF_DONE), ("dir", HALF_DONE)] {
            person.write(&format!("target/{name}"), "half");
            chmod(&person, &format!("target/{name}"), mode);
        }
        both(&person, |words| person.silt(words), &["--overwrite", overwrite], 0);
        assert_eq!(fs::read_link(person.path("target/link")).expect("a link"), Path::new("nowhere"));
        assert_eq!(text(&person, "target/dir/f"), "saved");
        fs::remove_dir_all(person.path("target")).expect("removed");
    }
}

/// A restore that was interrupted in the middle of a file removed the name, although another restore had completed the file.
#[test]
fn an_interrupted_restore_leaves_what_another_one_completed() {
    let place = tempfile::tempdir().expect("a folder");
    let (source, target) = (place.path().join("source"), place.path().join("target"));
    fs::create_dir_all(source.join("dir")).expect("made");
    fs::write(source.join("dir/file"), crate::golden::noise(1 << 20, 1)).expect("written");
    let storage = memory(SWAPS);
    backup(Arc::new(storage.clone()), &place.path().join("cache"), &source).expect("a backup");
    let other = open(Arc::new(storage.clone()), &place.path().join("cache of another")).expect("it opens");
    let snapshot = fixture::snapshots(&other).remove(0);
    let (watch, is_armed, found) = (Watch::silent(), Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(None)));
    let half = target.join("dir/file");
    let before = {
        let (watch, is_armed, found) = (watch.clone(), is_armed.clone(), found.clone());
        let (other, snapshot, source, target) = (other.clone(), snapshot.clone(), source.clone(), target.clone());
        move |_: &str, _: &str| {
            if half.exists() && is_armed.swap(false, Ordering::Relaxed) {
                *found.lock().expect("whole") = Some(half.metadata().expect("there").permissions().mode() & 0o7777);
                fixture::restore(&other, &snapshot, &source, &target).expect("restored");
                watch.cancel.cancel();
            }
        }
    };
    let repo = open(Arc::new(Hooked { inner: storage, before }), &place.path().join("cache")).expect("it opens");
    let options = RestoreOptions {
        path: Some(source.as_os_str().as_encoded_bytes().to_vec()),
        writers: 1,
        ..RestoreOptions::new(target.clone())
    };
    let plan = repo.plan_restore(&snapshot, options, &watch).expect("planned");
    is_armed.store(true, Ordering::Relaxed);
    let stopped = plan.run(&watch);
    assert!(stopped.is_err_and(|error| error.is(Kind::Cancelled)));
    assert_eq!(*found.lock().expect("whole"), Some(HALF_DONE), "the other one met half a file");
    assert!(fs::read(target.join("dir/file")).expect("it stays") == crate::golden::noise(1 << 20, 1));
}
