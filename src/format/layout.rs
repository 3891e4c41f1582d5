//! Names of objects and limits of sizes.

use crate::id::{IndexId, PackId, SnapshotId};

/// The version of the format that this program writes.
pub const FORMAT_VERSION: u32 = 1;
/// The object that never changes.
pub(crate) const CONFIG_NAME: &str = "config";
/// The object that is replaced when a repository moves.
pub(crate) const SETTINGS_NAME: &str = "settings";
/// Key objects.
pub(crate) const KEYS_PREFIX: &str = "keys/";
/// Packs.
pub(crate) const PACKS_PREFIX: &str = "packs/";
/// Index objects.
pub(crate) const INDEX_PREFIX: &str = "index/";
/// Snapshots.
pub(crate) const SNAPSHOTS_PREFIX: &str = "snapshots/";
/// Pending objects: writers that run, and commits that are not in their place.
pub(crate) const PENDING_PREFIX: &str = "pending/";
pub(crate) const EXPIRED_PREFIX: &str = "expired/";

/// No pack is larger.
pub(crate) const PACK_BYTES_MAX: u64 = 256 << 20;
/// No chunk is longer.
pub(crate) const CHUNK_BYTES_MAX: u64 = crate::chunk::CHUNK_BYTES_MAX as u64;
/// No frame opens to more: its target and one chunk.
pub(crate) const FRAME_RAW_BYTES_MAX: u64 = FRAME_RAW_BYTES as u64 + CHUNK_BYTES_MAX;
/// A frame of content is closed when it holds this many raw bytes (docs/decisions/0004-frames-of-two-mebibytes.md).
pub(crate) const FRAME_RAW_BYTES: usize = 2 << 20;
/// A pack is closed when it holds this many stored bytes.
pub const PACK_BYTES: u64 = 32 << 20;
/// What a whole object other than a pack may take when it is read.
pub(crate) const OBJECT_BYTES_MAX: u64 = 80 << 20;

/// The name of the object of a pack.
pub fn pack_name(id: &PackId) -> String {
    let hex = id.to_hex();
    format!("{PACKS_PREFIX}{}/{hex}", &hex[..2])
}

/// The name of an index object.
pub fn index_name(id: &IndexId) -> String {
    format!("{INDEX_PREFIX}{id}")
}

/// Snapshots list in the order of their times.
pub(crate) fn snapshot_name(stamp: &str, id: &SnapshotId) -> String {
    format!("{SNAPSHOTS_PREFIX}{stamp}-{id}")
}

/// Whether an object can be a snapshot by its name.
pub(crate) fn is_snapshot_name(name: &str) -> bool {
    snapshot_id(name).is_some()
}

/// The id of the snapshot that an object has by its name; none if it can be no snapshot.
pub(crate) fn snapshot_id(name: &str) -> Option<SnapshotId> {
    let (stamp, id) = name.strip_prefix(SNAPSHOTS_PREFIX)?.split_once('-')?;
    let fits = |(at, byte): (usize, u8)| match at {
        8 => byte == b't',
        15 => byte == b'z',
        _ => byte.is_ascii_digit(),
    };
    let is_stamp = stamp.len() == 16 && stamp.bytes().enumerate().all(fits);
    SnapshotId::from_hex(id).ok().filter(|_| is_stamp)
}
