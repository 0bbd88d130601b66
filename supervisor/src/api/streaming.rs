//! The Streaming service: streams that the client opens under an id, for the calls that name the id.
//!
//! The first message is a `StreamInit`; it is answered with `google.protobuf.Empty` when the stream can be named.

use std::sync::Arc;

use futures_util::StreamExt;
use prost_types::Any;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming as Inbound};
use wharf_proto::{
    any,
    containerd::services::streaming::v1::{StreamInit, streaming_server},
};

use super::Stream;
use crate::{daemon::Daemon, error::Error, namespace::Scope, transfer};

/// The longest id of a stream, in bytes.
const MAX_ID: usize = 256;
/// Messages to a client that wait to be sent.
const IN_FLIGHT: usize = 16;

/// The service.
pub struct Streaming(pub Arc<Daemon>);

#[tonic::async_trait]
impl streaming_server::Streaming for Streaming {
    type StreamStream = Stream<Any>;

    async fn stream(&self, request: Request<Inbound<Any>>) -> Result<Response<Self::StreamStream>, Status> {
        let scope = Scope::of(&request)?;
        let mut inbound = request.into_inner();
        let first = inbound
            .message()
            .await?
            .ok_or_else(|| Error::invalid("the stream ended before its init"))?;
        let init = any::unpack::<StreamInit>(&first)
            .map_err(|error| Error::invalid("malformed StreamInit").caused_by(error))?
            .ok_or_else(|| Error::invalid(format!("expected a StreamInit, not {:?}", first.type_url)))?;
        if init.id.is_empty() || init.id.len() > MAX_ID {
            return Err(Error::invalid(format!("the id of a stream has 1 to {MAX_ID} bytes")).into());
        }
        let (sender, receiver) = mpsc::channel(IN_FLIGHT);
        // There is room: nothing was sent before.
        drop(sender.try_send(Any {
            type_url: "google.protobuf.Empty".into(),
            value: Vec::new(),
        }));
        let inbound = inbound.map(|message| {
            message.map_err(|status| {
                Error::unavailable(format!("the client's stream broke: {}", status.message()))
            })
        });
        self.0
            .transfer
            .streams
            .register(&scope, &init.id, transfer::Stream::new(inbound.boxed(), sender))?;
        Ok(Response::new(ReceiverStream::new(receiver).map(Ok).boxed()))
    }
}
