//! The start gate: a listening socket in the container's state directory.
//!
//! A created container's process waits in `accept`; `start` connects. The connection then carries what the child half
//! still has to say, and its end says that the program was executed. The socket's name is removed by the
//! starter, so a name that is there means "created".
//!
//! The address is reached through `/proc/self/fd`, since a socket's address has room for 107 bytes only.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::fs::AtFlags;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};

use crate::Error;
use crate::sys::fd::above_streams;

/// The socket's name in the state directory.
const NAME: &str = "start";

/// Makes the gate.
pub(crate) fn make(directory: BorrowedFd<'_>) -> Result<OwnedFd, Error> {
    let socket = above_streams(new_socket()?).map_err(|errno| Error::io("make the start gate", errno))?;
    bind(&socket, &address(directory)?).map_err(|errno| Error::io("make the start gate", errno))?;
    // Others may connect and find it closed: one opens it.
    listen(&socket, 4).map_err(|errno| Error::io("make the start gate", errno))?;
    Ok(socket)
}

/// Opens the gate; the connection answers what comes of it. Nothing when it is closed or gone.
pub(crate) fn open(directory: BorrowedFd<'_>) -> Result<Option<OwnedFd>, Error> {
    let socket = new_socket()?;
    match connect(&socket, &address(directory)?) {
        Ok(()) => Ok(Some(socket)),
        Err(rustix::io::Errno::NOENT | rustix::io::Errno::CONNREFUSED) => Ok(None),
        Err(errno) => Err(Error::io("open the start gate", errno)),
    }
}

/// Whether the gate has not been opened yet.
pub(crate) fn is_there(directory: BorrowedFd<'_>) -> bool {
    rustix::fs::statat(directory, NAME, AtFlags::SYMLINK_NOFOLLOW).is_ok()
}

/// Removes the gate's name.
pub(crate) fn remove(directory: BorrowedFd<'_>) -> Result<(), Error> {
    match rustix::fs::unlinkat(directory, NAME, AtFlags::empty()) {
        Ok(()) | Err(rustix::io::Errno::NOENT) => Ok(()),
        Err(errno) => Err(Error::io("remove the start gate", errno)),
    }
}

fn new_socket() -> Result<OwnedFd, Error> {
    socket_with(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .map_err(|errno| Error::io("make a socket", errno))
}

fn address(directory: BorrowedFd<'_>) -> Result<SocketAddrUnix, Error> {
    let directory = directory.as_fd().as_raw_fd();
    SocketAddrUnix::new(format!("/proc/self/fd/{directory}/{NAME}"))
        .map_err(|errno| Error::io("name the start gate", errno))
}
