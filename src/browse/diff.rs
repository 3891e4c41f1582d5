//! Compare two snapshots: equal trees and equal pages of directories are passed over unread.

use super::change::{Change, ChangeKind, DiffTotals};
use super::path::{clean, resolve};
use super::walk::{DirectoryPages, WalkPath, damage_to, is_too_deep};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::repo::{Reader, Snapshot};
use crate::watch::{Cancel, NoticeKind, Watch};

/// Takes a path, what of it changed, and the entries, old and new.
pub(crate) type EachChange<'a> = dyn FnMut(&[u8], Change, Option<&Entry>, Option<&Entry>) -> Result<()> + 'a;
/// Takes a path and its entries, old and new.
pub(super) type EachPair<'a> = dyn FnMut(&[u8], Option<&Entry>, Option<&Entry>) -> Result<()> + 'a;

/// How an entry differs from an older one of its name. What is in a directory is not looked at.
pub(super) fn compare(old: &Entry, new: &Entry) -> Option<ChangeKind> {
    let same_content = || {
        (&old.target, old.device, old.size, &old.holes) == (&new.target, new.device, new.size, &new.holes)
            && (old.kind == EntryKind::Directory || old.content == new.content)
    };
    if old.kind != new.kind {
        Some(ChangeKind::Kind)
    } else if !same_content() {
        Some(ChangeKind::Content)
    } else {
        (old.meta != new.meta).then_some(ChangeKind::Metadata)
    }
}

/// What may end a walk, and what it reports damage to.
pub(super) struct PairsWatch<'w> {
    pub cancel: &'w Cancel,
    pub report: &'w mut dyn FnMut(&[u8], String),
}

/// Two directories of one path, either of which may be missing.
struct EntryPair<'r> {
    old: Option<DirectoryPages<'r>>,
    new: Option<DirectoryPages<'r>>,
    path_length: usize,
    /// Only one side was saved in part: which.
    partial: Option<PairSide>,
    /// Something stands alone that this side may not have saved.
    may_lack: bool,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum PairSide {
    Old,
    New,
}

impl<'r> EntryPair<'r> {
    /// None where there is nothing to compare.
    fn of(reader: &'r Reader, old: Option<&Entry>, new: Option<&Entry>, path_length: usize) -> Option<Self> {
        // Only a directory has a tree, so equal content of both says that nothing below differs.
        if old.map(|entry| &entry.content) == new.map(|entry| &entry.content) {
            return None;
        }
        let partial = match (old.is_some_and(|old| old.is_partial), new.is_some_and(|new| new.is_partial)) {
            (true, false) => Some(PairSide::Old),
            (false, true) => Some(PairSide::New),
            _ => None,
        };
        let pages = |entry: Option<&Entry>| entry.and_then(|entry| DirectoryPages::of(reader, entry));
        let (old, new) = (pages(old), pages(new));
        let pair = EntryPair { old, new, path_length, partial, may_lack: false };
        (pair.old.is_some() || pair.new.is_some()).then_some(pair)
    }

    /// Whether an entry that stands alone says nothing: what cannot be read of the other side may have it.
    fn is_unsure(&self, old: Option<&Entry>, new: Option<&Entry>) -> bool {
        let damaged = |pages: &Option<DirectoryPages>| pages.as_ref().is_some_and(DirectoryPages::is_damaged);
        (old.is_none() && damaged(&self.old)) || (new.is_none() && damaged(&self.new))
    }

    /// Notes an entry that stands alone where the other side was saved in part.
    fn note_alone(&mut self, old: Option<&Entry>, new: Option<&Entry>) {
        let lacking = match (old, new) {
            (None, Some(_)) => Some(PairSide::Old),
            (Some(_), None) => Some(PairSide::New),
            _ => None,
        };
        self.may_lack |= lacking.is_some() && lacking == self.partial;
    }

    fn tell_damage(&mut self, path: &[u8], report: &mut dyn FnMut(&[u8], String)) {
        self.old.iter_mut().chain(&mut self.new).for_each(|pages| pages.tell_damage(path, report));
    }

    /// The next entries of one name, one or both of them.
    fn next(&mut self) -> Result<(Option<Entry>, Option<Entry>)> {
        if let (Some(old), Some(new)) = (&mut self.old, &mut self.new) {
            old.skip_common(new)?;
        }
        let peeked = |pages: &mut Option<DirectoryPages<'r>>| match pages {
            Some(pages) => Ok::<_, Error>(pages.peek()?.map(|entry| entry.name.clone())),
            None => Ok(None),
        };
        let (old, new) = (peeked(&mut self.old)?, peeked(&mut self.new)?);
        let (take_old, take_new) = match (&old, &new) {
            (Some(old), Some(new)) => (old <= new, new <= old),
            (old, new) => (old.is_some(), new.is_some()),
        };
        let take = |pages: &mut Option<DirectoryPages<'r>>, wanted: bool| match pages {
            Some(pages) if wanted => pages.next(),
            _ => Ok(None),
        };
        Ok((take(&mut self.old, take_old)?, take(&mut self.new, take_new)?))
    }
}

/// Calls `each` with every pair of entries below that can differ (their trees do not count as a difference of
/// directories: `compare` says), and with those that stand alone, all that is below them included. What is damaged is
/// reported; what stands alone for that reason is passed over. Returns how many directories have entries that stand alone
/// and were saved only in part on the side that lacks them: these may have been there, too.
pub(super) fn walk_pairs(
    reader: &Reader,
    old: Option<&Entry>,
    new: Option<&Entry>,
    path: &[u8],
    watch: &mut PairsWatch<'_>,
    each: &mut EachPair<'_>,
) -> Result<u64> {
    let PairsWatch { cancel, report } = watch;
    let mut may_lack = 0;
    let mut path = WalkPath::new(path);
    let mut levels: Vec<EntryPair> = EntryPair::of(reader, old, new, path.0.len()).into_iter().collect();
    while let Some(level) = levels.last_mut() {
        path.0.truncate(level.path_length);
        cancel.check()?;
        let (old, new) = level.next()?;
        level.tell_damage(&path.0, report);
        let Some(entry) = new.as_ref().or(old.as_ref()) else {
            may_lack += u64::from(level.may_lack);
            levels.pop();
            continue;
        };
        if level.is_unsure(old.as_ref(), new.as_ref()) {
            continue;
        }
        level.note_alone(old.as_ref(), new.as_ref());
        if path.push(&entry.name).is_none() {
            path.tell_too_deep(report);
            continue;
        }
        if old != new {
            each(&path.0, old.as_ref(), new.as_ref())?;
            if is_too_deep(levels.len()) {
                path.tell_too_deep(report)
            } else {
                levels.extend(EntryPair::of(reader, old.as_ref(), new.as_ref(), path.0.len()))
            }
        }
    }
    Ok(may_lack)
}

/// What differs at and below a path in two snapshots of one repository. `each` is handed the path, the change and the
/// entries, old and new.
pub fn diff_snapshots(
    reader: &Reader,
    old: &Snapshot,
    new: &Snapshot,
    path: &[u8],
    watch: &Watch,
    each: &mut EachChange<'_>,
) -> Result<DiffTotals> {
    let path = clean(path)?;
    let at = |snapshot| match resolve(reader, snapshot, &path) {
        Err(error) if error.is(Kind::NotFound) => Ok(None),
        other => other.map(Some),
    };
    let (old, new) = match (at(old)?, at(new)?) {
        // The error of the newer one says how far the path goes.
        (None, None) => return resolve(reader, new, &path).map(|_| DiffTotals::default()),
        both => both,
    };
    let mut totals = DiffTotals::default();
    let mut tell = |path: &[u8], old: Option<&Entry>, new: Option<&Entry>| {
        watch.cancel.check()?;
        let change = match (old, new) {
            (None, None) => None,
            (None, Some(_)) => Some(Change::Added),
            (Some(_), None) => Some(Change::Removed),
            (Some(old), Some(new)) => compare(old, new).map(Change::Changed),
        };
        let Some(change) = change else { return Ok(()) };
        totals.count(change, old.map_or(0, |entry| entry.size), new.map_or(0, |entry| entry.size));
        each(path, change, old, new)
    };
    // The root's own metadata are made up.
    if path != b"/" {
        tell(&path, old.as_ref(), new.as_ref())?;
    }
    let may_lack = walk_pairs(
        reader,
        old.as_ref(),
        new.as_ref(),
        &path,
        &mut PairsWatch { cancel: &watch.cancel, report: &mut damage_to(watch) },
        &mut tell,
    )?;
    if may_lack > 0 {
        watch.notice(
            NoticeKind::Skipped,
            format!(
                "directories that one of the snapshots saved only in part: {may_lack}; what is listed as added or removed in them may have \
                 been in both"
            ),
        );
    }
    Ok(totals)
}
