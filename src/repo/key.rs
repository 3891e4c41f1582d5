//! Key objects: the repository's keys, sealed to a password, a key file or both; as many as there are people.

use crate::disk::whole::{make_private_dir, read_bounded, write_whole};
use crate::error::{Error, Kind, Result};
use crate::repo::format::KEYS_PREFIX;
use crate::seal::{KeySet, PasswordCost, Power, SALT_BYTES, Secret, open_once, random, seal_once, stretch_password};
use crate::storage::Storage;
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// What a person has to open a repository with.
#[derive(Clone, Default)]
pub struct Credentials {
    pub password: Option<Zeroizing<Vec<u8>>>,
    /// The secret in a key file.
    pub key_file: Option<Secret>,
    /// The master secret itself, from paper; opens without any key object.
    pub recovery: Option<Secret>,
}

impl Credentials {
    pub fn password(password: &str) -> Self {
        Credentials { password: Some(Zeroizing::new(password.as_bytes().to_vec())), ..Default::default() }
    }

    pub fn key_file(secret: Secret) -> Self {
        Credentials { key_file: Some(secret), ..Default::default() }
    }

    fn opens_key_objects(&self) -> bool {
        self.recovery.is_none() && !self.is_empty()
    }

    pub fn is_empty(&self) -> bool {
        self.password.is_none() && self.key_file.is_none() && self.recovery.is_none()
    }
}

const PURPOSE: &str = "siltstone 2026 key object";
const KEY_BYTES_MAX: u64 = 16 << 10;
const NAME_BYTES_MAX: u64 = 100;
/// More key objects are not tried: each try of a password costs a tenth of a second.
const KEYS_MAX: usize = 64;

#[derive(Serialize, Deserialize)]
struct StoredKey {
    version: u32,
    /// What opens it: `password`, `key-file` or `password+key-file`.
    opens_with: String,
    salt: String,
    memory_kib: u32,
    passes: u32,
    lanes: u32,
    sealed: String,
}

fn opens_with(credentials: &Credentials) -> &'static str {
    match (&credentials.password, &credentials.key_file) {
        (Some(_), Some(_)) => "password+key-file",
        (Some(_), None) => "password",
        _ => "key-file",
    }
}

/// The key that seals a key object: of the salt, the stretched password and the key file's secret, absent ones zero.
fn sealing_key(credentials: &Credentials, salt: &[u8; SALT_BYTES], cost: PasswordCost) -> Result<Secret> {
    let mut material = Zeroizing::new([0; SALT_BYTES + 64]);
    material[..SALT_BYTES].copy_from_slice(salt);
    if let Some(password) = &credentials.password {
        material[SALT_BYTES..SALT_BYTES + 32].copy_from_slice(&stretch_password(password, salt, cost)?.0);
    }
    if let Some(secret) = &credentials.key_file {
        material[SALT_BYTES + 32..].copy_from_slice(&secret.0);
    }
    Ok(Secret(blake3::derive_key(PURPOSE, material.as_slice())))
}

/// Adds a key object that opens with the given password, key file or both; gives its name.
pub fn add_key(
    storage: &dyn Storage,
    keys: &KeySet,
    power: Power,
    credentials: &Credentials,
    cost: PasswordCost,
) -> Result<String> {
    let bundle = keys.to_bundle(power).ok_or_else(|| Error::new(Kind::Denied, "add a key", "with a put-only key"))?;
    let salt: [u8; SALT_BYTES] = random()?;
    let sealed = seal_once(&sealing_key(credentials, &salt, cost)?, PURPOSE, bundle.to_vec());
    let stored = StoredKey {
        version: 1,
        opens_with: opens_with(credentials).to_owned(),
        salt: HEXLOWER.encode(&salt),
        memory_kib: cost.memory_kib,
        passes: cost.passes,
        lanes: cost.lanes,
        sealed: BASE64.encode(&sealed),
    };
    let name = format!("{KEYS_PREFIX}{}", HEXLOWER.encode(&random::<8>()?));
    let bytes = serde_json::to_vec_pretty(&stored).expect("plain data serialises");
    storage.put_new(&name, bytes.into())?;
    Ok(name)
}

/// The key object that opened a location last. It is tried first: over a network that spares a round trip, and where
/// there are many keys, stretching the password for the others. Only a hint, kept in the cache.
pub(super) struct LastKey(Option<PathBuf>);

impl LastKey {
    /// `cache` is the folder of all repositories' caches; without one nothing is known and nothing is kept.
    pub fn of(storage: &dyn Storage, cache: Option<&Path>) -> Self {
        let location = blake3::hash(storage.identity().as_bytes()).to_hex();
        LastKey(cache.map(|cache| cache.join("last-key").join(&location[..24])))
    }

    fn name(&self) -> Option<String> {
        let name = String::from_utf8(read_bounded(self.0.as_ref()?, NAME_BYTES_MAX).ok()?).ok()?;
        name.starts_with(KEYS_PREFIX).then_some(name)
    }

    fn note(&self, name: &str) {
        let Some((path, folder)) = self.0.as_ref().and_then(|path| Some((path, path.parent()?))) else { return };
        // Without it the next run takes a little longer.
        let _best_effort = make_private_dir(folder).and_then(|()| write_whole(path, name.as_bytes()));
    }
}

/// The repository's keys, by trying every key object that these credentials could open, the last one first.
pub(super) fn unlock(storage: &dyn Storage, credentials: &Credentials, last: &LastKey) -> Result<KeySet> {
    // Whatever is wrong with it shows when all are tried.
    let likely = if credentials.opens_key_objects() { last.name() } else { None };
    if let Some(name) = likely
        && let Ok((bytes, _)) = storage.get(&name, KEY_BYTES_MAX)
        && let Ok(Tried::Opened(keys)) = try_key(&bytes, credentials)
    {
        return Ok(keys);
    }
    unlock_where(storage, credentials, last, &|_| true)
}

/// As [`unlock`], but keys that do not fit are passed over: an `init` that died may have left some with the same password.
pub(super) fn unlock_where(
    storage: &dyn Storage,
    credentials: &Credentials,
    last: &LastKey,
    fits: &dyn Fn(&KeySet) -> bool,
) -> Result<KeySet> {
    let wrong = |why: &str, hint: &str| {
        Error::new(Kind::WrongKey, "open the repository", storage.describe())
            .because(why.to_owned())
            .hint(hint.to_owned())
    };
    if credentials.is_empty() {
        let hint = "pass --password-file, --password-command or --key-file, or set SILT_PASSWORD";
        return Err(wrong("neither a password nor a key file was given", hint));
    }
    if let Some(master) = &credentials.recovery {
        return Ok(KeySet::from_master(master.clone()));
    }
    let wanted = opens_with(credentials);
    let mut others = Vec::new();
    let mut damaged = None;
    for listed in storage.list(KEYS_PREFIX)?.into_iter().take(KEYS_MAX) {
        // One key object that is damaged or gone must not keep the others from opening.
        let tried = match storage.get(&listed.name, KEY_BYTES_MAX) {
            Ok((bytes, _)) => try_key(&bytes, credentials),
            Err(error) if error.is(Kind::NotFound) => continue,
            // Too large or cut short is the object's trouble; all else is the storage's.
            Err(error) if error.is(Kind::Corrupt) => Err(error),
            Err(error) => return Err(error),
        };
        match tried {
            Ok(Tried::Opened(keys)) if fits(&keys) => {
                last.note(&listed.name);
                return Ok(keys);
            }
            Ok(Tried::Opened(_) | Tried::Wrong) => {}
            Ok(Tried::OpensWith(other)) => others.push(other),
            Err(error) => {
                // What may pass or be permitted must not look like damage.
                let kind = match error.kind() {
                    kind @ (Kind::Temporary | Kind::Denied | Kind::Failed) => kind,
                    _ => Kind::Corrupt,
                };
                damaged = Some(Error::new(kind, "read the key object", &listed.name).because(error));
            }
        }
    }
    if let Some(error) = damaged {
        return Err(error.hint("if no other key opens the repository, its recovery key does"));
    }
    others.sort();
    others.dedup();
    match others.is_empty() {
        true => Err(wrong(
            &format!("this {wanted} opens none of its keys"),
            "check the password and the key file; the recovery key opens it too",
        )),
        false => Err(wrong(
            &format!("this {wanted} opens none of its keys; there are keys that open with {}", others.join(" or ")),
            "pass what the repository was made with",
        )),
    }
}

/// What came of one key object.
pub enum Tried {
    Opened(KeySet),
    /// It is for such credentials, but not for these.
    Wrong,
    /// It is for others: `password`, `key-file` or `password+key-file`, as it says itself.
    OpensWith(String),
}

/// Tries the bytes of one key object; an error where they are none.
pub fn try_key(bytes: &[u8], credentials: &Credentials) -> Result<Tried> {
    let bad = |why: &str| Error::corrupt("understand", "it", why);
    let stored: StoredKey = serde_json::from_slice(bytes).map_err(|error| bad(&error.to_string()))?;
    if stored.version != 1 {
        return Err(bad("it is of a version that this program does not know"));
    }
    if stored.opens_with != opens_with(credentials) {
        return Ok(Tried::OpensWith(stored.opens_with.chars().filter(|c| !c.is_control()).take(40).collect()));
    }
    let salt = HEXLOWER.decode(stored.salt.as_bytes()).ok().and_then(|salt| salt.try_into().ok());
    let salt: [u8; SALT_BYTES] = salt.ok_or_else(|| bad("its salt is damaged"))?;
    let cost = PasswordCost { memory_kib: stored.memory_kib, passes: stored.passes, lanes: stored.lanes };
    let sealed = BASE64.decode(stored.sealed.as_bytes()).map_err(|_| bad("it is damaged"))?;
    match open_once(&sealing_key(credentials, &salt, cost)?, PURPOSE, sealed) {
        Some(bundle) => Ok(Tried::Opened(KeySet::from_bundle(&Zeroizing::new(bundle))?)),
        None => Ok(Tried::Wrong),
    }
}
