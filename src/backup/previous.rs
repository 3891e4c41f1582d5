//! What was saved last time: from the local state, or without one from the last snapshot's tree.

use crate::backup::{BackupOptions, Run};
use crate::cache::{FolderKey, PageRow, State};
use crate::entry::{Content, Entry};
use crate::error::{Error, Kind, Result};
use crate::id::ChunkId;
use crate::repo::{Repository, Snapshot, SnapshotSource};
use crate::watch::Watch;

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

/// The state, the parent, and whether the parent's tree is what we compare with.
pub(super) type Choice = (Option<State>, Option<Snapshot>, bool);

/// Decides what to compare with: gives the state, the parent, and whether the parent's tree is what we compare with.
/// The state is only good while the snapshot that it belongs to exists.
pub(super) fn choose(
    repo: &Repository,
    state: Option<State>,
    options: &BackupOptions,
    watch: &Watch,
) -> Result<Choice> {
    if let Some(wanted) = &options.parent {
        let found = snapshots(repo, options, watch)?.into_iter().find(|snapshot| snapshot.id == *wanted);
        let missing = || Error::new(Kind::NotFound, "compare with the snapshot", wanted);
        return Ok((state, Some(found.ok_or_else(missing)?), true));
    }
    let mut state = state;
    let may_settle = !options.dry_run;
    // The listing costs nothing on this machine; over a network it is made when the last run may have left something.
    if may_settle && (repo.storage().abilities().local || state.as_ref().is_some_and(State::is_committing)) {
        repo.settle(watch)?;
    }
    if let Some(base) = state.as_ref().and_then(State::base) {
        let mut is_there = repo.snapshot_names()?.contains(&base);
        if !is_there && may_settle {
            repo.settle(watch)?;
            is_there = repo.snapshot_names()?.contains(&base);
        }
        if is_there {
            let wants_it = options.skip_if_unchanged;
            let parent = if wants_it { last_of_sources(repo, options, watch)? } else { None };
            return Ok((state, parent, false));
        }
        watch.notice("the snapshot that the local state belongs to is gone: comparing with the last one instead");
        // A dry run leaves it for whom it may still fit.
        state = if options.dry_run { None } else { state.map(State::clear).transpose()? };
    }
    match state.as_ref().is_some_and(|state| !state.is_empty()) {
        // A first backup was interrupted: what it finished need not be read again.
        true => Ok((state, None, false)),
        false => Ok((state, last_of_sources(repo, options, watch)?, true)),
    }
}

/// The newest snapshot of the same host and paths.
fn last_of_sources(repo: &Repository, options: &BackupOptions, watch: &Watch) -> Result<Option<Snapshot>> {
    if repo.keys().power() == crate::seal::Power::Put {
        return Ok(None);
    }
    let wanted: Vec<&[u8]> = options.paths.iter().map(|path| path.as_os_str().as_encoded_bytes()).collect();
    let fits = |snapshot: &Snapshot| {
        let trees = snapshot.sources.iter().filter_map(|source| match source {
            SnapshotSource::Tree { path } => Some(path.0.as_slice()),
            SnapshotSource::Stream { .. } => None,
        });
        snapshot.host == options.host && snapshot.job == options.job && trees.eq(wanted.iter().copied())
    };
    Ok(snapshots(repo, options, watch)?.into_iter().rev().find(fits))
}

/// All of them; who writes tidies on the way.
fn snapshots(repo: &Repository, options: &BackupOptions, watch: &Watch) -> Result<Vec<Snapshot>> {
    if options.dry_run { repo.snapshots(watch) } else { repo.snapshots_settled(watch) }
}

/// A source's directory in a snapshot's tree.
pub(super) fn of_path(run: &Run, parent: &Snapshot, path: &[u8]) -> Result<Previous> {
    let mut tree = parent.root;
    for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty()) {
        match run.reader.lookup(&tree, name) {
            Ok(Some(Entry { content: Content::Tree(below), .. })) => tree = below,
            Ok(_) => return Ok(Previous::Nothing),
            Err(error) => {
                run.watch.notice(format!("{error}: everything is read again"));
                return Ok(Previous::Nothing);
            }
        }
    }
    Ok(run.previous_from_tree(Some(tree)))
}

impl<'a> Run<'a> {
    pub(super) fn previous_from_state(&self, path: &[u8]) -> Previous {
        match &self.state {
            Some(state) => Previous::State(state.pages(FolderKey::of(path))),
            None => Previous::Nothing,
        }
    }

    /// An old tree that cannot be read is no reason to fail: the new backup stores what is missing.
    pub(super) fn previous_from_tree(&self, tree: Option<ChunkId>) -> Previous {
        let Some(tree) = tree else { return Previous::Nothing };
        match self.reader.directory(&tree) {
            Ok(entries) => Previous::Entries(entries),
            Err(error) => {
                self.watch.notice(format!("{error}: its files are read again"));
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
    pub(super) fn old_entries(&self, previous: &Previous, first: Option<&[u8]>, next: Option<&[u8]>) -> OldEntries {
        let inside = |name: &[u8]| first.is_none_or(|first| name >= first) && next.is_none_or(|next| name < next);
        match previous {
            Previous::Nothing => OldEntries::default(),
            Previous::Entries(entries) => {
                let entries = entries.iter().filter(|entry| inside(&entry.name)).cloned().collect();
                OldEntries { entries, stats: Vec::new() }
            }
            Previous::State(rows) => {
                // The page in which `first` lies begins at or before it.
                let from = first.map_or(0, |first| rows.partition_point(|row| row.first_name.as_slice() <= first));
                let from = from.saturating_sub(usize::from(first.is_some()));
                let to = next.map_or(rows.len(), |next| rows.partition_point(|row| row.first_name.as_slice() < next));
                let mut old = OldEntries::default();
                for row in rows.get(from..to).unwrap_or_default() {
                    self.add_page(row, &inside, &mut old);
                }
                old
            }
        }
    }

    fn add_page(&self, row: &PageRow, inside: &dyn Fn(&[u8]) -> bool, old: &mut OldEntries) {
        let mut entries = Vec::new();
        let read = self.reader.walk_pages(&row.page, 0, &mut |page| {
            entries.extend(page);
            Ok(())
        });
        match read {
            Ok(()) if entries.len() == row.stats.len() => {
                for (entry, stat) in entries.into_iter().zip(&row.stats).filter(|(entry, _)| inside(&entry.name)) {
                    old.entries.push(entry);
                    old.stats.push(*stat);
                }
            }
            Ok(()) => self.watch.notice("a page of the local state does not fit its tree: its files are read again"),
            Err(error) => self.watch.notice(format!("{error}: its files are read again")),
        }
    }

    /// How many files an old tree held that is no more.
    pub(super) fn count_files(&self, tree: &ChunkId) -> u64 {
        let mut count = 0;
        let counted = self.reader.for_each_entry(tree, &mut |entry| {
            count += match (&entry.content, entry.kind.has_content()) {
                (Content::Tree(below), _) => self.count_files(below),
                (_, has_content) => u64::from(has_content),
            };
            Ok(())
        });
        // Only a figure of the report: an unreadable old tree makes it smaller.
        counted.map_or(0, |()| count)
    }
}
