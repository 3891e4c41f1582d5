//! Commits that wait beside the place of their snapshot, or whose place holds something else: everyone with the right to create objects
//! can make an object at that place, or another commit of the same name.

use crate::error::{Kind, Result};
use crate::format::snapshot::{SEALED_SNAPSHOT_BYTES_MAX, Snapshot};
use crate::lease::UnpublishedCommit;
use crate::repo::snapshot_reader::SnapshotReader;
use crate::repo::unreadable::UnreadableSnapshot;
use crate::vault::parallel::each_at_once;
use std::collections::HashMap;

/// The object at the place of a snapshot, as it was read, and the commits of that name.
pub(super) struct ClaimedName {
    pub name: String,
    pub in_place: Option<Result<Snapshot>>,
    pub commits: Vec<UnpublishedCommit>,
}

/// What counts of them: one snapshot at most, and what is wrong with the others.
pub(super) struct ResolvedClaims {
    pub snapshot: Option<Snapshot>,
    pub doubts: Vec<UnreadableSnapshot>,
}

/// One commit, with the hash of its sealed bytes.
type ReadCommit = Result<(blake3::Hash, Result<Snapshot>)>;

impl SnapshotReader<'_> {
    /// Reads the commits of these names, several at a time, and decides which object of each name counts: the one in its place, or else
    /// the first commit that opens. All that differ are reported.
    pub(crate) fn resolve(&self, names: Vec<ClaimedName>) -> Result<Vec<ResolvedClaims>> {
        let at_once = self.storage().profile().parallel_requests;
        let commits: Vec<&UnpublishedCommit> = names.iter().flat_map(|name| &name.commits).collect();
        let read = each_at_once(&commits, at_once, |commit| self.read_commit(commit));
        let claimed: Vec<&str> = names
            .iter()
            .filter(|name| !name.commits.is_empty() && matches!(name.in_place, Some(Ok(_))))
            .map(|name| name.name.as_str())
            .collect();
        let hashes = each_at_once(&claimed, at_once, |name| self.hash_in_place(name));
        let mut in_place: HashMap<String, blake3::Hash> = HashMap::new();
        for (name, hash) in claimed.into_iter().zip(hashes) {
            in_place.extend(hash?.map(|hash| (name.to_owned(), hash)));
        }
        let mut read = read.into_iter();
        names
            .into_iter()
            .map(|name| {
                let hash = in_place.get(&name.name).copied();
                let commits: Vec<ReadCommit> = read.by_ref().take(name.commits.len()).collect();
                self.resolve_one(name, hash, commits)
            })
            .collect()
    }

    fn read_commit(&self, commit: &UnpublishedCommit) -> ReadCommit {
        let body = commit.body(self.storage(), self.keys())?;
        Ok((blake3::hash(&body), self.open(&commit.snapshot, &body)))
    }

    /// None if it was removed since it was read.
    fn hash_in_place(&self, name: &str) -> Result<Option<blake3::Hash>> {
        match self.storage().get(name, SEALED_SNAPSHOT_BYTES_MAX) {
            Ok((body, _)) => Ok(Some(blake3::hash(&body))),
            Err(error) if error.is(Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn resolve_one(
        &self,
        name: ClaimedName,
        hash: Option<blake3::Hash>,
        read: Vec<ReadCommit>,
    ) -> Result<ResolvedClaims> {
        let ClaimedName { name, in_place, commits } = name;
        let (mut snapshot, mut used_hash, mut in_doubt) = (None, hash, None);
        let is_settled = matches!(in_place, Some(Ok(_)));
        match in_place {
            Some(Ok(read)) => snapshot = Some(read),
            Some(Err(error)) => in_doubt = self.unreadable(&name, error)?,
            None => {}
        }
        // What is of a newer program may well be the true one: no commit takes its place.
        let is_newer = |read: &ReadCommit| {
            let opened = read.as_ref().map(|(_, opened)| opened.as_ref().err());
            matches!(opened, Ok(Some(error)) if error.is(Kind::Unsupported))
        };
        let is_taken = in_doubt.as_ref().is_some_and(UnreadableSnapshot::is_newer) || read.iter().any(is_newer);
        let (mut contradicted, mut unread) = (None, Vec::new());
        for (commit, read) in commits.iter().zip(read) {
            match read.and_then(|(hash, opened)| opened.map(|snapshot| (hash, snapshot))) {
                Ok((hash, _)) if used_hash == Some(hash) => {}
                Ok((hash, read)) if snapshot.is_none() && !is_taken => {
                    snapshot = Some(read);
                    used_hash = Some(hash);
                }
                Ok(_) => drop(contradicted.get_or_insert_with(|| commit.contradicts("the object that is used"))),
                Err(error) => unread.extend(self.unreadable(&name, commit.unreadable(error))?),
            }
        }
        // A commit that does not open takes nothing from the object in place; beside another commit it may be the true one.
        unread.iter_mut().for_each(|commit| commit.is_passed_over = is_settled);
        let contradicted = contradicted
            .map(|error| UnreadableSnapshot { is_contradicted: true, ..UnreadableSnapshot::new(&name, error) });
        Ok(ResolvedClaims { snapshot, doubts: in_doubt.into_iter().chain(unread).chain(contradicted).collect() })
    }
}
