//! What a repository lists: its index objects, and its packs with their sizes.

use crate::error::Result;
use crate::format::{INDEX_PREFIX, PACKS_PREFIX, pack_name};
use crate::id::{IndexId, PackId};
use crate::place::PackSizes;
use crate::storage::{ListedObject, Storage};
use std::collections::HashMap;

/// What the repository lists.
pub(super) struct RepositoryListing {
    pub index: Vec<ListedObject>,
    pub packs: Option<PackSizes>,
}

impl RepositoryListing {
    /// The index objects alone, for reading: that a pack is missing shows when it is read.
    pub(crate) fn of_index(index: Vec<ListedObject>) -> Self {
        RepositoryListing { index, packs: None }
    }

    /// Index objects first: the packs that they name were written before them, so the second listing shows those.
    pub(crate) fn whole(storage: &dyn Storage, packs_expected: usize) -> Result<Self> {
        let index = storage.list(INDEX_PREFIX)?;
        let packs = list_packs(storage, packs_expected)?;
        Ok(RepositoryListing { index, packs: Some(packs) })
    }

    /// The same, to check that known objects are still there, where order does not matter: both at once, and
    /// `beside` with them, as over a network each costs a round trip.
    pub(crate) fn whole_at_once(
        storage: &dyn Storage,
        packs_expected: usize,
        beside: impl Fn() -> Result<()> + Sync,
    ) -> Result<Self> {
        if !storage.profile().is_remote {
            beside()?;
            return RepositoryListing::whole(storage, packs_expected);
        }
        let packs = || list_packs(storage, packs_expected);
        let (index, packs, beside) = std::thread::scope(|scope| {
            let listing = std::thread::Builder::new().spawn_scoped(scope, packs);
            let other = std::thread::Builder::new().spawn_scoped(scope, &beside);
            let index = storage.list(INDEX_PREFIX);
            let packs = listing.map_or_else(|_| packs(), |thread| thread.join().unwrap_or_else(|_| packs()));
            (index, packs, other.map_or_else(|_| beside(), |thread| thread.join().unwrap_or_else(|_| beside())))
        });
        beside?;
        Ok(RepositoryListing { index: index?, packs: Some(packs?) })
    }

    /// The packs that count as there; none where they were not listed.
    pub(crate) fn packs_mut(&mut self) -> Option<&mut PackSizes> {
        self.packs.as_mut()
    }

    /// The index objects with their sizes in bytes.
    pub(crate) fn indexes(&self) -> HashMap<IndexId, u64> {
        let size = |listed: &ListedObject| {
            let hex = listed.name.strip_prefix(INDEX_PREFIX)?;
            Some((IndexId::from_hex(hex).ok()?, listed.size))
        };
        self.index.iter().filter_map(size).collect()
    }
}

/// From this many packs on, remote storage lists them by the first byte of their names, in parallel, instead of in one sequence.
/// A request lists 1000 packs, so these 256 requests in 8 rounds are sooner done than 9 or more in a row.
const PACKS_IN_PARTS_MIN: usize = 8000;
const PACK_LISTINGS_AT_ONCE: usize = 32;

fn list_packs(storage: &dyn Storage, expected: usize) -> Result<PackSizes> {
    // An object that is anywhere but at its own name is not found when it is read.
    let size = |listed: &ListedObject| {
        let (_, hex) = listed.name.rsplit_once('/')?;
        let pack = PackId::from_hex(hex).ok()?;
        (listed.name == pack_name(&pack)).then_some((pack, listed.size))
    };
    if !storage.profile().is_remote || expected < PACKS_IN_PARTS_MIN {
        return Ok(storage.list(PACKS_PREFIX)?.iter().filter_map(size).collect());
    }
    let parts: Vec<String> = (0..=255u8).map(|byte| format!("{PACKS_PREFIX}{byte:02x}/")).collect();
    let listed = crate::vault::parallel::each_at_once(&parts, PACK_LISTINGS_AT_ONCE, |part| storage.list(part));
    let mut packs = PackSizes::default();
    for listed in listed {
        listed?.iter().filter_map(size).for_each(|(pack, bytes)| packs.insert(pack, bytes));
    }
    Ok(packs)
}
