//! What is named as a source: lists, links, what is missing, streams; and what is said of it.

use crate::fixture;
use crate::person::Person;
use crate::skip::skipped;
use rustix::fs::{FileType, Mode};
use siltstone::entry::{Content, Entry, EntryKind};
use siltstone::error::{Error, Kind, Result};
use siltstone::format::{encode_entries, store_page};
use siltstone::forward_storage;
use siltstone::id::{ChunkId, SnapshotId};
use siltstone::repo::{Repository, SinkOptions, Snapshot, Stamp, Totals};
use siltstone::restore::RestoreOptions;
use siltstone::seal::Compression;
use siltstone::source::{RulesBuilder, Source};
use siltstone::storage::{Memory, ObjectBody, ObjectVersion, Storage};
use siltstone::watch::{Event, Watch};
use std::os::unix::fs::PermissionsExt;
use std::process::Stdio;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex};

/// One name of a list of fifty that had vanished meanwhile cost the snapshot of all the others.
#[test]
fn what_is_missing_costs_nothing_else_and_nothing_at_all_is_an_error() {
    let person = Person::new();
    let mut list = String::new();
    for n in 0..50 {
        person.write(&format!("source/{n}"), format!("{n}"));
        list.push_str(&format!("source/{n}\n"));
    }
    person.write("other/x", "x");
    list.push_str("other\ngone/with/its/folder\n");
    person.write("list", list);
    std::fs::remove_file(person.path("source/7")).unwrap();
    for _ in 0..2 {
        let done = person.silt(&["backup", "--files-from", "list", "--json"]).ends_with(3).last_event();
        assert_eq!((&done["totals"]["files"], &done["warnings_count"]), (&50.into(), &2.into()), "{done}");
        assert!(done["warnings"].to_string().contains("/source/7"), "{done}");
    }
    let before = person.snapshots(&[]).len();
    for words in [&["backup", "nowhere"][..], &["backup", "nowhere", "neither"]] {
        let failed = person.silt(words).ends_with(1);
        assert!(failed.err.contains("hint: check the path"), "{}", failed.err);
    }
    assert_eq!(person.snapshots(&[]).len(), before);
}

/// A source below another one was missing without a word when a folder above it became a link as the backup began.
#[test]
fn a_source_that_no_walk_meets_is_told() {
    let place = tempfile::tempdir().expect("a folder");
    let source = place.path().join("source");
    for name in ["moved/inside", "stays/inside"] {
        std::fs::create_dir_all(source.join(name)).expect("made");
        std::fs::write(source.join(name).join("file"), name).expect("written");
    }
    let (from, to) = (source.join("moved"), place.path().join("elsewhere"));
    let moves = move |_: &str, name: &str| {
        // The writer shows itself when the sources have been looked at.
        if name.starts_with("pending/") && !to.exists() {
            std::fs::rename(&from, &to).expect("moved");
            std::os::unix::fs::symlink(&to, &from).expect("linked");
        }
    };
    let storage = fixture::memory(fixture::SWAPS);
    let hooked = fixture::Hooked { inner: storage, before: moves };
    let repo = fixture::open(Arc::new(hooked), &place.path().join("cache")).expect("it opens");
    let mut options = fixture::options(&source);
    options.sources.extend(fixture::trees(
        ["moved/inside", "moved/inside/file", "stays/inside/file"].map(|name| source.join(name)),
    ));
    let report = repo.backup(options, &Watch::silent()).expect("a backup");
    let mut told: Vec<String> =
        report.warnings.iter().map(|warning| String::from_utf8_lossy(&warning.path.0).into_owned()).collect();
    told.sort();
    let expected = ["moved/inside", "moved/inside/file"].map(|name| source.join(name).display().to_string());
    assert_eq!(told, expected, "{:?}", report.warnings);
}

/// A source below another one was left out, with exit 0, when a program marked a directory above it as a cache meanwhile.
#[test]
fn a_source_is_saved_though_a_directory_above_it_is_marked_meanwhile() {
    let place = tempfile::tempdir().expect("a folder");
    let source = place.path().join("source");
    let named = source.join("target/keep");
    std::fs::create_dir_all(&named).expect("made");
    std::fs::write(named.join("file"), "saved").expect("written");
    std::fs::write(source.join("target/left-out"), "cache").expect("written");
    let tag = source.join("target/CACHEDIR.TAG");
    let marks = move |_: &str, name: &str| {
        // The writer shows itself when the sources have been looked at.
        if name.starts_with("pending/") {
            std::fs::write(&tag, "Signature: 8a477f597d28d172789f06886806bc55").expect("written");
        }
    };
    let hooked = fixture::Hooked { inner: fixture::memory(fixture::SWAPS), before: marks };
    let repo = fixture::open(Arc::new(hooked), &place.path().join("cache")).expect("it opens");
    let mut options = fixture::options(&source);
    options.sources.push(Source::Tree(named));
    options.rules = RulesBuilder::new().exclude_caches().build().expect("rules");
    let report = repo.backup(options, &Watch::silent()).expect("a backup");
    // The file of the source, and the tag.
    assert_eq!((report.totals.files, report.warnings_count), (2, 0), "{report:?}");
}

/// A source of its own in `/`, beside `/`, was saved and told to be missing, and the backup ended with 3.
#[test]
fn a_source_in_the_root_beside_the_root_is_met() {
    let links = std::fs::read_dir("/").expect("a list").map(|entry| entry.expect("an entry").path());
    let Some(link) = links.into_iter().find(|path| path.is_symlink() && path.to_str().is_some()) else {
        return skipped("a source in the root beside the root", "no link is in /");
    };
    let link = link.to_str().expect("UTF-8");
    let person = Person::new();
    // The rule makes it a source of its own, as another file system would, and leaves all else out.
    let done = person.silt(&["backup", "/", link, "--exclude", "/*", "--json"]).ends_with(0).last_event();
    assert_eq!(done["warnings_count"], 0, "{done}");
    let listed = person.silt(&["ls", "latest", "--recursive"]).ends_with(0).out;
    assert!(listed.lines().any(|line| line.contains(link)), "{listed}");
}

/// Each file of a list listed its whole folder anew, and `silt snapshots` printed the whole list in one line.
#[test]
fn a_list_of_files_of_one_folder_is_one_walk_and_one_short_line() {
    let person = Person::new();
    let mut list = Vec::new();
    for n in 0..1500 {
        person.write(&format!("source/{n:04}"), format!("number {n}, with more than thirty-two bytes of text"));
        if n % 3 > 0 {
            list.extend_from_slice(person.path(&format!("source/{n:04}")).as_os_str().as_encoded_bytes());
            list.push(0);
        }
    }
    person.write("list", list);
    fixture::look_old(&person.path("source"));
    let words = ["backup", "--files-from-raw", "list", "--ignore-ctime", "--json"];
    let first = person.silt(&words).ends_with(0).last_event();
    assert_eq!(first["totals"]["files_new"], 1000, "{first}");
    let again = person.silt(&words).ends_with(0).last_event();
    assert_eq!((&again["totals"]["files_unchanged"], &again["totals"]["bytes_read"]), (&1000.into(), &0.into()));
    person.write("source/0004", "changed");
    let changed = person.silt(&words).ends_with(0).last_event();
    let totals = &changed["totals"];
    assert_eq!((&totals["files_unchanged"], &totals["files_changed"]), (&999.into(), &1.into()), "{totals}");
    assert_eq!(changed["snapshot"]["sources_count"], 1000);
    // Without what is known of the last backup.
    std::fs::remove_dir_all(person.path("cache")).unwrap();
    let parent = person.silt(&words).ends_with(0).last_event();
    assert_eq!(parent["totals"]["files_unchanged"], 1000, "{parent}");
    let listed = person.silt(&["snapshots"]).ends_with(0).out;
    assert!(listed.lines().all(|line| line.len() < 1000) && listed.contains(" more"), "{listed}");
    let named = format!("latest:{}", person.path("source").display());
    person.silt(&["restore", &named, "--target", "out"]).ends_with(0);
    assert_eq!(std::fs::read_dir(person.path("out")).unwrap().count(), 1000);
    assert_eq!(std::fs::read(person.path("out/0004")).unwrap(), b"changed");
}

/// Of a source that is a link to a folder only the link was saved, without a word, even with a slash at its end.
#[test]
fn of_a_link_the_link_is_saved_with_a_word_and_with_a_slash_what_it_points_to() {
    let person = Person::new();
    person.write("real/file", "data");
    std::os::unix::fs::symlink("real", person.path("link")).unwrap();
    let done = person.silt(&["backup", "link"]).ends_with(0);
    assert!(done.err.contains("/link is a symbolic link"), "{}", done.err);
    assert!(done.err.contains("to save the directory that it points to, write "), "{}", done.err);
    for words in ["link/", "link/."] {
        let done = person.silt(&["backup", words]).ends_with(0);
        assert!(!done.err.contains("symbolic link"), "{}", done.err);
        let listed = person.silt(&["ls", "-R", "latest"]).ends_with(0).out;
        assert!(listed.contains("/real/file"), "{listed}");
    }
}

/// Of a block device or a FIFO that was named, nothing but the node was saved, without a word; of a socket nothing at all.
#[test]
fn of_a_named_fifo_or_device_the_node_is_saved_with_a_word() {
    let person = Person::new();
    person.write("source/f", "f");
    let make = |name: &str, kind: FileType, number: u64| {
        rustix::fs::mknodat(rustix::fs::CWD, person.path(name), kind, Mode::from_raw_mode(0o600), number)
    };
    make("source/fifo", FileType::Fifo, 0).expect("made");
    let mut nodes = vec![("fifo", "FIFO")];
    // Numbers that no driver has.
    let number = rustix::fs::makedev(250, 7);
    let has_devices = make("source/block", FileType::BlockDevice, number)
        .and_then(|()| make("source/char", FileType::CharacterDevice, number));
    match has_devices {
        Ok(()) => nodes.extend([("block", "block device"), ("char", "character device")]),
        Err(error) => skipped("devices as sources", error),
    }
    for (name, what) in nodes {
        let done = person.silt(&["backup", &format!("source/{name}")]).ends_with(0);
        let told =
            format!("/source/{name} is a {what} and is saved as such; to save what is read from it, use --stdin");
        assert!(done.err.contains(&told), "{}", done.err);
    }
    let _socket = std::os::unix::net::UnixListener::bind(person.path("source/socket")).unwrap();
    let done = person.silt(&["backup", "source/socket", "source/f"]).ends_with(0);
    assert!(done.err.contains("/source/socket is a socket, which cannot be saved"), "{}", done.err);
    let failed = person.silt(&["backup", "source/socket"]).ends_with(1);
    assert!(failed.err.contains("it is a socket, and there is nothing else to save"), "{}", failed.err);
    // In a directory they are what one expects.
    let done = person.silt(&["backup", "source"]).ends_with(0);
    assert!(!done.err.contains("saved as such") && !done.err.contains("socket"), "{}", done.err);
}

/// A source whose path leads through a link in another source was dropped: exit 0, no word, and nothing of it saved.
#[test]
fn a_source_behind_a_link_in_another_source_is_saved_at_its_real_path() {
    let person = Person::new();
    person.write("disk/anna/docs/file", "data");
    person.write("disk/anna/note", "data");
    person.write("home/own", "data");
    std::os::unix::fs::symlink("../disk/anna", person.path("home/anna")).unwrap();
    person.write("list", "home\nhome/anna/docs/file\nhome/anna/note\n");
    let saved = |words: &[&str]| {
        let done = person.silt(words).ends_with(0);
        assert!(done.err.contains("through a symbolic link"), "{}", done.err);
        person.silt(&["ls", "-R", "latest"]).ends_with(0).out
    };
    for words in [&["backup", "home", "home/anna/docs", "home/anna/note"][..], &["backup", "--files-from", "list"]] {
        let listed = saved(words);
        for path in ["/home/anna", "/home/own", "/disk/anna/docs/file", "/disk/anna/note"] {
            assert!(listed.contains(path), "{path}: {listed}");
        }
    }
    assert!(saved(&["backup", "home/anna", "home/anna/docs"]).contains("/disk/anna/docs/file"));
    std::fs::remove_file(person.path("home/anna")).unwrap();
    std::os::unix::fs::symlink("anna", person.path("home/anna")).unwrap();
    let done = person.silt(&["backup", "home", "home/anna/docs"]).ends_with(3);
    assert!(done.err.contains("home/anna/docs"), "{}", done.err);
}

/// Of `link/` whose disk was not mounted the link alone was saved, with exit 0.
#[test]
fn a_link_with_a_slash_that_leads_nowhere_is_a_missing_source() {
    let person = Person::new();
    person.write("other/file", "data");
    person.write("list", "loop/\nother\n");
    std::os::unix::fs::symlink("not/mounted", person.path("away")).unwrap();
    std::os::unix::fs::symlink("loop", person.path("loop")).unwrap();
    for words in
        [&["backup", "away/", "other"][..], &["backup", "other", "away/."], &["backup", "--files-from", "list"]]
    {
        let done = person.silt(words).ends_with(3);
        assert!(done.err.contains("cannot follow the symbolic link"), "{}", done.err);
        let listed = person.silt(&["ls", "-R", "latest"]).ends_with(0).out;
        assert!(listed.contains("other/file") && !listed.contains("away"), "{listed}");
    }
    for words in [&["backup", "away/"][..], &["backup", "loop/", "away/"], &["backup", "away/", "nowhere"]] {
        let failed = person.silt(words).ends_with(1);
        assert!(failed.err.contains("hint: check the path"), "{}", failed.err);
    }
    person.silt(&["backup", "away"]).ends_with(0);
}

/// Commands of streams inherited the password of the repository and the keys of its storage.
#[test]
fn commands_see_no_secret_unless_it_is_named() {
    let person = Person::new();
    let secrets = [("SILT_PASSWORD", "p4ssw0rd"), ("AWS_SECRET_ACCESS_KEY", "k3y"), ("AWS_SESSION_TOKEN", "t0ken")];
    let with = [&secrets[..], &[("SILT_REPOSITORY", "repository")]].concat();
    person.silt_with(&with, &["init"]).ends_with(0);
    let of_stream = |more: &[&str]| {
        person.silt_with(&with, &[&["backup", "--stream", "environment=env"], more].concat()).ends_with(0);
        person.silt_with(&with, &["cat", "latest:environment"]).ends_with(0).out
    };
    let seen = of_stream(&[]);
    assert!(seen.contains("HOME=") && secrets.iter().all(|(_, secret)| !seen.contains(secret)), "{seen}");
    let seen = of_stream(&["--stream-env", "AWS_SESSION_TOKEN"]);
    assert!(seen.contains("t0ken") && !seen.contains("p4ssw0rd"), "{seen}");
    let command = "echo \"$AWS_SECRET_ACCESS_KEY$SILT_RECOVERY_KEY\"p4ssw0rd";
    let with = [("AWS_SECRET_ACCESS_KEY", "k3y"), ("SILT_REPOSITORY", "repository")];
    person.silt_with(&with, &["snapshots", "--password-command", command]).ends_with(0);
}

/// An archive was readable by every user, was a tar whatever its name said, and `| head` made it an error.
#[test]
fn an_archive_is_its_owners_is_what_its_name_says_and_may_be_read_in_part() {
    let person = Person::new();
    person.write("source/large", crate::golden::noise(3_000_000, 3));
    person.silt(&["backup", "source"]).ends_with(0);
    for (name, magic) in [("a.tar", &b""[..]), ("b.tar.zst", b"\x28\xb5\x2f\xfd"), ("c", b"")] {
        person.silt(&["export", "latest", "-o", name]).ends_with(0);
        assert!(std::fs::read(person.path(name)).unwrap().starts_with(magic), "{name}");
        assert_eq!(std::fs::metadata(person.path(name)).unwrap().permissions().mode() & 0o777, 0o600, "{name}");
    }
    for name in ["x.zip", "x.tgz", "x.TAR.GZ"] {
        person.silt(&["export", "latest", "-o", name]).ends_with(2);
        assert!(!person.path(name).exists(), "{name}");
        person.silt(&["export", "latest", "-o", name, "--format", "tar"]).ends_with(0);
    }
    let mut child =
        person.command(&["export", "latest"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut [0; 1000]).unwrap();
    drop(child.stdout.take());
    crate::person::said(child.wait_with_output().unwrap()).ends_with(0);
}

/// A snapshot from a clock that was wrong stayed `latest` for years, without a word.
#[test]
fn a_snapshot_from_the_future_is_told_at_backup_and_as_latest() {
    let person = Person::new();
    person.write("source/x", "x");
    person.silt(&["backup", "source", "--time", "2130-01-01"]).ends_with(0);
    let latest = person.silt(&["ls", "latest"]).ends_with(0);
    assert!(latest.err.contains("is dated in the future"), "{}", latest.err);
    std::fs::remove_dir_all(person.path("cache")).unwrap();
    let next = person.silt(&["backup", "source"]).ends_with(0);
    assert!(next.err.contains("is dated in the future"), "{}", next.err);
}

/// A clock before 1970 made the local state panic: exit 101 and no backup.
#[test]
fn a_clock_before_1970_costs_the_local_state_only() {
    let person = Person::new();
    person.write("source/x", "x");
    let inner = person.command(&["backup", "source"]);
    let mut command = std::process::Command::new("faketime");
    command.arg("1969-06-01 00:00:05").arg(inner.get_program()).args(inner.get_args());
    command.current_dir(person.home.path());
    inner.get_envs().for_each(|(name, value)| {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    });
    match command.output() {
        Ok(output) if output.status.code() != Some(127) => {
            let done = crate::person::said(output).ends_with(0);
            assert!(done.err.contains("before 1970"), "{}", done.err);
        }
        _ => skipped("a clock before 1970", "there is no faketime"),
    }
}

/// Storage that answers that something is not there when packs are sent to it.
struct Gone(Memory);

impl Storage for Gone {
    forward_storage!(self => self.0; describe, identity, capabilities, profile, compare_and_swap, rename, get, get_range, list, remove, stat);

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        self.refuse(name)?;
        self.0.put(name, body)
    }
    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        self.refuse(name)?;
        self.0.put_new(name, body)
    }
}

impl Gone {
    fn refuse(&self, name: &str) -> Result<()> {
        if name.starts_with("packs/") {
            Err(Error::new(Kind::NotFound, "write", name).because("there is no such bucket"))
        } else {
            Ok(())
        }
    }
}

/// Healthy files were reported as vanished when it was the repository that answered so.
#[test]
fn what_the_repository_lacks_is_no_warning_about_a_source() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    std::fs::create_dir(&source).unwrap();
    for n in 0..20 {
        std::fs::write(source.join(n.to_string()), crate::golden::noise(4_000_000, n)).unwrap();
    }
    let storage = Arc::new(Gone(fixture::memory(fixture::SWAPS)));
    let warnings = Arc::new(Mutex::new(Vec::new()));
    let heard = warnings.clone();
    let watch = Watch::new(Arc::new(move |event| {
        if let Event::Warning(warning) = event {
            heard.lock().unwrap().push(warning.path);
        }
    }));
    let repo = fixture::open(storage, &folder.path().join("cache")).unwrap();
    let failed = repo.backup(fixture::options(&source), &watch).unwrap_err();
    assert!(failed.to_string().contains("no such bucket"), "{failed}");
    assert!(warnings.lock().unwrap().is_empty(), "{:?}", warnings.lock().unwrap());
}

fn commit(repo: &Repository, number: u8, tree: impl FnOnce(&mut dyn FnMut(Vec<u8>) -> Result<ChunkId>) -> ChunkId) {
    let wanted = SinkOptions { lanes: 1, compression: Compression::Auto, memory_bytes: 256 << 20 };
    let writer = repo.writer("host", &wanted, &Watch::silent()).unwrap();
    let root = tree(&mut |bytes| writer.sink().store_tree(0, &bytes));
    let stamp = Stamp { seconds: 1_700_000_000 + i64::from(number), nanoseconds: 0, offset: 0 };
    let snapshot = Snapshot {
        version: 1,
        id: SnapshotId([number; 16]),
        started: stamp,
        ended: stamp,
        host: "host".to_owned(),
        user: String::new(),
        job: String::new(),
        tags: vec![],
        program: String::new(),
        sources: vec![],
        all_sources: None,
        root,
        root_directory: None,
        lacks_trusted: false,
        origin: None,
        totals: Totals::default(),
        warnings: vec![],
        warnings_count: 0,
    };
    writer.commit(&snapshot).unwrap();
}

fn directory(name: &str, tree: ChunkId) -> Entry {
    let mut entry = Entry::new(name.as_bytes(), EntryKind::Directory);
    entry.content = Content::Tree(tree);
    entry
}

/// Without local state, all files of a directory that is a source counted as removed because a file beside it is a source, too.
#[test]
fn what_is_a_source_of_its_own_is_not_removed() {
    let person = Person::new();
    for name in ["dir/f", "dir/d/x", "dir/d/y", "dir/gone/z"] {
        person.write(name, name);
    }
    for (run, removed) in [0, 0, 1, 0].into_iter().enumerate() {
        if run == 2 {
            std::fs::remove_file(person.path("dir/gone/z")).expect("removed");
        }
        let done = person.silt(&["--no-cache", "backup", "--json", "dir/f", "dir/d", "dir/gone"]).ends_with(0);
        assert_eq!(done.last_event()["totals"]["files_removed"], removed, "{run}");
    }
}

/// What the local state knew of a directory before it was deleted counted again when the directory was back; an entry that became one of
/// another kind counted as changed; of an emptied directory nothing counted.
#[test]
fn files_are_counted_against_the_last_snapshot() {
    for cache in [&["--cache-dir", "cache"][..], &["--no-cache"]] {
        let person = Person::new();
        let at = |name: &str| person.path(&format!("source/{name}"));
        for name in ["d/1", "d/2", "d/3", "k/1"] {
            person.write(&format!("source/{name}"), name);
        }
        let backup = |more: &[&str], expected: [u64; 4], when: &str| {
            let words = [cache, &["backup", "source", "--json"], more].concat();
            let totals = person.silt(&words).ends_with(0).last_event()["totals"].clone();
            let counted =
                ["new", "changed", "unchanged", "removed"].map(|what| totals[format!("files_{what}")].as_u64());
            assert_eq!(counted, expected.map(Some), "{when} {cache:?}");
        };
        backup(&[], [4, 0, 0, 0], "at first");
        std::fs::rename(at("d"), person.path("away")).expect("moved");
        backup(&[], [0, 0, 1, 3], "moved away");
        std::fs::create_dir(at("d")).expect("made");
        backup(&[], [0, 0, 1, 0], "an empty one in its place");
        std::fs::remove_dir(at("d")).expect("removed");
        std::fs::rename(person.path("away"), at("d")).expect("moved");
        backup(&[], [3, 0, 1, 0], "moved back");
        backup(&[], [0, 0, 4, 0], "nothing since");
        for name in ["1", "2", "3"] {
            std::fs::remove_file(at("d").join(name)).expect("removed");
        }
        backup(&[], [0, 0, 1, 3], "emptied");
        person.write("source/d/1", "again");
        backup(&[], [1, 0, 1, 0], "with a file");
        std::fs::remove_file(at("d/1")).expect("removed");
        if cache[0] != "--no-cache" {
            // It does not compare.
            backup(&["--force"], [1, 0, 0, 0], "forced");
            backup(&[], [0, 0, 1, 0], "after a forced one");
        } else {
            backup(&[], [0, 0, 1, 1], "emptied again");
        }
        std::fs::remove_dir(at("d")).expect("removed");
        person.write("source/d", "a file now");
        std::fs::remove_file(at("k/1")).expect("removed");
        std::os::unix::fs::symlink("2", at("k/1")).expect("linked");
        backup(&[], [1, 0, 0, 1], "of other kinds");
        std::fs::remove_file(at("d")).expect("removed");
        person.write("source/d/1", "a directory again");
        std::fs::remove_file(at("k/1")).expect("removed");
        person.write("source/k/1", "a file again");
        backup(&[], [2, 0, 0, 1], "of their old kinds");
    }
}

/// An inner page of level 2 that names these pages.
fn inner(pages: &[(&str, ChunkId)]) -> Vec<u8> {
    let mut bytes = vec![b'T', 1, 2, u8::try_from(pages.len()).unwrap()];
    for (name, _) in pages {
        bytes.push(u8::try_from(name.len()).unwrap());
        bytes.extend_from_slice(name.as_bytes());
    }
    pages.iter().for_each(|(_, id)| bytes.extend_from_slice(id.as_bytes()));
    bytes
}

/// One damaged page of a directory hid all that came after it from ls, find, stats, diff and export; a forged one could
/// keep them busy for ever.
#[test]
fn readers_go_past_a_damaged_page_and_end_at_a_forged_one() {
    let folder = tempfile::tempdir().unwrap();
    let repo = fixture::open(Arc::new(fixture::memory(fixture::SWAPS)), &folder.path().join("cache")).unwrap();
    let lost = ChunkId([7; 24]);
    let page = |store: &mut dyn FnMut(Vec<u8>) -> Result<ChunkId>, names: &[&str]| {
        let entries: Vec<Entry> = names.iter().map(|name| Entry::new(name.as_bytes(), EntryKind::Fifo)).collect();
        store_page(&entries, store).unwrap()
    };
    commit(&repo, 1, |store| {
        let (first, last) = (page(store, &["a"]), page(store, &["z"]));
        let torn = store(inner(&[("a", first), ("m", lost), ("z", last)])).unwrap();
        store_page(&[directory("gone", lost), directory("torn", torn), directory("whole", first)], store).unwrap()
    });
    commit(&repo, 2, |store| {
        let empty = store(encode_entries(&[])).unwrap();
        let mut forged = empty;
        let names: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
        for _ in 0..20 {
            let pages: Vec<(&str, ChunkId)> = names.iter().map(|name| (name.as_str(), forged)).collect();
            forged = store(inner(&pages)).unwrap();
        }
        let whole = page(store, &["a"]);
        store_page(&[directory("forged", forged), directory("whole", whole)], store).unwrap()
    });
    commit(&repo, 3, |store| {
        let (mut forged, whole) = (lost, page(store, &["a"]));
        let names: Vec<String> = (0..100).map(|n| format!("{n:03}")).collect();
        for _ in 0..20 {
            let pages: Vec<(&str, ChunkId)> = names.iter().map(|name| (name.as_str(), forged)).collect();
            forged = store(inner(&pages)).unwrap();
        }
        store_page(&[directory("forged", forged), directory("whole", whole)], store).unwrap()
    });
    let reader = repo.reader();
    let snapshots = fixture::snapshots(&repo);
    for snapshot in &snapshots[1..] {
        let target = folder.path().join("target").join(snapshot.id.to_string());
        let plan = repo.plan_restore(snapshot, RestoreOptions::new(target.clone()), &Watch::silent()).unwrap();
        assert_eq!(plan.run(&Watch::silent()).unwrap().damaged, if snapshot.id == snapshots[1].id { 1 } else { 101 });
        assert!(target.join("whole/a").symlink_metadata().is_ok());
    }
    let listed = |snapshot: &Snapshot| {
        let watch = Watch::silent();
        let mut paths = Vec::new();
        siltstone::browse::list_skipping_damage(&reader, snapshot, b"/", true, &watch, &mut |path, _| {
            paths.push(String::from_utf8_lossy(path).into_owned());
            Ok(())
        })
        .unwrap();
        (paths, watch.progress.damaged.load(Ordering::Relaxed))
    };
    let all = ["/gone", "/torn", "/torn/a", "/torn/z", "/whole", "/whole/a"].map(str::to_owned);
    assert_eq!(listed(&snapshots[0]), (all.to_vec(), 2));
    assert_eq!(listed(&snapshots[1]), (["/forged", "/whole", "/whole/a"].map(str::to_owned).to_vec(), 1));
    assert!(siltstone::browse::list(&reader, &snapshots[0], b"/", true, &mut |_, _| Ok(())).is_err());

    let watch = Watch::silent();
    let statistics = siltstone::browse::stats(&repo, &snapshots[..1], b"/", &watch).unwrap();
    assert_eq!((statistics.directories, statistics.others), (3, 3));
    assert_eq!(watch.progress.damaged.load(Ordering::Relaxed), 2);
    let options = siltstone::browse::FindOptions { patterns: vec![b"[az]".to_vec()], ..Default::default() };
    let mut found = 0;
    let filter = siltstone::browse::Filter::default();
    siltstone::browse::find(&repo, &filter, &options, &watch, &mut |_, _| {
        found += 1;
        Ok(())
    })
    .unwrap();
    assert_eq!(found, 3);
    let mut changes = Vec::new();
    siltstone::browse::diff_snapshots(&reader, &snapshots[0], &snapshots[1], b"/", &watch, &mut |path, _, _, _| {
        changes.push(String::from_utf8_lossy(path).into_owned());
        Ok(())
    })
    .unwrap();
    assert!(changes.iter().all(|path| !path.starts_with("/whole")) && changes.len() >= 3, "{changes:?}");
}

/// diff with a folder saw neither another owner nor another attribute.
#[test]
fn diff_with_a_folder_sees_owners_and_attributes() {
    let person = Person::new();
    for name in ["owner", "attribute", "same"] {
        person.write(&format!("source/{name}"), "x");
    }
    person.silt(&["backup", "source"]).ends_with(0);
    let source = person.path("source").to_str().unwrap().to_owned();
    let differs = |name: &str| {
        let out = person.silt(&["diff", "latest", &source]).ends_with(0).out;
        assert!(!out.contains("/same"), "{out}");
        out.contains(&format!("U {source}/{name}"))
    };
    assert!(!differs("owner") && !differs("attribute"));
    match std::os::unix::fs::chown(person.path("source/owner"), Some(12345), None) {
        Ok(()) => assert!(differs("owner")),
        Err(error) => skipped("another owner", error),
    }
    let flags = rustix::fs::XattrFlags::empty();
    match rustix::fs::setxattr(person.path("source/attribute"), "user.a", b"b", flags) {
        Ok(()) => assert!(differs("attribute")),
        Err(error) => skipped("an extended attribute", error),
    }
    assert!(person.silt(&["diff", "--help"]).ends_with(0).out.contains("owner"));
}

/// A name that no file system takes was saved, and could not be restored.
#[test]
fn a_stream_has_a_name_that_can_be_restored() {
    let person = Person::new();
    let named = |length: usize| format!("{}/x=echo x", "n".repeat(length));
    person.silt(&["backup", "--stream", &named(256)]).ends_with(2);
    person.silt(&["backup", "--stream", &named(255)]).ends_with(0);
    person.silt(&["restore", "latest", "--target", "out"]).ends_with(0);
}

/// An absolute path was refused where the current directory had been removed.
#[test]
fn absolute_paths_need_no_current_directory() {
    let person = Person::new();
    person.write("source/x", "x");
    std::fs::create_dir(person.path("gone")).unwrap();
    let script = "rmdir \"$PWD\" && exec \"$@\"";
    let silt = person.command(&["backup", "source"]);
    let mut shell = std::process::Command::new("/bin/sh");
    shell.args(["-c", script, "sh"]).arg(silt.get_program()).arg("backup").arg(person.path("source"));
    shell.envs(silt.get_envs().filter_map(|(name, value)| Some((name, value?)))).current_dir(person.path("gone"));
    crate::person::said(shell.stdin(Stdio::null()).output().unwrap()).ends_with(0);
}
