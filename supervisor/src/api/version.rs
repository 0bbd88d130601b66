//! The Version service.
//!
//! Clients choose features by containerd's version, so the version is that of the containerd whose API is served, with
//! Wharf's own as build metadata. nerdctl, for one, uses the Transfer service from 2.0 on.

use tonic::{Request, Response, Status};
use wharf_proto::containerd::services::version::v1::{VersionResponse, version_server};

/// The version that clients see.
pub const VERSION: &str = concat!("v2.3.0+wharf.", env!("CARGO_PKG_VERSION"));
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
