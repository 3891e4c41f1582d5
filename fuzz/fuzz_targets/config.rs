//! Any bytes as a configuration, in plain and as what a writer's key sealed: never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::format::Config;
use siltstone::seal::{Audience, KeySet, Secret, seal_object};
use std::sync::LazyLock;

static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::from_master(Secret([7; 32])));

fuzz_target!(|bytes: &[u8]| {
    let _ = Config::peek(bytes);
    let _ = Config::decode(&KEYS, bytes);
    // A writer with a put-only key can seal anything at all.
    let mut config = b"siltrepo\x01\0\0\0".to_vec();
    config.extend_from_slice(&[0; 16]);
    config.extend(seal_object(&KEYS, Audience::Writers, "configuration", bytes).expect("it is small enough"));
    if let Ok(decoded) = Config::decode(&KEYS, &config) {
        let again = decoded.encode(&KEYS).expect("what was decoded can be written");
        assert_eq!(Config::decode(&KEYS, &again).expect("what was written can be read"), decoded);
    }
});
