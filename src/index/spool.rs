//! Bytes that wait for the end of a file: in memory while they are few, then in a file without a name.

use crate::index::segment_place::SegmentPlace;
use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};

/// Filters come at the end of the file. Until then they are kept in memory up to this many bytes, and beyond that in a file without a name.
const SPOOL_MEMORY_MAX: usize = 1 << 20;

/// Bytes that wait until the rest of the segment is written.
pub(super) struct FileSpool {
    place: SegmentPlace,
    memory: Vec<u8>,
    file: Option<File>,
    pub(super) length: u64,
}

impl FileSpool {
    pub(super) fn new(place: SegmentPlace) -> Self {
        FileSpool { place, memory: Vec::new(), file: None, length: 0 }
    }

    pub(super) fn push(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.memory.extend(bytes);
        self.length += bytes.len() as u64;
        if let SegmentPlace::File(path) = &self.place
            && self.memory.len() > SPOOL_MEMORY_MAX
        {
            if self.file.is_none() {
                self.file = Some(OpenOptions::new().read(true).write(true).create_new(true).open(path)?);
                std::fs::remove_file(path)?;
            }
            if let Some(file) = &mut self.file {
                file.write_all(&self.memory)?;
            }
            self.memory.clear();
        }
        Ok(())
    }

    pub(super) fn drain(&mut self, mut take: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
        if let Some(mut file) = self.file.take() {
            file.seek(SeekFrom::Start(0))?;
            let mut buffer = vec![0; 1 << 18];
            loop {
                match file.read(&mut buffer)? {
                    0 => break,
                    count => take(&buffer[..count])?,
                }
            }
        }
        take(&self.memory)
    }
}
