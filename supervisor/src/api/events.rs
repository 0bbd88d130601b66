//! The Events service: publish, forward, and subscriptions as streams.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::{Request, Response, Status};
use wharf_proto::containerd::services::events::v1::events_server::Events;
use wharf_proto::containerd::services::events::v1::{ForwardRequest, PublishRequest, SubscribeRequest};
use wharf_proto::containerd::types::Envelope;

use crate::daemon::Daemon;
use crate::error::Error;
use crate::event::{Start, Subscription, check};
use crate::filter::Filters;
use crate::namespace::Scope;

/// The service over one daemon.
pub struct Service(pub Arc<Daemon>);

#[tonic::async_trait]
impl Events for Service {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request).map_err(|error| error.context("failed publishing event"))?;
        let request = request.into_inner();
        check::topic(&request.topic)?;
        let event = request.event.unwrap_or_default();
        self.0.events.publish(&scope.namespace, &request.topic, event);
        Ok(Response::new(()))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<()>, Status> {
        let envelope = request.into_inner().envelope;
        let envelope = envelope.ok_or_else(|| Error::invalid("forward request without an envelope"))?;
        self.0.tasks.forward(envelope)?;
        Ok(Response::new(()))
    }

    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<Envelope, Status>> + Send>>;

    /// All namespaces are told of, as containerd does: a filter on `namespace` picks one.
    async fn subscribe(
        &self,
        request: Request<SubscribeRequest>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        let filters = Filters::parse(&request.get_ref().filters)
            .map_err(|error| error.context("failed parsing subscription filters"))?;
        let subscription = self.0.events.subscribe(filters, Start::Now);
        let stream = futures_util::stream::unfold(Some(subscription), next);
        Ok(Response::new(Box::pin(stream)))
    }
}

/// The next event of the stream. A reader that fell behind is told so, once, and cut off: it must ask for the state it
/// missed, and subscribe anew.
async fn next(
    subscription: Option<Subscription>,
) -> Option<(Result<Envelope, Status>, Option<Subscription>)> {
    let mut subscription = subscription?;
    match subscription.next().await {
        Ok(Some(entry)) => Some((Ok(entry.envelope.clone()), Some(subscription))),
        // An end without an error would look as if there was nothing more to come.
        Ok(None) => Some((Err(Status::unavailable("the daemon is stopping")), None)),
        Err(lagged) => Some((Err(Status::resource_exhausted(lagged.to_string())), None)),
    }
}
