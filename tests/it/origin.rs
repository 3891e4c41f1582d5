//! Without local state, a backup compares files by size and modification time with the last snapshot of the same host and sources. Another
//! machine of that name, or a host with a put-only key, put content of its own into the snapshots of this one.

use crate::fixture::{self, SWAPS, restored_differences, snapshots};
use crate::person::Person;
use crate::skip::skipped;
use crate::views::through;
use siltstone::backup::BackupOptions;
use siltstone::id::SnapshotId;
use siltstone::repo::{Credentials, Repository, SinkOptions, Snapshot, add_key};
use siltstone::seal::{Compression, KeyAccess, PasswordCost};
use siltstone::storage::{Memory, Storage};
use siltstone::watch::{Event, Watch};
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, UNIX_EPOCH};

/// Files of one size and time, whatever is in them.
fn write(source: &Path, content: &str) {
    fs::create_dir_all(source).expect("made");
    fs::write(source.join("f"), content).expect("written");
    let file = fs::File::options().write(true).open(source.join("f")).expect("it opens");
    file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("its time is set");
}

/// Whether its file system tells a directory from another one at its path; if not, loud.
fn has_identity(source: &Path) -> bool {
    let records_birth = fs::metadata(source).and_then(|meta| meta.created()).is_ok();
    // Overlays and FUSE can show other content in the same directory.
    let shows_others = rustix::fs::statfs(source).is_ok_and(|found| [0x794c_7630, 0x6573_5546].contains(&found.f_type));
    if !records_birth || shows_others {
        skipped("tests of the origin of snapshots", "this file system does not tell directories apart");
    }
    records_birth && !shows_others
}

/// Backs up without local state, and returns how many bytes it read and what it noticed.
fn backup(storage: &Memory, credentials: &Credentials, source: &Path) -> (u64, Vec<String>) {
    let noticed = Arc::new(Mutex::new(Vec::new()));
    let heard = noticed.clone();
    let watch = Watch::new(Arc::new(move |event| {
        if let Event::Notice(notice) = event {
            heard.lock().expect("whole").push(notice.text);
        }
    }));
    let repo = Repository::open_uncached(Arc::new(storage.clone()), credentials, &watch).expect("it opens");
    let report = repo.backup(fixture::options(source), &watch).expect("the backup succeeds");
    let noticed = noticed.lock().expect("whole").clone();
    (report.totals.bytes_read, noticed)
}

fn open(storage: &Memory) -> Repository {
    Repository::open_uncached(Arc::new(storage.clone()), &fixture::credentials(), &Watch::silent()).expect("it opens")
}

fn commit(storage: &Memory, snapshot: &Snapshot) {
    let wanted = SinkOptions { lanes: 1, compression: Compression::Auto, memory_bytes: 256 << 20 };
    open(storage).writer("host", &wanted, &Watch::silent()).expect("begun").commit(snapshot).expect("committed");
}

fn assert_last_is(storage: &Memory, source: &Path) {
    let repo = open(storage);
    let last = snapshots(&repo).pop().expect("there is one");
    assert_eq!(restored_differences(&repo, &last, source, source).expect("it is restored"), Vec::<String>::new());
}

#[test]
fn a_machine_of_the_same_name_does_not_pass_its_content_on() {
    let (folder, storage) = (tempfile::tempdir().expect("made"), fixture::memory(SWAPS));
    let source = folder.path().join("source");
    write(&source, "theirs, longer than is kept in a tree");
    if !has_identity(&source) {
        return;
    }
    assert_eq!(backup(&storage, &fixture::credentials(), &source).1, Vec::<String>::new());
    // The same directory: no file is read.
    assert_eq!(backup(&storage, &fixture::credentials(), &source), (0, Vec::new()));
    // What another machine has at this path.
    fs::rename(&source, folder.path().join("theirs")).expect("moved");
    write(&source, "ours!!, longer than is kept in a tree");
    let (read, noticed) = backup(&storage, &fixture::credentials(), &source);
    assert!(read > 0 && noticed.iter().any(|notice| notice.contains("another machine")), "{noticed:?}");
    assert_last_is(&storage, &source);
    assert_eq!(backup(&storage, &fixture::credentials(), &source), (0, Vec::new()));
}

fn put_only(storage: &Memory) -> Credentials {
    let credentials = Credentials::password("put only");
    let cost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };
    add_key(storage, open(storage).keys(), KeyAccess::PutOnly, &credentials, cost).expect("added");
    credentials
}

#[test]
fn a_host_with_a_put_only_key_does_not_choose_what_others_save() {
    let (folder, storage) = (tempfile::tempdir().expect("made"), fixture::memory(SWAPS));
    let source = folder.path().join("source");
    write(&source, "ours!!, longer than is kept in a tree");
    backup(&storage, &fixture::credentials(), &source);
    // It even sees the same directory.
    write(&source, "forged, longer than is kept in a tree");
    backup(&storage, &put_only(&storage), &source);
    write(&source, "ours!!, longer than is kept in a tree");
    // The snapshot before the forged one is the last that counts.
    assert_eq!(backup(&storage, &fixture::credentials(), &source), (0, Vec::new()));
    assert_last_is(&storage, &source);
}

/// A list key reads snapshots, and so what they state of their origin.
#[test]
fn an_origin_is_of_one_snapshot_alone() {
    let (folder, storage) = (tempfile::tempdir().expect("made"), fixture::memory(SWAPS));
    let source = folder.path().join("source");
    let last = || snapshots(&open(&storage)).pop().expect("there is one");
    write(&source, "ours!!, longer than is kept in a tree");
    backup(&storage, &fixture::credentials(), &source);
    let ours = last();
    write(&source, "forged, longer than is kept in a tree");
    backup(&storage, &put_only(&storage), &source);
    let theirs = last();
    assert!(ours.origin.is_some() && theirs.origin.is_none() && ours.root != theirs.root);
    let commit_alone = |snapshot: &Snapshot| {
        for object in storage.list("snapshots/").expect("listed") {
            storage.remove(&object.name).expect("removed");
        }
        commit(&storage, snapshot);
    };
    let mut later = ours.clone();
    later.ended.nanoseconds ^= 1;
    let forged = [
        Snapshot { root: theirs.root, ..ours.clone() },
        Snapshot { origin: ours.origin.clone(), ..theirs.clone() },
        Snapshot { id: theirs.id, ..ours.clone() },
        Snapshot { started: theirs.started, ..ours.clone() },
        later,
        Snapshot { origin: Some("0".repeat(64)), ..ours.clone() },
        Snapshot { origin: Some("no hexadecimal".to_owned()), ..ours.clone() },
    ];
    write(&source, "ours!!, longer than is kept in a tree");
    for (number, snapshot) in forged.iter().enumerate() {
        commit_alone(snapshot);
        assert!(backup(&storage, &fixture::credentials(), &source).0 > 0, "{number}");
        assert_last_is(&storage, &source);
    }
    // As it was, it counts.
    commit_alone(&ours);
    assert_eq!(backup(&storage, &fixture::credentials(), &source), (0, Vec::new()));
}

/// What had been replaced and came back counted as unchanged since the snapshot before the last one: no snapshot was made, and the last
/// one was of something else.
#[test]
fn sources_are_not_called_unchanged_while_the_last_snapshot_is_of_others() {
    let (folder, storage) = (tempfile::tempdir().expect("made"), fixture::memory(SWAPS));
    let source = folder.path().join("source");
    let count = || snapshots(&open(&storage)).len();
    let backup = || {
        let options = BackupOptions { skip_if_unchanged: true, ..fixture::options(&source) };
        open(&storage).backup(options, &Watch::silent()).expect("the backup succeeds");
        assert_last_is(&storage, &source);
        count()
    };
    write(&source, "one, longer than is kept in a tree");
    assert_eq!((backup(), backup()), (1, 1));
    fs::rename(&source, folder.path().join("one")).expect("moved");
    write(&source, "two, longer than is kept in a tree");
    assert_eq!((backup(), backup()), (2, 2));
    fs::rename(&source, folder.path().join("two")).expect("moved");
    fs::rename(folder.path().join("one"), &source).expect("moved back");
    assert_eq!(backup(), 3);
}

/// Another disk at a mount point below a source, or as the source itself. A source that the walk of another one meets was taken for one
/// that the origin of the snapshot covers.
#[test]
fn another_disk_at_the_same_place_is_read() {
    let person = Person::new();
    person.write("source/mine", "mine");
    fs::create_dir(person.path("source/disk")).expect("made");
    let script = |content: &str| {
        format!(
            "mount -t tmpfs tmpfs source/disk && printf '{content}, longer than is kept in a tree' >source/disk/f && \
             touch -d @1000000000 source/disk/f && exec \"$@\""
        )
    };
    for sources in [&["source"][..], &["source/disk"], &["source", "source/disk"]] {
        for content in ["one", "two"] {
            let script = script(content);
            let within = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"];
            let words = [&["--no-cache", "backup"], sources].concat();
            let Some(said) = through(&person, &within, &words) else { return };
            said.ends_with(0);
            let path = format!("latest:{}", person.path("source/disk/f").display());
            let found = person.silt(&["cat", &path]).ends_with(0).out;
            assert!(found.starts_with(content), "{sources:?}: {found}");
        }
    }
}

/// What had been mounted below a source was taken for what is under the mount point once it is mounted no more.
#[test]
fn what_was_under_a_mount_is_read() {
    let person = Person::new();
    let write = |name: &str, content: &str| {
        person.write(name, format!("{content}, longer than is kept in a tree"));
        let file = fs::File::options().write(true).open(person.path(name)).expect("it opens");
        file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("its time is set");
    };
    for file in ["directory/f", "file"] {
        write(&format!("source/{file}"), "under");
        write(&format!("other/{file}"), "above");
    }
    let script = "mount --bind other/directory source/directory && mount --bind other/file source/file && exec \"$@\"";
    let within = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, "sh"];
    let words = ["--no-cache", "backup", "source"];
    for content in ["above", "under", "above"] {
        if content == "above" {
            let Some(said) = through(&person, &within, &words) else { return };
            said.ends_with(0);
        } else {
            person.silt(&words).ends_with(0);
        }
        for file in ["directory/f", "file"] {
            let path = format!("latest:{}", person.path("source").join(file).display());
            let found = person.silt(&["cat", &path]).ends_with(0).out;
            assert!(found.starts_with(content), "{file}: {found}");
        }
    }
}

/// An overlay has the root directory of its upper layer, whichever the lower ones are.
#[test]
fn another_layer_of_an_overlay_is_read() {
    let person = Person::new();
    for content in ["one", "two"] {
        write(&person.path(content), &format!("{content}, longer than is kept in a tree"));
    }
    ["source", "top"].iter().for_each(|name| fs::create_dir(person.path(name)).expect("made"));
    for content in ["one", "two"] {
        let script = format!("mount -t overlay -o lowerdir=top:{content} overlay source && exec \"$@\"");
        let within = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"];
        let Some(said) = through(&person, &within, &["--no-cache", "backup", "source"]) else { return };
        said.ends_with(0);
        let path = format!("latest:{}", person.path("source/f").display());
        let found = person.silt(&["cat", &path]).ends_with(0).out;
        assert!(found.starts_with(content), "{found}");
    }
}

/// The search ended at the 74th: it counted snapshots that were only fetched ahead.
#[test]
fn the_last_snapshot_is_found_among_many_of_other_hosts() {
    let (folder, storage) = (tempfile::tempdir().expect("made"), fixture::memory(SWAPS));
    let source = folder.path().join("source");
    write(&source, "ours!!, longer than is kept in a tree");
    if !has_identity(&source) {
        return;
    }
    let repo = open(&storage);
    let now = siltstone::watch::now();
    let an_hour_ago = siltstone::entry::Time { seconds: now.seconds - 3600, ..now };
    let options = BackupOptions { time: Some(an_hour_ago), ..fixture::options(&source) };
    repo.backup(options, &Watch::silent()).expect("the backup succeeds");
    let ours = snapshots(&repo).pop().expect("there is one");
    let commit_others = |numbers: std::ops::Range<u16>| {
        for number in numbers {
            let mut id = [0; 16];
            id[..2].copy_from_slice(&number.to_le_bytes());
            let mut other = Snapshot { id: SnapshotId(id), host: "another".to_owned(), ..ours.clone() };
            other.started.seconds += i64::from(number) + 1;
            commit(&storage, &other);
        }
    };
    commit_others(0..200);
    let dry = || {
        let options = BackupOptions { dry_run: true, ..fixture::options(&source) };
        open(&storage).backup(options, &Watch::silent()).expect("planned").bytes_to_read
    };
    assert_eq!(dry(), Some(0));
    // The search has a bound all the same.
    commit_others(200..300);
    assert!(dry() > Some(0));
}

/// A directory of the same file system, or a single file, that is mounted below a source has the same device number as what is around it.
#[test]
fn what_is_bound_below_a_source_is_read() {
    let person = Person::new();
    for (name, content) in [("one", "one"), ("two", "two")] {
        for file in ["directory/f", "file"] {
            person.write(&format!("{name}/{file}"), format!("{content}, longer than is kept in a tree"));
            let file = fs::File::options().write(true).open(person.path(&format!("{name}/{file}"))).expect("it opens");
            file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000)).expect("its time is set");
        }
    }
    person.write("source/file", "nothing");
    fs::create_dir(person.path("source/directory")).expect("made");
    for sources in [&["source"][..], &["source/directory", "source/file"]] {
        for name in ["one", "two"] {
            let script = format!(
                "mount --bind {name}/directory source/directory && mount --bind {name}/file source/file && exec \"$@\""
            );
            let within = ["unshare", "--mount", "--propagation", "private", "sh", "-c", &script, "sh"];
            let words = [&["--no-cache", "backup"], sources].concat();
            let Some(said) = through(&person, &within, &words) else { return };
            said.ends_with(0);
            for file in ["directory/f", "file"] {
                let path = format!("latest:{}", person.path("source").join(file).display());
                let found = person.silt(&["cat", &path]).ends_with(0).out;
                assert!(found.starts_with(name), "{sources:?}, {file}: {found}");
            }
        }
    }
}

/// A disk was exchanged between the first look at the sources and the walk: files of the new one counted as unchanged, and the snapshot
/// stated the origin of the old one.
#[test]
fn a_source_that_is_exchanged_during_the_backup_is_read() {
    let (folder, storage) = (tempfile::tempdir().expect("made"), fixture::memory(SWAPS));
    let at = |name: &str| folder.path().join(name);
    let source = at("source");
    for (place, content) in [("source", "one"), ("other", "two")] {
        write(&at(place), &format!("{content}, longer than is kept in a tree"));
    }
    if !has_identity(&source) {
        return;
    }
    backup(&storage, &fixture::credentials(), &source);
    let exchange = {
        let [source, other, away] = ["source", "other", "away"].map(at);
        move || {
            fs::rename(&source, &away).and_then(|()| fs::rename(&other, &source)).expect("moved");
            fs::rename(&away, &other).expect("moved");
        }
    };
    let begun = std::sync::atomic::AtomicBool::new(false);
    let during = exchange.clone();
    let before = move |verb: &str, name: &str| {
        let is_search = verb == "list" && name.starts_with("snapshots/");
        if is_search && !begun.swap(true, std::sync::atomic::Ordering::SeqCst) {
            during();
        }
    };
    let hooked = fixture::Hooked { inner: storage.clone(), before };
    let repo =
        Repository::open_uncached(Arc::new(hooked), &fixture::credentials(), &Watch::silent()).expect("it opens");
    let report = repo.backup(fixture::options(&source), &Watch::silent()).expect("the backup succeeds");
    assert!(report.snapshot.is_some_and(|snapshot| snapshot.origin.is_none()), "it is of neither directory");
    assert!(fs::read_to_string(source.join("f")).expect("read").starts_with("two"), "they were exchanged");
    assert_last_is(&storage, &source);
    // It is the last one of these sources, and not of this directory.
    exchange();
    backup(&storage, &fixture::credentials(), &source);
    assert_last_is(&storage, &source);
}

/// A file that was written to while it was read, and whose time was set back, counted as unchanged after the local state was lost: each
/// further snapshot had a content that the file never had, and none had a warning.
#[test]
fn what_changed_while_it_was_read_is_read_again() {
    let (folder, storage) = (tempfile::tempdir().expect("made"), fixture::memory(SWAPS));
    let source = folder.path().join("source");
    write(&source, "");
    if !has_identity(&source) {
        return;
    }
    let file = source.join("f");
    let set_back = |file: &fs::File| file.set_modified(UNIX_EPOCH + Duration::from_secs(1_000_000_000));
    // More than the backup can hold before it stores the first pack.
    let mut content = vec![0; 160 << 20];
    blake3::Hasher::new().finalize_xof().fill(&mut content);
    fs::write(&file, &content).expect("written");
    set_back(&fs::File::options().write(true).open(&file).expect("it opens")).expect("its time is set");
    let changed = file.clone();
    let before = move |verb: &str, name: &str| {
        if verb == "put" && name.starts_with("packs/") {
            let file = fs::File::options().write(true).open(&changed).expect("it opens");
            file.write_all_at(b"something else", 0).and_then(|()| set_back(&file)).expect("written to");
        }
    };
    let hooked = fixture::Hooked { inner: storage.clone(), before };
    let repo =
        Repository::open_uncached(Arc::new(hooked), &fixture::credentials(), &Watch::silent()).expect("it opens");
    let options = BackupOptions { memory_bytes: 32 << 20, ..fixture::options(&source) };
    assert_eq!(repo.backup(options, &Watch::silent()).expect("the backup succeeds").warnings_count, 1);
    assert_eq!(backup(&storage, &fixture::credentials(), &source).0, content.len() as u64);
    assert_last_is(&storage, &source);
    assert_eq!(backup(&storage, &fixture::credentials(), &source).0, 0);
}

/// With a time in the future, files that were written to shortly before they were saved counted as settled: a program that writes through
/// a memory map could have changed them since.
#[test]
fn a_backup_that_states_a_later_time_does_not_say_when_it_began() {
    for (later, is_read) in [(-600, false), (1800, true)] {
        let (folder, storage) = (tempfile::tempdir().expect("made"), fixture::memory(SWAPS));
        let source = folder.path().join("source");
        write(&source, "longer than is kept in a tree, and not new");
        if !has_identity(&source) {
            return;
        }
        let now = siltstone::watch::now();
        let time = siltstone::entry::Time { seconds: now.seconds + later, ..now };
        let options = BackupOptions { time: Some(time), ..fixture::options(&source) };
        open(&storage).backup(options, &Watch::silent()).expect("the backup succeeds");
        assert_eq!(backup(&storage, &fixture::credentials(), &source).0 > 0, is_read, "{later}");
    }
}
