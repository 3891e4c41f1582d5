//! Search snapshots from the newest to the oldest, and read no more of them than it takes.

use crate::error::Result;
use crate::format::snapshot::Snapshot;
use crate::lease::UnpublishedCommit;
use crate::repo::Repository;
use crate::repo::snapshot_claims::ClaimedName;
use crate::repo::snapshot_names::parts_of;
use crate::repo::snapshot_reader::SnapshotReader;
use crate::repo::unreadable::{UnreadableSnapshot, report_unreadable};
use crate::storage::ListedObject;
use crate::watch::Watch;
use std::collections::HashMap;

/// The first snapshot is read alone: most searches end with it. Then more and more are read together, up to this many.
const BATCH_MAX: usize = 256;
const BATCH_GROWTH: usize = 8;

/// Snapshots that are not read yet, and those that were read ahead.
pub(crate) struct SnapshotSearch<'a> {
    watch: &'a Watch,
    reader: SnapshotReader<'a>,
    /// Oldest first.
    names: Vec<SnapshotCandidate>,
    /// Oldest first; all of them are newer than those in `names`.
    read: Vec<Snapshot>,
    batch: usize,
    unreadable: Vec<UnreadableSnapshot>,
}

struct SnapshotCandidate {
    name: String,
    /// None if it is not in its place.
    listed: Option<ListedObject>,
    unpublished: Vec<UnpublishedCommit>,
}

impl SnapshotCandidate {
    /// The part of the name that says when the snapshot began.
    fn second(&self) -> &str {
        parts_of(&self.name).0
    }
}

impl Repository {
    /// Begins a search among all snapshots; none is read yet.
    pub(crate) fn search_snapshots<'a>(&'a self, watch: &'a Watch) -> Result<SnapshotSearch<'a>> {
        self.search_surveyed(self.survey()?, watch)
    }

    /// The same for commands that write: commits whose writer died are moved to their place first.
    pub(crate) fn search_snapshots_settled<'a>(&'a self, watch: &'a Watch) -> Result<SnapshotSearch<'a>> {
        self.search_surveyed(self.survey_and_settle(watch)?, watch)
    }

    fn search_surveyed<'a>(
        &'a self,
        survey: crate::lease::PendingSurvey,
        watch: &'a Watch,
    ) -> Result<SnapshotSearch<'a>> {
        let names = self.list_snapshots()?;
        names.tell_of_others(watch);
        let mut unpublished: HashMap<String, Vec<UnpublishedCommit>> = HashMap::new();
        for commit in survey.unpublished {
            unpublished.entry(commit.snapshot.clone()).or_default().push(commit);
        }
        let mut candidates: Vec<SnapshotCandidate> = Vec::with_capacity(names.listed.len() + unpublished.len());
        for listed in names.listed {
            let name = listed.name.clone();
            let unpublished = unpublished.remove(&name).unwrap_or_default();
            candidates.push(SnapshotCandidate { unpublished, name, listed: Some(listed) });
        }
        for (name, unpublished) in unpublished {
            candidates.push(SnapshotCandidate { name, listed: None, unpublished });
        }
        candidates.sort_by(|a, b| a.name.cmp(&b.name));
        let reader = SnapshotReader::new(self);
        let read = Vec::new();
        let unread = survey.unread.into_iter().map(UnreadableSnapshot::of_unread);
        let unreadable = survey.damaged.into_iter().map(UnreadableSnapshot::of_pending).chain(unread).collect();
        Ok(SnapshotSearch { watch, reader, names: candidates, read, batch: 1, unreadable })
    }
}

impl SnapshotSearch<'_> {
    /// Leaves out what cannot be meant, by its name. Must come before the first [`pop_newest`](Self::pop_newest).
    pub(crate) fn retain(&mut self, may_be_meant: impl Fn(&str) -> bool) {
        self.names.retain(|candidate| may_be_meant(&candidate.name));
    }

    /// How many snapshots were fetched from storage.
    pub(crate) fn fetched(&self) -> u64 {
        self.reader.fetched()
    }

    /// The newest snapshot that was not returned yet. Those that cannot be read are passed over and noted.
    pub(crate) fn pop_newest(&mut self) -> Result<Option<Snapshot>> {
        while self.read.is_empty() && !self.names.is_empty() {
            self.watch.cancel.check()?;
            self.read_batch()?;
        }
        Ok(self.read.pop())
    }

    /// Names of the same second are in the order of their ids, and snapshots in that of their times: these are read together.
    fn read_batch(&mut self) -> Result<()> {
        let mut from = self.names.len().saturating_sub(self.batch);
        while from > 0 && self.names[from - 1].second() == self.names[from].second() {
            from -= 1;
        }
        self.batch = (self.batch * BATCH_GROWTH).min(BATCH_MAX);
        let batch = self.names.split_off(from);
        let listed: Vec<ListedObject> = batch.iter().filter_map(|candidate| candidate.listed.clone()).collect();
        let mut in_place = self.reader.read(&listed).into_iter();
        let mut claimed = Vec::new();
        for SnapshotCandidate { name, listed, unpublished } in batch {
            let in_place = listed.and_then(|_| in_place.next());
            match in_place {
                in_place if !unpublished.is_empty() => {
                    claimed.push(ClaimedName { name, in_place, commits: unpublished });
                }
                Some(Ok(snapshot)) => self.read.push(snapshot),
                Some(Err(error)) => self.unreadable.extend(self.reader.unreadable(&name, error)?),
                None => {}
            }
        }
        for resolved in self.reader.resolve(claimed)? {
            self.read.extend(resolved.snapshot);
            self.unreadable.extend(resolved.doubts);
        }
        self.read.sort_by_key(Snapshot::order);
        Ok(())
    }

    /// Those that were met and cannot be read, oldest first; each is reported.
    pub(crate) fn finish(self) -> Vec<UnreadableSnapshot> {
        report_unreadable(self.unreadable, self.watch)
    }
}
