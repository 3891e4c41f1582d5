//! Show entries of snapshots, as lines.

use super::text::show_path;
use siltstone::entry::{Entry, EntryKind, Time};
use siltstone::when::format_time;

/// `-rwsr-xr-x`, as ls shows it; a stream has an `s` in front.
pub(super) fn mode_text(kind: EntryKind, mode: u32) -> String {
    let letter = match kind {
        EntryKind::File => '-',
        EntryKind::Directory => 'd',
        EntryKind::Symlink => 'l',
        EntryKind::CharDevice => 'c',
        EntryKind::BlockDevice => 'b',
        EntryKind::Fifo => 'p',
        EntryKind::Stream => 's',
    };
    let mut text = String::from(letter);
    // Beside each triple: the bit that changes its last letter, and that letter.
    for (shift, special, letter) in [(6, 0o4000, 's'), (3, 0o2000, 's'), (0, 0o1000, 't')] {
        let bits = mode >> shift;
        text.push(if bits & 4 == 0 { '-' } else { 'r' });
        text.push(if bits & 2 == 0 { '-' } else { 'w' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => letter,
            (true, false) => letter.to_ascii_uppercase(),
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// What `ls -l` says of an entry.
pub(super) fn long_line(path: &[u8], entry: &Entry) -> String {
    let name_or =
        |name: &str, number: u32| if name.is_empty() { number.to_string() } else { show_path(name.as_bytes()) };
    let size = match entry.kind {
        EntryKind::CharDevice | EntryKind::BlockDevice => format!("{},{}", entry.device.0, entry.device.1),
        _ => entry.size.to_string(),
    };
    let mut line = format!(
        "{} {:<8} {:<8} {size:>12} {} {}",
        mode_text(entry.kind, entry.meta.mode),
        name_or(&entry.meta.user, entry.meta.uid),
        name_or(&entry.meta.group, entry.meta.gid),
        show_seconds(entry.meta.modified),
        show_path(path),
    );
    if entry.kind == EntryKind::Symlink {
        line.push_str(&format!(" -> {}", show_path(&entry.target)));
    }
    line
}

/// A time without its fraction: what a person can take in.
pub(super) fn show_seconds(time: Time) -> String {
    format_time(Time { nanoseconds: 0, ..time }, &jiff::tz::TimeZone::system())
}
