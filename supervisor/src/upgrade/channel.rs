//! One connection of a hand-over: packets of JSON, with descriptors beside them. Blocks; every wait has an end but that for
//! a successor's last word.

use std::{
    io::{IoSlice, IoSliceMut},
    mem::MaybeUninit,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    io::Errno,
    net::{
        AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect, recvmsg, sendmsg,
        socket_with,
        sockopt::{Timeout, set_socket_timeout},
    },
};
use serde::{Deserialize, Serialize};

use super::MAX_SOCKETS;
use crate::error::{Error, Kind, Result};

/// The longest packet.
const MAX_PACKET: usize = 64 << 10;

/// What is said.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Message {
    /// New to old: hand over to me.
    TakeOver {
        /// The conversation's version.
        protocol: u32,
    },
    /// Old to new: this is what you would get. The sockets come with it, in the order of their names.
    Offer {
        /// The root whose lock the old one holds.
        root: PathBuf,
        /// What the sockets listen on.
        sockets: Vec<String>,
    },
    /// New to old: I take it.
    Accept,
    /// Old to new: the stores are free. The events that nobody has heard come with it.
    Yours,
    /// New to old: I serve.
    Serving {
        /// The new daemon's process.
        pid: u32,
    },
    /// A person to the daemon: start the executable that is installed now, and hand over to it.
    Upgrade,
    /// The daemon to a person: done.
    Upgraded {
        /// The new daemon's process.
        pid: u32,
    },
    /// Either: no.
    Refused {
        /// Why.
        reason: String,
    },
}

/// A connection.
#[derive(Debug)]
pub struct Channel(OwnedFd);

impl Channel {
    /// A connection that was accepted, or inherited.
    pub fn new(socket: OwnedFd) -> Self {
        Self(socket)
    }

    /// Connects to a control socket; `None` when nobody listens there.
    ///
    /// # Errors
    ///
    /// `Unknown`: it cannot be reached for another reason.
    pub fn connect(path: &Path) -> Result<Option<Self>> {
        let failed = |error: Errno| Error::io(format!("connect to {}", path.display()), error);
        let socket = seqpacket().map_err(failed)?;
        match connect(&socket, &SocketAddrUnix::new(path).map_err(failed)?) {
            Ok(()) => Ok(Some(Self(socket))),
            Err(Errno::NOENT | Errno::CONNREFUSED) => Ok(None),
            Err(error) => Err(failed(error)),
        }
    }

    /// Sends `message` and copies of `descriptors`.
    ///
    /// # Errors
    ///
    /// `Unavailable`: the other side is gone. `Unknown` otherwise.
    pub fn send(&self, message: &Message, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
        let packet = serde_json::to_vec(message).map_err(|error| Error::unknown("encode", error))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if descriptors.len() > MAX_SOCKETS
            || (!descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)))
        {
            return Err(Error::invalid(format!("more than {MAX_SOCKETS} sockets")));
        }
        sendmsg(
            &self.0,
            &[IoSlice::new(&packet)],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )
        .map(drop)
        .map_err(gone)
    }

    /// Waits for the next message, at most `limit`.
    ///
    /// # Errors
    ///
    /// `Unavailable`: the other side is gone. `DeadlineExceeded`. `InvalidArgument`: not a message.
    pub fn receive(&self, limit: Option<Duration>) -> Result<(Message, Vec<OwnedFd>)> {
        set_socket_timeout(&self.0, Timeout::Recv, limit).map_err(gone)?;
        let mut packet = vec![0; MAX_PACKET];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_SOCKETS))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            match recvmsg(
                &self.0,
                &mut [IoSliceMut::new(&mut packet)],
                &mut ancillary,
                RecvFlags::CMSG_CLOEXEC,
            ) {
                Err(Errno::INTR) => {}
                received => break received.map_err(gone)?,
            }
        };
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = message {
                descriptors.extend(sent);
            }
        }
        if received.bytes == 0 {
            return Err(gone(Errno::PIPE));
        }
        let message = serde_json::from_slice(&packet[..received.bytes])
            .map_err(|error| Error::invalid("message of a hand-over").caused_by(error))?;
        Ok((message, descriptors))
    }

    /// Says no. That nobody is there to hear it is no matter.
    pub fn refuse(&self, reason: impl Into<String>) {
        let reason = reason.into();
        if let Err(error) = self.send(&Message::Refused { reason }, &[]) {
            tracing::debug!(%error, "refusal not heard");
        }
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<Channel> for OwnedFd {
    fn from(channel: Channel) -> Self {
        channel.0
    }
}

/// A socket of the kind that hand-overs use.
pub fn seqpacket() -> rustix::io::Result<OwnedFd> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
}

fn gone(error: Errno) -> Error {
    match error {
        Errno::PIPE | Errno::CONNRESET | Errno::NOTCONN => {
            Error::unavailable("the other side of the hand-over is gone")
        }
        Errno::AGAIN => Error::new(
            Kind::DeadlineExceeded,
            "the other side of the hand-over does not answer",
        ),
        error => Error::io("hand over", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::socketpair;

    fn pair() -> (Channel, Channel) {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        (Channel(a), Channel(b))
    }

    #[test]
    fn messages_travel_with_their_descriptors() {
        let (a, b) = pair();
        let offer = Message::Offer {
            root: "/r".into(),
            sockets: vec!["unix:/s".to_owned()],
        };
        let file = tempfile::tempfile().unwrap();
        a.send(&offer, &[file.as_fd()]).unwrap();
        a.send(&Message::Accept, &[]).unwrap();
        let (message, descriptors) = b.receive(None).unwrap();
        assert_eq!(message, offer);
        let same = |fd: BorrowedFd<'_>| rustix::fs::fstat(fd).unwrap().st_ino;
        assert_eq!(same(descriptors[0].as_fd()), same(file.as_fd()));
        assert_eq!(b.receive(None).unwrap().0, Message::Accept);
    }

    #[test]
    fn the_end_silence_and_nonsense_are_told_apart() {
        let (a, b) = pair();
        let slow = b.receive(Some(Duration::from_millis(5))).unwrap_err();
        assert_eq!(slow.kind(), Kind::DeadlineExceeded);
        rustix::io::write(&a, b"{\"hello\":1}").unwrap();
        assert_eq!(b.receive(None).unwrap_err().kind(), Kind::InvalidArgument);
        drop(a);
        assert_eq!(b.receive(None).unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(
            b.send(&Message::Accept, &[]).unwrap_err().kind(),
            Kind::Unavailable
        );
    }
}
