//! Any words as a written secret: never a panic, and what is read is written back alike.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::seal::Secret;

fuzz_target!(|input: (&str, [u8; 32])| {
    let (text, bytes) = input;
    if let Ok(secret) = Secret::from_text(text) {
        assert_eq!(Secret::from_text(&secret.to_text()).expect("it was just written"), secret);
    }
    let secret = Secret(bytes);
    assert_eq!(Secret::from_text(&secret.to_text()).expect("it was just written"), secret);
});
