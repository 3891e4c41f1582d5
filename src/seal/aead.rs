//! AES-256-GCM, and bytes that are sealed once under a key of their own.

use crate::seal::Secret;
use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

/// AES-256-GCM under a key that is used this once (derived from a fresh salt), so the nonce is zero.
pub(crate) fn seal_once(key: &Secret, associated: &[u8], mut plain: Vec<u8>) -> Vec<u8> {
    aead_key(key)
        .seal_in_place_append_tag(Nonce::assume_unique_for_key([0; 12]), Aad::from(associated), &mut plain)
        .expect("AES-GCM seals up to 64 GiB");
    plain
}

/// Opens what [`seal_once`] sealed; `None` when the key or the bytes are not those.
pub(crate) fn open_once(key: &Secret, associated: &[u8], mut sealed: Vec<u8>) -> Option<Vec<u8>> {
    let length = aead_key(key)
        .open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::from(associated), &mut sealed)
        .ok()
        .map(|plain| plain.len())?;
    sealed.truncate(length);
    Some(sealed)
}

pub(super) fn aead_key(key: &Secret) -> LessSafeKey {
    LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key.0).expect("the key is 32 bytes long"))
}
