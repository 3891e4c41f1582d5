//! Write the content of files: bytes at offsets, sizes, space reserved ahead, holes.

use super::buffer::WRITE_BYTES_MAX;
use super::refused::refused;
use crate::error::{Error, Kind, Result};
use rustix::fd::AsFd;
use rustix::fs::FallocateFlags;
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};

/// Where less is lost by leaving the file system to grow a file as it is written.
pub(crate) const PREALLOCATE_BYTES_MIN: u64 = 1 << 20;

/// Writes all bytes at an offset.
#[inline]
pub(crate) fn write_all_at(fd: impl AsFd, mut bytes: &[u8], mut offset: u64) -> Result<()> {
    let fd = fd.as_fd();
    while !bytes.is_empty() {
        match rustix::io::pwrite(fd, &bytes[..bytes.len().min(WRITE_BYTES_MAX)], offset) {
            Ok(0) => return Err(refused("write", b"", Errno::IO)),
            Ok(count) => {
                bytes = &bytes[count..];
                offset += count as u64;
            }
            Err(Errno::INTR) => (),
            Err(errno) => return Err(refused_bytes("write", errno)),
        }
    }
    Ok(())
}

/// A file may be too large for its file system, which says nothing of others, or for the limit of this process, which holds
/// for all of them.
fn refused_bytes(doing: &str, errno: Errno) -> Error {
    let has_limit = getrlimit(Resource::Fsize).current.is_some();
    match errno {
        Errno::FBIG if !has_limit => Error::new(Kind::Unsupported, doing, "")
            .because("it is larger than a file can be on the file system of the target"),
        _ => refused(doing, b"", errno),
    }
}

/// Reserves space for a large file without holes, so that it is in one piece and a full disk shows before the
/// content is fetched. Its size is `size` afterwards where the file system can do that, else unchanged.
pub(crate) fn preallocate(fd: impl AsFd, size: u64) -> Result<()> {
    if size < PREALLOCATE_BYTES_MIN {
        return Ok(());
    }
    match rustix::fs::fallocate(fd, FallocateFlags::empty(), 0, size) {
        Err(errno @ (Errno::NOSPC | Errno::DQUOT | Errno::FBIG)) => Err(refused_bytes("reserve space", errno)),
        _ => Ok(()),
    }
}

/// Sets the size: what was not written reads as zeros and takes no space.
pub(crate) fn set_size(fd: impl AsFd, size: u64) -> Result<()> {
    rustix::io::retry_on_intr(|| rustix::fs::ftruncate(fd.as_fd(), size))
        .map_err(|errno| refused_bytes("set the size of a file", errno))
}
