//! Any words as a moment or a target: never a panic, never an end before its start.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::when::{format_time, parse_moment, parse_target};
use std::sync::LazyLock;

// A fixed present, so that a finding can be repeated on any day.
static NOW: LazyLock<jiff::Zoned> =
    LazyLock::new(|| "2026-11-21T10:30:15.5+01:00[Europe/Berlin]".parse().expect("a good moment"));

fuzz_target!(|bytes: &[u8]| {
    let _ = parse_target(bytes);
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    if let Ok(moment) = parse_moment(text, &NOW) {
        assert!(moment.start <= moment.end);
        let _ = format_time(moment.end, NOW.time_zone());
    }
});
