//! Put sources and streams under one root: the snapshot's tree holds them at their absolute paths and names.

use crate::backup::Run;
use crate::disk::stat::stat_path;
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Result};
use crate::id::ChunkId;
use crate::repo::Snapshot;
use crate::repo::tree::{page_lengths, store_page, store_root};
use std::collections::BTreeMap;

/// A directory that holds sources, or one of them.
#[derive(Default)]
pub(super) struct Assembly {
    below: BTreeMap<Vec<u8>, Assembly>,
    entry: Option<Entry>,
    /// Made by us to hold a stream: described by nothing on disk.
    made_up: bool,
}

impl Assembly {
    /// Adds what was found at an absolute path.
    pub fn add(&mut self, path: &[u8], entry: Entry) -> Result<()> {
        self.place(path, entry, false)
    }

    /// Adds a stream under its name.
    pub fn add_stream(&mut self, name: &[u8], entry: Entry) -> Result<()> {
        self.place(name, entry, true)
    }

    fn place(&mut self, path: &[u8], entry: Entry, made_up: bool) -> Result<()> {
        let clash = || {
            let shown = String::from_utf8_lossy(path).into_owned();
            Error::invalid("save", shown, "two sources of this backup have the same place")
                .hint("name the stream differently")
        };
        let mut at = self;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if at.entry.is_some() {
                return Err(clash());
            }
            let is_new = !at.below.contains_key(name);
            at = at.below.entry(name.to_vec()).or_default();
            at.made_up |= made_up && is_new;
        }
        if at.entry.is_some() || !at.below.is_empty() {
            return Err(clash());
        }
        at.entry = Some(entry);
        Ok(())
    }

    /// Whether the parent has every source as it is now. The directories above them do not count: their times change
    /// with whatever else is in them; nor does when a stream was read.
    pub fn is_same_in(&self, run: &Run, parent: &Snapshot) -> bool {
        let (old, new) = (&parent.totals, run.counts.totals());
        // A source that is gone is not met below.
        let as_many = (old.files, old.directories, old.others) == (new.files, new.directories, new.others);
        as_many && self.is_same_below(run, &parent.root)
    }

    fn is_same_below(&self, run: &Run, tree: &ChunkId) -> bool {
        self.below.iter().all(|(name, below)| {
            // A tree that cannot be read is reason enough for a new snapshot.
            let Ok(Some(mut old)) = run.reader.lookup(tree, name) else { return false };
            match (&below.entry, &old.content) {
                (Some(new), _) => {
                    old.meta.modified =
                        if new.kind == EntryKind::Stream { new.meta.modified } else { old.meta.modified };
                    *new == old
                }
                (None, Content::Tree(tree)) => below.is_same_below(run, tree),
                (None, _) => false,
            }
        })
    }

    /// Gives the directories above the sources their metadata from disk.
    pub fn describe_parents(&mut self, run: &Run) {
        self.describe(run, &mut Vec::new());
    }

    fn describe(&mut self, run: &Run, path: &mut Vec<u8>) {
        for (name, below) in &mut self.below {
            let length = path.len();
            path.push(b'/');
            path.extend_from_slice(name);
            below.describe(run, path);
            if below.entry.is_none() {
                let found = stat_path(path, true).ok().filter(|stat| stat.is(EntryKind::Directory) && !below.made_up);
                let mut entry = match found {
                    Some(stat) => run.describe_path(path, &stat),
                    None => Entry::new(name.clone(), EntryKind::Directory),
                };
                if found.is_none() {
                    entry.meta.mode = 0o755;
                }
                entry.name.clone_from(name);
                below.entry = Some(entry);
            }
            path.truncate(length);
        }
    }

    /// Stores the directories above the sources; gives the root.
    pub fn store(self, run: &Run) -> Result<ChunkId> {
        let mut entries = Vec::with_capacity(self.below.len());
        for (name, below) in self.below {
            let mut entry = below.entry.clone().unwrap_or_else(|| Entry::new(name.clone(), EntryKind::Directory));
            entry.name = name;
            if !below.below.is_empty() {
                entry.content = Content::Tree(below.store(run)?);
            }
            entries.push(entry);
        }
        let mut pages = Vec::new();
        let mut rest = entries.as_slice();
        for length in page_lengths(0, entries.iter().map(|entry| entry.name.as_slice())) {
            let (page, after) = rest.split_at(length);
            pages.push((page[0].name.clone(), store_page(page, &mut |bytes| run.store_tree(bytes))?));
            rest = after;
        }
        store_root(pages, &mut |bytes| run.store_tree(bytes))
    }
}
