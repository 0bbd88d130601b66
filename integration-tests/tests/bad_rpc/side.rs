//! A daemon with a few good things in it, and a list of all that it holds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use integration_tests::containerd::ctr;
use integration_tests::{leftovers, run};
use tokio_stream::StreamExt;
use tonic::Request;
use tonic::transport::Channel;
use wharf_proto::containerd::services::containers::v1::{
    ListContainersRequest, containers_client::ContainersClient,
};
use wharf_proto::containerd::services::content::v1::{
    ListContentRequest, ListStatusesRequest, WriteAction, WriteContentRequest, content_client::ContentClient,
};
use wharf_proto::containerd::services::images::v1::{ListImagesRequest, images_client::ImagesClient};
use wharf_proto::containerd::services::leases::v1::{ListRequest, leases_client::LeasesClient};
use wharf_proto::containerd::services::namespaces::v1::{
    ListNamespacesRequest, namespaces_client::NamespacesClient,
};
use wharf_proto::containerd::services::sandbox::v1::{StoreListRequest, store_client::StoreClient};
use wharf_proto::containerd::services::snapshots::v1::{
    ListSnapshotsRequest, snapshots_client::SnapshotsClient,
};
use wharf_proto::containerd::services::tasks::v1::{ListTasksRequest, tasks_client::TasksClient};

use crate::call::{self, Outcome};
use crate::case::{Case, NAMESPACE, Within};

/// The digest of `hello\n`, which the daemon has.
pub(crate) const HELLO: &str = "sha256:5891b5b522d5df086d0ff0b110fbd9d21bb4fc7163af34d08286a2e846f6be03";
/// The reference of an ingest that the daemon has: three of ten bytes.
pub(crate) const PARTIAL: &str = "partial";

/// Functions of a script that make what is to stay: garbage may be collected before it is labelled.
pub(crate) const KEEP: &str = "again() { for try in 1 2 3 4 5; do eval \"$1\" && return; done; false; }\n\
    keep() { again \"ctr content ingest $1 < $2; ctr content label sha256:\\$(sha256sum $2 | cut -c1-64) containerd.io/gc.root=1\"; }";

/// One of the two daemons.
pub(crate) struct Side {
    pub(crate) channel: Channel,
    pub(crate) namespace: String,
    socket: PathBuf,
    home: PathBuf,
}

/// What a daemon holds, one line for each thing.
pub(crate) type Holdings = BTreeSet<String>;

impl Side {
    /// The daemon at `socket` with its files below `home`, and in `namespace` an image, a container, a lease, snapshots, a
    /// blob and an ingest.
    pub(crate) async fn furnish(socket: &Path, home: &Path, namespace: &str) -> Side {
        let side = Side {
            channel: call::channel(socket),
            namespace: namespace.to_owned(),
            socket: socket.to_owned(),
            home: home.to_owned(),
        };
        let file = home.join("hello");
        fs::write(&file, "hello\n").expect("write a file");
        side.script(&format!("{KEEP}\nkeep hello {}", file.display()));
        let script = format!(
            "{KEEP}\n\
             again 'ctr snapshots prepare key; ctr snapshots commit base key; ctr snapshots label base containerd.io/gc.root=1'\n\
             again 'ctr snapshots prepare active base; ctr snapshots label active containerd.io/gc.root=1'\n\
             ctr leases create --id lease\n"
        );
        side.script(&script);
        side.container("box", &[]);
        side.image().await;
        side.ingest(PARTIAL, b"abc", 10).await;
        side
    }

    /// Runs a script with `ctr` bound to this daemon and namespace.
    pub(crate) fn script(&self, script: &str) {
        let mut ctr = ctr(&self.socket, &self.namespace);
        let words: Vec<String> = std::iter::once(ctr.get_program())
            .chain(ctr.get_args())
            .map(|word| word.to_string_lossy().into_owned())
            .collect();
        ctr = std::process::Command::new("bash");
        ctr.args([
            "-c",
            &format!("ctr() {{ command {} \"$@\"; }}\n{script}", words.join(" ")),
        ]);
        run(&mut ctr).ok();
    }

    fn container(&self, id: &str, arguments: &[&str]) {
        let root = self.home.join("busybox");
        if !root.exists() {
            integration_tests::bundle::busybox_root(&root);
        }
        let arguments = arguments.join(" ");
        let script = format!(
            "ctr containers create --runtime io.containerd.runc.v2 --rootfs {} {id} /bin/sleep 1000 {arguments}",
            root.display()
        );
        self.script(&script);
    }

    /// A task that runs, of a container `id` that is made for it.
    pub(crate) fn task(&self, id: &str) {
        self.container(id, &[]);
        self.script(&format!("ctr tasks start --detach {id}"));
    }

    /// Ends the tasks and removes the containers `ids`.
    pub(crate) fn end_tasks(&self, ids: &[&str]) {
        for id in ids {
            self.script(&format!("ctr tasks rm --force {id}; ctr containers rm {id}"));
        }
    }

    async fn image(&self) {
        use wharf_proto::containerd::services::images::v1::{CreateImageRequest, Image};
        use wharf_proto::containerd::types::Descriptor;
        let image = Image {
            name: "image".into(),
            target: Some(Descriptor {
                media_type: "text/plain".into(),
                digest: HELLO.into(),
                size: 6,
                ..Descriptor::default()
            }),
            ..Image::default()
        };
        let request = CreateImageRequest {
            image: Some(image),
            ..CreateImageRequest::default()
        };
        let mut images = ImagesClient::new(self.channel.clone());
        images.create(self.request(request)).await.expect("make an image");
    }

    /// Writes `data` to the ingest `reference` of `total` bytes, and closes the stream without a commit.
    pub(crate) async fn ingest(&self, reference: &str, data: &'static [u8], total: i64) {
        let message = WriteContentRequest {
            action: WriteAction::Write.into(),
            r#ref: reference.into(),
            total,
            data: data.into(),
            ..WriteContentRequest::default()
        };
        let mut content = ContentClient::new(self.channel.clone());
        let mut answers = content
            .write(self.request(tokio_stream::iter([message])))
            .await
            .expect("write")
            .into_inner();
        while let Some(answer) = answers.next().await {
            answer.expect("the answer to a write");
        }
    }

    /// `message` in this side's namespace.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        within(&self.namespace, message)
    }

    /// Sends the case to `method`.
    pub(crate) async fn ask(&self, method: &str, case: &Case) -> (Outcome, String) {
        let namespace = match &case.within {
            Within::Own => Some(self.namespace.clone()),
            Within::None => None,
            Within::Named(name) => Some(name.clone()),
        };
        let headers: Vec<_> = namespace.into_iter().map(|name| (NAMESPACE, name)).collect();
        call::call(&self.channel, method, &headers, case.messages.clone()).await
    }

    /// All that the daemon holds, in all namespaces.
    pub(crate) async fn holdings(&self) -> Holdings {
        let mut held = Holdings::new();
        let neutral = |name: &str| name.replace(&self.namespace, "OWN");
        let mut namespaces = NamespacesClient::new(self.channel.clone());
        let request = Request::new(ListNamespacesRequest::default());
        let listed = namespaces
            .list(request)
            .await
            .expect("list namespaces")
            .into_inner();
        for namespace in listed.namespaces {
            held.insert(format!(
                "namespace {} {:?}",
                neutral(&namespace.name),
                namespace.labels
            ));
            for line in self.held_in(&namespace.name).await {
                held.insert(format!("{}: {line}", neutral(&namespace.name)));
            }
        }
        for point in leftovers::mounts_below(&self.home) {
            let below = point.strip_prefix(&self.home).unwrap_or(&point);
            held.insert(format!("mount {}", below.display()));
        }
        held
    }

    async fn held_in(&self, namespace: &str) -> Vec<String> {
        let mut held = Vec::new();
        let containers = ContainersClient::new(self.channel.clone())
            .list(within(namespace, ListContainersRequest::default()))
            .await
            .expect("list containers");
        held.extend(
            containers
                .into_inner()
                .containers
                .into_iter()
                .map(|container| format!("container {} {}", container.id, size_of(&container.labels))),
        );
        let images = ImagesClient::new(self.channel.clone())
            .list(within(namespace, ListImagesRequest::default()))
            .await
            .expect("list images");
        held.extend(images.into_inner().images.into_iter().map(|image| {
            format!(
                "image {} {:?} {}",
                image.name,
                image.target,
                size_of(&image.labels)
            )
        }));
        let leases = LeasesClient::new(self.channel.clone())
            .list(within(namespace, ListRequest::default()))
            .await
            .expect("list leases");
        held.extend(
            leases
                .into_inner()
                .leases
                .into_iter()
                .map(|lease| format!("lease {} {}", lease.id, size_of(&lease.labels))),
        );
        let statuses = ContentClient::new(self.channel.clone())
            .list_statuses(within(namespace, ListStatusesRequest::default()))
            .await
            .expect("list ingests");
        held.extend(
            statuses
                .into_inner()
                .statuses
                .into_iter()
                .map(|status| format!("ingest {} {} of {}", status.r#ref, status.offset, status.total)),
        );
        let tasks = TasksClient::new(self.channel.clone())
            .list(within(namespace, ListTasksRequest::default()))
            .await
            .expect("list tasks");
        held.extend(
            tasks
                .into_inner()
                .tasks
                .into_iter()
                .map(|task| format!("task {} {}", task.id, task.status)),
        );
        let mut content = ContentClient::new(self.channel.clone())
            .list(within(namespace, ListContentRequest::default()))
            .await
            .expect("list content")
            .into_inner();
        while let Some(page) = content.next().await {
            let infos = page.expect("a page of content").info;
            held.extend(
                infos
                    .into_iter()
                    .map(|info| format!("content {} {}", info.digest, size_of(&info.labels))),
            );
        }
        let snapshots = ListSnapshotsRequest {
            snapshotter: "overlayfs".into(),
            ..ListSnapshotsRequest::default()
        };
        let mut snapshots = SnapshotsClient::new(self.channel.clone())
            .list(within(namespace, snapshots))
            .await
            .expect("list snapshots")
            .into_inner();
        while let Some(page) = snapshots.next().await {
            let infos = page.expect("a page of snapshots").info;
            held.extend(
                infos
                    .into_iter()
                    .map(|info| format!("snapshot {} {} {}", info.name, info.kind, size_of(&info.labels))),
            );
        }
        let sandboxes = StoreClient::new(self.channel.clone())
            .list(within(namespace, StoreListRequest::default()))
            .await;
        // containerd 1.6 has none.
        for sandbox in sandboxes.map_or_else(|_none| Vec::new(), |listed| listed.into_inner().list) {
            held.push(format!("sandbox {}", sandbox.sandbox_id));
        }
        held
    }
}

/// Labels in short: they may be long.
fn size_of(labels: &BTreeMap<String, String>) -> String {
    let shown: Vec<String> = labels
        .iter()
        .map(|(key, value)| format!("{key:.40}={value:.40}"))
        .collect();
    format!("{shown:?}")
}

fn within<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let namespace = namespace.parse().expect("a namespace for metadata");
    request.metadata_mut().insert(NAMESPACE, namespace);
    request
}
