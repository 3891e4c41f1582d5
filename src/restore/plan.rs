//! The plan of a restore: what will be there, what is in the way, what has to be read; a value that changes nothing.

use crate::disk::Directory;
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::id::{ChunkId, PackId};
use crate::repo::{Reader, Repository, Snapshot};
use crate::restore::RestoreOptions;
use crate::watch::Watch;
use std::collections::{HashMap, HashSet};
use std::os::unix::ffi::OsStrExt;

/// What a restore will do; shown before anything is written.
pub struct RestorePlan {
    pub summary: PlanSummary,
    pub(super) repo: Repository,
    pub(super) options: RestoreOptions,
    /// What is restored: a directory, whose contents go into the target, or one entry, which does itself.
    pub(super) root: Entry,
    /// The path of the root in the snapshot.
    pub(super) base: Vec<u8>,
    /// Whether the target holds anything that could be in the way.
    pub(super) root_taken: bool,
}

/// The figures of a plan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanSummary {
    pub directories: u64,
    pub files: u64,
    pub others: u64,
    /// Bytes of content to be had in the target at the end.
    pub bytes: u64,
    /// Packs that are read from and frames in them; counted for a detailed plan only.
    pub packs: u64,
    pub frames: u64,
    /// Bytes to be read from storage if nothing of the target can be kept; for a detailed plan only.
    pub bytes_to_read: u64,
    /// Ranges in which neighbouring frames are read together; for a detailed plan only.
    pub ranges: u64,
    /// Paths in the target (at most 1000) that are there already.
    pub conflicts: Vec<Vec<u8>>,
    pub conflicts_count: u64,
    /// Paths in the target (at most 1000) that `delete` removes.
    pub deletions: Vec<Vec<u8>>,
    pub deletions_count: u64,
}

/// How many paths a plan names.
const NAMED_MAX: usize = 1000;
/// Directories that can lie in each other; a tree cannot be deeper, as its paths cannot be longer.
pub(super) const DEPTH_MAX: usize = 4096;

pub(super) fn make(
    repo: &Repository,
    snapshot: &Snapshot,
    options: RestoreOptions,
    watch: &Watch,
) -> Result<RestorePlan> {
    watch.stage("planning");
    let reader = repo.reader();
    let (root, base) = find_root(&reader, snapshot, options.path.as_deref())?;
    let existing = Directory::open_path(options.target.as_os_str().as_bytes());
    let root_taken = match &existing {
        Ok(_) => std::fs::read_dir(&options.target).is_ok_and(|mut entries| entries.next().is_some()),
        Err(error) if error.is(Kind::NotFound) => false,
        Err(_) => true,
    };
    let target = existing.ok().filter(|_| root_taken);
    let mut planner =
        Planner { reader, options: &options, summary: PlanSummary::default(), frames: HashMap::new(), watch };
    let whole = options.path.is_none() && !options.detailed && target.is_none();
    if whole && options.include.is_none() && !options.exclude.has_patterns() {
        // The snapshot knows its own totals: an empty target needs no look at each entry before the first is written.
        planner.summary.files = snapshot.totals.files + snapshot.totals.streams;
        planner.summary.directories = snapshot.totals.directories;
        planner.summary.others = snapshot.totals.others;
        planner.summary.bytes = snapshot.totals.bytes;
    } else {
        match &root.content {
            Content::Tree(tree) => planner.directory(tree, &base, target.as_ref(), 0)?,
            _ => planner.entry(&root, &base, target.as_ref(), 0)?,
        }
        planner.count_reads();
    }
    let summary = planner.summary;
    Ok(RestorePlan { summary, repo: repo.clone(), options, root, base, root_taken })
}

/// The entry that is restored and its path.
fn find_root(reader: &Reader, snapshot: &Snapshot, path: Option<&[u8]>) -> Result<(Entry, Vec<u8>)> {
    let mut entry = Entry::new("", EntryKind::Directory);
    entry.content = Content::Tree(snapshot.root);
    let mut base = Vec::new();
    for name in path.unwrap_or_default().split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let missing = |why: &str| {
            let shown = String::from_utf8_lossy(path.unwrap_or_default()).into_owned();
            Error::new(Kind::NotFound, "restore", shown)
                .because(why.to_owned())
                .hint("`silt ls` shows what a snapshot holds")
        };
        let shown = String::from_utf8_lossy(&base).into_owned();
        let Content::Tree(tree) = &entry.content else {
            return Err(missing(&format!("{shown} is no directory in that snapshot")));
        };
        entry = reader
            .lookup(tree, name)?
            .ok_or_else(|| missing(&format!("it is not in that snapshot (it has {shown}/)")))?;
        base.push(b'/');
        base.extend_from_slice(name);
    }
    Ok((entry, base))
}

struct Planner<'a> {
    reader: Reader,
    options: &'a RestoreOptions,
    summary: PlanSummary,
    /// Frames that are read, with their places: bytes from the pack's start, and length.
    frames: HashMap<PackId, HashSet<(u32, u32)>>,
    watch: &'a Watch,
}

impl Planner<'_> {
    fn directory(&mut self, tree: &ChunkId, path: &[u8], target: Option<&Directory>, depth: usize) -> Result<()> {
        self.watch.cancel.check()?;
        if depth > DEPTH_MAX {
            return Err(Error::corrupt(
                "read the tree of",
                String::from_utf8_lossy(path),
                "its directories lie too deep",
            ));
        }
        let mut entries = Vec::new();
        let mut names = HashSet::new();
        // Only what is needed later is kept: the directories.
        let reader = self.reader.clone();
        reader.for_each_entry(tree, &mut |entry| {
            if target.is_some() && self.options.delete {
                names.insert(entry.name.clone());
            }
            let child = child_path(path, &entry.name);
            if !self.options.takes(&child, entry.is_directory()) {
                return Ok(());
            }
            if entry.is_directory() {
                entries.push(entry);
                return Ok(());
            }
            self.entry(&entry, &child, target, depth)
        })?;
        if let Some(target) = target.filter(|_| self.options.delete) {
            self.deletions(target, path, &names)?;
        }
        for entry in entries {
            let child = child_path(path, &entry.name);
            self.entry(&entry, &child, target, depth)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &Entry, path: &[u8], target: Option<&Directory>, depth: usize) -> Result<()> {
        match entry.kind {
            EntryKind::Directory => self.summary.directories += 1,
            EntryKind::File | EntryKind::Stream => self.summary.files += 1,
            _ => self.summary.others += 1,
        }
        self.summary.bytes += entry.size;
        let there = target.is_some_and(|target| target.stat(entry.name.as_slice()).is_ok());
        if let Content::Tree(tree) = &entry.content {
            let below = target.filter(|_| there).and_then(|target| target.open_child(entry.name.as_slice()).ok());
            return self.directory(tree, path, below.as_ref(), depth + 1);
        }
        if there {
            self.summary.conflicts_count += 1;
            if self.summary.conflicts.len() < NAMED_MAX {
                self.summary.conflicts.push(path.to_vec());
            }
        }
        if self.options.detailed {
            let reader = self.reader.clone();
            reader.for_each_chunk(entry, &mut |id| {
                let at = reader.locate(id)?;
                self.frames.entry(at.pack).or_default().insert((at.frame_offset, at.frame_stored));
                Ok(())
            })?;
        }
        Ok(())
    }

    fn deletions(&mut self, target: &Directory, path: &[u8], names: &HashSet<Vec<u8>>) -> Result<()> {
        let mut listed = crate::disk::Names::default();
        target.names(&mut listed, &mut crate::disk::ListBuffer::default())?;
        for (name, _) in listed.iter() {
            let child = child_path(path, name.to_bytes());
            if !names.contains(name.to_bytes()) && self.options.takes(&child, false) {
                self.summary.deletions_count += 1;
                if self.summary.deletions.len() < NAMED_MAX {
                    self.summary.deletions.push(child);
                }
            }
        }
        Ok(())
    }

    fn count_reads(&mut self) {
        self.summary.packs = self.frames.len() as u64;
        for frames in self.frames.values() {
            let mut frames: Vec<(u32, u32)> = frames.iter().copied().collect();
            frames.sort_unstable();
            self.summary.frames += frames.len() as u64;
            self.summary.bytes_to_read += frames.iter().map(|(_, length)| u64::from(*length)).sum::<u64>();
            let joins = frames.windows(2).filter(|pair| pair[0].0 + pair[0].1 == pair[1].0).count();
            self.summary.ranges += (frames.len() - joins) as u64;
        }
    }
}

pub(super) fn child_path(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut child = Vec::with_capacity(path.len() + 1 + name.len());
    child.extend_from_slice(path);
    child.push(b'/');
    child.extend_from_slice(name);
    child
}
