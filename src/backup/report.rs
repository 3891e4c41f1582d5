//! What a backup did.

use crate::backup::heal::{DamageRecord, Healing};
use crate::entry::Warning;
use crate::repo::{Repository, Snapshot, SnapshotInfo, Totals};
use serde::{Serialize, Serializer};
use std::time::Duration;

/// What a backup did.
#[derive(Clone, Debug)]
pub struct BackupReport {
    /// None if no snapshot was created: in a dry run, or because nothing had changed (`skip_if_unchanged`).
    pub snapshot: Option<Snapshot>,
    /// Counts and sizes.
    pub totals: Totals,
    /// Of a dry run: sizes of the files that a backup would read. How much of them is new shows only when they are read.
    pub bytes_to_read: Option<u64>,
    /// What could not be saved as it was, the first of it.
    pub warnings: Vec<Warning>,
    /// How many warnings there were in all.
    pub warnings_count: u64,
    /// The location of the repository, for people.
    pub repository: String,
    /// Sockets, which cannot be saved and need not be.
    pub sockets: u64,
    /// What was repaired, if the repository had lost something.
    pub healing: Option<Healing>,
    /// How long the backup took.
    pub duration: Duration,
    /// What the repository has lost, as the notices of this run said it.
    pub losses: Vec<String>,
    /// What this report and the notices of the run say of damage.
    pub(super) record: Option<DamageRecord>,
}

/// What a dry run does not know is absent.
#[derive(Serialize)]
struct TotalsInfo {
    pub files: u64,
    pub directories: u64,
    pub others: u64,
    pub streams: u64,
    pub bytes: u64,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unchanged: u64,
    pub files_removed: u64,
    pub files_unread: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_read: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_new: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bytes_stored: Option<u64>,
}

impl TotalsInfo {
    fn new(totals: &Totals, is_dry_run: bool) -> Self {
        let known = |count: u64| (!is_dry_run).then_some(count);
        TotalsInfo {
            files: totals.files,
            directories: totals.directories,
            others: totals.others,
            streams: totals.streams,
            bytes: totals.bytes,
            files_new: totals.files_new,
            files_changed: totals.files_changed,
            files_unchanged: totals.files_unchanged,
            files_removed: totals.files_removed,
            files_unread: totals.files_unread,
            bytes_read: known(totals.bytes_read),
            bytes_new: known(totals.bytes_new),
            bytes_stored: known(totals.bytes_stored),
        }
    }
}

#[derive(Serialize)]
struct HealingInfo {
    chunks: u64,
    complete_again: Vec<String>,
    still_incomplete: Vec<String>,
}

impl From<&Healing> for HealingInfo {
    fn from(healing: &Healing) -> Self {
        let ids = |snapshots: &[Snapshot]| snapshots.iter().map(|snapshot| snapshot.id.to_hex()).collect();
        HealingInfo {
            chunks: healing.chunks,
            complete_again: ids(&healing.complete_again),
            still_incomplete: ids(&healing.still_incomplete),
        }
    }
}

impl Serialize for BackupReport {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct ReportInfo<'a> {
            snapshot: Option<SnapshotInfo<'a>>,
            dry_run: bool,
            bytes_to_read: Option<u64>,
            repository: &'a str,
            totals: TotalsInfo,
            sockets: u64,
            healing: Option<HealingInfo>,
            seconds: f64,
            warnings: &'a [Warning],
            warnings_count: u64,
        }
        let fields = ReportInfo {
            snapshot: self.snapshot.as_ref().map(SnapshotInfo::from),
            dry_run: self.is_dry_run(),
            bytes_to_read: self.bytes_to_read,
            repository: &self.repository,
            totals: TotalsInfo::new(&self.totals, self.is_dry_run()),
            sockets: self.sockets,
            healing: self.healing.as_ref().map(HealingInfo::from),
            seconds: self.duration.as_secs_f64(),
            warnings: &self.warnings,
            warnings_count: self.warnings_count,
        };
        fields.serialize(serializer)
    }
}

impl BackupReport {
    /// Whether nothing was written, or even read, as that was asked for.
    pub(crate) fn is_dry_run(&self) -> bool {
        self.bytes_to_read.is_some()
    }

    /// Notes that this report was shown. Until then, each further backup reports the same damage again: a report that was
    /// never printed, because the program was killed or the output could not be written, is not lost.
    pub fn confirm_shown(&self, repo: &Repository) {
        self.record.iter().for_each(|record| record.confirm(repo));
    }
}
