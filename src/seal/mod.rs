//! Hash, compress, encrypt and back, verified; pure, no I/O.
//!
//! There is no way here to have plain bytes that were not authenticated, and no way to choose a nonce: frames count
//! theirs under a key that one pack alone has, small objects have a key of their own each.

mod aead;
mod compress;
mod frame;
mod keys;
mod object;
mod password;

pub use aead::{open_once, seal_once};
pub use compress::Compression;
pub use frame::{FrameKey, FrameOpener, FrameSealer, PACK_HEADER_BYTES, SEAL_BYTES, new_pack_key, open_pack_key};
pub use keys::{KeySet, Power, SECRET_BYTES, Secret};
pub use object::{Audience, open_object, seal_object, sealed_object_bytes_max};
pub use password::{PasswordCost, SALT_BYTES, stretch_password};

use crate::error::{Error, Result};

/// Fills a buffer with random bytes of the operating system.
pub fn random<const N: usize>() -> Result<[u8; N]> {
    let failed = |why| Error::io("get random bytes", "from the operating system", why);
    let mut bytes = [0; N];
    let mut filled = 0;
    while filled < N {
        match rustix::rand::getrandom(&mut bytes[filled..], rustix::rand::GetRandomFlags::empty()) {
            Ok(count) => filled += count,
            Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(failed(error.into())),
        }
    }
    Ok(bytes)
}
