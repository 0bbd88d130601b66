//! Handing a descriptor to the caller's socket: a terminal's master (`--console-socket`), a pidfd (`--pidfd-socket`).
//!
//! The protocol is runc's: connect to a unix stream socket, and send one message with the descriptor beside it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};

use crate::Error;

/// A socket of the caller's that answers.
#[derive(Debug)]
pub(crate) struct Handover {
    socket: OwnedFd,
    what: &'static str,
}

impl Handover {
    /// Connects, before anything is made for the container. `what` is received there, for messages.
    pub(crate) fn connect(path: &Path, what: &'static str) -> Result<Self, Error> {
        let failed = |errno| Error::io(format!("connect to the {what} socket {}", path.display()), errno);
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(failed)?;
        let address = SocketAddrUnix::new(path).map_err(failed)?;
        connect(&socket, &address).map_err(failed)?;
        Ok(Self { socket, what })
    }

    /// Sends the descriptor under `name`. What the caller does with it is not waited for.
    pub(crate) fn send(self, name: &str, fd: BorrowedFd<'_>) -> Result<(), Error> {
        let fds = [fd];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Error::Invalid("no room for one descriptor".into()));
        }
        let sent = sendmsg(
            &self.socket,
            &[IoSlice::new(name.as_bytes())],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        );
        sent.map(drop)
            .map_err(|errno| Error::io(format!("send to the {} socket", self.what), errno))
    }
}
