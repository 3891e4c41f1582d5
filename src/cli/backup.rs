//! `silt backup`: save files, directories and streams as one snapshot.

use super::exit::{Exit, Failure};
use super::first_use::open_or_make;
use super::options::{GlobalOptions, base_of, bytes_parser, compression, first_instant, pattern, size};
use super::output::Console;
use super::print::{print, print_once};
use super::progress::Display;
use super::signals;
use super::system::host_name;
use super::text::snapshot_json;
use clap::Args;
use serde_json::json;
use siltstone::backup::{BackupOptions, BackupReport, Comparison, Healing, Input, missing_source};
use siltstone::browse::Filter;
use siltstone::disk::Owners;
use siltstone::disk::stat::stat_path;
use siltstone::entry::{PathText, Time, Warning};
use siltstone::error::{Error, Kind, Result};
use siltstone::repo::{Repository, Snapshot};
use siltstone::seal::Compression;
use siltstone::source::stream::check_name;
use siltstone::source::{
    Marker, Rules, RulesBuilder, StdinSource, Stream, follow_slash, normalize, read_lines, read_raw,
};
use siltstone::when::{Selector, format_bytes, format_count, format_counted, format_duration, parse_target};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Checked words of any bytes.
#[derive(Clone, Debug)]
struct Words(Vec<u8>);

#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Files and directories to save. A symbolic link is saved as a link; with a slash after it, the directory that it
    /// points to is saved
    #[arg(value_name = "PATHS", required_unless_present_any = ["files_from", "files_from_raw", "stdin", "stream"])]
    paths: Vec<PathBuf>,

    /// Exclude what matches this gitignore pattern (repeatable)
    #[arg(long, value_name = "PATTERN", value_parser = bytes_parser(pattern), help_heading = "Exclude options")]
    exclude: Vec<OsString>,

    /// Like --exclude, but ignore the case of ASCII letters (repeatable)
    #[arg(long, value_name = "PATTERN", value_parser = bytes_parser(pattern), help_heading = "Exclude options")]
    iexclude: Vec<OsString>,

    /// Read exclude patterns from this file, one per line (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "Exclude options")]
    exclude_file: Vec<PathBuf>,

    /// Exclude the contents of directories tagged as caches (CACHEDIR.TAG)
    #[arg(long, help_heading = "Exclude options")]
    exclude_caches: bool,

    /// Exclude the contents of directories that contain NAME, or a file NAME that begins with HEADER (repeatable)
    #[arg(long, value_name = "NAME[:HEADER]", value_parser = bytes_parser(marker), help_heading = "Exclude options")]
    exclude_if_present: Vec<Words>,

    /// Exclude files larger than this
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Exclude options")]
    exclude_larger_than: Option<u64>,

    /// Do not cross file system boundaries; paths given explicitly are always saved
    #[arg(short = 'x', long, help_heading = "Exclude options")]
    one_file_system: bool,

    /// Read more paths from this file, one per line; - is standard input (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "Source options")]
    files_from: Vec<PathBuf>,

    /// Read more paths from this file, NUL-terminated; - is standard input (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "Source options")]
    files_from_raw: Vec<PathBuf>,

    /// Save standard input as a stream
    #[arg(long, help_heading = "Source options")]
    stdin: bool,

    /// Name of the stream of --stdin
    #[arg(long, value_name = "NAME", default_value = "stdin", value_parser = bytes_parser(stream_name), requires = "stdin", help_heading = "Source options")]
    stdin_name: Words,

    /// Save the output of this shell command under this name; if the command fails, the backup fails (repeatable)
    #[arg(long, value_name = "NAME=COMMAND", value_parser = bytes_parser(Stream::parse), help_heading = "Source options")]
    stream: Vec<Stream>,

    /// Pass this environment variable to the commands of --stream: those that may hold a secret (SILT_PASSWORD,
    /// SILT_RECOVERY_KEY, AWS_ACCESS_KEY_ID and others) are not passed by default (repeatable)
    #[arg(long, value_name = "NAME", requires = "stream", help_heading = "Source options")]
    stream_env: Vec<String>,

    /// Add this tag to the snapshot (repeatable)
    #[arg(long, value_name = "TAG", help_heading = "Snapshot options")]
    tag: Vec<String>,

    /// Host name to record in the snapshot [default: this host]
    #[arg(long, value_name = "NAME", help_heading = "Snapshot options")]
    host: Option<String>,

    /// Job name to record in the snapshot
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, help_heading = "Snapshot options")]
    job: String,

    /// Time to record in the snapshot [default: now]
    #[arg(long, value_name = "TIME", value_parser = first_instant, help_heading = "Snapshot options")]
    time: Option<Time>,

    /// Only show what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Create no snapshot if nothing has changed
    #[arg(long)]
    skip_if_unchanged: bool,

    /// Compare with this snapshot instead of the last backup
    #[arg(long, value_name = "SNAPSHOT", value_parser = bytes_parser(parent), conflicts_with = "force")]
    parent: Option<Selector>,

    /// Read all files, even those that seem unchanged
    #[arg(short, long)]
    force: bool,

    /// Ignore the change time (ctime) when looking for changed files
    #[arg(long)]
    ignore_ctime: bool,

    /// Ignore the inode number when looking for changed files
    #[arg(long)]
    ignore_inode: bool,

    /// Read COUNT files at the same time [default: as many as keep the processors busy within --memory]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    read_concurrency: Option<u16>,

    /// off, fast, default, best or a zstd level from 1 to 22; default compresses about as well as 3, in less time
    #[arg(long, value_name = "LEVEL", value_parser = compression, default_value = "default")]
    compression: Compression,
}

pub fn run(args: &BackupArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let from_stdin = args.files_from.iter().chain(&args.files_from_raw).filter(|path| path.as_os_str() == "-").count();
    if from_stdin + usize::from(args.stdin) > 1 {
        return Err(Failure::Usage(
            "standard input can be read only once: use one of --stdin, --files-from - and --files-from-raw -"
                .to_owned(),
        ));
    }
    let console = Console::new(options, true);
    let watch = console.watch();
    signals::stop_on_signals(&watch)?;
    let Named { paths, missing } = named(args)?;
    let mut wanted = BackupOptions::new(paths, &host(args)?);
    wanted.missing = missing;
    wanted.rules = rules(args)?;
    wanted.streams = args.stream.clone();
    wanted.stream_environment = args.stream_env.clone();
    if args.stdin {
        let input: Input = Box::new(StdinSource::new(&args.stdin_name.0, &watch)?);
        wanted.input = Some((args.stdin_name.0.clone(), input));
    }
    wanted.comparison =
        Comparison { ignore_ctime: args.ignore_ctime, ignore_inode: args.ignore_inode, ..Comparison::default() };
    wanted.force = args.force;
    wanted.dry_run = args.dry_run;
    wanted.skip_if_unchanged = args.skip_if_unchanged;
    wanted.user = Owners::load()?.user_name(rustix::process::geteuid().as_raw()).to_owned();
    wanted.job = args.job.clone();
    wanted.tags = args.tag.clone();
    wanted.check().map_err(|error| Failure::Usage(in_one_line(&error)))?;
    wanted.time = args.time;
    wanted.offset = jiff::Zoned::now().offset().seconds();
    wanted.compression = args.compression;
    wanted.count_ahead = console.with_bar() || console.with_progress_events();
    wanted.readers = args.read_concurrency.map(usize::from);
    wanted.memory_bytes = options.memory.unwrap_or(wanted.memory_bytes);

    let repo = open_or_make(options, &wanted.paths, !args.dry_run, &console, &watch)?;
    if let Some(selector) = &args.parent {
        wanted.parent = Some(repo.select(selector, &Filter::default(), &watch)?.id);
    }
    let report = {
        let _shown = Display::start(&console, &watch);
        repo.backup(wanted, &watch)?
    };
    conclude(&report, args, &repo, &console)
}

fn conclude(report: &BackupReport, args: &BackupArgs, repo: &Repository, console: &Console) -> Result<Exit, Failure> {
    let totals = &report.totals;
    // What later runs do not say again must have been read.
    let print_summary = if report.healing.is_some() { print_once } else { print };
    let printed = if console.json() {
        let mut totals = json!(totals);
        if let (Some(_), Some(fields)) = (report.bytes_to_read, totals.as_object_mut()) {
            // Nothing was read, so nobody knows what would be new: no figure is better than 0.
            fields.retain(|name, _| !["bytes_read", "bytes_new", "bytes_stored"].contains(&name.as_str()));
        }
        let summary = json!({
            "event": "summary",
            "snapshot": report.snapshot.as_ref().map(snapshot_json),
            "dry_run": args.dry_run,
            "bytes_to_read": report.bytes_to_read,
            "repository": repo.storage().describe(),
            "totals": totals,
            "sockets": report.sockets,
            "healing": report.healing.as_ref().map(healing_json),
            "seconds": report.duration.as_secs_f64(),
            "warnings": report.warnings,
            "warnings_count": report.warnings_count,
        });
        print_summary(&format!("{summary}\n"))
    } else if !console.quiet() {
        print_summary(&summary(report, args))
    } else {
        // Later runs do not say it again.
        console.say_damage(&damage(report))
    };
    let told = console.conclude_warnings();
    let exit = Exit::with_warnings(report.warnings_count.max(told));
    match (printed, &report.snapshot) {
        (Ok(()), _) => {
            report.confirm_shown(repo);
            Ok(exit)
        }
        (Err(error), Some(snapshot)) => {
            let done = format!("the snapshot {} was created", snapshot.id.short());
            Ok(console.summary_lost(&done, &error, exit))
        }
        // A plan is all that a dry run makes.
        (Err(error), None) if args.dry_run => Err(error.into()),
        (Err(error), None) => Ok(console.summary_lost("nothing has changed and the backup has ended", &error, exit)),
    }
}

fn summary(report: &BackupReport, args: &BackupArgs) -> String {
    let totals = &report.totals;
    let mut text = match (&report.snapshot, args.dry_run) {
        (Some(snapshot), _) => format!("Snapshot {} in {}\n", snapshot.id.short(), format_duration(report.duration)),
        (None, true) => format!("Dry run: nothing was written ({})\n", format_duration(report.duration)),
        (None, false) => {
            format!("Nothing has changed: no snapshot was created ({})\n", format_duration(report.duration))
        }
    };
    text.push_str(&format!(
        "  Files    {} new, {} changed, {} unchanged, {} removed{}; {} in total\n",
        format_count(totals.files_new),
        format_count(totals.files_changed),
        format_count(totals.files_unchanged),
        format_count(totals.files_removed),
        match totals.files_unread {
            0 => String::new(),
            count => format!(", {} could not be read", format_count(count)),
        },
        format_bytes(totals.bytes)
    ));
    text.push_str(&match report.bytes_to_read {
        Some(bytes) => {
            format!("  Bytes    {} to read; how much is new shows only when it is read\n", format_bytes(bytes))
        }
        None => format!(
            "  Bytes    {} read, {} new, {} stored\n",
            format_bytes(totals.bytes_read),
            format_bytes(totals.bytes_new),
            format_bytes(totals.bytes_stored)
        ),
    });
    if totals.streams > 0 {
        let note = if args.dry_run { " (not run, size unknown)" } else { "" };
        text.push_str(&format!("  Streams  {}{note}\n", format_count(totals.streams)));
    }
    if report.sockets > 0 {
        text.push_str(&format!("  Sockets  {} skipped, as sockets have no content\n", format_count(report.sockets)));
    }
    if let Some(healing) = &report.healing {
        text.push_str(&healed(healing));
    }
    text
}

/// What a quiet run says of a damaged repository.
fn damage(report: &BackupReport) -> String {
    let losses = report.losses.iter().map(|loss| format!("note: {loss}\n"));
    losses.chain(report.healing.iter().map(healed)).collect()
}

/// Snapshots that a summary names.
const HEALED_NAMED_MAX: usize = 10;

fn healed(healing: &Healing) -> String {
    // What is below a page that cannot be read is not counted.
    let mut text = match healing.chunks {
        0 if healing.whole_again.is_empty() => "  Damage   nothing repaired in earlier snapshots\n".to_owned(),
        0 => "  Repaired earlier snapshots, whose content was stored or put back meanwhile\n".to_owned(),
        chunks => format!("  Repaired {}, stored again\n", format_counted(chunks, "lost chunk", "lost chunks")),
    };
    let mut list = |what: &str, snapshots: &[Snapshot]| {
        let named: Vec<String> = snapshots.iter().rev().take(HEALED_NAMED_MAX).map(|one| one.id.short()).collect();
        let more = match snapshots.len().saturating_sub(named.len()) {
            0 => String::new(),
            count => format!(" and {} older", format_count(count as u64)),
        };
        if !named.is_empty() {
            text.push_str(&format!("           {what}: {}{more}\n", named.join(", ")));
        }
    };
    list("complete again", &healing.whole_again);
    list("still incomplete", &healing.still_damaged);
    text
}

fn healing_json(healing: &Healing) -> serde_json::Value {
    let ids = |snapshots: &[Snapshot]| snapshots.iter().map(|snapshot| snapshot.id.to_hex()).collect::<Vec<_>>();
    json!({
        "chunks": healing.chunks,
        "whole_again": ids(&healing.whole_again),
        "still_damaged": ids(&healing.still_damaged),
    })
}

/// The sources that are paths.
struct Named {
    paths: Vec<PathBuf>,
    /// Links with a slash behind them that lead nowhere.
    missing: Vec<Warning>,
}

fn named(args: &BackupArgs) -> Result<Named> {
    let mut paths = args.paths.clone();
    for (lists, is_raw) in [(&args.files_from, false), (&args.files_from_raw, true)] {
        for list in lists {
            let origin = list.display().to_string();
            let is_stdin = list.as_os_str() == "-";
            let more = match (is_stdin, is_raw) {
                (true, false) => read_lines(std::io::stdin().lock(), "standard input")?,
                (true, true) => read_raw(std::io::stdin().lock(), "standard input")?,
                (false, _) => {
                    let file = File::open(list).map_err(|error| Error::io("open the list of paths", &origin, error))?;
                    if is_raw { read_raw(file, &origin)? } else { read_lines(file, &origin)? }
                }
            };
            paths.extend(more);
        }
    }
    // Streams alone need no path; a list that turned out empty is a mistake.
    let has_stream = args.stdin || !args.stream.is_empty();
    let has_list = !args.files_from.is_empty() || !args.files_from_raw.is_empty();
    if paths.is_empty() && has_stream && !has_list {
        return Ok(Named { paths, missing: Vec::new() });
    }
    let folder = base_of(&paths)?;
    let (mut found, mut missing, mut first) = (Vec::new(), Vec::new(), None);
    for path in &paths {
        match follow_slash(path) {
            Ok(path) => found.push(path),
            Err(error) => {
                let path = PathText(folder.join(path).into_os_string().into_vec());
                let what =
                    if error.is(Kind::NotFound) { format!("it does not exist: {error}") } else { error.to_string() };
                missing.push(Warning { path, what });
                first.get_or_insert(error);
            }
        }
    }
    let paths = if found.is_empty() && first.is_some() { found } else { normalize(&found, &folder)? };
    // A slip of the finger ends here, before a repository is made; of several paths those that are there are saved.
    for path in &paths {
        match stat_path(path.as_os_str().as_bytes(), false) {
            Ok(_) => return Ok(Named { paths, missing }),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(missing_source(first.expect("there is a path")))
}

fn in_one_line(error: &Error) -> String {
    error.advice().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"))
}

fn rules(args: &BackupArgs) -> Result<Rules> {
    let mut rules = RulesBuilder::new();
    for path in &args.exclude_file {
        rules.exclude_file(path, false)?;
    }
    for pattern in &args.exclude {
        rules.exclude(pattern.as_bytes())?;
    }
    for pattern in &args.iexclude {
        rules.exclude_ignoring_case(pattern.as_bytes())?;
    }
    if args.exclude_caches {
        rules.exclude_caches();
    }
    for marker in &args.exclude_if_present {
        rules.exclude_if_present(&marker.0)?;
    }
    if let Some(bytes) = args.exclude_larger_than {
        rules.exclude_larger_than(bytes);
    }
    rules.one_file_system(args.one_file_system);
    rules.build()
}

fn host(args: &BackupArgs) -> Result<String> {
    if let Some(host) = &args.host {
        return Ok(host.clone());
    }
    Ok(host_name())
}

fn marker(words: &[u8]) -> Result<Words> {
    Marker::parse(words).map(|_| Words(words.to_vec()))
}

fn stream_name(words: &[u8]) -> Result<Words> {
    check_name(words).map(|()| Words(words.to_vec()))
}

fn parent(words: &[u8]) -> Result<Selector> {
    match parse_target(words)? {
        (selector, None) => Ok(selector),
        (_, Some(_)) => Err(Error::invalid("compare with a path", "", "--parent takes a snapshot, without a path")),
    }
}
