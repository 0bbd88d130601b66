//! Spans of the API's calls, for an OpenTelemetry collector: OTLP over HTTP, in protobuf (`http/protobuf`).
//!
//! Only with the feature `otlp`, and only when an endpoint is configured. Configured as OpenTelemetry's SDKs are, by
//! `OTEL_EXPORTER_OTLP_ENDPOINT` and its kind, and as containerd is. Spans wait in a bounded queue and are sent
//! every five seconds; what a collector does not take is lost, and never waited for by a call. gRPC as the transport is
//! refused by name.

mod export;
mod message;
mod settings;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use hyper::HeaderMap;
use tokio::sync::mpsc;

use export::Exporter;
use message::{AnyValue, ERROR, KeyValue, SERVER, Span, Status, any_value, text};
pub use settings::Settings;

use crate::error::Result;

/// How many spans wait at most: `OTEL_BSP_MAX_QUEUE_SIZE`'s default.
const QUEUE: usize = 2048;

/// Takes spans; cheap to clone.
#[derive(Debug, Clone)]
pub struct Tracer {
    spans: mpsc::Sender<Span>,
    ratio: f64,
    lost: Arc<AtomicU64>,
}

/// A call that is under way.
#[derive(Debug)]
pub struct Begun {
    tracer: Tracer,
    span: Span,
}

impl Tracer {
    /// Sends spans to the collector of `settings` until the last clone is gone; the task ends once what waited is sent.
    ///
    /// # Errors
    ///
    /// `Unknown`: the host's certificate authorities cannot be read.
    pub fn start(settings: Settings) -> Result<(Self, tokio::task::JoinHandle<()>)> {
        let (sender, spans) = mpsc::channel(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let tracer = Self {
            spans: sender,
            ratio: settings.ratio,
            lost: Arc::clone(&lost),
        };
        let exporter = Exporter::new(settings)?;
        Ok((tracer, tokio::spawn(exporter.run(spans, lost))))
    }

    /// Begins the span of a call to `path`; `None` if its trace is not wanted.
    pub fn begin(&self, path: &str, headers: &HeaderMap) -> Option<Begun> {
        let parent = headers
            .get("traceparent")
            .and_then(|value| value.to_str().ok())
            .and_then(Parent::parse);
        let mut random = [0; 24];
        getrandom::fill(&mut random).ok()?;
        let (trace, span) = random.split_at(16);
        let (trace_id, parent_span_id) = match parent {
            Some(parent) if !parent.sampled => return None,
            Some(parent) => (parent.trace, parent.span),
            None => {
                let mut share = [0; 8];
                share.copy_from_slice(&trace[8..]);
                if u64::from_be_bytes(share) as f64 >= self.ratio * u64::MAX as f64 && self.ratio < 1.0 {
                    return None;
                }
                (trace.to_vec(), Vec::new())
            }
        };
        let name = path.trim_start_matches('/');
        let (service, method) = name.split_once('/').unwrap_or(("", name));
        let span = Span {
            trace_id,
            span_id: span.to_vec(),
            parent_span_id,
            name: name.to_owned(),
            kind: SERVER,
            start_time_unix_nano: now(),
            attributes: vec![
                text("rpc.system", "grpc"),
                text("rpc.service", service),
                text("rpc.method", method),
            ],
            ..Span::default()
        };
        Some(Begun {
            tracer: self.clone(),
            span,
        })
    }
}

impl Begun {
    /// Ends the span with a gRPC code.
    pub fn end(mut self, code: usize) {
        self.span.end_time_unix_nano = now();
        self.span.attributes.push(KeyValue {
            key: "rpc.grpc.status_code".to_owned(),
            value: Some(AnyValue {
                value: Some(any_value::Value::Int(i64::try_from(code).unwrap_or(i64::MAX))),
            }),
        });
        // What the conventions call errors of a server, not of its caller.
        if matches!(code, 2 | 4 | 12 | 13 | 14 | 15) {
            self.span.status = Some(Status { code: ERROR });
        }
        if self.tracer.spans.try_send(self.span).is_err() {
            self.tracer.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// `traceparent` of W3C's Trace Context.
#[derive(Debug, PartialEq, Eq)]
struct Parent {
    trace: Vec<u8>,
    span: Vec<u8>,
    sampled: bool,
}

impl Parent {
    fn parse(header: &str) -> Option<Self> {
        let mut parts = header.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        let (version, trace, span, flags) = (hex(version)?, hex(trace)?, hex(span)?, hex(flags)?);
        let sized = version.len() == 1 && trace.len() == 16 && span.len() == 8 && flags.len() == 1;
        let last = version == [0] && parts.next().is_some();
        if !sized || last || version == [0xff] || trace == [0; 16] || span == [0; 8] {
            return None;
        }
        Some(Self {
            trace,
            span,
            sampled: flags[0] & 1 == 1,
        })
    }
}

fn hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2)
        || !text
            .bytes()
            .all(|byte| byte.is_ascii_hexdigit() && !byte.is_ascii_uppercase())
    {
        return None;
    }
    (0..text.len())
        .step_by(2)
        .map(|place| u8::from_str_radix(&text[place..place + 2], 16).ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{message::Export, *};
    use prost::Message as _;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

    #[test]
    fn parents_are_taken_from_w3cs_header() {
        let parent = Parent::parse("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").unwrap();
        assert!(parent.sampled);
        assert_eq!((parent.trace[0], parent.span[0]), (0x0a, 0xb7));
        for bad in [
            "",
            "00-0-0-0",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "00-0af7651916cd43dd8448eb211c80319é-b7ad6b7169203331-01",
        ] {
            assert_eq!(Parent::parse(bad), None, "{bad}");
        }
    }

    fn settings(endpoint: &str) -> Settings {
        Settings {
            endpoint: format!("{endpoint}/v1/traces").parse().unwrap(),
            headers: vec![("x-key".to_owned(), "secret".to_owned())],
            service: "test".to_owned(),
            ratio: 1.0,
        }
    }

    /// A collector that takes one request: its head, and its body.
    async fn collect(listener: tokio::net::TcpListener) -> (String, Export) {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut received = Vec::new();
        loop {
            stream.read_buf(&mut received).await.unwrap();
            let Some(end) = received.windows(4).position(|window| window == b"\r\n\r\n") else {
                continue;
            };
            let head = String::from_utf8(received[..end].to_vec())
                .unwrap()
                .to_lowercase();
            let length = head.split("content-length: ").nth(1).unwrap();
            let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
            if received.len() < end + 4 + length {
                continue;
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")
                .await
                .unwrap();
            return (head, Export::decode(&received[end + 4..]).unwrap());
        }
    }

    #[tokio::test]
    async fn a_collector_gets_the_spans_of_calls() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let collector = tokio::spawn(collect(listener));
        let (tracer, sending) = Tracer::start(settings(&endpoint)).unwrap();
        let mut headers = HeaderMap::new();
        headers.insert(
            "traceparent",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
                .parse()
                .unwrap(),
        );
        tracer.begin("/a.B/C", &headers).unwrap().end(14);
        tracer.begin("/a.B/D", &HeaderMap::new()).unwrap().end(5);
        drop(tracer);
        sending.await.unwrap();
        let (head, export) = collector.await.unwrap();
        assert!(
            head.starts_with("post /v1/traces ") && head.contains("x-key: secret"),
            "{head}"
        );
        let spans = &export.resource_spans[0].scope_spans[0].spans;
        assert_eq!(
            (spans[0].name.as_str(), spans[1].name.as_str()),
            ("a.B/C", "a.B/D")
        );
        assert_eq!(spans[0].parent_span_id[0], 0xb7);
        assert_eq!(spans[0].status, Some(Status { code: ERROR }));
        assert_eq!((spans[1].parent_span_id.len(), &spans[1].status), (0, &None));
        assert!(spans[0].end_time_unix_nano >= spans[0].start_time_unix_nano);
    }

    #[tokio::test]
    async fn a_collector_that_is_not_there_holds_nothing_up() {
        let unused = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", unused.local_addr().unwrap());
        drop(unused);
        let (tracer, sending) = Tracer::start(settings(&endpoint)).unwrap();
        for _ in 0..2 * QUEUE {
            tracer.begin("/a/b", &HeaderMap::new()).unwrap().end(0);
        }
        assert!(tracer.lost.load(Ordering::Relaxed) > 0);
        drop(tracer);
        sending.await.unwrap();
    }
}
