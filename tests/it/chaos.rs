//! Storage that errs at random, by a seed: runs fail and are run again, and in the end everything restores exactly.

use crate::fixture::{self, RENAMES, SWAPS, backup, memory, open, plant, restored_differences};
use siltstone::entry::PathText;
use siltstone::error::{Kind, Result};
use siltstone::repo::SnapshotSource;
use siltstone::storage::{Chaos, ChaosRates, Retry, Storage};
use siltstone::watch::{Cancel, Clock};
use std::fs;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

const SEEDS: u64 = 200;
const SEEDS_PATIENT: u64 = 30;
const TRIES: usize = 200;

/// A clock by which pauses are over at once.
#[derive(Default)]
struct Hurried(Mutex<Duration>);

impl Clock for Hurried {
    fn elapsed(&self) -> Duration {
        *self.0.lock().expect("whole")
    }

    fn pause(&self, duration: Duration, _cancel: &Cancel) -> Result<()> {
        *self.0.lock().expect("whole") += duration;
        Ok(())
    }
}

/// With `patient`, as the program runs: failures that may pass are tried again, and lost answers found out.
fn survive(seed: u64, sources: &[&Path], patient: bool) {
    let storage = memory(if seed.is_multiple_of(2) { SWAPS } else { RENAMES });
    let rates = ChaosRates { refused: 40, lost_answer: 40, torn: 0, stale_listing: 40 };
    let chaos = Arc::new(Chaos::seeded(Arc::new(storage.clone()), seed, rates));
    let chaos: Arc<dyn Storage> =
        if patient { Arc::new(Retry::new(chaos).with_clock(Arc::new(Hurried::default()))) } else { chaos };
    let cache = tempfile::tempdir().expect("a folder");
    for source in sources {
        let done = (0..TRIES).any(|_| match backup(chaos.clone(), cache.path(), source) {
            Ok(report) => report.snapshot.is_some(),
            // A version seen before the answer was lost is another than the storage's: that ends a run, too.
            Err(error) => {
                let expected = [Kind::Temporary, Kind::Locked, Kind::Conflict, Kind::AlreadyExists];
                assert!(expected.contains(&error.kind()), "seed {seed}: {error:?}");
                false
            }
        });
        assert!(done, "seed {seed}: no run succeeded");
    }
    let repo = open(Arc::new(storage), cache.path()).unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
    let snapshots = fixture::snapshots(&repo);
    assert!(snapshots.len() >= sources.len(), "seed {seed}: {} snapshots", snapshots.len());
    if patient {
        assert_eq!(snapshots.len(), sources.len(), "seed {seed}: a run that saved a snapshot said that it failed");
    }
    let mut ids: Vec<_> = snapshots.iter().map(|snapshot| snapshot.id).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), snapshots.len(), "seed {seed}: a snapshot is listed twice");
    for snapshot in &snapshots {
        let path = |source: &Path| PathText(source.as_os_str().as_encoded_bytes().to_vec());
        let of = |source: &&&Path| snapshot.sources == [SnapshotSource::Tree { path: path(source) }];
        let source = sources.iter().find(of).unwrap_or_else(|| panic!("seed {seed}: {:?}", snapshot.sources));
        let found = restored_differences(&repo, snapshot, source, source);
        let found = found.unwrap_or_else(|error| panic!("seed {seed}: {error:?}"));
        assert!(found.is_empty(), "seed {seed}: {found:?}");
    }
}

#[test]
fn whatever_the_storage_does_all_snapshots_restore_exactly() {
    let folder = tempfile::tempdir().expect("a folder");
    let sources = [folder.path().join("first-source"), folder.path().join("second-source")];
    for (source, seed) in sources.iter().zip([1, 2]) {
        fs::create_dir(source).expect("a folder is made");
        plant(source, seed);
    }
    let sources: Vec<&Path> = sources.iter().map(|source| source.as_path()).collect();
    (0..SEEDS).for_each(|seed| survive(seed, &sources, false));
    (0..SEEDS_PATIENT).for_each(|seed| survive(seed, &sources, true));
}
