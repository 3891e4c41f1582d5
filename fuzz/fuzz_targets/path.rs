//! Names of a hostile tree: no name that is accepted leads out of the folder that it is restored to.
#![no_main]

use libfuzzer_sys::fuzz_target;
use siltstone::entry::is_valid_name;
use siltstone::format::{TreePage, decode_page};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// Exactly one step down, and a string that the system takes whole.
fn stays_inside(name: &[u8]) {
    let path = Path::new(OsStr::from_bytes(name));
    let mut components = path.components();
    assert!(matches!(components.next(), Some(Component::Normal(part)) if part.as_bytes() == name));
    assert!(components.next().is_none());
    assert!(!name.contains(&0));
    assert_eq!(Path::new("/target").join(path).parent(), Some(Path::new("/target")));
}

fuzz_target!(|bytes: &[u8]| {
    if is_valid_name(bytes) {
        stays_inside(bytes);
    }
    // As the names of a page of entries: magic, version, level, count, then names that share nothing.
    let mut page = b"T\x01\0".to_vec();
    page.extend_from_slice(bytes);
    match decode_page(&page) {
        Ok(TreePage::Entries(entries)) => entries.iter().for_each(|entry| stays_inside(&entry.name)),
        Ok(TreePage::Inner { pages, .. }) => pages.iter().for_each(|(name, _)| stays_inside(name)),
        Err(_) => {}
    }
});
