//! Faults on purpose, for tests: a storage that errs by a seed, or dies at one exact call.

use crate::error::{Error, Kind, Result};
use crate::forward_storage;
use crate::lock::locked;
use crate::storage::{ListedObject, ObjectBody, ObjectStat, ObjectVersion, Storage};
use bytes::Bytes;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard};

/// How often each fault strikes, in calls of a thousand.
#[derive(Clone, Copy, Debug, Default)]
pub struct ChaosRates {
    /// A temporary error, and nothing happened.
    pub refused: u32,
    /// A temporary error, and yet it happened: the answer was lost.
    pub lost_answer: u32,
    /// A put that fails and leaves the first part of the object: only storage that is not atomic does this.
    pub torn: u32,
    /// A listing as it was some calls ago.
    pub stale_listing: u32,
}

/// On which side of the effect of a call the process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CrashSide {
    /// The call has no effect.
    Before,
    /// The call has its effect, and the process does not see it.
    After,
}

#[derive(Clone, Copy, Debug)]
enum ChaosMode {
    Seeded(ChaosRates),
    /// Dies at this mutating call, counted from 0.
    Crash(u64, CrashSide),
}

/// One call that changes the storage (or would have).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StorageCall {
    /// The name of the method.
    pub verb: &'static str,
    /// The object.
    pub name: String,
}

#[derive(Default)]
struct ChaosState {
    random: u64,
    trace: Vec<StorageCall>,
    dead: bool,
    listings: HashMap<String, Vec<ListedObject>>,
}

/// What befalls one call.
enum CallFate {
    Fine,
    Before(Error),
    After(Error),
}

/// A storage with faults on purpose. With one thread the same seed produces the same faults.
pub struct Chaos {
    inner: Arc<dyn Storage>,
    mode: ChaosMode,
    state: Mutex<ChaosState>,
}

/// Makes storages that die: the call fails before or after its effect, and every later call of any sort fails, too.
pub struct CrashPoint;

impl CrashPoint {
    /// Dies at the mutating call of that number, counted from 0.
    pub fn at(inner: Arc<dyn Storage>, number: u64, side: CrashSide) -> Chaos {
        Chaos::with_mode(inner, ChaosMode::Crash(number, side), 0)
    }
}

impl Chaos {
    /// Errs at random.
    pub fn seeded(inner: Arc<dyn Storage>, seed: u64, rates: ChaosRates) -> Self {
        Chaos::with_mode(inner, ChaosMode::Seeded(rates), seed)
    }

    fn with_mode(inner: Arc<dyn Storage>, mode: ChaosMode, seed: u64) -> Self {
        Chaos { inner, mode, state: Mutex::new(ChaosState { random: seed, ..ChaosState::default() }) }
    }

    fn lock(&self) -> MutexGuard<'_, ChaosState> {
        locked(&self.state)
    }

    /// The mutating calls so far.
    pub fn trace(&self) -> Vec<StorageCall> {
        self.lock().trace.clone()
    }

    /// Whether the exact call has come.
    pub fn is_dead(&self) -> bool {
        self.lock().dead
    }

    fn fate(&self, verb: &'static str, name: &str, mutates: bool) -> CallFate {
        let mut state = self.lock();
        let number = state.trace.len() as u64;
        let dead = || Error::new(Kind::Failed, verb, name).because("the process is dead, on purpose");
        if state.dead {
            return CallFate::Before(dead());
        }
        if mutates {
            state.trace.push(StorageCall { verb, name: name.to_owned() });
        }
        match self.mode {
            ChaosMode::Crash(at, side) if mutates && at == number => {
                state.dead = true;
                if side == CrashSide::Before { CallFate::Before(dead()) } else { CallFate::After(dead()) }
            }
            ChaosMode::Crash(..) => CallFate::Fine,
            ChaosMode::Seeded(rates) => {
                let fault = |why: &str| Error::new(Kind::Temporary, verb, name).because(why.to_owned());
                if state.strikes(rates.refused) {
                    CallFate::Before(fault("the storage is busy, on purpose"))
                } else if mutates && state.strikes(rates.lost_answer) {
                    CallFate::After(fault("the answer was lost, on purpose"))
                } else {
                    CallFate::Fine
                }
            }
        }
    }

    fn call<T>(&self, verb: &'static str, name: &str, mutates: bool, act: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.fate(verb, name, mutates) {
            CallFate::Fine => act(),
            CallFate::Before(error) => Err(error),
            // Had the call failed by itself, its own error would have been the answer that was lost.
            CallFate::After(error) => act().and(Err(error)),
        }
    }

    fn strikes(&self, rate: impl Fn(&ChaosRates) -> u32) -> bool {
        match &self.mode {
            ChaosMode::Seeded(rates) => self.lock().strikes(rate(rates)),
            ChaosMode::Crash(..) => false,
        }
    }
}

impl ChaosState {
    /// The next number of splitmix64 decides.
    fn strikes(&mut self, rate: u32) -> bool {
        rate > 0 && self.next() % 1000 < u64::from(rate)
    }

    fn next(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.random;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

/// The first half of an object.
fn torn(body: &ObjectBody) -> ObjectBody {
    let whole = body.to_vec();
    let half = whole.len() / 2;
    ObjectBody(vec![Bytes::from(whole).slice(..half)])
}

impl Storage for Chaos {
    forward_storage!(self => self.inner; describe, identity, local_path, capabilities, profile);

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
        if self.strikes(|rates| rates.torn) {
            self.inner.put(name, torn(&body))?;
            return Err(Error::new(Kind::Temporary, "put", name).because("the write was torn, on purpose"));
        }
        self.call("put", name, true, || self.inner.put(name, body))
    }

    fn put_new(&self, name: &str, body: ObjectBody) -> Result<ObjectVersion> {
        self.call("put_new", name, true, || self.inner.put_new(name, body))
    }

    fn compare_and_swap(&self, name: &str, expected: &ObjectVersion, body: ObjectBody) -> Result<ObjectVersion> {
        self.call("compare_and_swap", name, true, || self.inner.compare_and_swap(name, expected, body))
    }

    fn rename(&self, from: &str, to: &str) -> Result<()> {
        self.call("rename", from, true, || self.inner.rename(from, to))
    }

    fn get(&self, name: &str, bytes_max: u64) -> Result<(Vec<u8>, ObjectVersion)> {
        self.call("get", name, false, || self.inner.get(name, bytes_max))
    }

    fn get_range(&self, name: &str, offset: u64, length: u64) -> Result<Vec<u8>> {
        self.call("get_range", name, false, || self.inner.get_range(name, offset, length))
    }

    fn list(&self, prefix: &str) -> Result<Vec<ListedObject>> {
        let listed = self.call("list", prefix, false, || self.inner.list(prefix))?;
        let stale = self.strikes(|rates| rates.stale_listing);
        let mut state = self.lock();
        match state.listings.get(prefix).filter(|_| stale) {
            Some(older) => Ok(older.clone()),
            None => {
                state.listings.insert(prefix.to_owned(), listed.clone());
                Ok(listed)
            }
        }
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.call("remove", name, true, || self.inner.remove(name))
    }

    fn stat(&self, name: &str) -> Result<ObjectStat> {
        self.call("stat", name, false, || self.inner.stat(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::memory::Memory;

    #[test]
    fn a_crash_comes_before_or_after_the_effect_and_nothing_works_after_it() {
        for (side, objects) in [(CrashSide::Before, 1), (CrashSide::After, 2)] {
            let memory = Memory::new();
            let crash = CrashPoint::at(Arc::new(memory.clone()), 1, side);
            crash.put("a", vec![1].into()).unwrap();
            assert!(crash.list("").is_ok());
            assert!(crash.put("b", vec![2].into()).is_err_and(|error| error.is(Kind::Failed)));
            assert!(crash.get("a", 10).is_err() && crash.put("c", vec![3].into()).is_err() && crash.is_dead());
            assert_eq!((memory.snapshot().len(), crash.trace().len()), (objects, 2));
        }
    }

    #[test]
    fn the_same_seed_produces_the_same_faults() {
        let run = |seed| {
            let rates = ChaosRates { refused: 300, lost_answer: 300, torn: 100, stale_listing: 300 };
            let chaos = Chaos::seeded(Arc::new(Memory::new()), seed, rates);
            let mut seen = Vec::new();
            for n in 0..50 {
                seen.push(chaos.put(&format!("o{n}"), vec![n; 10].into()).is_ok());
                seen.push(chaos.list("").is_ok_and(|listed| listed.len() > usize::from(n) / 2));
            }
            seen
        };
        assert_eq!(run(1), run(1));
        assert_ne!(run(1), run(2));
    }
}
