//! Packs of a hostile writer, whose seals and hashes are right and whose lengths need not be: never a panic.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::format::read_pack;
use siltstone::id::{ChunkKind, PackId};
use siltstone::seal::{Compression, FrameSealer, KeySet, PACK_HEADER_BYTES, Secret, new_pack_key};
use std::sync::LazyLock;

static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::from_master(Secret([7; 32])));

fn read(bytes: &[u8]) {
    let pack = PackId(*blake3::hash(bytes).as_bytes());
    if let Ok(contents) = read_pack(&KEYS, pack, bytes) {
        let stored: u64 = contents.frames.iter().map(|frame| u64::from(frame.stored)).sum();
        assert!(PACK_HEADER_BYTES as u64 + stored <= contents.stored_bytes);
    }
}

fuzz_target!(|input: (Vec<&[u8]>, &[u8], Option<u32>, bool)| {
    let (raws, trailer, footer, is_honest) = input;
    read(trailer);
    let (key, header) = new_pack_key(&KEYS, ChunkKind::Content).expect("there is randomness");
    let mut sealer = FrameSealer::new(Compression::STORE).expect("there is memory");
    let mut seal = |number: u32, raw: &[u8]| {
        sealer.compress(raw).expect("it is small enough");
        sealer.seal(&key, number, raw).expect("it is small enough")
    };
    let mut bytes = header.to_vec();
    let mut lengths = vec![1, 0, raws.len().min(100) as u8];
    for (number, raw) in raws.iter().take(100).enumerate() {
        let raw = &raw[..raw.len().min(100)];
        let sealed = seal(number as u32, raw);
        lengths.extend([(sealed.len() as u8 & 0x7f) | 0x80, (sealed.len() >> 7) as u8, raw.len() as u8, 1]);
        lengths.push(raw.len() as u8);
        bytes.extend(sealed);
    }
    let trailer = seal(u32::MAX, if is_honest { &lengths } else { trailer });
    bytes.extend_from_slice(&trailer);
    bytes.extend_from_slice(&footer.unwrap_or(trailer.len() as u32).to_le_bytes());
    read(&bytes);
});
