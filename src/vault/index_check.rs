//! What a comparison of the local index with the repository found.

use crate::id::{IndexId, PackId};
use std::collections::HashSet;

/// What a comparison of the local index with the repository found.
#[derive(Clone, Debug, Default)]
pub struct IndexCheck {
    /// Packs that index objects name and that are missing or of another size. Empty when packs were not listed.
    pub packs_missing: HashSet<PackId>,
    /// Those of them that are listed, with the sizes that they have.
    pub packs_of_wrong_size: Vec<(PackId, u64)>,
    /// Index objects whose bytes are not what was stored.
    pub indexes_damaged: HashSet<IndexId>,
    /// Something that this host took for stored is not listed any more.
    pub has_lost: bool,
    /// Index objects that this host, or another run that shares its cache, knew and that are gone.
    pub lost_indexes: HashSet<IndexId>,
}

impl IndexCheck {
    pub(crate) fn is_sound(&self) -> bool {
        self.packs_missing.is_empty() && self.indexes_damaged.is_empty() && !self.has_lost
    }
}
