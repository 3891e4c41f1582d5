//! The local file system: metadata read and applied, content read and written, whole-or-nothing writes. Linux only.
//!
//! Everything below a root is reached by an open directory and one name, never by a path: nothing is resolved twice, and
//! replacing a directory by a symbolic link meanwhile does not lead us elsewhere.

pub mod apply;
pub mod below;
pub mod buffer;
mod change_places;
pub mod create;
pub mod device;
pub mod flags;
pub mod follow;
pub mod foresee;
mod half_done;
pub mod handle;
mod loss;
pub mod mounts;
pub mod open;
pub mod opened_up;
pub mod own_files;
pub mod owner;
pub mod read_dir;
mod refused;
pub mod remove;
pub mod rights;
pub mod stat;
mod subject;
pub mod umask;
pub mod unfinished;
pub mod whole;
pub mod write;
pub mod xattr;
pub mod zeros;

pub use apply::{ApplyOptions, CurrentMetadata, Loss, Subject, apply_metadata};
pub use buffer::{PageBuffer, WRITE_BYTES_MAX};
pub use create::TargetDirectory;
pub use handle::{FolderHandle, HeldHandle, levels_open};
pub use owner::Owners;
pub use read_dir::{Directory, ListBuffer, NameList};
pub use stat::{Identity, Stat};
