//! The rows of containers, which hold their OCI specs.

use super::call::{absent_is_fine, failed};
use super::{CallError, CallResult, Client, ContainerRow};
use tonic::metadata::MetadataValue;
use wharf_proto::containerd::services::containers::v1::{
    self as containers, containers_client::ContainersClient,
};

impl Client {
    /// Makes the row of a container. Unless it `dies_with_boot`, it is on the disk when this returns.
    ///
    /// # Errors
    ///
    /// The id is taken, or the row is refused.
    pub async fn create_container(&self, row: ContainerRow, dies_with_boot: bool) -> CallResult<()> {
        let id = row.id.clone();
        let request = containers::CreateContainerRequest { container: Some(row) };
        ContainersClient::new(self.channel.clone())
            .create(committed(request, dies_with_boot))
            .await
            .map(drop)
            .map_err(failed("create container", &id))
    }

    /// The ids of all containers of the engine's namespace.
    ///
    /// # Errors
    ///
    /// The call failed.
    pub async fn container_ids(&self) -> CallResult<Vec<String>> {
        let response = ContainersClient::new(self.channel.clone())
            .list(containers::ListContainersRequest { filters: Vec::new() })
            .await
            .map_err(failed("list containers", ""))?;
        Ok(response
            .into_inner()
            .containers
            .into_iter()
            .map(|row| row.id)
            .collect())
    }

    /// The OCI spec of a container, as it was stored.
    ///
    /// # Errors
    ///
    /// The container does not exist, or its spec is not JSON.
    pub async fn container_spec(&self, id: &str) -> CallResult<serde_json::Value> {
        let response = ContainersClient::new(self.channel.clone())
            .get(containers::GetContainerRequest { id: id.to_owned() })
            .await
            .map_err(failed("get container", id))?;
        let spec = response
            .into_inner()
            .container
            .and_then(|row| row.spec)
            .unwrap_or_default();
        serde_json::from_slice(&spec.value).map_err(|error| CallError::other("read the spec of", id, error))
    }

    /// Removes the row of a container, durably unless it `dies_with_boot`; one that is gone is fine.
    ///
    /// # Errors
    ///
    /// The call failed; a task that still exists is such a failure.
    pub async fn delete_container(&self, id: &str, dies_with_boot: bool) -> CallResult<()> {
        let request = containers::DeleteContainerRequest { id: id.to_owned() };
        let deleted = ContainersClient::new(self.channel.clone())
            .delete(committed(request, dies_with_boot))
            .await
            .map_err(failed("delete container", id));
        absent_is_fine(deleted.map(drop))
    }
}

/// Says how much the call needs of the disk. A containerd that does not know the header flushes in any case.
fn committed<T>(request: T, dies_with_boot: bool) -> tonic::Request<T> {
    let mut request = tonic::Request::new(request);
    if dies_with_boot {
        let lazy = MetadataValue::from_static("lazy");
        request.metadata_mut().insert("wharf-commit", lazy);
    }
    request
}
