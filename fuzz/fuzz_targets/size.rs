//! Any words as a size: never a panic, and what is written of it is read back within a rounding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::when::{format_bytes, parse_size};

fuzz_target!(|text: &str| {
    let Ok(bytes) = parse_size(text) else { return };
    // The very largest round up to 16 EiB, which is one too many.
    if let Ok(again) = parse_size(&format_bytes(bytes)) {
        assert!(again.abs_diff(bytes) <= bytes / 100, "{bytes} {again}");
    }
});
