//! Where shims deliver events: `containerd.services.events.ttrpc.v1.Events/Forward` on a ttrpc socket.
//!
//! The requests of one connection are handled in their order, so the events of a shim keep theirs. Streaming calls and
//! other services are refused; so are clients of another user than the daemon's.

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use prost::Message;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use wharf_proto::containerd::services::events::ttrpc::v1::ForwardRequest;
use wharf_proto::google::rpc::Status;
use wharf_proto::ttrpc::{Frame, Kind, Request, Response};

use super::Tasks;
use super::ttrpc::next_frame;
use crate::error::{Error, Result};
use crate::socket::Socket;

const SERVICE: &str = "containerd.services.events.ttrpc.v1.Events";

/// The bound socket. Removed when dropped.
#[derive(Debug)]
pub struct Inbox {
    listener: UnixListener,
    path: PathBuf,
    stop: CancellationToken,
}

impl Inbox {
    /// Binds the socket that shims are told of, mode 0600, replacing what a daemon left there that was killed. The
    /// caller holds the lock on the state, so no living daemon uses it.
    ///
    /// # Errors
    ///
    /// `Unknown`: the socket cannot be made.
    pub fn bind(tasks: &Tasks) -> Result<Self> {
        let path = tasks.daemon.events.clone();
        let failed = |error| Error::io(format!("listen on {}", path.display()), error);
        // Bound under another name, and renamed once its mode is set: nobody can connect in between, and shims that try
        // meanwhile find the old socket or the new one.
        let mut temporary = path.clone().into_os_string();
        temporary.push(".new");
        let temporary = PathBuf::from(temporary);
        remove(&temporary).map_err(failed)?;
        let listener = UnixListener::bind(&temporary).map_err(failed)?;
        std::fs::set_permissions(&temporary, PermissionsExt::from_mode(0o600))
            .and_then(|()| std::fs::rename(&temporary, &path))
            .map_err(failed)?;
        Ok(Self {
            listener,
            path,
            stop: CancellationToken::new(),
        })
    }

    /// Serves shims until the future is dropped.
    pub async fn serve(self, tasks: Arc<Tasks>) {
        loop {
            match self.listener.accept().await {
                Ok((stream, _)) => {
                    let (tasks, stop) = (Arc::clone(&tasks), self.stop.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            result = converse(stream, &tasks) => {
                                if let Err(error) = result {
                                    tracing::debug!(%error, "event connection lost");
                                }
                            }
                            () = stop.cancelled() => {}
                        }
                    });
                }
                Err(error) => {
                    // Out of file descriptors, say: those in use come back.
                    tracing::warn!(%error, "accept on the event socket");
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.stop.cancel();
        if let Err(error) = remove(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "event socket not removed");
        }
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        done => done,
    }
}

async fn converse(stream: UnixStream, tasks: &Tasks) -> io::Result<()> {
    let uid = stream.peer_cred()?.uid();
    if uid != rustix::process::geteuid().as_raw() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            format!("client runs as uid {uid}"),
        ));
    }
    let mut stream = Socket::new(stream)?;
    let mut buffer = Vec::new();
    while let Some(frame) = next_frame(&mut stream, &mut buffer).await? {
        if frame.kind != Kind::Request {
            continue;
        }
        let response = answer(&frame.payload, tasks);
        let mut bytes = Vec::new();
        Frame::new(Kind::Response, frame.stream, &response)
            .encode(&mut bytes)
            .map_err(io::Error::other)?;
        stream.write_all(&bytes).await?;
    }
    Ok(())
}

fn answer(payload: &[u8], tasks: &Tasks) -> Response {
    let outcome = Request::decode(payload)
        .map_err(|error| Error::invalid("request").caused_by(error))
        .and_then(|request| handle(&request, tasks));
    match outcome {
        // An Empty is no bytes.
        Ok(()) => Response::default(),
        Err(error) => Response {
            status: Some(Status {
                code: error.kind().code() as i32,
                message: error.to_string(),
                details: Vec::new(),
            }),
            payload: Vec::new(),
        },
    }
}

fn handle(request: &Request, tasks: &Tasks) -> Result<()> {
    if request.service != SERVICE {
        return Err(Error::unimplemented(format!("service {}", request.service)));
    }
    if request.method != "Forward" {
        return Err(Error::unimplemented(format!("method {}", request.method)));
    }
    let forward = ForwardRequest::decode(request.payload.as_slice())
        .map_err(|error| Error::invalid("forward request").caused_by(error))?;
    let envelope = forward
        .envelope
        .ok_or_else(|| Error::invalid("forward request without an envelope"))?;
    tasks.forward(envelope)
}
