//! `kill -9` of the real command at random moments: what was saved stays, and the next run goes on from there.

use crate::fixture::look_old;
use crate::golden::noise;
use crate::person::{Person, contents, fingerprint};
use serde_json::Value;
use siltstone::backup::LocalState;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{ErrorKind, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

const SEED: u64 = 0x5117;
const ROUNDS: u8 = 8;
const FIRST_ROUNDS: u8 = 8;

struct Random(u64);

impl Random {
    /// Below `limit`.
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit.max(1)
    }
}

/// What a restore of the source must bring, content by its hash.
fn state(person: &Person, folder: &str) -> BTreeMap<PathBuf, (u32, i64, i64, blake3::Hash)> {
    let all = contents(&person.path(folder)).into_iter();
    all.map(|(path, (mode, seconds, nanoseconds, bytes))| (path, (mode, seconds, nanoseconds, blake3::hash(&bytes))))
        .collect()
}

/// Other content in some files, more files, fewer files: most of it never seen before.
fn edit(person: &Person, seed: u8) {
    for n in 0..60 {
        let length = if n == 0 { 4_000_000 } else { 1000 + usize::from(n) * 1500 };
        let mut bytes = noise(length, n);
        bytes[..16].copy_from_slice(&noise(16, seed));
        if (n + seed).is_multiple_of(3) || !person.path(&format!("source/{}/file{n}", n % 7)).exists() {
            person.write(&format!("source/{}/file{n}", n % 7), &bytes);
        }
    }
    person.write(&format!("source/new in {seed}/large"), noise(3_000_000, seed.wrapping_add(100)));
    let _may_be_missing = std::fs::remove_dir_all(person.path(&format!("source/new in {}", seed.wrapping_sub(2))));
}

/// Changes of the repository that are seen of a backup, about.
const CHANGES: u64 = 12;

/// Kills a run when this many changes of the repository were seen, or `at` is there; whether it had not ended before.
fn killed_at_change(person: &Person, words: &[&str], changes: u64, at: &Path) -> bool {
    let repository = person.path("data/siltstone/repository");
    let mut seen = (fingerprint(&repository), 0);
    let mut child = person.command(words).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    while seen.1 < changes && !at.exists() && child.try_wait().unwrap().is_none() {
        let now = fingerprint(&repository);
        seen = (now, seen.1 + u64::from(now != seen.0));
    }
    let is_over = child.try_wait().unwrap().is_some();
    child.kill().unwrap();
    child.wait().unwrap();
    !is_over
}

/// Whether the run was killed before it ended.
fn killed_after(person: &Person, words: &[&str], delay: Duration) -> bool {
    let mut command = person.command(words);
    let out = File::create(person.path("killed-out")).unwrap();
    let mut child = command.stdout(out).stderr(Stdio::null()).spawn().unwrap();
    std::thread::sleep(delay);
    let is_over = child.try_wait().unwrap().is_some();
    child.kill().unwrap();
    child.wait().unwrap();
    !is_over
}

fn assert_restores(person: &Person, id: &str, expected: &BTreeMap<PathBuf, (u32, i64, i64, blake3::Hash)>, case: &str) {
    let named = format!("{id}:{}", person.path("source").display());
    let out = person.path("out");
    person.silt(&["restore", &named, "--target", "out", "--verify"]).ends_with(0);
    assert!(state(person, "out") == *expected, "{case}: {id} differs");
    std::fs::remove_dir_all(out).unwrap();
}

fn text(value: &Value) -> String {
    value.as_str().unwrap().to_owned()
}

#[test]
fn backups_killed_at_random_moments_leave_all_that_was_saved_and_the_next_completes() {
    let person = Person::new();
    let mut random = Random(SEED);
    edit(&person, 0);
    let first = person.silt(&["backup", "source", "--json"]).ends_with(0).last_event();
    let mut saved = vec![(text(&first["snapshot"]["id"]), state(&person, "source"))];
    let mut killed = 0;
    for round in 1..=ROUNDS {
        edit(&person, round);
        let changes = random.below(CHANGES);
        let case = format!("seed {SEED:#x}, round {round}, killed after {changes} changes");
        // Every second run cannot end before it is killed; the others may, and are killed in their commit, too.
        let at = person.path("all is read");
        let endless = format!("endless=touch '{}'; while echo; do sleep 0.1; done", at.display());
        let words = ["backup", "source", "-q", "--stream", &endless];
        let words = if round % 2 == 0 { &words[..] } else { &words[..3] };
        killed += u8::from(killed_at_change(&person, words, changes, &at));
        let _may_be_missing = std::fs::remove_file(at);
        let now = state(&person, "source");
        // A run that dies after the commit step has made a snapshot.
        let listed: Vec<String> = person.snapshots(&[]).iter().map(|snapshot| text(&snapshot["id"])).collect();
        assert!(saved.iter().map(|(id, _)| id).eq(listed.iter().take(saved.len())), "{case}: {listed:?}");
        assert!(listed.len() <= saved.len() + 1, "{case}: {listed:?}");
        saved.extend(listed.into_iter().skip(saved.len()).map(|id| (id, now.clone())));
        let at = random.below(saved.len() as u64) as usize;
        assert_restores(&person, &saved[at].0, &saved[at].1, &case);

        let done = person.silt(&["backup", "source", "--json"]).ends_with(0).last_event();
        assert_eq!(done["warnings_count"], 0, "{case}: {done}");
        // Once, whatever the killed run had sent: the files changed are about 9 MB, most of them new.
        let stored = done["totals"]["bytes_stored"].as_u64().unwrap();
        let new = done["totals"]["bytes_new"].as_u64().unwrap();
        assert!(stored < new + new / 50 + 100_000, "{case}: {stored} bytes sent for {new} new ones");
        saved.push((text(&done["snapshot"]["id"]), now));
        let (id, expected) = saved.last().unwrap();
        assert_restores(&person, id, expected, &case);
    }
    assert!(killed >= ROUNDS / 2, "only {killed} runs were still running when they were killed");
    saved.iter().for_each(|(id, expected)| assert_restores(&person, id, expected, "in the end"));
    // Nothing that dead runs left is counted as a snapshot or blocks a later run.
    assert_eq!(person.snapshots(&[]).len(), saved.len());
}

/// The recovery key in what a run printed; the text may end in its middle.
fn recovery_key(out: &str) -> Option<String> {
    let (key, _) = out.split_once("Recovery key: ")?.1.split_once('\n')?;
    Some(key.to_owned())
}

#[track_caller]
fn assert_opens(person: &Person, recovery_key: &str, words: &[&str]) {
    let words = [&["snapshots", "--json"], words].concat();
    person.silt_with(&[("SILT_RECOVERY_KEY", recovery_key)], &words).ends_with(0);
}

#[test]
fn a_first_use_killed_at_random_moments_is_done_again() {
    let mut random = Random(SEED + 1);
    for round in 0..FIRST_ROUNDS {
        let person = Person::new();
        person.make_source();
        let delay = Duration::from_micros(random.below(250_000));
        let case = format!("seed {:#x}, round {round}, killed after {delay:?}", SEED + 1);
        killed_after(&person, &["backup", "source", "-q"], delay);
        let is_made = person.path("data/siltstone/repository/config").exists();
        let shown = recovery_key(&std::fs::read_to_string(person.path("killed-out")).unwrap());
        let next = person.silt(&["backup", "source"]).ends_with(0);
        let last = person.snapshots(&["--last", "1"]).remove(0);
        assert_restores(&person, &text(&last["id"]), &state(&person, "source"), &case);
        // There is never a repository whose recovery key was not shown, and the last one shown is the right one.
        let shown_next = recovery_key(&next.out);
        assert_eq!(is_made, shown_next.is_none(), "{case}: {}", next.out);
        assert_opens(&person, &shown_next.or(shown).expect(&case), &[]);
    }
}

/// Standard output without a reader that takes nothing more; the second end keeps it open.
fn full_output() -> (OwnedFd, UnixStream) {
    let (mut full, reader) = UnixStream::pair().unwrap();
    full.set_nonblocking(true).unwrap();
    for length in [1 << 16, 1] {
        while full.write(&vec![0; length]).map_err(|error| assert_eq!(error.kind(), ErrorKind::WouldBlock)).is_ok() {}
    }
    full.set_nonblocking(false).unwrap();
    (full.into(), reader)
}

/// Kills a run that makes a repository while it shows the recovery key.
fn kill_while_it_shows(person: &Person, words: &[&str], repository: &Path) {
    let (full, _reader) = full_output();
    let mut child = person.command(words).stdout(full).stderr(Stdio::null()).spawn().unwrap();
    let has_key = || std::fs::read_dir(repository.join("keys")).is_ok_and(|mut entries| entries.next().is_some());
    let begun = Instant::now();
    while !has_key() && begun.elapsed() < Duration::from_secs(90) {
        std::thread::sleep(Duration::from_millis(10));
    }
    // The key may still be on its way to its name; then nothing can follow but what must not.
    std::thread::sleep(Duration::from_millis(500));
    assert!(has_key() && child.try_wait().unwrap().is_none(), "{words:?}: it waits for its output");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(!repository.join("config").exists(), "{words:?}: made before its recovery key was shown");
}

#[test]
fn whoever_is_killed_while_the_recovery_key_is_shown_is_shown_one_by_the_next_run() {
    let person = Person::new();
    person.make_source();
    let first_use = (&["backup", "source"][..], person.path("data/siltstone/repository"), &[][..]);
    let there = ["--repo", "there", "--key-file", "there.key"];
    let init = [&["init"], &there[..]].concat();
    for (words, repository, repo) in [first_use, (&init, person.path("there"), &there[..2])] {
        kill_while_it_shows(&person, words, &repository);
        let next = person.silt(words).ends_with(0);
        assert!(next.out.contains("A recovery key that an earlier, interrupted run showed"), "{}", next.out);
        assert_opens(&person, &recovery_key(&next.out).expect(&next.out), repo);
    }
    // Once only.
    let later = person.silt(&["backup", "source"]).ends_with(0);
    assert_eq!(recovery_key(&later.out), None, "{}", later.out);
    person.silt(&init).ends_with(1);
    person.silt(&[&["snapshots"], &there[..]].concat()).ends_with(0);
}

/// Whether a run has written local state, which it does right after the index: looked up in a copy, as the run has it
/// open. What is copied in the middle of a write is found to be damaged, and looked at again.
fn has_state(person: &Person) -> bool {
    let copy = tempfile::tempdir().unwrap();
    crate::fixture::copy_files(&person.path("cache"), &copy.path().join("cache"));
    let states = walkdir::WalkDir::new(copy.path()).into_iter().flatten();
    let mut states = states.filter(|entry| entry.path().parent().is_some_and(|above| above.ends_with("state")));
    states.any(|entry| LocalState::open(entry.path()).is_ok_and(|(state, _)| !state.is_empty()))
}

/// What a checkpoint made findable is neither read nor sent again.
#[test]
fn a_run_killed_behind_a_checkpoint_need_not_be_done_again() {
    let person = Person::new();
    edit(&person, 1);
    look_old(&person.path("source"));
    // Checkpoints come every 20 s when little is new.
    let slow = "slow=touch reading; sleep 120";
    let mut command = person.command(&["backup", "--ignore-ctime", "source", "--stream", slow, "-q"]);
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let indexes = person.path("data/siltstone/repository/index");
    let is_indexed = || std::fs::read_dir(&indexes).is_ok_and(|mut entries| entries.next().is_some());
    let begun = Instant::now();
    while !(is_indexed() && has_state(&person)) && begun.elapsed() < Duration::from_secs(110) {
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(person.path("reading").exists() && is_indexed());
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(person.snapshots(&[]).is_empty());
    let done = person.silt(&["backup", "--ignore-ctime", "source", "--json"]).ends_with(0).last_event();
    let totals = &done["totals"];
    let count = |name: &str| totals[name].as_u64().unwrap();
    // No snapshot has them yet: they are new, though they are not read.
    assert_eq!((count("files_new"), count("files_unchanged"), count("bytes_read")), (61, 0, 0), "{totals}");
    assert!(count("bytes_stored") < 20_000, "{totals}");
    assert_restores(&person, &text(&done["snapshot"]["id"]), &state(&person, "source"), "behind a checkpoint");
}
