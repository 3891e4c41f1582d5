//! Any bytes as a key object, raw and with the right fields: never a panic, and no key comes out of it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::repo::{Credentials, TriedKey, try_key};
use siltstone::seal::{KeySet, Secret};

fuzz_target!(|input: (&[u8], Option<(u32, &str, &str)>)| {
    let (bytes, fields) = input;
    if let Ok(keys) = KeySet::from_bundle(bytes) {
        assert!(keys.to_bundle(keys.access()).is_some() || keys.master().is_none());
    }
    let object = match fields {
        None => bytes.to_vec(),
        Some((version, salt, sealed)) => {
            let version = version % 2;
            let salt = if salt.len() % 2 == 0 { "00112233445566778899aabbccddeeff" } else { salt };
            let hash = blake3::hash(format!("{version}\nkey-file\n{salt}\n8\n1\n1\n{sealed}\n").as_bytes());
            serde_json::to_vec(&serde_json::json!({
                "version": version, "opens_with": "key-file", "salt": salt,
                "memory_kib": 8, "passes": 1, "lanes": 1, "sealed": sealed, "check": hash.to_hex()[..16],
            }))
            .expect("plain data serialises")
        }
    };
    // A key file, as a password would be stretched for each input.
    assert!(!matches!(try_key(&object, &Credentials::key_file(Secret([1; 32]))), Ok(TriedKey::Opened(_))));
});
