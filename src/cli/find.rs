//! `silt find`: every version of a path, across snapshots.

use super::entry::{entry_json, show_seconds};
use super::exit::{Exit, Failure};
use super::open::open;
use super::options::{GlobalOptions, RangeOptions, bytes_parser};
use super::output::Console;
use super::print::Lines;
use super::signals;
use super::text::{rfc3339, show_path, show_stamp};
use clap::Args;
use serde_json::{Value, json};
use siltstone::browse::{self, FindOptions, Version};
use siltstone::entry::PathText;
use siltstone::error::Error;
use siltstone::when::{format_bytes, format_count};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;

/// A pattern that makes no sense is an error of the command line.
fn pattern(words: &[u8]) -> Result<OsString, Error> {
    browse::Glob::new(words, false)?;
    Ok(OsStr::from_bytes(words).to_owned())
}

#[derive(Args, Debug)]
pub struct FindArgs {
    /// Names or paths with wildcards: *.sql, /etc/**/hosts
    #[arg(value_name = "PATTERN", required = true, value_parser = bytes_parser(pattern))]
    patterns: Vec<OsString>,

    /// Ignore the case of ASCII letters
    #[arg(short, long)]
    ignore_case: bool,

    #[command(flatten)]
    range: RangeOptions,
}

pub fn run(args: &FindArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let console = Console::new(options, false);
    let watch = console.watch();
    signals::stop_on_signals(&watch)?;
    let filter = args.range.filter()?;
    let wanted = FindOptions {
        patterns: args.patterns.iter().map(|pattern| pattern.as_bytes().to_vec()).collect(),
        ignore_case: args.ignore_case,
    };
    let repo = open(options, &watch)?;
    let mut lines = Lines::new();
    browse::find(&repo, &filter, &wanted, &watch, &mut |path, versions| {
        if console.json() {
            let versions: Vec<Value> = versions.iter().map(|version| version_json(path, version)).collect();
            return lines.json(&json!({"path": PathText(path.to_vec()), "versions": versions}));
        }
        lines.line(&show_path(path))?;
        versions.iter().try_for_each(|version| lines.line(&version_line(version)))
    })?;
    lines.end()?;
    Ok(console.exit_after(&watch))
}

fn version_line(version: &Version) -> String {
    let snapshots = match version.snapshots {
        1 => format!("in {} ({})", version.first.0.short(), show_stamp(&version.first.1)),
        count => format!(
            "in {} snapshots, from {} ({}) to {} ({})",
            format_count(count),
            version.first.0.short(),
            show_stamp(&version.first.1),
            version.last.0.short(),
            show_stamp(&version.last.1),
        ),
    };
    let size = format_bytes(version.entry.size);
    format!("  {}  {size:>8}  {snapshots}", show_seconds(version.entry.meta.modified))
}

fn version_json(path: &[u8], version: &Version) -> Value {
    let snapshot = |(id, stamp): &(siltstone::id::SnapshotId, siltstone::repo::Stamp)| json!({"id": id.to_hex(), "time": rfc3339(stamp)});
    json!({
        "host": version.host,
        "job": version.job,
        "entry": entry_json(path, &version.entry),
        "first": snapshot(&version.first),
        "last": snapshot(&version.last),
        "snapshots": version.snapshots,
    })
}
