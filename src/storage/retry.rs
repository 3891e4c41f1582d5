//! Try again what may succeed the next time, and find out what became of requests whose answer was lost.

use crate::error::{Error, Kind, Result};
use crate::storage::{Abilities, Body, Listed, Stat, Storage, Version};
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

/// The first included. All are made, however long each takes to fail: a store that answers nothing for a minute may
/// answer the next request.
const ATTEMPTS: u32 = 6;
const PAUSE_BASE: Duration = Duration::from_millis(100);
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// All pauses between the attempts of one request.
const PAUSES_MAX: Duration = Duration::from_secs(60);
const _ALL_ATTEMPTS_ARE_MADE: () = assert!(PAUSE_MAX.as_secs() * (ATTEMPTS as u64 - 1) <= PAUSES_MAX.as_secs());

/// A storage whose temporary failures are tried again.
pub struct Retry {
    inner: Arc<dyn Storage>,
    attempts: u32,
}

impl Retry {
    pub fn new(inner: Arc<dyn Storage>) -> Self {
        Retry::with_attempts(inner, ATTEMPTS)
    }

    /// At most this many attempts, the first included.
    pub fn with_attempts(inner: Arc<dyn Storage>, attempts: u32) -> Self {
        Retry { inner, attempts }
    }

    /// `attempt` is told whether an attempt before it failed, so perhaps without the answer being heard.
    fn retry<T>(&self, mut attempt: impl FnMut(bool) -> Result<T>) -> Result<T> {
        let mut patience = Patience::new(self.attempts);
        loop {
            match attempt(patience.failures > 0) {
                Err(error) if error.is_temporary() => match patience.pause() {
                    Some(pause) => std::thread::sleep(pause),
                    None => return Err(error),
                },
                done => return done,
            }
        }
    }

    /// The version of the object if it is what we wrote.
    fn version_if_ours(&self, name: &str, body: &Body) -> Result<Option<Version>> {
        let found = self.retry(|_| self.inner.get(name, body.len()));
        match found {
            Ok((bytes, version)) => Ok(is_same(&bytes, body).then_some(version)),
            // A longer one is not ours, nor is one that is gone.
            Err(error) if error.is(Kind::Corrupt) || error.is(Kind::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn ours_or(&self, name: &str, body: &Body, refused: Error) -> Result<Version> {
        match self.version_if_ours(name, body)? {
            Some(version) => Ok(version),
            None => Err(refused),
        }
    }

    fn is_there(&self, name: &str) -> Result<bool> {
        match self.retry(|_| self.inner.stat(name)) {
            Ok(_) => Ok(true),
            Err(error) if error.is(Kind::NotFound) => Ok(false),
            Err(error) => Err(error),
        }
    }
}

/// What is left of attempts and pauses. It looks at no clock: how long requests take must not take attempts away.
struct Patience {
    attempts: u32,
    failures: u32,
    paused: Duration,
}

impl Patience {
    fn new(attempts: u32) -> Self {
        Patience { attempts, failures: 0, paused: Duration::ZERO }
    }

    /// After another failure: how long to wait before the next attempt, if there is to be one.
    fn pause(&mut self) -> Option<Duration> {
        self.failures += 1;
        let pause = pause(self.failures);
        self.paused += pause;
        (self.failures < self.attempts && self.paused <= PAUSES_MAX).then_some(pause)
    }
}

fn is_same(bytes: &[u8], body: &Body) -> bool {
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

/// Anything up to the doubled pause before ("full jitter"): many clients that failed together do not return together.
fn pause(failures: u32) -> Duration {
    let most = PAUSE_BASE.saturating_mul(1 << (failures - 1).min(16)).min(PAUSE_MAX);
    let share = RandomState::new().hash_one(failures) as f64 / u64::MAX as f64;
    most.mul_f64(share)
}

impl Storage for Retry {
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
        self.retry(|_| self.inner.put(name, body.clone()))
    }

    fn put_new(&self, name: &str, body: Body) -> Result<Version> {
        self.retry(|is_again| match self.inner.put_new(name, body.clone()) {
            Err(error) if is_again && error.is(Kind::AlreadyExists) => self.ours_or(name, &body, error),
            done => done,
        })
    }

    fn swap(&self, name: &str, expected: &Version, body: Body) -> Result<Version> {
        self.retry(|is_again| match self.inner.swap(name, expected, body.clone()) {
            Err(error) if is_again && error.is(Kind::Conflict) => self.ours_or(name, &body, error),
            done => done,
        })
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.retry(|is_again| match self.inner.rename(from, to) {
            Err(error) if is_again && (error.is(Kind::NotFound) || error.is(Kind::AlreadyExists)) => {
                match !self.is_there(from)? && self.is_there(to)? {
                    true => Ok(()),
                    false => Err(error),
                }
            }
            done => done,
        })
    }

    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, Version)> {
        self.retry(|_| self.inner.get(name, bytes_max))
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.retry(|_| self.inner.get_range(name, offset, length))
    }

    fn list(&self, prefix: &str) -> Result<Vec<Listed>> {
        self.retry(|_| self.inner.list(prefix))
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.retry(|_| self.inner.remove(name))
    }

    fn stat(&self, name: &str) -> Result<Stat> {
        self.retry(|_| self.inner.stat(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_attempts_are_made_however_long_each_takes_and_pauses_end() {
        for _ in 0..1000 {
            let mut patience = Patience::new(ATTEMPTS);
            let pauses: Vec<Duration> = std::iter::from_fn(|| patience.pause()).collect();
            assert_eq!(pauses.len() as u32, ATTEMPTS - 1);
            assert!(pauses.iter().all(|pause| *pause <= PAUSE_MAX));
        }
        let mut endless = Patience::new(u32::MAX);
        let pauses: Vec<Duration> = std::iter::from_fn(|| endless.pause()).collect();
        assert!(pauses.len() > 10 && pauses.iter().sum::<Duration>() <= PAUSES_MAX);
    }
}
