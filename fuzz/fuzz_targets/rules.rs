//! Any patterns against any path: never a panic, and an exclude file without patterns leaves out nothing.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::source::RulesBuilder;

fuzz_target!(|input: (&[u8], &[u8], bool, bool)| {
    let (patterns, path, is_dir, ignoring_case) = input;
    let mut builder = RulesBuilder::new();
    if builder.exclude_lines(patterns, "fuzz", ignoring_case).is_err() {
        return;
    }
    let Ok(rules) = builder.build() else { return };
    let left_out = rules.leaves_out(path, is_dir);
    assert!(!(rules.is_empty() && left_out));
});
