//! Buffers that threads use again and again: one for each reader.

use std::sync::Mutex;

pub(super) struct PerReader<T>(Vec<Mutex<T>>);

impl<T: Default> PerReader<T> {
    /// `lanes` is the number of readers, and one for all other threads.
    pub(crate) fn new(lanes: usize) -> Self {
        PerReader((0..lanes).map(|_| Mutex::default()).collect())
    }

    /// Calls `act` with the buffer of a lane. If it is in use, with a new one.
    pub(crate) fn with<R>(&self, lane: usize, act: impl FnOnce(&mut T) -> R) -> R {
        match self.0.get(lane).map(Mutex::try_lock) {
            Some(Ok(mut buffer)) => act(&mut buffer),
            _ => act(&mut T::default()),
        }
    }
}
