//! `silt backup`: save folders and streams as one snapshot.

use super::exit::{Exit, Failure};
use super::first_use::open_or_make;
use super::options::{GlobalOptions, bytes_parser, compression, current_folder, first_instant, pattern, size};
use super::output::{Console, print, print_json, snapshot_json};
use super::progress::Display;
use super::signals;
use super::system::host_name;
use clap::Args;
use serde_json::json;
use siltstone::backup::{BackupOptions, BackupReport, Comparison, Healing, Input};
use siltstone::browse::Filter;
use siltstone::disk::Owners;
use siltstone::disk::stat::stat_path;
use siltstone::entry::Time;
use siltstone::error::{Error, Result};
use siltstone::repo::{PathText, Repository, Snapshot, Trouble};
use siltstone::seal::Compression;
use siltstone::source::stream::check_name;
use siltstone::source::{
    Marker, Rules, RulesBuilder, StdinSource, Stream, follow_slash, normalize, read_lines, read_raw,
};
use siltstone::when::{Selector, format_bytes, format_count, format_duration, parse_target};
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::PathBuf;

/// Checked words of any bytes.
#[derive(Clone, Debug)]
struct Words(Vec<u8>);

#[derive(Args, Debug)]
pub struct BackupArgs {
    /// Files and folders to save; of a symbolic link only the link, with a slash behind it what it points to
    #[arg(value_name = "PATHS", required_unless_present_any = ["files_from", "files_from_raw", "stdin", "stream"])]
    paths: Vec<PathBuf>,

    /// Leave out what matches this gitignore pattern (repeatable)
    #[arg(long, value_name = "PATTERN", value_parser = bytes_parser(pattern), help_heading = "What is left out")]
    exclude: Vec<OsString>,

    /// The same, whatever the case of ASCII letters (repeatable)
    #[arg(long, value_name = "PATTERN", value_parser = bytes_parser(pattern), help_heading = "What is left out")]
    iexclude: Vec<OsString>,

    /// Leave out what matches the patterns of this file, one a line (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "What is left out")]
    exclude_file: Vec<PathBuf>,

    /// Leave out what is in folders tagged as caches (CACHEDIR.TAG)
    #[arg(long, help_heading = "What is left out")]
    exclude_caches: bool,

    /// Leave out what is in folders that hold this file (repeatable)
    #[arg(long, value_name = "NAME[:HEADER]", value_parser = bytes_parser(marker), help_heading = "What is left out")]
    exclude_if_present: Vec<Words>,

    /// Leave out files larger than this
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "What is left out")]
    exclude_larger_than: Option<u64>,

    /// Stay on the file system of each path; a path below another is saved if it is on another one
    #[arg(short = 'x', long, help_heading = "What is left out")]
    one_file_system: bool,

    /// Read more paths from this file, one a line; - is standard input (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "What is saved")]
    files_from: Vec<PathBuf>,

    /// Read more paths from this file, with NUL after each; - is standard input (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "What is saved")]
    files_from_raw: Vec<PathBuf>,

    /// Save standard input as a stream
    #[arg(long, help_heading = "What is saved")]
    stdin: bool,

    /// The name of that stream
    #[arg(long, value_name = "NAME", default_value = "stdin", value_parser = bytes_parser(stream_name), requires = "stdin", help_heading = "What is saved")]
    stdin_name: Words,

    /// Save the output of this command under this name; a command that fails fails the backup (repeatable)
    #[arg(long, value_name = "NAME=COMMAND", value_parser = bytes_parser(Stream::parse), help_heading = "What is saved")]
    stream: Vec<Stream>,

    /// Let those commands see this variable, which they do not see else as it may hold a secret: SILT_PASSWORD,
    /// SILT_RECOVERY_KEY, AWS_ACCESS_KEY_ID and others (repeatable)
    #[arg(long, value_name = "NAME", requires = "stream", help_heading = "What is saved")]
    stream_env: Vec<String>,

    /// Tag the snapshot (repeatable)
    #[arg(long, value_name = "TAG", help_heading = "How it is called")]
    tag: Vec<String>,

    /// The host that the snapshot belongs to [default: this one]
    #[arg(long, value_name = "NAME", help_heading = "How it is called")]
    host: Option<String>,

    /// The job that the snapshot belongs to
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, help_heading = "How it is called")]
    job: String,

    /// The time of the snapshot [default: now]
    #[arg(long, value_name = "TEXT", value_parser = first_instant, help_heading = "How it is called")]
    time: Option<Time>,

    /// Only say what would be done
    #[arg(short = 'n', long)]
    dry_run: bool,

    /// Make no snapshot when nothing has changed
    #[arg(long)]
    skip_if_unchanged: bool,

    /// Compare with this snapshot instead of what is known of the last backup
    #[arg(long, value_name = "SNAPSHOT", value_parser = bytes_parser(parent), conflicts_with = "force")]
    parent: Option<Selector>,

    /// Read every file, whatever is known of it
    #[arg(short, long)]
    force: bool,

    /// A new change time alone is no change of a file
    #[arg(long)]
    ignore_ctime: bool,

    /// A new inode number alone is no change of a file
    #[arg(long)]
    ignore_inode: bool,

    /// Files read at the same time [default: as many as keep the processors busy, within --memory]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    read_concurrency: Option<u16>,

    /// off, fast, default, best or a level of zstd from 1 to 22; default comes out about as small as 3, in less time
    #[arg(long, value_name = "LEVEL", value_parser = compression, default_value = "default")]
    compression: Compression,
}

pub fn run(args: &BackupArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let from_stdin = args.files_from.iter().chain(&args.files_from_raw).filter(|path| path.as_os_str() == "-").count();
    if from_stdin + usize::from(args.stdin) > 1 {
        return Err(Failure::Usage("standard input can be read only once".to_owned()));
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
    wanted.check_places().map_err(|error| Failure::Usage(in_one_line(&error)))?;
    wanted.comparison =
        Comparison { ignore_ctime: args.ignore_ctime, ignore_inode: args.ignore_inode, ..Comparison::default() };
    wanted.force = args.force;
    wanted.dry_run = args.dry_run;
    wanted.skip_if_unchanged = args.skip_if_unchanged;
    wanted.user = Owners::load()?.user_name(rustix::process::geteuid().as_raw()).to_owned();
    wanted.job = args.job.clone();
    wanted.tags = args.tag.clone();
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
    let printed = if console.json() {
        let mut totals = json!(totals);
        if let (Some(_), Some(fields)) = (report.bytes_to_read, totals.as_object_mut()) {
            // Nothing was read, so nobody knows what would be new: no figure is better than 0.
            fields.retain(|name, _| !["bytes_read", "bytes_new", "bytes_stored"].contains(&name.as_str()));
        }
        print_json(&json!({
            "event": "summary",
            "snapshot": report.snapshot.as_ref().map(snapshot_json),
            "dry_run": args.dry_run,
            "bytes_to_read": report.bytes_to_read,
            "repository": repo.storage().describe(),
            "totals": totals,
            "sockets": report.sockets,
            "healing": report.healing.as_ref().map(healing_json),
            "seconds": report.duration.as_secs_f64(),
            "troubles": report.troubles,
            "troubles_count": report.troubles_count,
        }))
    } else if !console.quiet() {
        print(&summary(report, args))
    } else {
        Ok(())
    };
    let told = console.conclude_troubles("Could not be saved as it is");
    let exit = Exit::with_troubles(report.troubles_count.max(told));
    match (printed, &report.snapshot) {
        (Ok(()), _) => Ok(exit),
        (Err(error), Some(snapshot)) => {
            let done = format!("the snapshot {} was made", snapshot.id.short());
            Ok(console.summary_lost(&done, &error, exit))
        }
        (Err(error), None) => Err(error.into()),
    }
}

fn summary(report: &BackupReport, args: &BackupArgs) -> String {
    let totals = &report.totals;
    let mut text = match (&report.snapshot, args.dry_run) {
        (Some(snapshot), _) => format!("Snapshot {} in {}\n", snapshot.id.short(), format_duration(report.duration)),
        (None, true) => format!("Dry run: nothing was written ({})\n", format_duration(report.duration)),
        (None, false) => {
            format!("Nothing has changed: no snapshot was made ({})\n", format_duration(report.duration))
        }
    };
    text.push_str(&format!(
        "  Files    {} new, {} changed, {} unchanged, {} removed{}; {} in all\n",
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
            format!("  Bytes    {} to read; what of it is new is not known before\n", format_bytes(bytes))
        }
        None => format!(
            "  Bytes    {} read, {} new, {} stored\n",
            format_bytes(totals.bytes_read),
            format_bytes(totals.bytes_new),
            format_bytes(totals.bytes_stored)
        ),
    });
    if totals.streams > 0 {
        let note = if args.dry_run { " not read, of unknown size" } else { "" };
        text.push_str(&format!("  Streams  {}{note}\n", format_count(totals.streams)));
    }
    if report.sockets > 0 {
        text.push_str(&format!("  Sockets  {} left out, as they hold nothing\n", format_count(report.sockets)));
    }
    if let Some(healing) = &report.healing {
        text.push_str(&healed(healing));
    }
    text
}

/// Snapshots that a summary names.
const HEALED_NAMED_MAX: usize = 10;

fn healed(healing: &Healing) -> String {
    let mut text = match healing.chunks {
        0 => "  Healed   nothing: what earlier snapshots lack is not in the sources\n".to_owned(),
        chunks => format!("  Healed   {} lost chunks are stored again\n", format_count(chunks)),
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
    list("whole again", &healing.whole_again);
    list("still lacking content", &healing.still_damaged);
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
    missing: Vec<Trouble>,
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
    let folder = current_folder()?;
    let (mut found, mut missing, mut first) = (Vec::new(), Vec::new(), None);
    for path in &paths {
        match follow_slash(path) {
            Ok(path) => found.push(path),
            Err(error) => {
                let path = PathText(folder.join(path).into_os_string().into_vec());
                missing.push(Trouble { path, what: format!("it is not there: {error}") });
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
    Err(first.expect("there is a path").hint("check the path: when no source is there, nothing is saved"))
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
        (_, Some(_)) => Err(Error::invalid("compare with the snapshot", "", "a snapshot is meant, not a path in it")),
    }
}
