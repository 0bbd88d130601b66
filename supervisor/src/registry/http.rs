//! One HTTP exchange: TLS with the host's certificate authorities, time-outs, redirects.
//!
//! Redirects are followed for reading only; to another host they take no authorization along, and from HTTPS never to
//! plain HTTP. Neither bodies nor headers are read without bounds and a time-out.

use std::{io, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, Response, StatusCode, Uri,
    body::Incoming,
    header::{AUTHORIZATION, HeaderValue, LOCATION, USER_AGENT},
};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use crate::error::{Error, Kind, Result};

const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// How long a body may give nothing.
pub(super) const STALL_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_REDIRECTS: usize = 10;
const AGENT: &str = concat!("wharf/", env!("CARGO_PKG_VERSION"));

/// Connections to registries.
#[derive(Clone)]
pub(super) struct Http {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// What is asked for.
#[derive(Clone)]
pub(super) struct Ask {
    pub(super) method: Method,
    pub(super) uri: Uri,
    pub(super) headers: HeaderMap,
    pub(super) authorization: Option<HeaderValue>,
    pub(super) body: Bytes,
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
    /// Reads the host's certificate authorities. Blocks shortly on their files.
    pub(super) fn new() -> Result<Self> {
        let provider = || std::sync::Arc::new(rustls::crypto::ring::default_provider());
        let builder = || {
            rustls::ClientConfig::builder_with_provider(provider())
                .with_safe_default_protocol_versions()
                .map_err(|error| Error::unknown("set up TLS", error))
        };
        let tls = match builder()?.with_native_roots() {
            Ok(trusting) => trusting.with_no_client_auth(),
            // A host without authorities trusts nobody over HTTPS; registries on loopback still work.
            Err(_none) => builder()?
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth(),
        };
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(Some(CONNECT_TIMEOUT));
        http.set_nodelay(true);
        let connector = HttpsConnectorBuilder::new()
            .with_tls_config(tls)
            .https_or_http()
            .enable_http1()
            .wrap_connector(http);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(30))
            .build(connector);
        Ok(Self { client })
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
        }
        let request = request.body(Full::new(ask.body.clone())).map_err(|error| {
            lasting(Error::invalid(format!("{} {}", ask.method, ask.uri)).caused_by(error))
        })?;
        match tokio::time::timeout(ANSWER_TIMEOUT, self.client.request(request)).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(Failure {
                error: unreachable_host(ask, &error),
                may_pass: !error.is_connect(),
            }),
            Err(_elapsed) => Err(Failure {
                error: Error::unavailable(format!(
                    "{} {}: no answer within {} seconds",
                    ask.method,
                    without_query(&ask.uri),
                    ANSWER_TIMEOUT.as_secs()
                )),
                may_pass: true,
            }),
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

/// Where a redirect leads: an absolute URL, or a path on the same host.
fn target(from: &Uri, headers: &HeaderMap) -> Result<Uri> {
    let refused = |reason: &str| Error::invalid(format!("redirect from {}: {reason}", without_query(from)));
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
