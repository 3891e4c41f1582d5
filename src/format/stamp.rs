//! A moment as a snapshot records it.

use crate::entry::Time;
use crate::error::{Error, Result};
use serde::{Deserialize, Serialize};

/// When the year 0 began, in seconds after 1970.
const YEAR_ZERO_SECONDS: i64 = -62_167_219_200;

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

    /// `20261119t140000z`: sorts by time for the years 0 to 9999, which is all that is accepted.
    pub fn compact(&self) -> Result<String> {
        let bad = || Error::invalid("use the time", self.seconds, "it is outside the years 0 to 9999");
        let timestamp = jiff::Timestamp::new(self.seconds, 0).map_err(|_| bad())?;
        if self.seconds < YEAR_ZERO_SECONDS {
            return Err(bad());
        }
        Ok(timestamp.strftime("%Y%m%dt%H%M%Sz").to_string())
    }
}
