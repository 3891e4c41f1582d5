//! The keys of a repository, all derived from one secret, and which of them a put-only host has.

use crate::error::{Error, Kind, Result};
use crate::id::{ChunkId, ChunkKind};
use crate::seal::random;
use data_encoding::BASE32_NOPAD;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, Serializable};
use std::sync::Arc;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub const SECRET_BYTES: usize = 32;

/// 32 random bytes from which keys are derived; wiped when dropped, never printed by `Debug`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(pub [u8; SECRET_BYTES]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How many bytes of check sum a written secret carries.
const CHECK_BYTES: usize = 3;

impl Secret {
    pub fn random() -> Result<Self> {
        Ok(Secret(random()?))
    }

    /// A key of this secret for one purpose (BLAKE3 `derive_key`; the context is the purpose).
    pub fn derive(&self, context: &str) -> Secret {
        Secret(blake3::derive_key(context, &self.0))
    }

    /// For paper and key files: groups of five characters of base32, with a check sum against mistyping.
    pub fn to_text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(self.0.to_vec());
        bytes.extend_from_slice(&self.check());
        let text = Zeroizing::new(BASE32_NOPAD.encode(&bytes));
        let groups: Vec<&str> = (0..text.len()).step_by(5).map(|at| &text[at..(at + 5).min(text.len())]).collect();
        Zeroizing::new(groups.join("-"))
    }

    /// Reads what [`to_text`](Self::to_text) wrote; case, spaces and dashes do not matter.
    pub fn from_text(text: &str) -> Result<Self> {
        let bad = |why: &str| Error::new(Kind::WrongKey, "read the key", "").because(why.to_owned());
        let kept: Zeroizing<String> = Zeroizing::new(
            text.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase()).collect(),
        );
        let bytes = Zeroizing::new(
            BASE32_NOPAD
                .decode(kept.as_bytes())
                .map_err(|_| bad("it contains an invalid character or is incomplete"))?,
        );
        if bytes.len() != SECRET_BYTES + CHECK_BYTES {
            return Err(bad("it is too short or too long"));
        }
        let secret = Secret(bytes[..SECRET_BYTES].try_into().expect("the length was checked"));
        if secret.check() != bytes[SECRET_BYTES..] {
            return Err(bad("its checksum is wrong: check for a mistyped character"));
        }
        Ok(secret)
    }

    fn check(&self) -> [u8; CHECK_BYTES] {
        let hash = blake3::derive_key("siltstone 2026 check sum of a written secret", &self.0);
        hash[..CHECK_BYTES].try_into().expect("a hash is longer than its check sum")
    }
}

/// What the holder of a key can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Power {
    /// Read and write everything.
    Full,
    /// Add backups; read the index and nothing of any backup.
    Put,
}

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;

/// The derived keys, ready for use. Cheap to clone.
#[derive(Clone)]
pub struct KeySet(Arc<Keys>);

struct Keys {
    /// Present in a full key only.
    master: Option<Secret>,
    shared: Shared,
    public: PublicKey,
    private: Option<PrivateKey>,
}

/// What every writer has: names chunks, cuts them, reads the index.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
struct Shared {
    content_id: Secret,
    tree_id: Secret,
    gear: Secret,
    /// Seals what all writers read: configuration, index, pending objects.
    writers: Secret,
}

impl KeySet {
    /// All keys of a repository from its master secret.
    pub fn from_master(master: Secret) -> Self {
        let shared = Shared {
            content_id: master.derive("siltstone 2026 id of a content chunk"),
            tree_id: master.derive("siltstone 2026 id of a tree chunk"),
            gear: master.derive("siltstone 2026 gear table"),
            writers: master.derive("siltstone 2026 objects for writers"),
        };
        let seed = master.derive("siltstone 2026 key pair of the readers");
        let (private, public) = X25519HkdfSha256::derive_keypair(&seed.0);
        KeySet(Arc::new(Keys { master: Some(master), shared, public, private: Some(private) }))
    }

    pub fn power(&self) -> Power {
        match self.0.private {
            Some(_) => Power::Full,
            None => Power::Put,
        }
    }

    /// The bytes that a key object seals: everything that the given power needs. `None` when this set has less itself.
    pub fn to_bundle(&self, power: Power) -> Option<Zeroizing<Vec<u8>>> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(1 + 5 * SECRET_BYTES));
        match power {
            Power::Full => {
                bytes.push(1);
                bytes.extend_from_slice(&self.0.master.as_ref()?.0);
            }
            Power::Put => {
                bytes.push(2);
                for key in
                    [&self.0.shared.content_id, &self.0.shared.tree_id, &self.0.shared.gear, &self.0.shared.writers]
                {
                    bytes.extend_from_slice(&key.0);
                }
                bytes.extend_from_slice(&self.0.public.to_bytes());
            }
        }
        Some(bytes)
    }

    pub fn from_bundle(bytes: &[u8]) -> Result<Self> {
        let bad = || Error::corrupt("read the keys of the repository", "", "their format is unknown");
        match bytes.split_first() {
            Some((1, master)) => Ok(Self::from_master(Secret(master.try_into().map_err(|_| bad())?))),
            Some((2, rest)) if rest.len() == 5 * SECRET_BYTES => {
                let mut parts = rest.chunks_exact(SECRET_BYTES);
                let mut next = || Secret(parts.next().expect("the length was checked").try_into().expect("32 bytes"));
                let shared = Shared { content_id: next(), tree_id: next(), gear: next(), writers: next() };
                let public = PublicKey::from_bytes(&next().0).map_err(|_| bad())?;
                Ok(KeySet(Arc::new(Keys { master: None, shared, public, private: None })))
            }
            _ => Err(bad()),
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
        chunk_id(secret, bytes)
    }

    /// The secret that the gear table of the chunker is made of.
    pub fn gear_secret(&self) -> &[u8; SECRET_BYTES] {
        &self.0.shared.gear.0
    }

    pub(super) fn writers(&self) -> &Secret {
        &self.0.shared.writers
    }

    pub(super) fn public(&self) -> &PublicKey {
        &self.0.public
    }

    pub(super) fn private(&self) -> Result<&PrivateKey> {
        self.0.private.as_ref().ok_or_else(|| {
            Error::new(Kind::Denied, "read", "with this key")
                .because("it is a put-only key, which can add backups but not read them")
                .hint("use the password, key file or recovery key of the repository's owner")
        })
    }
}

fn chunk_id(key: &Secret, bytes: &[u8]) -> ChunkId {
    let hash = blake3::keyed_hash(&key.0, bytes);
    ChunkId(hash.as_bytes()[..ChunkId::BYTES].try_into().expect("a hash is longer than an id"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_written_secret_comes_back_and_a_typo_is_noticed() {
        let secret = Secret([7; 32]);
        let text = secret.to_text();
        assert_eq!(Secret::from_text(&text.to_lowercase().replace('-', " ")).unwrap(), secret);
        let typo = text.replacen("A", "B", 1).replacen("O", "P", 1);
        assert_eq!(Secret::from_text(&typo).unwrap_err().kind(), Kind::WrongKey);
        assert!(Secret::from_text("").is_err());
    }

    #[test]
    fn put_only_keys_name_chunks_alike_and_cannot_read() {
        let full = KeySet::from_master(Secret([1; 32]));
        let put = KeySet::from_bundle(&full.to_bundle(Power::Put).unwrap()).unwrap();
        assert_eq!(put.power(), Power::Put);
        assert_eq!(full.chunk_id(ChunkKind::Content, b"x"), put.chunk_id(ChunkKind::Content, b"x"));
        assert_ne!(full.chunk_id(ChunkKind::Content, b"x"), full.chunk_id(ChunkKind::Tree, b"x"));
        assert!(put.private().is_err() && put.master().is_none() && put.to_bundle(Power::Full).is_none());
        assert!(KeySet::from_bundle(&[]).is_err() && KeySet::from_bundle(&[2; 5]).is_err());
    }
}
