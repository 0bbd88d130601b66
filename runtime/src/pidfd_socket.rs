//! Handing a pidfd of a new process to the caller's pidfd socket.
//!
//! The protocol is runc's: connect, and send one message with the pidfd beside it.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::{Error, handover};

/// A pidfd socket that answers.
#[derive(Debug)]
pub(crate) struct PidfdSocket(OwnedFd);

impl PidfdSocket {
    /// What the message says about the first process of a container.
    pub(crate) const FIRST: &[u8] = b"standard";
    /// What it says about a process that joins one.
    pub(crate) const JOINED: &[u8] = b"setns";

    /// Connects, before anything is made for the container.
    pub(crate) fn connect(path: &Path) -> Result<Self, Error> {
        handover::connect(path)
            .map(Self)
            .map_err(|cause| Error::io(format!("connect to the pidfd socket {}", path.display()), cause))
    }

    /// Sends a copy of the pidfd under `name`.
    pub(crate) fn send(self, name: &[u8], pidfd: &OwnedFd) -> Result<(), Error> {
        handover::send(&self.0, name, pidfd)
            .map_err(|cause| Error::io("send the pidfd to the pidfd socket", cause))
    }
}
