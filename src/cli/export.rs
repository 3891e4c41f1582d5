//! `silt export`: a snapshot, or a part of it, as an archive.

use super::exit::{Exit, Failure};
use super::open::open;
use super::options::GlobalOptions;
use super::output::Console;
use super::progress::Display;
use super::select::TargetOptions;
use super::signals;
use clap::{Args, ValueEnum};
use serde_json::json;
use siltstone::browse::{self, Archive};
use siltstone::error::{Error, Result};
use siltstone::repo::{Repository, Snapshot};
use siltstone::watch::Watch;
use siltstone::when::format_count;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::path::{Path, PathBuf};

const BUFFER_BYTES: usize = 1 << 20;

#[derive(Args, Debug)]
pub struct ExportArgs {
    #[command(flatten)]
    what: TargetOptions,

    /// The form of the archive
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "tar")]
    format: Format,

    /// Write to this file, made anew [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    #[value(name = "tar")]
    Tar,
    #[value(name = "tar.zst")]
    TarZst,
}

pub fn run(args: &ExportArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    args.what.check()?;
    let to_file = args.output.as_deref().filter(|path| path.as_os_str() != "-");
    if to_file.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::Usage("an archive is nothing for a terminal: name a file with --output".to_owned()));
    }
    let console = Console::new(options, false);
    let watch = console.watch();
    signals::stop_on_signals(&watch)?;
    let repo = open(options, &watch)?;
    let snapshot = args.what.find(&repo, &console, &watch)?;
    let members = {
        let _shown = Display::start(&console, &watch);
        match to_file {
            Some(path) => export_to_file(args, &repo, &snapshot, path, &watch)?,
            None => export_to(args, &repo, &snapshot, std::io::stdout().lock(), "standard output", &watch)?,
        }
    };
    if let Some(path) = to_file {
        if console.json() {
            let path = path.display().to_string();
            super::output::print_json(&json!({"snapshot": snapshot.id.to_hex(), "output": path, "members": members}))?;
        } else if !console.quiet() {
            super::output::print(&format!("{} members in {}\n", format_count(members), path.display()))?;
        }
    }
    Ok(console.exit())
}

/// What ended early is no archive: it is removed.
fn export_to_file(
    args: &ExportArgs,
    repo: &Repository,
    snapshot: &Snapshot,
    path: &Path,
    watch: &Watch,
) -> Result<u64> {
    let failed = |error| Error::io("write", path.display(), error);
    let file = File::create_new(path).map_err(failed)?;
    let written = export_to(args, repo, snapshot, &file, &path.display().to_string(), watch)
        .and_then(|members| file.sync_all().map(|()| members).map_err(failed));
    if written.is_err() {
        // The error that ended it is what counts; the file's name says what it is if it stays.
        let _ = std::fs::remove_file(path);
    }
    written
}

fn export_to(
    args: &ExportArgs,
    repo: &Repository,
    snapshot: &Snapshot,
    out: impl Write,
    name: &str,
    watch: &Watch,
) -> Result<u64> {
    let form = match args.format {
        Format::Tar => Archive::Tar,
        Format::TarZst => Archive::TarZst { level: Archive::LEVEL },
    };
    let path = args.what.path().unwrap_or_else(|| b"/".to_vec());
    let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
    let members = browse::export(repo, snapshot, &path, form, &mut out, watch)?;
    out.flush().map_err(|error| Error::io("write", name, error))?;
    Ok(members)
}
