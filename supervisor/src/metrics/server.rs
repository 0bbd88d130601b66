//! The HTTP server that scrapes reach: one page, and nothing else.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::Full;
use hyper::{Method, Request, Response, StatusCode, body::Incoming, header::CONTENT_TYPE};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{net::TcpListener, sync::Semaphore, time::timeout};

use super::{calls::Calls, containers, process, text::Page};
use crate::{api, daemon::Daemon};

/// How many connections are served side by side.
const CONNECTIONS: usize = 16;
/// How many pages are made side by side: one asks all shims.
const SCRAPES: usize = 2;
/// How long a client may take to send its request, and to take what it asked for.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long nothing is accepted after that failed: out of file descriptors, say.
const PAUSE: Duration = Duration::from_millis(100);

/// Serves `GET /v1/metrics` on `listener` until the future is dropped.
pub async fn serve(listener: TcpListener, daemon: Arc<Daemon>, calls: Arc<Calls>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let scrapes = Arc::new(Semaphore::new(SCRAPES));
    let mut serving = tokio::task::JoinSet::new();
    loop {
        // Neither semaphore is ever closed.
        let Ok(place) = Arc::clone(&connections).acquire_owned().await else {
            return;
        };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "accept on the metrics' address");
                tokio::time::sleep(PAUSE).await;
                continue;
            }
        };
        while serving.try_join_next().is_some() {}
        let (daemon, calls, scrapes) = (Arc::clone(&daemon), Arc::clone(&calls), Arc::clone(&scrapes));
        serving.spawn(async move {
            let service = hyper::service::service_fn(|request| {
                let (daemon, calls, scrapes) =
                    (Arc::clone(&daemon), Arc::clone(&calls), Arc::clone(&scrapes));
                async move { Ok::<_, Infallible>(answer(&request, &daemon, &calls, &scrapes).await) }
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(PATIENCE)
                .max_buf_size(16 << 10)
                .serve_connection(TokioIo::new(stream), service);
            // One that asks for nothing any more, or is slow, may connect again.
            if let Ok(Err(error)) = timeout(PATIENCE, connection).await {
                tracing::debug!(%error, "scrape");
            }
            drop(place);
        });
    }
}

async fn answer(
    request: &Request<Incoming>,
    daemon: &Arc<Daemon>,
    calls: &Calls,
    scrapes: &Semaphore,
) -> Response<Full<Bytes>> {
    let refused = |status: StatusCode| {
        let mut response = Response::new(Full::from(format!("{status}\n")));
        *response.status_mut() = status;
        response
    };
    if request.uri().path() != "/v1/metrics" {
        return refused(StatusCode::NOT_FOUND);
    }
    if request.method() != Method::GET && request.method() != Method::HEAD {
        return refused(StatusCode::METHOD_NOT_ALLOWED);
    }
    let Ok(_turn) = scrapes.acquire().await else {
        return refused(StatusCode::SERVICE_UNAVAILABLE);
    };
    let mut page = Page::default();
    process::write(&mut page, api::VERSION, api::REVISION);
    calls.write(&mut page);
    containers::write(&daemon.tasks, &mut page).await;
    let mut response = Response::new(Full::from(page.into_text()));
    response.headers_mut().insert(
        CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}
