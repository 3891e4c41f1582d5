//! Find out what is at fault where a chunk cannot be read: the pack, or what index objects state of it.

use crate::error::{Kind, Result};
use crate::format::pack::read_pack;
use crate::format::{PACK_BYTES_MAX, encode_index, pack_name};
use crate::id::PackId;
use crate::place::{IndexContents, PackContents};
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

/// How many more packs, of which index objects state different things, are read as well: which of them are false then shows together.
const READ_TOGETHER: usize = 64;

impl LocalIndex {
    /// Finds out whether a pack is damaged, or what index objects say of it. Reads the pack as a whole and, if it is sound, all index objects
    /// twice, and some of the packs of which they state different things.
    pub(super) fn find_fault(&self, pack: &PackId, opened: &OpenedRepository) -> Result<ReadFault> {
        let Some(contents) = contents_by_itself(pack, opened)? else { return Ok(ReadFault::Pack) };
        let mut sound = HashMap::from([(*pack, contents)]);
        for other in self.disputed(opened)?.iter().filter(|other| *other != pack).take(READ_TOGETHER) {
            sound.extend(contents_by_itself(other, opened)?.map(|contents| (*other, contents)));
        }
        let is_false = |stated: &PackContents| sound.get(&stated.pack).is_some_and(|contents| contents != stated);
        let mut found = Vec::new();
        self.each_index(opened, |index| {
            if index.packs.iter().any(is_false) {
                found.push(index.index);
            }
        })?;
        if found.is_empty() {
            return Ok(ReadFault::None);
        }
        self.false_indexes().add(found);
        Ok(ReadFault::Indexes)
    }

    /// Packs of which index objects state different things.
    fn disputed(&self, opened: &OpenedRepository) -> Result<Vec<PackId>> {
        // None once two statements differ.
        let mut statements: HashMap<PackId, Option<blake3::Hash>> = HashMap::new();
        self.each_index(opened, |index| {
            for pack in &index.packs {
                let stated = Some(blake3::hash(&encode_index(std::slice::from_ref(pack))));
                let known = statements.entry(pack.pack).or_insert(stated);
                if *known != stated {
                    *known = None;
                }
            }
        })?;
        Ok(statements.into_iter().filter_map(|(pack, stated)| stated.is_none().then_some(pack)).collect())
    }

    fn each_index(&self, opened: &OpenedRepository, each: impl FnMut(IndexContents)) -> Result<()> {
        let sizes = HashMap::new();
        let mut fetch = IndexFetch::new(opened, self.segments().live().copied().collect(), &sizes);
        fetch.by_ref().for_each(each);
        fetch.finish().map(drop)
    }
}
