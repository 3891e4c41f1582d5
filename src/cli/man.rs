//! `silt man`: manual pages.

use super::exit::{Exit, Failure};
use super::print::print_bytes;
use clap::{Args, CommandFactory};
use siltstone::error::Error;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct ManArgs {
    /// Directory for the pages of all commands [default: print the main page]
    dir: Option<PathBuf>,
}

pub(super) fn run(args: &ManArgs) -> Result<Exit, Failure> {
    let command = super::Cli::command();
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(command).render(&mut page);
        rendered.map_err(|error| Error::io("write", "the manual page", error))?;
        return Ok(print_bytes(&page).map(|()| Exit::Done)?);
    };
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(command, dir))
        .map_err(|error| Error::io("write the manual pages to", dir.display(), error))?;
    Ok(Exit::Done)
}
