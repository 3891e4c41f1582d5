//! Remove a name with everything below it, links never followed and directories never held open in number.

use super::read_dir::{Directory, Hint, ListBuffer, Names};
use super::refused::refused;
use super::stat::fstat;
use crate::error::{Error, Kind, Result};
use rustix::fs::{AtFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;
use std::ffi::CString;

/// One directory on the way down.
struct Level {
    /// Its name in the one above.
    name: CString,
    /// Sub-directories that are still there.
    left: Vec<CString>,
    /// Inode and device of the directory above, to be sure of the way back up.
    above: (u64, u64),
}

/// Removes the file, or the directory with all that is in it. That there is none is no error.
///
/// Only one directory is open at a time, so depth costs memory and no descriptors; going up goes through `..` and is
/// checked against the directory that we came from, so that somebody who moves directories meanwhile leads us nowhere.
pub fn remove_all(directory: &Directory, name: &[u8]) -> Result<()> {
    let failed = |errno| refused("remove", name, errno);
    match unlinkat(directory, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        // EISDIR is Linux, EPERM is POSIX (and what an immutable file says: then opening it as a directory fails).
        Err(Errno::ISDIR) => (),
        Err(errno) => return Err(failed(errno)),
    }
    let (mut names, mut buffer) = (Names::default(), ListBuffer::default());
    let identity = |directory: &Directory| fstat(directory).map(|stat| (stat.inode, stat.device));
    let first = CString::new(name).map_err(|_| failed(Errno::INVAL))?;
    let mut levels = vec![Level { name: first, left: Vec::new(), above: identity(directory)? }];
    let mut here = directory.open_child(name)?;
    levels[0].left = empty(&here, &mut names, &mut buffer)?;
    while let Some(level) = levels.last_mut() {
        if let Some(next) = level.left.pop() {
            let above = identity(&here)?;
            here = here.open_child(next.as_c_str())?;
            let left = empty(&here, &mut names, &mut buffer)?;
            levels.push(Level { name: next, left, above });
            continue;
        }
        let done = levels.pop().expect("the loop found a last level");
        if levels.is_empty() {
            return match unlinkat(directory, done.name.as_c_str(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => Ok(()),
                Err(errno) => Err(failed(errno)),
            };
        }
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        here = openat(&here, c"..", flags, Mode::empty()).map_err(failed)?.into();
        if identity(&here)? != done.above {
            return Err(Error::new(Kind::Conflict, "remove", String::from_utf8_lossy(name))
                .because("a directory in it was moved at the same time"));
        }
        match unlinkat(&here, done.name.as_c_str(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => (),
            Err(errno) => return Err(refused("remove", done.name.to_bytes(), errno)),
        }
    }
    Ok(())
}

/// Removes a name that is no directory. That there is none is no error.
pub fn remove_name(directory: &Directory, name: &[u8]) -> Result<()> {
    unlink(directory, name, AtFlags::empty())
}

/// Removes an empty directory. That there is none is no error.
pub fn remove_directory(directory: &Directory, name: &[u8]) -> Result<()> {
    unlink(directory, name, AtFlags::REMOVEDIR)
}

fn unlink(directory: &Directory, name: &[u8], how: AtFlags) -> Result<()> {
    match rustix::io::retry_on_intr(|| unlinkat(directory, name, how)) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(refused("remove", name, errno)),
    }
}

/// Removes all but the directories of a directory and says which those are.
fn empty(directory: &Directory, names: &mut Names, buffer: &mut ListBuffer) -> Result<Vec<CString>> {
    directory.names(names, buffer)?;
    let mut left = Vec::new();
    for (name, hint) in names.iter() {
        if hint == Hint::Directory {
            left.push(name.to_owned());
            continue;
        }
        match unlinkat(directory, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => (),
            Err(Errno::ISDIR) => left.push(name.to_owned()),
            Err(errno) => return Err(refused("remove", name.to_bytes(), errno)),
        }
    }
    Ok(left)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn a_tree_goes_and_what_its_links_point_to_stays() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path();
        std::fs::create_dir_all(path.join("a/b/c")).unwrap();
        std::fs::create_dir_all(path.join("a/d/e")).unwrap();
        std::fs::create_dir(path.join("kept")).unwrap();
        std::fs::write(path.join("kept/file"), b"x").unwrap();
        std::fs::write(path.join("a/b/file"), b"x").unwrap();
        std::os::unix::fs::symlink(path.join("kept"), path.join("a/b/link")).unwrap();
        let directory = Directory::open_path(path.as_os_str().as_bytes()).unwrap();
        remove_all(&directory, b"a").unwrap();
        remove_all(&directory, b"a").unwrap();
        assert!(!path.join("a").exists() && path.join("kept/file").exists());
    }

    #[test]
    fn depth_costs_no_descriptors() {
        let folder = tempfile::tempdir().unwrap();
        let directory = Directory::open_path(folder.path().as_os_str().as_bytes()).unwrap();
        let mut here = directory.open_child(c".").unwrap();
        for _ in 0..5000 {
            rustix::fs::mkdirat(&here, c"d", Mode::RWXU).unwrap();
            here = here.open_child(c"d").unwrap();
        }
        remove_all(&directory, b"d").unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    }
}
