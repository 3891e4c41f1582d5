//! Any bytes as a snapshot: never a panic, and what decodes comes back from its own encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::repo::Snapshot;

fuzz_target!(|bytes: &[u8]| {
    let Ok(snapshot) = Snapshot::decode(bytes) else { return };
    assert_eq!(Snapshot::decode(&snapshot.encode()).expect("what was decoded can be written"), snapshot);
    let _ = snapshot.started.compact();
});
