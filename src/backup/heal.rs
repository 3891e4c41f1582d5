//! After damage: find out which earlier snapshots are complete again, because this backup stored again what they had lost.

use crate::backup::completeness::CompletenessCheck;
use crate::backup::damage::KnownLosses;
use crate::error::Result;
use crate::format::{snapshot_id, snapshot_name};
use crate::id::SnapshotId;
use crate::index::IndexView;
use crate::repo::{ChunkSink, Reader, Repository, Snapshot};
use crate::seal::KeyAccess;
use crate::vault::{LossSet, ReportedDamage};
use crate::watch::{NoticeKind, Watch};
use std::collections::BTreeSet;

/// What a backup healed in a repository that had lost something.
#[derive(Clone, Debug, Default)]
pub struct Healing {
    /// Chunks of earlier snapshots that were lost and are stored again.
    pub chunks: u64,
    /// Snapshots that lacked content, before this backup or when an earlier one looked, and lack none now, oldest first.
    pub complete_again: Vec<Snapshot>,
    /// Snapshots that still lack content, oldest first.
    pub still_incomplete: Vec<Snapshot>,
}

/// What was there when a backup began.
#[derive(Default)]
pub(super) struct BeforeBackup {
    /// The chunks that were stored when each attempt began, of the latest one as well.
    pub views: Vec<IndexView>,
    /// Names of the snapshots, if something was amiss.
    snapshots: Option<BTreeSet<String>>,
    /// The attempt that listed these names, counted from 0.
    listed_by: usize,
}

impl BeforeBackup {
    /// Notes which snapshots are there, if the run may look at them in the end. Without these names, those that others make
    /// meanwhile can be called complete again.
    pub(crate) fn note_snapshots(&mut self, repo: &Repository, damage: &KnownLosses) {
        if damage.is_known() && self.snapshots.is_none() && repo.keys().access() == KeyAccess::Full {
            self.snapshots = repo.snapshot_names().ok().map(BTreeSet::from_iter);
            self.listed_by = self.views.len().saturating_sub(1);
        }
    }

    /// Whether the snapshot existed when this backup began. Later ones refer to nothing that was lost before.
    fn had(&self, snapshot: &Snapshot) -> Result<bool> {
        let Some(names) = &self.snapshots else { return Ok(true) };
        Ok(names.contains(&snapshot_name(&snapshot.started.compact()?, &snapshot.id)))
    }

    /// The views to compare a snapshot with that was there. Attempts before the names were listed knew of no damage, and
    /// others may have made some of these snapshots since: what the earlier views lack of them was not lost.
    fn views_with_snapshots(&self) -> &[IndexView] {
        self.views.get(self.listed_by..).unwrap_or(&self.views)
    }
}

/// What a run reports of damage, and which losses that covers.
#[derive(Clone, Debug)]
pub(super) struct DamageRecord {
    reported: ReportedDamage,
    marks: LossSet,
}

impl DamageRecord {
    /// Notes that it was shown.
    pub(crate) fn confirm(&self, repo: &Repository) {
        repo.note_reported(&self.reported, &self.marks);
    }
}

/// What a check of the earlier snapshots needs to know of the run.
pub(super) struct HealingCheck<'a> {
    pub repo: &'a Repository,
    pub damage: &'a KnownLosses<'a>,
    pub before: &'a BeforeBackup,
    /// The local state was written for another content of the repository.
    pub is_state_distrusted: bool,
    /// Something of the sources was stored, beside the directories above them.
    pub has_stored_sources: bool,
    pub watch: &'a Watch,
}

impl HealingCheck<'_> {
    /// Whether the repository lacks something now, or has lost something since these sources were saved last.
    pub(crate) fn may_lack_something(&self, sink: &ChunkSink) -> bool {
        sink.has_met_damage() || self.is_state_distrusted
    }

    /// Whether this run may have healed something, or is the first that can tell what a loss means.
    pub(crate) fn is_needed(&self, sink: &ChunkSink) -> bool {
        let reported = self.damage.reported();
        let may_heal = match reported {
            Some(reported) => !reported.incomplete.is_empty() && self.has_stored_sources,
            None => self.may_lack_something(sink) && (self.has_stored_sources || self.repo.remembers_losses()),
        };
        let has_untold = !self.damage.unreported().is_empty() || (self.damage.has_met() && reported.is_none());
        has_untold
            || may_heal
            || self.damage.may_be_over()
            || reported.is_some_and(|reported| self.may_have_missed_some(reported))
    }

    /// Whether there are snapshots that no run has looked at since the repository was damaged: they could not be read then, or
    /// were away.
    fn may_have_missed_some(&self, reported: &ReportedDamage) -> bool {
        if !reported.has_damage() || self.repo.keys().access() < KeyAccess::Full {
            return false;
        }
        let is_missed = |name: &String| {
            let missed = snapshot_id(name).filter(|id| !reported.has_looked_at(id));
            // One that still cannot be read was reported.
            missed.is_some_and(|id| !reported.unread.contains(&id) || self.repo.snapshot_named(name).is_ok())
        };
        // If they cannot be listed, that is reported by the check that follows.
        self.repo.snapshot_names().map_or(true, |names| names.iter().any(is_missed))
    }

    /// Looks at the earlier snapshots that may lack something; `marks` are the losses that this reports. Returns what is to be
    /// noted once that is shown, too. If it cannot be found out, a notice says so: the backup itself is complete.
    pub(crate) fn check(&self, marks: LossSet, own: &Snapshot) -> (Option<Healing>, Option<DamageRecord>) {
        if self.repo.keys().access() < KeyAccess::Full {
            self.watch
                .notice(NoticeKind::Damage, "this key cannot read earlier snapshots, so it is not known which of them are complete again: run a backup with the password, key file or recovery key of the owner");
            let reported = self.damage.as_reported(&marks, &self.damage.check);
            return (None, Some(DamageRecord { reported, marks }));
        }
        self.watch.stage("checking earlier snapshots");
        let earlier = self.damage.reported();
        let looked = self.repo.snapshots_and_unreadable(&self.watch.aside()).and_then(|(snapshots, unread)| {
            let is_new = |snapshot: &Snapshot| earlier.is_none_or(|reported| !reported.complete.contains(&snapshot.id));
            let unknown = snapshots.into_iter().filter(|snapshot| snapshot.id != own.id && is_new(snapshot));
            let is_over = |snapshot: &Snapshot| self.damage.was_incomplete(&snapshot.id);
            // After the list: what others stored for these snapshots shows. Losses that show are for the next run to tell.
            let now = self.repo.compare_index(self.watch)?;
            let (healing, complete) =
                compare(&self.repo.reader(), self.before, &self.repo.view(), unknown, &is_over, self.watch)?;
            Ok((healing, complete, now, unread))
        });
        let (healing, complete, now, unread) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                self.watch.notice(
                    NoticeKind::Damage,
                    format!("cannot tell which earlier snapshots are complete again: {error}"),
                );
                return (None, None);
            }
        };
        let is_empty = healing.still_incomplete.is_empty() && healing.complete_again.is_empty() && healing.chunks == 0;
        if is_empty && !marks.is_empty() {
            self.watch.notice(
                NoticeKind::Damage,
                if unread.is_empty() {
                    "all earlier snapshots are complete"
                } else {
                    "all earlier snapshots that can be read are complete"
                },
            );
        }
        let mut reported = self.damage.as_reported(&marks, &now);
        reported.incomplete = healing.still_incomplete.iter().map(|snapshot| snapshot.id).collect();
        reported.unread = unread.iter().filter_map(|other| snapshot_id(&other.name)).collect();
        reported.complete = earlier.map(|reported| reported.complete.clone()).unwrap_or_default();
        reported.complete.extend(complete.into_iter().chain([own.id]));
        let is_known = earlier.is_some_and(|earlier| earlier.incomplete == reported.incomplete);
        let is_news = healing.chunks > 0 || !healing.complete_again.is_empty() || !is_known;
        ((is_news && !is_empty).then_some(healing), Some(DamageRecord { reported, marks }))
    }
}

/// What became of these snapshots; the ids are of those that are complete now.
fn compare(
    reader: &Reader,
    before: &BeforeBackup,
    after: &IndexView,
    snapshots: impl Iterator<Item = Snapshot>,
    was_incomplete: &dyn Fn(&Snapshot) -> bool,
    watch: &Watch,
) -> Result<(Healing, Vec<SnapshotId>)> {
    let mut look = CompletenessCheck::new(reader, before.views_with_snapshots(), after, watch);
    let mut look_since = CompletenessCheck::new(reader, std::slice::from_ref(after), after, watch);
    let (mut healing, mut complete) = (Healing::default(), Vec::new());
    for snapshot in snapshots {
        let whole =
            if before.had(&snapshot)? { look.tree(&snapshot.root)? } else { look_since.tree(&snapshot.root)? };
        if whole.after {
            complete.push(snapshot.id);
        }
        match (whole.before, whole.after) {
            (_, false) => healing.still_incomplete.push(snapshot),
            (false, true) => healing.complete_again.push(snapshot),
            (true, true) if was_incomplete(&snapshot) => healing.complete_again.push(snapshot),
            (true, true) => {}
        }
    }
    healing.chunks = look.healed.len() as u64;
    Ok((healing, complete))
}
