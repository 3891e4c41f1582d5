//! Each system call of a small restore fails once, or the process dies there: nothing that existed is lost, nothing
//! half-done passes for whole, and nothing missing ends with 0.
//!
//! strace makes the calls fail (rustix makes raw system calls, so nothing can be preloaded). A short selection runs every
//! time; `SILT_TEST_FAULTS=COUNT` asks for that many of all.

use crate::person::{Person, Said, contents, on_one_processor};
use crate::restore::set_time;
use crate::skip::skipped;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const CALLS: &[&str] = &[
    "openat",
    "mkdirat",
    "pwrite64",
    "ftruncate",
    "renameat",
    "renameat2",
    "linkat",
    "symlinkat",
    "unlinkat",
    "fchmod",
    "chmod",
    "fchown",
    "fchownat",
    "utimensat",
    "fsetxattr",
    "flistxattr",
    "close",
    "getdents64",
    "statx",
    "pread64",
    "lseek",
    "ioctl",
    "newfstatat",
    "readlink",
    "readlinkat",
    "read",
    "mkdir",
    "fgetxattr",
    "faccessat2",
    "fstatfs",
];
const ERRORS: &[&str] = &["error=EIO", "error=ENOSPC", "error=EMFILE", "error=EINTR", "error=ENOMEM", "signal=SIGKILL"];
const OVERWRITE: [&str; 4] = ["never", "if-newer", "if-changed", "always"];
/// How many faults the short selection has; each costs three restores.
const SHORT: usize = 60;

/// What is at each name, without metadata: kind and content.
type Look = BTreeMap<PathBuf, (u32, Vec<u8>)>;

fn look(folder: &Path) -> Look {
    contents(folder).into_iter().map(|(path, (mode, _, _, bytes))| (path, (mode & 0o170_000, bytes))).collect()
}

fn leftovers(folder: &Path) -> bool {
    contents(folder).keys().any(|path| path.to_string_lossy().contains(".silt-restore-"))
}

/// Everything that a restore can meet, in a source and in the state that the target has before.
fn plant(person: &Person) {
    let noise = crate::golden::noise;
    person.write("source/same", noise(3000, 1));
    person.write("source/changed", noise(5000, 2));
    person.write("source/of the same size", noise(4000, 3));
    person.write("source/was a directory", noise(2000, 4));
    person.write("source/was a file/below", noise(2000, 5));
    person.write("source/missing", noise(100_000, 6));
    person.write("source/existing/one", noise(1500, 7));
    person.write("source/existing/new/two", noise(1500, 8));
    person.write("source/new/three", noise(150_000, 9));
    person.write("source/new/four", "inline");
    person.write("source/first name", noise(1000, 10));
    let sparse = fs::File::create(person.path("source/sparse")).expect("made");
    sparse.write_all_at(&noise(9000, 11), 1 << 20).expect("written");
    sparse.set_len(2 << 20).expect("lengthened");
    symlink("changed", person.path("source/link")).expect("linked");
    symlink("changed", person.path("source/new/link")).expect("linked");
    fs::set_permissions(person.path("source/existing"), fs::Permissions::from_mode(0o750)).expect("set");
    fs::set_permissions(person.path("source/new/three"), fs::Permissions::from_mode(0o4711)).expect("set");
    let _not_everywhere =
        Command::new("setfattr").args(["-n", "user.n", "-v", "v"]).arg(person.path("source/same")).status();
    let copied = Command::new("cp").args(["-a", "-T"]).arg(person.path("source")).arg(person.path("before")).status();
    assert!(copied.expect("cp runs").success());
    fs::hard_link(person.path("source/first name"), person.path("source/new/second name")).expect("linked");

    for name in ["new", "was a file"] {
        fs::remove_dir_all(person.path("before").join(name)).expect("removed");
    }
    for name in ["was a directory", "missing", "link"] {
        fs::remove_file(person.path("before").join(name)).expect("removed");
    }
    fs::remove_dir_all(person.path("before/existing/new")).expect("removed");
    fs::create_dir(person.path("before/was a directory")).expect("made");
    symlink("elsewhere", person.path("before/link")).expect("linked");
    for (name, bytes) in [
        ("changed", "work of today".to_owned().into_bytes()),
        ("of the same size", noise(4000, 99)),
        ("was a file", b"a file of today".to_vec()),
        ("existing/one", b"another one of today".to_vec()),
        ("existing/own", b"not in the snapshot".to_vec()),
        ("first name", b"a name of today".to_vec()),
    ] {
        person.write(&format!("before/{name}"), bytes);
        // Older than what is saved: `if-newer` replaces it.
        set_time(&person.path("before").join(name), 1_000_000_000);
    }
    set_time(&person.path("before/was a directory"), 1_000_000_000);
    let old = rustix::fs::Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
    let old = rustix::fs::Timestamps { last_access: old, last_modification: old };
    let link = person.path("before/link");
    rustix::fs::utimensat(rustix::fs::CWD, link, &old, rustix::fs::AtFlags::SYMLINK_NOFOLLOW).expect("set");
    let sparse = fs::File::options().write(true).open(person.path("before/sparse")).expect("opened");
    sparse.write_all_at(b"written into a hole", 5 << 12).expect("written");
    drop(sparse);
    set_time(&person.path("before/sparse"), 1_000_000_000);
}

/// Whether strace may trace here; if not, these tests are skipped.
fn can_trace() -> bool {
    let strace = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).output();
    let works = strace.is_ok_and(|output| output.status.success());
    if !works {
        skipped("faults injected into a restore", "strace is not there or may not trace");
    }
    works
}

/// Runs silt on one processor, traced with the first words; its exit code, None when it was killed.
fn traced(person: &Person, by: &[&str], words: &[&str]) -> (Option<i32>, String) {
    let silt = person.command(words);
    let mut command = Command::new("strace");
    for (name, value) in silt.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command.current_dir(person.home.path()).args(["-f", "-qq"]).args(by);
    command.args(on_one_processor()).arg(silt.get_program()).args(silt.get_args());
    let output = command.output().expect("strace runs");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

struct Faults {
    person: Person,
    named: String,
    /// Options of the restores that meet a fault, and of the last one.
    options: &'static [&'static str],
    old: Look,
    new: Look,
    /// The state that a whole restore leaves.
    whole: crate::person::Contents,
}

impl Faults {
    fn new(options: &'static [&'static str]) -> Option<Faults> {
        if !can_trace() {
            return None;
        }
        let person = Person::new();
        plant(&person);
        person.silt(&["backup", "source"]).ends_with(0);
        let named = crate::restore::latest(&person, "source");
        let (old, new) = (look(&person.path("before")), look(&person.path("source")));
        let mut faults = Faults { person, named, options, old, new, whole: BTreeMap::new() };
        let target = faults.target("whole");
        faults.restore(&target, &[]).ends_with(0);
        faults.whole = contents(Path::new(&target));
        let mut expected = faults.new.clone();
        if !faults.deletes() {
            expected.extend(faults.old_only());
        }
        assert!(look(Path::new(&target)) == expected);
        Some(faults)
    }

    fn deletes(&self) -> bool {
        self.options.contains(&"--delete")
    }

    fn words<'w>(&'w self, target: &'w str, more: &[&'w str]) -> Vec<&'w str> {
        [&["restore", &self.named, "--target", target], self.options, more].concat()
    }

    fn restore(&self, target: &str, more: &[&str]) -> Said {
        self.person.silt(&self.words(target, more))
    }

    /// What the snapshot does not have.
    fn old_only(&self) -> Look {
        self.old.clone().into_iter().filter(|(path, _)| !self.new.contains_key(path)).collect()
    }

    /// A fresh copy of what was there before.
    fn target(&self, name: &str) -> String {
        let target = self.person.path(name);
        let copied = Command::new("cp").args(["-a", "-T"]).arg(self.person.path("before")).arg(&target).status();
        assert!(copied.expect("cp runs").success());
        target.display().to_string()
    }

    /// A restore by one writer, traced with these words; its exit code, None when it was killed.
    fn traced(&self, words: &[&str], target: &str) -> (Option<i32>, String) {
        traced(&self.person, words, &self.words(target, &[]))
    }

    /// How often one thread makes each call, at most.
    fn counts(&self) -> BTreeMap<&'static str, usize> {
        let (target, log) = (self.target("counted"), self.person.path("log").display().to_string());
        self.traced(&["-o", &log, "-e", &format!("trace={}", CALLS.join(","))], &target);
        let mut counts: BTreeMap<(String, &'static str), usize> = BTreeMap::new();
        for line in fs::read_to_string(&log).expect("a log").lines() {
            let Some((thread, call)) = line.split_once(' ') else { continue };
            let name = call.trim_start().split('(').next().unwrap_or_default();
            if let Some(name) = CALLS.iter().find(|known| **known == name) {
                *counts.entry((thread.to_owned(), *name)).or_default() += 1;
            }
        }
        let mut most = BTreeMap::new();
        for ((_, name), count) in counts {
            let known = most.entry(name).or_insert(0);
            *known = count.max(*known);
        }
        most
    }

    /// What is wrong after one fault and a following restore; empty when nothing is.
    fn wrong(&self, number: usize, call: &str, error: &str, when: usize) -> Vec<String> {
        let mut wrong = Vec::new();
        let target = self.target(&format!("target{number}"));
        let path = Path::new(&target);
        let inject = format!("inject={call}:{error}:when={when}");
        let (code, said) = self.traced(&["-o", "/dev/null", "-e", &format!("trace={call}"), "-e", &inject], &target);
        let after = look(path);
        self.check_after(code, &after, path, &mut wrong);
        let mode = OVERWRITE[number % OVERWRITE.len()];
        let next = self.person.silt(&["restore", &self.named, "--target", &target, "--overwrite", mode]);
        let then = look(path);
        for (path, new) in &self.new {
            let begun = after.get(path);
            // What is not a directory makes way for one only where everything is replaced.
            let may_stay = mode == "never" || (mode == "if-newer" && next.code == 3 && new.0 == 0o040_000);
            let kept = self.old.contains_key(path) && begun == then.get(path) && may_stay;
            let below_kept =
                path.ancestors().skip(1).any(|above| then.get(above).is_some_and(|(kind, _)| *kind != 0o040_000));
            if then.get(path) != Some(new) && !kept && !(below_kept && next.code == 3) {
                wrong.push(format!("{path:?} is not whole after --overwrite {mode} ({})", next.code));
            }
        }
        if leftovers(path) {
            wrong.push(format!("leftovers stay after --overwrite {mode}"));
        }
        let last = self.restore(&target, &["--overwrite", "always"]);
        if last.code != 0 || contents(path) != self.whole {
            let whole = contents(path);
            let differs =
                self.whole.iter().filter(|(path, facts)| whole.get(*path) != Some(*facts)).map(|(path, _)| path);
            wrong.push(format!(
                "a last restore ends with {} and differs in {:?}",
                last.code,
                differs.collect::<Vec<_>>()
            ));
        }
        fs::remove_dir_all(path).expect("removed");
        wrong.iter_mut().for_each(|wrong| *wrong = format!("{inject}: {wrong}; exit {code:?}: {}", said.trim()));
        wrong
    }

    /// Right after the fault: everything that was there has its old or its new content.
    fn check_after(&self, code: Option<i32>, after: &Look, path: &Path, wrong: &mut Vec<String>) {
        for (path, old) in &self.old {
            let found = after.get(path);
            let may_go = self.deletes() && found.is_none() && !self.new.contains_key(path);
            if found != Some(old) && (found.is_none() || found != self.new.get(path)) && !may_go {
                wrong.push(format!("{path:?}, which was there, is neither old nor new"));
            }
        }
        let missing = self.new.iter().find(|(path, new)| after.get(*path) != Some(*new));
        if let (Some((path, _)), Some(0)) = (missing, code) {
            wrong.push(format!("{path:?} is missing, and nothing is said"));
        }
        if code == Some(0) && (contents(path) != self.whole || leftovers(path)) {
            wrong.push("it ended with 0 and is not as it should be".to_owned());
        }
    }

    fn run(&self, cases: Vec<(&'static str, &'static str, usize)>) {
        let (next, wrong) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        let Some((call, error, when)) = cases.get(number) else { return };
                        let found = self.wrong(number, call, error, *when);
                        wrong.lock().expect("whole").extend(found);
                    }
                });
            }
        });
        let wrong = wrong.into_inner().expect("whole");
        assert!(wrong.is_empty(), "{} of {} faults:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
        println!("{} faults, all harmless", cases.len());
    }
}

/// Some of all faults, or as many as are asked for.
fn meet_faults(options: &'static [&'static str]) {
    let Some(faults) = Faults::new(options) else { return };
    let counts = faults.counts();
    assert!(counts.len() >= 16, "calls are missing: {counts:?}");
    let mut cases = Vec::new();
    for (call, count) in &counts {
        for error in ERRORS {
            cases.extend((1..=*count).map(|when| (*call, *error, when)));
        }
    }
    let asked = std::env::var("SILT_TEST_FAULTS")
        .ok()
        .and_then(|count| count.parse().ok())
        .filter(|count| *count > 0)
        .unwrap_or(SHORT);
    let step = cases.len().div_ceil(asked);
    faults.run(cases.into_iter().step_by(step).collect());
}

/// An error while opening an existing directory had it removed with all that was in it.
#[test]
fn no_call_that_fails_and_no_kill_loses_anything() {
    meet_faults(&[]);
}

#[test]
fn no_call_that_fails_keeps_extra_entries_in_silence() {
    meet_faults(&["--delete"]);
}

/// A stop was noticed only after all files of a directory were deleted, and its mode stayed open.
#[test]
fn one_who_stops_within_a_large_directory_keeps_the_rest_of_it() {
    if !can_trace() {
        return;
    }
    let person = Person::new();
    person.write("source/file", "saved");
    person.silt(&["backup", "source"]).ends_with(0);
    let named = crate::restore::latest(&person, "source");
    // One is extra; the other has to make way.
    for closed in ["target/extra", "target/file"] {
        let _from_before = fs::remove_file(person.path("target/file"));
        (0..2000).for_each(|number| person.write(&format!("{closed}/{number}"), "extra"));
        crate::restore::chmod(&person, closed, 0o500);
        let by = ["-o", "/dev/null", "-e", "trace=unlinkat", "-e", "inject=unlinkat:signal=SIGINT:when=10"];
        let words = ["restore", &named, "--target", "target", "--delete"];
        let (code, said) = traced(&person, &by, &words);
        assert_eq!(code, Some(130), "{closed}: {said}");
        let left = fs::read_dir(person.path(closed)).expect("it has its name").count();
        assert!((1..2000).contains(&left), "{closed}: {left}");
        let mode = fs::metadata(person.path(closed)).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o7777, 0o500, "{closed}");
        person.silt(&words).ends_with(0);
        assert!(!person.path("target/extra").exists());
    }
}

/// A file that is too large for the file system of the target ended the whole restore.
#[test]
fn a_file_that_its_file_system_cannot_hold_costs_itself_only() {
    if !can_trace() {
        return;
    }
    let person = Person::new();
    for name in ["a", "b", "c"] {
        person.write(&format!("source/{name}"), crate::golden::noise(100_000, 1));
    }
    person.silt(&["backup", "source"]).ends_with(0);
    let named = crate::restore::latest(&person, "source");
    person.write("target/keep", "here");
    let by = ["-o", "/dev/null", "-e", "trace=pwrite64", "-e", "inject=pwrite64:error=EFBIG:when=1"];
    let (code, said) = traced(&person, &by, &["restore", &named, "--target", "target"]);
    assert_eq!(code, Some(3), "{said}");
    assert!(said.contains("1 warning") && said.contains("larger than a file can be"), "{said}");
    assert_eq!(fs::read_dir(person.path("target")).expect("listed").count(), 3, "{said}");
}
