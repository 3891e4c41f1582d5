//! What a backup sees of a file depends on more than the file: on the names of accounts, on the user namespace, on
//! capabilities. What was saved under another view is not taken for what is there now.

use crate::attributes::{attributes_of, set_acl};
use crate::person::{Person, Said, said};
use crate::skip::skipped;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags, mknodat, utimensat};
use std::fs;
use std::os::unix::fs::{MetadataExt, chown, lchown};
use std::process::Command;

/// Runs `silt` through another command, which changes its view; none, loudly, where that is refused.
pub fn through(person: &Person, before: &[&str], words: &[&str]) -> Option<Said> {
    let silt = person.command(words);
    let try_it = Command::new(before[0]).args(&before[1..]).arg("true").current_dir(person.home.path()).output();
    if !try_it.is_ok_and(|output| output.status.success()) {
        skipped("tests with another view of files", format!("{before:?} is refused"));
        return None;
    }
    let mut command = Command::new(before[0]);
    command.args(&before[1..]).arg(silt.get_program()).args(silt.get_args()).current_dir(person.home.path());
    for (name, value) in silt.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    Some(said(command.output().expect("it runs")))
}

fn old(person: &Person, name: &str) {
    let file = fs::File::options().write(true).open(person.path(name)).expect("it opens");
    file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000_000)).expect("its time is set");
}

/// A machine was installed anew, and an account has another number: a file that had not changed was saved with the name that its
/// number had before, and a restore gave it to another user.
#[test]
fn names_of_owners_are_those_of_now() {
    let person = Person::new();
    person.write("source/f", "f");
    if chown(person.path("source/f"), Some(54321), Some(54322)).is_err() {
        return skipped("tests with another view of files", "only root gives files away");
    }
    old(&person, "source/f");
    let accounts = |user: &str, group: &str| {
        person.write("passwd", format!("root:x:0:0::/root:/bin/sh\n{user}:x:54321:54322::/:\n"));
        person.write("group", format!("root:x:0:\n{group}:x:54322:\n"));
    };
    let script = "mount --bind passwd /etc/passwd && mount --bind group /etc/group && exec \"$@\"";
    let within = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"];
    let owner_in_last = || {
        let listed = person.silt(&["ls", "--long", "--recursive", "latest"]).ends_with(0).out;
        listed.lines().find(|line| line.ends_with("/source/f")).expect("it is listed").to_owned()
    };
    for (user, group) in [("redis", "cache"), ("postgres", "cache"), ("postgres", "data"), ("postgres", "data")] {
        accounts(user, group);
        let Some(backup) = through(&person, &within, &["backup", "--ignore-ctime", "source"]) else { return };
        backup.ends_with(0);
        let line = owner_in_last();
        assert!(line.contains(user) && line.contains(group), "{line}");
    }
    // Nothing was read again for it.
    let last = person.snapshots(&[]).pop().expect("there are some");
    assert_eq!((&last["totals"]["files_unchanged"], &last["totals"]["bytes_read"]), (&1.into(), &0.into()), "{last}");
}

/// In a user namespace the kernel shows owners that have no number there as nobody: so they were saved, without a word, and a later
/// restore by root gave the files to nobody. That of a source itself was saved so even after its files had a warning.
#[test]
fn owners_that_the_kernel_hides_are_a_warning_each_time() {
    let why = "this user namespace has no number";
    hidden_owners_are_a_warning(&["unshare", "--user", "--map-root-user"], why);
}

/// Mounts a directory where only root of its file system has a number, over itself, and runs the rest of the words.
const IDMAPPED: &str = r#"
import ctypes, os, struct, sys
call = ctypes.CDLL(None, use_errno=True).syscall
def done(number, *arguments):
    result = call(number, *arguments)
    if result < 0: sys.exit(os.strerror(ctypes.get_errno()))
    return result
CLONE_NEWNS, CLONE_NEWUSER, MS_REC, MS_PRIVATE = 0x20000, 0x10000000, 0x4000, 0x40000
UNSHARE, MOUNT = (97, 40) if os.uname().machine == "aarch64" else (272, 165)
OPEN_TREE, MOVE_MOUNT, MOUNT_SETATTR = 428, 429, 442
done(UNSHARE, CLONE_NEWNS)
done(MOUNT, b"none", b"/", 0, MS_REC | MS_PRIVATE, 0)
(here, there), (ready, go) = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    done(UNSHARE, CLONE_NEWUSER)
    os.write(there, b"x")
    os.read(ready, 1)
    os._exit(0)
os.close(there)
if not os.read(here, 1): sys.exit("no user namespace")
for kind in ["uid_map", "gid_map"]: open(f"/proc/{child}/{kind}", "w").write("0 0 1")
users = os.open(f"/proc/{child}/ns/user", os.O_RDONLY)
at, name, empty_path = -100, sys.argv[1].encode(), 0x1000
tree = done(OPEN_TREE, at, name, 1)
done(MOUNT_SETATTR, tree, b"", empty_path, struct.pack("QQQQ", 0x100000, 0, 0, users), 32)
done(MOVE_MOUNT, tree, b"", at, name, 4)
os.write(go, b"x")
os.waitpid(child, 0)
os.execvp(sys.argv[2], sys.argv[2:])
"#;

/// An idmapped mount shows owners that it has no number for as nobody, as a user namespace does.
#[test]
fn owners_that_an_idmapped_mount_hides_are_a_warning_each_time() {
    let why = "on an idmapped mount this can stand for any owner";
    hidden_owners_are_a_warning(&["python3", "-c", IDMAPPED, "source"], why);
}

/// A name of a file on an idmapped mount and one elsewhere were both saved with the owner that the first one showed, again and again.
#[test]
fn each_name_of_a_file_has_the_owner_that_its_mount_shows() {
    let person = Person::new();
    let names = ["aside", "source", "there"];
    person.write("aside/f", "f");
    for other in &names[1..] {
        fs::create_dir(person.path(other)).expect("it is new");
        fs::hard_link(person.path("aside/f"), person.path(&format!("{other}/f"))).expect("it is linked");
    }
    if chown(person.path("aside/f"), Some(54321), Some(54322)).is_err() {
        return skipped("names of a file on several mounts", "only root gives files away");
    }
    old(&person, "aside/f");
    for round in 0..2 {
        let words = ["backup", names[0], names[1], names[2]];
        let Some(backup) = through(&person, &["python3", "-c", IDMAPPED, "source"], &words) else { return };
        backup.ends_with(3);
        let owner = |name: &str| {
            let out = format!("out{round}/{name}");
            let named = format!("latest:{}", person.path(name).display());
            person.silt(&["restore", &named, "--target", &out]).ends_with(0);
            fs::metadata(person.path(&out).join("f")).expect("restored").uid()
        };
        assert_eq!(names.map(owner), [54321, 65534, 54321], "{round}");
    }
}

fn hidden_owners_are_a_warning(within: &[&str], why: &str) {
    let person = Person::new();
    person.write("source/own", "own");
    person.write("source/other", "other");
    if chown(person.path("source/other"), Some(54321), Some(54322)).is_err() {
        return skipped("tests with another view of files", "only root gives files away");
    }
    lchown(person.path("source/own"), Some(0), Some(0)).expect("it is root's");
    lchown(person.path("source"), Some(0), Some(54322)).expect("it is of that group");
    ["source/own", "source/other"].iter().for_each(|name| old(&person, name));
    for round in 0..3 {
        let Some(backup) = through(&person, within, &["backup", "--ignore-ctime", "source"]) else { return };
        let backup = backup.ends_with(3);
        assert_eq!(backup.err.matches(why).count(), 2, "{round}: {}", backup.err);
        assert!(backup.err.contains("/source: its group is saved as 65534"), "{}", backup.err);
        assert!(backup.err.contains("/source/other: its user and group are saved as 65534"), "{}", backup.err);
        if round == 2 {
            let last = person.snapshots(&[]).pop().expect("there are some");
            assert_eq!(last["totals"]["bytes_read"], 0, "what was saved of the content is trusted: {last}");
        }
    }
    // Outside the owner is visible: the entry saved inside must not be used again.
    person.silt(&["backup", "--ignore-ctime", "source"]).ends_with(0);
    let named = format!("latest:{}", person.path("source").display());
    person.silt(&["restore", &named, "--target", "out"]).ends_with(0);
    let owner = fs::metadata(person.path("out/other")).map(|meta| (meta.uid(), meta.gid())).expect("restored");
    assert_eq!(owner, (54321, 54322));
}

/// Attributes of the namespace `trusted` are shown to those alone who have a certain capability. A backup without it saved the files
/// without them, and later ones with it used that again: a restore removed the attributes.
#[test]
fn attributes_that_were_hidden_are_saved_once_they_are_seen() {
    let person = Person::new();
    person.write("source/f", "f");
    fs::create_dir(person.path("source/d")).expect("made");
    old(&person, "source/f");
    for name in ["source/f", "source/d"] {
        let flags = rustix::fs::XattrFlags::empty();
        if rustix::fs::setxattr(person.path(name), "trusted.note", b"seen", flags).is_err() {
            return skipped("tests with another view of files", "this file system or user has no trusted attributes");
        }
    }
    let within = ["setpriv", "--bounding-set=-sys_admin", "--inh-caps=-sys_admin"];
    let Some(backup) = through(&person, &within, &["backup", "--ignore-ctime", "source"]) else { return };
    backup.ends_with(0);
    person.silt(&["backup", "--ignore-ctime", "source"]).ends_with(0);
    let named = format!("latest:{}", person.path("source").display());
    person.silt(&["restore", &named, "--target", "source"]).ends_with(0);
    person.silt(&["restore", &named, "--target", "out"]).ends_with(0);
    for name in ["source/f", "source/d", "out/f", "out/d"] {
        let mut value = [0; 16];
        let bytes = rustix::fs::getxattr(person.path(name), "trusted.note", &mut value[..]).unwrap_or(0);
        assert_eq!(&value[..bytes], b"seen", "{name}");
    }
}

/// Without /proc, the attributes of links, FIFOs and devices are out of reach, and the user namespace is not known. Later backups with
/// /proc used the entries again, and ended with 0: their snapshots, and restores, had no such attributes.
#[test]
fn what_was_saved_without_proc_is_saved_anew_with_it() {
    let script = "mount -t tmpfs none /proc && exec \"$@\"";
    let unshare = ["unshare", "--mount", "--propagation", "private"];
    for namespace in [&[][..], &["--user", "--map-root-user"]] {
        let person = Person::new();
        person.write("source/f", "f");
        std::os::unix::fs::symlink("f", person.path("source/link")).expect("linked");
        let fifo = person.path("source/fifo");
        mknodat(CWD, &fifo, FileType::Fifo, Mode::from_raw_mode(0o600), 0).expect("made");
        // In a user namespace root does not see those of files either.
        let names = ["link", "fifo", "f"].map(|name| format!("source/{name}"));
        for name in &names {
            let path = person.path(name);
            if rustix::fs::lsetxattr(&path, "trusted.note", b"seen", XattrFlags::empty()).is_err() {
                return skipped("a backup without /proc", "this file system or user has no trusted attributes");
            }
            let long_ago = Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
            let times = Timestamps { last_access: long_ago, last_modification: long_ago };
            utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("its time is set");
        }
        let within = [&unshare[..], namespace, &["sh", "-c", script, "sh"]].concat();
        let backup = ["backup", "--ignore-ctime", "source"];
        for _ in 0..2 {
            let Some(said) = through(&person, &within, &backup) else { return };
            let said = said.ends_with(0);
            assert_eq!(said.err.matches("/proc is not mounted: extended attributes").count(), 1, "{}", said.err);
        }
        let said = person.silt(&backup).ends_with(0);
        assert!(!said.err.contains("/proc"), "{}", said.err);
        let named = format!("latest:{}", person.path("source").display());
        person.silt(&["restore", &named, "--target", "out"]).ends_with(0);
        for name in ["link", "fifo", "f"] {
            let found = attributes_of(&person.path("out").join(name));
            assert!(found.contains(&(b"trusted.note".to_vec(), b"seen".to_vec())), "{namespace:?} {name}: {found:?}");
        }
    }
}

/// Where /proc has no /proc/sys, as in hardened containers, owners without a number were saved as nobody with exit 0.
#[test]
fn owners_that_the_kernel_hides_are_a_warning_without_proc_sys() {
    let person = Person::new();
    person.write("source/other", "other");
    if chown(person.path("source/other"), Some(54321), Some(54322)).is_err() {
        return skipped("tests with another view of files", "only root gives files away");
    }
    let script = "mount -t proc -o subset=pid proc /proc && exec \"$@\"";
    let namespaces = ["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork"];
    let within = [&namespaces[..], &["--propagation", "private", "sh", "-c", script, "sh"]].concat();
    let Some(backup) = through(&person, &within, &["backup", "source"]) else { return };
    let backup = backup.ends_with(3);
    assert!(backup.err.contains("/source/other: its user and group are saved as 65534"), "{}", backup.err);
}

/// `link/../b` is another directory to the system than by its words: a restore with --delete emptied one that was not named.
#[test]
fn two_dots_after_a_symbolic_link_are_refused() {
    let person = Person::new();
    person.write("other/a/f", "f");
    person.write("other/b/there", "of the system");
    person.write("b/here", "by the words");
    std::os::unix::fs::symlink("other/a", person.path("link")).expect("linked");
    person.silt(&["backup", "other/a"]).ends_with(0);
    let named = format!("latest:{}", person.path("other/a").display());
    for words in [
        &["backup", "link/../b"][..],
        &["restore", &named, "--target", "link/../b", "--delete"],
        &["diff", "latest", "link/../b"],
    ] {
        let refused = person.silt(words);
        assert!(
            refused.code != 0 && refused.err.contains("`..` follows the symbolic link"),
            "{words:?}: {}",
            refused.err
        );
        assert!(refused.err.contains("hint: write the path of the directory without `..`"), "{}", refused.err);
    }
    assert!(person.path("b/here").exists() && person.path("other/b/there").exists());
    // A directory in its place is no question.
    person.silt(&["backup", "other/../b"]).ends_with(0);
}

/// A disk that failed while flags were read was taken for a file system without any: a restore lacked them, and the next backups repeated
/// that.
#[test]
fn flags_that_cannot_be_read_are_a_warning() {
    let traced = Command::new("strace").args(["-f", "-qq", "-o", "/dev/null", "true"]).output();
    if !traced.is_ok_and(|output| output.status.success()) {
        return skipped("flags that cannot be read", "strace is not there or may not trace");
    }
    let person = Person::new();
    person.write("source/f", "f");
    old(&person, "source/f");
    let log = person.path("log").display().to_string();
    let within = ["strace", "-f", "-qq", "-o", &log, "-e", "trace=ioctl", "-e", "inject=ioctl:error=EIO"];
    for _ in 0..2 {
        let Some(done) = through(&person, &within, &["backup", "--ignore-ctime", "source"]) else { return };
        let done = done.ends_with(3);
        assert!(done.err.contains("source/f: its flags (chattr) are missing"), "{}", done.err);
    }
    person.silt(&["backup", "--ignore-ctime", "source"]).ends_with(0);
}

/// What an ACL says of a file, as getfacl prints it.
fn acl(person: &Person, name: &str) -> String {
    let said = Command::new("getfacl").args(["-cnp"]).arg(person.path(name)).output().expect("it runs");
    String::from_utf8_lossy(&said.stdout).trim().to_owned()
}

/// ACLs name users and groups, too: those without a number were saved as 4294967295, without a word, and no restore took such an ACL. On an
/// idmapped mount, the next backup without it kept what the mount had shown.
#[test]
fn what_an_acl_names_is_saved_as_it_is() {
    for within in [&["unshare", "--user", "--map-root-user"][..], &["python3", "-c", IDMAPPED, "source"]] {
        let person = Person::new();
        person.write("source/f", "f");
        if !set_acl(&person.path("source/f"), "u:54321:rwx,u:0:r,g::r") {
            return;
        }
        old(&person, "source/f");
        let before = acl(&person, "source/f");
        for _ in 0..2 {
            let Some(done) = through(&person, within, &["backup", "--ignore-ctime", "source"]) else { return };
            let done = done.ends_with(3);
            assert!(done.err.contains("source/f: its ACL is saved without some users"), "{}", done.err);
        }
        let named = format!("latest:{}", person.path("source").display());
        person.silt(&["restore", &named, "--target", "hidden"]).ends_with(0);
        let kept = acl(&person, "hidden/f");
        assert_eq!(kept, before.lines().filter(|line| !line.contains("54321")).collect::<Vec<_>>().join("\n"));
        // What is there has more than was saved: a restore takes nothing away from it.
        person.silt(&["restore", &named, "--target", "source"]).ends_with(0);
        assert_eq!(acl(&person, "source/f"), before);
        person.silt(&["backup", "--ignore-ctime", "source"]).ends_with(0);
        person.silt(&["restore", &named, "--target", "out"]).ends_with(0);
        assert_eq!(acl(&person, "out/f"), before);
    }
}

/// A name whose ACL was saved whole was linked to one on an idmapped mount, whose ACL was not: it had the lesser one, and the restore ended
/// with 0.
#[test]
fn a_whole_acl_does_not_give_way_to_that_of_another_name() {
    let person = Person::new();
    person.write("source/f", "f");
    fs::create_dir(person.path("there")).expect("it is new");
    fs::hard_link(person.path("source/f"), person.path("there/f")).expect("it is linked");
    if !set_acl(&person.path("source/f"), "u:54321:rwx,u:0:r,g::r") {
        return;
    }
    let before = acl(&person, "there/f");
    let within = ["python3", "-c", IDMAPPED, "source"];
    let Some(backup) = through(&person, &within, &["backup", "source", "there"]) else { return };
    backup.ends_with(3);
    let named = format!("latest:{}", person.home.path().display());
    person.silt(&["restore", &named, "--target", "out"]).ends_with(0);
    assert_eq!(acl(&person, "out/there/f"), before);
}

/// Without its ACL, a file had the rights of the mask for its group: more than the ACL granted it.
#[test]
fn a_file_whose_acl_is_lost_grants_its_group_no_more() {
    let person = Person::new();
    person.write("source/f", "f");
    if !set_acl(&person.path("source/f"), "u:54321:rwx,g::r") {
        return;
    }
    person.silt(&["backup", "source"]).ends_with(0);
    let named = format!("latest:{}", person.path("source").display());
    let within = ["unshare", "--user", "--map-root-user"];
    for _ in ["new", "there"] {
        let Some(done) = through(&person, &within, &["restore", &named, "--target", "out"]) else { return };
        assert!(done.ends_with(3).err.contains("posix_acl_access"));
        assert_eq!(fs::metadata(person.path("out/f")).expect("restored").mode() & 0o777, 0o644);
    }
}
