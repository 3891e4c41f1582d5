//! Read all snapshots, and keep no more of them than memory has room for.

use crate::error::{Error, Result};
use crate::format::snapshot::Snapshot;
use crate::format::snapshot_name;
use crate::lease::UnpublishedCommit;
use crate::repo::Repository;
use crate::repo::snapshot_claims::ClaimedName;
use crate::repo::snapshot_reader::SnapshotReader;
use crate::repo::unreadable::{UnreadableSnapshot, report_unreadable};
use crate::storage::ListedObject;
use crate::watch::Watch;
use std::collections::BTreeMap;

/// Snapshots that are read together.
const BATCH: usize = 256;

/// Snapshots as they are read, and those that cannot be.
pub(super) struct SnapshotList<'a> {
    watch: &'a Watch,
    reader: SnapshotReader<'a>,
    snapshots: Vec<Snapshot>,
    unreadable: Vec<UnreadableSnapshot>,
}

impl<'a> SnapshotList<'a> {
    pub(crate) fn new(repo: &'a Repository, watch: &'a Watch) -> Self {
        let reader = SnapshotReader::new(repo);
        SnapshotList { watch, reader, snapshots: Vec::new(), unreadable: Vec::new() }
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

    /// Reads commits that are not among the objects that were listed, or whose place has something else.
    pub(crate) fn add_unpublished(&mut self, commits: Vec<UnpublishedCommit>) -> Result<()> {
        let mut claimed: BTreeMap<String, ClaimedName> = BTreeMap::new();
        for commit in commits {
            let name = commit.snapshot.clone();
            let new = || ClaimedName { name: name.clone(), in_place: None, commits: Vec::new() };
            claimed.entry(name.clone()).or_insert_with(new).commits.push(commit);
        }
        if claimed.is_empty() {
            return Ok(());
        }
        for unreadable in std::mem::take(&mut self.unreadable) {
            match claimed.get_mut(&unreadable.name) {
                Some(claimed) => claimed.in_place = Some(Err(unreadable.error)),
                None => self.unreadable.push(unreadable),
            }
        }
        for snapshot in std::mem::take(&mut self.snapshots) {
            let name = snapshot.started.compact().map(|stamp| snapshot_name(&stamp, &snapshot.id));
            match name.ok().and_then(|name| claimed.get_mut(&name)) {
                Some(claimed) => claimed.in_place = Some(Ok(snapshot)),
                None => self.snapshots.push(snapshot),
            }
        }
        let mut claimed = claimed.into_values();
        loop {
            self.watch.cancel.check()?;
            let batch: Vec<ClaimedName> = claimed.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                return Ok(());
            }
            for resolved in self.reader.resolve(batch)? {
                self.snapshots.extend(resolved.snapshot);
                self.unreadable.extend(resolved.doubts);
            }
        }
    }

    /// Pending objects that cannot be read, or were not read.
    pub(crate) fn add_pending(&mut self, damaged: Vec<Error>, unread: Vec<Error>) {
        self.unreadable.extend(damaged.into_iter().map(UnreadableSnapshot::of_pending));
        self.unreadable.extend(unread.into_iter().map(UnreadableSnapshot::of_unread));
    }

    fn add(&mut self, name: &str, read: Result<Snapshot>) -> Result<()> {
        match read {
            Ok(snapshot) => self.snapshots.push(snapshot),
            Err(error) => self.unreadable.extend(self.reader.unreadable(name, error)?),
        }
        Ok(())
    }

    /// The snapshots, oldest first, and those that cannot be read, which are reported.
    pub(crate) fn finish(mut self) -> (Vec<Snapshot>, Vec<UnreadableSnapshot>) {
        self.snapshots.sort_by_key(Snapshot::order);
        (self.snapshots, report_unreadable(self.unreadable, self.watch))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::browse::Filter;
    use crate::error::Kind;
    use crate::format::snapshot::SEALED_SNAPSHOT_BYTES_MAX;
    use crate::format::snapshot_name;
    use crate::id::SnapshotId;
    use crate::repo::{Credentials, InitOptions, Stamp};
    use crate::seal::{PasswordCost, Recipients, seal_object};
    use crate::storage::Storage;
    use crate::storage::memory::Memory;
    use crate::watch::Event;
    use crate::when::Selector;
    use std::sync::atomic::Ordering;
    use std::sync::{Arc, Mutex};

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

    /// Puts a snapshot of this many sources, begun at this second, that needs these features.
    fn put_with(storage: &Memory, repo: &Repository, seconds: i64, sources: usize, features: &[&str]) {
        let time = serde_json::json!({"seconds": seconds, "nanoseconds": 0});
        let fields = serde_json::json!({
            "version": 1, "id": "0".repeat(32), "started": time, "ended": time, "host": "h", "program": "p",
            "sources": vec![serde_json::json!({"kind": "tree", "path": "/home/ann"}); sources],
            "root": "0".repeat(48), "totals": {}, "warnings_count": 0, "features": features,
        });
        let name = snapshot_name(&Stamp { seconds, ..Stamp::default() }.compact().unwrap(), &SnapshotId([0; 16]));
        let plain = fields.to_string();
        let body = seal_object(repo.keys(), Recipients::SnapshotReaders, "snapshot", plain.as_bytes()).unwrap();
        storage.put(&name, body.into()).unwrap();
    }

    fn put(storage: &Memory, repo: &Repository, seconds: i64, sources: usize) {
        put_with(storage, repo, seconds, sources, &[]);
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
        // Several are opened at the same time: which of the large ones comes first is left open.
        let (whole, cut): (Vec<&Snapshot>, Vec<&Snapshot>) =
            snapshots.iter().partition(|snapshot| snapshot.all_sources.is_none());
        assert_eq!((whole.len(), cut.len(), whole[2].started), (3, 2, snapshots[4].started));
        assert!(cut[0].sources.len() < 200 && cut[0].sources_count() == 1000);
        let paths = || std::iter::repeat_n(&b"/home/ann"[..], 1000);
        assert!(snapshots.iter().take(4).all(|snapshot| snapshot.has_trees(paths())));
        // A snapshot that is chosen has all of it.
        let whole = repo.whole(cut[0].clone());
        assert!(whole.sources.len() == 1000 && whole.all_sources.is_none());
        assert_eq!(repo.whole(snapshots[4].clone()), snapshots[4]);
    }

    /// It was called damaged, and nothing said that a newer version reads it.
    #[test]
    fn a_snapshot_of_a_newer_version_is_not_called_damaged() {
        let (storage, repo) = repository();
        let latest = Selector::Latest { back: 0 };
        for others in [0, 1] {
            put_with(&storage, &repo, 2, 1, &["later"]);
            let heard = Arc::new(Mutex::new(Vec::new()));
            let hears = heard.clone();
            let watch = Watch::new(Arc::new(move |event| hears.lock().unwrap().push(event)));
            let refused = repo.select_certain(&latest, &Filter::default(), &watch).unwrap_err();
            assert!(refused.is(Kind::Unsupported) && refused.why().contains("`later`"), "{refused}");
            assert!(refused.advice().is_some_and(|hint| hint.starts_with("use a newer version")));
            heard.lock().unwrap().clear();
            assert_eq!(repo.snapshots(&watch).unwrap().len(), others);
            let heard = heard.lock().unwrap();
            let [Event::Warning(warning)] = heard.as_slice() else { panic!("{heard:?}") };
            assert!(warning.what.contains("use a newer version"), "{}", warning.what);
            assert_eq!(watch.progress.damaged.load(Ordering::Relaxed), 0);
            put(&storage, &repo, 1, 1);
        }
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
        assert_eq!((snapshots.len(), unreadable.len(), &unreadable[0].name), (1, 1, &name));
        let watch = Watch::silent();
        let mut list = SnapshotList::new(&repo, &watch);
        // Nothing of that name is there any more: fetching it would find nothing, and report nothing.
        storage.remove(&name).unwrap();
        list.add_listed(&[ListedObject { name, size: bytes as u64, fingerprint: 1 }]).unwrap();
        assert_eq!(list.finish().1.len(), 1);
    }

    /// A commit that says something else than the object in its place was hidden behind others that were too large to be read together,
    /// and a restore by id took what was in the place.
    #[test]
    fn a_pending_object_that_was_not_read_may_contradict_every_snapshot() {
        let (storage, repo) = repository();
        put(&storage, &repo, 1, 1);
        let (by_id, all) = (Selector::Prefix("0".repeat(32)), Filter::default());
        let certain = || repo.select_certain(&by_id, &all, &Watch::silent());
        certain().unwrap();
        for number in 1..=2 {
            let mut body = vec![0; 3 << 20];
            blake3::Hasher::new().update(&[number]).finalize_xof().fill(&mut body);
            let snapshot = format!("snapshots/19800101t000000z-{number:032}");
            let body = data_encoding::BASE64.encode(&body);
            let plain = serde_json::json!({"state": "committed", "snapshot": snapshot, "body": body}).to_string();
            let sealed = seal_object(repo.keys(), Recipients::Writers, "pending", plain.as_bytes()).unwrap();
            storage.put(&format!("pending/00112233445566ff/{number:032}"), sealed.into()).unwrap();
        }
        let refused = certain().unwrap_err();
        assert!(refused.is(Kind::Corrupt) && refused.why().contains("was not read"), "{refused}");
        storage.remove(&format!("pending/00112233445566ff/{:032}", 1)).unwrap();
        certain().unwrap();
    }
}
