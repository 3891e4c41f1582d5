//! Restore a snapshot to files. First comes the plan (read the tree, look at the target), then the restore.
//!
//! A plan and a restore are the same walk: the plan decides about each entry as the restore will, and changes nothing.

mod compare;
mod delete;
mod delete_tree;
mod doomed;
mod enter;
mod existing;
mod file;
mod finish;
mod folder;
mod keep_reason;
mod leftovers;
mod links;
mod location;
mod options;
mod other_sources;
mod overlap;
mod place;
mod plan;
mod rehearsal;
mod run;
mod scope;
mod special;
mod visit;
mod ways;

pub use options::{Overwrite, RestoreOptions};
pub use plan::{Paths, PlanSummary, RestorePlan};
pub use run::RestoreReport;

use crate::error::Result;
use crate::repo::{Repository, Snapshot};
use crate::watch::Watch;
use run::{Mode, Run};
use std::time::Instant;

impl Repository {
    /// Reads the snapshot's tree and looks at the target; changes nothing.
    pub fn plan_restore(&self, snapshot: &Snapshot, options: RestoreOptions, watch: &Watch) -> Result<RestorePlan> {
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
        let run = Run::new(
            &self.repo,
            self.reader.clone(),
            &self.options,
            &self.scope,
            Mode::Deed { doomed: &self.doomed },
            watch,
        )?;
        run.expect(self.summary.files, self.expected_bytes);
        run.go(&self.root, &self.base)?;
        match run.take_failure() {
            Some(error) => Err(error),
            None => Ok(run.report(begun.elapsed())),
        }
    }
}
