//! How a segment file is laid out: header, sections, records and checksums, for its reader and its writers.
//!
//! ```text
//! header | entries | fences | checks | shards | packs | frames | filters
//! ```
//! Entries are sorted by id and come in blocks of 256; each block has a fence (the first 8 bytes of its first id) and a
//! check (its checksum). A shard is the run of entries that share the first bits of their ids; it has its own filter.
//! All numbers are little-endian but for the fences' order, which is that of the id's bytes.

use crate::id::ChunkId;
use std::ops::Range;

const MAGIC: [u8; 8] = *b"SILTSEGM";
const VERSION: u32 = 1;
pub(super) const HEADER_BYTES: usize = 128;
const HEADER_CHECKED: usize = 120;
pub(super) const ENTRY_BYTES: usize = 36;
pub(super) const BLOCK_ENTRIES: usize = 256;
pub(super) const FENCE_BYTES: usize = 8;
pub(super) const CHECK_BYTES: usize = 8;
pub(super) const SHARD_BYTES: usize = 44;
pub(super) const PACK_BYTES: usize = 56;
pub(super) const FRAME_BYTES: usize = 20;
/// A filter's own description: see `xorf`'s DMA serialisation.
pub(super) const DESCRIPTOR_BYTES: usize = 20;
/// A shard holds about this many entries at most when ids are evenly spread.
pub(super) const SHARD_ENTRIES_MAX: u64 = 1 << 16;
const SHARD_BITS_MAX: u32 = 24;

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("the range is 4 bytes long"))
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("the range is 8 bytes long"))
}

/// The checksum of a block of entries or of the header.
pub(super) fn checksum(bytes: &[u8]) -> u64 {
    u64_at(blake3::hash(bytes).as_bytes(), 0)
}

/// The first 8 bytes of an id as a number that sorts as the id does.
pub(super) fn sort_key(id: &[u8]) -> u64 {
    u64::from_be_bytes(id[..8].try_into().expect("the range is 8 bytes long"))
}

/// Which shard an id falls in.
pub(super) fn shard_of(key: u64, bits: u32) -> usize {
    // A shift by 64 is not possible; one shard takes everything.
    if bits == 0 { 0 } else { (key >> (64 - bits)) as usize }
}

/// How many bits of the id choose the shard when a segment will have this many entries.
pub(super) fn shard_bits_for(entries: u64) -> u32 {
    let shards = entries.div_ceil(SHARD_ENTRIES_MAX).max(1);
    shards.next_power_of_two().trailing_zeros().min(SHARD_BITS_MAX)
}

/// What a filter knows an id by. Salted, because a repository that others write to can contain ids chosen so that the
/// construction of a filter fails or takes forever.
pub(super) fn filter_key(salt: [u64; 2], id: &[u8]) -> u64 {
    let product = u128::from(u64_at(id, 0) ^ salt[0]) * u128::from(u64_at(id, 8) ^ salt[1]);
    product as u64 ^ (product >> 64) as u64
}

/// One record of the sorted entries: id, number of the frame in the frame table, offset and length in the raw frame.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct SegmentEntry(pub(super) [u8; ENTRY_BYTES]);

impl SegmentEntry {
    pub(super) fn new(id: &ChunkId, frame: u32, offset: u32, length: u32) -> Self {
        let mut bytes = [0; ENTRY_BYTES];
        bytes[..24].copy_from_slice(id.as_bytes());
        bytes[24..28].copy_from_slice(&frame.to_le_bytes());
        bytes[28..32].copy_from_slice(&offset.to_le_bytes());
        bytes[32..].copy_from_slice(&length.to_le_bytes());
        SegmentEntry(bytes)
    }

    pub(super) fn id(&self) -> &[u8] {
        &self.0[..ChunkId::BYTES]
    }

    pub(super) fn frame(&self) -> u32 {
        u32_at(&self.0, 24)
    }

    pub(super) fn offset(&self) -> u32 {
        u32_at(&self.0, 28)
    }

    pub(super) fn length(&self) -> u32 {
        u32_at(&self.0, 32)
    }

    pub(super) fn set_frame(&mut self, frame: u32) {
        self.0[24..28].copy_from_slice(&frame.to_le_bytes());
    }

    /// By id, and among equal ids the earliest pack first, so that which one is kept does not depend on chance.
    pub(super) fn order(&self, other: &SegmentEntry) -> std::cmp::Ordering {
        let place = |entry: &SegmentEntry| (entry.frame(), entry.offset(), entry.length());
        (sort_key(&self.0).cmp(&sort_key(&other.0)))
            .then_with(|| self.id().cmp(other.id()))
            .then_with(|| place(self).cmp(&place(other)))
    }
}

/// The counts and checksums that a segment begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SegmentHeader {
    pub(super) shard_bits: u32,
    pub(super) salt: [u64; 2],
    pub(super) entries: u64,
    pub(super) packs: u64,
    pub(super) frames: u64,
    pub(super) filter_bytes: u64,
    /// Covers everything after the entries.
    pub(super) tables: [u8; 32],
}

impl SegmentHeader {
    pub(super) fn encode(&self) -> [u8; HEADER_BYTES] {
        let mut bytes = [0; HEADER_BYTES];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
        bytes[12..16].copy_from_slice(&self.shard_bits.to_le_bytes());
        let numbers = [self.salt[0], self.salt[1], self.entries, self.packs, self.frames, self.filter_bytes];
        for (slot, number) in bytes[16..64].chunks_exact_mut(8).zip(numbers) {
            slot.copy_from_slice(&number.to_le_bytes());
        }
        bytes[64..96].copy_from_slice(&self.tables);
        let check = checksum(&bytes[..HEADER_CHECKED]);
        bytes[HEADER_CHECKED..].copy_from_slice(&check.to_le_bytes());
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes = bytes.get(..HEADER_BYTES).ok_or("it is shorter than its header")?;
        if bytes[..8] != MAGIC {
            return Err("it does not begin like an index segment");
        }
        if checksum(&bytes[..HEADER_CHECKED]) != u64_at(bytes, HEADER_CHECKED) {
            return Err("its header is damaged");
        }
        if u32_at(bytes, 8) != VERSION {
            return Err("its version is unknown");
        }
        let header = SegmentHeader {
            shard_bits: u32_at(bytes, 12),
            salt: [u64_at(bytes, 16), u64_at(bytes, 24)],
            entries: u64_at(bytes, 32),
            packs: u64_at(bytes, 40),
            frames: u64_at(bytes, 48),
            filter_bytes: u64_at(bytes, 56),
            tables: bytes[64..96].try_into().expect("the range is 32 bytes long"),
        };
        if header.shard_bits <= SHARD_BITS_MAX { Ok(header) } else { Err("its header is invalid") }
    }
}

/// Where the sections lie in a file.
#[derive(Clone, Debug)]
pub(super) struct SegmentSections {
    pub(super) entries: Range<usize>,
    pub(super) fences: Range<usize>,
    pub(super) checks: Range<usize>,
    pub(super) shards: Range<usize>,
    pub(super) packs: Range<usize>,
    pub(super) frames: Range<usize>,
    pub(super) filters: Range<usize>,
}

impl SegmentSections {
    /// None unless the sections fill a file of this length exactly; so every count is bounded by the file's size.
    pub(super) fn of(header: &SegmentHeader, file_bytes: usize) -> Option<Self> {
        let mut end = HEADER_BYTES;
        let mut next = |count: u64, each: usize| {
            let start = end;
            end = start.checked_add(usize::try_from(count).ok()?.checked_mul(each)?)?;
            (end <= file_bytes).then_some(start..end)
        };
        let blocks = header.entries.div_ceil(BLOCK_ENTRIES as u64);
        let sections = SegmentSections {
            entries: next(header.entries, ENTRY_BYTES)?,
            fences: next(blocks, FENCE_BYTES)?,
            checks: next(blocks, CHECK_BYTES)?,
            shards: next(1 << header.shard_bits, SHARD_BYTES)?,
            packs: next(header.packs, PACK_BYTES)?,
            frames: next(header.frames, FRAME_BYTES)?,
            filters: next(header.filter_bytes, 1)?,
        };
        (end == file_bytes).then_some(sections)
    }
}

/// One row of the shard table.
#[derive(Clone, Copy, Debug)]
pub(super) struct ShardHeader {
    /// Its first entry.
    pub(super) start: u64,
    /// Where its filter begins in the filters' section.
    pub(super) filter_start: u64,
    /// 0: this shard has no filter.
    pub(super) filter_length: u64,
    pub(super) descriptor: [u8; DESCRIPTOR_BYTES],
}

impl ShardHeader {
    pub(super) fn encode(&self) -> [u8; SHARD_BYTES] {
        let mut bytes = [0; SHARD_BYTES];
        bytes[..8].copy_from_slice(&self.start.to_le_bytes());
        bytes[8..16].copy_from_slice(&self.filter_start.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.filter_length.to_le_bytes());
        bytes[24..].copy_from_slice(&self.descriptor);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Self {
        ShardHeader {
            start: u64_at(bytes, 0),
            filter_start: u64_at(bytes, 8),
            filter_length: u64_at(bytes, 16),
            descriptor: bytes[24..SHARD_BYTES].try_into().expect("a row of the shard table is that long"),
        }
    }

    /// Whether the filter is within its section and lookups stay within its bytes.
    pub(super) fn is_sound(&self, filter_bytes: u64) -> bool {
        if self.filter_start.checked_add(self.filter_length).is_none_or(|end| end > filter_bytes) {
            return false;
        }
        let [segment, mask, count] = [8, 12, 16].map(|at| u64::from(u32_at(&self.descriptor, at)));
        self.filter_length == 0
            || (segment.is_power_of_two()
                && mask == segment - 1
                && count > 0
                && count.is_multiple_of(segment)
                && self.filter_length <= u64::from(u32::MAX)
                && count + 2 * segment == self.filter_length)
    }

    /// Where a filter is read for a key: only to have the bytes at hand, for the answer is `xorf`'s.
    pub(super) fn filter_places(&self, key: u64) -> [usize; 3] {
        let mut hash = key.wrapping_add(u64_at(&self.descriptor, 0));
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
        hash = (hash ^ (hash >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
        hash ^= hash >> 33;
        let [segment, mask, count] = [8, 12, 16].map(|at| u64::from(u32_at(&self.descriptor, at)));
        let first = ((u128::from(hash) * u128::from(count)) >> 64) as u64;
        let second = (first + segment) ^ ((hash >> 18) & mask);
        let third = (first + 2 * segment) ^ (hash & mask);
        [first as usize, second as usize, third as usize]
    }
}
