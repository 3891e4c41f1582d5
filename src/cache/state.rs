//! Local state of a job: what each directory looked like when it was last saved, in sled, as a cache that can be lost.
//!
//! sled is asked only for what it is good at: a few thousand small rows, written in sorted batches, flushed at
//! checkpoints. Opening it may fail or panic after a power cut; then the folder is moved aside and made anew.

use crate::error::{Error, Kind, Result};
use crate::id::ChunkId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Names a directory by its absolute path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FolderKey([u8; 16]);

impl FolderKey {
    pub fn of(path: &[u8]) -> Self {
        FolderKey(blake3::hash(path).as_bytes()[..16].try_into().expect("a hash is longer than a key"))
    }

    fn row(&self, first_name: &[u8]) -> Vec<u8> {
        [&self.0[..], first_name].concat()
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
    /// One for each entry of the page, in its order; 0 where the entry may have changed unseen.
    pub stats: Vec<u64>,
}

const FIXED_BYTES: usize = 16 + 16 + ChunkId::BYTES;

impl PageRow {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED_BYTES + self.stats.len() * 8);
        bytes.extend_from_slice(&self.fingerprint);
        bytes.extend_from_slice(&self.below);
        bytes.extend_from_slice(self.page.as_bytes());
        self.stats.iter().for_each(|stat| bytes.extend_from_slice(&stat.to_le_bytes()));
        bytes
    }

    fn decode(first_name: &[u8], bytes: &[u8]) -> Option<Self> {
        if bytes.len() < FIXED_BYTES || !(bytes.len() - FIXED_BYTES).is_multiple_of(8) {
            return None;
        }
        Some(PageRow {
            first_name: first_name.to_vec(),
            fingerprint: bytes[..16].try_into().ok()?,
            below: bytes[16..32].try_into().ok()?,
            page: ChunkId::from_slice(&bytes[32..FIXED_BYTES])?,
            stats: bytes[FIXED_BYTES..].chunks_exact(8).map(|b| u64::from_le_bytes(b.try_into().expect("8"))).collect(),
        })
    }
}

/// Changed on every change of the rows' form: another schema is dropped, not converted.
const SCHEMA: &[u8] = b"1";
/// Facts about the whole state; no folder's key is this short.
const SCHEMA_KEY: &[u8] = b"schema";
const BASE_KEY: &[u8] = b"base";
/// How many files and bytes that snapshot holds, 8 bytes little-endian each.
const SIZE_KEY: &[u8] = b"size";
/// Set while a commit runs: found at the next opening, that run may have died behind its commit step.
const COMMITTING_KEY: &[u8] = b"committing";
/// How long a locked database is tried again, and how often.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// sled takes about three times of it.
const CACHE_BYTES: u64 = 8 << 20;

/// The open state of one job; one process at a time.
pub struct State {
    db: sled::Db,
    folder: PathBuf,
}

impl State {
    /// Opens the state in a folder of its own, or a fresh one where there is none or it is damaged (said in the
    /// notice). `Locked` when another process has it open.
    pub fn open(folder: &Path) -> Result<(Self, Option<String>)> {
        match open_db(folder) {
            Ok(db) => {
                let known = db.get(SCHEMA_KEY).ok().flatten();
                match known.as_deref() {
                    Some(SCHEMA) => return Ok((State { db, folder: folder.to_owned() }, None)),
                    None if db.is_empty() => {
                        let state = State { db, folder: folder.to_owned() };
                        state.put(SCHEMA_KEY, SCHEMA)?;
                        return Ok((state, None));
                    }
                    _ => drop(db),
                }
            }
            Err(error) if error.is(Kind::Locked) => return Err(error),
            Err(_) => {}
        }
        let notice = "the local state of this job was damaged or of another version and is made anew: files are compared with the last snapshot instead";
        let state = State::renew(folder)?;
        Ok((state, Some(notice.to_owned())))
    }

    fn renew(folder: &Path) -> Result<Self> {
        if folder.exists() {
            let aside = folder.with_extension("damaged");
            let _older = std::fs::remove_dir_all(&aside);
            std::fs::rename(folder, &aside).map_err(|error| Error::io("move aside", folder.display(), error))?;
            let _best_effort = std::fs::remove_dir_all(&aside);
        }
        let state = State { db: open_db(folder)?, folder: folder.to_owned() };
        state.put(SCHEMA_KEY, SCHEMA)?;
        Ok(state)
    }

    /// Forgets everything.
    pub fn clear(self) -> Result<Self> {
        let State { db, folder } = self;
        drop(db);
        State::renew(&folder)
    }

    fn put(&self, key: &[u8], value: &[u8]) -> Result<()> {
        self.db.insert(key, value).map(|_| ()).map_err(|error| self.failed(error))
    }

    fn failed(&self, error: sled::Error) -> Error {
        Error::new(Kind::Failed, "write the local state", self.folder.display()).because(error)
    }

    /// The snapshot object that the rows belong to: while it exists, what they name exists.
    pub fn base(&self) -> Option<String> {
        let value = self.db.get(BASE_KEY).ok().flatten()?;
        String::from_utf8(value.to_vec()).ok()
    }

    /// Files and bytes of the snapshot that the rows belong to.
    pub fn base_size(&self) -> Option<(u64, u64)> {
        let value = self.db.get(SIZE_KEY).ok().flatten()?;
        let (files, bytes) = value.split_first_chunk::<8>()?;
        Some((u64::from_le_bytes(*files), u64::from_le_bytes(bytes.try_into().ok()?)))
    }

    /// A commit is done, and this is its snapshot, of so many files and bytes; `in_place` says that nothing of it is left
    /// to tidy.
    pub fn set_base(&self, snapshot: &str, (files, bytes): (u64, u64), in_place: bool) -> Result<()> {
        self.put(BASE_KEY, snapshot.as_bytes())?;
        self.put(SIZE_KEY, &[files.to_le_bytes(), bytes.to_le_bytes()].concat())?;
        if in_place {
            self.db.remove(COMMITTING_KEY).map_err(|error| self.failed(error))?;
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

    pub fn is_empty(&self) -> bool {
        self.db.len() <= 2
    }

    /// All pages of a directory, in the order of their names. Damage reads as absence.
    pub fn pages(&self, folder: FolderKey) -> Vec<PageRow> {
        let rows = self.db.scan_prefix(folder.0);
        rows.map_while(|row| row.ok()).filter_map(|(key, value)| PageRow::decode(&key[16..], &value)).collect()
    }

    /// Writes pages and removes those that are no more, then flushes: what is written is there after a crash.
    pub fn write(&self, mut rows: Vec<(FolderKey, PageRow)>, removed: Vec<(FolderKey, Vec<u8>)>) -> Result<()> {
        rows.sort_by(|a, b| (a.0.0, &a.1.first_name).cmp(&(b.0.0, &b.1.first_name)));
        for group in rows.chunks(512) {
            let mut batch = sled::Batch::default();
            for (folder, row) in group {
                batch.insert(folder.row(&row.first_name), row.encode());
            }
            self.db.apply_batch(batch).map_err(|error| self.failed(error))?;
        }
        for (folder, first_name) in removed {
            self.db.remove(folder.row(&first_name)).map_err(|error| self.failed(error))?;
        }
        self.flush()
    }

    fn flush(&self) -> Result<()> {
        self.db.flush().map(|_| ()).map_err(|error| self.failed(error))
    }
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

fn try_open_db(folder: &Path) -> Result<sled::Db> {
    let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        Ok(Err(sled::Error::Io(error))) if error.to_string().contains("lock") => {
            Err(Error::new(Kind::Locked, "open the local state", folder.display())
                .because("another backup of this job is running")
                .hint("wait for it to end"))
        }
        Ok(Err(error)) => Err(Error::new(Kind::Corrupt, "open the local state", folder.display()).because(error)),
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
            stats: vec![u64::from(n); usize::from(n)],
        }
    }

    #[test]
    fn rows_come_back_by_folder_in_order_and_damage_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (one, two) = (FolderKey::of(b"/a"), FolderKey::of(b"/b"));
        {
            let (state, notice) = State::open(&path).unwrap();
            assert!(notice.is_none() && state.is_empty());
            state.write(vec![(one, row("m", 2)), (one, row("a", 1)), (two, row("x", 3))], vec![]).unwrap();
            state.set_base("snapshots/x", (7, 1 << 40), true).unwrap();
            assert_eq!(State::open(&path).err().unwrap().kind(), Kind::Locked);
        }
        let (state, _) = State::open(&path).unwrap();
        assert_eq!(state.pages(one), vec![row("a", 1), row("m", 2)]);
        assert_eq!((state.base().unwrap().as_str(), state.base_size()), ("snapshots/x", Some((7, 1 << 40))));
        state.write(vec![], vec![(one, b"a".to_vec())]).unwrap();
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
}
