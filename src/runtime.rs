//! The one place where async meets blocking.

use std::future::Future;
use std::sync::LazyLock;
use tokio::runtime::{Builder, Runtime};

/// Threads that wait for sockets: what costs time (encrypting, compressing) happens elsewhere.
const WORKERS: usize = 2;

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    let mut builder = Builder::new_multi_thread();
    builder.worker_threads(WORKERS).thread_name("network").enable_all();
    builder.build().expect("a system that gives no thread and no poll handle lets no program run")
});

/// Runs a future to its end; started at first use, so that whoever works on a folder alone pays nothing.
pub fn block_on<F: Future>(future: F) -> F::Output {
    RUNTIME.block_on(future)
}
