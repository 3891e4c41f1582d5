//! From credentials to the keys of a repository, even if other users have put any number of key objects there:
//! the likely ones first, then the cheap ones, and never more work than is bearable.

use crate::disk::whole::{make_private_dir, read_own, write_whole};
use crate::error::{Error, Kind, Result};
use crate::format::{CONFIG_NAME, Config, KEYS_PREFIX, OBJECT_BYTES_MAX};
use crate::repo::key::{Credentials, KEY_BYTES_MAX, KeyObject, first_key_name, is_key_name, opens_with};
use crate::seal::KeySet;
use crate::storage::Storage;
use crate::vault::parallel::fetch_all;
use std::path::{Path, PathBuf};

/// Where the names of key objects are in the folder of all caches.
pub(super) const LAST_KEYS: &str = "last-key";
const NAME_BYTES_MAX: u64 = 100;
/// Key objects that are examined, beside the likely ones. No repository has that many users.
const KEYS_MAX: usize = 16 << 10;
/// What trying keys may cost in all, in tries of a password at the default cost: some 25 seconds.
const WORK_MAX: f64 = 256.0;

/// The key object that opened a location last. It is tried first: over a network that spares a round trip, and where
/// there are many keys, stretching the password for the others. Only a hint, kept in the cache.
pub(super) struct LastKey(Option<PathBuf>);

impl LastKey {
    /// `cache` is the folder of all repositories' caches; without one nothing is known and nothing is kept.
    pub(crate) fn of(storage: &dyn Storage, cache: Option<&Path>) -> Self {
        let location = blake3::hash(storage.identity().as_bytes()).to_hex();
        LastKey(cache.map(|cache| cache.join(LAST_KEYS).join(&location[..24])))
    }

    fn name(&self) -> Option<String> {
        let name = String::from_utf8(read_own(self.0.as_ref()?, NAME_BYTES_MAX).ok()?).ok()?;
        is_key_name(&name).then_some(name)
    }

    fn note(&self, name: &str) {
        let Some((path, folder)) = self.0.as_ref().and_then(|path| Some((path, path.parent()?))) else { return };
        // Without it the next run takes a little longer.
        let _best_effort = make_private_dir(folder).and_then(|()| write_whole(path, name.as_bytes()));
    }
}

/// What opened a repository, and the keys in it.
pub(super) struct Unlocked {
    /// The name of the key object without its prefix, or [`RECOVERY`].
    pub key: String,
    pub keys: KeySet,
}

impl Unlocked {
    fn with(name: &str, keys: KeySet) -> Self {
        Unlocked { key: name.strip_prefix(KEYS_PREFIX).unwrap_or(name).to_owned(), keys }
    }
}

/// Stands for the name of a key object where the recovery key opened the repository.
const RECOVERY: &str = "recovery";

/// The repository's keys, by trying every key object that these credentials could open, the last one first.
pub(super) fn unlock(storage: &dyn Storage, credentials: &Credentials, last: &LastKey) -> Result<Unlocked> {
    // Whatever is wrong with it shows when all are tried.
    let likely = if credentials.opens_key_objects() { last.name() } else { None };
    if let Some(name) = likely
        && let Ok(Some(keys)) = KeySearch::new(storage, credentials).try_named(&name)
    {
        return Ok(Unlocked::with(&name, keys));
    }
    unlock_where(storage, credentials, last, &|_| true)
}

/// As [`unlock`], but keys that do not fit are passed over: an `init` that died may have left some with the same password.
pub(super) fn unlock_where(
    storage: &dyn Storage,
    credentials: &Credentials,
    last: &LastKey,
    fits: &dyn Fn(&KeySet) -> bool,
) -> Result<Unlocked> {
    if credentials.is_empty() {
        return Err(Error::new(Kind::WrongKey, "open the repository", storage.describe())
            .because("neither a password nor a key file was given")
            .hint("use --password-file, --password-command, --key-file or SILT_PASSWORD"));
    }
    if let Some(master) = &credentials.recovery {
        return Ok(Unlocked::with(RECOVERY, KeySet::from_master(master.clone())));
    }
    let mut search = KeySearch::new(storage, credentials);
    let (name, keys) = search.run(fits)?;
    last.note(&name);
    Ok(Unlocked::with(&name, keys))
}

/// One search through the key objects, and what it met.
struct KeySearch<'a> {
    storage: &'a dyn Storage,
    credentials: &'a Credentials,
    /// Objects that these credentials do not open.
    wrong: usize,
    /// What other objects say that they open with.
    others: Vec<String>,
    /// The first object that could not be read or understood.
    damaged: Option<Error>,
    /// Objects that would have cost too much.
    untried: usize,
    work: f64,
}

/// A key object that is worth a try.
struct KeyCandidate {
    name: String,
    object: KeyObject,
}

impl<'a> KeySearch<'a> {
    fn new(storage: &'a dyn Storage, credentials: &'a Credentials) -> Self {
        let others = Vec::new();
        KeySearch { storage, credentials, wrong: 0, others, damaged: None, untried: 0, work: 0.0 }
    }

    fn run(&mut self, fits: &dyn Fn(&KeySet) -> bool) -> Result<(String, KeySet)> {
        let first = self.first_name()?;
        if let Some(name) = &first
            && let Some(keys) = self.try_named(name)?
            && fits(&keys)
        {
            return Ok((name.clone(), keys));
        }
        let mut candidates = self.candidates(first.as_deref())?;
        candidates.sort_by(|a, b| a.object.work().total_cmp(&b.object.work()));
        for candidate in candidates {
            if self.work + candidate.object.work() > WORK_MAX {
                self.untried += 1;
                continue;
            }
            if let Some(keys) = self.open(&candidate)?
                && fits(&keys)
            {
                return Ok((candidate.name, keys));
            }
        }
        Err(self.conclude())
    }

    /// The name of the repository's first key object; none where there is no repository.
    fn first_name(&self) -> Result<Option<String>> {
        match self.storage.get(CONFIG_NAME, OBJECT_BYTES_MAX) {
            Ok((config, _)) => Ok(Config::peek(&config).ok().map(|id| first_key_name(&id))),
            Err(error) if error.is_damage() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Tries one object without looking at any other.
    fn try_named(&mut self, name: &str) -> Result<Option<KeySet>> {
        let fetched = self.storage.get(name, KEY_BYTES_MAX).map(|(bytes, _)| bytes);
        match self.look_at(name.to_owned(), fetched)? {
            Some(candidate) => self.open(&candidate),
            None => Ok(None),
        }
    }

    /// All other objects that could be tried.
    fn candidates(&mut self, tried: Option<&str>) -> Result<Vec<KeyCandidate>> {
        let listed = self.storage.list(KEYS_PREFIX)?;
        let is_wanted = |name: &str| is_key_name(name) && Some(name) != tried;
        let mut names: Vec<String> = Vec::new();
        for listed in listed.into_iter().filter(|listed| is_wanted(&listed.name)) {
            if listed.size > KEY_BYTES_MAX {
                self.note_damage(&listed.name, Error::corrupt("read the key object", "", "it is too large"));
            } else {
                names.push(listed.name);
            }
        }
        self.untried += names.len().saturating_sub(KEYS_MAX);
        names.truncate(KEYS_MAX);
        let fetched = fetch_all(self.storage, &names, KEY_BYTES_MAX);
        let mut candidates = Vec::new();
        for (name, bytes) in names.into_iter().zip(fetched) {
            candidates.extend(self.look_at(name, bytes)?);
        }
        Ok(candidates)
    }

    /// Whether an object is worth a try. What one object lacks must not keep the others from opening; what the storage
    /// lacks ends the search.
    fn look_at(&mut self, name: String, fetched: Result<Vec<u8>>) -> Result<Option<KeyCandidate>> {
        let object = match fetched.and_then(|bytes| KeyObject::parse(&bytes)) {
            Ok(object) => object,
            Err(error) if error.is(Kind::NotFound) => return Ok(None),
            Err(error) if matches!(error.kind(), Kind::Temporary | Kind::Cancelled | Kind::Full | Kind::Gone) => {
                return Err(error);
            }
            Err(error) => {
                self.note_damage(&name, error);
                return Ok(None);
            }
        };
        if object.opens_with != opens_with(self.credentials) {
            self.others.push(object.opens_with);
            return Ok(None);
        }
        if object.is_excessive() {
            self.untried += 1;
            return Ok(None);
        }
        Ok(Some(KeyCandidate { name, object }))
    }

    fn open(&mut self, candidate: &KeyCandidate) -> Result<Option<KeySet>> {
        self.work += candidate.object.work();
        match candidate.object.open(self.credentials) {
            Ok(Some(keys)) => Ok(Some(keys)),
            Ok(None) => {
                self.wrong += 1;
                Ok(None)
            }
            // One of a newer program must not keep the others from being tried.
            Err(error) if matches!(error.kind(), Kind::Corrupt | Kind::Unsupported | Kind::Invalid) => {
                self.note_damage(&candidate.name, error);
                Ok(None)
            }
            // No memory: another try needs as much.
            Err(error) => Err(error),
        }
    }

    fn note_damage(&mut self, name: &str, error: Error) {
        // What is not permitted must not look like damage.
        let kind = match error.kind() {
            kind @ (Kind::Denied | Kind::Failed | Kind::Unsupported) => kind,
            _ => Kind::Corrupt,
        };
        // The reason alone, as the object is named here.
        let why = if error.why().is_empty() { error.to_string() } else { error.why() };
        self.damaged.get_or_insert_with(|| Error::new(kind, "read the key object", name).because(why));
    }

    /// Why nothing opened.
    fn conclude(&mut self) -> Error {
        const HINT: &str = "if no other key opens the repository, its recovery key does: set SILT_RECOVERY_KEY";
        let wanted = opens_with(self.credentials).replace("key-file", "key file").replace('+', " and ");
        let is_both = wanted.contains(" and ");
        let untried = match self.untried {
            0 => String::new(),
            count => format!("; {count} more key objects were not tried, as that would take too long"),
        };
        if let (0, Some(error)) = (self.wrong, self.damaged.take()) {
            return error.hint(HINT);
        }
        let wrong = Error::new(Kind::WrongKey, "open the repository", self.storage.describe());
        self.others.sort();
        self.others.dedup();
        self.others.truncate(3);
        if self.wrong == 0 && self.untried > 0 && self.others.is_empty() {
            return wrong
                .because("its key objects ask for more memory or time than silt allows: none was tried")
                .hint(HINT);
        }
        if self.others.is_empty() || self.wrong > 0 {
            let hint = match self.untried {
                0 => {
                    "check the password and the key file; the recovery key opens the repository, too: set SILT_RECOVERY_KEY"
                }
                _ => {
                    "if the password and the key file are right, delete the key objects that are not yours from keys/, \
                      or set SILT_RECOVERY_KEY"
                }
            };
            let is = if is_both { "are" } else { "is" };
            return wrong.because(format!("the {wanted} {is} wrong{untried}")).hint(hint);
        }
        let does = if is_both { "do" } else { "does" };
        let others = self.others.join(" or a ").replace("key-file", "key file").replace('+', " and a ");
        wrong
            .because(format!("the {wanted} {does} not open it; it opens with a {others}{untried}"))
            .hint("use what the repository was created with")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo::key::{StoredKey, add_key};
    use crate::repo::{InitOptions, Repository};
    use crate::seal::{KeyAccess, PasswordCost, Secret};
    use crate::storage::memory::Memory;

    const CHEAP: PasswordCost = PasswordCost { memory_kib: 64, passes: 1, lanes: 1 };

    fn repository() -> Memory {
        let storage = Memory::new();
        let capabilities = storage.capabilities();
        let credentials = Credentials::password("right");
        let chunks = Default::default();
        Repository::init(
            &storage,
            &InitOptions { credentials, cost: CHEAP, chunks, single_writer: false, capabilities },
        )
        .unwrap();
        storage
    }

    fn open(storage: &Memory, password: &str) -> Result<KeySet> {
        let cache = tempfile::tempdir().unwrap();
        let last = LastKey::of(storage, Some(cache.path()));
        unlock(storage, &Credentials::password(password), &last).map(|unlocked| unlocked.keys)
    }

    fn put(storage: &Memory, number: usize, cost: PasswordCost) {
        let key = StoredKey {
            version: 1,
            opens_with: "password".to_owned(),
            salt: format!("{number:032x}"),
            memory_kib: cost.memory_kib,
            passes: cost.passes,
            lanes: cost.lanes,
            sealed: "A".repeat(80),
            check: String::new(),
        };
        storage.put(&format!("{KEYS_PREFIX}{number:016x}"), key.encode().into()).unwrap();
    }

    /// A user with the right to create objects put 64 keys before the owner's and locked them out.
    #[test]
    fn keys_of_others_lock_nobody_out() {
        let storage = repository();
        (0..3000).for_each(|number| put(&storage, number, CHEAP));
        (3000..3050)
            .for_each(|number| put(&storage, number, PasswordCost { memory_kib: 1 << 20, passes: 64, lanes: 1 }));
        storage.put(&format!("{KEYS_PREFIX}{:016x}", 7), b"no key".as_slice().into()).unwrap();
        storage.put(&format!("{KEYS_PREFIX}readme"), b"hello".as_slice().into()).unwrap();
        storage.put(&format!("{KEYS_PREFIX}{:016x}", 8), vec![b' '; 20 << 10].into()).unwrap();
        open(&storage, "right").unwrap();
        let wrong = open(&storage, "wrong").err().unwrap();
        assert!(wrong.is(Kind::WrongKey), "{wrong}");
        assert!(wrong.to_string().contains("50 more key objects were not tried"), "{wrong}");
        assert!(wrong.advice().unwrap().contains("keys/"), "{wrong:?}");
    }

    /// One key object that asked for 1 GiB and 64 passes cost each run a minute.
    #[test]
    fn a_key_added_later_is_found_among_dear_ones() {
        let storage = repository();
        let keys = open(&storage, "right").unwrap();
        add_key(&storage, &keys, KeyAccess::Full, &Credentials::password("second"), CHEAP).unwrap();
        // Each is allowed; together they would take an hour.
        let dear = PasswordCost { memory_kib: 46 << 10, passes: 16, lanes: 1 };
        (0..4000).for_each(|number| put(&storage, number, dear));
        open(&storage, "second").unwrap();
    }

    /// A key object with a changed bit said that the password was wrong.
    #[test]
    fn a_damaged_key_object_is_not_a_wrong_password() {
        let storage = repository();
        let name = storage.list(KEYS_PREFIX).unwrap().remove(0).name;
        let (bytes, _) = storage.get(&name, KEY_BYTES_MAX).unwrap();
        let text = String::from_utf8(bytes).unwrap();
        let at = text.find("\"sealed\": \"").unwrap() + 11;
        let mut changed = text.clone();
        changed.replace_range(at..=at, if text[at..].starts_with('A') { "B" } else { "A" });
        let lanes = text.replace("\"lanes\": 1", "\"lanes\": 2");
        for bent in [changed, lanes, text.replace("\"password\"", "\"key-file\"")] {
            assert_ne!(bent, text);
            storage.put(&name, bent.into_bytes().into()).unwrap();
            let error = open(&storage, "right").err().unwrap();
            assert!(error.is(Kind::Corrupt) && error.to_string().contains("checksum"), "{error}");
            assert!(error.advice().is_some_and(|advice| advice.contains("SILT_RECOVERY_KEY")), "{error:?}");
        }
    }

    #[test]
    fn what_a_search_may_cost_is_bounded() {
        let (storage, credentials) = (repository(), Credentials::password("x"));
        let mut search = KeySearch::new(&storage, &credentials);
        search.work = WORK_MAX;
        (0..5).for_each(|number| put(&storage, number, CHEAP));
        let wrong = search.run(&|_| true).err().unwrap();
        // The first one is tried in any case.
        assert!(search.wrong == 1 && wrong.to_string().contains("5 more key objects were not tried"), "{wrong}");
    }

    #[test]
    fn a_recovery_key_needs_no_key_object() {
        let storage = Memory::new();
        let last = LastKey(None);
        let recovery = Credentials { recovery: Some(Secret([7; 32])), ..Credentials::default() };
        unlock(&storage, &recovery, &last).unwrap();
        assert!(unlock(&storage, &Credentials::default(), &last).err().unwrap().is(Kind::WrongKey));
    }
}
