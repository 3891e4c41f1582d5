//! What needs a file system of its own: staying on one, and running full.

use crate::fixture::look_old;
use crate::golden::noise;
use crate::person::{Contents, Person, contents};
use crate::skip::skipped;
use crate::undone;
use crate::views::through;
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PASSWORD: (&str, &str) = ("SILT_PASSWORD", "p");

/// A small file system in memory at a folder, until it is dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// None, loudly, where this process may not mount.
    fn at(folder: &Path, bytes: u64) -> Option<Mounted> {
        std::fs::create_dir_all(folder).unwrap();
        Mounted::of("tmpfs", &format!("size={bytes},mode=0755"), folder)
    }

    fn of(kind: &str, options: &str, folder: &Path) -> Option<Mounted> {
        let done = Command::new("mount").args(["-t", kind, "-o", options, "silt-test"]).arg(folder).output();
        match done {
            Ok(output) if output.status.success() => Some(Mounted(folder.to_owned())),
            Ok(output) => {
                skipped("tests with file systems of their own", String::from_utf8_lossy(&output.stderr).trim());
                None
            }
            Err(error) => {
                skipped("tests with file systems of their own", error);
                None
            }
        }
    }
}

impl Mounted {
    fn resize(&self, bytes: u64) {
        let size = format!("remount,size={bytes}");
        assert!(Command::new("mount").args(["-o", &size]).arg(&self.0).status().unwrap().success());
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _gone_with_the_folder = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn sources(snapshot: &Value) -> Vec<&str> {
    snapshot["sources"].as_array().unwrap().iter().map(|source| source["path"].as_str().unwrap()).collect()
}

/// A source that is mounted in a virtual file system, as automounters do it, was dropped as met by the walk of the source
/// above, which does not enter the virtual one.
#[test]
fn a_source_mounted_in_a_virtual_file_system_below_a_source_is_saved() {
    let person = Person::new();
    person.write("source/home/x", "covered");
    person.write("source/own", "own");
    let Some(_virtual) = Mounted::of("proc", "ro", &person.path("source/home")) else { return };
    let Some(_named) = Mounted::at(&person.path("source/home/fs"), 1 << 20) else { return };
    person.write("source/home/fs/file", "saved");
    let done = person.silt(&["backup", "--json", "source", "source/home/fs"]).ends_with(0).last_event();
    assert_eq!(done["totals"]["files"], 2, "{done}");
    let listed = person.silt(&["ls", "-R", "latest"]).ends_with(0).out;
    assert!(listed.contains("/home/fs/file") && !listed.contains("uptime"), "{listed}");
}

/// Mounts an automounter on a directory, `direct` or `indirect`, and runs the rest of the words: `HOW DIRECTORY DATA WORDS`. What it mounts
/// is the directory DATA, over itself or as its entry `awake`, if that is asked for. (Protocol 5 of the kernel's autofs.)
const AUTOMOUNTER: &str = r#"
import ctypes, fcntl, os, struct, sys
how, directory, data = sys.argv[1:4]
libc = ctypes.CDLL(None, use_errno=True)
def mount(*arguments):
    if libc.mount(*arguments): sys.exit(os.strerror(ctypes.get_errno()))
os.setpgid(0, 0)
requests, kernel = os.pipe()
mount(b"auto", directory.encode(), b"autofs", 0, f"fd={kernel},pgrp={os.getpgrp()},minproto=5,maxproto=5,{how}".encode())
os.close(kernel)
root = os.open(directory, os.O_RDONLY)
if how == "indirect":
    for name in ["awake", "asleep", "lost"]: os.mkdir(f"{directory}/{name}")
    mount(data.encode(), f"{directory}/awake".encode(), None, 0x1000, None)
child = os.fork()
if child == 0:
    os.close(root)
    os.setpgid(0, 0)
    os.execvp(sys.argv[4], sys.argv[4:])
daemon = os.fork()
if daemon == 0:
    while True:
        request = os.read(requests, 4096)
        token, length = struct.unpack("=I", request[8:12])[0], struct.unpack("=I", request[40:44])[0]
        name = request[44:44 + length].decode()
        place = directory if how == "direct" else f"{directory}/{name}"
        is_lost = how == "indirect" and name not in ["awake", "asleep"]
        if not is_lost: mount(data.encode(), place.encode(), None, 0x1000, None)
        fcntl.ioctl(root, 0x9361 if is_lost else 0x9360, token)
_, status = os.waitpid(child, 0)
libc.umount2(directory.encode(), 2)
os.kill(daemon, 9)
os._exit(os.waitstatus_to_exitcode(status))
"#;

/// An automounter counted as a virtual file system of the kernel: what it mounts was left out with a notice and exit code 0, even the
/// file systems that were mounted below it.
#[test]
fn what_an_automounter_mounts_is_saved() {
    for (how, code, names) in [("direct", 0, &[""][..]), ("indirect", 3, &["/awake", "/asleep"])] {
        let person = Person::new();
        person.write("source/beside", "beside");
        person.write("data/below/f", "data");
        std::fs::create_dir_all(person.path("source/home")).expect("made");
        let (home, data) = (person.path("source/home"), person.path("data"));
        let words = [home.to_str().expect("a path"), data.to_str().expect("a path")];
        let within =
            ["unshare", "-m", "--propagation", "private", "python3", "-c", AUTOMOUNTER, how, words[0], words[1]];
        for round in 0..2 {
            let Some(done) = through(&person, &within, &["backup", "source"]) else { return };
            let done = done.ends_with(code);
            assert!(!done.err.contains("virtual"), "{how} {round}: {}", done.err);
            assert_eq!(done.err.contains("/home/lost: its contents are missing"), code == 3, "{how}: {}", done.err);
            for name in names {
                let saved = format!("latest:{}{name}/below/f", words[0]);
                assert_eq!(person.silt(&["cat", &saved]).ends_with(0).out, "data", "{how} {round}");
            }
        }
        // On one file system, nothing is mounted for it.
        std::fs::set_permissions(&data, std::fs::Permissions::from_mode(0o700)).expect("changed");
        let Some(done) = through(&person, &within, &["backup", "-x", "source"]) else { return };
        done.ends_with(0);
        let listed = person.silt(&["ls", "-R", "latest"]).ends_with(0).out;
        assert!(listed.contains("/beside") && !listed.contains("below"), "{how}: {listed}");
        // What was saved then of the automounter's directory is not what is mounted there: a restore gave it that mode.
        for words in [&["restore", "latest", "--target", "/"][..], &["restore", "latest", "--target", "/", "--delete"]]
        {
            let Some(done) = through(&person, &within, words) else { return };
            done.ends_with(0);
            assert_eq!(data.metadata().expect("it is there").permissions().mode() & 0o777, 0o700, "{how}");
        }
    }
}

/// A repository whose disk was unmounted meanwhile was made anew, for hours, in the directory that its disk had covered.
#[test]
fn nothing_is_written_where_the_disk_of_the_repository_was_mounted() {
    let person = Person::new();
    person.write("source/file", noise(100_000, 1));
    let repository = person.path("disk");
    let Some(_disk) = Mounted::at(&repository, 16 << 20) else { return };
    person.silt_with(&[PASSWORD], &["init", "--repo", "disk/repository"]).ends_with(0);
    let unmounts = format!("late=umount -l {}; cat /proc/uptime", repository.display());
    for inside in ["disk/repository", "disk"] {
        let _again = (inside == "disk").then(|| {
            let disk = Mounted::at(&repository, 16 << 20).expect("as before");
            person.silt_with(&[PASSWORD], &["init", "--repo", "disk"]).ends_with(0);
            disk
        });
        let said =
            person.silt_with(&[PASSWORD], &["backup", "--repo", inside, "source", "--stream", &unmounts]).ends_with(1);
        assert!(said.err.contains("check whether its disk is"), "{}", said.err);
        assert_eq!(std::fs::read_dir(&repository).unwrap().count(), 0, "{inside}");
    }
}

#[test]
fn a_source_on_another_file_system_below_a_source_is_saved_and_others_are_folded() {
    let person = Person::new();
    let source = person.path("source");
    let Some(_home) = Mounted::at(&source.join("home"), 1 << 20) else { return };
    let Some(_other) = Mounted::at(&source.join("other/mount"), 1 << 20) else { return };
    let Some(_unnamed) = Mounted::at(&source.join("unnamed"), 1 << 20) else { return };
    for name in ["own", "plain/own", "home/one", "home/below/two", "other/mount/not", "other/mount/far/three"] {
        person.write(&format!("source/{name}"), name);
    }
    person.write("source/other/mount/near/not", "not");
    person.write("source/unnamed/not", "not");
    let given = ["source", "source/home", "source/home/below", "source/plain", "source/other/mount/far"];
    let words = |more: &[&'static str]| [&["backup", "--json", "--one-file-system"][..], &given, more].concat();
    let done = person.silt(&words(&[])).ends_with(0).last_event();
    assert_eq!(done["totals"]["files"], 5, "{done}");
    let path = |name: &str| person.path(name).to_str().unwrap().to_owned();
    let kept = ["source", "source/home", "source/other/mount/far"].map(path);
    assert_eq!(sources(&done["snapshot"]), kept);

    let named = format!("latest:{}", source.display());
    person.silt(&["restore", &named, "--target", "out"]).ends_with(0);
    let (mut expected, restored) = (contents(&source), contents(&person.path("out")));
    expected
        .retain(|path, _| !["unnamed/", "other/mount/n"].iter().any(|left| path.to_str().unwrap().starts_with(left)));
    assert_eq!(restored.keys().collect::<Vec<_>>(), expected.keys().collect::<Vec<_>>());
    assert_eq!(restored, expected);

    // What is known from last time holds for all of them, and changes on each are found.
    look_old(&source);
    person.silt(&words(&["--ignore-ctime"])).ends_with(0);
    let same = person.silt(&words(&["--ignore-ctime", "--skip-if-unchanged"])).ends_with(0).last_event();
    assert_eq!((&same["snapshot"], &same["totals"]["bytes_read"]), (&Value::Null, &0.into()), "{same}");
    person.write("source/home/below/two", "changed");
    person.write("source/other/mount/far/new", "new");
    person.write("source/other/mount/near/new", "new");
    let changed = person.silt(&words(&["--ignore-ctime", "--skip-if-unchanged"])).ends_with(0).last_event();
    let totals = &changed["totals"];
    assert_eq!((&totals["files_changed"], &totals["files_new"]), (&1.into(), &1.into()), "{changed}");

    // Without the option all is one source.
    let whole = person.silt(&["backup", "--json", "source", "source/home"]).ends_with(0).last_event();
    assert_eq!(sources(&whole["snapshot"]), [path("source")]);
    assert_eq!(whole["totals"]["files"], 10, "{whole}");
}

#[test]
fn a_full_disk_fails_clearly_harms_nothing_and_room_made_is_enough() {
    let person = Person::new();
    let Some(disk) = Mounted::at(&person.path("disk"), 48 << 20) else { return };
    person.write("password", "one\n");
    std::fs::set_permissions(person.path("password"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let with = ["--repo", "disk/repository", "--password-file", "password"];
    let silt = |words: &[&str]| person.silt(&[words, &with[..]].concat());
    silt(&["init"]).ends_with(0);
    person.make_source();
    silt(&["backup", "source"]).ends_with(0);
    let before = contents(&person.path("source"));
    for n in 0..10 {
        person.write(&format!("source/large{n}"), noise(8_000_000, n));
    }
    let named = format!(":{}", person.path("source").display());
    let restores = |snapshot: &str, expected: &Contents| {
        silt(&["restore", &format!("{snapshot}{named}"), "--target", "out"]).ends_with(0);
        assert!(contents(&person.path("out")) == *expected, "{snapshot} differs");
        std::fs::remove_dir_all(person.path("out")).unwrap();
    };
    // Again and again, as a timer would do.
    for _ in 0..3 {
        let failed = silt(&["backup", "source"]).ends_with(1);
        let (error, hint) = failed.err.split_once("\nhint: ").unwrap_or_else(|| panic!("{}", failed.err));
        assert!(error.starts_with("silt: cannot ") && error.contains("disk/repository"), "{error}");
        assert!(error.to_lowercase().contains("no space left") && hint.contains("free space"), "{}", failed.err);
        let failed = silt(&["backup", "source", "--json"]).ends_with(1);
        let error: Value = serde_json::from_str(&failed.err).unwrap();
        assert_eq!(error["error"]["kind"], "full", "{error}");
        assert!(!failed.out.contains("summary"), "{}", failed.out);
        let listed = silt(&["snapshots", "--json"]).ends_with(0).json();
        assert_eq!(listed["snapshots"].as_array().map(Vec::len), Some(1), "{listed}");
        restores("latest", &before);
        let pending = walkdir::WalkDir::new(person.path("disk/repository/pending")).into_iter();
        let pending: Vec<_> = pending.map(|entry| entry.unwrap()).filter(|entry| entry.file_type().is_file()).collect();
        assert!(pending.is_empty(), "a run that ended must not look like one that runs: {pending:?} {}", failed.err);
    }
    disk.resize(200 << 20);
    silt(&["backup", "source"]).ends_with(0);
    restores("latest", &contents(&person.path("source")));
    restores("latest~1", &before);
}

/// A damaged inode that states more nanoseconds than a second has made the whole page of its directory unreadable; exit code 0.
#[test]
fn times_of_a_damaged_file_system_are_saved_as_far_as_they_are_valid() {
    let person = Person::new();
    for name in ["bad", "good", "other"] {
        person.write(&format!("content/source/{name}"), name);
    }
    std::fs::create_dir(person.path("content/source/directory")).expect("made");
    std::os::unix::fs::symlink("good", person.path("content/source/link")).expect("linked");
    let image = person.path("image").display().to_string();
    std::fs::File::create(&image).and_then(|file| file.set_len(16 << 20)).expect("made");
    let run =
        |words: &[&str]| Command::new(words[0]).args(&words[1..]).output().is_ok_and(|done| done.status.success());
    // All bits set: 1,073,741,823 nanoseconds.
    let damages = |name: &str| {
        run(&["debugfs", "-w", "-R", &format!("set_inode_field /source/{name} mtime_extra 0xffffffff"), &image])
    };
    let is_made = run(&["mkfs.ext4", "-q", "-d", &person.path("content").display().to_string(), &image])
        && ["bad", "directory", "link"].into_iter().all(damages);
    let options = ["-o", "loop,ro", image.as_str()];
    let Some(_disk) = is_made.then(|| undone::mounted(&options, &person.path("disk"))).flatten() else {
        return skipped("a damaged file system", "mkfs.ext4, debugfs or mount is refused");
    };
    let source = person.path("disk/source");
    assert!(source.join("bad").metadata().is_ok_and(|metadata| metadata.mtime_nsec() >= 1_000_000_000));
    person.silt(&["backup", "disk/source"]).ends_with(0);
    person.silt(&["restore", &format!("latest:{}", source.display()), "--target", "out"]).ends_with(0);
    assert_eq!(std::fs::read(person.path("out/bad")).expect("restored"), b"bad");
    for name in ["bad", "directory", "link"] {
        let restored = person.path("out").join(name).symlink_metadata().expect("restored");
        assert_eq!(restored.mtime_nsec(), 999_999_999, "{name}");
    }
}

/// A link of /proc into another mount namespace was followed by its text: the directory of that path here was saved, with exit code 0.
#[test]
fn a_link_into_another_mount_namespace_is_not_followed_by_its_text() {
    let person = Person::new();
    person.write("place/f", "of the host");
    let script = "mount -t tmpfs tmpfs place && echo inside >place/f && mkdir place/below && echo deep >place/below/f && \
                  cd place && echo ready && read end";
    let other = Command::new("unshare")
        .args(["--mount", "--propagation", "private", "sh", "-c", script])
        .current_dir(person.home.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn();
    let Ok(mut other) = other else { return skipped("another mount namespace", "there is no unshare") };
    let mut said = String::new();
    BufReader::new(other.stdout.as_mut().expect("piped")).read_line(&mut said).expect("read");
    let way = format!("/proc/{}/cwd", other.id());
    if said == "ready\n" {
        let refused = person.silt(&["backup", &format!("{way}/")]).ends_with(1);
        assert!(refused.err.contains("as links in /proc do"), "{}", refused.err);
        person.silt(&["backup", &format!("{way}/below")]).ends_with(0);
        assert_eq!(person.silt(&["cat", &format!("latest:{way}/below/f")]).ends_with(0).out, "deep\n");
    } else {
        skipped("another mount namespace", "it is refused");
    }
    drop(other.stdin.take());
    other.wait().expect("it ends");
}

/// The current directory was mounted over: `.` meant what is mounted there, and a restore with `--delete` emptied that.
#[test]
fn a_current_directory_that_is_mounted_over_is_refused() {
    let person = Person::new();
    person.write("place/f", "under");
    person.silt(&["backup", "place"]).ends_with(0);
    let named = format!("latest:{}", person.path("place").display());
    let script = "cd place && mount -t tmpfs tmpfs \"$PWD\" && exec \"$@\"";
    let within = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"];
    for words in [&["backup", "."][..], &["backup", "f"], &["restore", &named, "--target", ".", "--delete"]] {
        let Some(said) = through(&person, &within, words) else { return };
        let refused = said.ends_with(1);
        assert!(refused.err.contains("something else is mounted over it"), "{}", refused.err);
    }
}

/// Adds the key of an encrypted file system, encrypts an empty directory with it, or takes the key away: `WHAT MOUNT [DIRECTORY]`.
const FSCRYPT: &str = r#"
import fcntl, os, struct, sys
def request(way, number, size): return way << 30 | size << 16 | ord("f") << 8 | number
what, mount = sys.argv[1:3]
file = os.open(mount, os.O_RDONLY)
add = bytearray(struct.pack("<II32sII32x", 2, 0, b"", 64, 0) + b"K" * 64)
fcntl.ioctl(file, request(3, 23, 80), add, True)
key = bytes(add[8:24])
if what == "encrypt":
    policy = bytearray(struct.pack("<BBBBB3x16s", 2, 1, 4, 2, 0, key))
    fcntl.ioctl(os.open(sys.argv[3], os.O_RDONLY), request(2, 19, 12), policy, True)
elif what == "lock":
    fcntl.ioctl(file, request(3, 24, 64), bytearray(struct.pack("<II32sI20x", 2, 0, key, 0)), True)
"#;

/// A directory whose user was not logged in was saved with names that the kernel had made up, with exit code 0, and a restore of that with
/// `--delete` deleted what was in it. One into it deleted everything and could create nothing.
#[test]
fn a_locked_encrypted_directory_is_neither_saved_nor_emptied() {
    let person = Person::new();
    let image = person.path("image").display().to_string();
    std::fs::File::create(&image).and_then(|file| file.set_len(32 << 20)).expect("made");
    let made = Command::new("mkfs.ext4").args(["-q", "-O", "encrypt", &image]).output();
    let is_made = made.is_ok_and(|done| done.status.success());
    let disk = person.path("disk");
    let Some(_disk) = is_made.then(|| undone::mounted(&["-o", "loop", &image], &disk)).flatten() else {
        return skipped("an encrypted directory", "mkfs.ext4 or mount is refused");
    };
    let fscrypt = |what: &str| {
        let words = [disk.as_path(), &disk.join("home")];
        Command::new("python3").args(["-c", FSCRYPT, what]).args(words).output().is_ok_and(|done| done.status.success())
    };
    std::fs::create_dir(disk.join("home")).expect("made");
    if !fscrypt("encrypt") {
        return skipped("an encrypted directory", "the kernel does not encrypt, or there is no python3");
    }
    std::fs::create_dir_all(disk.join("home/docs/deep")).expect("made");
    std::os::unix::fs::symlink("docs", disk.join("home/link")).expect("linked");
    std::fs::write(disk.join("home/docs/letter"), "letter").expect("written");
    let named = format!("latest:{}", disk.join("home").display());
    let home = disk.join("home").display().to_string();
    person.silt(&["backup", "disk"]).ends_with(0);
    let before = contents(&disk.join("home"));
    let restore = || person.silt(&["restore", &named, "--target", &home, "--delete"]);
    assert!(fscrypt("lock"));
    restore().ends_with(3);
    // With the local state, without it, and as the source itself.
    for words in [&["backup", "disk"][..], &["--no-cache", "backup", "disk"], &["backup", "disk/home"]] {
        let locked = person.silt(words).ends_with(3);
        assert!(locked.err.contains("its file system encrypts it, and its key is not there"), "{}", locked.err);
        let listed = person.silt(&["ls", "-R", &named]).ends_with(0).out;
        assert!(!listed.contains("home/"), "{listed}");
    }
    assert!(fscrypt("unlock"));
    assert!(contents(&disk.join("home")) == before);
    restore().ends_with(0);
    assert!(contents(&disk.join("home")) == before, "nothing is known of it");
    person.silt(&["backup", "disk"]).ends_with(0);
    restore().ends_with(0);
    assert!(contents(&disk.join("home")) == before);
}
