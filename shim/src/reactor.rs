//! The one place that waits: an epoll descriptor and a list of deadlines.
//!
//! Owns the mapping from descriptors to [`Token`]s. Level-triggered; whoever cannot act on a readiness removes its
//! descriptor until it can, so an idle shim makes no system calls.

use std::collections::BTreeSet;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;

/// What a readiness is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// The listening socket.
    Listener,
    /// The signal descriptor.
    Signals,
    /// A client's connection.
    Connection(u32),
    /// The connection to the daemon's event service.
    Publisher,
    /// The reading end of a stream.
    Source(u32),
    /// The writing end of a stream.
    Sink(u32),
    /// A container's out-of-memory notice.
    Oom(u32),
}

/// What a deadline is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Alarm {
    /// Try again to publish the oldest event, or give the answer to it up.
    Publish,
    /// The exit of this process is reported even if its output is not drained.
    Drain(u32),
    /// The container or process is deleted even if its output is not drained.
    Delete(u32),
    /// Look whether clients have come to read what ended processes wrote.
    Readers,
    /// A logging program that was asked to end is killed.
    Logger(u32),
    /// What still runs in the sandbox that was asked to end is killed.
    Sandbox,
    /// Connections are taken again.
    Accept,
    /// Root file systems that were detached are let go.
    Roots,
    /// The shim ends even if events are unpublished.
    Exit,
}

impl Token {
    fn encode(self) -> u64 {
        let (kind, id) = match self {
            Token::Listener => (1, 0),
            Token::Signals => (2, 0),
            Token::Connection(id) => (3, id),
            Token::Publisher => (4, 0),
            Token::Source(id) => (5, id),
            Token::Sink(id) => (6, id),
            Token::Oom(id) => (7, id),
        };
        kind << 32 | u64::from(id)
    }

    fn decode(word: u64) -> Option<Token> {
        let id = word as u32;
        Some(match word >> 32 {
            1 => Token::Listener,
            2 => Token::Signals,
            3 => Token::Connection(id),
            4 => Token::Publisher,
            5 => Token::Source(id),
            6 => Token::Sink(id),
            7 => Token::Oom(id),
            _ => return None,
        })
    }
}

/// What a descriptor is watched for. Hang-ups and errors are always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    /// Something to read.
    Read,
    /// Room to write.
    Write,
    /// Either.
    Both,
}

impl Interest {
    fn flags(self) -> epoll::EventFlags {
        match self {
            Interest::Read => epoll::EventFlags::IN,
            Interest::Write => epoll::EventFlags::OUT,
            Interest::Both => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        }
    }
}

/// Something that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Happening {
    /// A descriptor is ready.
    Ready(Token),
    /// A deadline passed.
    Due(Alarm),
}

/// See the module.
pub struct Reactor {
    epoll: OwnedFd,
    deadlines: BTreeSet<(Instant, Alarm)>,
    ready: Vec<epoll::Event>,
}

impl Reactor {
    /// A reactor that watches nothing.
    pub fn new() -> io::Result<Reactor> {
        Ok(Reactor {
            epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?,
            deadlines: BTreeSet::new(),
            ready: Vec::with_capacity(32),
        })
    }

    /// Starts watching `fd`, which must not be watched yet.
    pub fn add(&self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.encode());
        Ok(epoll::add(&self.epoll, fd, data, interest.flags())?)
    }

    /// Changes what the watched `fd` is watched for.
    pub fn change(&self, fd: impl AsFd, token: Token, interest: Interest) -> io::Result<()> {
        let data = epoll::EventData::new_u64(token.encode());
        Ok(epoll::modify(&self.epoll, fd, data, interest.flags())?)
    }

    /// Stops watching `fd`; one that is not watched is no error.
    pub fn remove(&self, fd: impl AsFd) {
        // ENOENT is what "not watched" looks like; nothing else can happen to a descriptor that is open.
        let _ = epoll::delete(&self.epoll, fd);
    }

    /// Sets `alarm` for `delay` from now, instead of any earlier setting.
    pub fn set_alarm(&mut self, alarm: Alarm, delay: Duration) {
        self.cancel_alarm(alarm);
        self.deadlines.insert((Instant::now() + delay, alarm));
    }

    /// Forgets `alarm`.
    pub fn cancel_alarm(&mut self, alarm: Alarm) {
        self.deadlines.retain(|(_, other)| *other != alarm);
    }

    /// Blocks until something happens and appends it to `happenings`.
    pub fn wait(&mut self, happenings: &mut Vec<Happening>) -> io::Result<()> {
        let timeout = self.deadlines.first().map(|(deadline, _)| {
            let left = deadline.saturating_duration_since(Instant::now());
            Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            }
        });
        self.ready.clear();
        let buffer = rustix::buffer::spare_capacity(&mut self.ready);
        match epoll::wait(&self.epoll, buffer, timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        happenings.extend(
            self.ready
                .iter()
                .filter_map(|event| Token::decode(event.data.u64()))
                .map(Happening::Ready),
        );
        let now = Instant::now();
        while let Some(&(deadline, alarm)) = self.deadlines.first() {
            if deadline > now {
                break;
            }
            self.deadlines.pop_first();
            happenings.push(Happening::Due(alarm));
        }
        Ok(())
    }
}
