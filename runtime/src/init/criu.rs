//! Two child halves that become no container: criu itself, and a process that makes the targets of mounts before criu mounts.
//!
//! Raw calls on prepared memory only, as in every child half. What fails is told by a pipe, in [`Trouble::BYTES`] bytes; the pipe
//! is closed without a word by success, in criu's case by `execve`.

use std::convert::Infallible;
use std::ffi::{CStr, CString};

use super::isolate;
use crate::lookup;
use crate::plan::Mountpoint;
use crate::rootfs::make_mountpoint;
use crate::sys::fd::{self, Closing};
use crate::sys::fs::{self, Resolve};
use crate::sys::strings::Strings;
use crate::sys::{Errno, Fd, mount, process, socket};

/// What went wrong in one of them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Trouble {
    /// Which of the mount targets; 0 for criu.
    pub(crate) index: u32,
    /// The kernel's answer.
    pub(crate) errno: Errno,
}

impl Trouble {
    /// As it travels.
    pub(crate) const BYTES: usize = 8;

    fn encode(self) -> [u8; Self::BYTES] {
        let (index, errno) = (self.index.to_ne_bytes(), self.errno.number().to_ne_bytes());
        [
            index[0], index[1], index[2], index[3], errno[0], errno[1], errno[2], errno[3],
        ]
    }

    /// Nothing: it is no report.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (index, errno) = bytes.split_first_chunk::<4>()?;
        Some(Self {
            index: u32::from_ne_bytes(*index),
            errno: Errno::new(i32::from_ne_bytes(errno.try_into().ok()?)),
        })
    }
}

/// criu as it is executed.
#[derive(Debug)]
pub(crate) struct Service<'a> {
    pub(crate) program: &'a CStr,
    pub(crate) arguments: &'a Strings,
    pub(crate) environment: &'a Strings,
    /// What becomes 0, 1 and 2, and then [`Self::FIRST`] and so on. None of them has such a number now.
    pub(crate) descriptors: &'a [Fd],
    /// The paths of those that become [`Self::FIRST`] and so on, as far as they are directories: criu mounts in them, so they
    /// have to be open in its mount namespace.
    pub(crate) directories: &'a [CString],
    /// A directory, and where it becomes a mount of its own, in this process's new mount namespace.
    pub(crate) root: Option<(&'a CStr, &'a CStr)>,
    /// The host's procfs, on a kernel that lacks what [`crate::kernel`] tells of.
    pub(crate) proc: Option<Fd>,
    /// Where the other end of criu's socket is sent, with one byte.
    pub(crate) starter: Fd,
    /// The pipe.
    pub(crate) reporter: Fd,
}

impl Service<'_> {
    /// criu's socket.
    pub(crate) const SOCKET: i32 = 3;
    /// The first descriptor after the streams and the socket.
    pub(crate) const FIRST: i32 = Self::SOCKET + 1;
}

/// Becomes criu.
pub(crate) fn become_criu(service: &Service<'_>) -> Infallible {
    match execute(service) {
        Err(errno) => fail(service.reporter, Trouble { index: 0, errno }),
        Ok(never) => match never {},
    }
}

fn execute(service: &Service<'_>) -> Result<Infallible, Errno> {
    process::reset_signals()?;
    if let Some((root, place)) = service.root {
        // What the host mounts still comes here, and nothing goes there.
        mount::set_propagation(c"/", libc::MS_SLAVE | libc::MS_REC)?;
        mount::mount(Some(root), place, None, libc::MS_BIND | libc::MS_REC, None)?;
    }
    let numbers = (0..Service::SOCKET).chain(Service::FIRST..);
    for (number, descriptor) in numbers.zip(service.descriptors) {
        let path = usize::try_from(number - Service::FIRST).ok();
        match path.and_then(|index| service.directories.get(index)) {
            Some(path) if service.root.is_some() => reopen(path, *descriptor, Fd::at(number))?,
            _ => fd::duplicate_to(*descriptor, Fd::at(number))?,
        }
    }
    // criu finds descriptors that it is told of where the maker of its socket has them: that is itself, so they are its own.
    let (own, other) = socket::packet_pair()?;
    socket::send(service.starter, &[0], Some(other))?;
    fd::duplicate_to(own, Fd::at(Service::SOCKET))?;
    let first_undeclared = service.descriptors.len() as u32 + 1;
    isolate::close_range(service.proc, first_undeclared, u32::MAX, Closing::OnExec)?;
    Err(process::execve(
        service.program,
        service.arguments,
        service.environment,
    ))
}

/// Opens the directory that `known` is once more, in this mount namespace, as `number`.
fn reopen(path: &CStr, known: Fd, number: Fd) -> Result<(), Errno> {
    let opened = lookup::open(Fd::CWD, path, libc::O_RDONLY | libc::O_DIRECTORY, Resolve::Host)?;
    if fs::stat(opened, c"")?.identity != fs::stat(known, c"")?.identity {
        return Err(Errno::new(libc::ESTALE));
    }
    fd::duplicate_to(opened, number)?;
    if opened != number {
        opened.close();
    }
    Ok(())
}

/// Makes the targets of mounts in the root file system at `path`, and ends. For a mount namespace of its own.
pub(crate) fn make_mountpoints(path: &CStr, points: &[Mountpoint], reporter: Fd) -> Infallible {
    let trouble = |index| move |errno| Trouble { index, errno };
    let prepare = || {
        process::reset_signals()?;
        mount::set_propagation(c"/", libc::MS_PRIVATE | libc::MS_REC)?;
        fs::umask(0);
        lookup::open(Fd::CWD, path, libc::O_PATH | libc::O_DIRECTORY, Resolve::Host)
    };
    let made = prepare().map_err(trouble(u32::MAX)).and_then(|root| {
        (0..)
            .zip(points)
            .try_for_each(|(index, point)| make_mountpoint(root, point).map_err(trouble(index)))
    });
    match made {
        Ok(()) => process::exit(0),
        Err(trouble) => fail(reporter, trouble),
    }
}

fn fail(reporter: Fd, trouble: Trouble) -> ! {
    let told = fs::write(reporter, &trouble.encode());
    process::exit(if told.is_ok() { 1 } else { 2 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_heard() {
        let trouble = Trouble {
            index: 7,
            errno: Errno::new(libc::EPERM),
        };
        assert_eq!(Trouble::decode(&trouble.encode()), Some(trouble));
        assert_eq!(Trouble::decode(b""), None);
        assert_eq!(Trouble::decode(&[0; 7]), None);
        assert_eq!(Trouble::decode(&[0; 9]), None);
    }
}
