//! What may be forgotten: everything here can be dropped and rebuilt from the repository, and is never wrong.

mod claims;
mod files;
mod frames;
mod manifest;
mod segment;
mod segment_layout;
mod segment_merge;
mod segment_search;
mod segment_write;
mod segments;
mod state;

pub use claims::{Claim, Claims};
pub use frames::FrameFiles;
pub use segment::Segment;
pub use segment_merge::merge;
pub use segment_write::{Builder, write_segment};
pub use segments::{Segments, View};
pub use state::{Change, FolderKey, PageRow, State, StateChanges};
