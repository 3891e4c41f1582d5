//! What was saved last time: from the local state, or without one from the last snapshot's tree.

use crate::backup::damage::Damage;
use crate::backup::state::{Change, FolderKey, PageRow, Rest, State};
use crate::backup::walk::Folder;
use crate::backup::{BackupOptions, Run};
use crate::entry::{Content, Entry, LEVELS_MAX, Time};
use crate::error::{Error, Kind, Result};
use crate::format::SNAPSHOTS_PREFIX;
use crate::format::snapshot::CLOCKS_DIFFER_SECONDS;
use crate::id::ChunkId;
use crate::repo::{Repository, Snapshot, Stamp};
use crate::seal::Power;
use crate::watch::{Watch, now};
use std::collections::{HashMap, HashSet};

/// How many names dated in the future are looked at.
const FUTURE_LOOKS_MAX: usize = 8;

/// What is known of a directory from before.
pub(super) enum Previous {
    Nothing,
    /// Its pages with the stats of their entries.
    State(Vec<PageRow>),
    /// Its entries; without stats, so size and time must do.
    Entries(Vec<Entry>),
}

/// Old entries of a range of names, with their stat numbers where they are known.
#[derive(Default)]
pub(super) struct OldEntries {
    pub entries: Vec<Entry>,
    /// As many as entries, or none.
    pub stats: Vec<u64>,
    /// How each differs from the last committed snapshot, while a run that did not commit wrote it: as many as entries, or
    /// none.
    pub changes: Vec<Change>,
    /// Files that runs which did not commit saw removed.
    pub files_removed: u64,
    /// Everything that the entries name is known to be stored; else each has to be looked up.
    pub is_trusted: bool,
    /// All pages of the local state could be read.
    is_whole: bool,
}

impl OldEntries {
    pub fn change(&self, at: usize) -> Change {
        self.changes.get(at).copied().unwrap_or_default()
    }

    /// Whether no directory of this name was saved, as far as the local state knows.
    pub fn lacks_directory(&self, name: &[u8]) -> bool {
        let found = self.entries.binary_search_by(|entry| entry.name.as_slice().cmp(name));
        self.is_whole && !found.is_ok_and(|at| self.entries[at].is_directory())
    }
}

impl Previous {
    /// The row of the page that begins at this name.
    pub fn row(&self, first_name: &[u8]) -> Option<&PageRow> {
        match self {
            Previous::State(rows) => {
                let at = rows.binary_search_by(|row| row.first_name.as_slice().cmp(first_name)).ok()?;
                Some(&rows[at])
            }
            _ => None,
        }
    }

    /// What is known of these names in a directory. Directories in it that are sources of their own are no part of the list, and not
    /// removed because they are not in it.
    pub fn of_list(self, names: &[Vec<u8>]) -> Previous {
        match self {
            Previous::Entries(mut entries) => {
                let names: HashSet<&[u8]> = names.iter().map(Vec::as_slice).collect();
                entries.retain(|entry| !entry.is_directory() || names.contains(entry.name.as_slice()));
                Previous::Entries(entries)
            }
            other => other,
        }
    }

    /// The tree of a directory below, when trees are what we compare with.
    pub fn tree_below(&self, name: &[u8]) -> Option<ChunkId> {
        let Previous::Entries(entries) = self else { return None };
        let at = entries.binary_search_by(|entry| entry.name.as_slice().cmp(name)).ok()?;
        match entries[at].content {
            Content::Tree(id) => Some(id),
            _ => None,
        }
    }
}

/// What a backup compares the sources with.
pub(super) struct Choice {
    pub state: Option<State>,
    pub parent: Option<Snapshot>,
    /// The parent's tree is what we compare with, as the local state knows nothing or must not be used.
    pub compare_with_parent: bool,
    /// The state was written for another content of the repository.
    pub is_state_distrusted: bool,
    /// A snapshot that cannot be read may be a later one than the parent.
    pub may_be_outdated: bool,
}

/// Decides what to compare with. Must not be called before the writer has shown itself and has compared the local index
/// with the repository: what is stored is decided by that comparison alone.
pub(super) fn choose(
    repo: &Repository,
    state: Option<State>,
    damage: &Damage,
    options: &BackupOptions,
    watch: &Watch,
) -> Result<Choice> {
    let (state, is_state_distrusted) = rest_state(repo, state, damage, options, watch);
    let choice = |state, last: Last, compare_with_parent| {
        let Last { snapshot, may_be_outdated } = last;
        let parent = snapshot.map(|listed| repo.whole(listed));
        Choice { state, parent, compare_with_parent, is_state_distrusted, may_be_outdated }
    };
    if let Some(wanted) = &options.parent {
        let found = snapshots(repo, options, watch)?.0.into_iter().find(|snapshot| snapshot.id == *wanted);
        let missing = || Error::new(Kind::NotFound, "compare with the snapshot", wanted);
        let snapshot = Some(found.ok_or_else(missing)?);
        return Ok(choice(state, Last { snapshot, may_be_outdated: false }, true));
    }
    // The listing costs nothing on this machine; over a network it is made when the last run may have left something.
    let may_have_left = repo.storage().abilities().local || state.as_ref().is_some_and(State::is_committing);
    if may_have_left && !options.dry_run {
        repo.settle(watch)?;
    }
    if state.as_ref().is_none_or(State::is_empty) {
        return Ok(choice(state, last_of_sources(repo, options, watch)?, true));
    }
    let parent = if options.skip_if_unchanged {
        last_of_sources(repo, options, watch)?
    } else {
        // Over a network it would cost a round trip.
        if repo.storage().abilities().local {
            tell_of_future_name(repo, watch)?;
        }
        Last::default()
    };
    Ok(choice(state, parent, false))
}

/// The state, if it can be used, and whether it was written for another content of the repository.
fn rest_state(
    repo: &Repository,
    state: Option<State>,
    damage: &Damage,
    options: &BackupOptions,
    watch: &Watch,
) -> (Option<State>, bool) {
    let Some(mut state) = state else { return (None, false) };
    match state.rest_on(&repo.view_and_basis().1.indexes, &damage.check.packs_missing) {
        Ok(Rest::Trusted) => (Some(state), false),
        Ok(Rest::Distrusted { .. }) if state.is_empty() => (Some(state), false),
        Ok(Rest::Distrusted { indexes_lost }) => {
            if !damage.has_told(&indexes_lost) {
                watch.notice(
                    "the repository has lost objects since the last backup of this host, or was rolled back: the content \
                     of each file is looked up in the index",
                );
                if !options.dry_run {
                    repo.mark_loss(&indexes_lost);
                }
            }
            (Some(state), true)
        }
        Err(error) => {
            watch.notice(format!("{error}; files are compared with the last snapshot instead"));
            (None, false)
        }
    }
}

/// The newest snapshot of the same host and paths.
#[derive(Default)]
struct Last {
    snapshot: Option<Snapshot>,
    may_be_outdated: bool,
}

fn last_of_sources(repo: &Repository, options: &BackupOptions, watch: &Watch) -> Result<Last> {
    if repo.keys().power() == Power::Put {
        return Ok(Last::default());
    }
    let (all, unreadable) = snapshots(repo, options, watch)?;
    tell_of_future(all.last(), watch);
    let fits = |snapshot: &Snapshot| {
        let wanted = options.paths.iter().map(|path| path.as_os_str().as_encoded_bytes());
        snapshot.host == options.host && snapshot.job == options.job && snapshot.has_trees(wanted)
    };
    let snapshot = all.into_iter().rev().find(fits);
    let began = snapshot.as_ref().and_then(|snapshot| snapshot.started.compact().ok()).unwrap_or_default();
    let name = format!("{SNAPSHOTS_PREFIX}{began}");
    Ok(Last { snapshot, may_be_outdated: unreadable.iter().any(|other| *other >= name) })
}

/// A snapshot dated in the future by a wrong clock is what `latest` selects until that date.
fn tell_of_future(newest: Option<&Snapshot>, watch: &Watch) {
    if let Some(newest) = newest.filter(|newest| newest.is_from_the_future(now())) {
        watch.notice(format!(
            "snapshot {} of {} is dated in the future: until that date, `latest` selects it instead of this backup",
            newest.id.short(),
            newest.host
        ));
    }
}

/// The same by the names of all snapshots, which begin with their times. Anybody who may create objects can create such a
/// name: the snapshot itself decides.
fn tell_of_future_name(repo: &Repository, watch: &Watch) -> Result<()> {
    let soon = Time { seconds: now().seconds.saturating_add(CLOCKS_DIFFER_SECONDS), nanoseconds: 0 };
    let Ok(soon) = Stamp::new(soon, 0).compact() else { return Ok(()) };
    let soon = format!("{SNAPSHOTS_PREFIX}{soon}");
    let names = repo.snapshot_names()?;
    let newest = names.iter().rev().take_while(|name| **name > soon);
    // `latest` skips objects that cannot be opened, and so does this check.
    tell_of_future(newest.take(FUTURE_LOOKS_MAX).find_map(|name| repo.snapshot_named(name).ok()).as_ref(), watch);
    Ok(())
}

/// All of them, and the names of those that cannot be read. A run that writes also moves pending snapshots to their place.
fn snapshots(repo: &Repository, options: &BackupOptions, watch: &Watch) -> Result<(Vec<Snapshot>, Vec<String>)> {
    // Damage to another snapshot is a notice, not a warning about the one being made.
    let watch = &watch.aside();
    if options.dry_run { repo.snapshots_and_unreadable(watch) } else { repo.snapshots_settled_and_unreadable(watch) }
}

/// A source's directory in a snapshot's tree.
pub(super) fn of_path(run: &Run, parent: &Snapshot, path: &[u8]) -> Previous {
    match content_at(run, parent, path) {
        Ok(Content::Tree(below)) => run.previous_from_tree(Some(below)),
        Ok(_) => Previous::Nothing,
        Err(error) => {
            run.met_damage(error, "everything is read again");
            Previous::Nothing
        }
    }
}

/// The content of what a snapshot has at a path; empty where it has nothing.
fn content_at(run: &Run, snapshot: &Snapshot, path: &[u8]) -> Result<Content> {
    let mut content = Content::Tree(snapshot.root);
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        let Content::Tree(tree) = content else { return Ok(Content::Empty) };
        content = run.reader.lookup(&tree, name)?.map_or(Content::Empty, |entry| entry.content);
    }
    Ok(content)
}

impl<'a> Run<'a> {
    pub(super) fn previous_from_state(&self, path: &[u8]) -> Previous {
        self.previous_from_keyed_state(FolderKey::of(path))
    }

    pub(super) fn previous_from_keyed_state(&self, key: FolderKey) -> Previous {
        match &self.state {
            Some(state) => Previous::State(state.pages(key)),
            None => Previous::Nothing,
        }
    }

    /// Reads what the streams will be compared with, so that damage to it is known before they are read.
    pub(super) fn look_at_old_streams(&self, parent: &Snapshot, names: &[&[u8]]) {
        for name in names {
            let content = content_at(self, parent, name);
            let read = content.and_then(|content| match content {
                Content::List { depth, root } => self.is_list_stored(depth, &root).map(drop),
                _ => Ok(()),
            });
            if let Err(error) = read {
                self.met_damage(error, "a new snapshot is created");
            }
        }
    }

    /// An old tree that cannot be read is no reason to fail: the new backup stores what is missing.
    pub(super) fn previous_from_tree(&self, tree: Option<ChunkId>) -> Previous {
        let Some(tree) = tree.filter(|_| self.may_read()) else { return Previous::Nothing };
        match self.reader.directory(&tree) {
            Ok(entries) => Previous::Entries(entries),
            Err(error) => {
                self.met_damage(error, "its files are read again");
                Previous::Nothing
            }
        }
    }

    /// What is known of a directory below one that is being walked.
    pub(super) fn previous_below(&self, previous: &Previous, name: &[u8], path: &[u8]) -> Previous {
        match previous {
            _ if self.options.force => Previous::Nothing,
            Previous::Entries(_) => self.previous_from_tree(previous.tree_below(name)),
            _ if self.compare_with_parent => Previous::Nothing,
            _ => self.previous_from_state(path),
        }
    }

    /// Old entries with names from `first` (open below when none) to before `next` (open above when none).
    pub(super) fn old_entries(
        &self,
        folder: &Folder,
        previous: &Previous,
        first: Option<&[u8]>,
        next: Option<&[u8]>,
    ) -> OldEntries {
        let inside = |name: &[u8]| first.is_none_or(|first| name >= first) && next.is_none_or(|next| name < next);
        match previous {
            Previous::Nothing => OldEntries::default(),
            Previous::Entries(entries) => {
                let entries = entries.iter().filter(|entry| inside(&entry.name)).cloned().collect();
                OldEntries { entries, ..OldEntries::default() }
            }
            Previous::State(rows) => {
                // The page in which `first` lies begins at or before it.
                let from = first.map_or(0, |first| rows.partition_point(|row| row.first_name.as_slice() <= first));
                let from = from.saturating_sub(usize::from(first.is_some()));
                let to = next.map_or(rows.len(), |next| rows.partition_point(|row| row.first_name.as_slice() < next));
                let mut old = OldEntries { is_trusted: true, is_whole: self.may_read(), ..OldEntries::default() };
                for row in rows.get(from..to).unwrap_or_default() {
                    self.add_page(row, &inside, &mut old);
                }
                if folder.is_new {
                    old.files_removed = 0;
                    old.changes = vec![Change::New; old.entries.len()];
                }
                old
            }
        }
    }

    fn add_page(&self, row: &PageRow, inside: &dyn Fn(&[u8]) -> bool, old: &mut OldEntries) {
        let Some(state) = self.state.as_ref().filter(|_| self.may_read()) else { return };
        let (is_trusted, is_uncommitted) = (state.is_trusted(row), state.is_uncommitted(row));
        old.is_trusted &= is_trusted;
        if is_uncommitted && inside(&row.first_name) {
            old.files_removed += u64::from(row.files_removed);
        }
        let mut entries = Vec::new();
        let is_known = if is_trusted { Ok(true) } else { self.is_known(&row.page) };
        let read = is_known.and_then(|is_known| {
            if is_known {
                self.reader.walk_pages(&row.page, 0, &mut |page| {
                    entries.extend(page);
                    Ok(())
                })
            } else {
                self.note_damage();
                Ok(())
            }
        });
        match read {
            Ok(()) if entries.is_empty() => old.is_whole = false,
            Ok(()) if entries.len() == row.stats.len() && entries.len() == row.changes.len() => {
                let known = entries.into_iter().zip(row.stats.iter().zip(&row.changes));
                for (entry, (stat, change)) in known.filter(|(entry, _)| inside(&entry.name)) {
                    old.entries.push(entry);
                    old.stats.push(*stat);
                    old.changes.push(if is_uncommitted { *change } else { Change::Unchanged });
                }
            }
            Ok(()) => {
                old.is_whole = false;
                self.watch.notice("the local state does not match the saved directory: its files are read again");
            }
            Err(error) => {
                old.is_whole = false;
                self.met_damage(error, "its files are read again");
            }
        }
    }

    /// Whether the key opens what is stored; a put-only key does not, so that changed directories are read again.
    pub(super) fn may_read(&self) -> bool {
        self.repo.keys().power() == Power::Full
    }

    /// A page of an old tree cannot be read. If something is missing, that was told when the backup began, or by an earlier one.
    /// What fails for another reason than damage (an outage, a limit of this machine) would fail for every page, and ends
    /// the run.
    fn met_damage(&self, error: Error, so: &str) {
        if !error.is_damage() {
            return self.fail(error);
        }
        self.note_damage();
        if !self.damage.is_announced() {
            self.watch.notice(format!("{error}: {so}"));
        }
    }

    /// How many files an old tree held that is no more.
    pub(super) fn count_files(&self, tree: &ChunkId) -> u64 {
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
                    None if way.len() > LEVELS_MAX || self.is_over() => {}
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
    fn count_in(&self, tree: &ChunkId) -> Counting {
        let mut step = Counting { tree: *tree, below: Vec::new(), count: 0 };
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

/// A directory whose files are being counted: those found so far, and the directories in it that are still to come.
struct Counting {
    tree: ChunkId,
    below: Vec<ChunkId>,
    count: u64,
}
