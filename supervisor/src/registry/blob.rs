//! Fetching a blob as a stream of chunks that survives broken connections.
//!
//! Each chunk is handed on in order and once: after a broken or stalled connection the rest is asked for by range, and
//! a registry that ignores ranges is read again up to the place. Digest and size are for the receiver to check; here
//! only what bounds the transfer is: no more bytes than the descriptor says are ever handed on.

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_RANGE, HeaderValue, RANGE},
};
use tokio::sync::mpsc;
use wharf_proto::containerd::types::Descriptor;

use super::{
    client::Client,
    endpoint::Endpoint,
    http::{self, Answer},
    retry,
};
use crate::error::{Error, Kind, Result};

/// How often one blob may be resumed, however much each connection brought.
const MAX_RESUMES: u32 = 100;

impl Client {
    /// Sends the bytes of `blob` from `offset` on to `chunks`, in order.
    ///
    /// # Errors
    ///
    /// `NotFound`, `Unauthenticated`, `PermissionDenied`, `Unavailable` when it could not be had whole;
    /// `FailedPrecondition` when the registry has more or fewer bytes than the descriptor says; `Canceled` when the
    /// receiver is gone.
    pub(crate) async fn blob(
        &self,
        blob: &Descriptor,
        offset: u64,
        chunks: mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let size = u64::try_from(blob.size)
            .map_err(|_negative| Error::invalid(format!("blob {}: negative size", blob.digest)))?;
        let mut offset = offset;
        let mut failure = self.nobody("pull");
        for endpoint in self.able(|able| able.pull) {
            match endpoint.blob(blob, size, &mut offset, &chunks).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == Kind::Canceled => return Err(error),
                Err(error) => {
                    // What came counts: the digest is checked over all of it.
                    tracing::debug!(digest = blob.digest, offset, %error, "a host does not give a blob");
                    failure = error;
                }
            }
        }
        Err(failure)
    }
}

impl Endpoint {
    async fn blob(
        &self,
        blob: &Descriptor,
        size: u64,
        offset: &mut u64,
        chunks: &mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let mut failed = 0;
        let mut resumes = 0;
        while *offset < size || size == 0 {
            let before = *offset;
            let error = match self.part(blob, size, offset, chunks).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == Kind::Unavailable => error,
                Err(error) => return Err(error),
            };
            failed = if *offset > before { 1 } else { failed + 1 };
            resumes += 1;
            if failed >= retry::TRIES || resumes > MAX_RESUMES {
                return Err(error);
            }
            tracing::debug!(digest = blob.digest, offset, %error, "resuming a blob");
            tokio::time::sleep(retry::pause(failed, None)).await;
        }
        Ok(())
    }

    /// One connection's worth of the blob.
    async fn part(
        &self,
        blob: &Descriptor,
        size: u64,
        offset: &mut u64,
        chunks: &mpsc::Sender<Bytes>,
    ) -> Result<()> {
        let what = format!("blob {}", blob.digest);
        let mut headers = HeaderMap::new();
        if *offset > 0 {
            let range = HeaderValue::try_from(format!("bytes={offset}-"))
                .map_err(|error| Error::unknown(what.clone(), error))?;
            headers.insert(RANGE, range);
        }
        let answer = self
            .ask(Method::GET, &format!("blobs/{}", blob.digest), headers)
            .await?;
        let answer = self
            .successful(answer, || Error::not_found(format!("{what}: blob unknown")))
            .await?;
        let mut skip = start(&answer, *offset, size, &what)?;
        let mut body = answer.response.into_body();
        while let Some(mut data) = http::next_data(&mut body, &what).await? {
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
            drop(data.split_to(skipped));
            skip -= skipped as u64;
            if data.is_empty() {
                continue;
            }
            if data.len() as u64 > size - *offset {
                return Err(Error::precondition(format!(
                    "{what}: more than the {size} bytes of its descriptor"
                )));
            }
            *offset += data.len() as u64;
            chunks
                .send(data)
                .await
                .map_err(|_gone| Error::new(Kind::Canceled, format!("{what}: the receiver is gone")))?;
        }
        if *offset < size {
            return Err(Error::unavailable(format!(
                "{what}: ended after {offset} of {size} bytes"
            )));
        }
        Ok(())
    }
}

/// How many bytes at the start of an answer were there before.
fn start(answer: &Answer, offset: u64, size: u64, what: &str) -> Result<u64> {
    let headers = answer.response.headers();
    let text = |name| {
        headers
            .get(name)
            .and_then(|value: &HeaderValue| value.to_str().ok())
    };
    if answer.response.status() == StatusCode::PARTIAL_CONTENT {
        let first = text(CONTENT_RANGE)
            .and_then(|range| range.strip_prefix("bytes "))
            .and_then(|range| range.split('-').next())
            .and_then(|first| first.parse::<u64>().ok());
        return match first {
            Some(first) if first == offset => Ok(0),
            _ => Err(Error::precondition(format!(
                "{what}: the registry sent another range than was asked for"
            ))),
        };
    }
    let announced = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
    match announced {
        Some(announced) if announced != size => Err(Error::precondition(format!(
            "{what}: the registry has {announced} bytes, its descriptor says {size}"
        ))),
        _ => Ok(offset),
    }
}
