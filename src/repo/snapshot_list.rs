//! Read all snapshots, and keep no more of them than memory has room for.

use crate::error::{Error, Kind, Result};
use crate::format::snapshot::Snapshot;
use crate::format::snapshot_name;
use crate::lease::{UnpublishedCommit, is_of_one_object};
use crate::repo::Repository;
use crate::repo::snapshot_reader::SnapshotReader;
use crate::seal::KeyAccess;
use crate::storage::ListedObject;
use crate::watch::Watch;
use std::collections::{HashMap, HashSet};

/// Snapshots that are read together.
const BATCH: usize = 256;

/// Snapshots as they are read, and those that cannot be.
pub(super) struct SnapshotList<'a> {
    repo: &'a Repository,
    watch: &'a Watch,
    reader: SnapshotReader<'a>,
    snapshots: Vec<Snapshot>,
    unreadable: Vec<(String, Error)>,
}

impl<'a> SnapshotList<'a> {
    pub(crate) fn new(repo: &'a Repository, watch: &'a Watch) -> Self {
        let reader = SnapshotReader::new(repo);
        SnapshotList { repo, watch, reader, snapshots: Vec::new(), unreadable: Vec::new() }
    }

    /// Reads the objects in a listing, which begins with the oldest.
    pub(crate) fn add_listed(&mut self, listed: &[ListedObject]) -> Result<()> {
        for batch in listed.rchunks(BATCH) {
            self.watch.cancel.check()?;
            // The newest first, while there is room.
            let newest_first: Vec<ListedObject> = batch.iter().rev().cloned().collect();
            let read = self.reader.read(&newest_first);
            newest_first.iter().zip(read).try_for_each(|(object, read)| self.add(&object.name, read))?;
        }
        Ok(())
    }

    /// Reads commits that are not among the objects that were listed, or whose place has something else: every user with the right to
    /// create objects can create one of that name.
    pub(crate) fn add_unpublished(&mut self, commits: Vec<UnpublishedCommit>, listed: &[ListedObject]) -> Result<()> {
        let mut known: HashSet<&str> = listed.iter().map(|object| object.name.as_str()).collect();
        for (name, _) in &self.unreadable {
            known.remove(name.as_str());
        }
        let claimed: HashSet<&str> = commits.iter().map(|commit| commit.snapshot.as_str()).collect();
        let named = self.snapshots.iter().enumerate().filter_map(|(at, snapshot)| {
            let stamp = snapshot.started.compact().ok().filter(|_| !claimed.is_empty())?;
            Some((snapshot_name(&stamp, &snapshot.id), at)).filter(|(name, _)| claimed.contains(name.as_str()))
        });
        let mut used: HashMap<String, usize> = named.collect();
        for commit in &commits {
            if let Some(at) = used.get(&commit.snapshot) {
                self.reader.compare(&self.snapshots[*at], commit, self.watch);
            } else if known.insert(&commit.snapshot) {
                let count = self.snapshots.len();
                self.add(&commit.snapshot, self.reader.read_unpublished(commit))?;
                if self.snapshots.len() > count {
                    used.insert(commit.snapshot.clone(), count);
                    self.unreadable.retain(|(name, _)| *name != commit.snapshot);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, read: Result<Snapshot>) -> Result<()> {
        match read {
            Ok(snapshot) => self.snapshots.push(snapshot),
            Err(error) => self.unreadable.extend(unreadable(self.repo, name, error)?),
        }
        Ok(())
    }

    /// The snapshots, oldest first, and the names of those that cannot be read, which are reported.
    pub(crate) fn finish(mut self) -> (Vec<Snapshot>, Vec<String>) {
        self.snapshots.sort_by_key(|snapshot| (snapshot.started.time(), snapshot.id));
        self.unreadable.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, error) in &self.unreadable {
            self.watch.damage(name.as_bytes(), error.to_string());
        }
        (self.snapshots, self.unreadable.into_iter().map(|(name, _)| name).collect())
    }
}

/// What the failure to read one snapshot means: it cannot be read; or nothing, as it was removed between the listing and now; or an
/// error, as others cannot be read either.
pub(super) fn unreadable(repo: &Repository, name: &str, error: Error) -> Result<Option<(String, Error)>> {
    match error.kind() {
        Kind::NotFound => Ok(None),
        // A put-only key opens none.
        _ if repo.keys().access() < KeyAccess::List => Err(error),
        // One damaged snapshot must not hide the others, whatever its damage looks like; it is reported.
        _ if is_of_one_object(&error) => Ok(Some((name.to_owned(), error))),
        _ => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::PathText;
    use crate::format::snapshot::SEALED_SNAPSHOT_BYTES_MAX;
    use crate::format::snapshot_name;
    use crate::repo::{Credentials, InitOptions, SnapshotSource};
    use crate::seal::{PasswordCost, Recipients, seal_object};
    use crate::storage::Storage;
    use crate::storage::memory::Memory;
    use std::sync::Arc;

    const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

    fn repository() -> (Memory, Repository) {
        let (storage, credentials) = (Memory::new(), Credentials::password("right"));
        let capabilities = storage.capabilities();
        let chunks = Default::default();
        let made = InitOptions { credentials, cost: CHEAP, chunks, single_writer: false, capabilities };
        Repository::init(&storage, &made).unwrap();
        let credentials = Credentials::password("right");
        let repo = Repository::open_uncached(Arc::new(storage.clone()), &credentials, &Watch::silent()).unwrap();
        (storage, repo)
    }

    /// Puts a snapshot of this many sources, begun at this second.
    fn put(storage: &Memory, repo: &Repository, seconds: i64, sources: usize) {
        let time = serde_json::json!({"seconds": seconds, "nanoseconds": 0});
        let fields = serde_json::json!({
            "version": 1, "id": "0".repeat(32), "started": time, "ended": time, "host": "h", "program": "p", "sources": [],
            "root": "0".repeat(48), "totals": {}, "warnings_count": 0,
        });
        let mut snapshot = Snapshot::decode(fields.to_string().as_bytes()).unwrap();
        snapshot.sources = vec![SnapshotSource::Tree { path: PathText(b"/home/ann".to_vec()) }; sources];
        let name = snapshot_name(&snapshot.started.compact().unwrap(), &snapshot.id);
        let body = seal_object(repo.keys(), Recipients::SnapshotReaders, "snapshot", &snapshot.encode()).unwrap();
        storage.put(&name, body.into()).unwrap();
    }

    /// A few KB of snapshots that open to 16 MiB each filled the memory of every host that listed them.
    #[test]
    fn of_more_than_there_is_room_for_the_older_ones_are_cut_and_say_so() {
        let (storage, repo) = repository();
        (1..=4).for_each(|number| put(&storage, &repo, number, 1000));
        put(&storage, &repo, 5, 1);
        let watch = Watch::silent();
        let listed = repo.list_snapshots().unwrap().listed;
        let reader = SnapshotReader::new(&repo).with_room(100_000);
        let mut list = SnapshotList { reader, ..SnapshotList::new(&repo, &watch) };
        list.add_listed(&listed).unwrap();
        let (snapshots, unreadable) = list.finish();
        assert!(unreadable.is_empty());
        let kept: Vec<bool> = snapshots.iter().map(|snapshot| snapshot.all_sources.is_none()).collect();
        assert_eq!(kept, [false, false, true, true, true]);
        assert!(snapshots[0].sources.len() < 200 && snapshots[0].sources_count() == 1000);
        let paths = || std::iter::repeat_n(&b"/home/ann"[..], 1000);
        assert!(snapshots.iter().take(4).all(|snapshot| snapshot.has_trees(paths())));
        // A snapshot that is chosen has all of it.
        let whole = repo.whole(snapshots[0].clone());
        assert!(whole.sources.len() == 1000 && whole.all_sources.is_none());
        assert_eq!(repo.whole(snapshots[4].clone()), snapshots[4]);
    }

    /// Each was fetched, 80 MiB of it, before one was opened.
    #[test]
    fn what_is_too_large_to_be_a_snapshot_is_refused_by_its_size() {
        let (storage, repo) = repository();
        put(&storage, &repo, 1, 1);
        let bytes = SEALED_SNAPSHOT_BYTES_MAX as usize + 1;
        let name = format!("snapshots/19800101t000000z-{}", "1".repeat(32));
        storage.put(&name, vec![0; bytes].into()).unwrap();
        let (snapshots, unreadable) = repo.snapshots_and_unreadable(&Watch::silent()).unwrap();
        assert_eq!((snapshots.len(), unreadable), (1, vec![name.clone()]));
        let watch = Watch::silent();
        let mut list = SnapshotList::new(&repo, &watch);
        // Nothing of that name is there any more: fetching it would find nothing, and report nothing.
        storage.remove(&name).unwrap();
        list.add_listed(&[ListedObject { name, size: bytes as u64 }]).unwrap();
        assert_eq!(list.finish().1.len(), 1);
    }
}
