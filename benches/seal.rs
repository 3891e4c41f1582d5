//! Frames: size and speed by raw length and zstd level, with sealing and the check that every frame gets.
//!
//! SILT_BENCH_TREE names a folder whose files are read (up to 256 MB); without it, made bytes.

use siltstone::id::ChunkKind;
use siltstone::seal::{Compression, FrameSealer, KeySet, Secret, new_pack_key};
use std::time::Instant;

fn main() {
    let mut bytes = Vec::new();
    if let Some(root) = std::env::var_os("SILT_BENCH_TREE") {
        for entry in walkdir::WalkDir::new(root).sort_by_file_name().into_iter().flatten() {
            if entry.file_type().is_file() && bytes.len() < 256 << 20 {
                bytes.extend(std::fs::read(entry.path()).unwrap_or_default());
            }
        }
    } else {
        while bytes.len() < 64 << 20 {
            bytes.extend_from_slice(
                format!("line {} of some text that repeats itself\n", bytes.len() % 9973).as_bytes(),
            );
        }
    }
    let keys = KeySet::from_master(Secret([1; 32]));
    let (key, _) = new_pack_key(&keys, ChunkKind::Content).expect("a pack key is made of random bytes");
    println!("level  frame     stored       compress    with seal and check");
    let levels = [1, 2, 3, 5].map(|level| (level.to_string(), Compression::Level(level)));
    for (level, compression) in [("auto".to_owned(), Compression::Auto)].into_iter().chain(levels) {
        for frame in [256 << 10, 512 << 10, 1 << 20, 2 << 20, 4 << 20] {
            let mut sealer = FrameSealer::new(compression).expect("the level is one of zstd's");
            let (mut compressing, mut whole, mut stored) = (0.0, 0.0, 0);
            for (number, raw) in bytes.chunks(frame).enumerate() {
                let begun = Instant::now();
                sealer.compress(raw).expect("memory suffices");
                compressing += begun.elapsed().as_secs_f64();
                stored += sealer.seal(&key, number as u32, raw).expect("what is sealed opens").len();
                whole += begun.elapsed().as_secs_f64();
            }
            let rate = |seconds: f64| bytes.len() as f64 / seconds / 1e6;
            let (fast, all) = (rate(compressing), rate(whole));
            println!("{level:>5}  {:5} KiB {:9.2} MB {fast:8.0} MB/s {all:8.0} MB/s", frame >> 10, stored as f64 / 1e6);
        }
    }
}
