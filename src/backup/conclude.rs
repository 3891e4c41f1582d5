//! The end of a run: commit, or end without a snapshot. Either way, the next run finds what was stored.

use crate::backup::checkpoints::write_rows;
use crate::backup::choose::BaselineChoice;
use crate::backup::counts::{BackupCounts, get};
use crate::backup::damage::{KnownLosses, damage_found};
use crate::backup::heal::{BeforeBackup, HealingCheck};
use crate::backup::options::BackupOptions;
use crate::backup::page_row::StateChanges;
use crate::backup::report::BackupReport;
use crate::backup::root_tree::SavedRoot;
use crate::backup::state::{LastSize, LocalState};
use crate::disk::rights;
use crate::error::{Error, Kind, Result};
use crate::id::SnapshotId;
use crate::repo::{Repository, Snapshot, SnapshotSource, Stamp, Totals, Writer};
use crate::seal::random;
use crate::watch::{Ledger, NoticeKind, now};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// What became of the sources.
pub(super) struct SavedOutcome {
    pub root: SavedRoot,
    /// Every source is as the parent has it; only found out if that ends the run without a snapshot.
    pub is_unchanged: bool,
    /// Something of the sources was stored, beside the directories above them.
    pub has_stored_sources: bool,
}

/// A run whose sources are saved, or that has failed.
pub(super) struct Conclusion<'a> {
    pub repo: &'a Repository,
    pub options: &'a BackupOptions,
    pub choice: BaselineChoice,
    pub damage: &'a KnownLosses<'a>,
    pub before: &'a BeforeBackup,
    pub sources: Vec<SnapshotSource>,
    pub counts: &'a BackupCounts,
    pub ledger: &'a Ledger<'a>,
    pub started: Stamp,
    pub begun: Instant,
}

impl Conclusion<'_> {
    /// `rows` are rows of local state that wait until the repository holds what they name. Without a writer it was a dry run.
    pub(crate) fn conclude(
        &self,
        saved: Result<SavedOutcome>,
        writer: Option<Writer>,
        rows: StateChanges,
    ) -> Result<BackupReport> {
        let saved = match self.ledger.take_failure() {
            Some(error) => Err(error),
            None if writer.is_some() && self.damage.has_found_packs() => saved.and(Err(damage_found())),
            None => saved,
        };
        match (saved, writer) {
            (Ok(saved), Some(writer)) => self.finish(saved, writer, rows),
            (Ok(_), None) => Ok(self.report(self.counts.totals())),
            (Err(error), Some(writer)) => {
                // The error that ended the run is what the caller must see; this saves what can be saved.
                let _best_effort = if error.is(Kind::Full) { writer.withdraw() } else { self.abandon(writer, rows) };
                Err(error)
            }
            (Err(error), None) => Err(error),
        }
    }

    fn finish(&self, saved: SavedOutcome, writer: Writer, rows: StateChanges) -> Result<BackupReport> {
        let healing = HealingCheck {
            repo: self.repo,
            damage: self.damage,
            before: self.before,
            is_state_distrusted: self.choice.is_state_distrusted,
            has_stored_sources: saved.has_stored_sources,
            watch: self.ledger.watch(),
        };
        if self.options.skip_if_unchanged && saved.is_unchanged && self.can_skip_snapshot(&healing, &writer) {
            let is_sound = writer.sink().check_nothing_is_gone();
            self.abandon(writer, rows)?;
            is_sound.and_then(|()| self.check_parent())?;
            return Ok(self.report(self.counts.totals()));
        }
        self.commit(saved.root, writer, rows, &healing)
    }

    fn commit(
        &self,
        root: SavedRoot,
        writer: Writer,
        rows: StateChanges,
        healing: &HealingCheck,
    ) -> Result<BackupReport> {
        let watch = self.ledger.watch();
        watch.stage("committing");
        if let Err(error) = writer.sink().checkpoint(|relied, own| {
            write_rows(self.choice.state.as_ref(), rows, relied, own, self.ledger);
        }) {
            // Nothing is left to save; the error that ended the run is what the caller must see.
            let _best_effort = writer.withdraw();
            return Err(error);
        }
        let mut totals = self.counts.totals();
        totals.bytes_new = writer.sink().bytes_new.load(Ordering::Relaxed);
        totals.bytes_stored = writer.sink().bytes_stored();
        let mut report = self.report(totals);
        let snapshot = self.snapshot(root, &report)?;
        // If this process dies after the commit step, the next run must know; on local storage it always looks.
        if self.repo.is_remote()
            && let Some(Err(error)) = self.choice.state.as_ref().map(LocalState::set_committing)
        {
            watch.notice(NoticeKind::Cache, error.to_string());
        }
        // What is lost from here on is for the next run to tell.
        let marks = healing.is_needed(writer.sink()).then(|| self.damage.unreported());
        let (_, unpublished) = writer.commit(&snapshot)?;
        let in_place = unpublished.is_none();
        match unpublished {
            None => {}
            // A restore refuses to choose between the two.
            Some(error) if error.is(Kind::Conflict) => {
                let what = "the snapshot is complete, but another object has its name: delete that object; until then silt refuses to \
                            restore this snapshot";
                self.ledger.warn(error.thing().as_bytes(), what);
                report.warnings.extend(self.ledger.take_warnings());
                report.warnings_count = self.ledger.warnings_count();
            }
            Some(error) => {
                let what = "the snapshot is complete, but not yet moved to its final place; the next backup does that";
                watch.notice(NoticeKind::Repository, format!("{what}: {error}"));
            }
        }
        let size = LastSize { files: snapshot.totals.files, bytes: snapshot.totals.bytes };
        if let Some(Err(error)) = self.choice.state.as_ref().map(|state| state.set_committed(size, in_place)) {
            watch.notice(NoticeKind::Cache, format!("{error}; the next backup will read more than necessary"));
        }
        (report.healing, report.record) = marks.map_or((None, None), |marks| healing.check(marks, &snapshot));
        report.snapshot = Some(snapshot);
        report.duration = self.begun.elapsed();
        Ok(report)
    }

    /// Ends without a snapshot. What was stored is found by the next run.
    fn abandon(&self, writer: Writer, rows: StateChanges) -> Result<()> {
        writer.abandon(|relied, own| write_rows(self.choice.state.as_ref(), rows, relied, own, self.ledger))
    }

    /// A report without a snapshot.
    fn report(&self, totals: Totals) -> BackupReport {
        BackupReport {
            snapshot: None,
            totals,
            bytes_to_read: self.options.dry_run.then(|| get(&self.counts.bytes_to_read)),
            warnings: self.ledger.take_warnings(),
            warnings_count: self.ledger.warnings_count(),
            repository: self.repo.storage().describe(),
            sockets: get(&self.counts.sockets),
            healing: None,
            duration: self.begun.elapsed(),
            losses: Vec::new(),
            record: None,
        }
    }

    fn snapshot(&self, root: SavedRoot, report: &BackupReport) -> Result<Snapshot> {
        let SavedRoot { tree, directory } = root;
        let mut snapshot = Snapshot {
            version: 1,
            id: SnapshotId(random()?),
            started: self.started,
            ended: Stamp::new(now(), self.options.offset),
            host: self.options.host.clone(),
            user: self.options.user.clone(),
            job: self.options.job.clone(),
            tags: self.options.tags.clone(),
            program: concat!("silt ", env!("CARGO_PKG_VERSION")).to_owned(),
            sources: self.sources.clone(),
            all_sources: None,
            root: tree,
            root_directory: directory.as_ref().map(Snapshot::root_directory_of),
            origin: None,
            lacks_trusted: !rights::sees_trusted(),
            totals: report.totals,
            warnings: report.warnings.clone(),
            warnings_count: report.warnings_count,
        };
        let identity = self.choice.identity.if_unchanged();
        let origin = identity.and_then(|identity| snapshot.origin_with(self.repo.keys(), identity));
        snapshot.origin = origin.map(|origin| origin.to_hex().to_string());
        Ok(snapshot.bounded())
    }

    /// "Unchanged since this snapshot" is worth nothing if the snapshot is gone.
    fn check_parent(&self) -> Result<()> {
        let Some(parent) = &self.choice.parent else { return Ok(()) };
        if self.repo.has_snapshot(parent)? {
            Ok(())
        } else {
            Err(Error::new(Kind::Stale, "finish the backup", "")
                .because(format!(
                    "snapshot {}, since which nothing has changed, was removed during the backup",
                    parent.id.short()
                ))
                .hint("run the backup again"))
        }
    }

    /// Whether the parent can stand in for a new snapshot: not if it has lost content, which this run may have stored again.
    fn can_skip_snapshot(&self, healing: &HealingCheck, writer: &Writer) -> bool {
        let reported = self.damage.reported();
        let has_stored = healing.has_stored_sources;
        let has_met_damage = self.damage.has_met() && (has_stored || reported.is_none());
        if has_met_damage || self.choice.may_be_outdated || !self.damage.unreported().is_empty() {
            return false;
        }
        match reported {
            _ if !healing.may_lack_something(writer.sink()) => true,
            Some(reported) => {
                !self.choice.parent.as_ref().is_some_and(|parent| reported.incomplete.contains(&parent.id))
            }
            None => !self.repo.remembers_losses() && !has_stored,
        }
    }
}
