//! A moment as a snapshot records it.

use crate::entry::Time;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// When the year 0 began, in seconds after 1970.
const FIRST_SECOND: i64 = -62_167_219_200;
/// 9999-12-30T22:00:00Z: until then, the year has four digits in all time zones.
const LAST_SECOND: i64 = 253_402_207_200;

/// A moment, as seconds and nanoseconds since 1970 UTC, with the offset that the host's clock showed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Stamp {
    /// Whole seconds since 1970 UTC, rounded down.
    pub seconds: i64,
    /// Nanoseconds of the second, below 1,000,000,000.
    pub nanoseconds: u32,
    /// Seconds east of UTC.
    #[serde(default)]
    pub offset: i32,
}

impl Stamp {
    pub(crate) fn new(time: Time, offset: i32) -> Self {
        Stamp { seconds: time.seconds, nanoseconds: time.nanoseconds, offset }
    }

    /// The moment, without the offset.
    pub fn time(&self) -> Time {
        Time { seconds: self.seconds, nanoseconds: self.nanoseconds }
    }

    /// Whether it is a time that a clock can show: then it can be written as RFC 3339.
    pub(super) fn is_valid(&self) -> bool {
        (FIRST_SECOND..=LAST_SECOND).contains(&self.seconds)
            && self.nanoseconds < 1_000_000_000
            && self.offset.unsigned_abs() <= 86_340
    }

    /// `20261119t140000z`: sorts by time. Only times in the years 0 to 9999 are accepted, in all time zones.
    pub fn compact(&self) -> Result<String> {
        let bad = || Error::invalid("use the time", self.seconds, "it is outside the years 0 to 9999");
        if !(FIRST_SECOND..=LAST_SECOND).contains(&self.seconds) {
            return Err(bad());
        }
        let timestamp = jiff::Timestamp::new(self.seconds, 0).map_err(|_| bad())?;
        Ok(timestamp.strftime("%Y%m%dt%H%M%Sz").to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_and_the_last_moment_are_those_that_the_format_states() {
        let compact = |seconds| Stamp { seconds, ..Stamp::default() }.compact();
        assert_eq!(compact(-62_167_219_200).expect("the first"), "00000101t000000z");
        assert_eq!(compact(253_402_207_200).expect("the last"), "99991230t220000z");
        for outside in [i64::MIN, -62_167_219_201, 253_402_207_201, i64::MAX] {
            assert!(compact(outside).is_err(), "{outside}");
        }
    }
}
