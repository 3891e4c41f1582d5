//! Packs that are listed and cannot be read: they count as missing from then on, also for the next runs of this host, until
//! their objects change.

use crate::disk::own_files::open_regular;
use crate::disk::whole::{read_own, write_whole};
use crate::error::{Kind, Result};
use crate::id::PackId;
use crate::place::PackSizes;
use crate::repo::fetch::each_at_once;
use crate::repo::format::pack_name;
use crate::storage::Storage;
use rustix::fs::{FlockOperation, flock};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More are not remembered for the next run: 3 TiB of packs, more than a repository that can still be used will lack.
const PACKS_MAX: usize = 100_000;
const FILE_BYTES_MAX: u64 = PACKS_MAX as u64 * 256;
/// Packs whose objects are looked at at the same time.
const LOOKS_AT_ONCE: usize = 16;
/// How long another process that changes the file is waited for, and how often it is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// Stands for the version of an object that is listed and not there.
const ABSENT: &str = "absent";
/// Stands for a version that could not be found out.
const UNKNOWN: &str = "unknown";

/// The damaged packs that this host knows of, each with the version of its object when it was found.
pub(super) struct DamagedPacks {
    /// None without a cache: then only this process knows.
    path: Option<PathBuf>,
    known: Mutex<BTreeMap<PackId, String>>,
    /// Those that this process has noted itself.
    noted: Mutex<HashSet<PackId>>,
    found: AtomicU64,
}

impl DamagedPacks {
    pub fn open(cache: Option<&Path>) -> Self {
        let path = cache.map(|cache| cache.join("damaged-packs"));
        let known = Mutex::new(path.as_deref().map(read).unwrap_or_default());
        DamagedPacks { path, known, noted: Mutex::default(), found: AtomicU64::new(0) }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PackId, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many this process has found itself.
    pub fn found(&self) -> u64 {
        self.found.load(Ordering::SeqCst)
    }

    /// Whether this process has noted the pack already.
    pub fn is_noted(&self, pack: &PackId) -> bool {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).contains(pack)
    }

    /// Remembers a pack that could not be read.
    pub fn note(&self, pack: &PackId, storage: &dyn Storage) {
        self.noted.lock().unwrap_or_else(PoisonError::into_inner).insert(*pack);
        let version = version_of(pack, storage).unwrap_or_else(|_| UNKNOWN.to_owned());
        let mut known = self.known();
        if known.insert(*pack, version).is_none() {
            self.found.fetch_add(1, Ordering::SeqCst);
            self.change_file(&mut known, |_| ());
        }
    }

    /// Takes the damaged packs out of what is listed. One whose object has changed since counts as sound again.
    pub fn take_out(&self, packs: &mut PackSizes, storage: &dyn Storage) {
        let mut known = self.known();
        // Another process may have found some.
        merge(&mut known, self.path.as_deref().map(read).unwrap_or_default());
        let listed: Vec<PackId> = known.keys().filter(|pack| packs.contains(pack)).copied().collect();
        let versions = each_at_once(&listed, LOOKS_AT_ONCE, |pack| version_of(pack, storage));
        let (mut sound, mut is_changed) = (Vec::new(), false);
        for (pack, version) in listed.iter().zip(versions) {
            // What cannot be looked at is not sound for that.
            let Ok(version) = version else { continue };
            match known.insert(*pack, version.clone()) {
                Some(before) if before == version => continue,
                Some(before) if before != UNKNOWN => sound.push(*pack),
                _ => {}
            }
            is_changed = true;
        }
        if is_changed {
            self.change_file(&mut known, |known| known.retain(|pack, _| !sound.contains(pack)));
        }
        known.keys().for_each(|pack| packs.remove(pack));
    }

    /// Writes what is known, with what other processes know, and `change` made to both.
    fn change_file(&self, known: &mut BTreeMap<PackId, String>, change: impl Fn(&mut BTreeMap<PackId, String>)) {
        let Some(path) = &self.path else { return change(known) };
        let lock = lock(&path.with_extension("lock"));
        merge(known, read(path));
        change(known);
        let line = |(pack, version): (&PackId, &String)| format!("{pack} {version}\n");
        let text: String = known.iter().take(PACKS_MAX).map(line).collect();
        // Without it the next run finds the damage itself.
        let _best_effort = write_whole(path, text.as_bytes());
        drop(lock);
    }
}

fn merge(known: &mut BTreeMap<PackId, String>, others: BTreeMap<PackId, String>) {
    for (pack, version) in others {
        known.entry(pack).or_insert(version);
    }
}

/// Keeps other processes from changing the file meanwhile; none where that cannot be had soon.
fn lock(path: &Path) -> Option<File> {
    let file = open_regular(File::options().create(true).truncate(false).write(true).mode(0o600), path).ok()?;
    let begun = Instant::now();
    while begun.elapsed() < LOCK_PATIENCE {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(file),
            Err(_) => std::thread::sleep(LOCK_PAUSE),
        }
    }
    None
}

/// What tells the pack's object from another one at its place.
fn version_of(pack: &PackId, storage: &dyn Storage) -> Result<String> {
    match storage.stat(&pack_name(pack)) {
        Ok(stat) => Ok(stat.version.0.replace(char::is_whitespace, "")),
        Err(error) if error.is(Kind::NotFound) => Ok(ABSENT.to_owned()),
        Err(error) => Err(error),
    }
}

/// What is damaged in the file reads as absent.
fn read(path: &Path) -> BTreeMap<PackId, String> {
    let bytes = read_own(path, FILE_BYTES_MAX).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let (pack, version) = line.split_once(' ')?;
        Some((PackId::from_hex(pack).ok()?, version.to_owned()))
    };
    text.lines().filter_map(line).take(PACKS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::Memory;

    #[test]
    fn damaged_packs_are_remembered_until_their_objects_change() {
        let cache = tempfile::tempdir().expect("a directory");
        let storage = Memory::new();
        let packs = [PackId([1; 32]), PackId([2; 32])];
        for pack in &packs {
            storage.put(&pack_name(pack), b"pack".as_slice().into()).expect("it is written");
        }
        let left = |damaged: &DamagedPacks| {
            let mut sizes: PackSizes = packs.iter().map(|pack| (*pack, 4)).collect();
            damaged.take_out(&mut sizes, &storage);
            packs.map(|pack| sizes.contains(&pack))
        };
        let damaged = DamagedPacks::open(Some(cache.path()));
        let earlier = DamagedPacks::open(Some(cache.path()));
        damaged.note(&packs[0], &storage);
        damaged.note(&packs[0], &storage);
        assert_eq!((damaged.found(), left(&damaged)), (1, [false, true]));
        assert_eq!((earlier.found(), left(&earlier)), (0, [false, true]), "another process learns of it");
        storage.put(&pack_name(&packs[0]), b"pack".as_slice().into()).expect("it is written");
        assert_eq!(left(&DamagedPacks::open(Some(cache.path()))), [true, true]);
        assert_eq!(left(&DamagedPacks::open(None)), [true, true]);
    }

    #[test]
    fn processes_do_not_forget_what_others_found() {
        let cache = tempfile::tempdir().expect("a directory");
        let storage = Memory::new();
        let packs: Vec<PackId> = (0..8).map(|number| PackId([number; 32])).collect();
        let opened: Vec<DamagedPacks> = packs.iter().map(|_| DamagedPacks::open(Some(cache.path()))).collect();
        for (pack, damaged) in packs.iter().zip(&opened) {
            damaged.note(pack, &storage);
        }
        let mut sizes: PackSizes = packs.iter().map(|pack| (*pack, 4)).collect();
        DamagedPacks::open(Some(cache.path())).take_out(&mut sizes, &storage);
        assert!(sizes.is_empty(), "{sizes:?}");
    }

    #[test]
    fn a_damaged_pack_that_cannot_be_looked_at_stays_damaged() {
        use crate::storage::chaos::{Crash, Side};
        use std::sync::Arc;
        let cache = tempfile::tempdir().expect("a directory");
        let storage = Arc::new(Memory::new());
        let pack = PackId([1; 32]);
        storage.put(&pack_name(&pack), b"pack".as_slice().into()).expect("it is written");
        let broken = Crash::at(storage.clone(), 0, Side::Before);
        broken.put("config", Vec::new().into()).expect_err("it breaks here, and stays broken");
        let is_left = |storage: &dyn Storage| {
            let mut sizes: PackSizes = [(pack, 4)].into_iter().collect();
            DamagedPacks::open(Some(cache.path())).take_out(&mut sizes, storage);
            !sizes.is_empty()
        };
        for found_by in [&*storage as &dyn Storage, &broken] {
            DamagedPacks::open(Some(cache.path())).note(&pack, found_by);
            assert!(!is_left(&broken) && !is_left(&*storage));
        }
    }
}
