//! The client half of the Docker Engine REST API: HTTP/1.1 over the daemon's unix socket.
//!
//! Owns connections, API version negotiation, the error document, bounded answers, streamed answers and hijacked
//! connections (`attach`, `exec`). It speaks to any daemon with this API, not only to ours.
//!
//! Refuses TCP and TLS endpoints, and knows no command line: what to print is decided in `cli/`.

mod answer;
mod error;
mod path;

use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONNECTION, CONTENT_TYPE, HOST, UPGRADE};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

pub use answer::{Answer, Hijacked};
pub use error::ClientError;
pub use path::{image_path, segment};

use answer::api_error;
use path::encode;

use super::types::API_VERSION;

/// A client of one daemon. Finished connections are kept and used again. Needs a tokio runtime around its calls.
#[derive(Debug)]
pub struct Client {
    socket: PathBuf,
    idle: Mutex<Vec<SendRequest<Full<Bytes>>>>,
    /// Set when the daemon turned out to be older than this client.
    negotiated: OnceLock<String>,
}

impl Client {
    /// A client of the daemon that listens on `socket`. Does not connect yet.
    pub fn new(socket: impl Into<PathBuf>) -> Self {
        Self {
            socket: socket.into(),
            idle: Mutex::default(),
            negotiated: OnceLock::new(),
        }
    }

    /// The daemon's socket.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// Starts a GET request; `path` begins after the version, for example `/containers/json`.
    pub fn get(&self, path: impl Into<String>) -> Call<'_> {
        self.call(Method::GET, path)
    }

    /// Starts a POST request.
    pub fn post(&self, path: impl Into<String>) -> Call<'_> {
        self.call(Method::POST, path)
    }

    /// Starts a DELETE request.
    pub fn delete(&self, path: impl Into<String>) -> Call<'_> {
        self.call(Method::DELETE, path)
    }

    fn call(&self, method: Method, path: impl Into<String>) -> Call<'_> {
        Call {
            client: self,
            method,
            path: path.into(),
            query: String::new(),
            body: Ok(None),
        }
    }

    /// Connects, so that the first request finds a connection; tells at once whether anybody listens.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`].
    pub async fn connect(&self) -> Result<(), ClientError> {
        let sender = self.connection("connect").await?;
        self.keep(sender);
        Ok(())
    }

    /// Asks whether the daemon serves requests.
    ///
    /// # Errors
    ///
    /// [`ClientError::Connect`] when nobody listens, other kinds when the answer is not a daemon's.
    pub async fn ping(&self) -> Result<(), ClientError> {
        self.server_version().await.map(drop)
    }

    /// The newest API version that the daemon speaks, from the header of its ping answer.
    async fn server_version(&self) -> Result<Option<String>, ClientError> {
        let request = "GET /_ping".to_owned();
        let (sender, response) = self
            .roundtrip(&request, Method::GET, "/_ping", None, false)
            .await?;
        let version = response
            .headers()
            .get("api-version")
            .and_then(|value| value.to_str().ok())
            .map(str::to_owned);
        let status = response.status();
        if !status.is_success() {
            return Err(ClientError::Api {
                status: status.as_u16(),
                message: format!("{request}: {status}"),
            });
        }
        Answer {
            client: self,
            sender,
            request,
            body: response.into_body(),
        }
        .bytes()
        .await?;
        Ok(version)
    }

    /// One request on an idle or a new connection; the answer's body is still unread.
    async fn roundtrip(
        &self,
        request: &str,
        method: Method,
        target: &str,
        body: Option<Bytes>,
        upgrade: bool,
    ) -> Result<(SendRequest<Full<Bytes>>, Response<Incoming>), ClientError> {
        let mut builder = Request::builder()
            .method(method)
            .uri(target)
            .header(HOST, "wharf");
        if body.is_some() {
            builder = builder.header(CONTENT_TYPE, "application/json");
        }
        if upgrade {
            builder = builder.header(CONNECTION, "Upgrade").header(UPGRADE, "tcp");
        }
        let message = builder
            .body(Full::new(body.unwrap_or_default()))
            .map_err(|source| ClientError::Request {
                request: request.to_owned(),
                source,
            })?;

        let mut sender = self.connection(request).await?;
        let response = sender
            .send_request(message)
            .await
            .map_err(|source| ClientError::Http {
                request: request.to_owned(),
                source,
            })?;
        Ok((sender, response))
    }

    /// Keeps a connection whose answer has been read to its end.
    fn keep(&self, sender: SendRequest<Full<Bytes>>) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(sender);
    }

    /// A kept connection that the daemon has not closed, or a new one.
    async fn connection(&self, request: &str) -> Result<SendRequest<Full<Bytes>>, ClientError> {
        let kept = || self.idle.lock().unwrap_or_else(PoisonError::into_inner).pop();
        while let Some(mut sender) = kept() {
            if sender.ready().await.is_ok() {
                return Ok(sender);
            }
        }
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|source| ClientError::Connect {
                socket: self.socket.clone(),
                source,
            })?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| ClientError::Http {
                request: request.to_owned(),
                source,
            })?;
        // Its errors reach the caller through the sender and the body.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }
}

/// A request in the making.
#[derive(Debug)]
#[must_use = "a call does nothing until it is sent"]
pub struct Call<'a> {
    client: &'a Client,
    method: Method,
    path: String,
    query: String,
    body: Result<Option<Bytes>, serde_json::Error>,
}

impl<'a> Call<'a> {
    /// Adds a query parameter; the value is encoded here.
    pub fn query(mut self, key: &str, value: impl AsRef<str>) -> Self {
        self.query.push(if self.query.is_empty() { '?' } else { '&' });
        self.query.push_str(&encode(key, ""));
        self.query.push('=');
        self.query.push_str(&encode(value.as_ref(), ""));
        self
    }

    /// Adds a boolean query parameter, only when it is set: an absent one means false to every daemon.
    pub fn flag(self, key: &str, set: bool) -> Self {
        if set { self.query(key, "1") } else { self }
    }

    /// Adds a query parameter if there is a value.
    pub fn maybe(self, key: &str, value: Option<impl AsRef<str>>) -> Self {
        match value {
            Some(value) => self.query(key, value),
            None => self,
        }
    }

    /// Sets the JSON document to send.
    pub fn body(mut self, document: &impl Serialize) -> Self {
        self.body = serde_json::to_vec(document).map(|json| Some(json.into()));
        self
    }

    /// Sends the request and waits for the head of the answer; the body can be read, or streamed, later.
    ///
    /// # Errors
    ///
    /// [`ClientError::Api`] for every status of 400 and above, [`ClientError::Connect`] when nobody listens.
    pub async fn send(self) -> Result<Answer<'a>, ClientError> {
        let client = self.client;
        let (request, sender, response) = self.dispatch(false).await?;
        Ok(Answer {
            client,
            sender,
            request,
            body: response.into_body(),
        })
    }

    /// Sends the request and reads the whole answer as a JSON document.
    ///
    /// # Errors
    ///
    /// As [`Call::send`], and [`ClientError::Answer`] when the document is not a `T`.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        self.send().await?.json().await
    }

    /// Sends the request and drops whatever an error-free answer says.
    ///
    /// # Errors
    ///
    /// As [`Call::send`].
    pub async fn done(self) -> Result<(), ClientError> {
        self.send().await?.bytes().await.map(drop)
    }

    /// Sends the request and takes over its connection as a raw byte stream in both directions.
    ///
    /// # Errors
    ///
    /// As [`Call::send`], and [`ClientError::Hijack`] when the daemon does not switch protocols.
    pub async fn hijack(self) -> Result<Hijacked, ClientError> {
        let (request, _sender, response) = self.dispatch(true).await?;
        let failed = |request: &str, reason: String| ClientError::Hijack {
            request: request.to_owned(),
            reason,
        };
        if response.status() != StatusCode::SWITCHING_PROTOCOLS {
            return Err(failed(
                &request,
                format!("the daemon answered {}", response.status()),
            ));
        }
        let upgraded = hyper::upgrade::on(response)
            .await
            .map_err(|error| failed(&request, error.to_string()))?;
        let parts = upgraded
            .downcast::<TokioIo<UnixStream>>()
            .map_err(|_| failed(&request, "it is no unix socket".to_owned()))?;
        let stream = parts
            .io
            .into_inner()
            .into_std()
            .and_then(|stream| stream.set_nonblocking(false).map(|()| stream))
            .map_err(|error| failed(&request, error.to_string()))?;
        Ok(Hijacked {
            stream,
            early: parts.read_buf,
        })
    }

    /// Sends; falls back once to the version of an older daemon; turns error documents into errors.
    async fn dispatch(
        self,
        upgrade: bool,
    ) -> Result<(String, SendRequest<Full<Bytes>>, Response<Incoming>), ClientError> {
        let Self {
            client,
            method,
            path,
            query,
            body,
        } = self;
        let request = format!("{method} {path}");
        let body = body.map_err(|error| ClientError::Answer {
            request: request.clone(),
            reason: format!("the document to send is no JSON: {error}"),
        })?;
        loop {
            let known = client.negotiated.get();
            let version = known.map_or(API_VERSION, String::as_str);
            let target = format!("/v{version}{path}{query}");
            let (sender, response) = client
                .roundtrip(&request, method.clone(), &target, body.clone(), upgrade)
                .await?;
            let status = response.status();
            if !(status.is_client_error() || status.is_server_error()) {
                return Ok((request, sender, response));
            }
            // Daemons refuse versions newer than their own with 400, before they look at the request.
            if status == StatusCode::BAD_REQUEST
                && known.is_none()
                && let Some(server) = client.server_version().await?
            {
                let older = minor(&server) < minor(API_VERSION);
                client
                    .negotiated
                    .get_or_init(|| if older { server } else { API_VERSION.to_owned() });
                if older {
                    continue;
                }
            }
            return Err(api_error(status, response.into_body()).await);
        }
    }
}

/// The second number of `1.44`, the only one that has ever moved.
fn minor(version: &str) -> u32 {
    version
        .split_once('.')
        .and_then(|(_, minor)| minor.parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests;
