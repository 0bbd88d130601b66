//! Sandboxes: their records, and what they do.

use wharf_proto::containerd::services::sandbox::v1 as sandbox;
use wharf_proto::containerd::types::Sandbox;

use crate::case::{Method, stranger};

fn record(id: &str) -> Sandbox {
    Sandbox {
        sandbox_id: id.into(),
        runtime: Some(wharf_proto::containerd::types::sandbox::Runtime {
            name: "io.containerd.runc.v2".into(),
            options: None,
        }),
        ..Sandbox::default()
    }
}

pub(crate) fn store() -> Vec<Method> {
    let method = |name: &str| Method::new(&format!("containerd.services.sandbox.v1.Store/{name}"));
    let create = |sandbox| sandbox::StoreCreateRequest { sandbox };
    let update = |sandbox, fields: &[&str]| sandbox::StoreUpdateRequest {
        sandbox,
        fields: fields.iter().map(|&field| field.to_owned()).collect(),
    };
    let get = |sandbox_id| sandbox::StoreGetRequest { sandbox_id };
    let delete = |sandbox_id| sandbox::StoreDeleteRequest { sandbox_id };
    let labelled = |id: &str, labels| Sandbox { labels, ..record(id) };
    vec![
        method("Create")
            .namespaces(create(Some(record(""))))
            .send("no sandbox", create(None))
            .send("no id", create(Some(record(""))))
            .send(
                "no runtime",
                create(Some(Sandbox {
                    runtime: None,
                    ..record("s-1")
                })),
            )
            .labels(|labels| create(Some(labelled("s-2", labels)))),
        method("Update")
            .namespaces(update(Some(record("unheard-of")), &[]))
            .send("no sandbox", update(None, &[]))
            .send(
                "an unknown field",
                update(Some(record("unheard-of")), &["unheard-of"]),
            )
            .ids("id", |id| update(Some(record(&id)), &["labels"])),
        method("Delete")
            .namespaces(delete("unheard-of".into()))
            .ids("id", delete),
        method("List")
            .namespaces(sandbox::StoreListRequest::default())
            .filters(|filter| sandbox::StoreListRequest {
                filters: vec![filter],
            }),
        method("Get").namespaces(get("unheard-of".into())).ids("id", get),
    ]
}

/// A request that names a sandbox, and who controls it.
macro_rules! named {
    ($name:literal, $request:ident) => {{
        // Some of them have more fields.
        #[allow(clippy::needless_update)]
        let request = |sandboxer: &str, sandbox_id: String| sandbox::$request {
            sandboxer: sandboxer.into(),
            sandbox_id,
            ..Default::default()
        };
        Method::new(concat!("containerd.services.sandbox.v1.Controller/", $name))
            .namespaces(request("", "unheard-of".into()))
            .ids("id", |id| request("", id))
            .send(
                "an unknown controller",
                request("unheard-of", "unheard-of".into()),
            )
    }};
}

pub(crate) fn controller() -> Vec<Method> {
    vec![
        named!("Create", ControllerCreateRequest).send(
            "options that nobody knows",
            sandbox::ControllerCreateRequest {
                sandbox_id: "unheard-of".into(),
                options: Some(stranger()),
                ..sandbox::ControllerCreateRequest::default()
            },
        ),
        named!("Start", ControllerStartRequest),
        named!("Platform", ControllerPlatformRequest),
        named!("Stop", ControllerStopRequest),
        named!("Wait", ControllerWaitRequest),
        named!("Status", ControllerStatusRequest),
        named!("Shutdown", ControllerShutdownRequest),
        named!("Metrics", ControllerMetricsRequest),
        named!("Update", ControllerUpdateRequest),
    ]
}
