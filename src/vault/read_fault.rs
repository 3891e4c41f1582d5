//! Find out what is at fault where a chunk cannot be read: the pack, or what index objects state of it.

use crate::error::{Kind, Result};
use crate::format::pack::read_pack;
use crate::format::{PACK_BYTES_MAX, pack_name};
use crate::id::{IndexId, PackId};
use crate::place::PackContents;
use crate::vault::index_fetch::IndexFetch;
use crate::vault::local_index::LocalIndex;
use crate::vault::opened::OpenedRepository;
use std::collections::HashMap;

/// What is at fault where a chunk cannot be read from the pack that the index names.
pub(crate) enum ReadFault {
    Pack,
    /// Index objects, which count as damaged from now on.
    Indexes,
    /// The pack is sound and every index object that names it is right: whatever it was is over.
    None,
}

/// What a pack holds by its own bytes; none if it is damaged.
fn contents_by_itself(pack: &PackId, opened: &OpenedRepository) -> Result<Option<PackContents>> {
    // The storage may have a copy in memory, which was read before.
    match opened.storage().get_uncached(&pack_name(pack), PACK_BYTES_MAX) {
        Ok((bytes, _)) => Ok(read_pack(opened.keys(), *pack, &bytes).ok()),
        Err(error) if error.is_damage() || error.is(Kind::Denied) => Ok(None),
        Err(error) => Err(error),
    }
}

impl LocalIndex {
    /// Finds out whether a pack is damaged, or what index objects say of it. Reads the pack as a whole, and all index objects if it is sound.
    pub(super) fn find_fault(&self, pack: &PackId, opened: &OpenedRepository) -> Result<ReadFault> {
        let Some(contents) = contents_by_itself(pack, opened)? else { return Ok(ReadFault::Pack) };
        let sizes = HashMap::new();
        let mut fetch = IndexFetch::new(opened, self.segments().live().copied().collect(), &sizes);
        let is_false = |stated: &PackContents| stated.pack == *pack && *stated != contents;
        let found: Vec<IndexId> =
            fetch.by_ref().filter(|index| index.packs.iter().any(is_false)).map(|index| index.index).collect();
        fetch.finish()?;
        if found.is_empty() {
            return Ok(ReadFault::None);
        }
        self.false_indexes().add(found);
        Ok(ReadFault::Indexes)
    }
}
