//! The kinds of sources: trees of files, and streams of bytes that something else produces.

use crate::entry::Warning;
use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use crate::source::Stream;
use crate::source::stream::{check_stream_name, shown};
use crate::watch::Watch;
use std::io::Read;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

/// Something to back up.
#[derive(Clone)]
pub enum Source {
    /// A file, or a directory with all below it: an absolute path without `.` and `..`.
    Tree(PathBuf),
    /// A tree that is known to be missing before the backup begins: a warning.
    Missing(Warning),
    /// Bytes, saved as one entry.
    Stream(Arc<dyn ByteSource>),
}

impl Source {
    /// A stream of these bytes.
    pub fn stream(from: impl ByteSource + 'static) -> Self {
        Source::Stream(Arc::new(from))
    }
}

/// Produces bytes that are saved as one entry, complete or not at all.
pub trait ByteSource: Send + Sync {
    /// The path of the entry in the snapshot: relative, of valid names with slashes between.
    fn name(&self) -> &[u8];

    /// The command that produces the bytes, as the snapshot records it.
    fn command(&self) -> Option<String> {
        None
    }

    /// Whether [`open`](Self::open) can be called more than once.
    fn can_repeat(&self) -> bool {
        true
    }

    /// Begins to produce the bytes. The read that would be the last one fails if the producer failed; an error that is an
    /// [`Error`] inside is passed on as it is.
    fn open(&self, watch: &Watch) -> Result<Box<dyn Read + Send>>;
}

impl ByteSource for Stream {
    fn name(&self) -> &[u8] {
        &self.name
    }

    fn command(&self) -> Option<String> {
        Some(String::from_utf8_lossy(&self.command).into_owned())
    }

    fn open(&self, watch: &Watch) -> Result<Box<dyn Read + Send>> {
        Ok(Box::new(self.start(watch)?))
    }
}

/// Bytes that can be read once, such as standard input.
pub struct ReadOnce {
    name: Vec<u8>,
    reader: Mutex<Option<Box<dyn Read + Send>>>,
}

impl ReadOnce {
    /// An error if this cannot be the name of a stream.
    pub fn new(name: &[u8], reader: impl Read + Send + 'static) -> Result<Self> {
        check_stream_name(name)?;
        Ok(ReadOnce { name: name.to_vec(), reader: Mutex::new(Some(Box::new(reader))) })
    }
}

impl ByteSource for ReadOnce {
    fn name(&self) -> &[u8] {
        &self.name
    }

    fn can_repeat(&self) -> bool {
        false
    }

    fn open(&self, _: &Watch) -> Result<Box<dyn Read + Send>> {
        locked(&self.reader).take().ok_or_else(|| {
            Error::new(Kind::Conflict, "read stream", shown(&self.name))
                .because("it can be read only once, and was read")
        })
    }
}
