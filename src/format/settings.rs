//! The settings of a repository: what changes when it moves to another storage, or when newer programs write to it. One object, which
//! only a full key can write and every key verifies.

use crate::error::{Error, Kind, Result};
use crate::format::features::{check_features, too_old};
use crate::format::{CommitProtocol, Config, FoundCapabilities, InitialSettings, SETTINGS_NAME};
use crate::id::RepositoryId;
use crate::seal::{KeySet, open_signed_object, seal_signed_object};
use serde::{Deserialize, Serialize};

const PURPOSE: &str = "settings";
const VERSION: u32 = 1;
const SETTINGS_BYTES_MAX: u64 = 64 << 10;
/// What may be replaced, unlike the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The repository that they are of.
    pub repository: RepositoryId,
    /// How often they were replaced.
    pub revision: u64,
    /// How snapshots become visible.
    pub commit_protocol: CommitProtocol,
    /// What the storage did when it was tried.
    pub capabilities: FoundCapabilities,
    /// What a program must know to read this repository.
    pub reader_features: Vec<String>,
    /// What a program must know to write to it.
    pub writer_features: Vec<String>,
}

#[derive(Serialize, Deserialize)]
struct StoredSettings {
    version: u32,
    repository: String,
    revision: u64,
    commit_protocol: CommitProtocol,
    capabilities: FoundCapabilities,
    #[serde(default)]
    reader_features: Vec<String>,
    #[serde(default)]
    writer_features: Vec<String>,
}

impl Settings {
    /// The settings of a new repository.
    pub(crate) fn initial(config: &Config) -> Self {
        let InitialSettings { commit_protocol, capabilities } = config.initial;
        Settings {
            repository: config.repository,
            revision: 0,
            commit_protocol,
            capabilities,
            reader_features: Vec::new(),
            writer_features: Vec::new(),
        }
    }

    /// Needs a full key.
    pub fn encode(&self, keys: &KeySet) -> Result<Vec<u8>> {
        let stored = StoredSettings {
            version: VERSION,
            repository: self.repository.to_hex(),
            revision: self.revision,
            commit_protocol: self.commit_protocol,
            capabilities: self.capabilities,
            reader_features: self.reader_features.clone(),
            writer_features: self.writer_features.clone(),
        };
        seal_signed_object(keys, PURPOSE, &serde_json::to_vec(&stored).expect("plain data serialises"))
    }

    /// Reads the settings of this repository; refuses those that a program must know more to understand.
    pub fn decode(keys: &KeySet, repository: &RepositoryId, sealed: &[u8]) -> Result<Self> {
        let bad = |why: &str| Error::corrupt("read", SETTINGS_NAME, why);
        // What states another generation of secrets may be damaged: only what opens tells what a program must know.
        let plain = open_signed_object(keys, PURPOSE, sealed, SETTINGS_BYTES_MAX)
            .map_err(|error| if error.is(Kind::Unsupported) { error.with_kind(Kind::Corrupt) } else { error })?;
        let version: StatedVersion = serde_json::from_slice(&plain).map_err(|error| bad(&error.to_string()))?;
        if version.version != VERSION {
            return Err(too_old("read", SETTINGS_NAME, format!("it is of version {}", version.version)));
        }
        let stored: StoredSettings = serde_json::from_slice(&plain).map_err(|error| bad(&error.to_string()))?;
        if stored.repository != repository.to_hex() {
            return Err(bad("it belongs to another repository"));
        }
        Ok(Settings {
            repository: *repository,
            revision: stored.revision,
            commit_protocol: stored.commit_protocol,
            capabilities: stored.capabilities,
            reader_features: stored.reader_features,
            writer_features: stored.writer_features,
        })
    }

    /// Refuses a repository that this program cannot read.
    pub(crate) fn check_readable(&self) -> Result<()> {
        check_features("read", "the repository", &self.reader_features)
    }

    /// Refuses a repository that this program cannot write to without harm.
    pub fn check_writable(&self) -> Result<()> {
        self.check_readable()?;
        check_features("write to", "the repository", &self.writer_features)
    }
}

#[derive(Deserialize)]
struct StatedVersion {
    version: u32,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seal::{KeyAccess, Secret};

    fn settings() -> Settings {
        Settings {
            repository: RepositoryId([3; 16]),
            revision: 4,
            commit_protocol: CommitProtocol::Rename,
            capabilities: FoundCapabilities { put_new: true, compare_and_swap: false, rename: true },
            reader_features: Vec::new(),
            writer_features: vec!["condemned-packs".to_owned()],
        }
    }

    #[test]
    fn settings_come_back_for_every_key_and_are_written_by_a_full_one() {
        let full = KeySet::from_master(Secret([1; 32]));
        let put = KeySet::from_bundle(&full.to_bundle(KeyAccess::PutOnly).unwrap()).unwrap();
        let (settings, id) = (settings(), RepositoryId([3; 16]));
        let sealed = settings.encode(&full).unwrap();
        assert_eq!(Settings::decode(&put, &id, &sealed).unwrap(), settings);
        assert!(settings.encode(&put).unwrap_err().is(Kind::Denied));
        // The bytes that state the generation of the secrets are damaged: reading goes on without settings.
        let mut bent = sealed.clone();
        bent[9] = 5;
        assert!(Settings::decode(&full, &id, &bent).unwrap_err().is(Kind::Corrupt));
        assert!(Settings::decode(&put, &RepositoryId([4; 16]), &sealed).unwrap_err().is(Kind::Corrupt));
    }

    #[test]
    fn what_a_program_must_know_it_is_told() {
        let mut settings = settings();
        assert!(settings.check_readable().is_ok());
        let refused = settings.check_writable().unwrap_err();
        assert!(refused.is(Kind::Unsupported) && refused.to_string().contains("`condemned-packs`"), "{refused}");
        settings.reader_features = vec!["parity\u{1b}[2J".to_owned()];
        let refused = settings.check_readable().unwrap_err().to_string();
        assert!(refused.contains("cannot read") && refused.contains("`parity[2J`"), "{refused}");
    }

    #[test]
    fn a_newer_version_is_told_apart_from_damage() {
        let keys = KeySet::from_master(Secret([1; 32]));
        let read = |plain: &[u8]| {
            let sealed = seal_signed_object(&keys, PURPOSE, plain).unwrap();
            Settings::decode(&keys, &RepositoryId([3; 16]), &sealed).unwrap_err()
        };
        assert!(read(br#"{"version":2,"all":"different"}"#).is(Kind::Unsupported));
        assert!(read(br#"{"version":1}"#).is(Kind::Corrupt) && read(b"no JSON").is(Kind::Corrupt));
    }
}
