//! `silt completions`: a completion script for a shell.

use super::exit::{Exit, Failure};
use super::print::print_bytes;
use clap::{Args, CommandFactory};
use clap_complete::Shell;

#[derive(Args, Debug)]
pub(super) struct CompletionsArgs {
    /// Shell that the script is for
    #[arg(value_enum)]
    shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::Cli::command(), "silt", &mut script);
    Ok(print_bytes(&script).map(|()| Exit::Done)?)
}
