//! Enter directories: make what is missing, open what is there, follow links above sources, refuse what must stay.

use crate::disk::apply::wanted_owner;
use crate::disk::create::{is_half_done, is_unfinished};
use crate::disk::device::is_read_only;
use crate::disk::follow::{Within, end_by_trusted_links, open_followed, open_within};
use crate::disk::opened_up::OpenedUp;
use crate::disk::stat::fstat;
use crate::disk::{Directory, Stat, Target, flags, unfinished};
use crate::entry::{Content, Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::repo::tree::{Page, decode_page};
use crate::restore::Overwrite;
use crate::restore::existing::{FOLLOWED, IN_USE, MOVED_SOURCE};
use crate::restore::file::SAME_NAME;
use crate::restore::folder::{Facts, Folder, Here, State, mounted};
use crate::restore::keep_reason::KeepReason;
use crate::restore::location::Location;
use crate::restore::other_sources::OTHER_SOURCE;
use crate::restore::overlap::{Before, leads_nowhere};
use crate::restore::plan::{child_path, shown};
use crate::restore::run::{Fate, Run, add, locked};
use crate::restore::scope::{is_repository_in_use, looks_like_ours};
use crate::restore::visit::Ours;
use crate::restore::ways::Reached;
use rustix::fs::{Access, AtFlags, accessat};
use rustix::io::Errno;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Why nothing can be changed in a directory.
pub(super) const READ_ONLY: &str = "its file system is mounted read-only";

const LINK_OF_OTHERS: &str =
    "the symbolic link in its place above a source leads through a link of another user, and was not followed";
const LEADS_NOWHERE: &str =
    "a symbolic link is in its place above a source, and does not lead to a directory in the target";

/// What has the name of a directory in the target.
enum Found {
    /// And how it was opened up for that, if it was.
    Opened(Directory, Option<OpenedUp>),
    /// A link above a source leads to it.
    Followed(Directory),
    Missing,
    /// In a plan: a directory that the restore opens up; until then its contents are unknown.
    Closed(Stat),
    /// Why it stays.
    Refused(&'static str),
    /// It may make way.
    InTheWay,
}

/// What a directory is entered for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Purpose {
    /// Something is restored in it.
    Restore,
    /// Entries in it are deleted, if it is there.
    Delete,
}

impl Run<'_> {
    /// Creates or opens the directory and all above it. Returns None if something that stays has its name; that was
    /// reported.
    pub fn enter(&self, folder: &Arc<Folder>) -> Result<Option<Here>> {
        self.enter_for(folder, Purpose::Restore)
    }

    /// Enters a directory in which nothing is restored, without creating it. Returns None, silently, if it is missing or
    /// restores must not touch it.
    pub fn enter_existing(&self, folder: &Arc<Folder>) -> Result<Option<Here>> {
        self.enter_for(folder, Purpose::Delete)
    }

    fn enter_for(&self, folder: &Arc<Folder>, purpose: Purpose) -> Result<Option<Here>> {
        // Something may still be restored in a directory that was entered only to delete.
        let refuse = |chain: &[Arc<Folder>]| {
            if purpose == Purpose::Restore {
                chain.iter().for_each(|folder| folder.refuse());
            }
        };
        // A loop down the chain: depth must not cost stack.
        let mut chain = vec![folder.clone()];
        let mut here = loop {
            let last = chain.last().expect("it is never empty").clone();
            match last.state() {
                State::Ready(here) => {
                    chain.pop();
                    break here;
                }
                State::Refused => {
                    refuse(&chain);
                    return Ok(None);
                }
                State::Unmade | State::Closed(_) => {
                    chain.push(last.above.clone().expect("the top of the target is always ready"));
                }
            }
        };
        while let Some(next) = chain.pop() {
            let entered = self.enter_below(&here, &next, purpose);
            // On a long way down, all of it would be open at once.
            next.above.iter().for_each(|above| self.close_if_many(above));
            match entered? {
                Some(entered) => here = entered,
                None => {
                    refuse(&chain);
                    return Ok(None);
                }
            }
        }
        Ok(Some(here))
    }

    fn enter_below(&self, above: &Here, folder: &Folder, purpose: Purpose) -> Result<Option<Here>> {
        // One thread at a time: the second one finds it made.
        let _making = locked(&folder.making);
        match folder.state() {
            State::Ready(here) => return Ok(Some(here)),
            State::Refused => return Ok(None),
            State::Closed(facts) => return self.open_again(above, folder, facts).map(Some),
            State::Unmade => {}
        }
        let entry = folder.entry.as_ref().expect("only the top of the target may have none");
        let parent = folder.above.as_ref().expect("it lies below another one");
        if purpose == Purpose::Restore
            && let Before::Other(other) = self.restored_before(parent, above, entry)?
        {
            self.met(folder.path.clone(), &other);
            folder.refuse();
            return Ok(None);
        }
        let found = match &above.target {
            Some(target) if above.facts.taken => self.find(above, target, folder, entry)?,
            _ => above.facts.refuses.map_or(Found::Missing, Found::Refused),
        };
        if purpose == Purpose::Delete && !self.may_be_entered(&found)? {
            return Ok(None);
        }
        let made = match &above.target {
            None => self.plan_to_make(above, folder, entry)?,
            Some(target) => self.make_or_open(above, target, folder, entry, found)?,
        };
        let Some(here) = made else {
            folder.refuse();
            return Ok(None);
        };
        add(&self.counts.directories, 1);
        if !here.facts.taken {
            // An unmade one in a plan, or one that was just made.
            let fate = if here.facts.replaces { Fate::Replaced } else { Fate::Created };
            self.fate(fate, || folder.path.clone());
        }
        self.rehearse_directory(folder, &here)?;
        folder.set(here.clone(), &self.open_folders);
        Ok(Some(here))
    }

    /// Whether a directory is there that a restore works in.
    fn may_be_entered(&self, found: &Found) -> Result<bool> {
        match found {
            Found::Closed(_) => Ok(true),
            Found::Opened(found, _) | Found::Followed(found) => {
                Ok(!self.scope.is_own(&fstat(found)?) && !is_repository_in_use(self.repo, found))
            }
            Found::Missing | Found::Refused(_) | Found::InTheWay => Ok(false),
        }
    }

    fn make_or_open(
        &self,
        above: &Here,
        target: &Arc<Target>,
        folder: &Folder,
        entry: &Entry,
        found: Found,
    ) -> Result<Option<Here>> {
        let refuse = |why: &str| {
            self.blocked_at(folder.path.clone(), why);
            Ok(None)
        };
        let parent = folder.above.as_ref().expect("it lies below another one");
        if matches!(found, Found::Missing | Found::InTheWay) {
            parent.changed.store(true, Ordering::Relaxed);
        }
        match found {
            Found::Opened(directory, opened_up) => self.take(above, folder, entry, directory, opened_up),
            Found::Followed(directory) => self.take_followed(above, folder, entry, directory),
            Found::Refused(why) => refuse(why),
            Found::Closed(stat) if !self.is_first(self.met_closed(above, folder, entry, &stat)?, folder) => Ok(None),
            Found::Closed(stat) => Ok(Some(self.closed(above, folder, &stat))),
            Found::Missing if !self.is_deed() => self.plan_to_make(above, folder, entry),
            Found::Missing => {
                match self.in_folder(parent, target, |target| target.create_directory(&entry.name, &entry.meta)) {
                    Ok((made, current)) => {
                        self.note_made(&made, folder, entry)?;
                        Ok(Some(self.made(above, Some((made, current)))))
                    }
                    // On a file system that takes two names for one, it is what another entry became.
                    Err(error) if error.is(Kind::AlreadyExists) => refuse(SAME_NAME),
                    Err(error) => Err(error),
                }
            }
            Found::InTheWay => {
                let made = match self.is_deed() {
                    true => Some(self.in_folder(parent, target, |target| replace_by_directory(target, entry))?),
                    false => None,
                };
                let mut here = match made {
                    None => match self.plan_to_make(above, folder, entry)? {
                        Some(here) => here,
                        None => return Ok(None),
                    },
                    Some(made) => {
                        self.note_made(&made.0, folder, entry)?;
                        self.made(above, Some(made))
                    }
                };
                here.facts.replaces = true;
                Ok(Some(here))
            }
        }
    }

    /// Records a directory that this run made, where another way may lead to it.
    fn note_made(&self, made: &Target, folder: &Folder, entry: &Entry) -> Result<()> {
        if self.overlap().is_some() {
            let identity = fstat(made.directory())?.identity();
            self.met_before(&Reached::made(identity), || Location::of(made.directory()), folder, entry)?;
        }
        Ok(())
    }

    /// In a plan, a directory that the restore will make. None if another way leads to it, too, and was first.
    fn plan_to_make(&self, above: &Here, folder: &Folder, entry: &Entry) -> Result<Option<Here>> {
        let mut here = self.made(above, None);
        let Some(imagined) = self.imagined(above, entry)? else { return Ok(Some(here)) };
        here.facts.imagined = Some(imagined.identity);
        here.facts.taken = !imagined.is_first;
        let location = || Err(Error::new(Kind::NotFound, "find", shown(&folder.path)));
        let before = self.met_before(&Reached::made(imagined.identity), location, folder, entry)?;
        Ok(self.is_first(before, folder).then_some(here))
    }

    /// In a plan, whether a directory that the restore will open up was restored before.
    fn met_closed(&self, above: &Here, folder: &Folder, entry: &Entry, stat: &Stat) -> Result<Before> {
        let (Some(overlap), Some(target)) = (self.overlap(), &above.target) else { return Ok(Before::No) };
        let reached = Reached::of(target.directory(), stat, overlap.mounts.as_ref());
        let location = || {
            let above = Location::of(target.directory())?;
            Ok(Location::at(child_path(&above.path, &entry.name), stat))
        };
        self.met_before(&reached, location, folder, entry)
    }

    /// Whether nothing was restored into a directory through another way; if something was, that is told.
    fn is_first(&self, before: Before, folder: &Folder) -> bool {
        match before {
            Before::No => return true,
            Before::Same => self.fate(Fate::Kept, || folder.path.clone()),
            Before::SameBut { other, places } => {
                self.overlap().iter().for_each(|overlap| overlap.blocks());
                self.blocked_at(folder.path.clone(), &same_but(&other, places.as_deref()));
            }
            Before::Other(other) => self.met(folder.path.clone(), &other),
        }
        false
    }

    /// Facts of a directory that this run makes; in a plan there is none yet.
    fn made(&self, above: &Here, made: Option<(Target, crate::disk::Current)>) -> Here {
        let (target, current) = made.map(|(target, current)| (Arc::new(target), current)).unzip();
        let facts = Facts {
            is_new: true,
            current,
            apply: true,
            group: above.facts.group,
            mounted: above.facts.mounted,
            keeps_extra: above.facts.keeps_extra,
            deletes_on: above.facts.deletes_on,
            ..Facts::default()
        };
        Here { target, facts }
    }

    /// Looks at the name of a directory. Only "it is no directory" and "it is a link" mean that something else is there;
    /// any other refusal is an error.
    fn find(&self, above: &Here, target: &Target, folder: &Folder, entry: &Entry) -> Result<Found> {
        let name = entry.name.as_slice();
        match target.directory().open_child(name) {
            Ok(directory) => return Ok(Found::Opened(directory, None)),
            Err(error) if error.is(Kind::NotFound) => {
                return Ok(above.facts.refuses.map_or(Found::Missing, Found::Refused));
            }
            Err(error) if error.is(Kind::Denied) => return self.open_unreadable(target, folder, name)?.ok_or(error),
            Err(error) if error.is(Kind::Conflict) => {}
            Err(error) => return Err(error),
        }
        let stat = target.directory().stat(name)?;
        if !folder.inside {
            return self.follow(target, folder, name, &stat);
        }
        let parent = &folder.path[..folder.path.len() - name.len() - 1];
        Ok(match (stat.kind, self.options.overwrite) {
            (Some(EntryKind::Directory), _) => {
                Found::Refused("it was changed by another process at the same moment, and was kept")
            }
            (None, _) => Found::Refused("a socket is in its place, and was kept"),
            _ if folder.is_source && self.was_followed(target, name)? => Found::Refused(FOLLOWED),
            _ if is_half_done(&stat, entry) => self.in_the_way(above, &stat),
            _ if let Some(why) = self.keeps_other_kinds() => Found::Refused(why),
            (Some(EntryKind::Symlink), _) if folder.is_source && self.keeps_links_of_sources() => {
                Found::Refused(MOVED_SOURCE)
            }
            (_, Overwrite::Never | Overwrite::IfNewer) => {
                Found::Refused("something other than a directory is in its place, and was kept")
            }
            _ if !folder.wanted => Found::Refused(
                "something other than a directory is in its place, and was kept, as --include does not match it",
            ),
            _ if self.is_name_of_other(parent, target.directory(), entry)? => Found::Refused(OTHER_SOURCE),
            _ => self.in_the_way(above, &stat),
        })
    }

    fn in_the_way(&self, above: &Here, stat: &Stat) -> Found {
        self.links_before(stat);
        self.stays(above, stat).map_or(Found::InTheWay, Found::Refused)
    }

    /// Directories above a source do not belong to the snapshot: a link there leads where this machine keeps the source.
    fn follow(&self, target: &Target, folder: &Folder, name: &[u8], stat: &Stat) -> Result<Found> {
        if !stat.is(EntryKind::Symlink) {
            return Ok(Found::Refused("something other than a directory is in its place above a source, and was kept"));
        }
        if self.scope.sources_cut {
            return Ok(Found::Refused(
                "a symbolic link that may be part of a source is in its place, and was not followed",
            ));
        }
        let is_trusted = stat.uid == 0 || stat.is_own();
        if !is_trusted {
            return Ok(Found::Refused(
                "a symbolic link of another user is in its place above a source, and was not followed",
            ));
        }
        let mut top = folder;
        while let Some(above) = &top.above {
            top = above;
        }
        let State::Ready(Here { target: Some(root), .. }) = top.state() else {
            return Ok(Found::Refused("a symbolic link is in its place above a source, and was not followed"));
        };
        let path = &folder.path[top.path.len()..];
        if self.overlap().is_some_and(|overlap| overlap.is_dangling(&folder.path)) {
            return Ok(Found::Refused(LEADS_NOWHERE));
        }
        match self.open_link(root.directory(), target.directory(), name, path) {
            Ok(directory) => {
                if let Some(why) =
                    self.why_not_followed(root.directory(), target.directory(), name, path, &directory)?
                {
                    return Ok(Found::Refused(why));
                }
                self.rehearse_link(root.directory(), target.directory(), name, &directory);
                let place = (fstat(target.directory())?.identity(), name.to_vec());
                locked(&self.followed).insert(place);
                Ok(Found::Followed(directory))
            }
            Err(error) if leads_nowhere(&error) => Ok(Found::Refused(LEADS_NOWHERE)),
            Err(error) => Err(error),
        }
    }

    /// Why the directory that a link above a source leads to is not restored into.
    fn why_not_followed(
        &self,
        root: &Directory,
        above: &Directory,
        name: &[u8],
        path: &[u8],
        opened: &Directory,
    ) -> Result<Option<&'static str>> {
        let end = match self.in_place.get() {
            Some(true) => end_by_trusted_links(above, name, Within::Machine)?,
            _ => end_by_trusted_links(root, path, Within::Start)?,
        };
        let opened = fstat(opened)?.identity();
        Ok(match end {
            None => Some(LINK_OF_OTHERS),
            Some(end) if end != opened => Some("it was changed by another process at the same moment, and was kept"),
            Some(_) => None,
        })
    }

    /// Opens the directory that a link above a source leads to; `path` is that of the link below the target.
    pub fn open_link(&self, root: &Directory, above: &Directory, name: &[u8], path: &[u8]) -> Result<Directory> {
        match self.in_place.get() {
            Some(true) => open_followed(above, name),
            _ => open_within(root, path.strip_prefix(b"/").unwrap_or(path)),
        }
    }

    /// A directory that we may not list. Of one of our own, the owner's rights are added while we work in it; one above a
    /// source only has to be passed.
    fn open_unreadable(&self, target: &Target, folder: &Folder, name: &[u8]) -> Result<Option<Found>> {
        let stat = target.directory().stat(name)?;
        if !stat.is(EntryKind::Directory) {
            return Ok(None);
        }
        if !stat.is_closed_to_owner(0o500) {
            let passed = target.directory().open_child_to_search(name).ok();
            return Ok(passed.filter(|_| !folder.inside).map(|directory| Found::Opened(directory, None)));
        }
        if !self.is_deed() {
            return Ok(Some(Found::Closed(stat)));
        }
        let opened_up = OpenedUp::named(target.directory(), name, &stat)?;
        target.directory().open_child(name).map(|directory| Some(Found::Opened(directory, Some(opened_up))))
    }

    /// Says in a plan that the mode of a directory hides its contents.
    pub fn tell_closed(&self, directory: impl std::fmt::Display) {
        if self.compares() {
            self.watch.notice(format!(
                "the mode of {directory} denies access: its contents are unknown until the restore changes the mode"
            ));
        }
    }

    /// Facts of a directory that only the restore itself looks into.
    fn closed(&self, above: &Here, folder: &Folder, stat: &Stat) -> Here {
        self.tell_closed(crate::restore::plan::shown(&folder.path));
        let why = || format!("the mode of {} denies access", crate::restore::plan::shown(&folder.path));
        self.rehearsal().iter().for_each(|rehearsal| rehearsal.cannot_tell(why));
        let Facts { keeps_extra, deletes_on, .. } = above.facts;
        let mounted = mounted(stat);
        let group = group_of_new(stat);
        let imagined = self.overlap().map(|_| stat.identity());
        let facts = Facts { taken: true, group, mounted, keeps_extra, deletes_on, imagined, ..Facts::default() };
        Here { target: None, facts }
    }

    /// A directory that a link above a source leads to: it may be in a repository.
    fn take_followed(
        &self,
        above: &Here,
        folder: &Folder,
        entry: &Entry,
        directory: Directory,
    ) -> Result<Option<Here>> {
        let ours = self.ours_above(&directory)?;
        if ours == Ours::InUse {
            self.blocked_at(folder.path.clone(), IN_USE);
            return Ok(None);
        }
        let mut above = above.clone();
        above.facts.keeps_extra |= ours == Ours::Other;
        self.take(&above, folder, entry, directory, None)
    }

    /// A directory that was there before.
    fn take(
        &self,
        above: &Here,
        folder: &Folder,
        entry: &Entry,
        directory: Directory,
        mut opened_up: Option<OpenedUp>,
    ) -> Result<Option<Here>> {
        let (target, stat) = Target::with_stat(directory)?;
        if self.scope.is_in_use(&stat) || is_repository_in_use(self.repo, target.directory()) {
            if self.has_entries(entry)? {
                self.blocked_at(folder.path.clone(), IN_USE);
            } else {
                // A backup leaves out what is in it.
                self.fate(Fate::Kept, || folder.path.clone());
            }
            return Ok(None);
        }
        let is_mount_point = mounted(&stat) != above.facts.mounted;
        let other = match folder.inside {
            true => match self.other_source(&folder.path, &stat, Some(entry))? {
                None if is_mount_point => self.other_mounted_on_empty(&folder.path, target.directory(), entry)?,
                other => other,
            },
            false => None,
        };
        if let Some(other) = other {
            self.overlap().iter().for_each(|overlap| overlap.blocks());
            let other = shown(&other);
            let why = format!(
                "it is now {other}, which belongs to another source of the snapshot, and was not restored: restore it by itself"
            );
            self.blocked_at(folder.path.clone(), &why);
            return Ok(None);
        }
        let is_first = match self.overlap() {
            Some(overlap) => {
                let reached = Reached::of(target.directory(), &stat, overlap.mounts.as_ref());
                let location = || Location::of(target.directory());
                self.is_first(self.met_before(&reached, location, folder, entry)?, folder)
            }
            None => true,
        };
        if !is_first || self.is_spared(&folder.path, target.directory(), &stat, entry) {
            return Ok(None);
        }
        // One that may be listed and not entered was opened all the same.
        if stat.is_closed_to_owner(0o500) {
            if !self.is_deed() {
                return Ok(Some(self.closed(above, folder, &stat)));
            }
            opened_up = Some(OpenedUp::open(target.directory(), &stat)?);
        }
        self.remove_leftovers(folder, &target)?;
        let in_place = self.in_place.get().copied().unwrap_or(false);
        let changes = folder.inside && folder.wanted && self.changes_directory(&stat, entry);
        let facts = Facts {
            taken: true,
            apply: self.applies(&stat, entry, changes),
            // A source that is mounted where it was saved is one file system with itself.
            deletes_on: if folder.is_source && in_place { mounted(&stat) } else { above.facts.deletes_on },
            keeps_extra: above.facts.keeps_extra || self.keeps_extra(folder, target.directory())?,
            ..self.facts_of(&folder.path, &target, &stat)
        };
        folder.closes_later(opened_up);
        Ok(Some(Here { target: Some(Arc::new(target)), facts }))
    }

    /// Whether nothing is deleted in a directory because it is a repository, a cache, or in another source. The last is told.
    fn keeps_extra(&self, folder: &Folder, directory: &Directory) -> Result<bool> {
        if !self.options.delete {
            return Ok(false);
        }
        match looks_like_ours(directory) {
            Ok(false) => {}
            Ok(true) => return Ok(true),
            Err(error) => {
                let why = format!("nothing is deleted in it: cannot tell whether it is a repository: {error}");
                self.trouble(&folder.path, why);
                return Ok(true);
            }
        }
        let others = self.other_sources.get().filter(|_| folder.is_source && folder.inside);
        let reason =
            others.map(|others| self.why_nothing_is_deleted(others, &folder.path, directory, folder.entry.as_ref()));
        let reason = reason.transpose()?.flatten();
        match &reason {
            Some(KeepReason { why, is_failure: true }) => {
                self.trouble(&folder.path, format!("nothing is deleted in it: {why}"));
            }
            Some(KeepReason { why, .. }) if self.compares() => {
                self.watch.notice(format!("nothing is deleted in {}: {why}", shown(&folder.path)));
            }
            _ => {}
        }
        Ok(reason.is_some())
    }

    /// What a directory that was there says about itself.
    pub fn facts_of(&self, path: &[u8], target: &Target, stat: &Stat) -> Facts {
        let refuses = refusal(target.directory(), stat);
        Facts {
            append_only: self.is_append_only(path, target),
            refuses,
            is_read_only: refuses == Some(READ_ONLY),
            keeps_others: keeps_others(stat),
            group: group_of_new(stat),
            mounted: mounted(stat),
            ..Facts::default()
        }
    }

    /// Whether a directory of the snapshot has anything in it.
    pub fn has_entries(&self, entry: &Entry) -> Result<bool> {
        let Content::Tree(tree) = &entry.content else { return Ok(false) };
        match decode_page(&self.stored(self.reader.tree(tree))?)? {
            Page::Entries(entries) => Ok(!entries.is_empty()),
            Page::Inner { .. } => Ok(true),
        }
    }

    /// Whether a directory that was there is append-only, which is said once for all that is in it.
    fn is_append_only(&self, path: &[u8], target: &Target) -> bool {
        let append_only = flags::is_append_only(target.directory());
        if append_only && self.compares() {
            self.watch.notice(format!(
                "the directory {} is append-only: missing entries are created, those that differ stay; run `chattr -a` \
                 on it to restore them, too",
                crate::restore::plan::shown(path)
            ));
        }
        append_only
    }

    /// Whether an existing directory gets the metadata of its entry: if `changes` says so, or if an earlier restore did not
    /// finish it.
    pub fn applies(&self, stat: &Stat, entry: &Entry, changes: bool) -> bool {
        changes || is_unfinished(stat, &entry.meta, wanted_owner(&entry.meta, &self.apply_options()).0)
    }

    /// Whether an existing directory gets the metadata of the snapshot's.
    pub fn changes_directory(&self, stat: &Stat, entry: &Entry) -> bool {
        match self.options.overwrite {
            Overwrite::Always | Overwrite::IfChanged => true,
            Overwrite::IfNewer => stat.modified < entry.meta.modified,
            Overwrite::Never => false,
        }
    }

    fn open_again(&self, above: &Here, folder: &Folder, facts: Facts) -> Result<Here> {
        let entry = folder.entry.as_ref().expect("the top of the target is never closed");
        let target = above.target.as_ref().expect("what was closed was opened in a directory that is there");
        let (directory, opened_up) = match self.find(above, target, folder, entry)? {
            Found::Opened(directory, opened_up) => (directory, opened_up),
            Found::Followed(directory) => (directory, None),
            _ => return Err(moved(entry)),
        };
        let here = self.reopened(folder, facts, directory)?;
        folder.closes_later(opened_up);
        Ok(here)
    }

    /// Takes over a directory that was closed and is open again; refuses anything else that has its name now.
    pub fn reopened(&self, folder: &Folder, facts: Facts, directory: Directory) -> Result<Here> {
        if !Folder::is_same(&facts, &fstat(&directory)?) {
            return Err(moved(folder.entry.as_ref().expect("the top of the target is never closed")));
        }
        let here = Here { target: Some(Arc::new(Target::new(directory)?)), facts };
        folder.set(here.clone(), &self.open_folders);
        Ok(here)
    }
}

/// Why nothing in a directory can be created, replaced or deleted, as far as the system tells before it is tried.
pub(super) fn refusal(directory: &Directory, stat: &Stat) -> Option<&'static str> {
    let is_immutable = stat.is_fixed && !flags::is_append_only(directory);
    match accessat(directory, c".", Access::WRITE_OK | Access::EXEC_OK, AtFlags::EACCESS) {
        Err(Errno::ROFS) => Some(READ_ONLY),
        // Of a mount that is read-only, the kernel tells the mode of the directory first.
        Err(_) if is_read_only(directory) => Some(READ_ONLY),
        _ if is_immutable => Some("its directory is immutable: run `chattr -i` on that first"),
        // One of our own is opened up.
        Err(Errno::ACCESS) if !stat.is_own() => Some("its directory does not let this user create anything"),
        _ => None,
    }
}

/// Whether a directory lets this user replace and delete only what the user may treat as the user's own.
pub(super) fn keeps_others(directory: &Stat) -> bool {
    directory.mode & 0o1000 != 0 && !directory.is_own()
}

/// The group that a directory hands down to what is made in it, where it does.
pub(super) fn group_of_new(directory: &Stat) -> Option<u32> {
    (directory.mode & 0o2000 != 0).then_some(directory.gid)
}

fn moved(entry: &Entry) -> Error {
    Error::new(Kind::Conflict, "continue in the directory", crate::restore::plan::shown(&entry.name))
        .because("it was replaced by something else during the restore")
}

fn replace_by_directory(target: &Target, entry: &Entry) -> Result<(Target, crate::disk::Current)> {
    let name = unfinished::next_name();
    let made = target.create_directory(&name, &entry.meta)?;
    if let Err(error) = target.exchange(&name, &entry.name, false) {
        let _best_effort = target.remove_directory(&name);
        return Err(error);
    }
    Ok(made)
}

/// Why a directory was not restored a second time, and what that leaves out.
fn same_but(other: &[u8], places: Option<&[Vec<u8>]>) -> String {
    let other = shown(other);
    match places {
        None => format!(
            "it is the same directory as {other} and was restored there; what is mounted below the two cannot be told: restore it by \
             itself"
        ),
        Some(places) => {
            let places: Vec<String> = places.iter().map(|place| shown(place)).collect();
            format!(
                "it is the same directory as {other} and was restored there; but what is mounted below the two differs, so these are \
                 left: restore each by itself: {}",
                places.join(", ")
            )
        }
    }
}
