//! Options that several verbs share, and readers of their words.

use clap::builder::{OsStringValueParser, TypedValueParser};
use clap::{ArgAction, Args};
use siltstone::browse::Filter;
use siltstone::entry::Time;
use siltstone::error::Error;
use siltstone::seal::Compression;
use siltstone::source::{Rules, RulesBuilder, is_same_place, normalize};
use siltstone::storage::RETRY_FOR;
use siltstone::when::{Moment, parse_moment, parse_size};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// With less, frames could not be worked on side by side.
const MEMORY_BYTES_MIN: u64 = 32 << 20;

/// Options that every command takes.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Global options")]
pub(super) struct GlobalOptions {
    /// Location of the repository: a directory, s3://BUCKET/PREFIX, s3+https://HOST:PORT/BUCKET/PREFIX or s3+http://…
    /// [default: ~/.local/share/siltstone/repository]
    #[arg(short, long, global = true, value_name = "URL", env = "SILT_REPOSITORY", hide_env_values = true)]
    pub repo: Option<String>,

    /// Read the password from the first line of this file [default: the environment variable SILT_PASSWORD]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "password_command")]
    pub password_file: Option<PathBuf>,

    /// Read the password from the output of this shell command
    #[arg(long, global = true, value_name = "COMMAND")]
    pub password_command: Option<OsString>,

    /// File with a key that opens the repository; init creates it if it does not exist [default for the default
    /// repository: ~/.config/siltstone/key]
    #[arg(long, global = true, value_name = "FILE")]
    pub key_file: Option<PathBuf>,

    /// File with the recovery key [default: the environment variable SILT_RECOVERY_KEY]
    #[arg(long, global = true, value_name = "FILE")]
    pub recovery_key_file: Option<PathBuf>,

    /// File with the CA certificates (PEM) to trust for https [default: those of the system]
    #[arg(long, global = true, value_name = "FILE", env = "SILT_CACERT", hide_env_values = true, value_parser = path())]
    pub cacert: Option<PathBuf>,

    /// Cache directory [default: ~/.cache/siltstone]
    #[arg(long, global = true, value_name = "DIR", env = "SILT_CACHE_DIR", hide_env_values = true, value_parser = path())]
    pub cache_dir: Option<PathBuf>,

    /// Use no cache: keep nothing on this machine, and fetch everything from the repository again
    #[arg(long, global = true)]
    pub no_cache: bool,

    /// Limit the memory of all buffers together, at least 32M [default: 256M, or 24M per processor if that is more]
    #[arg(long, global = true, value_name = "SIZE", value_parser = memory)]
    pub memory: Option<u64>,

    /// How long to retry when the storage does not answer: 90s, 15m, 2h; 0 means not at all [default: 15m]
    #[arg(long, global = true, value_name = "DURATION", env = "SILT_RETRY_FOR", hide_env_values = true, value_parser = retry_for)]
    pub retry_for: Option<Duration>,

    /// Limit uploads to the storage to this many bytes per second: 500K, 2M
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    pub limit_upload: Option<u64>,

    /// Limit downloads from the storage to this many bytes per second: 500K, 2M
    #[arg(long, global = true, value_name = "SIZE", value_parser = size)]
    pub limit_download: Option<u64>,

    /// Print only errors, warnings and the requested output
    #[arg(short, long, global = true, conflicts_with = "verbose")]
    pub quiet: bool,

    /// Print each warning when it occurs; with --json, print progress events too
    #[arg(short, long, global = true, action = ArgAction::Count)]
    pub verbose: u8,

    /// Print results as JSON on standard output, and errors as JSON on standard error
    #[arg(long, global = true)]
    pub json: bool,

    /// Do not show progress
    #[arg(long, global = true)]
    pub no_progress: bool,
}

/// A heading for each of them: one for all that follow would be over the options of the command, too.
pub(super) const FILTERS: &str = "Snapshot filters";

/// Which snapshots count.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct FilterOptions {
    /// Only snapshots of this host
    #[arg(long, value_name = "NAME", help_heading = FILTERS)]
    pub host: Option<String>,

    /// Only snapshots of this job
    #[arg(long, value_name = "NAME", help_heading = FILTERS)]
    pub job: Option<String>,

    /// Only snapshots with this tag (repeatable: with all of these tags)
    #[arg(long, value_name = "TAG", help_heading = FILTERS)]
    pub tag: Vec<String>,

    /// Only snapshots with a source at, above or below this path; a stream NAME has the path /NAME
    #[arg(long, value_name = "PATH", help_heading = FILTERS)]
    pub path: Option<PathBuf>,
}

impl FilterOptions {
    pub(super) fn filter(&self) -> Result<Filter, Error> {
        let path = self.path.as_deref().map(absolute).transpose()?;
        Ok(Filter {
            host: self.host.clone(),
            job: self.job.clone(),
            tags: self.tag.clone(),
            path: path.map(|path| path.into_os_string().into_encoded_bytes()),
            ..Filter::default()
        })
    }
}

/// Which snapshots count, from when to when: for verbs that look at many of them.
#[derive(Args, Clone, Debug, Default)]
pub(super) struct RangeOptions {
    #[command(flatten)]
    filter: FilterOptions,

    /// Only snapshots that started at or after this time
    #[arg(long, value_name = "TIME", help_heading = FILTERS, value_parser = first_instant)]
    after: Option<Time>,

    /// Only snapshots that started at or before this time (a date means the end of that day)
    #[arg(long, value_name = "TIME", help_heading = FILTERS, value_parser = last_instant)]
    before: Option<Time>,
}

impl RangeOptions {
    pub(super) fn filter(&self) -> Result<Filter, Error> {
        Ok(Filter { after: self.after, before: self.before, ..self.filter.filter()? })
    }
}

/// Patterns of what is left out or taken.
pub(super) fn rules(patterns: &[OsString]) -> Result<Rules, Error> {
    let mut builder = RulesBuilder::new();
    for pattern in patterns {
        builder.exclude(pattern.as_bytes())?;
    }
    builder.build()
}

/// Checks a pattern where it is given, so that one that makes no sense is an error of the words.
pub(super) fn pattern(words: &[u8]) -> Result<OsString, Error> {
    let mut builder = RulesBuilder::new();
    builder.exclude(words)?.build()?;
    Ok(OsStr::from_bytes(words).to_owned())
}

/// The directory that these paths are relative to. It need not exist where all of them are absolute.
pub(super) fn base_of<P: AsRef<Path>>(paths: &[P]) -> Result<PathBuf, Error> {
    if paths.iter().all(|path| path.as_ref().is_absolute()) {
        Ok(PathBuf::from("/"))
    } else {
        let folder = std::env::current_dir().map_err(|error| {
            Error::io("find the current directory", "", error).hint("change to a directory that exists")
        })?;
        if is_same_place(Path::new("."), &folder) {
            return Ok(folder);
        }
        Err(Error::invalid("find the current directory", folder.display(), "something else is mounted over it now")
            .hint(format!("run `cd {}` to change to what is there now, or name absolute paths", folder.display())))
    }
}

/// A path as given, made absolute and clean.
pub(super) fn absolute(path: &Path) -> Result<PathBuf, Error> {
    let mut paths = normalize(&[path], &base_of(&[path])?)?;
    Ok(paths.remove(0))
}

/// An error in the words of an option: clap puts the option's name before it and ends with 2.
pub(super) fn in_words(error: Error) -> String {
    match error.advice() {
        Some(hint) => format!("{error}\nhint: {hint}"),
        None => error.to_string(),
    }
}

pub(super) fn size(text: &str) -> Result<u64, String> {
    match parse_size(text).map_err(in_words)? {
        0 => Err("it must be greater than 0".to_owned()),
        bytes => Ok(bytes),
    }
}

/// An empty variable counts as unset.
fn retry_for(text: &str) -> Result<Duration, String> {
    match text {
        "" => Ok(RETRY_FOR),
        _ => duration(text),
    }
}

/// A count with a unit, which is seconds where none is named.
fn duration(text: &str) -> Result<Duration, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (count, unit) = text.split_at(digits);
    let seconds = match unit.trim() {
        "" | "s" | "sec" => 1,
        "m" | "min" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return Err("write a whole number and a unit (s, m, h or d): 90s, 15m".to_owned()),
    };
    let count: u64 =
        count.parse().map_err(|_| "write a whole number and a unit (s, m, h or d): 90s, 15m".to_owned())?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(|| "it is too long".to_owned())
}

fn memory(text: &str) -> Result<u64, String> {
    match size(text)? {
        bytes if bytes < MEMORY_BYTES_MIN => Err("silt needs at least 32M".to_owned()),
        bytes => Ok(bytes),
    }
}

pub(super) fn compression(text: &str) -> Result<Compression, String> {
    match text {
        "off" => Ok(Compression::STORE),
        "fast" => Ok(Compression::Level(1)),
        "default" => Ok(Compression::Auto),
        "best" => Ok(Compression::Level(19)),
        _ => match text.parse() {
            Ok(level @ 1..=22) => Ok(Compression::Level(level)),
            _ => Err("write off, fast, default, best or a level from 1 to 22".to_owned()),
        },
    }
}

pub(super) fn moment(text: &str) -> Result<Moment, String> {
    parse_moment(text, &jiff::Zoned::now()).map_err(in_words)
}

/// The first instant of what the words name.
pub(super) fn first_instant(text: &str) -> Result<Time, String> {
    moment(text).map(|moment| moment.start)
}

/// The last instant of what the words name.
pub(super) fn last_instant(text: &str) -> Result<Time, String> {
    moment(text).map(|moment| moment.end)
}

/// A path that may be empty, as an empty variable counts as unset.
fn path() -> impl TypedValueParser<Value = PathBuf> {
    OsStringValueParser::new().map(PathBuf::from)
}

/// A reader of words that may be any bytes.
pub(super) fn bytes_parser<T, F>(read: F) -> impl TypedValueParser<Value = T>
where
    T: Clone + Send + Sync + 'static,
    F: Fn(&[u8]) -> Result<T, Error> + Clone + Send + Sync + 'static,
{
    OsStringValueParser::new().try_map(move |words| read(words.as_bytes()).map_err(in_words))
}
