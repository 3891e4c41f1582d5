//! The configuration of a repository, which is written once.

use crate::chunk::{ChunkSizes, ChunkTable};
use crate::error::{Error, Kind, Result};
use crate::format::{CONFIG_NAME, FORMAT_VERSION, InitialSettings};
use crate::id::RepositoryId;
use crate::seal::{KeySet, open_signed_object, seal_signed_object};
use serde::{Deserialize, Serialize};

/// Written once, when the repository is made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The name of the repository, for ever.
    pub repository: RepositoryId,
    /// How content is cut, for ever.
    pub chunks: ChunkTable,
    /// RFC 3339.
    pub created: String,
    /// What the settings said at first. They may have been replaced since.
    pub initial: InitialSettings,
}

const MAGIC: &[u8; 8] = b"siltrepo";
const PURPOSE: &str = "configuration";
const HEAD_BYTES: usize = 8 + 4 + RepositoryId::BYTES;
const CONFIG_BYTES_MAX: u64 = 64 << 10;

#[derive(Serialize, Deserialize)]
struct StoredConfig {
    format: u32,
    repository: String,
    created: String,
    small_file: StoredSizes,
    large_file: StoredSizes,
    dump: StoredSizes,
    pages: StoredSizes,
    large_file_bytes: u64,
    initial: InitialSettings,
}

#[derive(Serialize, Deserialize)]
struct StoredSizes {
    min: usize,
    average: usize,
    max: usize,
    fixed: bool,
}

impl From<ChunkSizes> for StoredSizes {
    fn from(sizes: ChunkSizes) -> Self {
        StoredSizes { min: sizes.min, average: sizes.average, max: sizes.max, fixed: sizes.fixed }
    }
}

impl From<StoredSizes> for ChunkSizes {
    fn from(sizes: StoredSizes) -> Self {
        ChunkSizes { min: sizes.min, average: sizes.average, max: sizes.max, fixed: sizes.fixed }
    }
}

impl Config {
    /// Magic, format version and repository id in plain, then the sealed and signed rest. Needs a full key.
    pub fn encode(&self, keys: &KeySet) -> Result<Vec<u8>> {
        let stored = StoredConfig {
            format: FORMAT_VERSION,
            repository: self.repository.to_hex(),
            created: self.created.clone(),
            small_file: self.chunks.small_file.into(),
            large_file: self.chunks.large_file.into(),
            dump: self.chunks.dump.into(),
            pages: self.chunks.pages.into(),
            large_file_bytes: self.chunks.large_file_bytes,
            initial: self.initial,
        };
        let plain = serde_json::to_vec(&stored).expect("plain data serialises");
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&FORMAT_VERSION.to_le_bytes());
        bytes.extend_from_slice(self.repository.as_bytes());
        bytes.extend_from_slice(&seal_signed_object(keys, PURPOSE, &plain)?);
        Ok(bytes)
    }

    /// The repository's id, which is not sealed; also tells whether this is a repository at all.
    pub fn peek(bytes: &[u8]) -> Result<RepositoryId> {
        if bytes.len() < HEAD_BYTES || &bytes[..8] != MAGIC {
            return Err(Error::corrupt("read", CONFIG_NAME, "it is not the configuration of a siltstone repository"));
        }
        let version = u32::from_le_bytes(bytes[8..12].try_into().expect("four bytes"));
        if version != FORMAT_VERSION {
            return Err(Error::new(Kind::Unsupported, "read the repository", "")
                .because(format!("it is of format {version}; this program knows format {FORMAT_VERSION}"))
                .hint("use a newer version of silt"));
        }
        Ok(RepositoryId::from_slice(&bytes[12..HEAD_BYTES]).expect("the slice has that length"))
    }

    /// Opens and decodes the object; [`Kind::Corrupt`](crate::error::Kind::Corrupt) if it is damaged.
    pub fn decode(keys: &KeySet, bytes: &[u8]) -> Result<Self> {
        let repository = Config::peek(bytes)?;
        let bad = |why: &str| Error::corrupt("read", CONFIG_NAME, why);
        let plain = open_signed_object(keys, PURPOSE, &bytes[HEAD_BYTES..], CONFIG_BYTES_MAX)?;
        let stored: StoredConfig = serde_json::from_slice(&plain).map_err(|error| bad(&error.to_string()))?;
        if stored.repository != repository.to_hex() || stored.format != FORMAT_VERSION {
            return Err(bad("its header was changed since it was written"));
        }
        let chunks = ChunkTable {
            small_file: stored.small_file.into(),
            large_file: stored.large_file.into(),
            dump: stored.dump.into(),
            pages: stored.pages.into(),
            large_file_bytes: stored.large_file_bytes,
        };
        if ![chunks.small_file, chunks.large_file, chunks.dump, chunks.pages].iter().all(ChunkSizes::are_valid) {
            return Err(bad("its chunk sizes are out of bounds"));
        }
        Ok(Config { repository, chunks, created: stored.created, initial: stored.initial })
    }
}
