//! Dates and figures for people: read as they are written, written so that they can be read back.

mod figures;
mod moment;
mod selector;

pub use figures::{format_bytes, format_count, format_counted, format_duration, parse_size};
pub(crate) use moment::rfc3339;
pub use moment::{Moment, format_time, parse_moment};
pub use selector::{Selector, parse_target};
