//! The local file system: metadata read and applied, content read and written, whole-or-nothing writes. Linux only.
//!
//! Everything below a root is reached by an open directory and one name, never by a path: nothing is resolved twice, and
//! replacing a directory by a symbolic link meanwhile does not lead us elsewhere.

pub(crate) mod acl;
pub(crate) mod apply;
pub(crate) mod backing_devices;
pub(crate) mod buffer;
mod change_places;
pub(crate) mod create;
pub(crate) mod device;
pub(crate) mod encrypted;
pub(crate) mod flags;
pub(crate) mod follow;
pub(crate) mod foresee;
mod half_done;
pub(crate) mod handle;
mod kept_xattrs;
mod loss;
pub(crate) mod mounts;
pub(crate) mod open;
pub(crate) mod opened_up;
pub(crate) mod own_files;
pub(crate) mod owner;
pub(crate) mod read_dir;
mod refused;
pub(crate) mod remove;
pub(crate) mod rights;
pub(crate) mod stat;
mod subject;
mod tests;
pub(crate) mod umask;
pub(crate) mod unfinished;
pub(crate) mod whole;
pub(crate) mod write;
pub(crate) mod xattr;
pub(crate) mod zeros;

pub(crate) use apply::{ApplyOptions, CurrentMetadata, Loss, Subject, apply_metadata};
pub(crate) use buffer::{PageBuffer, WRITE_BYTES_MAX};
pub(crate) use create::TargetDirectory;
pub use create::unfinished_mode;
pub use device::same_device;
pub(crate) use handle::{FolderHandle, HeldHandle, levels_open};
pub(crate) use kept_xattrs::{has_saved_attributes, with_unsaved_attributes};
pub use open::raise_open_files;
pub use own_files::why_not_own;
pub use owner::Owners;
pub use read_dir::{Directory, ListBuffer, NameList, OpenHint};
pub(crate) use stat::Identity;
pub use stat::{Stat, stat_path};
pub use unfinished::{is_leftover, next_name};
pub use whole::{make_private_dir, read_bounded, write_new_private, write_whole};
