//! Key pairs of readers: the public half seals, only the private half opens (HPKE, RFC 9180, mode base).

use crate::seal::Secret;
use hpke::aead::AesGcm256;
use hpke::kdf::HkdfSha256;
use hpke::kem::X25519HkdfSha256;
use hpke::{Deserializable, Kem, OpModeR, OpModeS, Serializable};
use zeroize::Zeroizing;

type PrivateKey = <X25519HkdfSha256 as Kem>::PrivateKey;
type PublicKey = <X25519HkdfSha256 as Kem>::PublicKey;

/// Bytes of the encapsulated key, which is sent along with what is sealed.
pub(super) const ENCAPSULATED_BYTES: usize = 32;

/// An X25519 key pair, or its public half alone.
#[derive(Clone)]
pub(super) struct KeyPair {
    public: PublicKey,
    private: Option<PrivateKey>,
}

impl KeyPair {
    /// `DeriveKeyPair` of RFC 9180, section 7.1.3.
    pub(crate) fn derive(seed: &Secret) -> Self {
        let (private, public) = X25519HkdfSha256::derive_keypair(&seed.0);
        KeyPair { public, private: Some(private) }
    }

    /// The public half. None if these bytes are no key.
    pub(crate) fn from_public(bytes: &[u8]) -> Option<Self> {
        Some(KeyPair { public: PublicKey::from_bytes(bytes).ok()?, private: None })
    }

    /// Both halves, from the private one. None if these bytes are no key.
    pub(crate) fn from_private(bytes: &[u8]) -> Option<Self> {
        let private = PrivateKey::from_bytes(bytes).ok()?;
        Some(KeyPair { public: X25519HkdfSha256::sk_to_pk(&private), private: Some(private) })
    }

    pub(crate) fn public_bytes(&self) -> Vec<u8> {
        self.public.to_bytes().to_vec()
    }

    pub(crate) fn private_bytes(&self) -> Option<Zeroizing<Vec<u8>>> {
        self.private.as_ref().map(|private| Zeroizing::new(private.to_bytes().to_vec()))
    }

    pub(crate) fn can_open(&self) -> bool {
        self.private.is_some()
    }

    /// Returns the encapsulated key and the sealed bytes, which end with a tag. None if the public key is unusable.
    pub(crate) fn seal(
        &self,
        info: &[u8],
        associated: &[u8],
        plain: &[u8],
    ) -> Option<([u8; ENCAPSULATED_BYTES], Vec<u8>)> {
        let mode = OpModeS::Base;
        let (encapsulated, mut context) =
            hpke::setup_sender::<AesGcm256, HkdfSha256, X25519HkdfSha256>(&mode, &self.public, info).ok()?;
        let sealed = context.seal(plain, associated).ok()?;
        Some((encapsulated.to_bytes().into(), sealed))
    }

    /// Opens what [`seal`](Self::seal) sealed. None if it was changed, was sealed to another key, or the private half is absent.
    pub(crate) fn open(&self, info: &[u8], associated: &[u8], encapsulated: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let encapsulated = <X25519HkdfSha256 as Kem>::EncappedKey::from_bytes(encapsulated).ok()?;
        let (mode, private) = (OpModeR::Base, self.private.as_ref()?);
        let mut context =
            hpke::setup_receiver::<AesGcm256, HkdfSha256, X25519HkdfSha256>(&mode, private, &encapsulated, info)
                .ok()?;
        context.open(sealed, associated).ok()
    }
}
