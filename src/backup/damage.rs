//! What a run knows of damage to the repository: what was missing when it began, what it met, and what was reported.

use crate::error::{Error, Kind};
use crate::id::{IndexId, SnapshotId};
use crate::repo::Repository;
use crate::vault::{IndexCheck, LossSet, ReportedDamage, basis_of};
use crate::when::format_counted;
use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

pub(super) struct KnownLosses<'a> {
    repo: &'a Repository,
    is_dry_run: bool,
    /// What the comparison of the local index with the repository found, after the writer had registered.
    pub check: IndexCheck,
    /// Losses that no run had reported when this one began.
    marks: LossSet,
    /// What earlier runs have reported; none without a cache.
    earlier: Option<ReportedDamage>,
    /// Index objects have come since then: runs that created no snapshot, and other hosts, store content as well.
    has_grown: bool,
    /// This run met something that should be in the repository and is not.
    has_met: AtomicBool,
    /// How many damaged packs were known when this run began.
    packs_before: u64,
}

impl<'a> KnownLosses<'a> {
    /// `marks` were there before the comparison: what is marked later may be lost since.
    pub(crate) fn new(repo: &'a Repository, mut marks: LossSet, check: IndexCheck, is_dry_run: bool) -> Self {
        let live = repo.view_and_basis().1.indexes;
        let moot = marks.take_moot(&live);
        if !moot.is_empty() {
            repo.forget_losses(&moot);
        }
        let earlier = repo.reported();
        let has_incomplete = earlier.as_ref().filter(|reported| !reported.incomplete.is_empty());
        let has_grown = has_incomplete.is_some_and(|reported| reported.basis != basis_of(&live));
        KnownLosses {
            repo,
            is_dry_run,
            check,
            marks,
            earlier,
            has_grown,
            has_met: AtomicBool::new(false),
            packs_before: repo.damaged_packs_found(),
        }
    }

    /// Losses that this run reports: it has met them, or they were met before it began.
    pub(crate) fn unreported(&self) -> LossSet {
        let mut marks = self.marks.clone();
        marks.join(self.repo.losses_marked_here());
        marks
    }

    /// What was reported of this damage, and maybe of more; none if some of it was not reported.
    pub(crate) fn reported(&self) -> Option<&ReportedDamage> {
        let is_new = !self.check.lost_indexes.is_empty() || !self.unreported().is_empty();
        self.earlier.as_ref().filter(|reported| !is_new && reported.covers(&self.check))
    }

    /// Whether something is damaged or was lost, or earlier snapshots are incomplete.
    pub(crate) fn is_known(&self) -> bool {
        let has_incomplete = self.earlier.as_ref().is_some_and(|reported| !reported.incomplete.is_empty());
        !self.check.is_sound() || !self.marks.is_empty() || has_incomplete
    }

    /// Whether snapshots that an earlier run called incomplete may be complete by now, whatever this run stores.
    pub(crate) fn may_be_over(&self) -> bool {
        let has_other_damage =
            |reported: &&ReportedDamage| !reported.incomplete.is_empty() && reported.differs_from(&self.check);
        self.has_grown || self.earlier.as_ref().filter(has_other_damage).is_some()
    }

    /// Whether an earlier run called this snapshot incomplete.
    pub(crate) fn was_incomplete(&self, snapshot: &SnapshotId) -> bool {
        self.earlier.as_ref().is_some_and(|reported| reported.incomplete.contains(snapshot))
    }

    /// Whether this run or an earlier one reports that these index objects are gone.
    pub(crate) fn has_reported(&self, indexes_lost: &HashSet<IndexId>) -> bool {
        has_reported(self.earlier.as_ref(), &self.check, &self.marks, indexes_lost)
    }

    /// Notes that some of what earlier runs reported as damaged or missing is there again: if it is lost again, that is reported again.
    pub(crate) fn note_what_is_back(&self) {
        let left = self.earlier.as_ref().and_then(|earlier| earlier.without_what_is_back(&self.check));
        left.into_iter().for_each(|left| self.repo.rewrite_reported(&left));
    }

    /// What is to be noted when the damage and these losses are reported. `now` is a later comparison: what is back since the run
    /// began, and lost again later, is reported again.
    pub(crate) fn as_reported(&self, marks: &LossSet, now: &IndexCheck) -> ReportedDamage {
        ReportedDamage {
            missing_packs: self.check.packs_missing.intersection(&now.packs_missing).copied().collect(),
            basis: basis_of(&self.repo.view_and_basis().1.indexes),
            damaged_indexes: self.check.indexes_damaged.intersection(&now.indexes_damaged).copied().collect(),
            lost_indexes: all_lost(self.earlier.as_ref(), &self.check, marks),
            ..ReportedDamage::default()
        }
    }

    /// Whether this run or an earlier one has reported that something is missing: then it is not reported for each page as well.
    pub(crate) fn is_announced(&self) -> bool {
        let has_reported = self.earlier.as_ref().is_some_and(|reported| !reported.lost_indexes.is_empty());
        has_reported
            || !self.check.packs_missing.is_empty()
            || !self.check.lost_indexes.is_empty()
            || !self.marks.is_empty()
    }

    /// Tells what is missing, if no run has, and marks it; each sentence is said through `say`.
    pub(crate) fn tell(&self, mut say: impl FnMut(String)) {
        if !self.check.packs_missing.is_empty() && self.reported().is_none() {
            if !self.is_dry_run && self.unreported().is_empty() {
                self.repo.mark_loss(&HashSet::new());
            }
            let count = self.check.packs_missing.len() as u64;
            say(format!(
                "{} missing from the repository, incomplete or damaged: the content is stored again if the sources still have it",
                format_counted(count, "pack is", "packs are"),
            ));
        }
        if self.unreported().indexes().next().is_some() || !self.check.lost_indexes.is_empty() {
            say("the repository has lost index objects that this host knew: the content that they listed is stored again if the \
                 sources still have it"
                .to_owned());
        }
    }

    /// Notes that something that should be in the repository is not: the run ends with a look at what it healed. If a pack
    /// turned out to be damaged that this run may have relied on already, it does not commit, and starts over. It goes on until
    /// then, so that the next attempt knows all such packs, and finds what this one stored.
    pub(crate) fn note(&self) {
        let is_told = || self.reported().is_some_and(|reported| !reported.incomplete.is_empty());
        if !self.has_met.swap(true, Ordering::Relaxed) && !self.is_dry_run && !is_told() {
            self.repo.mark_loss(&HashSet::new());
        }
    }

    /// Whether this run met something that should be in the repository and is not.
    pub(crate) fn has_met(&self) -> bool {
        self.has_met.load(Ordering::Relaxed)
    }

    /// Whether a pack turned out to be damaged that this run may rely on.
    pub(crate) fn has_found_packs(&self) -> bool {
        self.repo.damaged_packs_found() > self.packs_before
    }
}

/// Ends an attempt that may rely on a damaged pack.
pub(super) fn damage_found() -> Error {
    Error::new(Kind::Stale, "finish the backup", "")
        .because("an object in the repository is damaged or missing")
        .hint("run the backup again: it stores again what the damaged packs held")
}

fn has_reported(
    earlier: Option<&ReportedDamage>,
    check: &IndexCheck,
    marks: &LossSet,
    indexes_lost: &HashSet<IndexId>,
) -> bool {
    let reported = earlier.into_iter().flat_map(|reported| [&reported.lost_indexes, &reported.damaged_indexes]);
    let here = [&check.lost_indexes, &check.indexes_damaged];
    let known: HashSet<&IndexId> = reported.chain(here).flatten().chain(marks.indexes()).collect();
    indexes_lost.iter().all(|index| known.contains(index))
}

fn all_lost(earlier: Option<&ReportedDamage>, check: &IndexCheck, marks: &LossSet) -> HashSet<IndexId> {
    // One that was damaged may be deleted by now.
    let earlier =
        earlier.into_iter().flat_map(|reported| reported.lost_indexes.iter().chain(&reported.damaged_indexes));
    check.lost_indexes.iter().chain(marks.indexes()).chain(earlier).copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An index object that was reported as damaged, and then deleted, was reported as lost by the next job.
    #[test]
    fn damaged_index_objects_that_are_deleted_are_told() {
        let index = |number| IndexId([number; 32]);
        let earlier = ReportedDamage {
            damaged_indexes: HashSet::from([index(1)]),
            lost_indexes: HashSet::from([index(2)]),
            ..ReportedDamage::default()
        };
        let check = IndexCheck { lost_indexes: HashSet::from([index(3)]), ..IndexCheck::default() };
        let marks = LossSet::default();
        let lost = all_lost(Some(&earlier), &check, &marks);
        assert_eq!(lost, HashSet::from([index(1), index(2), index(3)]));
        assert!(has_reported(Some(&earlier), &check, &marks, &lost));
        assert!(!has_reported(Some(&earlier), &check, &marks, &HashSet::from([index(4)])));
    }
}
