//! The client against registries that break off, lie, and send it elsewhere.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use async_trait::async_trait;
use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    sync::{Semaphore, mpsc},
};
use wharf_proto::containerd::types::Descriptor;

use super::{Client, Content, CredentialSource, Credentials, NoCredentials, Options, Pieces, Pushed};
use crate::{
    Kind,
    digest::Digest,
    error::{Error, Result},
};

mod catalog;
mod foreign;
mod mirrors;
mod pieces;
mod push;
mod slow;

/// A server of one answer a connection; remembers the heads of all requests.
struct Registry {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<String>>>,
    bodies: Arc<Mutex<BTreeMap<usize, Vec<u8>>>>,
}

impl Registry {
    /// `answer` gets the number of the request and its head.
    async fn start(answer: impl Fn(usize, &str) -> Vec<u8> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests: Arc<Mutex<Vec<String>>> = Arc::default();
        let seen = Arc::clone(&requests);
        let bodies: Arc<Mutex<BTreeMap<usize, Vec<u8>>>> = Arc::default();
        let received = Arc::clone(&bodies);
        let answer = Arc::new(answer);
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (seen, answer) = (Arc::clone(&seen), Arc::clone(&answer));
                let bodies = Arc::clone(&received);
                tokio::spawn(async move {
                    let mut head = Vec::new();
                    while !head.ends_with(b"\r\n\r\n") {
                        match stream.read_u8().await {
                            Ok(byte) => head.push(byte),
                            Err(_closed) => return,
                        }
                    }
                    let head = String::from_utf8(head).unwrap();
                    let number = {
                        let mut seen = seen.lock().unwrap();
                        seen.push(head.clone());
                        seen.len() - 1
                    };
                    let bytes = answer(number, &head);
                    // An answer of nothing is a connection that breaks off before the body has come.
                    if bytes.is_empty() {
                        return;
                    }
                    let mut body = vec![0; length(&head)];
                    if stream.read_exact(&mut body).await.is_err() {
                        return;
                    }
                    bodies.lock().unwrap().insert(number, body);
                    drop(stream.write_all(&bytes).await);
                    drop(stream.shutdown().await);
                });
            }
        });
        Self {
            address,
            requests,
            bodies,
        }
    }

    fn client(&self, object: &str, source: Arc<dyn CredentialSource>) -> Client {
        let reference = format!("{}/repo/name{object}", self.address).parse().unwrap();
        Client::new(reference, Options::default(), source).unwrap()
    }

    fn pusher(&self, source: Arc<dyn CredentialSource>) -> Client {
        let reference = format!("{}/repo/name:v1", self.address).parse().unwrap();
        let options = Options {
            push: true,
            ..Options::default()
        };
        Client::new(reference, options, source).unwrap()
    }

    fn body(&self, number: usize) -> Vec<u8> {
        self.bodies.lock().unwrap()[&number].clone()
    }

    fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }
}

/// The length of the body behind `head`.
fn length(head: &str) -> usize {
    let lines = head.lines().map(str::to_ascii_lowercase);
    let said = lines
        .filter_map(|line| line.strip_prefix("content-length: ").map(str::to_owned))
        .next();
    said.map_or(0, |said| said.parse().unwrap())
}

fn response(status: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("HTTP/1.1 {status}\r\nConnection: close\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend(format!("{name}: {value}\r\n").bytes());
    }
    bytes.extend(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

fn blob(data: &[u8]) -> Descriptor {
    Descriptor {
        digest: Digest::of(data).to_string(),
        size: data.len() as i64,
        ..Descriptor::default()
    }
}

async fn fetch(client: &Client, wanted: &Descriptor, offset: u64) -> Result<Vec<u8>> {
    fetch_by(client, wanted, &[], offset, &one_request()).await
}

/// No blob is divided.
fn one_request() -> Pieces {
    let one = || Arc::new(Semaphore::new(1));
    Pieces {
        size: 0,
        operation: one(),
        host: one(),
        ahead: one(),
    }
}

async fn fetch_by(
    client: &Client,
    wanted: &Descriptor,
    urls: &[String],
    offset: u64,
    pieces: &Pieces,
) -> Result<Vec<u8>> {
    let (sender, mut receiver) = mpsc::channel::<Bytes>(4);
    let collect = tokio::spawn(async move {
        let mut all = Vec::new();
        while let Some(chunk) = receiver.recv().await {
            all.extend_from_slice(&chunk);
        }
        all
    });
    let _slots = pieces.blob().await?;
    client.blob(wanted, urls, offset, sender, pieces).await?;
    Ok(collect.await.unwrap())
}

struct Password;

#[async_trait]
impl CredentialSource for Password {
    async fn credentials(&self, _host: &str) -> Result<Credentials> {
        Ok(Credentials::Basic {
            username: "user".into(),
            password: "secret".into(),
        })
    }
}

const DATA: &[u8] = b"0123456789abcdef";

#[tokio::test]
async fn a_broken_connection_is_resumed_by_range() {
    let registry = Registry::start(|number, head| {
        let size = DATA.len().to_string();
        match number {
            0 => response("200 OK", &[("Content-Length", &size)], &DATA[..5]),
            1 => {
                assert!(head.contains("range: bytes=5-"), "{head}");
                response(
                    "206 Partial Content",
                    &[("Content-Range", "bytes 5-15/16"), ("Content-Length", "11")],
                    b"56",
                )
            }
            // This one ignores ranges.
            _ => response("200 OK", &[("Content-Length", &size)], DATA),
        }
    })
    .await;
    let client = registry.client("", Arc::new(NoCredentials));
    assert_eq!(fetch(&client, &blob(DATA), 0).await.unwrap(), DATA);
    assert_eq!(registry.requests().len(), 3);
}

#[tokio::test]
async fn an_ingest_is_continued_where_it_stopped() {
    let registry = Registry::start(|_, head| {
        assert!(head.contains("range: bytes=10-"), "{head}");
        response(
            "206 Partial Content",
            &[("Content-Range", "bytes 10-15/16")],
            &DATA[10..],
        )
    })
    .await;
    let client = registry.client("", Arc::new(NoCredentials));
    assert_eq!(fetch(&client, &blob(DATA), 10).await.unwrap(), &DATA[10..]);
}

#[tokio::test]
async fn sizes_other_than_the_descriptors_are_refused() {
    let answers: [fn() -> Vec<u8>; 3] = [
        || response("200 OK", &[("Content-Length", "17")], b"0123456789abcdefX"),
        // Without a length the surplus shows only as it comes.
        || response("200 OK", &[], b"0123456789abcdefX"),
        || response("206 Partial Content", &[("Content-Range", "bytes 3-15/16")], DATA),
    ];
    for answer in answers {
        let registry = Registry::start(move |_, _| answer()).await;
        let client = registry.client("", Arc::new(NoCredentials));
        let error = fetch(&client, &blob(DATA), 0).await.unwrap_err();
        assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");
    }
}

#[tokio::test]
async fn refusals_that_may_pass_are_tried_again() {
    let registry = Registry::start(|number, _| match number {
        0 => response("429 Too Many Requests", &[("Retry-After", "0")], b""),
        1 => response("503 Service Unavailable", &[], b""),
        _ => response("200 OK", &[], DATA),
    })
    .await;
    let client = registry.client("", Arc::new(NoCredentials));
    assert_eq!(fetch(&client, &blob(DATA), 0).await.unwrap(), DATA);
}

#[tokio::test]
async fn a_name_resolves_by_head_alone() {
    let digest = Digest::of(DATA).to_string();
    let registry = Registry::start(move |_, head| {
        assert!(head.starts_with("HEAD /v2/repo/name/manifests/v1 "), "{head}");
        let headers = [
            ("Docker-Content-Digest", &*digest),
            ("Content-Type", "application/vnd.oci.image.manifest.v1+json"),
            ("Content-Length", "16"),
        ];
        response("200 OK", &headers, b"")
    })
    .await;
    let found = registry
        .client(":v1", Arc::new(NoCredentials))
        .resolve()
        .await
        .unwrap();
    assert_eq!((found.digest, found.size), (Digest::of(DATA).to_string(), 16));
    assert_eq!(found.media_type, "application/vnd.oci.image.manifest.v1+json");
}

#[tokio::test]
async fn a_registry_that_lies_about_a_digest_is_refused() {
    let wanted = format!("@{}", Digest::of(b"something else"));
    let lie = Digest::of(DATA).to_string();
    let registry = Registry::start(move |_, _| {
        response(
            "200 OK",
            &[("Docker-Content-Digest", &lie), ("Content-Length", "16")],
            b"",
        )
    })
    .await;
    let error = registry
        .client(&wanted, Arc::new(NoCredentials))
        .resolve()
        .await
        .unwrap_err();
    assert_eq!(error.kind(), Kind::FailedPrecondition, "{error}");

    let registry = Registry::start(|_, _| response("200 OK", &[("Content-Length", "16")], DATA)).await;
    let client = registry.client("", Arc::new(NoCredentials));
    let other = blob(b"another text 16!");
    assert_eq!(
        client.manifest(&other).await.unwrap_err().kind(),
        Kind::FailedPrecondition
    );
    let longer = Descriptor {
        size: 17,
        ..blob(DATA)
    };
    assert_eq!(
        client.manifest(&longer).await.unwrap_err().kind(),
        Kind::FailedPrecondition
    );
    assert_eq!(client.manifest(&blob(DATA)).await.unwrap(), DATA);
}

#[tokio::test]
async fn huge_manifests_are_not_read() {
    let registry = Registry::start(|_, _| response("200 OK", &[], &vec![b' '; (4 << 20) + 1])).await;
    let client = registry.client("", Arc::new(NoCredentials));
    assert_eq!(
        client.manifest(&blob(DATA)).await.unwrap_err().kind(),
        Kind::OutOfRange
    );
    let huge = Descriptor {
        size: 5 << 20,
        ..blob(DATA)
    };
    assert_eq!(client.manifest(&huge).await.unwrap_err().kind(), Kind::OutOfRange);
}

#[tokio::test]
async fn what_is_missing_is_not_found() {
    let registry = Registry::start(|_, _| {
        response(
            "404 Not Found",
            &[],
            br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"unknown"}]}"#,
        )
    })
    .await;
    let client = registry.client(":none", Arc::new(NoCredentials));
    let error = client.resolve().await.unwrap_err();
    assert!(error.is_not_found(), "{error}");
    assert!(error.to_string().contains("manifest unknown"), "{error}");
    assert!(fetch(&client, &blob(DATA), 0).await.unwrap_err().is_not_found());
}

#[tokio::test]
async fn a_registry_that_is_not_there_is_named_with_the_cause() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let reference = format!("{address}/a").parse().unwrap();
    let client = Client::new(reference, Options::default(), Arc::new(NoCredentials)).unwrap();
    let error = client.resolve().await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(
        error
            .to_string()
            .contains(&format!("dial tcp {address}: connection refused")),
        "{error}"
    );
}

/// Registry and token service in one; the token it hands out is `T`.
fn authorising(head: &str, address: &str) -> Option<Vec<u8>> {
    if head.starts_with("GET /token?") {
        return Some(response("200 OK", &[], br#"{"token":"T","expires_in":300}"#));
    }
    if head.contains("authorization: Bearer T\r\n") {
        return None;
    }
    let challenge =
        format!("Bearer realm=\"http://{address}/token\",service=\"s\",scope=\"repository:repo/name:pull\"");
    Some(response(
        "401 Unauthorized",
        &[("WWW-Authenticate", &challenge)],
        b"",
    ))
}

fn host_of(head: &str) -> String {
    let line = head
        .lines()
        .find(|line| line.to_ascii_lowercase().starts_with("host:"))
        .unwrap();
    line[5..].trim().to_owned()
}

#[tokio::test]
async fn a_token_is_fetched_with_the_credentials_and_kept() {
    let registry = Registry::start(|_, head| {
        authorising(head, &host_of(head)).unwrap_or_else(|| response("200 OK", &[], DATA))
    })
    .await;
    let client = registry.client("", Arc::new(Password));
    fetch(&client, &blob(DATA), 0).await.unwrap();
    fetch(&client, &blob(DATA), 0).await.unwrap();
    let requests = registry.requests();
    assert_eq!(requests.len(), 4, "{requests:?}");
    assert!(
        requests[1].starts_with("GET /token?service=s&scope=repository%3Arepo%2Fname%3Apull "),
        "{}",
        requests[1]
    );
    assert!(requests[1].contains("authorization: Basic dXNlcjpzZWNyZXQ="));
    assert!(
        !requests[0].to_lowercase().contains("authorization"),
        "credentials before they were asked for"
    );
}

/// CVE-2020-15157: neither token nor credentials go where a redirect leads, even if that host asks for them.
#[tokio::test]
async fn credentials_do_not_follow_redirects() {
    let other = Registry::start(|_, _| {
        response(
            "401 Unauthorized",
            &[("WWW-Authenticate", "Basic realm=\"give\"")],
            b"",
        )
    })
    .await;
    let location = format!("http://{}/data", other.address);
    let registry = Registry::start(move |_, head| {
        authorising(head, &host_of(head))
            .unwrap_or_else(|| response("307 Temporary Redirect", &[("Location", &location)], b""))
    })
    .await;
    let client = registry.client("", Arc::new(Password));
    assert!(fetch(&client, &blob(DATA), 0).await.is_err());
    assert_eq!(other.requests().len(), 1);
    for request in other.requests() {
        assert!(!request.to_lowercase().contains("authorization"), "{request}");
    }
}

#[tokio::test]
async fn an_anonymous_caller_is_told_that_access_is_denied() {
    let registry = Registry::start(|_, head| {
        if head.starts_with("GET /token?") {
            return response("200 OK", &[], br#"{"access_token":"weak"}"#);
        }
        authorising(head, &host_of(head)).unwrap()
    })
    .await;
    let client = registry.client("", Arc::new(NoCredentials));
    let error: Error = fetch(&client, &blob(DATA), 0).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unauthenticated);
    assert!(error.to_string().contains("pull access denied for"), "{error}");
}
