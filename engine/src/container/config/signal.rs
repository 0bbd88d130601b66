//! Signals by name and number, as Docker's API writes them.

use crate::error::{Error, Result};

/// SIGTERM: what `stop` sends when nothing else is configured.
pub const TERM: u32 = 15;

/// SIGKILL.
pub const KILL: u32 = 9;

// By number in the generic Linux ABI, from 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

const RTMIN: u32 = 34;
const RTMAX: u32 = 64;

/// The number of a signal written as a number, `TERM`, `SIGTERM`, `RTMIN+3` or `RTMAX-1`, in any case.
///
/// # Errors
///
/// It is none of these.
pub fn parse(text: &str) -> Result<u32> {
    let invalid = || Error::invalid(format!("invalid signal: {text}"));
    if let Ok(number) = text.parse::<u32>() {
        return if (1..=RTMAX).contains(&number) {
            Ok(number)
        } else {
            Err(invalid())
        };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(index) = NAMES.iter().position(|known| *known == name) {
        return u32::try_from(index + 1).map_err(|_| invalid());
    }
    let number = match name {
        "IOT" => Some(6),
        "CLD" => Some(17),
        "POLL" => Some(29),
        "RTMIN" => Some(RTMIN),
        "RTMAX" => Some(RTMAX),
        _ => {
            if let Some(offset) = name.strip_prefix("RTMIN+") {
                offset
                    .parse()
                    .ok()
                    .and_then(|offset: u32| RTMIN.checked_add(offset))
            } else if let Some(offset) = name.strip_prefix("RTMAX-") {
                offset
                    .parse()
                    .ok()
                    .and_then(|offset: u32| RTMAX.checked_sub(offset))
            } else {
                None
            }
        }
    };
    number
        .filter(|number| (RTMIN..=RTMAX).contains(number) || *number < 32)
        .ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_is_read() {
        for (text, number) in [
            ("9", 9),
            ("KILL", 9),
            ("SIGTERM", 15),
            ("sigusr1", 10),
            ("RTMIN+3", 37),
            ("SIGRTMAX-14", 50),
        ] {
            assert_eq!(parse(text).unwrap(), number, "{text}");
        }
        for text in [
            "",
            "0",
            "65",
            "SIGSIG",
            "RTMIN+31",
            "RTMAX-31",
            "-9",
            "RTMIN+4294967295",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
