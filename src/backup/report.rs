//! What a backup did.

use crate::backup::heal::{Healing, Telling};
use crate::entry::Warning;
use crate::repo::{Repository, Snapshot, Totals};
use std::time::Duration;

#[derive(Clone, Debug)]
pub struct BackupReport {
    /// None when nothing was written: a dry run, or nothing had changed.
    pub snapshot: Option<Snapshot>,
    pub totals: Totals,
    /// Of a dry run: sizes of the files that a backup would read. How much of them is new shows only when they are read.
    pub bytes_to_read: Option<u64>,
    pub warnings: Vec<Warning>,
    pub warnings_count: u64,
    /// Sockets, which cannot be saved and need not be.
    pub sockets: u64,
    /// What was healed, if the repository had lost something.
    pub healing: Option<Healing>,
    pub duration: Duration,
    /// What the repository has lost, as the notices of this run said it.
    pub losses: Vec<String>,
    /// What of damage this report and the notices of the run tell.
    pub(super) telling: Option<Telling>,
}

impl BackupReport {
    /// Notes that this report was shown. Until then, each further backup reports the same damage again: a report that was
    /// never printed, because the program was killed or the output could not be written, is not lost.
    pub fn confirm_shown(&self, repo: &Repository) {
        self.telling.iter().for_each(|telling| telling.confirm(repo));
    }
}
