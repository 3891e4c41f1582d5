//! What becomes of one entry, by what is in its place.

use crate::disk::Stat;
use rustix::fd::OwnedFd;

/// How something gets the name of its entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PlacingWay {
    /// Nothing has it.
    New,
    /// Over something that is not a directory.
    Over,
    OverEmptyDirectory,
    /// Over a directory whose content is deleted first, as the plan named it.
    OverDirectory,
}

/// An existing entry whose content is as it was saved.
pub(super) struct UpToDateEntry {
    pub stat: Stat,
    pub fd: Option<OwnedFd>,
    /// If not, nothing of it is changed.
    pub restores_metadata: bool,
}

pub(super) enum EntryDecision {
    Make(PlacingWay),
    /// A directory with content makes way for it, when everything else is restored.
    Late,
    UpToDate(UpToDateEntry),
    /// It differs, and `overwrite` keeps it.
    Left,
    /// Why it is kept, whatever `overwrite` says.
    Blocked(&'static str),
}
