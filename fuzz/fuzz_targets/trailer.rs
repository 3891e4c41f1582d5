//! Any bytes as the trailer of a pack: never a panic, and the chunks of every frame fill it.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::format::decode_trailer;

fuzz_target!(|bytes: &[u8]| {
    let Ok((_, frames)) = decode_trailer(bytes) else { return };
    for frame in frames {
        let sum: u64 = frame.chunks.iter().map(|(_, length)| u64::from(*length)).sum();
        assert_eq!(sum, u64::from(frame.raw));
    }
});
