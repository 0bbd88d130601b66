//! Signals: their names, and sending them to containers.

use std::fmt;
use std::str::FromStr;

use crate::sys::Fd;
use crate::sys::process::pidfd_signal;
use crate::{Container, Error, Status};

/// A signal number, 1 to 64.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Signal(i32);

/// A string or number that is no signal.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("unknown signal {0:?}")]
pub struct InvalidSignal(pub String);

/// The names without `SIG`, by number - 1.
const NAMES: [&str; 31] = [
    "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE",
    "ALRM", "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ",
    "VTALRM", "PROF", "WINCH", "IO", "PWR", "SYS",
];

/// The first real-time signal a program may use under glibc, and the last.
const RTMIN: i32 = 34;
const RTMAX: i32 = 64;

impl Signal {
    /// `SIGKILL`.
    pub const KILL: Self = Self(9);
    /// `SIGTERM`.
    pub const TERM: Self = Self(15);

    /// Checks a number.
    ///
    /// # Errors
    ///
    /// The number is outside 1..=64.
    pub fn from_number(number: i32) -> Result<Self, InvalidSignal> {
        if (1..=RTMAX).contains(&number) {
            Ok(Self(number))
        } else {
            Err(InvalidSignal(number.to_string()))
        }
    }

    /// The kernel's number.
    #[must_use]
    pub fn number(self) -> i32 {
        self.0
    }
}

impl FromStr for Signal {
    type Err = InvalidSignal;

    /// Takes `15`, `TERM`, `SIGTERM` in any case, and `RTMIN`, `RTMIN+n`, `RTMAX-n`, `RTMAX`.
    fn from_str(text: &str) -> Result<Self, InvalidSignal> {
        let invalid = || InvalidSignal(text.chars().take(32).collect());
        if let Ok(number) = text.parse() {
            return Self::from_number(number).map_err(|_| invalid());
        }
        let upper = text.to_ascii_uppercase();
        let name = upper.strip_prefix("SIG").unwrap_or(&upper);
        if let Some(index) = NAMES.iter().position(|known| *known == name) {
            return Self::from_number(index as i32 + 1).map_err(|_| invalid());
        }
        let offset = |digits: &str, sign: char| match digits.strip_prefix(sign) {
            Some(number) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => {
                number.parse::<i32>().ok()
            }
            None if digits.is_empty() => Some(0),
            _ => None,
        };
        let number = match (name, name.strip_prefix("RTMIN"), name.strip_prefix("RTMAX")) {
            ("IOT", ..) => Some(6),
            ("CLD", ..) => Some(17),
            ("POLL", ..) => Some(29),
            (_, Some(rest), _) => offset(rest, '+').and_then(|offset| RTMIN.checked_add(offset)),
            (_, _, Some(rest)) => offset(rest, '-').and_then(|offset| RTMAX.checked_sub(offset)),
            _ => None,
        };
        match number {
            Some(number) if (RTMIN..=RTMAX).contains(&number) || NAMES.len() as i32 >= number => {
                Self::from_number(number).map_err(|_| invalid())
            }
            _ => Err(invalid()),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match NAMES.get(self.0 as usize - 1) {
            Some(name) => write!(formatter, "SIG{name}"),
            None => write!(formatter, "signal {}", self.0),
        }
    }
}

impl Container {
    /// Signals the first process, through its pidfd. `SIGKILL` also thaws a paused container: it could not die frozen.
    ///
    /// `SIGKILL` of a container without a pid namespace of its own goes to all of its processes, also when the first is gone:
    /// nothing else would end them.
    ///
    /// # Errors
    ///
    /// The container is stopped, or the kernel refuses.
    pub fn kill(&self, signal: Signal) -> Result<(), Error> {
        let status = self.status()?;
        if signal == Signal::KILL && !self.has_own_pids() && self.cgroup.exists() {
            self.kill_all(signal)?;
            // The first process may have left the group; if it is gone, all is done.
            return match &self.pidfd {
                Some(pidfd) if status != Status::Stopped => {
                    match pidfd_signal(Fd::of(pidfd), signal.number()) {
                        Err(errno) if errno.number() != libc::ESRCH => Err(Error::io(
                            format!("send {signal} to container {}", self.id),
                            errno,
                        )),
                        Ok(()) | Err(_) => Ok(()),
                    }
                }
                _ => Ok(()),
            };
        }
        let Some(pidfd) = self.pidfd.as_ref().filter(|_| status != Status::Stopped) else {
            return Err(self.wrong("kill", status));
        };
        match pidfd_signal(Fd::of(pidfd), signal.number()) {
            Ok(()) => {}
            // It ended a moment ago.
            Err(errno) if errno.number() == libc::ESRCH => return Err(self.wrong("kill", Status::Stopped)),
            Err(errno) => {
                return Err(Error::io(
                    format!("send {signal} to container {}", self.id),
                    errno,
                ));
            }
        }
        if signal == Signal::KILL && status == Status::Paused {
            self.cgroup.thaw()?;
        }
        Ok(())
    }

    /// Whether the end of the first process is the end of all.
    pub(crate) fn has_own_pids(&self) -> bool {
        self.record.own_namespaces & libc::CLONE_NEWPID as u64 != 0
    }

    /// Signals every process of the control group.
    ///
    /// # Errors
    ///
    /// The group cannot be read, or the kernel refuses.
    pub fn kill_all(&self, signal: Signal) -> Result<(), Error> {
        Ok(self.cgroup.kill(signal.number())?)
    }

    /// Freezes the container; returns when it is frozen.
    ///
    /// # Errors
    ///
    /// It is neither running nor created, or the freezer fails.
    pub fn pause(&self) -> Result<(), Error> {
        match self.status()? {
            Status::Running | Status::Created => Ok(self.cgroup.freeze()?),
            status => Err(self.wrong("pause", status)),
        }
    }

    /// Thaws the container.
    ///
    /// # Errors
    ///
    /// It is not paused, or the freezer fails.
    pub fn resume(&self) -> Result<(), Error> {
        if self.is_alive() && self.cgroup.is_frozen()? {
            return Ok(self.cgroup.thaw()?);
        }
        Err(self.wrong("resume", self.status()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_are_read() {
        for (text, number) in [
            ("15", 15),
            ("TERM", 15),
            ("SIGTERM", 15),
            ("sigkill", 9),
            ("SYS", 31),
            ("RTMIN", 34),
            ("SIGRTMIN+3", 37),
            ("RTMAX-1", 63),
            ("RTMAX", 64),
            ("CLD", 17),
            ("64", 64),
        ] {
            assert_eq!(text.parse::<Signal>().map(Signal::number), Ok(number), "{text}");
        }
        for text in [
            "", "0", "65", "-1", "SIG", "FOO", "RTMIN+31", "RTMAX-31", "RTMIN+-1", "RTMIN+",
        ] {
            assert!(text.parse::<Signal>().is_err(), "{text}");
        }
    }
}
