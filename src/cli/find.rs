//! `silt find`: every version of a path, across snapshots.

use super::entry::show_seconds;
use super::exit::{Exit, Failure};
use super::open::open;
use super::options::{GlobalOptions, RangeOptions, bytes_parser};
use super::print::Lines;
use super::session;
use super::text::{show_path, show_stamp};
use clap::Args;
use serde::Serialize;
use siltstone::browse::{self, EntryVersion, FindOptions, VersionInfo};
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
pub(super) struct FindArgs {
    /// Names or paths with wildcards: *.sql, /etc/**/hosts
    #[arg(value_name = "PATTERN", required = true, value_parser = bytes_parser(pattern))]
    patterns: Vec<OsString>,

    /// Ignore the case of ASCII letters
    #[arg(short, long)]
    ignore_case: bool,

    #[command(flatten)]
    range: RangeOptions,
}

/// A path with its versions, as JSON.
#[derive(Serialize)]
struct FoundPath<'a> {
    path: PathText,
    versions: Vec<VersionInfo<'a>>,
}

pub(super) fn run(args: &FindArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let (console, watch) = session::begin(options, false)?;
    let filter = args.range.filter()?;
    let wanted = FindOptions {
        patterns: args.patterns.iter().map(|pattern| pattern.as_bytes().to_vec()).collect(),
        ignore_case: args.ignore_case,
    };
    let repo = open(options, &watch)?;
    let mut lines = Lines::new();
    browse::find(&repo, &filter, &wanted, &watch, &mut |path, versions| {
        if console.json() {
            let versions = versions.iter().map(|version| VersionInfo::new(path, version)).collect();
            return lines.json(&FoundPath { path: PathText(path.to_vec()), versions });
        }
        lines.line(&show_path(path))?;
        versions.iter().try_for_each(|version| lines.line(&version_line(version)))
    })?;
    lines.end()?;
    Ok(console.exit_after(&watch))
}

fn version_line(version: &EntryVersion) -> String {
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
