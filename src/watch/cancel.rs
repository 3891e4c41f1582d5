//! A shared switch that asks running work to stop, and what must stop with it.

use crate::error::{Error, Kind, Result};
use crate::lock::locked;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};
use std::time::{Duration, Instant};

/// After a cancel, requests to storage that are under way or save what was done may take this long in all.
pub(crate) const REQUEST_GRACE: Duration = Duration::from_millis(1000);
/// Requests that tidy up (removals, renames) may take a little longer, so that they still happen when saving took all
/// the time.
pub(crate) const TIDY_GRACE: Duration = Duration::from_millis(1300);
/// How often a pause checks for a cancel.
const LOOK: Duration = Duration::from_millis(20);

/// A shared switch that asks running work to stop. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Cancel(Arc<CancelSwitch>);

#[derive(Debug, Default)]
struct CancelSwitch {
    is_cancelled: Arc<AtomicBool>,
    /// When a check first saw that it is set; a signal handler can set no more than the flag.
    since: OnceLock<Instant>,
    children: Mutex<BTreeSet<GuardedChild>>,
}

/// A running command: a whole process group, or one process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum GuardedChild {
    Group(u32),
    Process(u32),
}

impl Cancel {
    /// Ends all work that has this cancel, within two seconds.
    pub fn cancel(&self) {
        self.0.is_cancelled.store(true, Ordering::SeqCst);
        self.elapsed();
    }

    pub(crate) fn is_cancelled(&self) -> bool {
        self.0.is_cancelled.load(Ordering::Relaxed)
    }

    /// An error of kind `Cancelled` once a stop was requested.
    pub fn check(&self) -> Result<()> {
        if self.is_cancelled() {
            return Err(interrupted("finish the run", ""));
        }
        Ok(())
    }

    /// How long ago a stop was requested.
    pub(crate) fn elapsed(&self) -> Option<Duration> {
        self.is_cancelled().then(|| self.0.since.get_or_init(Instant::now).elapsed())
    }

    /// Whether a stop was requested longer ago than `grace`.
    pub(crate) fn is_over(&self, grace: Duration) -> bool {
        self.elapsed().is_some_and(|elapsed| elapsed >= grace)
    }

    /// Waits; a cancel ends the wait with an error of kind `Cancelled`.
    pub fn pause(&self, duration: Duration) -> Result<()> {
        let begun = Instant::now();
        loop {
            self.check()?;
            match duration.saturating_sub(begun.elapsed()) {
                Duration::ZERO => return Ok(()),
                remaining => std::thread::sleep(remaining.min(LOOK)),
            }
        }
    }

    /// The switch itself, for a signal handler.
    pub fn flag(&self) -> Arc<AtomicBool> {
        self.0.is_cancelled.clone()
    }

    /// Notes a running command whose process group must not outlive this process.
    pub fn guard_group(&self, leader: u32) -> ChildGuard {
        self.guard(GuardedChild::Group(leader))
    }

    /// The same for a single process, which shares the group of this one.
    pub fn guard_process(&self, process: u32) -> ChildGuard {
        self.guard(GuardedChild::Process(process))
    }

    fn guard(&self, child: GuardedChild) -> ChildGuard {
        self.children().insert(child);
        ChildGuard { cancel: self.clone(), child }
    }

    /// Kills all commands that still run: for a process that ends without waiting for its own threads.
    pub fn kill_children(&self) {
        for child in self.children().iter() {
            // One that has ended meanwhile needs no signal.
            let _gone = match *child {
                GuardedChild::Group(leader) => pid(leader).map(|pid| kill_process_group(pid, Signal::KILL)),
                GuardedChild::Process(process) => pid(process).map(|pid| kill_process(pid, Signal::KILL)),
            };
        }
    }

    fn children(&self) -> MutexGuard<'_, BTreeSet<GuardedChild>> {
        locked(&self.0.children)
    }
}

fn pid(number: u32) -> Option<Pid> {
    i32::try_from(number).ok().and_then(Pid::from_raw)
}

/// The error of work that was asked to stop.
pub(crate) fn interrupted(doing: &str, thing: &str) -> Error {
    Error::new(Kind::Cancelled, doing, thing).because("it was interrupted")
}

/// A running command that is noted. Drop it before the command is waited for: afterwards its number may be another's.
#[must_use]
#[derive(Debug)]
pub struct ChildGuard {
    cancel: Cancel,
    child: GuardedChild,
}

impl Drop for ChildGuard {
    fn drop(&mut self) {
        self.cancel.children().remove(&self.child);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::{CommandExt, ExitStatusExt};
    use std::process::Command;

    #[test]
    fn a_cancel_ends_a_pause_however_long_it_was_to_be() {
        let cancel = Cancel::default();
        cancel.pause(Duration::ZERO).unwrap();
        assert!(!cancel.is_over(Duration::ZERO));
        // As a signal handler does it.
        cancel.flag().store(true, Ordering::SeqCst);
        assert!(cancel.pause(Duration::from_secs(3600)).unwrap_err().is(Kind::Cancelled));
        assert!(cancel.is_over(Duration::ZERO) && !cancel.is_over(Duration::from_secs(3600)));
    }

    #[test]
    fn commands_end_with_a_process_that_does_not_wait_for_them() {
        let cancel = Cancel::default();
        let mut ended = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let mut spared = Command::new("sleep").arg("1000").process_group(0).spawn().unwrap();
        let _guard = cancel.guard_group(ended.id());
        drop(cancel.guard_process(spared.id()));
        cancel.kill_children();
        assert_eq!(ended.wait().unwrap().signal(), Some(9));
        assert!(spared.try_wait().unwrap().is_none(), "no stop was requested");
        spared.kill().unwrap();
        spared.wait().unwrap();
    }
}
