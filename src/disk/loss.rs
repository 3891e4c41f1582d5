//! Metadata that could not be set, and why.

use super::refused::shown;
use crate::error::{Error, Kind};

/// Metadata that could not be restored: the entry exists, but not in every respect as it was saved.
#[derive(Debug)]
pub(crate) struct Loss {
    /// "owner", "mode", "attribute user.x", "modification time", "flags", "setuid bit", "setgid bit".
    pub what: String,
    pub error: Error,
}

pub(super) fn unsafe_setuid() -> Loss {
    let error = Error::new(Kind::Denied, "set the setuid bit", "")
        .because("the file no longer has the owner that it was saved with");
    Loss { what: "setuid bit".to_owned(), error }
}

/// The kernel clears the setgid bit without a word where the user is not in the group.
pub(super) fn setgid_dropped(name: &[u8]) -> Loss {
    let error = Error::new(Kind::Denied, "set the setgid bit", shown(name)).because("this user is not in its group");
    Loss { what: "setgid bit".to_owned(), error }
}
