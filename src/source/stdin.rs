//! Read standard input as one entry.

use super::command::{CANCEL_LATENCY, wait};
use super::stream::{check_stream_name, shown};
use crate::error::{Error, Kind, Result};
use crate::watch::Watch;
use rustix::fs::{FileType, OFlags, Stat, fcntl_getfl, fstat, makedev};
use std::io::{self, IsTerminal, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The standard input as a stream. That its producer failed cannot be seen from here; a [`super::Stream`] can.
pub struct StdinSource {
    name: Vec<u8>,
    input: OwnedFd,
    watch: Watch,
}

impl StdinSource {
    /// The standard input of this process.
    pub fn new(name: &[u8], watch: &Watch) -> Result<Self> {
        let stdin = io::stdin();
        if stdin.is_terminal() {
            return Err(Error::invalid("read stream", shown(name), "standard input is a terminal")
                .hint("pipe the data in, or let silt run the command: --stream NAME=COMMAND"));
        }
        if is_closed(stdin.as_fd()) {
            return Err(Error::invalid("read stream", shown(name), "the standard input is closed")
                .hint("pipe the data in; with `< /dev/null` an empty stream is saved"));
        }
        let input = stdin.as_fd().try_clone_to_owned();
        StdinSource::from_fd(name, input.map_err(|e| Error::io("open standard input", "", e))?, watch)
    }

    /// Any open descriptor in its place.
    pub(crate) fn from_fd(name: &[u8], input: OwnedFd, watch: &Watch) -> Result<Self> {
        check_stream_name(name)?;
        Ok(StdinSource { name: name.to_vec(), input, watch: watch.clone() })
    }
}

/// Whether the process was started without a standard input: then the runtime has opened /dev/null in its place, to read and to write.
/// An empty standard input that is meant is open for reading only.
fn is_closed(stdin: BorrowedFd) -> bool {
    let is_null = |stat: Stat| FileType::from_raw_mode(stat.st_mode).is_char_device() && stat.st_rdev == makedev(1, 3);
    fstat(stdin).is_ok_and(is_null) && fcntl_getfl(stdin).is_ok_and(|flags| flags.contains(OFlags::RDWR))
}

impl Read for StdinSource {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        let failed = |e| Error::io("read stream", shown(&self.name), e).with_kind(Kind::Failed);
        loop {
            self.watch.cancel.check().map_err(io::Error::other)?;
            if !wait([self.input.as_fd()].into_iter(), CANCEL_LATENCY).map_err(|e| io::Error::other(failed(e)))? {
                continue;
            }
            match rustix::io::read(&self.input, &mut *buffer) {
                Ok(count) => return Ok(count),
                Err(rustix::io::Errno::AGAIN | rustix::io::Errno::INTR) => {}
                Err(e) => return Err(io::Error::other(failed(e.into()))),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::stream::read_error;

    #[test]
    fn the_standard_input_can_be_left_while_it_blocks() {
        let (ours, theirs) = io::pipe().unwrap();
        let watch = Watch::silent();
        let mut source = StdinSource::from_fd(b"in", ours.into(), &watch).unwrap();
        io::Write::write_all(&mut &theirs, b"abc").unwrap();
        let mut buffer = [0; 8];
        assert_eq!(source.read(&mut buffer).unwrap(), 3);
        watch.cancel.cancel();
        assert!(read_error(b"in", source.read(&mut buffer).unwrap_err()).is(Kind::Cancelled));
        drop(theirs);
        let (ours, _) = io::pipe().unwrap();
        let mut source = StdinSource::from_fd(b"in", ours.into(), &Watch::silent()).unwrap();
        assert_eq!(source.read(&mut buffer).unwrap(), 0);
    }
}
