//! The plan of a restore: what will be made, replaced, kept and deleted, what has to be read; a value that changes nothing.

use crate::disk::foresee::{foresee, foresee_new};
use crate::disk::{Loss, Stat, Subject};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::id::PackId;
use crate::repo::{Reader, Repository, Snapshot};
use crate::restore::RestoreOptions;
use crate::restore::doomed::Doomed;
use crate::restore::folder::Here;
use crate::restore::run::{FATES, Fate, Mode, Planning, Run, get};
use crate::restore::scope::Scope;
use crate::watch::Watch;
use crate::when::format_counted;
use std::collections::{BTreeSet, HashMap, HashSet};

/// What a restore will do; shown before anything is written.
pub struct RestorePlan {
    pub summary: PlanSummary,
    pub(super) repo: Repository,
    /// What the plan fetched is not fetched again.
    pub(super) reader: Reader,
    pub(super) options: RestoreOptions,
    pub(super) scope: Scope,
    /// What is restored: a directory, whose contents go into the target, or a single entry, which goes there itself.
    pub(super) root: Entry,
    /// The path of the root in the snapshot.
    pub(super) base: Vec<u8>,
    /// What may be deleted: nothing else is.
    pub(super) doomed: Doomed,
    /// What a progress display is told to expect: the bytes of each name.
    pub(super) expected_bytes: u64,
    warnings: u64,
}

/// How many paths share a fate, and the first of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Paths {
    pub count: u64,
    /// In the snapshot, or where it would have them; in order, at most 1000.
    pub first: Vec<Vec<u8>>,
}

/// The figures of a plan. All but the first four are exact for a detailed plan only, and may be empty for another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PlanSummary {
    pub directories: u64,
    pub files: u64,
    pub others: u64,
    /// Bytes of content to be had in the target at the end, once where several names share it.
    pub bytes: u64,
    /// Packs that are read from and frames in them.
    pub packs: u64,
    pub frames: u64,
    /// Bytes to be read from storage for the content of what is made and replaced.
    pub bytes_to_read: u64,
    pub created: Paths,
    /// What makes way for an entry of its name.
    pub replaced: Paths,
    /// What is there and right.
    pub kept: u64,
    /// What is there, differs and is kept, since `overwrite` says so.
    pub left: Paths,
    /// Entries that are not restored, since something has their name that does not make way.
    pub blocked: Paths,
    /// What `delete` removes.
    pub deletions: Paths,
    /// What is known already not to come back as it was.
    pub warnings_count: u64,
    /// How much of that is damage of the repository.
    pub damaged: u64,
}

/// How many paths of one fate a plan names.
const NAMED_MAX: usize = 1000;
/// Directories that can lie in each other in a snapshot; deeper ones are not restored.
pub(super) const DEPTH_MAX: usize = 4096;

/// Paths by their fate.
#[derive(Default)]
pub(super) struct Named([BTreeSet<Vec<u8>>; FATES]);

impl Named {
    pub fn add(&mut self, fate: Fate, path: Vec<u8>) {
        let paths = &mut self.0[fate as usize];
        // The first ones in order, whatever thread met them first.
        if paths.len() < NAMED_MAX || paths.last().is_some_and(|last| path < *last) {
            paths.insert(path);
            if paths.len() > NAMED_MAX {
                paths.pop_last();
            }
        }
    }

    fn paths(&mut self, fate: Fate, count: u64) -> Paths {
        Paths { count, first: std::mem::take(&mut self.0[fate as usize]).into_iter().collect() }
    }
}

/// Frames that will be read, with their places: bytes from the pack's start, and length.
#[derive(Default)]
pub(super) struct Reads(HashMap<PackId, HashSet<(u32, u32)>>);

impl Reads {
    pub fn add(&mut self, pack: PackId, frame_offset: u32, frame_stored: u32) {
        self.0.entry(pack).or_default().insert((frame_offset, frame_stored));
    }

    fn count(&self, summary: &mut PlanSummary) {
        summary.packs = self.0.len() as u64;
        for frames in self.0.values() {
            summary.frames += frames.len() as u64;
            summary.bytes_to_read += frames.iter().map(|(_, length)| u64::from(*length)).sum::<u64>();
        }
    }
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
    let scope = Scope::new(repo, snapshot);
    let mut summary = PlanSummary::default();
    let mut doomed = Doomed::default();
    let mut expected_bytes = snapshot.totals.bytes;
    if options.path.is_none() && !options.detailed && !options.delete && !options.has_filter() {
        // The snapshot knows its own totals: no look at each entry before the first is written.
        summary.files = snapshot.totals.files + snapshot.totals.streams;
        summary.directories = snapshot.totals.directories;
        summary.others = snapshot.totals.others;
        summary.bytes = snapshot.totals.bytes;
    } else {
        let mode = Mode::Plan(Box::new(Planning { detailed: options.detailed, ..Planning::default() }));
        let run = Run::new(repo, reader.clone(), &options, &scope, mode, watch)?;
        run.go(&root, &base)?;
        if let Some(error) = run.ledger.take_failure() {
            return Err(error);
        }
        if options.include.is_some() {
            check_included(&run)?;
        }
        expected_bytes = get(&run.counts.bytes_wanted);
        summarise(run, &mut summary, &mut doomed);
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
        doomed,
        expected_bytes,
        warnings,
    })
}

/// A typo must not pass for a restore of nothing.
fn check_included(run: &Run) -> Result<()> {
    let counts = &run.counts;
    if get(&counts.matched) + get(&counts.damaged) > 0 {
        return Ok(());
    }
    Err(Error::new(Kind::NotFound, "restore what --include selects", "")
        .because("nothing in the snapshot matches")
        .hint("patterns are compared with the paths in the snapshot, which `silt ls -R` and `silt find` show"))
}

fn summarise(run: Run, summary: &mut PlanSummary, doomed: &mut Doomed) {
    let counts = &run.counts;
    summary.directories = get(&counts.directories);
    summary.files = get(&counts.files_wanted);
    summary.others = get(&counts.others_wanted);
    summary.bytes = get(&counts.bytes_wanted) - get(&counts.bytes_linked);
    summary.kept = counts.fate(Fate::Kept);
    summary.warnings_count = run.ledger.warnings_count();
    summary.damaged = get(&counts.damaged);
    let [created, replaced, left, blocked, deleted] =
        [Fate::Created, Fate::Replaced, Fate::Left, Fate::Blocked, Fate::Deleted].map(|fate| counts.fate(fate));
    if let Mode::Plan(planning) = run.mode {
        let Planning { named, reads, doomed: found, .. } = *planning;
        let mut named = named.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
        summary.created = named.paths(Fate::Created, created);
        summary.replaced = named.paths(Fate::Replaced, replaced);
        summary.left = named.paths(Fate::Left, left);
        summary.blocked = named.paths(Fate::Blocked, blocked);
        summary.deletions = named.paths(Fate::Deleted, deleted);
        reads.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner()).count(summary);
        *doomed = found.into_inner().unwrap_or_else(|poisoned| poisoned.into_inner());
    }
}

impl RestorePlan {
    /// Says what the snapshot itself says of its gaps.
    pub fn announce(&self, watch: &Watch) {
        if self.warnings > 0 {
            watch.notice(format!(
                "the backup of this snapshot ended with {}: some of its files may be missing or inconsistent",
                format_counted(self.warnings, "warning", "warnings"),
            ));
        }
    }
}

impl Run<'_> {
    /// What of the metadata of something that is there a plan knows to be refused.
    pub fn foresee(&self, subject: Subject<'_>, stat: &Stat, entry: &Entry) -> Vec<Loss> {
        if self.compares() {
            foresee(subject, stat, &entry.meta, entry.kind_of_inode(), &self.apply_options())
        } else {
            Vec::new()
        }
    }

    /// Tells it of an entry that will be made; `here` is its directory.
    pub fn tell_foreseen(&self, here: &Here, entry: &Entry, path: &[u8]) {
        if self.compares() {
            let losses = foresee_new(&entry.meta, entry.kind_of_inode(), here.facts.group, &self.apply_options());
            self.report_losses(path, losses);
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

/// A path for people. That of the root directory is empty in a snapshot.
pub(super) fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(if path.is_empty() { b"/" } else { path }).into_owned()
}

pub(super) fn child_path(path: &[u8], name: &[u8]) -> Vec<u8> {
    let mut child = Vec::with_capacity(path.len() + 1 + name.len());
    child.extend_from_slice(path);
    child.push(b'/');
    child.extend_from_slice(name);
    child
}
