//! What backups of this host have reported of damage and losses, in the cache, so that each is reported once.

use crate::disk::whole::{read_own, write_whole};
use crate::error::Result;
use crate::id::{IndexId, PackId, SnapshotId};
use crate::vault::IndexCheck;
use std::collections::{BTreeSet, HashSet};
use std::fmt::Display;
use std::path::Path;

const FIRST_LINE: &str = "siltstone reported 1";
/// Some 400,000 lines.
const BYTES_MAX: usize = 32 << 20;
/// Lost index objects that are remembered. Without them, a job that relied on one reports the loss again.
const LOST_INDEXES_MAX: usize = 100_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ReportedDamage {
    /// Names the index objects that were there then: content stored later can have completed what was incomplete. Empty when
    /// nothing was reported yet.
    pub basis: String,
    /// Packs that are missing, incomplete or damaged.
    pub missing_packs: HashSet<PackId>,
    /// Snapshots that lack something because of the damage.
    pub incomplete: HashSet<SnapshotId>,
    /// Snapshots that were found to be complete. Later ones were never looked at.
    pub complete: HashSet<SnapshotId>,
    /// Snapshots that could not be read.
    pub unread: HashSet<SnapshotId>,
    /// Index objects that are damaged.
    pub damaged_indexes: HashSet<IndexId>,
    /// Index objects that were there once.
    pub lost_indexes: HashSet<IndexId>,
    /// Marks of losses that are reported, and that this key must not remove.
    pub marks: BTreeSet<String>,
}

/// Names a set of index objects.
pub(crate) fn basis_of(indexes: &HashSet<IndexId>) -> String {
    let mut names: Vec<&[u8; 32]> = indexes.iter().map(IndexId::as_bytes).collect();
    names.sort();
    let mut hasher = blake3::Hasher::new();
    for name in names {
        hasher.update(name);
    }
    hasher.finalize().to_hex().to_string()
}

/// A basis that is never there: the next backup looks at what is incomplete.
const NO_BASIS: &str = "changed";

impl ReportedDamage {
    /// Whether all that is damaged and missing now was reported.
    pub(crate) fn covers(&self, check: &IndexCheck) -> bool {
        let was_told = !self.basis.is_empty();
        was_told
            && check.packs_missing.is_subset(&self.missing_packs)
            && check.indexes_damaged.is_subset(&self.damaged_indexes)
    }

    /// Whether something is damaged, missing or was lost, so that snapshots that were not examined may lack something.
    pub(crate) fn has_damage(&self) -> bool {
        !(self.missing_packs.is_empty() && self.damaged_indexes.is_empty() && self.lost_indexes.is_empty())
    }

    /// Whether a run looked at a snapshot.
    pub(crate) fn has_looked_at(&self, snapshot: &SnapshotId) -> bool {
        self.complete.contains(snapshot) || self.incomplete.contains(snapshot)
    }

    /// Whether something else was damaged and missing than is now.
    pub(crate) fn differs_from(&self, check: &IndexCheck) -> bool {
        self.missing_packs != check.packs_missing || self.damaged_indexes != check.indexes_damaged
    }

    /// Returns this record without the objects that are no longer damaged or missing, or None if it has no such objects. Later
    /// backups may rely on these objects, so losing them again must be reported again.
    pub(crate) fn without_what_is_back(&self, check: &IndexCheck) -> Option<ReportedDamage> {
        let missing_packs: HashSet<PackId> = self.missing_packs.intersection(&check.packs_missing).copied().collect();
        let damaged_indexes: HashSet<IndexId> =
            self.damaged_indexes.intersection(&check.indexes_damaged).copied().collect();
        if missing_packs == self.missing_packs && damaged_indexes == self.damaged_indexes {
            return None;
        }
        // One that was damaged may be deleted by now.
        let gone = self.damaged_indexes.difference(&damaged_indexes);
        let lost_indexes = self.lost_indexes.iter().chain(gone).copied().collect();
        let basis = if self.incomplete.is_empty() { self.basis.clone() } else { NO_BASIS.to_owned() };
        Some(ReportedDamage { basis, missing_packs, damaged_indexes, lost_indexes, ..self.clone() })
    }

    /// Returns nothing if the file is missing or damaged: damage is then reported once more.
    pub(crate) fn read(path: &Path) -> Self {
        let bytes = read_own(path, BYTES_MAX as u64).unwrap_or_default();
        std::str::from_utf8(&bytes).ok().and_then(ReportedDamage::parse).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<ReportedDamage> {
        let mut reported = ReportedDamage::default();
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return None;
        }
        for line in lines {
            let (what, value) = line.split_once(' ')?;
            match what {
                "basis" => value.clone_into(&mut reported.basis),
                "incomplete" => drop(reported.incomplete.insert(SnapshotId::from_hex(value).ok()?)),
                "unread" => drop(reported.unread.insert(SnapshotId::from_hex(value).ok()?)),
                "complete" => drop(reported.complete.insert(SnapshotId::from_hex(value).ok()?)),
                "missing-pack" => drop(reported.missing_packs.insert(PackId::from_hex(value).ok()?)),
                "damaged-index" => drop(reported.damaged_indexes.insert(IndexId::from_hex(value).ok()?)),
                "lost-index" => drop(reported.lost_indexes.insert(IndexId::from_hex(value).ok()?)),
                "mark" => drop(reported.marks.insert(value.to_owned())),
                _ => return None,
            }
        }
        Some(reported)
    }

    pub(crate) fn write(&self, path: &Path) -> Result<()> {
        let mut text = format!("{FIRST_LINE}\nbasis {}\n", self.basis);
        add(&mut text, "incomplete", self.incomplete.iter());
        add(&mut text, "unread", self.unread.iter());
        add(&mut text, "damaged-index", self.damaged_indexes.iter());
        add(&mut text, "mark", self.marks.iter());
        add(&mut text, "lost-index", self.lost_indexes.iter().take(LOST_INDEXES_MAX));
        add(&mut text, "missing-pack", self.missing_packs.iter());
        add(&mut text, "complete", self.complete.iter());
        write_whole(path, text.as_bytes())
    }
}

/// Adds a line for each value until the file is full. Snapshots without a line are checked again, and damage without one is
/// reported again.
fn add(text: &mut String, what: &str, values: impl Iterator<Item = impl Display>) {
    for line in values.map(|value| format!("{what} {value}\n")) {
        if text.len() + line.len() > BYTES_MAX {
            return;
        }
        text.push_str(&line);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_read_back() {
        let cache = tempfile::tempdir().expect("a directory");
        let path = cache.path().join("reported");
        assert_eq!(ReportedDamage::read(&path), ReportedDamage::default());
        let reported = ReportedDamage {
            missing_packs: HashSet::from([PackId([7; 32]), PackId([8; 32])]),
            basis: basis_of(&HashSet::from([IndexId([6; 32])])),
            incomplete: HashSet::from([SnapshotId([1; 16])]),
            complete: HashSet::from([SnapshotId([2; 16]), SnapshotId([3; 16])]),
            unread: HashSet::from([SnapshotId([9; 16])]),
            damaged_indexes: HashSet::from([IndexId([4; 32])]),
            lost_indexes: HashSet::from([IndexId([5; 32])]),
            marks: BTreeSet::from(["0123456789abcdef".to_owned()]),
        };
        reported.write(&path).expect("written");
        assert_eq!(ReportedDamage::read(&path), reported);
        for damaged in
            ["siltstone reported 2\n", "siltstone reported 1\nincomplete 12\n", "siltstone reported 1\nother 12\n", "x"]
        {
            std::fs::write(&path, damaged).expect("written");
            assert_eq!(ReportedDamage::read(&path), ReportedDamage::default(), "{damaged}");
        }
    }

    /// A pack that was lost, reported, put back and lost again was reported once only.
    #[test]
    fn what_is_back_is_no_longer_told() {
        let check = |packs: &[u8]| IndexCheck {
            packs_missing: packs.iter().map(|number| PackId([*number; 32])).collect(),
            ..IndexCheck::default()
        };
        assert!(!ReportedDamage::default().covers(&check(&[])), "nothing was reported");
        let reported = ReportedDamage {
            basis: "b".to_owned(),
            missing_packs: check(&[1, 2]).packs_missing,
            ..ReportedDamage::default()
        };
        assert!(reported.covers(&check(&[1])) && reported.covers(&check(&[1, 2])) && !reported.covers(&check(&[3])));
        assert_eq!(reported.without_what_is_back(&check(&[1, 2, 3])), None);
        let left = reported.without_what_is_back(&check(&[2, 3])).expect("one is back");
        assert_eq!((left.missing_packs.len(), &left.basis), (1, &reported.basis));
        assert!(left.covers(&check(&[2])) && !left.covers(&check(&[1])));
        let reported = ReportedDamage { incomplete: HashSet::from([SnapshotId([1; 16])]), ..reported };
        assert_ne!(reported.without_what_is_back(&check(&[2])).expect("one is back").basis, reported.basis);
    }
}
