//! Packs that are listed and cannot be read: they count as missing from then on, also for the next runs of this host, until
//! their objects change.

use crate::disk::whole::{read_bounded, write_whole};
use crate::error::Kind;
use crate::id::PackId;
use crate::place::PackSizes;
use crate::repo::format::pack_name;
use crate::storage::Storage;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// More are not remembered: 128 GiB of packs, more than a repository that can still be used is likely to lack.
const PACKS_MAX: usize = 4096;
const FILE_BYTES_MAX: u64 = PACKS_MAX as u64 * 256;

/// The damaged packs that this host knows of, each with the version of its object when it was found.
pub(super) struct DamagedPacks {
    /// None without a cache: then only this process knows.
    path: Option<PathBuf>,
    known: Mutex<BTreeMap<PackId, String>>,
    found: AtomicU64,
}

impl DamagedPacks {
    pub fn open(cache: Option<&Path>) -> Self {
        let path = cache.map(|cache| cache.join("damaged-packs"));
        let known = Mutex::new(path.as_deref().map(read).unwrap_or_default());
        DamagedPacks { path, known, found: AtomicU64::new(0) }
    }

    fn known(&self) -> MutexGuard<'_, BTreeMap<PackId, String>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many this process has found itself.
    pub fn found(&self) -> u64 {
        self.found.load(Ordering::SeqCst)
    }

    /// Remembers a pack that could not be read.
    pub fn note(&self, pack: &PackId, storage: &dyn Storage) {
        let mut known = self.known();
        if known.len() >= PACKS_MAX || known.contains_key(pack) {
            return;
        }
        known.insert(*pack, version_of(pack, storage));
        self.found.fetch_add(1, Ordering::SeqCst);
        self.save(&known);
    }

    /// Takes the damaged packs out of what is listed. One whose object has changed since counts as sound again.
    pub fn take_out(&self, packs: &mut PackSizes, storage: &dyn Storage) {
        let mut known = self.known();
        // Another process may have found some.
        let others = self.path.as_deref().map(read).unwrap_or_default();
        let mut is_changed = false;
        for (pack, version) in others {
            known.entry(pack).or_insert(version);
        }
        known.retain(|pack, version| {
            let is_sound = packs.contains(pack) && version_of(pack, storage) != *version;
            is_changed |= is_sound;
            !is_sound
        });
        known.keys().for_each(|pack| packs.remove(pack));
        if is_changed {
            self.save(&known);
        }
    }

    fn save(&self, known: &BTreeMap<PackId, String>) {
        let Some(path) = &self.path else { return };
        let text: String = known.iter().map(|(pack, version)| format!("{pack} {version}\n")).collect();
        // Without it the next run finds the damage itself.
        let _best_effort = write_whole(path, text.as_bytes());
    }
}

/// What tells the pack's object from another one at its place.
fn version_of(pack: &PackId, storage: &dyn Storage) -> String {
    match storage.stat(&pack_name(pack)) {
        Ok(stat) => stat.version.0.replace(char::is_whitespace, ""),
        Err(error) if error.is(Kind::NotFound) => "absent".to_owned(),
        Err(_) => "unknown".to_owned(),
    }
}

/// What is damaged in the file reads as absent.
fn read(path: &Path) -> BTreeMap<PackId, String> {
    let bytes = read_bounded(path, FILE_BYTES_MAX).unwrap_or_default();
    let text = String::from_utf8(bytes).unwrap_or_default();
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
}
