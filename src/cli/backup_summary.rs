//! What a backup did, in words.

use super::backup_args::BackupArgs;
use siltstone::backup::{BackupReport, Healing};
use siltstone::repo::Snapshot;
use siltstone::when::{format_bytes, format_count, format_counted, format_duration};

pub(super) fn summary(report: &BackupReport, args: &BackupArgs) -> String {
    let totals = &report.totals;
    let mut text = match (&report.snapshot, args.dry_run) {
        (Some(snapshot), _) => format!("Snapshot {} in {}\n", snapshot.id.short(), format_duration(report.duration)),
        (None, true) => format!("Dry run: nothing was written ({})\n", format_duration(report.duration)),
        (None, false) => {
            format!("Nothing has changed: no snapshot was created ({})\n", format_duration(report.duration))
        }
    };
    text.push_str(&format!(
        "  Files    {} new, {} changed, {} unchanged, {} removed{}; {} in total\n",
        format_count(totals.files_new),
        format_count(totals.files_changed),
        format_count(totals.files_unchanged),
        format_count(totals.files_removed),
        match totals.files_unread {
            0 => String::new(),
            count => format!(", {} could not be read", format_count(count)),
        },
        format_bytes(totals.bytes)
    ));
    text.push_str(&match report.bytes_to_read {
        Some(bytes) => {
            format!("  Bytes    {} to read; how much is new shows only when it is read\n", format_bytes(bytes))
        }
        None => format!(
            "  Bytes    {} read, {} new, {} stored\n",
            format_bytes(totals.bytes_read),
            format_bytes(totals.bytes_new),
            format_bytes(totals.bytes_stored)
        ),
    });
    if totals.streams > 0 {
        let note = if args.dry_run { " (not run, size unknown)" } else { "" };
        text.push_str(&format!("  Streams  {}{note}\n", format_count(totals.streams)));
    }
    if report.sockets > 0 {
        text.push_str(&format!("  Sockets  {} skipped, as sockets have no content\n", format_count(report.sockets)));
    }
    if let Some(healing) = &report.healing {
        text.push_str(&healed(healing));
    }
    text
}

/// What a quiet run says of a damaged repository.
pub(super) fn damage(report: &BackupReport) -> String {
    let losses = report.losses.iter().map(|loss| format!("note: {loss}\n"));
    losses.chain(report.healing.iter().map(healed)).collect()
}

/// Snapshots that a summary names.
pub(super) const HEALED_NAMED_MAX: usize = 10;

pub(super) fn healed(healing: &Healing) -> String {
    // What is below a page that cannot be read is not counted.
    let mut text = match healing.chunks {
        0 if healing.complete_again.is_empty() => "  Damage   nothing repaired in earlier snapshots\n".to_owned(),
        0 => "  Repaired earlier snapshots, whose content was stored or put back meanwhile\n".to_owned(),
        chunks => format!("  Repaired {}, stored again\n", format_counted(chunks, "lost chunk", "lost chunks")),
    };
    let mut list = |what: &str, snapshots: &[Snapshot]| {
        let named: Vec<String> = snapshots.iter().rev().take(HEALED_NAMED_MAX).map(|one| one.id.short()).collect();
        let more = match snapshots.len().saturating_sub(named.len()) {
            0 => String::new(),
            count => format!(" and {} older", format_count(count as u64)),
        };
        if !named.is_empty() {
            text.push_str(&format!("           {what}: {}{more}\n", named.join(", ")));
        }
    };
    list("complete again", &healing.complete_again);
    list("still incomplete", &healing.still_incomplete);
    text
}
