//! `silt relocate`: adapt a repository to the storage where it is now.

use super::exit::{Exit, Failure};
use super::open::{open, probe_storage};
use super::options::GlobalOptions;
use super::output::Console;
use super::print::print;
use super::signals;
use clap::Args;
use serde_json::json;
use siltstone::repo::{CommitProtocol, Relocation, Settings};

#[derive(Args, Debug)]
pub(super) struct RelocateArgs {
    /// Accept a storage that ignores conditional writes: never run two backups to it at the same time
    #[arg(long)]
    single_writer: bool,
}

pub(super) fn run(args: &RelocateArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let console = Console::new(options, false);
    let watch = console.watch();
    signals::stop_on_signals(&watch)?;
    let repo = open(options, &watch)?;
    let capabilities = probe_storage(repo.storage())?;
    let done = repo.relocate(capabilities, args.single_writer)?;
    let place = repo.storage().describe();
    let text = if console.json() {
        let before = done.before.as_ref().ok().map(|settings| settings.commit_protocol);
        let Settings { commit_protocol, revision, .. } = done.now;
        let changed = !done.is_unchanged();
        let made = json!({
            "repository": place, "commit_protocol": commit_protocol, "before": before, "revision": revision, "changed": changed
        });
        format!("{made}\n")
    } else {
        words(&place, &done)
    };
    Ok(print(&text).map(|()| Exit::Done)?)
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

/// How backups to the repository keep apart.
fn how(protocol: CommitProtocol) -> &'static str {
    match protocol {
        CommitProtocol::CompareAndSwap => "backups commit by conditional writes",
        CommitProtocol::Rename => "backups commit by renaming",
        CommitProtocol::SingleWriter => "only one backup may run at a time",
    }
}
