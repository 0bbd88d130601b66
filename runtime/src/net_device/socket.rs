//! A route socket: requests that are acknowledged, and lists.

use std::cell::Cell;
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::net::netdevice::name_to_index;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

use super::message::{Address, Answer, Answers, Request, list_addresses};

/// How often a list is read again that changed while it was read.
const LIST_RETRIES: usize = 16;

/// A socket to the kernel's routing, of the network namespace it was opened in.
pub(super) struct Socket {
    fd: OwnedFd,
    sequence: Cell<u32>,
}

impl Socket {
    /// Opens one in this thread's network namespace.
    pub(super) fn open() -> Result<Self, Errno> {
        // No protocol is netlink's first one: routing.
        let fd = socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok(Self {
            fd,
            sequence: Cell::new(0),
        })
    }

    /// The number of the device of that name.
    pub(super) fn index(&self, name: &str) -> Result<u32, Errno> {
        name_to_index(&self.fd, name)
    }

    /// Sends a request and waits for its acknowledgement.
    pub(super) fn request(&self, request: &Request) -> Result<(), Errno> {
        self.exchange(request, |_| {}).map(drop)
    }

    /// The addresses of device `index`.
    pub(super) fn addresses(&self, index: u32) -> Result<Vec<Address>, Errno> {
        for _ in 0..LIST_RETRIES {
            let mut addresses = Vec::new();
            let consistent = self.exchange(&list_addresses(), |answer| {
                if answer.kind == libc::RTM_NEWADDR {
                    addresses.extend(Address::parse(answer.body).filter(|address| address.index == index));
                }
            })?;
            if consistent {
                return Ok(addresses);
            }
        }
        Err(Errno::AGAIN)
    }

    /// Sends a request and hears all that is answered; whether nothing changed meanwhile.
    fn exchange(&self, request: &Request, mut hear: impl FnMut(Answer<'_>)) -> Result<bool, Errno> {
        let sequence = self.sequence.get() + 1;
        self.sequence.set(sequence);
        // Without an address it goes to the kernel.
        send(&self.fd, &request.bytes(sequence), SendFlags::empty())?;
        // No answer of the kernel's to these requests is larger.
        let mut buffer = vec![0; 64 << 10];
        let mut consistent = true;
        loop {
            let length = match recv(&self.fd, &mut buffer[..], RecvFlags::TRUNC) {
                Err(Errno::INTR) => continue,
                answer => answer?.1,
            };
            let datagram = buffer.get(..length).ok_or(Errno::MSGSIZE)?;
            for answer in Answers(datagram).filter(|answer| answer.sequence == sequence) {
                consistent &= i32::from(answer.flags) & libc::NLM_F_DUMP_INTR == 0;
                match i32::from(answer.kind) {
                    libc::NLMSG_ERROR | libc::NLMSG_DONE => return result(answer).map(|()| consistent),
                    _ => hear(answer),
                }
            }
        }
    }
}

/// What an error message, or the end of a list, carries: 0, or a negative error number. An end may carry nothing.
fn result(answer: Answer<'_>) -> Result<(), Errno> {
    let number = match answer.body.get(..4).and_then(|number| number.try_into().ok()) {
        Some(number) => i32::from_ne_bytes(number),
        None if i32::from(answer.kind) == libc::NLMSG_DONE => 0,
        None => return Err(Errno::PROTO),
    };
    match number {
        0 => Ok(()),
        number => Err(Errno::from_raw_os_error(number.wrapping_neg())),
    }
}
