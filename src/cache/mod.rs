//! What can be rebuilt from the repository: everything here may be deleted at any time, and only makes runs faster.

mod claims;
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
pub use segments::{Basis, Segments, View};
pub use state::{Change, FolderKey, PageRow, Rest, State, StateChanges};
