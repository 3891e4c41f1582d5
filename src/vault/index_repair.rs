//! Repair the local index: add what it lacks, and begin anew where it is damaged.

use crate::error::{Error, Kind, Result};
use crate::id::IndexId;
use crate::index::Segments;
use crate::vault::index_fetch::{IndexFetch, UnreadIndexes};
use crate::vault::opened::OpenedRepository;
use crate::watch::{NoticeKind, Watch};
use std::collections::HashMap;

/// Goes on in memory when the cache cannot be used, and without any segment when one is damaged.
pub(super) fn replace_folder(segments: &mut Segments, error: &Error, watch: &Watch) -> Result<()> {
    if error.is(Kind::Corrupt) {
        watch.notice(NoticeKind::Cache, format!("{error}; the local index is rebuilt"));
        return drop_segments(segments);
    }
    if segments.is_in_memory() {
        return Err(error.clone());
    }
    watch.notice(NoticeKind::Cache, format!("{error}; the index is kept in memory"));
    segments.leave_folder();
    Ok(())
}

/// Drops all segments, and the folder as well if they cannot be dropped there.
pub(super) fn drop_segments(segments: &mut Segments) -> Result<()> {
    segments.clear().or_else(|_| {
        segments.leave_folder();
        segments.clear()
    })
}

/// How often segments are replaced while index objects are added: a damaged one, then a folder that cannot be written.
const REPLACEMENTS_MAX: usize = 2;

/// Fetches what is listed and not known yet; returns what of it could not be read.
pub(super) fn add_missing(
    segments: &mut Segments,
    opened: &OpenedRepository,
    sizes: &HashMap<IndexId, u64>,
    watch: &Watch,
) -> Result<UnreadIndexes> {
    let mut unread = UnreadIndexes::default();
    let mut replacements = 0;
    loop {
        let wanted: Vec<IndexId> = segments.to_be_added();
        if wanted.is_empty() {
            return Ok(unread);
        }
        watch.stage("reading the index");
        let mut fetch = IndexFetch::new(opened, wanted, sizes);
        let added = segments.add_all(fetch.by_ref().map(Ok));
        let UnreadIndexes { vanished, damaged } = fetch.finish()?;
        for index in vanished.iter().chain(damaged.iter().map(|(index, _)| index)) {
            segments.forget(index);
        }
        unread.vanished.extend(vanished);
        unread.damaged.extend(damaged);
        match added {
            Ok(()) => return Ok(unread),
            Err(error) if replacements == REPLACEMENTS_MAX => return Err(error),
            Err(error) => {
                replacements += 1;
                replace_folder(segments, &error, watch)?;
            }
        }
    }
}
