//! Local state of a job: what each directory looked like when it was last saved, in sled, as a cache that can be lost.
//!
//! sled is asked only for what it is good at: a few thousand small rows, written in sorted batches, flushed at
//! checkpoints. If the database is damaged, its folder is moved aside and made anew.

use crate::backup::page_row::{FOLDER_KEY_BYTES, FolderKey, PageRow, StateChanges};
use crate::backup::state_db::{failed, open_db};
use crate::disk::own_files::remove_folder;
use crate::error::{Error, Kind, Result};
use crate::id::{IndexId, PackId};
use crate::index::IndexBasis;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

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
/// How much the last snapshot holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LastSize {
    pub files: u64,
    pub bytes: u64,
}

/// Whether rows of the current epoch can be trusted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum StateTrust {
    Trusted,
    /// Packs that they rest on are missing, or these index objects.
    Distrusted {
        indexes_lost: HashSet<IndexId>,
    },
}

/// The open state of one job; one process at a time.
///
/// A row says that a page and all that it names were stored when it was written. That still holds while everything is
/// listed that the writers of the rows relied on: `LocalState::check_against` decides it, and begins a new epoch when it does not.
/// Rows of older epochs say only what the source looked like.
pub struct LocalState {
    db: sled::Db,
    folder: PathBuf,
    relied: sled::Tree,
    missing: sled::Tree,
    epoch: u32,
    /// The last run that committed.
    committed: u32,
}

impl LocalState {
    /// Opens the state in a folder of its own, or a fresh one where there is none or it is damaged (said in the
    /// notice). `Locked` when another process has it open.
    pub fn open(folder: &Path) -> Result<(Self, Option<String>)> {
        match open_db(folder) {
            Ok(db) => {
                let known = db.get(SCHEMA_KEY).ok().flatten();
                match known.as_deref() {
                    Some(SCHEMA) => match LocalState::of(db, folder) {
                        Err(error) if error.is(Kind::Corrupt) => {}
                        opened => return Ok((opened?, None)),
                    },
                    None if db.is_empty() => return Ok((LocalState::fresh(db, folder)?, None)),
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
        let state = LocalState::fresh(open_db(folder)?, folder)?;
        Ok((state, Some(notice.to_owned())))
    }

    fn fresh(db: sled::Db, folder: &Path) -> Result<Self> {
        // The epoch first: a state without one is damaged.
        db.insert(EPOCH_KEY, &0u32.to_le_bytes()).map_err(|error| failed(folder, error))?;
        let state = LocalState::of(db, folder)?;
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
        Ok(LocalState {
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
    /// packs that a listing showed or did not show after this writer had registered. If not, a new epoch begins.
    pub(crate) fn check_against(
        &mut self,
        live: &HashSet<IndexId>,
        packs_missing: &HashSet<PackId>,
    ) -> Result<StateTrust> {
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
            return Ok(StateTrust::Trusted);
        }
        // The number first: whatever is lost after it, no row of this epoch exists yet.
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
        Ok(StateTrust::Distrusted { indexes_lost })
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
    pub(crate) fn is_trusted(&self, row: &PageRow) -> bool {
        row.epoch == self.epoch
    }

    /// Whether no snapshot has been committed since a row was written.
    pub(crate) fn is_uncommitted(&self, row: &PageRow) -> bool {
        row.run > self.committed
    }

    pub(crate) fn epoch(&self) -> u32 {
        self.epoch
    }

    /// The number of the run that is under way.
    pub(crate) fn run(&self) -> u32 {
        self.committed.saturating_add(1)
    }

    /// Files and bytes of the last snapshot.
    pub(crate) fn last_size(&self) -> Option<LastSize> {
        let value = self.db.get(SIZE_KEY).ok().flatten()?;
        let (files, bytes) = value.split_first_chunk::<8>()?;
        Some(LastSize { files: u64::from_le_bytes(*files), bytes: u64::from_le_bytes(bytes.try_into().ok()?) })
    }

    /// A commit of this size is done; `in_place` says that nothing of it remains to be tidied.
    pub(crate) fn set_committed(&self, size: LastSize, in_place: bool) -> Result<()> {
        self.put(COMMITTED_KEY, &self.run().to_le_bytes())?;
        self.put(SIZE_KEY, &[size.files.to_le_bytes(), size.bytes.to_le_bytes()].concat())?;
        if in_place {
            self.db.remove(COMMITTING_KEY).map_err(|error| failed(&self.folder, error))?;
        }
        self.flush()
    }

    /// A commit is about to be made.
    pub(crate) fn set_committing(&self) -> Result<()> {
        self.put(COMMITTING_KEY, b"")?;
        self.flush()
    }

    pub(crate) fn is_committing(&self) -> bool {
        self.db.get(COMMITTING_KEY).is_ok_and(|value| value.is_some())
    }

    /// Whether there are no rows.
    pub fn is_empty(&self) -> bool {
        !self.db.iter().keys().map_while(|key| key.ok()).any(|key| key.len() >= FOLDER_KEY_BYTES)
    }

    /// All pages of a directory, in the order of their names. Damage reads as absence.
    pub(crate) fn pages(&self, folder: FolderKey) -> Vec<PageRow> {
        let rows = self.db.scan_prefix(folder.0);
        let decode = |(key, value): (sled::IVec, sled::IVec)| PageRow::decode(&key[FOLDER_KEY_BYTES..], &value);
        rows.map_while(|row| row.ok()).filter_map(decode).collect()
    }

    /// Writes pages and removes those that are no more, then flushes: what is written is there after a crash. `relied`
    /// is what the writer of the rows relied on; it is noted before the rows.
    pub(crate) fn write(&self, mut changes: StateChanges, relied: &IndexBasis) -> Result<()> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::page_row::FileChange;
    use crate::id::ChunkId;

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
            changes: vec![FileChange::New; usize::from(n)],
        }
    }

    fn changes(rows: Vec<(FolderKey, PageRow)>, removed: Vec<(FolderKey, Vec<u8>)>) -> StateChanges {
        StateChanges { rows, removed }
    }

    fn indexes(numbers: &[u8]) -> HashSet<IndexId> {
        numbers.iter().map(|number| IndexId([*number; 32])).collect()
    }

    fn basis(numbers: &[u8]) -> IndexBasis {
        IndexBasis { indexes: indexes(numbers), ..IndexBasis::default() }
    }

    fn packs(numbers: &[u8]) -> HashSet<PackId> {
        numbers.iter().map(|number| PackId([*number; 32])).collect()
    }

    fn is_trusted(rest: StateTrust) -> bool {
        rest == StateTrust::Trusted
    }

    /// A state whose epoch could not be read was in the first one: rows of that counted as valid again.
    #[test]
    fn a_state_without_its_epoch_is_rebuilt() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        for damage in [&b"odd"[..], b""] {
            let (state, _) = LocalState::open(&path).unwrap();
            state.write(changes(vec![(FolderKey::of(b"/a"), row("a", 0))], Vec::new()), &basis(&[1])).unwrap();
            assert!(!state.is_empty());
            if damage.is_empty() {
                drop(state.db.remove(EPOCH_KEY).unwrap())
            } else {
                drop(state.db.insert(EPOCH_KEY, damage).unwrap())
            }
            state.flush().unwrap();
            drop(state);
            let (state, notice) = LocalState::open(&path).unwrap();
            assert!(state.is_empty() && notice.is_some(), "{damage:?}");
        }
    }

    /// A local state that another user had made, with rows and without what they rest on, was believed.
    #[test]
    fn rows_that_rest_on_nothing_are_not_trusted() {
        let dir = tempfile::tempdir().unwrap();
        let (mut state, _) = LocalState::open(&dir.path().join("state")).unwrap();
        assert!(is_trusted(state.check_against(&indexes(&[1]), &packs(&[])).unwrap()), "there are no rows yet");
        state.write(changes(vec![(FolderKey::of(b"/a"), row("a", 0))], Vec::new()), &basis(&[1])).unwrap();
        assert!(is_trusted(state.check_against(&indexes(&[1]), &packs(&[])).unwrap()));
        state.relied.clear().unwrap();
        assert!(!is_trusted(state.check_against(&indexes(&[1]), &packs(&[])).unwrap()));
    }

    #[test]
    fn rows_come_back_by_folder_in_order_and_damage_is_survived() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let (one, two) = (FolderKey::of(b"/a"), FolderKey::of(b"/b"));
        {
            let (state, notice) = LocalState::open(&path).unwrap();
            assert!(notice.is_none() && state.is_empty());
            let rows = vec![(one, row("m", 2)), (one, row("a", 1)), (two, row("x", 3))];
            state.write(changes(rows, vec![]), &basis(&[1])).unwrap();
            state.set_committed(LastSize { files: 7, bytes: 1 << 40 }, true).unwrap();
            assert_eq!(LocalState::open(&path).err().unwrap().kind(), Kind::Locked);
        }
        let (state, _) = LocalState::open(&path).unwrap();
        assert!(!state.is_empty());
        assert_eq!(state.pages(one), vec![row("a", 1), row("m", 2)]);
        assert_eq!((state.run(), state.last_size()), (2, Some(LastSize { files: 7, bytes: 1 << 40 })));
        state.write(changes(vec![], vec![(one, b"a".to_vec())]), &basis(&[])).unwrap();
        assert_eq!(state.pages(one), vec![row("m", 2)]);
        drop(state);
        for file in std::fs::read_dir(&path).unwrap() {
            let file = file.unwrap().path();
            if file.is_file() {
                std::fs::write(file, b"rubbish").unwrap();
            }
        }
        let (state, _) = LocalState::open(&path).unwrap();
        assert!(state.pages(two).is_empty());
    }

    #[test]
    fn rows_are_trusted_while_all_that_their_writers_relied_on_is_listed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("state");
        let reopen = || LocalState::open(&path).unwrap().0;
        let mut state = reopen();
        assert!(is_trusted(state.check_against(&indexes(&[1, 2]), &packs(&[])).unwrap()), "nothing was relied on");
        state.write(changes(vec![], vec![]), &basis(&[1, 2])).unwrap();
        drop(state);
        let mut state = reopen();
        assert!(is_trusted(state.check_against(&indexes(&[1, 2, 3]), &packs(&[])).unwrap()));
        let first = state.epoch();
        assert!(!is_trusted(state.check_against(&indexes(&[2, 3]), &packs(&[])).unwrap()), "an index object is gone");
        assert_ne!(state.epoch(), first);
        state.write(changes(vec![], vec![]), &basis(&[2, 3])).unwrap();
        drop(state);
        let mut state = reopen();
        assert!(is_trusted(state.check_against(&indexes(&[2, 3]), &packs(&[])).unwrap()));
        assert!(!is_trusted(state.check_against(&indexes(&[2, 3]), &packs(&[8, 9])).unwrap()), "packs are gone");
        drop(state);
        let mut state = reopen();
        assert!(
            is_trusted(state.check_against(&indexes(&[2, 3]), &packs(&[8, 9])).unwrap()),
            "no row of this epoch rests on them"
        );
        assert!(is_trusted(state.check_against(&indexes(&[2, 3]), &packs(&[9])).unwrap()), "one is there again");
        assert!(
            !is_trusted(state.check_against(&indexes(&[2, 3]), &packs(&[8, 9])).unwrap()),
            "it may have been relied on since"
        );
    }
}
