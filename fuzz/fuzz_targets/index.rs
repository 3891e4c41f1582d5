//! Any bytes as an index object: never a panic, and what decodes encodes to something that decodes alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::format::{decode_index, encode_index};

fuzz_target!(|bytes: &[u8]| {
    let Ok(packs) = decode_index(bytes) else { return };
    let again = decode_index(&encode_index(&packs)).expect("what was decoded can be written");
    assert_eq!(again, packs);
});
