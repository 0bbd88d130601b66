//! A gRPC client that tries again once when the daemon says that it is unavailable, as the API's clients do.

use std::path::Path;
use std::time::Duration;

use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use wharf_proto::any;
use wharf_proto::containerd::events::TaskExit;
use wharf_proto::containerd::services::events::v1::SubscribeRequest;
use wharf_proto::containerd::services::events::v1::events_client::EventsClient;
use wharf_proto::containerd::services::tasks::v1::WaitRequest;
use wharf_proto::containerd::services::tasks::v1::tasks_client::TasksClient;

/// A runtime for a thread of a test.
pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("an async runtime")
}

/// A channel to `socket`; it connects when it is used, and again when it must.
pub(crate) fn channel(socket: &Path) -> Channel {
    Endpoint::try_from(format!("unix://{}", socket.display()))
        .expect("a unix address")
        .connect_timeout(Duration::from_secs(10))
        .connect_lazy()
}

/// `message` in `namespace`.
pub(crate) fn within<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let namespace = namespace.parse().expect("a namespace for metadata");
    request.metadata_mut().insert("containerd-namespace", namespace);
    request
}

/// Waits for a task; returns its exit status, and how often it was told to try again. Twice in a row fails.
pub(crate) async fn wait(channel: Channel, namespace: &str, id: &str) -> (u32, usize) {
    let mut tasks = TasksClient::new(channel);
    let mut retries = 0;
    let mut last = tokio::time::Instant::now();
    loop {
        let wait = WaitRequest {
            container_id: id.to_owned(),
            exec_id: String::new(),
        };
        match tasks.wait(within(namespace, wait)).await {
            Ok(answer) => return (answer.into_inner().exit_status, retries),
            Err(status) => {
                unavailable(&status);
                assert!(
                    retries == 0 || last.elapsed() > Duration::from_millis(300),
                    "a second try was turned away as well: {status}"
                );
                retries += 1;
                last = tokio::time::Instant::now();
            }
        }
    }
}

/// Collects the ids of processes of `namespace` that ended, until `last` is among them; subscribes again when the stream
/// ends. Calls `subscribed` once it listens.
pub(crate) async fn exits(
    channel: Channel,
    namespace: &str,
    last: &str,
    mut subscribed: impl FnMut(),
) -> Vec<String> {
    let mut events = EventsClient::new(channel);
    let mut seen = Vec::new();
    let filter = format!("topic==\"/tasks/exit\",namespace=={namespace}");
    loop {
        let filters = vec![filter.clone()];
        let mut stream = events
            .subscribe(SubscribeRequest { filters })
            .await
            .expect("subscribe")
            .into_inner();
        subscribed();
        loop {
            match stream.message().await {
                Ok(Some(envelope)) => {
                    let exit: TaskExit = any::unpack(&envelope.event.expect("an event"))
                        .expect("an exit that decodes")
                        .expect("an exit");
                    let done = exit.id == last;
                    seen.push(exit.id);
                    if done {
                        return seen;
                    }
                }
                Ok(None) => panic!("the stream ended as if there was nothing more to come"),
                Err(status) => {
                    unavailable(&status);
                    break;
                }
            }
        }
    }
}

fn unavailable(status: &Status) {
    // A connection that ends tells tonic nothing else.
    let broken = status.code() == Code::Unknown && status.message().contains("transport error");
    assert!(status.code() == Code::Unavailable || broken, "{status:?}");
}
