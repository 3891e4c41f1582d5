//! Read chunks back: find them in the index, fetch and open their frames, verify their names.

mod chunk;
mod copies;
mod elsewhere;
mod frame_run;
mod frames;
mod read_ahead;
mod read_ahead_state;
mod reader;

pub use chunk::Chunk;
pub use reader::Reader;
