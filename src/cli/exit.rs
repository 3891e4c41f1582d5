//! The exit code as a type, and how a failed command is reported (docs/OPERATIONS.md lists both).

use super::print::print_error_line;
use super::text::show_path;
use siltstone::error::{Error, Kind};
use std::process::ExitCode;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Done = 0,
    Failed = 1,
    /// The words make no sense.
    Usage = 2,
    /// Done, but something could not be saved or restored as it was.
    Gaps = 3,
    Locked = 4,
    WrongKey = 5,
    Corrupt = 6,
    Interrupted = 130,
}

impl Exit {
    pub fn of(kind: Kind) -> Exit {
        match kind {
            Kind::Locked | Kind::Stale => Exit::Locked,
            Kind::WrongKey => Exit::WrongKey,
            Kind::Corrupt => Exit::Corrupt,
            Kind::Cancelled => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    /// Done, with gaps when there were warnings.
    pub fn with_warnings(count: u64) -> Exit {
        if count == 0 { Exit::Done } else { Exit::Gaps }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a verb ended early.
#[derive(Debug)]
pub enum Failure {
    /// What the words lack or have too much of: a whole sentence without a full stop.
    Usage(String),
    Error(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

impl Failure {
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) => Exit::Usage,
            Failure::Error(error) => Exit::of(error.kind()),
        }
    }

    /// Tells the person (or the program) in front of it.
    pub fn report(&self, json: bool) {
        let (kind, message, hint) = match self {
            Failure::Usage(message) => ("usage", message.clone(), None),
            Failure::Error(error) => (kind_name(error.kind()), error.to_string(), error.advice()),
        };
        if json {
            let error = serde_json::json!({"error": {"kind": kind, "message": message, "hint": hint}});
            print_error_line(&error.to_string());
            return;
        }
        // An error is one line, whatever names and messages of others it quotes.
        print_error_line(&format!("silt: {}", one_line(&message)));
        if let Some(hint) = hint {
            print_error_line(&format!("hint: {}", one_line(hint)));
        }
    }
}

fn one_line(text: &str) -> String {
    show_path(text.trim_end().as_bytes())
}

/// How a kind is called in JSON.
pub fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::NotFound => "not-found",
        Kind::AlreadyExists => "already-exists",
        Kind::Conflict => "conflict",
        Kind::Denied => "denied",
        Kind::Temporary => "temporary",
        Kind::Corrupt => "corrupt",
        Kind::WrongKey => "wrong-key",
        Kind::Invalid => "invalid",
        Kind::Unsupported => "unsupported",
        Kind::Full => "full",
        Kind::Locked => "locked",
        Kind::Stale => "stale",
        Kind::Gone => "gone",
        Kind::Cancelled => "cancelled",
        _ => "failed",
    }
}
