//! Begins a run: registers the writer, and compares the local index with the repository.

use crate::backup::attempts::CarriedOver;
use crate::backup::damage::KnownLosses;
use crate::backup::options::BackupOptions;
use crate::backup::readers::Readers;
use crate::error::Result;
use crate::repo::{Repository, SinkOptions, Writer};
use crate::watch::Watch;

/// Shows the writer and compares the local index with the repository; what the sources are compared with is chosen after that.
/// In this order and no other, for what is removed from here on is removed knowing of this writer. A dry run has no writer.
pub(super) fn begin<'a>(
    repo: &'a Repository,
    options: &BackupOptions,
    readers: &Readers,
    carried: &mut CarriedOver,
    watch: &Watch,
) -> Result<(KnownLosses<'a>, Option<Writer>)> {
    let marks = repo.unreported_losses();
    if options.dry_run {
        let damage = KnownLosses::new(repo, marks, repo.compare_index(watch)?, true);
        damage.tell(|notice| carried.say_once(watch, notice));
        return Ok((damage, None));
    }
    let wanted =
        SinkOptions { lanes: readers.lanes(), compression: options.compression, memory_bytes: options.memory_bytes };
    let writer = repo.writer(&options.host, &wanted, watch)?;
    carried.before.views.push(writer.sink().view_before().clone());
    let damage = KnownLosses::new(repo, marks, writer.sink().check().clone(), false);
    damage.note_what_is_back();
    carried.before.note_snapshots(repo, &damage);
    damage.tell(|notice| carried.say_once(watch, notice));
    Ok((damage, Some(writer)))
}
