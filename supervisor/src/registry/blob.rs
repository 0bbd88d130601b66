//! Fetching a blob as a stream of chunks that survives broken connections.
//!
//! Each chunk is handed on in order and once: after a broken or stalled connection the rest is asked for by range, and
//! a registry that ignores ranges is read again up to the place. Digest and size are for the receiver to check; here
//! only what bounds the transfer is: no more bytes than the descriptor says are ever handed on.
//!
//! A large blob is fetched in pieces, several at once where slots are free ([`Pieces`]): the first one is handed on as it
//! arrives, those behind it are held in queues of [`QUEUE`] bytes at most until it is their turn. A registry that ignores
//! ranges, or whose blob is another one from piece to piece by its `ETag`, is read in one request.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Response, StatusCode,
    body::Incoming,
    header::{CONTENT_LENGTH, CONTENT_RANGE, ETAG, HeaderValue, RANGE},
};
use tokio::sync::mpsc;
use tokio_util::task::AbortOnDropHandle;
use wharf_proto::containerd::types::Descriptor;

use super::{
    Pieces,
    client::Client,
    endpoint::Endpoint,
    flow::{Out, Pace},
    foreign::Foreign,
    http::{self, MAX_CHUNK},
    pieces::Slots,
    retry,
};
use crate::error::{Error, Kind, Result};

/// How often one blob may be resumed, however much each connection brought.
const MAX_RESUMES: u32 = 100;
/// URLs of one blob that are tried.
const MAX_URLS: usize = 8;
/// The bytes of a piece that are held until it is its turn: all of the largest one.
const QUEUE: usize = 4 << 20;

impl Client {
    /// Sends the bytes of `blob` from `offset` on to `chunks`, in order, from the registry or else from one of `urls`. The
    /// caller holds the slots of [`Pieces::blob`].
    ///
    /// # Errors
    ///
    /// `NotFound`, `Unauthenticated`, `PermissionDenied`, `Unavailable` when it could not be had whole;
    /// `FailedPrecondition` when the registry has more or fewer bytes than the descriptor says; `Canceled` when the
    /// receiver is gone.
    pub(crate) async fn blob(
        &self,
        blob: &Descriptor,
        urls: &[String],
        mut offset: u64,
        chunks: mpsc::Sender<Bytes>,
        pieces: &Pieces,
    ) -> Result<()> {
        let (offset, chunks) = (&mut offset, &chunks);
        let mut failure = self.nobody("pull");
        for endpoint in self.able(|able| able.pull) {
            let source = Place::Blob(Arc::clone(endpoint), format!("blobs/{}", blob.digest));
            match fetch(source, blob, offset, chunks, pieces).await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == Kind::Canceled => return Err(error),
                Err(error) => {
                    // What came counts: the digest is checked over all of it.
                    tracing::debug!(digest = blob.digest, offset, %error, "a host does not give a blob");
                    failure = error;
                }
            }
        }
        for url in urls.iter().take(MAX_URLS) {
            let fetched = async {
                let foreign = Foreign::new(url, self.reference())?;
                fetch(Place::Foreign(Arc::new(foreign)), blob, offset, chunks, pieces).await
            };
            match fetched.await {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == Kind::Canceled => return Err(error),
                Err(error) => failure = failure.context(error),
            }
        }
        Err(failure)
    }
}

/// Where a blob can be had.
#[derive(Clone)]
enum Place {
    /// A repository on a host, and the path in it.
    Blob(Arc<Endpoint>, String),
    /// Anywhere: a URL that a manifest names.
    Foreign(Arc<Foreign>),
}

impl Place {
    async fn ask(&self, headers: HeaderMap, what: &str) -> Result<Response<Incoming>> {
        let unknown = || Error::not_found(format!("{what}: blob unknown"));
        match self {
            Self::Blob(endpoint, path) => {
                let answer = endpoint.ask(Method::GET, path, headers).await?;
                Ok(endpoint.successful(answer, unknown).await?.response)
            }
            Self::Foreign(foreign) => foreign.get(headers, what).await,
        }
    }
}

/// Sends the bytes of `blob` from `offset` on to `chunks`, in order, moving `offset` on.
///
/// # Errors
///
/// As [`Client::blob`].
async fn fetch(
    place: Place,
    blob: &Descriptor,
    offset: &mut u64,
    chunks: &mpsc::Sender<Bytes>,
    pieces: &Pieces,
) -> Result<()> {
    let out = &mut Out::new(chunks.clone(), false);
    let size = u64::try_from(blob.size)
        .map_err(|_negative| Error::invalid(format!("blob {}: negative size", blob.digest)))?;
    let fetch = Fetch {
        place,
        what: Arc::from(format!("blob {}", blob.digest)),
        size,
        mode: Arc::default(),
    };
    let mut tries = Tries::default();
    while *offset < size || size == 0 {
        let before = *offset;
        let mode = fetch.mode.load(Ordering::Relaxed);
        match fetch.run(offset, out, (mode == PIECES).then_some(pieces)).await {
            Ok(()) => return Ok(()),
            // There is a simpler way that is left to try.
            Err(error)
                if error.kind() == Kind::FailedPrecondition && fetch.mode.load(Ordering::Relaxed) > mode => {}
            Err(error) => tries.again(error, *offset > before).await?,
        }
    }
    Ok(())
}

/// How often something failed that may go better later.
#[derive(Default)]
struct Tries {
    failed: u32,
    resumes: u32,
}

impl Tries {
    /// Waits for the next try after `error`.
    ///
    /// # Errors
    ///
    /// `error`, when it is another kind or there were tries enough.
    async fn again(&mut self, error: Error, progress: bool) -> Result<()> {
        if error.kind() != Kind::Unavailable {
            return Err(error);
        }
        self.failed = if progress { 1 } else { self.failed + 1 };
        self.resumes += 1;
        if self.failed >= retry::TRIES || self.resumes > MAX_RESUMES {
            return Err(error);
        }
        tracing::debug!(%error, "resuming a blob");
        tokio::time::sleep(retry::pause(self.failed, None)).await;
        Ok(())
    }
}

/// As far as is known, ranges from somewhere to somewhere can be had.
const PIECES: u8 = 0;
/// Only ranges to the end.
const REST: u8 = 1;
/// Only all of it.
const ALL: u8 = 2;

/// One blob from one place.
#[derive(Clone)]
struct Fetch {
    place: Place,
    /// The blob, for people.
    what: Arc<str>,
    size: u64,
    /// How much of ranges the place was found to understand; only grows.
    mode: Arc<AtomicU8>,
}

/// An answer whose body is at the place that was asked for, but for `skip` bytes.
struct Opened {
    body: Incoming,
    skip: u64,
    end: u64,
    etag: Option<HeaderValue>,
}

/// A piece that is fetched before its turn.
struct Piece {
    chunks: mpsc::Receiver<Bytes>,
    task: AbortOnDropHandle<Result<()>>,
    slots: Slots,
}

impl Fetch {
    /// Sends the rest of the blob, until the first failure.
    async fn run(&self, offset: &mut u64, out: &mut Out, pieces: Option<&Pieces>) -> Result<()> {
        loop {
            let left = self.size - *offset;
            let (length, mut slots) = pieces.map_or((left, None), |pieces| pieces.first(left));
            let first = self.open(*offset, *offset + length).await?;
            let mut next = first.end;
            if next >= self.size {
                // All of the rest comes in this answer.
                slots = None;
            }
            let etag = first.etag.clone();
            let mut queue = VecDeque::new();
            let mut fill = |queue: &mut VecDeque<Piece>| {
                let Some(pieces) = pieces else { return };
                while next < self.size
                    && let Some(slots) = slots.take().or_else(|| pieces.ahead())
                {
                    let end = next.saturating_add(pieces.size).min(self.size);
                    queue.push_back(self.ahead(next, end, etag.clone(), slots));
                    next = end;
                }
            };
            if length < left {
                fill(&mut queue);
            }
            self.forward(first, offset, out).await?;
            while let Some(Piece {
                chunks: mut queued,
                task,
                slots,
            }) = queue.pop_front()
            {
                // It goes on in the blob's own slots.
                drop(slots);
                fill(&mut queue);
                while let Some(data) = queued.recv().await {
                    let length = data.len() as u64;
                    out.send(data, &self.what).await?;
                    *offset += length;
                }
                task.await.map_err(|error| Error::unknown(&*self.what, error))??;
            }
            if *offset >= self.size {
                return Ok(());
            }
        }
    }

    /// Fetches the piece from `start` to `end` into a queue.
    fn ahead(&self, start: u64, end: u64, etag: Option<HeaderValue>, slots: Slots) -> Piece {
        let (sender, chunks) = mpsc::channel(QUEUE / MAX_CHUNK);
        let fetch = self.clone();
        let task = tokio::spawn(async move {
            let mut offset = start;
            let mut tries = Tries::default();
            let mut out = Out::new(sender, true);
            while offset < end {
                let before = offset;
                let fetched = async {
                    let opened = fetch.open(offset, end).await?;
                    if opened.skip > 0 || opened.end > end || opened.etag != etag {
                        fetch.mode.fetch_max(REST, Ordering::Relaxed);
                        return Err(Error::precondition(format!(
                            "{}: the pieces are not of one blob",
                            fetch.what
                        )));
                    }
                    fetch.forward(opened, &mut offset, &mut out).await
                };
                if let Err(error) = fetched.await {
                    tries.again(error, offset > before).await?;
                }
            }
            out.flush(&fetch.what).await
        });
        Piece {
            chunks,
            task: AbortOnDropHandle::new(task),
            slots,
        }
    }

    /// Asks for the bytes from `start` to `end`; the answer may have fewer of them, or all of the blob.
    async fn open(&self, start: u64, end: u64) -> Result<Opened> {
        let mut headers = HeaderMap::new();
        if (start, end) != (0, self.size) && self.mode.load(Ordering::Relaxed) < ALL {
            let range = match end == self.size {
                true => format!("bytes={start}-"),
                false => format!("bytes={start}-{}", end - 1),
            };
            let range =
                HeaderValue::try_from(range).map_err(|error| Error::unknown(self.what.to_string(), error))?;
            headers.insert(RANGE, range);
        }
        let response = self.place.ask(headers, &self.what).await?;
        let (skip, end) = self.extent(response.status(), response.headers(), start, end)?;
        Ok(Opened {
            skip,
            end,
            etag: response.headers().get(ETAG).cloned(),
            body: response.into_body(),
        })
    }

    /// How many bytes at the start of an answer are not wanted, and where it ends.
    fn extent(&self, status: StatusCode, headers: &HeaderMap, start: u64, end: u64) -> Result<(u64, u64)> {
        let (what, size) = (&self.what, self.size);
        let text = |name| {
            headers
                .get(name)
                .and_then(|value: &HeaderValue| value.to_str().ok())
        };
        if status == StatusCode::PARTIAL_CONTENT {
            let found = text(CONTENT_RANGE).and_then(content_range);
            return match found {
                Some((_, _, Some(total))) if total != size => Err(Error::precondition(format!(
                    "{what}: the registry has {total} bytes, its descriptor says {size}"
                ))),
                Some((first, last, _)) if first == start && (first..end).contains(&last) => Ok((0, last + 1)),
                _ => {
                    let simpler = if end < size { REST } else { ALL };
                    self.mode.fetch_max(simpler, Ordering::Relaxed);
                    Err(Error::precondition(format!(
                        "{what}: the registry sent another range than was asked for"
                    )))
                }
            };
        }
        let announced = text(CONTENT_LENGTH).and_then(|length| length.parse::<u64>().ok());
        match announced {
            Some(announced) if announced != size => Err(Error::precondition(format!(
                "{what}: the registry has {announced} bytes, its descriptor says {size}"
            ))),
            _ => Ok((start, size)),
        }
    }

    /// Hands on what an answer brings, but for what was there before.
    async fn forward(&self, opened: Opened, offset: &mut u64, out: &mut Out) -> Result<()> {
        let Opened {
            mut body,
            mut skip,
            end,
            ..
        } = opened;
        let mut pace = Pace::default();
        while let Some(mut data) = pace
            .watch(http::next_data(&mut body, &self.what), &self.what)
            .await?
        {
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(data.len());
            drop(data.split_to(skipped));
            skip -= skipped as u64;
            if data.is_empty() {
                continue;
            }
            if data.len() as u64 > end - *offset {
                return Err(Error::precondition(format!(
                    "{}: more than the {} bytes of its descriptor",
                    self.what, self.size
                )));
            }
            let length = data.len() as u64;
            out.send(data, &self.what).await?;
            *offset += length;
        }
        if *offset < end {
            return Err(Error::unavailable(format!(
                "{}: ended after {offset} of {} bytes",
                self.what, self.size
            )));
        }
        Ok(())
    }
}

/// The first byte, the last byte and the size of the whole, if it is told, of `bytes 0-9/10`.
pub(super) fn content_range(text: &str) -> Option<(u64, u64, Option<u64>)> {
    let (range, total) = text.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (first, last) = range.split_once('-')?;
    let total = match total.trim() {
        "*" => None,
        total => Some(total.parse().ok()?),
    };
    Some((first.trim().parse().ok()?, last.trim().parse().ok()?, total))
}
