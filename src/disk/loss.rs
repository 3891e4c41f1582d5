//! Metadata that could not be set, and why.

use super::refused::shown;
use crate::error::{Error, Kind};

/// Metadata that could not be restored: the entry exists, but not in every respect as it was saved.
#[derive(Debug)]
pub(crate) struct Loss {
    /// "owner", "mode", "attribute user.x", "modification time", "flags", "setuid bit", "setgid bit", "setuid and setgid bits".
    pub what: String,
    pub error: Error,
}

/// The bits of a mode that would give another owner's rights away.
pub(super) fn unsafe_special(bits: u32) -> Loss {
    let (what, whose) = match bits & 0o6000 {
        0o4000 => ("setuid bit", "owner"),
        0o2000 => ("setgid bit", "group"),
        _ => ("setuid and setgid bits", "owner and group"),
    };
    let error = Error::new(Kind::Denied, "set special bits of the mode", "")
        .because(format!("the file no longer has the {whose} that it was saved with"));
    Loss { what: what.to_owned(), error }
}

/// The kernel clears the setgid bit without a word where the user is not in the group.
pub(super) fn setgid_dropped(name: &[u8]) -> Loss {
    let error = Error::new(Kind::Denied, "set the setgid bit", shown(name)).because("this user is not in its group");
    Loss { what: "setgid bit".to_owned(), error }
}
