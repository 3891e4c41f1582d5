//! The clocks: the time of day, and a clock for pauses that tests can replace.

use super::Cancel;
use crate::entry::Time;
use crate::error::Result;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The time of day on this machine.
pub fn now() -> Time {
    match SystemTime::now().duration_since(UNIX_EPOCH) {
        Ok(since) => Time { seconds: since.as_secs() as i64, nanoseconds: since.subsec_nanos() },
        Err(before) => Time { seconds: -(before.duration().as_secs() as i64), nanoseconds: 0 },
    }
}

/// What pauses go by. The time of day plays no part: it may jump.
pub trait Clock: Send + Sync {
    /// Since some moment that stays the same.
    fn elapsed(&self) -> Duration;

    /// Waits; a cancel ends the wait with an error of kind `Cancelled`.
    fn pause(&self, duration: Duration, cancel: &Cancel) -> Result<()>;
}

/// The machine's own clock.
#[derive(Debug)]
pub(crate) struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        SystemClock(Instant::now())
    }
}

impl Clock for SystemClock {
    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }

    fn pause(&self, duration: Duration, cancel: &Cancel) -> Result<()> {
        cancel.pause(duration)
    }
}

/// A clock that only pauses move on.
#[cfg(test)]
#[derive(Debug, Default)]
pub(crate) struct FakeClock {
    now: std::sync::Mutex<Duration>,
}

#[cfg(test)]
impl FakeClock {
    pub(crate) fn advance(&self, duration: Duration) {
        *self.now.lock().unwrap() += duration;
    }
}

#[cfg(test)]
impl Clock for FakeClock {
    fn elapsed(&self) -> Duration {
        *self.now.lock().unwrap()
    }

    fn pause(&self, duration: Duration, cancel: &Cancel) -> Result<()> {
        self.advance(duration);
        cancel.check()
    }
}
