//! Restore a snapshot to files. First comes the plan (read the tree, look at the target), then the restore.
//!
//! A plan and a restore are the same walk: the plan decides about each entry as the restore will, and changes nothing.

mod close_folders;
mod compare;
mod counts;
mod decision;
mod delete;
mod delete_entry;
mod delete_place;
mod delete_tree;
mod directory_facts;
mod enter;
mod existing;
mod file;
mod find_directory;
mod finish;
mod folder;
mod followed;
mod foreseen;
mod keep;
mod keep_reason;
mod leftovers;
mod link_names;
mod links;
mod location;
mod meeting;
mod needed;
mod offsets;
mod options;
mod other_sources;
mod overlap;
mod paths;
mod plan;
mod planned;
mod planned_deletions;
mod reached;
mod reasons;
mod rehearsal;
mod rehearsal_walk;
mod rename_into_place;
mod run;
mod scope;
mod spare_sources;
mod special;
mod steps;
mod take_directory;
mod target;
mod unmatched;
mod unsaved;
mod visit;
mod ways;

pub use counts::RestoreReport;
pub use options::{Overwrite, RestoreOptions};
pub use plan::RestorePlan;
pub use planned::{FirstPaths, PlanSummary};

use crate::error::Result;
use crate::repo::{Repository, Snapshot};
use crate::watch::Watch;
use run::{RestoreRun, RunMode};
use std::time::Instant;

impl Repository {
    /// Reads the snapshot's tree and looks at the target; changes nothing.
    pub fn plan_restore(&self, snapshot: &Snapshot, options: RestoreOptions, watch: &Watch) -> Result<RestorePlan> {
        self.check_access_to_files("restore from")?;
        plan::make(self, snapshot, options, watch)
    }
}

impl RestorePlan {
    /// Carries the plan out. The report names what could not be restored as it was saved; everything else is restored.
    /// Returns an error if the target as a whole fails (it is full).
    pub fn run(self, watch: &Watch) -> Result<RestoreReport> {
        let begun = Instant::now();
        watch.stage("restoring");
        self.announce(watch);
        let run = RestoreRun::new(
            &self.repo,
            self.reader.clone(),
            &self.options,
            &self.scope,
            RunMode::Restore { deletions: &self.deletions },
            watch,
        )?;
        run.expect(self.summary.files, self.expected_bytes);
        run.go(&self.root, &self.base)?;
        match run.ledger.take_failure() {
            Some(error) => Err(error),
            None => Ok(run.report(begun.elapsed())),
        }
    }
}
