//! Save all sources: paths, then streams, then the directories above them.

use crate::backup::conclude::SavedOutcome;
use crate::backup::root_tree::RootTree;
use crate::backup::state::LastSize;
use crate::backup::stream_saver::StreamSaver;
use crate::backup::streams::Streams;
use crate::backup::walk::SourceWalk;
use crate::disk::rights;
use crate::entry::Entry;
use crate::error::Result;
use crate::repo::{ChunkSink, Snapshot};
use std::sync::atomic::Ordering;
use std::thread::Builder;

pub(super) fn save(walk: &SourceWalk, saver: &StreamSaver, streams: &mut Streams) -> Result<SavedOutcome> {
    let can_look_up = |entry: &Entry| walk.baseline.can_look_up(entry);
    streams.retain_stored(|entry| Ok(can_look_up(entry) && walk.baseline.is_stored(entry)?))?;
    let mut tree = RootTree::default();
    let (is_unchanged, has_stored_sources) = with_threads_beside(walk, || {
        walk.ledger.watch().stage("walking");
        let found = walk.save_paths(!saver.sources.is_empty())?;
        for (path, entry) in found.entries {
            tree.add(&path, entry)?;
        }
        tree.root = found.root;
        saver.save(streams, &mut tree)?;
        tree.describe_parents(walk.entries.describer);
        let chunks_new = walk.store.sink().map(|sink| sink.chunks_new.load(Ordering::Relaxed));
        // What one of the two was not shown may have changed.
        let has_same_view = |parent: &&Snapshot| parent.lacks_trusted != rights::sees_trusted();
        let parent = walk.baseline.parent().filter(|_| saver.options.skip_if_unchanged).filter(has_same_view);
        let sources = walk.selection.sources.in_snapshot();
        let is_unchanged = parent.is_some_and(|parent| {
            parent.is_of_sources(&sources) && tree.is_same_in(&walk.baseline.reader, parent, &walk.counts.totals())
        });
        Ok((is_unchanged, chunks_new > Some(0)))
    })?;
    Ok(SavedOutcome { root: tree.store(walk.store)?, is_unchanged, has_stored_sources })
}

/// Calls `act` while other threads keep checkpoints, wake readers and count what is still to come.
fn with_threads_beside<T>(walk: &SourceWalk, act: impl FnOnce() -> Result<T>) -> Result<T> {
    let known =
        walk.baseline.parent().map(|parent| LastSize { files: parent.totals.files, bytes: parent.totals.bytes });
    let known = known.or_else(|| walk.baseline.state()?.last_size());
    let (watch, options) = (walk.ledger.watch(), walk.selection.options);
    if let Some(LastSize { files, bytes }) = known {
        watch.progress.files_expected.store(files, Ordering::Relaxed);
        watch.progress.bytes_expected.store(bytes, Ordering::Relaxed);
    }
    let (done, is_done) = crossbeam_channel::bounded::<()>(0);
    std::thread::scope(|scope| {
        let (for_readers, for_count) = (is_done.clone(), is_done.clone());
        // Without these threads a run is slower, or less of it outlives an interruption: it goes on.
        let beside = |name: &str| Builder::new().name(name.to_owned());
        let _kept = beside("checkpoints").spawn_scoped(scope, move || walk.checkpoints.keep(&is_done));
        if known.is_none() && options.count_ahead && !options.dry_run {
            let count = move || walk.selection.count_ahead(&for_count, watch);
            let _counted = beside("count").spawn_scoped(scope, count);
        }
        let is_held_up = || walk.store.sink().is_some_and(ChunkSink::is_held_up);
        let _adapted = beside("adapt").spawn_scoped(scope, move || walk.readers.adapt(&for_readers, is_held_up));
        let result = act();
        drop(done);
        result
    })
}
