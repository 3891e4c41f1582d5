//! Claims: which worker of a backup stores a chunk. Chunks stay here only until the index segments know them.

use super::view::IndexView;
use crate::error::Result;
use crate::id::ChunkId;
use crate::lock::locked;
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use std::sync::{Mutex, MutexGuard};

const SHARDS: usize = 64;

/// What a worker that holds a chunk is to do with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// It is in a pack already: refer to it.
    Stored,
    /// It is new: the caller must store it.
    Mine,
    /// Another worker of this run is storing it: refer to it, for it will be in a pack before the commit.
    InFlight,
}

/// The claims of one run, asked by all its workers.
pub struct Claims {
    shards: Box<[Mutex<ClaimShard>]>,
}

/// Each shard holds its own view: chunks that leave the table are in the view for the next holder of the lock.
struct ClaimShard {
    view: IndexView,
    /// Chunks that the view may not know yet.
    chunks: HashTable<ChunkId>,
}

impl Claims {
    /// Chunks in this view count as stored.
    pub fn new(view: IndexView) -> Self {
        let shard = || Mutex::new(ClaimShard { view: view.clone(), chunks: HashTable::new() });
        Claims { shards: (0..SHARDS).map(|_| shard()).collect() }
    }

    /// Returns what the caller must do with a chunk; exactly one caller gets `Mine`.
    pub fn claim(&self, id: &ChunkId) -> Result<Claim> {
        let mut shard = self.shard(id);
        let ClaimShard { view, chunks } = &mut *shard;
        match chunks.entry(hash(id), |known| known == id, hash) {
            Entry::Occupied(_) => Ok(Claim::InFlight),
            Entry::Vacant(_) if view.contains(id)? => Ok(Claim::Stored),
            Entry::Vacant(place) => {
                place.insert(*id);
                Ok(Claim::Mine)
            }
        }
    }

    /// Whether a chunk is stored, or being stored by a worker of this run; claims nothing.
    pub(crate) fn contains(&self, id: &ChunkId) -> Result<bool> {
        let shard = self.shard(id);
        let is_claimed = shard.chunks.find(hash(id), |known| known == id).is_some();
        Ok(is_claimed || shard.view.contains(id)?)
    }

    /// Calls `claim` for each of these in turn, while what the next ones need is on its way to the processor: faster than
    /// one by one where the index is large.
    pub(crate) fn ahead(&self, ids: &[ChunkId], claim: impl FnMut(&ChunkId) -> Result<()>) -> Result<()> {
        let Some(first) = ids.first() else { return Ok(()) };
        let view = self.shard(first).view.clone();
        view.ahead(ids, claim)
    }

    /// Looks from now on also into segments that were added. Before [`Claims::settled`] for what they hold.
    pub(crate) fn refresh(&self, view: &IndexView) {
        for shard in &self.shards {
            locked(shard).view = view.clone();
        }
    }

    /// Forgets chunks that the refreshed view knows.
    pub(crate) fn settled<'a>(&self, ids: impl IntoIterator<Item = &'a ChunkId>) {
        for id in ids {
            let mut shard = self.shard(id);
            if let Ok(known) = shard.chunks.find_entry(hash(id), |known| known == id) {
                known.remove();
            }
            if shard.chunks.len() * 4 < shard.chunks.capacity() && shard.chunks.capacity() > 1024 {
                let most = shard.chunks.len() * 2;
                shard.chunks.shrink_to(most, hash);
            }
        }
    }

    fn shard(&self, id: &ChunkId) -> MutexGuard<'_, ClaimShard> {
        locked(&self.shards[id.as_bytes()[23] as usize % SHARDS])
    }
}

/// Every change of a shard is one call into its table, so a panic elsewhere leaves nothing half done.
/// Ids are keyed hashes of what this run itself read: their own bytes spread well enough.
fn hash(id: &ChunkId) -> u64 {
    u64::from_le_bytes(id.as_bytes()[..8].try_into().expect("the range is 8 bytes long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn id(number: u64) -> ChunkId {
        ChunkId::from_slice(&blake3::hash(&number.to_le_bytes()).as_bytes()[..24]).expect("24 bytes make an id")
    }

    #[test]
    fn a_chunk_is_mine_once_then_in_flight() -> Result<()> {
        let claims = Claims::new(IndexView::default());
        assert_eq!(claims.claim(&id(1))?, Claim::Mine);
        assert_eq!(claims.claim(&id(1))?, Claim::InFlight);
        assert!(claims.contains(&id(1))? && !claims.contains(&id(2))?);
        claims.settled([&id(1), &id(3)]);
        assert!(!claims.contains(&id(1))?);
        Ok(())
    }

    #[test]
    fn of_many_workers_exactly_one_is_told_to_store_a_chunk() {
        let claims = Claims::new(IndexView::default());
        let mine = AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let won = (0..5000).filter(|&number| claims.claim(&id(number)).ok() == Some(Claim::Mine)).count();
                    mine.fetch_add(won, Ordering::SeqCst);
                });
            }
        });
        assert_eq!(mine.into_inner(), 5000);
    }

    #[test]
    fn memory_is_given_back_when_chunks_are_settled() -> Result<()> {
        let claims = Claims::new(IndexView::default());
        let ids: Vec<_> = (0..200_000).map(id).collect();
        for id in &ids {
            claims.claim(id)?;
        }
        claims.settled(&ids);
        let capacity: usize = claims.shards.iter().map(|shard| locked(shard).chunks.capacity()).sum();
        assert!(capacity <= SHARDS * 1024, "{capacity}");
        Ok(())
    }
}
