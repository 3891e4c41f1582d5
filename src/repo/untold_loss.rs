//! Marks in the cache that the repository has lost something that this host knew, until a backup has said so and has looked
//! at what it means: other commands, and backups of other sources, meet the loss first and forget it. Index objects that are
//! damaged stay, and are told once.

use crate::disk::whole::{read_own, write_whole};
use crate::id::IndexId;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// Said where index objects are gone; of packs, each comparison finds which are missing.
const INDEXES: &str = "lost-indexes";
const PACKS: &str = "lost-packs";
/// A mark has this as well while a backup looks at what the loss means. What is lost meanwhile is marked anew.
const BEING_TOLD: &str = "being-told";

/// Index objects that a backup has called damaged, a line each; more than this are told again.
const DAMAGED_INDEXES: &str = "damaged-indexes";
const DAMAGED_INDEXES_MAX: usize = 10_000;
const DAMAGED_INDEXES_BYTES_MAX: u64 = DAMAGED_INDEXES_MAX as u64 * 65;

/// Written and removed to find out whether marks can be.
const TRIAL: &str = "trial";

/// The marks of one repository's cache directory.
#[derive(Clone)]
pub(super) struct UntoldLoss(Arc<Place>);

struct Place {
    /// None without a cache.
    cache: Option<PathBuf>,
    /// Whether files can be written and removed there, once that was tried.
    is_writable: OnceLock<bool>,
}

impl UntoldLoss {
    pub fn at(cache: Option<&Path>) -> Self {
        UntoldLoss(Arc::new(Place { cache: cache.map(Path::to_owned), is_writable: OnceLock::new() }))
    }

    /// Whether losses can be marked. Without a cache, or with one that cannot be written, nothing is marked, and marks that
    /// were made before count for nothing, as they cannot be taken away.
    pub fn can_be_marked(&self) -> bool {
        *self.0.is_writable.get_or_init(|| {
            let trial = self.0.cache.as_ref().map(|cache| cache.join(TRIAL));
            trial.is_some_and(|trial| {
                write_whole(&trial, TRIAL.as_bytes()).is_ok() && std::fs::remove_file(&trial).is_ok()
            })
        })
    }

    /// Where the mark is, and where it is while it is being told.
    fn places(&self, mark: &str) -> Option<(PathBuf, PathBuf)> {
        let mark = self.0.cache.as_ref()?.join(mark);
        let being_told = mark.with_extension(BEING_TOLD);
        Some((mark, being_told))
    }

    fn has(&self, mark: &str) -> bool {
        let is_there = self.places(mark).is_some_and(|(mark, being_told)| mark.exists() || being_told.exists());
        is_there && self.can_be_marked()
    }

    pub fn is_marked(&self) -> bool {
        self.has(PACKS) || self.has(INDEXES)
    }

    /// Whether index objects were lost.
    pub fn is_of_indexes(&self) -> bool {
        self.has(INDEXES)
    }

    pub fn mark(&self, has_lost_indexes: bool) {
        let mark = if has_lost_indexes { INDEXES } else { PACKS };
        // Without it the loss is healed all the same, and less is said of it.
        let _best_effort = self.places(mark).map(|(mark, _)| write_whole(&mark, b""));
    }

    /// Begins to look at what the loss means: what is marked from now on is not told by that.
    pub fn begin_to_tell(&self) {
        for (mark, being_told) in [PACKS, INDEXES].into_iter().filter_map(|mark| self.places(mark)) {
            // If it stays, the next backup says it once more.
            let _best_effort = std::fs::rename(mark, being_told);
        }
    }

    /// Index objects whose damage a backup has told.
    pub fn told_indexes(&self) -> HashSet<IndexId> {
        let read = |cache: &PathBuf| read_own(&cache.join(DAMAGED_INDEXES), DAMAGED_INDEXES_BYTES_MAX).ok();
        let bytes = self.0.cache.as_ref().and_then(read).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        text.lines().filter_map(|line| IndexId::from_hex(line).ok()).collect()
    }

    /// What was marked when the look began has been told, and that these index objects are damaged.
    pub fn is_told(&self, damaged: &HashSet<IndexId>) {
        if *damaged != self.told_indexes() {
            let lines = damaged.iter().take(DAMAGED_INDEXES_MAX).map(|index| format!("{index}\n"));
            // Else it is told once more.
            let _best_effort = self
                .0
                .cache
                .as_ref()
                .map(|cache| write_whole(&cache.join(DAMAGED_INDEXES), lines.collect::<String>().as_bytes()));
        }
        for (_, being_told) in [PACKS, INDEXES].into_iter().filter_map(|mark| self.places(mark)) {
            // If it stays, the next backup says it once more.
            let _best_effort = std::fs::remove_file(being_told);
        }
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
        loss.begin_to_tell();
        assert!(UntoldLoss::at(Some(cache.path())).is_of_indexes(), "the run that tells it may die");
        loss.is_told(&HashSet::new());
        assert!(!loss.is_marked() && !loss.is_of_indexes());
        let damaged = HashSet::from([IndexId([7; 32])]);
        loss.is_told(&damaged);
        assert_eq!(loss.told_indexes(), damaged);
        loss.is_told(&HashSet::new());
        assert!(loss.told_indexes().is_empty());
        let nowhere = UntoldLoss::at(None);
        nowhere.mark(true);
        assert!(!nowhere.is_marked());
    }

    /// A loss that another command met while a backup looked at an earlier one was never told.
    #[test]
    fn what_is_lost_while_another_loss_is_told_stays_marked() {
        let cache = tempfile::tempdir().expect("a directory");
        let loss = UntoldLoss::at(Some(cache.path()));
        loss.mark(false);
        loss.begin_to_tell();
        loss.mark(true);
        loss.is_told(&HashSet::new());
        assert!(loss.is_of_indexes());
        loss.begin_to_tell();
        loss.is_told(&HashSet::new());
        assert!(!loss.is_marked());
    }
}
