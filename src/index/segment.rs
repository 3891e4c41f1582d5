//! One immutable sorted piece of the chunk index, read through a memory map.

use super::segment_layout::*;
use crate::disk::own_files::{is_not_a_file, read_regular};
use crate::error::{Error, Result};
use crate::id::{ChunkId, ChunkKind, PackId};
use crate::place::{FramePlace, Located};
use memmap2::{Mmap, MmapMut};
use std::ops::{Deref, Range};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use xorf::{BinaryFuse8Ref, Filter, FilterRef};

pub(super) enum SegmentData {
    Mapped(Mmap),
    Owned(Vec<u8>),
}

impl Deref for SegmentData {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            SegmentData::Mapped(map) => map,
            SegmentData::Owned(bytes) => bytes,
        }
    }
}

/// Tables and filters from this size on are copied to memory of large pages: each lookup reads several places at random,
/// and with small pages, address translation costs as much as the reading.
const LARGE_TABLES: usize = 4 << 20;

/// A segment, opened: header, tables and filters are verified, blocks of entries are verified when first touched.
///
/// A block's checksum guards 9 KiB, not a whole shard: one false answer of a filter must not cost the reading of
/// megabytes from a cold disk.
pub struct Segment {
    pub(super) data: SegmentData,
    /// For messages.
    name: String,
    pub(super) header: SegmentHeader,
    pub(super) at: SegmentSections,
    /// A copy of everything after the entries.
    pub(super) tables: Option<MmapMut>,
    pub(super) shards: Box<[ShardHeader]>,
    /// One bit for each block that was found undamaged.
    pub(super) verified: Box<[AtomicU64]>,
}

impl Segment {
    pub(crate) fn open(path: &Path) -> Result<Self> {
        let failed = |error| {
            if is_not_a_file(&error) {
                Error::corrupt("use the index segment", path.display(), error)
            } else {
                Error::io("open the index segment", path.display(), error)
            }
        };
        let file = read_regular(path).map_err(failed)?;
        if file.metadata().map_err(failed)?.len() < HEADER_BYTES as u64 {
            return Segment::read(SegmentData::Owned(Vec::new()), path.display().to_string());
        }
        // SAFETY: segments are written under another name and never changed or cut once they have their own.
        let map = unsafe { Mmap::map(&file) }.map_err(failed)?;
        Segment::read(SegmentData::Mapped(map), path.display().to_string())
    }

    /// From a segment's bytes in memory.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self> {
        Segment::read(SegmentData::Owned(bytes), "in memory".to_owned())
    }

    fn read(data: SegmentData, name: String) -> Result<Self> {
        let corrupt = |why| Error::corrupt("use the index segment", &name, why);
        let header = SegmentHeader::decode(&data).map_err(corrupt)?;
        let at = SegmentSections::of(&header, data.len())
            .ok_or_else(|| corrupt("its length is not what its header says"))?;
        // This also brings the filters into memory.
        if *blake3::hash(&data[at.fences.start..]).as_bytes() != header.tables {
            return Err(corrupt("its tables are damaged"));
        }
        let mut start = 0;
        for row in data[at.shards.clone()].chunks_exact(SHARD_BYTES) {
            let shard = ShardHeader::decode(row);
            if !shard.is_sound(header.filter_bytes) || shard.start < start || shard.start > header.entries {
                return Err(corrupt("its shard table is invalid"));
            }
            start = shard.start;
        }
        let blocks = at.fences.len() / FENCE_BYTES;
        let verified = (0..blocks.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
        let shards = data[at.shards.clone()].chunks_exact(SHARD_BYTES).map(ShardHeader::decode).collect();
        let tables = copy_to_large_pages(&data[at.fences.start..]);
        Ok(Segment { data, name, header, at, tables, shards, verified })
    }

    /// Names its content: the hash of its header, which has those of all else.
    pub(super) fn hash(&self) -> [u8; 32] {
        *blake3::hash(&self.data[..HEADER_BYTES]).as_bytes()
    }

    /// How many chunks it knows.
    pub fn chunks_count(&self) -> u64 {
        self.header.entries
    }

    /// Bytes of its filters: what lookups of unknown chunks keep in memory.
    pub fn filter_bytes(&self) -> u64 {
        self.header.filter_bytes
    }

    /// Bytes of its tables (packs, frames, fences and so on), filters not counted.
    pub fn table_bytes(&self) -> u64 {
        (self.at.frames.end - self.at.fences.start) as u64
    }

    /// Whether it has this chunk; an error if it is damaged there.
    #[inline]
    pub fn contains(&self, id: &ChunkId) -> Result<bool> {
        Ok(self.may_contain(id) && self.find(id)?.is_some())
    }

    /// Where this chunk is; an error if the segment is damaged there.
    #[inline]
    pub fn locate(&self, id: &ChunkId) -> Result<Option<Located>> {
        if !self.may_contain(id) {
            return Ok(None);
        }
        match self.find(id)? {
            Some(position) => self.place(&self.entry(position)).map(Some),
            None => Ok(None),
        }
    }

    /// The frames of this chunk's pack that begin within these bytes of the pack, in order.
    pub(crate) fn frames_within(&self, id: &ChunkId, bytes: &Range<u64>) -> Result<Option<Vec<FramePlace>>> {
        let position = if self.may_contain(id) { self.find(id)? } else { None };
        let Some(position) = position else { return Ok(None) };
        let senseless = || self.corrupt("its tables contradict each other");
        let number = self.entry(position).frame() as usize;
        let pack = u32_at(self.frames(number..number + 1).ok_or_else(senseless)?, 0) as usize * PACK_BYTES;
        let pack = self.table(&self.at.packs).get(pack..pack + PACK_BYTES).ok_or_else(senseless)?;
        let start = u32_at(pack, 36) as usize;
        let rows = self.frames(start..start + u32_at(pack, 40) as usize).ok_or_else(senseless)?;
        let places = rows.chunks_exact(FRAME_BYTES).map(|row| FramePlace {
            offset: u32_at(row, 4),
            stored: u32_at(row, 8),
            number: u32_at(row, 16),
        });
        Ok(Some(places.filter(|place| bytes.contains(&u64::from(place.offset))).collect()))
    }

    pub(super) fn corrupt(&self, why: &str) -> Error {
        Error::corrupt("use the index segment", &self.name, why)
    }

    /// The entry, from a block that was verified.
    pub(super) fn entry(&self, position: usize) -> SegmentEntry {
        SegmentEntry(self.entry_bytes(position).try_into().expect("a record is that long"))
    }

    pub(super) fn entries(&self) -> usize {
        self.at.entries.len() / ENTRY_BYTES
    }

    /// Verifies a block when it is touched first.
    pub(super) fn verify(&self, block: usize) -> Result<()> {
        let (word, bit) = (&self.verified[block / 64], 1 << (block % 64));
        // The bytes never change, so nothing needs to be ordered after the bit.
        if word.load(Ordering::Relaxed) & bit != 0 {
            return Ok(());
        }
        let start = self.at.entries.start + block * BLOCK_ENTRIES * ENTRY_BYTES;
        let end = (start + BLOCK_ENTRIES * ENTRY_BYTES).min(self.at.entries.end);
        if checksum(&self.data[start..end]) != u64_at(self.table(&self.at.checks), block * CHECK_BYTES) {
            return Err(self.corrupt("some of its entries are damaged"));
        }
        word.fetch_or(bit, Ordering::Relaxed);
        Ok(())
    }

    /// Rows of the pack table.
    pub(super) fn packs(&self) -> impl Iterator<Item = &[u8]> {
        self.table(&self.at.packs).chunks_exact(PACK_BYTES)
    }

    pub(crate) fn pack_count(&self) -> usize {
        self.header.packs as usize
    }

    /// The packs that it knows, with their sizes in bytes.
    pub(super) fn pack_sizes(&self) -> impl Iterator<Item = (PackId, u64)> {
        let id = |row: &[u8]| PackId::from_slice(&row[..32]).expect("a row begins with 32 bytes of id");
        self.packs().map(move |row| (id(row), u64_at(row, 48)))
    }

    /// Rows of the frame table, or none when it has not that many.
    pub(super) fn frames(&self, range: Range<usize>) -> Option<&[u8]> {
        let frames = self.table(&self.at.frames);
        frames.get(range.start.checked_mul(FRAME_BYTES)?..range.end.checked_mul(FRAME_BYTES)?)
    }

    fn place(&self, entry: &SegmentEntry) -> Result<Located> {
        let number = entry.frame() as usize;
        let senseless = || self.corrupt("its tables contradict each other");
        let frame = self.frames(number..number + 1).ok_or_else(senseless)?;
        let pack = u32_at(frame, 0) as usize * PACK_BYTES;
        let pack = self.table(&self.at.packs).get(pack..pack + PACK_BYTES).ok_or_else(senseless)?;
        Ok(Located {
            pack: PackId::from_slice(&pack[..32]).ok_or_else(senseless)?,
            frame_offset: u32_at(frame, 4),
            frame_stored: u32_at(frame, 8),
            frame_raw: u32_at(frame, 12),
            frame_number: u32_at(frame, 16),
            offset: entry.offset(),
            length: entry.length(),
            kind: ChunkKind::from_flag(u32_at(pack, 32) as u8),
        })
    }

    /// A section after the entries.
    pub(super) fn table(&self, section: &Range<usize>) -> &[u8] {
        match &self.tables {
            Some(copy) => &copy[section.start - self.at.fences.start..section.end - self.at.fences.start],
            None => &self.data[section.clone()],
        }
    }

    pub(super) fn entry_bytes(&self, position: usize) -> &[u8] {
        let start = self.at.entries.start + position * ENTRY_BYTES;
        &self.data[start..start + ENTRY_BYTES]
    }

    /// What the filter says: no is certain.
    #[inline]
    pub(super) fn may_contain(&self, id: &ChunkId) -> bool {
        let shard = &self.shards[shard_of(sort_key(id.as_bytes()), self.header.shard_bits)];
        if shard.filter_length == 0 {
            return true;
        }
        let filters = self.tables.as_deref().unwrap_or(&self.data[self.at.fences.start..]);
        let start = self.at.filters.start - self.at.fences.start + shard.filter_start as usize;
        let fingerprints = &filters[start..start + shard.filter_length as usize];
        let filter = BinaryFuse8Ref::from_dma(&shard.descriptor, fingerprints);
        filter.contains(&filter_key(self.header.salt, id.as_bytes()))
    }

    /// Whether it is larger than what the processor keeps at hand by itself.
    pub(super) fn is_large(&self) -> bool {
        self.tables.is_some()
    }
}

/// None where that is not worth it, or not to be had: they are then read where they lie.
fn copy_to_large_pages(tables: &[u8]) -> Option<MmapMut> {
    if tables.len() < LARGE_TABLES {
        return None;
    }
    let mut copy = MmapMut::map_anon(tables.len()).ok()?;
    #[cfg(target_os = "linux")]
    copy.advise(memmap2::Advice::HugePage).ok()?;
    copy.copy_from_slice(tables);
    Some(copy)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_that_lie_are_refused() {
        let honest = SegmentHeader {
            shard_bits: 0,
            salt: [0; 2],
            entries: 0,
            packs: 0,
            frames: 0,
            filter_bytes: 0,
            tables: *blake3::hash(&[0; SHARD_BYTES]).as_bytes(),
        };
        let file = |header: &SegmentHeader| [&header.encode()[..], &[0; SHARD_BYTES]].concat();
        assert!(Segment::from_bytes(file(&honest)).is_ok());
        for huge in [1, 1 << 20, u64::MAX / 36, u64::MAX] {
            for change in 0..4 {
                let mut header = honest.clone();
                *[&mut header.entries, &mut header.packs, &mut header.frames, &mut header.filter_bytes][change] = huge;
                assert!(Segment::from_bytes(file(&header)).is_err());
            }
        }
        for shard_bits in [1, 24, 25, 63, 64, u32::MAX] {
            assert!(Segment::from_bytes(file(&SegmentHeader { shard_bits, ..honest.clone() })).is_err());
        }
    }

    #[test]
    fn a_filter_that_would_be_read_beyond_its_end_is_refused() {
        let shard = |length: u64, segment: u32, mask: u32, count: u32| {
            let mut descriptor = [0; DESCRIPTOR_BYTES];
            for (slot, number) in descriptor[8..].chunks_exact_mut(4).zip([segment, mask, count]) {
                slot.copy_from_slice(&number.to_le_bytes());
            }
            ShardHeader { start: 0, filter_start: 0, filter_length: length, descriptor }.is_sound(1 << 40)
        };
        assert!(shard(12, 4, 3, 4));
        assert!(!shard(11, 4, 3, 4));
        assert!(!shard(12, 4, 7, 4));
        assert!(!shard(13, 4, 3, 5));
        assert!(!shard(8, 4, 3, 0));
        assert!(!shard(u64::from(u32::MAX) + 1, 1 << 31, (1 << 31) - 1, 1 << 31));
    }
}
