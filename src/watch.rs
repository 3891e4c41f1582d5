//! Events out, cancel in, the clock: how the engine talks to its caller, without printing.

mod cancel;
mod clock;
mod ledger;

pub use cancel::{Cancel, ChildGuard};
pub(crate) use cancel::{REQUEST_GRACE, TIDY_GRACE, interrupted};
pub use clock::Clock;
#[cfg(test)]
pub(crate) use clock::FakeClock;
pub(crate) use clock::SystemClock;
pub use clock::now;
pub(crate) use ledger::Ledger;

use crate::entry::{PathText, Warning};
use serde::Serialize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Counters of a running verb, read by progress displays. They grow, and begin at zero again when the work starts over.
#[derive(Debug, Default)]
pub struct Progress {
    /// Entries seen, whatever their kind.
    pub entries: AtomicU64,
    /// Files that are done.
    pub files_done: AtomicU64,
    /// Bytes of sources (or of restored files) that are done, including those of unchanged files.
    pub bytes_done: AtomicU64,
    /// Bytes read from sources.
    pub bytes_read: AtomicU64,
    /// Bytes sent to or fetched from storage.
    pub bytes_stored: AtomicU64,
    /// The expected totals, or 0 if they are not known.
    pub files_expected: AtomicU64,
    /// See `files_expected`.
    pub bytes_expected: AtomicU64,
    /// Parts of a repository that were met and cannot be read.
    pub damaged: AtomicU64,
    current: std::sync::Mutex<Vec<u8>>,
}

impl Progress {
    /// Sets the path being worked on. Does nothing while another thread sets it.
    pub(crate) fn set_current(&self, path: &[u8]) {
        if let Ok(mut current) = self.current.try_lock() {
            current.clear();
            current.extend_from_slice(path);
        }
    }

    /// Counts from zero again, as the work starts over.
    fn reset(&self) {
        let done = [&self.entries, &self.files_done, &self.bytes_done, &self.bytes_read, &self.bytes_stored];
        done.into_iter().for_each(|count| count.store(0, Ordering::Relaxed));
    }

    /// The path that is being worked on; empty before the first.
    pub fn current(&self) -> Vec<u8> {
        self.current.lock().map(|path| path.clone()).unwrap_or_default()
    }
}

/// Something that happened and that a person may want to know. As JSON it has its name in the field `event`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "event")]
pub enum Event {
    /// A stage of the work begins.
    Stage {
        /// Its name: "walking", "committing".
        stage: String,
    },
    /// Worth knowing, and nothing is missing: a cache was rebuilt, a directory was skipped.
    Notice(Notice),
    /// Something of the source could not be saved as it is, or of a snapshot not restored as it was.
    Warning(Warning),
    /// The work starts over: earlier warnings do not count.
    StartsOver,
}

/// Worth knowing, and nothing is missing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Notice {
    /// What it is about.
    pub kind: NoticeKind,
    /// What it says, for people.
    pub text: String,
}

/// What a notice is about: for programs that act on some of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum NoticeKind {
    /// The cache or the local state cannot be used, or was rebuilt: it costs time.
    Cache,
    /// The clock of a host was wrong.
    Clock,
    /// The repository has lost something, or something was repaired.
    Damage,
    /// Something is not deleted from the target of a restore.
    Deletion,
    /// The work is done, but its result could not be printed.
    Output,
    /// The storage does not answer, or answers again.
    Outage,
    /// Unexpected objects in the repository, or another repository than before.
    Repository,
    /// The work starts over.
    Restart,
    /// A secret is readable by other users.
    Security,
    /// Something was skipped, as it should be.
    Skipped,
    /// The snapshot that is used is not complete.
    Snapshot,
    /// How a source is saved.
    Source,
    /// What the command of a stream said, or how its output is saved.
    Stream,
    /// What is special about the target of a restore.
    Target,
}

/// Receives events; called from many threads.
pub(crate) type Listener = dyn Fn(Event) + Send + Sync;

/// Where a verb reports to, and how it is cancelled. Cheap to clone.
#[derive(Clone)]
pub struct Watch {
    /// Counters, to be read at any time.
    pub progress: Arc<Progress>,
    /// Ends the work.
    pub cancel: Cancel,
    listener: Arc<Listener>,
    /// What is reported is not part of what the run does.
    is_aside: bool,
}

impl Watch {
    /// Reports to this listener.
    pub fn new(listener: Arc<Listener>) -> Self {
        Watch { progress: Arc::default(), cancel: Cancel::default(), listener, is_aside: false }
    }

    /// Drops all events: for tests, and for callers that need only the result.
    pub fn silent() -> Self {
        Watch::new(Arc::new(|_| ()))
    }

    pub(crate) fn stage(&self, name: &str) {
        (self.listener)(Event::Stage { stage: name.to_owned() });
    }

    /// Reports a notice.
    pub fn notice(&self, kind: NoticeKind, text: impl Into<String>) {
        (self.listener)(Event::Notice(Notice { kind, text: text.into() }));
    }

    /// The work starts over, and counts from zero again.
    pub(crate) fn start_over(&self) {
        self.progress.reset();
        (self.listener)(Event::StartsOver);
    }

    pub(crate) fn warn(&self, path: &[u8], what: impl Into<String>) {
        (self.listener)(Event::Warning(Warning { path: PathText(path.to_vec()), what: what.into() }));
    }

    /// The same, but a warning becomes a notice: for reading what is not part of what this run saves or restores.
    pub(crate) fn aside(&self) -> Watch {
        let listener = self.listener.clone();
        let aside = move |event| match event {
            Event::Warning(Warning { path, what }) => {
                let text = format!("{}: {what}", String::from_utf8_lossy(&path.0));
                listener(Event::Notice(Notice { kind: NoticeKind::Damage, text }));
            }
            other => listener(other),
        };
        Watch { listener: Arc::new(aside), is_aside: true, ..self.clone() }
    }

    /// The same, but only notices are passed on: for work in the middle of another stage.
    pub(crate) fn notices_only(&self) -> Watch {
        let listener = self.listener.clone();
        let notices = move |event| {
            if matches!(event, Event::Notice(_)) {
                listener(event);
            }
        };
        Watch { listener: Arc::new(notices), is_aside: true, ..self.clone() }
    }

    /// A warning because the repository is damaged: what is at this path in a snapshot cannot be read.
    pub(crate) fn damage(&self, path: &[u8], what: impl Into<String>) {
        if !self.is_aside {
            self.progress.damaged.fetch_add(1, Ordering::Relaxed);
        }
        self.warn(path, what);
    }
}
