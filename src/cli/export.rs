//! `silt export`: a snapshot, or a part of it, as an archive.

use super::exit::{Exit, Failure};
use super::open::open;
use super::options::GlobalOptions;
use super::print::{Lines, print, print_json};
use super::progress::Display;
use super::select::TargetOptions;
use super::session;
use super::text::show_path;
use clap::{Args, ValueEnum};
use serde::Serialize;
use siltstone::browse::{self, Archive};
use siltstone::entry::PathText;
use siltstone::error::{Error, Result};
use siltstone::repo::{Repository, Snapshot};
use siltstone::watch::Watch;
use siltstone::when::format_counted;
use std::fs::File;
use std::io::{BufWriter, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

const BUFFER_BYTES: usize = 1 << 20;

#[derive(Args, Debug)]
pub(super) struct ExportArgs {
    #[command(flatten)]
    what: TargetOptions,

    /// Archive format [default: by the name of the file, otherwise tar]
    #[arg(long, value_name = "FORMAT", value_enum)]
    format: Option<ArchiveFormat>,

    /// Write to this file, which must not exist yet [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum ArchiveFormat {
    #[value(name = "tar")]
    Tar,
    #[value(name = "tar.zst")]
    TarZst,
}

/// What `silt export --output FILE --json` prints.
#[derive(Serialize)]
struct ExportReport {
    snapshot: String,
    output: PathText,
    members: u64,
}

pub(super) fn run(args: &ExportArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    args.what.check()?;
    let to_file = args.output.as_deref().filter(|path| path.as_os_str() != "-");
    if to_file.is_none() && std::io::stdout().is_terminal() {
        return Err(Failure::Usage(
            "an archive cannot be written to a terminal: name a file with --output, or redirect the output".to_owned(),
        ));
    }
    let form = form(args, to_file)?;
    let (console, watch) = session::begin(options, false)?;
    let repo = open(options, &watch)?;
    let snapshot = args.what.find(&repo, &console, &watch)?;
    args.what.note_part(&snapshot, &console);
    let path = args.what.path().unwrap_or_else(|| b"/".to_vec());
    let wanted = WantedExport { path, form, repo: &repo, snapshot: &snapshot, watch: &watch };
    let members = {
        let _shown = Display::start(&console, &watch);
        match to_file {
            Some(path) => wanted.write_file(path),
            None => wanted.write(Lines::new(), "standard output"),
        }?
    };
    let exit = console.exit_after(&watch);
    let Some(path) = to_file else { return Ok(exit) };
    let printed = if console.json() {
        let output = PathText(path.as_os_str().as_encoded_bytes().to_vec());
        print_json(&ExportReport { snapshot: snapshot.id.to_hex(), output, members })
    } else if console.quiet() {
        Ok(())
    } else {
        let entries = format_counted(members, "entry", "entries");
        print(&format!("Wrote {entries} to {}\n", show_path(path.as_os_str().as_encoded_bytes())))
    };
    Ok(printed.map_or_else(|error| console.summary_lost("the archive is complete", &error, exit), |()| exit))
}

/// What was asked for, or what the name of the file says. A name that says something else is refused: a tar
/// archive named `.zip` would look damaged.
fn form(args: &ExportArgs, to_file: Option<&Path>) -> Result<Archive, Failure> {
    let zst = Archive::TarZst { level: Archive::LEVEL };
    match args.format {
        Some(ArchiveFormat::Tar) => return Ok(Archive::Tar),
        Some(ArchiveFormat::TarZst) => return Ok(zst),
        None => {}
    }
    let name = to_file.and_then(Path::file_name).unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let ends_with = |endings: &[&str]| endings.iter().any(|ending| name.ends_with(ending));
    if ends_with(&[".tar.zst", ".tar.zstd", ".tzst"]) {
        return Ok(zst);
    }
    let other =
        [".zip", ".gz", ".tgz", ".bz2", ".tbz2", ".xz", ".txz", ".7z", ".rar", ".zst", ".lz4", ".cpio", ".ar", ".iso"];
    if ends_with(&other) {
        Err(Failure::Usage(format!(
            "{} would contain a tar archive: name it .tar or .tar.zst, or choose with --format",
            super::text::show_path(name.as_bytes())
        )))
    } else {
        Ok(Archive::Tar)
    }
}

/// What is to be exported.
struct WantedExport<'a> {
    path: Vec<u8>,
    form: Archive,
    repo: &'a Repository,
    snapshot: &'a Snapshot,
    watch: &'a Watch,
}

impl WantedExport<'_> {
    /// Returns the number of entries. An archive that ended early is removed.
    fn write_file(&self, path: &Path) -> Result<u64> {
        let failed = |error| Error::io("write", path.display(), error);
        // It holds what only root, or only its owner, could read at the source.
        let file = File::options().write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => failed(error).hint("name a file that does not exist yet"),
            _ => failed(error),
        })?;
        let written = self
            .write(&file, &path.display().to_string())
            .and_then(|members| file.sync_all().map(|()| members).map_err(failed))
            .map_err(|error| {
                let path = path.display().to_string();
                error.renamed("the output", &path).renamed("the archive", &path)
            });
        if written.is_err() {
            // The error that ended it is what counts; the file's name says what it is if it stays.
            let _ = std::fs::remove_file(path);
        }
        written
    }

    /// Returns the number of entries. `name` is that of the output, for errors.
    fn write(&self, out: impl Write, name: &str) -> Result<u64> {
        let mut out = BufWriter::with_capacity(BUFFER_BYTES, out);
        let members = browse::export(self.repo, self.snapshot, &self.path, self.form, &mut out, self.watch)?;
        out.flush().map_err(|error| Error::io("write", name, error))?;
        Ok(members)
    }
}
