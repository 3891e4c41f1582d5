//! Follow a symbolic link where that is right: above the sources of a backup, never out of the place restored into.

use super::read_dir::Directory;
use super::refused::refused;
use super::stat::{Identity, fstat};
use crate::entry::EntryKind;
use crate::error::Result;
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags, openat, openat2, readlinkat};
use rustix::io::{Errno, retry_on_intr};

/// How often a path with `..` is tried again.
const TRIES_MAX: usize = 10_000;
const FLAGS: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// As many links as the kernel follows in one path (path_resolution(7)).
pub(crate) const LINKS_MAX: usize = 40;

/// Opens the directory that a name leads to, as every program on this machine would.
pub(crate) fn open_followed(directory: &Directory, name: &[u8]) -> Result<Directory> {
    let opened = retry_on_intr(|| openat(directory, name, FLAGS, Mode::empty()));
    opened.map(Directory::from).map_err(|errno| refused("follow the link", name, errno))
}

/// Opens the directory at a path below `root`, where links mean what they would mean if `root` were `/`: none of them
/// leads out of it. `Unsupported` before Linux 5.6.
pub(crate) fn open_within(root: &Directory, path: &[u8]) -> Result<Directory> {
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

/// Where links lead that are followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FollowWithin {
    /// Anywhere, as for [`open_followed`].
    Machine,
    /// Nowhere but below the directory that the path begins in, as for [`open_within`].
    Start,
}

/// Where a path leads.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct FollowedPath {
    pub end: Identity,
    /// The links and directories that it leads through, and the end.
    pub passed: Vec<Identity>,
}

/// Returns where a path leads to from `start`, or None if a link on the way belongs neither to root nor to this user: its owner could
/// lead a restore anywhere.
pub(crate) fn follow_trusted_links(
    start: &Directory,
    path: &[u8],
    within: FollowWithin,
) -> Result<Option<FollowedPath>> {
    let failed = |name: &[u8], errno| refused("follow the link", name, errno);
    let step = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let open = |from: &Directory, name: &[u8]| {
        let opened = retry_on_intr(|| openat(from, name, step, Mode::empty()));
        opened.map(Directory::from).map_err(|errno| failed(name, errno))
    };
    let root = match within {
        FollowWithin::Start => open(start, b".")?,
        FollowWithin::Machine => {
            openat(CWD, c"/", step, Mode::empty()).map(Directory::from).map_err(|errno| failed(b"/", errno))?
        }
    };
    // The kernel knows the root of the machine.
    let is_end = |here: &Directory| match within {
        FollowWithin::Start => Ok(fstat(here)?.identity() == fstat(&root)?.identity()),
        FollowWithin::Machine => Ok(false),
    };
    let mut here = open(start, b".")?;
    let (mut left, mut links, mut passed) = (names_to_pass(path), 0, Vec::new());
    while let Some(name) = left.pop() {
        if name == b".." && is_end(&here)? {
            continue;
        }
        let next = open(&here, &name)?;
        let stat = fstat(&next)?;
        passed.push(stat.identity());
        if !stat.is(EntryKind::Symlink) {
            here = next;
            continue;
        }
        links += 1;
        if stat.uid != 0 && !stat.is_own() {
            return Ok(None);
        }
        if links > LINKS_MAX {
            return Err(failed(&name, Errno::LOOP));
        }
        let to = readlinkat(&next, c"", Vec::new()).map_err(|errno| failed(&name, errno))?;
        if to.as_bytes().starts_with(b"/") {
            here = open(&root, b".")?;
        }
        left.extend(names_to_pass(to.as_bytes()));
    }
    Ok(Some(FollowedPath { end: fstat(&here)?.identity(), passed }))
}

/// The names of a path, the last one first.
pub(crate) fn names_to_pass(path: &[u8]) -> Vec<Vec<u8>> {
    let names = path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".");
    names.map(<[u8]>::to_vec).rev().collect()
}
