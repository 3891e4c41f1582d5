//! Retry requests that failed for a reason that may pass, find out what became of requests whose answer was lost, and stop when asked to.

use crate::error::{Error, ErrorSide, Kind, Result};
use crate::forward_storage;
use crate::storage::outage::{Outage, shown};
use crate::storage::{ListedObject, ObjectBody, ObjectStat, ObjectVersion, Storage};
use crate::watch::{Clock, NoticeKind, REQUEST_GRACE, SystemClock, TIDY_GRACE, Watch, interrupted};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

/// How long a request is retried, unless the caller says otherwise.
pub const RETRY_FOR: Duration = Duration::from_secs(15 * 60);
const PAUSE_BASE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A storage whose temporary failures are waited for, each request as long as it takes or the limit allows.
///
/// Once the watch is cancelled nothing is tried again, and soon nothing more is asked for: a run has a moment to save what
/// it did (one second), and one more to tidy up.
pub struct Retry {
    inner: Arc<dyn Storage>,
    limits: RetryLimits,
    watch: Watch,
    clock: Arc<dyn Clock>,
    outage: Outage,
}

#[derive(Clone, Copy)]
struct RetryLimits {
    /// Attempts of one request, the first included.
    attempts: u32,
    /// From its first failure on.
    lasting: Duration,
}

impl Retry {
    /// With the default patience, without notices, and without a way to cancel it.
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Retry::patient(inner, RETRY_FOR, &Watch::silent())
    }

    /// At most this many attempts, the first included.
    pub fn with_attempts(inner: Arc<dyn Storage>, attempts: u32) -> Self {
        let mut retry = Retry::new(inner);
        retry.limits.attempts = attempts;
        retry
    }

    /// Retries each request for this long (zero: not at all). The watch receives notices about outages.
    pub(crate) fn patient(inner: Arc<dyn Storage>, lasting: Duration, watch: &Watch) -> Self {
        let attempts = if lasting.is_zero() { 1 } else { u32::MAX };
        let clock = Arc::new(SystemClock::default());
        let limits = RetryLimits { attempts, lasting };
        Retry { inner, limits, watch: watch.clone(), clock, outage: Outage::default() }
    }

    /// Goes by another clock.
    pub fn with_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// `attempt` learns whether an earlier attempt failed, which may have succeeded without its answer arriving.
    fn retry<T>(&self, request: &RetriedRequest, mut attempt: impl FnMut(bool) -> Result<T>) -> Result<T> {
        let mut tries: Option<RetrySeries> = None;
        loop {
            if self.watch.cancel.is_over(request.grace) {
                return Err(interrupted(request.doing, request.thing));
            }
            let error = match attempt(tries.is_some()) {
                Err(error) if error.is_temporary() => error,
                done => {
                    tries.into_iter().for_each(|tries| tries.end(done.is_ok()));
                    return done.map_err(from_storage);
                }
            };
            let now = self.clock.elapsed();
            let tries = tries.get_or_insert_with(|| RetrySeries::begin(self, now));
            let Some(pause) = tries.pause(now) else { return Err(from_storage(error)) };
            if self.watch.cancel.is_cancelled() {
                return Err(interrupted(error.doing(), error.thing()));
            }
            self.tell(tries, now, &error);
            self.clock.pause(pause, &self.watch.cancel).map_err(|_| interrupted(error.doing(), error.thing()))?;
        }
    }

    fn tell(&self, tries: &RetrySeries, now: Duration, error: &Error) {
        if self.outage.is_news(now) {
            let remaining = tries.remaining(now);
            self.watch.notice(NoticeKind::Outage, format!("{error}; trying again for up to {}", shown(remaining)));
        }
    }

    /// The version of the object if it is what we wrote.
    fn version_if_ours(&self, name: &str, body: &ObjectBody) -> Result<Option<ObjectVersion>> {
        let found = self.get(name, body.len());
        match found {
            Ok((bytes, version)) => Ok(is_same(&bytes, body).then_some(version)),
            // A longer one is not ours, nor is one that is gone.
            Err(error) if error.is(Kind::Corrupt) || error.is(Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ours_or(&self, name: &str, body: &ObjectBody, refused: Error) -> Result<ObjectVersion> {
        match self.version_if_ours(name, body)? {
            Some(version) => Ok(version),
            None => Err(refused),
        }
    }

    fn is_there(&self, name: &str) -> Result<bool> {
        match self.stat(name) {
            Ok(_) => Ok(true),
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What is asked of the storage, for errors, and how long after a cancel it may still be asked.
struct RetriedRequest<'a> {
    doing: &'a str,
    thing: &'a str,
    grace: Duration,
}

impl<'a> RetriedRequest<'a> {
    fn new(doing: &'a str, thing: &'a str) -> Self {
        RetriedRequest { doing, thing, grace: REQUEST_GRACE }
    }

    fn tidying(doing: &'a str, thing: &'a str) -> Self {
        RetriedRequest { doing, thing, grace: TIDY_GRACE }
    }
}

/// The failed attempts of one request.
struct RetrySeries<'a> {
    retry: &'a Retry,
    since: Duration,
    failures: u32,
    has_ended: bool,
}

impl<'a> RetrySeries<'a> {
    fn begin(retry: &'a Retry, now: Duration) -> Self {
        retry.outage.begin(now);
        RetrySeries { retry, since: now, failures: 0, has_ended: false }
    }

    fn remaining(&self, now: Duration) -> Duration {
        self.retry.limits.lasting.saturating_sub(now.saturating_sub(self.since))
    }

    /// After another failure: how long to wait before the next attempt, if there is to be one. The last one is made when
    /// the time is over.
    fn pause(&mut self, now: Duration) -> Option<Duration> {
        self.failures += 1;
        let remaining = self.remaining(now);
        (self.failures < self.retry.limits.attempts && !remaining.is_zero())
            .then(|| pause(self.failures).min(remaining))
    }

    fn end(mut self, is_over: bool) {
        self.has_ended = true;
        let now = self.retry.clock.elapsed();
        if let Some(lasted) = self.retry.outage.end(now, is_over) {
            let place = self.retry.inner.describe();
            self.retry.watch.notice(NoticeKind::Outage, format!("{place} answers again after {}", shown(lasted)));
        }
    }
}

impl Drop for RetrySeries<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.retry.outage.end(self.retry.clock.elapsed(), false);
        }
    }
}

/// Opens a storage, and retries that as [`Retry::patient`] retries requests to an open one.
pub(crate) fn open_patiently<T>(lasting: Duration, watch: &Watch, mut open: impl FnMut() -> Result<T>) -> Result<T> {
    let clock = SystemClock::default();
    for failures in 1.. {
        let error = match open() {
            Err(error) if error.is_temporary() => error,
            done => return done.map_err(from_storage),
        };
        let remaining = lasting.saturating_sub(clock.elapsed());
        if remaining.is_zero() {
            return Err(from_storage(error));
        }
        if failures == 1 {
            watch.notice(NoticeKind::Outage, format!("{error}; trying again for up to {}", shown(remaining)));
        }
        let pause = pause(failures).min(remaining);
        clock.pause(pause, &watch.cancel).map_err(|_| interrupted(error.doing(), error.thing()))?;
    }
    Err(interrupted("open the storage", ""))
}

/// What an object is like says nothing about the storage; all else does.
fn from_storage(error: Error) -> Error {
    match error.kind() {
        Kind::Temporary | Kind::Denied | Kind::Full | Kind::Failed | Kind::Unsupported => {
            error.with_side(ErrorSide::Storage)
        }
        _ => error,
    }
}

fn is_same(bytes: &[u8], body: &ObjectBody) -> bool {
    let mut rest = bytes;
    let all = body.0.iter().all(|piece| match rest.split_at_checked(piece.len()) {
        Some((start, end)) => {
            rest = end;
            start == piece
        }
        None => false,
    });
    all && rest.is_empty()
}

/// Between half of the doubled pause and all of it: many clients that failed together do not return together.
fn pause(failures: u32) -> Duration {
    let most = PAUSE_BASE.saturating_mul(1 << (failures - 1).min(16)).min(PAUSE_MAX);
    let share = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
    most.mul_f64((1.0 + share) / 2.0)
}

impl Storage for Retry {
    forward_storage!(self => self.inner; describe, identity, local_path, capabilities, profile);

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        self.retry(&RetriedRequest::new("write", name), |_| self.inner.put(name, body.clone()))
    }

    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        self.retry(&RetriedRequest::new("write", name), |is_again| match self.inner.put_new(name, body.clone()) {
            Err(error) if is_again && error.is(Kind::AlreadyExists) => self.ours_or(name, &body, error),
            done => done,
        })
    }

    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
        let request = RetriedRequest::tidying("replace", name);
        self.retry(&request, |is_again| match self.inner.compare_and_swap(name, expected, body.clone()) {
            Err(error) if is_again && error.is(Kind::Conflict) => self.ours_or(name, &body, error),
            done => done,
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.retry(&RetriedRequest::tidying("rename", from), |is_again| match self.inner.rename(from, to) {
            Err(error) if is_again && (error.is(Kind::NotFound) || error.is(Kind::AlreadyExists)) => {
                if !self.is_there(from)? && self.is_there(to)? { Ok(()) } else { Err(error) }
            }
            done => done,
        })
    }

    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        self.retry(&RetriedRequest::new("read", name), |_| self.inner.get(name, bytes_max))
    }

    fn get_uncached(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        self.retry(&RetriedRequest::new("read", name), |_| self.inner.get_uncached(name, bytes_max))
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.retry(&RetriedRequest::new("read", name), |_| self.inner.get_range(name, offset, length))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        self.retry(&RetriedRequest::new("list", prefix), |_| self.inner.list(prefix))
    }

    fn list_between(&self, prefix: &str, after: &str, until: Option<&str>) -> Result<Vec<ListedObject>> {
        self.retry(&RetriedRequest::new("list", prefix), |_| self.inner.list_between(prefix, after, until))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.retry(&RetriedRequest::tidying("remove", name), |_| self.inner.remove(name))
    }

    fn stat(&self, name: &str) -> Result<ObjectStat> {
        self.retry(&RetriedRequest::new("look at", name), |_| self.inner.stat(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::Memory;
    use crate::storage::throttle::Delayed;
    use crate::watch::{Event, FakeClock, Notice};
    use std::sync::Mutex;
    use std::sync::atomic::{AtomicU32, Ordering};

    const MINUTE: Duration = Duration::from_secs(60);

    /// A folder on a network whose server was away for a moment ended the run before it began.
    #[test]
    fn what_may_pass_is_waited_for_while_a_storage_is_opened() {
        let away = |kind, failures| {
            let mut left = failures;
            move || match left {
                0 => Ok(()),
                _ => {
                    left -= 1;
                    Err(Error::new(kind, "open", "the store"))
                }
            }
        };
        open_patiently(MINUTE, &Watch::silent(), away(Kind::Temporary, 2)).expect("it is there again");
        for (lasting, kind) in [(MINUTE, Kind::NotFound), (Duration::ZERO, Kind::Temporary)] {
            assert!(open_patiently(lasting, &Watch::silent(), away(kind, 1)).expect_err("it fails").is(kind));
        }
        let stopped = Watch::silent();
        stopped.cancel.cancel();
        let ended = open_patiently(MINUTE, &stopped, away(Kind::Temporary, u32::MAX)).expect_err("it is over");
        assert!(ended.is(Kind::Cancelled));
    }

    /// Refuses everything until a moment of a clock.
    struct Down {
        clock: Arc<FakeClock>,
        until: Duration,
        asked: AtomicU32,
        up: Memory,
    }

    impl Down {
        fn ask(&self) -> Result<&Memory> {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if self.clock.elapsed() >= self.until {
                Ok(&self.up)
            } else {
                Err(Error::new(Kind::Temporary, "ask", "the store").because("SlowDown"))
            }
        }
    }

    impl Storage for Down {
        fn describe(&self) -> String {
            "the store".to_owned()
        }
        forward_storage!(self => self.up; capabilities, profile);
        fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
            self.ask()?.put(name, body)
        }
        fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
            self.ask()?.put_new(name, body)
        }
        fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
            self.ask()?.compare_and_swap(name, expected, body)
        }
        fn rename(&self, from: &str, to: &str) -> Result<()> {
            self.ask()?.rename(from, to)
        }
        fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
            self.ask()?.get(name, bytes_max)
        }
        fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
            self.ask()?.get_range(name, offset, length)
        }
        fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
            self.ask()?.list(prefix)
        }
        fn remove(&self, name: &str) -> Result<()> {
            self.ask()?.remove(name)
        }
        fn stat(&self, name: &str) -> Result<ObjectStat> {
            self.ask()?.stat(name)
        }
    }

    struct Scene {
        clock: Arc<FakeClock>,
        down: Arc<Down>,
        retry: Retry,
        watch: Watch,
        told: Arc<Mutex<Vec<String>>>,
    }

    fn scene(down_for: Duration, patience: Duration) -> Scene {
        let clock = Arc::new(FakeClock::default());
        let down = Down { clock: clock.clone(), until: down_for, asked: AtomicU32::new(0), up: Memory::new() };
        let down = Arc::new(down);
        let told = Arc::new(Mutex::new(Vec::new()));
        let ear = told.clone();
        let watch = Watch::new(Arc::new(move |event| match event {
            Event::Notice(Notice { text, .. }) => ear.lock().unwrap().push(text),
            other => panic!("{other:?}"),
        }));
        let retry = Retry::patient(down.clone(), patience, &watch).with_clock(clock.clone());
        Scene { clock, down, retry, watch, told }
    }

    /// A store that refused for eight seconds ended the backup of a night.
    #[test]
    fn an_outage_of_minutes_is_waited_for_and_its_beginning_and_end_are_reported() {
        let scene = scene(14 * MINUTE, RETRY_FOR);
        scene.retry.put("a", b"x".as_slice().into()).unwrap();
        let (took, asked) = (scene.clock.elapsed(), scene.down.asked.load(Ordering::SeqCst));
        assert!(took >= 14 * MINUTE && took <= 14 * MINUTE + PAUSE_MAX, "{took:?}");
        // Pauses grow: neither hammers it a store that is down, nor does it see late that it is up again.
        assert!((30..80).contains(&asked), "{asked}");
        let told = scene.told.lock().unwrap();
        assert_eq!(told.len(), 2, "{told:?}");
        assert_eq!(told[0], "cannot ask the store: SlowDown; trying again for up to 15 min");
        // The last pause is random: 14 minutes and up to half a minute.
        assert_eq!(told[1], format!("the store answers again after {}", shown(took)));
    }

    #[test]
    fn patience_ends_when_it_was_to_end_and_not_before() {
        for _ in 0..200 {
            let scene = scene(Duration::MAX, MINUTE);
            assert!(scene.retry.stat("a").unwrap_err().is_temporary());
            assert_eq!(scene.clock.elapsed(), MINUTE, "the last attempt is made when the time is over");
        }
        let scene = scene(Duration::MAX, Duration::ZERO);
        assert!(scene.retry.stat("a").unwrap_err().is_temporary());
        assert_eq!((scene.clock.elapsed(), scene.down.asked.load(Ordering::SeqCst)), (Duration::ZERO, 1));
        assert_eq!(*scene.told.lock().unwrap(), Vec::<String>::new());
    }

    #[test]
    fn however_long_a_request_takes_to_fail_it_is_made_again() {
        let scene = scene(2 * MINUTE, MINUTE);
        let slow = |is_again| {
            scene.clock.advance(10 * MINUTE);
            if is_again { Ok(()) } else { Err(Error::new(Kind::Temporary, "wait", "")) }
        };
        scene.retry.retry(&RetriedRequest::new("wait", ""), slow).unwrap();
    }

    /// A run that was interrupted while its store was down went on waiting.
    #[test]
    fn a_cancel_ends_the_wait_and_leaves_a_moment_to_tidy_up() {
        let scene = scene(Duration::MAX, RETRY_FOR);
        let cancelled = scene.retry.retry(&RetriedRequest::new("wait", ""), |_| -> Result<()> {
            scene.watch.cancel.cancel();
            Err(Error::new(Kind::Temporary, "wait", ""))
        });
        assert!(cancelled.unwrap_err().is(Kind::Cancelled));
        // Right after a cancel, what is needed to end well is still asked for, but nothing twice.
        let asked = |retry: &Retry| {
            assert!(retry.remove("a").unwrap_err().is(Kind::Cancelled));
            scene.down.asked.swap(0, Ordering::SeqCst)
        };
        if !scene.watch.cancel.is_over(TIDY_GRACE) {
            assert!(asked(&scene.retry) <= 1);
        }
        // Later, nothing.
        scene.watch.cancel.pause(Duration::ZERO).unwrap_err();
        while !scene.watch.cancel.is_over(TIDY_GRACE) {
            std::thread::yield_now();
        }
        assert_eq!(asked(&scene.retry), 0);
    }

    #[test]
    fn pauses_grow_up_to_their_limit() {
        for failures in 1..40 {
            let most = PAUSE_BASE.saturating_mul(1 << (failures - 1).min(16)).min(PAUSE_MAX);
            let pause = pause(failures);
            assert!(pause >= most / 2 && pause <= most, "{failures}: {pause:?}");
        }
    }

    #[test]
    fn what_is_not_temporary_is_an_answer() {
        let scene = scene(Duration::ZERO, RETRY_FOR);
        let remote: Arc<dyn Storage> = Arc::new(Delayed::new(scene.down.clone(), Duration::ZERO));
        assert!(Retry::new(remote).stat("a").unwrap_err().is(Kind::NotFound));
        assert_eq!(scene.down.asked.load(Ordering::SeqCst), 1);
    }
}
