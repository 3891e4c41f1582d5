//! The readers: a pool of threads of which as many are awake as it takes to keep the processors busy.
//!
//! If the sources are in the page cache, one reader for each processor is best: more of them only cost memory. If they
//! come from a disk or over a network, a reader mostly waits, and the next ones wake until the processors have enough to
//! do or the disk takes no more. This is measured while the backup runs (docs/decisions/0013-readers-that-wake.md).

use crate::backup::options::{BackupOptions, READER_MEMORY_BYTES};
use crate::disk::device::{Medium, medium_of};
use crate::disk::stat::stat_path;
use crate::error::{Error, Result};
use crate::lock::locked;
use std::collections::HashSet;
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// As many readers as this for each processor bring no more.
const READERS_A_PROCESSOR_MAX: usize = 8;
/// A rotating disk is slowed down by too many readers.
const READERS_ROTATIONAL_MAX: usize = 4;
/// How long is measured before more are woken.
const LOOK: Duration = Duration::from_millis(50);
/// Processors count as busy when so much of them has something to run.
const BUSY: f64 = 0.9;

/// The pool. Dropped, all wake and end.
pub(super) struct Readers {
    pub pool: rayon::ThreadPool,
    /// How many share the work of the processor: helpers of one another are no more than these.
    pub least: usize,
    pub most: usize,
    awake: Arc<AwakeReaders>,
    /// For each thread the kernel's account of the time that it ran or waited for a processor; empty where there is none.
    accounts: Arc<Mutex<Vec<Option<File>>>>,
}

struct AwakeReaders {
    count: Mutex<usize>,
    changed: Condvar,
}

impl AwakeReaders {
    fn lock(&self) -> MutexGuard<'_, usize> {
        locked(&self.count)
    }

    fn set(&self, count: usize) {
        *self.lock() = count;
        self.changed.notify_all();
    }

    fn sleep_until_wanted(&self, number: usize) {
        let count = self.lock();
        drop(self.changed.wait_while(count, |count| *count <= number));
    }
}

impl Readers {
    /// `paths` are the trees to read.
    pub(crate) fn start(options: &BackupOptions, paths: &[PathBuf]) -> Result<Self> {
        let processors = std::thread::available_parallelism().map_or(2, |count| count.get());
        let media = distinct_media(paths);
        let (least, first, most) = match options.readers {
            Some(count) => (count, count, count),
            None => range(processors, options.memory_bytes, media.into_iter()),
        };
        let accounts: Arc<Mutex<Vec<Option<File>>>> = Arc::new(Mutex::new((0..most).map(|_| None).collect()));
        let start = |threads| {
            let filled = accounts.clone();
            rayon::ThreadPoolBuilder::new()
                .num_threads(threads)
                .thread_name(|index| format!("reader-{index}"))
                .start_handler(move |index| {
                    let account = File::open("/proc/thread-self/schedstat").ok();
                    locked(&filled)[index] = account;
                })
                .build()
        };
        // If the system refuses that many threads, fewer threads do the work.
        let pool = start(most).or_else(|_| start(first)).or_else(|_| start(1)).map_err(Error::no_thread)?;
        let most = pool.current_num_threads();
        let (least, first) = (least.min(most), first.min(most));
        let awake = Arc::new(AwakeReaders { count: Mutex::new(first), changed: Condvar::new() });
        if first < most {
            let awake = awake.clone();
            pool.spawn_broadcast(move |context| awake.sleep_until_wanted(context.index()));
        }
        Ok(Readers { pool, least, most, awake, accounts })
    }

    /// The lanes of buffers and of the sink: one for each reader, and one for all other threads.
    pub(crate) fn lanes(&self) -> usize {
        self.most + 1
    }

    /// Wakes readers as they are needed, until `is_done` is closed. None while `holds_back` says that it is not the
    /// sources that they wait for.
    pub(crate) fn adapt(&self, is_done: &crossbeam_channel::Receiver<()>, holds_back: impl Fn() -> bool) {
        let mut count = *self.awake.lock();
        let (mut since, mut before) = (Instant::now(), self.runnable(count));
        while count < self.most && is_done.recv_timeout(LOOK) == Err(crossbeam_channel::RecvTimeoutError::Timeout) {
            let (Some(earlier), Some(now)) = (before, self.runnable(count)) else { return };
            let busy = now.saturating_sub(earlier).as_secs_f64() / since.elapsed().as_secs_f64();
            if busy < BUSY * self.least as f64 && !holds_back() {
                count = (count + count.div_ceil(2)).min(self.most);
                self.awake.set(count);
            }
            (since, before) = (Instant::now(), self.runnable(count));
        }
    }

    /// The time that those awake ran or could have run, all together; none where the kernel does not tell.
    fn runnable(&self, awake: usize) -> Option<Duration> {
        let accounts = locked(&self.accounts);
        let known = accounts[..awake].iter().map(|account| runnable_of(account.as_ref()?));
        known.sum::<Option<u64>>().map(Duration::from_nanos)
    }
}

impl Drop for Readers {
    fn drop(&mut self) {
        self.awake.set(usize::MAX);
    }
}

/// The media that the sources are on; each file system is asked once, however long the list.
fn distinct_media(paths: &[PathBuf]) -> Vec<Medium> {
    let mut asked = HashSet::new();
    let is_new =
        |path: &&PathBuf| stat_path(path.as_os_str().as_bytes(), true).is_ok_and(|stat| asked.insert(stat.device));
    let distinct = paths.iter().filter(is_new);
    distinct.filter_map(|path| medium_of(path.as_os_str().as_bytes()).ok()).collect()
}

/// Nanoseconds on a processor and nanoseconds in wait for one, the first two of three numbers.
fn runnable_of(account: &File) -> Option<u64> {
    let mut text = [0; 80];
    let length = account.read_at(&mut text, 0).ok()?;
    let mut numbers = std::str::from_utf8(&text[..length]).ok()?.split_whitespace();
    let ran: u64 = numbers.next()?.parse().ok()?;
    let waited: u64 = numbers.next()?.parse().ok()?;
    Some(ran.saturating_add(waited))
}

/// The fewest, those to begin with, and the most.
fn range(processors: usize, memory_bytes: u64, media: impl Iterator<Item = Medium>) -> (usize, usize, usize) {
    let by_memory = usize::try_from(memory_bytes / READER_MEMORY_BYTES).unwrap_or(usize::MAX).max(1);
    let least = processors.min(by_memory);
    let most = by_memory.min(processors.saturating_mul(READERS_A_PROCESSOR_MAX));
    let media: Vec<Medium> = media.collect();
    let all = |medium| !media.is_empty() && media.iter().all(|found| *found == medium);
    if all(Medium::Memory) {
        (least, least, least)
    } else if all(Medium::Rotational) {
        (least, least, most.min(READERS_ROTATIONAL_MAX.max(least)))
    } else if all(Medium::Network) {
        // A round trip takes longer than a reader has to do between two.
        (least, most, most)
    } else {
        (least, least, most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn options(readers: Option<usize>) -> BackupOptions {
        let mut options = BackupOptions::new(vec![PathBuf::from("/")], "host");
        options.readers = readers;
        options
    }

    /// The threads that take part in some work.
    fn at_work(readers: &Readers) -> BTreeSet<Option<usize>> {
        let seen = Mutex::new(BTreeSet::new());
        readers.pool.scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|_| {
                    std::thread::sleep(Duration::from_micros(500));
                    seen.lock().unwrap().insert(rayon::current_thread_index());
                });
            }
        });
        seen.into_inner().unwrap()
    }

    #[test]
    fn memory_and_medium_bound_the_readers() {
        let range = |processors, mib: u64, media: &[Medium]| range(processors, mib << 20, media.iter().copied());
        assert_eq!(range(2, 256, &[Medium::Nvme]), (2, 2, 10));
        assert_eq!(range(2, 256, &[]), (2, 2, 10));
        assert_eq!(range(2, 1024, &[Medium::Sata, Medium::Memory]), (2, 2, 16));
        assert_eq!(range(2, 256, &[Medium::Memory, Medium::Memory]), (2, 2, 2));
        assert_eq!(range(2, 256, &[Medium::Rotational]), (2, 2, 4));
        assert_eq!(range(6, 256, &[Medium::Rotational]), (6, 6, 6));
        assert_eq!(range(2, 256, &[Medium::Network]), (2, 10, 10));
        assert_eq!(range(32, 256, &[Medium::Sata]), (10, 10, 10));
        assert_eq!(range(8, 1, &[Medium::Sata]), (1, 1, 1));
    }

    #[test]
    fn those_asleep_take_no_work_until_they_are_woken() {
        let mut readers = Readers::start(&options(Some(4)), &[]).unwrap();
        assert_eq!(readers.pool.broadcast(|context| context.index()).len(), 4);
        // As if one had been enough to begin with.
        readers.awake.set(1);
        let awake = readers.awake.clone();
        readers.pool.spawn_broadcast(move |context| awake.sleep_until_wanted(context.index()));
        // They fall asleep one after the other, and then take nothing any more.
        wait_until(|| at_work(&readers) == BTreeSet::from([Some(0)]));

        // A thread that sleeps in its work has nothing to run, so all wake.
        readers.least = 2;
        let (done, is_done) = crossbeam_channel::bounded(0);
        std::thread::scope(|scope| {
            scope.spawn(|| readers.adapt(&is_done, || false));
            wait_until(|| at_work(&readers).len() == 4 || *readers.awake.lock() == 4);
            drop(done);
        });
        assert_eq!(*readers.awake.lock(), 4);
    }

    #[test]
    fn nobody_wakes_while_others_hold_the_line_up_and_all_end() {
        let readers = Readers::start(&options(Some(3)), &[]).unwrap();
        readers.awake.set(1);
        let awake = readers.awake.clone();
        readers.pool.spawn_broadcast(move |context| awake.sleep_until_wanted(context.index()));
        let (done, is_done) = crossbeam_channel::bounded::<()>(0);
        std::thread::scope(|scope| {
            scope.spawn(|| readers.adapt(&is_done, || true));
            std::thread::sleep(4 * LOOK);
            drop(done);
        });
        assert_eq!(*readers.awake.lock(), 1);
    }

    #[test]
    fn the_account_of_a_thread_grows_as_it_runs() {
        let Ok(account) = File::open("/proc/thread-self/schedstat") else { return };
        let before = runnable_of(&account).unwrap();
        // It waits for nothing, so the account grows by all the time that passes.
        wait_until(|| runnable_of(&account).unwrap() - before > 20_000_000);
    }

    /// Waits however long a busy machine takes; what never comes fails the test.
    #[track_caller]
    fn wait_until(mut is_so: impl FnMut() -> bool) {
        let begun = Instant::now();
        while !is_so() {
            assert!(begun.elapsed() < Duration::from_secs(120), "it never came");
        }
    }
}
