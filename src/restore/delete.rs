//! Delete what the snapshot does not have: only what the plan named, inside a source, on its file system, where the backup
//! saw everything, and never what rules protect, a repository or a cache.

use crate::disk::apply::chmod_open;
use crate::disk::opened_up::{OpenedUp, close_below};
use crate::disk::stat::fstat;
use crate::disk::{Directory, ListBuffer, Names, Stat, Target, remove, rights, unfinished};
use crate::entry::{Entry, EntryKind};
use crate::error::{Error, Kind, Result};
use crate::restore::enter;
use crate::restore::existing::{FIXED, STICKY};
use crate::restore::folder::{Folder, Here, Mounted};
use crate::restore::plan::child_path;
use crate::restore::run::{Fate, Mode, Run, locked};
use crate::restore::scope::looks_like_ours;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::Ordering;

/// The paths that a plan deletes, as keyed hashes: eight bytes for each, however long they are.
#[derive(Default)]
pub(super) struct Doomed {
    paths: HashSet<u64>,
    hasher: RandomState,
}

impl Doomed {
    fn insert(&mut self, path: &[u8]) {
        self.paths.insert(self.hasher.hash_one(path));
    }

    fn contains(&self, path: &[u8]) -> bool {
        self.paths.contains(&self.hasher.hash_one(path))
    }
}

/// Said of a directory in which the plan could see nothing, so that nothing is deleted. The first one if its mode is open now,
/// the other one if it is closed again.
const CLOSED_TO_PLAN: &str = "extra entries in it were not deleted, because its mode prevented the plan from reading it: run \
                              the restore again";
const CLOSED_TO_PLANS: &str = "extra entries in it were not deleted, because its mode prevents the plan from reading it: run \
                               `chmod u+rwx` on it, then restore again";

/// Said of a directory of another user.
const CLOSED_TO_OTHERS: &str = "its mode does not let this user delete anything in it";

/// Paths that a plan would delete, until it is sure that it does.
struct Noted {
    paths: RefCell<Vec<Vec<u8>>>,
    /// The file system that they are on: nothing is deleted on others.
    on: Mounted,
    /// Length of the path of the directory whose content alone is deleted.
    content_of: Option<usize>,
    /// In the restore itself: something stayed only because the plan did not name it.
    is_unnamed: Cell<bool>,
}

impl Noted {
    fn on(here: &Here) -> Self {
        Noted { paths: RefCell::default(), on: here.facts.deletes_on, content_of: None, is_unnamed: Cell::new(false) }
    }
}

/// The inodes of names that a directory has and does not list: a file system that ignores case, or normalises names, lists
/// them in another spelling.
struct Spellings(HashSet<(u64, u64)>);

impl Spellings {
    /// `known` are the names of the snapshot's directory.
    fn of(directory: &Directory, known: &HashSet<Vec<u8>>, listed: &[(Vec<u8>, Option<bool>)]) -> Self {
        let listed: HashSet<&[u8]> = listed.iter().map(|(name, _)| name.as_slice()).collect();
        let inode = |name: &Vec<u8>| directory.stat(name.as_slice()).ok().map(|stat| (stat.device, stat.inode));
        Spellings(known.iter().filter(|name| !listed.contains(name.as_slice())).filter_map(inode).collect())
    }

    /// Whether a listed name is another spelling of a known one.
    fn has(&self, directory: &Directory, name: &[u8]) -> Result<bool> {
        if self.0.is_empty() {
            return Ok(false);
        }
        match directory.stat(name) {
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            stat => stat.map(|stat| self.0.contains(&(stat.device, stat.inode))),
        }
    }
}

/// A directory on the way down, with what is still to be done in it.
struct Level {
    name: Vec<u8>,
    /// Names of directories in it that were not looked into yet.
    left: Vec<Vec<u8>>,
    /// Device and inode of the directory above, to be sure of the way back up.
    above: (u64, u64),
    /// Something in it stays, and so it does itself.
    stays: bool,
    /// Device and inode of the directory itself.
    identity: (u64, u64),
    /// The mode of one of our own that did not let its owner work in it, and was opened up.
    mode: Option<u32>,
    /// Only what is this user's own can be deleted in it.
    keeps_others: bool,
    /// Where its path ends.
    path_bytes: usize,
}

/// Resets the modes of opened-up directories below `top` after a deletion ended early, deepest first; `here` is the last one.
/// One that was moved meanwhile is found only if it is the last.
fn close_again(top: &Directory, here: &Directory, levels: &[Level]) {
    let names: Vec<&[u8]> = levels.iter().map(|level| level.name.as_slice()).collect();
    for (at, level) in levels.iter().enumerate().rev() {
        // The error that ended the deletion is the one to tell.
        let _best_effort = level.mode.map(|mode| match at + 1 == levels.len() {
            true => chmod_open(here, mode),
            false => close_below(top, &names[..=at], level.identity, mode),
        });
    }
}

impl Run<'_> {
    /// Whether anything may be deleted in this directory.
    pub fn deletes_in(&self, folder: &Folder, here: &Here) -> bool {
        let saved_whole = folder.entry.as_ref().is_none_or(|entry| !entry.is_partial)
            && !folder.incomplete.load(Ordering::Relaxed)
            && !self.scope.troubles_cut
            && !self.scope.is_troubled(&folder.path);
        let may_be = !here.facts.is_ours && !here.facts.append_only && here.facts.refuses.is_none();
        self.options.delete && folder.inside && saved_whole && may_be && here.facts.mounted == here.facts.deletes_on
    }

    /// Deletes what is in a directory and not in the snapshot.
    pub fn delete_others(&self, folder: &Folder, here: &Here) {
        let (Some(target), true) = (&here.target, self.deletes_in(folder, here)) else { return };
        let known = std::mem::take(&mut *locked(&folder.names));
        let closed = locked(&folder.opened_up).filter(|mode| self.is_deed() && mode & 0o500 != 0o500);
        let mut is_unnamed = false;
        let mut delete = || -> Result<()> {
            let listed = list(&target.directory().open_child(c".")?)?;
            let spellings = match self.is_deed() {
                // The plan has decided.
                true => Spellings(HashSet::new()),
                false => Spellings::of(target.directory(), &known, &listed),
            };
            for (name, is_directory) in listed {
                if known.contains(&name) || self.is_over() {
                    continue;
                }
                if unfinished::is_unfinished(&name) && !is_left_of_a_directory(target.directory(), &name) {
                    continue;
                }
                if spellings.has(target.directory(), &name)? {
                    continue;
                }
                let path = child_path(&folder.path, &name);
                let noted = Noted::on(here);
                let deleted = match is_directory {
                    Some(true) => self.open_up_to_delete(folder, target, &path).and_then(|()| {
                        self.delete_tree(target.directory(), &name, path, &noted, here.facts.keeps_others)
                    }),
                    _ => self.in_folder(folder, target, |target| {
                        let here = (target.directory(), here.facts.keeps_others);
                        self.delete_leaf(here, &name, &path, is_directory, &noted)
                    }),
                };
                is_unnamed |= noted.is_unnamed.get();
                self.doom(noted);
                match deleted {
                    Ok(true) => folder.changed.store(true, Ordering::Relaxed),
                    Ok(false) => {}
                    Err(error) => self.not_deleted(&folder.path, &name, error),
                }
            }
            Ok(())
        };
        if let Err(error) = delete() {
            self.failed_entry(&folder.path, error);
        }
        if let Some(mode) = closed.filter(|_| is_unnamed) {
            let mode_then = folder.entry.as_ref().filter(|_| here.facts.apply).map_or(mode, |entry| entry.meta.mode);
            let is_closed_again = mode_then & 0o500 != 0o500;
            self.trouble(&folder.path, if is_closed_again { CLOSED_TO_PLANS } else { CLOSED_TO_PLAN });
        }
    }

    /// Lets us remove a directory that the plan deletes from one of our own, before anything in it goes.
    fn open_up_to_delete(&self, folder: &Folder, target: &Target, path: &[u8]) -> Result<()> {
        match &self.mode {
            Mode::Deed { doomed } if doomed.contains(path) => self.open_up(folder, target).map(drop),
            _ => Ok(()),
        }
    }

    /// Deletes what is in a directory, but not itself; whether nothing is left in it. Where a part of it stays, a plan
    /// deletes nothing of it, and so neither does the restore. `path` is what the plan calls it, whatever its name is now.
    pub fn delete_content(&self, here: &Here, target: &Target, name: &[u8], path: &[u8]) -> Result<bool> {
        let noted = Noted { content_of: Some(path.len()), ..Noted::on(here) };
        let cleared = self.delete_tree(target.directory(), name, path.to_vec(), &noted, here.facts.keeps_others)?;
        if cleared {
            self.doom(noted);
        }
        Ok(cleared)
    }

    /// Whether the plan named all that is in a directory, as far as that shows before anything is deleted.
    pub fn will_clear(&self, target: &Target, entry: &Entry, path: &[u8]) -> Result<bool> {
        let Mode::Deed { doomed } = &self.mode else { return Ok(true) };
        let listed = list(&target.directory().open_child(entry.name.as_slice())?)?;
        Ok(listed.iter().all(|(name, _)| doomed.contains(&child_path(path, name))))
    }

    fn not_deleted(&self, path: &[u8], name: &[u8], error: Error) {
        self.not_deleted_at(&child_path(path, name), error);
    }

    fn not_deleted_at(&self, path: &[u8], error: Error) {
        let says_so = error.doing().starts_with("delete");
        let error = if says_so { error } else { Error::new(error.kind(), "delete", "").because(error) };
        self.failed_entry(path, error);
    }

    /// Whether the rules, or what the backup said of it, protect this path with all below it.
    fn is_protected(&self, path: &[u8], is_directory: bool) -> bool {
        self.options.exclude.leaves_out(path, is_directory) || self.scope.is_troubled(path)
    }

    /// Whether a directory that goes may be looked into.
    fn may_enter(&self, path: &[u8], directory: &Directory, stat: &Stat, deletes_on: Mounted) -> Result<bool> {
        if stat.is_fixed {
            return Err(kept_whole(FIXED));
        }
        Ok((stat.device, stat.mount) == deletes_on
            && !self.is_protected(path, true)
            && !self.scope.is_own(stat)
            && !looks_like_ours(directory))
    }

    /// Deletes a name that is no directory, as far as its listing says; whether it is gone.
    fn delete_leaf(
        &self,
        (directory, keeps_others): (&Directory, bool),
        name: &[u8],
        path: &[u8],
        is_directory: Option<bool>,
        noted: &Noted,
    ) -> Result<bool> {
        let stat = match directory.stat(name) {
            Err(error) if error.is(Kind::NotFound) => return Ok(true),
            other => other?,
        };
        // Sockets are never saved: that the snapshot has none says nothing.
        if is_directory.is_none() && (stat.kind.is_none() || stat.is(EntryKind::Directory)) {
            return Ok(false);
        }
        let is_kept = self.is_protected(path, false) || !self.options.includes_with_parents(path, false);
        if is_kept || stat.mount != noted.on.1 {
            return Ok(false);
        }
        if stat.is_fixed {
            return Err(Error::new(Kind::Denied, "delete", "").because(FIXED));
        }
        if keeps_others && !rights::owns(stat.uid, stat.gid) {
            return Err(Error::new(Kind::Denied, "delete", "").because(STICKY));
        }
        self.delete_name(path, noted, || {
            // What becomes of other names of its inode does not depend on that it is gone.
            self.links_before(&stat);
            remove::remove_name(directory, name)
        })
    }

    /// In a plan notes a path; else removes it, if the plan noted it. Whether it is gone.
    fn delete_name(&self, path: &[u8], noted: &Noted, remove: impl FnOnce() -> Result<()>) -> Result<bool> {
        match &self.mode {
            Mode::Plan(_) => noted.paths.borrow_mut().push(path.to_vec()),
            Mode::Deed { doomed } if !doomed.contains(path) => {
                noted.is_unnamed.set(true);
                return Ok(false);
            }
            Mode::Deed { .. } => {
                remove()?;
                self.fate(Fate::Deleted, || path.to_vec());
            }
        }
        Ok(true)
    }

    /// For a plan: these paths will be deleted.
    fn doom(&self, noted: Noted) {
        let Mode::Plan(planning) = &self.mode else { return };
        for path in noted.paths.into_inner() {
            locked(&planning.doomed).insert(&path);
            self.fate(Fate::Deleted, || path);
        }
    }

    /// Deletes a directory with what is in it, as far as nothing protects it; whether it is gone. Only one directory is
    /// open at a time, so depth costs memory and no descriptors; going up goes through `..` and is checked against the
    /// directory that we came from, so that somebody who moves directories meanwhile leads us nowhere.
    fn delete_tree(
        &self,
        top: &Directory,
        name: &[u8],
        path: Vec<u8>,
        noted: &Noted,
        keeps_others: bool,
    ) -> Result<bool> {
        let (mut here, mut levels) = (top.open_child(c".")?, Vec::new());
        let deleted = self.delete_below((&mut here, keeps_others), &mut levels, name, path, noted);
        if deleted.is_err() {
            close_again(top, &here, &levels);
        }
        deleted
    }

    /// `here` is the directory of the last of `levels`, or the top without any.
    fn delete_below(
        &self,
        (here, keeps_others): (&mut Directory, bool),
        levels: &mut Vec<Level>,
        name: &[u8],
        mut path: Vec<u8>,
        noted: &Noted,
    ) -> Result<bool> {
        let mut next = Some(name.to_vec());
        loop {
            if let Some(name) = next.take() {
                self.check()?;
                let keeps_others = levels.last().map_or(keeps_others, |level| level.keeps_others);
                match (self.go_down((here, keeps_others), name, &path, noted), levels.last_mut()) {
                    (Ok(Some((below, level))), _) => {
                        *here = below;
                        levels.push(level);
                    }
                    (Ok(None), None) => return Ok(false),
                    (Err(error), None) => return Err(error),
                    (gone_down, Some(above)) => {
                        above.stays = true;
                        if let Err(error) = gone_down {
                            self.not_deleted_at(&path, error);
                        }
                    }
                }
            }
            let level = levels.last_mut().expect("the loop ends with the last level");
            path.truncate(level.path_bytes);
            if level.stays && noted.content_of.is_some() {
                // The directory cannot be cleared: nothing more in it is deleted.
                level.left.clear();
            }
            if let Some(name) = level.left.pop() {
                path.push(b'/');
                path.extend_from_slice(&name);
                next = Some(name);
                continue;
            }
            let above = here.open_child(c"..")?;
            let stat = fstat(&above)?;
            if (stat.device, stat.inode) != level.above {
                return Err(
                    Error::new(Kind::Conflict, "delete", "").because("a directory in it was moved during the restore")
                );
            }
            let done = levels.pop().expect("there was a last one");
            let below = std::mem::replace(here, above);
            let is_content = noted.content_of == Some(path.len());
            let is_to_go = !done.stays && (is_content || self.options.includes_with_parents(&path, true));
            let deleted = match is_to_go {
                true if is_content => Ok(true),
                true => self.delete_name(&path, noted, || remove::remove_directory(here, &done.name)),
                false => Ok(false),
            };
            let is_gone = matches!(deleted, Ok(true));
            let has_stayed = is_content || !is_gone;
            let closed = done.mode.filter(|_| has_stayed).map_or(Ok(()), |mode| chmod_open(&below, mode));
            for error in deleted.err().into_iter().chain(closed.err()) {
                self.not_deleted_at(&path, error);
            }
            match levels.last_mut() {
                None => return Ok(is_gone),
                Some(above) => above.stays |= !is_gone,
            }
        }
    }

    /// Opens a directory that may go and deletes what is no directory in it; None when it stays with all that is in it.
    fn go_down(
        &self,
        (here, keeps_others): (&Directory, bool),
        name: Vec<u8>,
        path: &[u8],
        noted: &Noted,
    ) -> Result<Option<(Directory, Level)>> {
        let identity = |stat: Stat| (stat.device, stat.inode);
        let above = identity(fstat(here)?);
        let below = match here.open_child(name.as_slice()) {
            // It is gone, or became something else since it was listed.
            Err(error) if matches!(error.kind(), Kind::NotFound | Kind::Conflict) => return Ok(None),
            other => other?,
        };
        let stat = fstat(&below)?;
        if !self.may_enter(path, &below, &stat, noted.on)? {
            return Ok(None);
        }
        if keeps_others && !rights::owns(stat.uid, stat.gid) {
            return Err(kept_whole(STICKY));
        }
        let goes = |path: &[u8]| matches!(&self.mode, Mode::Deed { doomed } if doomed.contains(path));
        let is_closed = self.is_deed() && stat.is_closed_to_owner(0o700);
        let open_up = |is_needed: bool| (is_closed && is_needed).then(|| OpenedUp::open(&below, &stat)).transpose();
        let mut opened_up = open_up(noted.content_of == Some(path.len()) || goes(path))?;
        let mut level = Level {
            name,
            left: Vec::new(),
            above,
            identity: identity(stat),
            stays: false,
            mode: None,
            keeps_others: enter::keeps_others(&stat),
            path_bytes: path.len(),
        };
        // A descriptor lists once, and it is still needed.
        let listed = list(&below.open_child(c".")?)?;
        if enter::refusal(&below, &stat).is_some() && !listed.is_empty() {
            return Err(kept_whole(CLOSED_TO_OTHERS));
        }
        if opened_up.is_none() {
            opened_up = open_up(listed.iter().any(|(name, _)| goes(&child_path(path, name))))?;
        }
        for (name, is_directory) in listed {
            if is_directory == Some(true) {
                level.left.push(name);
                continue;
            }
            let child = child_path(path, &name);
            let here = (&below, level.keeps_others);
            let gone = self.delete_leaf(here, &name, &child, is_directory, noted).unwrap_or_else(|error| {
                self.not_deleted(path, &name, error);
                false
            });
            level.stays |= !gone;
            if level.stays && noted.content_of.is_some() {
                break;
            }
        }
        level.mode = opened_up.map(OpenedUp::hand_on);
        Ok(Some((below, level)))
    }
}

fn kept_whole(why: &str) -> Error {
    Error::new(Kind::Denied, "delete what is in it", "").because(why)
}

/// Whether a name stands for what a restore left of a directory that had to make way when it was killed. The restore itself
/// removes all else that it has such a name for.
fn is_left_of_a_directory(directory: &Directory, name: &[u8]) -> bool {
    let is_filled = || directory.open_child(name).and_then(|below| list(&below)).is_ok_and(|listed| !listed.is_empty());
    unfinished::is_leftover(name) && is_filled()
}

/// What is in a directory; of each name whether it is a directory, None where only a stat tells what it is.
fn list(directory: &Directory) -> Result<Vec<(Vec<u8>, Option<bool>)>> {
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
        listed.push((name.to_bytes().to_vec(), is_directory));
    }
    Ok(listed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{Permissions, create_dir_all, metadata, rename, set_permissions};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::PermissionsExt;

    /// A directory that was moved while it was emptied left those above it opened up.
    #[test]
    fn what_was_opened_up_is_closed_again_whatever_was_moved() {
        let place = tempfile::tempdir().expect("a directory");
        let at = |name: &str| place.path().join(name);
        create_dir_all(at("top/below/last")).expect("made");
        let open = |name: &str| Directory::open_path(at(name).as_os_str().as_bytes()).expect("opened");
        let level = |name: &str, path: &str, above: &str| {
            let identity = |name: &str| fstat(open(name)).map(|stat| (stat.device, stat.inode)).expect("it is there");
            let (identity, above) = (identity(path), identity(above));
            let (left, mode) = (Vec::new(), Some(0o555));
            let name = name.as_bytes().to_vec();
            Level { name, left, above, identity, stays: false, mode, keeps_others: false, path_bytes: 0 }
        };
        let levels = [level("top", "top", "."), level("below", "top/below", "top")];
        let (top, here) = (open("."), open("top/below"));
        for name in ["top", "top/below"] {
            set_permissions(at(name), Permissions::from_mode(0o755)).expect("set");
        }
        rename(at("top/below"), at("moved")).expect("moved");
        close_again(&top, &here, &levels);
        for name in ["top", "moved"] {
            assert_eq!(metadata(at(name)).expect("it is there").permissions().mode() & 0o7777, 0o555, "{name}");
            set_permissions(at(name), Permissions::from_mode(0o755)).expect("set");
        }
    }
}
