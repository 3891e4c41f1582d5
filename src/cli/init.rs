//! `silt init`: create a repository.

use super::exit::{Exit, Failure};
use super::open::{given_location, given_password, no_secret, open_storage, open_with, probe_storage};
use super::options::GlobalOptions;
use super::password::read_key_file;
use super::print::{json_line, print, print_once};
use super::prompt::ask_password;
use super::session;
use super::text::show_path;
use clap::Args;
use serde::Serialize;
use siltstone::chunk::ChunkTable;
use siltstone::disk::{make_private_dir, write_new_private};
use siltstone::error::{Error, Kind, Result};
use siltstone::repo::{Credentials, InitOptions, NewRepository, Repository};
use siltstone::seal::{PasswordCost, Secret};
use siltstone::storage::{Storage, folder_of, stranger_in};
use siltstone::watch::{Cancel, Watch};
use std::path::Path;
use zeroize::Zeroizing;

#[derive(Args, Debug)]
#[command(override_usage = "silt init --repo <URL> [OPTIONS]")]
pub(super) struct InitArgs {
    /// Accept a storage that ignores conditional writes: never run two backups to it at the same time
    #[arg(long)]
    single_writer: bool,
}

/// What `silt init --json` prints.
#[derive(Serialize)]
struct InitReport<'a> {
    repository: String,
    key_file: Option<&'a str>,
    key_file_created: bool,
    recovery_key: &'a str,
}

pub(super) fn run(args: &InitArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let Some(location) = given_location(options) else {
        return Err(Failure::Usage(
            "name the location of the new repository with --repo or SILT_REPOSITORY".to_owned(),
        ));
    };
    let (console, watch) = session::begin(options, false)?;
    refuse_strangers(location)?;
    let storage = open_storage(location, true, options, &watch)?;
    // Before a key file is made or a password is asked for.
    if Repository::exists(storage.as_ref())? {
        return Err(Error::new(Kind::AlreadyExists, "create a repository in", storage.describe())
            .because("there is one already")
            .hint("use it with `silt backup --repo …`, or name another location")
            .into());
    }
    let mut credentials = Credentials { password: given_password(options, &watch)?, ..Credentials::default() };
    let mut is_new_key = false;
    if let Some(path) = &options.key_file {
        let (secret, is_new) = key_file(path, &watch)?;
        credentials.key_file = Some(secret);
        is_new_key = is_new;
    }
    if credentials.is_empty() {
        credentials.password = new_password(&storage.describe(), &watch.cancel)?;
        watch.cancel.check()?;
    }
    if credentials.is_empty() {
        return Err(Error::new(Kind::WrongKey, "create a repository in", storage.describe())
            .because("neither a password nor a key file was given")
            .hint("give a password (--password-file, --password-command or SILT_PASSWORD), a --key-file, or both")
            .into());
    }
    let new = prepare(storage.as_ref(), credentials.clone(), args.single_writer)?;
    let key_file = options.key_file.as_ref().map(|path| path.display().to_string());
    if console.json() {
        let recovery: &str = &new.recovery_key().to_text();
        let made = InitReport {
            repository: storage.describe(),
            key_file: key_file.as_deref(),
            key_file_created: is_new_key,
            recovery_key: recovery,
        };
        show_and_finish(&(json_line(&made) + "\n"), new)?;
        return Ok(open_with(storage, &credentials, options, &watch).map(|_| Exit::Done)?);
    }
    let mut text = String::new();
    if let Some(path) = key_file {
        text.push_str(&format!("{} {path}\n", if is_new_key { "New key file:" } else { "Key file:" }));
    }
    text.push_str(&recovery_words(&new));
    show_and_finish(&text, new)?;
    // As every later run does: what does not work shows now.
    open_with(storage.clone(), &credentials, options, &watch)?;
    let place = show_path(storage.describe().as_bytes());
    Ok(print(&format!("Created an encrypted repository in {place}.\n")).map(|()| Exit::Done)?)
}

/// A repository keeps to itself: files of others would be counted with it, and removed with it.
pub(super) fn refuse_strangers(location: &str) -> Result<()> {
    let Some(folder) = folder_of(location)? else { return Ok(()) };
    match stranger_in(folder)? {
        None => Ok(()),
        Some(name) => Err(Error::invalid(
            "create a repository in",
            folder.display(),
            format!("the directory is not empty: {} in it is not part of a repository", name.display()),
        )
        .hint("name an empty directory, or one that does not exist yet")),
    }
}

/// A repository that lacks its last step, which [`show_and_finish`] takes.
pub(super) fn prepare(
    storage: &dyn Storage,
    credentials: Credentials,
    single_writer: bool,
) -> Result<NewRepository<'_>> {
    let capabilities = probe_storage(storage)?;
    let cost = PasswordCost::DEFAULT;
    Repository::prepare(
        storage,
        &InitOptions { credentials, cost, chunks: ChunkTable::default(), single_writer, capabilities },
    )
}

/// Shows the text with the recovery key, and only then makes the repository: there is never a repository whose key was not shown.
/// A run that is killed in between makes none, and the next run makes one with another recovery key.
pub(super) fn show_and_finish(text: &str, new: NewRepository) -> Result<()> {
    let Err(error) = print_once(text) else { return new.finish() };
    // That it could not be shown is what the caller must see.
    let _best_effort = new.abandon();
    Err(Error::new(error.kind(), "show the recovery key", "")
        .because(error)
        .hint("no repository was created: run it again with standard output open"))
}

pub(super) fn recovery_words(new: &NewRepository) -> String {
    let key = new.recovery_key().to_text();
    let mut text = format!(
        "Recovery key: {}\n  It opens the repository if the password or key file is lost. It is shown only once:\n  \
         write it down and keep it away from this machine.\n",
        key.as_str()
    );
    if new.has_older_keys() {
        text.push_str("  A recovery key that an earlier, interrupted run showed for this location opens nothing.\n");
    }
    text
}

/// The secret in the key file; a file that is not there is made. Second: whether it was.
pub(super) fn key_file(path: &Path, watch: &Watch) -> Result<(Secret, bool)> {
    if path.exists() {
        return Ok((read_key_file(path, watch).map_err(no_secret)?, false));
    }
    let secret = Secret::random()?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_private_dir(folder)?;
    }
    let text = Zeroizing::new(format!("{}\n", secret.to_text().as_str()));
    if write_new_private(path, text.as_bytes())? {
        return Ok((secret, true));
    }
    // Another process was faster, and locks a repository with its own.
    Ok((read_key_file(path, watch).map_err(no_secret)?, false))
}

fn new_password(place: &str, cancel: &Cancel) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(password) = ask_password(&format!("New password for {place}: "), cancel)? else { return Ok(None) };
    match ask_password("Repeat the password: ", cancel)? {
        Some(again) if again == password => Ok(Some(password)),
        _ => {
            Err(Error::invalid("set the password", "", "the two passwords differ").hint("type the same password twice"))
        }
    }
}
