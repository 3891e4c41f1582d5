//! Read all snapshots, a bounded number of bytes at a time, and keep no more of them than memory has room for. A host that may add
//! snapshots may add any number of large ones, which take little space in the repository.

use crate::error::{Error, Kind, Result};
use crate::format::snapshot::{SEALED_SNAPSHOT_BYTES_MAX, Snapshot};
use crate::format::{SNAPSHOTS_PREFIX, is_snapshot_name, snapshot_name};
use crate::lease::{Unpublished, is_of_one_object};
use crate::repo::Repository;
use crate::seal::Power;
use crate::storage::Listed;
use crate::vault::parallel::{batches, fetch_all};
use crate::watch::Watch;
use std::collections::HashSet;

/// Snapshots that are fetched together take this many bytes, with the one that passes it.
const BATCH_BYTES: u64 = 32 << 20;
const BATCH_OBJECTS_MAX: usize = 256;
/// Plain bytes of the snapshots that are kept with all that they say, the newest ones; of others, what names them.
const WHOLE_BYTES_MAX: u64 = 128 << 20;

/// Snapshots as they are read, and those that cannot be.
pub(super) struct SnapshotList<'a> {
    repo: &'a Repository,
    watch: &'a Watch,
    snapshots: Vec<Snapshot>,
    unreadable: Vec<(String, Error)>,
    /// For how many plain bytes there still is room.
    room: u64,
}

impl<'a> SnapshotList<'a> {
    pub fn new(repo: &'a Repository, watch: &'a Watch) -> Self {
        SnapshotList { repo, watch, snapshots: Vec::new(), unreadable: Vec::new(), room: WHOLE_BYTES_MAX }
    }

    /// Reads the objects in a listing, which begins with the oldest.
    pub fn add_listed(&mut self, listed: &[Listed]) -> Result<()> {
        let (small, large): (Vec<&Listed>, Vec<&Listed>) =
            listed.iter().rev().partition(|object| object.size <= SEALED_SNAPSHOT_BYTES_MAX);
        for object in large {
            self.cannot_read(&object.name, Error::corrupt("read the snapshot", &object.name, "it is too large"));
        }
        for batch in batches(small, BATCH_BYTES, BATCH_OBJECTS_MAX) {
            self.watch.cancel.check()?;
            let bodies = fetch_all(self.repo.storage(), &batch, SEALED_SNAPSHOT_BYTES_MAX);
            batch.iter().zip(bodies).try_for_each(|(name, body)| self.add(name, body))?;
        }
        Ok(())
    }

    /// Reads commits that are not among the objects that were listed, or whose place has something else: anybody who may create objects
    /// can create one of that name.
    pub fn add_unpublished(&mut self, commits: Vec<Unpublished>, listed: &[Listed]) -> Result<()> {
        let mut known: HashSet<&str> = listed.iter().map(|object| object.name.as_str()).collect();
        for (name, _) in &self.unreadable {
            known.remove(name.as_str());
        }
        for commit in &commits {
            if known.insert(&commit.snapshot) {
                let count = self.snapshots.len();
                self.add(&commit.snapshot, commit.body(self.repo.storage(), self.repo.keys()))?;
                if self.snapshots.len() > count {
                    self.unreadable.retain(|(name, _)| *name != commit.snapshot);
                }
            }
        }
        Ok(())
    }

    fn add(&mut self, name: &str, body: Result<Vec<u8>>) -> Result<()> {
        let body = match body {
            Ok(body) => body,
            // Removed by somebody between the listing and now.
            Err(error) if error.is(Kind::NotFound) => return Ok(()),
            Err(error) if is_of_one_object(&error) => {
                self.cannot_read(name, error);
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        match self.repo.open_snapshot(name, &body).and_then(|(snapshot, bytes)| self.fitted(name, snapshot, bytes)) {
            Ok(snapshot) => self.snapshots.push(snapshot),
            // A put-only key opens none.
            Err(error) if self.repo.keys().power() == Power::Put => return Err(error),
            // One damaged snapshot must not hide the others, whatever its damage looks like; it is reported.
            Err(error) => self.cannot_read(name, error),
        }
        Ok(())
    }

    /// The whole snapshot while there is room, then what names it. That it is not whole shows, so nothing is deleted or left out
    /// because a list is shorter than it was.
    fn fitted(&mut self, name: &str, snapshot: Snapshot, bytes: u64) -> Result<Snapshot> {
        if let Some(room) = self.room.checked_sub(bytes) {
            self.room = room;
            return Ok(snapshot);
        }
        let too_large =
            || Error::corrupt("list the snapshot", name, "it is too large for a list with so many large ones");
        snapshot.cut_short().ok_or_else(too_large)
    }

    fn cannot_read(&mut self, name: &str, error: Error) {
        self.unreadable.push((name.to_owned(), error));
    }

    /// The snapshots, oldest first, and the names of those that cannot be read, which are reported.
    pub fn finish(mut self) -> (Vec<Snapshot>, Vec<String>) {
        self.snapshots.sort_by_key(|snapshot| (snapshot.started.time(), snapshot.id));
        self.unreadable.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, error) in &self.unreadable {
            self.watch.damage(name.as_bytes(), error.to_string());
        }
        (self.snapshots, self.unreadable.into_iter().map(|(name, _)| name).collect())
    }
}

impl Repository {
    /// A snapshot of a list with all that it says, as far as that can be read: the list may have cut it.
    pub(crate) fn whole(&self, listed: Snapshot) -> Snapshot {
        if !listed.may_be_cut_short() {
            return listed;
        }
        let name = listed.started.compact().map(|stamp| snapshot_name(&stamp, &listed.id));
        name.and_then(|name| self.snapshot_named(&name)).unwrap_or(listed)
    }

    /// The objects in `snapshots/` that can be snapshots by their names, oldest first, and the names of others beside them.
    pub(super) fn list_snapshots(&self) -> Result<(Vec<Listed>, Vec<String>)> {
        let listed = self.storage().list(SNAPSHOTS_PREFIX)?;
        let (named, others): (Vec<Listed>, Vec<Listed>) =
            listed.into_iter().partition(|listed| is_snapshot_name(&listed.name));
        Ok((named, others.into_iter().map(|other| other.name).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::entry::PathText;
    use crate::repo::{Credentials, InitOptions, SnapshotSource};
    use crate::seal::{Audience, PasswordCost, seal_object};
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
        let body = seal_object(repo.keys(), Audience::Readers, "snapshot", &snapshot.encode()).unwrap();
        storage.put(&name, body.into()).unwrap();
    }

    /// A few KB of snapshots that open to 16 MiB each filled the memory of every host that listed them.
    #[test]
    fn of_more_than_there_is_room_for_the_older_ones_are_cut_and_say_so() {
        let (storage, repo) = repository();
        (1..=4).for_each(|number| put(&storage, &repo, number, 1000));
        put(&storage, &repo, 5, 1);
        let watch = Watch::silent();
        let listed = repo.list_snapshots().unwrap().0;
        let mut list = SnapshotList { room: 100_000, ..SnapshotList::new(&repo, &watch) };
        list.add_listed(&listed).unwrap();
        let (snapshots, unreadable) = list.finish();
        assert!(unreadable.is_empty());
        let kept: Vec<bool> = snapshots.iter().map(|snapshot| snapshot.all_sources.is_none()).collect();
        assert_eq!(kept, [false, false, true, true, true]);
        assert!(snapshots[0].sources.len() < 200 && snapshots[0].sources_count() == 1000);
        let paths = || std::iter::repeat_n(&b"/home/ann"[..], 1000);
        assert!(snapshots.iter().take(4).all(|snapshot| snapshot.has_trees(paths())));
        // Who chooses one has all of it.
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
        // Nothing of that name is there any more: who fetched it would find nothing, and report nothing.
        storage.remove(&name).unwrap();
        list.add_listed(&[Listed { name, size: bytes as u64 }]).unwrap();
        assert_eq!(list.finish().1.len(), 1);
    }
}
