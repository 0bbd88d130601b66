//! Either side of a hand-over, played by the test: so that it can die between any two words.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use rustix::net::sockopt::{Timeout, set_socket_timeout};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
};
use serde_json::Value;

/// One side of a hand-over.
pub(crate) struct Control(OwnedFd);

fn socket() -> OwnedFd {
    rustix::net::socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .expect("a socket")
}

fn address(state: &Path) -> SocketAddrUnix {
    SocketAddrUnix::new(state.join("control.sock")).expect("a short path")
}

/// Listens where the daemon on `state` would, for successors.
pub(crate) fn listen(state: &Path) -> OwnedFd {
    let socket = socket();
    rustix::net::bind(&socket, &address(state)).expect("bind the control socket");
    rustix::net::listen(&socket, 1).expect("listen on the control socket");
    socket
}

impl Control {
    pub(crate) fn connect(state: &Path) -> Control {
        let socket = socket();
        rustix::net::connect(&socket, &address(state)).expect("connect to the control socket");
        Control(socket)
    }

    pub(crate) fn accept(listener: &OwnedFd) -> Control {
        Control(rustix::net::accept(listener).expect("a successor"))
    }

    pub(crate) fn say(&self, message: &Value, descriptors: &[BorrowedFd<'_>]) {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(4))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() {
            assert!(ancillary.push(SendAncillaryMessage::ScmRights(descriptors)));
        }
        let packet = message.to_string();
        let packet = [IoSlice::new(packet.as_bytes())];
        rustix::net::sendmsg(&self.0, &packet, &mut ancillary, SendFlags::NOSIGNAL).expect("say something");
    }

    /// What the other side says; `None` when it has gone.
    pub(crate) fn hear(&self) -> Option<(Value, Vec<OwnedFd>)> {
        set_socket_timeout(&self.0, Timeout::Recv, Some(Duration::from_secs(30))).expect("a time-out");
        let mut packet = vec![0; 64 << 10];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = rustix::net::recvmsg(
            &self.0,
            &mut [IoSliceMut::new(&mut packet)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )
        .expect("hear something");
        let mut descriptors = Vec::new();
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(sent) = message {
                descriptors.extend(sent);
            }
        }
        (received.bytes > 0).then(|| {
            let value = serde_json::from_slice(&packet[..received.bytes]).expect("JSON");
            (value, descriptors)
        })
    }
}
