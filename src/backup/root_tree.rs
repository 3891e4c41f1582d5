//! Put sources and streams under one root: the snapshot's tree holds them at their absolute paths and names.

use crate::backup::chunk_store::ChunkStore;
use crate::backup::describe::Describer;
use crate::backup::split_sources::same_place;
use crate::disk::stat::stat_path;
use crate::entry::{Content, Entry, EntryKind};
use crate::error::Result;
use crate::format::tree::{check_entries, page_lengths, store_page, store_root};
use crate::id::ChunkId;
use crate::repo::{Reader, Snapshot, Totals};
use std::collections::BTreeMap;

/// All directories that hold sources, and the sources. A list, as a path may have more parts than a stack has frames;
/// what is in a directory comes after it.
pub(super) struct RootTree {
    nodes: Vec<TreeNode>,
    /// `/` itself, where it is a source.
    pub root: Option<Entry>,
}

/// The tree of a snapshot.
pub(super) struct SavedRoot {
    pub tree: ChunkId,
    /// `/` itself, where it is a source.
    pub directory: Option<Entry>,
}

#[derive(Default)]
struct TreeNode {
    above: usize,
    name: Vec<u8>,
    below: BTreeMap<Vec<u8>, usize>,
    entry: Option<Entry>,
    /// Made by us to hold a stream: described by nothing on disk.
    is_made_up: bool,
}

const ROOT: usize = 0;

impl Default for RootTree {
    fn default() -> Self {
        RootTree { nodes: vec![TreeNode::default()], root: None }
    }
}

impl RootTree {
    /// Adds what was found at an absolute path.
    pub(crate) fn add(&mut self, path: &[u8], entry: Entry) -> Result<()> {
        self.place(path, entry, false)
    }

    /// Adds a stream under its name.
    pub(crate) fn add_stream(&mut self, name: &[u8], entry: Entry) -> Result<()> {
        self.place(name, entry, true)
    }

    fn place(&mut self, path: &[u8], entry: Entry, is_made_up: bool) -> Result<()> {
        let clash = || same_place(path);
        let mut at = ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
            if self.nodes[at].entry.is_some() {
                return Err(clash());
            }
            at = match self.nodes[at].below.get(name) {
                Some(below) => *below,
                None => {
                    let below = self.nodes.len();
                    self.nodes[at].below.insert(name.to_vec(), below);
                    self.nodes.push(TreeNode { above: at, name: name.to_vec(), is_made_up, ..TreeNode::default() });
                    below
                }
            };
        }
        let node = &mut self.nodes[at];
        if node.entry.is_some() || !node.below.is_empty() {
            return Err(clash());
        }
        node.entry = Some(entry);
        Ok(())
    }

    /// Whether the parent has every source as it is now, and the directories above them as they were described. The times of these do
    /// not count, as they change with whatever else is in them; nor does when a stream was read.
    pub(crate) fn is_same_in(&self, reader: &Reader, parent: &Snapshot, new: &Totals) -> bool {
        let old = &parent.totals;
        // A source that is gone is not met below.
        let as_many = (old.files, old.directories, old.others) == (new.files, new.directories, new.others);
        let of_root = |root: &Entry| (root.meta.clone(), root.is_partial);
        let is_same_root = self.root.as_ref().map(of_root) == parent.root_entry().as_ref().map(of_root);
        as_many && is_same_root && self.is_same_below(reader, &parent.root)
    }

    fn is_same_below(&self, reader: &Reader, tree: &ChunkId) -> bool {
        let mut trees = vec![None; self.nodes.len()];
        trees[ROOT] = Some(*tree);
        self.nodes.iter().enumerate().skip(1).all(|(at, node)| {
            let Some(tree) = trees[node.above] else { return false };
            // A tree that cannot be read is reason enough for a new snapshot.
            let Ok(Some(mut old)) = reader.lookup(&tree, &node.name) else { return false };
            let Some(new) = &node.entry else { return false };
            let is_above_source = !node.below.is_empty();
            if is_above_source || new.kind == EntryKind::Stream {
                old.meta.modified = new.meta.modified;
            }
            if let Content::Tree(below) = old.content
                && is_above_source
            {
                // Its own tree is not stored yet.
                trees[at] = Some(below);
                old.content = new.content.clone();
            }
            *new == old
        })
    }

    /// Describes the directories above the sources as they are on disk. They hold only the way to the sources.
    pub(crate) fn describe_parents(&mut self, describer: &Describer) {
        for at in 1..self.nodes.len() {
            if self.nodes[at].entry.is_some() {
                continue;
            }
            let path = self.path_of(at);
            let found = stat_path(&path, true).ok().filter(|stat| stat.is(EntryKind::Directory));
            let node = &mut self.nodes[at];
            let mut entry = match found.filter(|_| !node.is_made_up) {
                Some(stat) => describer.path(&path, &stat),
                None => {
                    let mut entry = Entry::new(node.name.clone(), EntryKind::Directory);
                    entry.meta.mode = 0o755;
                    entry
                }
            };
            entry.name.clone_from(&node.name);
            entry.is_partial = true;
            node.entry = Some(entry);
        }
    }

    fn path_of(&self, node: usize) -> Vec<u8> {
        let mut names = Vec::new();
        let mut at = node;
        while at != ROOT {
            names.push(self.nodes[at].name.as_slice());
            at = self.nodes[at].above;
        }
        names.into_iter().rev().flat_map(|name| [b"/", name].concat()).collect()
    }

    /// Stores the directories above the sources.
    pub(crate) fn store(mut self, store: &ChunkStore) -> Result<SavedRoot> {
        let mut root = None;
        // Those below come later in the list: backwards, each has its tree when the one above asks for it.
        for at in (0..self.nodes.len()).rev() {
            if self.nodes[at].below.is_empty() && at != ROOT {
                continue;
            }
            let below = std::mem::take(&mut self.nodes[at].below);
            let mut entries = Vec::with_capacity(below.len());
            for (name, node) in below {
                let entry = self.nodes[node].entry.take();
                let mut entry = entry.unwrap_or_else(|| Entry::new(name.clone(), EntryKind::Directory));
                entry.name = name;
                entries.push(entry);
            }
            let tree = store_entries(store, &entries)?;
            match &mut self.nodes[at].entry {
                Some(entry) => entry.content = Content::Tree(tree),
                None => root = Some(tree),
            }
        }
        Ok(SavedRoot { tree: root.expect("the root comes last and has no entry"), directory: self.root })
    }
}

fn store_entries(store: &ChunkStore, entries: &[Entry]) -> Result<ChunkId> {
    let mut pages = Vec::new();
    let mut rest = entries;
    for length in page_lengths(0, entries.iter().map(|entry| entry.name.as_slice())) {
        let (page, after) = rest.split_at(length);
        // A dry run has not read what is in them.
        if !store.is_dry_run() {
            check_entries(page)?;
        }
        pages.push((page[0].name.clone(), store_page(page, &mut |bytes| store.store_tree(&bytes))?));
        rest = after;
    }
    store_root(pages, &mut |bytes| store.store_tree(&bytes))
}
