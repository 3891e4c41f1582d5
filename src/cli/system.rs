//! What concerns the whole process: its limits, its threads, the host that it runs on.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use siltstone::error::{Error, Result};

/// As many open files as silt needs; more would only cost the commands that inherit the limit.
const OPEN_FILES: u64 = 65_536;

/// Before any work begins: raises the limit of open files as far as that is allowed, and starts the threads that compress
/// and sort. That the system gives none is an error here, and would be a panic later.
pub(super) fn prepare() -> Result<()> {
    raise_open_files();
    rayon::ThreadPoolBuilder::new()
        .thread_name(|index| format!("worker-{index}"))
        .build_global()
        .map_err(Error::no_thread)
}

fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let wanted = limit.maximum.map_or(OPEN_FILES, |maximum| maximum.min(OPEN_FILES));
    if limit.current.is_some_and(|current| current < wanted) {
        // Where it is refused, fewer files are open at a time.
        let _best_effort = setrlimit(Resource::Nofile, Rlimit { current: Some(wanted), maximum: limit.maximum });
    }
}

/// The name of this host, from the kernel itself: /proc need not be there.
pub(super) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
