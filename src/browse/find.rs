//! Find things by pattern across snapshots: every version of a path, and when it was there.
//!
//! Each snapshot is compared with the one before it of the same host and job, so what is the same in both is never
//! walked again: a hundred snapshots cost the first one and what changed since.

use super::diff::walk_pairs;
use super::glob::Glob;
use super::path::root_entry;
use super::select::Filter;
use crate::entry::Entry;
use crate::error::Result;
use crate::id::SnapshotId;
use crate::repo::{Repository, Snapshot, Stamp};
use crate::watch::Watch;
use std::collections::BTreeMap;

/// What to look for.
#[derive(Clone, Debug, Default)]
pub struct FindOptions {
    /// Any of these.
    pub patterns: Vec<Vec<u8>>,
    /// Whether upper and lower case of ASCII letters match each other.
    pub ignore_case: bool,
}

/// One version of a path: the same content, size, modification time and mode in snapshots that follow each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EntryVersion {
    /// The host whose snapshots have it.
    pub host: String,
    /// The job whose snapshots have it.
    pub job: String,
    /// As it was first seen.
    pub entry: Entry,
    /// The first snapshot that has it, and when that began.
    pub first: (SnapshotId, Stamp),
    /// The last snapshot that has it, and when that began.
    pub last: (SnapshotId, Stamp),
    /// In how many snapshots it is.
    pub snapshots: u64,
}

/// Takes a path and its versions, oldest first.
pub(crate) type EachFound<'a> = dyn FnMut(&[u8], &[EntryVersion]) -> Result<()> + 'a;

/// A version that is still there, and since which snapshot of its series.
struct OpenVersion {
    entry: Entry,
    since: usize,
}

/// Calls `each` with every path that matches, sorted, and its versions, oldest first; says how many versions. Memory
/// grows with what matches.
pub fn find(
    repo: &Repository,
    filter: &Filter,
    options: &FindOptions,
    watch: &Watch,
    each: &mut EachFound<'_>,
) -> Result<u64> {
    let globs = options.patterns.iter().map(|pattern| Glob::new(pattern, options.ignore_case));
    let globs = globs.collect::<Result<Vec<_>>>()?;
    // Snapshots of different sources beside each other would look as if everything came and went.
    let mut series: BTreeMap<(String, String, Vec<String>), Vec<Snapshot>> = BTreeMap::new();
    for snapshot in repo.snapshots_matching(filter, watch)? {
        let sources = snapshot.sources.iter().map(|source| format!("{source:?}")).collect();
        series.entry((snapshot.host.clone(), snapshot.job.clone(), sources)).or_default().push(snapshot);
    }
    let reader = repo.reader();
    let mut found: BTreeMap<Vec<u8>, Vec<EntryVersion>> = BTreeMap::new();
    for snapshots in series.values() {
        let mut open: BTreeMap<Vec<u8>, OpenVersion> = BTreeMap::new();
        let mut close = |path: Vec<u8>, version: OpenVersion, until: usize| {
            let seen = |at: usize| (snapshots[at].id, snapshots[at].started);
            found.entry(path).or_default().push(EntryVersion {
                host: snapshots[until].host.clone(),
                job: snapshots[until].job.clone(),
                entry: version.entry,
                first: seen(version.since),
                last: seen(until),
                snapshots: (until - version.since + 1) as u64,
            });
        };
        let mut before: Option<Entry> = None;
        for (at, snapshot) in snapshots.iter().enumerate() {
            let root = root_entry(snapshot);
            walk_pairs(&reader, before.as_ref(), Some(&root), b"/", watch, &mut |path, old, new| {
                watch.cancel.check()?;
                if !globs.iter().any(|glob| glob.matches(path)) {
                    return Ok(());
                }
                if let (Some(old), Some(new)) = (old, new)
                    && is_same_version(old, new)
                {
                    return Ok(());
                }
                if let Some(version) = open.remove(path) {
                    close(path.to_vec(), version, at - 1);
                }
                if let Some(new) = new {
                    open.insert(path.to_vec(), OpenVersion { entry: new.clone(), since: at });
                }
                Ok(())
            })?;
            before = Some(root);
        }
        for (path, version) in open {
            close(path, version, snapshots.len() - 1);
        }
    }
    let mut count = 0;
    for (path, mut versions) in found {
        watch.cancel.check()?;
        versions.sort_by_key(|version| version.first.1.time());
        count += versions.len() as u64;
        each(&path, &versions)?;
    }
    Ok(count)
}

/// What is in a directory is not a part of its version.
fn is_same_version(old: &Entry, new: &Entry) -> bool {
    (old.kind, old.size, old.meta.modified, old.meta.mode) == (new.kind, new.size, new.meta.modified, new.meta.mode)
        && (old.is_directory() || (&old.content, &old.target) == (&new.content, &new.target))
}
