//! The chunk index of this machine: which chunks the repository has, and where. It can be rebuilt from the repository at any time; but
//! while it is used, a wrong answer loses data.

mod claims;
mod folder_lock;
mod listed_segment;
mod manifest;
mod segment;
mod segment_builder;
mod segment_layout;
mod segment_merge;
mod segment_place;
mod segment_search;
mod segment_write;
mod segments;
mod segments_commit;
mod spool;
mod tests;
mod view;

pub use claims::{Claim, Claims};
pub use segment::Segment;
pub use segments::Segments;
pub use view::{IndexBasis, IndexView};
