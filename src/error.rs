//! Say what failed: one error type, one kind per decision that a caller can take.

use serde::{Serialize, Serializer};
use std::fmt;
use std::sync::Arc;

/// What functions of this crate return.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What a caller can do about an error; never which room it came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Kind {
    /// The thing is not there.
    NotFound,
    /// The storage or the repository as a whole is not there any more: its disk was unmounted, or another one mounted.
    Gone,
    /// The thing is there already and must not be replaced.
    AlreadyExists,
    /// A condition did not hold: another process changed the thing first.
    Conflict,
    /// The system or the storage refuses access.
    Denied,
    /// Trying again may help (network, overload, timeout).
    Temporary,
    /// Stored data is not what was stored.
    Corrupt,
    /// The password, key file or key does not open this.
    WrongKey,
    /// The request cannot be met as it was worded.
    Invalid,
    /// This storage, file system or version cannot do it.
    Unsupported,
    /// No space left, or a quota or limit was reached.
    Full,
    /// Another process holds it, or a right that we held has ended.
    Locked,
    /// The repository is not as it was when this began: beginning anew may help.
    Stale,
    /// The user or a signal asked to stop.
    Cancelled,
    /// Everything else.
    Failed,
}

impl Kind {
    /// Whether stored data is missing or is not what was stored, while the storage as a whole can be reached.
    pub(crate) fn is_damage(self) -> bool {
        matches!(self, Kind::Corrupt | Kind::NotFound)
    }
}

/// What was attempted, on what, why it failed and what to do about it. Cheap to clone.
#[derive(Clone)]
pub struct Error(Arc<ErrorParts>);

/// Where the cause of an error is, so that a caller knows what to look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorSide {
    /// What was asked for, or the key that it was asked with.
    Request,
    /// What was to be saved: its files, or the command that produces it.
    Source,
    /// The storage or the way to it.
    Storage,
    /// What the storage holds.
    Repository,
}

#[derive(Clone)]
struct ErrorParts {
    kind: Kind,
    side: Option<ErrorSide>,
    doing: String,
    thing: String,
    hint: Option<String>,
    cause: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

/// `{"kind", "side", "message", "hint"}`; side and hint may be null.
impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> std::result::Result<S::Ok, S::Error> {
        #[derive(Serialize)]
        struct ErrorInfo<'a> {
            kind: Kind,
            side: Option<ErrorSide>,
            message: String,
            hint: Option<&'a str>,
        }
        ErrorInfo { kind: self.kind(), side: self.side(), message: self.to_string(), hint: self.advice() }
            .serialize(serializer)
    }
}

impl Error {
    /// `doing` completes "cannot …"; `thing` names the object of it (may be empty).
    pub fn new(kind: Kind, doing: impl Into<String>, thing: impl fmt::Display) -> Self {
        let (doing, thing) = (doing.into(), thing.to_string());
        Error(Arc::new(ErrorParts { kind, side: None, doing, thing, hint: None, cause: None }))
    }

    /// Stored bytes are not what they must be.
    pub fn corrupt(doing: impl Into<String>, thing: impl fmt::Display, why: impl fmt::Display) -> Self {
        Error::new(Kind::Corrupt, doing, thing).because(why.to_string())
    }

    /// What the caller asked for cannot be meant.
    pub fn invalid(doing: impl Into<String>, thing: impl fmt::Display, why: impl fmt::Display) -> Self {
        Error::new(Kind::Invalid, doing, thing).because(why.to_string())
    }

    /// An operating system error, its kind taken from the error number.
    pub fn io(doing: impl Into<String>, thing: impl fmt::Display, cause: std::io::Error) -> Self {
        let hint = hint_of_io(&cause);
        let error = Error::new(kind_of_io(&cause), doing, thing).because(cause);
        hint.into_iter().fold(error, Error::hint)
    }

    /// The system refuses another thread.
    pub fn no_thread(cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        let error = Error::new(Kind::Failed, "start a thread", "").because(cause);
        error.hint("raise the limit of processes (ulimit -u, pids.max), or that of memory (ulimit -v)")
    }

    /// Adds the cause of this error.
    pub fn because(mut self, cause: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.parts_mut().cause = Some(Arc::from(cause.into()));
        self
    }

    fn parts_mut(&mut self) -> &mut ErrorParts {
        Arc::make_mut(&mut self.0)
    }

    /// Adds what the user can do about it: it begins in lower case and ends without a full stop, as it follows `hint: `.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.parts_mut().hint = Some(hint.into());
        self
    }

    /// Replaces a bare name by its whole path, in this error and in its causes.
    pub fn renamed(mut self, name: &str, path: &str) -> Self {
        let parts = self.parts_mut();
        if parts.thing == name {
            path.clone_into(&mut parts.thing);
        }
        let cause = parts.cause.as_ref().and_then(|cause| cause.downcast_ref::<Error>());
        if let Some(renamed) = cause.map(|cause| cause.clone().renamed(name, path)) {
            parts.cause = Some(Arc::new(renamed));
        }
        self
    }

    /// Sets another kind.
    pub fn with_kind(mut self, kind: Kind) -> Self {
        self.parts_mut().kind = kind;
        self
    }

    /// States where the cause is, unless that is known already.
    pub(crate) fn with_side(mut self, side: ErrorSide) -> Self {
        if self.side().is_none() {
            self.parts_mut().side = Some(side);
        }
        self
    }

    /// Where the cause is: stated, or what the kind says; none if neither is known.
    pub(crate) fn side(&self) -> Option<ErrorSide> {
        self.0.side.or(match self.kind() {
            Kind::Invalid | Kind::WrongKey => Some(ErrorSide::Request),
            Kind::Corrupt | Kind::Stale | Kind::Locked | Kind::Gone => Some(ErrorSide::Repository),
            _ => None,
        })
    }

    /// What the caller can decide by.
    pub fn kind(&self) -> Kind {
        self.0.kind
    }

    /// Whether it is of this kind.
    pub fn is(&self, kind: Kind) -> bool {
        self.0.kind == kind
    }

    /// Whether stored data is missing or is not what was stored, while the storage as a whole can be reached.
    pub(crate) fn is_damage(&self) -> bool {
        self.0.kind.is_damage()
    }

    pub(crate) fn is_temporary(&self) -> bool {
        self.0.kind == Kind::Temporary
    }

    pub(crate) fn doing(&self) -> &str {
        &self.0.doing
    }

    pub(crate) fn thing(&self) -> &str {
        &self.0.thing
    }

    /// Why it failed, as text; empty without a cause.
    pub fn why(&self) -> String {
        self.0.cause.as_ref().map(|cause| cause.to_string()).unwrap_or_default()
    }

    /// What to do about it, from this error or the nearest cause that says so.
    pub fn advice(&self) -> Option<&str> {
        if let Some(hint) = &self.0.hint {
            return Some(hint);
        }
        let cause = self.0.cause.as_ref()?.downcast_ref::<Error>()?;
        cause.advice()
    }
}

/// What can be done about a limit of the system, whatever was attempted.
fn hint_of_io(error: &std::io::Error) -> Option<&'static str> {
    use rustix::io::Errno;
    match Errno::from_io_error(error)? {
        Errno::MFILE | Errno::NFILE => Some("raise the limit of open files (ulimit -n)"),
        Errno::FBIG => {
            Some("raise the limit of the size of files (ulimit -f); some file systems have one of their own")
        }
        Errno::NOMEM => Some("free memory, or lower --memory"),
        Errno::NOSPC => Some("free space on that file system, and run it again"),
        Errno::DQUOT => Some("free space within the quota, or have it raised, and run it again"),
        _ => None,
    }
}

/// The kind that an operating system error stands for.
pub(crate) fn kind_of_io(error: &std::io::Error) -> Kind {
    use rustix::io::Errno;
    use std::io::ErrorKind as Io;
    if let Some(Errno::MFILE | Errno::NFILE) = Errno::from_io_error(error) {
        return Kind::Full;
    }
    match error.kind() {
        Io::NotFound => Kind::NotFound,
        Io::AlreadyExists => Kind::AlreadyExists,
        Io::PermissionDenied | Io::ReadOnlyFilesystem => Kind::Denied,
        Io::StorageFull | Io::QuotaExceeded | Io::FileTooLarge | Io::OutOfMemory => Kind::Full,
        Io::TimedOut | Io::ConnectionReset | Io::ConnectionAborted | Io::ConnectionRefused | Io::BrokenPipe => {
            Kind::Temporary
        }
        Io::HostUnreachable | Io::NetworkUnreachable | Io::NetworkDown | Io::StaleNetworkFileHandle => Kind::Temporary,
        Io::Unsupported => Kind::Unsupported,
        Io::InvalidInput | Io::InvalidFilename => Kind::Invalid,
        _ => Kind::Failed,
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot {}", self.0.doing)?;
        if !self.0.thing.is_empty() {
            write!(f, " {}", self.0.thing)?;
        }
        if let Some(cause) = &self.0.cause {
            write!(f, ": {cause}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "[{:?}] {self}", self.0.kind)?;
        match self.advice() {
            Some(hint) => write!(f, " ({hint})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for Error {
    /// The cause. It is part of the one-line message already.
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.cause.as_deref().map(|cause| cause as &(dyn std::error::Error + 'static))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_says_what_on_what_and_why() {
        let inner = Error::invalid("read the key", "k", "it is empty").hint("pass another");
        let outer = Error::new(Kind::WrongKey, "open the repository", "/r").because(inner);
        assert_eq!(outer.to_string(), "cannot open the repository /r: cannot read the key k: it is empty");
        assert_eq!(outer.advice(), Some("pass another"));
        assert_eq!(outer.kind(), Kind::WrongKey);
        let source = std::error::Error::source(&outer).map(ToString::to_string);
        assert_eq!(source.as_deref(), Some("cannot read the key k: it is empty"));
        assert_eq!(outer.clone().with_kind(Kind::Denied).to_string(), outer.to_string());
        assert_eq!(outer.kind(), Kind::WrongKey);
    }

    #[test]
    fn a_name_becomes_a_path_wherever_it_stands() {
        let inner = Error::invalid("open the directory", ".", "it is closed");
        let outer = Error::new(Kind::Denied, "delete", "b").because(inner);
        let said = outer.renamed(".", "/a/b").renamed("b", "/a/b").to_string();
        assert_eq!(said, "cannot delete /a/b: cannot open the directory /a/b: it is closed");
    }

    #[test]
    fn where_the_cause_is_stays_as_it_was_stated_first() {
        let error = Error::new(Kind::Denied, "write", "x");
        assert_eq!(error.side(), None);
        let stated = error.with_side(ErrorSide::Storage).with_side(ErrorSide::Source);
        assert_eq!(stated.side(), Some(ErrorSide::Storage));
        assert_eq!(
            Error::invalid("use", "x", "it is empty").with_side(ErrorSide::Source).side(),
            Some(ErrorSide::Request)
        );
        let json = serde_json::to_value(&stated).unwrap();
        assert_eq!(
            json,
            serde_json::json!({"kind": "denied", "side": "storage", "message": "cannot write x", "hint": null})
        );
    }

    #[test]
    fn a_full_disk_is_full() {
        let error = Error::io("write", "x", std::io::Error::from_raw_os_error(28));
        assert_eq!(error.kind(), Kind::Full);
    }
}
