//! Writes segments atomically and in bounded memory, however many chunks they have. Without a writable directory, a segment is
//! built in memory.

use super::segment::Segment;
use super::segment_layout::*;
use crate::error::{Error, Result};
use crate::index::segment_place::{SegmentPlace, UnfinishedSegment, named_apart, unforeseen};
use crate::index::spool::FileSpool;
use crate::place::PackContents;
use std::fs::{File, OpenOptions};
use std::io::{BufWriter, Cursor, Seek, SeekFrom, Write};
use std::path::PathBuf;
use xorf::{BinaryFuse8, BinaryFuse8Ref, DmaSerializable, Filter, FilterRef};

/// A shard with more entries than this gets no filter, for building one takes some 30 bytes an entry. Only ids that
/// somebody chose are so unevenly spread.
const FILTER_ENTRIES_MAX: usize = 4 * SHARD_ENTRIES_MAX as usize;

/// The pack table and the frame table of a segment being written.
#[derive(Default)]
pub(super) struct SegmentTables {
    pub(super) packs: Vec<u8>,
    pub(super) frames: Vec<u8>,
}

impl SegmentTables {
    pub(super) fn pack_count(&self) -> usize {
        self.packs.len() / PACK_BYTES
    }

    pub(crate) fn bytes(&self) -> usize {
        self.packs.len() + self.frames.len()
    }

    pub(super) fn frame_count(&self) -> usize {
        self.frames.len() / FRAME_BYTES
    }

    /// Adds a pack's rows, and its chunks to `entries`; none of them when the pack's description makes no sense.
    pub(crate) fn add(&mut self, contents: &PackContents, entries: &mut Vec<SegmentEntry>) -> Result<()> {
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

    fn add_frames(&mut self, contents: &PackContents, entries: &mut Vec<SegmentEntry>) -> Option<()> {
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
                entries.push(SegmentEntry::new(id, row, offset, *length));
                offset = end;
            }
        }
        (u64::from(frame_offset) <= contents.stored_bytes).then_some(())
    }
}

/// What a segment's bytes go to.
enum SegmentSink {
    File { file: BufWriter<File>, unfinished: UnfinishedSegment, path: PathBuf },
    Memory(Cursor<Vec<u8>>),
}

impl SegmentSink {
    fn open(place: &SegmentPlace) -> Result<Self> {
        let SegmentPlace::File(path) = place else { return Ok(SegmentSink::Memory(Cursor::default())) };
        let unfinished = UnfinishedSegment(named_apart(path, "new"));
        let opened = OpenOptions::new().write(true).create_new(true).open(&unfinished.0);
        let file = opened.map_err(|error| Error::io("create the index segment", unfinished.0.display(), error))?;
        Ok(SegmentSink::File { file: BufWriter::with_capacity(1 << 18, file), unfinished, path: path.clone() })
    }

    fn write_all(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        match self {
            SegmentSink::File { file, .. } => file.write_all(bytes),
            SegmentSink::Memory(memory) => memory.write_all(bytes),
        }
    }

    /// Writes the header over the place that was left for it, and ends.
    fn complete(&mut self, header: &[u8], sync: bool) -> std::io::Result<()> {
        match self {
            SegmentSink::File { file, .. } => {
                file.seek(SeekFrom::Start(0))?;
                file.write_all(header)?;
                file.flush()?;
                if sync { file.get_ref().sync_data() } else { Ok(()) }
            }
            SegmentSink::Memory(memory) => {
                memory.set_position(0);
                memory.write_all(header)
            }
        }
    }
}

/// Takes sorted entries and writes them as a segment.
pub(super) struct SegmentWriter {
    sink: SegmentSink,
    place: SegmentPlace,
    /// Whether it is to be looked up in and to last: then it has filters and is on the disk before it has its name.
    for_use: bool,
    salt: [u64; 2],
    entries: u64,
    last: Option<SegmentEntry>,
    block: Vec<u8>,
    fences: Vec<u8>,
    checks: Vec<u8>,
    shards: ShardTable,
    filters: FileSpool,
}

/// The table of shards, as far as it is made, and the shard that is being filled.
struct ShardTable {
    bits: u32,
    table: Vec<u8>,
    /// The number of the first entry of the current one.
    start: u64,
    /// For the filter of the current one.
    keys: Vec<u64>,
}

impl SegmentWriter {
    /// `expected` entries at most.
    pub(super) fn begin(place: SegmentPlace, expected: u64, for_use: bool) -> Result<Self> {
        let mut sink = SegmentSink::open(&place)?;
        sink.write_all(&[0; HEADER_BYTES]).map_err(|error| place.failed(error))?;
        Ok(SegmentWriter {
            sink,
            for_use,
            salt: [unforeseen(), unforeseen()],
            entries: 0,
            last: None,
            block: Vec::with_capacity(BLOCK_ENTRIES * ENTRY_BYTES),
            fences: Vec::new(),
            checks: Vec::new(),
            shards: ShardTable { bits: shard_bits_for(expected), table: Vec::new(), start: 0, keys: Vec::new() },
            filters: FileSpool::new(place.apart("filters")),
            place,
        })
    }

    /// Takes the next entry; of several with the same id only the first.
    pub(super) fn push(&mut self, entry: &SegmentEntry) -> Result<()> {
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
        let shard = shard_of(key, self.shards.bits);
        while self.shards.table.len() / SHARD_BYTES < shard {
            self.end_shard()?;
        }
        if self.block.is_empty() {
            self.fences.extend(key.to_le_bytes());
        }
        self.block.extend(entry.0);
        if self.block.len() == BLOCK_ENTRIES * ENTRY_BYTES {
            self.end_block()?;
        }
        if self.for_use && self.shards.keys.len() <= FILTER_ENTRIES_MAX {
            self.shards.keys.push(filter_key(self.salt, entry.id()));
        }
        self.entries += 1;
        self.last = Some(*entry);
        Ok(())
    }

    /// Writes the tables, renames the file to its name and opens it.
    pub(super) fn finish(mut self, tables: &SegmentTables) -> Result<Segment> {
        self.end_block()?;
        while self.shards.table.len() / SHARD_BYTES < 1 << self.shards.bits {
            self.end_shard()?;
        }
        self.write_tables(tables).map_err(|error| self.place.failed(error))?;
        match self.sink {
            SegmentSink::Memory(memory) => Segment::from_bytes(memory.into_inner()),
            SegmentSink::File { unfinished, path, .. } => {
                std::fs::rename(&unfinished.0, &path).map_err(|error| self.place.failed(error))?;
                Segment::open(&path)
            }
        }
    }

    fn write_tables(&mut self, tables: &SegmentTables) -> std::io::Result<()> {
        let mut hasher = blake3::Hasher::new();
        for section in [&self.fences, &self.checks, &self.shards.table, &tables.packs, &tables.frames] {
            hasher.update(section);
            self.sink.write_all(section)?;
        }
        let (sink, filter_bytes) = (&mut self.sink, self.filters.length);
        self.filters.drain(|piece| {
            hasher.update(piece);
            sink.write_all(piece)
        })?;
        let header = SegmentHeader {
            shard_bits: self.shards.bits,
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
        let mut shard = ShardHeader {
            start: self.shards.start,
            filter_start: self.filters.length,
            filter_length: 0,
            descriptor: [0; DESCRIPTOR_BYTES],
        };
        if let Some(filter) = build_filter(&mut self.shards.keys) {
            filter.dma_copy_descriptor_to(&mut shard.descriptor);
            shard.filter_length = filter.dma_fingerprints().len() as u64;
            self.filters.push(filter.dma_fingerprints()).map_err(|error| self.place.failed(error))?;
        }
        self.shards.table.extend(shard.encode());
        self.shards.start = self.entries;
        self.shards.keys.clear();
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
