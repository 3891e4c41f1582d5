//! Open the repository that is meant with what the user has to open it: files, environment, prompt, or the default.

use super::options::{GlobalOptions, absolute};
use super::prompt::ask_password;
use siltstone::disk::whole::read_bounded;
use siltstone::error::{Error, Kind, Result};
use siltstone::repo::{Credentials, Repository};
use siltstone::seal::Secret;
use siltstone::source::SECRETS;
use siltstone::storage::throttle::Throttle;
use siltstone::storage::{self, Abilities, Storage};
use siltstone::watch::Watch;
use std::ffi::OsStr;
use std::io::IsTerminal;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use zeroize::Zeroizing;

const PASSWORD_BYTES_MAX: u64 = 64 << 10;
const KEY_TEXT_BYTES_MAX: u64 = 4 << 10;

/// Where everything lies for whoever configured nothing.
pub struct Places {
    pub repository: PathBuf,
    pub key: PathBuf,
}

impl Places {
    pub fn find() -> Result<Places> {
        Ok(Places {
            repository: folder("XDG_DATA_HOME", ".local/share")?.join("siltstone/repository"),
            key: folder("XDG_CONFIG_HOME", ".config")?.join("siltstone/key"),
        })
    }
}

/// A folder of the user (XDG Base Directory Specification: a relative path in the variable counts as none).
fn folder(variable: &str, below_home: &str) -> Result<PathBuf> {
    let given = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    given.or_else(|| Some(home()?.join(below_home))).ok_or_else(|| {
        Error::invalid("find the user's folders", "", format!("neither {variable} nor HOME is set"))
            .hint("set HOME, or name the repository with --repo and the cache with --cache-dir")
    })
}

pub fn cache_folder(options: &GlobalOptions) -> Result<PathBuf> {
    match options.cache_dir.as_ref().filter(|path| !path.as_os_str().is_empty()) {
        Some(path) => absolute(path),
        None => Ok(folder("XDG_CACHE_HOME", ".cache")?.join("siltstone")),
    }
}

/// The location that was given.
pub fn given_location(options: &GlobalOptions) -> Option<&str> {
    options.repo.as_deref().filter(|location| !location.is_empty())
}

/// The password, key file and recovery key that were given. Of a password on the command line and one in the
/// environment the former counts. Empty when there are none.
pub fn given_credentials(options: &GlobalOptions) -> Result<Credentials> {
    let recovery = match (&options.recovery_key_file, std::env::var("SILT_RECOVERY_KEY")) {
        (Some(path), _) => Some(read_key_file(path)?),
        (None, Ok(text)) if !text.is_empty() => Some(Secret::from_text(&Zeroizing::new(text))?),
        _ => None,
    };
    let key_file = options.key_file.as_deref().map(read_key_file).transpose()?;
    Ok(Credentials { password: given_password(options)?, key_file, recovery })
}

pub fn given_password(options: &GlobalOptions) -> Result<Option<Zeroizing<Vec<u8>>>> {
    if let Some(path) = &options.password_file {
        let bytes = Zeroizing::new(read_bounded(path, PASSWORD_BYTES_MAX)?);
        return first_line(&bytes, &format!("from {}", path.display())).map(Some);
    }
    if let Some(command) = &options.password_command {
        return password_of_command(command).map(Some);
    }
    match std::env::var_os("SILT_PASSWORD").filter(|password| !password.is_empty()) {
        Some(password) => Ok(Some(Zeroizing::new(password.as_bytes().to_vec()))),
        None => Ok(None),
    }
}

fn password_of_command(command: &OsStr) -> Result<Zeroizing<Vec<u8>>> {
    let doing = "get the password";
    let from = "from the password command";
    let mut shell = Command::new("/bin/sh");
    for secret in SECRETS {
        shell.env_remove(secret);
    }
    shell.arg("-c").arg(command).stdout(Stdio::piped()).stderr(Stdio::inherit()).stdin(Stdio::inherit());
    let output = shell.spawn().and_then(|child| child.wait_with_output());
    let output = output.map_err(|error| Error::io(doing, from, error))?;
    let bytes = Zeroizing::new(output.stdout);
    match output.status.success() {
        true => first_line(&bytes, from),
        false => Err(Error::new(Kind::Failed, doing, from).because(format!("it ended with {}", output.status))),
    }
}

/// A password is one line: what an editor or `echo` puts after it does not belong to it.
fn first_line(bytes: &[u8], from: &str) -> Result<Zeroizing<Vec<u8>>> {
    let line = bytes.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    match line.is_empty() {
        true => Err(Error::invalid("get the password", from, "its first line is empty")),
        false => Ok(Zeroizing::new(line.to_vec())),
    }
}

pub fn read_key_file(path: &Path) -> Result<Secret> {
    let bytes = Zeroizing::new(read_bounded(path, KEY_TEXT_BYTES_MAX)?);
    let bad = |why: String| Error::invalid("read the key file", path.display(), why);
    let text = std::str::from_utf8(&bytes).map_err(|_| bad("it is no text".to_owned()))?;
    Secret::from_text(text.trim()).map_err(|error| bad(error.to_string()))
}

/// Opens the location; it need not hold a repository yet.
pub fn open_storage(location: &str, create: bool, options: &GlobalOptions) -> Result<Arc<dyn Storage>> {
    let ca_file = options.cacert.as_deref().filter(|path| !path.as_os_str().is_empty());
    storage::location::open_trusting(location, create, ca_file)
}

pub fn probe_storage(storage: &dyn Storage) -> Result<Abilities> {
    storage::probe(storage)
}

/// The repository that is meant, open.
pub fn open(options: &GlobalOptions, watch: &Watch) -> Result<Repository> {
    open_limited(options, None, watch)
}

/// The repository that is meant, open; at most `limit_upload` bytes a second are sent to it.
pub fn open_limited(options: &GlobalOptions, limit_upload: Option<u64>, watch: &Watch) -> Result<Repository> {
    let cache = cache_folder(options)?;
    let mut credentials = given_credentials(options)?;
    let storage = match given_location(options) {
        Some(location) => open_storage(location, false, options)?,
        None => open_default(options, &mut credentials)?,
    };
    // Nobody is asked for the password of a repository that is not there; opening it says so.
    if credentials.is_empty() && std::io::stdin().is_terminal() && Repository::exists(storage.as_ref())? {
        let prompt = format!("Password for {}: ", storage.describe());
        credentials.password = ask_password(&prompt, &watch.cancel)?;
    }
    let repo = Repository::open(limited(storage, limit_upload), &credentials, &cache, watch)?;
    if let Some(bytes) = options.memory {
        repo.limit_memory(bytes);
    }
    Ok(repo)
}

pub fn limited(storage: Arc<dyn Storage>, limit_upload: Option<u64>) -> Arc<dyn Storage> {
    match limit_upload {
        Some(bytes) => Arc::new(Throttle::new(storage, Some(bytes), None)),
        None => storage,
    }
}

fn open_default(options: &GlobalOptions, credentials: &mut Credentials) -> Result<Arc<dyn Storage>> {
    let places = Places::find()?;
    if !places.repository.exists() {
        return Err(Error::new(Kind::NotFound, "open a repository", "")
            .because("none is named, and none was made yet")
            .hint("name one with --repo or SILT_REPOSITORY, or make the default one with `silt backup DIR`"));
    }
    if credentials.is_empty() && places.key.exists() {
        credentials.key_file = Some(read_key_file(&places.key)?);
    }
    open_storage(location_of(&places.repository)?, false, options)
}

/// Locations are text, as URLs are.
pub fn location_of(path: &Path) -> Result<&str> {
    path.to_str().ok_or_else(|| {
        Error::invalid("use the folder", path.display(), "its name is not UTF-8").hint("name another with --repo")
    })
}
