//! Create entries with exactly the mode that was asked for.
//!
//! The umask belongs to the process, and setting it to zero would open what other threads create meanwhile. On Linux
//! a thread can have its own (`unshare(CLONE_FS)`, no privilege needed): the threads of a restore take one.

use rustix::fs::Mode;
use rustix::process::umask;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::cell::Cell;
use std::marker::PhantomData;

/// What a thread that took no umask of its own must expect: every bit may have been taken away.
const UNKNOWN: u32 = 0o777;

thread_local! {
    static TAKEN_AWAY: Cell<u32> = const { Cell::new(UNKNOWN) };
}

/// While it lives, this thread's umask is zero and no other thread's is.
pub struct ZeroUmask {
    before: Mode,
    taken_before: u32,
    /// It belongs to its thread.
    not_send: PhantomData<*const ()>,
}

/// Gives the calling thread a umask (and working directory) of its own and sets it to zero until the guard goes. None
/// where a sandbox forbids that: files then get their modes by a chmod, which costs a call each.
pub fn zero_umask() -> Option<ZeroUmask> {
    // SAFETY: only CLONE_FS: umask, root and working directory of this thread; descriptors stay shared.
    unsafe { unshare_unsafe(UnshareFlags::FS) }.ok()?;
    let before = umask(Mode::empty());
    let taken_before = TAKEN_AWAY.replace(0);
    Some(ZeroUmask { before, taken_before, not_send: PhantomData })
}

impl Drop for ZeroUmask {
    fn drop(&mut self) {
        umask(self.before);
        TAKEN_AWAY.set(self.taken_before);
    }
}

/// Which bits of a mode the umask may take away from what this thread creates.
#[inline]
pub(super) fn taken_away() -> u32 {
    TAKEN_AWAY.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_threads_keep_theirs() {
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let Some(guard) = zero_umask() else { return };
                assert_eq!(taken_away(), 0);
                let other = std::thread::spawn(taken_away).join().unwrap();
                assert_eq!(other, UNKNOWN);
                drop(guard);
                assert_eq!(taken_away(), UNKNOWN);
            });
        });
    }
}
