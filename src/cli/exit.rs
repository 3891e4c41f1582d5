//! The exit code as a type, and how a failed command is reported (docs/OPERATIONS.md lists both).

use super::print::{json_line, print_error_line};
use super::text::show_path;
use serde::Serialize;
use siltstone::error::{Error, ErrorSide, Kind};
use std::process::ExitCode;

/// How the command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Exit {
    Done = 0,
    Failed = 1,
    /// Invalid command line.
    Usage = 2,
    /// Done, but something could not be saved or restored as it was.
    Warnings = 3,
    Locked = 4,
    WrongKey = 5,
    Corrupt = 6,
    Interrupted = 130,
}

impl Exit {
    pub(crate) fn of(kind: Kind) -> Exit {
        match kind {
            Kind::Locked | Kind::Stale => Exit::Locked,
            Kind::WrongKey => Exit::WrongKey,
            Kind::Corrupt => Exit::Corrupt,
            Kind::Cancelled => Exit::Interrupted,
            _ => Exit::Failed,
        }
    }

    /// Done, with warnings if there were any.
    pub fn with_warnings(count: u64) -> Exit {
        if count == 0 { Exit::Done } else { Exit::Warnings }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> ExitCode {
        ExitCode::from(exit as u8)
    }
}

/// Why a verb ended early.
#[derive(Debug)]
pub(super) enum Failure {
    /// What is wrong with the command line: a clause without a full stop.
    Usage(String),
    Error(Error),
}

/// Why a run failed, as JSON.
#[derive(Serialize)]
struct FailureReport<T> {
    error: T,
}

/// A mistake in the command line, as JSON.
#[derive(Serialize)]
struct UsageReport<'a> {
    kind: &'static str,
    side: ErrorSide,
    message: &'a str,
    hint: Option<&'a str>,
}

impl From<Error> for Failure {
    fn from(error: Error) -> Failure {
        Failure::Error(error)
    }
}

impl Failure {
    pub(super) fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) => Exit::Usage,
            Failure::Error(error) => Exit::of(error.kind()),
        }
    }

    /// Reports the failure on standard error, as text or as JSON.
    pub(super) fn report(&self, json: bool) {
        if json {
            let line = match self {
                Failure::Usage(message) => json_line(&FailureReport {
                    error: UsageReport { kind: "usage", side: ErrorSide::Request, message, hint: None },
                }),
                Failure::Error(error) => json_line(&FailureReport { error }),
            };
            print_error_line(&line);
            return;
        }
        let (message, hint) = match self {
            Failure::Usage(message) => (message.clone(), None),
            Failure::Error(error) => (error.to_string(), error.advice()),
        };
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
