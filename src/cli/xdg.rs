//! Folders of the user.

use siltstone::error::{Error, Result};
use std::path::PathBuf;

/// A folder of the user (XDG Base Directory Specification: a relative path in the variable counts as none).
pub(super) fn folder(variable: &str, below_home: &str) -> Result<PathBuf> {
    let given = std::env::var_os(variable).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || std::env::var_os("HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    given.or_else(|| Some(home()?.join(below_home))).ok_or_else(|| {
        Error::invalid("find the directories of the user", "", format!("neither {variable} nor HOME is set"))
            .hint("set HOME, or name the repository with --repo and the cache with --cache-dir")
    })
}
