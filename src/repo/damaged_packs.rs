//! Packs that are listed and cannot be read: they count as missing from then on, also for the next runs of this host, until
//! their objects change.

use crate::disk::own_files::open_regular;
use crate::disk::whole::{read_own, write_whole};
use crate::error::{Kind, Result};
use crate::id::PackId;
use crate::place::PackSizes;
use crate::repo::fetch::each_at_once;
use crate::repo::format::{PACK_BYTES_MAX, pack_name};
use crate::storage::Storage;
use rustix::fs::{FlockOperation, flock};
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// More are not remembered for the next run: 3 TiB of packs, more than a repository that can still be used will lack.
const PACKS_MAX: usize = 100_000;
const FILE_BYTES_MAX: u64 = PACKS_MAX as u64 * 256;
/// Packs whose objects are looked at at the same time.
const LOOKS_AT_ONCE: usize = 16;
/// Packs whose objects have changed that are read as a whole in one run; others stay damaged until the next one.
const VERIFIED_MAX: usize = 16;
/// How long another process that changes the file is waited for, and how often it is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// Stands for the version of an object that is listed and not there.
const ABSENT: &str = "absent";
/// Stands for a version that could not be found out.
const UNKNOWN: &str = "unknown";
const SOUND: &str = "sound";
const DAMAGED: &str = "damaged";

/// What is known of the objects of packs of which one was damaged: by pack and version of the object, whether its bytes are
/// right. A pack has several where copies of a repository take each other's place.
type Known = BTreeMap<(PackId, String), bool>;

/// The damaged packs that this host knows of.
pub(super) struct DamagedPacks {
    /// None without a cache: then only this process knows.
    path: Option<PathBuf>,
    known: Mutex<Known>,
    /// Those that this process has noted itself.
    noted: Mutex<HashSet<PackId>>,
    found: AtomicU64,
    /// Some of them could not be written down for the next run.
    is_unwritten: AtomicBool,
}

impl DamagedPacks {
    pub fn open(cache: Option<&Path>) -> Self {
        let path = cache.map(|cache| cache.join("damaged-packs"));
        let known = Mutex::new(path.as_deref().map(read).unwrap_or_default());
        DamagedPacks {
            path,
            known,
            noted: Mutex::default(),
            found: AtomicU64::new(0),
            is_unwritten: AtomicBool::new(false),
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
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
        if known.insert((*pack, version), false) != Some(false) {
            self.found.fetch_add(1, Ordering::SeqCst);
            if !self.write(&mut known) {
                self.is_unwritten.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Whether the next run will not know of all that this process has found.
    pub fn is_unwritten(&self) -> bool {
        self.is_unwritten.load(Ordering::SeqCst)
    }

    /// Takes the damaged packs out of what is listed. If another object has the name of one by now, it is read as a whole:
    /// if its bytes are those that it is named by, it counts.
    pub fn take_out(&self, packs: &mut PackSizes, storage: &dyn Storage) {
        let mut known = self.known();
        // Another process may have found some.
        merge(&mut known, self.path.as_deref().map(read).unwrap_or_default());
        let mut listed: Vec<PackId> = known.keys().map(|(pack, _)| *pack).filter(|pack| packs.contains(pack)).collect();
        listed.dedup();
        let versions = each_at_once(&listed, LOOKS_AT_ONCE, |pack| version_of(pack, storage));
        let mut verified = 0;
        for (pack, version) in listed.into_iter().zip(versions) {
            // What cannot be looked at is not sound for that.
            let verdict = version.ok().and_then(|version| {
                let place = (pack, version);
                if let Some(is_sound) = known.get(&place) {
                    return Some(*is_sound);
                }
                if verified == VERIFIED_MAX {
                    return None;
                }
                verified += 1;
                let is_sound = is_sound(&pack, storage).ok()?;
                known.insert(place, is_sound);
                Some(is_sound)
            });
            if verdict != Some(true) {
                packs.remove(&pack);
            }
        }
        if verified > 0 {
            // That the next run verifies them once more costs only time.
            let _is_written = self.write(&mut known);
        }
    }

    /// Writes what is known, with what other processes know; false if it is not written.
    fn write(&self, known: &mut Known) -> bool {
        let Some(path) = &self.path else { return false };
        let lock = lock(&path.with_extension("lock"));
        merge(known, read(path));
        let line = |((pack, version), is_sound): (&(PackId, String), &bool)| {
            let verdict = if *is_sound { SOUND } else { DAMAGED };
            format!("{pack} {version} {verdict}\n")
        };
        let text: String = known.iter().take(PACKS_MAX).map(line).collect();
        let written = write_whole(path, text.as_bytes());
        drop(lock);
        written.is_ok()
    }
}

/// What this process knows counts more: it has just looked.
fn merge(known: &mut Known, others: Known) {
    for (place, is_sound) in others {
        known.entry(place).or_insert(is_sound);
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

/// Whether the bytes of a pack are those that it is named by.
fn is_sound(pack: &PackId, storage: &dyn Storage) -> Result<bool> {
    match storage.get(&pack_name(pack), PACK_BYTES_MAX) {
        Ok((bytes, _)) => Ok(blake3::hash(&bytes).as_bytes() == pack.as_bytes()),
        Err(error) if error.is(Kind::Corrupt) || error.is(Kind::NotFound) => Ok(false),
        Err(error) => Err(error),
    }
}

/// What is damaged in the file reads as absent.
fn read(path: &Path) -> Known {
    let bytes = read_own(path, FILE_BYTES_MAX).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let (pack, rest) = line.split_once(' ')?;
        let (version, verdict) = rest.split_once(' ')?;
        Some(((PackId::from_hex(pack).ok()?, version.to_owned()), verdict == SOUND))
    };
    text.lines().filter_map(line).take(PACKS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::Memory;

    fn named_by(bytes: &[u8]) -> PackId {
        PackId(*blake3::hash(bytes).as_bytes())
    }

    /// A pack was sound again as soon as its object was another one: a copy of a damaged repository was trusted.
    #[test]
    fn damaged_packs_are_remembered_until_their_bytes_are_right() {
        let cache = tempfile::tempdir().expect("a directory");
        let storage = Memory::new();
        let packs = [named_by(b"one"), named_by(b"two")];
        let put = |pack: &PackId, bytes: &[u8]| storage.put(&pack_name(pack), bytes.to_vec().into()).expect("written");
        put(&packs[0], b"odd");
        put(&packs[1], b"two");
        let left = |damaged: &DamagedPacks| {
            let mut sizes: PackSizes = packs.iter().map(|pack| (*pack, 3)).collect();
            damaged.take_out(&mut sizes, &storage);
            packs.map(|pack| sizes.contains(&pack))
        };
        let damaged = DamagedPacks::open(Some(cache.path()));
        let earlier = DamagedPacks::open(Some(cache.path()));
        damaged.note(&packs[0], &storage);
        damaged.note(&packs[0], &storage);
        assert_eq!((damaged.found(), left(&damaged)), (1, [false, true]));
        assert_eq!((earlier.found(), left(&earlier)), (0, [false, true]), "another process learns of it");
        put(&packs[0], b"odd");
        for _ in 0..2 {
            assert_eq!(
                left(&DamagedPacks::open(Some(cache.path()))),
                [false, true],
                "the same bytes in another object"
            );
        }
        let other_disk = storage.fork();
        put(&packs[0], b"one");
        for _ in 0..2 {
            assert_eq!(left(&DamagedPacks::open(Some(cache.path()))), [true, true]);
        }
        // Two disks take each other's place.
        let mut sizes: PackSizes = packs.iter().map(|pack| (*pack, 3)).collect();
        DamagedPacks::open(Some(cache.path())).take_out(&mut sizes, &other_disk);
        assert_eq!(packs.map(|pack| sizes.contains(&pack)), [false, true]);
        assert_eq!(left(&DamagedPacks::open(None)), [true, true]);
    }

    #[test]
    fn what_cannot_be_written_down_is_known() {
        let cache = tempfile::tempdir().expect("a directory");
        let (storage, pack) = (Memory::new(), named_by(b"one"));
        for (path, is_unwritten) in [(Some(cache.path()), false), (None, true)] {
            let damaged = DamagedPacks::open(path);
            damaged.note(&pack, &storage);
            assert_eq!(damaged.is_unwritten(), is_unwritten);
        }
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
