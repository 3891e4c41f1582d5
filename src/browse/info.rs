//! What programs read of entries, versions and differences.

use crate::browse::change::{Change, ChangeKind};
use crate::browse::find::EntryVersion;
use crate::browse::stats::Statistics;
use crate::entry::{Entry, EntryKind, PathText};
use crate::id::SnapshotId;
use crate::repo::Stamp;
use crate::when::rfc3339;
use serde::{Serialize, Serializer};

/// What programs read of an entry.
#[derive(Clone, Debug, Serialize)]
pub struct EntryInfo<'a> {
    path: PathText,
    kind: EntryKind,
    size: u64,
    /// Four octal digits.
    mode: String,
    uid: u32,
    gid: u32,
    user: &'a str,
    group: &'a str,
    /// RFC 3339 in UTC; for a time beyond every calendar, `@` and its seconds since 1970.
    modified: String,
    /// Of a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    target: Option<PathText>,
    /// Major and minor number of a device.
    #[serde(skip_serializing_if = "Option::is_none")]
    device: Option<(u32, u32)>,
}

impl<'a> EntryInfo<'a> {
    /// `path` is that in the snapshot.
    pub fn new(path: &[u8], entry: &'a Entry) -> Self {
        let is_device = matches!(entry.kind, EntryKind::CharDevice | EntryKind::BlockDevice);
        EntryInfo {
            path: PathText(path.to_vec()),
            kind: entry.kind,
            size: entry.size,
            mode: format!("{:04o}", entry.meta.mode),
            uid: entry.meta.uid,
            gid: entry.meta.gid,
            user: &entry.meta.user,
            group: &entry.meta.group,
            modified: rfc3339(entry.meta.modified, 0),
            target: (entry.kind == EntryKind::Symlink).then(|| PathText(entry.target.clone())),
            device: is_device.then_some(entry.device),
        }
    }
}

/// What programs read of one version of a path.
#[derive(Clone, Debug, Serialize)]
pub struct VersionInfo<'a> {
    host: &'a str,
    job: &'a str,
    entry: EntryInfo<'a>,
    first: InSnapshot,
    last: InSnapshot,
    snapshots: u64,
}

#[derive(Clone, Debug, Serialize)]
struct InSnapshot {
    id: String,
    time: String,
}

impl<'a> VersionInfo<'a> {
    /// `path` is that in the snapshots.
    pub fn new(path: &[u8], version: &'a EntryVersion) -> Self {
        let snapshot = |(id, stamp): &(SnapshotId, Stamp)| InSnapshot {
            id: id.to_hex(),
            time: rfc3339(stamp.time(), stamp.offset),
        };
        VersionInfo {
            host: &version.host,
            job: &version.job,
            entry: EntryInfo::new(path, &version.entry),
            first: snapshot(&version.first),
            last: snapshot(&version.last),
            snapshots: version.snapshots,
        }
    }
}

impl Change {
    /// How programs call it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Change::Added => "added",
            Change::Removed => "removed",
            Change::Changed(ChangeKind::Content) => "content",
            Change::Changed(ChangeKind::Metadata) => "metadata",
            Change::Changed(ChangeKind::Kind) => "kind",
        }
    }
}

impl Serialize for Change {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

impl Serialize for Statistics {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct StatisticsInfo {
            pub snapshots: u64,
            pub files: u64,
            pub directories: u64,
            pub others: u64,
            pub bytes: u64,
            pub unique_chunks: u64,
            pub unique_bytes: u64,
            pub unique_stored_bytes: u64,
            pub exact: bool,
            pub deduplication_ratio: f64,
            pub compression_ratio: f64,
            pub packs: u64,
            pub packs_bytes: u64,
            pub indexes: u64,
            pub indexes_bytes: u64,
            pub indexed_chunks: u64,
        }
        let fields = StatisticsInfo {
            snapshots: self.snapshots,
            files: self.files,
            directories: self.directories,
            others: self.others,
            bytes: self.bytes,
            unique_chunks: self.unique_chunks,
            unique_bytes: self.unique_bytes,
            unique_stored_bytes: self.unique_stored_bytes,
            exact: self.exact,
            deduplication_ratio: self.deduplication_ratio(),
            compression_ratio: self.compression_ratio(),
            packs: self.packs,
            packs_bytes: self.packs_bytes,
            indexes: self.indexes,
            indexes_bytes: self.indexes_bytes,
            indexed_chunks: self.indexed_chunks,
        };
        fields.serialize(serializer)
    }
}
