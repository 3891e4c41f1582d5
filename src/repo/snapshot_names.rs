//! List the objects in `snapshots/`: a long listing of remote storage in parts at the same time.

use crate::disk::whole::{read_own, write_whole};
use crate::error::Result;
use crate::format::{SNAPSHOTS_PREFIX, is_snapshot_name};
use crate::repo::Repository;
use crate::storage::ListedObject;
use crate::vault::parallel::each_at_once;
use crate::watch::{NoticeKind, Watch};
use crate::when::format_counted;
use std::path::Path;

/// One request lists 1000 names. The rest is room for what comes between two listings.
const PART_NAMES: usize = 900;
const PARTS_AT_ONCE: usize = 32;
/// Names at which parts end, in the cache: where the last listing was long. Only a hint.
const PARTS_FILE: &str = "snapshot-parts";
const PARTS_BYTES_MAX: u64 = 1 << 20;

/// The objects in `snapshots/`, oldest first.
pub(super) struct SnapshotNames {
    pub listed: Vec<ListedObject>,
    /// Names that no snapshot has.
    pub others: Vec<String>,
}

impl SnapshotNames {
    /// Says that there are objects that no snapshot is.
    pub(crate) fn tell_of_others(&self, watch: &Watch) {
        if let Some(first) = self.others.first() {
            let count = format_counted(self.others.len() as u64, "object", "objects");
            watch.notice(
                NoticeKind::Repository,
                format!("ignored {count} without the name of a snapshot in {SNAPSHOTS_PREFIX} (first: {first})"),
            );
        }
    }
}

/// The time and the id in the name of a snapshot's object; both are empty if it has another name.
pub(crate) fn parts_of(name: &str) -> (&str, &str) {
    name.strip_prefix(SNAPSHOTS_PREFIX).and_then(|name| name.split_once('-')).unwrap_or_default()
}

impl Repository {
    /// Lists all snapshots: those in their place.
    pub(super) fn list_snapshots(&self) -> Result<SnapshotNames> {
        let (listed, others): (Vec<ListedObject>, Vec<ListedObject>) =
            self.list_in_parts()?.into_iter().partition(|object| is_snapshot_name(&object.name));
        Ok(SnapshotNames { listed, others: others.into_iter().map(|other| other.name).collect() })
    }

    fn list_in_parts(&self) -> Result<Vec<ListedObject>> {
        let hint = self.cache().filter(|_| self.is_remote()).map(|cache| cache.join(PARTS_FILE));
        let ends = hint.as_deref().map(read_ends).unwrap_or_default();
        let listed = if ends.is_empty() {
            self.storage().list(SNAPSHOTS_PREFIX)?
        } else {
            // From each name, not itself, to the next one; the last part has no end.
            let starts = std::iter::once("").chain(ends.iter().map(String::as_str));
            let parts: Vec<(&str, Option<&str>)> =
                starts.zip(ends.iter().map(|end| Some(end.as_str())).chain([None])).collect();
            let list =
                |(after, until): &(&str, Option<&str>)| self.storage().list_between(SNAPSHOTS_PREFIX, after, *until);
            let listed = each_at_once(&parts, PARTS_AT_ONCE, list);
            listed.into_iter().collect::<Result<Vec<_>>>()?.concat()
        };
        if let Some(hint) = hint {
            let now: Vec<&str> = ends_of(&listed);
            if now != ends {
                // Without it the next listing takes longer.
                let _best_effort = write_whole(&hint, now.join("\n").as_bytes());
            }
        }
        Ok(listed)
    }
}

/// Where parts of a listing end; none for a short one.
fn ends_of(listed: &[ListedObject]) -> Vec<&str> {
    let whole_parts = listed.chunks(PART_NAMES).filter(|part| part.len() == PART_NAMES);
    whole_parts.filter_map(|part| part.last()).map(|object| object.name.as_str()).collect()
}

/// Names in their order, as parts need them; none if there is anything else.
fn read_ends(path: &Path) -> Vec<String> {
    let text = read_own(path, PARTS_BYTES_MAX).ok().and_then(|bytes| String::from_utf8(bytes).ok()).unwrap_or_default();
    let ends: Vec<String> = text.lines().map(str::to_owned).collect();
    let is_sound = ends.iter().all(|name| name.starts_with(SNAPSHOTS_PREFIX)) && ends.is_sorted();
    if is_sound { ends } else { Vec::new() }
}
