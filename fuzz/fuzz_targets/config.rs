//! Any bytes as a configuration and as settings, in plain and as what a full key signed: never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::format::{Config, Settings};
use siltstone::id::RepositoryId;
use siltstone::seal::{KeySet, Secret, seal_signed_object};
use std::sync::LazyLock;

static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::from_master(Secret([7; 32])));

fuzz_target!(|bytes: &[u8]| {
    let _ = Config::peek(bytes);
    let _ = Config::decode(&KEYS, bytes);
    let mut config = b"siltrepo\x01\0\0\0".to_vec();
    config.extend_from_slice(&[0; 16]);
    config.extend(seal_signed_object(&KEYS, "configuration", bytes).expect("it is small enough"));
    if let Ok(decoded) = Config::decode(&KEYS, &config) {
        let again = decoded.encode(&KEYS).expect("what was decoded can be written");
        assert_eq!(Config::decode(&KEYS, &again).expect("what was written can be read"), decoded);
    }
    let repository = RepositoryId([0; RepositoryId::BYTES]);
    let _ = Settings::decode(&KEYS, &repository, bytes);
    let settings = seal_signed_object(&KEYS, "settings", bytes).expect("it is small enough");
    if let Ok(decoded) = Settings::decode(&KEYS, &repository, &settings) {
        let again = decoded.encode(&KEYS).expect("what was decoded can be written");
        assert_eq!(Settings::decode(&KEYS, &repository, &again).expect("what was written can be read"), decoded);
        let _ = decoded.check_writable();
    }
});
