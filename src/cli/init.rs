//! `silt init`: make a repository in a place of one's choice.

use super::exit::{Exit, Failure};
use super::open::{given_location, given_password, open_storage, probe_storage, read_key_file};
use super::options::GlobalOptions;
use super::output::{Console, print, print_json};
use super::prompt::ask_password;
use super::signals;
use clap::Args;
use serde_json::json;
use siltstone::chunk::ChunkTable;
use siltstone::disk::whole::{make_private_dir, write_whole_private};
use siltstone::error::{Error, Kind, Result};
use siltstone::repo::{Credentials, InitOptions, Repository};
use siltstone::seal::{PasswordCost, Secret};
use siltstone::storage::Storage;
use siltstone::watch::Cancel;
use std::path::Path;
use zeroize::Zeroizing;

#[derive(Args, Debug)]
pub struct InitArgs {
    /// Accept a storage that cannot tell two writers apart: never more than one backup at a time may write to it
    #[arg(long)]
    single_writer: bool,
}

pub fn run(args: &InitArgs, options: &GlobalOptions) -> Result<Exit, Failure> {
    let Some(location) = given_location(options) else {
        return Err(Failure::Usage("name the place of the new repository with --repo or SILT_REPOSITORY".to_owned()));
    };
    let console = Console::new(options, false);
    let storage = open_storage(location, true, options)?;
    // Before a key file is made or a password is asked for.
    if Repository::exists(storage.as_ref())? {
        return Err(Error::new(Kind::AlreadyExists, "make a repository in", storage.describe())
            .because("there is one already")
            .into());
    }
    let mut credentials = Credentials { password: given_password(options)?, ..Credentials::default() };
    let mut is_new_key = false;
    if let Some(path) = &options.key_file {
        let (secret, is_new) = key_file(path)?;
        credentials.key_file = Some(secret);
        is_new_key = is_new;
    }
    if credentials.is_empty() {
        let watch = console.watch();
        signals::stop_on_signals(&watch)?;
        credentials.password = new_password(&storage.describe(), &watch.cancel)?;
        watch.cancel.check()?;
    }
    if credentials.is_empty() {
        return Err(Error::invalid("make a repository in", storage.describe(), "there is nothing to lock it with")
            .hint("give a password (SILT_PASSWORD, --password-file, --password-command), a --key-file or both")
            .into());
    }
    let recovery = make(storage.as_ref(), credentials, args.single_writer)?;
    let key_file = options.key_file.as_ref().map(|path| path.display().to_string());
    if console.json() {
        let recovery: &str = &recovery.to_text();
        let made = json!({
            "repository": storage.describe(), "key_file": key_file, "key_file_made": is_new_key, "recovery_key": recovery
        });
        return Ok(print_json(&made).map(|()| Exit::Done)?);
    }
    let mut text = format!("Made an encrypted repository in {}.\n", storage.describe());
    if let Some(path) = key_file {
        text.push_str(&format!("{} {path}\n", if is_new_key { "New key file:" } else { "Key file:" }));
    }
    text.push_str(&recovery_words(&recovery));
    Ok(print(&text).map(|()| Exit::Done)?)
}

/// Makes a repository; gives the recovery key.
pub fn make(storage: &dyn Storage, credentials: Credentials, single_writer: bool) -> Result<Secret> {
    let abilities = probe_storage(storage)?;
    let cost = PasswordCost::DEFAULT;
    Repository::init(
        storage,
        &InitOptions { credentials, cost, chunks: ChunkTable::default(), single_writer, abilities },
    )
}

pub fn recovery_words(recovery: &Secret) -> String {
    let text = recovery.to_text();
    format!(
        "Recovery key: {}\n  It opens the repository when the password or key file is lost. It is shown only now:\n  \
         write it down and keep it apart from this machine.\n",
        text.as_str()
    )
}

/// The secret in the key file; a file that is not there is made. Second: whether it was.
pub fn key_file(path: &Path) -> Result<(Secret, bool)> {
    if path.exists() {
        return Ok((read_key_file(path)?, false));
    }
    let secret = Secret::random()?;
    if let Some(folder) = path.parent().filter(|folder| !folder.as_os_str().is_empty()) {
        make_private_dir(folder)?;
    }
    let text = Zeroizing::new(format!("{}\n", secret.to_text().as_str()));
    write_whole_private(path, text.as_bytes())?;
    Ok((secret, true))
}

fn new_password(place: &str, cancel: &Cancel) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let Some(password) = ask_password(&format!("New password for {place}: "), cancel)? else { return Ok(None) };
    match ask_password("Once more: ", cancel)? {
        Some(again) if again == password => Ok(Some(password)),
        _ => Err(Error::invalid("set the password", "", "the two differ").hint("type the same password twice")),
    }
}
