//! What concerns the whole process: its limits, its threads, the host that it runs on.

use siltstone::disk::raise_open_files;
use siltstone::error::{Error, Result};

/// Before any work begins: raises the limit of open files as far as that is allowed, and starts the threads that compress
/// and sort. If the system refuses them, this returns an error; later it would be a panic.
pub(super) fn prepare() -> Result<()> {
    raise_open_files();
    rayon::ThreadPoolBuilder::new()
        .thread_name(|index| format!("worker-{index}"))
        .build_global()
        .map_err(Error::no_thread)
}

/// The name of this host, from the kernel itself: /proc need not be there.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
