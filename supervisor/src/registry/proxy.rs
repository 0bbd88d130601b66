//! Connections, directly or through the proxy that `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY` name.
//!
//! Plain HTTP goes to a proxy with the whole URL in the request line; HTTPS goes through a tunnel (`CONNECT`), so that the
//! proxy sees no more than the host's name. This machine is never reached through a proxy. Refuses proxies other than on
//! HTTP by name.

use std::{
    io,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use hyper::{Uri, header::HeaderValue, rt};
use hyper_util::{
    client::{
        legacy::connect::{Connected, Connection, HttpConnector, proxy::Tunnel},
        proxy::matcher::Matcher,
    },
    rt::TokioIo,
};
use tokio::net::TcpStream;
use tower_service::Service;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// Makes connections. Cheap to clone.
#[derive(Clone)]
pub(super) struct Connector {
    direct: HttpConnector,
    proxies: Arc<Matcher>,
}

/// A connection, and whether requests on it are for a proxy to forward.
pub(super) struct Stream {
    inner: TokioIo<TcpStream>,
    forwarded: bool,
}

impl Connector {
    /// A connector that waits no longer than `timeout` for a connection, with the proxies of the environment.
    pub(super) fn new(timeout: Duration) -> Self {
        Self::with(timeout, Matcher::from_env())
    }

    fn with(timeout: Duration, proxies: Matcher) -> Self {
        let mut direct = HttpConnector::new();
        direct.enforce_http(false);
        direct.set_connect_timeout(Some(timeout));
        direct.set_nodelay(true);
        Self {
            direct,
            proxies: Arc::new(proxies),
        }
    }

    /// What the proxy for `uri` wants to see with each request that it forwards.
    pub(super) fn forwarding_authorization(&self, uri: &Uri) -> Option<HeaderValue> {
        if uri.scheme_str() != Some("http") || is_this_machine(uri) {
            return None;
        }
        self.proxies.intercept(uri)?.basic_auth().cloned()
    }
}

/// Whether no proxy could mean the same host.
fn is_this_machine(uri: &Uri) -> bool {
    let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

impl Service<Uri> for Connector {
    type Response = Stream;
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Error>> {
        self.direct.poll_ready(context).map_err(Into::into)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let mut direct = self.direct.clone();
        let proxy = match is_this_machine(&uri) {
            true => None,
            false => self.proxies.intercept(&uri),
        };
        Box::pin(async move {
            let Some(proxy) = proxy else {
                let inner = direct.call(uri).await?;
                return Ok(Stream {
                    inner,
                    forwarded: false,
                });
            };
            if proxy.uri().scheme_str() != Some("http") {
                let scheme = proxy.uri().scheme_str().unwrap_or_default();
                return Err(format!("proxies over {scheme:?} are not supported").into());
            }
            if uri.scheme_str() == Some("http") {
                let inner = direct.call(proxy.uri().clone()).await?;
                return Ok(Stream {
                    inner,
                    forwarded: true,
                });
            }
            let mut tunnel = Tunnel::new(proxy.uri().clone(), direct);
            if let Some(authorization) = proxy.basic_auth() {
                tunnel = tunnel.with_auth(authorization.clone());
            }
            let inner = tunnel.call(uri).await?;
            Ok(Stream {
                inner,
                forwarded: false,
            })
        })
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.forwarded)
    }
}

impl rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: rt::ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_read(context, buffer)
    }
}

impl rt::Write for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(context, buffer)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(context, buffers)
    }
}

#[cfg(test)]
mod tests {
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// What a proxy on loopback is sent first, when `uri` is connected to.
    async fn first_line(uri: &'static str, no: &str) -> Option<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy = format!("http://user:secret@{}", listener.local_addr().unwrap());
        let matcher = Matcher::builder().all(proxy).no(no).build();
        let mut connector = Connector::with(Duration::from_secs(5), matcher);
        let connected = tokio::spawn(async move { connector.call(Uri::from_static(uri)).await });
        let accepted = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = vec![0; 1024];
            let count = tokio::time::timeout(Duration::from_millis(300), stream.read(&mut head)).await;
            drop(stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await);
            let count = count.map_or(0, |count| count.unwrap());
            String::from_utf8_lossy(&head[..count]).into_owned()
        };
        tokio::pin!(accepted);
        tokio::select! {
            said = &mut accepted => Some(said),
            connection = connected => match connection.unwrap() {
                Ok(held) => {
                    let said = accepted.await;
                    drop(held);
                    Some(said)
                }
                Err(_nobody_there) => None,
            },
        }
    }

    #[tokio::test]
    async fn https_is_tunnelled_and_http_is_forwarded() {
        let said = first_line("https://registry.invalid/v2/", "").await.unwrap();
        assert!(
            said.starts_with("CONNECT registry.invalid:443 HTTP/1.1\r\n"),
            "{said}"
        );
        assert!(
            said.to_lowercase()
                .contains("proxy-authorization: basic dxnlcjpzzwnyzxq="),
            "{said}"
        );
        // Nothing is said before the request itself.
        assert_eq!(first_line("http://registry.invalid/v2/", "").await.unwrap(), "");
    }

    #[tokio::test]
    async fn some_hosts_are_reached_directly() {
        assert_eq!(
            first_line("http://registry.invalid/v2/", "other.invalid,.invalid").await,
            None
        );
        assert_eq!(first_line("http://127.0.0.2:1/v2/", "").await, None);
    }
}
