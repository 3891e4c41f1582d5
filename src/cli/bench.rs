//! `silt bench`: measure the machine, a storage or whole backups, beside other tools when asked.

use super::exit::{Exit, Failure};
use super::options::{GlobalOptions, absolute, compression};
use super::output::Console;
use super::print::{print, print_json};
use super::signals;
use super::text::table;
use clap::{Args, Subcommand};
use serde::Serialize;
use siltstone::bench::{
    Rival, StepFigures, TreeOptions, TreeShape, measure_machine, measure_storage, measure_tree, plot_svg,
    rivals_on_path,
};
use siltstone::error::{Error, Kind};
use siltstone::seal::Compression;
use siltstone::watch::NoticeKind;
use siltstone::when::format_bytes;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct BenchArgs {
    #[command(subcommand)]
    what: BenchVerb,
}

#[derive(Subcommand, Debug)]
enum BenchVerb {
    /// Measure chunking, hashing, compression and encryption on one core
    Machine {
        /// How to compress: off, fast, default, best, or a zstd level from 1 to 22
        #[arg(long, value_name = "LEVEL", value_parser = compression, default_value = "default")]
        compression: Compression,
        /// Number of rounds; medians are shown
        #[arg(long, value_name = "COUNT", default_value_t = 5)]
        rounds: usize,
    },
    /// Measure requests to the repository's storage (objects below bench/, deleted afterwards)
    Storage {
        /// Number of rounds; medians are shown
        #[arg(long, value_name = "COUNT", default_value_t = 5)]
        rounds: usize,
    },
    /// Measure backup and restore of a generated directory tree
    Tree {
        /// Number of files
        #[arg(long, value_name = "COUNT", default_value_t = 50_000)]
        files: u64,
        /// Median size of a file
        #[arg(long, default_value = "2000", value_name = "SIZE", value_parser = super::options::size)]
        median: u64,
        /// Files in a thousand that change between two backups
        #[arg(long, value_name = "COUNT", default_value_t = 10)]
        churn: u64,
        /// Seed of the generator: the same seed makes the same tree
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        seed: u64,
        /// Number of rounds; medians are shown
        #[arg(long, value_name = "COUNT", default_value_t = 3)]
        rounds: usize,
        /// Empty directory to work in, deleted afterwards [default: one in the directory for temporary files]
        #[arg(long = "work-dir", alias = "folder", value_name = "DIR")]
        folder: Option<PathBuf>,
        /// Tools to compare with (tar,restic,rustic,borg,bupstash,kopia,vykar); those found on the PATH are run
        #[arg(long, value_delimiter = ',', value_name = "TOOLS")]
        against: Vec<String>,
        /// Draw the results into this SVG file
        #[arg(long, value_name = "FILE")]
        plot: Option<PathBuf>,
    },
}

pub(super) fn run(args: &BenchArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let console = Console::new(options, false);
    match &args.what {
        BenchVerb::Machine { compression, rounds } => machine(&console, *compression, *rounds)?,
        BenchVerb::Storage { rounds } => storage(&console, options, *rounds)?,
        BenchVerb::Tree { files, median, churn, seed, rounds, folder, against, plot } => {
            let shape = TreeShape {
                files: *files,
                median_bytes: *median,
                churn_per_mille: *churn,
                seed: *seed,
                ..TreeShape::default()
            };
            let work = folder
                .clone()
                .unwrap_or_else(|| std::env::temp_dir().join(format!("silt-bench-{}", std::process::id())));
            // Rivals save it by its absolute path.
            let work = absolute(&work)?;
            if work.exists() && std::fs::read_dir(&work).is_ok_and(|mut entries| entries.next().is_some()) {
                return Err(Error::invalid(
                    "work in",
                    work.display(),
                    "the directory is not empty, and the benchmark would delete what is in it",
                )
                .into());
            }
            tree(&console, shape, work, *rounds, against, plot.as_ref())?;
        }
    }
    Ok(console.exit())
}

fn rate(bytes_per_second: f64) -> String {
    format!("{}/s", format_bytes(bytes_per_second as u64))
}

/// What `silt bench tree --json` prints.
#[derive(Serialize)]
struct TreeBench {
    shape: TreeShape,
    rounds: usize,
    figures: Vec<StepFigures>,
}

fn machine(console: &Console, compression: Compression, rounds: usize) -> siltstone::error::Result<()> {
    let watch = console.watch();
    signals::stop_on_signals(&watch)?;
    let figures = measure_machine(compression, rounds, &watch)?;
    if console.json() {
        return print_json(&figures);
    }
    let compress = format!("compress (zstd, {compression}, ratio {:.2})", figures.ratio);
    let rows = [
        ("chunk (FastCDC)", figures.chunk),
        ("hash (keyed BLAKE3)", figures.hash),
        (compress.as_str(), figures.compress),
        ("encrypt and verify", figures.seal),
        ("decrypt and decompress", figures.open),
    ];
    let rows = rows.into_iter().map(|(step, figure)| vec![step.to_owned(), rate(figure)]);
    print(&table(&["Step, one core", "Rate"], &[1], rows))?;
    print(&format!("{} cores\n", figures.cores))
}

fn storage(console: &Console, options: &GlobalOptions, rounds: usize) -> siltstone::error::Result<()> {
    let place = super::open::given_location(options).ok_or_else(|| {
        Error::invalid("measure the storage", "", "no repository was named")
            .hint("name one with --repo or SILT_REPOSITORY")
    })?;
    let watch = console.watch();
    signals::stop_on_signals(&watch)?;
    let storage = super::open::open_storage(place, false, options, &watch)?;
    let figures = measure_storage(storage.as_ref(), rounds)?;
    if console.json() {
        return print_json(&figures);
    }
    let milliseconds = |seconds: f64| format!("{:.2} ms", seconds * 1000.0);
    let rows = [
        ("put a small object", milliseconds(figures.put_small_seconds)),
        ("get a small object", milliseconds(figures.get_small_seconds)),
        ("list", milliseconds(figures.list_seconds)),
        ("put 32 MiB", rate(figures.put_bytes_per_second)),
        ("put 4 × 32 MiB in parallel", rate(figures.put_parallel_bytes_per_second)),
        ("get 32 MiB", rate(figures.get_bytes_per_second)),
    ];
    let rows = rows.into_iter().map(|(step, figure)| vec![step.to_owned(), figure]);
    print(&table(&["Request", "Result"], &[1], rows))
}

fn tree(
    console: &Console,
    shape: TreeShape,
    folder: PathBuf,
    rounds: usize,
    against: &[String],
    plot: Option<&PathBuf>,
) -> siltstone::error::Result<()> {
    // Before hours of work are done for it.
    if let Some(path) = plot.filter(|path| path.symlink_metadata().is_ok()) {
        return Err(Error::new(Kind::AlreadyExists, "write", path.display())
            .because("it exists")
            .hint("choose another name, or remove it"));
    }
    let watch = console.watch();
    signals::stop_on_signals(&watch)?;
    let program = std::env::current_exe().map_err(|error| Error::io("find", "this program", error))?;
    let (others, missing) = rivals_on_path(against)?;
    for name in missing {
        watch.notice(NoticeKind::Skipped, format!("{name} is not on the PATH and is skipped"));
    }
    let rivals = std::iter::once(Rival::silt(program)).chain(others).collect();
    let figures = measure_tree(&TreeOptions { shape: shape.clone(), folder, rounds, rivals }, &watch)?;
    if let Some(path) = plot {
        let title = format!("{} files, seconds, medians of {rounds}", shape.files);
        std::fs::write(path, plot_svg(&title, &figures)).map_err(|error| Error::io("write", path.display(), error))?;
    }
    if console.json() {
        return print_json(&TreeBench { shape, rounds, figures });
    }
    let row = |figure: &StepFigures| {
        let step = format!("{:?}", figure.step);
        vec![step, figure.tool.clone(), format!("{:.3} s", figure.seconds), format_bytes(figure.repository_bytes)]
    };
    let mut rows: Vec<&StepFigures> = figures.iter().collect();
    rows.sort_by_key(|figure| figure.step as u8);
    print(&table(&["Step", "Tool", "Time", "Repository"], &[2, 3], rows.into_iter().map(row)))
}
