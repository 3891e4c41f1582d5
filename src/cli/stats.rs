//! `silt stats`: how much there is, and how much of it is the same.

use super::exit::{Exit, Failure};
use super::open::open;
use super::options::{GlobalOptions, RangeOptions};
use super::output::{Console, print, print_json};
use super::signals;
use clap::Args;
use serde_json::json;
use siltstone::browse::{self, Statistics};
use siltstone::when::{format_bytes, format_count};

#[derive(Args, Debug)]
pub struct StatsArgs {
    #[command(flatten)]
    range: RangeOptions,
}

pub fn run(args: &StatsArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let console = Console::new(options, false);
    let watch = console.watch();
    signals::stop_on_signals(&watch)?;
    let filter = args.range.filter()?;
    let repo = open(options, &watch)?;
    let snapshots = repo.snapshots_matching(&filter, &watch)?;
    let counted = browse::stats(&repo, &snapshots, b"/", &watch)?;
    match console.json() {
        true => print_json(&json!({
            "snapshots": counted.snapshots,
            "files": counted.files,
            "directories": counted.directories,
            "others": counted.others,
            "bytes": counted.bytes,
            "unique_chunks": counted.unique_chunks,
            "unique_bytes": counted.unique_bytes,
            "unique_stored_bytes": counted.unique_stored_bytes,
            "exact": counted.exact,
            "deduplication_ratio": counted.deduplication_ratio(),
            "compression_ratio": counted.compression_ratio(),
            "packs": counted.packs,
            "packs_bytes": counted.packs_bytes,
            "indexes": counted.indexes,
            "indexes_bytes": counted.indexes_bytes,
            "indexed_chunks": counted.indexed_chunks,
        }))?,
        false => print(&words(&counted))?,
    }
    Ok(console.exit_after(&watch))
}

fn words(counted: &Statistics) -> String {
    format!(
        "Snapshots   {}: {} files, {} folders, {} others; {}\n\
         Unique      {}{} in {} chunks ({:.2} times less), {} stored ({:.2} times less)\n\
         Repository  {} packs of {}, {} index objects of {}, {} chunks\n",
        format_count(counted.snapshots),
        format_count(counted.files),
        format_count(counted.directories),
        format_count(counted.others),
        format_bytes(counted.bytes),
        if counted.exact { "" } else { "about " },
        format_bytes(counted.unique_bytes),
        format_count(counted.unique_chunks),
        counted.deduplication_ratio(),
        format_bytes(counted.unique_stored_bytes),
        counted.compression_ratio(),
        format_count(counted.packs),
        format_bytes(counted.packs_bytes),
        format_count(counted.indexes),
        format_bytes(counted.indexes_bytes),
        format_count(counted.indexed_chunks),
    )
}
