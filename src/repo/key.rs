//! Key objects: the repository's keys, sealed to a password, a key file or both; as many as there are people.

use crate::error::{Error, Kind, Result};
use crate::format::KEYS_PREFIX;
use crate::id::RepositoryId;
use crate::seal::{
    KeyAccess, KeySet, PasswordCost, SALT_BYTES, Secret, open_once, random, seal_once, stretch_password,
};
use crate::storage::Storage;
use data_encoding::{BASE64, HEXLOWER};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

/// What a person has to open a repository with.
#[derive(Clone, Default)]
pub struct Credentials {
    /// The password, as the person typed it.
    pub password: Option<Zeroizing<Vec<u8>>>,
    /// The secret in a key file.
    pub key_file: Option<Secret>,
    /// The master secret itself, from paper; opens without any key object.
    pub recovery: Option<Secret>,
}

impl Credentials {
    /// A password alone.
    pub fn password(password: &str) -> Self {
        Credentials { password: Some(Zeroizing::new(password.as_bytes().to_vec())), ..Default::default() }
    }

    /// The secret of a key file alone.
    pub fn key_file(secret: Secret) -> Self {
        Credentials { key_file: Some(secret), ..Default::default() }
    }

    pub(super) fn opens_key_objects(&self) -> bool {
        self.recovery.is_none() && !self.is_empty()
    }

    /// Whether there is nothing to open a repository with.
    pub fn is_empty(&self) -> bool {
        self.password.is_none() && self.key_file.is_none() && self.recovery.is_none()
    }
}

const PURPOSE: &str = "siltstone 2026 key object";
pub(super) const KEY_BYTES_MAX: u64 = 16 << 10;
/// Bytes of a name, which has twice as many hexadecimal digits.
const NAME_BYTES: usize = 8;
const CHECK_BYTES: usize = 8;
/// No such word is longer.
const OPENS_WITH_CHARS: usize = 40;

#[derive(Serialize, Deserialize)]
pub(super) struct StoredKey {
    pub version: u32,
    /// What opens it: `password`, `key-file` or `password+key-file`.
    pub opens_with: String,
    pub salt: String,
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
    pub sealed: String,
    /// Of the other fields, so that damage can be told from another password.
    pub check: String,
}

impl StoredKey {
    /// The first bytes of a hash over the other fields, each with a line feed after it.
    fn check_sum(&self) -> String {
        let StoredKey { version, opens_with, salt, memory_kib, passes, lanes, sealed, check: _ } = self;
        let fields = format!("{version}\n{opens_with}\n{salt}\n{memory_kib}\n{passes}\n{lanes}\n{sealed}\n");
        HEXLOWER.encode(&blake3::hash(fields.as_bytes()).as_bytes()[..CHECK_BYTES])
    }

    pub(crate) fn encode(mut self) -> Vec<u8> {
        self.check = self.check_sum();
        serde_json::to_vec_pretty(&self).expect("plain data serialises")
    }
}

pub(super) fn opens_with(credentials: &Credentials) -> &'static str {
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

/// The name of a repository's first key object: it is found however many objects others have put beside it.
pub(super) fn first_key_name(repository: &RepositoryId) -> String {
    let hash = blake3::derive_key("siltstone 2026 name of the first key object", repository.as_bytes());
    format!("{KEYS_PREFIX}{}", HEXLOWER.encode(&hash[..NAME_BYTES]))
}

/// Whether an object below `keys/` has a name as those of this program have.
pub(super) fn is_key_name(name: &str) -> bool {
    let digits = name.strip_prefix(KEYS_PREFIX).unwrap_or_default();
    digits.len() == 2 * NAME_BYTES && digits.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// Adds a key object that opens with the given password, key file or both; returns its name.
pub fn add_key(
    storage: &dyn Storage,
    keys: &KeySet,
    access: KeyAccess,
    credentials: &Credentials,
    cost: PasswordCost,
) -> Result<String> {
    let name = format!("{KEYS_PREFIX}{}", HEXLOWER.encode(&random::<NAME_BYTES>()?));
    add_key_named(storage, keys, access, credentials, cost, &name)?;
    Ok(name)
}

/// The same under a name of the caller's choice.
pub(super) fn add_key_named(
    storage: &dyn Storage,
    keys: &KeySet,
    access: KeyAccess,
    credentials: &Credentials,
    cost: PasswordCost,
    name: &str,
) -> Result<()> {
    let bundle = keys.to_bundle(access).ok_or_else(|| {
        Error::new(Kind::Denied, "add a key", "")
            .because("the key that opened the repository has fewer rights than the new one")
            .hint("open the repository with a full key")
    })?;
    let salt: [u8; SALT_BYTES] = random()?;
    let sealed = seal_once(&sealing_key(credentials, &salt, cost)?, PURPOSE.as_bytes(), bundle.to_vec());
    let stored = StoredKey {
        version: 1,
        opens_with: opens_with(credentials).to_owned(),
        salt: HEXLOWER.encode(&salt),
        memory_kib: cost.memory_kib,
        passes: cost.passes,
        lanes: cost.lanes,
        sealed: BASE64.encode(&sealed),
        check: String::new(),
    };
    storage.put_new(name, stored.encode().into()).map(|_| ())
}

/// What came of one key object.
pub enum TriedKey {
    /// It opens; these are the keys.
    Opened(KeySet),
    /// It is for such credentials, but not for these.
    Wrong,
    /// It is for others: `password`, `key-file` or `password+key-file`, as it says itself.
    OpensWith(String),
}

/// Tries the bytes of one key object; an error where they are none, or ask for too much work.
pub fn try_key(bytes: &[u8], credentials: &Credentials) -> Result<TriedKey> {
    let parsed = KeyObject::parse(bytes)?;
    if parsed.opens_with != opens_with(credentials) {
        return Ok(TriedKey::OpensWith(parsed.opens_with));
    }
    Ok(parsed.open(credentials)?.map_or(TriedKey::Wrong, TriedKey::Opened))
}

/// A key object as it may be in a hostile storage: read, and not tried yet.
pub(super) struct KeyObject {
    pub opens_with: String,
    cost: PasswordCost,
    salt: [u8; SALT_BYTES],
    sealed: Vec<u8>,
}

impl KeyObject {
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self> {
        let bad = |why: &str| Error::corrupt("read the key object", "", why);
        let stored: StoredKey = serde_json::from_slice(bytes).map_err(|error| bad(&error.to_string()))?;
        if stored.version != 1 {
            return Err(Error::new(Kind::Unsupported, "read the key object", "")
                .because(format!("it is of version {}; this program knows version 1", stored.version))
                .hint("use a newer version of silt"));
        }
        if stored.check != stored.check_sum() {
            return Err(bad("its checksum is wrong"));
        }
        let salt = HEXLOWER.decode(stored.salt.as_bytes()).ok().and_then(|salt| salt.try_into().ok());
        Ok(KeyObject {
            opens_with: stored.opens_with.chars().filter(|c| !c.is_control()).take(OPENS_WITH_CHARS).collect(),
            cost: PasswordCost { memory_kib: stored.memory_kib, passes: stored.passes, lanes: stored.lanes },
            salt: salt.ok_or_else(|| bad("its salt is damaged"))?,
            sealed: BASE64.decode(stored.sealed.as_bytes()).map_err(|_| bad("it is damaged"))?,
        })
    }

    /// The work of a try, in that of a key made with the default cost: none where no password is stretched.
    pub(crate) fn work(&self) -> f64 {
        if !self.opens_with.contains("password") {
            return 0.0;
        }
        self.cost.work() as f64 / PasswordCost::DEFAULT.work() as f64
    }

    /// Whether it asks for more work than any key of this program does.
    pub(crate) fn is_excessive(&self) -> bool {
        self.work() > 0.0 && self.cost.is_excessive()
    }

    /// The keys in it, if these credentials open it.
    pub(crate) fn open(&self, credentials: &Credentials) -> Result<Option<KeySet>> {
        let key = sealing_key(credentials, &self.salt, self.cost)?;
        let bundle = open_once(&key, PURPOSE.as_bytes(), self.sealed.clone()).map(Zeroizing::new);
        bundle.map(|bundle| KeySet::from_bundle(&bundle)).transpose()
    }
}
