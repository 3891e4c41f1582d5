//! How work over a network begins: the key that opened last is tried first; the writer is shown while the parent is chosen,
//! and withdrawn when that fails.

use crate::fixture::{self, RENAMES, SWAPS, memory, open, options, plant};
use siltstone::error::{Error, Kind, Result};
use siltstone::forward_storage;
use siltstone::id::SnapshotId;
use siltstone::repo::{Credentials, Repository, add_key};
use siltstone::seal::KeyAccess;
use siltstone::storage::{Capabilities, Chaos, ChaosRates, ListedObject, Memory, ObjectBody, ObjectVersion, Storage};
use siltstone::watch::Watch;
use std::sync::Arc;

/// A storage without faults that reports what was written, and may refuse to list snapshots or keys, or to take new
/// pending objects.
struct Refusing {
    inner: Chaos,
    snapshots: bool,
    pending: bool,
    keys: bool,
}

impl Refusing {
    fn refuse(&self, is_refused: bool, verb: &str, name: &str) -> Result<()> {
        if is_refused { Err(Error::new(Kind::Denied, verb, name).because("on purpose")) } else { Ok(()) }
    }
}

impl Storage for Refusing {
    forward_storage!(self => self.inner; describe, capabilities, profile, put, compare_and_swap, rename, get, get_range, remove, stat);

    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        self.refuse(self.pending && name.starts_with("pending/"), "write", name)?;
        self.inner.put_new(name, body)
    }
    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        self.refuse(self.snapshots && prefix == "snapshots/", "list", prefix)?;
        self.refuse(self.keys && prefix == "keys/", "list", prefix)?;
        self.inner.list(prefix)
    }
}

struct Case {
    name: &'static str,
    /// Compare with a snapshot that is not there.
    missing_parent: bool,
    refuses_snapshots: bool,
    refuses_pending: bool,
    expected: (Kind, &'static str),
}

fn assert_fails_and_withdraws(case: &Case, capabilities: Capabilities) {
    let at = format!("{}, {capabilities:?}", case.name);
    let base: Memory = memory(capabilities).remote();
    let folder = tempfile::tempdir().expect("a folder");
    let (source, cache) = (folder.path().join("source"), folder.path().join("cache"));
    plant(&source, 1);
    let refusing = Arc::new(Refusing {
        inner: Chaos::seeded(Arc::new(base.clone()), 0, ChaosRates::default()),
        snapshots: case.refuses_snapshots,
        pending: case.refuses_pending,
        keys: false,
    });
    let mut wanted = options(&source);
    wanted.parent = case.missing_parent.then_some(SnapshotId([7; 16]));
    let repo = open(refusing.clone(), &cache).expect("it opens");
    let error = repo.backup(wanted, &Watch::silent()).expect_err(&at);
    let (kind, doing) = case.expected;
    assert!(error.is(kind) && error.to_string().contains(doing), "{at}: {error}");

    let trace = refusing.inner.trace();
    let shown = trace.iter().filter(|call| call.verb == "put_new" && call.name.starts_with("pending/")).count();
    assert_eq!(shown, usize::from(!case.refuses_pending), "{at}: {trace:?}");
    assert!(trace.iter().all(|call| call.name.starts_with("pending/")), "{at}: {trace:?}");
    assert_eq!(base.list("pending/").expect("memory answers"), [], "{at}");
    drop(repo);
    // Nothing of it is in the next run's way.
    let done = fixture::backup(Arc::new(base.clone()), &cache, &source).unwrap_or_else(|error| panic!("{at}: {error}"));
    assert!(done.snapshot.is_some() && done.totals.files_new > 0, "{at}");
    assert_eq!(base.list("pending/").expect("memory answers"), [], "{at}");
}

#[test]
fn over_a_network_a_choice_that_fails_withdraws_the_writer() {
    let no_parent = (Kind::NotFound, "compare with the snapshot 0707");
    let no_listing = (Kind::Denied, "list snapshots/");
    let no_writer = (Kind::Denied, "write pending/");
    let cases = [
        ("no such parent", true, false, false, no_parent),
        ("no listing", false, true, false, no_listing),
        ("a parent, and no listing", true, true, false, no_listing),
        // The writer shows itself before anything is chosen.
        ("no listing and no writer", false, true, true, no_writer),
        ("no such parent and no writer", true, false, true, no_writer),
        ("no writer", false, false, true, no_writer),
    ];
    for (name, missing_parent, refuses_snapshots, refuses_pending, expected) in cases {
        let case = Case { name, missing_parent, refuses_snapshots, refuses_pending, expected };
        for capabilities in [SWAPS, RENAMES] {
            assert_fails_and_withdraws(&case, capabilities);
        }
    }
}

#[test]
fn the_key_that_opened_last_is_tried_without_listing_keys_and_only_a_hint() {
    let base = memory(SWAPS);
    let folder = tempfile::tempdir().expect("a folder");
    let (cache, other_cache) = (folder.path().join("cache"), folder.path().join("other"));
    let unlisted = || {
        let inner = Chaos::seeded(Arc::new(base.clone()), 0, ChaosRates::default());
        Arc::new(Refusing { inner, snapshots: false, pending: false, keys: true })
    };
    // The repository's id tells the name of its first key.
    let repo = open(unlisted(), &cache).expect("it opens with the first key");

    let old = base.list("keys/").expect("memory answers").remove(0).name;
    let cost = fixture::init_options(base.capabilities()).cost;
    add_key(&base, repo.keys(), KeyAccess::Full, &fixture::credentials(), cost).expect("it is added");
    base.remove(&old).expect("it is removed");
    let error = open(unlisted(), &cache).map(|_| ()).expect_err("no key is known");
    assert!(error.is(Kind::Denied), "{error}");
    open(Arc::new(base.clone()), &cache).expect("it opens with another key");
    open(unlisted(), &cache).expect("and knows that one now");
    assert!(open(unlisted(), &other_cache).is_err(), "another cache knows nothing");

    let wrong = Credentials::password("wrong");
    let error =
        Repository::open(Arc::new(base.clone()), &wrong, &cache, &Watch::silent()).map(|_| ()).expect_err("wrong");
    assert!(error.is(Kind::WrongKey), "{error}");
    for hint in ["keys/../config", "config", "", "keys/\n", "\u{0}"] {
        let known =
            std::fs::read_dir(cache.join("last-key")).expect("listed").next().expect("one").expect("read").path();
        std::fs::write(known, hint).expect("written");
        open(Arc::new(base.clone()), &cache).unwrap_or_else(|error| panic!("{hint:?}: {error}"));
    }
}
