//! A running backup: a sink for its chunks, and the right to commit a snapshot that names them.

use crate::error::{Error, Kind, Result};
use crate::format::snapshot::{SNAPSHOT_PURPOSE, Snapshot};
use crate::format::snapshot_name;
use crate::id::IndexId;
use crate::index::IndexBasis;
use crate::ingest::sink::{ChunkSink, SinkOptions};
use crate::lease::Heartbeat;
use crate::seal::{Recipients, seal_object};
use crate::vault::Vault;
use crate::watch::Watch;

/// How often a commit is tried when its right is taken away each time.
const COMMIT_TRIES: usize = 3;

/// Dropped without a commit, it withdraws; what it stored stays as chunks that the next run finds.
pub struct Writer {
    sink: ChunkSink,
    heartbeat: Heartbeat,
}

impl Writer {
    pub(crate) fn start(vault: &Vault, host: &str, options: &SinkOptions, watch: &Watch) -> Result<Self> {
        vault.check_writable()?;
        let heartbeat = Heartbeat::start(vault, host)?;
        Ok(Writer { sink: ChunkSink::open(vault, options, watch)?, heartbeat })
    }

    /// Where chunks are stored.
    pub fn sink(&self) -> &ChunkSink {
        &self.sink
    }

    /// The commit: after it the snapshot exists, for everybody and for good. Returns the name of its object, and why it could not
    /// be moved to its place, if it could not: the next backup tries again.
    pub fn commit(self, snapshot: &Snapshot) -> Result<(String, Option<Error>)> {
        if let Err(error) = self.sink.checkpoint(|_, _| ()) {
            // Nothing is left to save; the error that ended the run is what the caller must see.
            let _best_effort = self.withdraw();
            return Err(error);
        }
        let name = snapshot_name(&snapshot.started.compact()?, &snapshot.id);
        let body =
            seal_object(self.sink.vault().keys(), Recipients::SnapshotReaders, SNAPSHOT_PURPOSE, &snapshot.encode())?;
        let (storage, keys) = (self.sink.vault().storage(), self.sink.vault().keys());
        for _ in 0..COMMIT_TRIES {
            // After this, no beat can lose the right any more.
            let token = self.heartbeat.stop()?;
            if let Err(error) = self.sink.check_nothing_is_gone() {
                // Otherwise it would stay as a writer that seems to run.
                let _best_effort = token.withdraw(storage);
                return Err(error);
            }
            match token.commit(storage, keys, &name, body.clone()) {
                Err(error) if error.is(Kind::Locked) => self.heartbeat.register_again()?,
                done => return done.map(|unpublished| (name, unpublished)),
            }
        }
        Err(Error::new(Kind::Locked, "commit the snapshot", "")
            .because("other processes expired this backup three times")
            .hint("run the backup again: what it has stored already is not sent again"))
    }

    /// Ends without a snapshot; what was stored is made findable for the next run, and `findable` is called as for a
    /// [`checkpoint`](ChunkSink::checkpoint).
    pub fn abandon(self, findable: impl FnOnce(IndexBasis, &[IndexId]) + Send) -> Result<()> {
        let saved = self.sink.checkpoint(findable);
        self.withdraw()?;
        saved
    }

    /// Ends without a snapshot and without writing another byte: storage may have no room for one.
    pub(crate) fn withdraw(self) -> Result<()> {
        self.heartbeat.withdraw()
    }
}
