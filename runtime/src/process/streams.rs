//! The standard streams of a new process, checked against what it asks for.

use std::os::fd::OwnedFd;

use crate::sys::{Fd, fd};
use crate::{Error, Stdio};

/// Descriptors for 0, 1 and 2, none of which is itself 0, 1 or 2.
#[derive(Debug)]
pub(crate) enum Streams {
    /// What the caller has; a terminal replaces them.
    Callers,
    /// These.
    Given([OwnedFd; 3]),
}

impl Streams {
    /// Checks that `stdio` and the configuration agree about a terminal.
    pub(crate) fn new(stdio: Stdio, terminal: bool) -> Result<Self, Error> {
        match stdio {
            // As runc: the master goes to the console socket, or back to the caller.
            Stdio::Terminal | Stdio::Inherit if terminal => Ok(Self::Callers),
            Stdio::Terminal => Err(Error::Invalid(
                "a terminal is asked for, but process.terminal is off".into(),
            )),
            Stdio::Inherit => Ok(Self::Callers),
            Stdio::Fds { .. } if terminal => Err(Error::Invalid(
                "process.terminal is on, but streams are given".into(),
            )),
            Stdio::Fds {
                stdin,
                stdout,
                stderr,
            } => Ok(Self::Given([
                above_two(stdin)?,
                above_two(stdout)?,
                above_two(stderr)?,
            ])),
        }
    }

    /// What the child half duplicates.
    pub(crate) fn wires(&self) -> Option<[Fd; 3]> {
        match self {
            Self::Callers => None,
            Self::Given(fds) => Some([Fd::of(&fds[0]), Fd::of(&fds[1]), Fd::of(&fds[2])]),
        }
    }
}

fn above_two(stream: OwnedFd) -> Result<OwnedFd, Error> {
    fd::above_streams(stream).map_err(|errno| Error::io("duplicate a stream", errno))
}
