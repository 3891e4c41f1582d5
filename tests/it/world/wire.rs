//! The wire between a run and its storage: it can be cut at an exact call, or hold the run back until it may go on.

use siltstone::error::{Error, Kind, Result};
use siltstone::forward_storage;
use siltstone::storage::{ListedObject, ObjectBody, ObjectStat, ObjectVersion, Storage};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::time::Duration;

/// What happens to the calls of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// From this call that changes something on, none has an effect: the process was killed.
    Killed {
        call: u64,
        after: bool,
    },
    /// From this call on, reads included, all fail, and the run sees that.
    Broken {
        call: u64,
    },
    /// This call that changes something fails once.
    Once {
        call: u64,
        after: bool,
    },
}

#[derive(Default)]
struct State {
    calls: u64,
    changes: u64,
    is_dead: bool,
    /// Calls that may pass; None when all may.
    permits: Option<u64>,
    is_waiting: bool,
    is_over: bool,
    /// Whether `index/` and `packs/` were listed since something was taken away, and before the commit.
    has_listed: [bool; 2],
    has_committed: bool,
}

/// Called at the moment of death, before anything that the dying run does afterwards.
type AtDeath = Box<dyn Fn() + Send + Sync>;

/// What the test holds in hand while a run goes on.
pub struct Control {
    state: Mutex<State>,
    changed: Condvar,
    fault: Fault,
    at_death: AtDeath,
}

/// Only a deadlock takes as long; the run then goes on and shows what it came to.
const STUCK: Duration = Duration::from_secs(20);

impl Control {
    pub fn new(fault: Fault, permits: Option<u64>, at_death: AtDeath) -> Arc<Self> {
        let state = State { permits, ..State::default() };
        Arc::new(Control { state: Mutex::new(state), changed: Condvar::new(), fault, at_death })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    pub fn is_dead(&self) -> bool {
        self.lock().is_dead
    }

    /// Lets more calls pass, or all of them, and waits until the run waits again or is over; true when it is over.
    pub fn go_on(&self, permits: Option<u64>) -> bool {
        let mut state = self.lock();
        state.permits = permits.map(|more| state.permits.unwrap_or_default() + more);
        state.is_waiting = false;
        self.changed.notify_all();
        drop(state);
        self.wait()
    }

    /// Waits until the run waits for permits or is over; true when it is over.
    pub fn wait(&self) -> bool {
        let settled = |state: &mut State| !(state.is_over || state.is_waiting && state.permits == Some(0));
        let waited = self.changed.wait_timeout_while(self.lock(), STUCK, settled);
        let (state, _) = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        state.is_over
    }

    /// Something was taken away while the run waits.
    pub fn forget_listings(&self) {
        self.lock().has_listed = [false; 2];
    }

    /// Whether the run has looked at all that it may rely on since something was taken away, and before its commit.
    pub fn has_looked(&self) -> bool {
        self.lock().has_listed == [true; 2]
    }

    /// Whether the run has made its commit step.
    pub fn has_committed(&self) -> bool {
        self.lock().has_committed
    }

    fn note_listing(&self, prefix: &str) {
        let at = ["index/", "packs/"].iter().position(|known| *known == prefix);
        let mut state = self.lock();
        if let Some(at) = at.filter(|_| !state.has_committed) {
            state.has_listed[at] = true;
        }
    }

    /// The run has ended.
    pub fn end(&self) {
        self.lock().is_over = true;
        self.changed.notify_all();
    }

    /// Whether this call happens, and whether it then fails.
    fn pass(&self, verb: &'static str, name: &str, changes: bool) -> (bool, Option<Error>) {
        let mut state = self.lock();
        while state.permits == Some(0) {
            state.is_waiting = true;
            self.changed.notify_all();
            let waited = self.changed.wait(state);
            state = waited.unwrap_or_else(|poisoned| poisoned.into_inner());
        }
        if let Some(permits) = &mut state.permits {
            *permits -= 1;
        }
        let fails = |why: &str| Some(Error::new(Kind::Failed, verb, name).because(why.to_owned()));
        if state.is_dead {
            return (false, fails("the run is dead, on purpose"));
        }
        let (call, change) = (state.calls, state.changes);
        state.calls += 1;
        let is_snapshot = changes && name.starts_with("snapshots/");
        state.has_committed |= is_snapshot || matches!(verb, "compare_and_swap" | "rename");
        state.changes += u64::from(changes);
        match self.fault {
            Fault::Killed { call, after } if changes && change == call => {
                state.is_dead = true;
                drop(state);
                (self.at_death)();
                (after, fails("the run was killed, on purpose"))
            }
            Fault::Broken { call: from } if call >= from => (false, fails("the storage is broken, on purpose")),
            Fault::Once { call, after } if changes && change == call => (after, fails("it failed once, on purpose")),
            _ => (true, None),
        }
    }
}

/// A storage as one run sees it.
pub struct Wire {
    pub inner: Arc<dyn Storage>,
    pub location: String,
    pub control: Arc<Control>,
}

impl Wire {
    fn call<T>(&self, verb: &'static str, name: &str, changes: bool, act: impl FnOnce() -> Result<T>) -> Result<T> {
        match self.control.pass(verb, name, changes) {
            (true, None) => act(),
            (true, Some(error)) => act().and(Err(error)),
            (false, error) => Err(error.unwrap_or_else(|| Error::new(Kind::Failed, verb, name))),
        }
    }
}

impl Storage for Wire {
    forward_storage!(self => self.inner; capabilities, profile);

    fn describe(&self) -> String {
        self.location.clone()
    }

    fn put(&self, name: &str, body: ObjectBody) -> Result<()> {
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
        self.call("list", prefix, false, || {
            self.control.note_listing(prefix);
            self.inner.list(prefix)
        })
    }

    fn remove(&self, name: &str) -> Result<()> {
        self.call("remove", name, true, || self.inner.remove(name))
    }

    fn stat(&self, name: &str) -> Result<ObjectStat> {
        self.call("stat", name, false, || self.inner.stat(name))
    }
}
