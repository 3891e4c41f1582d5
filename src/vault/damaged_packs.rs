//! Packs that are listed and cannot be read: they count as missing from then on, also for the next runs of this host, until
//! their objects change.

use crate::disk::own_files::open_regular;
use crate::disk::whole::{read_own, write_whole};
use crate::error::{Kind, Result};
use crate::format::{PACK_BYTES_MAX, pack_name};
use crate::id::PackId;
use crate::lock::locked;
use crate::place::PackSizes;
use crate::storage::{ObjectStat, Storage};
use crate::vault::parallel::each_at_once;
use crate::watch::{NoticeKind, Watch};
use rustix::fs::{FlockOperation, flock};
use rustix::io::Errno;
use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// More are not remembered for the next run: 3 TiB of packs, more than a repository that can still be used will lack.
const PACKS_MAX: usize = 100_000;
const FILE_BYTES_MAX: u64 = PACKS_MAX as u64 * 256;
/// How many packs are looked up at the same time.
const LOOKS_AT_ONCE: usize = 16;
/// Verdicts are written to the cache after this many packs.
const VERIFIED_TOGETHER: usize = 16;
/// How long another process that changes the file is waited for, and how often it is tried.
const LOCK_PATIENCE: Duration = Duration::from_secs(10);
const LOCK_PAUSE: Duration = Duration::from_millis(5);
const SOUND: &str = "sound";
const DAMAGED: &str = "damaged";

/// What is known of the objects of packs of which one was damaged: by pack and version of the object, whether its bytes are
/// right. A pack has several where copies of a repository take each other's place.
type KnownDamage = BTreeMap<(PackId, PackVersion), bool>;

/// Tells a pack's object from another one at its place, and from the same bytes when they were written there again.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct PackVersion(String);

impl PackVersion {
    /// `absent` stands for an object that is not there, `unknown` for one that could not be looked up.
    pub(crate) fn of(pack: &PackId, storage: &dyn Storage) -> Self {
        PackVersion::look(pack, storage).unwrap_or_else(|_| PackVersion("unknown".to_owned()))
    }

    fn from_stat(ObjectStat { version, size, written, .. }: &ObjectStat) -> Self {
        PackVersion(format!("{}/{size}/{written}", version.0).replace(char::is_whitespace, ""))
    }

    fn look(pack: &PackId, storage: &dyn Storage) -> Result<Self> {
        match storage.stat(&pack_name(pack)) {
            Ok(stat) => Ok(PackVersion::from_stat(&stat)),
            Err(error) if error.is(Kind::NotFound) => Ok(PackVersion("absent".to_owned())),
            Err(error) => Err(error),
        }
    }
}

/// The damaged packs that this host knows of.
pub(super) struct DamagedPacks {
    /// None without a cache: then only this process knows.
    path: Option<PathBuf>,
    known: Mutex<KnownDamage>,
    /// Those that this process has noted itself.
    noted: Mutex<HashSet<PackId>>,
    found: AtomicU64,
    watch: Watch,
    /// Whether a notice has said that some cannot be recorded.
    is_unwritten: AtomicBool,
}

impl DamagedPacks {
    pub(crate) fn open(cache: Option<&Path>, watch: &Watch) -> Self {
        let path = cache.map(|cache| cache.join("damaged-packs"));
        let read = path.as_deref().map_or_else(|| Ok(KnownDamage::new()), read);
        let known = Mutex::new(read.unwrap_or_else(|error| {
            watch.notice(
                NoticeKind::Cache,
                format!("{error}; packs that are known to be damaged are relied on until they are read"),
            );
            KnownDamage::new()
        }));
        DamagedPacks {
            path,
            known,
            noted: Mutex::default(),
            found: AtomicU64::new(0),
            watch: watch.clone(),
            is_unwritten: AtomicBool::new(false),
        }
    }

    fn known(&self) -> MutexGuard<'_, KnownDamage> {
        locked(&self.known)
    }

    /// How many this process has found itself.
    pub(crate) fn found(&self) -> u64 {
        self.found.load(Ordering::SeqCst)
    }

    /// Whether this process has noted the pack already.
    pub(crate) fn is_noted(&self, pack: &PackId) -> bool {
        locked(&self.noted).contains(pack)
    }

    /// Remembers a pack that could not be read at this version.
    pub(crate) fn note(&self, pack: &PackId, version: PackVersion) {
        locked(&self.noted).insert(*pack);
        let mut known = self.known();
        if known.insert((*pack, version), false) != Some(false) {
            self.found.fetch_add(1, Ordering::SeqCst);
            if !self.write(&mut known) && !self.is_unwritten.swap(true, Ordering::SeqCst) {
                self.watch.notice(NoticeKind::Cache, "damaged packs cannot be recorded in the cache, so later runs will rely on these packs until they read them: \
                     run this command again with a cache that can be written",
                );
            }
        }
    }

    /// Remembers packs that are listed with these wrong sizes: when the size of one is right again, its bytes are verified
    /// before it counts. The comparison that found them says so: they are not among [`found`](Self::found).
    pub(crate) fn note_of_wrong_size(&self, packs: &[(PackId, u64)], storage: &dyn Storage) {
        let stats = each_at_once(packs, LOOKS_AT_ONCE, |(pack, _)| storage.stat(&pack_name(pack)));
        let mut known = self.known();
        let mut learned = 0;
        for ((pack, bytes), stat) in packs.iter().zip(stats) {
            // One that was replaced since it was listed is compared anew.
            if let Some(stat) = stat.ok().filter(|stat| stat.size == *bytes) {
                learned += usize::from(known.insert((*pack, PackVersion::from_stat(&stat)), false) != Some(false));
            }
        }
        if learned > 0 {
            // While its size is wrong, every comparison finds it.
            let _is_written = self.write(&mut known);
        }
    }

    /// Takes the damaged packs out of what is listed. If another object has the name of one by now, it is read as a whole:
    /// if its bytes are those that it is named by, it counts. An error if the storage cannot be reached.
    pub(crate) fn take_out(&self, packs: &mut PackSizes, storage: &dyn Storage) -> Result<()> {
        let mut known = self.known();
        // Another process may have found some.
        merge(&mut known, self.path.as_deref().and_then(|path| read(path).ok()).unwrap_or_default());
        let mut listed: Vec<PackId> = known.keys().map(|(pack, _)| *pack).filter(|pack| packs.contains(pack)).collect();
        listed.dedup();
        let versions = each_at_once(&listed, LOOKS_AT_ONCE, |pack| PackVersion::look(pack, storage));
        let mut learned = 0;
        for (pack, version) in listed.into_iter().zip(versions) {
            let is_sound = match version {
                Ok(version) => match known.get(&(pack, version.clone())) {
                    Some(is_sound) => *is_sound,
                    None => {
                        self.watch.cancel.check()?;
                        self.watch.stage("verifying packs that were damaged");
                        let is_sound = is_sound(&pack, storage)?;
                        if let Some(is_sound) = is_sound {
                            known.insert((pack, version), is_sound);
                            learned += 1;
                        }
                        if learned == VERIFIED_TOGETHER {
                            learned = 0;
                            // That another run verifies them once more costs only time.
                            let _is_written = self.write(&mut known);
                        }
                        is_sound == Some(true)
                    }
                },
                // A pack that was damaged and cannot be looked at is not sound for that reason.
                Err(error) if error.is_damage() || error.is(Kind::Denied) => false,
                Err(error) => return Err(error),
            };
            if !is_sound {
                packs.remove(&pack);
            }
        }
        if learned > 0 {
            let _is_written = self.write(&mut known);
        }
        Ok(())
    }

    /// Writes what is known, with what other processes know; false if it is not written, as a verdict of others could be
    /// lost.
    fn write(&self, known: &mut KnownDamage) -> bool {
        let Some(path) = &self.path else { return false };
        let Some(lock) = lock(&path.with_extension("lock")) else { return false };
        let Ok(others) = read(path) else { return false };
        merge(known, others);
        let line = |((pack, version), is_sound): (&(PackId, PackVersion), &bool)| {
            let verdict = if *is_sound { SOUND } else { DAMAGED };
            format!("{pack} {} {verdict}\n", version.0)
        };
        let text: String = known.iter().take(PACKS_MAX).map(line).collect();
        let written = write_whole(path, text.as_bytes());
        drop(lock);
        written.is_ok() && known.len() <= PACKS_MAX
    }
}

/// Damage counts more: an object may have rotted since it was found to be sound.
fn merge(known: &mut KnownDamage, others: KnownDamage) {
    for (place, is_sound) in others {
        known.entry(place).and_modify(|known| *known &= is_sound).or_insert(is_sound);
    }
}

/// Keeps other processes from changing the file meanwhile; none if another one holds it for long, or it cannot be made.
fn lock(path: &Path) -> Option<File> {
    let file = open_regular(File::options().create(true).truncate(false).write(true).mode(0o600), path).ok()?;
    let begun = Instant::now();
    while begun.elapsed() < LOCK_PATIENCE {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(file),
            Err(Errno::WOULDBLOCK | Errno::INTR) => std::thread::sleep(LOCK_PAUSE),
            Err(_) => return None,
        }
    }
    None
}

/// Whether the bytes of a pack are those that it is named by; None if they cannot be read.
fn is_sound(pack: &PackId, storage: &dyn Storage) -> Result<Option<bool>> {
    match storage.get(&pack_name(pack), PACK_BYTES_MAX) {
        Ok((bytes, _)) => Ok(Some(blake3::hash(&bytes).as_bytes() == pack.as_bytes())),
        Err(error) if error.is_damage() || error.is(Kind::Denied) => Ok(None),
        Err(error) => Err(error),
    }
}

/// What is damaged in the file reads as absent.
fn read(path: &Path) -> Result<KnownDamage> {
    let bytes = match read_own(path, FILE_BYTES_MAX) {
        Err(error) if error.is(Kind::NotFound) => Vec::new(),
        read => read?,
    };
    let text = String::from_utf8_lossy(&bytes);
    let line = |line: &str| {
        let (pack, rest) = line.split_once(' ')?;
        let (version, verdict) = rest.split_once(' ')?;
        Some(((PackId::from_hex(pack).ok()?, PackVersion(version.to_owned())), verdict == SOUND))
    };
    Ok(text.lines().filter_map(line).take(PACKS_MAX).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::Memory;

    fn open(cache: Option<&Path>) -> DamagedPacks {
        DamagedPacks::open(cache, &Watch::silent())
    }

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
            damaged.take_out(&mut sizes, &storage).expect("it can be reached");
            packs.map(|pack| sizes.contains(&pack))
        };
        let damaged = open(Some(cache.path()));
        let earlier = open(Some(cache.path()));
        for _ in 0..2 {
            damaged.note(&packs[0], PackVersion::of(&packs[0], &storage));
        }
        assert_eq!((damaged.found(), left(&damaged)), (1, [false, true]));
        assert_eq!((earlier.found(), left(&earlier)), (0, [false, true]), "another process learns of it");
        put(&packs[0], b"odd");
        for _ in 0..2 {
            assert_eq!(left(&open(Some(cache.path()))), [false, true], "the same bytes in another object");
        }
        let other_disk = storage.fork();
        put(&packs[0], b"one");
        for _ in 0..2 {
            assert_eq!(left(&open(Some(cache.path()))), [true, true]);
        }
        // Two disks take each other's place.
        let mut sizes: PackSizes = packs.iter().map(|pack| (*pack, 3)).collect();
        open(Some(cache.path())).take_out(&mut sizes, &other_disk).expect("it can be reached");
        assert_eq!(packs.map(|pack| sizes.contains(&pack)), [false, true]);
        assert_eq!(left(&open(None)), [true, true]);
    }

    #[test]
    fn what_cannot_be_written_down_is_told_once() {
        use crate::watch::Event;
        use std::sync::atomic::AtomicUsize;
        let cache = tempfile::tempdir().expect("a directory");
        let packs = [named_by(b"one"), named_by(b"two")];
        for (path, expected) in [(Some(cache.path()), 0), (None, 1)] {
            let reported = std::sync::Arc::new(AtomicUsize::new(0));
            let count = reported.clone();
            let watch = Watch::new(std::sync::Arc::new(move |event| {
                count.fetch_add(usize::from(matches!(event, Event::Notice(_))), Ordering::SeqCst);
            }));
            let damaged = DamagedPacks::open(path, &watch);
            packs.iter().for_each(|pack| damaged.note(pack, PackVersion("one".to_owned())));
            assert_eq!(reported.load(Ordering::SeqCst), expected);
        }
    }

    #[test]
    fn processes_do_not_forget_what_others_found() {
        let cache = tempfile::tempdir().expect("a directory");
        let storage = Memory::new();
        let packs: Vec<PackId> = (0..8).map(|number| PackId([number; 32])).collect();
        let opened: Vec<DamagedPacks> = packs.iter().map(|_| open(Some(cache.path()))).collect();
        for (pack, damaged) in packs.iter().zip(&opened) {
            damaged.note(pack, PackVersion::of(pack, &storage));
        }
        let mut sizes: PackSizes = packs.iter().map(|pack| (*pack, 4)).collect();
        open(Some(cache.path())).take_out(&mut sizes, &storage).expect("it can be reached");
        assert!(sizes.is_empty(), "{sizes:?}");
    }

    /// A pack that could not be looked at, as the storage was out of reach, counted as lost.
    #[test]
    fn an_outage_is_an_error_and_no_verdict() {
        use crate::storage::chaos::{CrashPoint, CrashSide};
        use std::sync::Arc;
        let cache = tempfile::tempdir().expect("a directory");
        let storage = Arc::new(Memory::new());
        let pack = named_by(b"pack");
        storage.put(&pack_name(&pack), b"pack".as_slice().into()).expect("it is written");
        let broken = CrashPoint::at(storage.clone(), 0, CrashSide::Before);
        broken.put("config", Vec::new().into()).expect_err("it breaks here, and stays broken");
        let is_left = |storage: &dyn Storage| {
            let mut sizes: PackSizes = [(pack, 4)].into_iter().collect();
            open(Some(cache.path())).take_out(&mut sizes, storage).map(|()| !sizes.is_empty())
        };
        open(Some(cache.path())).note(&pack, PackVersion::of(&pack, &broken));
        is_left(&broken).expect_err("it cannot be reached");
        assert!(is_left(&*storage).expect("it can be reached"), "the version was unknown, and the bytes are right");
        open(Some(cache.path())).note(&pack, PackVersion::of(&pack, &*storage));
        is_left(&broken).expect_err("it cannot be reached");
        assert!(!is_left(&*storage).expect("it can be reached"));
    }

    /// An object that could not be read was recorded as damaged, and stayed so when it could be read again.
    #[test]
    fn only_bytes_that_were_read_are_sound_or_damaged() {
        let cache = tempfile::tempdir().expect("a directory");
        let (storage, pack) = (Memory::new(), named_by(b"pack"));
        let is_left = || {
            let mut sizes: PackSizes = [(pack, 4)].into_iter().collect();
            open(Some(cache.path())).take_out(&mut sizes, &storage).expect("it can be reached");
            !sizes.is_empty()
        };
        open(Some(cache.path())).note(&pack, PackVersion("another".to_owned()));
        assert!(!is_left(), "it is listed and not there");
        let text = std::fs::read_to_string(cache.path().join("damaged-packs")).expect("read");
        assert_eq!(text.lines().count(), 1, "{text}");
        storage.put(&pack_name(&pack), b"pack".as_slice().into()).expect("it is written");
        assert!(is_left());
    }

    /// A process that had read "sound" when it began wrote that over the damage that another one found later.
    #[test]
    fn what_rotted_since_it_was_verified_is_damaged() {
        let cache = tempfile::tempdir().expect("a directory");
        let (pack, version) = (named_by(b"pack"), PackVersion("one".to_owned()));
        let line = format!("{pack} one sound\n");
        write_whole(&cache.path().join("damaged-packs"), line.as_bytes()).expect("written");
        let [early, late] = [0, 1].map(|_| open(Some(cache.path())));
        late.note(&pack, version);
        early.note(&named_by(b"other"), PackVersion("two".to_owned()));
        let text = std::fs::read_to_string(cache.path().join("damaged-packs")).expect("read");
        assert!(text.contains(&format!("{pack} one damaged")), "{text}");
    }
}
