//! Writing to a registry: blobs, then the manifests that name them.
//!
//! A blob that is there is not sent; one that another repository of the registry has is mounted from there. The rest goes
//! in one request; where that breaks off, or is too large for the registry, in pieces that continue where the last one
//! arrived. The place of an upload is the registry's to name: on another host it gets no credentials.

use std::sync::Arc;

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{CONTENT_RANGE, CONTENT_TYPE, HeaderValue, RANGE},
};

use super::{
    client::{Client, DIGEST_HEADER},
    endpoint::Endpoint,
    http::{self, Answer, Chunks, Payload},
    retry,
};
use crate::{
    digest::Digest,
    error::{Error, Kind, Result},
};

/// The size of a piece of a blob that does not go in one request.
const PIECE: u64 = 16 << 20;
/// How often one blob's upload may be begun or continued.
const MAX_RESUMES: u32 = 100;

/// A blob to send.
#[derive(Clone)]
pub(crate) struct Content {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Reads so many bytes from an offset on.
    pub(crate) open: Arc<dyn Fn(u64, u64) -> Chunks + Send + Sync>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Pushed {
    /// The registry had it.
    Present,
    /// It was taken over from another repository.
    Mounted,
    /// It was sent.
    Uploaded,
}

impl Client {
    fn pushed_to(&self) -> Result<&Arc<Endpoint>> {
        self.able(|able| able.push)
            .next()
            .ok_or_else(|| self.nobody("push"))
    }

    /// Gets `content` into the repository, from the repository `mount_from` of the same registry if that has it.
    ///
    /// # Errors
    ///
    /// `Unauthenticated`, `PermissionDenied`, `NotFound` for the repository, `Unavailable` when it could not be sent.
    pub(crate) async fn push_blob(&self, content: &Content, mount_from: Option<&str>) -> Result<Pushed> {
        let endpoint = self.pushed_to()?;
        let path = format!("blobs/{}", content.digest);
        let there = endpoint.ask(Method::HEAD, &path, HeaderMap::new()).await?;
        match there.response.status() {
            StatusCode::OK => return Ok(Pushed::Present),
            // Some registries tell nobody what is not there, or not before somebody writes.
            StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {}
            _ => drop(endpoint.successful(there, || self.unknown_repository()).await?),
        }
        let mut session = None;
        if let Some(from) = mount_from {
            let path = format!("blobs/uploads/?mount={}&from={from}", content.digest);
            let answer = endpoint.ask(Method::POST, &path, HeaderMap::new()).await?;
            match answer.response.status() {
                StatusCode::CREATED => return Ok(Pushed::Mounted),
                StatusCode::ACCEPTED => session = Some(place(&endpoint.url(&path)?, &answer)?),
                // It is a favour; without it the blob is sent.
                _ => {}
            }
        }
        self.upload(endpoint, content, session).await?;
        Ok(Pushed::Uploaded)
    }

    /// Sends the blob: at first whole, after a failure that may pass in pieces.
    async fn upload(&self, endpoint: &Endpoint, content: &Content, session: Option<Uri>) -> Result<()> {
        let mut session = match session {
            Some(session) => session,
            None => self.session(endpoint).await?,
        };
        let mut failure = match self.put(endpoint, &session, content, 0).await? {
            Sent::Done => return Ok(()),
            Sent::Failed(error) => error,
        };
        let (mut failed, mut resumes, mut offset) = (1, 1, 0);
        loop {
            if failed >= retry::TRIES || resumes > MAX_RESUMES {
                return Err(failure);
            }
            tracing::debug!(digest = %content.digest, offset, error = %failure, "resuming an upload");
            tokio::time::sleep(retry::pause(failed, None)).await;
            let before = offset;
            match self.arrived(endpoint, &session).await? {
                Some((at, next)) => (offset, session) = (at, next),
                None => (offset, session) = (0, self.session(endpoint).await?),
            }
            if offset > content.size {
                return Err(Error::precondition(format!(
                    "blob {}: the registry has more than its {} bytes",
                    content.digest, content.size
                )));
            }
            failure = match self.pieces(endpoint, &mut session, content, &mut offset).await? {
                Sent::Done => return Ok(()),
                Sent::Failed(error) => error,
            };
            failed = if offset > before { 1 } else { failed + 1 };
            resumes += 1;
        }
    }

    /// Begins an upload.
    async fn session(&self, endpoint: &Endpoint) -> Result<Uri> {
        let path = "blobs/uploads/";
        let answer = endpoint.ask(Method::POST, path, HeaderMap::new()).await?;
        let answer = endpoint.successful(answer, || self.unknown_repository()).await?;
        place(&endpoint.url(path)?, &answer)
    }

    /// How much of an upload has arrived, and where it goes on; `None` when the registry has forgotten it.
    async fn arrived(&self, endpoint: &Endpoint, session: &Uri) -> Result<Option<(u64, Uri)>> {
        let answer = endpoint
            .request(
                Method::GET,
                session.clone(),
                HeaderMap::new(),
                Payload::default(),
                retry::TRIES,
            )
            .await?;
        if !answer.response.status().is_success() {
            return Ok(None);
        }
        let next = place(session, &answer).unwrap_or_else(|_none| session.clone());
        Ok(received(answer.response.headers()).map(|offset| (offset, next)))
    }

    /// Sends what is left in pieces, and ends the upload.
    async fn pieces(
        &self,
        endpoint: &Endpoint,
        session: &mut Uri,
        content: &Content,
        offset: &mut u64,
    ) -> Result<Sent> {
        while *offset < content.size {
            let length = PIECE.min(content.size - *offset);
            let range = format!("{offset}-{}", *offset + length - 1);
            let mut headers = octets();
            headers.insert(
                CONTENT_RANGE,
                HeaderValue::try_from(range).map_err(|error| Error::unknown("range", error))?,
            );
            let payload = payload(content, *offset, length);
            let sent = endpoint
                .request(Method::PATCH, session.clone(), headers, payload, 1)
                .await;
            let answer = match sent {
                Ok(answer) if answer.response.status() == StatusCode::RANGE_NOT_SATISFIABLE => {
                    return Ok(Sent::Failed(Error::unavailable(format!(
                        "blob {}: the registry wants another range",
                        content.digest
                    ))));
                }
                Ok(answer) => endpoint.successful(answer, || self.unknown_repository()).await?,
                Err(error) if error.kind() == Kind::Unavailable => return Ok(Sent::Failed(error)),
                Err(error) => return Err(error),
            };
            *offset = received(answer.response.headers())
                .filter(|received| *received > *offset && *received <= *offset + length)
                .unwrap_or(*offset + length);
            *session = place(session, &answer)?;
        }
        self.put(endpoint, session, content, content.size).await
    }

    /// Sends the blob from `offset` on as the end of the upload.
    async fn put(&self, endpoint: &Endpoint, session: &Uri, content: &Content, offset: u64) -> Result<Sent> {
        let separator = if session.query().is_some() { '&' } else { '?' };
        let uri: Uri = format!("{session}{separator}digest={}", content.digest)
            .parse()
            .map_err(|_malformed| Error::invalid("malformed place of an upload"))?;
        let payload = payload(content, offset, content.size - offset);
        let sent = endpoint.request(Method::PUT, uri, octets(), payload, 1).await;
        Ok(match sent {
            Ok(answer) if answer.response.status() == StatusCode::PAYLOAD_TOO_LARGE && offset == 0 => {
                Sent::Failed(Error::unavailable(format!(
                    "blob {}: too large for one request",
                    content.digest
                )))
            }
            Ok(answer) => {
                endpoint.successful(answer, || self.unknown_repository()).await?;
                Sent::Done
            }
            Err(error) if error.kind() == Kind::Unavailable => Sent::Failed(error),
            Err(error) => return Err(error),
        })
    }

    /// Whether the repository has the manifest `digest`.
    ///
    /// # Errors
    ///
    /// As [`Client::push_blob`].
    pub(crate) async fn has_manifest(&self, digest: &Digest) -> Result<bool> {
        let endpoint = self.pushed_to()?;
        let path = format!("manifests/{digest}");
        let headers = super::client::accept_manifests();
        let answer = endpoint.ask(Method::HEAD, &path, headers).await?;
        Ok(answer.response.status() == StatusCode::OK)
    }

    /// Writes a manifest or index, with `named` under the reference's tag. All that it names is there.
    ///
    /// # Errors
    ///
    /// As [`Client::push_blob`]; `FailedPrecondition` when the registry stored something else.
    pub(crate) async fn push_manifest(
        &self,
        media_type: &str,
        digest: &Digest,
        bytes: Bytes,
        named: bool,
    ) -> Result<()> {
        let endpoint = self.pushed_to()?;
        let object = if named {
            self.reference().object()
        } else {
            digest.as_str()
        };
        if self
            .reference()
            .digest()
            .is_some_and(|wanted| named && wanted != digest)
        {
            return Err(Error::invalid(format!(
                "{}: the image has the digest {digest}",
                self.reference()
            )));
        }
        let mut headers = HeaderMap::new();
        let media_type = HeaderValue::try_from(media_type)
            .map_err(|_malformed| Error::invalid(format!("media type {media_type:?}")))?;
        headers.insert(CONTENT_TYPE, media_type);
        let uri = endpoint.url(&format!("manifests/{object}"))?;
        let answer = endpoint
            .request(Method::PUT, uri, headers, Payload::Bytes(bytes), retry::TRIES)
            .await?;
        let answer = endpoint.successful(answer, || self.unknown_repository()).await?;
        let told = answer.response.headers().get(DIGEST_HEADER);
        match told.and_then(|told| told.to_str().ok()?.parse::<Digest>().ok()) {
            Some(told) if told.algorithm() == digest.algorithm() && told != *digest => Err(
                Error::precondition(format!("the registry stored digest {told}, not {digest}")),
            ),
            _ => Ok(()),
        }
    }

    fn unknown_repository(&self) -> Error {
        Error::not_found(format!("{}: repository unknown", self.reference()))
    }
}

/// What became of a request that may be continued.
enum Sent {
    Done,
    Failed(Error),
}

fn octets() -> HeaderMap {
    HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))])
}

fn payload(content: &Content, offset: u64, length: u64) -> Payload {
    if length == 0 {
        return Payload::default();
    }
    let open = Arc::clone(&content.open);
    Payload::Stream {
        size: length,
        open: Arc::new(move || open(offset, length)),
    }
}

/// Where an upload goes on.
fn place(asked: &Uri, answer: &Answer) -> Result<Uri> {
    http::target(asked, answer.response.headers())
}

/// How many bytes of an upload the registry says it has: `Range: 0-N`.
pub(super) fn received(headers: &HeaderMap) -> Option<u64> {
    let range = headers.get(RANGE)?.to_str().ok()?;
    let last: u64 = range
        .trim_start_matches("bytes=")
        .strip_prefix("0-")?
        .parse()
        .ok()?;
    // An empty upload is said in the same words as one of a single byte.
    if last == 0 { Some(0) } else { last.checked_add(1) }
}
