//! Read chunks back: find them in the index, fetch and open their frames, verify their names.

mod copies;
mod frame_files;
mod frame_run;
mod frames;
mod read_ahead;
mod read_ahead_state;
mod reader;

pub use reader::{Chunk, Reader};
