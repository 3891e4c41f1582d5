//! Hard links: the content of an inode with several names is read once.

use crate::backup::detect::InodeHasher;
use crate::disk::{Identity, Stat};
use crate::entry::Entry;
use crate::lock::locked;
use std::collections::HashMap;
use std::hash::BuildHasherDefault;
use std::sync::Mutex;

/// Maximum number of inodes with several names whose content is remembered.
const LINKS_MAX: usize = 1 << 20;

/// The saved entries of inodes with several names, by inode and mount: an idmapped mount shows another owner and another ACL.
#[derive(Default)]
pub(super) struct SourceLinks(Mutex<HashMap<(Identity, u64), LinkedInode, BuildHasherDefault<InodeHasher>>>);

struct LinkedInode {
    stat: Stat,
    entry: Entry,
}

impl SourceLinks {
    /// The entry of another name of this inode on the same mount, unless its content has changed since.
    pub(crate) fn find(&self, stat: &Stat) -> Option<Entry> {
        let links = locked(&self.0);
        let known = links.get(&(stat.identity(), stat.mount))?;
        known.stat.same_content(stat).then(|| known.entry.clone())
    }

    pub(crate) fn remember(&self, stat: &Stat, entry: &Entry) {
        let mut links = locked(&self.0);
        if links.len() < LINKS_MAX {
            links.insert((stat.identity(), stat.mount), LinkedInode { stat: *stat, entry: entry.clone() });
        }
    }
}
