//! Secrets stay where they are, and no user is locked out of their own files.

use crate::person::{Person, Said, said};
use crate::restore::{as_nobody, is_root};
use crate::skip::skipped;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};

const NOBODY: u32 = 65_534;

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
}

/// A password command could read the recovery key and the keys of the storage in its environment, and so could all that it
/// starts.
#[test]
fn a_password_command_inherits_no_secrets() {
    let person = Person::new();
    let secrets =
        ["SILT_PASSWORD", "SILT_RECOVERY_KEY", "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"];
    let environment: Vec<(&str, &str)> =
        secrets.iter().map(|name| (*name, "SECRET")).chain([("KEPT", "kept")]).collect();
    let words = ["-r", "repository", "init", "--password-command", "env > environment; echo password"];
    person.silt_with(&environment, &words).ends_with(0);
    let seen = std::fs::read_to_string(person.path("environment")).unwrap();
    assert!(seen.contains("KEPT=kept") && !seen.contains("SECRET"), "{seen}");
}

/// A key file that every user could read was used without a word.
#[test]
fn secrets_that_others_may_read_are_told() {
    let person = Person::new();
    person.write("password", "p\n");
    set_mode(&person.path("password"), 0o600);
    let both = ["-r", "repository", "--key-file", "key", "--password-file", "password"];
    let made = person.silt(&[&["init"], &both[..]].concat()).ends_with(0);
    assert!(!made.err.contains("other users of this machine"), "{}", made.err);
    assert_eq!(std::fs::metadata(person.path("key")).unwrap().mode() & 0o777, 0o600);
    for (name, mode) in [("key", 0o644), ("password", 0o640)] {
        set_mode(&person.path(name), mode);
        let told = person.silt(&[&["snapshots"], &both[..]].concat()).ends_with(0);
        assert!(told.err.contains(name) && told.err.contains("chmod 600"), "{}", told.err);
        assert_eq!(told.err.lines().count(), 1, "{}", told.err);
        set_mode(&person.path(name), 0o600);
    }
}

/// Only root refused the cache of another user, which could hold a local state by which nothing had to be stored: the backup ended
/// with 0, and nothing could be restored.
#[test]
fn a_cache_in_the_power_of_another_user_is_not_used() {
    let person = Person::new();
    person.write("source/x", "x");
    if !is_root() || as_nobody(&person, &["backup", "source"]).code != 0 {
        return skipped("caches of other users", "it takes root to make them");
    }
    let run = |words: &[&str]| said(person.command(words).uid(NOBODY).gid(NOBODY).output().expect("it runs"));
    for (name, owner, mode, why) in [
        ("foreign", 1234, 0o777, Some("belongs to another user")),
        ("open", NOBODY, 0o777, Some("every user may write to")),
        ("sticky", NOBODY, 0o1777, None),
    ] {
        std::fs::create_dir(person.path(name)).expect("made");
        set_mode(&person.path(name), mode);
        lchown(person.path(name), Some(owner), Some(owner)).expect("given");
        for cache in [name.to_owned(), format!("{name}/below")] {
            let done = run(&["backup", "source", "--cache-dir", &cache]).ends_with(0);
            assert_eq!(why.is_some_and(|why| done.err.contains(why)), why.is_some(), "{cache}: {}", done.err);
            assert_eq!(done.err.contains("slower"), why.is_some(), "{cache}: {}", done.err);
        }
        let is_empty = std::fs::read_dir(person.path(name)).expect("listed").next().is_none();
        assert_eq!(is_empty, why.is_some(), "{name}");
    }
}

/// Where root has the number of all unknown users, as in sandboxes of ordinary users, no cache was ever used.
#[test]
fn a_cache_is_used_where_root_is_not_known() {
    let person = Person::new();
    person.write("source/x", "x");
    if !is_root() || as_nobody(&person, &["backup", "source"]).code != 0 {
        return skipped("a cache in a user namespace", "it takes root and another user");
    }
    for (mapped, code) in [(&["--user", "--map-user=1000"][..], 3), (&["--user", "--map-root-user"], 0)] {
        let silt = person.command(&["backup", "source"]);
        let mut command = Command::new("unshare");
        command.args(mapped).arg(silt.get_program()).args(silt.get_args()).current_dir(person.home.path());
        command.envs(silt.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        let done = command.uid(NOBODY).gid(NOBODY).output().map(said);
        let Some(done) = done.ok().filter(|done| !done.err.contains("unshare")) else {
            return skipped("a cache in a user namespace", "unshare cannot be used");
        };
        let done = done.ends_with(code);
        // Its group has no number in the first one.
        let is_hidden = done.err.contains("its group is saved as 65534: this user namespace has no number");
        assert_eq!(is_hidden, code == 3, "{}", done.err);
        assert!(!done.err.contains("slower"), "{mapped:?}: {}", done.err);
    }
}

/// What is in a repository and in a cache is readable for their owner alone, whatever the umask.
#[test]
fn repository_and_cache_are_private() {
    let person = Person::new();
    person.make_source();
    let silt = person.command(&["backup", "source"]);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "umask 000; exec \"$0\" \"$@\""]).arg(silt.get_program()).args(silt.get_args());
    shell.current_dir(person.home.path()).stdin(Stdio::null());
    shell.envs(silt.get_envs().filter_map(|(name, value)| Some((name, value?))));
    said(shell.output().unwrap()).ends_with(0);
    for top in ["data/siltstone/repository", "cache/siltstone", "config/siltstone/key"] {
        let mode = std::fs::metadata(person.path(top)).unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{top}: {mode:o}");
    }
    for entry in walkdir::WalkDir::new(person.path("data/siltstone/repository")) {
        let entry = entry.unwrap();
        let mode = entry.metadata().unwrap().mode();
        assert_eq!(mode & 0o077, 0, "{}: {mode:o}", entry.path().display());
    }
}

/// One backup as root into a user's repository left files there that its owner could not read: they were locked out.
#[test]
fn root_leaves_to_a_user_what_is_the_users() {
    let person = Person::new();
    if !rustix::process::geteuid().is_root() || Command::new("setpriv").arg("--version").output().is_err() {
        println!("SKIPPED: root in the repository of a user: needs root and setpriv");
        return;
    }
    person.make_source();
    let silt = person.path("silt");
    std::fs::copy(env!("CARGO_BIN_EXE_silt"), &silt).unwrap();
    for entry in walkdir::WalkDir::new(person.home.path()) {
        lchown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    let as_user = |words: &[&str]| -> Said {
        let template = person.command(words);
        let mut command = Command::new("setpriv");
        command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]).arg(&silt);
        command.args(words).current_dir(person.home.path()).env_clear().stdin(Stdio::null());
        command.envs(template.get_envs().filter_map(|(name, value)| Some((name, value?))));
        said(command.output().unwrap())
    };
    as_user(&["backup", "source"]).ends_with(0);
    // Something of root's that the user would like to have.
    person.write("secret", "of root");
    let planted = person.path("cache/siltstone/planted");
    std::fs::hard_link(person.path("secret"), &planted).unwrap();
    std::os::unix::fs::symlink(person.path("secret"), person.path("cache/siltstone/link")).unwrap();

    person.write("source/new", vec![3; 100_000]);
    person.silt(&["backup", "source"]).ends_with(0);
    person.silt(&["ls", "latest"]).ends_with(0);
    for folder in ["data", "cache", "config"] {
        for entry in walkdir::WalkDir::new(person.path(folder)) {
            let entry = entry.unwrap();
            let is_planted = entry.path() == planted || entry.file_type().is_symlink();
            let owner = entry.metadata().unwrap().uid();
            assert_eq!(owner, if is_planted { 0 } else { NOBODY }, "{}", entry.path().display());
        }
    }
    assert_eq!(std::fs::metadata(person.path("secret")).unwrap().uid(), 0);
    std::fs::remove_file(planted).unwrap();
    // A link in place of the cache leads to what is root's, and to nothing that changes hands.
    std::fs::create_dir(person.path("of root")).unwrap();
    std::fs::write(person.path("of root/CACHEDIR.TAG"), "x").unwrap();
    std::os::unix::fs::symlink(person.path("of root"), person.path("linked")).unwrap();
    lchown(person.path("linked"), Some(NOBODY), Some(NOBODY)).unwrap();
    person.silt(&["ls", "latest", "--cache-dir", "linked"]).ends_with(0);
    for name in ["of root", "of root/CACHEDIR.TAG"] {
        assert_eq!(std::fs::metadata(person.path(name)).unwrap().uid(), 0, "{name}");
    }
    let own = as_user(&["backup", "source"]).ends_with(0);
    // Root does not use the cache of a user, whose links could lead anywhere: this host has not seen the new file yet.
    assert!(own.out.contains("1 new, 0 changed"), "{}{}", own.out, own.err);
    // Nor does root write through a link that the user put into the repository.
    let packs = person.path("data/siltstone/repository/packs");
    std::fs::rename(&packs, person.path("packs")).unwrap();
    std::os::unix::fs::symlink(person.path("of root"), &packs).unwrap();
    lchown(&packs, Some(NOBODY), Some(NOBODY)).unwrap();
    person.write("source/newer", vec![4; 100_000]);
    assert_eq!(person.silt(&["backup", "source"]).code, 1);
    assert_eq!(std::fs::read_dir(person.path("of root")).unwrap().count(), 1);
}

/// A FIFO among the objects, which any member of a shared folder may make, held every run for ever.
#[test]
fn a_fifo_among_the_objects_holds_nobody() {
    let person = Person::new();
    person.make_source();
    person.silt(&["backup", "source"]).ends_with(0);
    let fifo = |name: &str| {
        let path = person.path("data/siltstone/repository").join(name);
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    fifo("keys/0000000000000000");
    fifo("snapshots/20260101T000000Z-00000000000000000000000000000000");
    person.silt(&["backup", "source"]).ends_with(0);
    assert_eq!(person.snapshots(&[]).len(), 2);
    std::fs::remove_file(person.path("data/siltstone/repository/config")).unwrap();
    fifo("config");
    person.silt(&["snapshots"]).ends_with(1);
}
