//! Say what was not tested: `tests/run` lists it at its end, so that a skip is never silent.

use std::fs::OpenOptions;
use std::io::Write;

/// Prints `SKIPPED: what: why` and adds the line to the file that `SILT_TEST_SKIPS` names, as the test harness hides
/// what passing tests print.
pub fn skipped(what: &str, why: impl std::fmt::Display) {
    let line = format!("SKIPPED: {what}: {}\n", why.to_string().replace('\n', "; "));
    eprint!("{line}");
    if let Some(path) = std::env::var_os("SILT_TEST_SKIPS") {
        // One write, so that the lines of several tests do not mix.
        let written = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&path)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        assert!(written.is_ok(), "cannot note a skip in {}: {written:?}", path.display());
    }
}
