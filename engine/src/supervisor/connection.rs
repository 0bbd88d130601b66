//! The connection: the channel to the socket, and the namespace header that every call carries.

use super::{CallError, CallResult, call::failed};
use std::path::{Path, PathBuf};
use std::time::Duration;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
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
pub(super) type Scoped = InterceptedService<Channel, Scope>;

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
        let scope = Scope {
            namespace: MetadataValue::from_static(NAMESPACE),
        };
        Self {
            channel: InterceptedService::new(channel, scope),
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
