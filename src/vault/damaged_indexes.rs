//! Find index objects whose bytes are not those that their names say.

use crate::error::Result;
use crate::format::index_name;
use crate::id::IndexId;
use crate::storage::ObjectVersion;
use crate::vault::local_index::LocalIndex;
use crate::vault::opened::OpenedRepository;
use std::hash::{BuildHasher, RandomState};

/// What of the index objects that are known already a writer verifies again, where reading costs little. More are verified
/// by turns, chosen at random.
pub(super) const VERIFIED_BYTES: u64 = 32 << 20;

/// Whether an index object was read and has the bytes that it is named by.
pub(super) fn is_right(index: &IndexId, read: Result<(Vec<u8>, ObjectVersion)>) -> Result<bool> {
    match read {
        Ok((bytes, _)) => Ok(blake3::hash(&bytes).as_bytes() == index.as_bytes()),
        Err(error) if error.is_damage() => Ok(false),
        Err(error) => Err(error),
    }
}

impl LocalIndex {
    /// Index objects that were known already and whose bytes are not those that they are named by: their size may be right.
    pub(super) fn find_damaged(&self, opened: &OpenedRepository) -> Result<Vec<IndexId>> {
        let mut known: Vec<(IndexId, u64)> = self.segments().covered_sizes();
        let order = RandomState::new();
        known.sort_by_cached_key(|(index, _)| order.hash_one(index.as_bytes()));
        let (mut bytes, mut damaged) = (0, Vec::new());
        for (index, size) in known {
            if bytes + size > VERIFIED_BYTES && bytes > 0 {
                break;
            }
            bytes += size;
            let name = index_name(&index);
            let storage = opened.storage();
            // A read can fail for other reasons: the second one is of the medium itself.
            if !is_right(&index, storage.get(&name, size))? && !is_right(&index, storage.get_uncached(&name, size))? {
                damaged.push(index);
            }
        }
        if !damaged.is_empty() {
            opened.check_is_there()?;
        }
        Ok(damaged)
    }
}
