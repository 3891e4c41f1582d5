//! Delete what the snapshot does not have: only what the plan named, inside a source, on its file system, where the backup
//! saw everything, and never what rules protect, a repository or a cache.

use crate::disk::device::has_lasting_inodes;
use crate::disk::{Directory, Identity, ListBuffer, Names, Stat, Target, remove, rights, unfinished};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::restore::doomed::Found;
use crate::restore::existing::{FIXED, NOT_EMPTY, STICKY};
use crate::restore::folder::{Facts, Folder, Here, Mounted, mounted};
use crate::restore::leftovers::is_rest_of_a_directory;
use crate::restore::plan::{child_path, shown};
use crate::restore::run::{Fate, Mode, Run, locked};
use crate::restore::scope::looks_like_ours;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::atomic::Ordering;

/// Reported for a directory whose contents the plan could not see, so that nothing in it is deleted: the first text if
/// its mode is open now, the second if it is closed again.
const CLOSED_TO_PLAN: &str = "extra entries in it were not deleted, because its mode prevented the plan from reading it: run \
                              the restore again";
const CLOSED_TO_PLANS: &str = "extra entries in it were not deleted, because its mode prevents the plan from reading it: run \
                               `chmod u+rwx` on it, then restore again";

/// Said of a directory below such a one.
const CLOSED_ABOVE: &str = "extra entries in it were not deleted, because the mode of a directory above it prevented the plan from \
                            reading it: run the restore again; if that directory is still closed, run `chmod u+rwx` on it first";
/// Said of entries that came or changed after the plan, and where it met an error.
const NOT_NAMED: &str = "extra entries in it were not deleted, because they came or changed after the plan, or the plan could not read \
                         them: run the restore again";

/// What an error says was attempted where that is to delete something.
const DELETE: &str = "delete";

/// A directory in which something is deleted.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub directory: &'a Directory,
    /// Only what is this user's own can be deleted in it.
    pub keeps_others: bool,
    /// Whether an inode in it has the same number whenever it is looked at.
    has_lasting_inodes: bool,
}

impl<'a> Place<'a> {
    pub fn new(directory: &'a Directory, keeps_others: bool) -> Place<'a> {
        Place { directory, keeps_others, has_lasting_inodes: has_lasting_inodes(directory).unwrap_or(false) }
    }

    /// A directory on the same file system.
    pub fn with<'d>(&self, directory: &'d Directory, keeps_others: bool) -> Place<'d> {
        Place { directory, keeps_others, has_lasting_inodes: self.has_lasting_inodes }
    }

    pub fn found(&self, stat: &Stat) -> Found {
        Found::of(stat, self.has_lasting_inodes)
    }
}

/// What a deletion is bound by, and what it found.
pub(super) struct Noted {
    /// What a plan deletes of a directory that makes way, if nothing in it stays.
    paths: RefCell<Vec<(Vec<u8>, Found)>>,
    /// The file system that they are on: nothing is deleted on others.
    pub on: Mounted,
    /// Length of the path of the directory whose content alone is deleted, so that it makes way.
    pub content_of: Option<usize>,
    /// In a restore: whether something stayed only because the plan did not name it.
    is_unnamed: Cell<bool>,
    /// Why the directory does not make way: the first reason.
    why_kept: RefCell<Option<String>>,
}

impl Noted {
    fn on(here: &Here) -> Self {
        let (paths, why_kept) = Default::default();
        Noted { paths, on: here.facts.deletes_on, content_of: None, is_unnamed: Cell::new(false), why_kept }
    }

    /// What is said of a directory that does not make way.
    fn why_kept(self) -> String {
        match self.why_kept.into_inner() {
            Some(why) => format!("{NOT_EMPTY}: {why}"),
            None => NOT_EMPTY.to_owned(),
        }
    }
}

/// Whether a directory makes way.
pub(super) enum Cleared {
    /// In a plan: these paths are deleted for it.
    Yes(Vec<(Vec<u8>, Found)>),
    /// Why it stays.
    No(String),
}

/// The inodes of names that a directory has and does not list: a file system that ignores case, or normalises names, lists
/// them in another spelling.
struct Spellings(HashSet<Identity>);

impl Spellings {
    /// `known` are the names of the snapshot's directory.
    fn of(directory: &Directory, known: &HashSet<Vec<u8>>, listed: &[Listed]) -> Result<Self> {
        let listed: HashSet<&[u8]> = listed.iter().map(|one| one.name.as_slice()).collect();
        let mut inodes = HashSet::new();
        for name in known.iter().filter(|name| !listed.contains(name.as_slice())) {
            match directory.stat(name.as_slice()) {
                Ok(stat) => drop(inodes.insert(stat.identity())),
                // The file system has, or can have, no such name.
                Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Invalid) => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Spellings(inodes))
    }

    /// Whether a listed name is another spelling of a known one.
    fn has(&self, directory: &Directory, name: &[u8]) -> Result<bool> {
        if self.0.is_empty() {
            return Ok(false);
        }
        match directory.stat(name) {
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            stat => stat.map(|stat| self.0.contains(&stat.identity())),
        }
    }
}

impl Run<'_> {
    /// Whether anything may be deleted in this directory.
    pub fn deletes_in(&self, folder: &Folder, here: &Here) -> bool {
        let saved_whole = folder.entry.as_ref().is_none_or(|entry| !entry.is_partial)
            && !folder.incomplete.load(Ordering::Relaxed)
            && !self.scope.is_troubled(&folder.path);
        folder.inside && saved_whole && self.may_delete(here)
    }

    /// Whether the content of a directory that is in the place of this entry is deleted, so that it makes way.
    pub fn clears_for(&self, folder: &Folder, here: &Here, path: &[u8]) -> bool {
        let is_source = !folder.inside && self.scope.is_source(path);
        self.deletes_in(folder, here) || (is_source && !self.scope.is_troubled(path) && self.may_delete(here))
    }

    /// Whether nothing but the snapshot itself speaks against deleting here.
    fn may_delete(&self, here: &Here) -> bool {
        let Facts { keeps_extra, append_only, refuses, .. } = here.facts;
        let is_seen =
            self.overlap().is_none() && self.other_sources.get().is_none_or(|others| others.unknown.is_none());
        let may_be = is_seen && !keeps_extra && !append_only && refuses.is_none();
        self.options.delete && !self.scope.troubles_cut && may_be && here.facts.mounted == here.facts.deletes_on
    }

    /// Deletes what is in a directory and not in the snapshot.
    pub fn delete_others(&self, folder: &Folder, here: &Here) {
        let (Some(target), true) = (&here.target, self.deletes_in(folder, here)) else { return };
        let known = std::mem::take(&mut *locked(&folder.names));
        let mut is_unnamed = false;
        let mut delete = || -> Result<()> {
            let directory = target.directory();
            let listed = list(&directory.open_child(c".")?)?;
            let spellings = Spellings::of(directory, &known, &listed)?;
            let place = Place::new(directory, here.facts.keeps_others);
            for one in listed {
                if known.contains(&one.name) || self.is_over() {
                    continue;
                }
                if unfinished::is_unfinished(&one.name) && !is_rest_of_a_directory(directory, &one.name) {
                    continue;
                }
                if spellings.has(directory, &one.name)? {
                    continue;
                }
                let noted = Noted::on(here);
                let path = child_path(&folder.path, &one.name);
                match self.delete_extra(folder, place, target, &one, &path, &noted) {
                    Ok(true) => folder.changed.store(true, Ordering::Relaxed),
                    Ok(false) => {}
                    Err(error) => self.not_deleted(&path, error, &noted),
                }
                is_unnamed |= noted.is_unnamed.get();
            }
            Ok(())
        };
        if let Err(error) = delete() {
            self.failed_entry(&folder.path, error);
        }
        if is_unnamed {
            self.trouble(&folder.path, self.why_unnamed(folder, here));
        }
    }

    /// Why a plan did not name what it should have.
    fn why_unnamed(&self, folder: &Folder, here: &Here) -> &'static str {
        let closed = |folder: &Folder| locked(&folder.opened_up).filter(|mode| mode & 0o500 != 0o500);
        if let Some(mode) = closed(folder) {
            let mode_then = folder.entry.as_ref().filter(|_| here.facts.apply).map_or(mode, |entry| entry.meta.mode);
            return if mode_then & 0o500 == 0o500 { CLOSED_TO_PLAN } else { CLOSED_TO_PLANS };
        }
        let mut above = std::iter::successors(folder.above.as_deref(), |folder| folder.above.as_deref());
        if above.any(|folder| closed(folder).is_some()) { CLOSED_ABOVE } else { NOT_NAMED }
    }

    /// Deletes an entry that the snapshot does not have; whether it is gone.
    fn delete_extra(
        &self,
        folder: &Folder,
        place: Place<'_>,
        target: &Target,
        one: &Listed,
        path: &[u8],
        noted: &Noted,
    ) -> Result<bool> {
        if one.is_directory != Some(true) {
            return self.in_folder(folder, target, |_| self.delete_leaf(place, one, path, noted));
        }
        // A closed directory of this user is opened up before anything in it is deleted.
        if matches!(&self.mode, Mode::Deed { doomed } if doomed.contains(path)) {
            self.open_up(folder, target)?;
        }
        self.delete_tree(place, &one.name, path.to_vec(), noted)
    }

    /// Deletes what is in a directory that makes way, but not itself. Where a part of it stays, a plan deletes nothing of it, and
    /// so neither does the restore. `path` is what the plan calls it, whatever its name is now.
    pub fn delete_content(&self, here: &Here, target: &Target, name: &[u8], path: &[u8]) -> Result<Cleared> {
        let noted = Noted { content_of: Some(path.len()), ..Noted::on(here) };
        let place = Place::new(target.directory(), here.facts.keeps_others);
        match self.delete_tree(place, name, path.to_vec(), &noted) {
            Ok(true) => return Ok(Cleared::Yes(noted.paths.into_inner())),
            Ok(false) => {}
            Err(error) if matches!(error.kind(), Kind::Denied | Kind::Conflict | Kind::NotFound) => {
                self.not_deleted(path, error, &noted);
            }
            Err(error) => return Err(error),
        }
        Ok(Cleared::No(noted.why_kept()))
    }

    /// Returns why a directory does not make way, as far as that shows before anything in it is deleted: the plan did not
    /// name all of it.
    pub fn why_not_cleared(&self, target: &Target, entry: &Entry, path: &[u8]) -> Result<Option<String>> {
        let Mode::Deed { doomed } = &self.mode else { return Ok(None) };
        if let Some(why) = doomed.why_kept(path) {
            return Ok(Some(why.to_owned()));
        }
        let directory = target.directory().open_child(entry.name.as_slice())?;
        let place = Place::new(&directory, false);
        for one in list(&directory.open_child(c".")?)? {
            let stat = match directory.stat(one.name.as_slice()) {
                Err(error) if error.is(Kind::NotFound) => continue,
                stat => stat?,
            };
            if !doomed.names(&child_path(path, &one.name), place.found(&stat)) {
                return Ok(Some(NOT_EMPTY.to_owned()));
            }
        }
        Ok(None)
    }

    /// Says why something was not deleted; of what is in a directory that is to make way, that is the reason why it stays.
    pub fn not_deleted(&self, path: &[u8], error: Error, noted: &Noted) {
        let error = if error.doing() == DELETE { error } else { undeletable(error.kind(), error) };
        if noted.content_of.is_none() || matches!(error.kind(), Kind::Cancelled | Kind::Full) {
            return self.failed_entry(path, error);
        }
        let why = || Error::new(error.kind(), DELETE, shown(path)).because(error.why()).to_string();
        noted.why_kept.borrow_mut().get_or_insert_with(why);
    }

    /// Whether a rule or a warning of the backup protects this path and everything below it.
    fn is_protected(&self, path: &[u8], is_directory: bool) -> bool {
        self.options.exclude.leaves_out(path, is_directory) || self.scope.is_troubled(path)
    }

    /// Whether a directory that goes may be looked into.
    pub fn may_look_into(&self, path: &[u8], directory: &Directory, stat: &Stat, deletes_on: Mounted) -> Result<bool> {
        if stat.is_fixed {
            return Err(undeletable(Kind::Denied, FIXED));
        }
        if self.is_protected(path, true) || self.keeps_other_source(path, stat)? {
            return Ok(false);
        }
        if mounted(stat) != deletes_on {
            self.tell_kept(path, "another file system is mounted on it");
            return Ok(false);
        }
        if self.scope.is_own(stat) {
            return Ok(false);
        }
        let is_ours = looks_like_ours(directory)?;
        if is_ours {
            self.tell_kept(path, "it is a repository or a cache of silt");
        }
        Ok(!is_ours)
    }

    /// Deletes a name that is no directory, as far as its listing says; whether it is gone.
    pub fn delete_leaf(&self, place: Place<'_>, one: &Listed, path: &[u8], noted: &Noted) -> Result<bool> {
        let stat = match place.directory.stat(one.name.as_slice()) {
            Err(error) if error.is(Kind::NotFound) => return Ok(true),
            other => other?,
        };
        // Sockets are never saved: a socket that the snapshot lacks is not extra.
        if one.is_directory.is_none() && (stat.kind.is_none() || stat.is(EntryKind::Directory)) {
            return Ok(false);
        }
        if self.is_protected(path, false)
            || !self.options.includes_with_parents(path, false)
            || self.keeps_other_source_at(path, place.directory, &one.name, &stat)?
        {
            return Ok(false);
        }
        if stat.mount != noted.on.1 {
            self.tell_kept(path, "another file system is mounted on it");
            return Ok(false);
        }
        if stat.is_fixed {
            return Err(undeletable(Kind::Denied, FIXED));
        }
        if place.keeps_others && !rights::owns(stat.uid, stat.gid) {
            return Err(undeletable(Kind::Denied, STICKY));
        }
        self.delete_name(path, place.found(&stat), noted, || {
            // Counted first: that this name is gone must not change what becomes of the other names of its inode.
            self.links_before(&stat);
            remove::remove_name(place.directory, &one.name)
        })
    }

    /// In a plan, notes what was found at a path; in a restore, removes it if the plan noted it. Returns whether it is gone.
    pub fn delete_name(
        &self,
        path: &[u8],
        found: Found,
        noted: &Noted,
        remove: impl FnOnce() -> Result<()>,
    ) -> Result<bool> {
        match &self.mode {
            Mode::Plan(_) if noted.content_of.is_some() => noted.paths.borrow_mut().push((path.to_vec(), found)),
            Mode::Plan(planning) => {
                locked(&planning.doomed).insert(path, found);
                self.fate(Fate::Deleted, || path.to_vec());
            }
            Mode::Deed { doomed } if !doomed.names(path, found) => {
                noted.is_unnamed.set(true);
                return Ok(false);
            }
            Mode::Deed { .. } => {
                remove().map_err(|error| undeletable(error.kind(), error.why()))?;
                self.fate(Fate::Deleted, || path.to_vec());
            }
        }
        Ok(true)
    }

    /// For a plan: these paths will be deleted.
    pub fn doom(&self, paths: Vec<(Vec<u8>, Found)>) {
        let Mode::Plan(planning) = &self.mode else { return };
        for (path, found) in paths {
            locked(&planning.doomed).insert(&path, found);
            self.fate(Fate::Deleted, || path);
        }
    }
}

/// The error of something that stays.
pub(super) fn undeletable(kind: Kind, why: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::new(kind, DELETE, "").because(why)
}

/// A name in a directory.
pub(super) struct Listed {
    pub name: Vec<u8>,
    /// None where only a stat tells.
    pub is_directory: Option<bool>,
}

/// What is in a directory.
pub(super) fn list(directory: &Directory) -> Result<Vec<Listed>> {
    use crate::disk::read_dir::Hint;
    let mut names = Names::default();
    directory.names(&mut names, &mut ListBuffer::default())?;
    let mut listed = Vec::with_capacity(names.len());
    for (name, hint) in names.iter() {
        let is_directory = match hint {
            Hint::Directory => Some(true),
            Hint::File | Hint::Symlink => Some(false),
            Hint::Unknown => {
                let stat = directory.stat(name);
                stat.is_ok_and(|stat| stat.is(EntryKind::Directory)).then_some(true)
            }
            Hint::Other => None,
        };
        listed.push(Listed { name: name.to_bytes().to_vec(), is_directory });
    }
    Ok(listed)
}
