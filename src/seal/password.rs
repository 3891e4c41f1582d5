//! Turn a password into a key: Argon2id (RFC 9106).

use crate::error::{Error, Kind, Result};
use crate::seal::Secret;
use argon2::{Algorithm, Argon2, Params, Version};

pub const SALT_BYTES: usize = 16;

/// What trying one password costs. Stored beside the salt; bounded when read, as storage may be hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    pub memory_kib: u32,
    pub passes: u32,
    pub lanes: u32,
}

impl PasswordCost {
    /// 46 MiB, one pass, one lane: the first of the equivalent settings that OWASP recommends. It is paid at every start,
    /// so it counts against the 0.2 s that an unchanged tree takes (docs/decisions/0009-cost-of-a-password.md).
    pub const DEFAULT: PasswordCost = PasswordCost { memory_kib: 46 * 1024, passes: 1, lanes: 1 };
    /// What is refused: more than this can only be an attempt to exhaust the reader.
    const MAX: PasswordCost = PasswordCost { memory_kib: 1024 * 1024, passes: 64, lanes: 16 };
}

/// The key that a password stands for.
pub fn stretch_password(password: &[u8], salt: &[u8; SALT_BYTES], cost: PasswordCost) -> Result<Secret> {
    let max = PasswordCost::MAX;
    let too_much = cost.memory_kib > max.memory_kib || cost.passes > max.passes || cost.lanes > max.lanes;
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32)).ok().filter(|_| !too_much);
    let Some(params) = params else {
        return Err(Error::corrupt(
            "use the password",
            "",
            format!("the cost stored with it is out of bounds: {cost:?}"),
        ));
    };
    let mut key = Secret([0; 32]);
    Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
        .hash_password_into(password, salt, &mut key.0)
        .map_err(|error| Error::new(Kind::Failed, "stretch the password", "").because(error.to_string()))?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn costs_that_would_exhaust_the_reader_are_refused() {
        for cost in [(u32::MAX, 1, 1), (8, u32::MAX, 1), (8, 1, 1000), (0, 0, 0)] {
            let cost = PasswordCost { memory_kib: cost.0, passes: cost.1, lanes: cost.2 };
            assert_eq!(stretch_password(b"x", &[0; 16], cost).unwrap_err().kind(), Kind::Corrupt);
        }
    }
}
