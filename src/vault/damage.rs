//! The record of damage in the cache, for later runs: losses that no backup has reported, and what has been reported.

use crate::id::IndexId;
use crate::seal::{KeyAccess, KeySet};
use crate::vault::{LossSet, ReportedDamage, Vault};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

impl Vault {
    /// Marks that the repository has lost something, among it these index objects, which a backup is to tell.
    pub(crate) fn mark_loss(&self, indexes: &HashSet<IndexId>) {
        self.0.losses.mark(indexes);
    }

    /// Losses that no backup has reported yet; those that are met from now on are not among them.
    pub(crate) fn unreported_losses(&self) -> LossSet {
        let mut marks = self.0.losses.all();
        if !marks.is_empty() {
            marks.leave_out(&self.reported().unwrap_or_default().marks);
        }
        marks
    }

    /// Removes the marks of what is there again.
    pub(crate) fn forget_losses(&self, marks: &LossSet) {
        self.0.losses.remove(marks);
    }

    /// Losses that this process has met and marked.
    pub(crate) fn losses_marked_here(&self) -> LossSet {
        self.0.losses.marked_here()
    }

    /// Whether losses, and that they are reported, can be noted for later runs.
    pub(crate) fn remembers_losses(&self) -> bool {
        self.0.losses.can_mark()
    }

    /// What backups have reported of damage; none without a cache.
    pub(crate) fn reported(&self) -> Option<ReportedDamage> {
        Some(ReportedDamage::read(&reported_path(self.cache(), self.keys())?))
    }

    /// Notes what stays reported of damage that is partly gone. What is not noted, the next run tries to note again.
    pub(crate) fn rewrite_reported(&self, reported: &ReportedDamage) {
        let _best_effort = reported_path(self.cache(), self.keys()).map(|path| reported.write(&path));
    }

    /// Notes what has been reported by now, and removes the marks of these losses. A put-only key cannot find out what a loss means, so
    /// it leaves them to the others that use this cache.
    pub(crate) fn note_reported(&self, reported: &ReportedDamage, marks: &LossSet) {
        let Some(path) = reported_path(self.cache(), self.keys()) else { return };
        let is_put_only = self.keys().access() < KeyAccess::Full;
        let noted = if is_put_only {
            ReportedDamage { marks: marks.names().cloned().collect(), ..reported.clone() }.write(&path)
        } else {
            reported.write(&path)
        };
        if noted.is_ok() && !is_put_only { self.0.losses.remove(marks) } else { self.0.losses.forget_here(marks) }
    }
}

/// Where backups with a key of this access note what they have reported: without a full key they cannot find out what a loss means.
pub(super) fn reported_path(cache: Option<&Path>, keys: &KeySet) -> Option<PathBuf> {
    let name = if keys.access() == KeyAccess::Full { "reported-damage" } else { "reported-damage-put-only" };
    Some(cache?.join(name))
}
