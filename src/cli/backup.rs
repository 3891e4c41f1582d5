//! `silt backup`: save files, directories and streams as one snapshot.

use super::backup_args::BackupArgs;
use super::backup_sources::{NamedSources, in_one_line, named, readers_of_stdin, rules};
use super::backup_summary::{damage, summary};
use super::exit::{Exit, Failure};
use super::first_use::open_or_make;
use super::options::GlobalOptions;
use super::output::Console;
use super::print::{self, json_line, print, print_once};
use super::progress::Display;
use super::session;
use super::system::host_name;
use siltstone::backup::{BackupOptions, BackupReport, Comparison};
use siltstone::browse::Filter;
use siltstone::disk::Owners;
use siltstone::error::Result;
use siltstone::repo::Repository;
use siltstone::source::{ReadOnce, Source, StdinSource, Stream};

pub(super) fn run(args: &BackupArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let readers = readers_of_stdin(args, options);
    if readers.len() > 1 {
        return Err(Failure::Usage(format!("standard input can be read only once, not for {}", readers.join(" and "))));
    }
    let (console, watch) = session::begin(options, true)?;
    let NamedSources { paths, missing } = named(args)?;
    let mut wanted = BackupOptions::new(paths.clone(), &host(args)?);
    wanted.sources.extend(missing.into_iter().map(Source::Missing));
    wanted.rules = rules(args)?;
    for stream in &args.stream {
        wanted.sources.push(Source::stream(Stream { allowed_secrets: args.stream_env.clone(), ..stream.clone() }));
    }
    if args.stdin {
        let name = &args.stdin_name.0;
        wanted.sources.push(Source::stream(ReadOnce::new(name, StdinSource::new(name, &watch)?)?));
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

    let repo = open_or_make(options, &paths, !args.dry_run, &console, &watch)?;
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
    // What later runs do not say again must have been read.
    let print_summary = if report.healing.is_some() { print_once } else { print };
    let printed = if console.json() {
        print_summary(&(json_line(&print::summary(report)) + "\n"))
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

fn host(args: &BackupArgs) -> Result<String> {
    if let Some(host) = &args.host {
        return Ok(host.clone());
    }
    Ok(host_name())
}
