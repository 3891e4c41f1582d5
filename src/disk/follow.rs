//! Follow a symbolic link where that is right: above the sources of a backup, never out of the place restored into.

use super::read_dir::Directory;
use super::refused::refused;
use crate::error::Result;
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use rustix::io::{Errno, retry_on_intr};

/// How often a path with `..` is tried again.
const TRIES_MAX: usize = 10_000;
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// Opens the directory that a name leads to, as every program on this machine would.
pub fn open_followed(directory: &Directory, name: &[u8]) -> Result<Directory> {
    let opened = retry_on_intr(|| openat(directory, name, FLAGS, Mode::empty()));
    opened.map(Directory::from).map_err(|errno| refused("follow the link", name, errno))
}

/// Opens the directory at a path below `root`, where links mean what they would mean if `root` were `/`: none of them
/// leads out of it. `Unsupported` before Linux 5.6.
pub fn open_within(root: &Directory, path: &[u8]) -> Result<Directory> {
    let how = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    let open = || retry_on_intr(|| openat2(root, path, FLAGS, Mode::empty(), how));
    let mut opened = open();
    for _ in 0..TRIES_MAX {
        // The kernel cannot be sure that `..` stayed inside, as something was renamed on this machine meanwhile.
        if opened.as_ref().err() != Some(&Errno::AGAIN) {
            break;
        }
        std::thread::yield_now();
        opened = open();
    }
    opened.map(Directory::from).map_err(|errno| refused("follow the link", path, errno))
}
