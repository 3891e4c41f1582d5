//! Replace an entry by one of another kind if one of them is a directory. No single call does that: the two change
//! places, and change back if the old one cannot be removed.

use super::apply::restore_owner_and_mode;
use super::create::TargetDirectory;
use super::refused::{refused, shown};
use super::stat::Identity;
use super::unfinished;
use crate::error::{Error, Result};
use rustix::fs::{Mode, RenameFlags};
use rustix::io::{Errno, retry_on_intr};

/// What had a name until a new entry took it.
pub(crate) struct DisplacedEntry {
    /// The name under which it is now, with all that is in it.
    pub aside: Vec<u8>,
    new: Identity,
}

impl TargetDirectory {
    /// Puts an unfinished entry in the place of one of another kind, of which one is a directory, and removes the old
    /// one; an old directory must be empty. An error leaves the old one.
    pub(crate) fn exchange(&self, unfinished: &[u8], name: &[u8], old_is_directory: bool) -> Result<()> {
        match self.change_places(unfinished, name)? {
            Some(displaced) => {
                let removed = if old_is_directory {
                    self.remove_directory(&displaced.aside)
                } else {
                    self.remove_name(&displaced.aside)
                };
                removed.or_else(|error| self.change_back(&displaced, unfinished, name).and(Err(error)))
            }
            None if old_is_directory => self.replace_empty_directory(unfinished, name),
            None => Err(refused("replace", name, Errno::XDEV)),
        }
    }

    /// Puts what is unfinished in the place of something of another kind, which has another name then. None if the file
    /// system moves no such directory (overlayfs one of a lower layer): then nothing has changed. An error leaves the old one.
    pub(crate) fn change_places(&self, unfinished: &[u8], name: &[u8]) -> Result<Option<DisplacedEntry>> {
        let new = self.directory().stat(unfinished)?.identity();
        match self.swap(unfinished, name) {
            Ok(()) => Ok(Some(DisplacedEntry { aside: unfinished.to_vec(), new })),
            // NFS and others: the old one steps aside, and back again if the new one cannot take its name.
            Err(Errno::INVAL | Errno::NOSYS) => {
                let aside = unfinished::next_name();
                let here = self.directory();
                match retry_on_intr(|| rustix::fs::renameat(here, name, here, &aside)) {
                    Err(Errno::XDEV) => return Ok(None),
                    moved => moved.map_err(|errno| refused("replace", name, errno))?,
                }
                match self.rename_new(unfinished, name) {
                    Ok(()) => Ok(Some(DisplacedEntry { aside, new })),
                    Err(error) => Err(self.rename_back(&aside, name).err().unwrap_or(error)),
                }
            }
            Err(Errno::XDEV) => Ok(None),
            Err(errno) => Err(refused("replace", name, errno)),
        }
    }

    /// Undoes [`TargetDirectory::change_places`]: what was displaced has its name again, and the new entry is unfinished again. If
    /// something else has the name by now, that keeps it, and the error says where the rest of the old one is.
    pub(crate) fn change_back(&self, displaced: &DisplacedEntry, unfinished: &[u8], name: &[u8]) -> Result<()> {
        let DisplacedEntry { aside, new } = displaced;
        if !self.is_at(name, *new) {
            return self.rename_back(aside, name);
        }
        match self.swap(aside, name) {
            Ok(()) if self.is_at(aside, *new) => {
                if aside == unfinished {
                    Ok(())
                } else {
                    self.rename(aside, unfinished)
                }
            }
            // Between the look and the swap another program has put something there.
            Ok(()) => self
                .swap(aside, name)
                .map_err(|errno| refused("put back", name, errno))
                .and_then(|()| self.rename_back(aside, name)),
            Err(Errno::INVAL | Errno::NOSYS) => {
                self.rename_new(name, unfinished)?;
                if !self.is_at(unfinished, *new) {
                    self.rename_new(unfinished, name)?;
                }
                self.rename_back(aside, name)
            }
            Err(_) => self.rename_back(aside, name),
        }
    }

    /// Renames what stands aside back to its name. If the name is taken, it gets another one that no restore deletes, and the
    /// error says which.
    fn rename_back(&self, aside: &[u8], name: &[u8]) -> Result<()> {
        let Err(error) = self.rename_new(aside, name) else { return Ok(()) };
        let kept = unfinished::kept_name(aside);
        let at = if self.rename_new(aside, &kept).is_ok() { &kept } else { aside };
        let why = format!("{}; what remains of the old entry is now called {}", error.why(), shown(at));
        Err(Error::new(error.kind(), "put back", shown(name)).because(why))
    }

    /// For what the file system does not let change places: the empty directory goes first. Should the new one not get its
    /// name then, there is an empty directory again.
    pub(crate) fn replace_empty_directory(&self, unfinished: &[u8], name: &[u8]) -> Result<()> {
        let old = self.directory().stat(name)?;
        self.remove_directory(name)?;
        self.rename_new(unfinished, name).inspect_err(|_| {
            // The error of the new one is returned.
            let mode = Mode::from_raw_mode(old.permissions());
            let _best_effort = rustix::fs::mkdirat(self.directory(), name, mode)
                .map(|()| restore_owner_and_mode(self.directory(), name, &old));
        })
    }

    fn swap(&self, one: &[u8], other: &[u8]) -> Result<(), Errno> {
        let here = self.directory();
        retry_on_intr(|| rustix::fs::renameat_with(here, one, here, other, RenameFlags::EXCHANGE))
    }

    /// Whether a name still leads to this inode.
    fn is_at(&self, name: &[u8], identity: Identity) -> bool {
        self.directory().stat(name).is_ok_and(|found| found.identity() == identity)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::Directory;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::path::Path;

    /// A directory `name` with a file in it has made way for a new file.
    fn displaced(place: &Path) -> (TargetDirectory, DisplacedEntry, Vec<u8>) {
        fs::create_dir(place.join("name")).expect("made");
        fs::write(place.join("name/old"), "old").expect("written");
        let unfinished = unfinished::next_name();
        fs::write(place.join(std::ffi::OsStr::from_bytes(&unfinished)), "new").expect("written");
        let directory = Directory::open_path(place.as_os_str().as_bytes()).expect("opened");
        let target = TargetDirectory::new(directory).expect("a target");
        let displaced = target.change_places(&unfinished, b"name").expect("changed").expect("it can be moved");
        assert_eq!(fs::read(place.join("name")).expect("read"), b"new");
        (target, displaced, unfinished)
    }

    #[test]
    fn what_was_displaced_has_its_name_again() {
        for is_removed in [false, true] {
            let place = tempfile::tempdir().expect("a directory");
            let (target, displaced, unfinished) = displaced(place.path());
            if is_removed {
                fs::remove_file(place.path().join("name")).expect("removed");
            }
            target.change_back(&displaced, &unfinished, b"name").expect("changed back");
            assert_eq!(fs::read(place.path().join("name/old")).expect("read"), b"old");
            assert_eq!(fs::read_dir(place.path()).expect("listed").count(), if is_removed { 1 } else { 2 });
        }
    }

    /// A file that another program had put at the name was swapped away and deleted.
    #[test]
    fn what_others_put_at_the_name_stays() {
        let place = tempfile::tempdir().expect("a directory");
        let (target, displaced, unfinished) = displaced(place.path());
        fs::write(place.path().join("theirs"), "theirs").expect("written");
        fs::rename(place.path().join("theirs"), place.path().join("name")).expect("renamed");
        let error = target.change_back(&displaced, &unfinished, b"name").expect_err("the name is taken");
        assert_eq!(fs::read(place.path().join("name")).expect("read"), b"theirs");
        let kept = unfinished::kept_name(&unfinished);
        let kept = place.path().join(std::ffi::OsStr::from_bytes(&kept));
        assert_eq!(fs::read(kept.join("old")).expect("read"), b"old");
        assert!(error.to_string().contains("silt-kept-"), "{error}");
    }
}
