//! The database of the local state: sled, opened with its faults in mind.
//!
//! Opening it may fail or panic after a power cut, or never end where threads cannot be started or a FIFO is in its folder. Each of
//! these is an error here.

use crate::disk::own_files::names_in;
use crate::error::{Error, Kind, Result, kind_of_io};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::{Duration, Instant};

/// How long a locked database is tried again, and how often.
const LOCK_PATIENCE: Duration = Duration::from_secs(1);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// sled takes about three times of it.
const CACHE_BYTES: u64 = 8 << 20;

pub(super) fn failed(folder: &Path, error: sled::Error) -> Error {
    let kind = match &error {
        sled::Error::Io(error) => kind_of_io(error),
        _ => Kind::Failed,
    };
    Error::new(kind, "use the local state", folder.display()).because(why(error)).hint(REMOVE)
}

const REMOVE: &str = "if it happens again, delete that directory: the next backup takes longer, and nothing is lost";

/// What the database says, in words of ours.
fn why(error: sled::Error) -> Box<dyn std::error::Error + Send + Sync> {
    match error {
        sled::Error::Io(error) => error.into(),
        sled::Error::Corruption { .. } => "it is damaged".into(),
        sled::Error::CollectionNotFound(_) => "a part of it is missing".into(),
        sled::Error::Unsupported(why) => format!("the database cannot do it: {why}").into(),
        sled::Error::ReportableBug(why) => format!("the database has a fault: {why}").into(),
    }
}

/// How many threads sled may start while it is open.
const SLED_THREADS: usize = 16;

/// Checks that sled's threads can be started, with stacks as large as theirs.
fn check_threads() -> std::io::Result<()> {
    let barrier = std::sync::Mutex::new(());
    let held = barrier.lock();
    std::thread::scope(|scope| {
        let wait = || drop(barrier.lock());
        let started: std::io::Result<Vec<_>> =
            (0..SLED_THREADS).map(|_| std::thread::Builder::new().spawn_scoped(scope, wait)).collect();
        drop(held);
        started.map(drop)
    })
}

/// Opens the database, with patience: a lock outlives its holder for a moment where a program was being started just then,
/// as the child has it too until it becomes that program.
pub(super) fn open_db(folder: &Path) -> Result<sled::Db> {
    let begun = Instant::now();
    loop {
        match try_open_db(folder) {
            Err(error) if error.is(Kind::Locked) && begun.elapsed() < LOCK_PATIENCE => std::thread::sleep(LOCK_PAUSE),
            opened => return opened,
        }
    }
}

/// Refuses a folder with something else than files in it: sled would wait for the other end of a FIFO.
fn check_files(folder: &Path) -> Result<()> {
    let failed = |error| Error::io("look at the local state", folder.display(), error);
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let names = match names_in(&folder) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            names => names.map_err(failed)?,
        };
        for (name, _) in names {
            let path = folder.join(name);
            match path.symlink_metadata().map_err(failed)?.file_type() {
                kind if kind.is_file() => {}
                // The only one that it makes.
                kind if kind.is_dir() && path.file_name() == Some("blobs".as_ref()) => folders.push(path),
                _ => return Err(Error::corrupt("open the local state", path.display(), "it is not a file")),
            }
        }
    }
    Ok(())
}

fn try_open_db(folder: &Path) -> Result<sled::Db> {
    // sled waits for ever for threads that could not be started.
    check_threads().map_err(|error| {
        Error::io("start the threads of the local state", folder.display(), error)
            .hint("raise the limits of processes and of address space (ulimit -u, ulimit -v)")
    })?;
    check_files(folder)?;
    let config = sled::Config::new().path(folder).cache_capacity(CACHE_BYTES).flush_every_ms(None);
    match catch_unwind(AssertUnwindSafe(|| config.open())) {
        Ok(Ok(db)) => Ok(db),
        // sled has its own error in it, as text; a file system without locks is another matter.
        Ok(Err(sled::Error::Io(error))) if error.to_string().contains("WouldBlock") => {
            Err(Error::new(Kind::Locked, "open the local state", folder.display())
                .because("another backup of this job is running")
                .hint("wait for it to end"))
        }
        // A disk that is full or refuses access has damaged nothing.
        Ok(Err(sled::Error::Io(error)))
            if matches!(kind_of_io(&error), Kind::Full | Kind::Denied | Kind::Temporary) =>
        {
            Err(Error::io("open the local state", folder.display(), error).hint(REMOVE))
        }
        Ok(Err(error)) => Err(Error::new(Kind::Corrupt, "open the local state", folder.display()).because(why(error))),
        Err(_) => Err(Error::corrupt("open the local state", folder.display(), "the database panicked on it")),
    }
}
