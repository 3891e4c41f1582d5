//! Fetch many whole objects: several at a time from far storage.

use crate::error::{Error, Kind, Result};
use crate::storage::Storage;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Fetches objects, several at a time, in the order of their names' list.
pub(super) fn fetch_all(storage: &dyn Storage, names: &[String], bytes_max: u64) -> Vec<Result<Vec<u8>>> {
    const AT_ONCE: usize = 8;
    if names.len() <= 1 || storage.abilities().local {
        return names.iter().map(|name| storage.get(name, bytes_max).map(|(bytes, _)| bytes)).collect();
    }
    let next = AtomicUsize::new(0);
    let results: Vec<Mutex<Option<Result<Vec<u8>>>>> = names.iter().map(|_| Mutex::new(None)).collect();
    std::thread::scope(|scope| {
        for _ in 0..AT_ONCE.min(names.len()) {
            scope.spawn(|| {
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed);
                    let Some(name) = names.get(at) else { break };
                    let got = storage.get(name, bytes_max).map(|(bytes, _)| bytes);
                    *results[at].lock().unwrap_or_else(|poisoned| poisoned.into_inner()) = Some(got);
                }
            });
        }
    });
    let take = |slot: Mutex<Option<Result<Vec<u8>>>>| {
        let inner = slot.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        inner.unwrap_or_else(|| Err(Error::new(Kind::Failed, "fetch an object", "")))
    };
    results.into_iter().map(take).collect()
}
