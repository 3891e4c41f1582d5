//! Limits of the system neither crash a run nor make it save less than all: they cause an error, or slower work.

use crate::person::{Person, Said, contents, said};
use crate::server::{Server, answer};
use crate::skip::skipped;
use std::fs;
use std::process::{Command, Stdio};

/// Runs `silt` under `ulimit` with these words.
pub fn limited(person: &Person, limit: &str, words: &[&str]) -> Said {
    let silt = person.command(words);
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg(format!("ulimit {limit} && exec \"$0\" \"$@\"")).arg(silt.get_program()).args(silt.get_args());
    for (name, value) in silt.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell.current_dir(person.home.path()).stdin(Stdio::null());
    said(shell.output().unwrap())
}

/// The backup ended with 0, and no reader opened its snapshot.
#[test]
fn more_tags_than_a_snapshot_can_hold_are_refused_before_anything_is_read() {
    let person = Person::new();
    person.write("source/x", "x");
    let tag = "\u{1}".repeat(1000);
    let refused = person.silt(&["backup", "source", "--tag", &tag, "--tag", &tag]).ends_with(2);
    assert!(refused.err.contains("at most 8192") && refused.err.contains("or shorter tags"), "{}", refused.err);
    person.silt(&["backup", "source", "--tag", &tag]).ends_with(0);
    person.silt(&["ls", "latest"]).ends_with(0);
}

/// A file that grew beyond `ulimit -f` killed the process by a signal, without a word.
#[test]
fn a_file_that_may_not_grow_is_an_error_with_its_name() {
    let person = Person::new();
    person.write("source/noise", crate::golden::noise(3_000_000, 7));
    let silt = limited(&person, "-f 512", &["backup", "source"]);
    assert_eq!(silt.code, 1, "{}", silt.err);
    assert!(silt.err.starts_with("silt: cannot write ") && silt.err.contains("File too large"), "{}", silt.err);
    assert!(silt.err.contains("hint: raise the limit of the size of files (ulimit -f)"), "{}", silt.err);
    assert!(person.snapshots(&[]).is_empty());
    person.silt(&["backup", "source"]).ends_with(0);
    // A restore had no hint either, nor had a run with hardly any open files.
    let restored = limited(&person, "-f 512", &["restore", "latest", "--target", "out"]).ends_with(1);
    assert!(restored.err.contains("ulimit -f"), "{}", restored.err);
    let few = limited(&person, "-n 5", &["restore", "latest", "--target", "out"]).ends_with(1);
    assert!(few.err.contains("ulimit -n"), "{}", few.err);
}

/// Where the system gave no more threads, files or memory, a run panicked, made a snapshot of nearly nothing, or waited for
/// ever for threads of the local state that had not been started.
#[test]
fn small_limits_end_a_run_with_an_error_or_slow_it_down() {
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    let source = contents(&person.path("source"));
    let path = format!("latest:{}", person.path("source").display());
    let mut restored_under_limits = 0;
    let limits = [
        "-n 32",
        "-n 64",
        "-v 80000",
        "-v 120000",
        "-v 200000",
        "-v 230000",
        "-v 260000",
        "-v 600000",
        "-s 200",
        "-c 0",
    ];
    for limit in limits {
        let saved = limited(&person, limit, &["backup", "--force", "source", "--json"]);
        assert!(matches!(saved.code, 0 | 1), "{limit}: {} {}", saved.code, saved.err);
        let target = format!("out{}", limit.replace(' ', ""));
        let restored = limited(&person, limit, &["restore", &path, "--target", &target]);
        assert!(matches!(restored.code, 0 | 1), "{limit}: {} {}", restored.code, restored.err);
        if restored.code == 0 {
            assert_eq!(contents(&person.path(&target)), source, "{limit}");
            restored_under_limits += 1;
        }
        if saved.code == 0 {
            let target = format!("{target}-whole");
            person.silt(&["restore", &path, "--target", &target]).ends_with(0);
            assert_eq!(contents(&person.path(&target)), source, "{limit}");
        }
    }
    assert!(restored_under_limits > 0);
}

/// As [`small_limits_end_a_run_with_an_error_or_slow_it_down`], for threads: no limit of them holds for root.
#[test]
fn a_system_without_threads_to_spare_is_an_error() {
    let person = Person::new();
    person.make_source();
    if !rustix::process::geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        println!("SKIPPED: limits of threads: needs root and setpriv");
        return;
    }
    let nobody = 65_534;
    let silt = person.path("silt");
    std::fs::copy(env!("CARGO_BIN_EXE_silt"), &silt).unwrap();
    for entry in walkdir::WalkDir::new(person.home.path()) {
        std::os::unix::fs::lchown(entry.unwrap().path(), Some(nobody), Some(nobody)).unwrap();
    }
    let run = |threads: &str, words: &[&str]| {
        let template = person.command(words);
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "prlimit"]).arg(threads).arg(&silt);
        command.args(words).current_dir(person.home.path()).env_clear().stdin(Stdio::null());
        command.envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
        said(command.output().unwrap())
    };
    run("--nproc=1000", &["backup", "source"]).ends_with(0);
    for count in ["1", "2", "3", "4", "6", "8", "12", "16", "24", "32"] {
        for words in [&["backup", "-f", "source"][..], &["ls", "-R", "latest"], &["export", "latest", "-o", "x.tar"]] {
            let ended = run(&format!("--nproc={count}"), words);
            assert!(matches!(ended.code, 0 | 1), "{count}, {words:?}: {} {}", ended.code, ended.err);
            assert!(!ended.err.contains("panicked"), "{count}, {words:?}: {}", ended.err);
        }
    }
    // The threads of the network, too.
    let server = Server::start(|request, connection| answer(connection, request, "503 Service Unavailable", ""));
    for count in ["3", "4", "5", "6"] {
        let words = ["snapshots", "--retry-for", "0", "-r", &server.bucket()];
        let ended = run(&format!("--nproc={count}"), &words);
        assert!(ended.code == 1 && !ended.err.contains("panicked"), "{count}: {} {}", ended.code, ended.err);
    }
}

/// What a limit needs was said by the storage and lost on the way through the readers of packs.
#[test]
fn a_limit_that_a_reader_of_packs_meets_comes_with_its_advice() {
    if !Command::new("strace").args(["-o", "/dev/null", "true"]).status().is_ok_and(|status| status.success()) {
        return skipped("limits that a reader of packs meets", "strace is refused or not there");
    }
    let person = Person::new();
    person.write("source/f", crate::golden::noise(300_000, 1));
    person.silt(&["backup", "source"]).ends_with(0);
    let objects = crate::replaced::files_below(&person.path("data"));
    let largest =
        objects.iter().max_by_key(|object| fs::metadata(object).map_or(0, |meta| meta.len())).expect("a pack");
    assert!(largest.display().to_string().contains("/packs/"), "{largest:?}");
    let silt = person.command(&["restore", "latest", "--target", "out"]);
    let mut traced = Command::new("strace");
    traced.args(["-f", "-qq", "-o", "/dev/null", "-P"]).arg(largest).args(["-e", "inject=openat:error=EMFILE"]);
    traced.arg(silt.get_program()).args(silt.get_args()).current_dir(person.home.path());
    traced.envs(silt.get_envs().filter_map(|(name, value)| Some((name, value?))));
    let said = crate::person::said(traced.output().expect("strace runs")).ends_with(1);
    assert!(said.err.contains("hint: raise the limit of open files (ulimit -n)"), "{}", said.err);
}
