//! Every verb ends with the codes that docs/OPERATIONS.md lists.

use crate::person::{Person, said};

/// Each verb with words that make sense.
const VERBS: [&[&str]; 9] = [
    &["backup", "source"],
    &["restore", "latest", "--target", "out"],
    &["snapshots"],
    &["ls", "latest"],
    &["find", "*"],
    &["diff", "latest", "source"],
    &["cat", "latest:/x"],
    &["export", "latest", "-o", "x.tar"],
    &["stats"],
];

fn person_with_repository() -> Person {
    let person = Person::new();
    person.make_source();
    person.write("password", "right\n");
    person.silt(&["init", "-r", "repository", "--password-file", "password"]).ends_with(0);
    person.silt(&["backup", "source", "-r", "repository", "--password-file", "password"]).ends_with(0);
    person
}

#[test]
fn words_that_make_no_sense_end_with_2_and_begin_nothing() {
    let person = Person::new();
    for words in VERBS {
        for more in [
            &["--no-such-option"][..],
            &["--repo", ""],
            &["--retry-for", "soon"],
            &["--limit-upload", "0"],
            &["--limit-download", "x"],
            &["--memory", "1"],
        ] {
            person.silt(&[words, more].concat()).ends_with(2);
        }
        let empty = person.silt_with(&[("SILT_REPOSITORY", "")], words).ends_with(2);
        assert!(empty.err.contains("SILT_REPOSITORY"), "{}", empty.err);
    }
    person.silt(&["init", "--repo", ""]).ends_with(2);
    assert!(!person.path("data").exists(), "no default repository took the place of an empty name");
}

#[test]
fn where_no_repository_is_every_verb_ends_with_1() {
    let person = Person::new();
    person.make_source();
    std::fs::create_dir(person.path("empty")).unwrap();
    for words in VERBS {
        for place in ["empty", "no/such/place"] {
            let none = person.silt_with(&[("SILT_REPOSITORY", place), ("SILT_PASSWORD", "x")], words).ends_with(1);
            assert!(none.err.contains(place) && none.err.contains("silt init"), "{words:?}: {}", none.err);
        }
    }
    assert_eq!(std::fs::read_dir(person.path("empty")).unwrap().count(), 0);
}

#[test]
fn a_wrong_or_missing_secret_ends_every_verb_with_5() {
    let person = person_with_repository();
    let there = ("SILT_REPOSITORY", "repository");
    for words in VERBS {
        let wrong = person.silt_with(&[there, ("SILT_PASSWORD", "wrong")], words).ends_with(5);
        assert!(wrong.err.contains("\nhint: "), "{words:?}: {}", wrong.err);
        person.silt_with(&[there], words).ends_with(5);
        let recovery = "AAAAA";
        person.silt_with(&[there, ("SILT_RECOVERY_KEY", recovery)], words).ends_with(5);
    }
    assert!(!person.path("out").exists() && !person.path("x.tar").exists());
}

/// The library that signs requests says in words alone that it has no key to sign with.
#[test]
fn a_missing_s3_key_is_said_at_once() {
    let person = Person::new();
    let mut command = person.command(&["snapshots", "--repo", "s3+http://127.0.0.1:1/bucket"]);
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("AWS_")) {
        command.env_remove(name);
    }
    // As long as requests are tried again only when that may help, this ends at once.
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("SILT_PASSWORD", "x");
    let missing = said(command.output().expect("it runs")).ends_with(1);
    assert!(missing.err.contains("hint: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"), "{}", missing.err);
    assert!(!missing.err.contains("no answer"), "{}", missing.err);
}

#[test]
fn stored_data_that_are_damaged_end_every_verb_with_6() {
    let person = person_with_repository();
    person.write("repository/config", "no configuration");
    for words in VERBS {
        let there = [("SILT_REPOSITORY", "repository"), ("SILT_PASSWORD", "right")];
        person.silt_with(&there, words).ends_with(6);
    }
}

#[test]
fn latest_is_not_the_one_before_a_snapshot_that_is_damaged() {
    // `restore latest --delete` took the snapshot before, deleted what only the newest has, and ended with 3.
    let person = Person::new();
    person.write("source/one", "one");
    person.silt(&["backup", "source", "--time", "2026-01-01 10:00:00"]).ends_with(0);
    person.write("source/two", "two");
    person.silt(&["backup", "source", "--time", "2026-01-02 10:00:00"]).ends_with(0);
    let mut snapshots: Vec<_> = std::fs::read_dir(person.path("data/siltstone/repository/snapshots"))
        .expect("listed")
        .map(|entry| entry.expect("one").path())
        .collect();
    snapshots.sort();
    std::fs::write(&snapshots[1], "damaged").expect("written");
    let source = person.path("source").display().to_string();
    let restore = |snapshot: &str, at: &[&str]| {
        let named = format!("{snapshot}:{source}");
        person.silt(&[&["restore", &named, "--target", &source, "--delete"], at].concat())
    };
    for (snapshot, at) in [("latest", &[][..]), ("", &["--at", "2026-01-03"])] {
        let said = restore(snapshot, at).ends_with(6);
        assert!(said.err.contains("is damaged, and may be the snapshot that is meant: it is "), "{}", said.err);
    }
    assert!(person.path("source/two").exists());
    person.silt(&["ls", "latest"]).ends_with(6);
    person.silt(&["snapshots"]).ends_with(6);
    // Before its date it is not meant.
    let said = restore("", &["--at", "2026-01-01 11:00:00"]).ends_with(0);
    assert!(!said.err.contains("is damaged"), "{}", said.err);
    assert!(!person.path("source/two").exists());
}

/// Where no other snapshot could be meant, it said "there is only one" or "no snapshot matches", and ended with 1.
#[test]
fn a_damaged_snapshot_that_may_be_meant_is_named() {
    let person = Person::new();
    person.write("source/one", "one");
    for (host, time) in [("a", "2026-01-01 10:00:00"), ("b", "2026-01-02 10:00:00")] {
        person.silt(&["backup", "source", "--host", host, "--time", time]).ends_with(0);
    }
    let folder = person.path("data/siltstone/repository/snapshots");
    let mut snapshots: Vec<_> =
        std::fs::read_dir(folder).expect("listed").map(|entry| entry.expect("one").path()).collect();
    snapshots.sort();
    std::fs::write(&snapshots[0], "damaged").expect("written");
    let name = snapshots[0].file_name().expect("it has one").to_string_lossy().into_owned();
    let id = name.split('-').nth(1).expect("an id");
    for (snapshot, more) in
        [("latest", &["--host", "a"][..]), ("latest~1", &[]), (id, &[]), ("", &["--at", "2026-01-01"])]
    {
        let restore = ["restore", &format!("{snapshot}:/"), "--target", "out"];
        let list = ["ls", &format!("{snapshot}:/")];
        for words in [&restore[..], &list] {
            let said = person.silt(&[words, more].concat()).ends_with(6);
            assert!(said.err.contains(&name) && said.err.contains("may be the snapshot that is meant"), "{}", said.err);
        }
    }
    // Before its date it is not meant.
    person.silt(&["ls", "--at", "2025-12-01"]).ends_with(1);
}

#[test]
fn a_pattern_that_makes_no_sense_ends_with_2() {
    // It ended with 1, as if something had failed.
    let person = Person::new();
    person.make_source();
    for words in [
        &["backup", "source", "--exclude", "[z-a]"][..],
        &["backup", "source", "--iexclude", "./x"],
        &["restore", "latest", "--target", "out", "--exclude", "[z-a]"],
        &["restore", "latest", "--target", "out", "--include", "../x"],
        &["find", "["],
        &["find", ""],
    ] {
        let said = person.silt(words).ends_with(2);
        assert!(said.err.contains("pattern"), "{}", said.err);
    }
    assert!(!person.path("data").exists());
}

#[test]
fn a_secret_that_cannot_be_had_ends_with_5() {
    // An empty password file, one that is not there and a command that fails ended with 1.
    let person = person_with_repository();
    person.write("empty", "");
    person.write("no-key", "no key");
    for secret in [
        &["--password-file", "empty"][..],
        &["--password-file", "nowhere"],
        &["--password-file", "source"],
        &["--password-command", "false"],
        &["--password-command", "true"],
        &["--key-file", "nowhere"],
        &["--key-file", "no-key"],
        &["--recovery-key-file", "nowhere"],
        &["--recovery-key-file", "empty"],
    ] {
        person.silt(&[&["snapshots", "-r", "repository"], secret].concat()).ends_with(5);
        if secret[0].starts_with("--password") {
            person.silt(&[&["init", "-r", "new"], secret].concat()).ends_with(5);
        }
    }
}

#[test]
fn streams_of_one_place_are_refused_before_anything_is_read() {
    // It was noticed when everything had been read.
    let person = Person::new();
    person.make_source();
    let inside = format!("{}/below/dump=touch ran", person.path("source").display());
    let inside = inside.trim_start_matches('/');
    let above = format!("{}=touch ran", person.home.path().display());
    for streams in [
        &["--stream", "a=touch ran", "--stream", "a=touch ran"][..],
        &["--stream", "a/b=touch ran", "--stream", "a=touch ran"],
        &["--stream", "a=touch ran", "--stream", "c=touch ran", "--stream", "a/b=touch ran"],
        &["--stdin", "--stream", "stdin=touch ran"],
        &["source", "--stream", inside],
        &["source", "--stream", above.trim_start_matches('/')],
    ] {
        let said = person.silt(&[&["backup"], streams].concat()).ends_with(2);
        assert!(said.err.contains("the same path"), "{}", said.err);
    }
    assert!(!person.path("ran").exists() && !person.path("data").exists());
    person
        .silt(&["backup", "source", "--stream", "a=true", "--stream", "ab=true", "--stream", "a-b/c=true"])
        .ends_with(0);
}

#[test]
fn what_was_done_is_said_though_nobody_can_be_told_on_standard_output() {
    // With standard output on a full disk a backup ended with 1, though its snapshot was made.
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    for (words, said) in [
        (&["backup", "source"][..], "was created, but its summary could not be written"),
        (&["backup", "source", "--json"], "was created, but its summary could not be written"),
        (
            &["restore", "latest", "--target", "out", "--json"],
            "restore has ended, but its summary could not be written",
        ),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = person.command(words).stdout(full).output().unwrap();
        let told = crate::person::said(output).ends_with(3);
        assert!(told.err.contains(said), "{}", told.err);
    }
    assert_eq!(person.snapshots(&[]).len(), 3);
    assert!(person.path("out").exists());
    // That nothing had changed ended with 1.
    for more in [&[][..], &["--json"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let words = [&["backup", "source", "--skip-if-unchanged"][..], more].concat();
        let told = crate::person::said(person.command(&words).stdout(full).output().unwrap()).ends_with(3);
        assert!(told.err.contains("nothing has changed") && told.err.contains("summary"), "{}", told.err);
    }
    assert_eq!(person.snapshots(&[]).len(), 3);
    // A plan is all that a dry run makes.
    for words in [
        &["restore", "latest", "--target", "out", "--dry-run", "--json"][..],
        &["restore", "latest", "--target", "out", "--dry-run"],
        &["backup", "source", "--dry-run", "--skip-if-unchanged"],
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        crate::person::said(person.command(words).stdout(full).output().unwrap()).ends_with(1);
    }
}

/// A warning that could not be printed ended a backup with 1, though its snapshot was made.
#[test]
fn a_standard_error_that_cannot_be_written_changes_no_exit_code() {
    let person = Person::new();
    person.make_source();
    for (words, code) in [
        (&["backup", "source", "no-such"][..], 3),
        (&["backup", "source", "no-such", "-v"], 3),
        (&["ls", "latest:/no-such"], 1),
        (&["--no-such-option"], 2),
        (&["restore", "latest", "--target", "out"], 0),
    ] {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let output = person.command(words).stderr(full).output().unwrap();
        assert_eq!(output.status.code(), Some(code), "{words:?}");
    }
    assert_eq!(person.snapshots(&[]).len(), 2);
}

#[test]
fn a_standard_input_that_is_closed_is_not_saved_as_an_empty_stream() {
    let person = Person::new();
    let silt = env!("CARGO_BIN_EXE_silt");
    let run = |input: &str| {
        let mut shell = person.command(&[] as &[&str]);
        let environment: Vec<_> =
            shell.get_envs().map(|(name, value)| (name.to_owned(), value.map(ToOwned::to_owned))).collect();
        shell = std::process::Command::new("sh");
        for (name, value) in environment {
            match value {
                Some(value) => shell.env(name, value),
                None => shell.env_remove(name),
            };
        }
        shell.current_dir(person.home.path()).args(["-c", &format!("exec '{silt}' backup --stdin {input}")]);
        crate::person::said(shell.output().unwrap())
    };
    let closed = run("<&-").ends_with(1);
    assert!(closed.err.contains("the standard input is closed"), "{}", closed.err);
    assert!(!person.path("data").exists());
    run("</dev/null").ends_with(0);
}
