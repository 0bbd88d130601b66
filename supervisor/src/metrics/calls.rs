//! Counting the API's calls: the `grpc_server_…` families of the Go ecosystem's gRPC middleware.
//!
//! A call is counted as handled when its status goes out; one whose client went away first counts as `Canceled`.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Instant,
};

use bytes::{Buf as _, Bytes};
use futures_util::future::{BoxFuture, Either};
use hyper::{
    HeaderMap, Request, Response,
    body::{Frame, SizeHint},
};
use tonic::{Status, body::Body};

use super::text::{Kind, Page};

/// The most methods that are told apart: a client may call whatever it likes.
const METHODS: usize = 256;
/// What calls beyond that are counted as.
const OTHER: &str = "/other/other";
/// The upper ends of the histogram's buckets, in seconds.
const BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// gRPC's codes by their number, as Go writes them.
const CODES: [&str; 17] = [
    "OK",
    "Canceled",
    "Unknown",
    "InvalidArgument",
    "DeadlineExceeded",
    "NotFound",
    "AlreadyExists",
    "PermissionDenied",
    "ResourceExhausted",
    "FailedPrecondition",
    "Aborted",
    "OutOfRange",
    "Unimplemented",
    "Internal",
    "Unavailable",
    "DataLoss",
    "Unauthenticated",
];

/// What was counted, by method.
#[derive(Debug)]
pub struct Calls {
    histogram: bool,
    #[cfg(feature = "otlp")]
    tracer: Option<crate::trace::Tracer>,
    methods: Mutex<BTreeMap<String, Arc<Method>>>,
}

#[derive(Debug, Default)]
struct Method {
    started: AtomicU64,
    received: AtomicU64,
    sent: AtomicU64,
    handled: [AtomicU64; CODES.len()],
    /// Not cumulative; the last one is for what took longer.
    took: [AtomicU64; BUCKETS.len() + 1],
    nanoseconds: AtomicU64,
}

impl Calls {
    /// Nothing counted yet; the time that calls take as well if `histogram`.
    pub fn new(histogram: bool) -> Arc<Self> {
        Arc::new(Self {
            histogram,
            #[cfg(feature = "otlp")]
            tracer: None,
            methods: Mutex::default(),
        })
    }

    /// The same, with a span of each call.
    #[cfg(feature = "otlp")]
    pub fn traced(histogram: bool, tracer: crate::trace::Tracer) -> Arc<Self> {
        Arc::new(Self {
            histogram,
            tracer: Some(tracer),
            methods: Mutex::default(),
        })
    }

    #[cfg_attr(
        not(feature = "otlp"),
        expect(unused_variables, reason = "spans are told whose they are by them")
    )]
    fn begin(&self, path: &str, headers: &HeaderMap) -> Call {
        let mut methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
        let method = match methods.get(path) {
            Some(method) => Arc::clone(method),
            None => {
                let name = if methods.len() < METHODS { path } else { OTHER };
                Arc::clone(methods.entry(name.to_owned()).or_default())
            }
        };
        drop(methods);
        method.started.fetch_add(1, Relaxed);
        Call {
            method,
            begun: Instant::now(),
            ended: false,
            #[cfg(feature = "otlp")]
            span: self
                .tracer
                .as_ref()
                .and_then(|tracer| tracer.begin(path, headers)),
        }
    }

    /// Adds the families to `page`.
    pub fn write(&self, page: &mut Page) {
        let methods: Vec<_> = {
            let methods = self.methods.lock().unwrap_or_else(PoisonError::into_inner);
            methods
                .iter()
                .map(|(path, method)| (path.clone(), Arc::clone(method)))
                .collect()
        };
        let labelled: Vec<_> = methods
            .iter()
            .map(|(path, method)| (labels(path), method))
            .collect();
        type Read = fn(&Method) -> &AtomicU64;
        let plain: [(&str, &str, Read); 3] = [
            ("grpc_server_started_total", "Calls that were begun", |method| {
                &method.started
            }),
            (
                "grpc_server_msg_received_total",
                "Messages that were received",
                |method| &method.received,
            ),
            (
                "grpc_server_msg_sent_total",
                "Messages that were sent",
                |method| &method.sent,
            ),
        ];
        for (name, help, read) in plain {
            page.family(name, Kind::Counter, help);
            for (labels, method) in &labelled {
                page.sample(name, labels, read(method).load(Relaxed) as f64);
            }
        }
        let name = "grpc_server_handled_total";
        page.family(name, Kind::Counter, "Calls that ended, by their code");
        for (labels, method) in &labelled {
            for (code, count) in CODES.iter().zip(&method.handled) {
                let count = count.load(Relaxed);
                if count > 0 {
                    page.sample(
                        name,
                        &[&[("grpc_code", *code)], &labels[..]].concat(),
                        count as f64,
                    );
                }
            }
        }
        if self.histogram {
            page.family(
                "grpc_server_handling_seconds",
                Kind::Histogram,
                "How long calls took",
            );
            for (labels, method) in &labelled {
                method.write_histogram(labels, page);
            }
        }
    }
}

impl Method {
    fn write_histogram(&self, labels: &[(&str, &str)], page: &mut Page) {
        let mut count = 0;
        let ends = BUCKETS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (end, bucket) in ends.zip(&self.took) {
            count += bucket.load(Relaxed);
            let labels = [labels, &[("le", end.as_str())]].concat();
            page.sample("grpc_server_handling_seconds_bucket", &labels, count as f64);
        }
        let sum = self.nanoseconds.load(Relaxed) as f64 / 1e9;
        page.sample("grpc_server_handling_seconds_sum", labels, sum);
        page.sample("grpc_server_handling_seconds_count", labels, count as f64);
    }
}

/// The labels of a method: `/package.Service/Method`.
fn labels(path: &str) -> [(&'static str, &str); 3] {
    let (service, method) = path
        .strip_prefix('/')
        .and_then(|path| path.split_once('/'))
        .unwrap_or(("unknown", path));
    let kind = match (service.rsplit('.').next(), method) {
        (Some("Content"), "Write") | (Some("Streaming"), "Stream") => "bidi_stream",
        (Some("Content"), "Read" | "List")
        | (Some("Containers"), "ListStream")
        | (Some("Snapshots"), "List")
        | (Some("Events"), "Subscribe")
        | (Some("Health"), "Watch") => "server_stream",
        _ => "unary",
    };
    [
        ("grpc_method", method),
        ("grpc_service", service),
        ("grpc_type", kind),
    ]
}

/// One call, from its beginning to its end.
#[derive(Debug)]
struct Call {
    method: Arc<Method>,
    begun: Instant,
    ended: bool,
    #[cfg(feature = "otlp")]
    span: Option<crate::trace::Begun>,
}

impl Call {
    fn end(&mut self, code: usize) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        let took = self.begun.elapsed();
        self.method.handled[code.min(CODES.len() - 1)].fetch_add(1, Relaxed);
        let bucket = BUCKETS.partition_point(|end| *end < took.as_secs_f64());
        self.method.took[bucket].fetch_add(1, Relaxed);
        let nanoseconds = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.method.nanoseconds.fetch_add(nanoseconds, Relaxed);
        #[cfg(feature = "otlp")]
        if let Some(span) = self.span.take() {
            span.end(code);
        }
    }

    /// Ends the call if `headers` carry its status.
    fn see(&mut self, headers: &HeaderMap) {
        if let Some(status) = Status::from_header_map(headers) {
            self.end(status.code() as usize);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        self.end(tonic::Code::Cancelled as usize);
    }
}

/// Counts the calls of a service; passes everything through when there is nothing to count with.
#[derive(Debug, Clone)]
pub struct Counting(pub Option<Arc<Calls>>);

impl<S> tower::Layer<S> for Counting {
    type Service = Counted<S>;

    fn layer(&self, inner: S) -> Self::Service {
        Counted {
            inner,
            calls: self.0.clone(),
        }
    }
}

/// See [`Counting`].
#[derive(Debug, Clone)]
pub struct Counted<S> {
    inner: S,
    calls: Option<Arc<Calls>>,
}

impl<S> tower_service::Service<Request<Body>> for Counted<S>
where
    S: tower_service::Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(calls) = &self.calls else {
            return Either::Left(self.inner.call(request));
        };
        let mut call = calls.begin(request.uri().path(), request.headers());
        let method = Arc::clone(&call.method);
        let answer = self.inner.call(request.map(|body| {
            Body::new(Counter {
                body,
                messages: Messages::default(),
                method,
                received: true,
                call: None,
            })
        }));
        Either::Right(Box::pin(async move {
            let answer = answer.await?;
            // Without messages the status is among the headers.
            call.see(answer.headers());
            let method = Arc::clone(&call.method);
            Ok(answer.map(|body| {
                Body::new(Counter {
                    body,
                    messages: Messages::default(),
                    method,
                    received: false,
                    call: Some(call),
                })
            }))
        }))
    }
}

/// A body whose messages are counted; the answer's also carries the call's status at its end.
struct Counter {
    body: Body,
    messages: Messages,
    method: Arc<Method>,
    received: bool,
    call: Option<Call>,
}

impl hyper::body::Body for Counter {
    type Data = Bytes;
    type Error = Status;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Status>>> {
        let this = self.get_mut();
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(context));
        if let Some(Ok(frame)) = &frame {
            if let Some(data) = frame.data_ref() {
                let count = this.messages.see(data.clone());
                let counter = if this.received {
                    &this.method.received
                } else {
                    &this.method.sent
                };
                counter.fetch_add(count, Relaxed);
            }
            if let (Some(trailers), Some(call)) = (frame.trailers_ref(), &mut this.call) {
                call.see(trailers);
            }
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Where in its messages a body is: each has a byte of flags and four of its length before it.
#[derive(Debug, Default)]
struct Messages {
    head: [u8; 5],
    /// How many bytes of the head are there.
    filled: usize,
    /// How many bytes of the message are still to come.
    rest: usize,
}

impl Messages {
    /// How many messages begin in `data`.
    fn see(&mut self, mut data: Bytes) -> u64 {
        let mut count = 0;
        while data.has_remaining() {
            let skipped = self.rest.min(data.remaining());
            data.advance(skipped);
            self.rest -= skipped;
            let taken = (self.head.len() - self.filled).min(data.remaining());
            if self.rest > 0 || taken == 0 {
                continue;
            }
            data.copy_to_slice(&mut self.head[self.filled..self.filled + taken]);
            self.filled += taken;
            if self.filled == self.head.len() {
                let [_, length @ ..] = self.head;
                self.rest = u32::from_be_bytes(length) as usize;
                self.filled = 0;
                count += 1;
            }
        }
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_counted_however_they_are_cut() {
        let stream = [&[0, 0, 0, 0, 2, 9, 9][..], &[0, 0, 0, 0, 0], &[0, 0, 0, 0, 1, 9]].concat();
        for size in 1..=stream.len() {
            let mut messages = Messages::default();
            let count: u64 = stream
                .chunks(size)
                .map(|chunk| messages.see(Bytes::copy_from_slice(chunk)))
                .sum();
            assert_eq!(count, 3, "in chunks of {size}");
        }
    }

    #[test]
    fn calls_are_counted_once_by_method_and_code() {
        let calls = Calls::new(true);
        let path = "/containerd.services.content.v1.Content/Read";
        let mut call = calls.begin(path, &HeaderMap::new());
        call.end(tonic::Code::NotFound as usize);
        call.end(0);
        drop(call);
        drop(calls.begin(path, &HeaderMap::new()));
        let mut page = Page::default();
        calls.write(&mut page);
        let page = page.into_text();
        let labels = "grpc_method=\"Read\",grpc_service=\"containerd.services.content.v1.Content\",grpc_type=\"server_stream\"";
        for line in [
            format!("grpc_server_started_total{{{labels}}} 2\n"),
            format!("grpc_server_handled_total{{grpc_code=\"NotFound\",{labels}}} 1\n"),
            format!("grpc_server_handled_total{{grpc_code=\"Canceled\",{labels}}} 1\n"),
            format!("grpc_server_handling_seconds_bucket{{{labels},le=\"+Inf\"}} 2\n"),
            format!("grpc_server_handling_seconds_count{{{labels}}} 2\n"),
        ] {
            assert!(page.contains(&line), "{line}{page}");
        }
    }

    #[test]
    fn what_clients_invent_takes_no_more_memory() {
        let calls = Calls::new(false);
        for number in 0..2 * METHODS {
            calls.begin(&format!("/made/up{number}"), &HeaderMap::new());
        }
        let methods = calls.methods.lock().unwrap();
        assert_eq!(methods.len(), METHODS + 1);
        assert_eq!(methods[OTHER].started.load(Relaxed), METHODS as u64);
    }
}
