//! `silt ls`: what a snapshot holds.

use super::entry::long_line;
use super::exit::{Exit, Failure};
use super::open::open;
use super::options::GlobalOptions;
use super::print::Lines;
use super::select::TargetOptions;
use super::session;
use super::text::show_path;
use clap::Args;
use siltstone::browse::{self, EntryInfo};

#[derive(Args, Debug)]
pub(super) struct LsArgs {
    #[command(flatten)]
    what: TargetOptions,

    /// Show mode, owner, group, size and modification time
    #[arg(short, long)]
    long: bool,

    /// List everything below, too
    #[arg(short = 'R', long)]
    recursive: bool,
}

pub(super) fn run(args: &LsArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    args.what.check()?;
    let (console, watch) = session::begin(options, false)?;
    let repo = open(options, &watch)?;
    let snapshot = args.what.find(&repo, &console, &watch)?;
    let path = args.what.path().unwrap_or_else(|| b"/".to_vec());
    let mut lines = Lines::new();
    browse::list_skipping_damage(&repo.reader(), &snapshot, &path, args.recursive, &watch, &mut |path, entry| {
        watch.cancel.check()?;
        match (console.json(), args.long) {
            (true, _) => lines.json(&EntryInfo::new(path, entry)),
            (false, true) => lines.line(&long_line(path, entry)),
            (false, false) => lines.line(&show_path(path)),
        }
    })?;
    lines.end()?;
    Ok(console.exit_after(&watch))
}
