//! `linux.netDevices`: the host's network devices that a container takes over.
//!
//! A device is moved and renamed in one request, so that no name is ever taken twice in either namespace. The kernel
//! takes its addresses away with the move; those that an administrator gave it for everybody to reach (permanent,
//! global) are given back. What the kernel keeps with the device (MTU, hardware address) needs nothing.
//!
//! A device that was moved belongs to the namespace: it ends with it, or goes back to the host as the kernel decides, also
//! when the creation of the container fails later.

mod message;
mod socket;

use std::os::fd::{AsFd, BorrowedFd};
use std::thread;

use rustix::io::Errno;

use crate::Error;
use crate::plan::NetDevice;
use crate::sys::Fd;
use crate::sys::process::setns;
use socket::Socket;

/// Moves the devices from this thread's network namespace to `target`. Those before the one that fails have moved.
pub(crate) fn move_all(devices: &[NetDevice], target: BorrowedFd<'_>) -> Result<(), Error> {
    let here = Socket::open().map_err(|errno| Error::io("open a route socket", errno))?;
    let there = open_in(target)?;
    devices
        .iter()
        .try_for_each(|device| move_one(device, &here, &there, target))
}

/// A route socket of another network namespace. It stays of that namespace wherever it is used.
fn open_in(target: BorrowedFd<'_>) -> Result<Socket, Error> {
    let open = || {
        setns(Fd::of(&target), libc::CLONE_NEWNET as u64)
            .map_err(|errno| Error::io("join the container's net namespace", errno))?;
        Socket::open().map_err(|errno| Error::io("open a route socket in the container", errno))
    };
    // On a thread of its own: this one stays where it is.
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("wharf-net".into())
            .spawn_scoped(scope, open)
            .map_err(|error| Error::io("start a thread", error))?;
        match thread.join() {
            Ok(socket) => socket,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

fn move_one(device: &NetDevice, here: &Socket, there: &Socket, target: BorrowedFd<'_>) -> Result<(), Error> {
    let failed = |what: &str| {
        let operation = format!("move network device {}: {what}", device.host);
        move |errno: Errno| Error::io(operation, errno)
    };
    let index = here
        .index(&device.host)
        .map_err(failed("link not found for interface on runtime namespace"))?;
    // Before it goes down, which takes IPv6 addresses away.
    let addresses = here.addresses(index).map_err(failed("read its addresses"))?;
    here.request(&message::set_up(index, false))
        .map_err(failed("set it down"))?;
    here.request(&message::move_to(index, &device.container, target.as_fd()))
        .map_err(failed(&format!("to the container as {}", device.container)))?;
    // The number may be another one there.
    let index = there
        .index(&device.container)
        .map_err(failed(&format!("find {} in the container", device.container)))?;
    for address in addresses.iter().filter(|address| address.is_kept()) {
        there
            .request(&address.add_to(index))
            .map_err(failed(&format!("give {address} back")))?;
    }
    there
        .request(&message::set_up(index, true))
        .map_err(failed("set it up"))
}
