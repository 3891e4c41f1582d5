//! The extended attributes of a path, read without the library: what a test compares must not come from what it tests.

use rustix::fs::{lgetxattr, llistxattr};
use std::path::Path;

/// Names and values in the order of their names; those of a symbolic link itself.
pub fn attributes_of(path: &Path) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut names = vec![0; 64 << 10];
    let bytes = llistxattr(path, &mut names[..]).expect("attributes are listed");
    let mut found: Vec<_> = names[..bytes]
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
        .map(|name| {
            let mut value = vec![0; 64 << 10];
            let bytes = lgetxattr(path, name, &mut value[..]).expect("an attribute is read");
            value.truncate(bytes);
            (name.to_vec(), value)
        })
        .collect();
    found.sort();
    found
}
