//! A secret of 32 bytes: derives keys, and can be written down.

use crate::error::{Error, Kind, Result};
use crate::seal::random;
use data_encoding::BASE32_NOPAD;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

pub(crate) const SECRET_BYTES: usize = 32;

/// 32 random bytes from which keys are derived; wiped when dropped, never printed by `Debug`.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct Secret(pub [u8; SECRET_BYTES]);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}

/// How many bytes of checksum a written secret carries.
const CHECK_BYTES: usize = 3;

impl Secret {
    /// A new secret; an error if the system has no random bytes.
    pub fn random() -> Result<Self> {
        Ok(Secret(random()?))
    }

    /// A key of this secret for one purpose (BLAKE3 `derive_key`; the context is the purpose).
    pub(crate) fn derive(&self, context: &str) -> Secret {
        Secret(blake3::derive_key(context, &self.0))
    }

    /// For paper and key files: groups of five characters of base32, with a checksum against mistyping.
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
        hash[..CHECK_BYTES].try_into().expect("a hash is longer than its checksum")
    }
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
}
