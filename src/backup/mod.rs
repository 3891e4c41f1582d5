//! Sources → snapshot. The whole line on this page: walk, detect change, read, chunk, claim, frame, pack, index, commit.

mod assemble;
mod attempts;
mod build;
mod bytes;
mod content;
mod counts;
mod crew;
mod damage;
mod detect;
mod expected;
mod heal;
mod large;
mod left_out;
mod nested;
mod page;
mod previous;
mod readers;
mod scan;
mod sources;
mod state;
mod stored;
mod streams;
mod walk;
mod zeros;

pub use detect::Comparison;
pub use heal::Healing;
pub use sources::missing_source;
pub use state::State;

use crate::backup::attempts::{Carried, damage_found};
use crate::backup::damage::Damage;
use crate::backup::left_out::LeftOut;
use crate::backup::readers::Readers;
use crate::backup::state::StateChanges;
use crate::backup::streams::Streams;
use crate::disk::Owners;
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::format::snapshot::{LABELS_BYTES_MAX, WARNINGS_MAX, encoded_length};
use crate::id::IndexId;
use crate::id::SnapshotId;
use crate::index::Basis;
use crate::lock::locked;
use crate::repo::{
    OwnFolders, PathText, Repository, SinkOptions, Snapshot, SnapshotSource, Stamp, Totals, Warning, Writer,
};
use crate::seal::{Compression, random};
use crate::source::rules::Rules;
use crate::source::stream::Stream;
use crate::watch::{Watch, now};
use assemble::{Assembly, SavedRoot};
use std::collections::BTreeSet;
use std::io::Read;
use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Where the standard input goes in a snapshot, and what reads it.
pub type Input = Box<dyn Read + Send + Sync>;

/// What to back up and how.
pub struct BackupOptions {
    /// Absolute, without `.` and `..`. A path that is saved with one above it is dropped when the backup begins.
    pub paths: Vec<PathBuf>,
    /// Sources that are known to be missing before the backup begins: each is a warning.
    pub missing: Vec<Warning>,
    pub streams: Vec<Stream>,
    /// Environment variables that the commands of streams see although they may hold secrets.
    pub stream_environment: Vec<String>,
    /// Standard input, and the name of its stream.
    pub input: Option<(Vec<u8>, Input)>,
    pub rules: Rules,
    pub comparison: Comparison,
    /// Read all files, even those that seem unchanged.
    pub force: bool,
    /// Compare with this snapshot instead of the local state.
    pub parent: Option<SnapshotId>,
    pub dry_run: bool,
    pub skip_if_unchanged: bool,
    pub host: String,
    pub user: String,
    pub job: String,
    pub tags: Vec<String>,
    /// The time of the snapshot, instead of now.
    pub time: Option<crate::entry::Time>,
    /// The offset of the host's time zone from UTC, in seconds east.
    pub offset: i32,
    pub compression: Compression,
    /// If the size of the sources is not known from an earlier backup, count them at the same time, so that progress can
    /// say how much is left.
    pub count_ahead: bool,
    /// How many files are read at the same time; with none, as many as keep the processors busy.
    pub readers: Option<usize>,
    /// The memory that all buffers together may take, in bytes.
    pub memory_bytes: u64,
}

impl BackupOptions {
    /// The default limit of the buffers of a backup, in bytes: more on machines with many processors.
    pub fn default_memory_bytes() -> u64 {
        let processors = std::thread::available_parallelism().map_or(1, |count| count.get()) as u64;
        (256 << 20).max(processors * readers::READER_MEMORY_BYTES)
    }

    /// Backs up these paths with every setting at its default.
    pub fn new(paths: Vec<PathBuf>, host: &str) -> Self {
        BackupOptions {
            paths,
            missing: Vec::new(),
            streams: Vec::new(),
            stream_environment: Vec::new(),
            input: None,
            rules: Rules::default(),
            comparison: Comparison::default(),
            force: false,
            parent: None,
            dry_run: false,
            skip_if_unchanged: false,
            host: host.to_owned(),
            user: String::new(),
            job: String::new(),
            tags: Vec::new(),
            time: None,
            offset: 0,
            compression: Compression::Auto,
            count_ahead: false,
            readers: None,
            memory_bytes: Self::default_memory_bytes(),
        }
    }

    /// Refuses what no snapshot can hold, before anything is read.
    pub fn check(&self) -> Result<()> {
        let labels = (&self.host, &self.user, &self.job, &self.tags);
        let bytes = encoded_length(&labels);
        if bytes > LABELS_BYTES_MAX {
            let why = format!(
                "its host, user, job and tags take {bytes} bytes as JSON; at most {LABELS_BYTES_MAX} can be saved"
            );
            return Err(Error::invalid("make the snapshot", "", why)
                .hint("use fewer or shorter tags, or a shorter name of the job"));
        }
        self.check_places()
    }

    /// Refuses streams that have the place of another source in the snapshot.
    fn check_places(&self) -> Result<()> {
        let input = self.input.as_ref().map(|(name, _)| name);
        let streams =
            || self.streams.iter().map(|stream| &stream.name).chain(input).map(|name| [b"/", &name[..]].concat());
        let trees = self.paths.iter().map(|path| path.as_os_str().as_encoded_bytes().to_vec());
        let mut taken: BTreeSet<Vec<u8>> = trees.filter(|path| path != b"/").collect();
        for place in streams() {
            let below = [&place[..], b"/"].concat();
            let has_below = taken.range(below.clone()..).next().is_some_and(|next| next.starts_with(&below));
            let ends = (1..place.len()).filter(|at| place[*at] == b'/').chain([place.len()]);
            if has_below || ends.into_iter().any(|end| taken.contains(&place[..end])) {
                return Err(same_place(&place[1..]));
            }
            taken.insert(place);
        }
        Ok(())
    }

    /// Names the local state: the same sources under the same job share it.
    fn state_name(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.job.as_bytes());
        // Which of the others are sources of their own depends on what is mounted.
        for path in nested::tops(&self.paths) {
            hasher.update(&[0]);
            hasher.update(path.as_os_str().as_encoded_bytes());
        }
        hasher.finalize().to_hex()[..24].to_owned()
    }
}

/// Said of a stream where another source has its place.
fn same_place(name: &[u8]) -> Error {
    let shown = String::from_utf8_lossy(name).into_owned();
    Error::invalid("save", shown, "two sources of this backup have the same path").hint("give the stream another name")
}

/// What a backup did.
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
    telling: Option<heal::Telling>,
}

/// State is written after this much new content and at least this much time, or after the longer time in any case.
const CHECKPOINT_BYTES: u64 = 256 << 20;
/// How often that is checked.
const CHECKPOINT_LOOK: Duration = Duration::from_millis(20);
const CHECKPOINT_SHORT: Duration = Duration::from_secs(4);
const CHECKPOINT_LONG: Duration = Duration::from_secs(20);
/// And never sooner than after this part of the time so far, so that long runs leave few small packs and index objects.
const CHECKPOINT_PART: u32 = 20;

impl Repository {
    /// One try to save the sources; `Stale` when what it relied on turned out to be damaged or gone.
    fn attempt(
        &self,
        mut options: BackupOptions,
        carried: &mut Carried,
        begun: Instant,
        watch: &Watch,
    ) -> Result<BackupReport> {
        let started = Stamp::new(options.time.unwrap_or_else(now), options.offset);
        // The snapshot is named by it.
        started.compact()?;
        let left_out = LeftOut::new(OwnFolders::of(self));
        for nested::Moved { folder, real } in nested::follow_links(&mut options.paths) {
            left_out.tell(
                watch,
                format!(
                    "{} is reached through a symbolic link in another source, which is not followed: it is saved at its real path {}",
                    folder.display(),
                    real.display()
                ),
            );
        }
        let (kept, mut met) = nested::fold(options.paths, &options.rules, &left_out.mounts);
        options.paths = kept;
        // The walk reports our own directories when it reaches them. It is not an error if nothing else remains here.
        let _ours = left_out.own.take_out(&mut met);
        for (path, what) in left_out.own.take_out(&mut options.paths)? {
            watch.notice(format!("skipped: {} is {what}", path.display()));
        }
        let state = self.open_state(&options, watch);
        let readers = Readers::start(&options)?;
        let (damage, writer) = self.begin(&options, &readers, carried, watch)?;
        let choice = previous::choose(self, state, &damage, &options, watch)?;
        let mut run = Run::new(self, options, readers, writer, damage, watch)?;
        run.state = choice.state;
        run.left_out = left_out;
        run.expected.add(met.iter().map(PathBuf::as_path));
        run.set_named(met);
        run.compare_with_parent = choice.compare_with_parent;
        run.may_be_outdated = choice.may_be_outdated;
        run.parent_ran = choice.parent.as_ref().map(|parent| {
            let (started, ended) = (parent.started.time(), parent.ended.time());
            // The start may be one that was asked for.
            (started.min(ended), ended)
        });
        run.input_name.clone_from(&carried.streams.input_name);
        run.is_state_distrusted = choice.is_state_distrusted;
        let saved = run.save_sources(choice.parent.as_ref(), &mut carried.streams);
        let parent = choice.parent.as_ref();
        run.conclude(saved, parent, &carried.before, started, begun)
    }

    /// Shows the writer and compares the local index with the repository; what the sources are compared with is chosen after
    /// that. In this order and no other, for what is removed from here on is removed knowing of this writer.
    fn begin(
        &self,
        options: &BackupOptions,
        readers: &Readers,
        carried: &mut Carried,
        watch: &Watch,
    ) -> Result<(Damage, Option<Writer>)> {
        let marks = self.untold_losses();
        let (writer, check) = if options.dry_run {
            (None, self.compare_index(watch)?)
        } else {
            let wanted = SinkOptions {
                // One for each reader, and one for all others that store.
                lanes: readers.most + 1,
                compression: options.compression,
                memory_bytes: options.memory_bytes,
            };
            let writer = self.writer(&options.host, &wanted, watch)?;
            let check = writer.sink().check().clone();
            carried.before.views.push(writer.sink().view_before().clone());
            (Some(writer), check)
        };
        let damage = Damage::new(self, marks, check);
        if !options.dry_run {
            damage.note_what_is_back(self);
            carried.before.note_snapshots(self, &damage);
        }
        damage.tell(self, options.dry_run, |notice| carried.say_once(watch, notice));
        Ok((damage, writer))
    }

    /// The local state of these sources. Without one a backup takes longer, and that is all.
    fn open_state(&self, options: &BackupOptions, watch: &Watch) -> Option<State> {
        if options.paths.is_empty() {
            return None;
        }
        if now().seconds < 0 {
            // The database refuses to work then.
            watch.notice(
                "the clock of this machine shows a time before 1970: what is known of the last backup is not used",
            );
            return None;
        }
        let folder = self.cache()?.join("state").join(options.state_name());
        let made = std::fs::create_dir_all(&folder).map_err(|error| Error::io("create", folder.display(), error));
        match made.and_then(|()| State::open(&folder)) {
            Ok((state, notice)) => {
                notice.into_iter().for_each(|notice| watch.notice(notice));
                Some(state)
            }
            Err(error) => {
                watch.notice(format!("{error}; files are compared with the last snapshot instead"));
                None
            }
        }
    }
}

thread_local! {
    /// Set by each warning: an entry that met one while it was built is looked at again next time, so that the next
    /// snapshot does not repeat the gap in silence.
    static HAS_WARNED: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}

/// One backup while it runs: what all its threads share.
struct Run<'a> {
    repo: &'a Repository,
    reader: crate::repo::Reader,
    options: BackupOptions,
    writer: Option<Writer>,
    damage: Damage,
    /// They walk, read and help one another.
    readers: Readers,
    /// Directories down to this level are kept open while what is below them is walked.
    levels_open: usize,
    left_out: LeftOut,
    /// A source has another one above it.
    has_source_below: bool,
    /// All paths that were named, sorted: those of the options, and those that were dropped as a walk meets them.
    named: Vec<PathBuf>,
    /// Sources that the walk of another one is to meet.
    expected: expected::Expected,
    crew: crew::Crew,
    state: Option<State>,
    /// Compare with the parent's tree, as the local state knows nothing or must not be used.
    compare_with_parent: bool,
    /// A snapshot that cannot be read may be a later one than the parent.
    may_be_outdated: bool,
    /// The state was written for another content of the repository.
    is_state_distrusted: bool,
    /// When the backup that is compared with began and ended, by the clock of its host.
    parent_ran: Option<(crate::entry::Time, crate::entry::Time)>,
    /// What the standard input is called in the snapshot.
    input_name: Option<Vec<u8>>,
    /// Every source is as the parent has it; only looked at when that ends the run without a snapshot.
    unchanged: std::sync::atomic::AtomicBool,
    /// Something of the sources was stored, beside the directories above them.
    has_stored_sources: std::sync::atomic::AtomicBool,
    owners: Owners,
    watch: &'a Watch,
    counts: walk::Counts,
    warnings: Mutex<Vec<Warning>>,
    /// Rows of local state that wait until what they name is in the repository.
    noted: Mutex<StateChanges>,
    /// Something that should be in the repository was not.
    has_met_damage: std::sync::atomic::AtomicBool,
    stored_lists: stored::StoredLists,
    /// How many damaged packs were known when the run began.
    damaged_packs_before: u64,
    failure: Mutex<Option<Error>>,
    links: content::Links,
}

impl<'a> Run<'a> {
    fn new(
        repo: &'a Repository,
        options: BackupOptions,
        readers: Readers,
        writer: Option<Writer>,
        damage: Damage,
        watch: &'a Watch,
    ) -> Result<Self> {
        let mut run = Run {
            repo,
            levels_open: sources::levels_open_by(readers.most),
            left_out: LeftOut::new(OwnFolders::default()),
            readers,
            crew: crew::Crew::default(),
            reader: repo.reader(),
            options,
            writer,
            damage,
            state: None,
            compare_with_parent: false,
            may_be_outdated: false,
            is_state_distrusted: false,
            parent_ran: None,
            input_name: None,
            unchanged: std::sync::atomic::AtomicBool::new(false),
            has_stored_sources: std::sync::atomic::AtomicBool::new(false),
            owners: Owners::load()?,
            watch,
            counts: walk::Counts::default(),
            warnings: Mutex::default(),
            noted: Mutex::default(),
            has_met_damage: std::sync::atomic::AtomicBool::new(false),
            stored_lists: stored::StoredLists::default(),
            failure: Mutex::default(),
            links: content::Links::default(),
            damaged_packs_before: repo.damaged_packs_found(),
            has_source_below: false,
            named: Vec::new(),
            expected: expected::Expected::default(),
        };
        run.set_named(Vec::new());
        Ok(run)
    }

    /// Sets what was named: the sources, and paths that were dropped as a walk meets them.
    fn set_named(&mut self, dropped: Vec<PathBuf>) {
        self.named = [self.options.paths.clone(), dropped].concat();
        self.named.sort();
        self.has_source_below = self.has_source_below_another();
    }

    /// Walks all paths and reads all streams; returns the root of the snapshot's tree.
    fn save_sources(&self, parent: Option<&Snapshot>, streams: &mut Streams) -> Result<SavedRoot> {
        let known = parent.map(|parent| (parent.totals.files, parent.totals.bytes));
        let known = known.or_else(|| self.state.as_ref()?.last_size());
        if let Some((files, bytes)) = known {
            let progress = &self.watch.progress;
            progress.files_expected.store(files, std::sync::atomic::Ordering::Relaxed);
            progress.bytes_expected.store(bytes, std::sync::atomic::Ordering::Relaxed);
        }
        let (done, is_done) = crossbeam_channel::bounded::<()>(0);
        let assembly = std::thread::scope(|scope| {
            let (for_readers, for_count) = (is_done.clone(), is_done.clone());
            // Without these threads a run is slower, or less of it outlives an interruption: it goes on.
            let beside = |name: &str| std::thread::Builder::new().name(name.to_owned());
            let _kept = beside("checkpoints").spawn_scoped(scope, move || self.keep_checkpoints(&is_done));
            if known.is_none() && self.options.count_ahead && !self.options.dry_run {
                let _counted = beside("count").spawn_scoped(scope, move || self.count_ahead(&for_count));
            }
            let _adapted = beside("adapt").spawn_scoped(scope, move || {
                self.readers
                    .adapt(&for_readers, || self.writer.as_ref().is_some_and(|writer| writer.sink().is_held_up()))
            });
            let result = self.save_all(parent, streams);
            drop(done);
            result
        })?;
        assembly.store(self)
    }

    fn save_all(&self, parent: Option<&Snapshot>, streams: &mut Streams) -> Result<Assembly> {
        streams.retain_stored(|entry| Ok(self.can_look_up(entry) && self.is_stored(entry)?))?;
        let mut assembly = Assembly::default();
        self.watch.stage("walking");
        let saved = self.walk_paths(parent)?;
        for (path, entry) in saved.entries {
            assembly.add(&path, entry)?;
        }
        assembly.root = saved.root;
        self.save_streams(parent, streams, &mut assembly)?;
        let chunks_new = |writer: &Writer| writer.sink().chunks_new.load(std::sync::atomic::Ordering::Relaxed);
        let has_stored = self.writer.as_ref().map(chunks_new) > Some(0);
        self.has_stored_sources.store(has_stored, std::sync::atomic::Ordering::Relaxed);
        if let (true, Some(parent)) = (self.options.skip_if_unchanged, parent) {
            let unchanged = parent.is_of_sources(&self.sources()) && assembly.is_same_in(self, parent);
            self.unchanged.store(unchanged, std::sync::atomic::Ordering::Relaxed);
        }
        assembly.describe_parents(self);
        Ok(assembly)
    }

    /// Saves what commands write and standard input.
    fn save_streams(&self, parent: Option<&Snapshot>, streams: &mut Streams, assembly: &mut Assembly) -> Result<()> {
        let names = self.options.streams.iter().map(|stream| &stream.name).chain(&self.input_name);
        let names: Vec<&[u8]> = names.map(Vec::as_slice).collect();
        if names.is_empty() {
            return Ok(());
        }
        if let Some(parent) = parent.filter(|_| self.options.skip_if_unchanged) {
            self.look_at_old_streams(parent, &names);
        }
        if let Some(error) = self.take_failure() {
            return Err(error);
        }
        // A run that starts over in any case does so before the streams, which then rest on nothing damaged.
        if self.writer.is_some() && self.has_found_damage() {
            return Err(damage_found());
        }
        for stream in &self.options.streams {
            let start = |_: &mut Streams| stream.start_with(&self.options.stream_environment, self.watch).map(Some);
            assembly.add_stream(&stream.name, self.save_stream(&stream.name, streams, start)?)?;
        }
        if let Some(name) = streams.input_name.clone() {
            let entry = self.save_stream(&name, streams, |streams| Ok(streams.take_input()))?;
            assembly.add_stream(&name, entry)?;
        }
        Ok(())
    }

    /// The content of a stream, whole or not at all: its last read fails when its producer failed. What an earlier attempt
    /// read is not read again.
    fn save_stream<S: Read>(
        &self,
        name: &[u8],
        streams: &mut Streams,
        start: impl FnOnce(&mut Streams) -> Result<Option<S>>,
    ) -> Result<Entry> {
        self.watch.progress.set_current(name);
        let entry = match streams.saved(name) {
            Some(saved) => saved.clone(),
            None => {
                let mut entry = Entry::new(name.rsplit(|byte| *byte == b'/').next().unwrap_or(name), EntryKind::Stream);
                entry.meta.mode = 0o600;
                entry.meta.modified = now();
                let source = if self.options.dry_run { None } else { start(streams)? };
                if let Some(source) = source {
                    self.read_stream(name, source, &mut entry)?;
                    streams.add(name, entry.clone());
                }
                entry
            }
        };
        walk::add(&self.counts.streams, 1);
        walk::add(&self.counts.bytes, entry.size);
        Ok(entry)
    }

    /// While sources are being saved: makes what is stored findable and notes it in the local state.
    fn keep_checkpoints(&self, is_done: &crossbeam_channel::Receiver<()>) {
        let Some(writer) = &self.writer else { return };
        let begun = Instant::now();
        let (mut last, mut bytes) = (begun, 0);
        while is_done.recv_timeout(CHECKPOINT_LOOK) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
            let new = writer.sink().bytes_new.load(std::sync::atomic::Ordering::Relaxed);
            let due = if new - bytes >= CHECKPOINT_BYTES { CHECKPOINT_SHORT } else { CHECKPOINT_LONG };
            if last.elapsed() >= due.max(begun.elapsed() / CHECKPOINT_PART) && new > bytes {
                if let Err(error) = self.checkpoint(writer) {
                    return self.fail(error);
                }
                (last, bytes) = (Instant::now(), new);
            }
        }
    }

    fn checkpoint(&self, writer: &Writer) -> Result<()> {
        let noted = std::mem::take(&mut *self.noted());
        writer.sink().checkpoint(|relied, own| self.write_state(noted, relied, own))
    }

    /// Local state is a cache: that it cannot be written costs the next run time, not this one its success. `relied` is what
    /// the writer relied on, `own` are index objects that it does not know of yet.
    fn write_state(&self, noted: StateChanges, mut relied: Basis, own: &[IndexId]) {
        let Some(state) = self.state.as_ref().filter(|_| !noted.is_empty()) else { return };
        relied.indexes.extend(own);
        if let Err(error) = state.write(noted, &relied) {
            self.watch.notice(format!("{error}; the next backup will read more than necessary"));
        }
    }

    fn noted(&self) -> std::sync::MutexGuard<'_, StateChanges> {
        locked(&self.noted)
    }

    /// Reports that something of a source is not saved as it was. The run goes on.
    fn warn(&self, path: &[u8], what: impl Into<String>) {
        let what = what.into();
        HAS_WARNED.set(true);
        self.watch.warn(path, what.clone());
        walk::add(&self.counts.warnings, 1);
        let mut warnings = locked(&self.warnings);
        if warnings.len() < WARNINGS_MAX {
            warnings.push(Warning { path: PathText(path.to_vec()), what });
        }
    }

    /// An error while a source was read: a warning, unless this machine ran short of what every reader needs. Then
    /// the run ends, as a snapshot of the little that could still be read would help nobody.
    fn source_error(&self, path: &[u8], before: &str, error: Error) {
        if error.is(Kind::Full) { self.fail_at(path, error) } else { self.warn(path, format!("{before}{error}")) }
    }

    /// The same for a source at this path, which an error about an open file does not name.
    fn fail_at(&self, path: &[u8], error: Error) {
        self.fail(error.renamed("", &String::from_utf8_lossy(path)));
    }

    /// An error that ends the run.
    fn fail(&self, error: Error) {
        locked(&self.failure).get_or_insert(error);
        self.counts.failed.store(true, std::sync::atomic::Ordering::Relaxed);
    }

    /// Whether a pack turned out to be damaged that this run may rely on.
    fn has_found_damage(&self) -> bool {
        self.repo.damaged_packs_found() > self.damaged_packs_before
    }

    fn take_failure(&self) -> Option<Error> {
        locked(&self.failure).take()
    }

    /// Commits, or ends without a snapshot; either way what was stored stays findable for the next run.
    fn conclude(
        mut self,
        saved: Result<SavedRoot>,
        parent: Option<&Snapshot>,
        before: &heal::Before,
        started: Stamp,
        begun: Instant,
    ) -> Result<BackupReport> {
        let writer = self.writer.take();
        let saved = match self.take_failure() {
            Some(error) => Err(error),
            None if writer.is_some() && self.has_found_damage() => saved.and(Err(damage_found())),
            None => saved,
        };
        let SavedRoot { tree: root, directory: root_directory } = match (saved, &writer) {
            (Ok(saved), _) => saved,
            (Err(error), None) => return Err(error),
            (Err(error), Some(_)) => {
                let noted = std::mem::take(&mut *self.noted());
                let writer = writer.expect("it was matched");
                // The error that ended the run is what the caller must see; this saves what can be saved.
                let _best_effort = if error.is(Kind::Full) {
                    writer.withdraw()
                } else {
                    writer.abandon(|relied, own| self.write_state(noted, relied, own))
                };
                return Err(error);
            }
        };
        let mut warnings = std::mem::take(&mut *locked(&self.warnings));
        warnings.sort_by(|a, b| a.path.cmp(&b.path));
        let mut totals = self.counts.totals();
        let warnings_count = self.counts.warnings.load(std::sync::atomic::Ordering::Relaxed);
        let sockets = self.counts.sockets.load(std::sync::atomic::Ordering::Relaxed);
        let to_read = self.counts.bytes_to_read.load(std::sync::atomic::Ordering::Relaxed);
        let mut report = BackupReport {
            snapshot: None,
            totals,
            bytes_to_read: self.options.dry_run.then_some(to_read),
            warnings,
            warnings_count,
            sockets,
            healing: None,
            duration: begun.elapsed(),
            losses: Vec::new(),
            telling: None,
        };
        let Some(writer) = writer else { return Ok(report) };
        let noted = std::mem::take(&mut *self.noted());
        let unchanged = self.options.skip_if_unchanged && self.unchanged.load(std::sync::atomic::Ordering::Relaxed);
        if unchanged && self.may_vouch(&writer, parent) {
            let is_sound = writer.sink().check_nothing_is_gone();
            writer.abandon(|relied, own| self.write_state(noted, relied, own))?;
            return is_sound.and_then(|()| self.check_parent(parent)).map(|()| report);
        }
        self.watch.stage("committing");
        if let Err(error) = writer.sink().checkpoint(|relied, own| self.write_state(noted, relied, own)) {
            // Nothing is left to save; the error that ended the run is what the caller must see.
            let _best_effort = writer.withdraw();
            return Err(error);
        }
        totals.bytes_new = writer.sink().bytes_new.load(std::sync::atomic::Ordering::Relaxed);
        totals.bytes_stored = writer.sink().bytes_stored();
        report.totals = totals;
        let snapshot = Snapshot {
            version: 1,
            id: SnapshotId(random()?),
            started,
            ended: Stamp::new(now(), self.options.offset),
            host: self.options.host.clone(),
            user: self.options.user.clone(),
            job: self.options.job.clone(),
            tags: self.options.tags.clone(),
            program: concat!("silt ", env!("CARGO_PKG_VERSION")).to_owned(),
            sources: self.sources(),
            all_sources: None,
            root,
            root_directory: root_directory.as_ref().map(Snapshot::root_directory_of),
            totals,
            warnings: report.warnings.clone(),
            warnings_count,
        };
        let snapshot = snapshot.bounded();
        // If this process dies after the commit step, the next run must know; on local storage it always looks.
        if !self.repo.storage().abilities().local
            && let Some(Err(error)) = self.state.as_ref().map(State::set_committing)
        {
            self.watch.notice(error.to_string());
        }
        // What is lost from here on is for the next run to tell.
        let marks = self.must_look_at_healing(&writer).then(|| self.damage.untold(self.repo));
        let (_, unpublished) = writer.commit(&snapshot)?;
        let in_place = unpublished.is_none();
        if let Some(error) = unpublished {
            self.watch.notice(format!(
                "the snapshot is complete, but not yet moved to its final place; the next backup does that: {error}"
            ));
        }
        let size = (snapshot.totals.files, snapshot.totals.bytes);
        if let Some(Err(error)) = self.state.as_ref().map(|state| state.set_committed(size, in_place)) {
            self.watch.notice(format!("{error}; the next backup will read more than necessary"));
        }
        (report.healing, report.telling) =
            marks.map_or((None, None), |marks| self.look_at_healing(before, marks, &snapshot));
        report.snapshot = Some(snapshot);
        report.duration = begun.elapsed();
        Ok(report)
    }

    /// "Unchanged since this snapshot" is worth nothing if the snapshot is gone.
    fn check_parent(&self, parent: Option<&Snapshot>) -> Result<()> {
        let Some(parent) = parent else { return Ok(()) };
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

    /// Whether this run met something that should be in the repository and is not.
    fn has_met_damage(&self) -> bool {
        self.has_met_damage.load(std::sync::atomic::Ordering::Relaxed)
    }

    fn has_stored_sources(&self) -> bool {
        self.has_stored_sources.load(std::sync::atomic::Ordering::Relaxed)
    }

    /// Whether the repository lacks something now, or has lost something since these sources were saved last.
    fn may_lack_something(&self, writer: &Writer) -> bool {
        writer.sink().has_met_damage() || self.is_state_distrusted
    }

    /// Whether "unchanged since that snapshot" is worth a snapshot: not if that one has lost something, which this run may
    /// have stored again.
    fn may_vouch(&self, writer: &Writer, parent: Option<&Snapshot>) -> bool {
        let told = self.damage.told(self.repo);
        let has_stored = self.has_stored_sources();
        let has_met_damage = self.has_met_damage() && (has_stored || told.is_none());
        if has_met_damage || self.may_be_outdated || !self.damage.untold(self.repo).is_empty() {
            return false;
        }
        match told {
            _ if !self.may_lack_something(writer) => true,
            Some(told) => !parent.is_some_and(|parent| told.incomplete.contains(&parent.id)),
            None => !self.repo.remembers_losses() && !has_stored,
        }
    }

    fn sources(&self) -> Vec<SnapshotSource> {
        let path = |path: &PathBuf| PathText(path.as_os_str().as_encoded_bytes().to_vec());
        let trees = self.options.paths.iter().map(|at| SnapshotSource::Tree { path: path(at) });
        let streams = self.options.streams.iter().map(|stream| SnapshotSource::Stream {
            name: PathText(stream.name.clone()),
            command: Some(String::from_utf8_lossy(&stream.command).into_owned()),
        });
        let input =
            self.input_name.iter().map(|name| SnapshotSource::Stream { name: PathText(name.clone()), command: None });
        trees.chain(streams).chain(input).collect()
    }
}
