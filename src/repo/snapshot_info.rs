//! What programs read of a snapshot. Unlike the stored form, its times are RFC 3339, and its warnings are counted.

use crate::format::snapshot::{Snapshot, Totals};
use crate::format::snapshot_source::SnapshotSource;
use crate::when::rfc3339;
use serde::Serialize;

/// What programs read of a snapshot, as JSON or in another form.
#[derive(Clone, Debug, Serialize)]
pub struct SnapshotInfo<'a> {
    /// 32 hexadecimal digits.
    pub id: String,
    /// When the backup began and ended: RFC 3339 with the offset of the host's clock.
    pub time: String,
    /// See `time`.
    pub ended: String,
    /// The host that was backed up.
    pub host: &'a str,
    /// The user that ran the backup.
    pub user: &'a str,
    /// The job that it belongs to.
    pub job: &'a str,
    /// Words to select it by.
    pub tags: &'a [String],
    /// The program that made it, with its version.
    pub program: &'a str,
    /// Of very many sources, the first.
    pub sources: &'a [SnapshotSource],
    /// How many sources there are in all.
    pub sources_count: u64,
    /// Counts and sizes.
    pub totals: Totals,
    /// How many warnings the backup had.
    pub warnings_count: u64,
}

impl<'a> From<&'a Snapshot> for SnapshotInfo<'a> {
    fn from(snapshot: &'a Snapshot) -> Self {
        let (started, ended) = (snapshot.started, snapshot.ended);
        SnapshotInfo {
            id: snapshot.id.to_hex(),
            time: rfc3339(started.time(), started.offset),
            ended: rfc3339(ended.time(), ended.offset),
            host: &snapshot.host,
            user: &snapshot.user,
            job: &snapshot.job,
            tags: &snapshot.tags,
            program: &snapshot.program,
            sources: &snapshot.sources,
            sources_count: snapshot.sources_count(),
            totals: snapshot.totals,
            warnings_count: snapshot.warnings_count,
        }
    }
}
