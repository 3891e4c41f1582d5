//! Write as root into the folder of another user: every folder on the way is opened by itself and never through a link, so
//! that its owner cannot make root write, or hand over, anything elsewhere.

use crate::disk::whole::sync_directory;
use crate::storage::local::folder::rename_new;
use rustix::fd::{AsFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Gid, Mode, OFlags, Uid, fchown, mkdirat, openat, renameat, unlinkat};
use rustix::io::Errno;
use std::fs::File;
use std::io::Result;
use std::path::{Component, Path};

/// User and group that files are given to.
#[derive(Clone, Copy)]
pub(super) struct FolderOwner {
    pub user: u32,
    pub group: u32,
}

impl FolderOwner {
    pub(crate) fn hand_over(self, made: impl AsFd) {
        // The file system may have no owners, or its server may map root to nobody.
        let _best_effort = fchown(made, Some(Uid::from_raw(self.user)), Some(Gid::from_raw(self.group)));
    }
}

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Opens the folder at a path below `root`; what is missing of it is made for `owner`, or is an error where there is none.
fn open_folder(root: &Path, below: &Path, owner: Option<FolderOwner>) -> Result<OwnedFd> {
    // The root itself is what its caller named, links included.
    let mut here = openat(CWD, root, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    for part in below.components() {
        let Component::Normal(name) = part else { return Err(Errno::INVAL.into()) };
        let open = || openat(&here, name, FOLDER, Mode::empty());
        here = match (open(), owner) {
            (Err(Errno::NOENT), Some(owner)) => {
                match mkdirat(&here, name, Mode::RWXU) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => return Err(errno.into()),
                }
                let made = open()?;
                owner.hand_over(&made);
                sync_directory(&here)?;
                made
            }
            (opened, _) => opened?,
        };
    }
    Ok(here)
}

/// A new file of the owner's in the folder of a path below `root`.
pub(super) fn create(root: &Path, file: &Path, owner: FolderOwner) -> Result<File> {
    let folder = open_folder(root, parent(file), Some(owner))?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = openat(&folder, name(file)?, flags, Mode::RUSR | Mode::WUSR)?;
    owner.hand_over(&made);
    Ok(File::from(made))
}

/// Moves a file below `root`; both folders are synced.
pub(super) fn rename(root: &Path, from: &Path, to: &Path, replace: bool, owner: FolderOwner) -> Result<()> {
    let source = open_folder(root, parent(from), None)?;
    let target = open_folder(root, parent(to), Some(owner))?;
    if replace {
        renameat(&source, name(from)?, &target, name(to)?)?
    } else {
        rename_new(&source, name(from)?, &target, name(to)?)?
    }
    sync_directory(&target)?;
    sync_directory(&source)?;
    Ok(())
}

/// Removes a file below `root`; its folder is synced.
pub(super) fn remove(root: &Path, file: &Path) -> Result<()> {
    let folder = open_folder(root, parent(file), None)?;
    unlinkat(&folder, name(file)?, AtFlags::empty())?;
    sync_directory(&folder)?;
    Ok(())
}

fn parent(file: &Path) -> &Path {
    file.parent().unwrap_or(Path::new(""))
}

fn name(file: &Path) -> Result<&std::ffi::OsStr> {
    file.file_name().ok_or(std::io::Error::from(Errno::INVAL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn no_link_below_the_root_is_followed() {
        // A user replaced a folder of their repository by a link; root, backing up into it, left a file of theirs there.
        let (root, elsewhere) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let owner =
            FolderOwner { user: rustix::process::geteuid().as_raw(), group: rustix::process::getegid().as_raw() };
        symlink(elsewhere.path(), root.path().join("index")).unwrap();
        let (file, inside) = (Path::new("index/file"), Path::new("packs/ab/file"));
        create(root.path(), inside, owner).unwrap();
        assert!(create(root.path(), file, owner).is_err());
        assert!(rename(root.path(), inside, file, true, owner).is_err());
        assert!(remove(root.path(), file).is_err());
        assert!(open_folder(root.path(), Path::new("index/below"), Some(owner)).is_err());
        assert_eq!(std::fs::read_dir(elsewhere.path()).unwrap().count(), 0);
        rename(root.path(), inside, Path::new("snapshots/file"), false, owner).unwrap();
        remove(root.path(), Path::new("snapshots/file")).unwrap();
        // What is not there is made for a new file alone.
        assert!(rename(root.path(), Path::new("gone/file"), inside, true, owner).is_err());
        assert!(remove(root.path(), Path::new("gone/file")).is_err() && !root.path().join("gone").exists());
    }
}
