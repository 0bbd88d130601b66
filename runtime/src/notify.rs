//! Telling a service manager that a container is ready (`sd_notify(3)`).
//!
//! The program in the container finds `NOTIFY_SOCKET` in its environment and sends `READY=1` there. That socket is ours: the
//! service manager would not know the sender, who has a pid of another namespace. What is passed on is that it is ready, and
//! which process is the service's main one; nothing else a container says reaches the service manager.

use std::ffi::OsStr;
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, Mode};
use rustix::net::{SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use rustix::pipe::PipeFlags;

use crate::record::{NOTIFY_DIRECTORY, NOTIFY_SOCKET};
use crate::{Container, Error};

/// The most of one message that is looked at.
const MAX_MESSAGE_BYTES: usize = 4096;

/// How long a service manager may take to say that it has read everything; older ones never do.
const BARRIER: Duration = Duration::from_secs(30);

/// The container's notify socket, and the service manager's.
#[derive(Debug)]
pub struct Notifications {
    container: UnixDatagram,
    manager: UnixDatagram,
}

impl Notifications {
    /// Binds the socket of a container that was created with [`crate::CreateOptions::notify`], and connects to the service
    /// manager's, whose name is that of its own `NOTIFY_SOCKET`. To be done before the container is started.
    ///
    /// # Errors
    ///
    /// The container has no directory for it, or one of the sockets refuses.
    pub fn bind(container: &Container, manager: &OsStr) -> Result<Self, Error> {
        let directory = container.directory.fd();
        let name = format!("{NOTIFY_DIRECTORY}/{NOTIFY_SOCKET}");
        // A socket's address has room for 107 bytes only.
        let address = format!("/proc/self/fd/{}/{name}", directory.as_raw_fd());
        let bound = UnixDatagram::bind(&address).map_err(|cause| Error::io(format!("bind {name}"), cause))?;
        // Whoever the container's user is.
        rustix::fs::chmodat(directory, &name, Mode::from_raw_mode(0o777), AtFlags::empty())
            .map_err(|errno| Error::io(format!("chmod {name}"), errno))?;
        let what = || format!("connect to NOTIFY_SOCKET {}", manager.to_string_lossy());
        let unbound = UnixDatagram::unbound().map_err(|cause| Error::io(what(), cause))?;
        address_of(manager)
            .and_then(|address| unbound.connect_addr(&address))
            .map_err(|cause| Error::io(what(), cause))?;
        Ok(Self {
            container: bound,
            manager: unbound,
        })
    }

    /// Waits until the program says that it is ready, and says so to the service manager, with `main_pid` as the
    /// service's main process; or until the process of `pidfd` ends.
    ///
    /// # Errors
    ///
    /// A socket refuses.
    pub fn relay(&self, main_pid: i32, pidfd: BorrowedFd<'_>) -> Result<(), Error> {
        let failed = |cause: io::Error| Error::io("pass on a notification", cause);
        let mut message = [0; MAX_MESSAGE_BYTES];
        loop {
            let mut fds = [
                PollFd::new(&self.container, PollFlags::IN),
                PollFd::from_borrowed_fd(pidfd, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) => {}
                Err(rustix::io::Errno::INTR) => continue,
                Err(errno) => return Err(failed(errno.into())),
            }
            // What was said before the end is heard first.
            if fds[0].revents().is_empty() {
                return Ok(());
            }
            let length = self.container.recv(&mut message).map_err(failed)?;
            if let Some(ready) = ready_line(message.get(..length).unwrap_or_default()) {
                return self.tell(ready, main_pid).map_err(failed);
            }
        }
    }

    fn tell(&self, ready: &[u8], main_pid: i32) -> io::Result<()> {
        self.manager.send(&[ready, b"\n"].concat())?;
        self.manager.send(format!("MAINPID={main_pid}\n").as_bytes())?;
        self.barrier()
    }

    /// Waits until the service manager has read what was sent: this process may be the one it believes, and about to end.
    fn barrier(&self) -> io::Result<()> {
        let (read, write) = rustix::pipe::pipe_with(PipeFlags::CLOEXEC)?;
        let fds = [write.as_fd()];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        sendmsg(
            &self.manager,
            &[IoSlice::new(b"BARRIER=1")],
            &mut ancillary,
            SendFlags::NOSIGNAL,
        )?;
        drop(write);
        let limit = Timespec {
            tv_sec: BARRIER.as_secs().cast_signed(),
            tv_nsec: 0,
        };
        // Whether it hung up or the time is over: what was sent is sent.
        poll(&mut [PollFd::new(&read, PollFlags::IN)], Some(&limit))?;
        Ok(())
    }
}

/// A path, or after `@` a name of the abstract namespace.
fn address_of(socket: &OsStr) -> io::Result<SocketAddr> {
    match socket.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name),
        _ => SocketAddr::from_pathname(socket),
    }
}

/// The line of a message that says `READY=…`.
fn ready_line(message: &[u8]) -> Option<&[u8]> {
    message
        .split(|byte| *byte == b'\n')
        .find(|line| line.starts_with(b"READY="))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_says_ready_is_passed_on() {
        assert_eq!(ready_line(b"READY=1"), Some(&b"READY=1"[..]));
        assert_eq!(
            ready_line(b"STATUS=up\nREADY=1\nMAINPID=1\n"),
            Some(&b"READY=1"[..])
        );
        assert_eq!(ready_line(b"STATUS=READY=1"), None);
        assert_eq!(ready_line(b""), None);
    }

    #[test]
    fn a_service_manager_may_listen_in_the_abstract_namespace() {
        let address = address_of(OsStr::new("@a/b")).unwrap();
        assert_eq!(address.as_abstract_name(), Some(&b"a/b"[..]));
        let address = address_of(OsStr::new("/run/s")).unwrap();
        assert_eq!(address.as_pathname().unwrap().to_str(), Some("/run/s"));
    }
}
