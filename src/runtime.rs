//! The one place where async meets blocking.

use crate::error::{Error, Kind, Result};
use std::future::Future;
use std::io;
use std::pin::pin;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::runtime::{Builder, Runtime};

/// Threads that wait for sockets: what costs time (encrypting, compressing) happens elsewhere.
const WORKERS: usize = 2;
/// How often a future that is not done is checked for whether it should stop.
const LOOK: Duration = Duration::from_millis(50);

static RUNTIME: LazyLock<io::Result<Runtime>> = LazyLock::new(|| {
    check_threads()?;
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(WORKERS).thread_name("network").enable_all();
    builder.build()
});

/// Starts as many threads as the runtime will, one for looking up names included: it panics where the system refuses one.
fn check_threads() -> io::Result<()> {
    let (release, wait) = std::sync::mpsc::channel::<()>();
    let wait = std::sync::Arc::new(std::sync::Mutex::new(wait));
    let start = |_| {
        let wait = wait.clone();
        std::thread::Builder::new().spawn(move || drop(wait.lock().map(|wait| wait.recv())))
    };
    let threads: Vec<_> = (0..=WORKERS).map(start).collect();
    drop(release);
    threads.into_iter().try_for_each(|thread| thread.map(|thread| drop(thread.join())))
}

fn runtime() -> Result<&'static Runtime> {
    RUNTIME.as_ref().map_err(|error| {
        // The error stays for later callers; what it says is what they need.
        Error::new(Kind::Failed, "start the threads that talk to the network", "")
            .because(error.to_string())
            .hint("raise the limits of processes and open files (ulimit -u, ulimit -n)")
    })
}

/// Runs a future to its end, or until `should_stop` says so: None then. The runtime starts at first use, so that a
/// repository in a folder does not pay for it.
pub(crate) fn block_on<F: Future>(future: F, should_stop: impl Fn() -> bool) -> Result<Option<F::Output>> {
    runtime().map(|runtime| {
        runtime.block_on(async {
            let mut future = pin!(future);
            loop {
                match tokio::time::timeout(LOOK, future.as_mut()).await {
                    Ok(done) => return Some(done),
                    Err(_) if should_stop() => return None,
                    Err(_) => {}
                }
            }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An answer that never comes kept its caller for ever.
    #[test]
    fn a_future_that_never_ends_is_left_when_it_should_stop() {
        assert_eq!(block_on(std::future::pending::<()>(), || true).unwrap(), None);
        assert_eq!(block_on(async { 7 }, || true).unwrap(), Some(7), "what is done needs no stop");
    }
}
