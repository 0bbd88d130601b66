//! The terminal of a process, from the container's own devpts.

use std::ffi::CStr;

use super::step::{At, Failure, Message, Step};
use crate::lookup::{self, Kind};
use crate::plan::Target;
use crate::rootfs::{self, Site};
use crate::sys::fs::{self, Resolve};
use crate::sys::mount::Extent;
use crate::sys::{Errno, Fd, fd, socket, terminal};

/// Makes a terminal, sends its master to the parent, and answers the other end.
pub(super) fn open(root: Fd, multiplexer: &CStr, size: (u16, u16), parent: Fd) -> Result<Fd, Failure> {
    let (master, slave) = open_pair(root, multiplexer, size).at(Step::Terminal)?;
    socket::send(parent, &Message::Console.encode(), Some(master)).at(Step::Terminal)?;
    master.close();
    Ok(slave)
}

fn open_pair(root: Fd, multiplexer: &CStr, (rows, columns): (u16, u16)) -> Result<(Fd, Fd), Errno> {
    let flags = libc::O_RDWR | libc::O_NOCTTY;
    let resolve = match root == Fd::CWD {
        // The container's root is this process's root already.
        true => Resolve::Host,
        false => Resolve::InRootNoSymlinks,
    };
    let master = lookup::open(root, multiplexer, flags, resolve)?;
    // Whatever else lies at that path, a file or another device, is not a terminal.
    if fs::filesystem(master)? != libc::DEVPTS_SUPER_MAGIC {
        return Err(Errno::new(libc::ENOTTY));
    }
    terminal::unlock(master)?;
    let slave = terminal::open_peer(master)?;
    if rows != 0 || columns != 0 {
        terminal::set_size(slave, rows, columns)?;
    }
    Ok((master, slave))
}

/// Mounts the terminal itself, by descriptor, on `/dev/console`, which must be no link (CVE-2025-52565). In a `/dev` of
/// the host's nothing is made: without a console there it has none.
pub(super) fn cover_console(site: Site, slave: Fd, console: &Target, make: bool) -> Result<(), Errno> {
    let resolve = Resolve::InRootNoSymlinks;
    let target = match make {
        true => lookup::open_or_make(site.root, &console.path, Kind::File, resolve)?,
        false => match lookup::open(site.root, &console.path, libc::O_PATH, resolve) {
            Err(errno) if errno.number() == libc::ENOENT => return Ok(()),
            answer => answer?,
        },
    };
    let source = site.maker.bind(slave, c"", Extent::Mount)?;
    rootfs::attach(source, target)?;
    source.close();
    target.close();
    Ok(())
}

/// Makes it the controlling terminal and the three streams.
pub(super) fn take(slave: Fd) -> Result<(), Errno> {
    terminal::make_controlling(slave)?;
    for number in 0..3 {
        fd::duplicate_to(slave, Fd::at(number))?;
    }
    if slave.number() > 2 {
        slave.close();
    }
    Ok(())
}
