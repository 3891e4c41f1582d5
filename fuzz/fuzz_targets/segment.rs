//! Any bytes as an index segment, raw and with check sums made right: never a panic on opening or lookup.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::id::ChunkId;
use siltstone::index::Segment;

const HEADER_BYTES: usize = 128;
const ENTRY_BYTES: usize = 36;

fn look_up(bytes: Vec<u8>, id: &ChunkId) {
    let entries: Vec<ChunkId> = bytes
        .get(HEADER_BYTES..)
        .unwrap_or_default()
        .chunks_exact(ENTRY_BYTES)
        .filter_map(|entry| ChunkId::from_slice(&entry[..ChunkId::BYTES]))
        .take(16)
        .collect();
    let Ok(segment) = Segment::from_bytes(bytes) else { return };
    for id in entries.iter().chain([id]) {
        let _ = segment.locate(id);
        let _ = segment.contains(id);
    }
}

/// Header with small counts, sections of these bytes, and every check sum as a writer of the file can make it.
fn with_check_sums(counts: [u8; 5], salt: u64, rest: &[u8]) -> Vec<u8> {
    let [shard_bits, entries, packs, frames, filter_bytes] = counts;
    let (shard_bits, entries) = (u32::from(shard_bits % 4), u64::from(entries % 32));
    let numbers = [salt, !salt, entries, u64::from(packs % 8), u64::from(frames % 8), u64::from(filter_bytes)];
    let entries_end = HEADER_BYTES + entries as usize * ENTRY_BYTES;
    let blocks = usize::from(entries > 0);
    let shards = 44 << shard_bits;
    let tail = numbers[3] as usize * 56 + numbers[4] as usize * 20 + numbers[5] as usize;
    let mut bytes = b"SILTSEGM".to_vec();
    bytes.extend_from_slice(&1u32.to_le_bytes());
    bytes.extend_from_slice(&shard_bits.to_le_bytes());
    numbers.iter().for_each(|number| bytes.extend_from_slice(&number.to_le_bytes()));
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend(rest.iter().copied().chain(std::iter::repeat(0)).take(entries_end - HEADER_BYTES));
    let mut rest = rest.iter().copied().skip(entries_end - HEADER_BYTES).chain(std::iter::repeat(0));
    bytes.extend(rest.by_ref().take(blocks * 8));
    if blocks > 0 {
        let check = blake3::hash(&bytes[HEADER_BYTES..entries_end]);
        bytes.extend_from_slice(&check.as_bytes()[..8]);
    }
    bytes.extend(rest.take(shards + tail));
    let tables = blake3::hash(&bytes[entries_end..]);
    bytes[64..96].copy_from_slice(tables.as_bytes());
    let check = blake3::hash(&bytes[..120]);
    bytes[120..HEADER_BYTES].copy_from_slice(&check.as_bytes()[..8]);
    bytes
}

fuzz_target!(|input: ([u8; 24], [u8; 5], u64, &[u8])| {
    let (id, counts, salt, rest) = input;
    look_up(rest.to_vec(), &ChunkId(id));
    look_up(with_check_sums(counts, salt, rest), &ChunkId(id));
});
