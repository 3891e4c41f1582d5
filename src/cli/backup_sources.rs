//! Which paths a backup is to save: those on the command line and in lists, and what rules leave out.

use super::backup_args::BackupArgs;
use super::options::{GlobalOptions, base_of};
use siltstone::backup::missing_source;
use siltstone::disk::stat_path;
use siltstone::entry::{PathText, Warning};
use siltstone::error::{Error, Kind, Result};
use siltstone::source::{Rules, RulesBuilder, follow_slash, normalize, read_lines, read_raw};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::PathBuf;

/// The sources that are paths.
pub(super) struct NamedSources {
    pub(super) paths: Vec<PathBuf>,
    /// Links with a slash at their end that lead nowhere.
    pub(super) missing: Vec<Warning>,
}

/// The options that read standard input, as `-` or under the name of a pipe that it is (`/dev/stdin`).
pub(super) fn readers_of_stdin(args: &BackupArgs, options: &GlobalOptions) -> Vec<&'static str> {
    // A regular file is opened anew under such a name.
    let input = std::io::stdin().as_fd().try_clone_to_owned().and_then(|input| File::from(input).metadata());
    let input = input.ok().filter(|input| input.file_type().is_fifo());
    let is_input = |path: &PathBuf| {
        let (Some(input), Ok(found)) = (&input, std::fs::metadata(path)) else { return false };
        (input.dev(), input.ino()) == (found.dev(), found.ino())
    };
    let lists = [("--files-from", &args.files_from), ("--files-from-raw", &args.files_from_raw)];
    let lists = lists.iter().flat_map(|(option, lists)| lists.iter().map(|list| (*option, list)));
    let lists = lists.filter(|(_, list)| list.as_os_str() == "-" || is_input(list)).map(|(option, _)| option);
    let others = [
        ("--password-file", &options.password_file),
        ("--key-file", &options.key_file),
        ("--recovery-key-file", &options.recovery_key_file),
    ];
    let others = others.into_iter().filter_map(|(option, path)| Some((option, path.as_ref()?)));
    let others = others.chain(args.exclude_file.iter().map(|path| ("--exclude-file", path)));
    let others = others.filter(|(_, path)| is_input(path)).map(|(option, _)| option);
    args.stdin.then_some("--stdin").into_iter().chain(lists).chain(others).collect()
}

pub(super) fn named(args: &BackupArgs) -> Result<NamedSources> {
    let mut paths = args.paths.clone();
    for (lists, is_raw) in [(&args.files_from, false), (&args.files_from_raw, true)] {
        for list in lists {
            let origin = list.display().to_string();
            let is_stdin = list.as_os_str() == "-";
            let more = match (is_stdin, is_raw) {
                (true, false) => read_lines(std::io::stdin().lock(), "standard input")?,
                (true, true) => read_raw(std::io::stdin().lock(), "standard input")?,
                (false, _) => {
                    let file = File::open(list).map_err(|error| Error::io("open the list of paths", &origin, error))?;
                    if is_raw { read_raw(file, &origin)? } else { read_lines(file, &origin)? }
                }
            };
            paths.extend(more);
        }
    }
    // Streams alone need no path; a list that turned out empty is a mistake.
    let has_stream = args.stdin || !args.stream.is_empty();
    let has_list = !args.files_from.is_empty() || !args.files_from_raw.is_empty();
    if paths.is_empty() && has_stream && !has_list {
        return Ok(NamedSources { paths, missing: Vec::new() });
    }
    let folder = base_of(&paths)?;
    let (mut found, mut missing, mut first) = (Vec::new(), Vec::new(), None);
    for path in &paths {
        match follow_slash(path) {
            Ok(path) => found.push(path),
            Err(error) => {
                let path = PathText(folder.join(path).into_os_string().into_vec());
                let what =
                    if error.is(Kind::NotFound) { format!("it does not exist: {error}") } else { error.to_string() };
                missing.push(Warning { path, what });
                first.get_or_insert(error);
            }
        }
    }
    let paths = if found.is_empty() && first.is_some() { found } else { normalize(&found, &folder)? };
    // A slip of the finger ends here, before a repository is made; of several paths those that are there are saved.
    for path in &paths {
        match stat_path(path.as_os_str().as_bytes(), false) {
            Ok(_) => return Ok(NamedSources { paths, missing }),
            Err(error) => drop(first.get_or_insert(error)),
        }
    }
    Err(missing_source(first.expect("there is a path")))
}

pub(super) fn in_one_line(error: &Error) -> String {
    error.advice().map_or_else(|| error.to_string(), |hint| format!("{error}; {hint}"))
}

pub(super) fn rules(args: &BackupArgs) -> Result<Rules> {
    let mut rules = RulesBuilder::new();
    for path in &args.exclude_file {
        rules.exclude_file(path, false)?;
    }
    for pattern in &args.exclude {
        rules.exclude(pattern.as_bytes())?;
    }
    for pattern in &args.iexclude {
        rules.exclude_ignoring_case(pattern.as_bytes())?;
    }
    if args.exclude_caches {
        rules.exclude_caches();
    }
    for marker in &args.exclude_if_present {
        rules.exclude_if_present(&marker.0)?;
    }
    if let Some(bytes) = args.exclude_larger_than {
        rules.exclude_larger_than(bytes);
    }
    rules.one_file_system(args.one_file_system);
    rules.build()
}
