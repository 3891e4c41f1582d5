//! What to save: kinds of sources, lists of paths, exclude rules, and streams.
//!
//! A source ([`Source`]) is a tree of files, the output of a command, or standard input. It knows nothing of chunks, keys or the repository, and
//! it does not decide what changed: it says which paths there are (`list`), which of them are left out (`rules`) and
//! reads the bytes of those that are not files ([`ByteSource`]).
//!
//! A source is whole or it fails: bytes that end early are never the end of the data, so a producer that fails makes its
//! last read fail.

mod classes;
mod command;
mod kinds;
pub(crate) mod list;
pub(crate) mod rules;
mod stdin;
pub(crate) mod stream;

pub use command::SECRETS;
pub use kinds::{ByteSource, ReadOnce, Source};
pub use list::{follow_slash, is_same_place, normalize, read_lines, read_raw};
pub use rules::{Marker, Rules, RulesBuilder};
pub use stdin::StdinSource;
pub use stream::{Stream, check_stream_name};
