//! Generations of secrets: what was sealed with others than this program has is refused by name.

use crate::error::{Error, Kind, Result};
use crate::seal::key_set::KEY_GENERATION;

/// Refuses what states another generation, a little-endian `u32`, than the one that this program has.
pub(super) fn check_generation(stated: &[u8], doing: &'static str, thing: &str) -> Result<()> {
    let generation = stated.try_into().map(u32::from_le_bytes).unwrap_or(u32::MAX);
    if generation == KEY_GENERATION {
        return Ok(());
    }
    Err(Error::new(Kind::Unsupported, doing, thing)
        .because(format!(
            "it was sealed with secrets of generation {generation}, and this key has those of generation {KEY_GENERATION}"
        ))
        .hint("use a newer version of silt, and a key that was made since the secrets were replaced"))
}
