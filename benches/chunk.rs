//! Chunk sizes: how many chunks a tree has, what a next version adds, how fast it is cut.
//!
//! SILT_BENCH_TREE and SILT_BENCH_NEXT name two versions of a tree (without them: made bytes and a changed copy).
//! Prints, for averages from 4 KiB to 64 KiB: chunks, new bytes of the next version, GB/s of one core.

use siltstone::chunk::{ChunkSizes, ChunkTable, Chunker, ContentKind};
use std::collections::HashSet;
use std::time::Instant;

fn files(variable: &str, salt: u64) -> Vec<Vec<u8>> {
    match std::env::var_os(variable) {
        Some(root) => walkdir::WalkDir::new(root)
            .sort_by_file_name()
            .into_iter()
            .flatten()
            .filter(|entry| entry.file_type().is_file())
            .filter_map(|entry| std::fs::read(entry.path()).ok())
            .collect(),
        None => (0..2000u64)
            .map(|file| {
                let mut bytes = vec![0; 20_000];
                blake3::Hasher::new().update(&file.to_le_bytes()).finalize_xof().fill(&mut bytes);
                if file % 20 == 0 {
                    bytes.splice(9_000..9_000, salt.to_le_bytes());
                }
                bytes
            })
            .collect(),
    }
}

fn main() {
    let (old, new) = (files("SILT_BENCH_TREE", 1), files("SILT_BENCH_NEXT", 2));
    println!("average  chunks    next version adds  GB/s");
    for average in [4, 8, 16, 32, 64].map(|kib: usize| kib << 10) {
        let sizes = ChunkSizes { min: average / 2, average, max: average * 8, fixed: false };
        let table = ChunkTable { small_file: sizes, large_file: sizes, ..ChunkTable::default() };
        let chunker = Chunker::new(table, &[1; 32]);
        let mut known = HashSet::new();
        let (mut chunks, mut bytes, mut seconds) = (0u64, 0u64, 0.0);
        let mut cut_all = |files: &[Vec<u8>], each: &mut dyn FnMut(&[u8])| {
            for file in files {
                let begun = Instant::now();
                let mut cuts = Vec::new();
                let mut at = 0;
                while let Some(length) = chunker.cut(ContentKind::SmallFile, &file[at..], true) {
                    cuts.push(at..at + length);
                    at += length;
                }
                seconds += begun.elapsed().as_secs_f64();
                bytes += file.len() as u64;
                cuts.into_iter().for_each(|cut| each(&file[cut]));
            }
        };
        cut_all(&old, &mut |chunk| {
            chunks += 1;
            known.insert(blake3::hash(chunk));
        });
        let mut added = 0u64;
        cut_all(&new, &mut |chunk| {
            if known.insert(blake3::hash(chunk)) {
                added += chunk.len() as u64;
            }
        });
        let rate = bytes as f64 / seconds.max(1e-9) / 1e9;
        println!("{:4} KiB  {chunks:8}  {:12.2} MB    {rate:.2}", average >> 10, added as f64 / 1e6);
    }
}
