//! Write segments: whole or not at all, and in bounded memory however many chunks there are, unless there is no folder to
//! write to: then a segment is built in memory.

use super::segment::Segment;
use super::segment_layout::*;
use crate::error::{Error, Result};
use crate::place::PackContents;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io::{BufWriter, Cursor, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter, FilterRef};

/// A shard with more entries than this gets no filter, for building one takes some 30 bytes an entry. Only ids that
/// somebody chose are so unevenly spread.
const FILTER_ENTRIES_MAX: usize = 4 * SHARD_ENTRIES_MAX as usize;
/// Filters wait for the end of the file in memory until they are so many bytes, then in a file without a name.
const SPOOL_MEMORY_MAX: usize = 1 << 20;
/// A number that nobody can foresee.
pub(super) fn unforeseen() -> u64 {
    RandomState::new().build_hasher().finish()
}

/// Where a segment is written.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// It appears under this path when it is finished.
    File(PathBuf),
    Memory,
}

impl Place {
    /// For messages.
    fn shown(&self) -> String {
        match self {
            Place::File(path) => path.display().to_string(),
            Place::Memory => "in memory".to_owned(),
        }
    }

    pub fn apart(&self, what: &str) -> Place {
        match self {
            Place::File(path) => Place::File(named_apart(path, what)),
            Place::Memory => Place::Memory,
        }
    }

    fn failed(&self, error: std::io::Error) -> Error {
        Error::io("write the index segment", self.shown(), error)
    }
}

/// The pack table and the frame table of a segment being written.
#[derive(Default)]
pub(super) struct Tables {
    pub(super) packs: Vec<u8>,
    pub(super) frames: Vec<u8>,
}

impl Tables {
    pub(super) fn pack_count(&self) -> usize {
        self.packs.len() / PACK_BYTES
    }

    pub fn bytes(&self) -> usize {
        self.packs.len() + self.frames.len()
    }

    pub(super) fn frame_count(&self) -> usize {
        self.frames.len() / FRAME_BYTES
    }

    /// Adds a pack's rows, and its chunks to `entries`; none of them when the pack's description makes no sense.
    pub fn add(&mut self, contents: &PackContents, entries: &mut Vec<Entry>) -> Result<()> {
        let before = (self.frames.len(), entries.len());
        let added = self.add_frames(contents, entries);
        if added.is_none() {
            self.frames.truncate(before.0);
            entries.truncate(before.1);
            let why = "its frames or chunks reach beyond what holds them";
            return Err(Error::corrupt("index the pack", contents.pack, why));
        }
        self.packs.extend(contents.pack.as_bytes());
        let flags = u32::from(contents.kind.to_flag());
        for number in [flags, (before.0 / FRAME_BYTES) as u32, contents.frames.len() as u32, contents.data_offset] {
            self.packs.extend(number.to_le_bytes());
        }
        self.packs.extend(contents.stored_bytes.to_le_bytes());
        Ok(())
    }

    fn add_frames(&mut self, contents: &PackContents, entries: &mut Vec<Entry>) -> Option<()> {
        let pack = u32::try_from(self.pack_count()).ok()?;
        let mut frame_offset = contents.data_offset;
        for (number, frame) in contents.frames.iter().enumerate() {
            let row = u32::try_from(self.frame_count()).ok()?;
            for field in [pack, frame_offset, frame.stored, frame.raw, u32::try_from(number).ok()?] {
                self.frames.extend(field.to_le_bytes());
            }
            frame_offset = frame_offset.checked_add(frame.stored)?;
            let mut offset = 0u32;
            for (id, length) in &frame.chunks {
                let end = offset.checked_add(*length).filter(|&end| end <= frame.raw)?;
                entries.push(Entry::new(id, row, offset, *length));
                offset = end;
            }
        }
        (u64::from(frame_offset) <= contents.stored_bytes).then_some(())
    }
}

/// What a segment's bytes go to.
enum Sink {
    File { file: BufWriter<File>, unfinished: Unfinished, path: PathBuf },
    Memory(Cursor<Vec<u8>>),
}

impl Sink {
    fn open(place: &Place) -> Result<Self> {
        let Place::File(path) = place else { return Ok(Sink::Memory(Cursor::default())) };
        let unfinished = Unfinished(named_apart(path, "new"));
        let opened = OpenOptions::new().write(true).create_new(true).open(&unfinished.0);
        let file = opened.map_err(|error| Error::io("create the index segment", unfinished.0.display(), error))?;
        Ok(Sink::File { file: BufWriter::with_capacity(1 << 18, file), unfinished, path: path.clone() })
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            Sink::File { file, .. } => file.write_all(bytes),
            Sink::Memory(memory) => memory.write_all(bytes),
        }
    }

    /// Writes the header over the place that was left for it, and ends.
    fn complete(&mut self, header: &[u8], sync: bool) -> std::io::Result<()> {
        match self {
            Sink::File { file, .. } => {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(header)?;
                file.flush()?;
                if sync { file.get_ref().sync_data() } else { Ok(()) }
            }
            Sink::Memory(memory) => {
                memory.set_position(0);
                memory.write_all(header)
            }
        }
    }
}

/// Takes sorted entries and writes them as a segment.
pub(super) struct SegmentWriter {
    sink: Sink,
    place: Place,
    /// Whether it is to be looked up in and to last: then it has filters and is on the disk before it has its name.
    for_use: bool,
    shard_bits: u32,
    salt: [u64; 2],
    entries: u64,
    last: Option<Entry>,
    block: Vec<u8>,
    fences: Vec<u8>,
    checks: Vec<u8>,
    shards: Vec<u8>,
    shard_start: u64,
    shard_keys: Vec<u64>,
    filters: Spool,
}

impl SegmentWriter {
    /// `expected` entries at most.
    pub(super) fn begin(place: Place, expected: u64, for_use: bool) -> Result<Self> {
        let mut sink = Sink::open(&place)?;
        sink.write_all(&[0; HEADER_BYTES]).map_err(|error| place.failed(error))?;
        Ok(SegmentWriter {
            sink,
            for_use,
            shard_bits: shard_bits_for(expected),
            salt: [unforeseen(), unforeseen()],
            entries: 0,
            last: None,
            block: Vec::with_capacity(BLOCK_ENTRIES * ENTRY_BYTES),
            fences: Vec::new(),
            checks: Vec::new(),
            shards: Vec::new(),
            shard_start: 0,
            shard_keys: Vec::new(),
            filters: Spool::new(place.apart("filters")),
            place,
        })
    }

    /// Takes the next entry; of several with the same id only the first.
    pub(super) fn push(&mut self, entry: &Entry) -> Result<()> {
        if let Some(last) = &self.last {
            match last.id().cmp(entry.id()) {
                std::cmp::Ordering::Less => {}
                std::cmp::Ordering::Equal => return Ok(()),
                std::cmp::Ordering::Greater => {
                    return Err(Error::corrupt(
                        "write the index segment",
                        self.place.shown(),
                        "its entries are not sorted",
                    ));
                }
            }
        }
        let key = sort_key(&entry.0);
        let shard = shard_of(key, self.shard_bits);
        while self.shards.len() / SHARD_BYTES < shard {
            self.end_shard()?;
        }
        if self.block.is_empty() {
            self.fences.extend(key.to_le_bytes());
        }
        self.block.extend(entry.0);
        if self.block.len() == BLOCK_ENTRIES * ENTRY_BYTES {
            self.end_block()?;
        }
        if self.for_use && self.shard_keys.len() <= FILTER_ENTRIES_MAX {
            self.shard_keys.push(filter_key(self.salt, entry.id()));
        }
        self.entries += 1;
        self.last = Some(*entry);
        Ok(())
    }

    /// Writes the tables, gives the file its name and opens it.
    pub(super) fn finish(mut self, tables: &Tables) -> Result<Segment> {
        self.end_block()?;
        while self.shards.len() / SHARD_BYTES < 1 << self.shard_bits {
            self.end_shard()?;
        }
        self.write_tables(tables).map_err(|error| self.place.failed(error))?;
        match self.sink {
            Sink::Memory(memory) => Segment::from_bytes(memory.into_inner()),
            Sink::File { unfinished, path, .. } => {
                std::fs::rename(&unfinished.0, &path).map_err(|error| self.place.failed(error))?;
                Segment::open(&path)
            }
        }
    }

    fn write_tables(&mut self, tables: &Tables) -> std::io::Result<()> {
        let mut hasher = blake3::Hasher::new();
        for section in [&self.fences, &self.checks, &self.shards, &tables.packs, &tables.frames] {
            hasher.update(section);
            self.sink.write_all(section)?;
        }
        let (sink, filter_bytes) = (&mut self.sink, self.filters.length);
        self.filters.drain(|piece| {
            hasher.update(piece);
            sink.write_all(piece)
        })?;
        let header = Header {
            shard_bits: self.shard_bits,
            salt: self.salt,
            entries: self.entries,
            packs: tables.pack_count() as u64,
            frames: tables.frame_count() as u64,
            filter_bytes,
            tables: *hasher.finalize().as_bytes(),
        };
        self.sink.complete(&header.encode(), self.for_use)
    }

    fn end_block(&mut self) -> Result<()> {
        if !self.block.is_empty() {
            self.checks.extend(checksum(&self.block).to_le_bytes());
            self.sink.write_all(&self.block).map_err(|error| self.place.failed(error))?;
            self.block.clear();
        }
        Ok(())
    }

    fn end_shard(&mut self) -> Result<()> {
        let mut shard = Shard {
            start: self.shard_start,
            filter_start: self.filters.length,
            filter_length: 0,
            descriptor: [0; DESCRIPTOR_BYTES],
        };
        if let Some(filter) = build_filter(&mut self.shard_keys) {
            filter.dma_copy_descriptor_to(&mut shard.descriptor);
            shard.filter_length = filter.dma_fingerprints().len() as u64;
            self.filters.push(filter.dma_fingerprints()).map_err(|error| self.place.failed(error))?;
        }
        self.shards.extend(shard.encode());
        self.shard_start = self.entries;
        self.shard_keys.clear();
        Ok(())
    }
}

/// A filter of these keys, or none where it would be too large or cannot be had: lookups then search every time.
fn build_filter(keys: &mut Vec<u64>) -> Option<BinaryFuse8> {
    if keys.is_empty() || keys.len() > FILTER_ENTRIES_MAX {
        return None;
    }
    // The construction loops over keys that are the same.
    keys.sort_unstable();
    keys.dedup();
    let filter = BinaryFuse8::try_from(&keys[..]).ok()?;
    // A filter that denies a key would have the chunk stored again for ever; so the crate is not trusted with it.
    let mut descriptor = [0; DESCRIPTOR_BYTES];
    filter.dma_copy_descriptor_to(&mut descriptor);
    let stored = BinaryFuse8Ref::from_dma(&descriptor, filter.dma_fingerprints());
    keys.iter().all(|key| stored.contains(key)).then_some(filter)
}

/// Bytes that wait until the rest of the segment is written.
struct Spool {
    place: Place,
    memory: Vec<u8>,
    file: Option<File>,
    length: u64,
}

impl Spool {
    fn new(place: Place) -> Self {
        Spool { place, memory: Vec::new(), file: None, length: 0 }
    }

    fn push(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.memory.extend(bytes);
        self.length += bytes.len() as u64;
        if let Place::File(path) = &self.place
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

    fn drain(&mut self, mut take: impl FnMut(&[u8]) -> std::io::Result<()>) -> std::io::Result<()> {
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

/// The name of a file that does not have its own yet; removed unless it got it.
struct Unfinished(PathBuf);

impl Drop for Unfinished {
    fn drop(&mut self) {
        // After the renaming there is nothing under this name; names are never used twice.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// A name beside this one that nobody else uses.
pub(super) fn named_apart(path: &Path, what: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{what}-{:016x}", unforeseen()));
    path.with_file_name(name)
}
