//! Hash, compress, encrypt and back, verified; pure, no I/O.
//!
//! No function here returns plain bytes that were not authenticated, and none lets the caller choose a nonce: frames count
//! theirs under a key that one pack alone has, small objects have a key of their own each.

mod aead;
mod compress;
mod frame;
mod generation;
mod key_bundle;
mod key_pair;
mod key_set;
mod object;
mod password;
mod secret;
mod signature;

pub(crate) use aead::{open_once, seal_once};
pub use compress::Compression;
pub(crate) use frame::SEAL_BYTES;
pub use frame::{FrameKey, FrameOpener, FrameSealer, PACK_HEADER_BYTES, new_pack_key, open_pack_key};
pub use key_set::{KeyAccess, KeySet};
pub use object::{Recipients, open_object, seal_object, seal_signed_object};
pub(crate) use object::{open_signed_object, sealed_object_bytes_max};
pub use password::PasswordCost;
pub(crate) use password::{SALT_BYTES, stretch_password};
pub(crate) use secret::SECRET_BYTES;
pub use secret::Secret;

use crate::error::{Error, Result};

/// Fills a buffer with random bytes of the operating system.
pub(crate) fn random<const N: usize>() -> Result<[u8; N]> {
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
