//! Create entries with exactly the mode that was asked for.
//!
//! The umask belongs to the process, and setting it to zero would open what other threads create meanwhile. On Linux
//! a thread can have its own (`unshare(CLONE_FS)`, no privilege needed): the threads of a restore take one.

use rustix::fs::Mode;
use rustix::process::umask;
use rustix::thread::{UnshareFlags, unshare_unsafe};
use std::cell::Cell;

/// What a thread that took no umask of its own must expect: every bit may have been taken away.
const UNKNOWN: u32 = 0o777;

thread_local! {
    /// The kernel keeps a umask for the thread, so this must be known for the thread as well.
    static TAKEN_AWAY: Cell<u32> = const { Cell::new(UNKNOWN) };
}

/// Sets the umask of the calling thread to zero until the thread ends. The thread also gets a working directory of its own. Where a
/// sandbox forbids that, nothing changes: entries then get their modes by a chmod, which costs a call each.
pub(crate) fn take_zero_umask() {
    // SAFETY: only CLONE_FS: umask, root and working directory of this thread; descriptors stay shared.
    if unsafe { unshare_unsafe(UnshareFlags::FS) }.is_ok() {
        umask(Mode::empty());
        TAKEN_AWAY.set(0);
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
                take_zero_umask();
                let other = std::thread::spawn(taken_away).join().unwrap();
                assert_eq!(other, UNKNOWN);
                // A sandbox may forbid it.
                assert!(taken_away() == UNKNOWN || umask(Mode::empty()).is_empty());
            });
        });
    }
}
