//! Answers: the engine's errors as status codes, JSON bodies, and streams of JSON lines.

use crate::api::types::ErrorResponse;
use crate::error::{Error, Kind};
use axum::Json;
use axum::body::Body;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::convert::Infallible;
use tokio_util::task::TaskTracker;

/// An error on its way to the client.
pub struct Failure(Error);

/// What most handlers return.
pub type Reply<T> = Result<T, Failure>;

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self(error)
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let status = status(self.0.kind());
        if status == StatusCode::NOT_MODIFIED {
            return status.into_response();
        }
        let message = self.0.to_string();
        if status == StatusCode::INTERNAL_SERVER_ERROR {
            tracing::error!(error = message, "request failed");
        }
        (status, Json(ErrorResponse { message })).into_response()
    }
}

fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::NotModified => StatusCode::NOT_MODIFIED,
        Kind::NotImplemented => StatusCode::NOT_IMPLEMENTED,
        Kind::System => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Reads a JSON body; an empty one is an empty object.
///
/// # Errors
///
/// It is larger than the server reads, or not of this shape.
pub async fn body<T: DeserializeOwned + Default>(body: Body) -> Result<T, Error> {
    let bytes = axum::body::to_bytes(body, super::MAX_BODY)
        .await
        .map_err(|error| Error::invalid(format!("read the request: {error}")))?;
    if bytes.iter().all(u8::is_ascii_whitespace) {
        return Ok(T::default());
    }
    crate::api::types::decode(&bytes).map_err(|error| Error::invalid(format!("invalid JSON: {error}")))
}

/// An answer whose head is sent at once and whose lines follow as they come.
pub fn json_lines<T: Serialize>(lines: impl Stream<Item = T> + Send + 'static) -> Response {
    let chunks = lines.map(|line| {
        let mut bytes = serde_json::to_vec(&line).unwrap_or_default();
        bytes.push(b'\n');
        Ok::<_, Infallible>(Bytes::from(bytes))
    });
    let mut response = Body::from_stream(chunks).into_response();
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    response
}

/// Runs `work` to its end even when the client goes away, or the daemon is told to stop.
///
/// # Errors
///
/// What `work` says; or it panicked.
pub async fn to_the_end<T: Send + 'static>(
    operations: &TaskTracker,
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    operations
        .spawn(work)
        .await
        .unwrap_or_else(|error| Err(Error::system(format!("request: {error}"))))
}
