//! Small sealed objects: any bytes never panic nor open, what was sealed opens, and only in bounds and for its purpose.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::seal::{KeySet, Recipients, Secret, open_object, seal_object};
use std::sync::LazyLock;

static KEYS: LazyLock<KeySet> = LazyLock::new(|| KeySet::from_master(Secret([7; 32])));

fuzz_target!(|input: (&[u8], bool, usize, u8)| {
    let (bytes, for_readers, at, change) = input;
    assert!(open_object(&KEYS, "index", bytes, 1 << 20).is_err());
    // With a head that is right, so that the rest is looked at.
    let mut object = b"siltobj1".to_vec();
    object.push(1 + u8::from(for_readers));
    object.extend_from_slice(&[0; 4]);
    object.extend_from_slice(bytes);
    assert!(open_object(&KEYS, "index", &object, 1 << 20).is_err());

    let recipients = if for_readers { Recipients::SnapshotReaders } else { Recipients::Writers };
    let mut sealed = seal_object(&KEYS, recipients, "index", bytes).expect("it is small enough");
    assert_eq!(open_object(&KEYS, "index", &sealed, bytes.len() as u64).expect("it was just sealed"), bytes);
    assert!(open_object(&KEYS, "snapshot", &sealed, bytes.len() as u64).is_err());
    if let Some(less) = bytes.len().checked_sub(1) {
        assert!(open_object(&KEYS, "index", &sealed, less as u64).is_err());
    }
    if change != 0 {
        let at = at % sealed.len();
        sealed[at] ^= change;
        // The top bit of an X25519 point is ignored by the curve; HPKE binds the point's bytes, so that fails too.
        assert!(open_object(&KEYS, "index", &sealed, bytes.len() as u64).is_err());
    }
});
