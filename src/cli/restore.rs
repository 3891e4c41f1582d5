//! `silt restore`: bring a date back into a folder.

use super::exit::{Exit, Failure};
use super::open::open;
use super::options::{GlobalOptions, absolute, rules};
use super::output::{Console, print, show_path, show_stamp, snapshot_json};
use super::progress::Display;
use super::select::TargetOptions;
use super::signals;
use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use siltstone::repo::{PathText, Snapshot};
use siltstone::restore::{Overwrite, PlanSummary, RestoreOptions, RestoreReport};
use siltstone::when::{format_bytes, format_count, format_duration};
use std::ffi::OsString;
use std::path::PathBuf;

/// Paths of one kind that a plan names; of more it says how many.
const PATHS_SHOWN: usize = 20;

#[derive(Args, Debug)]
pub struct RestoreArgs {
    #[command(flatten)]
    what: TargetOptions,

    /// The folder to restore into. A whole snapshot comes back below it at its absolute paths; of SNAPSHOT:PATH the
    /// contents of the folder PATH go right into it
    #[arg(short, long, value_name = "DIR")]
    target: PathBuf,

    /// Only what matches this gitignore pattern, with all above and below it (repeatable)
    #[arg(long, value_name = "PATTERN")]
    include: Vec<OsString>,

    /// Leave out what matches this gitignore pattern (repeatable)
    #[arg(long, value_name = "PATTERN")]
    exclude: Vec<OsString>,

    /// What happens to files that are there already and differ
    #[arg(long, value_name = "WHEN", value_enum, default_value = "if-changed")]
    overwrite: OverwriteWord,

    /// Remove from the target what the snapshot does not have
    #[arg(long)]
    delete: bool,

    /// Print the plan and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Read every restored file back and compare it with the snapshot
    #[arg(long)]
    verify: bool,

    /// Make holes of zeros, also where the source had none
    #[arg(long)]
    sparse: bool,

    /// Leave owners and groups as they come
    #[arg(long)]
    no_owner: bool,

    /// Take owners and groups by number instead of by name
    #[arg(long, conflicts_with = "no_owner")]
    numeric_ids: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OverwriteWord {
    /// Compare the contents of all of them, and replace what differs
    Always,
    /// The same, but take a file with the same size and time for the same
    IfChanged,
    /// Replace those that are older than in the snapshot
    IfNewer,
    /// Keep them
    Never,
}

pub fn run(args: &RestoreArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    args.what.check()?;
    let console = Console::new(options, true);
    let watch = console.watch();
    signals::stop_on_signals(&watch)?;
    let mut wanted = RestoreOptions::new(absolute(&args.target)?);
    wanted.path = args.what.path();
    wanted.exclude = rules(&args.exclude)?;
    wanted.include = if args.include.is_empty() { None } else { Some(rules(&args.include)?) };
    wanted.overwrite = match args.overwrite {
        OverwriteWord::Always => Overwrite::Always,
        OverwriteWord::IfChanged => Overwrite::IfChanged,
        OverwriteWord::IfNewer => Overwrite::IfNewer,
        OverwriteWord::Never => Overwrite::Never,
    };
    wanted.delete = args.delete;
    wanted.verify = args.verify;
    wanted.sparse = args.sparse;
    wanted.owner &= !args.no_owner;
    wanted.numeric_ids = args.numeric_ids;

    let repo = open(options, &watch)?;
    let snapshot = args.what.find(&repo, &console, &watch)?;
    if !console.json() && !console.quiet() {
        let host = show_path(snapshot.host.as_bytes());
        print(&format!("Snapshot {} of {} from {host}\n", snapshot.id.short(), show_stamp(&snapshot.started)))?;
    }
    let report = {
        let _shown = Display::start(&console, &watch);
        let plan = repo.plan_restore(&snapshot, wanted, &watch)?;
        if args.dry_run {
            drop(_shown);
            return show_plan(&plan.summary, &snapshot, &console);
        }
        plan.run(&watch)?
    };
    conclude(&report, &snapshot, args, &console)
}

fn show_plan(plan: &PlanSummary, snapshot: &Snapshot, console: &Console) -> Result<Exit, Failure> {
    if console.json() {
        let list = |paths: &[Vec<u8>]| paths.iter().map(|path| PathText(path.clone())).collect::<Vec<_>>();
        console.event(json!({
            "event": "plan",
            "snapshot": snapshot_json(snapshot),
            "directories": plan.directories,
            "files": plan.files,
            "others": plan.others,
            "bytes": plan.bytes,
            "packs": plan.packs,
            "frames": plan.frames,
            "bytes_to_read": plan.bytes_to_read,
            "conflicts": list(&plan.conflicts),
            "conflicts_count": plan.conflicts_count,
            "deletions": list(&plan.deletions),
            "deletions_count": plan.deletions_count,
        }));
        return Ok(console.exit());
    }
    let mut text = format!(
        "Plan: {} folders, {} files, {} others; {}\n  To read  at most {} in {} packs\n",
        format_count(plan.directories),
        format_count(plan.files),
        format_count(plan.others),
        format_bytes(plan.bytes),
        format_bytes(plan.bytes_to_read),
        format_count(plan.packs),
    );
    let mut list = |words: &str, paths: &[Vec<u8>], count: u64| {
        if count > 0 {
            text.push_str(&format!("  {words}: {}\n", format_count(count)));
            let shown = &paths[..paths.len().min(PATHS_SHOWN)];
            shown.iter().for_each(|path| text.push_str(&format!("    {}\n", show_path(path))));
            if count > shown.len() as u64 {
                text.push_str(&format!("    and {} more\n", format_count(count - shown.len() as u64)));
            }
        }
    };
    list("There already", &plan.conflicts, plan.conflicts_count);
    list("To be removed", &plan.deletions, plan.deletions_count);
    text.push_str("Nothing was changed.\n");
    print(&text)?;
    Ok(console.exit())
}

fn conclude(
    report: &RestoreReport,
    snapshot: &Snapshot,
    args: &RestoreArgs,
    console: &Console,
) -> Result<Exit, Failure> {
    if console.json() {
        let summary: Value = json!({
            "event": "summary",
            "snapshot": snapshot_json(snapshot),
            "directories": report.directories,
            "files": report.files,
            "others": report.others,
            "files_kept": report.files_kept,
            "files_deleted": report.files_deleted,
            "bytes_written": report.bytes_written,
            "bytes_verified": report.bytes_verified,
            "seconds": report.duration.as_secs_f64(),
            "troubles": report.troubles,
            "troubles_count": report.troubles_count,
        });
        console.event(summary);
    } else if !console.quiet() {
        let mut text = format!(
            "Restored in {}\n  Files    {} ({} were right already), {} folders, {} others\n  Bytes    {} written",
            format_duration(report.duration),
            format_count(report.files),
            format_count(report.files_kept),
            format_count(report.directories),
            format_count(report.others),
            format_bytes(report.bytes_written),
        );
        if args.verify {
            text.push_str(&format!(", {} verified", format_bytes(report.bytes_verified)));
        }
        text.push('\n');
        if args.delete {
            text.push_str(&format!("  Removed  {}\n", format_count(report.files_deleted)));
        }
        print(&text)?;
    }
    let told = console.conclude_troubles("Could not be restored as it was");
    Ok(Exit::with_troubles(report.troubles_count.max(told)))
}
