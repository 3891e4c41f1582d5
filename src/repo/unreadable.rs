//! Snapshots that are there and cannot be read, or not with certainty.

use crate::error::{Error, Kind};
use crate::watch::Watch;

/// A snapshot that is there and cannot be read, or of which several objects say different things.
pub(crate) struct UnreadableSnapshot {
    /// Of the object in its place.
    pub name: String,
    pub error: Error,
    /// Another object of that name counts, and nothing speaks against it.
    pub is_passed_over: bool,
    /// Another object of that name was read, and says something else.
    pub is_contradicted: bool,
}

impl UnreadableSnapshot {
    pub(super) fn new(name: &str, error: Error) -> Self {
        UnreadableSnapshot { name: name.to_owned(), error, is_passed_over: false, is_contradicted: false }
    }

    /// What is of a newer program is not damaged, and `latest` may be one of these.
    pub(crate) fn is_newer(&self) -> bool {
        self.error.is(Kind::Unsupported)
    }

    pub(crate) fn report(&self, watch: &Watch) {
        let what = match self.error.advice() {
            Some(hint) => format!("{} ({hint})", self.error),
            None => self.error.to_string(),
        };
        if self.is_newer() {
            watch.warn(self.name.as_bytes(), what);
        } else {
            watch.damage(self.name.as_bytes(), what);
        }
    }
}

/// Reports those that cannot be read, and returns them, oldest first.
pub(super) fn report_unreadable(mut unreadable: Vec<UnreadableSnapshot>, watch: &Watch) -> Vec<UnreadableSnapshot> {
    unreadable.sort_by(|a, b| a.name.cmp(&b.name));
    unreadable.iter().for_each(|snapshot| snapshot.report(watch));
    unreadable
}
