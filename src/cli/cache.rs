//! The folder of the cache: where it is, that it is marked as one, and whom it belongs to.

use super::open::folder;
use super::options::{GlobalOptions, absolute};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RawDir, fchown, fstat, openat, statat};
use rustix::process::{Gid, Uid, geteuid};
use siltstone::disk::whole::{make_private_dir, write_whole};
use siltstone::error::Result;
use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};

/// Tells other programs what may be left out (<https://bford.info/cachedir/>).
const TAG_NAME: &str = "CACHEDIR.TAG";
const TAG: &[u8] = b"Signature: 8a477f597d28d172789f06886806bc55\n\
                     # Made by silt. What is in this folder may be removed: the next backup takes longer.\n";
/// No folder of the cache is this deep.
const DEPTH_MAX: usize = 16;
/// Never through a link, which its owner may have put in place of the folder.
const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

pub fn cache_folder(options: &GlobalOptions) -> Result<PathBuf> {
    match options.cache_dir.as_ref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => absolute(path),
        None => Ok(folder("XDG_CACHE_HOME", ".cache")?.join("siltstone")),
    }
}

/// Marks the folder as a cache.
pub fn tag(cache: &Path) {
    let path = cache.join(TAG_NAME);
    if !path.exists() {
        // It only spares others to save the cache.
        let _best_effort = make_private_dir(cache).and_then(|()| write_whole(&path, TAG));
    }
}

/// Gives what root left in the cache of somebody else to its owner, who would be locked out of it.
pub fn hand_over(options: &GlobalOptions) {
    if !geteuid().is_root() {
        return;
    }
    if let Ok(cache) = cache_folder(options)
        && let Some(owner) = owner_of(&cache)
        && let Ok(folder) = openat(CWD, &cache, FOLDER, Mode::empty())
    {
        give(folder.as_fd(), &owner, 0);
    }
}

/// Who the cache belongs to.
struct Owner {
    user: Uid,
    group: Gid,
}

/// The owner of the folder or, where root made it, of the one that it lies in; none where that is root.
fn owner_of(cache: &Path) -> Option<Owner> {
    let owner = |path: &Path| {
        let stat = statat(CWD, path, AtFlags::SYMLINK_NOFOLLOW).ok()?;
        (stat.st_uid != 0).then(|| Owner { user: Uid::from_raw(stat.st_uid), group: Gid::from_raw(stat.st_gid) })
    };
    owner(cache).or_else(|| owner(cache.parent()?))
}

/// What this program keeps at the top of its cache: notes, and a folder for each repository.
fn is_ours(name: &CStr) -> bool {
    let is_repository = name.to_bytes().iter().filter(|byte| **byte != b'-').all(u8::is_ascii_hexdigit);
    [c"last-key", c"last-repository", c"CACHEDIR.TAG"].contains(&name) || is_repository
}

/// The folder and all in it that is root's. Its owner may have planted names there: no link is followed, and no file that
/// has another name elsewhere changes hands.
fn give(folder: BorrowedFd, owner: &Owner, depth: usize) {
    give_one(folder, owner);
    let mut space = [MaybeUninit::uninit(); 8192];
    let mut entries = RawDir::new(folder, &mut space);
    while let Some(Ok(entry)) = entries.next() {
        let name = entry.file_name();
        if [c".", c".."].contains(&name) || depth == 0 && !is_ours(name) {
            continue;
        }
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let Ok(opened) = openat(folder, name, flags, Mode::empty()) else { continue };
        match fstat(&opened).map(|stat| FileType::from_raw_mode(stat.st_mode)) {
            Ok(FileType::Directory) if depth < DEPTH_MAX => give(opened.as_fd(), owner, depth + 1),
            _ => give_one(opened.as_fd(), owner),
        }
    }
}

fn give_one(opened: BorrowedFd, owner: &Owner) {
    let Ok(stat) = fstat(opened) else { return };
    let is_ours = match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => true,
        FileType::RegularFile => stat.st_nlink == 1,
        _ => false,
    };
    if stat.st_uid == 0 && is_ours {
        // What stays root's is read by nobody else, and made anew.
        let _best_effort = fchown(opened, Some(owner.user), Some(owner.group));
    }
}
