//! The plan of a restore: what will be made, replaced, kept and deleted, what has to be read; a value that changes nothing.

use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use crate::repo::{Reader, Repository, Snapshot};
use crate::restore::counts::{EntryFate, get};
use crate::restore::options::RestoreOptions;
use crate::restore::paths::shown;
use crate::restore::planned::PlanSummary;
use crate::restore::planned_deletions::PlannedDeletions;
use crate::restore::run::{PlanGathering, RestoreRun, RunMode};
use crate::restore::scope::SnapshotScope;
use crate::restore::unmatched::UnmatchedPatterns;
use crate::watch::{NoticeKind, Watch};
use crate::when::format_counted;
use std::sync::Mutex;

/// What a restore will do; shown before anything is written.
pub struct RestorePlan {
    /// What the restore will do.
    pub summary: PlanSummary,
    pub(super) repo: Repository,
    /// What the plan fetched is not fetched again.
    pub(super) reader: Reader,
    pub(super) options: RestoreOptions,
    pub(super) scope: SnapshotScope,
    /// What is restored: a directory, whose contents go into the target, or a single entry, which goes there itself.
    pub(super) root: Entry,
    /// The path of the root in the snapshot.
    pub(super) base: Vec<u8>,
    /// What may be deleted: nothing else is.
    pub(super) deletions: PlannedDeletions,
    /// What a progress display expects: the bytes of each name.
    pub(super) expected_bytes: u64,
    warnings: u64,
}

pub(super) fn make(
    repo: &Repository,
    snapshot: &Snapshot,
    options: RestoreOptions,
    watch: &Watch,
) -> Result<RestorePlan> {
    watch.stage("planning");
    let reader = repo.reader();
    let (root, base) = find_root(&reader, snapshot, options.path.as_deref())?;
    let scope = SnapshotScope::new(repo, snapshot);
    let mut summary = PlanSummary::default();
    let mut deletions = PlannedDeletions::default();
    let mut expected_bytes = snapshot.totals.bytes;
    if options.path.is_none() && !options.detailed && !options.delete && !options.has_filter() {
        // The snapshot knows its own totals: no look at each entry before the first is written.
        summary.files = snapshot.totals.files + snapshot.totals.streams;
        summary.directories = snapshot.totals.directories;
        summary.others = snapshot.totals.others;
        summary.bytes = snapshot.totals.bytes;
    } else {
        let unmatched = options.include.as_ref().map(UnmatchedPatterns::of).transpose()?.unwrap_or_default();
        let gathering =
            PlanGathering { detailed: options.detailed, unmatched: Mutex::new(unmatched), ..PlanGathering::default() };
        let mode = RunMode::Plan(Box::new(gathering));
        let run = RestoreRun::new(repo, reader.clone(), &options, &scope, mode, watch)?;
        run.go(&root, &base)?;
        if let Some(error) = run.ledger.take_failure() {
            return Err(error);
        }
        check_included(&run)?;
        expected_bytes = get(&run.counts.bytes_wanted);
        summarise(run, &mut summary, &mut deletions);
    }
    let warnings = snapshot.warnings_count;
    Ok(RestorePlan {
        summary,
        repo: repo.clone(),
        reader,
        options,
        scope,
        root,
        base,
        deletions,
        expected_bytes,
        warnings,
    })
}

/// Each pattern must select something.
fn check_included(run: &RestoreRun) -> Result<()> {
    let RunMode::Plan(planning) = &run.mode else { return Ok(()) };
    let unmatched = locked(&planning.unmatched);
    let mut unmatched = unmatched.patterns();
    let Some(first) = unmatched.next().filter(|_| get(&run.counts.damaged) == 0) else { return Ok(()) };
    let others = match unmatched.count() {
        0 => String::new(),
        1 => ", nor 1 other pattern".to_owned(),
        count => format!(", nor {count} other patterns"),
    };
    Err(Error::new(Kind::NotFound, "restore what --include selects", "")
        .because(format!("nothing in the snapshot matches {first}{others}"))
        .hint("patterns are compared with the paths in the snapshot, which `silt ls -R` and `silt find` show"))
}

fn summarise(run: RestoreRun, summary: &mut PlanSummary, deletions: &mut PlannedDeletions) {
    let counts = &run.counts;
    summary.directories = get(&counts.directories);
    summary.files = get(&counts.files_wanted);
    summary.others = get(&counts.others_wanted);
    summary.bytes = get(&counts.bytes_wanted) - get(&counts.bytes_linked);
    summary.kept = counts.fate(EntryFate::Kept);
    summary.warnings_count = run.ledger.warnings_count();
    summary.damaged = get(&counts.damaged);
    let count = |fate| counts.fate(fate);
    let [created, replaced, updated] = [EntryFate::Created, EntryFate::Replaced, EntryFate::Updated].map(count);
    let [left, blocked, deleted] = [EntryFate::Left, EntryFate::Blocked, EntryFate::Deleted].map(count);
    if let RunMode::Plan(planning) = run.mode {
        let PlanGathering { named, reads, deletions: found, .. } = *planning;
        let mut named = named.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        summary.created = named.paths(EntryFate::Created, created);
        summary.replaced = named.paths(EntryFate::Replaced, replaced);
        summary.metadata = named.paths(EntryFate::Updated, updated);
        summary.kept_different = named.paths(EntryFate::Left, left);
        summary.blocked = named.paths(EntryFate::Blocked, blocked);
        reads.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).count(summary);
        // What the snapshot does not have may be the only copy of what cannot be restored.
        if get(&counts.failed) == 0 {
            summary.deletions = named.paths(EntryFate::Deleted, deleted);
            *deletions = found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        }
    }
}

impl RestorePlan {
    /// Sends notices about what the snapshot lacks, as far as the snapshot records it.
    pub fn announce(&self, watch: &Watch) {
        if self.warnings > 0 {
            watch.notice(
                NoticeKind::Snapshot,
                format!(
                    "the backup of this snapshot ended with {}: some of its files may be missing or inconsistent",
                    format_counted(self.warnings, "warning", "warnings"),
                ),
            );
        }
    }
}

/// The root of a snapshot: `/` with its own metadata where that was a source, else a directory without a name, which
/// stands for whatever the target is.
fn top_entry(snapshot: &Snapshot) -> Entry {
    snapshot.root_entry().unwrap_or_else(|| {
        let mut entry = Entry::new("", EntryKind::Directory);
        entry.content = Content::Tree(snapshot.root);
        entry
    })
}

/// The entry that is restored and its path.
fn find_root(reader: &Reader, snapshot: &Snapshot, path: Option<&[u8]>) -> Result<(Entry, Vec<u8>)> {
    let mut entry = top_entry(snapshot);
    let mut base = Vec::new();
    for name in path.unwrap_or_default().split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let there = if base.is_empty() { b"/".to_vec() } else { base.clone() };
        let missing = |why: &str| {
            Error::new(Kind::NotFound, "restore", shown(path.unwrap_or_default()))
                .because(why.to_owned())
                .hint(format!("list what the snapshot has with `silt ls {}:{}`", snapshot.id.short(), shown(&there)))
        };
        let Content::Tree(tree) = &entry.content else {
            return Err(missing(&format!("{} is not a directory in the snapshot", shown(&there))));
        };
        entry = reader
            .lookup(tree, name)?
            .ok_or_else(|| missing(&format!("the snapshot has {}, but no {} in it", shown(&there), shown(name))))?;
        base.push(b'/');
        base.extend_from_slice(name);
    }
    Ok((entry, base))
}
