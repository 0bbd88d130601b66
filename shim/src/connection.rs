//! Clients' connections: ttrpc frames in, answers out.
//!
//! Owns the framing on sockets and its bounds: frames of at most 4 MiB (the protocol's), [`MOST_CONNECTIONS`] clients,
//! [`MOST_CALLS`] unanswered calls a client, and a client that does not read its answers is dropped. Only processes of our
//! own user may connect. What calls mean is not known here.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use prost::Message;
use rustix::io::{Errno, read, write};
use rustix::net::sockopt::socket_peercred;
use rustix::net::{SocketFlags, accept_with};
use rustix::process::geteuid;
use wharf_proto::ttrpc::{Frame, Kind, Request, Response};

use crate::log::Log;
use crate::reactor::{Alarm, Interest, Reactor, Token};
use crate::status::{Code, Refusal};

/// Clients at a time.
const MOST_CONNECTIONS: usize = 64;

/// Unanswered calls of one client.
const MOST_CALLS: usize = 4096;

/// Unread answers of one client, in bytes.
const MOST_OUTPUT: usize = 8 << 20;

/// How long nobody is let in after a failure.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Where an answer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The connection.
    pub connection: u32,
    /// The call's stream on it.
    stream: u32,
}

/// A call to be answered.
pub struct Call {
    /// Where to.
    pub reply: Reply,
    /// What is asked.
    pub request: Request,
}

struct Connection {
    fd: OwnedFd,
    input: Vec<u8>,
    output: Vec<u8>,
    watching_write: bool,
    calls: usize,
}

/// All connections.
#[derive(Default)]
pub struct Connections {
    connections: BTreeMap<u32, Connection>,
    next: u32,
}

impl Connections {
    /// Takes the connections that wait at `listener`; after a failure (no descriptors left, say), not again for a while.
    pub fn accept(&mut self, reactor: &mut Reactor, log: &Log, listener: &UnixListener) {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        loop {
            let fd = match accept_with(listener, flags) {
                Ok(fd) => fd,
                Err(Errno::AGAIN) => return,
                Err(Errno::INTR | Errno::CONNABORTED) => continue,
                Err(error) => {
                    log.error(&format!("accept a connection: {error}"));
                    reactor.remove(listener);
                    reactor.set_alarm(Alarm::Accept, ACCEPT_PAUSE);
                    return;
                }
            };
            match socket_peercred(&fd) {
                Ok(peer) if peer.uid == geteuid() => {}
                Ok(peer) => {
                    log.warn(&format!("connection of user {} refused", peer.uid.as_raw()));
                    continue;
                }
                Err(error) => {
                    log.error(&format!("ask who connects: {error}"));
                    continue;
                }
            }
            if self.connections.len() == MOST_CONNECTIONS {
                log.warn("connection refused: there are too many");
                continue;
            }
            if let Err(error) = self.add(reactor, fd) {
                log.error(&format!("watch a connection: {error}"));
            }
        }
    }

    /// Takes a non-blocking connection that was let in; gives its number.
    pub fn add(&mut self, reactor: &Reactor, fd: OwnedFd) -> std::io::Result<u32> {
        let id = self.next;
        self.next = self.next.wrapping_add(1);
        reactor.add(&fd, Token::Connection(id), Interest::Read)?;
        let connection = Connection {
            fd,
            input: Vec::new(),
            output: Vec::new(),
            watching_write: false,
            calls: 0,
        };
        self.connections.insert(id, connection);
        Ok(id)
    }

    /// Reads what connection `id` has sent; appends its whole calls to `calls`. False when it is closed now.
    pub fn ready(&mut self, reactor: &Reactor, log: &Log, id: u32, calls: &mut Vec<Call>) -> bool {
        let Some(connection) = self.connections.get_mut(&id) else {
            return false;
        };
        let outcome = connection
            .flush(reactor, id)
            .and_then(|()| connection.read(id, calls));
        if let Err(cause) = &outcome {
            if let Some(cause) = cause {
                log.warn(&format!("connection closed: {cause}"));
            }
            if let Some(connection) = self.connections.remove(&id) {
                reactor.remove(&connection.fd);
            }
        }
        outcome.is_ok()
    }

    /// Answers a call. A client that is gone misses it.
    pub fn answer(&mut self, reactor: &Reactor, log: &Log, reply: Reply, answer: Result<Vec<u8>, Refusal>) {
        let Some(connection) = self.connections.get_mut(&reply.connection) else {
            return;
        };
        connection.calls = connection.calls.saturating_sub(1);
        let response = match answer {
            Ok(payload) => Response {
                status: None,
                payload,
            },
            Err(refusal) => Response {
                status: Some(refusal.into_status()),
                payload: Vec::new(),
            },
        };
        let written = Frame::new(Kind::Response, reply.stream, &response)
            .encode(&mut connection.output)
            .map_err(|error| Some(error.to_string()))
            .and_then(|()| connection.flush(reactor, reply.connection));
        if let Err(cause) = written {
            if let Some(cause) = cause {
                log.warn(&format!("connection closed: {cause}"));
            }
            if let Some(connection) = self.connections.remove(&reply.connection) {
                reactor.remove(&connection.fd);
            }
        }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.connections.is_empty()
    }

    /// Whether every answer has been handed to the kernel.
    pub fn is_flushed(&self) -> bool {
        self.connections
            .values()
            .all(|connection| connection.output.is_empty())
    }
}

/// Why a connection ends; `None` when the client closed it.
type Ended = Option<String>;

impl Connection {
    fn flush(&mut self, reactor: &Reactor, id: u32) -> Result<(), Ended> {
        while !self.output.is_empty() {
            match write(&self.fd, &self.output) {
                Ok(count) => drop(self.output.drain(..count)),
                Err(Errno::AGAIN) => break,
                Err(Errno::INTR) => {}
                Err(Errno::PIPE | Errno::CONNRESET) => return Err(None),
                Err(error) => return Err(Some(error.to_string())),
            }
        }
        if self.output.len() > MOST_OUTPUT {
            return Err(Some("the client does not read its answers".to_owned()));
        }
        if self.output.is_empty() {
            self.output = Vec::new();
        }
        let wants = !self.output.is_empty();
        if wants != self.watching_write {
            let interest = if wants { Interest::Both } else { Interest::Read };
            reactor
                .change(&self.fd, Token::Connection(id), interest)
                .map_err(|error| Some(error.to_string()))?;
            self.watching_write = wants;
        }
        Ok(())
    }

    fn read(&mut self, id: u32, calls: &mut Vec<Call>) -> Result<(), Ended> {
        let mut buffer = [0; 8192];
        match read(&self.fd, &mut buffer) {
            Ok(0) | Err(Errno::CONNRESET) => return Err(None),
            Ok(count) => self.input.extend_from_slice(&buffer[..count]),
            Err(Errno::AGAIN | Errno::INTR) => return Ok(()),
            Err(error) => return Err(Some(error.to_string())),
        }
        while let Some(frame) = Frame::decode(&mut self.input).map_err(|error| Some(error.to_string()))? {
            let reply = Reply {
                connection: id,
                stream: frame.stream,
            };
            if frame.kind != Kind::Request || frame.stream % 2 == 0 {
                return Err(Some("a frame that is no request of a client".to_owned()));
            }
            self.calls += 1;
            let refusal = if self.calls > MOST_CALLS {
                Refusal::new(Code::ResourceExhausted, "too many unanswered calls")
            } else {
                match Request::decode(frame.payload.as_slice()) {
                    Ok(request) => {
                        calls.push(Call { reply, request });
                        continue;
                    }
                    Err(error) => Refusal::new(Code::InvalidArgument, format!("no request: {error}")),
                }
            };
            self.calls -= 1;
            let response = Response {
                status: Some(refusal.into_status()),
                payload: Vec::new(),
            };
            Frame::new(Kind::Response, frame.stream, &response)
                .encode(&mut self.output)
                .map_err(|error| Some(error.to_string()))?;
        }
        if self.input.is_empty() {
            self.input = Vec::new();
        }
        Ok(())
    }
}
