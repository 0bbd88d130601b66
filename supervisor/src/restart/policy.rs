//! The labels' and the configuration's words.

use std::time::Duration;

use crate::{
    error::{Error, Result},
    identifier::Labels,
};

const POLICY: &str = "containerd.io/restart.policy";
const EXPLICITLY_STOPPED: &str = "containerd.io/restart.explicitly-stopped";

/// When a container that does not run is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Policy {
    /// `no`: never.
    No,
    /// `always`, or no word at all.
    Always,
    /// `on-failure` or `on-failure:N`: when it failed, at most `N` times; 0 is any number of times.
    OnFailure(u64),
    /// `unless-stopped`: when no client says that it stopped it.
    UnlessStopped,
}

impl Policy {
    /// What the labels say.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` for an unknown word.
    pub fn of(labels: &Labels) -> Result<Self> {
        let text = labels.get(POLICY).map_or("", String::as_str);
        Ok(match text {
            "" | "always" => Self::Always,
            "no" => Self::No,
            "on-failure" => Self::OnFailure(0),
            "unless-stopped" => Self::UnlessStopped,
            _ => match text.strip_prefix("on-failure:").map(str::parse) {
                Some(Ok(most)) => Self::OnFailure(most),
                _ => return Err(Error::invalid(format!("restart policy {text:?} not supported"))),
            },
        })
    }

    /// Whether a container is to be started that ended with `exit_status` and was started `count` times by now.
    pub fn wants(self, exit_status: u32, count: u64, labels: &Labels) -> bool {
        match self {
            Self::No => false,
            Self::Always => true,
            Self::OnFailure(most) => exit_status != 0 && (most == 0 || count < most),
            Self::UnlessStopped => {
                let stopped = labels.get(EXPLICITLY_STOPPED).map_or("", String::as_str);
                // Go's words for true.
                !matches!(stopped, "1" | "t" | "T" | "true" | "TRUE" | "True")
            }
        }
    }
}

/// A time as containerd's configuration says it: `10s`, `500ms`, `1m`, `1h`.
///
/// # Errors
///
/// `InvalidArgument` for anything else, for none, and for more than a day.
pub fn interval(text: &str) -> Result<Duration> {
    let invalid = || Error::invalid(format!("interval {text:?} must be a time such as 10s"));
    let end = text
        .find(|character: char| !character.is_ascii_digit())
        .ok_or_else(invalid)?;
    let (number, unit) = text.split_at(end);
    let number: u64 = number.parse().map_err(|_| invalid())?;
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1000,
        "m" => 60 * 1000,
        "h" => 3600 * 1000,
        _ => return Err(invalid()),
    };
    let interval = number.checked_mul(milliseconds).map(Duration::from_millis);
    interval
        .filter(|interval| !interval.is_zero() && *interval <= Duration::from_secs(24 * 3600))
        .ok_or_else(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_containerd_writes_them() {
        assert_eq!(interval("10s").unwrap(), Duration::from_secs(10));
        assert_eq!(interval("250ms").unwrap(), Duration::from_millis(250));
        assert_eq!(interval("2m").unwrap(), Duration::from_secs(120));
        for bad in ["", "10", "s", "0s", "-1s", "25h", "1d", "99999999999999999999s"] {
            assert!(interval(bad).is_err(), "{bad}");
        }
    }
}
