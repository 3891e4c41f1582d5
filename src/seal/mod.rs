//! Hash, compress, encrypt and back, verified; pure, no I/O.
//!
//! There is no way here to have plain bytes that were not authenticated, and no way to choose a nonce: frames count
//! theirs under a key that one pack alone has, small objects have a key of their own each.

mod frame;
mod keys;
mod object;
mod password;

pub use frame::{FrameKey, FrameOpener, FrameSealer, PACK_HEADER_BYTES, SEAL_BYTES, new_pack_key, open_pack_key};
pub use keys::{KeySet, Power, SECRET_BYTES, Secret};
pub use object::{Audience, open_object, open_once, seal_object, seal_once, sealed_object_bytes_max};
pub use password::{PasswordCost, SALT_BYTES, stretch_password};

use crate::error::{Error, Kind, Result};

/// Fills a buffer with random bytes of the operating system.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    aws_lc_rs::rand::fill(&mut bytes)
        .map_err(|_| Error::new(Kind::Failed, "get random bytes", "from the operating system"))?;
    Ok(bytes)
}
