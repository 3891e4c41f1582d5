//! What was backed up, as a snapshot names it.

use crate::entry::PathText;
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};

/// What the sources that a snapshot names may take of it, in bytes; of a longer list the first are named.
pub(crate) const SOURCES_BYTES_MAX: usize = 1 << 20;

/// What was backed up.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum SnapshotSource {
    /// A file or folder with all below it.
    Tree {
        /// Its absolute path.
        path: PathText,
    },
    /// The output of a command, or the standard input.
    Stream {
        /// Its path in the snapshot.
        name: PathText,
        /// The command whose output it is; none for standard input.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
    },
    /// Of a newer version of silt. What else it says is not kept.
    #[serde(untagged)]
    Unknown(UnknownSource),
}

/// A source of a kind that this program does not know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownSource {
    /// The word that its kind has in the snapshot.
    pub kind: String,
}

/// Sources that are too many to be named all.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AllSources {
    /// How many sources there are.
    pub count: u64,
    /// Over the paths of all trees among them: the same for the same list.
    pub trees: String,
}

pub(super) fn tree_path(source: &SnapshotSource) -> Option<&[u8]> {
    match source {
        SnapshotSource::Tree { path } => Some(&path.0),
        SnapshotSource::Stream { .. } | SnapshotSource::Unknown(_) => None,
    }
}

impl AllSources {
    /// None for so few that a snapshot names each.
    pub(crate) fn of(sources: &[SnapshotSource]) -> Option<AllSources> {
        let bytes: usize = sources.iter().map(encoded_length).sum();
        if bytes <= SOURCES_BYTES_MAX {
            return None;
        }
        Some(AllSources { count: sources.len() as u64, trees: Self::hash_of(sources.iter().filter_map(tree_path)) })
    }

    pub(super) fn hash_of<'a>(paths: impl Iterator<Item = &'a [u8]>) -> String {
        let mut hasher = blake3::Hasher::new();
        // No path has a NUL.
        for path in paths {
            hasher.update(path).update(&[0]);
        }
        HEXLOWER.encode(&hasher.finalize().as_bytes()[..16])
    }
}

/// How many bytes a value takes in a snapshot, as JSON in a list.
pub(crate) fn encoded_length(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX, |bytes| bytes.len() + 1)
}
