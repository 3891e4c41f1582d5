//! The command `silt`: words in, words out; what is done is done by the library.

mod cli;

fn main() -> std::process::ExitCode {
    cli::main().into()
}
