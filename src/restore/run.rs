//! One restore, or its plan, while it runs: what all threads share, what was counted, what went wrong.

use crate::disk::open::raise_open_files;
use crate::disk::umask::take_zero_umask;
use crate::disk::{ApplyOptions, Owners};
use crate::error::{Error, Kind, Result};
use crate::id::ChunkId;
use crate::lock::locked;
use crate::repo::{Chunk, Reader, Repository};
use crate::restore::counts::{EntryFate, RestoreCounts, RestoreReport, add, get};
use crate::restore::folder::OpenFolders;
use crate::restore::links::{LateEntries, LinkGroups};
use crate::restore::options::RestoreOptions;
use crate::restore::other_sources::OtherSources;
use crate::restore::overlap::SourceOverlap;
use crate::restore::paths::{named_in_full, shown};
use crate::restore::planned::{NamedPaths, PlannedReads};
use crate::restore::planned_deletions::PlannedDeletions;
use crate::restore::reached::FollowedLinks;
use crate::restore::rehearsal::{Rehearsal, SparedEntry};
use crate::restore::scope::SnapshotScope;
use crate::restore::unmatched::UnmatchedPatterns;
use crate::watch::{Ledger, Watch};
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, OnceLock};
use std::time::Duration;

/// Writers from remote storage: some wait for it while others write.
const REMOTE_WRITERS_MIN: usize = 4;
/// Writers that help each other with large files wait on their stacks.
const WRITER_STACK_BYTES: usize = 8 << 20;
/// Directories held open at a time, where the limit of open files allows; deeper ones are opened again when needed.
const FOLDERS_OPEN_MAX: usize = 2048;
const FOLDERS_OPEN_MIN: usize = 8;
const MAKE_ROOM: &str =
    "free space in the target and restore again: what is there already is not restored a second time";

/// What a plan gathers.
#[derive(Default)]
pub(super) struct PlanGathering {
    /// Whether files are compared by content, and the frames to be read are looked up.
    pub detailed: bool,
    /// Set where only the directories are looked at, to find out whether they meet.
    pub rehearsal: Option<Rehearsal>,
    pub named: Mutex<NamedPaths>,
    pub reads: Mutex<PlannedReads>,
    pub deletions: Mutex<PlannedDeletions>,
    /// Patterns of `--include` that have matched nothing so far.
    pub unmatched: Mutex<UnmatchedPatterns>,
}

/// Whether a walk only plans, or also acts.
pub(super) enum RunMode<'a> {
    Plan(Box<PlanGathering>),
    Restore { deletions: &'a PlannedDeletions },
}

/// The devices met so far. Usually there is only one, which needs no lock.
#[derive(Default)]
pub(super) struct MetDevices {
    first: OnceLock<u64>,
    others: Mutex<HashSet<u64>>,
}

impl MetDevices {
    /// Whether this one was met before; from now on it was.
    pub(crate) fn met_before(&self, device: u64) -> bool {
        let mut is_first = false;
        let first = *self.first.get_or_init(|| {
            is_first = true;
            device
        });
        !is_first && (first == device || !locked(&self.others).insert(device))
    }
}

pub(super) struct RestoreRun<'a> {
    pub repo: &'a Repository,
    pub options: &'a RestoreOptions,
    pub scope: &'a SnapshotScope,
    pub mode: RunMode<'a>,
    pub reader: Reader,
    owners: Owners,
    pub watch: &'a Watch,
    pub counts: RestoreCounts,
    pub ledger: Ledger<'a>,
    pub links: Mutex<LinkGroups>,
    pub open_folders: OpenFolders,
    pub target: TargetFindings,
}

/// What a run has found out about its target. What is found once does not change.
#[derive(Default)]
pub(super) struct TargetFindings {
    /// Whether it is the place that the restored path was saved from.
    pub in_place: OnceLock<bool>,
    /// Whether it was empty.
    pub is_fresh: OnceLock<bool>,
    /// Whether sources may meet in it.
    pub overlap: OnceLock<Option<SourceOverlap>>,
    /// Unless it was empty: where the other sources are on this machine. Nothing deletes or replaces them.
    pub other_sources: OnceLock<OtherSources>,
    /// What a rehearsal found to have the same place as something else, if nothing meets.
    pub spared: OnceLock<HashMap<Vec<u8>, SparedEntry>>,
    pub followed: Mutex<FollowedLinks>,
    /// An inode with several names was met in it.
    pub has_linked: AtomicBool,
    pub late: Mutex<LateEntries>,
    /// The devices of file systems whose precision of times was checked.
    pub times_checked: MetDevices,
}

impl<'a> RestoreRun<'a> {
    pub(crate) fn new(
        repo: &'a Repository,
        reader: Reader,
        options: &'a RestoreOptions,
        scope: &'a SnapshotScope,
        mode: RunMode<'a>,
        watch: &'a Watch,
    ) -> Result<Self> {
        // Each writer has a file open, storage some more; half of the limit is left for them.
        let open_max = usize::try_from(raise_open_files() / 2).unwrap_or(FOLDERS_OPEN_MAX);
        Ok(RestoreRun {
            repo,
            options,
            scope,
            mode,
            reader,
            owners: Owners::load()?,
            watch,
            counts: RestoreCounts::default(),
            ledger: Ledger::new(watch, "finish the restore"),
            links: Mutex::default(),
            open_folders: OpenFolders::up_to(open_max.clamp(FOLDERS_OPEN_MIN, FOLDERS_OPEN_MAX)),
            target: TargetFindings::default(),
        })
    }

    /// How many threads write, unless directories may meet in the target.
    pub(crate) fn writers(&self) -> usize {
        self.options.writers.max(if self.repo.is_remote() { REMOTE_WRITERS_MIN } else { 1 })
    }

    /// The threads that write.
    pub(crate) fn pool(&self, writers: usize) -> Result<rayon::ThreadPool> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(writers)
            .thread_name(|index| format!("writer-{index}"))
            .stack_size(WRITER_STACK_BYTES)
            .start_handler(|_| take_zero_umask())
            .build()
            .map_err(Error::no_thread)
    }

    /// In a plan, notes which patterns of `--include` match an entry.
    pub(crate) fn note_included(&self, path: &[u8], is_directory: bool) {
        if let RunMode::Plan(planning) = &self.mode {
            locked(&planning.unmatched).note(path, is_directory);
        }
    }

    /// Whether this run changes the target.
    #[inline]
    pub(crate) fn is_restore(&self) -> bool {
        matches!(self.mode, RunMode::Restore { .. })
    }

    /// Whether files are compared by content if metadata do not decide: always, except in a plan without details.
    pub(crate) fn compares(&self) -> bool {
        !matches!(&self.mode, RunMode::Plan(planning) if !planning.detailed)
    }

    /// What a progress display expects.
    pub(crate) fn expect(&self, files: u64, bytes: u64) {
        self.watch.progress.files_expected.store(files, Ordering::Relaxed);
        self.watch.progress.bytes_expected.store(bytes, Ordering::Relaxed);
    }

    pub(crate) fn progress(&self, files: u64, bytes: u64) {
        if self.is_restore() {
            add(&self.watch.progress.files_done, files);
            add(&self.watch.progress.bytes_done, bytes);
        }
    }

    /// Flags apart: they may forbid the renames and links that are still to come.
    pub(crate) fn apply_options(&self) -> ApplyOptions<'_> {
        ApplyOptions {
            owner: self.options.owner,
            numeric_ids: self.options.numeric_ids,
            lacks_trusted: self.scope.lacks_trusted,
            owners: &self.owners,
        }
    }

    /// Counts what becomes of an entry, and in a plan notes its path.
    pub(crate) fn fate(&self, fate: EntryFate, path: impl FnOnce() -> Vec<u8>) {
        add(&self.counts.fates[fate as usize], 1);
        if let RunMode::Plan(planning) = &self.mode {
            locked(&planning.named).add(fate, path());
        }
    }

    /// Whether the run is to end: it was cancelled, or something failed.
    pub(crate) fn should_stop(&self) -> bool {
        self.ledger.should_stop() || self.rehearsal().is_some_and(Rehearsal::is_over)
    }

    /// Returns an error if the run is over.
    pub(crate) fn check(&self) -> Result<()> {
        if self.should_stop() { Err(self.ledger.interrupted()) } else { Ok(()) }
    }

    /// Reports that one entry is not restored as it was. The rest goes on.
    pub(crate) fn warn(&self, path: &[u8], what: impl Into<String>) {
        // A plan without details stays silent: the restore meets the same again.
        if self.compares() { self.ledger.warn(path, what) } else { self.ledger.record(path, what) }
    }

    /// An entry could not be restored; a target that is full ends the run.
    pub(crate) fn failed_entry(&self, path: &[u8], error: Error) {
        add(&self.counts.failed, 1);
        self.failed_step(path, error);
    }

    /// Something could not be done about an entry, which has been restored or is not to be.
    pub(crate) fn failed_step(&self, path: &[u8], error: Error) {
        let error = named_in_full(error, &shown(path));
        self.rehearsal().iter().for_each(|rehearsal| rehearsal.fail_to_tell(&error));
        match error.kind() {
            Kind::Cancelled => self.ledger.fail(error),
            Kind::Full => {
                let shown = shown(path);
                let hint = error.advice().unwrap_or(MAKE_ROOM).to_owned();
                let error = Error::new(Kind::Full, "restore", shown).because(error);
                let target = self.options.target.display();
                self.ledger.fail(Error::new(Kind::Full, "restore into", target).because(error).hint(hint));
            }
            kind => {
                add(&self.counts.damaged, u64::from(kind == Kind::Corrupt));
                self.warn(path, error.to_string());
            }
        }
    }

    /// Sorts the errors of reads from the repository. Damage (`Corrupt`) affects one entry; any other failure (an outage,
    /// a limit of this machine) would affect all of them and ends the run.
    pub(crate) fn stored<T>(&self, read: Result<T>) -> Result<T> {
        read.map_err(|error| match error.kind() {
            Kind::Corrupt | Kind::Cancelled => error,
            Kind::Temporary | Kind::Full | Kind::Locked | Kind::WrongKey | Kind::Gone => {
                self.ledger.fail(error);
                self.ledger.interrupted()
            }
            Kind::Denied if self.repo.is_remote() => {
                self.ledger.fail(error);
                self.ledger.interrupted()
            }
            _ => Error::corrupt("read from the repository", "", error),
        })
    }

    pub(crate) fn content(&self, id: &ChunkId) -> Result<Chunk> {
        self.check()?;
        self.stored(self.reader.content(id))
    }

    pub(crate) fn length(&self, id: &ChunkId) -> Result<u64> {
        self.stored(self.reader.locate(id).map(|at| u64::from(at.length)))
    }

    /// Calls `each` for the chunks of an entry; its own errors come back as they are, those of the repository as
    /// [`RestoreRun::stored`] has them.
    pub(crate) fn each_chunk(
        &self,
        entry: &crate::entry::Entry,
        each: &mut dyn FnMut(&ChunkId) -> Result<()>,
    ) -> Result<()> {
        let mut refused = None;
        let walked = self.reader.for_each_chunk(entry, &mut |id| {
            self.check().and_then(|()| each(id)).map_err(|error| {
                let copy = error.clone();
                refused = Some(error);
                copy
            })
        });
        match refused {
            Some(error) => Err(error),
            None => self.stored(walked),
        }
    }

    pub(crate) fn report(self, duration: Duration) -> RestoreReport {
        let counts = &self.counts;
        RestoreReport {
            directories: get(&counts.directories),
            files: get(&counts.files),
            others: get(&counts.others),
            files_kept: counts.fate(EntryFate::Kept),
            metadata_restored: counts.fate(EntryFate::Updated),
            files_kept_different: counts.fate(EntryFate::Left),
            files_deleted: counts.fate(EntryFate::Deleted),
            created: counts.fate(EntryFate::Created),
            replaced: counts.fate(EntryFate::Replaced),
            blocked: counts.fate(EntryFate::Blocked),
            bytes_written: get(&counts.bytes_written),
            bytes_verified: get(&counts.bytes_verified),
            warnings: self.ledger.take_warnings(),
            warnings_count: self.ledger.warnings_count(),
            damaged: get(&counts.damaged),
            partial_directories: get(&counts.partial_directories),
            duration,
        }
    }
}
