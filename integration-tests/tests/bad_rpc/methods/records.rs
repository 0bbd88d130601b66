//! Records: containers, images, leases, namespaces.

use prost_types::Any;
use wharf_proto::containerd::services::containers::v1 as containers;
use wharf_proto::containerd::services::images::v1 as images;
use wharf_proto::containerd::services::leases::v1 as leases;
use wharf_proto::containerd::services::namespaces::v1 as namespaces;
use wharf_proto::containerd::types::Descriptor;

use crate::case::{Labels, Method, stranger};
use crate::side::HELLO;

fn container(id: &str) -> containers::Container {
    containers::Container {
        id: id.into(),
        runtime: Some(containers::container::Runtime {
            name: "io.containerd.runc.v2".into(),
            options: None,
        }),
        spec: Some(Any {
            type_url: "types.containerd.io/opencontainers/runtime-spec/1/Spec".into(),
            value: b"{}".to_vec(),
        }),
        ..containers::Container::default()
    }
}

pub(crate) fn containers() -> Vec<Method> {
    let method = |name: &str| Method::new(&format!("containerd.services.containers.v1.Containers/{name}"));
    let create = |container| containers::CreateContainerRequest {
        container: Some(container),
    };
    let update = |container| containers::UpdateContainerRequest {
        container: Some(container),
        update_mask: None,
    };
    let get = |id| containers::GetContainerRequest { id };
    let delete = |id| containers::DeleteContainerRequest { id };
    let list = |filter| containers::ListContainersRequest {
        filters: vec![filter],
    };
    vec![
        method("Get").namespaces(get("box".into())).ids("id", get),
        method("List")
            .namespaces(containers::ListContainersRequest::default())
            .filters(list),
        method("ListStream")
            .namespaces(containers::ListContainersRequest::default())
            .filters(list),
        method("Create")
            .namespaces(create(container("box")))
            .send("no container", containers::CreateContainerRequest::default())
            .ids("id", |id| {
                create(containers::Container {
                    runtime: None,
                    ..container(&id)
                })
            })
            .send("one that is there", create(container("box")))
            .send(
                "no runtime",
                create(containers::Container {
                    runtime: None,
                    ..container("c-1")
                }),
            )
            .send(
                "a runtime without a name",
                create(containers::Container {
                    runtime: Some(containers::container::Runtime::default()),
                    ..container("c-2")
                }),
            )
            .send(
                "no spec",
                create(containers::Container {
                    spec: None,
                    ..container("c-3")
                }),
            )
            .send(
                "a snapshot without a snapshotter",
                create(containers::Container {
                    snapshot_key: "k".into(),
                    ..container("c-4")
                }),
            )
            .send(
                "an extension without a name",
                create(containers::Container {
                    extensions: [(String::new(), stranger())].into(),
                    ..container("c-5")
                }),
            )
            .labels(|labels| {
                create(containers::Container {
                    labels,
                    ..container("c-6")
                })
            }),
        method("Update")
            .namespaces(update(container("unheard-of")))
            .send("no container", containers::UpdateContainerRequest::default())
            .ids("id", |id| update(container(&id)))
            .labels(|labels| {
                update(containers::Container {
                    labels,
                    ..container("box")
                })
            })
            .masks(|update_mask| containers::UpdateContainerRequest {
                update_mask,
                ..update(container("box"))
            })
            .send(
                "no runtime",
                update(containers::Container {
                    runtime: None,
                    ..container("box")
                }),
            )
            .send(
                "no spec",
                update(containers::Container {
                    spec: None,
                    ..container("box")
                }),
            ),
        method("Delete")
            .namespaces(delete("unheard-of".into()))
            .ids("id", delete),
    ]
}

fn image(name: &str) -> images::Image {
    images::Image {
        name: name.into(),
        target: Some(Descriptor {
            media_type: "text/plain".into(),
            digest: HELLO.into(),
            size: 6,
            ..Descriptor::default()
        }),
        ..images::Image::default()
    }
}

fn targeted(name: &str, change: impl Fn(&mut Descriptor)) -> images::Image {
    let mut image = image(name);
    image.target.iter_mut().for_each(change);
    image
}

pub(crate) fn images() -> Vec<Method> {
    let method = |name: &str| Method::new(&format!("containerd.services.images.v1.Images/{name}"));
    let create = |image| images::CreateImageRequest {
        image: Some(image),
        ..images::CreateImageRequest::default()
    };
    let update = |image| images::UpdateImageRequest {
        image: Some(image),
        ..images::UpdateImageRequest::default()
    };
    let get = |name| images::GetImageRequest { name };
    let delete = |name| images::DeleteImageRequest {
        name,
        ..images::DeleteImageRequest::default()
    };
    let list = |filter| images::ListImagesRequest {
        filters: vec![filter],
    };
    vec![
        method("Get").namespaces(get("image".into())).ids("name", get),
        method("List")
            .namespaces(images::ListImagesRequest::default())
            .filters(list),
        method("Create")
            .namespaces(create(image("image")))
            .send("no image", images::CreateImageRequest::default())
            .send("no name", create(image("")))
            .send("one that is there", create(image("image")))
            .send(
                "no target",
                create(images::Image {
                    target: None,
                    ..image("i-1")
                }),
            )
            .digests("digest", |digest| {
                create(targeted("", |target| target.digest.clone_from(&digest)))
            })
            .send(
                "an empty digest",
                create(targeted("i-2", |target| target.digest.clear())),
            )
            .send(
                "no media type",
                create(targeted("i-3", |target| target.media_type.clear())),
            )
            .send("no size", create(targeted("i-4", |target| target.size = 0)))
            .send(
                "a negative size",
                create(targeted("i-5", |target| target.size = -1)),
            )
            .labels(|labels| {
                create(images::Image {
                    labels,
                    ..image("i-6")
                })
            }),
        method("Update")
            .namespaces(update(image("unheard-of")))
            .send("no image", images::UpdateImageRequest::default())
            .ids("name", |name| update(image(&name)))
            .labels(|labels| {
                update(images::Image {
                    labels,
                    ..image("image")
                })
            })
            .send(
                "no target",
                update(images::Image {
                    target: None,
                    ..image("image")
                }),
            )
            .masks(|update_mask| images::UpdateImageRequest {
                update_mask,
                ..update(image("image"))
            }),
        method("Delete")
            .namespaces(delete("unheard-of".into()))
            .ids("name", delete),
    ]
}

pub(crate) fn leases() -> Vec<Method> {
    let method = |name: &str| Method::new(&format!("containerd.services.leases.v1.Leases/{name}"));
    let create = |id: &str, labels| leases::CreateRequest {
        id: id.into(),
        labels,
    };
    let delete = |id| leases::DeleteRequest { id, sync: true };
    let list = |filter| leases::ListRequest {
        filters: vec![filter],
    };
    let resource = |id: &str, r#type: &str| {
        Some(leases::Resource {
            id: id.into(),
            r#type: r#type.into(),
        })
    };
    let add = |id: &str, resource| leases::AddResourceRequest {
        id: id.into(),
        resource,
    };
    let remove = |id: &str, resource| leases::DeleteResourceRequest {
        id: id.into(),
        resource,
    };
    let resources = |id| leases::ListResourcesRequest { id };
    vec![
        method("Create")
            .namespaces(create("lease", Labels::new()))
            .send("no id", create("", Labels::new()))
            .send("one that is there", create("lease", Labels::new()))
            .send(
                "an expiry that is no time",
                create("l-1", [("containerd.io/gc.expire".into(), "soon".into())].into()),
            )
            .labels(|labels| create("l-2", labels)),
        method("Delete")
            .namespaces(delete("unheard-of".into()))
            .ids("id", delete),
        method("List")
            .namespaces(leases::ListRequest::default())
            .filters(list),
        method("AddResource")
            .namespaces(add("unheard-of", resource(HELLO, "content")))
            .ids("id", |id| add(&id, resource(HELLO, "content")))
            .send("no resource", add("lease", None))
            .send("no type", add("lease", resource("x", "")))
            .send("an unknown type", add("lease", resource("x", "unheard-of")))
            .send("a snapshot of nothing", add("lease", resource("x", "snapshots")))
            .send("a snapshot of nobody", add("lease", resource("x", "snapshots/")))
            .send(
                "content that is no digest",
                add("lease", resource("x", "content")),
            )
            .send("content of somebody", add("lease", resource(HELLO, "content/x"))),
        method("DeleteResource")
            .namespaces(remove("unheard-of", resource(HELLO, "content")))
            .ids("id", |id| remove(&id, resource(HELLO, "content")))
            .send("no resource", remove("lease", None))
            .send("an unknown type", remove("lease", resource("x", "unheard-of")))
            .send(
                "a snapshot of nothing",
                remove("lease", resource("x", "snapshots")),
            ),
        method("ListResources")
            .namespaces(resources("unheard-of".into()))
            .ids("id", resources),
    ]
}

pub(crate) fn namespaces() -> Vec<Method> {
    let method = |name: &str| Method::new(&format!("containerd.services.namespaces.v1.Namespaces/{name}"));
    let namespace = |name: &str, labels| {
        Some(namespaces::Namespace {
            name: name.into(),
            labels,
        })
    };
    let create = |namespace| namespaces::CreateNamespaceRequest { namespace };
    let update = |namespace| namespaces::UpdateNamespaceRequest {
        namespace,
        update_mask: None,
    };
    let get = |name| namespaces::GetNamespaceRequest { name };
    let delete = |name| namespaces::DeleteNamespaceRequest { name };
    vec![
        method("Get").ids("name", get),
        // containerd takes no notice of the filter.
        method("List").filters(|filter| namespaces::ListNamespacesRequest { filter }),
        method("Create")
            .send("no namespace", create(None))
            .send("no name", create(namespace("", Labels::new())))
            .send("a malformed name", create(namespace("a/../b", Labels::new())))
            .send("a long name", create(namespace(&"n".repeat(77), Labels::new())))
            .labels(|labels| create(namespace("n-1", labels))),
        method("Update")
            .send("no namespace", update(None))
            .ids("name", |name| update(namespace(&name, Labels::new())))
            .labels(|labels| update(namespace("unheard-of", labels)))
            .masks(|update_mask| namespaces::UpdateNamespaceRequest {
                update_mask,
                ..update(namespace("unheard-of", Labels::new()))
            }),
        method("Delete").ids("name", delete),
    ]
}
