//! Further copies of chunks whose pack cannot be read.

use crate::error::Result;
use crate::id::{ChunkId, PackId};
use crate::lock::locked;
use crate::place::Located;
use crate::vault::Vault;
use std::collections::{HashMap, HashSet};
use std::sync::Mutex;

/// Packs for which other copies of their chunks are looked up. That reads all index objects twice: once for all packs that
/// count as missing together, and again for each other pack.
const PACKS_MAX: usize = 16;

#[derive(Default)]
struct KnownCopies {
    packs: HashSet<PackId>,
    places: HashMap<ChunkId, Vec<Located>>,
}

/// Shared by all threads of a reader.
#[derive(Default)]
pub(super) struct ChunkCopies(Mutex<KnownCopies>);

impl ChunkCopies {
    /// All places of a chunk of this pack, those in packs that count as missing last; empty when the chunk has no other one.
    /// None when the copies of too many packs were looked up already.
    pub(crate) fn of(&self, id: &ChunkId, pack: &PackId, vault: &Vault) -> Result<Option<Vec<Located>>> {
        let mut known = locked(&self.0);
        if !known.packs.contains(pack) {
            if known.packs.len() >= PACKS_MAX {
                return Ok(None);
            }
            let mut packs = HashSet::from([*pack]);
            let left_out = vault.left_out();
            if left_out.contains(pack) {
                let others = left_out.iter().filter(|other| !known.packs.contains(*other));
                packs.extend(others.take(PACKS_MAX - known.packs.len() - 1));
            }
            let places = vault.copies_of(&packs)?;
            known.places.extend(places);
            known.packs.extend(packs);
        }
        Ok(Some(known.places.get(id).cloned().unwrap_or_default()))
    }
}
