//! Any bytes as a chunk list of any level: never a panic, never more ids than there are bytes for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::format::decode_list;
use siltstone::id::ChunkId;

fuzz_target!(|input: (u8, &[u8])| {
    let (level, bytes) = input;
    if let Ok(page) = decode_list(bytes, level) {
        let each = ChunkId::BYTES + if level == 0 { 0 } else { 8 };
        assert_eq!(3 + page.ids.len() * each, bytes.len());
        assert!(page.bytes_below.is_none_or(|lengths| lengths.len() == page.ids.len()));
    }
});
