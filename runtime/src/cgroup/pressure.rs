//! How long processes wait for a resource that is short ([PSI]).
//!
//! [PSI]: https://docs.kernel.org/accounting/psi.html

use super::Error;
use super::group::GroupDirectory;

/// Shares of time in which processes waited.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Pressure {
    /// At least one did.
    pub some: PressureShares,
    /// All did.
    pub full: PressureShares,
}

/// Percentages of the last 10, 60 and 300 seconds, and all of it in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct PressureShares {
    /// Of the last ten seconds.
    pub avg10: f64,
    /// Of the last minute.
    pub avg60: f64,
    /// Of the last five minutes.
    pub avg300: f64,
    /// Since the group is there.
    pub total: u64,
}

/// Reads a file such as `cpu.pressure`; nothing where the kernel does not count.
pub(super) fn read(group: &GroupDirectory, file: &str) -> Result<Option<Pressure>, Error> {
    match group.read_if_present(file) {
        Ok(Some(text)) => parse(&text).map(Some).ok_or_else(|| Error::Malformed {
            file: group.path.join(file),
            problem: "is not as the kernel writes pressures".to_owned(),
        }),
        Ok(None) => Ok(None),
        // Switched off at boot.
        Err(Error::Io { source, .. }) if source.raw_os_error() == Some(libc::EOPNOTSUPP) => Ok(None),
        Err(error) => Err(error),
    }
}

/// `some avg10=0.00 avg60=0.00 avg300=0.00 total=0`, and the same for `full`.
fn parse(text: &str) -> Option<Pressure> {
    let mut pressure = Pressure::default();
    for line in text.lines() {
        let mut words = line.split_ascii_whitespace();
        let shares = match words.next()? {
            "some" => &mut pressure.some,
            "full" => &mut pressure.full,
            _ => continue,
        };
        for word in words {
            match word.split_once('=')? {
                ("avg10", value) => shares.avg10 = value.parse().ok()?,
                ("avg60", value) => shares.avg60 = value.parse().ok()?,
                ("avg300", value) => shares.avg300 = value.parse().ok()?,
                ("total", value) => shares.total = value.parse().ok()?,
                _ => {}
            }
        }
    }
    Some(pressure)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_lines_are_read() {
        let text = "some avg10=1.50 avg60=0.25 avg300=0.00 total=42\nfull avg10=0.00 avg60=0.00 avg300=0.10 total=7\n";
        let pressure = parse(text).unwrap();
        assert_eq!(
            (pressure.some.avg10, pressure.some.avg60, pressure.some.total),
            (1.5, 0.25, 42)
        );
        assert_eq!((pressure.full.avg300, pressure.full.total), (0.1, 7));
        assert_eq!(parse(""), Some(Pressure::default()));
        assert_eq!(parse("some avg10"), None);
        assert_eq!(parse("some avg10=x"), None);
    }
}
