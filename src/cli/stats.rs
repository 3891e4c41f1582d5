//! `silt stats`: the size of snapshots, and what deduplication and compression save.

use super::exit::{Exit, Failure};
use super::open::open;
use super::options::{GlobalOptions, RangeOptions};
use super::print::{print, print_json};
use super::session;
use clap::Args;
use siltstone::browse::{self, Statistics};
use siltstone::when::{format_bytes, format_count, format_counted};

#[derive(Args, Debug)]
pub(super) struct StatsArgs {
    #[command(flatten)]
    range: RangeOptions,
}

pub(super) fn run(args: &StatsArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let (console, watch) = session::begin(options, false)?;
    let filter = args.range.filter()?;
    let repo = open(options, &watch)?;
    let snapshots = repo.snapshots_matching(&filter, &watch)?;
    let counted = browse::stats(&repo, &snapshots, b"/", &watch)?;
    if console.json() {
        print_json(&counted)?
    } else {
        print(&words(&counted))?
    }
    Ok(console.exit_after(&watch))
}

fn words(counted: &Statistics) -> String {
    format!(
        "Snapshots   {}: {}, {}, {}; {}\n\
         Unique      {}{} in {} (deduplication ratio {:.2}), {} stored (compression ratio {:.2})\n\
         Repository  {} ({}), {} ({}), {}\n",
        format_count(counted.snapshots),
        format_counted(counted.files, "file", "files"),
        format_counted(counted.directories, "directory", "directories"),
        format_counted(counted.others, "other entry", "other entries"),
        format_bytes(counted.bytes),
        if counted.exact { "" } else { "about " },
        format_bytes(counted.unique_bytes),
        format_counted(counted.unique_chunks, "chunk", "chunks"),
        counted.deduplication_ratio(),
        format_bytes(counted.unique_stored_bytes),
        counted.compression_ratio(),
        format_counted(counted.packs, "pack", "packs"),
        format_bytes(counted.packs_bytes),
        format_counted(counted.indexes, "index object", "index objects"),
        format_bytes(counted.indexes_bytes),
        format_counted(counted.indexed_chunks, "chunk", "chunks"),
    )
}
