//! Any bytes as a chunk list of any level: never a panic, never more ids than there are bytes for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::id::ChunkId;
use siltstone::format::list::decode_list;

fuzz_target!(|input: (u8, &[u8])| {
    let (level, bytes) = input;
    if let Ok(ids) = decode_list(bytes, level) {
        assert_eq!(3 + ids.len() * ChunkId::BYTES, bytes.len());
    }
});
