//! Find things by pattern across snapshots: every version of a path, and when it was there.
//!
//! Each snapshot is compared with the one before it of the same host and job, so what is the same in both is never
//! walked again: a hundred snapshots cost the first one and what changed since.

use super::glob::Glob;
use super::path::root_entry;
use super::select::Filter;
use super::series::{SeriesStep, SeriesWalk};
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

/// What matches in one snapshot.
#[derive(Default)]
struct FoundInSnapshot {
    /// All of what matches is listed, not what changed alone.
    is_whole: bool,
    /// By path: as it is now, or None if it is gone.
    entries: BTreeMap<Vec<u8>, Option<Entry>>,
}

impl FoundInSnapshot {
    /// Of paths that earlier snapshots had: what a whole list does not name has ended, or cannot be read.
    fn end_unlisted<'p>(&mut self, earlier: impl Iterator<Item = &'p Vec<u8>>) {
        for path in earlier.filter(|_| self.is_whole) {
            self.entries.entry(path.clone()).or_default();
        }
    }

    fn take(&mut self, step: SeriesStep, globs: &[Glob]) {
        match step {
            SeriesStep::Changes => {}
            SeriesStep::Whole => *self = FoundInSnapshot { is_whole: true, ..FoundInSnapshot::default() },
            SeriesStep::Pair { path, old, new } => {
                let is_same = old.zip(new).is_some_and(|(old, new)| is_same_version(old, new));
                if !is_same && globs.iter().any(|glob| glob.matches(path)) {
                    self.entries.insert(path.to_vec(), new.cloned());
                }
            }
        }
    }
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
        let mut walk = SeriesWalk::new(&reader, watch);
        find_in_series(&mut walk, snapshots, &globs, &mut found)?;
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

/// Adds the versions that match in snapshots of the same sources.
fn find_in_series(
    walk: &mut SeriesWalk,
    snapshots: &[Snapshot],
    globs: &[Glob],
    found: &mut BTreeMap<Vec<u8>, Vec<EntryVersion>>,
) -> Result<()> {
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
    for (at, snapshot) in snapshots.iter().enumerate() {
        let mut here = FoundInSnapshot::default();
        walk.walk(snapshot, Some(root_entry(snapshot)), b"/", &mut |step| {
            here.take(step, globs);
            Ok(())
        })?;
        here.end_unlisted(open.keys());
        for (path, new) in here.entries {
            if let (Some(old), Some(new)) = (open.get(&path), &new)
                && is_same_version(&old.entry, new)
            {
                continue;
            }
            if let Some(version) = open.remove(&path) {
                close(path.clone(), version, at - 1);
            }
            if let Some(entry) = new {
                open.insert(path, OpenVersion { entry, since: at });
            }
        }
    }
    for (path, version) in open {
        close(path, version, snapshots.len() - 1);
    }
    Ok(())
}

/// What is in a directory is not a part of its version.
fn is_same_version(old: &Entry, new: &Entry) -> bool {
    (old.kind, old.size, old.meta.modified, old.meta.mode) == (new.kind, new.size, new.meta.modified, new.meta.mode)
        && (old.is_directory() || (&old.content, &old.target) == (&new.content, &new.target))
}
