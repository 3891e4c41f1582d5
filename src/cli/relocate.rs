//! `silt relocate`: adapt a repository to the storage where it is now.

use super::exit::{Exit, Failure};
use super::open::{open, probe_storage};
use super::options::GlobalOptions;
use super::print::{json_line, print};
use super::session;
use super::text::show_path;
use clap::Args;
use serde::Serialize;
use siltstone::repo::{CommitProtocol, Relocation};

#[derive(Args, Debug)]
pub(super) struct RelocateArgs {
    /// Accept a storage that ignores conditional writes: never run two backups to it at the same time
    #[arg(long)]
    single_writer: bool,
}

pub(super) fn run(args: &RelocateArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let (console, watch) = session::begin(options, false)?;
    let repo = open(options, &watch)?;
    repo.check_relocatable()?;
    let capabilities = probe_storage(repo.storage())?;
    let done = repo.relocate(capabilities, args.single_writer)?;
    let place = repo.storage().describe();
    let text = if console.json() {
        let report = RelocationReport {
            repository: &place,
            commit_protocol: done.now.commit_protocol,
            before: done.before.as_ref().ok().map(|settings| settings.commit_protocol),
            revision: done.now.revision,
            changed: !done.is_unchanged(),
        };
        json_line(&report) + "\n"
    } else {
        words(&show_path(place.as_bytes()), &done)
    };
    let what = if done.is_unchanged() { "the settings fit" } else { "the settings have been replaced" };
    Ok(print(&text).map_or_else(|error| console.summary_lost(what, &error, Exit::Done), |()| Exit::Done))
}

/// What `silt relocate --json` prints.
#[derive(Serialize)]
struct RelocationReport<'a> {
    repository: &'a str,
    commit_protocol: CommitProtocol,
    /// None where the settings could not be read.
    before: Option<CommitProtocol>,
    revision: u64,
    changed: bool,
}

fn words(place: &str, done: &Relocation) -> String {
    let now = how(done.now.commit_protocol);
    match &done.before {
        _ if done.is_unchanged() => format!("The settings of {place} fit its storage: {now}.\n"),
        Ok(before) if before.commit_protocol == done.now.commit_protocol => {
            format!("Wrote new settings for {place}: {now}, as before.\n")
        }
        Ok(before) => {
            format!("Wrote new settings for {place}: {now}. Before, {}.\n", how(before.commit_protocol))
        }
        Err(_) => format!(
            "Wrote new settings for {place} in place of those that could not be read: {now}.\n\
             If a newer version of silt has written to this repository, run its `silt relocate` as well.\n"
        ),
    }
}

/// How concurrent backups to the repository exclude each other.
fn how(protocol: CommitProtocol) -> &'static str {
    match protocol {
        CommitProtocol::CompareAndSwap => "backups commit by conditional writes",
        CommitProtocol::Rename => "backups commit by renaming",
        CommitProtocol::SingleWriter => "only one backup may run at a time",
    }
}
