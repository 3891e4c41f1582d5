//! Remembers which repository was at a location, to notice an unmounted disk or a replaced repository.

use crate::disk::whole::{make_private_dir, read_own, write_whole};
use crate::id::RepositoryId;
use std::path::{Path, PathBuf};

/// Where such notes are in the directory of all caches.
pub(super) const FOLDER: &str = "last-repository";

/// A note in the cache, which may be lost like all of it.
pub struct KnownRepository(Option<PathBuf>);

impl KnownRepository {
    /// `place` names the location, the same for every run; `cache` is the directory of all caches. Without one
    /// nothing is known and nothing is kept.
    pub fn at(place: &str, cache: Option<&Path>) -> Self {
        let name = blake3::hash(place.as_bytes()).to_hex();
        KnownRepository(cache.map(|cache| cache.join(FOLDER).join(&name[..24])))
    }

    /// The repository that was there.
    pub fn id(&self) -> Option<RepositoryId> {
        let text = String::from_utf8(read_own(self.0.as_ref()?, RepositoryId::BYTES as u64 * 2).ok()?).ok()?;
        RepositoryId::from_hex(&text).ok()
    }

    /// Notes the one that is there now. Returns the one before if that was another.
    pub fn note(&self, id: RepositoryId) -> Option<RepositoryId> {
        let before = self.id();
        if before != Some(id)
            && let Some((path, folder)) = self.0.as_ref().and_then(|path| Some((path, path.parent()?)))
        {
            // Without it the next run notices nothing.
            let _best_effort = make_private_dir(folder).and_then(|()| write_whole(path, id.to_hex().as_bytes()));
        }
        before.filter(|before| *before != id)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A backup went to whatever repository stood where another one was expected, without a word.
    #[test]
    fn another_repository_at_a_place_is_noticed_once() {
        let cache = tempfile::tempdir().unwrap();
        let (one, other) = (RepositoryId([1; RepositoryId::BYTES]), RepositoryId([2; RepositoryId::BYTES]));
        let known = KnownRepository::at("/mnt/backup", Some(cache.path()));
        assert_eq!((known.id(), known.note(one), known.note(one)), (None, None, None));
        assert_eq!((known.note(other), known.note(other)), (Some(one), None));
        assert_eq!(KnownRepository::at("/mnt/elsewhere", Some(cache.path())).id(), None);
        std::fs::write(known.0.as_ref().unwrap(), "damaged").unwrap();
        assert_eq!(known.note(one), None);
    }
}
