//! What a run reports while many threads work on it: warnings, which it survives, and the error that ends it.

use crate::entry::{PathText, WARNINGS_MAX, Warning};
use crate::error::{Error, Kind};
use crate::lock::locked;
use crate::watch::{Watch, interrupted};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// The warnings and the failure of one run.
pub(crate) struct Ledger<'a> {
    watch: &'a Watch,
    /// What the run does, for the error when it is interrupted: "finish the backup".
    doing: &'static str,
    warnings: Mutex<Vec<Warning>>,
    warnings_count: AtomicU64,
    failure: Mutex<Option<Error>>,
    has_failed: AtomicBool,
}

impl<'a> Ledger<'a> {
    pub(crate) fn new(watch: &'a Watch, doing: &'static str) -> Self {
        Ledger {
            watch,
            doing,
            warnings: Mutex::default(),
            warnings_count: AtomicU64::new(0),
            failure: Mutex::default(),
            has_failed: AtomicBool::new(false),
        }
    }

    pub(crate) fn watch(&self) -> &'a Watch {
        self.watch
    }

    /// Reports that something at `path` is not saved or restored as it was. The run goes on.
    pub(crate) fn warn(&self, path: &[u8], what: impl Into<String>) {
        let what = what.into();
        self.watch.warn(path, what.clone());
        self.record(path, what);
    }

    /// Records a warning for the report, without an event.
    pub(crate) fn record(&self, path: &[u8], what: impl Into<String>) {
        self.warnings_count.fetch_add(1, Ordering::Relaxed);
        let mut warnings = locked(&self.warnings);
        if warnings.len() < WARNINGS_MAX {
            warnings.push(Warning { path: PathText(path.to_vec()), what: what.into() });
        }
    }

    /// Ends the run with this error, unless another error has ended it already.
    pub(crate) fn fail(&self, error: Error) {
        locked(&self.failure).get_or_insert(error);
        self.has_failed.store(true, Ordering::Relaxed);
    }

    /// [`Ledger::fail`] with an error about an open file, which does not name the path itself.
    pub(crate) fn fail_at(&self, path: &[u8], error: Error) {
        self.fail(error.renamed("", &String::from_utf8_lossy(path)));
    }

    /// Reports an error from reading a source: a warning, unless this machine ran short of what every reader needs. That ends
    /// the run, because a snapshot of the little that could still be read would be useless.
    pub(crate) fn source_error(&self, path: &[u8], before: &str, error: Error) {
        if error.is(Kind::Full) { self.fail_at(path, error) } else { self.warn(path, format!("{before}{error}")) }
    }

    pub(crate) fn has_failed(&self) -> bool {
        self.has_failed.load(Ordering::Relaxed)
    }

    /// Returns whether the run must stop: it has failed, or a person interrupted it.
    pub(crate) fn should_stop(&self) -> bool {
        if self.watch.cancel.is_cancelled() {
            self.fail(self.interrupted());
        }
        self.has_failed()
    }

    /// The error of an interrupted run.
    pub(crate) fn interrupted(&self) -> Error {
        interrupted(self.doing, "")
    }

    /// Takes the error that ended the run.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        locked(&self.failure).take()
    }

    /// Takes the warnings, sorted by path: at most [`WARNINGS_MAX`].
    pub(crate) fn take_warnings(&self) -> Vec<Warning> {
        let mut warnings = std::mem::take(&mut *locked(&self.warnings));
        warnings.sort_by(|a, b| a.path.cmp(&b.path));
        warnings
    }

    /// How many warnings there were, those that the list has no room for included.
    pub(crate) fn warnings_count(&self) -> u64 {
        self.warnings_count.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_failure_stays_and_all_warnings_count() {
        let watch = Watch::silent();
        let ledger = Ledger::new(&watch, "test");
        for number in 0..=WARNINGS_MAX {
            ledger.warn(format!("/{number}").as_bytes(), "it is odd");
        }
        assert!(!ledger.should_stop() && ledger.take_failure().is_none());
        ledger.source_error(b"/f", "", Error::new(Kind::Full, "read", ""));
        ledger.fail(Error::new(Kind::Failed, "fail", ""));
        assert!(ledger.should_stop());
        assert_eq!(ledger.warnings_count(), WARNINGS_MAX as u64 + 1);
        let warnings = ledger.take_warnings();
        assert!(warnings.len() == WARNINGS_MAX && warnings.is_sorted_by_key(|warning| &warning.path));
        let failure = ledger.take_failure().unwrap();
        assert!(failure.is(Kind::Full) && failure.to_string().contains("/f"), "{failure}");
    }

    #[test]
    fn an_interruption_is_a_failure() {
        let watch = Watch::silent();
        let ledger = Ledger::new(&watch, "finish the test");
        watch.cancel.cancel();
        assert!(ledger.should_stop());
        assert!(ledger.take_failure().unwrap().is(Kind::Cancelled));
    }
}
