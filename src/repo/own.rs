//! The folders of our own: those of the repository in use, and the caches. No backup saves them, and no restore writes to
//! them or deletes them.

use crate::disk::stat::stat_path;
use crate::disk::{Directory, Identity, ListBuffer, NameList, Stat};
use crate::error::{Error, Result};
use crate::repo::{CACHE_NOTES, Repository};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The digits of the two parts that the name of a cache has: the id of the repository, and its location.
const CACHE_DIGITS: [usize; 2] = [32, 16];
/// The mark of a cache, which is made there as well.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// Folders of a repository that grow or hold secrets: each may be mounted, or be a link to a folder, elsewhere.
const REPOSITORY_FOLDERS: [&str; 7] = ["packs", "index", "snapshots", "pending", "expired", "keys", ".tmp"];

const PACKS_FOLDER: &str = "packs";

/// What a folder of our own belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OwnFolder {
    Repository,
    /// The cache of this repository.
    Cache,
    /// Those of other repositories, and what is beside them.
    OtherCaches,
}

impl OwnFolder {
    /// What a backup says of it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            OwnFolder::Repository => "part of the repository that this backup writes to",
            OwnFolder::Cache | OwnFolder::OtherCaches => "part of the cache of silt",
        }
    }
}

/// Known by their inodes, whatever path leads to them.
#[derive(Debug, Default)]
pub(crate) struct OwnFolders(HashMap<Identity, OwnFolder>);

fn names_in(folder: &Path) -> Result<NameList> {
    let mut names = NameList::default();
    Directory::open_path(folder.as_os_str().as_bytes())?.names(&mut names, &mut ListBuffer::default())?;
    Ok(names)
}

impl OwnFolders {
    pub(crate) fn of(repo: &Repository) -> Self {
        let mut own = OwnFolders::default();
        if let Some(path) = repo.storage().local_path() {
            own.add(path, OwnFolder::Repository);
            REPOSITORY_FOLDERS.iter().for_each(|name| own.add(&path.join(name), OwnFolder::Repository));
            // Few, as they are named by the first byte of what is in them.
            own.add_all_in(&path.join(PACKS_FOLDER), OwnFolder::Repository);
        }
        if let Some(cache) = repo.cache() {
            own.add(cache, OwnFolder::Cache);
            own.add_all_in(cache, OwnFolder::Cache);
            cache.parent().into_iter().for_each(|caches| own.add_caches(caches));
        }
        own
    }

    fn add_all_in(&mut self, folder: &Path, what: OwnFolder) {
        let names = names_in(folder).unwrap_or_default();
        names.iter().for_each(|(name, _)| self.add(&folder.join(OsStr::from_bytes(name.to_bytes())), what));
    }

    /// Adds the directory of all caches. If it also holds other things, adds only what silt put there.
    fn add_caches(&mut self, folder: &Path) {
        let Ok(listed) = names_in(folder) else { return };
        let names: Vec<&OsStr> = listed.iter().map(|(name, _)| OsStr::from_bytes(name.to_bytes())).collect();
        let is_ours = |name: &&&OsStr| {
            let bytes = name.as_bytes();
            is_cache_name(bytes) || CACHE_NOTES.into_iter().chain([CACHE_TAG]).any(|known| known.as_bytes() == bytes)
        };
        if names.iter().all(|name| is_ours(&name)) {
            return self.add(folder, OwnFolder::OtherCaches);
        }
        names.iter().filter(is_ours).for_each(|name| self.add(&folder.join(name), OwnFolder::OtherCaches));
    }

    fn add(&mut self, path: &Path, what: OwnFolder) {
        // One that is not there cannot be met.
        if let Ok(stat) = stat_path(path.as_os_str().as_bytes(), true) {
            self.0.entry(stat.identity()).or_insert(what);
        }
    }

    /// What this belongs to, if it is ours.
    pub(crate) fn of_stat(&self, stat: &Stat) -> Option<OwnFolder> {
        self.0.get(&stat.identity()).copied()
    }

    /// What a backup says of this, if it is ours.
    pub(crate) fn name_of(&self, stat: &Stat) -> Option<&'static str> {
        self.of_stat(stat).map(OwnFolder::name)
    }

    /// The own repository or cache that a source is, or is inside of.
    fn above(&self, source: &Path) -> Option<&'static str> {
        let stats = source.ancestors().filter_map(|path| stat_path(path.as_os_str().as_bytes(), false).ok());
        stats.into_iter().find_map(|stat| self.name_of(&stat))
    }

    /// Removes sources that are a directory of silt, or in one, and returns them. Returns an error if no source remains.
    pub(crate) fn take_out(&self, sources: &mut Vec<PathBuf>) -> Result<Vec<(PathBuf, &'static str)>> {
        let mut taken = Vec::new();
        let mut last_folder: Option<(PathBuf, Option<&'static str>)> = None;
        sources.retain(|source| {
            // Lists name thousands of files of one folder.
            let folder = source.parent().unwrap_or(source);
            let known = last_folder.as_ref().filter(|(known, _)| known == folder).map(|(_, what)| *what);
            let of_folder = known.unwrap_or_else(|| self.above(folder));
            last_folder = Some((folder.to_owned(), of_folder));
            let itself = || stat_path(source.as_os_str().as_bytes(), false).ok().and_then(|stat| self.name_of(&stat));
            match of_folder.or_else(itself) {
                Some(what) => {
                    taken.push((source.clone(), what));
                    false
                }
                None => true,
            }
        });
        match taken.first() {
            Some((source, what)) if sources.is_empty() => {
                Err(Error::invalid("save", source.display(), format!("it is {what}"))
                    .hint("name another source, or another repository with --repo"))
            }
            _ => Ok(taken),
        }
    }
}

/// Whether a directory with this name in the directory of all caches is one of them.
fn is_cache_name(name: &[u8]) -> bool {
    let parts: Vec<&[u8]> = name.split(|byte| *byte == b'-').collect();
    parts.iter().map(|part| part.len()).eq(CACHE_DIGITS)
        && parts.iter().all(|part| part.iter().all(u8::is_ascii_hexdigit))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory of a user that begins like one was left out of a backup.
    #[test]
    fn names_of_caches_are_known_as_a_whole() {
        let (id, location) = ("7c5aba41f53293b712fd86d08ed5b36e", "0123456789abcdef");
        assert!(is_cache_name(format!("{id}-{location}").as_bytes()));
        for other in
            [id.to_owned(), format!("{id}-{location}0"), format!("{id}-{location}-"), format!("{id}-0123456789abcdeg")]
        {
            assert!(!is_cache_name(other.as_bytes()), "{other}");
        }
    }
}
