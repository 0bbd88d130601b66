//! The task service of one shim, typed.
//!
//! Versions 2 and 3 of the service have the same methods and messages; which one a shim serves is told by its answer to
//! `start`, or found out with the first call.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use prost::Message;
use tokio::net::UnixStream;
use tokio_util::sync::CancellationToken;
use wharf_proto::containerd::task::v2 as api;

use super::bundle::Bootstrap;
use super::spawn;
use super::ttrpc::{CallError, Client, ConnectError};
use crate::error::{Error, Kind, Result};

/// How long connecting may take. The socket is local and listens already.
const CONNECT: Duration = Duration::from_secs(5);

/// How long questions about state may take; a shim that is slower is stuck.
pub const STATE: Duration = Duration::from_secs(2);

/// How long a shim may take to leave.
const SHUTDOWN: Duration = Duration::from_secs(3);

/// A connected shim.
#[derive(Debug)]
pub struct Shim {
    address: String,
    client: Client,
    version: AtomicU32,
    version_is_known: AtomicBool,
    leaves_by_itself: bool,
}

impl Shim {
    /// Connects to the shim that `bootstrap` describes.
    ///
    /// # Errors
    ///
    /// [`ConnectError`] tells a dead shim from one that is stuck; the outer error is an address that is refused.
    pub async fn connect(bootstrap: &Bootstrap) -> Result<Result<Self, ConnectError>> {
        let socket = spawn::socket(&bootstrap.address)?;
        Ok(Client::connect(&socket, CONNECT).await.map(|client| Self {
            address: bootstrap.address.clone(),
            client,
            version: AtomicU32::new(bootstrap.version),
            version_is_known: AtomicBool::new(false),
            leaves_by_itself: false,
        }))
    }

    /// A shim that is forked with the other end of `connection`, and will serve version 3; where, is told later
    /// ([`Shim::serves_at`]).
    ///
    /// # Errors
    ///
    /// `Unknown`: the connection cannot be watched.
    pub fn over(connection: UnixStream) -> Result<Self> {
        Ok(Self {
            address: String::new(),
            client: Client::over(connection).map_err(|error| Error::io("watch a connection", error))?,
            version: AtomicU32::new(3),
            version_is_known: AtomicBool::new(true),
            leaves_by_itself: true,
        })
    }

    /// The shim, which has said where it listens.
    #[must_use]
    pub fn serves_at(self, address: String) -> Self {
        Self { address, ..self }
    }

    /// Where it listens: `unix:///path`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// Whether it gives its address up before it answers that its last task is deleted, and ends without tasks and connections
    /// even if nobody tells it to.
    pub fn leaves_by_itself(&self) -> bool {
        self.leaves_by_itself
    }

    /// Completes when the connection has ended.
    pub async fn closed(&self) {
        self.client.closed().await;
    }

    /// Cancelled when the connection has ended; does not keep it open.
    pub fn on_closed(&self) -> CancellationToken {
        self.client.on_closed()
    }

    /// Whether the connection has ended.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.client.close();
    }

    /// Calls `method` of the task service.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn call<Q: Message, R: Message + Default>(
        &self,
        method: &'static str,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<R, CallError> {
        let version = self.version.load(Ordering::Relaxed);
        let answer = self.client.call(service(version), method, request, timeout).await;
        if self.version_is_known.load(Ordering::Relaxed) {
            return answer;
        }
        match &answer {
            Err(CallError::Status { code, .. }) if *code == tonic::Code::Unimplemented as i32 => {
                let other = if version == 3 { 2 } else { 3 };
                let second = self.client.call(service(other), method, request, timeout).await;
                let unknown_as_well = matches!(&second, Err(CallError::Status { code, .. }) if *code == tonic::Code::Unimplemented as i32);
                if unknown_as_well {
                    return answer;
                }
                self.version.store(other, Ordering::Relaxed);
                self.version_is_known.store(true, Ordering::Relaxed);
                second
            }
            Ok(_) | Err(CallError::Status { .. }) => {
                self.version_is_known.store(true, Ordering::Relaxed);
                answer
            }
            Err(_) => answer,
        }
    }

    /// Calls `method` of another service than the tasks'.
    ///
    /// # Errors
    ///
    /// See [`CallError`].
    pub async fn call_service<Q: Message, R: Message + Default>(
        &self,
        service: &'static str,
        method: &'static str,
        request: &Q,
        timeout: Option<Duration>,
    ) -> Result<R, CallError> {
        self.client.call(service, method, request, timeout).await
    }

    /// The version of the task service that it serves, as far as that is known.
    pub fn version(&self) -> u32 {
        self.version.load(Ordering::Relaxed)
    }

    /// Asks for the state of the task, or of one of its execs, within [`STATE`].
    ///
    /// # Errors
    ///
    /// See [`CallError`]; status `NotFound` when there is no such process.
    pub async fn state(&self, id: &str, exec_id: &str) -> Result<api::StateResponse, CallError> {
        let request = api::StateRequest {
            id: id.to_owned(),
            exec_id: exec_id.to_owned(),
        };
        self.call("State", &request, Some(STATE)).await
    }

    /// Tells the shim to leave if it has no other task. Who is gone already has left.
    pub async fn shutdown(&self, id: &str) {
        let request = api::ShutdownRequest {
            id: id.to_owned(),
            now: false,
        };
        match self.call::<_, ()>("Shutdown", &request, Some(SHUTDOWN)).await {
            Ok(()) | Err(CallError::Closed) => {}
            Err(error) => tracing::warn!(container_id = id, %error, "shim does not shut down"),
        }
        self.close();
    }
}

fn service(version: u32) -> &'static str {
    match version {
        3 => "containerd.task.v3.Task",
        _ => "containerd.task.v2.Task",
    }
}

/// The crate's error for a failed call. The shim's text stays, without the words of the kind that are appended again
/// when the error is displayed.
pub fn error(error: CallError) -> Error {
    let kind = match tonic::Code::from_i32(error.code()) {
        tonic::Code::NotFound => Kind::NotFound,
        tonic::Code::AlreadyExists => Kind::AlreadyExists,
        tonic::Code::InvalidArgument => Kind::InvalidArgument,
        tonic::Code::FailedPrecondition => Kind::FailedPrecondition,
        tonic::Code::OutOfRange => Kind::OutOfRange,
        tonic::Code::Unavailable => Kind::Unavailable,
        tonic::Code::ResourceExhausted => Kind::ResourceExhausted,
        tonic::Code::Unimplemented => Kind::Unimplemented,
        tonic::Code::Cancelled => Kind::Canceled,
        tonic::Code::DeadlineExceeded => Kind::DeadlineExceeded,
        _ => Kind::Unknown,
    };
    let text = error.to_string();
    let words = kind.words().map(|words| format!(": {words}"));
    let text = words.and_then(|words| text.strip_suffix(&words)).unwrap_or(&text);
    Error::new(kind, text)
}

/// Whether the shim said that it knows no such task or process.
pub fn is_not_found(error: &CallError) -> bool {
    matches!(error, CallError::Status { code, .. } if *code == tonic::Code::NotFound as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shims_words_are_not_doubled() {
        for (code, message, expected) in [
            (
                tonic::Code::NotFound,
                "process does not exist x: not found",
                "process does not exist x: not found",
            ),
            (
                tonic::Code::NotFound,
                "container not created",
                "container not created: not found",
            ),
            (
                tonic::Code::Unknown,
                "runc create failed: unknown",
                "runc create failed: unknown",
            ),
        ] {
            let from = CallError::Status {
                code: code as i32,
                message: message.to_owned(),
            };
            let error = error(from);
            assert_eq!(error.kind().code(), code);
            assert_eq!(error.to_string(), expected);
        }
    }
}
