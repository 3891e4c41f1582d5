//! Choose what the sources are compared with: the local state if it can be trusted, otherwise the last snapshot that was made here of
//! the same sources.

use crate::backup::damage::KnownLosses;
use crate::backup::options::BackupOptions;
use crate::backup::origin::SourceIdentity;
use crate::backup::split_sources::SplitSources;
use crate::backup::state::{LocalState, StateTrust};
use crate::entry::Time;
use crate::error::{Error, Kind, Result};
use crate::format::{SNAPSHOTS_PREFIX, snapshot_id};
use crate::repo::{Repository, Snapshot, SnapshotSearch, Stamp};
use crate::seal::KeyAccess;
use crate::watch::{NoticeKind, Watch, now};
use std::path::PathBuf;

/// The search for the last snapshot of the same sources examines this many snapshots, as it only saves reading files. It goes on as long
/// as it has fetched no more than this from storage: snapshots in the cache cost nothing.
const EXAMINED_MAX: u64 = 256;
/// How many names dated in the future are looked at.
const FUTURE_LOOKS_MAX: usize = 8;

/// The local state of these sources. Without one a backup takes longer, and that is all.
pub(super) fn open_state(
    repo: &Repository,
    options: &BackupOptions,
    sources: &SplitSources,
    watch: &Watch,
) -> Option<LocalState> {
    if sources.paths.is_empty() {
        return None;
    }
    if now().seconds < 0 {
        // The database refuses to work then.
        watch.notice(
            NoticeKind::Clock,
            "the clock of this machine shows a time before 1970: what is known of the last backup is not used",
        );
        return None;
    }
    let folder = repo.cache()?.join("state").join(sources.state_name(&options.job));
    let made = std::fs::create_dir_all(&folder).map_err(|error| Error::io("create", folder.display(), error));
    match made.and_then(|()| LocalState::open(&folder)) {
        Ok((state, notice)) => {
            notice.into_iter().for_each(|notice| watch.notice(NoticeKind::Cache, notice));
            Some(state)
        }
        Err(error) => {
            watch.notice(NoticeKind::Cache, format!("{error}; files are compared with the last snapshot instead"));
            None
        }
    }
}

/// What is to be saved: the options, and the trees among the sources.
#[derive(Clone, Copy)]
pub(super) struct WantedSources<'a> {
    pub options: &'a BackupOptions,
    pub paths: &'a [PathBuf],
}

/// What a backup compares the sources with.
pub(super) struct BaselineChoice {
    pub state: Option<LocalState>,
    pub parent: Option<Snapshot>,
    /// The parent's tree is what we compare with, as the local state knows nothing or must not be used.
    pub compare_with_parent: bool,
    /// The state was written for another content of the repository.
    pub is_state_distrusted: bool,
    /// A snapshot that cannot be read, or was made elsewhere, is or may be a later one than the parent.
    pub may_be_outdated: bool,
    /// Where this backup is made.
    pub identity: SourceIdentity,
}

impl BaselineChoice {
    /// When the backup of the parent began and ended, by the clock of its host.
    pub(crate) fn parent_ran(&self) -> Option<(Time, Time)> {
        let parent = self.parent.as_ref()?;
        let (started, ended) = (parent.started.time(), parent.ended.time());
        // The start may be one that was asked for, or the clock was set back: then nothing says when the backup began.
        let began = if started > ended { Time { seconds: i64::MIN, nanoseconds: 0 } } else { started };
        Some((began, ended))
    }
}

/// Decides what to compare with. Must not be called before the writer has shown itself and has compared the local index
/// with the repository: what is stored is decided by that comparison alone.
pub(super) fn choose(
    repo: &Repository,
    state: Option<LocalState>,
    damage: &KnownLosses,
    wanted: WantedSources,
    watch: &Watch,
) -> Result<BaselineChoice> {
    let options = wanted.options;
    let (state, is_state_distrusted) = check_state(repo, state, damage, options, watch);
    let identity = SourceIdentity::of(wanted.paths);
    let choice = |state, last: LastSnapshot, compare_with_parent, identity| {
        let LastSnapshot { snapshot, may_be_outdated } = last;
        let parent = snapshot.map(|listed| repo.whole(listed));
        BaselineChoice { state, parent, compare_with_parent, is_state_distrusted, may_be_outdated, identity }
    };
    if let Some(wanted) = &options.parent {
        let aside = watch.aside();
        let mut search = search(repo, options, &aside)?;
        search.retain(|name| snapshot_id(name) == Some(*wanted));
        let missing = || Error::new(Kind::NotFound, "compare with the snapshot", wanted);
        let snapshot = Some(search.pop_newest()?.ok_or_else(missing)?);
        return Ok(choice(state, LastSnapshot { snapshot, may_be_outdated: false }, true, identity));
    }
    // The listing costs nothing on this machine; over a network it is made when the last run may have left something.
    let may_have_left = !repo.is_remote() || state.as_ref().is_some_and(LocalState::is_committing);
    if may_have_left && !options.dry_run {
        repo.settle(watch)?;
    }
    if state.as_ref().is_none_or(LocalState::is_empty) {
        let last = last_of_sources(repo, wanted, Some(&identity), watch)?;
        return Ok(choice(state, last, true, identity));
    }
    let parent = if options.skip_if_unchanged {
        // The local state says what is the same. Only whether the last snapshot is the same is asked, wherever it was made.
        last_of_sources(repo, wanted, None, watch)?
    } else {
        // Over a network it would cost a round trip.
        if !repo.is_remote() {
            tell_of_future_name(repo, &options.host, watch)?;
        }
        LastSnapshot::default()
    };
    Ok(choice(state, parent, false, identity))
}

/// The state, if it can be used, and whether it was written for another content of the repository.
fn check_state(
    repo: &Repository,
    state: Option<LocalState>,
    damage: &KnownLosses,
    options: &BackupOptions,
    watch: &Watch,
) -> (Option<LocalState>, bool) {
    let Some(mut state) = state else { return (None, false) };
    match state.check_against(&repo.view_and_basis().1.indexes, &damage.check.packs_missing) {
        Ok(StateTrust::Trusted) => (Some(state), false),
        Ok(StateTrust::Distrusted { .. }) if state.is_empty() => (Some(state), false),
        Ok(StateTrust::Distrusted { indexes_lost }) => {
            if !damage.has_reported(&indexes_lost) {
                watch.notice(NoticeKind::Damage, "the repository has lost objects since the last backup of this host, or was rolled back: the content \
                     of each file is looked up in the index",
                );
                if !options.dry_run {
                    repo.mark_loss(&indexes_lost);
                }
            }
            (Some(state), true)
        }
        Err(error) => {
            watch.notice(NoticeKind::Cache, format!("{error}; files are compared with the last snapshot instead"));
            (None, false)
        }
    }
}

/// The newest snapshot of the same host and paths that was made here.
#[derive(Default)]
struct LastSnapshot {
    snapshot: Option<Snapshot>,
    may_be_outdated: bool,
}

fn last_of_sources(
    repo: &Repository,
    WantedSources { options, paths }: WantedSources,
    identity: Option<&SourceIdentity>,
    watch: &Watch,
) -> Result<LastSnapshot> {
    if repo.keys().access() < KeyAccess::Full {
        return Ok(LastSnapshot::default());
    }
    // Damage to another snapshot is a notice, not a warning about the one being made.
    let watch = &watch.aside();
    let mut search = search(repo, options, watch)?;
    let wanted = || paths.iter().map(|path| path.as_os_str().as_encoded_bytes());
    let (mut snapshot, mut elsewhere, mut examined) = (None, None, 0);
    // Many are fetched ahead: that they were does not end the search.
    while examined < EXAMINED_MAX || search.fetched() <= EXAMINED_MAX {
        let Some(candidate) = search.pop_newest()? else { break };
        examined += 1;
        if examined == 1 {
            tell_of_future(Some(&candidate), &options.host, watch);
        }
        if candidate.host == options.host && candidate.job == options.job && candidate.has_trees(wanted()) {
            let is_of_these = |identity: &SourceIdentity| {
                identity.as_bytes().is_some_and(|bytes| candidate.is_from(repo.keys(), bytes))
            };
            if identity.is_none_or(is_of_these) {
                snapshot = Some(candidate);
                break;
            }
            elsewhere.get_or_insert(candidate);
        }
    }
    // To call the sources unchanged since an earlier one would leave this one the latest.
    let is_last = elsewhere.is_none();
    if let (None, Some(other), Some(identity)) = (&snapshot, elsewhere, identity) {
        tell_of_other_place(&other, identity, watch);
    }
    let began = snapshot.as_ref().and_then(|snapshot| snapshot.started.compact().ok()).unwrap_or_default();
    let unreadable = search.finish();
    let may_be_outdated = !is_last || unreadable.iter().any(|other| other.may_be_since(&began));
    Ok(LastSnapshot { snapshot, may_be_outdated })
}

fn tell_of_other_place(other: &Snapshot, identity: &SourceIdentity, watch: &Watch) {
    let why = match &other.origin {
        _ if identity.as_bytes().is_none() => {
            "the file system of a source does not record what identifies a directory (when it was created), or can show other content in \
             the same one (an overlay, FUSE)"
        }
        Some(_) => "it was made on another machine or of other directories",
        None => {
            "it does not state of which directories it is (made without a full key, or a source could not be identified, or was exchanged \
             during the backup)"
        }
    };
    let id = other.id.short();
    watch.notice(
        NoticeKind::Repository,
        format!(
            "snapshot {id} has the same host, job and sources, but {why}: files are not compared with it; if it was made of these files, \
             --parent {id} compares with it"
        ),
    );
}

/// A snapshot dated in the future by a wrong clock is what `latest` selects until that date. Clocks of several hosts differ a little; that of
/// this host was set back if its own snapshot is ahead.
fn tell_of_future(newest: Option<&Snapshot>, host: &str, watch: &Watch) {
    let now = now();
    let is_ahead =
        |newest: &&Snapshot| newest.is_from_the_future(now) || (newest.host == host && newest.started.time() > now);
    if let Some(newest) = newest.filter(is_ahead) {
        watch.notice(
            NoticeKind::Clock,
            format!(
                "snapshot {} of {} is dated in the future: until that date, `latest` selects it instead of this backup",
                newest.id.short(),
                newest.host
            ),
        );
    }
}

/// The same by the names of all snapshots, which begin with their times. Every user with the right to create objects can create such a
/// name: the snapshot itself decides.
fn tell_of_future_name(repo: &Repository, host: &str, watch: &Watch) -> Result<()> {
    let Ok(now) = Stamp::new(Time { nanoseconds: 0, ..now() }, 0).compact() else { return Ok(()) };
    // The names of this second begin like that, and are no longer ahead in the next one.
    let now = format!("{SNAPSHOTS_PREFIX}{now}~");
    let names = repo.snapshot_names()?;
    let newest = names.iter().rev().take_while(|name| **name > now);
    // `latest` skips objects that cannot be opened, and so does this check.
    let newest = newest.take(FUTURE_LOOKS_MAX).find_map(|name| repo.snapshot_named(name).ok());
    tell_of_future(newest.as_ref(), host, watch);
    Ok(())
}

/// A run that writes also moves pending snapshots to their identity.
fn search<'r>(repo: &'r Repository, options: &BackupOptions, watch: &'r Watch) -> Result<SnapshotSearch<'r>> {
    if options.dry_run { repo.search_snapshots(watch) } else { repo.search_snapshots_settled(watch) }
}
