//! Checkpoints of a run: make what is stored findable now and then, and note it in the local state.

use crate::backup::chunk_store::ChunkStore;
use crate::backup::page_row::{FolderKey, PageRow, StateChanges};
use crate::backup::state::LocalState;
use crate::error::Result;
use crate::id::IndexId;
use crate::index::IndexBasis;
use crate::lock::locked;
use crate::repo::ChunkSink;
use crate::watch::{Ledger, NoticeKind};
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::sync::Mutex;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// A checkpoint is due after this much new content and at least [`INTERVAL_MIN`], or after [`INTERVAL_MAX`].
const NEW_BYTES: u64 = 256 << 20;
const INTERVAL_MIN: Duration = Duration::from_secs(4);
const INTERVAL_MAX: Duration = Duration::from_secs(20);
/// A checkpoint is never due sooner than after this part of the time so far, so that long runs leave few small packs and index
/// objects.
const PART_OF_RUN: u32 = 20;
/// Polling interval of these conditions.
const POLL: Duration = Duration::from_millis(20);

/// The rows of local state that wait until the repository holds what they name.
pub(super) struct Checkpoints<'a> {
    state: Option<&'a LocalState>,
    store: &'a ChunkStore<'a>,
    ledger: &'a Ledger<'a>,
    pending: Mutex<StateChanges>,
}

impl<'a> Checkpoints<'a> {
    pub(crate) fn new(state: Option<&'a LocalState>, store: &'a ChunkStore<'a>, ledger: &'a Ledger<'a>) -> Self {
        Checkpoints { state, store, ledger, pending: Mutex::default() }
    }

    /// The state that rows are written to; none in a dry run.
    pub(crate) fn state(&self) -> Option<&'a LocalState> {
        self.state.filter(|_| !self.store.is_dry_run())
    }

    pub(crate) fn note_row(&self, folder: FolderKey, row: PageRow) {
        locked(&self.pending).rows.push((folder, row));
    }

    pub(crate) fn note_removed(&self, folder: FolderKey, first_names: Vec<Vec<u8>>) {
        if !first_names.is_empty() {
            locked(&self.pending).removed.extend(first_names.into_iter().map(|first_name| (folder, first_name)));
        }
    }

    /// Makes a checkpoint whenever one is due, until `is_done` is closed.
    pub(crate) fn keep(&self, is_done: &Receiver<()>) {
        let Some(sink) = self.store.sink() else { return };
        let begun = Instant::now();
        let (mut last, mut bytes) = (begun, 0);
        while is_done.recv_timeout(POLL) == Err(RecvTimeoutError::Timeout) {
            let new = sink.bytes_new.load(Ordering::Relaxed);
            let due = if new - bytes >= NEW_BYTES { INTERVAL_MIN } else { INTERVAL_MAX };
            if last.elapsed() >= due.max(begun.elapsed() / PART_OF_RUN) && new > bytes {
                if let Err(error) = self.make(sink) {
                    return self.ledger.fail(error);
                }
                (last, bytes) = (Instant::now(), new);
            }
        }
    }

    fn make(&self, sink: &ChunkSink) -> Result<()> {
        // What is taken here was noted before, so that the checkpoint covers it.
        let rows = self.take();
        sink.checkpoint(|relied, own| write_rows(self.state, rows, relied, own, self.ledger))
    }

    /// Takes the rows that wait.
    pub(crate) fn take(&self) -> StateChanges {
        std::mem::take(&mut *locked(&self.pending))
    }
}

/// Writes rows to the local state. The state is a cache: if it cannot be written, the next run takes longer, but this one does
/// not fail. `relied` is what the writer relied on, `own` are index objects that it does not include yet.
pub(super) fn write_rows(
    state: Option<&LocalState>,
    rows: StateChanges,
    mut relied: IndexBasis,
    own: &[IndexId],
    ledger: &Ledger,
) {
    let Some(state) = state.filter(|_| !rows.is_empty()) else { return };
    relied.indexes.extend(own);
    if let Err(error) = state.write(rows, &relied) {
        ledger.watch().notice(NoticeKind::Cache, format!("{error}; the next backup will read more than necessary"));
    }
}
