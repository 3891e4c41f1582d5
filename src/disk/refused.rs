//! Turn a refused system call into the crate's error: what was attempted, on which name.

use crate::error::{Error, Kind};
use rustix::io::Errno;

/// The error for `doing` on a name of any bytes.
#[cold]
pub(super) fn refused(doing: &str, name: &[u8], errno: Errno) -> Error {
    let error = Error::io(doing, shown(name), errno.into());
    match errno {
        Errno::NOTSUP | Errno::NOSYS | Errno::NOTTY => error.with_kind(Kind::Unsupported),
        Errno::MFILE | Errno::NFILE => error.with_kind(Kind::Full).hint("raise the limit of open files (ulimit -n)"),
        Errno::NOMEM => error.with_kind(Kind::Full).hint("free memory, or lower --memory"),
        // The name is no longer what it was when its directory was read.
        Errno::NOTDIR | Errno::LOOP => error.with_kind(Kind::Conflict),
        _ => error,
    }
}

/// The same for a name that only rustix' argument trait knows.
#[cold]
pub(super) fn refused_name(doing: &str, name: impl rustix::path::Arg, errno: Errno) -> Error {
    match name.as_cow_c_str() {
        Ok(name) => refused(doing, name.to_bytes(), errno),
        Err(_) => refused(doing, b"a name with a NUL byte", errno),
    }
}

/// A name for people: control characters would garble a terminal, bytes that are no UTF-8 are shown replaced.
pub(super) fn shown(name: &[u8]) -> String {
    let text = String::from_utf8_lossy(name);
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.into_owned() }
}
