//! Extended attributes that a backup could not save: a restore takes none of them away from what has them.

use crate::attributes::{attributes_of, set_acl};
use crate::person::Person;
use crate::skip::skipped;
use crate::undone::mounted;
use crate::views::through;
use rustix::fs::{XattrFlags, setxattr};
use std::fs;
use std::os::unix::fs::PermissionsExt;

fn set(person: &Person, path: &str, name: &str, value: &[u8]) -> bool {
    setxattr(person.path(path), name, value, XattrFlags::empty()).is_ok()
}

/// Sets more attributes than a backup saves. False, loudly, if that is refused.
fn set_too_many(person: &Person, path: &str) -> bool {
    let is_set = (0..20).all(|number| set(person, path, &format!("trusted.{number}"), &[7; 60_000]));
    if !is_set {
        skipped("attributes that are too many", "attributes are refused");
    }
    is_set
}

/// A restore of a file that had not changed removed all of its attributes, and ended with 0, as the backup had been able to save none.
#[test]
fn attributes_that_are_too_many_stay_and_rights_are_saved() {
    let person = Person::new();
    let Some(_mount) = mounted(&["-t", "tmpfs", "-o", "size=50m", "none"], &person.path("source")) else {
        return skipped("attributes that are too many", "tmpfs cannot be mounted");
    };
    person.write("source/f", "f");
    if !set_acl(&person.path("source/f"), "u:1000:rwx,g::-") || !set_too_many(&person, "source/f") {
        return;
    }
    let before = attributes_of(&person.path("source/f"));
    let backup = person.silt(&["backup", "source"]).ends_with(3);
    assert!(backup.err.contains("some of its extended attributes are missing: they have 120"), "{}", backup.err);
    let named = format!("latest:{}", person.path("source").display());
    for more in [&["--dry-run"][..], &[]] {
        let words = [&["restore", &named, "--target", "source", "--json"], more].concat();
        let said = person.silt(&words).ends_with(0).last_event();
        let count = if more.is_empty() { &said["metadata_restored"] } else { &said["metadata_count"] };
        assert_eq!(count, &0, "{said}");
        assert!(attributes_of(&person.path("source/f")) == before);
    }
    // Without its ACL, the group would have the rights of the mask.
    person.silt(&["restore", &named, "--target", "source/out"]).ends_with(0);
    let acl =
        |attributes: Vec<(Vec<u8>, Vec<u8>)>| attributes.into_iter().find(|(name, _)| name.starts_with(b"system."));
    assert!(acl(attributes_of(&person.path("source/out/f"))).is_some_and(|saved| Some(saved) == acl(before)));
    person.silt(&["diff", &named, "source/out"]).ends_with(0);
}

/// A restore that completed one that was killed kept the ACLs that an unfinished directory had from the directory above it.
#[test]
fn an_unfinished_directory_keeps_no_attributes() {
    let person = Person::new();
    let Some(_mount) = mounted(&["-t", "tmpfs", "-o", "size=50m", "none"], &person.path("disk")) else {
        return skipped("an unfinished directory that lacks attributes", "tmpfs cannot be mounted");
    };
    person.write("disk/source/d/f", "f");
    fs::create_dir_all(person.path("disk/out/d")).expect("made");
    if !set_acl(&person.path("disk/out/d"), "u:99:rwx,d:u:99:rwx") || !set_too_many(&person, "disk/source/d") {
        return;
    }
    person.silt(&["backup", "disk/source"]).ends_with(3);
    fs::set_permissions(person.path("disk/out/d"), fs::Permissions::from_mode(0o1700)).expect("its mode is set");
    let named = format!("latest:{}", person.path("disk/source").display());
    person.silt(&["restore", &named, "--target", "disk/out"]).ends_with(0);
    let found = attributes_of(&person.path("disk/out/d"));
    assert!(!found.is_empty() && found.iter().all(|(name, _)| name.starts_with(b"trusted.")));
}

/// Runs its words in a user namespace that has the numbers of all users and groups.
const ALL_NUMBERS: &str = r#"
import ctypes, os, sys
(here, there), (ready, go) = os.pipe(), os.pipe()
child = os.fork()
if child == 0:
    if ctypes.CDLL(None).unshare(0x10000000) != 0: os._exit(1)
    os.write(there, b"x")
    os.read(ready, 1)
    os.setgid(0)
    os.setuid(0)
    os.execvp(sys.argv[1], sys.argv[1:])
os.close(there)
if not os.read(here, 1): sys.exit("no user namespace")
for kind in ["uid_map", "gid_map"]: open(f"/proc/{child}/{kind}", "w").write("0 0 4294967295")
os.write(go, b"x")
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"#;

/// A user namespace that knows all users and groups counted as the outermost one: the next backup by root took over what the one in the
/// namespace had not been shown, and a restore removed it.
#[test]
fn a_user_namespace_that_knows_all_numbers_is_another_view() {
    let person = Person::new();
    person.write("source/d/f", "f");
    if !set(&person, "source/d/f", "trusted.t", b"1") {
        return skipped("attributes that a backup was not shown", "trusted attributes are refused");
    }
    let within = ["python3", "-c", ALL_NUMBERS];
    let Some(backup) = through(&person, &within, &["backup", "--ignore-ctime", "source"]) else { return };
    backup.ends_with(0);
    let named = format!("latest:{}", person.path("source").display());
    person.silt(&["restore", &named, "--target", "source"]).ends_with(0);
    assert_eq!(attributes_of(&person.path("source/d/f")).len(), 1);
    person.silt(&["backup", "--ignore-ctime", "source"]).ends_with(0);
    person.silt(&["restore", &named, "--target", "out"]).ends_with(0);
    assert_eq!(attributes_of(&person.path("out/d/f")).len(), 1);
}

/// A source that could not be opened was saved without its attributes, and a restore removed them and its ACL.
#[test]
fn a_source_that_cannot_be_opened_keeps_its_attributes() {
    let person = Person::new();
    person.write("source/open/f", "f");
    fs::create_dir(person.path("source/closed")).expect("it is new");
    if !set_acl(&person.path("source/closed"), "u:77:rwx,o::-") || !set(&person, "source/closed", "user.a", b"1") {
        return skipped("a source that cannot be opened", "attributes are refused");
    }
    let before = attributes_of(&person.path("source/closed"));
    // Root without the right to ignore modes, to whom the directory is closed.
    let caps = "-dac_override,-dac_read_search";
    let within = ["setpriv", "--bounding-set", caps, "--inh-caps", caps];
    std::os::unix::fs::chown(person.path("source/closed"), Some(54321), Some(54321)).expect("root gives it away");
    let Some(backup) = through(&person, &within, &["backup", "source/open", "source/closed"]) else { return };
    backup.ends_with(3);
    let both = format!("latest:{}", person.path("source").display());
    person.silt(&["restore", &both, "--target", "source"]).ends_with(0);
    assert!(attributes_of(&person.path("source/closed")) == before);
    // Its ACL can be read all the same.
    person.silt(&["restore", &both, "--target", "out"]).ends_with(0);
    let restored = attributes_of(&person.path("out/closed"));
    assert!(!restored.is_empty() && restored.iter().all(|one| one.0.starts_with(b"system.") && before.contains(one)));
}

/// Attributes of the namespace `trusted` are shown only to administrators of the whole machine: a restore by one of them removed those of
/// files that another user had saved.
#[test]
fn attributes_that_the_backup_was_not_shown_stay() {
    let person = Person::new();
    person.write("source/d/f", "f");
    if !set(&person, "source/d/f", "trusted.t", b"1") || !set(&person, "source/d", "trusted.t", b"1") {
        return skipped("attributes that a backup was not shown", "trusted attributes are refused");
    }
    let within = ["setpriv", "--bounding-set", "-sys_admin", "--inh-caps", "-sys_admin"];
    let Some(backup) = through(&person, &within, &["backup", "source"]) else { return };
    backup.ends_with(0);
    let named = format!("latest:{}", person.path("source").display());
    let restore = || {
        person.silt(&["restore", &named, "--target", "source"]).ends_with(0);
        ["source/d", "source/d/f"].map(|name| attributes_of(&person.path(name)).len())
    };
    assert_eq!(restore(), [1, 1]);
    let differences = person.silt(&["diff", &named, "source", "--json"]).ends_with(0);
    assert_eq!(differences.out.lines().count(), 1, "{}", differences.out);
    // A file that is replaced had them, too.
    person.write("source/d/f", "other");
    assert_eq!(restore(), [1, 1]);
    assert_eq!(fs::read(person.path("source/d/f")).expect("restored"), b"f");
    // A backup that sees them, and does not find them, is believed.
    for name in ["source/d", "source/d/f"] {
        rustix::fs::removexattr(person.path(name), "trusted.t").expect("removed");
    }
    person.silt(&["backup", "source"]).ends_with(0);
    for name in ["source/d", "source/d/f"] {
        assert!(set(&person, name, "trusted.t", b"1"));
    }
    assert_eq!(restore(), [0, 0]);
    fs::remove_dir_all(person.path("source")).expect("removed");
    assert_eq!(restore(), [0, 0]);
}
