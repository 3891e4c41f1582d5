//! Frames: any bytes never panic nor open, and what was sealed opens under its key and number alone.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::id::ChunkKind;
use siltstone::seal::{Compression, FrameKey, FrameOpener, FrameSealer, KeySet, Secret, new_pack_key, open_pack_key};
use std::sync::LazyLock;

static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::from_master(Secret([7; 32])));
static KEY: LazyLock<FrameKey> =
    LazyLock::new(|| new_pack_key(&KEYS, ChunkKind::Content).expect("there is randomness").0);

fuzz_target!(|input: (&[u8], u32, u16, bool)| {
    let (bytes, number, length, compress) = input;
    let (mut opener, mut raw) = (FrameOpener::new().expect("there is memory"), Vec::new());
    assert!(opener.open(&KEY, number, bytes, length.into(), &mut raw).is_err());
    assert!(open_pack_key(&KEYS, ChunkKind::Content, bytes).is_err());

    let mut sealer =
        FrameSealer::new(if compress { Compression::Auto } else { Compression::STORE }).expect("there is memory");
    sealer.compress(bytes).expect("it is small enough");
    let sealed = sealer.seal(&KEY, number, bytes).expect("it is small enough");
    opener.open(&KEY, number, &sealed, bytes.len(), &mut raw).expect("it was just sealed");
    assert_eq!(raw, bytes);
    assert!(opener.open(&KEY, number ^ 1, &sealed, bytes.len(), &mut raw).is_err());
    assert!(opener.open(&KEY, number, &sealed, bytes.len() + 1, &mut raw).is_err());
});
