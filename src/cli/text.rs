//! What people read: paths, dates, sources, tables.

use comfy_table::{CellAlignment, Table, presets};
use siltstone::repo::{SnapshotSource, Stamp, UnknownSource};
use siltstone::when::format_time;

/// A table without lines; columns named in `right` hold figures.
pub(super) fn table(header: &[&str], right: &[usize], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(header.iter().copied());
    for row in rows {
        table.add_row(row);
    }
    for (index, column) in table.column_iter_mut().enumerate() {
        column.set_padding((0, 2));
        if right.contains(&index) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    let lines: Vec<String> = table.lines().map(|line| line.trim_end().to_owned()).collect();
    format!("{}\n", lines.join("\n"))
}

/// A path (or message) on one line: control characters, those that turn the direction of text, and bytes that are not
/// text are escaped.
pub(super) fn show_path(path: &[u8]) -> String {
    let mut shown = String::with_capacity(path.len());
    for chunk in path.utf8_chunks() {
        for character in chunk.valid().chars() {
            if character.is_control() || turns_text(character) {
                shown.extend(character.escape_default())
            } else {
                shown.push(character)
            }
        }
        shown.push_str(&chunk.invalid().escape_ascii().to_string());
    }
    shown
}

/// Characters that reorder what stands around them, or begin a line: a name shown with them may be read as another one.
fn turns_text(character: char) -> bool {
    matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The time of a snapshot in the time zone of this machine.
pub(super) fn show_stamp(stamp: &Stamp) -> String {
    format_time(stamp.time(), &jiff::tz::TimeZone::system())
}

/// What a snapshot holds, as words.
pub(super) fn show_source(source: &SnapshotSource) -> String {
    match source {
        SnapshotSource::Tree { path } => show_path(&path.0),
        SnapshotSource::Stream { name, .. } => format!("stream {}", show_path(&name.0)),
        SnapshotSource::Unknown(UnknownSource { kind }) => format!("{} (of a newer silt)", show_path(kind.as_bytes())),
    }
}
