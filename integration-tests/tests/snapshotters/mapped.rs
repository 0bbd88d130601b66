//! Snapshots for containers in user namespaces: the layers of an image are shared, and each container sees them as its own.
//!
//! Through gRPC, since Debian's `ctr` mounts such snapshots itself and knows no maps yet.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use integration_tests::{Scratch, bundle};
use prost_types::Any;
use serde_json::json;
use tonic::{Code, Request};
use wharf_proto::any::RUNTIME_SPEC_URL;
use wharf_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use wharf_proto::containerd::services::containers::v1::{Container, CreateContainerRequest, container};
use wharf_proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use wharf_proto::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteTaskRequest, StartRequest, WaitRequest,
};
use wharf_proto::containerd::types::Mount;

use crate::subject::{Subject, kept, scoped};

/// Commits a snapshot that holds what `fill` writes on `parent`.
async fn layer(subject: &Subject, name: &str, parent: &str, fill: impl FnOnce(&Path)) {
    let key = format!("{name}-filled");
    let mounts = subject.prepare(&key, parent).await.unwrap();
    fill(&directory(&mounts[0], "upperdir="));
    subject.commit(name, &key).await.unwrap();
}

/// A directory that a mount names in an option, or as its source.
fn directory(mount: &Mount, option: &str) -> PathBuf {
    let named = mount.options.iter().find_map(|words| words.strip_prefix(option));
    named.unwrap_or(&mount.source).into()
}

fn owner(path: &Path) -> (u32, u32) {
    let file = fs::symlink_metadata(path).unwrap();
    (file.uid(), file.gid())
}

fn labels(uids: &str, gids: &str) -> BTreeMap<String, String> {
    let mut labels = kept();
    for (kind, map) in [("uid", uids), ("gid", gids)] {
        labels.insert(format!("containerd.io/snapshot/{kind}mapping"), map.to_owned());
    }
    labels
}

/// Runs a script in a container with the ids from `first` on; what it said.
async fn run(
    subject: &Subject,
    scratch: &Scratch,
    id: &str,
    mounts: Vec<Mount>,
    first: u32,
    script: &str,
) -> String {
    let directory = scratch.directory(format!("bundle-{id}"));
    let said = scratch.join(format!("{id}.out"));
    let map = json!([{"containerID": 0, "hostID": first, "size": 65536}]);
    bundle::configure(&directory, &["/bin/sh", "-c", script], |spec| {
        let namespaces = spec["linux"]["namespaces"].as_array_mut().unwrap();
        namespaces.push(json!({"type": "user"}));
        spec["linux"]["uidMappings"] = map.clone();
        spec["linux"]["gidMappings"] = map;
        spec["root"]["readonly"] = false.into();
        spec["linux"]["cgroupsPath"] = format!("/{}/{id}", scratch.unique()).into();
    });
    let spec = Any {
        type_url: RUNTIME_SPEC_URL.into(),
        value: fs::read(directory.join("config.json")).unwrap(),
    };
    let container = Container {
        id: id.into(),
        runtime: Some(container::Runtime {
            name: "io.containerd.runc.v2".into(),
            options: None,
        }),
        spec: Some(spec),
        ..Default::default()
    };
    let request = CreateContainerRequest {
        container: Some(container),
    };
    let mut containers = ContainersClient::new(subject.channel.clone());
    containers.create(scoped(request)).await.unwrap();
    let mut tasks = TasksClient::new(subject.channel.clone());
    let created = tasks.create(scoped(CreateTaskRequest {
        container_id: id.into(),
        rootfs: mounts,
        stdout: format!("file://{}", said.display()),
        stderr: format!("file://{}", said.display()),
        ..Default::default()
    }));
    created.await.unwrap();
    let container_id = id.to_owned();
    let waiting = tokio::spawn({
        let (mut tasks, container_id) = (tasks.clone(), container_id.clone());
        async move {
            let exec_id = String::new();
            let request: Request<_> = scoped(WaitRequest {
                container_id,
                exec_id,
            });
            tasks.wait(request).await
        }
    });
    let request = StartRequest {
        container_id: container_id.clone(),
        ..Default::default()
    };
    tasks.start(scoped(request)).await.unwrap();
    waiting.await.unwrap().unwrap();
    tasks
        .delete(scoped(DeleteTaskRequest { container_id }))
        .await
        .unwrap();
    fs::read_to_string(said).unwrap()
}

#[tokio::test]
async fn containers_in_user_namespaces_share_the_layers_of_an_image() {
    let scratch = Scratch::new();
    let subject = Subject::wharfd(&scratch, "wharfd", "").await;
    layer(&subject, "base", "", bundle::busybox_root).await;
    layer(&subject, "image", "base", |root| {
        fs::write(root.join("of-image"), "x").unwrap();
    })
    .await;
    let script =
        "stat -c %u:%g /bin/busybox /of-image /; echo new > /made; chmod 600 /of-image; stat -c %u:%g /made";
    for (id, first) in [("one", 100_000), ("two", 300_000)] {
        let map = format!("0:{first}:65536");
        let mounts = subject
            .prepare_with(id, "image", labels(&map, &map))
            .await
            .unwrap();
        let said = run(&subject, &scratch, id, mounts.clone(), first, script).await;
        let words: Vec<&str> = said.split_whitespace().collect();
        assert_eq!(words, ["0:0", "0:0", "0:0", "0:0"], "{said}");
        // On the host it is the container's, and the layers are what they were.
        let upper = directory(&mounts[0], "upperdir=");
        assert_eq!(owner(&upper), (first, first));
        assert_eq!(owner(&upper.join("made")), (first, first));
        assert_eq!(owner(&upper.join("of-image")), (first, first));
        let layers = directory(&mounts[0], "lowerdir=");
        let (top, _) = layers.to_str().unwrap().split_once(':').unwrap();
        assert_eq!(owner(&Path::new(top).join("of-image")), (0, 0));
        // Nothing stays of how it was mounted.
        let left = integration_tests::leftovers::mounts_below(scratch.path());
        assert!(left.is_empty(), "{left:?}");
    }
}

#[tokio::test]
async fn maps_that_make_no_sense_are_refused() {
    let scratch = Scratch::new();
    let subject = Subject::wharfd(&scratch, "wharfd", "").await;
    let good = "0:100000:65536";
    for (uids, gids) in [
        ("0:1", good),
        (good, "5:1:1"),
        (good, "0:4294967295:9"),
        ("", good),
    ] {
        let refused = subject
            .prepare_with("wrong", "", labels(uids, gids))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
    }
    subject.prepare("wrong", "").await.unwrap();
}
