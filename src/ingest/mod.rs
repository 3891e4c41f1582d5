//! The only way into a repository: chunks become frames, packs, index objects and a snapshot, in that order.

mod packs;
mod upload;
mod writer;

pub use writer::{Writer, WriterOptions};
