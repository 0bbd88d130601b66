//! Handing a terminal's master to the caller's console socket.
//!
//! The protocol is runc's: connect, and send one message with the master beside it.

use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, connect, sendmsg, socket_with,
};

use crate::Error;

/// What the message says the descriptor is.
const NAME: &[u8] = b"/dev/ptmx";

/// A console socket that answers.
#[derive(Debug)]
pub(crate) struct ConsoleSocket(OwnedFd);

impl ConsoleSocket {
    /// Connects, before anything is made for the container.
    pub(crate) fn connect(path: &Path) -> Result<Self, Error> {
        let what = || format!("connect to the console socket {}", path.display());
        let socket = socket_with(
            AddressFamily::UNIX,
            SocketType::STREAM,
            SocketFlags::CLOEXEC,
            None,
        )
        .map_err(|errno| Error::io(what(), errno))?;
        let address = SocketAddrUnix::new(path).map_err(|errno| Error::io(what(), errno))?;
        connect(&socket, &address).map_err(|errno| Error::io(what(), errno))?;
        Ok(Self(socket))
    }

    /// Sends the master; this process's copy is closed.
    pub(crate) fn send(self, master: OwnedFd) -> Result<(), Error> {
        let fds = [master.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(Error::Invalid("no room for one descriptor".into()));
        }
        let sent = sendmsg(
            &self.0,
            &[IoSlice::new(NAME)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        );
        sent.map(drop)
            .map_err(|errno| Error::io("send the terminal to the console socket", errno))
    }
}
