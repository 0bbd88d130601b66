//! The serving process: one loop over descriptors, deadlines and children.
//!
//! Owns the process's surroundings (session, subreaper, signals) and the dispatch of what happens; what calls mean is in
//! [`crate::tasks`]. Ends when the containers are gone and it was shut down, or by SIGTERM; removes its socket then.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec, ioctl_fionbio};
use rustix::process::{Pid, Signal, WaitOptions, WaitStatus, getpid, set_child_subreaper, setsid, wait};
use rustix::stdio::{dup2_stdin, dup2_stdout, stdin};
use wharf_runtime::cgroup::Layout;

use crate::address;
use crate::connection::{Call, Connections};
use crate::flags::Flags;
use crate::log::Log;
use crate::publisher::Publisher;
use crate::reactor::{Alarm, Happening, Interest, Reactor, Token};
use crate::sandbox::Sandbox;
use crate::stdio::stream::{Change, Streams};
use crate::sys::{self, Signals};
use crate::tasks::{Container, Process};

/// Names the socket's path for the serving process.
pub const SOCKET_VARIABLE: &str = "WHARF_SHIM_SOCKET";

/// What the serving process says when it serves.
pub const READY: &str = "ready";

/// How long unpublished events, and logging programs that were asked to end, may delay the end.
const LINGER: Duration = Duration::from_secs(10);

/// Why the serving process ended early.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// It was not started by `start`.
    #[error("serve is run by start, with the socket as its standard input")]
    NotStarted,
    /// A step failed.
    #[error("{operation}: {source}")]
    System {
        /// The step.
        operation: &'static str,
        /// Why.
        source: io::Error,
    },
}

fn system<E: Into<io::Error>>(operation: &'static str) -> impl FnOnce(E) -> ServeError {
    move |source| ServeError::System {
        operation,
        source: source.into(),
    }
}

/// The state of a serving shim.
pub struct Shim {
    /// The namespace of all its containers.
    pub namespace: String,
    /// Where lines for people go.
    pub log: Log,
    /// What waits.
    pub reactor: Reactor,
    /// The clients.
    pub connections: Connections,
    /// The copying.
    pub streams: Streams,
    /// The events.
    pub publisher: Publisher,
    /// By container id.
    pub containers: BTreeMap<String, Container>,
    /// The pod that it serves, when a daemon made one of it.
    pub sandbox: Option<Sandbox>,
    /// By key.
    pub processes: BTreeMap<u32, Process>,
    /// The last key that was given out.
    pub last_key: u32,
    /// Processes that ended while a program was at work whose process they may be.
    pub early: BTreeMap<i32, WaitStatus>,
    /// The host's control groups as they were before the first container; later ones look again.
    pub layout: Option<Arc<Layout>>,
    /// Root file systems of deleted containers, which end with this.
    pub roots: Vec<OwnedFd>,
    /// Whether it was shut down.
    pub stopping: bool,
    signals: Signals,
    listener: UnixListener,
    socket: PathBuf,
    socket_is_left: bool,
    /// Whether a connection came with the shim's birth.
    is_forked: bool,
}

/// Serves until the end.
///
/// # Errors
///
/// The surroundings could not be set up, or the loop itself failed; the socket is removed.
pub fn serve(flags: &Flags) -> Result<(), ServeError> {
    // The runtime enters containers from this process.
    if let Err(error) = wharf_runtime::host_binary::protect() {
        tell(&error.to_string());
        return Err(ServeError::System {
            operation: "protect the shim's binary",
            source: io::Error::other(error),
        });
    }
    let socket = std::env::var_os(SOCKET_VARIABLE).filter(|path| !path.is_empty());
    let socket = PathBuf::from(socket.ok_or(ServeError::NotStarted)?);
    let listener = take_listener().inspect_err(|error| tell(&error.to_string()))?;
    let surroundings = Surroundings {
        listener,
        socket,
        client: None,
        layout: None,
    };
    surroundings.serve(flags, |set_up| match set_up {
        Ok(()) => {
            tell(READY);
            dup2_stdout(stdin()).is_ok()
        }
        Err(error) => {
            tell(&error);
            false
        }
    })
}

/// Says a word to the process that started this one; if that is gone, nobody misses it.
fn tell(word: &str) {
    let mut output = io::stdout();
    let _ = output.write_all(word.as_bytes()).and_then(|()| output.flush());
}

/// The socket that came as descriptor 0, which is replaced by nothing.
fn take_listener() -> Result<OwnedFd, ServeError> {
    // A pipe of the daemon's caller, held open here, would keep that caller waiting.
    sys::close_inherited().map_err(system("close inherited descriptors"))?;
    let listener: OwnedFd = fcntl_dupfd_cloexec(stdin(), 3).map_err(system("take the socket"))?;
    let null = open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty());
    dup2_stdin(null.map_err(system("open /dev/null"))?).map_err(system("replace standard input"))?;
    Ok(listener)
}

/// What a shim is given when it begins to serve. Its working directory is the bundle.
pub struct Surroundings {
    /// Listens at `socket`.
    pub listener: OwnedFd,
    /// The path that is removed at the end.
    pub socket: PathBuf,
    /// A first client.
    pub client: Option<OwnedFd>,
    /// The host's control groups, if they were read ahead.
    pub layout: Option<Arc<Layout>>,
}

impl Surroundings {
    /// Serves until the end; `told` hears before that whether everything is set up, and says whether to go on.
    ///
    /// # Errors
    ///
    /// The surroundings could not be set up, or the loop itself failed; the socket is removed.
    pub fn serve(
        self,
        flags: &Flags,
        told: impl FnOnce(Result<(), String>) -> bool,
    ) -> Result<(), ServeError> {
        let socket = self.socket.clone();
        let remove = |socket: &Path| {
            address::remove(socket)
                .map_err(io::Error::other)
                .map_err(system("remove the socket"))
        };
        let mut shim = match Shim::set_up(flags, self) {
            Ok(shim) => shim,
            Err(error) => {
                told(Err(error.to_string()));
                return remove(&socket).and(Err(error));
            }
        };
        let outcome = if told(Ok(())) { shim.run() } else { Ok(()) };
        // Once it was left, it may be another shim's.
        let removed = if shim.socket_is_left {
            Ok(())
        } else {
            remove(&socket)
        };
        outcome.and(removed)
    }
}

impl Shim {
    fn set_up(flags: &Flags, surroundings: Surroundings) -> Result<Shim, ServeError> {
        let Surroundings {
            listener,
            socket,
            client,
            layout,
        } = surroundings;
        setsid().map_err(system("start a session"))?;
        set_child_subreaper(Some(getpid())).map_err(system("become a subreaper"))?;
        rustix::thread::set_name(c"containerd-shim").map_err(system("set the process's name"))?;
        let signals =
            Signals::open(&[libc::SIGCHLD, libc::SIGTERM, libc::SIGINT]).map_err(system("open signals"))?;
        let listener = UnixListener::from(listener);
        listener
            .set_nonblocking(true)
            .map_err(system("make the socket non-blocking"))?;
        let reactor = Reactor::new().map_err(system("make an epoll"))?;
        reactor
            .add(&listener, Token::Listener, Interest::Read)
            .and_then(|()| reactor.add(signals.as_fd(), Token::Signals, Interest::Read))
            .map_err(system("watch the socket"))?;
        let mut connections = Connections::default();
        let is_forked = client.is_some();
        if let Some(client) = client {
            ioctl_fionbio(&client, true).map_err(system("make the connection non-blocking"))?;
            let added = connections.add(&reactor, client);
            added.map_err(system("watch the first client"))?;
        }
        let here = std::env::current_dir().map_err(system("find the bundle"))?;
        Ok(Shim {
            namespace: flags.namespace.clone(),
            log: Log::new(here.join("log"), flags.debug),
            reactor,
            connections,
            streams: Streams::default(),
            publisher: Publisher::new(
                std::env::var_os("TTRPC_ADDRESS").and_then(|address: OsString| address.into_string().ok()),
                flags.namespace.clone(),
            ),
            containers: BTreeMap::new(),
            sandbox: None,
            processes: BTreeMap::new(),
            last_key: 0,
            early: BTreeMap::new(),
            layout,
            roots: Vec::new(),
            stopping: false,
            signals,
            listener,
            socket,
            socket_is_left: false,
            is_forked,
        })
    }

    fn run(&mut self) -> Result<(), ServeError> {
        self.log.debug(&format!("serving on {}", self.socket.display()));
        let mut happenings = Vec::new();
        loop {
            self.reactor
                .wait(&mut happenings)
                .map_err(system("wait for events"))?;
            for happening in happenings.drain(..) {
                match happening {
                    Happening::Ready(Token::Signals) => {
                        if self.take_signals()? {
                            return Ok(());
                        }
                    }
                    Happening::Ready(token) => self.ready(token),
                    Happening::Due(Alarm::Exit) => return Ok(()),
                    Happening::Due(alarm) => self.due(alarm),
                }
            }
            self.publisher.drive(&mut self.reactor, &self.log);
            if let Some(error) = self.streams.take_trouble() {
                self.log.error(&format!("output was lost: {error}"));
            }
            if let Some(pause) = self.streams.reader_pause() {
                self.reactor.set_alarm(Alarm::Readers, pause);
            }
            if self.is_forked && self.is_unneeded() && self.connections.is_empty() {
                // Nobody else knows of it.
                self.leave_socket();
                self.stop();
            }
            if self.stopping && self.may_end() {
                return Ok(());
            }
        }
    }

    fn ready(&mut self, token: Token) {
        match token {
            Token::Listener => self
                .connections
                .accept(&mut self.reactor, &self.log, &self.listener),
            Token::Connection(id) => {
                let mut calls = Vec::new();
                let open = self.connections.ready(&self.reactor, &self.log, id, &mut calls);
                for Call { reply, request } in calls {
                    self.call(reply, &request);
                }
                if !open {
                    self.forget_client(id);
                }
            }
            Token::Publisher => self.publisher.ready(&mut self.reactor, &self.log),
            Token::Source(id) | Token::Sink(id) => {
                if let Change::Settled { owner } = self.streams.advance(&self.reactor, id) {
                    self.output_settled(owner);
                }
            }
            Token::Oom(key) => self.out_of_memory(key),
            Token::Signals => {}
        }
    }

    fn due(&mut self, alarm: Alarm) {
        match alarm {
            Alarm::Publish => self.publisher.due(&mut self.reactor, &self.log),
            Alarm::Drain(key) => self.drain_over(key),
            Alarm::Delete(key) => self.delete_overdue(key),
            Alarm::Readers => self.ask_readers(),
            Alarm::Logger(key) => {
                if let Some(logger) = self
                    .processes
                    .get(&key)
                    .and_then(|process| process.logger.as_ref())
                {
                    logger.signal(Signal::KILL);
                }
            }
            Alarm::Sandbox => self.end_sandbox(),
            Alarm::Accept => {
                if let Err(error) = self.reactor.add(&self.listener, Token::Listener, Interest::Read) {
                    self.log.error(&format!("watch the socket: {error}"));
                    self.reactor.set_alarm(Alarm::Accept, Duration::from_secs(1));
                }
            }
            Alarm::Roots => self.roots.clear(),
            Alarm::Exit => {}
        }
    }

    /// Handles pending signals; whether one of them ends the shim.
    fn take_signals(&mut self) -> Result<bool, ServeError> {
        while let Some(signal) = self.signals.next().map_err(system("read signals"))? {
            if signal != libc::SIGCHLD {
                return Ok(true);
            }
        }
        // One SIGCHLD may stand for many children.
        loop {
            match wait(WaitOptions::NOHANG) {
                Ok(Some((pid, status))) => self.reaped(pid, status),
                Ok(None) | Err(Errno::CHILD) => return Ok(false),
                Err(Errno::INTR) => {}
                Err(error) => return Err(system("reap children")(error)),
            }
        }
    }

    /// Whether there is nothing here that anybody could ask for.
    pub fn is_unneeded(&self) -> bool {
        self.containers.is_empty() && self.sandbox.is_none()
    }

    /// Whether this shim was forked for a daemon. Then it ends when it has neither containers nor connections.
    pub fn is_forked(&self) -> bool {
        self.is_forked
    }

    /// The shim was shut down: it ends when nothing is left to tell, or after a while.
    pub fn stop(&mut self) {
        if !self.stopping {
            self.stopping = true;
            self.reactor.set_alarm(Alarm::Exit, LINGER);
        }
    }

    /// Removes the socket, for nobody to connect any more; tried again at the end if that fails.
    pub fn leave_socket(&mut self) {
        if self.socket_is_left {
            return;
        }
        match address::remove(&self.socket) {
            Ok(()) => self.socket_is_left = true,
            Err(error) => self.log.warn(&error.to_string()),
        }
    }

    fn may_end(&self) -> bool {
        self.containers.is_empty()
            && self.publisher.is_idle()
            && self.connections.is_flushed()
            && self.processes.values().all(|process| process.logger.is_none())
    }

    /// A key for a new process.
    pub fn new_key(&mut self) -> u32 {
        self.last_key = self.last_key.wrapping_add(1);
        self.last_key
    }

    /// Whether `pid` is a program at work for a container.
    pub fn is_at_work(&self, pid: Pid) -> bool {
        self.containers.values().any(|container| container.works_on(pid))
    }
}
