//! Events: the notices that no call answers.

use super::{CallResult, Client, NAMESPACE, call::failed};
use wharf_proto::containerd::events::TaskOom;
use wharf_proto::containerd::services::events::v1::{self as events, events_client::EventsClient};

impl Client {
    /// Calls `notice` with the id of each container of the engine in which the kernel kills for want of memory, until
    /// the connection breaks.
    ///
    /// # Errors
    ///
    /// The connection broke: notices may have been missed.
    pub async fn out_of_memory(&self, mut notice: impl FnMut(&str)) -> CallResult<()> {
        let broke = failed("subscribe to", "events");
        let mut stream = EventsClient::new(self.channel.clone())
            .subscribe(events::SubscribeRequest {
                filters: vec![format!("topic==\"/tasks/oom\",namespace=={NAMESPACE}")],
            })
            .await
            .map_err(failed("subscribe to", "events"))?
            .into_inner();
        let mut next = stream.message().await;
        while let Ok(Some(envelope)) = next {
            if let Some(Ok(Some(event))) = envelope.event.as_ref().map(wharf_proto::any::unpack::<TaskOom>) {
                notice(&event.container_id);
            }
            next = stream.message().await;
        }
        next.map(drop).map_err(broke)
    }
}
