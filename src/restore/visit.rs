//! Visit directories: the writers share them by work stealing, a page at a time; damage affects only what is damaged.

use crate::disk::device::is_read_only;
use crate::disk::stat::{fstat, stat_path};
use crate::disk::{Directory, Target};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::id::ChunkId;
use crate::repo::tree::{PAGE_DEPTH_MAX, Page, decode_inner, decode_page};
use crate::restore::enter::group_of_new;
use crate::restore::folder::{Facts, Folder, Here, State, mounted};
use crate::restore::keep_reason::KeepReason;
use crate::restore::links::Linkable;
use crate::restore::location::{Location, Mounts};
use crate::restore::other_sources::OtherSources;
use crate::restore::overlap::Before;
use crate::restore::plan::{DEPTH_MAX, child_path, shown};
use crate::restore::run::{Fate, Run, add, get, locked, named_in_full};
use crate::restore::scope::{is_repository_in_use, looks_like_ours};
use crate::restore::ways::Reached;
use crate::when::format_counted;
use rayon::{Scope as Tasks, ThreadPool};
use rustix::fs::{Access, AtFlags, CWD, accessat};
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Repositories and caches that a directory is in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ours {
    No,
    /// Nothing is deleted in it.
    Other,
    /// The repository in use, or a cache: nothing is restored into it.
    InUse,
}

/// What a directory of the snapshot holds.
#[derive(Clone, Copy)]
struct Contents {
    tree: Option<ChunkId>,
    is_partial: bool,
}

impl Contents {
    fn of(entry: &Entry) -> Self {
        let tree = match &entry.content {
            Content::Tree(tree) => Some(*tree),
            _ => None,
        };
        Contents { tree, is_partial: entry.is_partial }
    }
}

impl<'a> Run<'a> {
    /// The whole walk: everything below the root into the target, hard links last.
    pub fn go(&self, root: &Entry, base: &[u8]) -> Result<()> {
        let mut pool = self.pool(self.writers())?;
        let top = self.open_target(&pool, root, base).map_err(|error| {
            let whole = std::path::absolute(&self.options.target).unwrap_or_else(|_| self.options.target.clone());
            let whole = whole.to_string_lossy();
            // Calls on an open directory know no name.
            let is_of_open =
                error.thing().is_empty() && ["list a directory", "stat an open file"].contains(&error.doing());
            let error = if is_of_open { error.renamed("", &whole) } else { error };
            named_in_full(error, &whole)
        })?;
        if let State::Ready(Here { target: Some(target), .. }) = top.state() {
            if self.is_fresh.get() != Some(&true) {
                let mut others = self.look_at_others(&top.path)?;
                if self.options.delete
                    && let Some(KeepReason { why, is_failure }) =
                        self.why_nothing_is_deleted(&others, &top.path, target.directory(), top.entry.as_ref())?
                {
                    let why = format!("{}: {why}", self.options.target.display());
                    others.note(KeepReason { why, is_failure });
                }
                if self.rehearsal().is_none() {
                    let overlap = match self.find_overlap(target.directory(), &top.path) {
                        Some(guess) => self.rehearse(guess, root, base, &mut others)?,
                        None => None,
                    };
                    self.overlap.get_or_init(|| overlap);
                }
                self.other_sources.get_or_init(|| others);
            }
            if let Some(overlap) = self.overlap() {
                pool = self.pool(1)?;
                if let Some(entry) = &top.entry {
                    let stat = fstat(target.directory())?;
                    let reached = Reached::of(target.directory(), &stat, overlap.mounts.as_ref());
                    self.met_before(&reached, || Location::of(target.directory()), &top, entry)?;
                }
            }
        }
        if let State::Ready(here) = top.state() {
            self.rehearse_directory(&top, &here)?;
        }
        pool.scope(|tasks| match root.is_directory() {
            true => self.visit(tasks, top, Contents::of(root)),
            false => {
                // Of its directory no other name is known.
                top.incomplete.store(true, Ordering::Relaxed);
                self.restore_entry(tasks, &top, &mut None, root.clone());
                self.one_less(top);
            }
        });
        pool.install(|| self.make_links());
        self.check_read_only();
        self.tell_what_differs();
        self.tell_what_is_kept();
        Ok(())
    }

    /// Where other sources are; and the way to the target, which must not be lost either.
    fn look_at_others(&self, base: &[u8]) -> Result<OtherSources> {
        let target = &self.options.target;
        let target = std::path::absolute(target).map_err(|error| Error::io("find", target.display(), error))?;
        let mut ways = vec![target.as_os_str().as_bytes()];
        ways.extend((self.in_place.get() == Some(&true)).then_some(base));
        Ok(OtherSources::look(self.scope, &self.reader, base, &ways))
    }

    /// Says why extra entries stay, and why directories of the snapshot were not restored.
    /// Names of one inode that were saved in different states.
    fn tell_what_differs(&self) {
        let count = locked(&self.links).differing_count();
        if count > 0 {
            let files = format_counted(count, "file", "files");
            let what = format!(
                "{files} with several names changed while the backup saved these: names that were saved in different states are \
                 restored as files of their own"
            );
            self.tell(false, what);
        }
    }

    fn tell_what_is_kept(&self) {
        let spared = get(&self.counts.spared_directories);
        let unknown = self.other_sources.get().and_then(|others| others.unknown.as_ref());
        if let Some(overlap) = self.overlap().filter(|overlap| self.options.delete || overlap.has_blocked()) {
            let advice = if overlap.is_of_many { ". Restore one source at a time, as SNAPSHOT:PATH" } else { "" };
            let what = format!(
                "directories of this snapshot are, or may be, the same directory in the target: {}. Nothing is deleted, and nothing is \
                 replaced by an entry of another kind{advice}",
                overlap.reason.why
            );
            self.tell(overlap.reason.is_failure, what);
        } else if let (Some(reason), true) = (unknown, self.options.delete) {
            self.tell(reason.is_failure, format!("nothing is deleted: {}", reason.why));
        } else if spared > 0 {
            let what = format!(
                "nothing is deleted in {}: the backup saved only a part of what was there, another file system is mounted there, \
                 another source is there, or the system refuses it",
                format_counted(spared, "directory", "directories"),
            );
            self.tell(false, what);
        }
    }

    /// Tells something of the whole target, as a warning or as a notice.
    fn tell(&self, is_failure: bool, what: String) {
        if is_failure {
            self.trouble(self.options.target.as_os_str().as_bytes(), what);
        } else if self.compares() {
            self.watch.notice(what);
        }
    }

    /// For a plan: reports that the target is mounted read-only.
    fn check_read_only(&self) {
        let changes = [Fate::Created, Fate::Replaced, Fate::Deleted].map(|fate| self.counts.fate(fate));
        if self.is_deed() || !self.compares() || changes.iter().sum::<u64>() == 0 {
            return;
        }
        let target = &self.options.target;
        if first_open(target.ancestors()).is_some_and(is_read_only) {
            let why = "it is mounted read-only: the restore cannot create, replace or delete anything there";
            self.trouble(target.as_os_str().as_bytes(), why);
        }
    }

    /// Opens the folder that is restored into, or makes it. One of our own that does not let its owner look into it is
    /// opened up for that.
    fn open_target(&self, pool: &ThreadPool, root: &Entry, base: &[u8]) -> Result<Arc<Folder>> {
        let target = &self.options.target;
        let closed = closed_to_owner(target.as_os_str().as_bytes()).filter(|_| self.is_deed());
        let Some(mode) = closed else { return self.open_or_make_target(pool, root, base) };
        let change = |mode| {
            std::fs::set_permissions(target, Permissions::from_mode(mode))
                .map_err(|error| Error::io("change the mode of", target.display(), error))
        };
        change(mode | 0o700)?;
        match self.open_or_make_target(pool, root, base) {
            Ok(folder) => {
                *locked(&folder.opened_up) = Some(mode);
                Ok(folder)
            }
            Err(error) => change(mode).and(Err(error)),
        }
    }

    fn open_or_make_target(&self, pool: &ThreadPool, root: &Entry, base: &[u8]) -> Result<Arc<Folder>> {
        let path = self.options.target.as_os_str().as_bytes();
        // A file lies in a directory, which may be any.
        let end = if root.is_directory() { base.len() } else { base.len() - root.name.len() - 1 };
        let base = &base[..end];
        let inside = self.scope.is_inside(base);
        let wanted = self.options.include.is_none() || self.options.includes_with_parents(base, true);
        let entry = (root.is_directory() && !root.name.is_empty()).then(|| root.clone());
        let (target, facts) = match Directory::open_path(path) {
            _ if closed_to_owner(path).is_some() && !self.is_deed() => {
                // Nothing in it can be looked at, but what is above it can.
                if let Some(above) = self.nearest_above() {
                    self.check_above(&above)?;
                }
                self.tell_closed(self.options.target.display());
                self.is_fresh.get_or_init(|| false);
                (None, Facts { taken: true, ..Facts::default() })
            }
            Ok(directory) => {
                let (target, facts) = self.existing_target(directory, base, entry.as_ref(), inside && wanted)?;
                (Some(target), facts)
            }
            Err(error) if error.is(Kind::NotFound) => {
                let group = self.check_future_target()?;
                self.is_fresh.get_or_init(|| true);
                match self.is_deed() {
                    true => self
                        .make_target(pool, entry.as_ref())
                        .map_err(|error| target_refused(&self.options.target, error))?,
                    false => (None, Facts { is_new: true, apply: entry.is_some(), group, ..Facts::default() }),
                }
            }
            Err(error) if error.is(Kind::Conflict) && !root.is_directory() => {
                return Err(target_refused(&self.options.target, error)
                    .hint("the target is the directory that the file goes into: name that directory with --target"));
            }
            Err(error) => return Err(target_refused(&self.options.target, error)),
        };
        let here = Here { target: target.map(Arc::new), facts };
        let top = Folder::top(base.to_vec(), entry, inside, wanted, here.clone());
        if let (Some(target), true) = (&here.target, facts.taken) {
            self.remove_leftovers(&top, target)?;
        }
        Ok(Arc::new(top))
    }

    /// The target that was there before. `is_wanted`: it is at or below a source, and no filter leaves it out.
    fn existing_target(
        &self,
        directory: Directory,
        base: &[u8],
        entry: Option<&Entry>,
        is_wanted: bool,
    ) -> Result<(Target, Facts)> {
        let (target, stat) = Target::with_stat(directory)?;
        let is_ours = self.check_above(target.directory())?;
        let origin = if base.is_empty() { b"/" } else { base };
        let is_named_alike =
            || std::path::absolute(&self.options.target).is_ok_and(|path| path.as_os_str().as_bytes() == origin);
        // The place may be on a file system that is broken or gone, which is why it is restored elsewhere.
        let may_be_away = || Mounts::list().is_ok_and(|mounts| mounts.is_on_another_remote(origin, stat.device));
        let is_in_place = || match stat_path(origin, true) {
            Ok(at) => Ok(at.identity() == stat.identity()),
            Err(error) if is_named_alike() => Err(error),
            Err(_) => Ok(false),
        };
        let in_place = (is_named_alike() || !may_be_away()) && is_in_place()?;
        self.in_place.get_or_init(|| in_place);
        let changes = in_place && is_wanted && entry.is_some_and(|entry| self.changes_directory(&stat, entry));
        let facts = Facts {
            taken: !target.directory().is_empty()?,
            apply: entry.is_some_and(|entry| self.applies(&stat, entry, changes)),
            deletes_on: mounted(&stat),
            keeps_extra: is_ours,
            ..self.facts_of(self.options.target.as_os_str().as_bytes(), &target, &stat)
        };
        self.is_fresh.get_or_init(|| !facts.taken);
        Ok((target, facts))
    }

    /// Refuses a target that is in the repository in use or in the caches that lie beside its own. Whether it is in another
    /// repository or cache, where nothing is deleted.
    fn check_above(&self, target: &Directory) -> Result<bool> {
        match self.ours_above(target)? {
            Ours::InUse => {
                let target = self.options.target.display();
                let why = "it is inside the repository in use or a cache of silt";
                Err(Error::invalid("restore into", target, why).hint("name a directory outside of it with --target"))
            }
            Ours::Other => Ok(true),
            Ours::No => Ok(false),
        }
    }

    /// Which repositories and caches a directory is in.
    pub fn ours_above(&self, directory: &Directory) -> Result<Ours> {
        let mut found = Ours::No;
        let mut here = directory.open_child(c".")?;
        for _ in 0..DEPTH_MAX {
            let stat = fstat(&here)?;
            if self.scope.is_own(&stat) || is_repository_in_use(self.repo, &here) {
                return Ok(Ours::InUse);
            }
            if looks_like_ours(&here)? {
                found = Ours::Other;
            }
            let above = match here.open_child(c"..") {
                // A user without the right to open the directory above cannot use a repository there.
                Err(error) if error.is(Kind::Denied) => break,
                above => above?,
            };
            if fstat(&above)?.identity() == stat.identity() {
                break;
            }
            here = above;
        }
        Ok(found)
    }

    /// The same for a target that is still to be made: what counts is the folder that it will be made in. Returns the group that
    /// this one hands down.
    fn check_future_target(&self) -> Result<Option<u32>> {
        let target = &self.options.target;
        if target.is_symlink() {
            return Err(target_refused(target, Error::new(Kind::NotFound, "restore into", target.display())));
        }
        let Some(above) = self.nearest_above() else { return Ok(None) };
        self.check_above(&above)?;
        // One that may be written and not be listed cannot be opened.
        let nearest = target.ancestors().skip(1).find(|above| above.as_os_str().is_empty() || above.is_dir());
        let nearest = nearest.filter(|above| !above.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let access = accessat(CWD, nearest, Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS);
        access.map_err(|errno| Error::io("create the directory", target.display(), errno.into()))?;
        stat_path(nearest.as_os_str().as_bytes(), true).map(|stat| group_of_new(&stat))
    }

    /// The nearest directory above the target that can be opened.
    fn nearest_above(&self) -> Option<Directory> {
        first_open(self.options.target.ancestors().skip(1))
    }

    fn make_target(&self, pool: &ThreadPool, entry: Option<&Entry>) -> Result<(Option<Target>, Facts)> {
        let path: &Path = &self.options.target;
        let make = |facts| {
            make_usable(path)?;
            let target = Target::new(Directory::open_path(path.as_os_str().as_bytes())?)?;
            Ok((Some(target), facts))
        };
        let (Some(entry), Some(name), Some(parent)) = (entry, path.file_name(), path.parent()) else {
            return make(Facts::default());
        };
        let parent = if parent.as_os_str().is_empty() { Path::new(".") } else { parent };
        make_usable(parent)?;
        let parent = match Directory::open_path(parent.as_os_str().as_bytes()) {
            // One that may be written and not be listed.
            Err(error) if error.is(Kind::Denied) => return make(Facts { apply: true, ..Facts::default() }),
            opened => Target::new(opened?)?,
        };
        // By a thread of the pool, whose umask takes nothing away.
        let (target, current) = pool.install(|| parent.create_directory(name.as_bytes(), &entry.meta))?;
        Ok((Some(target), Facts { is_new: true, apply: true, current: Some(current), ..Facts::default() }))
    }

    /// Restores what is in a directory.
    fn visit<'s>(&'s self, tasks: &Tasks<'s>, folder: Arc<Folder>, contents: Contents) {
        if !self.is_over() && self.visits(&folder, contents) {
            if self.is_deed() {
                self.watch.progress.set_current(&folder.path);
            }
            let pages = contents.tree.map_or_else(Vec::new, |tree| self.leaf_pages(&folder, &tree));
            if let [page] = pages.as_slice() {
                self.restore_page(tasks, &folder, page);
            } else {
                for page in pages.into_iter().rev() {
                    folder.left.fetch_add(1, Ordering::Relaxed);
                    let folder = folder.clone();
                    tasks.spawn(move |tasks| {
                        self.restore_page(tasks, &folder, &page);
                        self.one_less(folder);
                    });
                }
            }
        }
        self.one_less(folder);
    }

    /// Whether there is a directory to fill, now or once something below it is restored.
    fn visits(&self, folder: &Arc<Folder>, contents: Contents) -> bool {
        // Above a source only the way to it was saved, which is nothing to tell.
        if contents.is_partial && folder.inside {
            add(&self.counts.partial_directories, 1);
        }
        if folder.depth > DEPTH_MAX {
            self.trouble(&folder.path, format!("it is more than {DEPTH_MAX} directories deep and was not restored"));
            folder.incomplete.store(true, Ordering::Relaxed);
            return false;
        }
        if !folder.wanted {
            return true;
        }
        match self.enter(folder) {
            Ok(here) => here.is_some(),
            Err(error) => {
                self.failed_entry(&folder.path, error);
                false
            }
        }
    }

    /// Returns the pages with entries of a directory. A page that cannot be read loses only its own entries.
    fn leaf_pages(&self, folder: &Folder, root: &ChunkId) -> Vec<ChunkId> {
        let mut leaves = Vec::new();
        // With the first name of each page: they must grow, also over lost pages, or a hostile repository could name pages again and
        // again.
        let mut pending: Vec<(Vec<u8>, ChunkId, usize)> = vec![(Vec::new(), *root, 0)];
        let mut last: Option<Vec<u8>> = None;
        while let Some((name, id, depth)) = pending.pop() {
            if self.is_over() {
                break;
            }
            let read = || match depth > PAGE_DEPTH_MAX {
                true => Err(Error::corrupt("read the directory", id, "its pages are nested too deeply")),
                false => decode_inner(&self.stored(self.reader.tree(&id))?),
            };
            let found = match read() {
                Ok(Some(pages)) => {
                    pending.extend(pages.into_iter().rev().map(|(name, page)| (name, page, depth + 1)));
                    continue;
                }
                Ok(None) => Ok(()),
                Err(error) => Err(error),
            };
            if last.as_ref().is_some_and(|last| name <= *last) {
                self.page_is_lost(folder, Error::corrupt("read the directory", id, "its pages are out of order"));
                return leaves;
            }
            last = Some(name);
            match found {
                Ok(()) => leaves.push(id),
                Err(error) => self.page_is_lost(folder, error),
            }
        }
        leaves
    }

    fn page_is_lost(&self, folder: &Folder, error: Error) {
        // The names on that page are unknown: nothing here may be deleted as extra.
        folder.incomplete.store(true, Ordering::Relaxed);
        let error = match error.is(Kind::Corrupt) {
            true => Error::corrupt("restore a part of what is in it", "", error),
            false => error,
        };
        self.failed_entry(&folder.path, error);
    }

    fn page_entries(&self, page: &ChunkId) -> Result<Vec<Entry>> {
        match decode_page(&self.stored(self.reader.tree(page))?)? {
            Page::Entries(mut entries) => {
                self.number_links(&mut entries);
                Ok(entries)
            }
            Page::Inner { .. } => Err(Error::corrupt("read the page", page, "it has no entries")),
        }
    }

    fn restore_page<'s>(&'s self, tasks: &Tasks<'s>, folder: &Arc<Folder>, page: &ChunkId) {
        let entries = match self.page_entries(page) {
            Ok(entries) => entries,
            Err(error) => return self.page_is_lost(folder, error),
        };
        if self.options.delete {
            locked(&folder.names).extend(entries.iter().map(|entry| entry.name.clone()));
        }
        self.restore_entries(tasks, folder, entries);
        // A task below it may have closed it before it was needed here.
        self.close_if_many(folder);
    }

    fn restore_entries<'s>(&'s self, tasks: &Tasks<'s>, folder: &Arc<Folder>, entries: Vec<Entry>) {
        let mut here = None;
        // Pushed backwards, directories are restored in the order of their names, after this page's files.
        let (below, others): (Vec<Entry>, Vec<Entry>) = entries.into_iter().partition(Entry::is_directory);
        for entry in below.into_iter().rev() {
            self.restore_entry(tasks, folder, &mut here, entry);
        }
        for entry in others {
            if self.is_over() {
                return;
            }
            self.restore_entry(tasks, folder, &mut here, entry);
        }
    }

    /// Restores one entry, if it is among those wanted. `here` is its directory once something in it was.
    fn restore_entry<'s>(&'s self, tasks: &Tasks<'s>, folder: &Arc<Folder>, here: &mut Option<Here>, entry: Entry) {
        let mut wanted = folder.wanted;
        if self.options.has_filter() {
            let path = child_path(&folder.path, &entry.name);
            wanted |= self.options.includes(&path, entry.is_directory());
            let passes = wanted || entry.is_directory();
            if !passes || self.options.exclude.leaves_out(&path, entry.is_directory()) {
                return;
            }
            add(&self.counts.matched, u64::from(wanted));
        }
        if entry.is_directory() {
            return self.spawn_directory(tasks, folder, entry, wanted);
        }
        self.want(&entry);
        if here.is_none() {
            *here = match self.enter(folder) {
                Ok(Some(here)) => Some(here),
                Ok(None) => return,
                Err(error) => {
                    let error = named_in_full(error, &shown(&folder.path));
                    return self.failed_entry(&child_path(&folder.path, &entry.name), error);
                }
            };
        }
        let Some(here) = here else { return };
        if self.rehearsal().is_some() && folder.inside {
            return;
        }
        let done = self.restored_before(folder, here, &entry).and_then(|before| match before {
            Before::No if entry.link_group == 0 => self.restore_single(folder, here, &entry).map(drop),
            Before::No => self.restore_linked(folder, here, &entry),
            Before::Same => {
                self.fate(Fate::Kept, || child_path(&folder.path, &entry.name));
                Ok(())
            }
            Before::Other(other) | Before::SameBut { other, .. } => {
                self.met(child_path(&folder.path, &entry.name), &other);
                Ok(())
            }
        });
        if let Err(error) = done {
            self.failed_entry(&child_path(&folder.path, &entry.name), error);
        }
    }

    /// A directory is made or opened by its own task, so that only those being filled are open.
    fn spawn_directory<'s>(&'s self, tasks: &Tasks<'s>, folder: &Arc<Folder>, entry: Entry, wanted: bool) {
        let path = child_path(&folder.path, &entry.name);
        let inside = folder.inside || self.scope.is_source(&path);
        let is_named = self.scope.is_named(&path);
        folder.left.fetch_add(1, Ordering::Relaxed);
        let folder = folder.clone();
        tasks.spawn(move |tasks| {
            let contents = Contents::of(&entry);
            let below = Arc::new(Folder::below(&folder, entry, inside, is_named, wanted));
            // From now on only what is below holds it, and lets it go when it is finished.
            drop(folder);
            self.visit(tasks, below, contents);
        });
    }

    /// Counts what the target will contain in the end.
    fn want(&self, entry: &Entry) {
        if entry.kind.has_content() {
            add(&self.counts.files_wanted, 1);
            add(&self.counts.bytes_wanted, entry.size);
            add(&self.counts.bytes_linked, if self.is_counted(entry) { entry.size } else { 0 });
        } else {
            add(&self.counts.others_wanted, 1);
        }
    }

    /// Restores an entry that is no directory; whether other names of its inode may be linked to it.
    pub fn restore_single(&self, folder: &Folder, here: &Here, entry: &Entry) -> Result<Linkable> {
        match entry.kind {
            EntryKind::File | EntryKind::Stream => self.restore_file(folder, here, entry),
            _ => self.restore_special(folder, here, entry),
        }
    }
}

/// The first of these directories that can be opened.
fn first_open<'p>(mut paths: impl Iterator<Item = &'p Path>) -> Option<Directory> {
    paths.find_map(|path| {
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        Directory::open_path(path.as_os_str().as_bytes()).ok()
    })
}

/// The mode of a directory of this user that denies its owner access.
fn closed_to_owner(path: &[u8]) -> Option<u32> {
    let stat = stat_path(path, true).ok().filter(|stat| stat.is(EntryKind::Directory))?;
    stat.is_closed_to_owner(0o500).then(|| stat.permissions())
}

/// Makes a directory and those above it that are missing, each with the mode that the umask leaves and all rights of its
/// owner: a restore goes on in them.
fn make_usable(path: &Path) -> Result<()> {
    let failed = |error| Error::io("create the directory", path.display(), error);
    let is_there = |above: &&Path| above.as_os_str().is_empty() || above.symlink_metadata().is_ok();
    let missing: Vec<&Path> = path.ancestors().take_while(|above| !is_there(above)).collect();
    for above in missing.into_iter().rev() {
        match std::fs::create_dir(above) {
            Err(_) if above.is_dir() => continue,
            made => made.map_err(failed)?,
        }
        let mode = above.symlink_metadata().map_err(failed)?.permissions().mode();
        if mode & 0o700 != 0o700 {
            std::fs::set_permissions(above, Permissions::from_mode(mode | 0o700)).map_err(failed)?;
        }
    }
    Ok(())
}

/// Why a target cannot be used, where that is more than what the system said.
fn target_refused(target: &Path, error: Error) -> Error {
    let why = match target.metadata() {
        Ok(meta) if meta.is_dir() => return error,
        Ok(_) => "it is not a directory",
        Err(_) if target.is_symlink() => "it is a broken symbolic link",
        Err(_) => return error,
    };
    Error::new(error.kind(), "restore into", target.display()).because(why).hint("name another directory with --target")
}
