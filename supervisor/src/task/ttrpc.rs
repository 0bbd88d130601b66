//! A ttrpc client over one unix socket.
//!
//! Calls are multiplexed by stream id: any number may be under way, each with its own timeout, and a response finds its
//! caller whatever order the server answers in. When the connection ends, for whatever reason, every pending call fails
//! with [`CallError::Closed`] and [`Client::closed`] completes; a client never reconnects, since only its owner can tell
//! whether who answers at that address later is still the same server.
//!
//! Who calls writes his request himself; only what the socket does not take at once is left to a task.
//!
//! Refused: streaming calls, addresses outside the file system, servers that run as another user.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use prost::Message;
use tokio::io::{AsyncRead, AsyncReadExt as _};
use tokio::net::UnixStream;
use tokio::sync::{Notify, oneshot};
use tokio_util::sync::CancellationToken;
use wharf_proto::ttrpc::{Frame, FrameError, Kind, Request, Response};

use crate::socket::Socket;

/// How many bytes may wait for a server which does not read. Who comes after those waits himself.
const UNSENT: usize = 256 << 10;

/// Why a client could not connect.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Nobody listens there, or the socket cannot be reached.
    #[error("connect to {path}: {source}")]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The server's user is not ours: whoever can make a socket in our directory could pose as a shim.
    #[error("connect to {path}: the server runs as uid {uid}")]
    Peer {
        /// The socket.
        path: PathBuf,
        /// Who listens there.
        uid: u32,
    },
    /// The kernel did not answer in time: the server's backlog is full, it does not accept.
    #[error("connect to {path}: timed out after {timeout:?}")]
    TimedOut {
        /// The socket.
        path: PathBuf,
        /// How long was waited.
        timeout: Duration,
    },
}

impl ConnectError {
    /// Whether this proves that no server is there, as opposed to one that is slow or not ours.
    pub fn nobody_listens(&self) -> bool {
        let ConnectError::Connect { source, .. } = self else {
            return false;
        };
        matches!(
            source.kind(),
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
        )
    }
}

/// Why a call brought no response.
#[derive(Clone, Debug, thiserror::Error)]
pub enum CallError {
    /// The server answered with an error.
    #[error("{message}")]
    Status {
        /// A gRPC code.
        code: i32,
        /// The server's text.
        message: String,
    },
    /// The connection ended before the response came. Whether the server acted is unknown.
    #[error("ttrpc: closed")]
    Closed,
    /// No response within the call's timeout. Whether the server acts still is unknown.
    #[error("{method}: no answer within {timeout:?}")]
    TimedOut {
        /// The method that was called.
        method: &'static str,
        /// How long was waited.
        timeout: Duration,
    },
    /// The request does not fit a frame; nothing was sent.
    #[error("{method}: {source}")]
    Request {
        /// The method that was called.
        method: &'static str,
        /// Which limit it broke.
        source: Arc<FrameError>,
    },
    /// The response is not the message that the method returns.
    #[error("{method}: malformed response: {source}")]
    Response {
        /// The method that was called.
        method: &'static str,
        /// What is wrong with it.
        source: prost::DecodeError,
    },
}

impl CallError {
    /// The gRPC code that tells a caller of ours about this error.
    pub fn code(&self) -> i32 {
        match self {
            CallError::Status { code, .. } => *code,
            CallError::Closed => tonic::Code::Unavailable as i32,
            CallError::TimedOut { .. } => tonic::Code::DeadlineExceeded as i32,
            CallError::Request { .. } => tonic::Code::ResourceExhausted as i32,
            CallError::Response { .. } => tonic::Code::Internal as i32,
        }
    }
}

/// One connection. Dropping the last handle closes it.
#[derive(Debug)]
pub struct Client {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    socket: Socket,
    calls: Mutex<Calls>,
    /// Told when less than [`UNSENT`] bytes wait, and when the connection has ended.
    room: Notify,
    closed: CancellationToken,
}

#[derive(Debug)]
struct Calls {
    /// The stream id of the next call: odd and rising, as the protocol demands.
    next: u32,
    pending: HashMap<u32, oneshot::Sender<Response>>,
    /// What the socket did not take yet. While there is any, a task waits to send it.
    unsent: Vec<u8>,
}

impl Shared {
    fn calls(&self) -> std::sync::MutexGuard<'_, Calls> {
        // The map stays consistent at every step, so a panicked holder spoils nothing.
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn close(&self) {
        if self.closed.is_cancelled() {
            return;
        }
        self.closed.cancel();
        // The server hears of it although somebody may hold on to this. It fails only where there is no connection any more.
        if let Err(error) = self.socket.shut_down() {
            tracing::trace!(%error, "ttrpc connection was shut down before");
        }
        // Dropping the senders wakes their callers with `Closed`.
        self.calls().pending.clear();
        self.room.notify_waiters();
    }

    /// Sends `frame`, or leaves what the socket does not take to a task; says whether one is needed for that.
    fn send(&self, calls: &mut Calls, frame: &[u8]) -> io::Result<bool> {
        if !calls.unsent.is_empty() {
            calls.unsent.extend_from_slice(frame);
            return Ok(false);
        }
        let sent = match self.socket.try_write(frame) {
            Ok(sent) => sent,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
            Err(error) => return Err(error),
        };
        calls.unsent.extend_from_slice(&frame[sent..]);
        Ok(sent < frame.len())
    }

    /// Waits until less than [`UNSENT`] bytes wait, or the connection has ended.
    async fn room(&self) {
        loop {
            let room = self.room.notified();
            tokio::pin!(room);
            // Registered before the look, so that none is missed in between.
            room.as_mut().enable();
            if self.calls().unsent.len() < UNSENT || self.closed.is_cancelled() {
                return;
            }
            room.await;
        }
    }
}

impl Client {
    /// Connects to the unix socket at `path`, waiting at most `timeout`.
    ///
    /// # Errors
    ///
    /// Nobody listens, the time is up, or the server runs as another user than this process.
    pub async fn connect(path: &Path, timeout: Duration) -> Result<Client, ConnectError> {
        let connecting = tokio::time::timeout(timeout, UnixStream::connect(path));
        let failed = |source| ConnectError::Connect {
            path: path.to_owned(),
            source,
        };
        let stream = connecting
            .await
            .map_err(|_| ConnectError::TimedOut {
                path: path.to_owned(),
                timeout,
            })?
            .map_err(failed)?;
        let uid = stream.peer_cred().map_err(failed)?.uid();
        if uid != rustix::process::geteuid().as_raw() {
            return Err(ConnectError::Peer {
                path: path.to_owned(),
                uid,
            });
        }
        Client::over(stream).map_err(failed)
    }

    /// A client on a connected stream.
    ///
    /// # Errors
    ///
    /// The stream cannot be watched.
    pub fn over(stream: UnixStream) -> io::Result<Client> {
        let shared = Arc::new(Shared {
            socket: Socket::new(stream)?,
            calls: Mutex::new(Calls {
                next: 1,
                pending: HashMap::new(),
                unsent: Vec::new(),
            }),
            room: Notify::new(),
            closed: CancellationToken::new(),
        });
        tokio::spawn(receive(Arc::clone(&shared)));
        Ok(Client { shared })
    }

    /// Completes when the connection has ended.
    pub async fn closed(&self) {
        self.shared.closed.cancelled().await;
    }

    /// Cancelled when the connection has ended; does not keep it open.
    pub fn on_closed(&self) -> CancellationToken {
        self.shared.closed.child_token()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.shared.closed.is_cancelled()
    }

    /// Ends the connection; pending calls fail.
    pub fn close(&self) {
        self.shared.close();
    }

    /// Calls `service/method`. Without a `timeout` the call waits as long as the connection lives.
    ///
    /// The future may be dropped at any point: the request is then sent whole or not at all, and its response ignored.
    ///
    /// # Errors
    ///
    /// The server's own error as [`CallError::Status`], else why there is no response.
    pub async fn call<Q: Message, R: Message + Default>(
        &self,
        service: &str,
        method: &'static str,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<R, CallError> {
        let Some(timeout) = timeout else {
            return self.exchange(service, method, request, 0).await;
        };
        let nanos = i64::try_from(timeout.as_nanos()).unwrap_or(i64::MAX);
        tokio::time::timeout(timeout, self.exchange(service, method, request, nanos))
            .await
            .map_err(|_| CallError::TimedOut { method, timeout })?
    }

    async fn exchange<Q: Message, R: Message + Default>(
        &self,
        service: &str,
        method: &'static str,
        request: &Q,
        timeout_nano: i64,
    ) -> Result<R, CallError> {
        let request = Request {
            service: service.to_owned(),
            method: method.to_owned(),
            payload: request.encode_to_vec(),
            timeout_nano,
            metadata: Vec::new(),
        };
        let mut frame = Frame::new(Kind::Request, 0, &request);
        self.shared.room().await;
        let (stream, response) = {
            // Ids must reach the wire in rising order, so the frame is sent under the same lock that numbers it.
            let mut calls = self.shared.calls();
            if self.is_closed() {
                return Err(CallError::Closed);
            }
            let stream = calls.next;
            let Some(next) = stream.checked_add(2) else {
                drop(calls);
                // The protocol forbids reusing an id: a connection is good for 2^31 calls.
                self.close();
                return Err(CallError::Closed);
            };
            frame.stream = stream;
            let mut bytes = Vec::new();
            frame.encode(&mut bytes).map_err(|source| CallError::Request {
                method,
                source: Arc::new(source),
            })?;
            calls.next = next;
            let (sender, response) = oneshot::channel();
            match self.shared.send(&mut calls, &bytes) {
                Ok(false) => {}
                Ok(true) => drop(tokio::spawn(send_later(Arc::clone(&self.shared)))),
                Err(error) => {
                    drop(calls);
                    tracing::debug!(%error, "ttrpc connection lost while writing");
                    self.close();
                    return Err(CallError::Closed);
                }
            }
            calls.pending.insert(stream, sender);
            (stream, response)
        };
        let _forget = Forget {
            shared: &self.shared,
            stream,
        };
        let response = response.await.map_err(|_| CallError::Closed)?;
        if let Some(status) = response.status.filter(|status| status.code != 0) {
            return Err(CallError::Status {
                code: status.code,
                message: status.message,
            });
        }
        R::decode(response.payload.as_slice()).map_err(|source| CallError::Response { method, source })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// Takes a call out of the table when its caller has gone.
struct Forget<'a> {
    shared: &'a Shared,
    stream: u32,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.shared.calls().pending.remove(&self.stream);
    }
}

/// Sends what the socket did not take at once.
async fn send_later(shared: Arc<Shared>) {
    let writing = async {
        let room = shared.socket.room()?;
        loop {
            room.write(|| {
                let mut calls = shared.calls();
                let sent = shared.socket.try_write(&calls.unsent)?;
                calls.unsent.drain(..sent);
                Ok(sent)
            })
            .await?;
            let mut calls = shared.calls();
            if calls.unsent.len() < UNSENT {
                shared.room.notify_waiters();
            }
            if calls.unsent.is_empty() {
                // A burst may have made it large.
                calls.unsent = Vec::new();
                return io::Result::Ok(());
            }
        }
    };
    tokio::select! {
        result = writing => {
            if let Err(error) = result {
                tracing::debug!(%error, "ttrpc connection lost while writing");
                shared.close();
            }
        }
        () = shared.closed.cancelled() => {}
    }
}

async fn receive(shared: Arc<Shared>) {
    tokio::select! {
        result = dispatch(&shared) => {
            if let Err(error) = result {
                tracing::debug!(%error, "ttrpc connection lost while reading");
            }
        }
        () = shared.closed.cancelled() => {}
    }
    shared.close();
}

async fn dispatch(shared: &Shared) -> io::Result<()> {
    let mut read = &shared.socket;
    let mut buffer = Vec::new();
    while let Some(frame) = next_frame(&mut read, &mut buffer).await? {
        if frame.kind != Kind::Response {
            // No call of ours opens a stream, so this belongs to none.
            continue;
        }
        let response = Response::decode(frame.payload.as_slice()).map_err(io::Error::other)?;
        if let Some(caller) = shared.calls().pending.remove(&frame.stream) {
            // The caller may have given up in between; nobody else wants the response.
            drop(caller.send(response));
        }
    }
    Ok(())
}

/// Reads until `buffer` holds a whole frame and takes it; `None` at the end of the stream.
///
/// # Errors
///
/// The read fails, or the bytes are not a frame.
pub(super) async fn next_frame(
    read: &mut (impl AsyncRead + Unpin),
    buffer: &mut Vec<u8>,
) -> io::Result<Option<Frame>> {
    loop {
        if let Some(frame) = Frame::decode(buffer).map_err(io::Error::other)? {
            return Ok(Some(frame));
        }
        if read.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

#[cfg(test)]
#[path = "ttrpc_tests.rs"]
mod tests;
