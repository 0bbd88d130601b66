//! Handing a terminal's master to the caller's console socket.
//!
//! The protocol is runc's: connect, and send one message with the master beside it.

use std::os::fd::OwnedFd;
use std::path::Path;

use crate::{Error, handover};

/// What the message says the descriptor is.
const NAME: &[u8] = b"/dev/ptmx";

/// A console socket that answers.
#[derive(Debug)]
pub(crate) struct ConsoleSocket(OwnedFd);

impl ConsoleSocket {
    /// Connects, before anything is made for the container.
    pub(crate) fn connect(path: &Path) -> Result<Self, Error> {
        handover::connect(path)
            .map(Self)
            .map_err(|cause| Error::io(format!("connect to the console socket {}", path.display()), cause))
    }

    /// Sends the master; this process's copy is closed.
    pub(crate) fn send(self, master: OwnedFd) -> Result<(), Error> {
        handover::send(&self.0, NAME, &master)
            .map_err(|cause| Error::io("send the terminal to the console socket", cause))
    }
}
