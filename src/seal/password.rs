//! Turn a password into a key: Argon2id (RFC 9106).

use crate::error::{Error, Kind, Result};
use crate::seal::Secret;
use argon2::{Algorithm, Argon2, Params, Version};

pub(crate) const SALT_BYTES: usize = 16;

/// What trying one password costs. Stored beside the salt; bounded when read, as storage may be hostile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PasswordCost {
    /// Memory of one try, in KiB.
    pub memory_kib: u32,
    /// How often that memory is filled.
    pub passes: u32,
    /// Lanes of Argon2, which may be computed at the same time.
    pub lanes: u32,
}

impl PasswordCost {
    /// 46 MiB, one pass, one lane: the first of the equivalent settings that OWASP recommends. It is paid at every start,
    /// so it counts against the 0.2 s that an unchanged tree takes (docs/decisions/0009-cost-of-a-password.md).
    pub const DEFAULT: PasswordCost = PasswordCost { memory_kib: 46 * 1024, passes: 1, lanes: 1 };
    /// What is refused: far more than this program ever asks for can only be an attempt to exhaust the reader.
    const MAX: PasswordCost = PasswordCost { memory_kib: 256 * 1024, passes: 16, lanes: 4 };
    /// And the product of memory and passes, which is what takes time: about one and a half seconds.
    const WORK_MAX: u64 = 16 * PasswordCost::DEFAULT.work();

    /// What one try takes, in KiB filled.
    pub(crate) const fn work(self) -> u64 {
        self.memory_kib as u64 * self.passes as u64
    }

    /// Whether it is more than is ever paid.
    pub(crate) fn is_excessive(self) -> bool {
        let max = PasswordCost::MAX;
        let is_too_large = self.memory_kib > max.memory_kib || self.passes > max.passes || self.lanes > max.lanes;
        is_too_large || self.work() > PasswordCost::WORK_MAX
    }
}

/// The key that a password stands for.
pub(crate) fn stretch_password(password: &[u8], salt: &[u8; SALT_BYTES], cost: PasswordCost) -> Result<Secret> {
    let params = Params::new(cost.memory_kib, cost.passes, cost.lanes, Some(32));
    let params = params.ok().filter(|_| !cost.is_excessive());
    let Some(params) = params else {
        return Err(Error::corrupt(
            "use the password",
            "",
            format!(
                "the key object states a cost that silt does not accept: {} KiB, {} passes, {} lanes",
                cost.memory_kib, cost.passes, cost.lanes
            ),
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
        let costs = [(u32::MAX, 1, 1), (8, u32::MAX, 1), (8, 1, 1000), (0, 0, 0), (1 << 20, 64, 1), (256 << 10, 4, 1)];
        for cost in costs {
            let cost = PasswordCost { memory_kib: cost.0, passes: cost.1, lanes: cost.2 };
            assert_eq!(stretch_password(b"x", &[0; 16], cost).unwrap_err().kind(), Kind::Corrupt);
        }
    }
}
