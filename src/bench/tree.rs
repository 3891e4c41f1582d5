//! The whole line on a tree made from a seed: first backup, unchanged, churned, restored; beside rivals when asked.

use crate::bench::{Rival, content, median};
use crate::error::{Error, Kind, Result};
use crate::watch::Watch;
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// What a made tree looks like; the same shape and seed give the same bytes everywhere.
#[derive(Clone, Debug, Serialize)]
pub struct TreeShape {
    /// How many files.
    pub files: u64,
    /// Files in one folder.
    pub folder_files: u64,
    /// The median size in bytes; sizes spread around it by powers of two up to 64 times.
    pub median_bytes: u64,
    /// How many in a thousand files another day changes.
    pub churn_per_mille: u64,
    /// What the random numbers begin with.
    pub seed: u64,
}

impl Default for TreeShape {
    fn default() -> Self {
        TreeShape { files: 50_000, folder_files: 100, median_bytes: 2_000, churn_per_mille: 10, seed: 0 }
    }
}

/// What to measure on a tree that is made for it.
#[derive(Clone, Debug)]
pub struct TreeOptions {
    /// What the tree looks like.
    pub shape: TreeShape,
    /// Where the tree, the repositories and the restored trees go; emptied and removed.
    pub folder: PathBuf,
    /// How often each step is measured.
    pub rounds: usize,
    /// Other tools to measure in turn.
    pub rivals: Vec<Rival>,
}

/// What is measured of a tool, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum BenchStep {
    /// The first backup.
    First,
    /// A backup after which nothing has changed.
    Unchanged,
    /// A backup after another day's changes.
    Churned,
    /// A restore of the last backup.
    Restore,
}

impl BenchStep {
    pub(crate) const ALL: [BenchStep; 4] =
        [BenchStep::First, BenchStep::Unchanged, BenchStep::Churned, BenchStep::Restore];
}

/// One tool's median seconds for one step.
#[derive(Clone, Debug, Serialize)]
pub struct StepFigures {
    /// The name of the tool.
    pub tool: String,
    /// What was measured.
    pub step: BenchStep,
    /// The median of all rounds.
    pub seconds: f64,
    /// What the repository takes after the step.
    pub repository_bytes: u64,
}

/// A random number of a file, from the seed alone.
fn number(shape: &TreeShape, file: u64, use_: u64) -> u64 {
    let mut bytes = [0; 24];
    bytes[..8].copy_from_slice(&shape.seed.to_le_bytes());
    bytes[8..16].copy_from_slice(&file.to_le_bytes());
    bytes[16..].copy_from_slice(&use_.to_le_bytes());
    let hash = blake3::hash(&bytes);
    u64::from_le_bytes(hash.as_bytes()[..8].try_into().expect("eight bytes"))
}

fn path_of(shape: &TreeShape, root: &Path, file: u64) -> PathBuf {
    let folder = file / shape.folder_files.max(1);
    root.join(format!("{:03}", folder / 100)).join(format!("{:02}", folder % 100)).join(format!("file-{file:07}.txt"))
}

/// Makes the tree of a day: day 0 is whole, each later day changes its share of the files.
pub fn make_tree(shape: &TreeShape, root: &Path, day: u64) -> Result<u64> {
    let mut bytes = 0;
    for file in 0..shape.files {
        let changes = day > 0 && number(shape, file, day) % 1000 < shape.churn_per_mille;
        if day > 0 && !changes {
            continue;
        }
        let spread = number(shape, file, 1 << 32);
        let size = (shape.median_bytes.max(1) << (spread % 7)) >> (spread / 7 % 7);
        let path = path_of(shape, root, file);
        let failed = |error| Error::io("make", path.display(), error);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(failed)?;
        }
        std::fs::write(&path, content(number(shape, file, day << 40), size as usize)).map_err(failed)?;
        bytes += size;
    }
    Ok(bytes)
}

/// Runs every tool through every step, interleaved, `rounds` times.
pub fn measure_tree(options: &TreeOptions, watch: &Watch) -> Result<Vec<StepFigures>> {
    let tree = options.folder.join("tree");
    let mut seconds: Vec<Vec<f64>> = vec![Vec::new(); options.rivals.len() * BenchStep::ALL.len()];
    let mut sizes = vec![0; seconds.len()];
    for _ in 0..options.rounds.max(1) {
        clear(&options.folder)?;
        std::fs::create_dir_all(&tree).map_err(|error| Error::io("make", tree.display(), error))?;
        watch.stage("making the tree");
        make_tree(&options.shape, &tree, 0)?;
        for rival in &options.rivals {
            rival.prepare(&options.folder)?;
        }
        for (at, step) in BenchStep::ALL.into_iter().enumerate() {
            if step == BenchStep::Churned {
                make_tree(&options.shape, &tree, 1)?;
            }
            for (which, rival) in options.rivals.iter().enumerate() {
                watch.cancel.check()?;
                watch.stage(&format!("{}: {step:?}", rival.name()));
                let begun = Instant::now();
                rival.run(step, &options.folder, &tree)?;
                let slot = which * BenchStep::ALL.len() + at;
                seconds[slot].push(begun.elapsed().as_secs_f64());
                sizes[slot] = bytes_below(&rival.repository(&options.folder));
            }
        }
        for rival in &options.rivals {
            same_tree(&tree, &rival.restored(&options.folder, &tree))
                .map_err(|error| Error::new(Kind::Corrupt, "trust the restore of", rival.name()).because(error))?;
        }
    }
    clear(&options.folder)?;
    let mut figures = Vec::new();
    for (slot, seconds) in seconds.into_iter().enumerate() {
        figures.push(StepFigures {
            tool: options.rivals[slot / BenchStep::ALL.len()].name().to_owned(),
            step: BenchStep::ALL[slot % BenchStep::ALL.len()],
            seconds: median(seconds),
            repository_bytes: sizes[slot],
        });
    }
    Ok(figures)
}

fn clear(folder: &Path) -> Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(Error::io("empty", folder.display(), error)),
        _ => Ok(()),
    }
}

fn bytes_below(folder: &Path) -> u64 {
    let files = walkdir::WalkDir::new(folder).into_iter().flatten().filter(|entry| entry.file_type().is_file());
    files.filter_map(|entry| entry.metadata().ok()).map(|meta| meta.len()).sum()
}

/// A restore that lost something is not measured.
fn same_tree(wanted: &Path, found: &Path) -> Result<()> {
    let list = |root: &Path| -> Vec<(PathBuf, u64)> {
        let files = walkdir::WalkDir::new(root).sort_by_file_name().into_iter().flatten();
        let files = files.filter(|entry| entry.file_type().is_file());
        let of = |entry: walkdir::DirEntry| {
            let size = entry.metadata().map_or(0, |meta| meta.len());
            (entry.path().strip_prefix(root).unwrap_or(entry.path()).to_owned(), size)
        };
        files.map(of).collect()
    };
    if list(wanted) == list(found) {
        Ok(())
    } else {
        Err(Error::corrupt("compare", found.display(), "it is not the tree that was backed up"))
    }
}
