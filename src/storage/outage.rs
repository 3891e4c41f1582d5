//! Decides when a notice says that a storage does not answer: once for each outage, and once when the outage is over.

use crate::lock::locked;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

/// A new outage this soon after the last notice is reported only if it lasts [`LASTING`].
const QUIET: Duration = Duration::from_secs(60);
const LASTING: Duration = Duration::from_secs(10);

/// The outage of one storage, across all requests that it fails at the same time.
#[derive(Default)]
pub(super) struct Outage(Mutex<OutageState>);

#[derive(Default)]
struct OutageState {
    /// Requests that failed and are being tried again.
    failing: usize,
    since: Duration,
    is_told: bool,
    last_told: Option<Duration>,
}

impl Outage {
    fn lock(&self) -> MutexGuard<'_, OutageState> {
        locked(&self.0)
    }

    /// A request has failed for the first time.
    pub(crate) fn begin(&self, now: Duration) {
        let mut state = self.lock();
        if state.failing == 0 {
            state.since = now;
            state.is_told = false;
        }
        state.failing += 1;
    }

    /// Returns whether to report the outage now.
    pub(crate) fn is_news(&self, now: Duration) -> bool {
        let mut state = self.lock();
        let is_quiet = state.last_told.is_none_or(|last| now.saturating_sub(last) >= QUIET);
        let is_news = !state.is_told && (is_quiet || now.saturating_sub(state.since) >= LASTING);
        if is_news {
            state.is_told = true;
            state.last_told = Some(now);
        }
        is_news
    }

    /// A failing request has succeeded, or has failed for good. Returns how long the outage lasted if it is over and was reported.
    pub(crate) fn end(&self, now: Duration, is_well: bool) -> Option<Duration> {
        let mut state = self.lock();
        state.failing = state.failing.saturating_sub(1);
        let is_over = state.failing == 0 && is_well && state.is_told;
        is_over.then(|| now.saturating_sub(state.since))
    }
}

/// A duration for people.
pub(super) fn shown(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    match seconds {
        0..2 => format!("{:.1} s", duration.as_secs_f64()),
        2..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", (seconds + 30) / 60),
        _ => format!("{} h", (seconds + 1800) / 3600),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn an_outage_is_reported_once_however_many_requests_fail() {
        let outage = Outage::default();
        outage.begin(s(5));
        outage.begin(s(5));
        assert!(outage.is_news(s(5)) && !outage.is_news(s(6)));
        assert_eq!(outage.end(s(7), true), None, "another request still fails");
        assert_eq!(outage.end(s(9), true), Some(s(4)));
        // The next attempt comes soon: an outage is reported when it lasts.
        outage.begin(s(20));
        assert!(!outage.is_news(s(20)) && outage.is_news(s(30)));
        assert_eq!(outage.end(s(31), false), None, "a request that gave up ends no outage");
        outage.begin(s(100));
        assert!(outage.is_news(s(100)));
    }

    #[test]
    fn durations_are_short_words() {
        let table = [(0.14, "0.1 s"), (8.2, "8 s"), (840.0, "14 min"), (900.0, "15 min"), (7200.0, "2 h")];
        for (seconds, words) in table {
            assert_eq!(shown(Duration::from_secs_f64(seconds)), words);
        }
    }
}
