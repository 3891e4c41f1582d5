//! One restore, or its plan, while it runs: what all threads share, what was counted, what went wrong.

use crate::disk::open::raise_open_files;
use crate::disk::umask::{ZeroUmask, zero_umask};
use crate::disk::{ApplyOptions, Identity, Owners};
use crate::error::{Error, Kind, Result};
use crate::id::ChunkId;
use crate::repo::snapshot::TROUBLES_MAX;
use crate::repo::{Chunk, PathText, Reader, Repository, Trouble};
use crate::restore::RestoreOptions;
use crate::restore::doomed::Doomed;
use crate::restore::folder::OpenFolders;
use crate::restore::links::Links;
use crate::restore::other_sources::OtherSources;
use crate::restore::overlap::Overlap;
use crate::restore::plan::{Named, Reads};
use crate::restore::rehearsal::{Rehearsal, Spared};
use crate::restore::scope::Scope;
use crate::watch::Watch;
use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};
use std::time::Duration;

/// Writers from far storage: some wait for it while others write.
const FAR_WRITERS_MIN: usize = 4;
/// Writers that help each other with large files wait on their stacks.
const WRITER_STACK_BYTES: usize = 8 << 20;
/// Directories held open at a time, where the limit of open files allows; deeper ones are opened again when needed.
const FOLDERS_OPEN_MAX: usize = 2048;
const FOLDERS_OPEN_MIN: usize = 8;
const MAKE_ROOM: &str =
    "free space in the target and restore again: what is there already is not restored a second time";

/// What a restore did.
#[derive(Clone, Debug, Default)]
pub struct RestoreReport {
    pub directories: u64,
    /// Files that were written.
    pub files: u64,
    pub others: u64,
    /// Entries that existed and were up to date.
    pub files_kept: u64,
    /// Existing entries that differ and were kept because of `overwrite`.
    pub files_left: u64,
    pub files_deleted: u64,
    /// Entries, directories included, whose name was free.
    pub created: u64,
    /// Entries, directories included, that replaced something.
    pub replaced: u64,
    /// Entries that were not restored because something that stays has their name.
    pub blocked: u64,
    pub bytes_written: u64,
    pub bytes_verified: u64,
    pub troubles: Vec<Trouble>,
    pub troubles_count: u64,
    /// Troubles that are damage of the repository: what they name is missing.
    pub damaged: u64,
    /// Directories that the backup saved in part: something was left out or could not be read.
    pub partial_directories: u64,
    pub duration: Duration,
}

/// What becomes of one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Created,
    Replaced,
    /// It was there and right.
    Kept,
    /// It was there, differs and is kept all the same.
    Left,
    /// Something that stays has its name.
    Blocked,
    Deleted,
}

pub(super) const FATES: usize = 6;

/// What a plan gathers.
#[derive(Default)]
pub(super) struct Planning {
    /// Whether files are compared by content, and the frames to be read are looked up.
    pub detailed: bool,
    /// Set where only the directories are looked at, to find out whether they meet.
    pub rehearsal: Option<Rehearsal>,
    pub named: Mutex<Named>,
    pub reads: Mutex<Reads>,
    pub doomed: Mutex<Doomed>,
}

/// Whether a walk only plans, or also acts.
pub(super) enum Mode<'a> {
    Plan(Box<Planning>),
    Deed { doomed: &'a Doomed },
}

#[derive(Default)]
pub(super) struct Counts {
    pub directories: AtomicU64,
    pub files: AtomicU64,
    pub others: AtomicU64,
    /// Files, other entries and bytes of content that are to be in the target at the end.
    pub files_wanted: AtomicU64,
    pub others_wanted: AtomicU64,
    pub bytes_wanted: AtomicU64,
    /// What of these bytes is the content of another name of the same inode.
    pub bytes_linked: AtomicU64,
    /// Entries that a filter names, whatever becomes of them.
    pub matched: AtomicU64,
    fates: [AtomicU64; FATES],
    pub bytes_written: AtomicU64,
    pub bytes_verified: AtomicU64,
    pub partial_directories: AtomicU64,
    /// Directories in which nothing is deleted although that is asked for.
    pub spared_directories: AtomicU64,
    pub troubles: AtomicU64,
    pub damaged: AtomicU64,
    failed: AtomicBool,
}

/// The devices met so far. Usually there is only one, which needs no lock.
#[derive(Default)]
pub(super) struct Devices {
    first: OnceLock<u64>,
    others: Mutex<HashSet<u64>>,
}

impl Devices {
    /// Whether this one was met before; from now on it was.
    pub fn met_before(&self, device: u64) -> bool {
        let mut is_first = false;
        let first = *self.first.get_or_init(|| {
            is_first = true;
            device
        });
        !is_first && (first == device || !locked(&self.others).insert(device))
    }
}

impl Counts {
    pub fn fate(&self, fate: Fate) -> u64 {
        get(&self.fates[fate as usize])
    }
}

pub(super) fn add(counter: &AtomicU64, amount: u64) {
    counter.fetch_add(amount, Ordering::Relaxed);
}

pub(super) fn get(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
}

thread_local! {
    /// Directories, devices and FIFOs are created with their exact mode in one call; the guard lives as long as its thread.
    static UMASK: RefCell<Option<ZeroUmask>> = const { RefCell::new(None) };
}

pub(super) struct Run<'a> {
    pub repo: &'a Repository,
    pub options: &'a RestoreOptions,
    pub scope: &'a Scope,
    pub mode: Mode<'a>,
    pub reader: Reader,
    owners: Owners,
    pub watch: &'a Watch,
    pub counts: Counts,
    troubles: Mutex<Vec<Trouble>>,
    failure: Mutex<Option<Error>>,
    pub links: Mutex<Links>,
    /// An inode with several names was met in the target.
    pub has_linked: AtomicBool,
    /// The devices of file systems whose precision of times was checked.
    pub times_checked: Devices,
    pub open_folders: OpenFolders,
    pub open_folders_max: usize,
    /// Whether the target is the place that the restored path was saved from.
    pub in_place: OnceLock<bool>,
    /// Whether the target was empty.
    pub is_fresh: OnceLock<bool>,
    /// Whether sources may meet in the target.
    pub overlap: OnceLock<Option<Overlap>>,
    /// Unless the target was empty: where the other sources are on this machine. Nothing deletes or replaces them.
    pub other_sources: OnceLock<OtherSources>,
    /// What a rehearsal found to have the same place as something else, if nothing meets.
    pub spared: OnceLock<HashMap<Vec<u8>, Spared>>,
    /// Links above sources that were followed, by directory and name: what is restored must not replace them.
    pub followed: Mutex<HashSet<(Identity, Vec<u8>)>>,
}

impl<'a> Run<'a> {
    pub fn new(
        repo: &'a Repository,
        reader: Reader,
        options: &'a RestoreOptions,
        scope: &'a Scope,
        mode: Mode<'a>,
        watch: &'a Watch,
    ) -> Result<Self> {
        // Each writer has a file open, storage some more; half of the limit is left for them.
        let open_max = usize::try_from(raise_open_files() / 2).unwrap_or(FOLDERS_OPEN_MAX);
        Ok(Run {
            repo,
            options,
            scope,
            mode,
            reader,
            owners: Owners::load()?,
            watch,
            counts: Counts::default(),
            troubles: Mutex::default(),
            failure: Mutex::default(),
            links: Mutex::default(),
            has_linked: AtomicBool::new(false),
            times_checked: Devices::default(),
            open_folders: OpenFolders::default(),
            open_folders_max: open_max.clamp(FOLDERS_OPEN_MIN, FOLDERS_OPEN_MAX),
            in_place: OnceLock::new(),
            is_fresh: OnceLock::new(),
            overlap: OnceLock::new(),
            other_sources: OnceLock::new(),
            spared: OnceLock::new(),
            followed: Mutex::default(),
        })
    }

    /// How many threads write, unless directories may meet in the target.
    pub fn writers(&self) -> usize {
        self.options.writers.max(if self.repo.is_far() { FAR_WRITERS_MIN } else { 1 })
    }

    /// The threads that write.
    pub fn pool(&self, writers: usize) -> Result<rayon::ThreadPool> {
        rayon::ThreadPoolBuilder::new()
            .num_threads(writers)
            .thread_name(|index| format!("writer-{index}"))
            .stack_size(WRITER_STACK_BYTES)
            .start_handler(|_| UMASK.with_borrow_mut(|umask| *umask = zero_umask()))
            .build()
            .map_err(Error::no_thread)
    }

    /// Whether this run changes the target.
    #[inline]
    pub fn is_deed(&self) -> bool {
        matches!(self.mode, Mode::Deed { .. })
    }

    /// Whether files are compared by content if metadata do not decide: always, except in a plan without details.
    pub fn compares(&self) -> bool {
        !matches!(&self.mode, Mode::Plan(planning) if !planning.detailed)
    }

    /// What a progress display is told to expect.
    pub fn expect(&self, files: u64, bytes: u64) {
        self.watch.progress.files_expected.store(files, Ordering::Relaxed);
        self.watch.progress.bytes_expected.store(bytes, Ordering::Relaxed);
    }

    pub fn progress(&self, files: u64, bytes: u64) {
        if self.is_deed() {
            add(&self.watch.progress.files_done, files);
            add(&self.watch.progress.bytes_done, bytes);
        }
    }

    /// Flags apart: they may forbid the renames and links that are still to come.
    pub fn apply_options(&self) -> ApplyOptions<'_> {
        ApplyOptions { owner: self.options.owner, numeric_ids: self.options.numeric_ids, owners: &self.owners }
    }

    /// Counts what becomes of an entry, and in a plan notes its path.
    pub fn fate(&self, fate: Fate, path: impl FnOnce() -> Vec<u8>) {
        add(&self.counts.fates[fate as usize], 1);
        if let Mode::Plan(planning) = &self.mode {
            locked(&planning.named).add(fate, path());
        }
    }

    /// Whether the run is to end: somebody asked for it, or something failed.
    pub fn is_over(&self) -> bool {
        if self.watch.cancel.is_cancelled() {
            self.fail(cancelled());
        }
        self.has_failed() || self.rehearsal().is_some_and(Rehearsal::is_over)
    }

    pub fn has_failed(&self) -> bool {
        self.counts.failed.load(Ordering::Relaxed)
    }

    /// Returns an error if the run is over.
    pub fn check(&self) -> Result<()> {
        if self.is_over() { Err(cancelled()) } else { Ok(()) }
    }

    /// Trouble with one entry: the rest goes on.
    pub fn trouble(&self, path: &[u8], what: impl Into<String>) {
        let what = what.into();
        add(&self.counts.troubles, 1);
        // A plan without details stays silent: the restore meets the same trouble again.
        if self.compares() {
            self.watch.trouble(path, what.clone());
        }
        let mut troubles = locked(&self.troubles);
        if troubles.len() < TROUBLES_MAX {
            troubles.push(Trouble { path: PathText(path.to_vec()), what });
        }
    }

    /// An entry could not be restored; a target that is full ends the run.
    pub fn failed_entry(&self, path: &[u8], error: Error) {
        let error = named_in_full(error, &crate::restore::plan::shown(path));
        self.rehearsal().iter().for_each(|rehearsal| rehearsal.fail_to_tell(&error));
        match error.kind() {
            Kind::Cancelled => self.fail(error),
            Kind::Full => {
                let shown = crate::restore::plan::shown(path);
                let hint = error.advice().unwrap_or(MAKE_ROOM).to_owned();
                let error = Error::new(Kind::Full, "restore", shown).because(error);
                let target = self.options.target.display();
                self.fail(Error::new(Kind::Full, "restore into", target).because(error).hint(hint));
            }
            kind => {
                add(&self.counts.damaged, u64::from(kind == Kind::Corrupt));
                self.trouble(path, error.to_string());
            }
        }
    }

    pub fn fail(&self, error: Error) {
        locked(&self.failure).get_or_insert(error);
        self.counts.failed.store(true, Ordering::Relaxed);
    }

    pub fn take_failure(&self) -> Option<Error> {
        locked(&self.failure).take()
    }

    /// Sorts the errors of reads from the repository. Damage (`Corrupt`) affects one entry; any other failure (an outage,
    /// a limit of this machine) would affect all of them and ends the run.
    pub fn stored<T>(&self, read: Result<T>) -> Result<T> {
        read.map_err(|error| match error.kind() {
            Kind::Corrupt | Kind::Cancelled => error,
            Kind::Temporary | Kind::Full | Kind::Locked | Kind::WrongKey | Kind::Gone => {
                self.fail(error);
                cancelled()
            }
            Kind::Denied if self.repo.is_far() => {
                self.fail(error);
                cancelled()
            }
            _ => Error::corrupt("read from the repository", "", error),
        })
    }

    pub fn content(&self, id: &ChunkId) -> Result<Chunk> {
        self.check()?;
        self.stored(self.reader.content(id))
    }

    pub fn length(&self, id: &ChunkId) -> Result<u64> {
        self.stored(self.reader.locate(id).map(|at| u64::from(at.length)))
    }

    /// Calls `each` for the chunks of an entry; its own errors come back as they are, those of the repository as
    /// [`Run::stored`] has them.
    pub fn each_chunk(&self, entry: &crate::entry::Entry, each: &mut dyn FnMut(&ChunkId) -> Result<()>) -> Result<()> {
        let mut refused = None;
        let walked = self.reader.for_each_chunk(entry, &mut |id| {
            self.check().and_then(|()| each(id)).map_err(|error| {
                let copy = error.copy();
                refused = Some(error);
                copy
            })
        });
        match refused {
            Some(error) => Err(error),
            None => self.stored(walked),
        }
    }

    pub fn take_troubles(&self) -> Vec<Trouble> {
        let mut troubles = std::mem::take(&mut *locked(&self.troubles));
        troubles.sort_by(|a, b| a.path.cmp(&b.path));
        troubles
    }

    pub fn report(self, duration: Duration) -> RestoreReport {
        let counts = &self.counts;
        RestoreReport {
            directories: get(&counts.directories),
            files: get(&counts.files),
            others: get(&counts.others),
            files_kept: counts.fate(Fate::Kept),
            files_left: counts.fate(Fate::Left),
            files_deleted: counts.fate(Fate::Deleted),
            created: counts.fate(Fate::Created),
            replaced: counts.fate(Fate::Replaced),
            blocked: counts.fate(Fate::Blocked),
            bytes_written: get(&counts.bytes_written),
            bytes_verified: get(&counts.bytes_verified),
            troubles: self.take_troubles(),
            troubles_count: get(&counts.troubles),
            damaged: get(&counts.damaged),
            partial_directories: get(&counts.partial_directories),
            duration,
        }
    }
}

/// The error with this path wherever it names only the last part of it, or the directory itself.
pub(super) fn named_in_full(error: Error, path: &str) -> Error {
    let name = path.rsplit('/').find(|part| !part.is_empty()).unwrap_or(path);
    error.renamed(".", path).renamed(name, path)
}

fn cancelled() -> Error {
    Error::new(Kind::Cancelled, "finish the restore", "").because("it was interrupted")
}
