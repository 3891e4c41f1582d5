//! Maps the errors of a service to kinds and hints.

use crate::error::{Error, Kind, kind_of_io};
use crate::storage::{Capabilities, tls};
use opendal::ErrorKind;
use std::error::Error as Cause;
use std::time::Duration;

/// Reads the answer of a service that refuses a request.
pub(super) type ReadAnswer = fn(&opendal::Error) -> ServiceAnswer;

/// What a service says when it refuses a request.
#[derive(Default)]
pub(super) struct ServiceAnswer {
    /// Its words; none if it says nothing.
    pub why: Option<String>,
    /// What that means; none if opendal knows it as well.
    pub kind: Option<Kind>,
    pub hint: Option<&'static str>,
}

/// What a service is called, and how it is.
pub(super) struct Service {
    /// For errors: "S3".
    pub name: &'static str,
    /// What its protocol promises; the probe finds out which servers ignore conditions.
    pub capabilities: Capabilities,
    pub read_answer: ReadAnswer,
    /// What to do if access is denied.
    pub denied_hint: &'static str,
}

pub(super) fn stalled(doing: &str, name: &str, waited: Duration) -> Error {
    Error::new(Kind::Temporary, doing, name).because(format!("no answer within {} s", waited.as_secs()))
}

/// Whether the host name of the storage does not exist (DNS).
pub(super) fn is_unknown_name(error: &opendal::Error) -> bool {
    is_text_of_unknown_name(&error.source().map(tls::innermost).unwrap_or_default())
}

/// What getaddrinfo of glibc says of EAI_NONAME and EAI_NODATA; the standard library returns no more than this text.
fn is_text_of_unknown_name(why: &str) -> bool {
    why.contains("Name or service not known") || why.contains("No address associated with hostname")
}

pub(super) fn with_hint(service: &Service, error: Error, hint: Option<&str>) -> Error {
    match (error.kind(), hint) {
        (_, Some(hint)) => error.hint(hint),
        (Kind::Denied, None) => error.hint(service.denied_hint),
        (Kind::Full, None) => {
            error.hint("free space in the bucket or raise its quota; what is stored already stays valid")
        }
        (Kind::Temporary, None) => {
            error.hint(format!("check the network, and whether the {} server at this address is running", service.name))
        }
        _ => error,
    }
}

pub(super) fn kind_of(error: &opendal::Error, io: Option<Kind>, why: &str) -> Kind {
    match error.kind() {
        ErrorKind::NotFound => Kind::NotFound,
        ErrorKind::PermissionDenied => Kind::Denied,
        ErrorKind::AlreadyExists => Kind::AlreadyExists,
        ErrorKind::ConditionNotMatch => Kind::Conflict,
        // Two conditional writes met; neither has won yet.
        ErrorKind::Conflict | ErrorKind::RateLimited => Kind::Temporary,
        ErrorKind::RangeNotSatisfied => Kind::Corrupt,
        ErrorKind::Unsupported => Kind::Unsupported,
        ErrorKind::ConfigInvalid => Kind::Invalid,
        _ if why.contains("credential") => Kind::Denied,
        _ if error.is_temporary() => Kind::Temporary,
        _ => io.unwrap_or(Kind::Failed),
    }
}

pub(super) fn io_kind(error: &(dyn Cause + 'static)) -> Option<Kind> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(io) = error.downcast_ref::<std::io::Error>() {
            return Some(kind_of_io(io));
        }
        next = error.source();
    }
    None
}

/// What the service's answer or the network says, without headers and addresses.
pub(super) fn failed(service: &Service, doing: &str, name: &str, error: &opendal::Error) -> Error {
    let Some(source) = error.source() else {
        let answer = (service.read_answer)(error);
        let why = answer.why.unwrap_or_else(|| error.kind().to_string());
        let kind = answer.kind.unwrap_or_else(|| kind_of(error, None, &why));
        return with_hint(service, Error::new(kind, doing, name).because(why), answer.hint);
    };
    let why = tls::innermost(source);
    if let (why, Some(advice)) = tls::explain(&why) {
        // Trying again changes no certificate.
        return Error::new(Kind::Failed, doing, name).because(why).hint(advice);
    }
    let kind = kind_of(error, io_kind(source), &why);
    with_hint(service, Error::new(kind, doing, name).because(why), None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::ToSocketAddrs;

    #[test]
    fn the_text_for_a_host_that_does_not_exist_is_known() {
        // No name server is asked for a name with an empty label.
        let error = ("no..host", 443).to_socket_addrs().expect_err("it is no name");
        assert!(is_text_of_unknown_name(&error.to_string()), "{error}");
        assert!(!is_text_of_unknown_name("Temporary failure in name resolution"));
    }
}
