//! Slow a storage down: to leave others their share of the line, or to measure what a far store costs.

use crate::error::Result;
use crate::storage::{Abilities, Body, Listed, Stat, Storage, Version};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// How much may be sent at once after a pause, as time at the full rate.
const BURST: Duration = Duration::from_millis(250);

/// A line of so many bytes a second, shared by all who ask for a place on it.
struct Line {
    bytes_a_second: u64,
    /// When all that was admitted will be through.
    free_at: Mutex<Instant>,
}

impl Line {
    fn new(bytes_a_second: u64) -> Self {
        Line { bytes_a_second: bytes_a_second.max(1), free_at: Mutex::new(Instant::now()) }
    }

    /// Waits until `bytes` may have passed.
    fn pass(&self, bytes: u64) {
        let now = Instant::now();
        let takes = Duration::from_secs_f64(bytes as f64 / self.bytes_a_second as f64);
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(|poisoned| poisoned.into_inner());
            let earliest = now.checked_sub(BURST).unwrap_or(now);
            *free_at = (*free_at).max(earliest) + takes;
            *free_at
        };
        std::thread::sleep(until.saturating_duration_since(now));
    }
}

/// A storage that sends and receives at most so much a second, over all its users together.
pub struct Throttle {
    inner: Arc<dyn Storage>,
    upload: Option<Line>,
    download: Option<Line>,
}

impl Throttle {
    /// Bytes a second; None is as fast as it goes.
    pub fn new(inner: Arc<dyn Storage>, upload: Option<u64>, download: Option<u64>) -> Self {
        Throttle { inner, upload: upload.map(Line::new), download: download.map(Line::new) }
    }

    fn send(&self, body: &Body) {
        if let Some(line) = &self.upload {
            line.pass(body.len());
        }
    }

    fn received(&self, bytes: u64) {
        if let Some(line) = &self.download {
            line.pass(bytes);
        }
    }
}

impl Storage for Throttle {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn identity(&self) -> String {
        self.inner.identity()
    }

    fn local_path(&self) -> Option<&std::path::Path> {
        self.inner.local_path()
    }

    fn abilities(&self) -> Abilities {
        self.inner.abilities()
    }

    fn put(&self, name: &str, body: Body) -> Result<Version> {
        self.send(&body);
        self.inner.put(name, body)
    }

    fn put_new(&self, name: &str, body: Body) -> Result<Version> {
        self.send(&body);
        self.inner.put_new(name, body)
    }

    fn swap(&self, name: &str, expected: &Version, body: Body) -> Result<Version> {
        self.send(&body);
        self.inner.swap(name, expected, body)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.inner.rename(from, to)
    }

    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, Version)> {
        let (bytes, version) = self.inner.get(name, bytes_max)?;
        self.received(bytes.len() as u64);
        Ok((bytes, version))
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        let bytes = self.inner.get_range(name, offset, length)?;
        self.received(length);
        Ok(bytes)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.inner.list(prefix)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.inner.remove(name)
    }

    fn stat(&self, name: &str) -> Result<Stat> {
        self.inner.stat(name)
    }
}

/// A storage each of whose requests takes that much longer: a bench's stand-in for distance.
pub struct Delayed {
    inner: Arc<dyn Storage>,
    delay: Duration,
}

impl Delayed {
    pub fn new(inner: Arc<dyn Storage>, delay: Duration) -> Self {
        Delayed { inner, delay }
    }

    fn far(&self) -> &dyn Storage {
        std::thread::sleep(self.delay);
        self.inner.as_ref()
    }
}

impl Storage for Delayed {
    fn describe(&self) -> String {
        self.inner.describe()
    }

    fn local_path(&self) -> Option<&std::path::Path> {
        self.inner.local_path()
    }

    fn abilities(&self) -> Abilities {
        Abilities { local: false, ..self.inner.abilities() }
    }

    fn put(&self, name: &str, body: Body) -> Result<Version> {
        self.far().put(name, body)
    }

    fn put_new(&self, name: &str, body: Body) -> Result<Version> {
        self.far().put_new(name, body)
    }

    fn swap(&self, name: &str, expected: &Version, body: Body) -> Result<Version> {
        self.far().swap(name, expected, body)
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.far().rename(from, to)
    }

    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, Version)> {
        self.far().get(name, bytes_max)
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.far().get_range(name, offset, length)
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.far().list(prefix)
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.far().remove(name)
    }

    fn stat(&self, name: &str) -> Result<Stat> {
        self.far().stat(name)
    }
}
