//! Local state of a job: what each directory looked like when it was last saved, in sled, as a cache that can be lost.
//!
//! sled is asked only for what it is good at: a few thousand small rows, written in sorted batches, flushed at
//! checkpoints. Opening it may fail or panic after a power cut; then the folder is moved aside and made anew.

use crate::disk::own_files::{names_in, remove_folder};
use crate::error::{Error, Kind, Result, kind_of_io};
use crate::id::{ChunkId, IndexId, PackId};
use crate::index::Basis;
use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Names a directory by its absolute path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderKey([u8; FOLDER_KEY_BYTES]);

const FOLDER_KEY_BYTES: usize = 16;

impl FolderKey {
    pub fn of(path: &[u8]) -> Self {
        FolderKey(blake3::hash(path).as_bytes()[..FOLDER_KEY_BYTES].try_into().expect("a hash is longer than a key"))
    }

    fn row(&self, first_name: &[u8]) -> Vec<u8> {
        [&self.0[..], first_name].concat()
    }
}

/// How an entry differs from the last snapshot's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u8)]
pub enum Change {
    #[default]
    Unchanged = 0,
    New = 1,
    Changed = 2,
}

impl Change {
    fn from_number(number: u8) -> Option<Self> {
        [Change::Unchanged, Change::New, Change::Changed].into_iter().find(|change| *change as u8 == number)
    }
}

/// One page of a directory as it was saved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageRow {
    /// The first name that the page was cut at.
    pub first_name: Vec<u8>,
    /// Over names and stats of all entries; zero where one of them may have changed unseen.
    pub fingerprint: [u8; 16],
    /// Over the ids of the directories below.
    pub below: [u8; 16],
    pub page: ChunkId,
    /// The epoch of the state in which everything that the page names was known to be stored.
    pub epoch: u32,
    /// The run that wrote the row. Until a later or the same run commits, `changes` and `files_removed` are not in any
    /// snapshot's totals.
    pub run: u32,
    pub files_removed: u32,
    /// One for each entry of the page, in its order; 0 where the entry may have changed unseen.
    pub stats: Vec<u64>,
    /// How each entry differs from the last snapshot that was committed before the run.
    pub changes: Vec<Change>,
}

const FIXED_BYTES: usize = 16 + 16 + ChunkId::BYTES + 3 * 4;
/// A stat and a change.
const ENTRY_BYTES: usize = 8 + 1;

impl PageRow {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.stats.len() * ENTRY_BYTES);
        bytes.extend_from_slice(&self.fingerprint);
        bytes.extend_from_slice(&self.below);
        bytes.extend_from_slice(self.page.as_bytes());
        for number in [self.epoch, self.run, self.files_removed] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        self.stats.iter().for_each(|stat| bytes.extend_from_slice(&stat.to_le_bytes()));
        bytes.extend(self.changes.iter().map(|change| *change as u8));
        bytes
    }

    fn decode(first_name: &[u8], bytes: &[u8]) -> Option<Self> {
        let (fixed, entries) = bytes.split_at_checked(FIXED_BYTES)?;
        let count = entries.len() / ENTRY_BYTES;
        if !entries.len().is_multiple_of(ENTRY_BYTES) {
            return None;
        }
        let (stats, changes) = entries.split_at(count * 8);
        let (page, numbers) = fixed[32..].split_at(ChunkId::BYTES);
        let number = |at: usize| u32::from_le_bytes(numbers[at * 4..][..4].try_into().expect("four bytes"));
        Some(PageRow {
            first_name: first_name.to_vec(),
            fingerprint: fixed[..16].try_into().ok()?,
            below: fixed[16..32].try_into().ok()?,
            page: ChunkId::from_slice(page)?,
            epoch: number(0),
            run: number(1),
            files_removed: number(2),
            stats: stats.chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("8"))).collect(),
            changes: changes.iter().map(|change| Change::from_number(*change)).collect::<Option<_>>()?,
        })
    }
}

/// Changed on every change of the rows' form: another schema is dropped, not converted.
const SCHEMA: &[u8] = b"2";
/// Facts about the whole state; no folder's key is this short.
const SCHEMA_KEY: &[u8] = b"schema";
/// How many files and bytes the last snapshot holds, 8 bytes little-endian each.
const SIZE_KEY: &[u8] = b"size";
/// Set while a commit runs: found at the next opening, that run may have died after its commit step.
const COMMITTING_KEY: &[u8] = b"committing";
/// The epoch, and the last run that committed: 4 bytes little-endian each.
const EPOCH_KEY: &[u8] = b"epoch";
const COMMITTED_KEY: &[u8] = b"committed";
/// The index objects that rows of the epoch rest on, as keys of a tree of their own.
const RELIED_TREE: &[u8] = b"relied";
/// Packs that were missing when the epoch began: no row of it rests on them.
const MISSING_TREE: &[u8] = b"missing";
/// How long a locked database is tried again, and how often.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// sled takes about three times of it.
const CACHE_BYTES: u64 = 8 << 20;

/// Whether rows of the current epoch can be trusted.
#[derive(Debug, PartialEq, Eq)]
pub enum Rest {
    Trusted,
    /// Packs that they rest on are missing, or these index objects.
    Distrusted {
        indexes_lost: HashSet<IndexId>,
    },
}

/// The open state of one job; one process at a time.
///
/// A row says that a page and all that it names were stored when it was written. That still holds while everything is
/// listed that the writers of the rows relied on: [`State::rest_on`] decides it, and begins a new epoch when it does not.
/// Rows of older epochs say only what the source looked like.
pub struct State {
    db: sled::Db,
    folder: PathBuf,
    relied: sled::Tree,
    missing: sled::Tree,
    epoch: u32,
    /// The last run that committed.
    committed: u32,
}

impl State {
    /// Opens the state in a folder of its own, or a fresh one where there is none or it is damaged (said in the
    /// notice). `Locked` when another process has it open.
    pub fn open(folder: &Path) -> Result<(Self, Option<String>)> {
        match open_db(folder) {
            Ok(db) => {
                let known = db.get(SCHEMA_KEY).ok().flatten();
                match known.as_deref() {
                    Some(SCHEMA) => match State::of(db, folder) {
                        Err(error) if error.is(Kind::Corrupt) => {}
                        opened => return Ok((opened?, None)),
                    },
                    None if db.is_empty() => return Ok((State::fresh(db, folder)?, None)),
                    _ => drop(db),
                }
            }
            Err(error) if error.is(Kind::Corrupt) => {}
            Err(error) => return Err(error),
        }
        let notice = "the local state of this job was damaged or written by another version, and is rebuilt: files are compared with the last snapshot instead";
        if folder.exists() {
            let aside = folder.with_extension("damaged");
            let _older = remove_folder(&aside);
            std::fs::rename(folder, &aside).map_err(|error| Error::io("move aside", folder.display(), error))?;
            let _best_effort = remove_folder(&aside);
        }
        let state = State::fresh(open_db(folder)?, folder)?;
        Ok((state, Some(notice.to_owned())))
    }

    fn fresh(db: sled::Db, folder: &Path) -> Result<Self> {
        // The epoch first: a state without one is damaged.
        db.insert(EPOCH_KEY, &0u32.to_le_bytes()).map_err(|error| failed(folder, error))?;
        let state = State::of(db, folder)?;
        state.put(SCHEMA_KEY, SCHEMA)?;
        Ok(state)
    }

    fn of(db: sled::Db, folder: &Path) -> Result<Self> {
        let failed = |error| failed(folder, error);
        let number = |key| -> Result<Option<u32>> {
            let Some(bytes) = db.get(key).map_err(failed)? else { return Ok(None) };
            let damaged = |_| Error::corrupt("use the local state", folder.display(), "a number in it is damaged");
            Ok(Some(u32::from_le_bytes(bytes.as_ref().try_into().map_err(damaged)?)))
        };
        // Rows of an earlier epoch must never count as those of this one.
        let no_epoch =
            || Error::corrupt("use the local state", folder.display(), "it does not say which rows are valid");
        Ok(State {
            relied: db.open_tree(RELIED_TREE).map_err(failed)?,
            missing: db.open_tree(MISSING_TREE).map_err(failed)?,
            epoch: number(EPOCH_KEY)?.ok_or_else(no_epoch)?,
            committed: number(COMMITTED_KEY)?.unwrap_or_default(),
            folder: folder.to_owned(),
            db,
        })
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.insert(key, value).map(|_| ()).map_err(|error| failed(&self.folder, error))
    }

    /// Decides whether rows of the current epoch can be trusted: `live` are the index objects and `packs_missing` the
    /// packs that a listing showed or did not show after this writer had shown itself. If not, a new epoch begins.
    pub fn rest_on(&mut self, live: &HashSet<IndexId>, packs_missing: &HashSet<PackId>) -> Result<Rest> {
        let failed = |error| failed(&self.folder, error);
        let mut indexes_lost = HashSet::new();
        let mut is_trusted = true;
        for key in self.relied.iter().keys() {
            let key = key.map_err(failed)?;
            let index = IndexId::from_slice(&key).filter(|index| !live.contains(index));
            indexes_lost.extend(index);
            is_trusted &= key.len() == IndexId::BYTES && index.is_none();
        }
        // What wrote rows noted before what it relied on.
        is_trusted &= !self.relied.is_empty() || self.is_empty();
        for pack in packs_missing {
            is_trusted = is_trusted && self.missing.contains_key(pack.as_bytes()).map_err(failed)?;
        }
        if is_trusted {
            self.keep_missing(packs_missing)?;
            return Ok(Rest::Trusted);
        }
        // The number first: whatever is lost behind it, no row of this epoch exists yet.
        let epoch = self.epoch.wrapping_add(1);
        self.put(EPOCH_KEY, &epoch.to_le_bytes())?;
        self.flush()?;
        self.relied.clear().map_err(failed)?;
        self.missing.clear().map_err(failed)?;
        for pack in packs_missing {
            self.missing.insert(pack.as_bytes(), &[]).map_err(failed)?;
        }
        self.flush()?;
        self.epoch = epoch;
        Ok(Rest::Distrusted { indexes_lost })
    }

    /// Of the packs that were missing when the epoch began, only these still are: the others may be relied on from now on.
    fn keep_missing(&self, packs_missing: &HashSet<PackId>) -> Result<()> {
        let failed = |error| failed(&self.folder, error);
        let is_back = |key: &[u8]| PackId::from_slice(key).is_none_or(|pack| !packs_missing.contains(&pack));
        for key in self.missing.iter().keys() {
            let key = key.map_err(failed)?;
            if is_back(&key) {
                self.missing.remove(key).map_err(failed)?;
            }
        }
        Ok(())
    }

    /// Whether everything that a row's page names is known to be stored.
    pub fn is_trusted(&self, row: &PageRow) -> bool {
        row.epoch == self.epoch
    }

    /// Whether no snapshot has been committed since a row was written.
    pub fn is_uncommitted(&self, row: &PageRow) -> bool {
        row.run > self.committed
    }

    pub fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The number of the run that is under way.
    pub fn run(&self) -> u32 {
        self.committed.saturating_add(1)
    }

    /// Files and bytes of the last snapshot.
    pub fn last_size(&self) -> Option<(u64, u64)> {
        let value = self.db.get(SIZE_KEY).ok().flatten()?;
        let (files, bytes) = value.split_first_chunk::<8>()?;
        Some((u64::from_le_bytes(*files), u64::from_le_bytes(bytes.try_into().ok()?)))
    }

    /// A commit is done, of so many files and bytes; `in_place` says that nothing of it remains to be tidied.
    pub fn set_committed(&self, (files, bytes): (u64, u64), in_place: bool) -> Result<()> {
        self.put(COMMITTED_KEY, &self.run().to_le_bytes())?;
        self.put(SIZE_KEY, &[files.to_le_bytes(), bytes.to_le_bytes()].concat())?;
        if in_place {
            self.db.remove(COMMITTING_KEY).map_err(|error| failed(&self.folder, error))?;
        }
        self.flush()
    }

    /// A commit is about to be made.
    pub fn set_committing(&self) -> Result<()> {
        self.put(COMMITTING_KEY, b"")?;
        self.flush()
    }

    pub fn is_committing(&self) -> bool {
        self.db.get(COMMITTING_KEY).is_ok_and(|value| value.is_some())
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        !self.db.iter().keys().map_while(|key| key.ok()).any(|key| key.len() >= FOLDER_KEY_BYTES)
    }

    /// All pages of a directory, in the order of their names. Damage reads as absence.
    pub fn pages(&self, folder: FolderKey) -> Vec<PageRow> {
        let rows = self.db.scan_prefix(folder.0);
        let decode = |(key, value): (sled::IVec, sled::IVec)| PageRow::decode(&key[FOLDER_KEY_BYTES..], &value);
        rows.map_while(|row| row.ok()).filter_map(decode).collect()
    }

    /// Writes pages and removes those that are no more, then flushes: what is written is there after a crash. `relied`
    /// is what the writer of the rows relied on; it is noted before the rows.
    pub fn write(&self, mut changes: StateChanges, relied: &Basis) -> Result<()> {
        let failed = |error| failed(&self.folder, error);
        for index in &relied.indexes {
            if !self.relied.contains_key(index.as_bytes()).map_err(failed)? {
                self.relied.insert(index.as_bytes(), &[]).map_err(failed)?;
            }
        }
        // A pack that came back while the writer ran may have been relied on.
        self.keep_missing(&relied.packs_left_out)?;
        self.flush()?;
        changes.rows.sort_by(|a, b| (a.0.0, &a.1.first_name).cmp(&(b.0.0, &b.1.first_name)));
        for group in changes.rows.chunks(512) {
            let mut batch = sled::Batch::default();
            for (folder, row) in group {
                batch.insert(folder.row(&row.first_name), row.encode());
            }
            self.db.apply_batch(batch).map_err(failed)?;
        }
        for (folder, first_name) in changes.removed {
            self.db.remove(folder.row(&first_name)).map_err(failed)?;
        }
        self.flush()
    }

    fn flush(&self) -> Result<()> {
        self.db.flush().map(|_| ()).map_err(|error| failed(&self.folder, error))
    }
}

/// Rows to be written and rows to be removed.
#[derive(Default)]
pub struct StateChanges {
    pub rows: Vec<(FolderKey, PageRow)>,
    pub removed: Vec<(FolderKey, Vec<u8>)>,
}

impl StateChanges {
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty() && self.removed.is_empty()
    }
}

fn failed(folder: &Path, error: sled::Error) -> Error {
    let kind = match &error {
        sled::Error::Io(error) => kind_of_io(error),
        _ => Kind::Failed,
    };
    Error::new(kind, "use the local state", folder.display()).because(why(error)).hint(REMOVE)
}

const REMOVE: &str = "if it happens again, delete that directory: the next backup takes longer, and nothing is lost";

/// What the database says, in words of ours.
fn why(error: sled::Error) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        sled::Error::Io(error) => error.into(),
        sled::Error::Corruption { .. } => "it is damaged".into(),
        sled::Error::CollectionNotFound(_) => "a part of it is missing".into(),
        sled::Error::Unsupported(why) => format!("the database cannot do it: {why}").into(),
        sled::Error::ReportableBug(why) => format!("the database has a fault: {why}").into(),
    }
}

/// How many threads sled may start while it is open.
const SLED_THREADS: usize = 16;

/// Checks that sled's threads can be started, with stacks as large as theirs.
fn check_threads() -> std::io::Result<()> {
    let barrier = std::sync::Mutex::new(());
    let held = barrier.lock();
    std::thread::scope(|scope| {
        let wait = || drop(barrier.lock());
        let started: std::io::Result<Vec<_>> =
            (0..SLED_THREADS).map(|_| std::thread::Builder::new().spawn_scoped(scope, wait)).collect();
        drop(held);
        started.map(drop)
    })
}

/// Opens the database, with patience: a lock outlives its holder for a moment where a program was being started just then,
/// as the child has it too until it becomes that program.
fn open_db(folder: &Path) -> Result<sled::Db> {
    let begun = Instant::now();
    loop {
        match try_open_db(folder) {
            Err(error) if error.is(Kind::Locked) && begun.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_PAUSE),
            opened => return opened,
        }
    }
}

/// Refuses a folder with something else than files in it: sled would wait for the other end of a FIFO.
fn check_files(folder: &Path) -> Result<()> {
    let failed = |error| Error::io("look at the local state", folder.display(), error);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let names = match names_in(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            names => names.map_err(failed)?,
        };
        for (name, _) in names {
            let path = folder.join(name);
            match path.symlink_metadata().map_err(failed)?.file_type() {
                kind if kind.is_file() => {}
                // The only one that it makes.
                kind if kind.is_dir() && path.file_name() == Some("blobs".as_ref()) => folders.push(path),
                _ => return Err(Error::corrupt("open the local state", path.display(), "it is not a file")),
            }
        }
    }
    Ok(())
}

fn try_open_db(folder: &Path) -> Result<sled::Db> {
    // sled waits for ever for threads that could not be started.
    check_threads().map_err(|error| {
        Error::io("start the threads of the local state", folder.display(), error)
            .hint("raise the limits of processes and of address space (ulimit -u, ulimit -v)")
    })?;
    check_files(folder)?;
    let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        // sled has its own error in it, as text; a file system without locks is another matter.
        Ok(Err(sled::Error::Io(error))) if error.to_string().contains("WouldBlock") => {
            Err(Error::new(Kind::Locked, "open the local state", folder.display())
                .because("another backup of this job is running")
                .hint("wait for it to end"))
        }
        // A disk that is full or refuses access has damaged nothing.
        Ok(Err(sled::Error::Io(error)))
            if matches!(kind_of_io(&error), Kind::Full | Kind::Denied | Kind::Temporary) =>
        {
            Err(Error::io("open the local state", folder.display(), error).hint(REMOVE))
        }
        Ok(Err(error)) => Err(Error::new(Kind::Corrupt, "open the local state", folder.display()).because(why(error))),
        Err(_) => Err(Error::corrupt("open the local state", folder.display(), "the database panicked on it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(name: &str, n: u8) -> PageRow {
        PageRow {
            first_name: name.as_bytes().to_vec(),
            fingerprint: [n; 16],
            below: [n; 16],
            page: ChunkId([n; 24]),
            epoch: u32::from(n),
            run: 7,
            files_removed: 3,
            stats: vec![u64::from(n); usize::from(n)],
            changes: vec![Change::New; usize::from(n)],
        }
    }

    fn changes(rows: Vec<(FolderKey, PageRow)>, removed: Vec<(FolderKey, Vec<u8>)>) -> StateChanges {
        StateChanges { rows, removed }
    }

    fn indexes(numbers: &[u8]) -> HashSet<IndexId> {
        numbers.iter().map(|number| IndexId([*number; 32])).collect()
    }

    fn basis(numbers: &[u8]) -> Basis {
        Basis { indexes: indexes(numbers), ..Basis::default() }
    }

    fn packs(numbers: &[u8]) -> HashSet<PackId> {
        numbers.iter().map(|number| PackId([*number; 32])).collect()
    }

    fn is_trusted(rest: Rest) -> bool {
        rest == Rest::Trusted
    }

    /// A state whose epoch could not be read was in the first one: rows of that counted as valid again.
    #[test]
    fn a_state_without_its_epoch_is_rebuilt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for damage in [&b"odd"[..], b""] {
            let (state, _) = State::open(&path).unwrap();
            state.write(changes(vec![(FolderKey::of(b"/a"), row("a", 0))], Vec::new()), &basis(&[1])).unwrap();
            assert!(!state.is_empty());
            if damage.is_empty() {
                drop(state.db.remove(EPOCH_KEY).unwrap())
            } else {
                drop(state.db.insert(EPOCH_KEY, damage).unwrap())
            }
            state.flush().unwrap();
            drop(state);
            let (state, notice) = State::open(&path).unwrap();
            assert!(state.is_empty() && notice.is_some(), "{damage:?}");
        }
    }

    /// A local state that somebody else had made, with rows and without what they rest on, was believed.
    #[test]
    fn rows_that_rest_on_nothing_are_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, _) = State::open(&dir.path().join("state")).unwrap();
        assert!(is_trusted(state.rest_on(&indexes(&[1]), &packs(&[])).unwrap()), "there are no rows yet");
        state.write(changes(vec![(FolderKey::of(b"/a"), row("a", 0))], Vec::new()), &basis(&[1])).unwrap();
        assert!(is_trusted(state.rest_on(&indexes(&[1]), &packs(&[])).unwrap()));
        state.relied.clear().unwrap();
        assert!(!is_trusted(state.rest_on(&indexes(&[1]), &packs(&[])).unwrap()));
    }

    #[test]
    fn rows_come_back_by_folder_in_order_and_damage_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (one, two) = (FolderKey::of(b"/a"), FolderKey::of(b"/b"));
        {
            let (state, notice) = State::open(&path).unwrap();
            assert!(notice.is_none() && state.is_empty());
            let rows = vec![(one, row("m", 2)), (one, row("a", 1)), (two, row("x", 3))];
            state.write(changes(rows, vec![]), &basis(&[1])).unwrap();
            state.set_committed((7, 1 << 40), true).unwrap();
            assert_eq!(State::open(&path).err().unwrap().kind(), Kind::Locked);
        }
        let (state, _) = State::open(&path).unwrap();
        assert!(!state.is_empty());
        assert_eq!(state.pages(one), vec![row("a", 1), row("m", 2)]);
        assert_eq!((state.run(), state.last_size()), (2, Some((7, 1 << 40))));
        state.write(changes(vec![], vec![(one, b"a".to_vec())]), &basis(&[])).unwrap();
        assert_eq!(state.pages(one), vec![row("m", 2)]);
        drop(state);
        for file in std::fs::read_dir(&path).unwrap() {
            let file = file.unwrap().path();
            if file.is_file() {
                std::fs::write(file, b"rubbish").unwrap();
            }
        }
        let (state, _) = State::open(&path).unwrap();
        assert!(state.pages(two).is_empty());
    }

    #[test]
    fn rows_are_trusted_while_all_that_their_writers_relied_on_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let reopen = || State::open(&path).unwrap().0;
        let mut state = reopen();
        assert!(is_trusted(state.rest_on(&indexes(&[1, 2]), &packs(&[])).unwrap()), "nothing was relied on");
        state.write(changes(vec![], vec![]), &basis(&[1, 2])).unwrap();
        drop(state);
        let mut state = reopen();
        assert!(is_trusted(state.rest_on(&indexes(&[1, 2, 3]), &packs(&[])).unwrap()));
        let first = state.epoch();
        assert!(!is_trusted(state.rest_on(&indexes(&[2, 3]), &packs(&[])).unwrap()), "an index object is gone");
        assert_ne!(state.epoch(), first);
        state.write(changes(vec![], vec![]), &basis(&[2, 3])).unwrap();
        drop(state);
        let mut state = reopen();
        assert!(is_trusted(state.rest_on(&indexes(&[2, 3]), &packs(&[])).unwrap()));
        assert!(!is_trusted(state.rest_on(&indexes(&[2, 3]), &packs(&[8, 9])).unwrap()), "packs are gone");
        drop(state);
        let mut state = reopen();
        assert!(
            is_trusted(state.rest_on(&indexes(&[2, 3]), &packs(&[8, 9])).unwrap()),
            "no row of this epoch rests on them"
        );
        assert!(is_trusted(state.rest_on(&indexes(&[2, 3]), &packs(&[9])).unwrap()), "one is there again");
        assert!(
            !is_trusted(state.rest_on(&indexes(&[2, 3]), &packs(&[8, 9])).unwrap()),
            "it may have been relied on since"
        );
    }
}
