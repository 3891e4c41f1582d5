//! Snapshot → files. The whole line on this page: plan (read the tree, look at the target), then write.

mod existing;
mod file;
mod folder;
mod links;
mod options;
mod plan;

pub use options::{Overwrite, RestoreOptions};
pub use plan::{PlanSummary, RestorePlan};

use crate::disk::umask::{ZeroUmask, zero_umask};
use crate::disk::{ApplyOptions, Directory, Owners, Target};
use crate::error::{Error, Kind, Result};
use crate::repo::snapshot::TROUBLES_MAX;
use crate::repo::{PathText, Reader, Repository, Snapshot, Trouble};
use crate::watch::Watch;
use folder::Folder;
use std::cell::RefCell;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// Writers from far storage: some wait for it while others write.
const FAR_WRITERS_MIN: usize = 4;

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
        plan::make(self, snapshot, options, watch)
    }
}

impl RestorePlan {
    /// Carries the plan out. What cannot be restored as it was is in the report, the rest is restored; trouble of the
    /// target as a whole (it is full, it cannot be written) is an error.
    pub fn run(self, watch: &Watch) -> Result<RestoreReport> {
        let begun = Instant::now();
        let target = &self.options.target;
        std::fs::create_dir_all(target).map_err(|error| Error::io("make the folder", target.display(), error))?;
        let root = Arc::new(Target::new(Directory::open_path(target.as_os_str().as_bytes())?)?);
        let owners = Owners::load()?;
        let writers = self.options.writers.max(if self.repo.is_far() { FAR_WRITERS_MIN } else { 1 });
        let run = Run::new(self, &owners, watch);
        rayon::ThreadPoolBuilder::new()
            .num_threads(writers)
            .thread_name(|index| format!("writer-{index}"))
            .start_handler(|_| UMASK.with_borrow_mut(|umask| *umask = zero_umask()))
            .build()
            .map_err(|error| Error::new(Kind::Failed, "start the writers", "").because(error))?
            .scope(|scope| run.restore_root(scope, root));
        run.make_links();
        match run.take_failure() {
            Some(error) => Err(error),
            None => Ok(run.report(begun.elapsed())),
        }
    }
}

thread_local! {
    /// Files are created with their mode in one step; the guard lives as long as its thread.
    static UMASK: RefCell<Option<ZeroUmask>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Counts {
    directories: AtomicU64,
    files: AtomicU64,
    others: AtomicU64,
    files_kept: AtomicU64,
    files_deleted: AtomicU64,
    bytes_written: AtomicU64,
    bytes_verified: AtomicU64,
    troubles: AtomicU64,
    failed: AtomicBool,
}

fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

/// One restore while it runs: what all its threads share.
struct Run<'a> {
    plan: RestorePlan,
    reader: Reader,
    owners: &'a Owners,
    watch: &'a Watch,
    counts: Counts,
    troubles: Mutex<Vec<Trouble>>,
    failure: Mutex<Option<Error>>,
    links: Mutex<links::Links>,
}

impl<'a> Run<'a> {
    fn new(plan: RestorePlan, owners: &'a Owners, watch: &'a Watch) -> Self {
        watch.stage("restoring");
        watch.progress.files_expected.store(plan.summary.files, Ordering::Relaxed);
        watch.progress.bytes_expected.store(plan.summary.bytes, Ordering::Relaxed);
        Run {
            reader: plan.repo.reader(),
            plan,
            owners,
            watch,
            counts: Counts::default(),
            troubles: Mutex::default(),
            failure: Mutex::default(),
            links: Mutex::default(),
        }
    }

    fn options(&self) -> &RestoreOptions {
        &self.plan.options
    }

    fn apply_options(&self) -> ApplyOptions<'a> {
        let options = self.options();
        ApplyOptions {
            owner: options.owner,
            numeric_ids: options.numeric_ids,
            owners: self.owners,
            xattrs: true,
            flags: true,
        }
    }

    fn restore_root<'s>(&'s self, scope: &rayon::Scope<'s>, target: Arc<Target>) {
        let root = &self.plan.root;
        match &root.content {
            crate::entry::Content::Tree(tree) => {
                let metadata = (!root.name.is_empty()).then(|| root.clone());
                let folder = Folder::top(target, self.plan.base.clone(), metadata, self.plan.root_taken);
                self.visit(scope, Arc::new(folder), *tree);
            }
            _ if root.is_directory() => {}
            _ => {
                let folder = Folder::top(target, self.plan.base.clone(), None, true);
                self.restore_entry(scope, &Arc::new(folder), root.clone());
            }
        }
    }

    fn is_over(&self) -> bool {
        if self.watch.cancel.is_cancelled() {
            self.fail(Error::new(Kind::Cancelled, "finish the restore", "").because("it was interrupted"));
        }
        self.counts.failed.load(Ordering::Relaxed)
    }

    /// Trouble with one entry: the rest goes on.
    fn trouble(&self, path: &[u8], what: impl Into<String>) {
        let what = what.into();
        self.watch.trouble(path, what.clone());
        add(&self.counts.troubles, 1);
        let mut troubles = locked(&self.troubles);
        if troubles.len() < TROUBLES_MAX {
            troubles.push(Trouble { path: PathText(path.to_vec()), what });
        }
    }

    /// An entry could not be restored; a target that is full or refuses everything ends the run.
    fn failed_entry(&self, path: &[u8], error: Error) {
        match error.kind() {
            Kind::Full | Kind::Cancelled => self.fail(error),
            _ => self.trouble(path, error.to_string()),
        }
    }

    fn fail(&self, error: Error) {
        locked(&self.failure).get_or_insert(error);
        self.counts.failed.store(true, Ordering::Relaxed);
    }

    fn take_failure(&self) -> Option<Error> {
        locked(&self.failure).take()
    }

    fn report(self, duration: Duration) -> RestoreReport {
        let get = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let mut troubles = std::mem::take(&mut *locked(&self.troubles));
        troubles.sort_by(|a, b| a.path.cmp(&b.path));
        RestoreReport {
            directories: get(&self.counts.directories),
            files: get(&self.counts.files),
            others: get(&self.counts.others),
            files_kept: get(&self.counts.files_kept),
            files_deleted: get(&self.counts.files_deleted),
            bytes_written: get(&self.counts.bytes_written),
            bytes_verified: get(&self.counts.bytes_verified),
            troubles,
            troubles_count: get(&self.counts.troubles),
            duration,
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}
