//! What the child half says, heard by the parent.

use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, send, sendmsg,
};

use crate::Error;
use crate::cgroup::Entrance;
use crate::init::{HookFailure, MESSAGE_BYTES, Message};
use crate::sys::Fd;
use crate::sys::process::pidfd_getfd;
use crate::sys::socket::MAX_PASSED;

/// One thing heard.
#[derive(Debug)]
pub(crate) enum Heard {
    /// A message.
    Message(Message),
    /// The terminal's master.
    Console(OwnedFd),
    /// A hook in the container failed; with what it wrote.
    Hook(HookFailure, OwnedFd),
    /// A process that an usher made: its pid and pidfd.
    Born(i32, OwnedFd),
    /// The other end is closed: the program was executed, or the process ended.
    Closed,
}

/// The parent's end of the socket pair, or the starter's of the gate.
#[derive(Debug)]
pub(crate) struct Conversation<'a> {
    /// A packet socket.
    pub(crate) socket: BorrowedFd<'a>,
    /// The child: its end ends the conversation, even if another process happens to hold a copy of the child's socket.
    pub(crate) pidfd: BorrowedFd<'a>,
}

impl Conversation<'_> {
    /// Waits for the next thing the child half says.
    pub(crate) fn listen(&self) -> Result<Heard, Error> {
        loop {
            let mut fds = [
                PollFd::new(&self.socket, PollFlags::IN),
                PollFd::new(&self.pidfd, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(Error::io("wait for the container process", errno)),
            }
            // What was said before the end is heard first.
            if fds[0].revents().is_empty() {
                return Ok(Heard::Closed);
            }
            return self.receive();
        }
    }

    /// Waits until nothing more will be said: what was said is then heard without another wait. For a child half that
    /// says little, and nothing that has to be answered.
    pub(crate) fn await_end(&self) -> Result<(), Error> {
        loop {
            // The hang-up is reported unasked; messages do not wake this process.
            let mut fds = [
                PollFd::new(&self.socket, PollFlags::empty()),
                PollFd::new(&self.pidfd, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) => return Ok(()),
                Err(rustix::io::Errno::INTR) => {}
                Err(errno) => return Err(Error::io("wait for the container process", errno)),
            }
        }
    }

    /// What failed in a child half that has ended; nothing when it runs, or ended without a word. Does not block.
    pub(crate) fn last_words(&self) -> Option<Heard> {
        // Who ends hangs up before it is known to have ended.
        let mut fds = [
            PollFd::new(&self.socket, PollFlags::empty()),
            PollFd::new(&self.pidfd, PollFlags::IN),
        ];
        if matches!(poll(&mut fds, Some(&Timespec::default())), Ok(0)) {
            return None;
        }
        loop {
            match self.listen() {
                Ok(last @ (Heard::Message(Message::Failed(_)) | Heard::Hook(..))) => return Some(last),
                Ok(Heard::Closed) | Err(_) => return None,
                Ok(Heard::Message(_) | Heard::Console(_) | Heard::Born(..)) => {}
            }
        }
    }

    /// Lets a waiting child half go on.
    pub(crate) fn go(&self) -> Result<(), Error> {
        let sent = send(self.socket, &[1], SendFlags::NOSIGNAL);
        sent.map(drop)
            .map_err(|errno| Error::io("answer the container process", errno))
    }

    /// Takes a copy of the child half's descriptor `number`, which it waits for, and lets it go on.
    pub(crate) fn fetch(&self, number: i32) -> Result<OwnedFd, Error> {
        let fetched = pidfd_getfd(Fd::of(&self.pidfd), number)
            .map_err(|errno| Error::io("get the seccomp listener from the container process", errno))?;
        self.go()?;
        Ok(fetched)
    }

    /// Gives a waiting child half the descriptor it asked for.
    pub(crate) fn give(&self, fd: &impl AsFd) -> Result<(), Error> {
        self.pass(&[fd.as_fd()])
    }

    /// Lets a child half that waits for it into its v1 control groups, of which there are at most [`MAX_PASSED`].
    pub(crate) fn admit(&self, entrances: &[Entrance]) -> Result<(), Error> {
        let fds: Vec<BorrowedFd<'_>> = entrances.iter().map(AsFd::as_fd).collect();
        self.pass(&fds)
    }

    fn pass(&self, fds: &[BorrowedFd<'_>]) -> Result<(), Error> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MAX_PASSED))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !fds.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(fds)) {
            return Err(Error::Invalid("too many descriptors for one packet".into()));
        }
        let parts = [std::io::IoSlice::new(&[1])];
        let sent = sendmsg(self.socket, &parts, &mut ancillary, SendFlags::NOSIGNAL);
        sent.map(drop)
            .map_err(|errno| Error::io("answer the container process", errno))
    }

    fn receive(&self) -> Result<Heard, Error> {
        let mut packet = [0; MESSAGE_BYTES];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let received = loop {
            let mut parts = [std::io::IoSliceMut::new(&mut packet)];
            match recvmsg(self.socket, &mut parts, &mut ancillary, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                // Told once of an end with something unheard from here, or of a gate that was closed before it was opened; then
                // comes what was said before, or nothing.
                Err(rustix::io::Errno::CONNRESET) => {}
                answer => break answer.map_err(|errno| Error::io("hear the container process", errno))?,
            }
        };
        if received.bytes == 0 {
            return Ok(Heard::Closed);
        }
        let passed = ancillary.drain().find_map(|message| match message {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        let message = packet.get(..received.bytes).and_then(Message::decode);
        let complete = !received.flags.contains(ReturnFlags::TRUNC);
        match (message, passed) {
            (Some(Message::Console), Some(master)) if complete => Ok(Heard::Console(master)),
            (Some(Message::Hook(failure)), Some(output)) if complete => Ok(Heard::Hook(failure, output)),
            (Some(Message::Born(pid)), Some(pidfd)) if complete => Ok(Heard::Born(pid.cast_signed(), pidfd)),
            (Some(Message::Console | Message::Hook(_) | Message::Born(_)), None) => Err(()),
            (Some(message), None) if complete => Ok(Heard::Message(message)),
            _ => Err(()),
        }
        .map_err(|()| Error::Invalid("the container process sent what is no message".into()))
    }
}

impl<'a> Conversation<'a> {
    /// A conversation over `socket` with the process of `pidfd`.
    pub(crate) fn new(socket: &'a impl AsFd, pidfd: &'a impl AsFd) -> Self {
        Self {
            socket: socket.as_fd(),
            pidfd: pidfd.as_fd(),
        }
    }
}
