//! The folders of our own that no backup saves: the repository it writes to, and the caches.

use crate::disk::stat::stat_path;
use crate::disk::{Directory, ListBuffer, Names, Stat};
use crate::error::{Error, Result};
use crate::repo::{CACHE_NOTES, Repository};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What names in the cache folder begin with: the id of a repository.
const ID_DIGITS: usize = 32;
/// The mark of a cache, which is made there as well.
const CACHE_TAG: &str = "CACHEDIR.TAG";

/// Folders of a repository that grow or hold secrets: each may be mounted, or be a link to a folder, elsewhere.
const REPOSITORY_FOLDERS: [&str; 6] = ["packs", "index", "snapshots", "pending", "expired", "keys"];

const PACKS_FOLDER: &str = "packs";

const REPOSITORY: &str = "part of the repository that this backup writes to";
const CACHE: &str = "part of the cache of silt";

/// Known by device and inode, whatever path leads to them.
#[derive(Debug, Default)]
pub(super) struct OwnFolders(HashMap<(u64, u64), &'static str>);

fn names_in(folder: &Path) -> Result<Names> {
    let mut names = Names::default();
    Directory::open_path(folder.as_os_str().as_bytes())?.names(&mut names, &mut ListBuffer::default())?;
    Ok(names)
}

impl OwnFolders {
    pub fn of(repo: &Repository) -> Self {
        let mut own = OwnFolders::default();
        if let Some(path) = repo.storage().local_path() {
            own.add(path, REPOSITORY);
            REPOSITORY_FOLDERS.iter().for_each(|name| own.add(&path.join(name), REPOSITORY));
            // Few, as they are named by the first byte of what is in them.
            let packs = path.join(PACKS_FOLDER);
            let names = names_in(&packs).unwrap_or_default();
            names.iter().for_each(|(name, _)| own.add(&packs.join(OsStr::from_bytes(name.to_bytes())), REPOSITORY));
        }
        if let Some(cache) = repo.cache() {
            own.add(cache, CACHE);
            cache.parent().into_iter().for_each(|caches| own.add_caches(caches));
        }
        own
    }

    /// The folder of all caches, or where other things are in it only what is ours.
    fn add_caches(&mut self, folder: &Path) {
        let Ok(listed) = names_in(folder) else { return };
        let names: Vec<&OsStr> = listed.iter().map(|(name, _)| OsStr::from_bytes(name.to_bytes())).collect();
        let is_ours = |name: &&&OsStr| {
            let bytes = name.as_bytes();
            let is_id = bytes.len() >= ID_DIGITS && bytes[..ID_DIGITS].iter().all(u8::is_ascii_hexdigit);
            is_id || CACHE_NOTES.into_iter().chain([CACHE_TAG]).any(|known| known.as_bytes() == bytes)
        };
        if names.iter().all(|name| is_ours(&name)) {
            return self.add(folder, CACHE);
        }
        names.iter().filter(is_ours).for_each(|name| self.add(&folder.join(name), CACHE));
    }

    fn add(&mut self, path: &Path, what: &'static str) {
        // One that is not there cannot be met.
        if let Ok(Stat { device, inode, .. }) = stat_path(path.as_os_str().as_bytes(), true) {
            self.0.entry((device, inode)).or_insert(what);
        }
    }

    /// What this is, if it is ours.
    pub fn name_of(&self, stat: &Stat) -> Option<&'static str> {
        self.0.get(&(stat.device, stat.inode)).copied()
    }

    /// The own repository or cache that a source is, or is inside of.
    fn above(&self, source: &Path) -> Option<&'static str> {
        let stats = source.ancestors().filter_map(|path| stat_path(path.as_os_str().as_bytes(), false).ok());
        stats.into_iter().find_map(|stat| self.name_of(&stat))
    }

    /// Takes out sources that are ours or lie in what is ours; returns them. That nothing remains is an error.
    pub fn take_out(&self, sources: &mut Vec<PathBuf>) -> Result<Vec<(PathBuf, &'static str)>> {
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
