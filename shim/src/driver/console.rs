//! Receiving a terminal's master from a runc-compatible program.
//!
//! The program connects to a unix socket and sends one descriptor. The socket is named through `/proc/<pid>/fd`, so
//! that the length of the bundle's path does not matter.

use std::fs;
use std::io::{self, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

/// A listening console socket in a bundle, removed with its owner.
pub struct ConsoleSocket {
    listener: UnixListener,
    file: PathBuf,
    name: String,
    /// Keeps the directory's number in `/proc` valid.
    directory: OwnedFd,
}

impl ConsoleSocket {
    /// Listens at `<bundle>/<name>.sock`; one that a dead shim left is replaced.
    pub fn listen(bundle: &Path, name: &str) -> io::Result<ConsoleSocket> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = open(bundle, flags, Mode::empty())?;
        let name = format!("{name}.sock");
        let file = bundle.join(&name);
        if let Err(error) = fs::remove_file(&file)
            && error.kind() != io::ErrorKind::NotFound
        {
            return Err(error);
        }
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", directory.as_raw_fd()))?;
        listener.set_nonblocking(true)?;
        Ok(ConsoleSocket {
            listener,
            file,
            name,
            directory,
        })
    }

    /// The path for another process; valid while this lives.
    pub fn path(&self) -> PathBuf {
        format!(
            "/proc/{}/fd/{}/{}",
            std::process::id(),
            self.directory.as_raw_fd(),
            self.name
        )
        .into()
    }

    /// The master that was sent. Does not wait: whoever sends has done so before the program ended.
    pub fn receive(&self) -> io::Result<OwnedFd> {
        let (peer, _) = self.listener.accept()?;
        peer.set_nonblocking(true)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut name = [0; 4096];
        recvmsg(
            &peer,
            &mut [IoSliceMut::new(&mut name)],
            &mut ancillary,
            RecvFlags::CMSG_CLOEXEC,
        )?;
        ancillary
            .drain()
            .find_map(|message| match message {
                RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
                _ => None,
            })
            .ok_or_else(|| io::Error::other("no descriptor was sent"))
    }
}

impl Drop for ConsoleSocket {
    fn drop(&mut self) {
        // It is inside the bundle, which its owner removes as a whole.
        let _ = fs::remove_file(&self.file);
    }
}
