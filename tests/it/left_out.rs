//! What a backup leaves out, says so, and marks in the tree.

use crate::fixture;
use crate::person::Person;
use crate::skip::skipped;
use siltstone::backup::{BackupOptions, BackupReport};
use siltstone::entry::{Entry, EntryKind};
use siltstone::repo::Repository;
use siltstone::source::RulesBuilder;
use siltstone::watch::Watch;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// The directories of a snapshot by their path below the source, and whether each is marked as partial.
fn marks(repo: &Repository, report: &BackupReport, source: &Path) -> BTreeMap<String, bool> {
    let snapshot = report.snapshot.as_ref().expect("a snapshot was made");
    let mut found = BTreeMap::new();
    let mut each = |path: &[u8], entry: &Entry| {
        let path = PathBuf::from(String::from_utf8_lossy(path).into_owned());
        if let (Ok(below), true) = (path.strip_prefix(source), entry.kind == EntryKind::Directory) {
            found.insert(below.to_str().unwrap().to_owned(), entry.is_partial);
        }
        Ok(())
    };
    siltstone::browse::list(&repo.reader(), snapshot, b"/", true, &mut each).unwrap();
    found
}

fn marked(marks: &BTreeMap<String, bool>) -> Vec<&str> {
    marks.iter().filter(|(_, is_partial)| **is_partial).map(|(path, _)| path.as_str()).collect()
}

/// A restore with --delete emptied directories that the backup could not read or had filtered: each is marked in the tree
/// while that is so, however little else changes, and not any longer.
#[test]
fn directories_that_lack_something_are_marked_for_as_long_as_they_do() {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    for name in ["whole/below", "filtered/deep", "tagged", "socket", "large"] {
        fs::create_dir_all(source.join(name)).unwrap();
        fs::write(source.join(name).join("file"), "some text that is longer than what is kept in the tree").unwrap();
    }
    fs::write(source.join("filtered/deep/x.o"), "object").unwrap();
    fs::write(source.join("tagged/.nobackup"), "").unwrap();
    fs::write(source.join("large/big"), vec![7; 5000]).unwrap();
    let listener = std::os::unix::net::UnixListener::bind(source.join("socket/s")).unwrap();
    let memory = Arc::new(fixture::memory(fixture::SWAPS));
    let options = || {
        let mut rules = RulesBuilder::new();
        rules.exclude(b"*.o").unwrap().exclude_if_present(b".nobackup").unwrap().exclude_larger_than(4000);
        BackupOptions { rules: rules.build().unwrap(), ..fixture::options(&source) }
    };
    let expected = ["filtered/deep", "large", "socket", "tagged"];
    // With local state, with what a second run knows of it, and with nothing but the parent's tree.
    for cache in ["cache", "cache", "cache", "another"] {
        let repo = fixture::open(memory.clone(), &folder.path().join(cache)).unwrap();
        let report = repo.backup(options(), &Watch::silent()).unwrap();
        assert_eq!(marked(&marks(&repo, &report, &source)), expected, "{cache}");
    }
    // The directories above the source hold nothing but the way to it.
    let repo = fixture::open(memory.clone(), &folder.path().join("cache")).unwrap();
    let report = repo.backup(options(), &Watch::silent()).unwrap();
    let above = marks(&repo, &report, folder.path().parent().unwrap());
    assert!(above.iter().all(|(path, is_partial)| *is_partial || path.contains("/source")), "{above:?}");

    // Other rules, the same files: nothing but the marks changes, and they do.
    let plain = repo.backup(fixture::options(&source), &Watch::silent()).unwrap();
    assert_eq!(marked(&marks(&repo, &plain, &source)), ["socket"]);
    let again = repo.backup(options(), &Watch::silent()).unwrap();
    assert_eq!(marked(&marks(&repo, &again, &source)), expected);
    drop(listener);
    fs::remove_file(source.join("socket/s")).unwrap();
    fs::remove_file(source.join("filtered/deep/x.o")).unwrap();
    for cache in ["cache", "cache", "a third"] {
        let repo = fixture::open(memory.clone(), &folder.path().join(cache)).unwrap();
        let report = repo.backup(options(), &Watch::silent()).unwrap();
        assert_eq!(marked(&marks(&repo, &report, &source)), ["large", "tagged"], "{cache}");
    }
}

/// A file that could not be read leaves its directory without it: marked, and no longer once it can be read.
#[test]
fn a_directory_with_an_unreadable_file_is_marked_until_it_can_be_read() {
    let person = Person::new();
    person.make_source();
    let locked = person.path("source/below/large");
    fs::set_permissions(&locked, fs::Permissions::from_mode(0o000)).unwrap();
    fs::set_permissions(person.home.path(), fs::Permissions::from_mode(0o777)).unwrap();
    if fs::read(&locked).is_ok() {
        return unreadable_as_another_user(&person);
    }
    person.silt(&["backup", "source"]).ends_with(3);
}

/// Root reads everything: the same as another user.
fn unreadable_as_another_user(person: &Person) {
    let done = std::process::Command::new("setpriv").arg("--version").output();
    if !done.is_ok_and(|output| output.status.success()) {
        return skipped("what another user cannot read", "there is no setpriv");
    }
    let silt = |words: &[&str]| {
        let inner = person.command(words);
        let mut outer = std::process::Command::new("setpriv");
        outer
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(inner.get_program())
            .args(inner.get_args());
        inner.get_envs().for_each(|(name, value)| {
            match value {
                Some(value) => outer.env(name, value),
                None => outer.env_remove(name),
            };
        });
        crate::person::said(outer.current_dir(person.home.path()).output().unwrap())
    };
    let program = person.command::<&str>(&[]);
    let readable = std::process::Command::new("setpriv")
        .args(["--reuid=65534", "--regid=65534", "--clear-groups", "test", "-x"])
        .arg(program.get_program())
        .status();
    if !readable.is_ok_and(|status| status.success()) {
        return skipped("what another user cannot read", "the program is not within their reach");
    }
    for _ in 0..2 {
        let done = silt(&["backup", "source"]).ends_with(3);
        assert!(done.err.contains("below/large"), "{}", done.err);
    }
}

pub fn deepen(top: &Path, levels: usize) {
    use rustix::fs::{Mode, OFlags};
    let mut folder = rustix::fs::open(top, OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..levels {
        rustix::fs::mkdirat(&folder, "d", Mode::RWXU).unwrap();
        folder = rustix::fs::openat(&folder, "d", OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
}

/// Takes a chain of directories away from its top: what removes by recursion would be as deep as it.
pub fn flatten(top: &Path) {
    let (first, next) = (top.join("d"), top.join("next"));
    while first.exists() {
        if first.join("d").exists() {
            fs::rename(first.join("d"), &next).unwrap();
        }
        fs::remove_dir(&first).unwrap();
        if next.exists() {
            fs::rename(&next, &first).unwrap();
        }
    }
}

/// One path of some thousand levels overflowed a reader's stack: any user could stop the backup of a host. It is saved as
/// far down as can be restored, the rest is reported, and every verb reads what was saved.
#[test]
fn a_tree_deeper_than_any_stack_is_a_warning_in_every_verb() {
    let person = Person::new();
    person.write("source/z", "beside");
    deepen(&person.path("source"), 20_000);
    let cut = |text: &str| text.chars().take(300).collect::<String>();
    // Fewer descriptors than levels.
    let limit = "64";
    let mut command = std::process::Command::new("sh");
    let inner = person.command(&["backup", "source", "--json"]);
    command.arg("-c").arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\"")).arg(inner.get_program());
    command.args(inner.get_args()).current_dir(person.home.path());
    inner.get_envs().for_each(|(name, value)| {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    });
    let done = crate::person::said(command.output().unwrap());
    assert_eq!(done.code, 3, "{limit}: {}", cut(&done.err));
    let summary = done.last_event();
    assert_eq!((&summary["totals"]["files"], &summary["warnings_count"]), (&1.into(), &1.into()), "{limit}");
    let out = person.path("out.tar");
    let source = person.path("source").to_str().unwrap().to_owned();
    let named = format!("latest:{source}");
    for words in [
        &["ls", "-R", "latest"][..],
        &["find", "z"],
        &["stats"],
        &["export", "latest", "-o", out.to_str().unwrap()],
        &["diff", "latest", &source],
        &["diff", "latest", "latest"],
        &["snapshots"],
        &["restore", &named, "--target", "out"],
    ] {
        let done = person.silt(words);
        // What was not saved is more than the saved paths have: the folder on disk says so.
        assert!(done.code == 0 || words[0] == "diff" && done.code == 3, "{words:?}: {} {}", done.code, cut(&done.err));
    }
    assert_eq!(fs::read(person.path("out/z")).unwrap(), b"beside");
    flatten(&person.path("source"));
    flatten(&person.path("out"));
}

/// A path of more than 4096 bytes was saved in silence, and then every reader called its whole snapshot corrupt.
#[test]
fn a_path_longer_than_the_system_takes_is_saved_listed_compared_and_restored() {
    use rustix::fs::{Mode, OFlags};
    let person = Person::new();
    fs::create_dir(person.path("source")).unwrap();
    let name = "n".repeat(200);
    let mut folder = rustix::fs::open(person.path("source"), OFlags::DIRECTORY, Mode::empty()).unwrap();
    for _ in 0..25 {
        rustix::fs::mkdirat(&folder, name.as_str(), Mode::RWXU).unwrap();
        folder = rustix::fs::openat(&folder, name.as_str(), OFlags::DIRECTORY, Mode::empty()).unwrap();
    }
    let flags = OFlags::CREATE | OFlags::WRONLY;
    drop(rustix::fs::openat(&folder, "deep", flags, Mode::RUSR | Mode::WUSR).unwrap());
    person.silt(&["backup", "source"]).ends_with(0);
    let source = person.path("source").to_str().unwrap().to_owned();
    let listed = person.silt(&["ls", "-R", "latest"]).ends_with(0);
    assert!(listed.out.lines().any(|line| line.ends_with("/deep") && line.len() > 5000));
    assert!(person.silt(&["find", "deep"]).ends_with(0).out.contains("/deep"));
    person.silt(&["stats"]).ends_with(0);
    person.silt(&["export", "latest", "-o", "out.tar"]).ends_with(0);
    let same = person.silt(&["diff", "latest", &source]).ends_with(0);
    assert!(same.out.starts_with("0 added, 0 removed, 0 with changed content"), "{}", same.out);
    person.silt(&["restore", &format!("latest:{source}"), "--target", "out"]).ends_with(0);
    let same = person.silt(&["diff", &format!("latest:{source}"), "out"]).ends_with(0);
    assert!(same.out.starts_with("0 added, 0 removed, 0 with changed content"), "{}", same.out);
}

/// A backup of a home that holds the default repository saved it into itself: it doubled with every run.
#[test]
fn the_own_repository_and_caches_are_never_saved() {
    let person = Person::new();
    person.write("docs/a", crate::golden::noise(200_000, 1));
    let mut files = Vec::new();
    for _ in 0..3 {
        let done = person.silt(&["backup", "."]).ends_with(0);
        assert!(done.err.contains("data/siltstone/repository is part of the repository"), "{}", done.err);
        let listed = person.silt(&["ls", "-R", "latest"]).ends_with(0).out;
        assert!(listed.contains("docs/a") && !listed.contains("/packs") && !listed.contains("/state"), "{listed}");
        files.push(listed.lines().count());
    }
    assert!(files[1] == files[2], "{files:?}");
    // By whatever path: as a source, below it, through a link above.
    std::os::unix::fs::symlink("data", person.path("other")).unwrap();
    for source in ["data/siltstone/repository", "data/siltstone/repository/config", "other/siltstone/repository/packs"]
    {
        let failed = person.silt(&["backup", source]).ends_with(1);
        assert!(failed.err.contains("part of the repository that this backup writes to\nhint: "), "{}", failed.err);
    }
    let both = person.silt(&["backup", "docs", "data/siltstone/repository"]).ends_with(0);
    assert!(both.err.contains("skipped: "), "{}", both.err);
}

/// A part of the own repository that was mounted in a source was saved into itself.
#[test]
fn a_part_of_the_own_repository_is_left_out_where_it_is_mounted() {
    let person = Person::new();
    person.write("source/file", "x");
    person.silt(&["backup", "source"]).ends_with(0);
    let below = person.path("source/part");
    fs::create_dir(&below).unwrap();
    let packs = person.path("data/siltstone/repository/packs");
    let further_down = fs::read_dir(&packs).unwrap().next().unwrap().unwrap().path();
    for part in [packs, further_down] {
        let mounted = std::process::Command::new("mount").arg("--bind").args([&part, &below]).output();
        if !mounted.is_ok_and(|output| output.status.success()) {
            return skipped("leaving out a mounted part of the repository", "it cannot be mounted here");
        }
        let done = person.silt(&["backup", "source", "--json"]);
        let _gone = std::process::Command::new("umount").arg("--lazy").arg(&below).status();
        let done = done.ends_with(0);
        assert!(done.out.contains("source/part is part of the repository that this backup writes to"), "{}", done.out);
        assert_eq!(done.last_event()["totals"]["files"], 1);
    }
}

/// Markers that were links, sockets or folders were not honoured, and a tagged source was left out without a word.
#[test]
fn markers_count_whatever_they_are_and_a_marked_source_is_told() {
    let person = Person::new();
    for name in ["link", "socket", "folder", "tag is a link", "tag is a folder", "tagged", "plain"] {
        person.write(&format!("source/{name}/file"), "x");
    }
    let at = |name: &str| person.path("source").join(name);
    std::os::unix::fs::symlink("nowhere", at("link/.nobackup")).unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket/.nobackup")).unwrap();
    fs::create_dir(at("folder/.nobackup")).unwrap();
    let tag = "Signature: 8a477f597d28d172789f06886806bc55\n";
    person.write("source/tagged/CACHEDIR.TAG", tag);
    std::os::unix::fs::symlink("../tagged/CACHEDIR.TAG", at("tag is a link/CACHEDIR.TAG")).unwrap();
    fs::create_dir(at("tag is a folder/CACHEDIR.TAG")).unwrap();
    let words = ["backup", "--exclude-caches", "--exclude-if-present", ".nobackup"];
    person.silt(&[&words[..], &["source"]].concat()).ends_with(0);
    let listed = person.silt(&["ls", "-R", "latest"]).ends_with(0).out;
    let saved: Vec<&str> = listed.lines().filter_map(|line| line.strip_suffix("/file")?.rsplit('/').next()).collect();
    assert_eq!(saved, ["plain", "tag is a folder", "tag is a link"]);
    for source in ["source/tagged", "source/folder"] {
        let done = person.silt(&[&words[..], &[source]].concat()).ends_with(0);
        assert!(
            done.err.contains("excluded: the contents of the source ") && done.err.contains(source),
            "{}",
            done.err
        );
    }
}

/// A source below another one was left out without a word when a rule matched it, or a folder above it.
#[test]
fn a_source_that_is_named_is_saved_although_a_rule_leaves_out_what_is_above() {
    let person = Person::new();
    for name in ["plain", "var/no", "var/deep/keep/f", "var/deep/no", "var/one", "var/two", "tagged/no", "tagged/in/f"]
    {
        person.write(&format!("source/{name}"), "x");
    }
    person.write("source/tagged/.nobackup", "");
    person.write("list", "source\nsource/var/one\nsource/var/two\nsource/tagged/in\n");
    let rules = ["backup", "source", "--exclude", "var", "--exclude-if-present", ".nobackup"];
    let saved = |more: &[&str]| {
        let done = person.silt(&[&rules[..], more].concat()).ends_with(0);
        let listed = person.silt(&["ls", "-R", "latest"]).ends_with(0).out;
        let prefix = format!("{}/", person.path("source").display());
        let below = listed.lines().filter_map(|line| line.split(&prefix).nth(1).map(str::to_owned));
        (below.collect::<Vec<_>>().join(" "), done.err)
    };
    // Twice, as the second run knows what is unchanged.
    for _ in 0..2 {
        let (listed, _) = saved(&["source/var/deep/keep", "source/tagged/in/f"]);
        assert_eq!(listed, "plain tagged tagged/in tagged/in/f var var/deep var/deep/keep var/deep/keep/f");
        let (listed, _) = saved(&["--files-from", "list"]);
        assert_eq!(listed, "plain tagged tagged/in tagged/in/f var var/one var/two");
        assert_eq!(saved(&[]).0, "plain tagged");
    }
    // A source that is marked itself, or too large, is reported.
    assert!(saved(&["source/tagged"]).1.contains("excluded: the contents of the source"));
    person.write("source/plain", "xx");
    let told = saved(&["source/plain", "--exclude-larger-than", "1"]).1;
    assert!(told.contains("excluded: the source"), "{told}");
}

/// `silt backup /` hung on what the kernel makes up; now that is left out, unless it is named.
#[test]
fn what_the_kernel_makes_up_is_left_out_unless_it_is_named() {
    let person = Person::new();
    person.write("source/file", "x");
    let below = person.path("source/proc");
    fs::create_dir(&below).unwrap();
    let mounted = std::process::Command::new("mount").args(["-t", "proc", "proc"]).arg(&below).output();
    if mounted.is_ok_and(|output| output.status.success()) {
        let done = person.silt(&["backup", "source", "--json"]);
        let _gone = std::process::Command::new("umount").arg("--lazy").arg(&below).status();
        let done = done.ends_with(0);
        assert!(done.out.contains("a virtual file system of the kernel"), "{}", done.out);
        assert_eq!(done.last_event()["totals"]["files"], 1);
    } else {
        skipped("leaving out a mounted pseudo file system", "it cannot be mounted here");
    }
    // Named, it is saved: a file that says it is empty and is longer than a chunk was read for ever.
    let Ok(symbols) = fs::read("/proc/kallsyms") else { return };
    person.silt(&["backup", "/proc/kallsyms", "/proc/version"]).ends_with(0);
    let saved = person.silt(&["cat", "latest:/proc/version"]).ends_with(0).out;
    assert_eq!(saved, fs::read_to_string("/proc/version").unwrap());
    let saved = person.silt(&["cat", "latest:/proc/kallsyms"]).ends_with(0).out;
    assert_eq!(saved.lines().count(), String::from_utf8_lossy(&symbols).lines().count());
}

/// Of each file of /sys a backup said that it had changed while it was read: its size is that of a page, whatever is in it.
#[test]
fn a_size_that_the_kernel_makes_up_is_no_change() {
    let name = "/sys/devices/virtual/net/lo/mtu";
    let (Ok(text), Ok(meta)) = (fs::read_to_string(name), fs::metadata(name)) else {
        return skipped("a file of /sys", "there is none here");
    };
    if meta.len() <= text.len() as u64 {
        return skipped("a file of /sys", "its size is that of its content");
    }
    let person = Person::new();
    for _ in 0..2 {
        let done = person.silt(&["backup", name, "--json"]).ends_with(0).last_event();
        assert_eq!(done["totals"]["bytes"], text.len(), "{done}");
    }
    assert_eq!(person.silt(&["cat", &format!("latest:{name}")]).ends_with(0).out, text);
}

/// A limit of open files was taken for a source's warning: a snapshot with nearly nothing in it, and exit 3.
#[test]
fn a_process_that_runs_short_of_descriptors_saves_all_or_nothing() {
    let person = Person::new();
    for n in 0..40 {
        person.write(&format!("source/{n}/a/b/c/file"), format!("{n} with more than thirty-two bytes of text"));
    }
    person.write("password", "p");
    let with = ["--repo", "repository", "--password-file", "password"];
    person.silt(&[&["init"][..], &with].concat()).ends_with(0);
    let mut ends = BTreeMap::new();
    for limit in [12, 16, 20, 24, 28, 32, 40, 48, 64, 96] {
        let inner = person.command(&[&["backup", "source", "--json"][..], &with].concat());
        let mut command = std::process::Command::new("sh");
        command.arg("-c").arg(format!("ulimit -n {limit}; exec \"$0\" \"$@\"")).arg(inner.get_program());
        command.args(inner.get_args()).current_dir(person.home.path());
        inner.get_envs().for_each(|(name, value)| {
            match value {
                Some(value) => command.env(name, value),
                None => command.env_remove(name),
            };
        });
        let done = crate::person::said(command.output().unwrap());
        ends.insert(limit, done.code);
        if done.code == 0 {
            assert_eq!(done.last_event()["totals"]["files"], 40, "{limit}");
        } else {
            assert_eq!(done.code, 1, "{limit}: {} {}", done.out, done.err);
        }
    }
    assert_eq!(ends[&96], 0, "{ends:?}");
}
