//! `silt snapshots`: the list of snapshots.

use super::exit::{Exit, Failure};
use super::open::open;
use super::options::{FILTERS, GlobalOptions, RangeOptions};
use super::print::{print, print_json_list};
use super::session;
use super::text::{show_path, show_source, show_stamp, table};
use clap::Args;
use serde::Serialize;
use siltstone::entry::Warning;
use siltstone::repo::{Snapshot, SnapshotInfo};
use siltstone::when::{format_bytes, format_count};

#[derive(Args, Debug)]
pub(super) struct SnapshotsArgs {
    #[command(flatten)]
    range: RangeOptions,

    /// Only the newest COUNT of the snapshots that match
    #[arg(long, value_name = "COUNT", help_heading = FILTERS)]
    last: Option<usize>,
}

/// Sources named in a line, and how many characters they take, unless one alone is longer.
const SOURCES_SHOWN: u64 = 5;
const SOURCES_CHARACTERS: usize = 200;
/// How many characters of a host, a job or tags a line shows.
const LABEL_CHARACTERS: usize = 60;

/// What follows the list, as JSON.
#[derive(Serialize)]
struct ListWarnings {
    warnings: Vec<Warning>,
    warnings_count: u64,
}

pub(super) fn run(args: &SnapshotsArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let (console, watch) = session::begin(options, false)?;
    let filter = args.range.filter()?;
    let repo = open(options, &watch)?;
    let mut snapshots = repo.snapshots(&watch)?;
    snapshots.retain(|snapshot| filter.matches(snapshot));
    if let Some(last) = args.last {
        snapshots.drain(..snapshots.len().saturating_sub(last));
    }
    if console.json() {
        let (warnings, warnings_count) = console.warnings();
        let rest = ListWarnings { warnings, warnings_count };
        print_json_list("snapshots", snapshots.iter().map(SnapshotInfo::from), &rest)?;
    } else if snapshots.is_empty() {
        if !console.quiet() {
            print(if filter.is_empty() { "No snapshots.\n" } else { "No snapshot matches the filters.\n" })?;
        }
    } else {
        let header = ["ID", "Time", "Host", "Job", "Tags", "Files", "Size", "Warnings", "Sources"];
        print(&table(&header, &[5, 6, 7], snapshots.iter().map(row)))?;
    }
    Ok(console.exit_after(&watch))
}

fn row(snapshot: &Snapshot) -> Vec<String> {
    let sources = show_sources(snapshot);
    let warnings = if snapshot.warnings_count == 0 { String::new() } else { format_count(snapshot.warnings_count) };
    vec![
        snapshot.id.short(),
        show_stamp(&snapshot.started),
        show_cut(&snapshot.host),
        show_cut(&snapshot.job),
        show_cut(&snapshot.tags.join(",")),
        format_count(snapshot.totals.files),
        format_bytes(snapshot.totals.bytes),
        warnings,
        sources,
    ]
}

/// The beginning of a long text: one snapshot must not make a table wide for all.
fn show_cut(text: &str) -> String {
    let shown = show_path(text.as_bytes());
    match shown.char_indices().nth(LABEL_CHARACTERS) {
        Some((end, _)) => format!("{}…", &shown[..end]),
        None => shown,
    }
}

/// The first sources, as far as a line takes them, and how many more there are.
fn show_sources(snapshot: &Snapshot) -> String {
    let mut shown = String::new();
    let mut count = 0;
    for source in &snapshot.sources {
        let source = show_source(source);
        if count > 0 && (count == SOURCES_SHOWN || shown.chars().count() + source.chars().count() > SOURCES_CHARACTERS)
        {
            break;
        }
        if count > 0 {
            shown.push(' ');
        }
        shown.extend(source.chars().take(SOURCES_CHARACTERS));
        count += 1;
    }
    match snapshot.sources_count().saturating_sub(count) {
        0 => shown,
        more => format!("{shown} and {} more", format_count(more)),
    }
}
