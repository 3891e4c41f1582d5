//! What backups of this host have told of damage and losses, in the cache, so that each is told once.

use crate::disk::whole::{read_own, write_whole};
use crate::error::Result;
use crate::id::{IndexId, PackId, SnapshotId};
use crate::repo::IndexCheck;
use std::collections::{BTreeSet, HashSet};
use std::fmt::Display;
use std::path::Path;

const FIRST_LINE: &str = "siltstone told 1";
/// Some 400,000 lines.
const BYTES_MAX: usize = 32 << 20;
/// Lost index objects that are remembered. Without them, a job that relied on one tells the loss again.
const LOST_INDEXES_MAX: usize = 100_000;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Told {
    /// The damage that the latest telling was about, by [`name_of`].
    pub damage: String,
    /// Names the index objects that were there then: content stored later can have completed what was incomplete.
    pub basis: String,
    /// Snapshots that lack something because of the damage.
    pub incomplete: HashSet<SnapshotId>,
    /// Snapshots that were found to be complete. Later ones were never looked at.
    pub complete: HashSet<SnapshotId>,
    /// Index objects that are damaged.
    pub damaged_indexes: HashSet<IndexId>,
    /// Index objects that were there once.
    pub lost_indexes: HashSet<IndexId>,
    /// Marks of losses that are told, and that this key must not remove.
    pub marks: BTreeSet<String>,
}

/// Names what is damaged and missing: other damage has another name.
pub(crate) fn name_of(check: &IndexCheck) -> String {
    let packs = check.packs_missing.iter().map(PackId::as_bytes);
    hash_of(packs.chain(check.indexes_damaged.iter().map(IndexId::as_bytes)))
}

/// Names a set of index objects.
pub(crate) fn basis_of(indexes: &HashSet<IndexId>) -> String {
    hash_of(indexes.iter().map(IndexId::as_bytes))
}

fn hash_of<'n>(names: impl Iterator<Item = &'n [u8; 32]>) -> String {
    let mut names: Vec<&[u8; 32]> = names.collect();
    names.sort();
    let mut hasher = blake3::Hasher::new();
    for name in names {
        hasher.update(name);
    }
    hasher.finalize().to_hex().to_string()
}

impl Told {
    /// Returns nothing if the file is missing or damaged: damage is then told once more.
    pub fn read(path: &Path) -> Self {
        let bytes = read_own(path, BYTES_MAX as u64).unwrap_or_default();
        std::str::from_utf8(&bytes).ok().and_then(Told::parse).unwrap_or_default()
    }

    fn parse(text: &str) -> Option<Told> {
        let mut told = Told::default();
        let mut lines = text.lines();
        if lines.next() != Some(FIRST_LINE) {
            return None;
        }
        for line in lines {
            let (what, value) = line.split_once(' ')?;
            match what {
                "damage" => value.clone_into(&mut told.damage),
                "basis" => value.clone_into(&mut told.basis),
                "incomplete" => drop(told.incomplete.insert(SnapshotId::from_hex(value).ok()?)),
                "complete" => drop(told.complete.insert(SnapshotId::from_hex(value).ok()?)),
                "damaged-index" => drop(told.damaged_indexes.insert(IndexId::from_hex(value).ok()?)),
                "lost-index" => drop(told.lost_indexes.insert(IndexId::from_hex(value).ok()?)),
                "mark" => drop(told.marks.insert(value.to_owned())),
                _ => return None,
            }
        }
        Some(told)
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = format!("{FIRST_LINE}\ndamage {}\nbasis {}\n", self.damage, self.basis);
        add(&mut text, "incomplete", self.incomplete.iter());
        add(&mut text, "damaged-index", self.damaged_indexes.iter());
        add(&mut text, "mark", self.marks.iter());
        add(&mut text, "lost-index", self.lost_indexes.iter().take(LOST_INDEXES_MAX));
        add(&mut text, "complete", self.complete.iter());
        write_whole(path, text.as_bytes())
    }
}

/// Adds a line for each value until the file is full. Snapshots without a line are checked again, and damage without one is
/// told again.
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
        let path = cache.path().join("told");
        assert_eq!(Told::read(&path), Told::default());
        let told = Told {
            damage: name_of(&IndexCheck::default()),
            basis: basis_of(&HashSet::from([IndexId([6; 32])])),
            incomplete: HashSet::from([SnapshotId([1; 16])]),
            complete: HashSet::from([SnapshotId([2; 16]), SnapshotId([3; 16])]),
            damaged_indexes: HashSet::from([IndexId([4; 32])]),
            lost_indexes: HashSet::from([IndexId([5; 32])]),
            marks: BTreeSet::from(["0123456789abcdef".to_owned()]),
        };
        told.write(&path).expect("written");
        assert_eq!(Told::read(&path), told);
        for damaged in ["siltstone told 2\n", "siltstone told 1\nincomplete 12\n", "siltstone told 1\nother 12\n", "x"]
        {
            std::fs::write(&path, damaged).expect("written");
            assert_eq!(Told::read(&path), Told::default(), "{damaged}");
        }
    }
}
