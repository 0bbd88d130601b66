//! Moving bytes one way between two descriptors, without ever blocking.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::PollFlags;
use rustix::io::Errno;

use crate::Error;

/// What is written at once: a pipe that polls as writable takes that much without blocking, so that the
/// descriptors, which are shared with other processes, need not be made non-blocking.
const CHUNK: usize = 4096;

/// One direction. At the source's end, or when nobody takes the bytes, the target is closed.
#[derive(Debug)]
pub(super) struct Relay {
    source: Option<OwnedFd>,
    target: Option<OwnedFd>,
    buffer: Box<[u8; CHUNK]>,
    /// What of the buffer is still to be written.
    held: std::ops::Range<usize>,
    /// Keep the target open at the source's end: a terminal's master, which the other direction reads.
    endless: bool,
}

impl Relay {
    pub fn new(source: OwnedFd, target: OwnedFd) -> Result<Self, Error> {
        Ok(Self {
            source: Some(source),
            target: Some(target),
            buffer: Box::new([0; CHUNK]),
            held: 0..0,
            endless: false,
        })
    }

    pub fn endless(mut self) -> Self {
        self.endless = true;
        self
    }

    /// What to wait for.
    pub fn interest(&self) -> Option<(BorrowedFd<'_>, PollFlags)> {
        if self.holds_bytes() {
            self.target
                .as_ref()
                .map(|target| (target.as_fd(), PollFlags::OUT))
        } else {
            self.source.as_ref().map(|source| (source.as_fd(), PollFlags::IN))
        }
    }

    pub fn holds_bytes(&self) -> bool {
        !self.held.is_empty() && self.target.is_some()
    }

    /// Does what [`Self::interest`] waited for.
    pub fn step(&mut self) {
        if self.holds_bytes() {
            self.write();
        } else {
            self.read();
        }
    }

    fn read(&mut self) {
        let Some(source) = &self.source else { return };
        match rustix::io::read(source, &mut self.buffer[..]) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            // EIO is how a terminal's master says that nobody has the other side open.
            Ok(0) | Err(_) => {
                self.source = None;
                if !self.endless {
                    self.target = None;
                }
            }
            Ok(length) => self.held = 0..length,
        }
    }

    fn write(&mut self) {
        let Some(target) = &self.target else { return };
        match rustix::io::write(target, &self.buffer[self.held.clone()]) {
            Ok(length) => self.held.start += length,
            Err(Errno::AGAIN | Errno::INTR) => {}
            // Nobody takes the bytes: the process learns it as it would from a closed stream of its own.
            Err(_) => {
                self.source = None;
                self.target = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pipe() -> (OwnedFd, OwnedFd) {
        rustix::pipe::pipe().unwrap()
    }

    #[test]
    fn bytes_pass_and_the_end_is_passed_on() {
        let (source, input) = pipe();
        let (output, target) = pipe();
        let mut relay = Relay::new(source, target).unwrap();
        rustix::io::write(&input, b"hello").unwrap();
        relay.step();
        assert!(relay.holds_bytes());
        relay.step();
        assert!(!relay.holds_bytes());
        let mut bytes = [0; 16];
        assert_eq!(rustix::io::read(&output, &mut bytes), Ok(5));
        assert_eq!(&bytes[..5], b"hello");
        drop(input);
        relay.step();
        assert!(relay.interest().is_none());
        assert_eq!(
            rustix::io::read(&output, &mut bytes),
            Ok(0),
            "the target is closed"
        );
    }

    #[test]
    fn an_endless_relay_keeps_its_target() {
        let (source, input) = pipe();
        let (output, target) = pipe();
        let mut relay = Relay::new(source, target).unwrap().endless();
        drop(input);
        relay.step();
        assert!(relay.interest().is_none());
        rustix::io::ioctl_fionbio(&output, true).unwrap();
        assert_eq!(
            rustix::io::read(&output, &mut [0; 16]),
            Err(Errno::AGAIN),
            "the target is open"
        );
    }

    #[test]
    fn a_target_that_nobody_reads_ends_the_relay() {
        let (source, input) = pipe();
        let (output, target) = pipe();
        let mut relay = Relay::new(source, target).unwrap();
        drop(output);
        rustix::io::write(&input, b"hello").unwrap();
        relay.step();
        relay.step();
        assert!(relay.interest().is_none());
        assert_eq!(
            rustix::io::write(&input, b"more"),
            Err(Errno::PIPE),
            "the source is closed"
        );
    }
}
