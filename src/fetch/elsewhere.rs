//! Read chunks that cannot be read where the index has them: find what is at fault, and other copies.

use crate::error::{Error, Result};
use crate::fetch::chunk::Chunk;
use crate::fetch::reader::{LOST_HINT, Reader, is_of_one_pack};
use crate::id::{ChunkId, ChunkKind, PackId};
use crate::index::IndexView;
use crate::lock::locked;
use crate::place::Located;
use crate::vault::ReadFault;

/// A missing object is damage too: `Corrupt`, not `NotFound`.
fn lost(id: &ChunkId, damage: Error) -> Error {
    Error::corrupt("read the chunk", id, damage).hint(LOST_HINT)
}

impl Reader {
    /// The index may name a pack that is missing or was cut, beside another copy of the chunk: a comparison with what the
    /// repository lists leaves only packs that are there.
    pub(super) fn compare_once(&self) -> Result<()> {
        let mut has_compared = locked(&self.0.has_compared);
        if !*has_compared {
            // If the repository itself is gone, nothing in it is damaged.
            self.0.vault.check_is_there()?;
            self.0.compare_index()?;
            *has_compared = true;
        }
        Ok(())
    }

    /// A chunk that no intact pack holds may still be readable in one that was cut, or is damaged elsewhere.
    pub(super) fn damaged_packs(&self) -> Result<IndexView> {
        let (packs, refuted) = (self.0.vault.left_out(), self.0.vault.false_indexes());
        let mut damaged = locked(&self.0.damaged);
        match damaged.as_ref().filter(|(known, known_refuted, _)| *known == packs && *known_refuted == refuted) {
            Some((_, _, view)) => Ok(view.clone()),
            None => {
                let view = self.0.vault.index_of_packs(&packs)?;
                *damaged = Some((packs, refuted, view.clone()));
                Ok(view)
            }
        }
    }

    /// A chunk that cannot be read where the index has it may rest in other packs as well.
    pub(super) fn read_elsewhere(&self, id: &ChunkId, kind: ChunkKind) -> Result<Chunk> {
        self.compare_once()?;
        let mut at = self.locate(id)?;
        loop {
            let refuted = self.0.vault.false_indexes();
            let mut failure = match self.read_twice(id, &at, kind) {
                Err(error) if is_of_one_pack(&error) => error,
                read => return read,
            };
            if self.0.vault.false_indexes() > refuted {
                let other = self.locate(id)?;
                if other != at {
                    at = other;
                    continue;
                }
            }
            let Some(places) = self.0.copies.of(id, &at.pack, &self.0.vault)? else {
                // A pack that is refused, as all of them may be, never counts as missing.
                if !failure.is_damage() {
                    return Err(failure);
                }
                match self.locate_without(&at.pack, id)? {
                    Some(other) => at = other,
                    None => return Err(lost(id, failure)),
                }
                continue;
            };
            for other in places.iter().filter(|place| **place != at) {
                match self.read_twice(id, other, kind) {
                    Err(error) if is_of_one_pack(&error) && failure.is_damage() => drop(error),
                    Err(error) if is_of_one_pack(&error) => failure = error,
                    read => return read,
                }
            }
            return Err(if failure.is_damage() { lost(id, failure) } else { failure });
        }
    }

    /// Where a chunk rests once this pack counts as missing, which takes a comparison of the whole index for each such pack;
    /// None where it counts as missing already.
    fn locate_without(&self, pack: &PackId, id: &ChunkId) -> Result<Option<Located>> {
        let vault = &self.0.vault;
        let _compared = locked(&self.0.has_compared);
        let is_left_out = || vault.is_left_out(pack);
        if !is_left_out() {
            self.0.compare_index()?;
            return Ok(vault.with_sound_index(vault.notices(), |view| view.locate(id))?.filter(|_| is_left_out()));
        }
        let found = vault.with_sound_index(vault.notices(), |view| view.locate(id))?;
        Ok(found.filter(|found| found.pack != *pack))
    }

    /// A read can fail for other reasons: the pack counts as damaged only if a second one fails, too, and its own bytes are wrong.
    fn read_twice(&self, id: &ChunkId, at: &Located, kind: ChunkKind) -> Result<Chunk> {
        let vault = &self.0.vault;
        let is_known = vault.is_left_out(&at.pack) || vault.is_noted_as_damaged(&at.pack);
        let refuted = vault.false_indexes();
        // If the pack is repaired meanwhile, its version changes.
        let version = if is_known { None } else { Some(vault.pack_version(&at.pack)) };
        match self.read_at(id, at, kind) {
            Err(error) if error.is_damage() => {}
            read => return read,
        }
        let Some(version) = version else { return self.read_at(id, at, kind) };
        self.read_at(id, at, kind).or_else(|error| {
            if error.is_damage() {
                vault.check_is_there()?;
                match self.find_fault(id, at, refuted)? {
                    ReadFault::Pack => vault.note_damaged_pack(&at.pack, version),
                    ReadFault::Indexes => {}
                    ReadFault::None => return self.read_at(id, at, kind),
                }
            }
            Err(error)
        })
    }

    /// One thread at a time, as a whole pack is read; `refuted` index objects were known to be false before it failed.
    fn find_fault(&self, id: &ChunkId, at: &Located, refuted: usize) -> Result<ReadFault> {
        let vault = &self.0.vault;
        let _one_at_a_time = locked(&self.0.has_compared);
        if vault.is_noted_as_damaged(&at.pack) {
            Ok(ReadFault::Pack)
        } else if vault.false_indexes() > refuted
            && vault.with_sound_index(vault.notices(), |view| view.locate(id))?.as_ref() != Some(at)
        {
            // Another thread has refuted what led here; what it refuted may as well be about another pack.
            Ok(ReadFault::Indexes)
        } else {
            vault.find_fault(&at.pack)
        }
    }
}
