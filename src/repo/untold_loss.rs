//! A mark in the cache that the repository has lost something that this host knew, until a backup has said so and has looked
//! at what it means: other commands, and backups of other sources, meet the loss first, and then know of it no more.

use crate::disk::whole::{read_own, write_whole};
use std::path::{Path, PathBuf};

const FILE_BYTES_MAX: u64 = 100;
/// Said where index objects are gone; of packs, each comparison finds which are missing.
const INDEXES: &str = "indexes";
const PACKS: &str = "packs";

/// Nothing without a cache.
pub(super) struct UntoldLoss(Option<PathBuf>);

impl UntoldLoss {
    pub fn at(cache: Option<&Path>) -> Self {
        UntoldLoss(cache.map(|cache| cache.join("lost")))
    }

    fn read(&self) -> Option<Vec<u8>> {
        read_own(self.0.as_ref()?, FILE_BYTES_MAX).ok()
    }

    pub fn is_marked(&self) -> bool {
        self.read().is_some()
    }

    /// Whether index objects were lost.
    pub fn is_of_indexes(&self) -> bool {
        self.read().is_some_and(|said| said == INDEXES.as_bytes())
    }

    pub fn mark(&self, has_lost_indexes: bool) {
        let Some(path) = self.0.as_ref().filter(|_| has_lost_indexes || !self.is_marked()) else { return };
        let said = if has_lost_indexes { INDEXES } else { PACKS };
        // Without it the loss is healed all the same, and less is said of it.
        let _best_effort = write_whole(path, said.as_bytes());
    }

    pub fn clear(&self) {
        // If it stays, the next backup says it once more.
        let _best_effort = self.0.as_ref().map(std::fs::remove_file);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loss_is_marked_until_it_was_told() {
        let cache = tempfile::tempdir().expect("a directory");
        let loss = UntoldLoss::at(Some(cache.path()));
        assert!(!loss.is_marked());
        for (marked, of_indexes) in [(false, false), (true, true), (false, true)] {
            loss.mark(marked);
            let again = UntoldLoss::at(Some(cache.path()));
            assert_eq!((again.is_marked(), again.is_of_indexes()), (true, of_indexes));
        }
        loss.clear();
        assert!(!loss.is_marked() && !loss.is_of_indexes());
        let nowhere = UntoldLoss::at(None);
        nowhere.mark(true);
        assert!(!nowhere.is_marked());
    }
}
