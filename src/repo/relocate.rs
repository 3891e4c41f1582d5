//! Adapt the settings to the storage where the repository is now: it was copied there, or its settings were lost.

use crate::error::{Error, Kind, Result};
use crate::format::{OBJECT_BYTES_MAX, SETTINGS_NAME, Settings};
use crate::lease::is_of_one_object;
use crate::repo::Repository;
use crate::repo::init::{SINGLE_WRITER, commit_protocol, found};
use crate::seal::KeyAccess;
use crate::storage::Capabilities;

/// What became of the settings.
#[derive(Clone, Debug)]
pub struct Relocation {
    /// The settings as they were; an error says why they could not be read.
    pub before: Result<Settings>,
    /// The settings from now on.
    pub now: Settings,
}

impl Relocation {
    /// Whether the settings fitted already, so that nothing was written.
    pub fn is_unchanged(&self) -> bool {
        self.before.as_ref().is_ok_and(|before| *before == self.now)
    }
}

impl Repository {
    /// Refuses a repository whose settings this program, or this key, must not replace. Writes nothing: before the storage is probed,
    /// which does write.
    pub fn check_relocatable(&self) -> Result<()> {
        if let Ok(settings) = self.settings() {
            settings.check_writable()?;
        }
        match self.keys().access() {
            KeyAccess::Full => Ok(()),
            _ => Err(Error::new(Kind::Denied, "adapt the settings of", self.storage().describe())
                .because("the key that opened the repository cannot sign settings")
                .hint("use the password, key file or recovery key of the owner")),
        }
    }

    /// Writes settings for a storage that was found to do this ([`crate::storage::probe`]), if those in the repository do not fit it.
    /// Features that the repository uses stay as they are. Needs a full key. Other programs that have the repository open use the
    /// settings that they have read.
    pub fn relocate(&self, capabilities: Capabilities, single_writer: bool) -> Result<Relocation> {
        self.check_relocatable()?;
        let failed = |kind| Error::new(kind, "adapt the settings of", self.storage().describe());
        let before = self.settings().cloned();
        let protocol = commit_protocol(capabilities, single_writer)
            .map_err(|why| failed(Kind::Unsupported).because(why).hint(SINGLE_WRITER))?;
        let mut now = before.clone().unwrap_or_else(|_| Settings::initial(self.config()));
        (now.commit_protocol, now.capabilities) = (protocol, found(capabilities));
        let mut relocation = Relocation { before, now };
        if relocation.is_unchanged() {
            return Ok(relocation);
        }
        relocation.now.revision = relocation.now.revision.checked_add(1).ok_or_else(|| {
            failed(Kind::Unsupported).because("they state the greatest revision that there is, so that none can follow")
        })?;
        let sealed = relocation.now.encode(self.keys())?;
        self.replace_settings(relocation.before.as_ref().ok(), sealed, capabilities)?;
        Ok(relocation)
    }

    /// Replaces the settings, if they are still those that were read when the repository was opened.
    fn replace_settings(&self, before: Option<&Settings>, sealed: Vec<u8>, capabilities: Capabilities) -> Result<()> {
        let stored = match self.storage().get(SETTINGS_NAME, OBJECT_BYTES_MAX) {
            Err(error) if error.is(Kind::NotFound) => None,
            // Too large, or a link that leads nowhere.
            Err(error) if before.is_none() && is_of_one_object(&error) => None,
            stored => Some(stored?),
        };
        let repository = &self.config().repository;
        let now = stored.as_ref().and_then(|(bytes, _)| Settings::decode(self.keys(), repository, bytes).ok());
        if now.as_ref() != before {
            return Err(Error::new(Kind::Stale, "adapt the settings of", self.storage().describe())
                .because("another process replaced them meanwhile")
                .hint("run the command again"));
        }
        match stored {
            Some((_, version)) if capabilities.compare_and_swap => {
                self.storage().compare_and_swap(SETTINGS_NAME, &version, sealed.into()).map(|_| ())
            }
            _ => self.storage().put(SETTINGS_NAME, sealed.into()).map(|_| ()),
        }
    }
}
