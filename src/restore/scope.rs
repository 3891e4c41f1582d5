//! What a path is to a snapshot: at or below a source, or merely above one; and what a restore never touches.

use crate::disk::open::{open_file_checked, read_full};
use crate::disk::stat::stat_path;
use crate::disk::{Directory, Identity, Stat};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Kind, Result};
use crate::format::{CONFIG_NAME, Config};
use crate::id::ChunkId;
use crate::repo::{OwnFolder, OwnFolders, Reader, Repository, Snapshot, SnapshotSource};
use std::collections::HashSet;
use std::os::unix::ffi::OsStrExt;

/// What every configuration of a repository begins with, in plain.
const CONFIG_MAGIC: &[u8] = b"siltrepo";
const CONFIG_HEAD_BYTES: usize = 64;
const CACHE_TAG: &str = "CACHEDIR.TAG";
const CACHE_TAG_BYTES: usize = 1024;
const CACHE_SIGNATURE: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55";

pub(super) struct SnapshotScope {
    /// Clean absolute paths of trees.
    sources: HashSet<Vec<u8>>,
    /// The snapshot has more sources than it names: what is not inside one of these may still be inside another.
    pub sources_cut: bool,
    /// The root of the file system is a source.
    everything: bool,
    /// Paths that the backup could not save as they were.
    warned: HashSet<Vec<u8>>,
    /// The snapshot had more warnings than it names: any path may be one of them.
    pub warnings_cut: bool,
    /// The backup did not see attributes of the namespace `trusted`.
    pub lacks_trusted: bool,
    /// The repository and the caches, wherever parts of them are mounted or linked.
    own: OwnFolders,
    /// The folder of all caches.
    all_caches: Option<Identity>,
    /// The root page of the snapshot.
    root: ChunkId,
}

impl SnapshotScope {
    pub(crate) fn new(repo: &Repository, snapshot: &Snapshot) -> SnapshotScope {
        let clean = |path: &[u8]| {
            let mut clean = Vec::with_capacity(path.len());
            for part in path.split(|byte| *byte == b'/').filter(|part| !part.is_empty()) {
                clean.push(b'/');
                clean.extend_from_slice(part);
            }
            clean
        };
        let tree = |source: &SnapshotSource| match source {
            SnapshotSource::Tree { path } => Some(clean(&path.0)),
            _ => None,
        };
        let sources: HashSet<Vec<u8>> = snapshot.sources.iter().filter_map(tree).collect();
        let all_caches = repo.cache().and_then(|cache| stat_path(cache.parent()?.as_os_str().as_bytes(), true).ok());
        SnapshotScope {
            everything: sources.contains(&b""[..]),
            sources_cut: snapshot.all_sources.is_some(),
            sources,
            warned: snapshot.warnings.iter().map(|warning| clean(&warning.path.0)).collect(),
            warnings_cut: snapshot.warnings_count > snapshot.warnings.len() as u64,
            lacks_trusted: snapshot.lacks_trusted,
            own: OwnFolders::of(repo),
            all_caches: all_caches.map(|stat| stat.identity()),
            root: snapshot.root,
        }
    }

    /// What the snapshot has at a path.
    pub(crate) fn saved_at(&self, reader: &Reader, path: &[u8]) -> Result<Option<Entry>> {
        let mut content = Content::Tree(self.root);
        let mut found = None;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            let Content::Tree(tree) = &content else { return Ok(None) };
            let Some(entry) = reader.lookup(tree, name)? else { return Ok(None) };
            content = entry.content.clone();
            found = Some(entry);
        }
        Ok(found)
    }

    /// The paths of the sources that are neither at this path nor above it.
    pub(crate) fn sources_besides(&self, base: &[u8]) -> impl Iterator<Item = &[u8]> {
        self.sources.iter().map(Vec::as_slice).filter(move |source| !is_at_or_below(base, source))
    }

    /// The sources below a path, in order.
    pub(crate) fn sources_below(&self, base: &[u8]) -> Vec<&[u8]> {
        let is_below = |source: &&[u8]| *source != base && is_at_or_below(source, base);
        let mut below: Vec<&[u8]> = self.sources.iter().map(Vec::as_slice).filter(is_below).collect();
        below.sort_unstable();
        below
    }

    /// Whether a source has exactly this path, even inside another one.
    pub(crate) fn is_named(&self, path: &[u8]) -> bool {
        self.sources.contains(path)
    }

    /// Whether this path is a source itself.
    pub(crate) fn is_source(&self, path: &[u8]) -> bool {
        self.everything || self.sources.contains(path)
    }

    /// Whether this path is at or below a source.
    pub(crate) fn is_inside(&self, path: &[u8]) -> bool {
        self.source_of(path).is_some()
    }

    /// The outermost source that a path is at or below.
    pub(crate) fn source_of<'p>(&self, path: &'p [u8]) -> Option<&'p [u8]> {
        let mut ends = (0..path.len()).filter(|at| path[*at] == b'/').chain([path.len()]);
        ends.find(|end| self.sources.contains(&path[..*end])).map(|end| &path[..end])
    }

    /// Whether the backup warned about this path, so the snapshot may not show what the source had there.
    pub(crate) fn has_warning(&self, path: &[u8]) -> bool {
        self.warned.contains(path)
    }

    /// Whether this is a directory of the repository or of the cache in use.
    pub(crate) fn is_in_use(&self, stat: &Stat) -> bool {
        matches!(self.own.of_stat(stat), Some(OwnFolder::Repository | OwnFolder::Cache))
    }

    /// The same, or a cache of another repository, or the folder that it is in.
    pub(crate) fn is_own(&self, stat: &Stat) -> bool {
        self.own.of_stat(stat).is_some() || self.all_caches == Some(stat.identity())
    }
}

/// Whether one path is another one or below it. Both are clean; `/` is the empty path.
pub(super) fn is_at_or_below(path: &[u8], top: &[u8]) -> bool {
    path.strip_prefix(top).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// What an error while something was looked at says about it. What is not there, is something else, or denies access to this
/// user is nothing of ours; any other error says nothing.
fn or_nothing<T: Default>(looked: Result<T>) -> Result<T> {
    match looked {
        Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict | Kind::Denied) => Ok(T::default()),
        looked => looked,
    }
}

/// The first bytes of a file; none when it is not one or must not be read.
fn beginning(directory: &Directory, name: &str, bytes_max: usize) -> Result<Vec<u8>> {
    let is_file = or_nothing(directory.stat(name).map(|stat| stat.is(EntryKind::File)))?;
    let mut bytes = vec![0; if is_file { bytes_max } else { 0 }];
    if is_file {
        let count = or_nothing(open_file_checked(directory, name).and_then(|(fd, _)| read_full(fd, &mut bytes)))?;
        bytes.truncate(count);
    }
    Ok(bytes)
}

/// Whether this directory holds a repository of ours, or a cache. A repository is known by its configuration, or, as that may
/// be damaged, by its directories, of which one may be missing.
pub(super) fn looks_like_ours(directory: &Directory) -> Result<bool> {
    let has = |name: &str| or_nothing(directory.stat(name).map(|_| true));
    if beginning(directory, CONFIG_NAME, CONFIG_HEAD_BYTES)?.starts_with(CONFIG_MAGIC) {
        return Ok(true);
    }
    if has("packs")? {
        let others = ["keys", "index", "snapshots"].into_iter().map(has).collect::<Result<Vec<bool>>>()?;
        if others.into_iter().filter(|has| *has).count() > 1 {
            return Ok(true);
        }
    }
    let tag = beginning(directory, CACHE_TAG, CACHE_TAG_BYTES)?;
    Ok(tag.starts_with(CACHE_SIGNATURE) && tag.windows(4).any(|word| word == b"silt"))
}

/// Whether this directory is a copy of the repository that is being restored from. The repository itself is known by what its
/// directories are: a file of this name that cannot be read does not keep a directory from being restored.
pub(super) fn is_repository_in_use(repo: &Repository, directory: &Directory) -> bool {
    repo.storage().local_path().is_some()
        && beginning(directory, CONFIG_NAME, CONFIG_HEAD_BYTES)
            .and_then(|begins| Config::peek(&begins))
            .is_ok_and(|id| id == repo.config().repository)
}

/// Repositories and caches that a directory is in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum OurFolders {
    No,
    /// Nothing is deleted in it.
    Other,
    /// The repository in use, or a cache: nothing is restored into it.
    InUse,
}
