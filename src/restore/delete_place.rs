//! A directory in which something is deleted, and what is noted while that is done.

use crate::disk::device::has_lasting_inodes;
use crate::disk::{Directory, Stat};
use crate::restore::folder::{MountedAt, OpenFolder};
use crate::restore::planned_deletions::FoundForDeletion;
use crate::restore::reasons::NOT_EMPTY;
use std::cell::{Cell, RefCell};

/// A directory in which something is deleted.
#[derive(Clone, Copy)]
pub(super) struct DeletePlace<'a> {
    pub directory: &'a Directory,
    /// Only what is this user's own can be deleted in it.
    pub keeps_others: bool,
    /// Whether its file system keeps inode numbers stable.
    has_lasting_inodes: bool,
}

impl<'a> DeletePlace<'a> {
    pub(crate) fn new(directory: &'a Directory, keeps_others: bool) -> DeletePlace<'a> {
        DeletePlace { directory, keeps_others, has_lasting_inodes: has_lasting_inodes(directory).unwrap_or(false) }
    }

    /// A directory on the same file system.
    pub(crate) fn with<'d>(&self, directory: &'d Directory, keeps_others: bool) -> DeletePlace<'d> {
        DeletePlace { directory, keeps_others, has_lasting_inodes: self.has_lasting_inodes }
    }

    pub(crate) fn found(&self, stat: &Stat) -> FoundForDeletion {
        FoundForDeletion::of(stat, self.has_lasting_inodes)
    }
}

/// What a deletion is bound by, and what it found.
pub(super) struct NotedDirectory {
    /// What a plan deletes of a directory that makes way, if nothing in it stays.
    pub(super) paths: RefCell<Vec<(Vec<u8>, FoundForDeletion)>>,
    /// The file system that they are on: nothing is deleted on others.
    pub on: MountedAt,
    /// Length of the path of the directory whose content alone is deleted, so that it makes way.
    pub content_of: Option<usize>,
    /// In a restore: whether something stayed only because the plan did not name it.
    pub(super) is_unnamed: Cell<bool>,
    /// Why the directory does not make way: the first reason.
    pub(super) why_kept: RefCell<Option<String>>,
}

impl NotedDirectory {
    pub(crate) fn on(here: &OpenFolder) -> Self {
        let (paths, why_kept) = Default::default();
        NotedDirectory { paths, on: here.facts.deletes_on, content_of: None, is_unnamed: Cell::new(false), why_kept }
    }

    /// What is said of a directory that does not make way.
    pub(crate) fn why_kept(self) -> String {
        match self.why_kept.into_inner() {
            Some(why) => format!("{NOT_EMPTY}: {why}"),
            None => NOT_EMPTY.to_owned(),
        }
    }
}
