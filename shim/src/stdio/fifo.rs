//! Opening the FIFOs that a client made.
//!
//! Nothing here blocks: the end that would wait for a peer is opened after our own other end. Whoever holds a
//! [`Writer`] decides with [`Writer::release`] when a reader that is gone may be noticed. What a FIFO holds is lost with
//! its last descriptor, so the writer also knows whether its reader had come when it was opened.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags, fstat, open};
use rustix::io::{Errno, ioctl_fionread};

const COMMON: OFlags = OFlags::CLOEXEC.union(OFlags::NOCTTY).union(OFlags::NONBLOCK);

/// The writing end of a FIFO.
pub struct Writer {
    fd: OwnedFd,
    /// Our own reading end: while it is open, a client that went away costs neither data nor an EPIPE.
    keeper: Option<OwnedFd>,
    /// Whether no reader has been seen yet.
    unmet: bool,
}

impl Writer {
    /// Opens the FIFO or file at `path` for writing. A file is appended to and has no keeper.
    pub fn open(path: &Path) -> io::Result<Writer> {
        let write = || open(path, OFlags::WRONLY | OFlags::APPEND | COMMON, Mode::empty());
        // Without a reader, a FIFO refuses to be opened like this: the one moment that tells.
        let met = match write() {
            Ok(fd) => Some(fd),
            Err(Errno::NXIO) => None,
            Err(error) => return Err(error.into()),
        };
        let keeper = open(path, OFlags::RDONLY | COMMON, Mode::empty())?;
        let unmet = met.is_none();
        let fd = match met {
            Some(fd) => fd,
            None => write()?,
        };
        let is_fifo = file_type(&fd)? == FileType::Fifo;
        Ok(Writer {
            fd,
            keeper: is_fifo.then_some(keeper),
            unmet: unmet && is_fifo,
        })
    }

    /// Whether nobody had opened the FIFO for reading when it was opened here, nor was seen to since.
    ///
    /// Clients open their ends on threads of their own: on a busy machine a process can be over before.
    pub fn is_unmet(&self) -> bool {
        self.unmet
    }

    /// The bytes that the FIFO holds.
    pub fn unread(&self) -> u64 {
        unread(&self.fd)
    }

    /// Whether nobody has the FIFO open for reading. To be asked after [`Writer::release`].
    pub fn is_alone(&self) -> bool {
        let mut polled = [PollFd::new(&self.fd, PollFlags::OUT)];
        let told = poll(&mut polled, Some(&Timespec::default()));
        self.keeper.is_none() && told.is_ok() && polled[0].revents().contains(PollFlags::ERR)
    }

    /// Whether a reader has come by now and has read everything. To be asked when nothing more is to be written.
    pub fn has_been_read(&mut self) -> bool {
        if self.unread() > 0 {
            return false;
        }
        self.release();
        self.unmet = self.unmet && self.is_alone();
        !self.unmet
    }

    /// Ends the FIFO for its reader. Answers a reading end, which keeps what is in it.
    pub fn end(self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        Ok(open(path, OFlags::RDONLY | COMMON, Mode::empty())?)
    }

    /// The descriptor to write to; non-blocking when it is a FIFO.
    pub fn fd(&self) -> &OwnedFd {
        &self.fd
    }

    /// Whether it is a FIFO.
    pub fn is_fifo(&self) -> bool {
        self.keeper.is_some()
    }

    /// The writing end of what is no FIFO.
    pub fn into_file(self) -> File {
        self.fd.into()
    }

    /// From now on a write with no reader left fails with EPIPE.
    pub fn release(&mut self) {
        self.keeper = None;
    }
}

/// Opens `path`, which must be a FIFO, for a process's input.
///
/// Answers the reading end, and a writing end of our own that keeps end-of-file away until `CloseIO`.
pub fn open_input(path: &Path) -> io::Result<(OwnedFd, OwnedFd)> {
    let reader = open(path, OFlags::RDONLY | COMMON, Mode::empty())?;
    if file_type(&reader)? != FileType::Fifo {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a FIFO"));
    }
    let keeper = open(path, OFlags::WRONLY | COMMON, Mode::empty())?;
    Ok((reader, keeper))
}

/// The bytes that the pipe or FIFO behind `fd` holds.
pub fn unread(fd: impl AsFd) -> u64 {
    // No other error than that it is no pipe.
    ioctl_fionread(fd).unwrap_or(0)
}

fn file_type(fd: &OwnedFd) -> io::Result<FileType> {
    Ok(FileType::from_raw_mode(fstat(fd)?.st_mode))
}

/// A FIFO that gets a copy of what a container logs while somebody reads it, and is nobody's loss otherwise.
pub struct Tap {
    path: PathBuf,
    fd: Option<OwnedFd>,
}

impl Tap {
    /// A tap to the FIFO at `path`, opened when there is something to write.
    pub fn new(path: PathBuf) -> Tap {
        Tap { path, fd: None }
    }

    /// The writing end, if somebody has the FIFO open for reading.
    pub fn writer(&mut self) -> Option<&OwnedFd> {
        if self.fd.is_none() {
            let fd = open(&self.path, OFlags::WRONLY | COMMON, Mode::empty()).ok()?;
            if file_type(&fd).ok()? != FileType::Fifo {
                return None;
            }
            self.fd = Some(fd);
        }
        self.fd.as_ref()
    }

    /// The writing end, if it is open already.
    pub fn opened(&self) -> Option<&OwnedFd> {
        self.fd.as_ref()
    }

    /// The reader is gone; the next write looks for a new one.
    pub fn lost(&mut self) {
        self.fd = None;
    }
}
