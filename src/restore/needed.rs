//! What the other sources of a snapshot need in the target: names and directories that nothing deletes.

use crate::disk::Identity;
use crate::restore::paths::shown;

/// A name that must stay.
pub(super) struct NeededName {
    pub directory: Identity,
    /// The path of the source.
    pub source: Vec<u8>,
    pub role: NeededRole,
}

/// What a name, or a directory, is for a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NeededRole {
    /// The source itself.
    Source,
    /// A link to it or on the way to it.
    Leads,
    /// The image that a file system is on.
    Holds,
}

/// What another source needs of what a restore would delete or replace.
pub(super) struct NeededEntry {
    pub source: Vec<u8>,
    pub holds: bool,
}

impl NeededEntry {
    pub(crate) fn by(source: Vec<u8>) -> NeededEntry {
        NeededEntry { source, holds: false }
    }

    /// Why it stays. `is`: what it does to be that source.
    pub(crate) fn why(&self, is: &str) -> String {
        let is = if self.holds { "it holds the data of" } else { is };
        format!("{is} {}, which belongs to another source of the snapshot", shown(&self.source))
    }
}
