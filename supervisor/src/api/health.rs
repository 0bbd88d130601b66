//! The standard health service: who gets an answer is being served. The daemon as a whole (`""`) is the one service that is
//! known.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tonic::{Request, Response, Status};
use wharf_proto::grpc::health::v1::{
    HealthCheckRequest, HealthCheckResponse, health_check_response::ServingStatus, health_server,
};

use crate::daemon::Daemon;

/// The service.
pub struct Health(pub Arc<Daemon>);

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse {
        status: status.into(),
    }
}

#[tonic::async_trait]
impl health_server::Health for Health {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let service = request.into_inner().service;
        if !service.is_empty() {
            return Err(Status::not_found("unknown service"));
        }
        Ok(Response::new(answer(ServingStatus::Serving)))
    }

    type WatchStream = super::Stream<HealthCheckResponse>;

    /// Says what is now, and when the daemon stops. A service that is not known may become so for all the watcher knows:
    /// that is an answer, not an error.
    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let known = request.into_inner().service.is_empty();
        let stopping = self.0.stopping.clone();
        let now = match known {
            true if stopping.is_cancelled() => ServingStatus::NotServing,
            true => ServingStatus::Serving,
            false => ServingStatus::ServiceUnknown,
        };
        let end = stream::once(async move {
            stopping.cancelled().await;
            known.then(|| Ok(answer(ServingStatus::NotServing)))
        });
        let changes = stream::iter([Ok(answer(now))]).chain(end.filter_map(std::future::ready));
        Ok(Response::new(Box::pin(changes)))
    }
}
