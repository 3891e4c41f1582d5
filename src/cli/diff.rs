//! `silt diff`: what differs between two snapshots, or between a snapshot and a directory.

use super::exit::{Exit, Failure};
use super::open::open;
use super::options::{FilterOptions, GlobalOptions, absolute, bytes_parser};
use super::print::{self, Lines};
use super::select::{SelectedTarget, target};
use super::session;
use super::text::show_path;
use clap::Args;
use serde::Serialize;
use siltstone::browse::{self, Change, ChangeKind, DiffTotals, FolderDiff};
use siltstone::entry::PathText;
use siltstone::error::{Error, Kind, Result};
use siltstone::when::{Selector, format_bytes, format_count};
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

/// What is compared, in case nothing is shown.
const COMPARED: &str = "Compared are kind, size, modification time, mode, owner, group, extended attributes (with ACLs and \
    capabilities), flags (chattr), targets of symbolic links, and content. Compared with a directory, a file of the same \
    size and modification time counts as unchanged unless --content is given, and owners are compared by name where both \
    sides have one, and a stream with the file of its name.\n\nIn the list, + means added, - removed, M changed content, U changed metadata, T another kind of file.";

#[derive(Args, Debug)]
#[command(after_help = COMPARED)]
pub(super) struct DiffArgs {
    /// The older snapshot
    #[arg(value_name = "SNAPSHOT[:PATH]", value_parser = bytes_parser(target))]
    old: SelectedTarget,

    /// The newer snapshot, or a directory. A word that can name a snapshot means one (write ./latest for a directory). A
    /// directory is compared with PATH or, without PATH, with what the snapshot has at the directory's own path
    #[arg(value_name = "SNAPSHOT|DIR")]
    new: OsString,

    /// With a directory: also read files whose size and modification time agree
    #[arg(long)]
    content: bool,

    #[command(flatten)]
    filter: FilterOptions,
}

pub(super) fn run(args: &DiffArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let Some(selector) = &args.old.selector else {
        return Err(Failure::Usage("name a snapshot before the colon: latest:PATH".to_owned()));
    };
    let new = newer(args)?;
    let (console, watch) = session::begin(options, false)?;
    let filter = args.filter.filter()?;
    let folder = absolute(Path::new(&args.new))?;
    let repo = open(options, &watch)?;
    let old = repo.select(selector, &filter, &watch)?;
    let mut lines = Lines::new();
    let mut tell = |path: &[u8], change: Change| {
        if console.json() {
            lines.json(&ChangeEvent { event: "change", path: PathText(path.to_vec()), change })
        } else {
            lines.line(&format!("{} {}", change_letter(change), show_path(path)))
        }
    };
    let totals = match new {
        Some(selector) => {
            let new = repo.select(&selector, &filter, &watch)?;
            let path = args.old.path.as_deref().unwrap_or(b"/");
            browse::diff_snapshots(&repo.reader(), &old, &new, path, &watch, &mut |path, change, _, _| {
                tell(path, change)
            })?
        }
        None if !folder.exists() => {
            return Err(Error::new(Kind::NotFound, "compare with", show_path(args.new.as_bytes()))
                .because("it is neither a snapshot nor an existing directory")
                .hint("name a snapshot (latest, latest~N, the first digits of an id) or a directory")
                .into());
        }
        None => {
            let saved_at = args.old.path.as_deref().unwrap_or(folder.as_os_str().as_bytes());
            let wanted = FolderDiff { snapshot: &old, path: saved_at, folder: &folder, content: args.content };
            browse::diff_folder(&repo, &wanted, &watch, &mut |path, change, _, _| tell(path, change))?
        }
    };
    if console.json() {
        lines.json(&print::summary(&totals))?;
    } else if !console.quiet() {
        lines.line(&summary(&totals))?;
    }
    lines.end()?;
    Ok(console.exit_after(&watch))
}

/// One difference, as JSON.
#[derive(Serialize)]
struct ChangeEvent {
    event: &'static str,
    path: PathText,
    change: Change,
}

/// The newer snapshot; none when a folder is meant.
fn newer(args: &DiffArgs) -> Result<Option<Selector>, Failure> {
    let Ok(target) = target(args.new.as_bytes()) else { return Ok(None) };
    match (&target.path, &args.old.path) {
        (None, _) => Ok(target.selector),
        (new, old) if new == old => Ok(target.selector),
        _ => Err(Failure::Usage(
            "two snapshots are compared at the same path: write it with the first one only".to_owned(),
        )),
    }
}

fn change_letter(change: Change) -> char {
    match change {
        Change::Added => '+',
        Change::Removed => '-',
        Change::Changed(ChangeKind::Content) => 'M',
        Change::Changed(ChangeKind::Metadata) => 'U',
        Change::Changed(ChangeKind::Kind) => 'T',
    }
}

fn summary(totals: &DiffTotals) -> String {
    format!(
        "{} added, {} removed, {} with changed content, {} with changed metadata, {} of another kind; {} added, {} removed",
        format_count(totals.added),
        format_count(totals.removed),
        format_count(totals.changed_content),
        format_count(totals.changed_metadata),
        format_count(totals.changed_kind),
        format_bytes(totals.bytes_added),
        format_bytes(totals.bytes_removed),
    )
}
