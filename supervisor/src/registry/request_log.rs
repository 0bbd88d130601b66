//! What a client may see of the requests to registries (`http_debug`): heads of requests and answers, over a stream of its
//! own or in the daemon's log; and how long answers take, always in the log.
//!
//! Bodies are not told, nor what signs or authorises: a log is read by more people than the registry. A client that does
//! not read holds nothing up: it misses lines, and is told how many.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{AUTHORIZATION, COOKIE, LOCATION, PROXY_AUTHORIZATION, SET_COOKIE},
};
use tokio::sync::mpsc;

use super::http::without_query;

/// What stands for a secret.
const SECRET: &str = "<redacted>";

/// Which requests are told, and where. Cheap to clone; the default tells nothing.
#[derive(Debug, Clone, Default)]
pub(crate) struct RequestLog {
    heads: Option<Heads>,
    times: bool,
}

#[derive(Debug, Clone)]
enum Heads {
    /// Into the daemon's log.
    Log,
    /// To the client; how many texts it missed.
    Client(mpsc::Sender<Bytes>, Arc<AtomicU64>),
}

impl RequestLog {
    /// Tells `heads`, to `client` if there is one, and `times`.
    pub(crate) fn new(heads: bool, times: bool, client: Option<mpsc::Sender<Bytes>>) -> Self {
        let to = match client {
            Some(client) => Heads::Client(client, Arc::default()),
            None => Heads::Log,
        };
        Self {
            heads: heads.then_some(to),
            times,
        }
    }

    pub(super) fn request(&self, method: &Method, uri: &Uri, headers: &HeaderMap) {
        if self.heads.is_some() {
            let path = uri.path();
            let query = if uri.query().is_some() { "?…" } else { "" };
            let host = uri.authority().map_or("", |authority| authority.as_str());
            let head = format!("{method} {path}{query} HTTP/1.1\r\nHost: {host}\r\n");
            self.head(head, headers);
        }
    }

    pub(super) fn answer(
        &self,
        method: &Method,
        uri: &Uri,
        status: StatusCode,
        headers: &HeaderMap,
        took: Duration,
    ) {
        if self.times {
            let uri = without_query(uri);
            tracing::info!(%method, uri, status = status.as_u16(), milliseconds = took.as_millis(), "registry answered");
        }
        if self.heads.is_some() {
            self.head(format!("HTTP/1.1 {status}\r\n"), headers);
        }
    }

    fn head(&self, mut head: String, headers: &HeaderMap) {
        for (name, value) in headers {
            let is_secret = value.is_sensitive()
                || [AUTHORIZATION, PROXY_AUTHORIZATION, COOKIE, SET_COOKIE].contains(name);
            let text = match value.to_str() {
                _ if is_secret => SECRET.to_owned(),
                // Where uploads go and downloads come from may be signed.
                Ok(text) if name == LOCATION => text.split('?').next().unwrap_or_default().to_owned(),
                Ok(text) => text.to_owned(),
                Err(_) => format!("{:?}", value.as_bytes()),
            };
            // Writing to a string does not fail.
            let _ = write!(head, "{name}: {text}\r\n");
        }
        head.push_str("\r\n");
        match &self.heads {
            None => {}
            Some(Heads::Log) => tracing::info!(head, "registry"),
            Some(Heads::Client(client, missed)) => {
                let before = missed.load(Ordering::Relaxed);
                if before > 0 {
                    head = format!("({before} texts are missing here)\r\n\r\n{head}");
                }
                match client.try_send(head.into()) {
                    Ok(()) => drop(missed.fetch_sub(before, Ordering::Relaxed)),
                    Err(_) => drop(missed.fetch_add(1, Ordering::Relaxed)),
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use hyper::header::HeaderValue;

    use super::*;

    #[test]
    fn heads_are_told_without_secrets_and_hold_nobody_up() {
        let (sender, mut receiver) = mpsc::channel(2);
        let log = RequestLog::new(true, false, Some(sender));
        let mut headers = HeaderMap::new();
        headers.insert("accept", HeaderValue::from_static("*/*"));
        headers.insert(AUTHORIZATION, HeaderValue::from_static("Bearer hidden"));
        let mut own = HeaderValue::from_static("hidden");
        own.set_sensitive(true);
        headers.insert("x-key", own);
        let uri = Uri::from_static("http://host:1/v2/a?token=hidden");
        log.request(&Method::GET, &uri, &headers);
        let mut headers = HeaderMap::new();
        headers.insert(LOCATION, HeaderValue::from_static("http://b/c?sign=hidden"));
        for _ in 0..3 {
            log.answer(&Method::GET, &uri, StatusCode::FOUND, &headers, Duration::ZERO);
        }
        let told = |bytes: Bytes| String::from_utf8(bytes.to_vec()).unwrap();
        let request = told(receiver.try_recv().unwrap());
        assert!(
            request.starts_with("GET /v2/a?… HTTP/1.1\r\nHost: host:1\r\naccept: */*\r\n"),
            "{request}"
        );
        assert!(!request.contains("hidden"), "{request}");
        let answer = told(receiver.try_recv().unwrap());
        assert_eq!(answer, "HTTP/1.1 302 Found\r\nlocation: http://b/c\r\n\r\n");
        log.answer(
            &Method::GET,
            &uri,
            StatusCode::OK,
            &HeaderMap::new(),
            Duration::ZERO,
        );
        assert!(told(receiver.try_recv().unwrap()).starts_with("(2 texts are missing here)"));
        RequestLog::default().request(&Method::GET, &uri, &headers);
    }
}
