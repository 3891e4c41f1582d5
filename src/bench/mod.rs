//! Measure: what this machine, a storage and the whole line do; every figure is a median of interleaved rounds.

mod machine;
mod plot;
mod rivals;
mod storage;
mod tree;

pub use machine::{MachineFigures, measure_machine};
pub use plot::plot_svg;
pub use rivals::{Rival, rivals_on_path};
pub use storage::{StorageFigures, measure_storage};
pub use tree::{BenchStep, StepFigures, TreeOptions, TreeShape, make_tree, measure_tree};

/// The middle of an unsorted list; 0 of none.
pub(crate) fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied().unwrap_or(0.0)
}

/// Deterministic bytes from a seed, half of them of words so that they compress as text does.
pub(crate) fn content(seed: u64, length: usize) -> Vec<u8> {
    let mut noise = vec![0; length];
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    blake3::Hasher::new_keyed(&key).finalize_xof().fill(&mut noise);
    const WORDS: [&[u8]; 16] = [
        b"static ",
        b"int ",
        b"return ",
        b"struct ",
        b"const ",
        b"if (",
        b") {\n",
        b"}\n\n",
        b"->",
        b"NULL",
        b"size",
        b"value",
        b" = ",
        b";\n\t",
        b"void ",
        b"unsigned ",
    ];
    let mut bytes = Vec::with_capacity(length + 16);
    for byte in noise {
        if bytes.len() >= length {
            break;
        }
        if byte < 224 { bytes.extend_from_slice(WORDS[usize::from(byte & 15)]) } else { bytes.push(byte) }
    }
    bytes.truncate(length);
    bytes
}
