//! Publishing events to the daemon, by ttrpc, without ever waiting for it.
//!
//! Owns a bounded queue and one connection to the daemon's event service, made when there is something to send. Events go
//! out one at a time and in order. A failed try is repeated after a growing pause; after [`TRIES`] the event is dropped:
//! events are hints, and whoever missed one asks. When the queue is full, the oldest is dropped.

use std::collections::VecDeque;
use std::os::fd::OwnedFd;
use std::time::Duration;

use prost::{Message, Name};
use rustix::io::{Errno, read, write};
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
use wharf_proto::any::pack;
use wharf_proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use wharf_proto::containerd::types::Envelope;
use wharf_proto::ttrpc::{Frame, Kind, Request, Response};

use crate::clock;
use crate::log::Log;
use crate::reactor::{Alarm, Interest, Reactor, Token};

/// The most events that wait.
const LONGEST_QUEUE: usize = 1024;

/// Tries for one event, over about a minute.
const TRIES: u32 = 12;

/// How long the daemon may take to answer.
const ANSWER: Duration = Duration::from_secs(5);

/// The pause after the first failed try; doubled for each, up to [`LONGEST_PAUSE`].
const FIRST_PAUSE: Duration = Duration::from_millis(100);

/// The longest pause between tries.
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// An answer to an event is empty; anything this long is not one.
const LONGEST_ANSWER: usize = 64 << 10;

struct Connection {
    fd: OwnedFd,
    output: Vec<u8>,
    input: Vec<u8>,
    watching_write: bool,
}

/// See the module.
pub struct Publisher {
    address: Option<String>,
    namespace: String,
    queue: VecDeque<(String, Vec<u8>)>,
    connection: Option<Connection>,
    /// The stream of the event that was sent and is not answered; it is the first of the queue.
    awaited: Option<u32>,
    next_stream: u32,
    failures: u32,
    /// A failed try is followed by a pause.
    pausing: bool,
}

impl Publisher {
    /// A publisher to the socket at `address` (with or without `unix://`); without one, events are dropped.
    pub fn new(address: Option<String>, namespace: String) -> Publisher {
        Publisher {
            address: address
                .map(|address| address.strip_prefix("unix://").unwrap_or(&address).to_owned())
                .filter(|address| !address.is_empty()),
            namespace,
            queue: VecDeque::new(),
            connection: None,
            awaited: None,
            next_stream: 1,
            failures: 0,
            pausing: false,
        }
    }

    /// Whether nothing waits to be published.
    pub fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Queues `event`, for [`Self::drive`].
    pub fn publish<E: Message + Name>(&mut self, log: &Log, topic: &str, event: &E) {
        if self.address.is_none() {
            return;
        }
        let envelope = Envelope {
            timestamp: Some(clock::now()),
            namespace: self.namespace.clone(),
            topic: topic.to_owned(),
            event: Some(pack(event)),
        };
        let request = ForwardRequest {
            envelope: Some(envelope),
        };
        if self.queue.len() == LONGEST_QUEUE {
            // The first may be on its way; it is the second that gives way then.
            let victim = usize::from(self.awaited.is_some());
            if let Some((topic, _)) = self.queue.remove(victim) {
                log.warn(&format!("event {topic} dropped: too many wait"));
            }
        }
        self.queue.push_back((topic.to_owned(), request.encode_to_vec()));
    }

    /// The connection is ready.
    pub fn ready(&mut self, reactor: &mut Reactor, log: &Log) {
        if let Err(cause) = self.receive(reactor, log) {
            self.failed(reactor, log, &cause);
        }
        self.drive(reactor, log);
    }

    /// The pause, or the time to answer, is over.
    pub fn due(&mut self, reactor: &mut Reactor, log: &Log) {
        if self.pausing {
            self.pausing = false;
        } else if self.awaited.is_some() {
            self.failed(reactor, log, "no answer in time");
        }
        self.drive(reactor, log);
    }

    /// Sends what can be sent at once. Called when those who waited for an answer have it: an event is nothing that a call waits for.
    pub fn drive(&mut self, reactor: &mut Reactor, log: &Log) {
        while !self.pausing && self.awaited.is_none() && !self.queue.is_empty() {
            if let Err(cause) = self.send(reactor) {
                self.failed(reactor, log, &cause);
            }
        }
    }

    fn send(&mut self, reactor: &mut Reactor) -> Result<(), String> {
        let Some((_, payload)) = self.queue.front() else {
            return Ok(());
        };
        let request = Request {
            service: "containerd.services.events.ttrpc.v1.Events".to_owned(),
            method: "Forward".to_owned(),
            payload: payload.clone(),
            timeout_nano: ANSWER.as_nanos() as i64,
            metadata: Vec::new(),
        };
        if self.connection.is_none() {
            self.connection = Some(self.connect(reactor)?);
            self.next_stream = 1;
        }
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        Frame::new(Kind::Request, self.next_stream, &request)
            .encode(&mut connection.output)
            .map_err(|error| error.to_string())?;
        self.awaited = Some(self.next_stream);
        self.next_stream = self.next_stream.wrapping_add(2);
        reactor.set_alarm(Alarm::Publish, ANSWER);
        connection.flush(reactor)
    }

    fn connect(&self, reactor: &Reactor) -> Result<Connection, String> {
        let address = self.address.as_deref().unwrap_or_default();
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let make = || -> rustix::io::Result<OwnedFd> {
            let fd = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
            connect(&fd, &SocketAddrUnix::new(address)?)?;
            Ok(fd)
        };
        let fd = make().map_err(|error| format!("connect to {address}: {error}"))?;
        reactor
            .add(&fd, Token::Publisher, Interest::Read)
            .map_err(|error| error.to_string())?;
        Ok(Connection {
            fd,
            output: Vec::new(),
            input: Vec::new(),
            watching_write: false,
        })
    }

    fn receive(&mut self, reactor: &mut Reactor, log: &Log) -> Result<(), String> {
        let Some(connection) = &mut self.connection else {
            return Ok(());
        };
        connection.flush(reactor)?;
        let mut buffer = [0; 4096];
        loop {
            match read(&connection.fd, &mut buffer) {
                Ok(0) => return Err("the daemon closed the connection".to_owned()),
                Ok(count) => connection.input.extend_from_slice(&buffer[..count]),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.to_string()),
            }
            if connection.input.len() > LONGEST_ANSWER {
                return Err("the daemon's answer is too long".to_owned());
            }
        }
        let mut frames = Vec::new();
        while let Some(frame) = Frame::decode(&mut connection.input).map_err(|error| error.to_string())? {
            frames.push(frame);
        }
        for frame in frames {
            if frame.kind != Kind::Response || Some(frame.stream) != self.awaited {
                continue;
            }
            let response = Response::decode(frame.payload.as_slice()).map_err(|error| error.to_string())?;
            match response.status.filter(|status| status.code != 0) {
                Some(status) => {
                    // The connection is fine: the event itself was refused.
                    self.awaited = None;
                    self.retry(reactor, log, &status.message);
                }
                None => {
                    self.queue.pop_front();
                    self.awaited = None;
                    self.failures = 0;
                    reactor.cancel_alarm(Alarm::Publish);
                }
            }
        }
        Ok(())
    }

    /// The connection is of no use any more.
    fn failed(&mut self, reactor: &mut Reactor, log: &Log, cause: &str) {
        if let Some(connection) = self.connection.take() {
            reactor.remove(&connection.fd);
        }
        if self.awaited.take().is_some() || !self.queue.is_empty() {
            self.retry(reactor, log, cause);
        }
    }

    fn retry(&mut self, reactor: &mut Reactor, log: &Log, cause: &str) {
        self.failures += 1;
        if self.failures >= TRIES {
            if let Some((topic, _)) = self.queue.pop_front() {
                log.warn(&format!("event {topic} dropped after {TRIES} tries: {cause}"));
            }
            // The daemon is away: what waits behind gets one try each until it is back.
            self.failures = TRIES - 1;
        }
        let pause = FIRST_PAUSE * 2u32.pow(self.failures.min(10) - 1);
        self.pausing = true;
        reactor.set_alarm(Alarm::Publish, pause.min(LONGEST_PAUSE));
    }
}

impl Connection {
    fn flush(&mut self, reactor: &Reactor) -> Result<(), String> {
        while !self.output.is_empty() {
            match write(&self.fd, &self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.to_string()),
            }
        }
        let wants = !self.output.is_empty();
        if wants != self.watching_write {
            let interest = if wants { Interest::Both } else { Interest::Read };
            reactor
                .change(&self.fd, Token::Publisher, interest)
                .map_err(|error| error.to_string())?;
            self.watching_write = wants;
        }
        Ok(())
    }
}
