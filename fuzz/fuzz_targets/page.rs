//! Any bytes as a page of a tree: never a panic, and entries that decode come back from their own encoding.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::format::{TreePage, decode_inner, decode_page, encode_entries};

fuzz_target!(|bytes: &[u8]| {
    let inner = decode_inner(bytes);
    match decode_page(bytes) {
        Ok(TreePage::Entries(entries)) => {
            assert!(matches!(inner, Ok(None)));
            let again = decode_page(&encode_entries(&entries)).expect("what was decoded can be written");
            assert_eq!(again, TreePage::Entries(entries));
        }
        Ok(TreePage::Inner { pages, .. }) => assert_eq!(inner.expect("it decodes as a page"), Some(pages)),
        // A page of entries is not looked into by `decode_inner`.
        Err(_) => assert!(!matches!(inner, Ok(Some(_)))),
    }
});
