//! Delete a directory and everything in it. Only one directory is open at a time: depth costs memory, but no descriptors.

use crate::disk::apply::chmod_open;
use crate::disk::opened_up::{OpenedUp, close_below};
use crate::disk::stat::fstat;
use crate::disk::{Directory, Identity, remove, rights};
use crate::entry::EntryKind;
use crate::error::{Kind, Result};
use crate::restore::delete_entry::{ListedEntry, list, undeletable};
use crate::restore::delete_place::{DeletePlace, NotedDirectory};
use crate::restore::directory_facts::{keeps_others, refusal};
use crate::restore::paths::child_path;
use crate::restore::planned_deletions::FoundForDeletion;
use crate::restore::reasons::STICKY;
use crate::restore::run::{RestoreRun, RunMode};

/// Said of one of our own.
const CLOSED_TO_PLANS: &str = "its mode prevents the plan from reading it: run `chmod u+rwx` on it, then restore again";
/// Said of what is in a directory of another user.
const CLOSED_TO_OTHERS: &str = "its mode does not let this user delete anything in it";

/// A directory on the way down, with what is still to be done in it.
struct DeleteLevel {
    name: Vec<u8>,
    /// Names of directories in it that were not looked into yet.
    left: Vec<Vec<u8>>,
    /// The directory above, to be sure of the way back up.
    above: Identity,
    /// Something in it stays, and so it does itself.
    stays: bool,
    identity: Identity,
    found: FoundForDeletion,
    /// The mode of one of our own that did not let its owner work in it, and was opened up.
    mode: Option<u32>,
    keeps_others: bool,
    /// Where its path ends.
    path_bytes: usize,
}

/// The way down into a directory that is deleted. It leads back up through `..`, which must be the directory that it came
/// from: moving a directory meanwhile does not lead it elsewhere.
struct DeleteWay<'a> {
    /// The directory that it begins in.
    top: DeletePlace<'a>,
    /// The directory of the last level, or the top again without any.
    here: Directory,
    levels: Vec<DeleteLevel>,
}

impl DeleteWay<'_> {
    fn place(&self) -> DeletePlace<'_> {
        let keeps_others = self.levels.last().map_or(self.top.keeps_others, |level| level.keeps_others);
        self.top.with(&self.here, keeps_others)
    }

    fn go_down(&mut self, below: Directory, level: DeleteLevel) {
        self.here = below;
        self.levels.push(level);
    }

    /// Goes one level up; returns what it leaves.
    fn go_up(&mut self) -> Result<(Directory, DeleteLevel)> {
        let above = self.here.open_child(c"..")?;
        let found = fstat(&above)?.identity();
        if self.levels.last().is_none_or(|level| level.above != found) {
            return Err(undeletable(Kind::Conflict, "a directory in it was moved during the restore"));
        }
        let left = self.levels.pop().expect("there was a last one");
        Ok((std::mem::replace(&mut self.here, above), left))
    }

    /// Resets the modes of opened-up directories after a deletion ended early, deepest first. A directory that was moved
    /// meanwhile is found only if it is the last.
    fn close_again(&self) {
        let names: Vec<&[u8]> = self.levels.iter().map(|level| level.name.as_slice()).collect();
        for (at, level) in self.levels.iter().enumerate().rev() {
            // The error that ended the deletion is the one to tell.
            let _best_effort = level.mode.map(|mode| {
                if at + 1 == self.levels.len() {
                    chmod_open(&self.here, mode)
                } else {
                    close_below(self.top.directory, &names[..=at], level.identity, mode)
                }
            });
        }
    }
}

impl RestoreRun<'_> {
    /// Deletes a directory with what is in it, as far as nothing protects it; whether it is gone.
    pub(crate) fn delete_tree(
        &self,
        top: DeletePlace<'_>,
        name: &[u8],
        path: Vec<u8>,
        noted: &NotedDirectory,
    ) -> Result<bool> {
        let mut way = DeleteWay { top, here: top.directory.open_child(c".")?, levels: Vec::new() };
        let deleted = self.delete_below(&mut way, name, path, noted);
        if deleted.is_err() {
            way.close_again();
        }
        deleted
    }

    fn delete_below(
        &self,
        way: &mut DeleteWay<'_>,
        name: &[u8],
        mut path: Vec<u8>,
        noted: &NotedDirectory,
    ) -> Result<bool> {
        match self.look_into(way.place(), name.to_vec(), &path, noted) {
            Ok(Some((below, level))) => way.go_down(below, level),
            Ok(None) => return Ok(false),
            Err(error) if error.is(Kind::NotFound) && noted.content_of.is_none() => return Ok(true),
            Err(error) => return Err(error),
        }
        loop {
            self.check()?;
            let level = way.levels.last_mut().expect("the loop ends with the last level");
            path.truncate(level.path_bytes);
            if level.stays && noted.content_of.is_some() {
                // The directory cannot be cleared: nothing more in it is deleted.
                level.left.clear();
            }
            let Some(name) = level.left.pop() else {
                let (below, done) = way.go_up()?;
                let is_gone = self.delete_emptied(way.place(), &below, &done, &path, noted);
                match way.levels.last_mut() {
                    Some(above) => above.stays |= !is_gone,
                    None => return Ok(is_gone),
                }
                continue;
            };
            path.push(b'/');
            path.extend_from_slice(&name);
            let found = match self.look_into(way.place(), name, &path, noted) {
                // Another process deleted it.
                Err(error) if error.is(Kind::NotFound) => continue,
                Err(error) => {
                    self.not_deleted(&path, error, noted);
                    None
                }
                Ok(found) => found,
            };
            match found {
                Some((below, level)) => way.go_down(below, level),
                None => way.levels.last_mut().expect("the loop ends with the last level").stays = true,
            }
        }
    }

    /// Deletes a directory after its contents, unless something in it stays. Returns whether it is gone.
    fn delete_emptied(
        &self,
        above: DeletePlace<'_>,
        below: &Directory,
        done: &DeleteLevel,
        path: &[u8],
        noted: &NotedDirectory,
    ) -> bool {
        let is_content = noted.content_of == Some(path.len());
        let is_to_go = !done.stays && (is_content || self.options.includes_with_parents(path, true));
        let deleted = if is_to_go && !is_content {
            self.delete_name(path, done.found, noted, || remove::remove_directory(above.directory, &done.name))
        } else {
            Ok(is_to_go)
        };
        let is_gone = matches!(deleted, Ok(true));
        let has_stayed = is_content || !is_gone;
        let closed = done.mode.filter(|_| has_stayed).map_or(Ok(()), |mode| chmod_open(below, mode));
        for error in deleted.err().into_iter().chain(closed.err()) {
            self.not_deleted(path, error, noted);
        }
        is_gone
    }

    /// Opens a directory that may be deleted, and deletes everything in it except directories. Returns None if the directory and all of
    /// its contents stay.
    fn look_into(
        &self,
        above: DeletePlace<'_>,
        name: Vec<u8>,
        path: &[u8],
        noted: &NotedDirectory,
    ) -> Result<Option<(Directory, DeleteLevel)>> {
        let below = match above.directory.open_child(name.as_slice()) {
            // It became something else since it was listed.
            Err(error) if error.is(Kind::Conflict) => return Ok(None),
            Err(error) if error.is(Kind::Denied) && is_closed(above.directory, &name) => {
                return Err(undeletable(Kind::Denied, CLOSED_TO_PLANS));
            }
            other => other?,
        };
        let stat = fstat(&below)?;
        if !self.may_look_into(path, &below, &stat, noted.on)? {
            return Ok(None);
        }
        if above.keeps_others && !rights::owns(stat.uid, stat.gid) {
            return Err(undeletable(Kind::Denied, STICKY));
        }
        let goes = |path: &[u8]| matches!(&self.mode, RunMode::Restore { deletions } if deletions.contains(path));
        let is_closed = self.is_restore() && stat.is_closed_to_owner(0o700);
        let open_up = |is_needed: bool| (is_closed && is_needed).then(|| OpenedUp::open(&below, &stat)).transpose();
        let mut opened_up = open_up(noted.content_of == Some(path.len()) || goes(path))?;
        if opened_up.is_none() && stat.is_closed_to_owner(0o500) {
            return Err(undeletable(Kind::Denied, CLOSED_TO_PLANS));
        }
        // A descriptor lists once, and it is still needed.
        let listed = list(&below.open_child(c".")?)?;
        if refusal(&below, &stat).is_some() && !listed.is_empty() {
            return Err(undeletable(Kind::Denied, CLOSED_TO_OTHERS));
        }
        if opened_up.is_none() {
            opened_up = open_up(listed.iter().any(|one| goes(&child_path(path, &one.name))))?;
        }
        let place = above.with(&below, keeps_others(&stat));
        let (left, stays) = self.delete_leaves(place, listed, path, noted)?;
        let level = DeleteLevel {
            name,
            left,
            above: fstat(above.directory)?.identity(),
            stays,
            identity: stat.identity(),
            found: above.found(&stat),
            mode: opened_up.map(OpenedUp::hand_on),
            keeps_others: place.keeps_others,
            path_bytes: path.len(),
        };
        Ok(Some((below, level)))
    }

    /// Deletes all entries except directories. Returns the names of the directories, and whether any entry stays.
    fn delete_leaves(
        &self,
        place: DeletePlace<'_>,
        listed: Vec<ListedEntry>,
        path: &[u8],
        noted: &NotedDirectory,
    ) -> Result<(Vec<Vec<u8>>, bool)> {
        let (mut left, mut stays) = (Vec::new(), false);
        for one in listed {
            // A directory may have very many of them.
            self.check()?;
            if one.is_directory == Some(true) {
                left.push(one.name);
                continue;
            }
            let child = child_path(path, &one.name);
            stays |= !self.delete_leaf(place, &one, &child, noted).unwrap_or_else(|error| {
                self.not_deleted(&child, error, noted);
                false
            });
            if stays && noted.content_of.is_some() {
                break;
            }
        }
        Ok((left, stays))
    }
}

/// Whether a name is a directory of our own that its mode closes to its owner.
fn is_closed(directory: &Directory, name: &[u8]) -> bool {
    directory.stat(name).is_ok_and(|stat| stat.is(EntryKind::Directory) && stat.is_closed_to_owner(0o500))
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
            let identity = |name: &str| fstat(open(name)).map(|stat| stat.identity()).expect("it is there");
            let (identity, above) = (identity(path), identity(above));
            let (left, mode) = (Vec::new(), Some(0o555));
            let found = FoundForDeletion::of(&Default::default(), true);
            let name = name.as_bytes().to_vec();
            DeleteLevel { name, left, above, identity, found, stays: false, mode, keeps_others: false, path_bytes: 0 }
        };
        let levels = vec![level("top", "top", "."), level("below", "top/below", "top")];
        let top = open(".");
        let top = DeletePlace::new(&top, false);
        let way = DeleteWay { top, here: open("top/below"), levels };
        for name in ["top", "top/below"] {
            set_permissions(at(name), Permissions::from_mode(0o755)).expect("set");
        }
        rename(at("top/below"), at("moved")).expect("moved");
        way.close_again();
        for name in ["top", "moved"] {
            assert_eq!(metadata(at(name)).expect("it is there").permissions().mode() & 0o7777, 0o555, "{name}");
            set_permissions(at(name), Permissions::from_mode(0o755)).expect("set");
        }
    }
}
