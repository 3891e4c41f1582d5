//! Find out whether a part of a file reads as zeros, without reading its holes.

use super::open::read_full_at;
use super::refused::refused;
use crate::error::Result;
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::SeekFrom;
use rustix::io::Errno;

/// Whether `length` bytes from `offset` on are there and zero. Moves the descriptor's position. `go_on` is asked before
/// each piece that has to be read; its error ends the search.
pub(crate) fn reads_as_zeros(fd: impl AsFd, offset: u64, length: u64, go_on: &dyn Fn() -> Result<()>) -> Result<bool> {
    let fd = fd.as_fd();
    let (mut at, end) = (offset, offset.saturating_add(length));
    while at < end {
        let data = match rustix::fs::seek(fd, SeekFrom::Data(at)) {
            Ok(data) => data,
            // No data up to the end of the file; that it is long enough the caller has seen.
            Err(Errno::NXIO) => return Ok(true),
            // The file system cannot tell: all is read.
            Err(Errno::INVAL | Errno::NOTSUP) => at,
            Err(errno) => return Err(refused("find the holes of a file", b"", errno)),
        };
        if data >= end {
            return Ok(true);
        }
        go_on()?;
        match zeros_read(fd, data, end)? {
            Some(reached) => at = reached,
            None => return Ok(false),
        }
    }
    Ok(true)
}

/// Reads a piece from `at`: where it ends when it is zeros, None when it is not.
fn zeros_read(fd: BorrowedFd, at: u64, end: u64) -> Result<Option<u64>> {
    let mut buffer = [0; 64 << 10];
    let wanted = (end - at).min(buffer.len() as u64) as usize;
    let count = read_full_at(fd, &mut buffer[..wanted], at)?;
    Ok((count == wanted && buffer[..count].iter().all(|byte| *byte == 0)).then_some(at + count as u64))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::FileExt;

    #[test]
    fn a_byte_in_a_hole_is_found() {
        let file = tempfile::tempfile().unwrap();
        file.set_len(8 << 20).unwrap();
        let reads_as_zeros = |file, offset, length| super::reads_as_zeros(file, offset, length, &|| Ok(()));
        assert!(reads_as_zeros(&file, 0, 8 << 20).unwrap());
        file.write_all_at(b"x", 5 << 20).unwrap();
        assert!(!reads_as_zeros(&file, 0, 8 << 20).unwrap());
        assert!(reads_as_zeros(&file, 0, 5 << 20).unwrap());
        assert!(reads_as_zeros(&file, (5 << 20) + 1, (3 << 20) - 1).unwrap());
        assert!(!reads_as_zeros(&file, 5 << 20, 1).unwrap());
    }
}
