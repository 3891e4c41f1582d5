//! Find out what is at fault where a chunk cannot be read: the pack, or what index objects state of it.

use crate::error::{Kind, Result};
use crate::format::pack::{opens_key, read_pack};
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
    /// Its bytes match its name and its key opens, but they are not a valid pack: it never was one, whatever index objects state.
    Invalid,
    /// It is missing or damaged, or this program cannot read it.
    Unproven,
}

impl OwnContents {
    /// Reads a pack as a whole. Returns the number of bytes, too.
    fn of(pack: &PackId, opened: &OpenedRepository) -> Result<(Self, u64)> {
        // The storage may have a copy in memory, which was read before.
        let bytes = match opened.storage().get_uncached(&pack_name(pack), PACK_BYTES_MAX) {
            Ok((bytes, _)) => bytes,
            Err(error) if error.is_damage() || error.is(Kind::Denied) => return Ok((OwnContents::Unproven, 0)),
            Err(error) => return Err(error),
        };
        let matches_name = || *blake3::hash(&bytes).as_bytes() == pack.0;
        let contents = match read_pack(opened.keys(), *pack, &bytes) {
            Ok(contents) => OwnContents::Sound(contents),
            Err(error) if error.is(Kind::Corrupt) && matches_name() && opens_key(opened.keys(), &bytes) => {
                OwnContents::Invalid
            }
            Err(error) if error.is_damage() || matches!(error.kind(), Kind::Denied | Kind::Unsupported) => {
                OwnContents::Unproven
            }
            Err(error) => return Err(error),
        };
        Ok((contents, bytes.len() as u64))
    }

    fn refutes(&self, stated: &PackContents) -> bool {
        match self {
            OwnContents::Sound(contents) => contents != stated,
            OwnContents::Invalid => true,
            OwnContents::Unproven => false,
        }
    }
}

/// How many more packs that may be described falsely are read as well, and about how many bytes of them: which index objects are false then
/// shows together.
const READ_TOGETHER: usize = 64;
const READ_TOGETHER_BYTES: u64 = 1 << 30;

impl LocalIndex {
    /// Finds out why a chunk cannot be read from a pack: the pack is damaged, or what index objects state is false. Reads the pack as a whole
    /// and, if it is not damaged, all index objects twice, and some of the packs that may be described falsely as well.
    pub(super) fn find_fault(&self, pack: &PackId, id: &ChunkId, opened: &OpenedRepository) -> Result<ReadFault> {
        let (contents, _) = OwnContents::of(pack, opened)?;
        if matches!(contents, OwnContents::Unproven) {
            return Ok(ReadFault::Pack);
        }
        let (mut read, mut bytes_read) = (HashMap::from([(*pack, contents)]), 0);
        let mut suspects = self.suspects(id, opened)?;
        suspects.retain(|other| other != pack && !self.is_left_out(other));
        for other in suspects.into_iter().take(READ_TOGETHER) {
            let (contents, bytes) = OwnContents::of(&other, opened)?;
            read.insert(other, contents);
            bytes_read += bytes;
            if bytes_read > READ_TOGETHER_BYTES {
                break;
            }
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
