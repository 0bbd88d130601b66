//! Events, introspection, and what only tells that somebody is there.

use prost_types::{Any, Timestamp};
use wharf_proto::containerd::services::events::v1::{ForwardRequest, PublishRequest, SubscribeRequest};
use wharf_proto::containerd::services::introspection::v1::{PluginInfoRequest, PluginsRequest};
use wharf_proto::containerd::types::Envelope;
use wharf_proto::grpc::health::v1::HealthCheckRequest;

use crate::case::{Method, stranger};

pub(crate) fn events() -> Vec<Method> {
    let method = |name: &str| Method::new(&format!("containerd.services.events.v1.Events/{name}"));
    let publish = |topic: &str, event| PublishRequest {
        topic: topic.into(),
        event,
    };
    let envelope = || Envelope {
        timestamp: Some(Timestamp { seconds: 1, nanos: 0 }),
        namespace: "forwarded".into(),
        topic: "/a/b".into(),
        event: Some(stranger()),
    };
    let forward = |envelope| ForwardRequest {
        envelope: Some(envelope),
    };
    vec![
        method("Publish")
            .namespaces(publish("bad", Some(stranger())))
            .send("no topic", publish("", Some(stranger())))
            .send("a topic without a slash", publish("a", Some(stranger())))
            .send("a topic of a slash", publish("/", Some(stranger())))
            .send("a malformed topic", publish("/a//b", Some(stranger())))
            .send("a malformed part", publish("/a/b c", Some(stranger())))
            .send(
                "a long topic",
                publish(&format!("/{}", "a".repeat(10_000)), Some(stranger())),
            ),
        method("Forward")
            .send("nothing", ForwardRequest::default())
            .send(
                "no namespace",
                forward(Envelope {
                    namespace: String::new(),
                    ..envelope()
                }),
            )
            .send(
                "a malformed namespace",
                forward(Envelope {
                    namespace: "a/b".into(),
                    ..envelope()
                }),
            )
            .send(
                "no topic",
                forward(Envelope {
                    topic: String::new(),
                    ..envelope()
                }),
            )
            .send(
                "a malformed topic",
                forward(Envelope {
                    topic: "a".into(),
                    ..envelope()
                }),
            )
            .send(
                "no time",
                forward(Envelope {
                    timestamp: None,
                    ..envelope()
                }),
            ),
        method("Subscribe").filters(|filter| SubscribeRequest {
            filters: vec![filter],
        }),
    ]
}

pub(crate) fn introspection() -> Vec<Method> {
    let method = |name: &str| {
        Method::new(&format!(
            "containerd.services.introspection.v1.Introspection/{name}"
        ))
    };
    let plugin = |r#type: &str, id: &str, options: Option<Any>| PluginInfoRequest {
        r#type: r#type.into(),
        id: id.into(),
        options,
    };
    vec![
        method("Plugins").filters(|filter| PluginsRequest {
            filters: vec![filter],
        }),
        method("Server"),
        method("PluginInfo")
            .send("nothing", plugin("", "", None))
            .send("an unknown type", plugin("unheard-of", "x", None))
            .send("an unknown id", plugin("io.containerd.content.v1", "x", None))
            .send(
                "options that nobody knows",
                plugin("io.containerd.runtime.v2", "task", Some(stranger())),
            ),
    ]
}

/// What needs nothing, so that little of it can be bad.
pub(crate) fn probes() -> Vec<Method> {
    let service = |service: &str| HealthCheckRequest {
        service: service.into(),
    };
    vec![
        Method::new("containerd.services.version.v1.Version/Version"),
        Method::new("grpc.health.v1.Health/Check").send("an unknown service", service("unheard-of")),
        Method::new("grpc.health.v1.Health/Watch").send("an unknown service", service("unheard-of")),
    ]
}
