//! Locks that can be taken even if a thread that held them has panicked.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Takes a lock, also one that a thread held when it panicked. Such a panic fails the run, and what the thread left half done reaches no
/// snapshot.
pub(crate) fn locked<T: ?Sized>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
