//! Turning a request into a two-way stream of bytes.
//!
//! Docker's clients ask for `Upgrade: tcp` and get 101; old ones do not and expect raw bytes after a 200. The latter get
//! the output as the body of a plain answer; stdin without an upgrade is refused, since HTTP has no way to end it.

use crate::api::stdcopy::{self, Stream};
use crate::container::stdio::Piece;
use crate::error::{Error, Result};
use axum::body::Body;
use axum::extract::Request;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::StreamExt;
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use tokio::io::{AsyncWriteExt, ReadHalf};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;

/// A client that wants a stream.
pub struct Hijack {
    upgrade: Option<OnUpgrade>,
    protocol: HeaderValue,
}

/// What comes from the client.
pub type Input = ReadHalf<TokioIo<Upgraded>>;

impl Hijack {
    /// Looks whether the client asks for an upgrade.
    pub fn of(request: &mut Request) -> Self {
        let protocol = request.headers().get(header::UPGRADE).cloned();
        let upgrade = request.extensions_mut().remove::<OnUpgrade>();
        Self {
            upgrade: upgrade.filter(|_| protocol.is_some()),
            protocol: protocol.unwrap_or(HeaderValue::from_static("tcp")),
        }
    }

    /// Refuses stdin for clients that cannot send it.
    ///
    /// # Errors
    ///
    /// `stdin` is wanted, and the client did not ask for an upgrade.
    pub fn check(&self, stdin: bool) -> Result<()> {
        if stdin && self.upgrade.is_none() {
            return Err(Error::invalid(
                "attaching to stdin needs a connection with 'Upgrade: tcp'",
            ));
        }
        Ok(())
    }

    /// Answers, and then sends the pieces as they come: raw with a terminal, framed without. `input` gets what the client
    /// sends, and its future is dropped when the output has ended.
    pub fn stream<F>(
        self,
        pieces: mpsc::Receiver<Piece>,
        terminal: bool,
        input: impl FnOnce(Input) -> F + Send + 'static,
    ) -> Response
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let content = if terminal {
            "application/vnd.docker.raw-stream"
        } else {
            "application/vnd.docker.multiplexed-stream"
        };
        let content = HeaderValue::from_static(content);
        let encode = move |(stream, bytes): Piece| encode(stream, bytes, terminal);
        let Some(upgrade) = self.upgrade else {
            let chunks = ReceiverStream::new(pieces).map(move |piece| Ok::<_, Infallible>(encode(piece)));
            let mut response = Body::from_stream(chunks).into_response();
            response.headers_mut().insert(header::CONTENT_TYPE, content);
            return response;
        };
        tokio::spawn(async move {
            match upgrade.await {
                Ok(connection) => both_ways(connection, pieces, encode, input).await,
                Err(error) => tracing::debug!(%error, "client left before the stream began"),
            }
        });
        let mut response = StatusCode::SWITCHING_PROTOCOLS.into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, content);
        headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(header::UPGRADE, self.protocol);
        response
    }
}

async fn both_ways<F: Future<Output = ()> + Send + 'static>(
    connection: Upgraded,
    mut pieces: mpsc::Receiver<Piece>,
    encode: impl Fn(Piece) -> Bytes,
    input: impl FnOnce(Input) -> F,
) {
    let (reader, mut writer) = tokio::io::split(TokioIo::new(connection));
    let input = tokio::spawn(input(reader));
    while let Some(piece) = pieces.recv().await {
        // A client that has gone makes the receiver drop, and is taken out by the sender.
        if writer.write_all(&encode(piece)).await.is_err() {
            break;
        }
    }
    input.abort();
    // The client may have closed first.
    writer.shutdown().await.ok();
}

/// A piece as it goes over the wire.
pub fn encode(stream: Stream, bytes: Bytes, terminal: bool) -> Bytes {
    if terminal {
        bytes
    } else {
        stdcopy::frame(stream, &bytes)
    }
}
