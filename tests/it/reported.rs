//! What backups tell of damage and losses: each once, and none in silence.

use crate::damaged_packs::{WhenRead, World};
use crate::fixture::{self, Hooked, SWAPS, dump, open, trees};
use crate::person::{Person, said};
use siltstone::error::{Error, Kind};
use siltstone::id::ChunkId;
use siltstone::repo::{Credentials, Repository, Snapshot, add_key};
use siltstone::seal::{KeyAccess, PasswordCost};
use siltstone::source::{Source, Stream};
use siltstone::storage::Storage;
use siltstone::watch::{Event, Notice, Watch};
use std::collections::BTreeSet;
use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Another command met the loss first, and dropped what this host knew: the next backup, of another job, healed in silence.
#[test]
fn a_loss_that_another_command_met_first_is_told() {
    for world in [World::new(SWAPS), World::over_a_network()] {
        for index in world.storage.list("index/").expect("listed") {
            world.storage.remove(&index.name).expect("removed");
        }
        let storage: Arc<dyn Storage> = Arc::new(world.storage.clone());
        let repo = open(storage.clone(), &world.cache("one")).expect("it opens");
        assert_eq!(fixture::snapshots(&repo).len(), 1);
        drop(repo);
        let backup = |job: &str| {
            let (done, notices) =
                world.backup_with(storage.clone(), Some("one"), |options| options.job = job.to_owned());
            let told = notices.iter().filter(|notice| notice.contains("lost index objects")).count();
            (done.expect("the backup succeeds").healing, told)
        };
        let (healing, told) = backup("other");
        let healing = healing.expect("it looked at earlier snapshots");
        assert_eq!((healing.complete_again.len() + healing.still_incomplete.len(), told), (1, 1));
        let (healing, told) = backup("other");
        assert_eq!((healing.is_none(), told), (true, 0), "it is told once");
    }
}

/// One snapshot lacks content that no source has any more: each run that found nothing changed created a snapshot all the same,
/// and said again that packs are missing.
#[test]
fn an_incurable_loss_is_told_once_and_keeps_no_run_from_skipping() {
    for damages_index in [false, true] {
        let world = World::new(SWAPS);
        let storage: Arc<dyn Storage> = Arc::new(world.storage.clone());
        let backup = || world.backup(storage.clone(), "one", false);
        let packs_before = world.storage.list("packs/").expect("listed");
        let indexes_before = world.storage.list("index/").expect("listed");
        fs::write(world.source().join("one/new"), crate::golden::noise(3000, 7)).expect("written");
        fixture::look_old(&world.source());
        backup().0.expect("the backup succeeds");
        fs::remove_file(world.source().join("one/new")).expect("removed");
        fixture::look_old(&world.source());
        let is_new =
            |before: &[siltstone::storage::ListedObject], name: &str| before.iter().all(|old| old.name != name);
        let packs =
            world.storage.list("packs/").expect("listed").into_iter().filter(|pack| is_new(&packs_before, &pack.name));
        let indexes = world.storage.list("index/").expect("listed").into_iter();
        if !damages_index {
            packs.for_each(|pack| world.storage.remove(&pack.name).expect("removed"))
        } else {
            indexes
                .filter(|index| is_new(&indexes_before, &index.name))
                .for_each(|index| world.storage.corrupt(&index.name, |bytes| bytes[9] ^= 1))
        }
        let skip = || {
            let (done, notices) =
                world.backup_with(storage.clone(), Some("one"), |options| options.skip_if_unchanged = true);
            (done.expect("the backup succeeds"), notices)
        };
        let (told, notices) = skip();
        assert_eq!(told.healing.map(|healing| healing.still_incomplete.len()), Some(1), "{notices:?}");
        assert!(!notices.is_empty() && world.comes_back_elsewhere(&world.storage));
        for _ in 0..2 {
            let (report, notices) = skip();
            assert!(report.snapshot.is_none() && notices.is_empty(), "{notices:?}");
        }
    }
}

/// No run said that an index object was gone: the command that noticed it failed on another one, and the local index had
/// forgotten the first one by then.
#[test]
fn a_loss_is_marked_before_it_is_forgotten() {
    let world = World::new(SWAPS);
    let first: Vec<String> =
        world.storage.list("index/").expect("listed").into_iter().map(|index| index.name).collect();
    fs::write(world.source().join("one/new"), "new").expect("written");
    fixture::look_old(&world.source());
    world.backup(Arc::new(world.storage.clone()), "one", false).0.expect("the backup succeeds");
    let open_fresh = open(Arc::new(world.storage.clone()), &world.cache("two"));
    drop(open_fresh.expect("one segment covers both"));
    first.iter().for_each(|name| world.storage.remove(name).expect("removed"));
    let fails = |verb: &'_ str, name: &'_ str| {
        if verb == "get" && name.starts_with("index/") { Err(Error::new(Kind::Temporary, verb, name)) } else { Ok(()) }
    };
    let hooked = Arc::new(Hooked { inner: world.storage.clone(), before: fails });
    open(hooked, &world.cache("two")).map(drop).expect_err("an index object cannot be read");
    let (done, notices) = world.backup(Arc::new(world.storage.clone()), "two", false);
    done.expect("the backup succeeds");
    assert!(notices.iter().any(|notice| notice.contains("lost index objects")), "{notices:?}");
}

/// Each job that shared a cache said again what was lost, and created a snapshot for it.
#[test]
fn a_loss_is_told_once_to_all_jobs() {
    let world = World::new(SWAPS);
    let storage: Arc<dyn Storage> = Arc::new(world.storage.clone());
    let backup = |job: &str| {
        let (done, notices) = world.backup_with(storage.clone(), Some("one"), |options| {
            options.job = job.to_owned();
            options.skip_if_unchanged = true;
        });
        (done.expect("the backup succeeds").snapshot.is_some(), notices)
    };
    let only_in_first = world.source().join("one/only in the first");
    fs::write(&only_in_first, crate::golden::noise(3000, 7)).expect("written");
    fixture::look_old(&world.source());
    let before = world.storage.list("index/").expect("listed");
    assert!(backup("first").0);
    let lost = world.storage.list("index/").expect("listed");
    let lost = lost.iter().find(|index| before.iter().all(|old| old.name != index.name)).expect("it is new");
    fs::remove_file(&only_in_first).expect("removed");
    fixture::look_old(&world.source());
    for job in ["first", "second", "third"] {
        assert!(backup(job).0);
    }
    world.storage.remove(&lost.name).expect("removed");
    let (_, notices) = backup("first");
    assert!(notices.iter().any(|notice| notice.contains("lost index objects")), "{notices:?}");
    for job in ["second", "third", "first"] {
        assert_eq!(backup(job), (false, Vec::new()), "{job}");
    }
}

/// With a cache that could not be written, an incurable loss made each run create a snapshot.
#[test]
fn a_cache_that_cannot_be_written_remembers_no_loss() {
    let world = World::new(SWAPS);
    fs::remove_file(world.source().join("one/two/large")).expect("removed");
    fixture::look_old(&world.source());
    let packs = world.storage.list("packs/").expect("listed");
    let storage: Arc<dyn Storage> = Arc::new(world.storage.clone());
    let backup = || {
        let (done, _) = world.backup_with(storage.clone(), Some("one"), |options| options.skip_if_unchanged = true);
        done.expect("the backup succeeds").snapshot.is_some()
    };
    assert!(backup());
    packs.iter().for_each(|pack| world.storage.remove(&pack.name).expect("removed"));
    let repo = open(storage.clone(), &world.cache("one")).expect("it opens");
    // root may write to any directory, so a file is in the place of one.
    fs::write(repo.cache().expect("there is one").join("losses"), "no directory").expect("written");
    fs::create_dir_all(repo.cache().expect("there is one").join("reported-damage/in it")).expect("made");
    drop(repo);
    assert_eq!([backup(), backup(), backup()], [true, false, false], "the first stores what is lost");
}

/// A disk that failed while index objects were read made them count as damaged, or as lost.
#[test]
fn an_outage_says_nothing_of_index_objects() {
    for cache in ["one", "fresh"] {
        let world = World::new(SWAPS);
        let is_out = AtomicBool::new(false);
        let fails = move |call: &str, name: &str| {
            let is_out = is_out.fetch_or(call == "get" && name.starts_with("index/"), Ordering::SeqCst);
            if call == "get" && (is_out || name.starts_with("index/")) {
                Err(Error::new(Kind::Corrupt, "read", name))
            } else {
                Ok(())
            }
        };
        let (done, notices) =
            world.backup(Arc::new(Hooked { inner: world.storage.clone(), before: fails }), cache, false);
        assert!(done.is_err_and(|error| error.is(Kind::Gone)) && notices.is_empty(), "{notices:?}");
        let noted: Vec<_> = walkdir::WalkDir::new(world.cache(cache))
            .into_iter()
            .map(|entry| entry.expect("listed").file_name().to_string_lossy().into_owned())
            .filter(|name| ["losses", "reported-damage", "damaged-packs"].contains(&name.as_str()))
            .collect();
        assert!(noted.is_empty(), "{noted:?}");
    }
}

/// A look of a reader at the repository found an index object damaged, did not report it, and kept all later runs from
/// saying it.
#[test]
fn what_a_reader_finds_damaged_is_said() {
    let world = World::new(SWAPS);
    let heard: Arc<Mutex<Vec<String>>> = Arc::default();
    let notices = heard.clone();
    let watch = Watch::new(Arc::new(move |event| {
        if let Event::Notice(Notice { text, .. }) = event {
            notices.lock().expect("whole").push(text);
        }
    }));
    let storage: Arc<dyn Storage> = Arc::new(world.storage.clone());
    let repo = Repository::open(storage, &fixture::credentials(), &world.cache("one"), &watch).expect("it opens");
    for index in world.storage.list("index/").expect("listed") {
        world.storage.corrupt(&index.name, |bytes| bytes[9] ^= 1);
    }
    repo.reader().content(&ChunkId([7; 24])).map(drop).expect_err("there is no such chunk");
    let heard = heard.lock().expect("whole");
    assert!(heard.iter().any(|notice| notice.contains("the index object")), "{heard:?}");
}

/// A put-only job that shared the cache called everything told, and the others never said what is incomplete.
#[test]
fn a_put_only_job_tells_nothing_for_others() {
    let world = World::new(SWAPS);
    let storage: Arc<dyn Storage> = Arc::new(world.storage.clone());
    let put_only = Credentials::password("put only");
    let keys = open(storage.clone(), &world.cache("one")).expect("it opens").keys().clone();
    let cost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };
    add_key(&world.storage, &keys, KeyAccess::PutOnly, &put_only, cost).expect("added");
    let backup = |credentials: &Credentials, job: &str| {
        let mut wanted = fixture::options(&world.source());
        wanted.job = job.to_owned();
        let watch = Watch::silent();
        let repo = Repository::open(storage.clone(), credentials, &world.cache("one"), &watch).expect("it opens");
        let report = repo.backup(wanted, &watch).expect("the backup succeeds");
        report.confirm_shown(&repo);
        report.healing
    };
    for pack in world.storage.list("packs/").expect("listed") {
        world.storage.remove(&pack.name).expect("removed");
    }
    fs::remove_file(world.source().join("one/two/large")).expect("removed");
    for number in 0..2 {
        fs::write(world.source().join("new"), crate::golden::noise(3000, 40 + number)).expect("written");
        assert!(backup(&put_only, "put").is_none());
    }
    fixture::look_old(&world.source());
    let healing = backup(&fixture::credentials(), "full").expect("it tells what is incomplete");
    assert_eq!(healing.still_incomplete.len(), 1);
    assert!(backup(&fixture::credentials(), "full").is_none(), "once");
}

/// Another host relied on a pack that this one knows to be damaged: its snapshot was never looked at.
#[test]
fn snapshots_that_others_made_since_are_looked_at() {
    let world = World::new(SWAPS);
    let storage: Arc<dyn Storage> = Arc::new(world.storage.clone());
    let lost = world.source().join("lost");
    let with_lost = |cache: &str| {
        fs::write(&lost, crate::golden::noise(30_000, 50)).expect("written");
        let done = world.backup(storage.clone(), cache, false).0;
        fs::remove_file(&lost).expect("removed");
        done.expect("the backup succeeds").healing
    };
    let before = world.storage.list("packs/").expect("listed");
    assert!(with_lost("one").is_none());
    for pack in world.storage.list("packs/").expect("listed") {
        if before.iter().all(|old| old.name != pack.name) && pack.size > 10_000 {
            world.storage.corrupt(&pack.name, |bytes| bytes.iter_mut().for_each(|byte| *byte ^= 1));
        }
    }
    fs::write(&lost, "").expect("written");
    assert!(!world.comes_back(&world.storage, &world.cache("one")));
    fs::remove_file(&lost).expect("removed");
    let backup = || world.backup(storage.clone(), "one", false).0.expect("the backup succeeds").healing;
    assert_eq!(backup().expect("it tells").still_incomplete.len(), 1);
    assert!(with_lost("two").is_none(), "that host knows nothing");
    fs::write(world.source().join("new"), "new").expect("written");
    assert_eq!(backup().expect("it tells").still_incomplete.len(), 2);
}

/// What a damaged segment of the local index had covered was forgotten, and that it was lost was never told.
#[test]
fn a_loss_that_a_damaged_segment_covered_is_told() {
    let world = World::new(SWAPS);
    let storage: Arc<dyn Storage> = Arc::new(world.storage.clone());
    let repo = open(storage.clone(), &world.cache("one")).expect("it opens");
    let segments = repo.cache().expect("there is one").join("segments");
    drop(repo);
    for entry in fs::read_dir(segments).expect("listed").map(|entry| entry.expect("listed")) {
        if entry.file_name().to_string_lossy().ends_with(".segment") {
            fs::write(entry.path(), "cut").expect("written");
        }
    }
    for index in world.storage.list("index/").expect("listed") {
        world.storage.remove(&index.name).expect("removed");
    }
    let (done, notices) = world.backup(storage, "one", false);
    assert!(done.expect("the backup succeeds").healing.is_some());
    assert!(notices.iter().any(|notice| notice.contains("lost index objects")), "{notices:?}");
}

/// A run that started over compared with what its first attempt had stored, and did not say that it had repaired that.
#[test]
fn what_an_earlier_attempt_repaired_counts() {
    let world = World::new(SWAPS);
    let listed = |prefix: &str| world.storage.list(prefix).expect("listed");
    let (packs, indexes) = (listed("packs/"), listed("index/"));
    fs::write(world.source().join("new"), "new").expect("written");
    world.backup(Arc::new(world.storage.clone()), "one", false).0.expect("the backup succeeds");
    // The pages of its tree stay, as those above the source could not be made again.
    let content = packs.iter().filter(|pack| pack.size > 50_000);
    content.for_each(|pack| world.storage.remove(&pack.name).expect("removed"));
    let (storage, puts) = (world.storage.clone(), AtomicUsize::new(0));
    let later: Vec<String> = listed("index/").into_iter().map(|index| index.name).collect();
    let later: Vec<String> = later.into_iter().filter(|name| indexes.iter().all(|old| old.name != *name)).collect();
    let before = move |call: &str, name: &str| {
        // Behind the first attempt's comparison; what it stores stays, and something else is lost.
        if call == "put" && name.starts_with("index/") && puts.fetch_add(1, Ordering::SeqCst) == 0 {
            later.iter().for_each(|index| storage.remove(index).expect("removed"));
        }
    };
    let (done, notices) = world.backup(Arc::new(Hooked { inner: world.storage.clone(), before }), "one", false);
    let healing = done.expect("the backup succeeds").healing.expect("it repaired");
    assert!(notices.iter().any(|notice| notice.contains("starts over")), "{notices:?}");
    let is_first = |snapshot: &Snapshot| snapshot.totals.files_changed + snapshot.totals.files_unchanged == 0;
    assert!(healing.chunks > 0 && healing.complete_again.iter().any(is_first), "{healing:?}");
    let missing = notices.iter().filter(|notice| notice.contains("missing from the repository")).count();
    assert_eq!(missing, 1, "{notices:?}");
}

/// What another host saved between two attempts of a run, the first of which knew of no damage, was never incomplete.
#[test]
fn what_others_save_between_two_attempts_is_not_called_complete_again() {
    let world = World::new(SWAPS);
    let relied: Vec<String> =
        world.storage.list("index/").expect("listed").into_iter().map(|index| index.name).collect();
    fs::write(world.source().join("new"), "new").expect("written");
    let other = world.directory.path().join("other");
    fs::create_dir(&other).expect("made");
    fs::write(other.join("f"), crate::golden::noise(30_000, 77)).expect("written");
    let (storage, cache, puts) = (world.storage.clone(), world.cache("two"), AtomicUsize::new(0));
    let before = move |call: &str, name: &str| {
        if call == "put" && name.starts_with("index/") && puts.fetch_add(1, Ordering::SeqCst) == 0 {
            fixture::backup(Arc::new(storage.clone()), &cache, &other).expect("the backup succeeds");
            relied.iter().for_each(|index| storage.remove(index).expect("removed"));
        }
    };
    let (done, notices) = world.backup(Arc::new(Hooked { inner: world.storage.clone(), before }), "one", false);
    let healing = done.expect("the backup succeeds").healing.expect("it tells");
    assert!(notices.iter().any(|notice| notice.contains("starts over")), "{notices:?}");
    let repo = open(Arc::new(world.storage.clone()), &world.cache("two")).expect("it opens");
    assert_eq!(fixture::snapshots(&repo).len(), 3);
    let is_of_other = |snapshot: &Snapshot| snapshot.totals.files == 1;
    assert_eq!(healing.still_incomplete.len(), 1, "{healing:?}");
    assert!(!healing.complete_again.iter().any(is_of_other), "{healing:?}");
}

/// A snapshot that could not be read, or was away, in the run that told what was lost was never called incomplete.
#[test]
fn a_snapshot_that_comes_back_later_is_looked_at() {
    for is_away in [false, true] {
        let world = World::new(SWAPS);
        let plain: Arc<dyn Storage> = Arc::new(world.storage.clone());
        let names = |prefix: &str| -> BTreeSet<String> {
            world.storage.list(prefix).expect("listed").into_iter().map(|listed| listed.name).collect()
        };
        let (packs, snapshots) = (names("packs/"), names("snapshots/"));
        let only = world.source().join("one/only in the second");
        fs::write(&only, crate::golden::noise(30_000, 77)).expect("written");
        let second = world.backup(plain.clone(), "one", false).0.expect("the backup succeeds").snapshot;
        let second = second.expect("a snapshot").id;
        let name = names("snapshots/").difference(&snapshots).next().expect("it is new").clone();
        names("packs/").difference(&packs).for_each(|pack| world.storage.remove(pack).expect("removed"));
        fs::remove_file(&only).expect("removed");
        let kept = world.storage.get(&name, 1 << 20).expect("read").0;
        if is_away {
            world.storage.remove(&name).expect("removed");
        }
        let unreadable = name.clone();
        let before = move |call: &str, asked: &str| {
            if call == "get" && asked == unreadable { Err(Error::new(Kind::Failed, call, asked)) } else { Ok(()) }
        };
        let (done, notices) = world.backup(Arc::new(Hooked { inner: world.storage.clone(), before }), "one", false);
        let healing = done.expect("the backup succeeds").healing;
        assert!(healing.is_none_or(|healing| healing.still_incomplete.is_empty()), "it cannot know");
        assert!(!notices.iter().any(|notice| notice == "all earlier snapshots are complete") || is_away, "{notices:?}");
        if is_away {
            world.storage.put(&name, kept.into()).expect("it is put back");
        }
        let again = || {
            let healing = world.backup(plain.clone(), "one", false).0.expect("the backup succeeds").healing;
            healing.map(|healing| healing.still_incomplete.iter().map(|snapshot| snapshot.id).collect::<Vec<_>>())
        };
        assert_eq!((again(), again()), (Some(vec![second]), None), "away: {is_away}");
    }
}

/// What an unsuccessful run had stored, or a person put back, completed a snapshot, and no run said so.
#[test]
fn a_snapshot_that_is_complete_again_is_named_whoever_completed_it() {
    for is_put_back in [false, true] {
        let world = World::new(SWAPS);
        let storage: Arc<dyn Storage> = Arc::new(world.storage.clone());
        let backup = |command: &str| {
            let stream = Stream::new("table", command);
            world.backup_with(storage.clone(), Some("one"), |options| options.sources.push(Source::stream(stream))).0
        };
        let kept = world.storage.snapshot();
        let lost = world.source().join("one/two/large");
        let content = fs::read(&lost).expect("it is there");
        for pack in world.storage.list("packs/").expect("listed").iter().filter(|pack| pack.size > 50_000) {
            world.storage.remove(&pack.name).expect("removed");
        }
        fs::remove_file(&lost).expect("removed");
        let healing = backup("echo 1").expect("the backup succeeds").healing.expect("it tells");
        assert_eq!(healing.still_incomplete.len(), 1);
        if is_put_back {
            kept.into_iter().filter(|(name, _)| name.starts_with("packs/")).for_each(|(name, bytes)| {
                world.storage.put(&name, bytes.to_vec().into()).expect("it is put back");
            })
        } else {
            fs::write(&lost, content).expect("written");
            backup("false").expect_err("its stream fails");
        }
        let healing = backup("echo 1").expect("the backup succeeds").healing.expect("it tells");
        assert_eq!((healing.complete_again.len(), healing.still_incomplete.len()), (1, 0), "put back: {is_put_back}");
        assert!(backup("echo 1").expect("the backup succeeds").healing.is_none(), "once");
    }
}

/// Index objects that were away for a moment were called lost when they were there again.
#[test]
fn what_is_there_again_was_not_lost() {
    let world = World::new(SWAPS);
    fixture::look_old(&world.source());
    let storage: Arc<dyn Storage> = Arc::new(world.storage.clone());
    world.backup(storage.clone(), "one", false).0.expect("the backup succeeds");
    let kept = world.storage.fork();
    let indexes = world.storage.list("index/").expect("listed");
    indexes.iter().for_each(|index| world.storage.remove(&index.name).expect("removed"));
    drop(open(storage, &world.cache("one")).expect("it opens"));
    let (done, notices) = world.backup_with(Arc::new(kept), Some("one"), |options| options.skip_if_unchanged = true);
    assert!(done.expect("the backup succeeds").snapshot.is_none() && notices.is_empty(), "{notices:?}");
}

/// After an index object was lost, a later backup completed a snapshot without a word.
#[test]
fn a_snapshot_that_lacked_an_index_object_is_named_when_it_is_complete() {
    let world = World::new(SWAPS);
    let storage: Arc<dyn Storage> = Arc::new(world.storage.clone());
    let table = world.directory.path().join("table");
    fs::write(&table, crate::golden::noise(30_000, 50)).expect("written");
    let backup = |commands: &[&str]| {
        let stream = |(name, command): (&str, &&str)| Source::stream(Stream::new(name, *command));
        let streams: Vec<Source> = ["one", "two"].into_iter().zip(commands).map(stream).collect();
        world.backup_with(storage.clone(), Some("one"), |options| options.sources.extend(streams)).0
    };
    let (cat, listed) = (format!("cat {}", table.display()), || world.storage.list("index/").expect("listed"));
    let before = listed();
    backup(&[&cat, "false"]).expect_err("a stream fails, and the content of the other one stays");
    let lost = listed().into_iter().filter(|index| before.iter().all(|old| old.name != index.name));
    let lost: Vec<String> = lost.map(|index| index.name).collect();
    let whole = backup(&[&cat]).expect("the backup succeeds").snapshot.expect("a snapshot");
    lost.iter().for_each(|name| world.storage.remove(name).expect("removed"));
    let healing = backup(&["true"]).expect("the backup succeeds").healing.expect("it tells");
    assert_eq!(healing.still_incomplete.len(), 1);
    let healing = backup(&[&cat]).expect("the backup succeeds").healing.expect("it tells");
    assert_eq!(healing.complete_again.first().map(|snapshot| snapshot.id), Some(whole.id));
    assert!(healing.still_incomplete.is_empty(), "{healing:?}");
}

/// A run that was killed before it had printed its summary, or could not print it, kept the names of incomplete snapshots to
/// itself, and so did all later ones.
#[test]
fn what_was_not_printed_is_told_again() {
    let person = Person::new();
    person.write("source/f", crate::golden::noise(100_000, 1));
    person.silt(&["backup", "source"]).ends_with(0);
    let first = person.snapshots(&[])[0]["id"].as_str().expect("an id")[..8].to_owned();
    for folder in fs::read_dir(person.path("data/siltstone/repository/packs")).expect("listed") {
        for pack in fs::read_dir(folder.expect("listed").path()).expect("listed") {
            fs::remove_file(pack.expect("listed").path()).expect("removed");
        }
    }
    person.write("source/f", "what was lost is nowhere else");
    let full = || fs::File::options().write(true).open("/dev/full").expect("it opens");
    let words = ["backup", "source"];
    said(person.command(&words).stdout(full()).output().expect("it runs")).ends_with(3);
    let (pipe, reader) = UnixStream::pair().expect("made");
    drop(reader);
    said(person.command(&words).stdout(OwnedFd::from(pipe)).output().expect("it runs")).ends_with(3);
    let quiet = ["backup", "source", "--quiet"];
    crate::person::said(person.command(&quiet).stderr(full()).output().expect("it runs")).ends_with(3);
    let told = person.silt(&words).ends_with(0).out;
    assert!(told.contains(&format!("still incomplete: {first}")), "{told}");
    let told = person.silt(&words).ends_with(0).out;
    assert!(!told.contains("incomplete"), "{told}");
}

/// Packs that an unsuccessful run leaves: no snapshot refers to them until the file is saved again.
fn packs_of_a_failed_run(world: &World, file: &std::path::Path) -> Vec<(String, Vec<u8>)> {
    let before = world.storage.list("packs/").expect("listed");
    fs::write(file, crate::golden::noise(30_000, 60)).expect("written");
    let stream = Stream::new("table", "false");
    let storage = Arc::new(world.storage.clone());
    world
        .backup_with(storage, Some("one"), |options| options.sources.push(Source::stream(stream)))
        .0
        .expect_err("its stream fails");
    fs::remove_file(file).expect("removed");
    let packs = world.storage.list("packs/").expect("listed").into_iter().map(|pack| pack.name);
    let new = packs.filter(|name| before.iter().all(|old| old.name != *name));
    new.map(|name| (name.clone(), world.storage.get(&name, 1 << 30).expect("read").0)).collect()
}

/// A pack that was lost, told, put back, and lost again when a new snapshot relied on it was not told again.
#[test]
fn the_second_loss_of_a_pack_is_told() {
    let world = World::new(SWAPS);
    let file = world.source().join("new");
    let packs = packs_of_a_failed_run(&world, &file);
    assert!(!packs.is_empty());
    let lose = || packs.iter().for_each(|(name, _)| world.storage.remove(name).expect("removed"));
    let backup = || {
        let (done, notices) = world.backup(Arc::new(world.storage.clone()), "one", false);
        let told = notices.iter().filter(|notice| notice.contains("missing from the repository")).count();
        (done.expect("the backup succeeds").healing.map(|healing| healing.still_incomplete.len()), told)
    };
    lose();
    assert_eq!(backup(), (None, 1), "no snapshot needs them");
    for (name, bytes) in &packs {
        world.storage.put(name, bytes.clone().into()).expect("it is put back");
    }
    fs::write(&file, crate::golden::noise(30_000, 60)).expect("written");
    assert_eq!(backup(), (None, 0));
    fs::remove_file(&file).expect("removed");
    lose();
    assert_eq!(backup(), (Some(1), 1));
    assert_eq!(backup(), (None, 0), "once");
}

/// One of two lost packs was put back, which completed nothing, and all was told again.
#[test]
fn less_damage_than_was_told_is_no_news() {
    let world = World::new(SWAPS);
    let lost = world.storage.list("packs/").expect("listed");
    fs::remove_file(world.source().join("one/two/large")).expect("removed");
    let back = packs_of_a_failed_run(&world, &world.source().join("new"));
    let names =
        lost.iter().filter(|pack| pack.size > 50_000).map(|pack| &pack.name).chain(back.iter().map(|(name, _)| name));
    names.for_each(|name| world.storage.remove(name).expect("removed"));
    let backup = || {
        let (done, notices) = world.backup(Arc::new(world.storage.clone()), "one", false);
        (done.expect("the backup succeeds").healing.map(|healing| healing.still_incomplete.len()), notices.len())
    };
    assert_eq!(backup(), (Some(1), 1));
    assert_eq!(backup(), (None, 0));
    for (name, bytes) in back {
        world.storage.put(&name, bytes.into()).expect("it is put back");
    }
    assert_eq!(backup(), (None, 0));
    assert_eq!(backup(), (None, 0));
}

/// Snapshots that other backups made meanwhile were called incomplete, as the run knew nothing of what they had stored.
#[test]
fn snapshots_that_others_make_meanwhile_are_complete() {
    let world = World::new(SWAPS);
    for pack in world.storage.list("packs/").expect("listed").iter().filter(|pack| pack.size > 50_000) {
        world.storage.remove(&pack.name).expect("removed");
    }
    let [other, cache] = ["other", "cache of the other"].map(|name| world.directory.path().join(name));
    fs::create_dir(&other).expect("made");
    fs::write(other.join("file"), crate::golden::noise(30_000, 61)).expect("written");
    let (storage, puts) = (world.storage.clone(), AtomicUsize::new(0));
    let before = move |call: &str, name: &str| {
        if call.starts_with("put") && name.starts_with("index/") && puts.fetch_add(1, Ordering::SeqCst) == 0 {
            fixture::backup(Arc::new(storage.clone()), &cache, &other).expect("the other backup succeeds");
        }
    };
    let (done, notices) = world.backup(Arc::new(Hooked { inner: world.storage.clone(), before }), "one", false);
    let healing = done.expect("the backup succeeds").healing.expect("it repaired");
    assert_eq!((healing.complete_again.len(), healing.still_incomplete.len()), (1, 0), "{notices:?}");
    assert_eq!(
        fixture::snapshots(&open(Arc::new(world.storage.clone()), &world.cache("one")).expect("it opens")).len(),
        3
    );
}

/// One read that failed in passing made an index object count as damaged, and a snapshot as incomplete.
#[test]
fn one_failed_read_damages_no_index_object() {
    for cache in ["one", "fresh"] {
        let world = World::new(SWAPS);
        let has_failed = Arc::new(AtomicBool::new(false));
        let failed = has_failed.clone();
        let before = move |call: &str, name: &str| {
            if call == "get" && name.starts_with("index/") && !failed.swap(true, Ordering::SeqCst) {
                Err(Error::new(Kind::Corrupt, "read", name))
            } else {
                Ok(())
            }
        };
        let (done, notices) = world.backup(Arc::new(Hooked { inner: world.storage.clone(), before }), cache, false);
        assert!(done.expect("the backup succeeds").healing.is_none() && notices.is_empty(), "{notices:?}");
        assert!(has_failed.load(Ordering::SeqCst), "{cache}");
    }
}

/// A pack was lost when a backup began, put back before it ended, and lost again: the backup noted it as told, and no later one
/// named the snapshots that lack it.
#[test]
fn what_came_back_during_the_run_that_tells_it_is_told_again() {
    let world = World::new(SWAPS);
    let storage: Arc<dyn Storage> = Arc::new(world.storage.clone());
    let packs: Vec<(String, Vec<u8>)> = world
        .storage
        .list("packs/")
        .expect("listed")
        .into_iter()
        .map(|pack| (pack.name.clone(), world.storage.get(&pack.name, 64 << 20).expect("it is there").0))
        .collect();
    let lose = || packs.iter().for_each(|(name, _)| world.storage.remove(name).expect("removed"));
    lose();
    let (inner, back) = (world.storage.clone(), packs.clone());
    let put_back =
        move || back.iter().for_each(|(name, bytes)| inner.put(name, bytes.clone().into()).expect("it is put back"));
    let other = tempfile::tempdir().expect("a directory");
    let (done, _) = world.backup_with(storage.clone(), Some("one"), |options| {
        options.sources = trees([other.path()]);
        let input = WhenRead { inner: std::io::Cursor::new(b"dump".to_vec()), before: Some(put_back) };
        options.sources.push(dump(input));
    });
    done.expect("the backup succeeds");
    lose();
    let (done, notices) = world.backup_with(storage, Some("one"), |options| {
        options.sources = trees([other.path()]);
    });
    let healing = done.expect("the backup succeeds").healing.expect("it tells");
    assert_eq!(healing.still_incomplete.len(), 1, "{notices:?}");
    assert!(notices.iter().any(|notice| notice.contains("missing from the repository")), "{notices:?}");
}
