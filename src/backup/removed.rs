//! Count files that the last snapshot has and the sources do not have any more.

use crate::backup::baseline::Baseline;
use crate::backup::old_entries::OldEntries;
use crate::backup::page_row::FileChange;
use crate::entry::{Content, EntryKind, LEVELS_MAX};
use crate::id::ChunkId;
use std::collections::HashMap;
use std::ops::Range;

/// A directory whose files are being counted: those found so far, and the directories in it that are still to come.
struct RemovedStep {
    tree: ChunkId,
    below: Vec<ChunkId>,
    count: u64,
}

impl Baseline<'_> {
    /// How many files there are among old entries, with all below them. Entries that no snapshot has do not count.
    pub(crate) fn count_old_files(&self, old: &OldEntries, range: Range<usize>) -> u64 {
        let gone = range.filter(|at| old.change(*at) != FileChange::New).map(|at| &old.entries[at]);
        let files = gone.map(|entry| match &entry.content {
            Content::Tree(tree) => self.count_files(tree),
            _ => u64::from(entry.kind == EntryKind::File),
        });
        files.sum()
    }

    /// How many files an old tree has.
    fn count_files(&self, tree: &ChunkId) -> u64 {
        if !self.may_read() {
            return 0;
        }
        // To a hostile writer a tree is any graph: directories that name one below them twice, a few hundred levels of them.
        let mut known: HashMap<ChunkId, u64> = HashMap::new();
        let mut way = vec![self.count_in(tree)];
        while let Some(step) = way.last_mut() {
            match step.below.pop() {
                Some(next) => match known.get(&next) {
                    Some(count) => step.count = step.count.saturating_add(*count),
                    None if way.len() > LEVELS_MAX || self.ledger.should_stop() => {}
                    None => way.push(self.count_in(&next)),
                },
                None => {
                    let (tree, count) = (step.tree, step.count);
                    known.insert(tree, count);
                    way.pop();
                    match way.last_mut() {
                        Some(above) => above.count = above.count.saturating_add(count),
                        None => return count,
                    }
                }
            }
        }
        0
    }

    /// The files in one directory, and the directories in it.
    fn count_in(&self, tree: &ChunkId) -> RemovedStep {
        let mut step = RemovedStep { tree: *tree, below: Vec::new(), count: 0 };
        let read = self.reader.for_each_entry(tree, &mut |entry| {
            match entry.content {
                Content::Tree(below) => step.below.push(below),
                _ => step.count += u64::from(entry.kind.has_content()),
            }
            Ok(())
        });
        if let Err(error) = read {
            self.met_damage(error, "its files are not counted");
        }
        step
    }
}
