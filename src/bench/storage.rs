//! What a storage does: small and large objects put, read, listed and removed, one after another and several at once.

use crate::bench::median;
use crate::error::Result;
use crate::lock::locked;
use crate::seal::random;
use crate::storage::{ObjectBody, Storage};
use bytes::Bytes;
use serde::Serialize;
use std::sync::Mutex;
use std::time::Instant;

/// Medians: seconds for one small request, bytes a second for large ones.
#[derive(Clone, Debug, Default, Serialize)]
pub struct StorageFigures {
    /// To write a small object.
    pub put_small_seconds: f64,
    /// To read a small object.
    pub get_small_seconds: f64,
    /// To list a few objects.
    pub list_seconds: f64,
    /// To write large objects, one after the other.
    pub put_bytes_per_second: f64,
    /// To write large objects, four at the same time.
    pub put_parallel_bytes_per_second: f64,
    /// To read large objects, one after the other.
    pub get_bytes_per_second: f64,
    /// The size of a large object, in bytes.
    pub object_bytes: usize,
}

const LARGE_BYTES: usize = 32 << 20;
const PARALLEL: usize = 4;

/// Writes below `bench/` and removes what it wrote.
pub fn measure_storage(storage: &dyn Storage, rounds: usize) -> Result<StorageFigures> {
    let mut noise = vec![0; LARGE_BYTES];
    blake3::Hasher::new_keyed(&random()?).finalize_xof().fill(&mut noise);
    let large = ObjectBody(vec![Bytes::from(noise)]);
    let names: Vec<String> = (0..PARALLEL).map(|at| format!("bench/large-{at}")).collect();
    let mut figures: [Vec<f64>; 6] = Default::default();
    let measured = (0..rounds.max(1)).try_for_each(|round| -> Result<()> {
        let small = format!("bench/small-{round}");
        figures[0].push(seconds(|| storage.put(&small, ObjectBody::from(&b"small"[..])).map(drop))?);
        figures[1].push(seconds(|| storage.get(&small, 100).map(drop))?);
        figures[2].push(seconds(|| storage.list("bench/").map(drop))?);
        figures[3].push(LARGE_BYTES as f64 / seconds(|| storage.put(&names[0], large.clone()).map(drop))?);
        let all = seconds(|| put_parallel(storage, &names, &large))?;
        figures[4].push((LARGE_BYTES * PARALLEL) as f64 / all);
        figures[5].push(LARGE_BYTES as f64 / seconds(|| storage.get(&names[0], LARGE_BYTES as u64).map(drop))?);
        Ok(())
    });
    let cleaned = storage.list("bench/")?.iter().try_for_each(|listed| storage.remove(&listed.name));
    measured.and(cleaned)?;
    let [put_small, get_small, list, put, parallel, get] = figures.map(median);
    Ok(StorageFigures {
        put_small_seconds: put_small,
        get_small_seconds: get_small,
        list_seconds: list,
        put_bytes_per_second: put,
        put_parallel_bytes_per_second: parallel,
        get_bytes_per_second: get,
        object_bytes: LARGE_BYTES,
    })
}

fn put_parallel(storage: &dyn Storage, names: &[String], body: &ObjectBody) -> Result<()> {
    let failure = Mutex::new(None);
    std::thread::scope(|scope| {
        for name in names {
            scope.spawn(|| {
                if let Err(error) = storage.put(name, body.clone()) {
                    locked(&failure).get_or_insert(error);
                }
            });
        }
    });
    failure.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).map_or(Ok(()), Err)
}

fn seconds(work: impl FnOnce() -> Result<()>) -> Result<f64> {
    let begun = Instant::now();
    work()?;
    Ok(begun.elapsed().as_secs_f64().max(1e-9))
}
