//! A segment that the manifest lists, and whether it can be used.

use super::manifest::{ManifestRow, SUFFIX};
use super::segment::Segment;
use super::segment_place::unforeseen;
use crate::id::IndexId;
use crate::place::PackSizes;
use std::collections::HashMap;
use std::sync::Arc;

#[derive(Clone)]
pub(super) struct ListedSegment {
    pub(super) row: ManifestRow,
    pub(super) segment: Arc<Segment>,
}

/// Whether all index objects of a row are there with their sizes.
pub(super) fn are_live(row: &ManifestRow, live: &HashMap<IndexId, u64>) -> bool {
    row.covers.iter().all(|(index, bytes)| live.get(index) == Some(bytes))
}

/// Whether a segment covers nothing but live index objects, holds nothing but packs that are there, and left out nothing
/// that is there again. Without a listing of packs, their absence is found out when they are read.
pub(super) fn is_usable(
    listed: &ListedSegment,
    live: Option<&HashMap<IndexId, u64>>,
    packs: Option<&PackSizes>,
) -> bool {
    live.is_none_or(|live| are_live(&listed.row, live))
        && packs.is_none_or(|sizes| {
            listed.segment.pack_sizes().all(|(pack, bytes)| sizes.has(&pack, bytes))
                && listed.row.left_out.iter().all(|(pack, bytes)| !sizes.has(pack, *bytes))
        })
}

pub(super) fn new_name() -> String {
    format!("{:016x}{:016x}{SUFFIX}", unforeseen(), unforeseen())
}
