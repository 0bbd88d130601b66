//! Sending spans to the collector.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, header};
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use prost::Message as _;
use tokio::sync::mpsc;

use super::{
    message::{Export, Span},
    settings::Settings,
};
use crate::error::{Error, Result};

/// How many are sent at once: `OTEL_BSP_MAX_EXPORT_BATCH_SIZE`'s default.
const BATCH: usize = 512;
/// How long they wait at most: `OTEL_BSP_SCHEDULE_DELAY`'s default.
const DELAY: Duration = Duration::from_secs(5);
/// How long a collector may take to answer: `OTEL_EXPORTER_OTLP_TIMEOUT`'s default.
const ANSWER: Duration = Duration::from_secs(10);
/// The most that is read of an answer.
const MAX_ANSWER: usize = 64 << 10;

/// One collector.
pub struct Exporter {
    settings: Settings,
    client:
        Client<hyper_rustls::HttpsConnector<hyper_util::client::legacy::connect::HttpConnector>, Full<Bytes>>,
}

impl Exporter {
    /// A client of the collector in `settings`.
    ///
    /// # Errors
    ///
    /// `Unknown`: the host's certificate authorities cannot be read.
    pub fn new(settings: Settings) -> Result<Self> {
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_native_roots()
            .map_err(|error| Error::io("read the host's certificate authorities", error))?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            settings,
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// Sends what comes, until nothing more can.
    pub async fn run(self, mut spans: mpsc::Receiver<Span>, lost: Arc<AtomicU64>) {
        loop {
            let mut batch = Vec::new();
            let full = async {
                while batch.len() < BATCH {
                    let room = BATCH - batch.len();
                    if spans.recv_many(&mut batch, room).await == 0 {
                        return true;
                    }
                }
                false
            };
            let ended = tokio::time::timeout(DELAY, full).await.unwrap_or(false);
            if !batch.is_empty() {
                let count = batch.len();
                if let Err(error) = self.send(batch).await {
                    tracing::warn!(endpoint = %self.settings.endpoint, spans = count, error, "spans lost");
                }
            }
            let lost = lost.swap(0, Ordering::Relaxed);
            if lost > 0 {
                tracing::warn!(spans = lost, "spans lost: the collector is too slow");
            }
            if ended {
                return;
            }
        }
    }

    async fn send(&self, spans: Vec<Span>) -> Result<(), String> {
        let body = Export::of(&self.settings.service, spans).encode_to_vec();
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(self.settings.endpoint.clone())
            .header(header::CONTENT_TYPE, "application/x-protobuf");
        for (name, value) in &self.settings.headers {
            request = request.header(name, value);
        }
        let request = request
            .body(Full::from(body))
            .map_err(|error| error.to_string())?;
        let exchange = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| error.to_string())?;
            let status = answer.status();
            // Read to its end, so that the connection can be used again.
            Limited::new(answer.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(|error| error.to_string())?;
            if status.is_success() {
                Ok(())
            } else {
                Err(status.to_string())
            }
        };
        tokio::time::timeout(ANSWER, exchange)
            .await
            .unwrap_or_else(|_| Err(format!("no answer within {ANSWER:?}")))
    }
}
