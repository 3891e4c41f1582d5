//! Fetch many whole objects: several at a time from remote storage.

use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use crate::storage::Storage;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fetches objects, several at a time, in the order of their names' list.
pub(crate) fn fetch_all(storage: &dyn Storage, names: &[String], bytes_max: u64) -> Vec<Result<Vec<u8>>> {
    let get = |name: &String| storage.get(name, bytes_max).map(|(bytes, _)| bytes);
    each_at_once(names, storage.profile().parallel_requests, get)
}

/// Calls `work` for each item, `at_once` of them at the same time; the results are in the order of the items. Threads that
/// cannot be started leave their share to the others.
pub(crate) fn each_at_once<T: Sync, R: Send>(
    items: &[T],
    at_once: usize,
    work: impl Fn(&T) -> Result<R> + Sync,
) -> Vec<Result<R>> {
    if items.len() <= 1 || at_once <= 1 {
        return items.iter().map(work).collect();
    }
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<R>>>> = items.iter().map(|_| Mutex::new(None)).collect();
    let run = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(at) else { break };
            let done = work(item);
            *locked(&results[at]) = Some(done);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..at_once.min(items.len()) {
            if std::thread::Builder::new().spawn_scoped(scope, run).is_err() {
                break;
            }
        }
        run();
    });
    let take = |slot: Mutex<Option<Result<R>>>| {
        let inner = slot.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        inner.unwrap_or_else(|| Err(Error::new(Kind::Failed, "fetch an object", "")))
    };
    results.into_iter().map(take).collect()
}
