//! The Events service: publish, forward, and subscriptions as streams.

use std::pin::Pin;
use std::sync::Arc;

use futures_util::Stream;
use tonic::{Request, Response, Status};
use wharf_proto::containerd::services::events::v1::events_server::{Events, EventsServer};
use wharf_proto::containerd::services::events::v1::{ForwardRequest, PublishRequest, SubscribeRequest};
use wharf_proto::containerd::types::Envelope;

use super::MAX_MESSAGE;
use crate::daemon::Daemon;
use crate::error::Error;
use crate::event::{Start, Subscription, check};
use crate::filter::Filters;
use crate::namespace::Scope;

/// The service over one daemon.
pub fn service(daemon: Arc<Daemon>) -> EventsServer<Service> {
    EventsServer::new(Service { daemon })
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE)
}

/// See the module.
pub struct Service {
    daemon: Arc<Daemon>,
}

#[tonic::async_trait]
impl Events for Service {
    async fn publish(&self, request: Request<PublishRequest>) -> Result<Response<()>, Status> {
        let scope = Scope::of(&request).map_err(|error| error.context("failed publishing event"))?;
        let request = request.into_inner();
        check::topic(&request.topic)?;
        let event = request.event.unwrap_or_default();
        self.daemon
            .events
            .publish(&scope.namespace, &request.topic, event);
        Ok(Response::new(()))
    }

    async fn forward(&self, request: Request<ForwardRequest>) -> Result<Response<()>, Status> {
        let envelope = request.into_inner().envelope;
        let envelope = envelope.ok_or_else(|| Error::invalid("forward request without an envelope"))?;
        self.daemon.tasks.forward(envelope)?;
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
        let subscription = self.daemon.events.subscribe(filters, Start::Now);
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
        Ok(None) => None,
        Err(lagged) => Some((Err(Status::resource_exhausted(lagged.to_string())), None)),
    }
}
