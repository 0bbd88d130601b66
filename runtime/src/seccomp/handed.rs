//! A filter that is found or made while the process that it is for is being made (see `later`): how it gets there.
//!
//! The process is made with room for a filter, and the filter comes over a socket of packets: flags and count, then the
//! instructions. Whoever waits has nothing in force yet, and allocates nothing; without a filter it goes no further.

use std::os::fd::OwnedFd;

use super::cache::{decode_instruction, encode_instruction};
use super::{MAX_INSTRUCTIONS, Program};
use crate::Error;
use crate::sys::{Errno, Fd, socket};

/// Small enough for any socket's buffer.
const PACKET_BYTES: usize = 4096;
const HEAD_BYTES: usize = 8;

impl Program {
    /// Room for a filter.
    pub(crate) fn awaited() -> Self {
        Self {
            instructions: Vec::with_capacity(MAX_INSTRUCTIONS),
            flags: 0,
        }
    }

    /// Whether it is only room: no profile compiles to nothing.
    pub(crate) fn is_awaited(&self) -> bool {
        self.instructions.is_empty()
    }

    /// Sends it to who has the other end. Blocks while the socket's buffer is full.
    pub(crate) fn send(&self, to: &OwnedFd) -> Result<(), Error> {
        let mut packet = [0; PACKET_BYTES];
        let (flags, count) = (self.flags, self.instructions.len() as u32);
        packet[..4].copy_from_slice(&flags.to_ne_bytes());
        packet[4..HEAD_BYTES].copy_from_slice(&count.to_ne_bytes());
        let send = |bytes: &[u8]| {
            socket::send(Fd::of(to), bytes, None)
                .map_err(|errno| Error::io("send the filter to the container process", errno))
        };
        send(&packet[..HEAD_BYTES])?;
        for part in self.instructions.chunks(PACKET_BYTES / 8) {
            let (places, _) = packet.as_chunks_mut::<8>();
            for (place, instruction) in places.iter_mut().zip(part) {
                *place = encode_instruction(instruction);
            }
            send(&packet[..8 * part.len()])?;
        }
        Ok(())
    }

    /// Fills the room with what [`Self::send`] sends; blocks for it.
    pub(crate) fn receive(&mut self, from: Fd) -> Result<(), Errno> {
        let next = |packet: &mut [u8]| match socket::receive(from, packet)? {
            0 => Err(Errno::new(libc::EPIPE)),
            length => Ok(length),
        };
        let mut head = [0; HEAD_BYTES];
        let length = next(&mut head)?;
        let [f0, f1, f2, f3, c0, c1, c2, c3] = head;
        let count = u32::from_ne_bytes([c0, c1, c2, c3]) as usize;
        // The room is what the process was made with: it cannot grow here.
        let room = self.instructions.capacity() - self.instructions.len();
        if length != HEAD_BYTES || count == 0 || count > room {
            return Err(Errno::new(libc::EPROTO));
        }
        let mut packet = [0; PACKET_BYTES];
        while self.instructions.len() < count {
            let length = next(&mut packet)?;
            let (instructions, rest) = packet[..length].as_chunks::<8>();
            if !rest.is_empty() || instructions.len() > count - self.instructions.len() {
                return Err(Errno::new(libc::EPROTO));
            }
            self.instructions
                .extend(instructions.iter().map(decode_instruction));
        }
        self.flags = u32::from_ne_bytes([f0, f1, f2, f3]);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::seccomp::Instruction;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

    fn pair() -> (OwnedFd, OwnedFd) {
        let flags = SocketFlags::CLOEXEC;
        socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None).unwrap()
    }

    fn program(count: u32) -> Program {
        let instruction = |k: u32| Instruction {
            code: 0x15,
            jt: k as u8,
            jf: !k as u8,
            k,
        };
        Program {
            instructions: (0..count).map(instruction).collect(),
            flags: 4,
        }
    }

    #[test]
    fn a_filter_arrives_as_it_was_sent() {
        for count in [1, 511, 512, 513, MAX_INSTRUCTIONS as u32] {
            let (from, to) = pair();
            let mut received = Program::awaited();
            assert!(received.is_awaited());
            program(count).send(&from).unwrap();
            received.receive(Fd::of(&to)).unwrap();
            assert_eq!(received, program(count));
        }
    }

    #[test]
    fn half_a_filter_is_none() {
        let (from, to) = pair();
        socket::send(Fd::of(&from), &[4, 0, 0, 0, 2, 0, 0, 0], None).unwrap();
        socket::send(Fd::of(&from), &[0; 8], None).unwrap();
        drop(from);
        let answer = Program::awaited().receive(Fd::of(&to));
        assert_eq!(answer, Err(Errno::new(libc::EPIPE)));
        for head in [[0, 0, 0, 0, 0, 0, 0, 0], [0, 0, 0, 0, 1, 16, 0, 0]] {
            let (from, to) = pair();
            socket::send(Fd::of(&from), &head, None).unwrap();
            let answer = Program::awaited().receive(Fd::of(&to));
            assert_eq!(answer, Err(Errno::new(libc::EPROTO)));
        }
    }
}
