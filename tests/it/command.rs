//! The command line as words and exit codes: what a person or a script sees of `silt`.

use crate::fixture::look_old;
use crate::person::{Person, contents, said};
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

#[test]
fn the_first_use_makes_everything_and_says_where_once() {
    let person = Person::new();
    person.make_source();
    look_old(&person.path("source"));
    let first = person.silt(&["backup", "--ignore-ctime", "source"]).ends_with(0);
    for words in [
        "data/siltstone/repository",
        "config/siltstone/key",
        "Recovery key: ",
        "same disk",
        "silt init --repo DIR --key-file ",
        "5 new",
    ] {
        assert!(first.out.contains(words), "{words}: {}", first.out);
    }
    let mode = |name: &str| std::fs::metadata(person.path(name)).unwrap().mode() & 0o777;
    assert_eq!((mode("config/siltstone/key"), mode("data/siltstone/repository")), (0o600, 0o700));
    let second = person.silt(&["backup", "--ignore-ctime", "source"]).ends_with(0);
    assert!(!second.out.contains("Recovery key") && second.out.contains("0 new, 0 changed"), "{}", second.out);
    assert!(second.out.contains("0 B read"), "{}", second.out);
    assert_eq!(person.snapshots(&[]).len(), 2);
    assert_eq!(person.silt(&["backup", "-q", "source"]).ends_with(0).out, "");
}

#[test]
fn the_recovery_key_opens_what_lost_its_key_file() {
    let person = Person::new();
    person.make_source();
    let event = person.silt(&["backup", "--json", "source"]).ends_with(0);
    let event: Value = serde_json::from_str(event.out.lines().next().unwrap()).unwrap();
    assert_eq!(event["event"], "first-use");
    std::fs::remove_file(person.path("config/siltstone/key")).unwrap();
    person.silt(&["snapshots"]).ends_with(5);
    let recovery = event["recovery_key"].as_str().unwrap();
    let said = person.silt_with(&[("SILT_RECOVERY_KEY", recovery)], &["snapshots", "--json"]).ends_with(0);
    assert_eq!(said.json()["snapshots"].as_array().unwrap().len(), 1);
    // The next backup must not make a second key that opens nothing.
    person.silt(&["backup", "source"]).ends_with(5);
    assert!(!person.path("config/siltstone/key").exists());
}

#[test]
fn where_the_recovery_key_cannot_be_shown_no_repository_is_made() {
    let person = Person::new();
    person.make_source();
    let repository = person.path("data/siltstone/repository");
    let init = ["init", "--repo", "there", "--key-file", "there.key"];
    for words in [&["backup", "source"][..], &["backup", "source", "--json"], &init, &[&init[..], &["--json"]].concat()]
    {
        let full = std::fs::File::options().write(true).open("/dev/full").unwrap();
        let (closed, reader) = UnixStream::pair().unwrap();
        drop(reader);
        for out in [Stdio::from(full), Stdio::from(OwnedFd::from(closed))] {
            let failed = said(person.command(words).stdout(out).output().unwrap()).ends_with(1);
            assert!(failed.err.contains("cannot show the recovery key"), "{words:?}: {}", failed.err);
        }
    }
    for repository in [&repository, &person.path("there")] {
        assert!(!repository.join("config").exists());
        assert_eq!(std::fs::read_dir(repository.join("keys")).unwrap().count(), 0, "{repository:?}");
    }
    // Where it can, all is well.
    person.silt(&["backup", "source"]).ends_with(0);
    person.silt(&init).ends_with(0);
}

#[test]
fn a_restore_brings_back_what_was_saved() {
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    let source = person.path("source");
    let before = contents(&source);
    person.write("source/text", "changed");
    std::fs::remove_dir_all(person.path("source/below")).unwrap();
    person.silt(&["backup", "source"]).ends_with(0);

    let named = format!("latest~1:{}", source.display());
    let plan = person.silt(&["restore", &named, "--target", "out", "--dry-run"]).ends_with(0);
    assert!(plan.out.contains("Nothing was changed") && !person.path("out").exists(), "{}", plan.out);
    let done = person.silt(&["restore", &named, "--target", "out", "--verify", "--json"]).ends_with(0).last_event();
    assert_eq!((&done["event"], &done["warnings_count"]), (&Value::from("summary"), &Value::from(0)));
    assert_eq!(contents(&person.path("out")), before);

    // A whole snapshot keeps its absolute paths, below the target.
    person.silt(&["restore", "latest", "--target", "whole"]).ends_with(0);
    let below = person.path("whole").join(source.strip_prefix("/").unwrap());
    assert_eq!(contents(&below), contents(&source));

    // Back to the older date in place, what came later removed.
    person.write("source/later", "x");
    person.silt(&["restore", &named, "--target", "source", "--delete"]).ends_with(0);
    assert_eq!(contents(&source), before);

    person.silt(&["restore", "latest:/no/such", "--target", "none"]).ends_with(1);
}

#[test]
fn a_date_names_the_newest_snapshot_of_it() {
    let person = Person::new();
    for (time, text) in
        [("2026-11-18 10:00 UTC", "old"), ("2026-11-19 10:00 UTC", "mid"), ("2026-11-20 10:00 UTC", "new")]
    {
        person.write("source/file", text);
        person.silt(&["backup", "source", "--time", time]).ends_with(0);
    }
    let path = format!(":{}", person.path("source").display());
    let table = [
        (&["--at", "2026-11-19"][..], "mid"),
        (&["--at", "2026-11-19T09:59:00Z"], "old"),
        (&["--at", "2026-11-19T11:00:00+01:00"], "mid"),
        (&["--at", "2030-01-01"], "new"),
    ];
    for (words, expected) in table {
        let target = format!("out-{expected}-{}", words[1]);
        person.silt(&[&["restore", &path, "--target", &target], words].concat()).ends_with(0);
        assert_eq!(std::fs::read_to_string(person.path(&target).join("file")).unwrap(), expected, "{words:?}");
    }
    let none = person.silt(&["restore", "--at", "2020-01-01", "--target", "o"]).ends_with(1);
    assert!(none.err.starts_with("silt: cannot find the snapshot"), "{}", none.err);
    person.silt(&["restore", "latest", "--at", "2026-11-19", "--target", "o"]).ends_with(2);
    person.silt(&["restore", "--at", "someday", "--target", "o"]).ends_with(2);
    person.silt(&["restore", "--target", "o"]).ends_with(2);
}

#[test]
fn an_explicit_repository_opens_with_what_it_was_made_with() {
    let person = Person::new();
    person.make_source();
    person.write("password", "one\n");
    let there = ("SILT_REPOSITORY", "repository");
    person.silt_with(&[there], &["init"]).ends_with(5);
    person.silt(&["init"]).ends_with(2);
    let made = person.silt_with(&[there], &["init", "--password-file", "password", "--json"]).ends_with(0).json();
    assert!(made["recovery_key"].as_str().is_some_and(|key| key.len() > 52), "{made}");
    person.silt_with(&[there], &["init", "--password-file", "password"]).ends_with(1);
    person.silt_with(&[there, ("SILT_PASSWORD", "one")], &["backup", "source"]).ends_with(0);
    person.silt_with(&[there], &["snapshots", "--password-command", "echo one"]).ends_with(0);
    person.silt_with(&[there], &["snapshots", "--password-command", "echo one; false"]).ends_with(5);
    let wrong = person.silt_with(&[there, ("SILT_PASSWORD", "two")], &["snapshots"]).ends_with(5);
    assert!(wrong.err.starts_with("silt: cannot ") && wrong.err.contains("\nhint: "), "{}", wrong.err);
    assert_eq!(wrong.err.lines().count(), 2);
    let wrong = person.silt_with(&[there, ("SILT_PASSWORD", "two")], &["snapshots", "--json"]).ends_with(5);
    let error: Value = serde_json::from_str(&wrong.err).unwrap();
    assert_eq!(error["error"]["kind"], "wrong-key");
    assert!(error["error"]["hint"].is_string() && wrong.out.is_empty());

    // Both a password and a key file, which is made.
    let both = ["--repo", "both", "--key-file", "new/key", "--password-file", "password"];
    person.silt(&[&["init"], &both[..]].concat()).ends_with(0);
    person.silt(&[&["snapshots"], &both[..]].concat()).ends_with(0);
    person.silt(&[&["snapshots"], &both[..4]].concat()).ends_with(5);
}

#[test]
fn mistakes_have_their_codes() {
    let person = Person::new();
    let none = person.silt(&["snapshots"]).ends_with(1);
    assert!(none.err.contains("\nhint: ") && none.err.contains("SILT_REPOSITORY"), "{}", none.err);
    person.silt_with(&[("SILT_PASSWORD", "x")], &["snapshots", "-r", "nowhere"]).ends_with(1);
    for words in [
        &["backup", "--no-such-option", "x"][..],
        &["no-such-verb"],
        &[],
        &["backup"],
        &["backup", "x", "--exclude-larger-than", "much"],
        &["backup", "x", "--compression", "23"],
        &["backup", "--stream", "no-command"],
        &["backup", "--stdin", "--stdin-name", "../x"],
        &["restore", "latest"],
        &["restore", "latest", "--target", "o", "--overwrite", "sometimes"],
        &["snapshots", "-q", "-v"],
    ] {
        person.silt(words).ends_with(2);
    }
    let said = person.silt(&["backup", "--json", "--no-such-option"]).ends_with(2);
    let error: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(error["error"]["kind"], "usage");
    person.silt(&["--help"]).ends_with(0);
    for form in ["-h", "--help"] {
        let help = person.silt(&["init", form]).ends_with(0).out;
        assert!(help.contains("a password, a key file or both") && help.contains("--repo <URL>"), "{help}");
    }
    person.silt(&["--version"]).ends_with(0);
    // A slip must not make a repository.
    person.silt(&["backup", "no-such-folder"]).ends_with(1);
    person.silt(&["backup", "--dry-run", "."]).ends_with(1);
    assert!(!person.path("data").exists() && !person.path("config").exists());
}

#[test]
fn streams_are_whole_or_the_backup_fails() {
    let person = Person::new();
    person.make_source();
    let failed = person.silt(&["backup", "source", "--stream", "dump.sql=echo part; exit 3"]).ends_with(1);
    assert!(failed.err.contains("dump.sql"), "{}", failed.err);
    assert!(person.snapshots(&[]).is_empty());
    let good = ["backup", "source", "--stream", "dump.sql=echo one", "--stream", "b/dump=echo two", "--json"];
    let done = person.silt(&good).ends_with(0).last_event();
    assert_eq!(done["totals"]["streams"], 2);
    let mut child =
        person.command(&["backup", "-q", "--stdin", "--stdin-name", "db/in"]).stdin(Stdio::piped()).spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), b"from a pipe").unwrap();
    assert!(child.wait().unwrap().success());
    let last = person.snapshots(&["--last", "1"]).remove(0);
    assert_eq!((&last["sources"][0]["name"], &last["totals"]["bytes"]), (&Value::from("db/in"), &Value::from(11)));
    person.silt(&["restore", "latest", "--target", "in"]).ends_with(0);
    assert_eq!(std::fs::read(person.path("in/db/in")).unwrap(), b"from a pipe");
    person.silt(&["restore", "latest~1", "--target", "out"]).ends_with(0);
    assert_eq!(std::fs::read(person.path("out/dump.sql")).unwrap(), b"one\n");
    assert_eq!(std::fs::read(person.path("out/b/dump")).unwrap(), b"two\n");
    // A restored stream is compared with its file; it counted as added, and one that was gone as nothing.
    let differs = || person.silt(&["diff", "latest~1:b", "out/b", "--content"]).ends_with(0);
    assert!(
        differs().out.contains("0 added, 0 removed, 0 with changed content, 0 with changed metadata"),
        "{}",
        differs().out
    );
    person.write("out/b/dump", "xxx\n");
    assert!(differs().out.contains("0 added, 0 removed, 1 with changed content"), "{}", differs().out);
    std::fs::remove_file(person.path("out/b/dump")).unwrap();
    assert!(
        differs().err.contains("streams not compared, as the directory has no file for them: 1"),
        "{}",
        differs().err
    );
}

/// A later snapshot of a part of a directory was taken for one of all of it.
#[test]
fn a_snapshot_that_has_only_a_part_of_a_path_is_named() {
    let person = Person::new();
    person.write("anna/docs/a", "a");
    person.write("anna/letter", "letter");
    person.silt(&["backup", "anna"]).ends_with(0);
    person.silt(&["backup", "anna/docs"]).ends_with(0);
    let named = |name: &str| format!("latest:{}", person.path(name).display());
    let part = "only what it saved below it: ";
    let done = person.silt(&["restore", &named("anna"), "--target", "out"]).ends_with(0);
    assert!(done.err.contains(part) && done.err.contains("anna/docs; `silt snapshots --path "), "{}", done.err);
    assert!(person.silt(&["export", &named("anna"), "-o", "out.tar"]).ends_with(0).err.contains(part));
    for whole in [named("anna/docs"), "latest".to_owned()] {
        let done = person.silt(&["restore", &whole, "--target", "whole"]).ends_with(0);
        assert!(!done.err.contains(part), "{}", done.err);
    }
}

/// What one snapshot had left out counted as added, without a word.
#[test]
fn diff_says_where_a_snapshot_was_saved_in_part() {
    let person = Person::new();
    person.write("source/f", "f");
    person.write("source/left", "left");
    person.silt(&["backup", "source", "--exclude", "left"]).ends_with(0);
    person.silt(&["backup", "source"]).ends_with(0);
    person.write("source/new", "new");
    person.silt(&["backup", "source"]).ends_with(0);
    let differs = |old: &str, new: &str| person.silt(&["diff", old, new]).ends_with(0);
    for (old, new) in [("latest~2", "latest~1"), ("latest~1", "latest~2")] {
        let done = differs(old, new);
        assert!(done.err.contains("one of the snapshots saved only in part: 1;"), "{}", done.err);
    }
    let done = differs("latest~1", "latest");
    assert!(done.out.contains("1 added") && !done.err.contains("in part"), "{}{}", done.out, done.err);
}

#[test]
fn what_cannot_be_read_is_told_and_ends_with_3() {
    let person = Person::new();
    person.make_source();
    let _socket = std::os::unix::net::UnixListener::bind(person.path("source/socket")).unwrap();
    look_old(&person.path("source"));
    let said = person.silt(&["backup", "source"]).ends_with(0);
    assert!(said.out.contains("Sockets  1 skipped"), "{}", said.out);
    // Nothing is mapped at its beginning, so not even root can read it.
    let unreadable = "/proc/self/mem";
    let said = person.silt(&["backup", "--ignore-ctime", "source", unreadable]).ends_with(3);
    assert!(said.err.starts_with("1 warning:\n") && said.err.contains(unreadable), "{}", said.err);
    assert!(said.out.contains("0 removed, 1 could not be read;"), "{}", said.out);
    let done = person.silt(&["backup", "--ignore-ctime", "source", unreadable, "--json"]).ends_with(3);
    assert!(done.out.contains(r#""event":"warning""#), "{}", done.out);
    let done = done.last_event();
    assert_eq!(done["warnings"][0]["path"], unreadable);
    let saved = &done["totals"];
    assert_eq!((&saved["files"], &saved["files_unread"]), (&5.into(), &1.into()), "{saved}");
    assert_eq!((&saved["files_new"], &saved["files_unchanged"]), (&0.into(), &5.into()), "{saved}");
    assert_eq!(person.snapshots(&["--last", "1"])[0]["warnings_count"], 1);
}

#[test]
fn what_is_left_out_is_left_out() {
    let person = Person::new();
    for name in
        ["a.log", "B.TMP", "keep", "cache/CACHEDIR.TAG", "cache/x", "marked/.nobackup", "marked/x", "listed", "big"]
    {
        person.write(&format!("source/{name}"), "x");
    }
    person.write("source/cache/CACHEDIR.TAG", "Signature: 8a477f597d28d172789f06886806bc55\n");
    person.write("source/big", vec![0; 5000]);
    person.write("patterns", "# a comment\nlisted\n");
    person.write("paths", "source\n");
    #[rustfmt::skip]
    let words = [
        "backup", "--files-from", "paths", "--exclude", "*.log", "--iexclude", "*.tmp", "--exclude-file", "patterns",
        "--exclude-caches", "--exclude-if-present", ".nobackup", "--exclude-larger-than", "4K", "--json",
    ];
    let done = person.silt(&words).ends_with(0).last_event();
    // keep, the tag of the cache; of a marked folder nothing but itself.
    assert_eq!(done["totals"]["files"], 2, "{done}");
    let done = person.silt(&["backup", "source", "--dry-run", "--json"]).ends_with(0).last_event();
    assert_eq!(
        (&done["snapshot"], &done["dry_run"], &done["totals"]["files"]),
        (&Value::Null, &true.into(), &9.into())
    );
    let before = person.snapshots(&[]).len();
    person.silt(&["backup", "source"]).ends_with(0);
    let same = person.silt(&["backup", "source", "--skip-if-unchanged"]).ends_with(0);
    assert!(same.out.contains("no snapshot was created"), "{}", same.out);
    assert_eq!(person.snapshots(&[]).len(), before + 1);
    // The directories above a source are restored, too: what changes beside a source does not count, their mode does.
    person.write("above/source/f", "f");
    let skipping = || person.silt(&["backup", "above/source", "--skip-if-unchanged"]).ends_with(0).out;
    let is_skipped = || skipping().contains("no snapshot was created");
    assert!(!is_skipped() && is_skipped());
    person.write("above/beside", "new");
    assert!(is_skipped());
    std::fs::set_permissions(person.path("above"), std::fs::Permissions::from_mode(0o700)).expect("changed");
    assert!(!is_skipped() && is_skipped());
    let forced = person.silt(&["backup", "source", "--force", "--json"]).ends_with(0).last_event();
    assert!(forced["totals"]["bytes_read"].as_u64() > Some(5000), "{forced}");
    person.silt(&["backup", "source", "--parent", "latest~1", "--ignore-inode", "--ignore-ctime"]).ends_with(0);
}

#[test]
fn a_dry_run_says_what_would_be_read_and_claims_nothing_more() {
    let person = Person::new();
    person.make_source();
    look_old(&person.path("source"));
    let words = ["backup", "--ignore-ctime", "source"];
    person.silt(&words).ends_with(0);
    let dry = |more: &[&str]| person.silt(&[&words[..], &["--dry-run"], more].concat()).ends_with(0);
    let none = dry(&["--json"]).last_event();
    assert_eq!((&none["bytes_to_read"], &none["totals"]["files_unchanged"]), (&0.into(), &5.into()), "{none}");
    person.write("source/new", [1; 1000]);
    std::fs::hard_link(person.path("source/new"), person.path("source/new too")).unwrap();
    person.write("source/below/deep/er/x", [2; 30]);
    let some = dry(&["--json", "--stream", "out=echo ran > ran"]).last_event();
    assert_eq!(some["bytes_to_read"], 1030, "{some}");
    let totals = &some["totals"];
    assert_eq!((&totals["files_new"], &totals["files_changed"], &totals["files"]), (&2.into(), &1.into(), &7.into()));
    for unknown in ["bytes_read", "bytes_new", "bytes_stored"] {
        assert!(totals.get(unknown).is_none(), "{unknown}: {totals}");
    }
    assert!(!person.path("ran").exists());
    let told = dry(&[]).out;
    assert!(told.contains("1.01 KiB to read"), "{told}");
    assert!(!told.contains("stored") && !told.contains("0 B"), "{told}");
    let done = person.silt(&[&words[..], &["--json"]].concat()).ends_with(0).last_event();
    assert_eq!((&done["bytes_to_read"], &done["totals"]["bytes_read"]), (&Value::Null, &1030.into()), "{done}");
}

#[test]
fn a_dry_run_leaves_what_is_known_as_it_is() {
    let person = Person::new();
    person.make_source();
    look_old(&person.path("source"));
    let words = ["backup", "--ignore-ctime", "source", "--json"];
    person.silt(&words).ends_with(0);
    let (snapshots, away) = (person.path("data/siltstone/repository/snapshots"), person.path("away"));
    std::fs::rename(&snapshots, &away).unwrap();
    let dry = person.silt(&[&words[..], &["--dry-run"]].concat()).ends_with(0).last_event();
    // That no snapshot refers to it does not make it less stored.
    assert_eq!((&dry["totals"]["files"], &dry["bytes_to_read"]), (&5.into(), &0.into()), "{dry}");
    std::fs::rename(&away, &snapshots).unwrap();
    let done = person.silt(&words).ends_with(0).last_event();
    assert_eq!(done["totals"]["bytes_read"], 0, "{done}");
}

#[test]
fn snapshots_are_filtered() {
    let person = Person::new();
    person.write("one/x", "1");
    person.write("two/x", "2");
    let made = [
        ["one", "--host", "h1", "--tag", "t1", "--time", "2026-11-18 10:00 UTC", "--job", "j1"],
        ["two", "--host", "h1", "--tag", "t2", "--time", "2026-11-19 10:00 UTC", "--job", "j2"],
        ["two", "--host", "h2", "--tag", "t2", "--time", "2026-11-20 10:00 UTC", "--job", "j2"],
    ];
    made.iter().for_each(|words| drop(person.silt(&[&["backup"], &words[..]].concat()).ends_with(0)));
    let count = |words: &[&str]| person.snapshots(words).len();
    assert_eq!((count(&[]), count(&["--host", "h1"]), count(&["--job", "j2"])), (3, 2, 2));
    assert_eq!((count(&["--tag", "t2"]), count(&["--tag", "t1", "--tag", "t2"]), count(&["--last", "2"])), (2, 0, 2));
    assert_eq!((count(&["--path", "one"]), count(&["--path", "two/x"]), count(&["--path", "three"])), (1, 2, 0));
    assert_eq!((count(&["--after", "2026-11-19"]), count(&["--before", "2026-11-19"])), (2, 2));
    // The same words mean the same to every verb that looks at many snapshots.
    let range = ["--job", "j2", "--after", "2026-11-19", "--before", "2026-11-19"];
    assert_eq!(count(&range), 1);
    let counted = person.silt(&[&["stats", "--json"], &range[..]].concat()).ends_with(0).json();
    assert_eq!(counted["snapshots"], 1, "{counted}");
    let found = person.silt(&[&["find", "x", "--json"], &range[..]].concat()).ends_with(0).json();
    assert_eq!(found["versions"].as_array().map(Vec::len), Some(1), "{found}");
    assert_eq!(found["versions"][0]["first"], found["versions"][0]["last"], "{found}");
    let table = person.silt(&["snapshots", "--host", "h2"]).ends_with(0).out;
    assert!(table.lines().count() == 2 && table.contains("2026-11-20 10:00:00+00:00"), "{table}");
    let id = person.snapshots(&["--host", "h1", "--last", "1"])[0]["id"].as_str().unwrap()[..8].to_owned();
    let named = format!("{id}:{}", person.path("two").display());
    person.silt(&["restore", &named, "--target", "out"]).ends_with(0);
    assert_eq!(std::fs::read(person.path("out/x")).unwrap(), b"2");
}

#[test]
fn an_interrupted_backup_ends_with_130_and_makes_no_snapshot() {
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    let words = ["backup", "--stream", "slow=echo begun > begun; sleep 300"];
    let mut child = person.command(&words).stderr(Stdio::null()).spawn().unwrap();
    let began = std::time::Instant::now();
    while !person.path("begun").exists() && began.elapsed().as_secs() < 90 {
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    let id = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &id]).status().unwrap().success());
    assert_eq!(child.wait().unwrap().code(), Some(130));
    // It did not wait for the command to end by itself.
    assert!(began.elapsed().as_secs() < 200);
    assert_eq!(person.snapshots(&[]).len(), 1);
}

#[test]
fn what_is_saved_can_be_looked_at() {
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source", "--time", "2026-11-18 10:00 UTC"]).ends_with(0);
    person.write("source/text", "hello again");
    person.write("source/new", "n");
    std::fs::remove_file(person.path("source/link")).unwrap();
    person.silt(&["backup", "source"]).ends_with(0);
    let source = person.path("source").display().to_string();
    let of = |path: &str| format!("latest:{source}{path}");

    let listed = person.silt(&["ls", &of("")]).ends_with(0).out;
    assert_eq!(listed.lines().count(), 5, "{listed}");
    assert!(listed.contains(&format!("{source}/below\n")), "{listed}");
    let listed = person.silt(&["ls", "-R", "-l", &of("")]).ends_with(0).out;
    assert!(listed.contains("below/deep/er/x") && listed.contains("-rws--x--x"), "{listed}");
    let listed = person.silt(&["ls", "--json", &format!("latest~1:{source}/link")]).ends_with(0).json();
    assert_eq!((&listed["kind"], &listed["target"]), (&Value::from("symlink"), &Value::from("text")));
    person.silt(&["ls", &of("/none")]).ends_with(1);

    assert_eq!(person.silt(&["cat", &of("/text")]).ends_with(0).out, "hello again");
    let dated = ["cat", "--at", "2026-11-18", &format!(":{source}/text")];
    assert_eq!(person.silt(&dated).ends_with(0).out, "hello");
    person.silt(&["cat", "latest"]).ends_with(2);
    person.silt(&["cat", &of("/below")]).ends_with(1);

    let found = person.silt(&["find", "TEXT", "-i", "--json"]).ends_with(0).json();
    assert_eq!(found["versions"].as_array().map(Vec::len), Some(2), "{found}");
    assert!(person.silt(&["find", "*.none"]).ends_with(0).out.is_empty());

    let differ = person.silt(&["diff", "latest~1", "latest", "--json"]).ends_with(0).last_event();
    assert_eq!((&differ["added"], &differ["removed"]), (&1.into(), &1.into()), "{differ}");
    person.write("source/newer", "n");
    let differ = person.silt(&["diff", "latest", "source"]).ends_with(0).out;
    assert!(differ.contains("newer") && !differ.contains("source/new\n"), "{differ}");
    person.silt(&["diff", "latest:/a", "latest:/b"]).ends_with(2);

    for (format, flag) in [("tar", "-xf"), ("tar.zst", "-xf")] {
        let archive = format!("archive.{format}");
        person.silt(&["export", &of(""), "--format", format, "-o", &archive]).ends_with(0);
        // Nothing is written over.
        person.silt(&["export", &of(""), "--format", format, "-o", &archive]).ends_with(1);
        let out = person.path(&format!("from-{format}"));
        std::fs::create_dir(&out).unwrap();
        let tar = Command::new("tar").arg(flag).arg(person.path(&archive)).arg("-C").arg(&out).status().unwrap();
        assert!(tar.success());
        assert_eq!(std::fs::read(out.join(source.trim_start_matches('/')).join("text")).unwrap(), b"hello again");
    }
    person.silt(&["export", "latest", "--format", "zip"]).ends_with(2);
    let counted = person.silt(&["stats", "--json"]).ends_with(0).json();
    assert_eq!((&counted["snapshots"], counted["packs"].as_u64() > Some(0)), (&2.into(), true), "{counted}");
    assert!(person.silt(&["stats", "--host", "none"]).ends_with(0).out.contains("Snapshots"));
}

#[test]
fn completions_and_manual_pages_are_made() {
    let person = Person::new();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(person.silt(&["completions", shell]).ends_with(0).out.contains("exclude-caches"), "{shell}");
    }
    person.silt(&["completions", "tcl"]).ends_with(2);
    assert!(person.silt(&["man"]).ends_with(0).out.contains(".TH silt 1"));
    person.silt(&["man", "pages"]).ends_with(0);
    let page = std::fs::read_to_string(person.path("pages/silt-restore.1")).unwrap();
    assert!(page.contains("overwrite"), "{page}");
}

/// A password command that reads its standard input, as ssh does, swallowed what was to be saved; so did lists and secrets that are read
/// from it by another name. The stream was empty, with exit code 0.
#[test]
fn nothing_else_reads_what_standard_input_brings() {
    let person = Person::new();
    let fed = |words: &[&str]| {
        let mut command = person.command(words);
        command.env_remove("SILT_PASSWORD").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().expect("it runs");
        let input = child.stdin.take().expect("it is piped");
        // It need not be read.
        let _broken_pipe = std::io::Write::write_all(&mut &input, b"p\nfrom a pipe");
        drop(input);
        said(child.wait_with_output().expect("it ends"))
    };
    let asks = ["--password-command", "cat; echo p"];
    person.silt(&[&["init", "--repo", "repo"][..], &asks].concat()).ends_with(0);
    fed(&[&["backup", "--repo", "repo", "--stdin"][..], &asks].concat()).ends_with(0);
    let saved = person.silt(&[&["cat", "--repo", "repo", "latest:stdin"][..], &asks].concat()).ends_with(0);
    assert_eq!(saved.out, "p\nfrom a pipe");
    for more in
        [["--password-file", "/dev/stdin"], ["--exclude-file", "/proc/self/fd/0"], ["--files-from", "/dev/stdin"]]
    {
        let refused = fed(&[&["backup", "--repo", "repo", "--stdin"][..], &more].concat()).ends_with(2);
        assert!(refused.err.contains("standard input can be read only once, not for --stdin and"), "{}", refused.err);
    }
    // For nothing but a password, it may be.
    let words = ["snapshots", "--repo", "repo", "--password-file", "/dev/stdin"];
    assert!(fed(&words).ends_with(0).out.contains("stdin"));
}
