//! Look inside a repository: select, list, find, compare, read, export and count; nothing here writes to it.

pub mod change;
mod content;
pub mod diff;
pub mod export;
pub mod find;
mod folder;
mod folder_content;
mod glob;
mod info;
pub mod list;
pub mod path;
pub mod select;
pub mod stats;
mod tar_acl;
mod tar_header;
mod walk;

pub use change::{Change, ChangeKind, DiffTotals};
pub use diff::{EachChange, diff_snapshots};
pub use export::{Archive, export};
pub use find::{EachFound, EntryVersion, FindOptions, find};
pub use folder::{EachFolderChange, FolderDiff, diff_folder};
pub use glob::Glob;
pub use info::{EntryInfo, VersionInfo};
pub use list::{list, list_what_is_whole};
pub use path::resolve;
pub use select::Filter;
pub use stats::{Statistics, stats};

/// A path or name for people: what would garble a terminal is escaped.
fn shown(path: &[u8]) -> String {
    let text = String::from_utf8_lossy(path);
    if text.chars().any(char::is_control) { text.escape_debug().to_string() } else { text.into_owned() }
}
