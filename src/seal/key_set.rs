//! The keys of a repository, all derived from one master secret, and which of them a key object holds.

use crate::error::{Error, Kind, Result};
use crate::id::{ChunkId, ChunkKind};
use crate::seal::key_pair::KeyPair;
use crate::seal::signature::{SigningKey, VerifyingKey};
use crate::seal::{SECRET_BYTES, Secret};
use std::sync::Arc;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Which secrets something was sealed with. Only the first ones exist; what later ones seal, this program refuses by name.
pub(super) const KEY_GENERATION: u32 = 0;

/// What the holder of a key can do. Each includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum KeyAccess {
    /// Add backups; read the index and nothing of any backup.
    PutOnly,
    /// Read snapshots: when what was saved, how much of it, and what could not be. No names of files below the sources but in warnings,
    /// and no content.
    List,
    /// Read and write everything.
    Full,
}

/// The derived keys, ready for use. Cheap to clone.
#[derive(Clone)]
pub struct KeySet(Arc<KeyParts>);

pub(super) struct KeyParts {
    /// Only a full key has it.
    pub master: Option<Secret>,
    pub shared: WriterKeys,
    pub snapshots: KeyPair,
    pub trees: KeyPair,
    pub contents: KeyPair,
    pub verifying: VerifyingKey,
}

/// What every writer has: names chunks, cuts them, reads the index.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub(super) struct WriterKeys {
    pub content_id: Secret,
    pub tree_id: Secret,
    pub gear: Secret,
    /// Seals what all writers read: configuration, settings, index, pending objects.
    pub writers: Secret,
}

impl KeySet {
    /// All keys of a repository from its master secret.
    pub fn from_master(master: Secret) -> Self {
        let shared = WriterKeys {
            content_id: master.derive("siltstone 2026 id of a content chunk"),
            tree_id: master.derive("siltstone 2026 id of a tree chunk"),
            gear: master.derive("siltstone 2026 gear table"),
            writers: master.derive("siltstone 2026 objects for writers"),
        };
        let pair = |context| KeyPair::derive(&master.derive(context));
        KeySet::new(KeyParts {
            shared,
            snapshots: pair("siltstone 2026 key pair for snapshots"),
            trees: pair("siltstone 2026 key pair for trees"),
            contents: pair("siltstone 2026 key pair for contents"),
            verifying: signing_key(&master).verifying(),
            master: Some(master),
        })
    }

    pub(super) fn new(keys: KeyParts) -> Self {
        KeySet(Arc::new(keys))
    }

    pub(super) fn keys(&self) -> &KeyParts {
        &self.0
    }

    /// What these keys allow.
    pub fn access(&self) -> KeyAccess {
        match (&self.0.master, self.0.snapshots.can_open()) {
            (Some(_), _) => KeyAccess::Full,
            (None, true) => KeyAccess::List,
            (None, false) => KeyAccess::PutOnly,
        }
    }

    /// The master secret, for the recovery key; only a full key has it.
    pub fn master(&self) -> Option<&Secret> {
        self.0.master.as_ref()
    }

    /// Computes the id of a chunk: keyed BLAKE3, cut to 192 bits. Each kind has its own key, so that no file's content can pass for a
    /// tree.
    #[inline]
    pub fn chunk_id(&self, kind: ChunkKind, bytes: &[u8]) -> ChunkId {
        let secret = match kind {
            ChunkKind::Content => &self.0.shared.content_id,
            ChunkKind::Tree => &self.0.shared.tree_id,
        };
        let hash = blake3::keyed_hash(&secret.0, bytes);
        ChunkId(hash.as_bytes()[..ChunkId::BYTES].try_into().expect("a hash is longer than an id"))
    }

    /// Authenticates what only holders of a full key may state of a snapshot: where it was made. `None` without a full key.
    pub(crate) fn origin(&self, statement: &[u8]) -> Option<blake3::Hash> {
        let key = self.master()?.derive("siltstone 2026 origin of a snapshot");
        Some(blake3::keyed_hash(&key.0, statement))
    }

    /// The secret that the gear table of the chunker is made of.
    pub(crate) fn gear_secret(&self) -> &[u8; SECRET_BYTES] {
        &self.0.shared.gear.0
    }

    pub(super) fn writers(&self) -> &Secret {
        &self.0.shared.writers
    }

    /// The pair that snapshots are sealed to.
    pub(super) fn snapshots(&self) -> &KeyPair {
        &self.0.snapshots
    }

    /// The pair that packs of this kind are sealed to.
    pub(super) fn packs(&self, kind: ChunkKind) -> &KeyPair {
        match kind {
            ChunkKind::Content => &self.0.contents,
            ChunkKind::Tree => &self.0.trees,
        }
    }

    pub(super) fn verifying(&self) -> &VerifyingKey {
        &self.0.verifying
    }

    /// The key that signs; only a full key has it.
    pub(super) fn signing(&self) -> Result<SigningKey> {
        self.master().map(signing_key).ok_or_else(|| self.refused("write"))
    }

    /// This key cannot do that.
    pub(super) fn refused(&self, doing: &str) -> Error {
        let why = match self.access() {
            KeyAccess::PutOnly => "it is a put-only key, which can add backups but not read them",
            KeyAccess::List => "it can add backups and list snapshots, but read nothing of them",
            KeyAccess::Full => "it lacks a part",
        };
        Error::new(Kind::Denied, doing, "with this key")
            .because(why)
            .hint("use the password, key file or recovery key of the repository's owner")
    }
}

fn signing_key(master: &Secret) -> SigningKey {
    SigningKey::derive(&master.derive("siltstone 2026 signing key"))
}
