//! Snapshots: one dated state of one job's sources, as a small sealed object of JSON.

use crate::entry::Time;
use crate::error::{Error, Result};
use crate::id::{ChunkId, SnapshotId};
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

pub const SNAPSHOT_PURPOSE: &str = "snapshot";
/// The largest plain form that is read.
pub const SNAPSHOT_BYTES_MAX: u64 = 16 << 20;
/// Troubles that a snapshot names; of more only the count is kept.
pub const TROUBLES_MAX: usize = 10_000;

/// One dated state of one job's sources.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Snapshot {
    pub version: u32,
    #[serde(with = "hex_id")]
    pub id: SnapshotId,
    /// When the backup began and ended, on the clock of the host.
    pub started: Stamp,
    pub ended: Stamp,
    pub host: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub job: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    pub program: String,
    pub sources: Vec<SnapshotSource>,
    /// The root page of the tree that holds all sources at their absolute paths and all streams at their names.
    #[serde(with = "hex_chunk")]
    pub root: ChunkId,
    pub totals: Totals,
    /// What could not be saved as it was, at most [`TROUBLES_MAX`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub troubles: Vec<Trouble>,
    pub troubles_count: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "kind")]
pub enum SnapshotSource {
    /// A file or folder with all below it.
    Tree { path: PathText },
    /// The output of a command, or the standard input.
    Stream {
        name: PathText,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        command: Option<String>,
    },
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub path: PathText,
    pub what: String,
}

/// What a backup dealt with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Totals {
    /// Those in the snapshot: new, changed and unchanged ones together.
    pub files: u64,
    pub directories: u64,
    /// Links, devices, FIFOs.
    pub others: u64,
    pub streams: u64,
    /// Sizes of all files and streams, holes included.
    pub bytes: u64,
    pub files_new: u64,
    pub files_changed: u64,
    pub files_unchanged: u64,
    pub files_removed: u64,
    /// Met, but not in the snapshot, as nothing of them could be read.
    pub files_unread: u64,
    pub bytes_read: u64,
    /// Content that was not known before.
    pub bytes_new: u64,
    /// What was sent to storage for it, trees included.
    pub bytes_stored: u64,
}

/// A path of any bytes: text where it is UTF-8, else `{"base64": …}`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PathText(pub Vec<u8>);

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum PathForm {
    Text(String),
    Bytes { base64: String },
}

impl Serialize for PathText {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(&self.0) {
            Ok(text) => PathForm::Text(text.to_owned()),
            Err(_) => PathForm::Bytes { base64: BASE64.encode(&self.0) },
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PathText {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match PathForm::deserialize(deserializer)? {
            PathForm::Text(text) => Ok(PathText(text.into_bytes())),
            PathForm::Bytes { base64 } => {
                BASE64.decode(base64.as_bytes()).map(PathText).map_err(|_| serde::de::Error::custom("bad base64"))
            }
        }
    }
}

/// A moment, as seconds and nanoseconds since 1970 UTC, with the offset that the host's clock showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    pub seconds: i64,
    pub nanoseconds: u32,
    /// Seconds east of UTC.
    #[serde(default)]
    pub offset: i32,
}

impl Stamp {
    pub fn new(time: Time, offset: i32) -> Self {
        Stamp { seconds: time.seconds, nanoseconds: time.nanoseconds, offset }
    }

    pub fn time(&self) -> Time {
        Time { seconds: self.seconds, nanoseconds: self.nanoseconds }
    }

    /// `20261119t140000z`: sorts by time for the years 0 to 9999, which is all that is accepted.
    pub fn compact(&self) -> Result<String> {
        let bad = |_| Error::invalid("use the time", self.seconds, "it is outside the years 0 to 9999");
        let timestamp = jiff::Timestamp::new(self.seconds, 0).map_err(bad)?;
        Ok(timestamp.strftime("%Y%m%dt%H%M%Sz").to_string())
    }
}

impl Snapshot {
    pub fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("plain data serialises")
    }

    pub fn decode(plain: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::corrupt("read the snapshot", "", why);
        let snapshot: Snapshot = serde_json::from_slice(plain).map_err(|error| bad(error.to_string()))?;
        match snapshot.version {
            1 => Ok(snapshot),
            version => Err(bad(format!("it is of version {version}, which this program does not know"))),
        }
    }
}

macro_rules! hex_module {
    ($module:ident, $type:ty) => {
        mod $module {
            use super::*;

            pub fn serialize<S: Serializer>(id: &$type, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&HEXLOWER.encode(id.as_bytes()))
            }

            pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                let text = String::deserialize(deserializer)?;
                <$type>::from_hex(&text).map_err(serde::de::Error::custom)
            }
        }
    };
}
hex_module!(hex_id, SnapshotId);
hex_module!(hex_chunk, ChunkId);
