//! How writers exclude each other, and what their storage was found to do when that was chosen.

use serde::{Deserialize, Serialize};

/// How the commit of a writer and its expiry by another process exclude each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum CommitProtocol {
    /// The storage replaces an object only at a version that was seen.
    CompareAndSwap,
    /// The storage renames objects in one step.
    Rename,
    /// Neither: the owner promised that only one backup runs at a time.
    SingleWriter,
}

/// What the storage was found to do when the settings were written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FoundCapabilities {
    /// Writes that never replace an object.
    pub put_new: bool,
    /// Writes that replace the expected version only.
    pub compare_and_swap: bool,
    /// Moves in one step, of which only one succeeds.
    pub rename: bool,
}

/// The settings that a repository is made with; the configuration keeps them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InitialSettings {
    /// How snapshots become visible.
    pub commit_protocol: CommitProtocol,
    /// What the storage did when it was tried.
    pub capabilities: FoundCapabilities,
}
