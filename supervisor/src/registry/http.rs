//! One HTTP exchange: time-outs, redirects, and what is sent along.
//!
//! Redirects are followed for reading only; to another host they take no authorization along, and from HTTPS never to
//! plain HTTP. Neither bodies nor headers are read without bounds and a time-out.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures_util::{Stream, StreamExt as _};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::{Frame, Incoming},
    header::{AUTHORIZATION, CONTENT_LENGTH, HeaderValue, LOCATION, PROXY_AUTHORIZATION, USER_AGENT},
};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::Client,
    rt::{TokioExecutor, TokioTimer},
};

use super::{foreign::is_near, proxy::Connector, request_log::RequestLog, tls::Tls};
use crate::error::{Error, Kind, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_TIMEOUT: Duration = in_tests(Duration::from_secs(60), Duration::from_secs(3));
/// How long a body may give nothing.
pub(super) const STALL_TIMEOUT: Duration = in_tests(Duration::from_secs(30), Duration::from_secs(2));
/// The most bytes that [`next_data`] gives at once.
pub(super) const MAX_CHUNK: usize = 64 * 1024;
const MAX_REDIRECTS: usize = 10;
const AGENT: &str = concat!("wharf/", env!("CARGO_PKG_VERSION"));

/// No test waits for what a person would wait for.
const fn in_tests(real: Duration, shorter: Duration) -> Duration {
    if cfg!(test) { shorter } else { real }
}

/// Connections to registries.
#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<Connector>, UnsyncBoxBody<Bytes, io::Error>>,
    connector: Connector,
    log: RequestLog,
}

/// A stream of what is sent.
pub(super) type Chunks = std::pin::Pin<Box<dyn Stream<Item = io::Result<Bytes>> + Send>>;

/// What is sent with a request; it can be sent again.
#[derive(Clone)]
pub(super) enum Payload {
    /// A few bytes.
    Bytes(Bytes),
    /// Many bytes, as they are read.
    Stream {
        /// How many.
        size: u64,
        /// Reads them, from the start.
        open: Arc<dyn Fn() -> Chunks + Send + Sync>,
    },
}

impl Default for Payload {
    fn default() -> Self {
        Self::Bytes(Bytes::new())
    }
}

impl Payload {
    /// The body of one request; `sent` counts its bytes.
    fn body(&self, sent: &Arc<AtomicU64>) -> UnsyncBoxBody<Bytes, io::Error> {
        match self {
            Self::Bytes(bytes) => Full::new(bytes.clone())
                .map_err(|never| match never {})
                .boxed_unsync(),
            Self::Stream { open, .. } => {
                let sent = Arc::clone(sent);
                let frames = open().map(move |chunk| {
                    chunk.map(|bytes| {
                        sent.fetch_add(bytes.len() as u64, Ordering::Relaxed);
                        Frame::data(bytes)
                    })
                });
                BodyExt::boxed_unsync(StreamBody::new(frames))
            }
        }
    }
}

/// What is asked for.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) payload: Payload,
    /// Refuses redirects to this machine and its link, as the URL is nobody's whom we trust.
    pub(super) far: bool,
}

/// What came back, and whether the registry that was asked said it, or somebody it sent us to.
pub(super) struct Answer {
    pub(super) response: Response<Incoming>,
    pub(super) redirected: bool,
}

/// Why there is no answer.
pub(super) struct Failure {
    pub(super) error: Error,
    /// Whether a connection was there and broke: then a later try may go better.
    pub(super) may_pass: bool,
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        failure.error
    }
}

/// A failure that no second try changes.
fn lasting(error: Error) -> Failure {
    Failure {
        error,
        may_pass: false,
    }
}

impl Http {
    /// Connections to the host of `root` and to those it names, with `tls` and a bound on each attempt to connect. Blocks
    /// on the files that `tls` names, and for HTTPS on the host's certificate authorities.
    ///
    /// # Errors
    ///
    /// `InvalidArgument` naming a file that cannot be used.
    pub(super) fn new(root: &Uri, tls: &Tls, dial_timeout: Option<Duration>) -> Result<Self> {
        tracing::trace!(%root, "open a registry");
        let connector = Connector::new(dial_timeout.unwrap_or(CONNECT_TIMEOUT));
        let https = HttpsConnectorBuilder::new()
            .with_tls_config((*tls.config()?).clone())
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector.clone());
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .http1_max_buf_size(MAX_CHUNK)
            .build(https);
        Ok(Self {
            client,
            connector,
            log: RequestLog::default(),
        })
    }

    /// Tells `log` of each request.
    pub(super) fn telling(mut self, log: RequestLog) -> Self {
        self.log = log;
        self
    }

    /// Asks once, following redirects.
    ///
    /// # Errors
    ///
    /// `Unavailable` when no answer comes, with host and cause in the text; `InvalidArgument` for a redirect that is
    /// not followed.
    pub(super) async fn ask(&self, mut ask: Ask) -> Result<Answer, Failure> {
        let origin = ask.uri.clone();
        for _ in 0..=MAX_REDIRECTS {
            let response = self.once(&ask).await?;
            if !is_redirect(response.status()) || !matches!(ask.method, Method::GET | Method::HEAD) {
                return Ok(Answer {
                    response,
                    redirected: ask.uri.authority() != origin.authority(),
                });
            }
            let next = target(&ask.uri, response.headers()).map_err(lasting)?;
            if ask.far && is_near(next.host().unwrap_or_default()) {
                return Err(lasting(Error::invalid(format!(
                    "GET {}: redirected to an address of this machine or its link",
                    without_query(&origin)
                ))));
            }
            if next.authority() != ask.uri.authority() || next.scheme() != ask.uri.scheme() {
                ask.authorization = None;
            }
            ask.uri = next;
        }
        Err(lasting(Error::invalid(format!(
            "GET {origin}: more than {MAX_REDIRECTS} redirects"
        ))))
    }

    async fn once(&self, ask: &Ask) -> Result<Response<Incoming>, Failure> {
        let mut request = Request::builder().method(ask.method.clone()).uri(ask.uri.clone());
        if let Some(headers) = request.headers_mut() {
            headers.extend(ask.headers.clone());
            headers
                .entry(USER_AGENT)
                .or_insert(HeaderValue::from_static(AGENT));
            if let Some(authorization) = &ask.authorization {
                headers.insert(AUTHORIZATION, authorization.clone());
            }
            if let Some(authorization) = self.connector.forwarding_authorization(&ask.uri) {
                headers.insert(PROXY_AUTHORIZATION, authorization);
            }
        }
        if let (Payload::Stream { size, .. }, Some(headers)) = (&ask.payload, request.headers_mut()) {
            headers.insert(CONTENT_LENGTH, HeaderValue::from(*size));
        }
        let sent = Arc::new(AtomicU64::new(0));
        let request = request.body(ask.payload.body(&sent)).map_err(|error| {
            lasting(Error::invalid(format!("{} {}", ask.method, without_query(&ask.uri))).caused_by(error))
        })?;
        self.log.request(&ask.method, &ask.uri, request.headers());
        let asked = Instant::now();
        let mut answer = self.client.request(request);
        let mut before = 0;
        loop {
            match tokio::time::timeout(ANSWER_TIMEOUT, &mut answer).await {
                Ok(Ok(response)) => {
                    let (status, headers) = (response.status(), response.headers());
                    self.log
                        .answer(&ask.method, &ask.uri, status, headers, asked.elapsed());
                    return Ok(response);
                }
                Ok(Err(error)) => {
                    return Err(Failure {
                        error: unreachable_host(ask, &error),
                        may_pass: !error.is_connect() && !is_tls(&error),
                    });
                }
                Err(_elapsed) => {}
            }
            // Sending may take as long as it goes on.
            let now = sent.load(Ordering::Relaxed);
            if now == before {
                return Err(Failure {
                    error: Error::unavailable(format!(
                        "{} {}: no answer within {} seconds",
                        ask.method,
                        without_query(&ask.uri),
                        ANSWER_TIMEOUT.as_secs()
                    )),
                    may_pass: true,
                });
            }
            before = now;
        }
    }
}

/// Reads a whole body of at most `limit` bytes.
///
/// # Errors
///
/// `OutOfRange` when it is longer; `Unavailable` when it breaks off or stalls.
pub(super) async fn read_all(mut body: Incoming, limit: u64, what: &str) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    while let Some(data) = next_data(&mut body, what).await? {
        if bytes.len() as u64 + data.len() as u64 > limit {
            return Err(Error::new(
                Kind::OutOfRange,
                format!("{what}: longer than {limit} bytes"),
            ));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes)
}

/// The next bytes of a body; `None` at its end.
///
/// # Errors
///
/// `Unavailable` when it breaks off or stalls.
pub(super) async fn next_data(body: &mut Incoming, what: &str) -> Result<Option<Bytes>> {
    loop {
        match tokio::time::timeout(STALL_TIMEOUT, body.frame()).await {
            Ok(None) => return Ok(None),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
            Ok(Some(Err(error))) => {
                return Err(Error::unavailable(format!(
                    "{what}: connection lost: {}",
                    innermost(&error)
                )));
            }
            Err(_elapsed) => {
                return Err(Error::unavailable(format!(
                    "{what}: no data for {} seconds",
                    STALL_TIMEOUT.as_secs()
                )));
            }
        }
    }
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::MOVED_PERMANENTLY
            | StatusCode::FOUND
            | StatusCode::SEE_OTHER
            | StatusCode::TEMPORARY_REDIRECT
            | StatusCode::PERMANENT_REDIRECT
    )
}

/// Where a redirect, or the place of an upload, leads: an absolute URL, or a path on the same host.
pub(super) fn target(from: &Uri, headers: &HeaderMap) -> Result<Uri> {
    let refused = |reason: &str| Error::invalid(format!("location from {}: {reason}", without_query(from)));
    let location = headers
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .ok_or_else(|| refused("no location"))?;
    let to: Uri = location
        .parse()
        .map_err(|_malformed| refused("malformed location"))?;
    let to = match (to.scheme_str(), to.authority()) {
        (Some(_), Some(_)) => to,
        (None, None) if location.starts_with('/') => {
            let mut parts = from.clone().into_parts();
            parts.path_and_query = to.into_parts().path_and_query;
            Uri::from_parts(parts).map_err(|_malformed| refused("malformed location"))?
        }
        _ => return Err(refused("malformed location")),
    };
    match (from.scheme_str(), to.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) => Ok(to),
        _ => Err(refused("it leads from HTTPS to something less")),
    }
}

/// Why no answer came, as `dial tcp HOST: CAUSE`.
fn unreachable_host(ask: &Ask, error: &hyper_util::client::legacy::Error) -> Error {
    let host = ask.uri.authority().map_or("", |authority| authority.as_str());
    let port = match (ask.uri.port(), ask.uri.scheme_str()) {
        (Some(_), _) => "",
        (None, Some("http")) => ":80",
        (None, _) => ":443",
    };
    let cause = innermost(error);
    let cause = if error.is_connect() {
        format!("dial tcp {host}{port}: {cause}")
    } else {
        format!("{host}: {cause}")
    };
    Error::unavailable(format!("{} {}: {cause}", ask.method, without_query(&ask.uri)))
}

/// Whether TLS failed, which it does again: a server says only after the handshake that it wants another certificate.
fn is_tls(error: &(dyn std::error::Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        // An I/O error does not name what it wraps as its source, but the source of that.
        let wrapped = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if error.is::<rustls::Error>()
            || wrapped.is_some_and(<dyn std::error::Error + Send + Sync>::is::<rustls::Error>)
        {
            return true;
        }
        cause = error.source();
    }
    false
}

/// The innermost cause, in the words of the system where it is the system's.
fn innermost(error: &(dyn std::error::Error + 'static)) -> String {
    let mut cause = error;
    let mut system = None;
    loop {
        if let Some(error) = cause.downcast_ref::<io::Error>()
            && let Some(code) = error.raw_os_error()
        {
            system = Some(code);
        }
        match cause.source() {
            Some(source) => cause = source,
            None => break,
        }
    }
    match system.map(rustix::io::Errno::from_raw_os_error) {
        Some(rustix::io::Errno::CONNREFUSED) => "connection refused".into(),
        Some(rustix::io::Errno::CONNRESET) => "connection reset by peer".into(),
        Some(rustix::io::Errno::HOSTUNREACH) => "no route to host".into(),
        Some(rustix::io::Errno::NETUNREACH) => "network is unreachable".into(),
        Some(rustix::io::Errno::TIMEDOUT) => "connection timed out".into(),
        _ => cause.to_string(),
    }
}

/// Signed locations carry their secret in the query.
pub(super) fn without_query(uri: &Uri) -> String {
    let text = uri.to_string();
    text.split('?').next().unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn redirects_keep_or_raise_the_protection() {
        let to = |from: &'static str, location: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(LOCATION, HeaderValue::from_static(location));
            target(&Uri::from_static(from), &headers).map(|uri| uri.to_string())
        };
        assert_eq!(to("https://a/v2/x", "https://b/y?z").unwrap(), "https://b/y?z");
        assert_eq!(to("https://a/v2/x", "/y?z").unwrap(), "https://a/y?z");
        assert_eq!(to("http://a/v2/x", "http://b/y").unwrap(), "http://b/y");
        for bad in ["http://b/y", "ftp://b/y", "file:///etc/passwd", "y", ""] {
            assert!(to("https://a/v2/x", bad).is_err(), "{bad:?}");
        }
        assert!(target(&Uri::from_static("https://a/"), &HeaderMap::new()).is_err());
    }

    #[test]
    fn secrets_of_signed_locations_are_not_shown() {
        assert_eq!(
            without_query(&Uri::from_static("https://a/b?sig=secret")),
            "https://a/b"
        );
    }
}
