//! Dates and figures for people: read as they are written, written so that they can be read back.

mod figures;
mod moment;
mod selector;

pub use figures::{format_bytes, format_count, format_counted, format_duration, parse_size};
pub use moment::{Moment, format_time, from_timestamp, parse_moment, parse_zone, rfc3339, to_timestamp};
pub use selector::{Selector, parse_target};
