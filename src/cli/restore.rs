//! `silt restore`: restore a snapshot, or a part of it, into a directory.

use super::exit::{Exit, Failure};
use super::open::open;
use super::options::{GlobalOptions, absolute, bytes_parser, pattern, rules};
use super::output::Console;
use super::print::{of_snapshot, print, print_json};
use super::progress::Display;
use super::select::TargetOptions;
use super::session;
use super::text::{show_path, show_stamp};
use clap::{Args, ValueEnum};
use siltstone::repo::Snapshot;
use siltstone::restore::{Overwrite, PlanSummary, RestoreOptions, RestoreReport};
use siltstone::watch::{Notice, NoticeKind, Watch};
use siltstone::when::{format_bytes, format_count, format_counted, format_duration};
use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::atomic::Ordering;

/// Paths of one kind that a plan names; of more it says how many.
const PATHS_SHOWN: usize = 20;

#[derive(Args, Debug)]
pub(super) struct RestoreArgs {
    #[command(flatten)]
    what: TargetOptions,

    /// Directory to restore into. A whole snapshot is restored below it at its absolute paths; of SNAPSHOT:PATH the
    /// contents of the directory PATH are restored directly into it
    #[arg(short, long, value_name = "DIR")]
    target: PathBuf,

    /// Restore only what matches this gitignore pattern and everything below it; missing parent directories are created
    /// (repeatable)
    #[arg(long, value_name = "PATTERN", value_parser = bytes_parser(pattern))]
    include: Vec<OsString>,

    /// Do not restore what matches this gitignore pattern (repeatable)
    #[arg(long, value_name = "PATTERN", value_parser = bytes_parser(pattern))]
    exclude: Vec<OsString>,

    /// What to do with existing files that differ
    #[arg(long, value_name = "WHEN", value_enum, default_value = "if-changed")]
    overwrite: OverwriteWord,

    /// Delete entries of the target that the snapshot does not have: only at or below the sources of the snapshot, never
    /// on another file system, never in a directory that was saved only in part, never what --exclude matches
    #[arg(long)]
    delete: bool,

    /// Show what would be created, replaced, kept and deleted, and change nothing
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Read every restored file back and compare it with the snapshot
    #[arg(long)]
    verify: bool,

    /// Write long runs of zeros as holes, even where the source had none
    #[arg(long)]
    sparse: bool,

    /// Do not restore owners and groups
    #[arg(long)]
    no_owner: bool,

    /// Restore owners and groups by number instead of by name
    #[arg(long, conflicts_with = "no_owner")]
    numeric_ids: bool,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum OverwriteWord {
    /// Compare the content of every file, and replace those that differ
    Always,
    /// Replace files that differ; one with the same size and modification time counts as the same
    IfChanged,
    /// Replace files that are older than in the snapshot
    IfNewer,
    /// Keep existing files
    Never,
}

pub(super) fn run(args: &RestoreArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    args.what.check()?;
    let (console, watch) = session::begin(options, true)?;
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
    wanted.detailed = args.dry_run;

    let repo = open(options, &watch)?;
    let snapshot = args.what.find_certain(&repo, &console, &watch)?;
    args.what.note_part(&snapshot, &console);
    if !console.json() && !console.quiet() {
        let host = show_path(snapshot.host.as_bytes());
        print(&format!("Snapshot {} of {} from {host}\n", snapshot.id.short(), show_stamp(&snapshot.started)))?;
    }
    let report = {
        let _shown = Display::start(&console, &watch);
        let plan = repo.plan_restore(&snapshot, wanted, &watch)?;
        if args.dry_run {
            plan.announce(&watch);
            drop(_shown);
            return show_plan(&plan.summary, &snapshot, &console, &watch);
        }
        plan.run(&watch)?
    };
    conclude(&report, &snapshot, args, &console, &watch)
}

fn show_plan(plan: &PlanSummary, snapshot: &Snapshot, console: &Console, watch: &Watch) -> Result<Exit, Failure> {
    if console.json() {
        print_json(&of_snapshot("plan", snapshot, plan))?;
        return Ok(exit(plan.damaged, watch, console.exit()));
    }
    let mut text = format!(
        "Plan: restore {}; {} (paths are shown as in the snapshot)\n  To be read: {} from {}\n",
        show_entries(plan.files, plan.directories, plan.others),
        format_bytes(plan.bytes),
        format_bytes(plan.bytes_to_read),
        format_counted(plan.packs, "pack", "packs"),
    );
    if plan.kept > 0 {
        text.push_str(&format!("  Already up to date: {}\n", format_count(plan.kept)));
    }
    let lists = [
        ("To be created", &plan.created),
        ("To be replaced", &plan.replaced),
        ("To get their saved metadata", &plan.metadata),
        ("To be kept, although different", &plan.kept_different),
        ("Cannot be restored, because something else is in the way", &plan.blocked),
        ("To be deleted", &plan.deletions),
    ];
    for (words, paths) in lists.into_iter().filter(|(_, paths)| paths.count > 0) {
        text.push_str(&format!("  {words}: {}\n", format_count(paths.count)));
        let shown = &paths.first[..paths.first.len().min(PATHS_SHOWN)];
        shown.iter().for_each(|path| text.push_str(&format!("    {}\n", show_path(path))));
        if paths.count > shown.len() as u64 {
            text.push_str(&format!("    and {} more\n", format_count(paths.count - shown.len() as u64)));
        }
    }
    text.push_str("Nothing was changed.\n");
    print(&text)?;
    Ok(exit(plan.damaged, watch, console.exit()))
}

fn show_entries(files: u64, directories: u64, others: u64) -> String {
    format!(
        "{}, {}, {}",
        format_counted(files, "file", "files"),
        format_counted(directories, "directory", "directories"),
        format_counted(others, "other entry", "other entries"),
    )
}

/// Exit code 6 (damage) takes precedence over 3 (warnings).
fn exit(damaged: u64, watch: &Watch, otherwise: Exit) -> Exit {
    if damaged > 0 || watch.progress.damaged.load(Ordering::Relaxed) > 0 { Exit::Corrupt } else { otherwise }
}

fn conclude(
    report: &RestoreReport,
    snapshot: &Snapshot,
    args: &RestoreArgs,
    console: &Console,
    watch: &Watch,
) -> Result<Exit, Failure> {
    if report.partial_directories > 0 {
        let text = format!(
            "the backup saved only a part of {}: the rest was excluded or could not be read",
            format_counted(report.partial_directories, "directory", "directories")
        );
        console.note(Notice { kind: NoticeKind::Snapshot, text });
    }
    let printed = if console.json() {
        print_json(&of_snapshot("summary", snapshot, report))
    } else if !console.quiet() {
        print(&summary(report, args))
    } else {
        Ok(())
    };
    let told = console.conclude_warnings();
    let exit = exit(report.damaged, watch, Exit::with_warnings(report.warnings_count.max(told)));
    Ok(match printed {
        Ok(()) => exit,
        Err(error) => console.summary_lost("the restore has ended", &error, exit),
    })
}

fn summary(report: &RestoreReport, args: &RestoreArgs) -> String {
    let mut text = format!(
        "Restored in {}\n  Entries  {}; {} already up to date\n  Bytes    {} written",
        format_duration(report.duration),
        show_entries(report.files, report.directories, report.others),
        format_count(report.files_kept),
        format_bytes(report.bytes_written),
    );
    if args.verify {
        text.push_str(&format!(", {} verified", format_bytes(report.bytes_verified)));
    }
    text.push('\n');
    if report.metadata_restored > 0 {
        text.push_str(&format!("  Metadata {} restored, of what was there\n", format_count(report.metadata_restored)));
    }
    if report.files_kept_different > 0 {
        text.push_str(&format!("  Kept     {}, although different\n", format_count(report.files_kept_different)));
    }
    if args.delete {
        text.push_str(&format!("  Deleted  {}\n", format_count(report.files_deleted)));
    }
    text
}
