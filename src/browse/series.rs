//! Snapshots of a series, each compared with the one before it: what is the same in both is not walked again.

use super::diff::{PairsWatch, walk_pairs};
use crate::entry::Entry;
use crate::error::Result;
use crate::repo::{Reader, Snapshot};
use crate::watch::Watch;

/// A step in the walk of one snapshot.
pub(super) enum SeriesStep<'e> {
    /// The pairs that follow are what differs from the snapshot before.
    Changes,
    /// The pairs that follow are all that can be read of the snapshot; those since `Changes` do not count.
    Whole,
    /// An entry before and now. In a whole snapshot there is none before.
    Pair { path: &'e [u8], old: Option<&'e Entry>, new: Option<&'e Entry> },
}

pub(super) type EachStep<'a> = dyn FnMut(SeriesStep) -> Result<()> + 'a;

/// Walks snapshots in their order.
pub(super) struct SeriesWalk<'r> {
    reader: &'r Reader,
    watch: &'r Watch,
    /// What the snapshot before has at the path, unless something of it could not be read: a comparison with that would
    /// hide what it lacks.
    before: Option<Entry>,
}

impl<'r> SeriesWalk<'r> {
    pub(crate) fn new(reader: &'r Reader, watch: &'r Watch) -> Self {
        SeriesWalk { reader, watch, before: None }
    }

    /// Walks what the next snapshot has at and below `path`. What cannot be read of it is reported to the watch.
    pub(crate) fn walk(
        &mut self,
        snapshot: &Snapshot,
        top: Option<Entry>,
        path: &[u8],
        each: &mut EachStep<'_>,
    ) -> Result<()> {
        let is_compared = self.before.is_some() && self.walk_changes(top.as_ref(), path, each)?;
        let is_read = is_compared || self.walk_whole(snapshot, top.as_ref(), path, each)?;
        self.before = top.filter(|_| is_read);
        Ok(())
    }

    /// Something of the next snapshot at `path` cannot be read.
    pub(crate) fn pass_damaged(
        &mut self,
        snapshot: &Snapshot,
        path: &[u8],
        what: &str,
        each: &mut EachStep<'_>,
    ) -> Result<()> {
        self.report(snapshot, path, what);
        self.before = None;
        each(SeriesStep::Whole)
    }

    /// Returns whether both could be read.
    fn walk_changes(&self, top: Option<&Entry>, path: &[u8], each: &mut EachStep<'_>) -> Result<bool> {
        let mut is_read = true;
        let mut damage = |_: &[u8], _: String| is_read = false;
        each(SeriesStep::Changes)?;
        self.walk_both(self.before.as_ref(), top, path, &mut damage, each)?;
        Ok(is_read)
    }

    /// Returns whether all of it could be read.
    fn walk_whole(
        &self,
        snapshot: &Snapshot,
        top: Option<&Entry>,
        path: &[u8],
        each: &mut EachStep<'_>,
    ) -> Result<bool> {
        let mut is_read = true;
        let mut damage = |path: &[u8], what: String| {
            is_read = false;
            self.report(snapshot, path, &what);
        };
        each(SeriesStep::Whole)?;
        self.walk_both(None, top, path, &mut damage, each)?;
        Ok(is_read)
    }

    fn walk_both(
        &self,
        old: Option<&Entry>,
        new: Option<&Entry>,
        path: &[u8],
        damage: &mut dyn FnMut(&[u8], String),
        each: &mut EachStep<'_>,
    ) -> Result<()> {
        let mut pair =
            |path: &[u8], old: Option<&Entry>, new: Option<&Entry>| each(SeriesStep::Pair { path, old, new });
        if path != b"/" && (old.is_some() || new.is_some()) {
            pair(path, old, new)?;
        }
        let mut watch = PairsWatch { cancel: &self.watch.cancel, report: damage };
        walk_pairs(self.reader, old, new, path, &mut watch, &mut pair).map(drop)
    }

    fn report(&self, snapshot: &Snapshot, path: &[u8], what: &str) {
        self.watch.damage(path, format!("snapshot {}: {what}", snapshot.id.short()));
    }
}
