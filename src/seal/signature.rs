//! Signatures (Ed25519, RFC 8032): what only a full key may write, and every key can verify.

use crate::error::{Error, Kind, Result};
use crate::seal::Secret;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};

pub(super) const SIGNATURE_BYTES: usize = 64;
pub(super) const VERIFYING_KEY_BYTES: usize = 32;
/// Precedes what is signed, so that no signature counts for anything else.
const CONTEXT: &[u8] = b"siltstone 2026 signed object\0";

/// The key that signs; derived from the master secret.
pub(super) struct SigningKey(Ed25519KeyPair);

/// The key that verifies; every writer has it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct VerifyingKey(pub [u8; VERIFYING_KEY_BYTES]);

impl SigningKey {
    pub(crate) fn derive(seed: &Secret) -> Self {
        SigningKey(Ed25519KeyPair::from_seed_unchecked(&seed.0).expect("a seed has 32 bytes, and each is valid"))
    }

    pub(crate) fn verifying(&self) -> VerifyingKey {
        VerifyingKey(self.0.public_key().as_ref().try_into().expect("a public key has 32 bytes"))
    }

    /// Returns the signature, then the plain bytes.
    pub(crate) fn sign(&self, purpose: &str, plain: &[u8]) -> Vec<u8> {
        [self.0.sign(&message(purpose, plain)).as_ref(), plain].concat()
    }
}

impl VerifyingKey {
    /// Returns the plain bytes of what [`SigningKey::sign`] signed.
    pub(crate) fn verify<'a>(&self, purpose: &str, signed: &'a [u8]) -> Result<&'a [u8]> {
        let bad = || {
            Error::new(Kind::Corrupt, "open the", purpose)
                .because("its signature is wrong: it was not written with a full key of this repository")
        };
        let (signature, plain) = signed.split_at_checked(SIGNATURE_BYTES).ok_or_else(bad)?;
        UnparsedPublicKey::new(&ED25519, self.0).verify(&message(purpose, plain), signature).map_err(|_| bad())?;
        Ok(plain)
    }
}

fn message(purpose: &str, plain: &[u8]) -> Vec<u8> {
    [CONTEXT, purpose.as_bytes(), &[0], plain].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_signing_key_signs_and_for_one_purpose() {
        let key = SigningKey::derive(&Secret([1; 32]));
        let signed = key.sign("settings", b"plain");
        let verifying = key.verifying();
        assert_eq!(verifying.verify("settings", &signed).unwrap(), b"plain");
        assert!(verifying.verify("marks", &signed).is_err());
        assert!(SigningKey::derive(&Secret([2; 32])).verifying().verify("settings", &signed).is_err());
        for at in 0..signed.len() {
            let mut bent = signed.clone();
            bent[at] ^= 1;
            assert!(verifying.verify("settings", &bent).is_err(), "bit at {at}");
        }
        assert!(verifying.verify("settings", &signed[..SIGNATURE_BYTES - 1]).is_err());
    }
}
