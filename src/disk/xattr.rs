//! Extended attributes, POSIX ACLs and capabilities among them, of open files and of names in a directory.

use super::acl::{ACL_ACCESS, ACL_DEFAULT, is_acl};
use super::read_dir::Directory;
use super::refused::{refused, refused_name};
use crate::entry::Xattr;
use crate::error::{Error, Result};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Mode, OFlags, XattrFlags, openat, statat};
use rustix::io::Errno;
use rustix::path::Arg;
use std::ffi::{CStr, CString};
use std::sync::LazyLock;

/// The kernel's own limits (XATTR_LIST_MAX, XATTR_SIZE_MAX).
const LIST_BYTES_MAX: usize = 64 << 10;
const VALUE_BYTES_MAX: usize = 64 << 10;
/// Enough for the list of nearly every file.
const LIST_BYTES_STACK: usize = 1024;

/// The prefix of attributes that only administrators of the whole machine see.
pub(super) const TRUSTED: &[u8] = b"trusted.";
const CAPABILITY: &CStr = c"security.capability";

/// Whether an attribute belongs to a backup. What is left out: `system.*` that only mirrors something else, and
/// `security.evm`, a seal over one inode's number that can fit no other.
pub(crate) fn is_kept(name: &[u8]) -> bool {
    let kept: [&[u8]; 4] = [b"user.", TRUSTED, b"security.", b"btrfs."];
    is_acl(name) || kept.iter().any(|prefix| name.starts_with(prefix)) && name != b"security.evm"
}

/// What attributes are read from or set on.
enum XattrPlace<'a> {
    Open(BorrowedFd<'a>),
    /// A path that ends in the name itself: links are not followed.
    Path(CString),
    /// Opened for the purpose, as it has no such path.
    Held(OwnedFd),
    /// There is no way to it.
    Nowhere,
}

/// Whether names in an open directory have a path: a bare root file system may have no /proc.
static HAS_PROC: LazyLock<bool> = LazyLock::new(|| std::path::Path::new("/proc/self/fd").exists());

/// Whether the attributes of links, devices and FIFOs can be reached.
pub(super) fn has_proc() -> bool {
    *HAS_PROC
}

impl XattrPlace<'_> {
    /// O_PATH descriptors refuse the calls for descriptors, and opening a device or FIFO has effects; the way through
    /// /proc has neither problem.
    fn named(directory: &Directory, name: impl Arg + Copy) -> Result<XattrPlace<'static>, Errno> {
        if !has_proc() {
            return XattrPlace::opened(directory, name);
        }
        let name = name.as_cow_c_str()?;
        let mut path = format!("/proc/self/fd/{}/", directory.as_fd().as_raw_fd()).into_bytes();
        path.extend_from_slice(name.to_bytes());
        CString::new(path).map(XattrPlace::Path).map_err(|_| Errno::INVAL)
    }

    /// Files and directories can be opened; of links, devices and FIFOs the attributes stay out of reach.
    fn opened(directory: &Directory, name: impl Arg + Copy) -> Result<XattrPlace<'static>, Errno> {
        let stat = statat(directory.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile | FileType::Directory => {
                openat(directory.as_fd(), name, flags, Mode::empty()).map(XattrPlace::Held)
            }
            _ => Ok(XattrPlace::Nowhere),
        }
    }

    fn list(&self, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            XattrPlace::Open(fd) => rustix::fs::flistxattr(fd, buffer),
            XattrPlace::Path(path) => rustix::fs::llistxattr(path.as_c_str(), buffer),
            XattrPlace::Held(fd) => rustix::fs::flistxattr(fd, buffer),
            XattrPlace::Nowhere => Err(Errno::NOTSUP),
        }
    }

    fn get(&self, name: &CStr, buffer: &mut [u8]) -> Result<usize, Errno> {
        match self {
            XattrPlace::Open(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            XattrPlace::Path(path) => rustix::fs::lgetxattr(path.as_c_str(), name, buffer),
            XattrPlace::Held(fd) => rustix::fs::fgetxattr(fd, name, buffer),
            XattrPlace::Nowhere => Err(Errno::NOTSUP),
        }
    }

    fn set(&self, name: &CStr, value: &[u8]) -> Result<(), Errno> {
        match self {
            XattrPlace::Open(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            XattrPlace::Path(path) => rustix::fs::lsetxattr(path.as_c_str(), name, value, XattrFlags::empty()),
            XattrPlace::Held(fd) => rustix::fs::fsetxattr(fd, name, value, XattrFlags::empty()),
            XattrPlace::Nowhere => Err(Errno::NOTSUP),
        }
    }

    fn remove(&self, name: &CStr) -> Result<(), Errno> {
        match self {
            XattrPlace::Open(fd) => rustix::fs::fremovexattr(fd, name),
            XattrPlace::Path(path) => rustix::fs::lremovexattr(path.as_c_str(), name),
            XattrPlace::Held(fd) => rustix::fs::fremovexattr(fd, name),
            XattrPlace::Nowhere => Err(Errno::NOTSUP),
        }
    }

    /// Reads the attributes that belong to a backup, sorted by name. Calls `each_failed` with the name and the error of each one that
    /// cannot be read; its own error ends the reading.
    fn read(&self, mut each_failed: impl FnMut(&CStr, Errno) -> Result<(), Errno>) -> Result<Vec<Xattr>, Errno> {
        // Most files have none: one call, nothing allocated.
        let mut stack = [0; LIST_BYTES_STACK];
        let mut heap = Vec::new();
        let list = match self.list(&mut stack) {
            Ok(0) => return Ok(Vec::new()),
            Ok(length) => &stack[..length],
            Err(Errno::RANGE) => {
                heap.resize(LIST_BYTES_MAX, 0);
                let length = self.list(&mut heap)?;
                &heap[..length]
            }
            Err(Errno::NOTSUP | Errno::NODATA | Errno::NOSYS) => return Ok(Vec::new()),
            Err(errno) => return Err(errno),
        };
        let mut found = Vec::new();
        let mut value = [0; LIST_BYTES_STACK];
        for name in list.split_inclusive(|byte| *byte == 0) {
            let Ok(name) = CStr::from_bytes_with_nul(name) else { continue };
            if !is_kept(name.to_bytes()) {
                continue;
            }
            let read = match self.get(name, &mut value) {
                Ok(length) => Ok(value[..length].to_vec()),
                Err(Errno::RANGE) => {
                    let mut value = vec![0; VALUE_BYTES_MAX];
                    self.get(name, &mut value).map(|length| value[..length].to_vec())
                }
                Err(errno) => Err(errno),
            };
            let value = match read {
                Ok(value) => value,
                // Removed since it was listed, or listed for every user and readable by few (trusted.*).
                Err(Errno::NODATA | Errno::NOTSUP) => continue,
                Err(errno) => {
                    each_failed(name, errno)?;
                    continue;
                }
            };
            found.push(Xattr { name: name.to_bytes().to_vec(), value });
        }
        found.sort_unstable();
        Ok(found)
    }

    /// Reads the attributes that decide about rights by their names, for when the list of all cannot be read. Without its ACL, a restored
    /// file could give its group more rights than it had: beside an ACL, the group bits of the mode are the mask.
    fn read_rights(&self) -> Vec<Xattr> {
        let mut value = vec![0; VALUE_BYTES_MAX];
        let mut read = |name: &CStr| {
            let length = self.get(name, &mut value).ok()?;
            Some(Xattr { name: name.to_bytes().to_vec(), value: value[..length].to_vec() })
        };
        // In the order of their names.
        [CAPABILITY, ACL_ACCESS, ACL_DEFAULT].into_iter().filter_map(&mut read).collect()
    }
}

/// The attributes of an open file or directory that belong to a backup, sorted by name; none where the file system
/// has no such thing.
#[inline]
pub(crate) fn read_xattrs(fd: impl AsFd) -> Result<Vec<Xattr>> {
    let read = XattrPlace::Open(fd.as_fd()).read(|_, errno| Err(errno));
    read.map_err(|errno| refused("read the attributes of a file", b"", errno))
}

/// The same of a name in a directory, of a link itself. Needs /proc.
pub(crate) fn read_xattrs_at(directory: &Directory, name: impl Arg + Copy) -> Result<Vec<Xattr>> {
    let read = XattrPlace::named(directory, name).and_then(|place| place.read(|_, errno| Err(errno)));
    read.map_err(|errno| refused_name("read the attributes of", name, errno))
}

/// What can be read of the attributes that belong to a backup.
#[derive(Default)]
pub(crate) struct FoundXattrs {
    /// Sorted by name.
    pub xattrs: Vec<Xattr>,
    /// The entry may have others.
    pub lacks_some: bool,
    /// The first error, if some attributes cannot be read.
    pub failure: Option<Error>,
}

impl FoundXattrs {
    /// What can be read of the attributes of an open file or directory.
    pub(crate) fn of(fd: impl AsFd) -> FoundXattrs {
        FoundXattrs::at(Ok(XattrPlace::Open(fd.as_fd())))
    }

    /// The same of a name in a directory, of a link itself.
    pub(crate) fn of_name(directory: &Directory, name: impl Arg + Copy) -> FoundXattrs {
        FoundXattrs::at(XattrPlace::named(directory, name))
    }

    /// The same by path, of a link itself: what may not be opened may have attributes that can be read.
    pub(crate) fn of_path(path: &[u8]) -> FoundXattrs {
        FoundXattrs::at(CString::new(path).map(XattrPlace::Path).map_err(|_| Errno::INVAL))
    }

    fn at(place: Result<XattrPlace<'_>, Errno>) -> FoundXattrs {
        let mut found = FoundXattrs::default();
        let mut fail = |doing: &str, name: &[u8], errno| {
            found.failure.get_or_insert_with(|| refused(doing, name, errno));
        };
        match place {
            Ok(XattrPlace::Nowhere) => found.lacks_some = true,
            Ok(place) => {
                let read = place.read(|name, errno| {
                    fail("read the attribute", name.to_bytes(), errno);
                    Ok(())
                });
                found.xattrs = read.unwrap_or_else(|errno| {
                    fail("read the attributes of a file", b"", errno);
                    place.read_rights()
                });
            }
            Err(errno) => fail("read the attributes of a file", b"", errno),
        }
        found.lacks_some |= found.failure.is_some();
        found
    }
}

/// Sets one attribute of an open file or directory.
pub(crate) fn set_xattr(fd: impl AsFd, xattr: &Xattr) -> Result<()> {
    set(Ok(XattrPlace::Open(fd.as_fd())), xattr)
}

/// Sets one attribute of a name in a directory, of a link itself. Needs /proc.
pub(crate) fn set_xattr_at(directory: &Directory, name: impl Arg + Copy, xattr: &Xattr) -> Result<()> {
    set(XattrPlace::named(directory, name), xattr)
}

fn set(place: Result<XattrPlace<'_>, Errno>, xattr: &Xattr) -> Result<()> {
    let done = place.and_then(|place| {
        let name = CString::new(xattr.name.as_slice()).map_err(|_| Errno::INVAL)?;
        place.set(&name, &xattr.value)
    });
    done.map_err(|errno| refused("set the attribute", &xattr.name, errno))
}

/// Removes one attribute of an open file or directory; it is not an error if there is none.
pub(crate) fn remove_xattr(fd: impl AsFd, name: &CStr) -> Result<()> {
    removed(XattrPlace::Open(fd.as_fd()).remove(name), name.to_bytes())
}

/// The same of a name in a directory.
pub(crate) fn remove_xattr_at(directory: &Directory, name: impl Arg + Copy, xattr: &CStr) -> Result<()> {
    removed(XattrPlace::named(directory, name).and_then(|place| place.remove(xattr)), xattr.to_bytes())
}

fn removed(done: Result<(), Errno>, name: &[u8]) -> Result<()> {
    match done {
        Ok(()) | Err(Errno::NODATA | Errno::NOTSUP) => Ok(()),
        Err(errno) => Err(refused("remove the attribute", name, errno)),
    }
}

/// Whether a directory hands an ACL down to what is created in it.
pub(crate) fn has_default_acl(directory: &Directory) -> bool {
    // One that was opened to search does not say.
    matches!(rustix::fs::fgetxattr_query(directory, ACL_DEFAULT), Ok(_) | Err(Errno::BADF))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept() {
        for name in [&b"user.x"[..], b"security.capability", b"security.selinux", b"system.posix_acl_access"] {
            assert!(is_kept(name), "{name:?}");
        }
        for name in [&b"system.nfs4_acl"[..], b"security.evm", b"users.x", b""] {
            assert!(!is_kept(name), "{name:?}");
        }
    }
}
