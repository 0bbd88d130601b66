//! What comes back: documents read within bounds, streams read piece by piece, connections taken over.

use std::os::unix::net::UnixStream as BlockingUnixStream;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::client::conn::http1::SendRequest;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{Client, ClientError};
use crate::api::types::{ErrorResponse, decode};

/// Largest JSON answer taken into memory, in bytes.
const ANSWER_LIMIT: usize = 64 << 20;
/// Largest error document taken into memory, in bytes.
const ERROR_LIMIT: usize = 64 << 10;

/// Reads `{"message": …}`, or whatever an intermediary said instead.
pub(super) async fn api_error(status: StatusCode, body: Incoming) -> ClientError {
    let text = match Limited::new(body, ERROR_LIMIT).collect().await {
        Ok(collected) => collected.to_bytes(),
        Err(_) => Bytes::new(),
    };
    let message = match decode::<ErrorResponse>(&text) {
        Ok(document) if !document.message.is_empty() => document.message,
        _ => match String::from_utf8_lossy(&text).trim() {
            "" => status.to_string(),
            other => format!("{status}: {other}"),
        },
    };
    ClientError::Api {
        status: status.as_u16(),
        message,
    }
}

/// An answer whose body has not been read yet.
#[derive(Debug)]
pub struct Answer<'a> {
    pub(super) client: &'a Client,
    pub(super) sender: SendRequest<Full<Bytes>>,
    pub(super) request: String,
    pub(super) body: Incoming,
}

impl Answer<'_> {
    /// Reads the rest of the answer, at most 64 MiB.
    ///
    /// # Errors
    ///
    /// [`ClientError::Answer`] when it is larger or the connection breaks.
    pub async fn bytes(self) -> Result<Bytes, ClientError> {
        let Self {
            client,
            sender,
            request,
            body,
        } = self;
        match Limited::new(body, ANSWER_LIMIT).collect().await {
            Ok(collected) => {
                client.keep(sender);
                Ok(collected.to_bytes())
            }
            Err(error) => Err(ClientError::Answer {
                request,
                reason: error.to_string(),
            }),
        }
    }

    /// Reads the rest of the answer as the text of a JSON document, unchanged.
    ///
    /// # Errors
    ///
    /// [`ClientError::Answer`] when it is not JSON.
    pub async fn document(self) -> Result<String, ClientError> {
        let request = self.request.clone();
        let bytes = self.bytes().await?;
        match serde_json::from_slice::<Box<RawValue>>(&bytes) {
            Ok(document) => Ok(document.get().to_owned()),
            Err(error) => Err(ClientError::Answer {
                request,
                reason: error.to_string(),
            }),
        }
    }

    /// Reads the rest of the answer as a JSON document.
    ///
    /// # Errors
    ///
    /// [`ClientError::Answer`] when it is not a `T`.
    pub async fn json<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let request = self.request.clone();
        let bytes = self.bytes().await?;
        decode(&bytes).map_err(|error| ClientError::Answer {
            request,
            reason: error.to_string(),
        })
    }

    /// The next piece of a streamed answer, `None` at its end.
    ///
    /// # Errors
    ///
    /// [`ClientError::Http`] when the connection breaks before the end.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>, ClientError> {
        while let Some(frame) = self.body.frame().await {
            let frame = frame.map_err(|source| ClientError::Http {
                request: self.request.clone(),
                source,
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    }
}

/// A connection that was taken over: what is written goes to the process's stdin, what is read is its output,
/// multiplexed unless it has a terminal.
#[derive(Debug)]
pub struct Hijacked {
    /// The socket, in blocking mode. Shutting its write half down is the end of stdin.
    pub stream: BlockingUnixStream,
    /// Output that arrived together with the head of the answer: comes before anything read from `stream`.
    pub early: Bytes,
}
