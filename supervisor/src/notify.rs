//! What systemd is told, and what it hands over: `sd_notify(3)`, `sd_listen_fds(3)`, the file descriptor store.
//!
//! Without systemd (`NOTIFY_SOCKET`, `LISTEN_PID`) nothing here does anything.

use std::{
    ffi::OsStr,
    io::IoSlice,
    mem::MaybeUninit,
    os::{
        fd::{BorrowedFd, OwnedFd, RawFd},
        unix::ffi::OsStrExt as _,
    },
};

use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, SocketAddrUnix, SocketFlags,
    SocketType, sendmsg_addr, socket_with,
};

use crate::{
    error::{Error, Result},
    sys,
};

/// The first descriptor that systemd hands over.
const FIRST: RawFd = 3;
/// The most descriptors that are taken from it.
const MOST: RawFd = 64;

/// Whether systemd wants to be told.
pub fn is_wanted() -> bool {
    std::env::var_os("NOTIFY_SOCKET").is_some()
}

/// Sends `state` (lines of `NAME=value`) and copies of at most 16 `descriptors`, if systemd wants to be told.
///
/// # Errors
///
/// `Unknown`: it cannot be reached.
pub fn send(state: &str, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    match std::env::var_os("NOTIFY_SOCKET") {
        Some(address) => send_to(&address, state, descriptors),
        None => Ok(()),
    }
}

fn send_to(address: &OsStr, state: &str, descriptors: &[BorrowedFd<'_>]) -> Result<()> {
    let failed = |error: rustix::io::Errno| {
        Error::io(
            format!("tell systemd at {}", address.to_string_lossy()),
            std::io::Error::from(error),
        )
    };
    let to = match address.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddrUnix::new_abstract_name(name),
        None => SocketAddrUnix::new(address),
    }
    .map_err(failed)?;
    let socket =
        socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None).map_err(failed)?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Error::invalid("more than 16 descriptors for systemd"));
    }
    sendmsg_addr(
        &socket,
        &to,
        &[IoSlice::new(state.as_bytes())],
        &mut ancillary,
        SendFlags::NOSIGNAL,
    )
    .map(drop)
    .map_err(failed)
}

/// The announcement that another process is about to take over.
pub fn reloading() -> String {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1_000;
    format!("RELOADING=1\nMONOTONIC_USEC={microseconds}")
}

/// The descriptors that systemd hands over: sockets it listens on for us, or that it kept from the process before this
/// one. To be called once.
///
/// # Errors
///
/// `InvalidArgument`: the environment names descriptors that are not open.
pub fn listening() -> Result<Vec<OwnedFd>> {
    let variable = |name| std::env::var(name).unwrap_or_default();
    let numbers = announced(
        &variable("LISTEN_PID"),
        &variable("LISTEN_FDS"),
        std::process::id(),
    );
    sys::inherited(&numbers).map_err(|error| Error::invalid("LISTEN_FDS").caused_by(error))
}

fn announced(pid: &str, count: &str, own: u32) -> Vec<RawFd> {
    if pid.parse() != Ok(own) {
        return Vec::new();
    }
    let count = count.parse().unwrap_or(0).clamp(0, MOST);
    (FIRST..FIRST + count).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixDatagram;

    #[test]
    fn what_is_sent_arrives() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let systemd = UnixDatagram::bind(&path).unwrap();
        let file = tempfile::tempfile().unwrap();
        send_to(path.as_os_str(), "FDSTORE=1", &[std::os::fd::AsFd::as_fd(&file)]).unwrap();
        let mut buffer = [0; 64];
        let length = systemd.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..length], b"FDSTORE=1");
        assert!(send_to(directory.path().join("nobody").as_os_str(), "READY=1", &[]).is_err());
    }

    #[test]
    fn descriptors_for_another_process_are_left_alone() {
        assert_eq!(announced("7", "2", 7), [3, 4]);
        for (pid, count) in [("8", "2"), ("", "2"), ("7", ""), ("7", "-1"), ("7", "x")] {
            assert!(announced(pid, count, 7).is_empty(), "{pid:?} {count:?}");
        }
    }
}
