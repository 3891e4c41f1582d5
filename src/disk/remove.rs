//! Remove one name of a directory.

use super::read_dir::Directory;
use super::refused::refused;
use crate::error::Result;
use rustix::fs::{AtFlags, unlinkat};
use rustix::io::Errno;

/// Removes a name that is not a directory. It is not an error if there is none.
pub(crate) fn remove_name(directory: &Directory, name: &[u8]) -> Result<()> {
    unlink(directory, name, AtFlags::empty())
}

/// Removes an empty directory. It is not an error if there is none.
pub(crate) fn remove_directory(directory: &Directory, name: &[u8]) -> Result<()> {
    unlink(directory, name, AtFlags::REMOVEDIR)
}

fn unlink(directory: &Directory, name: &[u8], how: AtFlags) -> Result<()> {
    match rustix::io::retry_on_intr(|| unlinkat(directory, name, how)) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(errno) => Err(refused("remove", name, errno)),
    }
}
