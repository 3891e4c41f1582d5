//! Hard links: restore one name of each inode, and link the others to it after all files are restored.
//!
//! In an empty target, the name that is met first is restored. If the target is not empty, what becomes of one name
//! depends on the others: all of them wait until all are known, and are then handled in the order of their paths, so that
//! a plan and its restore, which both use several threads, decide alike.

use crate::disk::Identity;
use crate::entry::Entry;
use crate::restore::folder::TargetFolder;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Whether other names of an inode may be linked to one that was dealt with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Linkable {
    /// The entry does not exist, or it belongs to the user and was kept.
    No,
    /// It is there, but its metadata are not those of the snapshot and cannot be changed, or its content cannot be compared.
    Unmended,
    /// It exists and is up to date.
    Old,
    /// This run makes it.
    New,
    /// It is restored when everything else is.
    Late,
}

/// A name that others may be linked to.
#[derive(Clone)]
pub(super) struct LinkAnchor {
    pub folder: Arc<TargetFolder>,
    pub name: Vec<u8>,
    pub how: Linkable,
}

/// A name that waits.
pub(super) type WaitingName = (Arc<TargetFolder>, Entry);

/// Entries that a directory with content makes way for: they come last.
#[derive(Default)]
pub(super) struct LateEntries {
    pub waiting: Vec<WaitingName>,
    /// Nothing is put off any more.
    pub is_last_step: bool,
}

/// Names of inodes with several that have been met.
#[derive(Default)]
pub(super) struct LinkGroups {
    /// Groups of which one name was counted.
    pub counted: HashSet<u64>,
    /// By group: the name to link to, once there is one.
    pub anchors: HashMap<u64, Option<LinkAnchor>>,
    pub others: Vec<WaitingName>,
    /// Directories that are finished only after the links: links change their time, and lead through them.
    pub held: Vec<Arc<TargetFolder>>,
    /// The addresses of these.
    waiting: HashSet<usize>,
    /// Groups that have an existing name to which others cannot be linked.
    pub unmended: HashSet<u64>,
    /// Groups with an existing inode that also has names outside of the group.
    pub shared: HashSet<u64>,
    /// Groups of which an existing name is compared by content before others are linked to it.
    pub to_compare: HashSet<u64>,
    /// How many names each inode of the target had when it was first met; replacing names changes the number.
    pub before: HashMap<Identity, u32>,
    /// Names whose flags come after all links: an immutable inode gets no more of them.
    pub locks: Vec<(Arc<TargetFolder>, Entry)>,
    /// By the number that the snapshot gives a group: what its first name agrees on.
    states: HashMap<u64, u64>,
    /// Groups of the snapshot whose names do not agree.
    pub differing: HashSet<u64>,
}

fn address(folder: &TargetFolder) -> usize {
    std::ptr::from_ref(folder) as usize
}

impl LinkGroups {
    /// Whether the inode of a group that is there has names that are not of the group.
    pub(crate) fn is_shared(&self, group: u64) -> bool {
        self.shared.contains(&group)
    }

    /// From here on only names that agree are of one group.
    pub(crate) fn number(&mut self, entries: &mut [Entry]) {
        for entry in entries {
            let (group, agreed) = (entry.link_group, entry.agreed_links());
            if agreed != 0 && *self.states.entry(group).or_insert(agreed) != agreed {
                self.differing.insert(group);
            }
            entry.link_group = agreed;
        }
    }

    /// Whether this directory is finished only after the links.
    pub(crate) fn waits_for(&self, folder: &TargetFolder) -> bool {
        self.waiting.contains(&address(folder))
    }

    pub(crate) fn hold(&mut self, folder: &Arc<TargetFolder>) -> bool {
        let is_new = self.waiting.insert(address(folder));
        if is_new {
            self.held.push(folder.clone());
        }
        is_new
    }

    /// Finishes this directory, and all above it, after the links: their modes may close them to this user.
    pub(crate) fn hold_with_parents(&mut self, folder: &Arc<TargetFolder>) {
        let chain = std::iter::successors(Some(folder), |folder| folder.above.as_ref());
        // Above one that is held already, all are.
        let _first_known = chain.into_iter().find(|folder| !self.hold(folder));
    }
}
