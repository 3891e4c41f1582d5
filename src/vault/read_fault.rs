//! Find out what is at fault where a chunk cannot be read: the pack, or what index objects state of it.

use crate::error::{Kind, Result};
use crate::format::pack::read_pack;
use crate::format::{PACK_BYTES_MAX, encode_index, pack_name};
use crate::id::{ChunkId, PackId};
use crate::place::{IndexContents, PackContents};
use crate::vault::index_fetch::IndexFetch;
use crate::vault::local_index::LocalIndex;
use crate::vault::opened::OpenedRepository;
use std::collections::{BTreeSet, HashMap};

/// What is at fault where a chunk cannot be read from the pack that the index names.
pub(crate) enum ReadFault {
    Pack,
    /// Index objects, which count as damaged from now on.
    Indexes,
    /// The pack is sound and every index object that names it is right: whatever it was is over.
    None,
}

/// What the bytes of a pack say of it.
enum OwnContents {
    Sound(PackContents),
    /// The bytes have its name and are no pack: they never were one, whatever index objects state.
    NeverSound,
    Damaged,
}

impl OwnContents {
    fn of(pack: &PackId, opened: &OpenedRepository) -> Result<Self> {
        // The storage may have a copy in memory, which was read before.
        let bytes = match opened.storage().get_uncached(&pack_name(pack), PACK_BYTES_MAX) {
            Ok((bytes, _)) => bytes,
            Err(error) if error.is_damage() || error.is(Kind::Denied) => return Ok(OwnContents::Damaged),
            Err(error) => return Err(error),
        };
        match read_pack(opened.keys(), *pack, &bytes) {
            Ok(contents) => Ok(OwnContents::Sound(contents)),
            Err(_) if *blake3::hash(&bytes).as_bytes() == pack.0 => Ok(OwnContents::NeverSound),
            Err(_) => Ok(OwnContents::Damaged),
        }
    }

    fn refutes(&self, stated: &PackContents) -> bool {
        match self {
            OwnContents::Sound(contents) => contents != stated,
            OwnContents::NeverSound => true,
            OwnContents::Damaged => false,
        }
    }
}

/// How many more packs that may be described falsely are read as well: which index objects are false then shows together.
const READ_TOGETHER: usize = 64;

impl LocalIndex {
    /// Finds out whether a pack is damaged, or what index objects say of it, as a chunk cannot be read from it. Reads the pack as a whole and,
    /// if it is not damaged, all index objects twice, and some of the packs that may be described falsely as well.
    pub(super) fn find_fault(&self, pack: &PackId, id: &ChunkId, opened: &OpenedRepository) -> Result<ReadFault> {
        let contents = OwnContents::of(pack, opened)?;
        if matches!(contents, OwnContents::Damaged) {
            return Ok(ReadFault::Pack);
        }
        let mut read = HashMap::from([(*pack, contents)]);
        for other in self.suspects(id, opened)?.iter().filter(|other| *other != pack).take(READ_TOGETHER) {
            read.insert(*other, OwnContents::of(other, opened)?);
        }
        let is_false = |stated: &PackContents| read.get(&stated.pack).is_some_and(|own| own.refutes(stated));
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

    /// Packs that are said to hold a chunk, then those of which index objects state different things.
    fn suspects(&self, id: &ChunkId, opened: &OpenedRepository) -> Result<Vec<PackId>> {
        // None once two statements differ.
        let mut statements: HashMap<PackId, Option<blake3::Hash>> = HashMap::new();
        let mut suspects = BTreeSet::new();
        self.each_index(opened, |index| {
            for pack in &index.packs {
                if pack.places().any(|(held, _)| held == *id) {
                    suspects.insert(pack.pack);
                }
                let stated = Some(blake3::hash(&encode_index(std::slice::from_ref(pack))));
                let known = statements.entry(pack.pack).or_insert(stated);
                if *known != stated {
                    *known = None;
                }
            }
        })?;
        let disputed = statements.into_iter().filter_map(|(pack, stated)| stated.is_none().then_some(pack));
        let disputed: Vec<PackId> = disputed.filter(|pack| !suspects.contains(pack)).collect();
        Ok(suspects.into_iter().chain(disputed).collect())
    }

    fn each_index(&self, opened: &OpenedRepository, each: impl FnMut(IndexContents)) -> Result<()> {
        let sizes = HashMap::new();
        let mut fetch = IndexFetch::new(opened, self.segments().live().copied().collect(), &sizes);
        fetch.by_ref().for_each(each);
        fetch.finish().map(drop)
    }
}
