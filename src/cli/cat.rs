//! `silt cat`: the bytes of one saved file or stream.

use super::exit::{Exit, Failure};
use super::open::open;
use super::options::GlobalOptions;
use super::print::Lines;
use super::select::TargetOptions;
use super::session;
use clap::Args;
use siltstone::browse;

#[derive(Args, Debug)]
pub(super) struct CatArgs {
    #[command(flatten)]
    what: TargetOptions,
}

pub(super) fn run(args: &CatArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    args.what.check()?;
    let Some(path) = args.what.path() else {
        return Err(Failure::Usage("name a file in the snapshot: SNAPSHOT:PATH".to_owned()));
    };
    let (console, watch) = session::begin(options, false)?;
    let repo = open(options, &watch)?;
    let snapshot = args.what.find(&repo, &console, &watch)?;
    let reader = repo.reader();
    let entry = browse::resolve(&reader, &snapshot, &path)?;
    let mut out = Lines::new();
    repo.copy_content(&reader, &entry, &mut out, &watch)?;
    out.end()?;
    Ok(console.exit_after(&watch))
}
