//! The extended attributes of a path, read without the library: what a test compares must not come from what it tests.

use crate::skip::skipped;
use rustix::fs::{lgetxattr, llistxattr};
use std::path::Path;
use std::process::Command;

/// Adds these entries to the ACL of a path. False, loudly, if that is refused.
pub fn set_acl(path: &Path, entries: &str) -> bool {
    let is_set = Command::new("setfacl").args(["-m", entries]).arg(path).status().is_ok_and(|status| status.success());
    if !is_set {
        skipped("tests with ACLs", "setfacl is not there or is refused");
    }
    is_set
}

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
