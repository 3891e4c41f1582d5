//! Pending objects of a hostile writer, and names that storage lists: never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::format::CommitProtocol;
use siltstone::lease::{expire, survey};
use siltstone::seal::{KeySet, Recipients, Secret, seal_object};
use siltstone::storage::{Memory, Storage};
use std::sync::LazyLock;

static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::from_master(Secret([7; 32])));

fuzz_target!(|input: (&[u8], &str, &str, &str, u8)| {
    let (plain, name, snapshot, body, kind) = input;
    let protocols = [CommitProtocol::CompareAndSwap, CommitProtocol::Rename, CommitProtocol::SingleWriter];
    let protocol = protocols[usize::from(kind % 3)];
    let plain = match kind & 4 {
        0 => plain.to_vec(),
        _ => serde_json::json!({"state": "committed", "snapshot": snapshot, "body": body}).to_string().into_bytes(),
    };
    let storage = Memory::new();
    let sealed = seal_object(&KEYS, Recipients::Writers, "pending", &plain).expect("it is small enough");
    let writer = "pending/0011223344556677/00112233445566778899aabbccddeeff";
    for name in [writer, &format!("{writer}.draft"), &format!("{writer}.committed"), &format!("pending/{name}")] {
        // Names that storage does not take cannot be listed either.
        let _ = storage.put(name, sealed.clone().into());
    }
    let Ok(survey) = survey(&storage, &KEYS) else { return };
    for one in survey.unpublished {
        let _ = one.publish(&storage, &KEYS);
    }
    for one in survey.running {
        let _ = expire(&storage, &KEYS, protocol, &one);
    }
});
