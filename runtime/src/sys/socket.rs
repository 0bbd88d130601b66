//! The sockets of the child half: the pair it reports on, the start gate, and the one that brings `lo` up.

use std::mem;
use std::ptr;

use super::{Errno, Fd, raw};

/// A pair of packet sockets, close-on-exec. Each says of the other side that it is this process, whoever has it.
pub(crate) fn packet_pair() -> Result<(Fd, Fd), Errno> {
    let mut pair = [0i32; 2];
    // SAFETY: the kernel writes two numbers into the array, which outlives the call.
    unsafe {
        raw(
            libc::SYS_socketpair,
            [
                libc::AF_UNIX as usize,
                (libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC) as usize,
                0,
                pair.as_mut_ptr() as usize,
            ],
        )?;
    }
    Ok((Fd::at(pair[0]), Fd::at(pair[1])))
}

/// Sends one packet, with a descriptor beside it if there is one.
pub(crate) fn send(socket: Fd, bytes: &[u8], passed: Option<Fd>) -> Result<(), Errno> {
    /// A control message with one descriptor.
    #[repr(C)]
    struct Rights {
        header: libc::cmsghdr,
        fd: i32,
    }
    let mut vector = libc::iovec {
        iov_base: bytes.as_ptr().cast_mut().cast(),
        iov_len: bytes.len(),
    };
    // SAFETY: both are plain data for which all-zero bytes are valid.
    let (mut message, mut rights) = unsafe { (mem::zeroed::<libc::msghdr>(), mem::zeroed::<Rights>()) };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    if let Some(fd) = passed {
        rights.header.cmsg_len = (mem::offset_of!(Rights, fd) + size_of::<i32>()) as _;
        rights.header.cmsg_level = libc::SOL_SOCKET;
        rights.header.cmsg_type = libc::SCM_RIGHTS;
        rights.fd = fd.number();
        message.msg_control = (&raw mut rights).cast();
        message.msg_controllen = size_of::<Rights>() as _;
    }
    loop {
        // SAFETY: the message and all it points to outlive the call; the kernel only reads them.
        let answer = unsafe {
            raw(
                libc::SYS_sendmsg,
                [
                    socket.arg(),
                    ptr::from_ref(&message) as usize,
                    libc::MSG_NOSIGNAL as usize,
                ],
            )
        };
        match answer {
            Err(errno) if errno.number() == libc::EINTR => {}
            answer => return answer.map(drop),
        }
    }
}

/// Sends one packet with `write(2)`: of all calls the one that a filter with a listener must leave alone. When the other side
/// is gone this process gets `SIGPIPE`.
pub(crate) fn tell(socket: Fd, bytes: &[u8]) -> Result<(), Errno> {
    loop {
        // SAFETY: the bytes outlive the call, the length is theirs.
        let answer = unsafe {
            raw(
                libc::SYS_write,
                [socket.arg(), bytes.as_ptr() as usize, bytes.len()],
            )
        };
        match answer {
            Err(errno) if errno.number() == libc::EINTR => {}
            answer => return answer.map(drop),
        }
    }
}

/// Receives one packet with `read(2)`, for the same reason; blocks until there is one. 0 bytes: the other side is gone.
pub(crate) fn hear(socket: Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        // SAFETY: the buffer outlives the call, the length is its own.
        let answer = unsafe {
            raw(
                libc::SYS_read,
                [socket.arg(), buffer.as_mut_ptr() as usize, buffer.len()],
            )
        };
        match answer {
            Err(errno) if errno.number() == libc::EINTR => {}
            answer => return answer,
        }
    }
}

/// Receives one packet; blocks until there is one. 0 bytes: the other side is gone.
pub(crate) fn receive(socket: Fd, buffer: &mut [u8]) -> Result<usize, Errno> {
    loop {
        // SAFETY: the buffer outlives the call, the length is its own, and no address is asked for.
        let answer = unsafe {
            raw(
                libc::SYS_recvfrom,
                [socket.arg(), buffer.as_mut_ptr() as usize, buffer.len(), 0, 0, 0],
            )
        };
        match answer {
            Err(errno) if errno.number() == libc::EINTR => {}
            answer => return answer,
        }
    }
}

/// As many descriptors as one packet may carry here.
pub(crate) const MAX_PASSED: usize = 32;

/// Receives one packet with a descriptor beside it, close-on-exec; blocks until there is one.
pub(crate) fn receive_fd(socket: Fd) -> Result<Fd, Errno> {
    let mut passed = [Fd::CWD];
    match receive_fds(socket, &mut passed)? {
        0 => Err(Errno::new(libc::EPROTO)),
        _ => Ok(passed[0]),
    }
}

/// Receives one packet and the descriptors beside it, close-on-exec; blocks until there is one. Answers how many of `passed`
/// were set: more than have room there are no longer open.
pub(crate) fn receive_fds(socket: Fd, passed: &mut [Fd]) -> Result<usize, Errno> {
    /// A control message with descriptors.
    #[repr(C)]
    struct Rights {
        header: libc::cmsghdr,
        fds: [i32; MAX_PASSED],
    }
    let room = passed.len().min(MAX_PASSED);
    let mut byte = 0u8;
    let mut vector = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: both are plain data for which all-zero bytes are valid.
    let (mut message, mut rights) = unsafe { (mem::zeroed::<libc::msghdr>(), mem::zeroed::<Rights>()) };
    message.msg_iov = &raw mut vector;
    message.msg_iovlen = 1;
    loop {
        message.msg_control = (&raw mut rights).cast();
        message.msg_controllen = (mem::offset_of!(Rights, fds) + room * size_of::<i32>()) as _;
        // SAFETY: the message and all it points to outlive the call, and the lengths are at most those of what it points to.
        let answer = unsafe {
            raw(
                libc::SYS_recvmsg,
                [
                    socket.arg(),
                    ptr::from_mut(&mut message) as usize,
                    libc::MSG_CMSG_CLOEXEC as usize,
                ],
            )
        };
        match answer {
            Err(errno) if errno.number() == libc::EINTR => {}
            Err(errno) => return Err(errno),
            Ok(0) => return Err(Errno::new(libc::EPIPE)),
            Ok(_) => break,
        }
    }
    if message.msg_controllen == 0 {
        return Ok(0);
    }
    if rights.header.cmsg_type != libc::SCM_RIGHTS {
        return Err(Errno::new(libc::EPROTO));
    }
    // As long with one C library as a word is, and with another as half of it.
    let length: usize = rights.header.cmsg_len as _;
    let bytes = length.saturating_sub(mem::offset_of!(Rights, fds));
    let count = (bytes / size_of::<i32>()).min(room);
    for (place, number) in passed.iter_mut().zip(rights.fds).take(count) {
        *place = Fd::at(number);
    }
    Ok(count)
}

/// Waits for somebody to connect to a listening socket.
pub(crate) fn accept(listener: Fd) -> Result<Fd, Errno> {
    loop {
        // SAFETY: no address is asked for.
        let answer = unsafe {
            raw(
                libc::SYS_accept4,
                [listener.arg(), 0, 0, libc::SOCK_CLOEXEC as usize],
            )
        };
        match answer {
            Err(errno) if errno.number() == libc::EINTR => {}
            answer => return answer.map(|number| Fd::at(number as i32)),
        }
    }
}

/// Brings the loopback interface of this network namespace up (`RTM_NEWLINK`, `IFF_UP`).
pub(crate) fn loopback_up() -> Result<(), Errno> {
    /// `struct nlmsghdr` and `struct ifinfomsg`.
    #[repr(C)]
    struct Request {
        length: u32,
        kind: u16,
        flags: u16,
        sequence: u32,
        port: u32,
        family: u8,
        padding: u8,
        device: u16,
        index: i32,
        interface_flags: u32,
        change: u32,
    }
    const LOOPBACK_INDEX: i32 = 1;
    let request = Request {
        length: size_of::<Request>() as u32,
        kind: libc::RTM_NEWLINK,
        flags: (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16,
        sequence: 1,
        port: 0,
        family: 0,
        padding: 0,
        device: 0,
        index: LOOPBACK_INDEX,
        interface_flags: libc::IFF_UP as u32,
        change: libc::IFF_UP as u32,
    };
    // SAFETY: no pointer.
    let socket = unsafe {
        raw(
            libc::SYS_socket,
            [
                libc::AF_NETLINK as usize,
                (libc::SOCK_RAW | libc::SOCK_CLOEXEC) as usize,
                libc::NETLINK_ROUTE as usize,
            ],
        )
    }?;
    let socket = Fd::at(socket as i32);
    // SAFETY: the request outlives the call and the size is its own; without an address netlink sends to the kernel.
    let sent = unsafe {
        raw(
            libc::SYS_sendto,
            [
                socket.arg(),
                &raw const request as usize,
                size_of::<Request>(),
                0,
                0,
                0,
            ],
        )
    };
    let result = sent.and_then(|_| acknowledged(socket));
    socket.close();
    result
}

/// Reads netlink's answer: `struct nlmsghdr` and the negative error number.
fn acknowledged(socket: Fd) -> Result<(), Errno> {
    const HEADER: usize = 16;
    let mut answer = [0u8; 256];
    let length = receive(socket, &mut answer)?;
    let word = |at: usize| i32::from_ne_bytes([answer[at], answer[at + 1], answer[at + 2], answer[at + 3]]);
    let kind = u16::from_ne_bytes([answer[4], answer[5]]);
    if length < HEADER + 4 || i32::from(kind) != libc::NLMSG_ERROR {
        return Err(Errno::new(libc::EPROTO));
    }
    match word(HEADER) {
        0 => Ok(()),
        number => Err(Errno::new(-number)),
    }
}
