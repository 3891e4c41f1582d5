//! The only way into a repository: chunks become frames, packs, index objects and a snapshot, in that order.

mod findable;
mod packs;
mod sink;
mod upload;
mod writer;

pub use sink::{ChunkSink, SinkOptions};
pub use writer::Writer;
