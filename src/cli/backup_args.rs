//! The arguments of `silt backup`.

use super::options::{bytes_parser, compression, first_instant, pattern, size};
use clap::Args;
use siltstone::entry::Time;
use siltstone::error::{Error, Result};
use siltstone::seal::Compression;
use siltstone::source::{Marker, Stream, check_stream_name};
use siltstone::when::{Selector, parse_target};
use std::ffi::OsString;
use std::path::PathBuf;

#[derive(Args, Debug)]
pub(super) struct BackupArgs {
    /// Files and directories to save. A symbolic link is saved as a link; with a slash after it, the directory that it
    /// points to is saved
    #[arg(value_name = "PATHS", required_unless_present_any = ["files_from", "files_from_raw", "stdin", "stream"])]
    pub(super) paths: Vec<PathBuf>,

    /// Exclude what matches this gitignore pattern (repeatable)
    #[arg(long, value_name = "PATTERN", value_parser = bytes_parser(pattern), help_heading = "Exclude options")]
    pub(super) exclude: Vec<OsString>,

    /// Like --exclude, but ignore the case of ASCII letters (repeatable)
    #[arg(long, value_name = "PATTERN", value_parser = bytes_parser(pattern), help_heading = "Exclude options")]
    pub(super) iexclude: Vec<OsString>,

    /// Read exclude patterns from this file, one per line (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "Exclude options")]
    pub(super) exclude_file: Vec<PathBuf>,

    /// Exclude the contents of directories tagged as caches (CACHEDIR.TAG)
    #[arg(long, help_heading = "Exclude options")]
    pub(super) exclude_caches: bool,

    /// Exclude the contents of directories that contain NAME, or a file NAME that begins with HEADER (repeatable)
    #[arg(long, value_name = "NAME[:HEADER]", value_parser = bytes_parser(marker), help_heading = "Exclude options")]
    pub(super) exclude_if_present: Vec<WordBytes>,

    /// Exclude files larger than this
    #[arg(long, value_name = "SIZE", value_parser = size, help_heading = "Exclude options")]
    pub(super) exclude_larger_than: Option<u64>,

    /// Do not cross file system boundaries; paths given explicitly are always saved
    #[arg(short = 'x', long, help_heading = "Exclude options")]
    pub(super) one_file_system: bool,

    /// Read more paths from this file, one per line (lines that begin with # are comments); - is standard input
    /// (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "Source options")]
    pub(super) files_from: Vec<PathBuf>,

    /// Read more paths from this file, NUL-terminated; - is standard input (repeatable)
    #[arg(long, value_name = "FILE", help_heading = "Source options")]
    pub(super) files_from_raw: Vec<PathBuf>,

    /// Save standard input as a stream
    #[arg(long, help_heading = "Source options")]
    pub(super) stdin: bool,

    /// Name of the stream of --stdin
    #[arg(long, value_name = "NAME", default_value = "stdin", value_parser = bytes_parser(stream_name), requires = "stdin", help_heading = "Source options")]
    pub(super) stdin_name: WordBytes,

    /// Save the output of this shell command under this name; if the command fails, the backup fails (repeatable)
    #[arg(long, value_name = "NAME=COMMAND", value_parser = bytes_parser(Stream::parse), help_heading = "Source options")]
    pub(super) stream: Vec<Stream>,

    /// Pass this environment variable to the commands of --stream: those that may hold a secret (SILT_PASSWORD,
    /// SILT_RECOVERY_KEY, AWS_ACCESS_KEY_ID and others) are not passed by default (repeatable)
    #[arg(long, value_name = "NAME", requires = "stream", help_heading = "Source options")]
    pub(super) stream_env: Vec<String>,

    /// Add this tag to the snapshot (repeatable)
    #[arg(long, value_name = "TAG", help_heading = "Snapshot options")]
    pub(super) tag: Vec<String>,

    /// Host name to record in the snapshot [default: this host]
    #[arg(long, value_name = "NAME", help_heading = "Snapshot options")]
    pub(super) host: Option<String>,

    /// Job name to record in the snapshot
    #[arg(long, value_name = "NAME", default_value = "", hide_default_value = true, help_heading = "Snapshot options")]
    pub(super) job: String,

    /// Time to record in the snapshot [default: now]
    #[arg(long, value_name = "TIME", value_parser = first_instant, help_heading = "Snapshot options")]
    pub(super) time: Option<Time>,

    /// Only show what would be done
    #[arg(short = 'n', long)]
    pub(super) dry_run: bool,

    /// Create no snapshot if nothing has changed
    #[arg(long)]
    pub(super) skip_if_unchanged: bool,

    /// Compare with this snapshot instead of the last backup
    #[arg(long, value_name = "SNAPSHOT", value_parser = bytes_parser(parent), conflicts_with = "force")]
    pub(super) parent: Option<Selector>,

    /// Read all files, even those that seem unchanged
    #[arg(short, long)]
    pub(super) force: bool,

    /// Ignore the change time (ctime) when looking for changed files
    #[arg(long)]
    pub(super) ignore_ctime: bool,

    /// Ignore the inode number when looking for changed files
    #[arg(long)]
    pub(super) ignore_inode: bool,

    /// Read COUNT files at the same time [default: as many as keep the processors busy within --memory]
    #[arg(long, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(super) read_concurrency: Option<u16>,

    /// How to compress: off, fast, default, best, or a zstd level from 1 to 22 (default is about as small as level 3, and
    /// faster)
    #[arg(long, value_name = "LEVEL", value_parser = compression, default_value = "default")]
    pub(super) compression: Compression,
}

/// Checked words of any bytes.
#[derive(Clone, Debug)]
pub(super) struct WordBytes(pub(super) Vec<u8>);

pub(super) fn marker(words: &[u8]) -> Result<WordBytes> {
    Marker::parse(words).map(|_| WordBytes(words.to_vec()))
}

pub(super) fn stream_name(words: &[u8]) -> Result<WordBytes> {
    check_stream_name(words).map(|()| WordBytes(words.to_vec()))
}

pub(super) fn parent(words: &[u8]) -> Result<Selector> {
    match parse_target(words)? {
        (selector, None) => Ok(selector),
        (_, Some(_)) => Err(Error::invalid("compare with a path", "", "--parent takes a snapshot, without a path")),
    }
}
