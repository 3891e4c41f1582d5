//! Snapshots that are there and cannot be read, or not with certainty.

use crate::error::{Error, Kind};
use crate::repo::snapshot_names::parts_of;
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
    /// A pending object that was not read: it may be a commit of any name, also of one that opens and says something else.
    pub is_unread: bool,
}

impl UnreadableSnapshot {
    pub(super) fn new(name: &str, error: Error) -> Self {
        let name = name.to_owned();
        UnreadableSnapshot { name, error, is_passed_over: false, is_contradicted: false, is_unread: false }
    }

    /// A pending object that cannot be read may hold a snapshot of any time.
    pub(super) fn of_pending(error: Error) -> Self {
        let name = error.thing().to_owned();
        UnreadableSnapshot::new(&name, error)
    }

    pub(super) fn of_unread(error: Error) -> Self {
        UnreadableSnapshot { is_unread: true, ..UnreadableSnapshot::of_pending(error) }
    }

    /// Whether it may be of this time (as names of snapshots have it) or later.
    pub(crate) fn may_be_since(&self, stamp: &str) -> bool {
        let own = parts_of(&self.name).0;
        own.is_empty() || own >= stamp
    }

    /// Whether it may be of this time or earlier.
    pub(crate) fn may_be_until(&self, stamp: &str) -> bool {
        parts_of(&self.name).0 <= stamp
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
