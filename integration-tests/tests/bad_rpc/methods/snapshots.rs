//! Snapshots, and what is computed from and applied to them.

use wharf_proto::containerd::services::diff::v1::{ApplyRequest, DiffRequest};
use wharf_proto::containerd::services::snapshots::v1::{
    CleanupRequest, CommitSnapshotRequest, Info, ListSnapshotsRequest, MountsRequest, PrepareSnapshotRequest,
    RemoveSnapshotRequest, StatSnapshotRequest, UpdateSnapshotRequest, UsageRequest, ViewSnapshotRequest,
};
use wharf_proto::containerd::types::{Descriptor, Mount};

use crate::case::{Method, NOWHERE, stranger};
use crate::side::HELLO;

const SNAPSHOTTER: &str = "overlayfs";

/// Without a snapshotter, with an unknown one, and with one for an unknown key.
macro_rules! keyed {
    ($name:literal, $request:ident) => {{
        // Some of them have more fields.
        #[allow(clippy::needless_update)]
        let request = |snapshotter: &str, key: String| $request {
            snapshotter: snapshotter.into(),
            key,
            ..Default::default()
        };
        method($name)
            .namespaces(request(SNAPSHOTTER, "unheard-of".into()))
            .send("no snapshotter", request("", "active".into()))
            .send("an unknown snapshotter", request("unheard-of", "active".into()))
            .ids("key", |key| request(SNAPSHOTTER, key))
    }};
}

fn method(name: &str) -> Method {
    Method::new(&format!("containerd.services.snapshots.v1.Snapshots/{name}"))
}

pub(crate) fn snapshots() -> Vec<Method> {
    let prepare = |key: &str, parent: &str| PrepareSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        key: key.into(),
        parent: parent.into(),
        ..PrepareSnapshotRequest::default()
    };
    let view = |key: &str, parent: &str| ViewSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        key: key.into(),
        parent: parent.into(),
        ..ViewSnapshotRequest::default()
    };
    let commit = |name: &str, key: &str| CommitSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        name: name.into(),
        key: key.into(),
        ..CommitSnapshotRequest::default()
    };
    let update = |name: &str| UpdateSnapshotRequest {
        snapshotter: SNAPSHOTTER.into(),
        info: Some(Info {
            name: name.into(),
            ..Info::default()
        }),
        ..UpdateSnapshotRequest::default()
    };
    let list = |snapshotter: &str, filters| ListSnapshotsRequest {
        snapshotter: snapshotter.into(),
        filters,
    };
    vec![
        method("Prepare")
            .namespaces(prepare("s-0", "unheard-of"))
            .send(
                "no snapshotter",
                PrepareSnapshotRequest {
                    snapshotter: String::new(),
                    ..prepare("s-1", "")
                },
            )
            .send(
                "an unknown snapshotter",
                PrepareSnapshotRequest {
                    snapshotter: "x".into(),
                    ..prepare("s-1", "")
                },
            )
            .send("no key", prepare("", ""))
            .send("a key that is there", prepare("active", ""))
            .send("a key that is committed", prepare("base", ""))
            .send("an unknown parent", prepare("s-2", "unheard-of"))
            .send("a parent that is active", prepare("s-3", "active"))
            .labels(|labels| PrepareSnapshotRequest {
                labels,
                ..prepare("s-4", "base")
            }),
        method("View")
            .namespaces(view("s-0", "unheard-of"))
            .send(
                "no snapshotter",
                ViewSnapshotRequest {
                    snapshotter: String::new(),
                    ..view("s-1", "")
                },
            )
            .send(
                "an unknown snapshotter",
                ViewSnapshotRequest {
                    snapshotter: "x".into(),
                    ..view("s-1", "")
                },
            )
            .send("no key", view("", "base"))
            .send("a key that is there", view("active", "base"))
            .send("an unknown parent", view("s-2", "unheard-of"))
            .send("a parent that is active", view("s-3", "active"))
            .labels(|labels| ViewSnapshotRequest {
                labels,
                ..view("s-4", "base")
            }),
        keyed!("Mounts", MountsRequest).send(
            "one that is committed",
            MountsRequest {
                snapshotter: SNAPSHOTTER.into(),
                key: "base".into(),
            },
        ),
        method("Commit")
            .namespaces(commit("s-5", "unheard-of"))
            .send(
                "no snapshotter",
                CommitSnapshotRequest {
                    snapshotter: String::new(),
                    ..commit("s-5", "active")
                },
            )
            .send(
                "an unknown snapshotter",
                CommitSnapshotRequest {
                    snapshotter: "x".into(),
                    ..commit("s-5", "active")
                },
            )
            .ids("key", |key| commit("s-5", &key))
            .send("no name", commit("", "active"))
            .send("a name that is there", commit("base", "active"))
            .send("one that is committed", commit("s-6", "base"))
            .labels(|labels| CommitSnapshotRequest {
                labels,
                ..commit("s-7", "active")
            }),
        keyed!("Remove", RemoveSnapshotRequest).send(
            "one with a child",
            RemoveSnapshotRequest {
                snapshotter: SNAPSHOTTER.into(),
                key: "base".into(),
            },
        ),
        keyed!("Stat", StatSnapshotRequest),
        method("Update")
            .namespaces(update("unheard-of"))
            .send(
                "no snapshotter",
                UpdateSnapshotRequest {
                    snapshotter: String::new(),
                    ..update("active")
                },
            )
            .send(
                "an unknown snapshotter",
                UpdateSnapshotRequest {
                    snapshotter: "x".into(),
                    ..update("active")
                },
            )
            .send(
                "no info",
                UpdateSnapshotRequest {
                    info: None,
                    ..update("")
                },
            )
            .ids("name", |name| update(&name))
            .labels(|labels| {
                let mut request = update("active");
                request
                    .info
                    .iter_mut()
                    .for_each(|info| info.labels.clone_from(&labels));
                request
            })
            .masks(|update_mask| UpdateSnapshotRequest {
                update_mask,
                ..update("active")
            }),
        method("List")
            .namespaces(list(SNAPSHOTTER, Vec::new()))
            .send("no snapshotter", list("", Vec::new()))
            .send("an unknown snapshotter", list("unheard-of", Vec::new()))
            .filters(|filter| list(SNAPSHOTTER, vec![filter])),
        keyed!("Usage", UsageRequest),
        method("Cleanup")
            .send("no snapshotter", CleanupRequest::default())
            .send(
                "an unknown snapshotter",
                CleanupRequest {
                    snapshotter: "unheard-of".into(),
                },
            ),
    ]
}

pub(crate) fn diff() -> Vec<Method> {
    let method = |name: &str| Method::new(&format!("containerd.services.diff.v1.Diff/{name}"));
    let mount = |kind: &str, source: &str| Mount {
        r#type: kind.into(),
        source: source.into(),
        ..Mount::default()
    };
    let layer = |media_type: &str, digest: &str| {
        Some(Descriptor {
            media_type: media_type.into(),
            digest: digest.into(),
            size: 6,
            ..Descriptor::default()
        })
    };
    let tar = "application/vnd.oci.image.layer.v1.tar";
    let apply = |diff, mounts| ApplyRequest {
        diff,
        mounts,
        ..ApplyRequest::default()
    };
    let compare = |left, right, media_type: &str| DiffRequest {
        left,
        right,
        media_type: media_type.into(),
        ..DiffRequest::default()
    };
    let nowhere = || vec![mount("bind", "/nonexistent/directory")];
    vec![
        method("Apply")
            .namespaces(apply(layer(tar, NOWHERE), Vec::new()))
            .send("nothing", apply(None, Vec::new()))
            .digests("digest", |digest| apply(layer(tar, &digest), Vec::new()))
            .send(
                "a media type that is no layer's",
                apply(layer("text/plain", HELLO), Vec::new()),
            )
            .send("a layer that is none", apply(layer(tar, HELLO), Vec::new()))
            .send(
                "a layer that is not compressed",
                apply(layer(&format!("{tar}+gzip"), HELLO), Vec::new()),
            )
            .send("a mount of nothing", apply(layer(tar, HELLO), nowhere()))
            .send(
                "a mount of an unknown type",
                apply(layer(tar, HELLO), vec![mount("unheard-of", "x")]),
            )
            .send("a negative size", {
                let mut request = apply(layer(tar, NOWHERE), Vec::new());
                request.diff.iter_mut().for_each(|diff| diff.size = -1);
                request
            })
            .send(
                "a payload that nobody knows",
                ApplyRequest {
                    payloads: [("unheard-of".into(), stranger())].into(),
                    ..apply(layer(tar, NOWHERE), Vec::new())
                },
            ),
        method("Diff")
            .namespaces(compare(nowhere(), nowhere(), tar))
            .send(
                "an unknown media type",
                compare(Vec::new(), Vec::new(), "text/plain"),
            )
            .send("a mount of nothing", compare(nowhere(), nowhere(), tar))
            .send(
                "a mount of an unknown type",
                compare(vec![mount("unheard-of", "x")], Vec::new(), tar),
            ),
    ]
}
