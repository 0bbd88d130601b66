//! A connection to systemd: its own socket, or a message bus that it is on.
//!
//! Blocking, with a deadline for each wait; one call at a time. The way to systemd is the one of its own tools: root takes
//! the manager's private socket, where nothing else has to run, and else the system bus; without privileges it is the user's
//! manager and bus.
//!
//! Refused here: transports other than unix sockets, and authentication other than by the socket's credentials.

use std::collections::VecDeque;
use std::env;
use std::io::{self, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use super::message::{self, HEAD_BYTES, Incoming, Method};
use super::value::Value;
use crate::cgroup::Error;

/// How long systemd may take for an answer, or for a job.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// A socket whose queue is full refuses for a moment.
const CONNECT_ROUNDS: u32 = 7;
/// The longest line of the handshake.
const MAX_LINE: usize = 1024;
/// Signals that nobody has asked for yet are kept, but not without end.
const MAX_SIGNALS: usize = 4096;

const PRIVATE: &str = "/run/systemd/private";
const SYSTEM_BUS: &str = "unix:path=/run/dbus/system_bus_socket";

/// An open connection.
#[derive(Debug)]
pub(super) struct Bus {
    stream: UnixStream,
    serial: u32,
    /// That came while something else was waited for.
    signals: VecDeque<(String, Vec<u8>)>,
}

/// A call that failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The peer refused it.
    Refused { name: String, text: String },
    /// The connection broke, or the time ran out.
    Broken(io::Error),
}

impl Failure {
    pub fn is(&self, error: &str) -> bool {
        matches!(self, Self::Refused { name, .. } if name == error)
    }

    /// As an error of this module, about `what`.
    pub fn about(self, what: &str) -> Error {
        let problem = match self {
            Self::Refused { name, text } => format!("{text} ({name})"),
            Self::Broken(error) => error.to_string(),
        };
        Error::Systemd(format!("{what}: {problem}"))
    }
}

impl Bus {
    /// Connects to the system's manager, or with `user` to the user's.
    pub fn connect(user: bool) -> Result<Self, Error> {
        let mut problems = Vec::new();
        for (address, is_bus) in addresses(user) {
            match Self::open(&address, is_bus) {
                Ok(bus) => return Ok(bus),
                Err(problem) => problems.push(format!("{address}: {problem}")),
            }
        }
        if problems.is_empty() {
            problems.push("neither DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR is set".to_owned());
        }
        let hint = if user {
            " (is there a session of the user's, with dbus-user-session?)"
        } else {
            ""
        };
        let problems = problems.join("; ");
        Err(Error::Systemd(format!(
            "failed to connect to dbus{hint}: {problems}"
        )))
    }

    fn open(address: &str, is_bus: bool) -> Result<Self, String> {
        let mut problem = "no unix socket in the address".to_owned();
        // Alternatives are separated by semicolons.
        for socket in address.split(';').filter_map(socket_of) {
            match connect(&socket).and_then(|stream| Self::greet(stream, is_bus)) {
                Ok(bus) => return Ok(bus),
                Err(error) => problem = error.to_string(),
            }
        }
        Err(problem)
    }

    fn greet(mut stream: UnixStream, is_bus: bool) -> io::Result<Self> {
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_read_timeout(Some(PATIENCE))?;
        authenticate(&mut stream)?;
        let mut bus = Self {
            stream,
            serial: 0,
            signals: VecDeque::new(),
        };
        if is_bus {
            bus.enter().map_err(|failure| match failure {
                Failure::Broken(error) => error,
                Failure::Refused { name, text } => io::Error::other(format!("{text} ({name})")),
            })?;
        }
        Ok(bus)
    }

    /// A bus gives each peer a name, and passes on only the signals that were asked for.
    fn enter(&mut self) -> Result<(), Failure> {
        let driver = |member| Method {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member,
        };
        self.call(&driver("Hello"), &[])?;
        let rule = "type='signal',sender='org.freedesktop.systemd1',\
                    interface='org.freedesktop.systemd1.Manager',member='JobRemoved'";
        self.call(&driver("AddMatch"), &[Value::text(rule)])?;
        self.call(&super::manager("Subscribe"), &[])?;
        Ok(())
    }

    /// Calls a method and waits for its answer's body.
    pub fn call(&mut self, method: &Method<'_>, arguments: &[Value]) -> Result<Vec<u8>, Failure> {
        self.serial += 1;
        let bytes = message::call(self.serial, method, arguments);
        if bytes.len() > message::MAX_BYTES {
            return Err(Failure::Broken(io::ErrorKind::FileTooLarge.into()));
        }
        self.stream.write_all(&bytes).map_err(Failure::Broken)?;
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.receive(deadline).map_err(Failure::Broken)? {
                Incoming::Return { serial, body } if serial == self.serial => return Ok(body),
                Incoming::Error { serial, name, text } if serial == self.serial => {
                    return Err(Failure::Refused { name, text });
                }
                Incoming::Signal { member, body } if self.signals.len() < MAX_SIGNALS => {
                    self.signals.push_back((member, body));
                }
                _ => {}
            }
        }
    }

    /// The next signal, which may have come already; blocks until `deadline`.
    pub fn signal(&mut self, deadline: Instant) -> io::Result<(String, Vec<u8>)> {
        if let Some(signal) = self.signals.pop_front() {
            return Ok(signal);
        }
        loop {
            if let Incoming::Signal { member, body } = self.receive(deadline)? {
                return Ok((member, body));
            }
        }
    }

    fn receive(&mut self, deadline: Instant) -> io::Result<Incoming> {
        let invalid = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "a message that breaks the D-Bus rules",
            )
        };
        let mut head = [0; HEAD_BYTES];
        self.read(&mut head, deadline)?;
        let total = message::total_bytes(&head).ok_or_else(invalid)?;
        let mut bytes = vec![0; total];
        bytes[..HEAD_BYTES].copy_from_slice(&head);
        self.read(&mut bytes[HEAD_BYTES..], deadline)?;
        message::parse(&bytes).ok_or_else(invalid)
    }

    fn read(&mut self, mut into: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !into.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(io::ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(into) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(count) => into = &mut into[count..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// Where a manager may be reached, and whether that is a bus, in the order to try.
fn addresses(user: bool) -> Vec<(String, bool)> {
    let set = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    let socket = |path: PathBuf| format!("unix:path={}", escape(&path));
    if !user {
        let bus = set("DBUS_SYSTEM_BUS_ADDRESS").unwrap_or_else(|| SYSTEM_BUS.to_owned());
        return vec![(socket(PRIVATE.into()), false), (bus, true)];
    }
    let runtime = set("XDG_RUNTIME_DIR").map(PathBuf::from);
    let private = runtime
        .as_ref()
        .map(|directory| (socket(directory.join("systemd/private")), false));
    let session =
        set("DBUS_SESSION_BUS_ADDRESS").or_else(|| runtime.map(|directory| socket(directory.join("bus"))));
    // A session's own address was chosen by the user; the private socket is the way without a bus.
    session
        .map(|address| (address, true))
        .into_iter()
        .chain(private)
        .collect()
}

/// What may not stand in an address as it is.
fn escape(path: &Path) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_/.\\*".contains(byte);
    path.as_os_str()
        .as_encoded_bytes()
        .iter()
        .map(|byte| {
            if plain(byte) {
                char::from(*byte).to_string()
            } else {
                format!("%{byte:02x}")
            }
        })
        .collect()
}

/// A place to connect to.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Socket {
    Path(Vec<u8>),
    Abstract(Vec<u8>),
}

/// The unix socket of one address, `unix:path=/run/x,guid=…`.
fn socket_of(address: &str) -> Option<Socket> {
    let keys = address.strip_prefix("unix:")?;
    keys.split(',').find_map(|pair| match pair.split_once('=')? {
        ("path", value) => Some(Socket::Path(unescape(value)?)),
        ("abstract", value) => Some(Socket::Abstract(unescape(value)?)),
        _ => None,
    })
}

fn unescape(value: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value.as_bytes().iter();
    while let Some(byte) = rest.next() {
        if *byte != b'%' {
            bytes.push(*byte);
            continue;
        }
        let digits = [*rest.next()?, *rest.next()?];
        bytes.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
    }
    Some(bytes)
}

fn connect(socket: &Socket) -> io::Result<UnixStream> {
    let address = match socket {
        Socket::Path(path) => {
            use std::os::unix::ffi::OsStrExt;
            SocketAddr::from_pathname(std::ffi::OsStr::from_bytes(path))?
        }
        Socket::Abstract(name) => SocketAddr::from_abstract_name(name)?,
    };
    let mut pause = Duration::from_millis(100);
    for _ in 1..CONNECT_ROUNDS {
        match UnixStream::connect_addr(&address) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(pause),
            result => return result,
        }
        pause *= 2;
    }
    UnixStream::connect_addr(&address)
}

/// The handshake: the other side asks the kernel who is calling, so the identity is left empty (which is also right inside
/// a user namespace, whose ids the other side does not know).
///
/// All in one packet: systemd does not look for a message behind a `BEGIN` that it finds in its buffer together with it, so what
/// follows must not be sent before the answer is here.
fn authenticate(stream: &mut UnixStream) -> io::Result<()> {
    stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n")?;
    let mut line = read_line(stream)?;
    if line.starts_with("DATA") {
        line = read_line(stream)?;
    }
    if !line.starts_with("OK ") {
        let problem = format!("the identity was not accepted: {line:?}");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, problem));
    }
    Ok(())
}

/// Byte by byte: what follows the line is not this function's.
fn read_line(stream: &mut UnixStream) -> io::Result<String> {
    let mut line = Vec::new();
    while !line.ends_with(b"\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        line.push(byte[0]);
        if line.len() > MAX_LINE {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "too long a line in the handshake",
            ));
        }
    }
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_the_specification_writes_them() {
        assert_eq!(
            socket_of("unix:path=/run/user/1000/bus,guid=0a"),
            Some(Socket::Path(b"/run/user/1000/bus".to_vec()))
        );
        assert_eq!(
            socket_of("unix:guid=1,path=/a%20b"),
            Some(Socket::Path(b"/a b".to_vec()))
        );
        assert_eq!(
            socket_of("unix:abstract=/tmp/dbus-x"),
            Some(Socket::Abstract(b"/tmp/dbus-x".to_vec()))
        );
        for bad in ["tcp:host=x", "unix:tmpdir=/x", "unix:path=/a%2", "unix:path=%zz"] {
            assert_eq!(socket_of(bad), None, "{bad}");
        }
        assert_eq!(escape(Path::new("/run/user/a b")), "/run/user/a%20b");
    }

    /// Whether a peer that answers so is believed.
    fn shake(reply: &str) -> io::Result<()> {
        let (mut ours, mut theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(Duration::from_secs(5)))?;
        theirs.write_all(reply.as_bytes())?;
        let result = authenticate(&mut ours);
        let mut said = [0; 64];
        let length = theirs.read(&mut said)?;
        assert_eq!(&said[..length], b"\0AUTH EXTERNAL\r\nDATA\r\nBEGIN\r\n");
        result
    }

    #[test]
    fn the_kernel_tells_who_is_calling() {
        shake("DATA\r\nOK 0123\r\n").unwrap();
        shake("OK 0123\r\n").unwrap();
        assert!(shake("DATA\r\nREJECTED EXTERNAL\r\n").is_err());
        assert!(shake("REJECTED ANONYMOUS\r\n").is_err());
    }

    #[test]
    fn a_peer_that_says_nothing_or_nonsense_is_given_up() {
        let broken = |bytes: &'static [u8]| {
            let (ours, mut theirs) = UnixStream::pair().unwrap();
            theirs.write_all(bytes).unwrap();
            let mut bus = Bus {
                stream: ours,
                serial: 0,
                signals: VecDeque::new(),
            };
            bus.signal(Instant::now() + Duration::from_millis(50))
                .unwrap_err()
                .kind()
        };
        assert_eq!(broken(b""), io::ErrorKind::TimedOut);
        assert_eq!(broken(&[b'x'; 16]), io::ErrorKind::InvalidData);
        assert_eq!(
            broken(&[b'l', 4, 0, 1, 255, 255, 255, 255, 0, 0, 0, 0, 0, 0, 0, 0]),
            io::ErrorKind::InvalidData
        );
    }
}
