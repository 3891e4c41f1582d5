//! A backup starts over when the repository turns out to be damaged, or changes, while it runs: what the first attempt
//! relied on may be gone, and the next one knows of it.

use crate::backup::completeness::is_whole;
use crate::backup::damage::damage_found;
use crate::backup::heal::BeforeBackup;
use crate::backup::options::BackupOptions;
use crate::backup::report::BackupReport;
use crate::backup::streams::Streams;
use crate::error::{Error, Kind, Result};
use crate::repo::{Repository, Snapshot};
use crate::watch::{NoticeKind, Watch};
use std::collections::BTreeSet;
use std::time::Instant;

/// A repository that keeps changing gets no further attempt.
const ATTEMPTS_MAX: usize = 3;
/// Attempts that found damaged packs or false index objects are counted separately: each reports the next ones of them, and their
/// number is limited.
const DAMAGED_MAX: usize = 16;

/// What the attempts of one backup leave to the next.
#[derive(Default)]
pub(super) struct CarriedOver {
    pub streams: Streams,
    pub before: BeforeBackup,
    said: BTreeSet<String>,
}

impl CarriedOver {
    /// What damage is there is said by the first attempt that meets it.
    pub(crate) fn say_once(&mut self, watch: &Watch, notice: String) {
        if self.said.insert(notice.clone()) {
            watch.notice(NoticeKind::Damage, notice);
        }
    }
}

impl Repository {
    /// Saves the sources as one snapshot. If something of a path cannot be saved, this is a warning in the report and in
    /// the snapshot; if a stream, the repository or this machine fails, it is an error, and no snapshot is written.
    pub fn backup(&self, options: BackupOptions, watch: &Watch) -> Result<BackupReport> {
        let begun = Instant::now();
        options.check()?;
        let (mut attempt, mut damaged) = (1, 0);
        let mut carried = CarriedOver::default();
        loop {
            let may_repeat = attempt < ATTEMPTS_MAX && damaged < DAMAGED_MAX;
            let found = || self.damaged_packs_found() + self.false_indexes() as u64;
            let damage_before = found();
            let done = self
                .attempt(&options, &mut carried, begun, watch)
                .map(|report| BackupReport { losses: carried.said.iter().cloned().collect(), ..report });
            let has_found_damage = found() > damage_before;
            let stale = match done {
                Err(error) if error.is(Kind::Stale) => error,
                // A pack turned out to be damaged only when the snapshot had been written, or found to be needless: it, or
                // the one before it, may refer to that pack.
                // A dry run relied on nothing.
                Ok(report) if has_found_damage && report.bytes_to_read.is_none() => match &report.snapshot {
                    Some(snapshot) => {
                        if is_whole(self, snapshot, watch).map_err(|error| unchecked(snapshot, error))? {
                            return Ok(report);
                        } else {
                            lacks_content(snapshot)
                        }
                    }
                    None => damage_found(),
                },
                done => return done,
            };
            if carried.streams.has_lost() || !may_repeat {
                return Err(stale);
            }
            self.check_is_there()?;
            watch.notice(NoticeKind::Restart, format!("the backup starts over: {}", stale.why()));
            watch.start_over();
            if has_found_damage { damaged += 1 } else { attempt += 1 }
        }
    }
}

fn lacks_content(snapshot: &Snapshot) -> Error {
    Error::new(Kind::Stale, "finish the backup", "")
        .because(format!("snapshot {} was created, but refers to damaged packs", snapshot.id.short()))
        .hint("run the backup again: it stores again what the damaged packs held, also for that snapshot")
}

fn unchecked(snapshot: &Snapshot, error: Error) -> Error {
    Error::new(error.kind(), "check the snapshot", snapshot.id.short())
        .because(error)
        .hint("it was created, but may refer to damaged data: run the backup again")
}
