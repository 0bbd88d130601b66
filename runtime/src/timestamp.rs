//! Points in time as text: RFC 3339 in UTC.
//!
//! Written and never read, so a library of calendars would be much for little: this program is loaded for each
//! container.

use std::fmt;
use std::time::{SystemTime, UNIX_EPOCH};

/// A point in time, to be displayed as `2006-01-02T15:04:05Z`; with a precision (`{:.9}`) with so many digits of the second's
/// parts, up to nine.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Timestamp {
    seconds: u64,
    nanoseconds: u32,
}

impl Timestamp {
    /// Now, by the system's clock. A clock that stands before 1970 is taken to stand there.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self {
            seconds: since.as_secs(),
            nanoseconds: since.subsec_nanos(),
        }
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = date(self.seconds / 86_400);
        let second = self.seconds % 86_400;
        let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
        write!(
            formatter,
            "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}"
        )?;
        if let Some(digits @ 1..=9) = formatter.precision() {
            let parts = self.nanoseconds / 10u32.pow(9 - digits as u32);
            write!(formatter, ".{parts:0digits$}")?;
        }
        formatter.write_str("Z")
    }
}

/// Year, month and day of a day after 1970-01-01, in the proleptic Gregorian calendar.
///
/// Years begin in March here, so that the day that not each year has is the last one; 400 years have 146097 days.
fn date(days: u64) -> (u64, u64, u64) {
    const FROM_YEAR_0: u64 = 719_468;
    let days = days + FROM_YEAR_0;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (month, next) = if month < 10 {
        (month + 3, 0)
    } else {
        (month - 9, 1)
    };
    (400 * era + year + next, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_dates() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (1_735_689_600, "2025-01-01T00:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
            (253_402_300_799, "9999-12-31T23:59:59Z"),
        ] {
            let nanoseconds = 0;
            assert_eq!(Timestamp { seconds, nanoseconds }.to_string(), text);
        }
    }

    /// A second reckoning, day by day.
    #[test]
    fn no_day_is_left_out_or_there_twice() {
        let (mut year, mut month, mut day) = (1970, 1, 1);
        for days in 0..366 * 800 {
            assert_eq!(date(days), (year, month, day), "day {days}");
            let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
            let last = match month {
                2 => 28 + u64::from(leap),
                4 | 6 | 9 | 11 => 30,
                _ => 31,
            };
            day += 1;
            if day > last {
                (day, month) = (1, month + 1);
            }
            if month > 12 {
                (month, year) = (1, year + 1);
            }
        }
    }

    #[test]
    fn a_precision_adds_digits() {
        let time = Timestamp {
            seconds: 1,
            nanoseconds: 20_300_004,
        };
        assert_eq!(format!("{time:.9}"), "1970-01-01T00:00:01.020300004Z");
        assert_eq!(format!("{time:.3}"), "1970-01-01T00:00:01.020Z");
        assert_eq!(format!("{time:.0}"), "1970-01-01T00:00:01Z");
    }
}
