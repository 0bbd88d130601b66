//! What the daemon listens on: the API's unix socket, and TCP with mutual TLS when asked for.
//!
//! TCP is never served without a certificate of the daemon's own and a client's that one named authority has signed:
//! whoever reaches the API is root on this machine.

use std::{
    fs,
    io::{self, ErrorKind},
    net::{SocketAddr, TcpListener as StdTcpListener},
    os::{
        fd::{AsFd as _, OwnedFd},
        unix::{fs::PermissionsExt as _, net::UnixListener as StdUnixListener},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use futures_util::Stream;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tonic::transport::{Certificate, Identity, ServerTlsConfig};

use crate::{
    config::{Grpc, Tcp},
    error::{Error, Result},
    server,
    socket::Socket,
    upgrade::Sockets,
};

/// How long a TLS handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// How long nothing is accepted after that failed: out of file descriptors, say.
const PAUSE: Duration = Duration::from_millis(100);

/// One listening socket.
#[derive(Debug)]
pub struct Listener {
    /// What it listens on, as [`Sockets`] names it.
    name: String,
    socket: Bound,
}

#[derive(Debug)]
enum Bound {
    Unix(StdUnixListener),
    Tcp(StdTcpListener, Box<ServerTlsConfig>),
}

/// Everything the API is served on.
#[derive(Debug, Default)]
pub struct Listeners(Vec<Listener>);

/// The name of a unix socket.
fn unix_name(path: &Path) -> String {
    format!("unix:{}", path.display())
}

/// The name of a TCP socket.
pub fn tcp_name(address: SocketAddr) -> String {
    format!("tcp:{address}")
}

/// The names of sockets that came without: what they are bound to. Others are closed.
pub fn named(sockets: Vec<OwnedFd>) -> Sockets {
    let mut named = Sockets::new();
    for socket in sockets {
        let Ok(address) = rustix::net::getsockname(&socket) else {
            continue;
        };
        if let Ok(address) = rustix::net::SocketAddrUnix::try_from(address.clone()) {
            if let Some(path) = address.path() {
                named.insert(format!("unix:{}", final_path(&path.to_string_lossy())), socket);
            }
        } else if let Ok(address) = SocketAddr::try_from(address) {
            named.insert(tcp_name(address), socket);
        }
    }
    named
}

/// The path that a socket was given once its mode was set: [`unix`] binds it under another, with the process's id.
fn final_path(bound: &str) -> &str {
    match bound.rsplit_once('.') {
        Some((path, pid)) if !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()) => path,
        _ => bound,
    }
}

impl Listeners {
    /// Listens on `address` and on what `grpc` asks for; sockets in `inherited` are used where they fit, and taken out.
    /// Blocks.
    ///
    /// # Errors
    ///
    /// `Unavailable`: somebody serves it. `InvalidArgument`: a certificate that is none. `Unknown`: a socket cannot be
    /// made.
    pub fn bind(address: &Path, grpc: &Grpc, inherited: &mut Sockets) -> Result<Self> {
        let mut listeners = Vec::new();
        // First, because it is refused more often.
        if let Some(tcp) = &grpc.tcp {
            let socket = self::tcp(tcp.address, inherited)?;
            listeners.push(Listener {
                name: tcp_name(tcp.address),
                socket: Bound::Tcp(socket, Box::new(tls(tcp)?)),
            });
        }
        let name = unix_name(address);
        let kept = inherited
            .remove(&name)
            // Its file may have been removed since.
            .filter(|_| std::os::unix::net::UnixStream::connect(address).is_ok());
        let socket = match kept {
            Some(socket) => {
                permit(address, grpc)?;
                StdUnixListener::from(socket)
            }
            None => unix(address, grpc)?,
        };
        listeners.push(Listener {
            name,
            socket: Bound::Unix(socket),
        });
        Ok(Self(listeners))
    }

    /// Further handles of all sockets: while one is open, clients can connect, and wait to be served.
    ///
    /// # Errors
    ///
    /// `Unknown`: too many open files.
    pub fn handles(&self) -> Result<Sockets> {
        self.0
            .iter()
            .map(|listener| {
                let fd = match &listener.socket {
                    Bound::Unix(socket) => socket.as_fd(),
                    Bound::Tcp(socket, _) => socket.as_fd(),
                };
                let handle = fd
                    .try_clone_to_owned()
                    .map_err(|error| Error::io("duplicate a socket", error))?;
                Ok((listener.name.clone(), handle))
            })
            .collect()
    }

    /// The unix sockets and the TCP sockets, for the async runtime this is called in.
    ///
    /// # Errors
    ///
    /// `Unknown`: the runtime cannot watch them.
    pub fn into_async(self) -> Result<Vec<Incoming>> {
        let failed = |error| Error::io("watch a listening socket", error);
        self.0
            .into_iter()
            .map(|listener| {
                Ok(match listener.socket {
                    Bound::Unix(socket) => {
                        socket.set_nonblocking(true).map_err(failed)?;
                        Incoming::Unix(UnixListener::from_std(socket).map_err(failed)?)
                    }
                    Bound::Tcp(socket, tls) => {
                        socket.set_nonblocking(true).map_err(failed)?;
                        Incoming::Tcp(TcpListener::from_std(socket).map_err(failed)?, tls)
                    }
                })
            })
            .collect()
    }
}

/// A listening socket in the async runtime.
pub enum Incoming {
    /// The local API.
    Unix(UnixListener),
    /// The API for clients with a certificate.
    Tcp(TcpListener, Box<ServerTlsConfig>),
}

/// The connections of a unix socket; of the users `uids` only, if there are any. Never ends.
pub fn unix_connections(
    listener: UnixListener,
    uids: Vec<u32>,
) -> impl Stream<Item = io::Result<Socket>> + Send + Unpin {
    let connections = futures_util::stream::unfold((listener, uids), |(listener, uids)| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) if is_welcome(&stream, &uids) => match Socket::new(stream) {
                    Ok(socket) => return Some((Ok(socket), (listener, uids))),
                    Err(error) => pause(&error).await,
                },
                Ok(_) => {}
                Err(error) => pause(&error).await,
            }
        }
    });
    Box::pin(connections)
}

/// The connections of a TCP socket. Never ends.
pub fn tcp_connections(listener: TcpListener) -> impl Stream<Item = io::Result<TcpStream>> + Send + Unpin {
    let connections = futures_util::stream::unfold(listener, |listener| async {
        loop {
            match listener.accept().await {
                Ok((stream, _)) => {
                    // Calls are small and wait for their answers.
                    if let Err(error) = stream.set_nodelay(true) {
                        tracing::debug!(%error, "TCP_NODELAY");
                    }
                    return Some((Ok(stream), listener));
                }
                Err(error) => pause(&error).await,
            }
        }
    });
    Box::pin(connections)
}

fn is_welcome(stream: &UnixStream, uids: &[u32]) -> bool {
    if uids.is_empty() {
        return true;
    }
    match stream.peer_cred() {
        Ok(peer) if uids.contains(&peer.uid()) => true,
        Ok(peer) => {
            tracing::warn!(
                uid = peer.uid(),
                "connection of a user that is not in peer_uids closed"
            );
            false
        }
        Err(error) => {
            tracing::warn!(%error, "connection of an unknown user closed");
            false
        }
    }
}

async fn pause(error: &io::Error) {
    tracing::warn!(%error, "accept");
    tokio::time::sleep(PAUSE).await;
}

/// Listens on a TCP address, with the socket in `inherited` if it is there, which is taken out. Blocks.
///
/// # Errors
///
/// `Unknown`: the address is in use, or not this machine's.
pub fn tcp(address: SocketAddr, inherited: &mut Sockets) -> Result<StdTcpListener> {
    match inherited.remove(&tcp_name(address)) {
        Some(socket) => Ok(StdTcpListener::from(socket)),
        None => {
            StdTcpListener::bind(address).map_err(|error| Error::io(format!("listen on {address}"), error))
        }
    }
}

/// Listens on a unix socket with the mode and the owner that `grpc` wants. A socket file that nobody listens on is
/// replaced. Blocks.
///
/// # Errors
///
/// `Unavailable` when somebody listens on it; `Unknown` when it cannot be made.
pub fn unix(address: &Path, grpc: &Grpc) -> Result<StdUnixListener> {
    if let Some(parent) = address.parent().filter(|parent| !parent.as_os_str().is_empty()) {
        server::directory(parent, 0o711)?;
    }
    match std::os::unix::net::UnixStream::connect(address) {
        Ok(_) => {
            return Err(Error::unavailable(format!(
                "listen on {}: somebody serves it",
                address.display()
            )));
        }
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(address)
            .map_err(|source| Error::io(format!("remove stale socket {}", address.display()), source))?,
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        Err(source) => return Err(Error::io(format!("probe socket {}", address.display()), source)),
    }
    // Bound under another name, so that nobody can connect before the mode is set.
    let mut name = address.as_os_str().to_owned();
    name.push(format!(".{}", std::process::id()));
    let temporary = PathBuf::from(name);
    let failed = |source| Error::io(format!("listen on {}", address.display()), source);
    let listener = StdUnixListener::bind(&temporary).map_err(failed)?;
    permit(&temporary, grpc)?;
    fs::rename(&temporary, address).map_err(failed)?;
    Ok(listener)
}

/// Gives the socket its owner and then its mode: never to the wrong group, not for a moment.
fn permit(path: &Path, grpc: &Grpc) -> Result<()> {
    std::os::unix::fs::chown(path, Some(grpc.uid), Some(grpc.gid)).map_err(|error| {
        Error::io(
            format!("give {} to {}:{}", path.display(), grpc.uid, grpc.gid),
            error,
        )
    })?;
    fs::set_permissions(path, fs::Permissions::from_mode(grpc.mode))
        .map_err(|error| Error::io(format!("set the mode of {}", path.display()), error))
}

/// Checks what can be checked without listening. Blocks.
///
/// # Errors
///
/// `InvalidArgument`: a certificate that is none. `Unknown`: a file cannot be read.
pub fn check(grpc: &Grpc) -> Result<()> {
    grpc.tcp.as_ref().map_or(Ok(()), |tcp| tls(tcp).map(drop))
}

/// Mutual TLS with the files that `tcp` names. Blocks.
fn tls(tcp: &Tcp) -> Result<ServerTlsConfig> {
    let read =
        |path: &Path| fs::read(path).map_err(|error| Error::io(format!("read {}", path.display()), error));
    let config = ServerTlsConfig::new()
        .identity(Identity::from_pem(read(&tcp.certificate)?, read(&tcp.key)?))
        .client_ca_root(Certificate::from_pem(read(&tcp.authority)?))
        .timeout(HANDSHAKE);
    // tonic reads the files when it is given the configuration: a bad one is found here, and not once READY was told.
    tonic::transport::Server::builder()
        .tls_config(config.clone())
        .map_err(|error| {
            Error::invalid(format!(
                "grpc: tcp_tls_cert {}, tcp_tls_key {}, tcp_tls_ca {}",
                tcp.certificate.display(),
                tcp.key.display(),
                tcp.authority.display()
            ))
            .caused_by(error)
        })?;
    Ok(config)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_has_its_mode_and_a_stale_one_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("run/s.sock");
        let grpc = Grpc {
            mode: 0o600,
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            ..Grpc::default()
        };
        let first = unix(&address, &grpc).unwrap();
        assert_eq!(
            fs::metadata(&address).unwrap().permissions().mode() & 0o777,
            0o600
        );
        let refused = unix(&address, &grpc).unwrap_err();
        assert_eq!(refused.kind(), crate::error::Kind::Unavailable);
        drop(first);
        let second = unix(&address, &grpc).unwrap();
        // What somebody else kept is known by what it is bound to.
        let kept: Vec<_> = named(vec![second.into()]).into_keys().collect();
        assert_eq!(kept, [unix_name(&address)]);
    }

    #[test]
    fn sockets_are_used_again_by_their_names() {
        let directory = tempfile::tempdir().unwrap();
        let address = directory.path().join("s.sock");
        let grpc = Grpc {
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
            ..Grpc::default()
        };
        let bound = Listeners::bind(&address, &grpc, &mut Sockets::new()).unwrap();
        let mut handles = bound.handles().unwrap();
        drop(bound);
        let waiting = std::os::unix::net::UnixStream::connect(&address).unwrap();
        let again = Listeners::bind(&address, &grpc, &mut handles).unwrap();
        assert!(handles.is_empty());
        let Bound::Unix(socket) = &again.0[0].socket else {
            panic!("a unix socket");
        };
        // Whoever connected in between is served.
        socket.accept().unwrap();
        drop(waiting);
        // A socket whose file is gone is of no use.
        let mut handles = again.handles().unwrap();
        drop(again);
        fs::remove_file(&address).unwrap();
        let fresh = Listeners::bind(&address, &grpc, &mut handles).unwrap();
        assert!(address.exists());
        drop(fresh);
    }
}
