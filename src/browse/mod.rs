//! Look inside a repository: select, list, find, compare, read, export and count; nothing here writes to it.

pub(crate) mod change;
mod content;
pub(crate) mod diff;
mod diff_directory;
pub(crate) mod export;
pub(crate) mod find;
mod folder_content;
mod glob;
mod info;
pub(crate) mod list;
pub(crate) mod path;
pub(crate) mod select;
mod series;
pub(crate) mod stats;
mod tar_acl;
mod tar_header;
mod walk;

pub use change::{Change, ChangeKind, DiffTotals};
pub use diff::diff_snapshots;
pub use diff_directory::{FolderDiff, diff_folder};
pub use export::{Archive, export};
pub use find::{EntryVersion, FindOptions, find};
pub use glob::Glob;
pub use info::{EntryInfo, VersionInfo};
pub use list::{list, list_skipping_damage};
pub use path::resolve;
pub use select::Filter;
pub use stats::{Statistics, stats};

/// A path or name for people: what would garble a terminal is escaped.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.into_owned() }
}
