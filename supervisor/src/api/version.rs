//! The Version service.
//!
//! Clients choose features by containerd's version, so the version is that of the containerd whose API is served (1.7: to
//! 2.x clients would bring calls that are not all here), with Wharf's own as build metadata.

use tonic::{Request, Response, Status};
use wharf_proto::containerd::services::version::v1::{VersionResponse, version_server};

/// The version that clients see.
pub const VERSION: &str = concat!("v1.7.0+wharf.", env!("CARGO_PKG_VERSION"));
/// The revision that clients see.
pub const REVISION: &str = concat!("wharf-", env!("CARGO_PKG_VERSION"));

/// The service.
pub struct Version;

#[tonic::async_trait]
impl version_server::Version for Version {
    async fn version(&self, _request: Request<()>) -> Result<Response<VersionResponse>, Status> {
        Ok(Response::new(VersionResponse {
            version: VERSION.into(),
            revision: REVISION.into(),
        }))
    }
}
