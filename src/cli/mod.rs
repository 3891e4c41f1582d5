//! The command line: its root, and which verb does what.

mod backup;
mod backup_args;
mod backup_sources;
mod backup_summary;
mod bench;
mod cache;
mod cat;
mod completions;
mod diff;
mod entry;
mod exit;
mod export;
mod find;
mod first_use;
mod init;
mod ls;
mod man;
mod open;
mod options;
mod output;
mod password;
mod print;
mod progress;
mod prompt;
mod relocate;
mod restore;
mod select;
mod session;
mod signals;
mod snapshots;
mod stats;
mod system;
mod text;
mod xdg;

use clap::{Parser, Subcommand};
use exit::{Exit, Failure};
use options::GlobalOptions;

/// Encrypted, deduplicated, incremental backups of directories and database dumps
#[derive(Parser, Debug)]
#[command(name = "silt", version, max_term_width = 100, subcommand_required = true, arg_required_else_help = true)]
#[command(
    after_help = "Exit codes: 0 done, 1 failed, 2 usage error, 3 done with warnings, 4 repository changed meanwhile (run again), 5 wrong password \
                        or key, 6 repository damaged, 130 interrupted"
)]
struct Cli {
    #[command(subcommand)]
    verb: Verb,

    #[command(flatten)]
    options: GlobalOptions,
}

#[derive(Subcommand, Debug)]
enum Verb {
    /// Save files, directories and the output of commands as a new snapshot
    Backup(Box<backup_args::BackupArgs>),
    /// Restore a snapshot, or a part of it, into a directory
    Restore(Box<restore::RestoreArgs>),
    /// List snapshots
    Snapshots(snapshots::SnapshotsArgs),
    /// List the files in a snapshot
    Ls(ls::LsArgs),
    /// Find all versions of a file across snapshots
    Find(find::FindArgs),
    /// Compare two snapshots, or a snapshot with a directory
    Diff(diff::DiffArgs),
    /// Write the content of a file or stream in a snapshot to standard output
    Cat(cat::CatArgs),
    /// Write a snapshot, or a part of it, as a tar archive
    Export(export::ExportArgs),
    /// Show the size of snapshots, and what deduplication and compression save
    Stats(stats::StatsArgs),
    /// Create a repository, protected by a password, a key file or both
    ///
    /// Name its location with --repo. Give a password (--password-file, --password-command, SILT_PASSWORD, or
    /// type it when asked), a key file (--key-file, created if it does not exist) or both. The recovery key is printed
    /// only once: write it down.
    Init(init::InitArgs),
    /// Adapt a repository to the storage that it was copied to, or replace settings that were lost
    ///
    /// Finds out what the storage does atomically, and writes the settings that say how concurrent backups exclude each other there. Needs the
    /// password or key of the owner. Run it while no backup runs.
    Relocate(relocate::RelocateArgs),
    /// Measure the speed of this machine, of a storage or of whole backups
    Bench(bench::BenchArgs),
    /// Print a shell completion script
    Completions(completions::CompletionsArgs),
    /// Write the manual pages
    Man(man::ManArgs),
}

/// How a run ends that panicked.
pub(crate) const PANICKED: Exit = Exit::Failed;

pub(crate) fn main() -> Exit {
    if let Err(error) = signals::tame() {
        return end(Err(error.into()), false);
    }
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => return refuse(&error),
    };
    signals::tell_in_json(cli.options.json);
    end(run(&cli), cli.options.json)
}

fn run(cli: &Cli) -> Result<Exit, Failure> {
    let options = &cli.options;
    match &cli.verb {
        Verb::Completions(args) => return completions::run(args),
        Verb::Man(args) => return man::run(args),
        _ => {}
    }
    if options.repo.as_deref() == Some("") {
        let why = "the location of the repository is empty: set --repo or SILT_REPOSITORY, or neither for the default repository";
        return Err(Failure::Usage(why.to_owned()));
    }
    system::prepare()?;
    match &cli.verb {
        Verb::Backup(args) => backup::run(args, options),
        Verb::Restore(args) => restore::run(args, options),
        Verb::Snapshots(args) => snapshots::run(args, options),
        Verb::Ls(args) => ls::run(args, options),
        Verb::Find(args) => find::run(args, options),
        Verb::Diff(args) => diff::run(args, options),
        Verb::Cat(args) => cat::run(args, options),
        Verb::Export(args) => export::run(args, options),
        Verb::Stats(args) => stats::run(args, options),
        Verb::Init(args) => init::run(args, options),
        Verb::Relocate(args) => relocate::run(args, options),
        Verb::Bench(args) => bench::run(args, options),
        Verb::Completions(_) | Verb::Man(_) => Ok(Exit::Done),
    }
}

fn end(done: Result<Exit, Failure>, json: bool) -> Exit {
    done.unwrap_or_else(|failure| {
        failure.report(json);
        failure.exit()
    })
}

/// Help and version were asked for; everything else is a mistake in the words.
fn refuse(error: &clap::Error) -> Exit {
    let wants_json = std::env::args_os().any(|word| word == "--json");
    if error.use_stderr() && wants_json {
        // Without the prefix and the pointer to --help that are for people.
        let text = error.to_string();
        let text = text.strip_prefix("error: ").unwrap_or(&text);
        let text = text.split("\n\n").next().unwrap_or(text);
        Failure::Usage(text.trim_end().to_owned()).report(true);
        return Exit::Usage;
    }
    // Standard error may be closed; the exit code says it too.
    let _ = error.print();
    if error.use_stderr() { Exit::Usage } else { Exit::Done }
}
