//! The connection: a channel to a socket, or the services of a supervisor in this process, and the namespace header that
//! every call carries. In process, a call is a function call: the same messages, but no frames, sockets and wake-ups.

use super::{CallError, CallResult, call::failed};
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tonic::body::Body;
use tonic::codegen::http;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic::transport::{Channel, Endpoint};
use wharf_proto::containerd::services::namespaces::v1::{
    self as namespaces, namespaces_client::NamespacesClient,
};
use wharf_proto::containerd::services::version::v1::version_client::VersionClient;

/// The containerd namespace of everything the engine makes.
pub const NAMESPACE: &str = "wharf";

#[derive(Debug, Clone)]
pub(super) struct Scope {
    namespace: MetadataValue<Ascii>,
}

impl Interceptor for Scope {
    fn call(&mut self, mut request: tonic::Request<()>) -> Result<tonic::Request<()>, tonic::Status> {
        request
            .metadata_mut()
            .insert("containerd-namespace", self.namespace.clone());
        Ok(request)
    }
}

/// What the services' clients call through.
pub(super) type Scoped = InterceptedService<Transport, Scope>;

/// How calls get to the supervisor.
#[derive(Debug, Clone)]
pub(super) enum Transport {
    Socket(Channel),
    InProcess(Routes),
}

impl tower::Service<http::Request<Body>> for Transport {
    type Response = http::Response<Body>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        match self {
            Self::Socket(channel) => channel.poll_ready(context).map_err(Into::into),
            Self::InProcess(_) => Poll::Ready(Ok(())),
        }
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        match self {
            Self::Socket(channel) => {
                let answer = channel.call(request);
                Box::pin(async move { answer.await.map_err(Into::into) })
            }
            Self::InProcess(routes) => {
                let answer = routes.call(request);
                Box::pin(async move { answer.await.map_err(Into::into) })
            }
        }
    }
}

/// A connection to a supervisor. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    pub(super) channel: Scoped,
}

impl Client {
    /// Prepares a connection to the containerd socket at `address`; the first call opens it, and a broken one is opened
    /// again.
    pub fn new(address: &Path) -> Self {
        let path: PathBuf = address.to_owned();
        let connector = tower::service_fn(move |_| {
            let path = path.clone();
            async move {
                let stream = tokio::net::UnixStream::connect(path).await?;
                Ok::<_, std::io::Error>(hyper_util::rt::TokioIo::new(stream))
            }
        });
        // The URI is never looked up: the connector knows the socket.
        let channel = Endpoint::from_static("http://localhost").connect_with_connector_lazy(connector);
        Self::over(Transport::Socket(channel))
    }

    /// A client of the supervisor in this process that has these services.
    pub(super) fn in_process(routes: Routes) -> Self {
        Self::over(Transport::InProcess(routes))
    }

    fn over(transport: Transport) -> Self {
        let scope = Scope {
            namespace: MetadataValue::from_static(NAMESPACE),
        };
        Self {
            channel: InterceptedService::new(transport, scope),
        }
    }

    /// Waits until the supervisor answers, for at most `limit`; then makes sure that the engine's namespace exists.
    ///
    /// # Errors
    ///
    /// No answer in time, or the namespace cannot be made.
    pub async fn ready(&self, limit: Duration) -> CallResult<()> {
        tokio::time::timeout(limit, self.version())
            .await
            .map_err(|_| CallError::other("connect to", "the supervisor", "no answer in time"))??;
        let namespace = namespaces::Namespace {
            name: NAMESPACE.to_owned(),
            labels: Default::default(),
        };
        let created = NamespacesClient::new(self.channel.clone())
            .create(namespaces::CreateNamespaceRequest {
                namespace: Some(namespace),
            })
            .await
            .map_err(failed("create namespace", NAMESPACE));
        match created {
            Ok(_) => {}
            Err(error) if error.is_already_exists() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// The version that the supervisor reports.
    ///
    /// # Errors
    ///
    /// It cannot be reached.
    pub async fn version(&self) -> CallResult<String> {
        let response = VersionClient::new(self.channel.clone())
            .version(())
            .await
            .map_err(failed("version of", "the supervisor"))?;
        Ok(response.into_inner().version)
    }
}
