//! Quantities on the command line: sizes, CPUs, durations and points in time, read and printed as Docker does.
//!
//! Owns the texts only. Refuses negative values and overflow; what a quantity may be is the daemon's decision.

use jiff::Timestamp;

/// A text that is not the quantity it should be.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("invalid {what} {text:?}: expected {expected}")]
pub(crate) struct QuantityError {
    what: &'static str,
    text: String,
    expected: &'static str,
}

/// Bytes from `512m`, `1.5g`, `64kb`, `1GiB` or a plain number; the units are powers of 1024.
pub(crate) fn bytes(text: &str) -> Result<i64, QuantityError> {
    let error = || QuantityError {
        what: "size",
        text: text.to_owned(),
        expected: "a number with an optional unit b, k, m, g or t, such as 512m",
    };
    let split = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let number: f64 = number.parse().map_err(|_| error())?;
    let unit = unit.trim_start().to_ascii_lowercase();
    let power = match unit
        .strip_suffix("ib")
        .or_else(|| unit.strip_suffix('b'))
        .unwrap_or(&unit)
    {
        "" => 0,
        "k" => 1,
        "m" => 2,
        "g" => 3,
        "t" => 4,
        "p" => 5,
        _ => return Err(error()),
    };
    let value = number * 1024_f64.powi(power);
    // The last float below i64::MAX; casting a larger one would silently saturate.
    if value < 9_223_372_036_854_774_784.0 {
        Ok(value as i64)
    } else {
        Err(error())
    }
}

/// Billionths of a CPU from a decimal such as `0.5`.
pub(crate) fn nano_cpus(text: &str) -> Result<i64, QuantityError> {
    let error = || QuantityError {
        what: "number of CPUs",
        text: text.to_owned(),
        expected: "a decimal with at most nine places, such as 0.5",
    };
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if fraction.len() > 9 || (whole.is_empty() && fraction.is_empty()) || !digits(whole) || !digits(fraction)
    {
        return Err(error());
    }
    format!("{}{fraction:0<9}", if whole.is_empty() { "0" } else { whole })
        .parse()
        .map_err(|_| error())
}

/// `1h30m`, `10s`, `1.5h`, `300ms` in nanoseconds, as Go reads durations.
fn duration_nanos(text: &str) -> Option<i128> {
    let mut rest = text;
    let mut total = 0_f64;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let split = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, after) = rest.split_at(split);
        let number: f64 = number.parse().ok()?;
        let end = after
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(after.len());
        let (unit, after) = after.split_at(end);
        total += number
            * match unit {
                "ns" => 1.0,
                "us" | "µs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3600e9,
                _ => return None,
            };
        rest = after;
    }
    (total < 9e27).then_some(total as i128)
}

/// Seconds since the epoch, as the API takes points in time, from `10m` (ago), RFC 3339, a date, or such seconds.
pub(crate) fn point_in_time(text: &str, now: Timestamp) -> Result<String, QuantityError> {
    let seconds = |time: Timestamp| format!("{}.{:09}", time.as_second(), time.subsec_nanosecond());
    if let Some(ago) = duration_nanos(text) {
        let nanos = now.as_nanosecond() - ago;
        if let Ok(time) = Timestamp::from_nanosecond(nanos) {
            return Ok(seconds(time));
        }
    }
    let numeric = |part: &str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit());
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if numeric(whole) && numeric(fraction) {
        return Ok(text.to_owned());
    }
    // A date or a time without an offset is taken as UTC: the containers' clocks know no other zone either.
    let parsed = text
        .parse::<Timestamp>()
        .or_else(|_| format!("{text}Z").parse())
        .or_else(|_| format!("{text}T00:00:00Z").parse());
    parsed.map(seconds).map_err(|_| QuantityError {
        what: "point in time",
        text: text.to_owned(),
        expected: "a duration such as 10m, an RFC 3339 time, or seconds since 1970",
    })
}

/// `About a minute`, `3 weeks`: how long something lasted, for people.
pub(crate) fn approximately(seconds: i64) -> String {
    let minutes = seconds / 60;
    let hours = (seconds + 1800) / 3600;
    match (seconds, minutes, hours) {
        (..1, ..) => "Less than a second".to_owned(),
        (1, ..) => "1 second".to_owned(),
        (..60, ..) => format!("{seconds} seconds"),
        (_, 1, _) => "About a minute".to_owned(),
        (_, ..60, _) => format!("{minutes} minutes"),
        (.., 1) => "About an hour".to_owned(),
        (.., ..48) => format!("{hours} hours"),
        (.., ..336) => format!("{} days", hours / 24),
        (.., ..1440) => format!("{} weeks", hours / 24 / 7),
        (.., ..17520) => format!("{} months", hours / 24 / 30),
        _ => format!("{} years", hours / 24 / 365),
    }
}

/// `4.13MB`: bytes with three significant digits; the units are powers of 1000.
pub(crate) fn size(bytes: i64) -> String {
    const UNITS: [&str; 7] = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1000.0 && unit < UNITS.len() - 1 {
        value /= 1000.0;
        unit += 1;
    }
    let places = if value >= 99.95 {
        0
    } else if value >= 9.995 {
        1
    } else {
        2
    };
    let number = format!("{value:.places$}");
    let number = if number.contains('.') {
        number.trim_end_matches('0').trim_end_matches('.')
    } else {
        &number
    };
    format!("{number}{}", UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_in_powers_of_1024() {
        for (text, value) in [
            ("0", 0),
            ("10", 10),
            ("64k", 65536),
            ("512m", 1 << 29),
            ("1.5g", 3 << 29),
            ("2GiB", 1 << 31),
        ] {
            assert_eq!(bytes(text), Ok(value), "{text}");
        }
        for text in ["", "m", "-1", "1x", "1.2.3m", "99999999999p"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn cpus_are_exact_to_the_billionth() {
        for (text, value) in [
            ("1", 1_000_000_000),
            (".5", 500_000_000),
            ("0.000000001", 1),
            ("1.5", 1_500_000_000),
        ] {
            assert_eq!(nano_cpus(text), Ok(value), "{text}");
        }
        for text in ["", ".", "-1", "1e3", "0.0000000001", "x"] {
            assert!(nano_cpus(text).is_err(), "{text}");
        }
    }

    #[test]
    fn points_in_time_become_seconds() {
        let now: Timestamp = "2026-01-01T01:00:00Z".parse().expect("time");
        for (text, value) in [
            ("1h", "1767225600.000000000"),
            ("59m60s", "1767225600.000000000"),
            ("2026-01-01T00:00:00Z", "1767225600.000000000"),
            ("2026-01-01T00:00:00.5", "1767225600.500000000"),
            ("2026-01-01", "1767225600.000000000"),
            ("1767225600.25", "1767225600.25"),
        ] {
            assert_eq!(point_in_time(text, now).as_deref(), Ok(value), "{text}");
        }
        for text in ["", "yesterday", "10", "1h2"] {
            assert_eq!(point_in_time(text, now).is_ok(), text == "10", "{text}");
        }
    }

    #[test]
    fn ages_and_sizes_read_as_in_docker() {
        for (seconds, text) in [
            (0, "Less than a second"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "About a minute"),
            (3599, "59 minutes"),
            (3600, "About an hour"),
            (7200, "2 hours"),
            (86_400 * 3, "3 days"),
            (86_400 * 15, "2 weeks"),
            (86_400 * 90, "3 months"),
            (86_400 * 1000, "2 years"),
        ] {
            assert_eq!(approximately(seconds), text, "{seconds}");
        }
        for (bytes, text) in [
            (0, "0B"),
            (999, "999B"),
            (4_130_000, "4.13MB"),
            (77_800_000, "77.8MB"),
            (1_000, "1kB"),
        ] {
            assert_eq!(size(bytes), text, "{bytes}");
        }
    }
}
