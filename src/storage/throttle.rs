//! Slow a storage down: to leave others their share of the line, or to measure what distance costs.

use crate::error::Result;
use crate::forward_storage;
use crate::lock::locked;
use crate::storage::{ListedObject, ObjectBody, ObjectVersion, Storage, StorageProfile};
use crate::watch::{Cancel, Clock, SystemClock};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// How much may be sent at once after a pause, as time at the full rate.
const BURST: Duration = Duration::from_millis(250);
/// Objects of this size are sent at once.
const SMALL_BYTES: u64 = 16 << 10;
/// What a store's listing says of an object beside its name.
const LISTED_BYTES: u64 = 200;

/// A line of some bytes a second, shared by all threads that send on it.
struct ThrottledLine {
    bytes_a_second: u64,
    /// When all that was admitted will be through.
    free_at: Mutex<Duration>,
}

impl ThrottledLine {
    fn new(bytes_a_second: u64) -> Self {
        ThrottledLine { bytes_a_second: bytes_a_second.max(1), free_at: Mutex::default() }
    }

    /// How long to wait until `bytes` may have passed.
    fn admit(&self, bytes: u64, now: Duration) -> Duration {
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_a_second as f64);
        let mut free_at = locked(&self.free_at);
        *free_at = (*free_at).max(now.saturating_sub(BURST)) + takes;
        free_at.saturating_sub(now)
    }
}

/// A storage that sends and receives at most so much a second, over all its users together. An object goes out at once
/// when its turn has come: what is kept is the rate over objects.
pub struct Throttle {
    inner: Arc<dyn Storage>,
    upload: Option<ThrottledLine>,
    download: Option<ThrottledLine>,
    clock: Arc<dyn Clock>,
    cancel: Cancel,
}

impl Throttle {
    /// Bytes a second; None is as fast as it goes.
    pub fn new(inner: Arc<dyn Storage>, upload: Option<u64>, download: Option<u64>) -> Self {
        let (upload, download) = (upload.map(ThrottledLine::new), download.map(ThrottledLine::new));
        Throttle { inner, upload, download, clock: Arc::new(SystemClock::default()), cancel: Cancel::default() }
    }

    /// A cancel ends its waits.
    pub(crate) fn with_cancel(mut self, cancel: &Cancel) -> Self {
        self.cancel = cancel.clone();
        self
    }

    fn wait(&self, line: Option<&ThrottledLine>, bytes: u64) -> Result<()> {
        let pause = line.map_or(Duration::ZERO, |line| line.admit(bytes, self.clock.elapsed()));
        match pause {
            Duration::ZERO => Ok(()),
            pause => self.clock.pause(pause, &self.cancel),
        }
    }

    fn send(&self, body: &ObjectBody) -> Result<()> {
        let line = self.upload.as_ref();
        if body.len() <= SMALL_BYTES {
            // A heartbeat or a commit must not queue after packs. It counts all the same.
            line.map(|line| line.admit(body.len(), self.clock.elapsed()));
            return Ok(());
        }
        self.wait(line, body.len())
    }

    fn received(&self, bytes: u64) -> Result<()> {
        self.wait(self.download.as_ref(), bytes)
    }

    fn received_listing(&self, listed: Vec<ListedObject>) -> Result<Vec<ListedObject>> {
        self.received(listed.iter().map(|listed| listed.name.len() as u64 + LISTED_BYTES).sum())?;
        Ok(listed)
    }

    fn received_whole(&self, read: (Vec<u8>, ObjectVersion)) -> Result<(Vec<u8>, ObjectVersion)> {
        self.received(read.0.len() as u64)?;
        Ok(read)
    }
}

impl Storage for Throttle {
    forward_storage!(self => self.inner; describe, identity, local_path, capabilities, profile, rename, remove, stat);

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        self.send(&body)?;
        self.inner.put(name, body)
    }

    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        self.send(&body)?;
        self.inner.put_new(name, body)
    }

    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
        self.send(&body)?;
        self.inner.compare_and_swap(name, expected, body)
    }

    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        self.received_whole(self.inner.get(name, bytes_max)?)
    }

    fn get_uncached(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        self.received_whole(self.inner.get_uncached(name, bytes_max)?)
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let bytes = self.inner.get_range(name, offset, length)?;
        self.received(length)?;
        Ok(bytes)
    }

    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        self.received_listing(self.inner.list(prefix)?)
    }

    fn list_between(&self, prefix: &str, after: &str, until: Option<&str>) -> Result<Vec<ListedObject>> {
        self.received_listing(self.inner.list_between(prefix, after, until)?)
    }
}

/// As S3 does.
const LISTED_IN_ONE_REQUEST: usize = 1000;

/// A storage each of whose requests takes that much longer: a bench's stand-in for distance.
pub struct Delayed {
    inner: Arc<dyn Storage>,
    delay: Duration,
}

impl Delayed {
    /// Each request takes this much longer.
    pub fn new(inner: Arc<dyn Storage>, delay: Duration) -> Self {
        Delayed { inner, delay }
    }

    fn delayed(&self) -> &dyn Storage {
        std::thread::sleep(self.delay);
        self.inner.as_ref()
    }

    /// Waits for the requests after the first one that a listing of this length takes.
    fn further_pages(&self, listed: Vec<ListedObject>) -> Vec<ListedObject> {
        let pages = listed.len().saturating_sub(1) / LISTED_IN_ONE_REQUEST;
        std::thread::sleep(self.delay * u32::try_from(pages).unwrap_or(u32::MAX));
        listed
    }
}

impl Storage for Delayed {
    forward_storage!(self => self.inner; describe, identity, local_path, capabilities);
    forward_storage!(self => self.delayed(); put, put_new, compare_and_swap, rename, get, get_range, remove, stat);

    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        Ok(self.further_pages(self.delayed().list(prefix)?))
    }

    fn list_between(&self, prefix: &str, after: &str, until: Option<&str>) -> Result<Vec<ListedObject>> {
        Ok(self.further_pages(self.delayed().list_between(prefix, after, until)?))
    }

    fn profile(&self) -> StorageProfile {
        StorageProfile {
            is_remote: true,
            parallel_requests: StorageProfile::REMOTE.parallel_requests,
            ..self.inner.profile()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;
    use crate::storage::memory::Memory;
    use crate::watch::FakeClock;

    const MIB: u64 = 1 << 20;

    fn limited(clock: &Arc<FakeClock>, upload: Option<u64>, download: Option<u64>) -> Throttle {
        Throttle { clock: clock.clone(), ..Throttle::new(Arc::new(Memory::new()), upload, download) }
    }

    /// A limit of the upload was accepted by the help and refused by the run.
    #[test]
    fn what_is_sent_and_received_keeps_its_rate() {
        let clock = Arc::new(FakeClock::default());
        let storage = limited(&clock, Some(MIB), Some(4 * MIB));
        for number in 0..32 {
            storage.put(&format!("{number}"), vec![0; 512 << 10].into()).unwrap();
        }
        let sent = clock.elapsed();
        assert!(sent >= Duration::from_secs(16) - BURST && sent <= Duration::from_secs(16), "{sent:?}");
        for number in 0..32 {
            storage.get(&format!("{number}"), MIB).unwrap();
            storage.get_range(&format!("{number}"), 0, 512 << 10).unwrap();
        }
        let received = clock.elapsed() - sent;
        assert!(received >= Duration::from_secs(8) - BURST && received <= Duration::from_secs(8), "{received:?}");
    }

    /// A heartbeat waited for all packs that were admitted before it: for half an hour on a slow line.
    #[test]
    fn a_small_object_does_not_wait_and_counts() {
        let clock = Arc::new(FakeClock::default());
        let storage = limited(&clock, Some(MIB), None);
        storage.put("pack", vec![0; 8 << 20].into()).unwrap();
        let sent = clock.elapsed();
        for number in 0..64 {
            storage.put(&format!("{number}"), vec![0; 16 << 10].into()).unwrap();
        }
        assert_eq!(clock.elapsed(), sent);
        storage.put("pack", vec![0; 1 << 20].into()).unwrap();
        assert_eq!(clock.elapsed() - sent, Duration::from_secs(2));
    }

    #[test]
    fn all_threads_share_the_line() {
        let line = ThrottledLine::new(MIB);
        // All of them ask at the same moment.
        let now = Duration::from_secs(100);
        let waits: Vec<Duration> = (0..5).map(|_| line.admit(MIB, now)).collect();
        let expected: Vec<Duration> = (1..6).map(|n| Duration::from_secs(n) - BURST).collect();
        assert_eq!(waits, expected);
    }

    #[test]
    fn an_idle_hour_is_not_made_up_for() {
        let line = ThrottledLine::new(MIB);
        line.admit(MIB, Duration::ZERO);
        assert_eq!(line.admit(10 * MIB, Duration::from_secs(3600)), Duration::from_secs(10) - BURST);
    }

    #[test]
    fn a_cancel_ends_the_wait_for_a_place() {
        let cancel = Cancel::default();
        let storage = Throttle::new(Arc::new(Memory::new()), Some(1), None).with_cancel(&cancel);
        cancel.cancel();
        assert!(storage.put("a", vec![0; 1 << 20].into()).unwrap_err().is(Kind::Cancelled));
    }
}
