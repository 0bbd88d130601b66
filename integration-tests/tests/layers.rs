//! Images through the supervisor's own API: pulled from a real registry or imported from archives, unpacked, and compared
//! with what umoci makes of them; hostile layers through the Diff service.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use integration_tests::daemon::Daemon;
use integration_tests::image::{Compression, Layout};
use integration_tests::registry::Registry;
use integration_tests::{Scratch, binaries, leftovers, run};
use prost_types::Any;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use wharf_proto::any;
use wharf_proto::containerd::services::content::v1::content_client::ContentClient;
use wharf_proto::containerd::services::content::v1::{
    InfoRequest, ListContentRequest, ReadContentRequest, WriteAction, WriteContentRequest,
};
use wharf_proto::containerd::services::diff::v1::diff_client::DiffClient;
use wharf_proto::containerd::services::diff::v1::{ApplyRequest, DiffRequest};
use wharf_proto::containerd::services::images::v1::images_client::ImagesClient;
use wharf_proto::containerd::services::images::v1::{Image, ListImagesRequest};
use wharf_proto::containerd::services::leases::v1::ListRequest as ListLeasesRequest;
use wharf_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use wharf_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use wharf_proto::containerd::services::snapshots::v1::{
    Info, ListSnapshotsRequest, PrepareSnapshotRequest, ViewSnapshotRequest,
};
use wharf_proto::containerd::services::streaming::v1::StreamInit;
use wharf_proto::containerd::services::streaming::v1::streaming_client::StreamingClient;
use wharf_proto::containerd::services::transfer::v1::transfer_client::TransferClient;
use wharf_proto::containerd::services::transfer::v1::{TransferOptions, TransferRequest};
use wharf_proto::containerd::types::transfer::{
    AuthRequest, AuthResponse, AuthType, Data, ImageImportStream, ImageReference, ImageStore, OciRegistry,
    Progress, RegistryResolver, UnpackConfiguration, WindowUpdate,
};
use wharf_proto::containerd::types::{Descriptor, Mount, Platform};

const NAMESPACE: &str = "tests";
/// What every tool reads.
const GZIP: [Compression; 3] = [Compression::Gzip, Compression::Gzip, Compression::Gzip];
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A private `wharfd` and a connection to it.
struct Supervisor {
    channel: Channel,
    home: PathBuf,
    _daemon: Daemon,
}

impl Supervisor {
    async fn start(scratch: &Scratch) -> Self {
        let home = scratch.directory("wharfd");
        let socket = home.join("sock");
        let daemon = Daemon::start(
            Command::new(binaries::ours("wharfd"))
                .arg("--root")
                .arg(home.join("root"))
                .arg("--state")
                .arg(home.join("state"))
                .arg("--address")
                .arg(&socket),
            &home.join("log"),
            || std::os::unix::net::UnixStream::connect(&socket).is_ok(),
        );
        let channel = Endpoint::try_from(format!("unix://{}", socket.display()))
            .unwrap()
            .connect()
            .await
            .unwrap();
        Self {
            channel,
            home,
            _daemon: daemon,
        }
    }

    fn pull(&self, reference: &str) -> TransferRequest {
        self.pull_with(reference, RegistryResolver::default())
    }

    fn pull_with(&self, reference: &str, resolver: RegistryResolver) -> TransferRequest {
        TransferRequest {
            source: Some(any::pack(&OciRegistry {
                reference: reference.into(),
                resolver: Some(resolver),
            })),
            destination: Some(any::pack(&store(reference))),
            options: None,
        }
    }

    async fn transfer(&self, request: TransferRequest) -> Result<(), Status> {
        TransferClient::new(self.channel.clone())
            .transfer(scoped(request))
            .await
            .map(drop)
    }

    /// Opens a stream: a sender, and what the daemon sends.
    async fn stream(&self, id: &str) -> (mpsc::Sender<Any>, tonic::Streaming<Any>) {
        let (sender, receiver) = mpsc::channel(16);
        sender
            .send(any::pack(&StreamInit { id: id.into() }))
            .await
            .unwrap();
        let mut inbound = StreamingClient::new(self.channel.clone())
            .stream(scoped(ReceiverStream::new(receiver)))
            .await
            .unwrap()
            .into_inner();
        let acknowledged = inbound.message().await.unwrap().unwrap();
        assert_eq!(acknowledged.type_url, "google.protobuf.Empty");
        (sender, inbound)
    }

    /// Imports the archive `file` into `destination`.
    async fn import(&self, file: &Path, destination: ImageStore) -> Result<(), Status> {
        let id = unique("import");
        let (sender, mut inbound) = self.stream(&id).await;
        let bytes = fs::read(file).unwrap();
        let feeder = tokio::spawn(async move {
            let mut window = 0i64;
            for chunk in bytes.chunks(32 * 1024) {
                while window < chunk.len() as i64 {
                    let Ok(Some(message)) = inbound.message().await else {
                        return;
                    };
                    let update: WindowUpdate = any::unpack(&message).unwrap().unwrap();
                    window += i64::from(update.update);
                }
                window -= chunk.len() as i64;
                if sender
                    .send(any::pack(&Data { data: chunk.into() }))
                    .await
                    .is_err()
                {
                    return;
                }
            }
            // Closing the side of the data ends it; letting go of the answers as well would break it off.
            drop(sender);
            while let Ok(Some(_)) = inbound.message().await {}
        });
        let source = ImageImportStream {
            stream: id,
            ..ImageImportStream::default()
        };
        let outcome = self
            .transfer(TransferRequest {
                source: Some(any::pack(&source)),
                destination: Some(any::pack(&destination)),
                options: None,
            })
            .await;
        feeder.abort();
        outcome
    }

    async fn images(&self) -> Vec<Image> {
        let answer = ImagesClient::new(self.channel.clone())
            .list(scoped(ListImagesRequest::default()))
            .await
            .unwrap();
        answer.into_inner().images
    }

    async fn snapshots(&self) -> Vec<Info> {
        let mut answers = SnapshotsClient::new(self.channel.clone())
            .list(scoped(ListSnapshotsRequest::default()))
            .await
            .unwrap()
            .into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            all.extend(answer.info);
        }
        all
    }

    async fn blobs(&self) -> Vec<String> {
        let mut answers = ContentClient::new(self.channel.clone())
            .list(scoped(ListContentRequest::default()))
            .await
            .unwrap()
            .into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            all.extend(answer.info.into_iter().map(|info| info.digest));
        }
        all
    }

    async fn label(&self, digest: &str, key: &str) -> Option<String> {
        let request = InfoRequest {
            digest: digest.into(),
        };
        let answer = ContentClient::new(self.channel.clone())
            .info(scoped(request))
            .await
            .unwrap();
        answer.into_inner().info.unwrap().labels.get(key).cloned()
    }

    async fn read(&self, digest: &str) -> Value {
        let request = ReadContentRequest {
            digest: digest.into(),
            ..ReadContentRequest::default()
        };
        let mut answers = ContentClient::new(self.channel.clone())
            .read(scoped(request))
            .await
            .unwrap()
            .into_inner();
        let mut bytes = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            bytes.extend(answer.data);
        }
        serde_json::from_slice(&bytes).unwrap()
    }

    async fn leases(&self) -> usize {
        let answer = LeasesClient::new(self.channel.clone())
            .list(scoped(ListLeasesRequest::default()))
            .await
            .unwrap();
        answer.into_inner().leases.len()
    }

    /// The tree of the topmost snapshot of the image whose manifest has `digest`, as `probe tree` sees it.
    async fn tree(&self, scratch: &Scratch, manifest: &str) -> Value {
        let manifest = self.read(manifest).await;
        let config = manifest["config"]["digest"].as_str().unwrap();
        let top = self
            .label(config, "containerd.io/gc.ref.snapshot.overlayfs")
            .await
            .unwrap();
        let request = ViewSnapshotRequest {
            snapshotter: "overlayfs".into(),
            key: unique("view"),
            parent: top,
            ..ViewSnapshotRequest::default()
        };
        let answer = SnapshotsClient::new(self.channel.clone())
            .view(scoped(request))
            .await
            .unwrap();
        let target = scratch.directory(unique("mounted"));
        for mount in answer.into_inner().mounts {
            attach(&mount, &target);
        }
        probe(&target)
    }

    /// A writable snapshot on `parent`, and its mounts.
    async fn prepare(&self, parent: &str) -> Vec<Mount> {
        let request = PrepareSnapshotRequest {
            snapshotter: "overlayfs".into(),
            key: unique("active"),
            parent: parent.into(),
            ..PrepareSnapshotRequest::default()
        };
        let answer = SnapshotsClient::new(self.channel.clone())
            .prepare(scoped(request))
            .await
            .unwrap();
        answer.into_inner().mounts
    }

    /// Writes `bytes` as a blob and applies it as a layer to `mounts`.
    async fn apply(&self, bytes: &[u8], mounts: Vec<Mount>) -> Result<Descriptor, Status> {
        let digest = sha256(bytes);
        let reference = unique("layer");
        let write = WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: reference,
            total: bytes.len() as i64,
            expected: digest.clone(),
            data: bytes.to_vec().into(),
            ..WriteContentRequest::default()
        };
        let written = ContentClient::new(self.channel.clone())
            .write(scoped(tokio_stream::once(write)))
            .await;
        if let Ok(written) = written {
            let mut written = written.into_inner();
            while let Some(answer) = written.next().await {
                match answer {
                    Ok(_) => {}
                    Err(status) if status.code() == Code::AlreadyExists => {}
                    Err(status) => panic!("{status}"),
                }
            }
        }
        let request = ApplyRequest {
            diff: Some(Descriptor {
                media_type: LAYER.into(),
                digest,
                size: bytes.len() as i64,
                ..Descriptor::default()
            }),
            mounts,
            ..ApplyRequest::default()
        };
        let answer = DiffClient::new(self.channel.clone())
            .apply(scoped(request))
            .await?;
        Ok(answer.into_inner().applied.unwrap())
    }
}

fn scoped<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("containerd-namespace", NAMESPACE.parse().unwrap());
    request
}

fn unique(what: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The destination `name`, unpacked for this machine.
fn store(name: &str) -> ImageStore {
    let platform = Platform {
        os: "linux".into(),
        architecture: match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        }
        .into(),
        ..Platform::default()
    };
    ImageStore {
        name: name.into(),
        platforms: vec![platform.clone()],
        unpacks: vec![UnpackConfiguration {
            platform: Some(platform),
            snapshotter: String::new(),
        }],
        ..ImageStore::default()
    }
}

fn attach(mount: &Mount, target: &Path) {
    let mut options = mount.options.clone();
    if mount.r#type == "overlay" {
        options.push("ro".into());
    }
    let kind = if mount.r#type == "bind" {
        "none"
    } else {
        &mount.r#type
    };
    run(Command::new("mount")
        .args(["-t", kind, "-o", &options.join(","), &mount.source])
        .arg(target))
    .ok();
}

fn probe(directory: &Path) -> Value {
    let text = run(Command::new(binaries::ours("probe")).arg("tree").arg(directory)).ok();
    serde_json::from_str(&text).unwrap()
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::Digest;
    use std::fmt::Write;
    sha2::Sha256::digest(bytes)
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            write!(text, "{byte:02x}").unwrap();
            text
        })
}

fn umoci(layout: &Path, tag: &str, bundle: &Path) -> Value {
    run(Command::new(binaries::peer("umoci"))
        .args(["unpack", "--image"])
        .arg(format!("{}:{tag}", layout.display()))
        .arg(bundle))
    .ok();
    probe(&bundle.join("rootfs"))
}

#[track_caller]
fn assert_same(ours: &Value, theirs: &Value) {
    let (ours, theirs) = (ours.as_object().unwrap(), theirs.as_object().unwrap());
    assert!(ours.len() > 10, "an empty tree compares equal to anything");
    for (path, entry) in theirs {
        assert_eq!(ours.get(path), Some(entry), "{path}");
    }
    for path in ours.keys() {
        assert!(theirs.contains_key(path), "{path} should not be there");
    }
}

/// Three layers with everything that layers do; the compressions differ.
fn image(scratch: &Scratch, compressions: [Compression; 3]) -> Layout {
    let mut layout = Layout::new(&scratch.join(unique("layout")));
    let trees = unique("trees");
    let tree = scratch.directory(format!("{trees}/1"));
    for directory in ["etc", "bin", "gone/deep", "opaque/old", "replaced", "var/sticky"] {
        fs::create_dir_all(tree.join(directory)).unwrap();
    }
    fs::write(tree.join("etc/passwd"), "root:x:0:0::/:/bin/sh\n").unwrap();
    fs::write(tree.join("bin/su"), vec![7; 300_000]).unwrap();
    fs::set_permissions(tree.join("bin/su"), fs::Permissions::from_mode(0o4755)).unwrap();
    fs::hard_link(tree.join("bin/su"), tree.join("bin/su-too")).unwrap();
    fs::write(tree.join("bin/ping"), "capable").unwrap();
    run(Command::new("setcap")
        .arg("cap_net_raw=ep")
        .arg(tree.join("bin/ping")))
    .ok();
    fs::write(tree.join("bin/dump"), "capable").unwrap();
    run(Command::new("setcap")
        .arg("cap_net_raw=ep")
        .arg(tree.join("bin/dump")))
    .ok();
    run(Command::new("setfattr")
        .args(["-n", "user.note", "-v", "a\nb"])
        .arg(tree.join("etc/passwd")))
    .ok();
    symlink("../etc/passwd", tree.join("bin/link")).unwrap();
    symlink("/absolute/nowhere", tree.join("dangling")).unwrap();
    for name in [
        "gone/deep/file",
        "opaque/old/file",
        "opaque/file",
        "replaced/file",
        "becomes-dir",
    ] {
        fs::write(tree.join(name), name).unwrap();
    }
    run(Command::new("mknod")
        .arg(tree.join("var/null"))
        .args(["c", "1", "3"]))
    .ok();
    run(Command::new("mkfifo")
        .args(["-m", "622"])
        .arg(tree.join("var/fifo")))
    .ok();
    fs::set_permissions(tree.join("var/sticky"), fs::Permissions::from_mode(0o1777)).unwrap();
    std::os::unix::fs::chown(tree.join("var/sticky"), Some(1000), Some(100_000)).unwrap();
    let sparse = fs::File::create(tree.join("var/sparse")).unwrap();
    sparse.set_len(3 << 20).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&sparse, b"middle", 1 << 20).unwrap();
    let long = format!("{}/{}", "long".repeat(30), "name".repeat(50));
    fs::create_dir_all(tree.join(&long)).unwrap();
    fs::write(tree.join(&long).join("file"), "long").unwrap();
    settle(&tree);
    layout.layer_of(&tree, compressions[0]);

    let tree = scratch.directory(format!("{trees}/2"));
    fs::create_dir_all(tree.join("opaque")).unwrap();
    fs::write(tree.join(".wh.gone"), "").unwrap();
    fs::write(tree.join(".wh.replaced"), "").unwrap();
    fs::write(tree.join("opaque/.wh..wh..opq"), "").unwrap();
    fs::write(tree.join("opaque/new"), "new").unwrap();
    fs::create_dir_all(tree.join("becomes-dir")).unwrap();
    fs::write(tree.join("becomes-dir/file"), "now a directory").unwrap();
    fs::create_dir_all(tree.join("bin")).unwrap();
    fs::write(tree.join("bin/.wh.ping"), "").unwrap();
    settle(&tree);
    layout.layer_of(&tree, compressions[1]);

    let tree = scratch.directory(format!("{trees}/3"));
    fs::write(tree.join("replaced"), "a file now").unwrap();
    fs::create_dir_all(tree.join("gone")).unwrap();
    fs::write(tree.join("gone/back"), "back").unwrap();
    settle(&tree);
    layout.layer_of(&tree, compressions[2]);
    layout.tag("latest", &json!({}));
    layout
}

/// One time for all files, so that two layers of the same tree are the same.
fn settle(tree: &Path) {
    run(Command::new("find")
        .arg(tree)
        .args(["-exec", "touch", "-h", "-d", "@1234567890.125", "{}", "+"]))
    .ok();
}

/// The layout as a tar, compressed by `filter` (an option of GNU tar).
fn archive(scratch: &Scratch, layout: &Path, filter: &str) -> PathBuf {
    let file = scratch.join(unique("archive"));
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(layout);
    if !filter.is_empty() {
        tar.arg(filter);
    }
    run(tar.arg("-cf").arg(&file).arg(".")).ok();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pulled_image_is_what_umoci_unpacks() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    let reference = registry.push(layout.path(), "latest", "team/app:v1");
    let supervisor = Supervisor::start(&scratch).await;

    let (_keep, mut progress) = supervisor.stream("progress").await;
    let mut request = supervisor.pull(&reference);
    request.options = Some(TransferOptions {
        progress_stream: "progress".into(),
    });
    let leases = supervisor.leases().await;
    supervisor.transfer(request).await.unwrap();

    let images = supervisor.images().await;
    assert_eq!(images.len(), 1);
    assert_eq!(images[0].name, reference);
    let target = images[0].target.clone().unwrap().digest;
    let expected = umoci(layout.path(), "latest", &scratch.join("bundle"));
    assert_same(&supervisor.tree(&scratch, &target).await, &expected);
    assert_eq!(
        supervisor.leases().await,
        leases,
        "the operation's lease was given back"
    );

    let mut events = Vec::new();
    while let Some(message) = progress.message().await.unwrap() {
        events.push(any::unpack::<Progress>(&message).unwrap().unwrap());
    }
    let said = |event: &str| events.iter().filter(|progress| progress.event == event).count();
    assert_eq!(said("extracted"), 3);
    assert_eq!(said("saved"), 1);
    assert_eq!(said("complete"), 5, "manifest, config and three layers");
    let layer = events
        .iter()
        .find(|progress| progress.event == "extracted")
        .unwrap();
    assert!(layer.name.starts_with("layer-sha256:") && layer.total > 0 && layer.progress == layer.total);

    // What containerd's clients look for.
    let manifest = supervisor.read(&target).await;
    let layer = manifest["layers"][0]["digest"].as_str().unwrap();
    assert_eq!(
        supervisor
            .label(&target, "containerd.io/gc.ref.content.l.0")
            .await
            .as_deref(),
        Some(layer)
    );
    let source = supervisor
        .label(layer, "containerd.io/distribution.source.127.0.0.1")
        .await;
    assert_eq!(source.as_deref(), Some("team/app"));
    assert!(
        supervisor
            .label(layer, "containerd.io/uncompressed")
            .await
            .is_some()
    );

    // Once more: nothing is fetched or unpacked again, even with the registry gone bad.
    for layer in manifest["layers"].as_array().unwrap() {
        fs::write(registry.blob(layer["digest"].as_str().unwrap()), "rotten").unwrap();
    }
    let before = supervisor.snapshots().await.len();
    supervisor.transfer(supervisor.pull(&reference)).await.unwrap();
    assert_eq!(supervisor.snapshots().await.len(), before);
    assert!(leftovers::mounts_below(&supervisor.home).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn archives_of_both_formats_are_imported() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let expected = umoci(layout.path(), "latest", &scratch.join("bundle"));
    let supervisor = Supervisor::start(&scratch).await;
    let mixed = image(
        &scratch,
        [Compression::None, Compression::Zstd, Compression::Gzip],
    );
    for (layout, filter) in [(&layout, ""), (&layout, "--gzip"), (&mixed, "--zstd")] {
        let file = archive(&scratch, layout.path(), filter);
        supervisor
            .import(&file, store("example.org/imported:1"))
            .await
            .unwrap();
    }
    let target = supervisor.images().await[0].target.clone().unwrap();
    let index = supervisor.read(&target.digest).await;
    let manifest = index["manifests"][0]["digest"].as_str().unwrap();
    assert_same(&supervisor.tree(&scratch, manifest).await, &expected);

    // The same image as `docker save` writes it, under the name that is in the archive.
    let saved = scratch.join("saved.tar");
    run(Command::new(binaries::peer("skopeo"))
        .args(["--insecure-policy", "copy", "--quiet"])
        .arg(format!("oci:{}:latest", layout.path().display()))
        .arg(format!("docker-archive:{}:team/saved:2", saved.display())))
    .ok();
    let any_name = ImageReference {
        name: "example.org/x".into(),
        is_prefix: true,
        allow_overwrite: true,
        ..ImageReference::default()
    };
    let destination = ImageStore {
        extra_references: vec![any_name],
        ..store("")
    };
    supervisor.import(&saved, destination).await.unwrap();
    let images = supervisor.images().await;
    let saved = images
        .iter()
        .find(|image| image.name == "docker.io/team/saved:2")
        .unwrap();
    let manifest = saved.target.clone().unwrap().digest;
    assert_same(&supervisor.tree(&scratch, &manifest).await, &expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn concurrent_pulls_of_one_image_agree() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    let reference = registry.push(layout.path(), "latest", "team/app:v1");
    let supervisor = Supervisor::start(&scratch).await;
    let pulls = (0..6).map(|_| supervisor.transfer(supervisor.pull(&reference)));
    for outcome in futures_join(pulls).await {
        outcome.unwrap();
    }
    assert_eq!(supervisor.snapshots().await.len(), 3);
    assert_eq!(supervisor.images().await.len(), 1);
}

/// Polls all futures at the same time.
async fn futures_join<F: Future>(futures: impl Iterator<Item = F>) -> Vec<F::Output> {
    let mut pending: Vec<_> = futures.map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut pending {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if pending.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    pending.into_iter().filter_map(|(_, output)| output).collect()
}

/// CVE-2021-41190 and its kin: what a registry gets wrong is refused, and nothing of the image is there.
#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_image_leaves_no_trace() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    let reference = registry.push(layout.path(), "latest", "team/app:v1");
    let index: Value = serde_json::from_slice(&fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let manifest = index["manifests"][0]["digest"].as_str().unwrap().to_owned();
    let hex = manifest.strip_prefix("sha256:").unwrap();
    let document: Value =
        serde_json::from_slice(&fs::read(layout.path().join("blobs/sha256").join(hex)).unwrap()).unwrap();
    let layer = document["layers"][1]["digest"].as_str().unwrap().to_owned();
    let good = fs::read(registry.blob(&layer)).unwrap();
    let supervisor = Supervisor::start(&scratch).await;

    let mut wrong_byte = good.clone();
    wrong_byte[good.len() / 2] ^= 1;
    let cut = good[..good.len() / 2].to_vec();
    let longer = [good.as_slice(), b"more"].concat();
    for damaged in [wrong_byte, cut, longer] {
        fs::write(registry.blob(&layer), &damaged).unwrap();
        let refused = supervisor
            .transfer(supervisor.pull(&reference))
            .await
            .unwrap_err();
        assert!(refused.message().contains(&layer), "{refused}");
        assert!(supervisor.images().await.is_empty());
        assert!(
            !supervisor.blobs().await.contains(&layer),
            "the damaged layer is visible"
        );
    }
    // The next try starts anew and succeeds.
    fs::write(registry.blob(&layer), &good).unwrap();
    supervisor.transfer(supervisor.pull(&reference)).await.unwrap();
    assert_eq!(supervisor.images().await.len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_diff_id_is_refused() {
    let scratch = Scratch::new();
    let mut layout = Layout::new(&scratch.join("layout"));
    let tree = scratch.directory("tree");
    fs::write(tree.join("file"), "data").unwrap();
    layout.layer_of(&tree, Compression::Gzip);
    layout.tag("latest", &json!({}));
    // Another config for the same layer.
    let index: Value = serde_json::from_slice(&fs::read(layout.path().join("index.json")).unwrap()).unwrap();
    let blob = |digest: &Value| {
        layout
            .path()
            .join("blobs/sha256")
            .join(digest.as_str().unwrap().strip_prefix("sha256:").unwrap())
    };
    let manifest = &index["manifests"][0]["digest"];
    let mut document: Value = serde_json::from_slice(&fs::read(blob(manifest)).unwrap()).unwrap();
    let mut config: Value =
        serde_json::from_slice(&fs::read(blob(&document["config"]["digest"])).unwrap()).unwrap();
    config["rootfs"]["diff_ids"][0] = json!(sha256(b"another layer"));
    let adopt = |value: &Value| {
        let bytes = value.to_string().into_bytes();
        let digest = sha256(&bytes);
        fs::write(blob(&json!(digest)), &bytes).unwrap();
        (digest, bytes.len())
    };
    let (digest, size) = adopt(&config);
    document["config"]["digest"] = json!(digest);
    document["config"]["size"] = json!(size);
    let (digest, size) = adopt(&document);
    let mut index = index.clone();
    index["manifests"][0]["digest"] = json!(digest);
    index["manifests"][0]["size"] = json!(size);
    fs::write(layout.path().join("index.json"), index.to_string()).unwrap();

    let supervisor = Supervisor::start(&scratch).await;
    let file = archive(&scratch, layout.path(), "");
    let refused = supervisor
        .import(&file, store("example.org/a:1"))
        .await
        .unwrap_err();
    assert!(refused.message().contains("wrong diff id"), "{refused}");
    assert!(supervisor.images().await.is_empty() && supervisor.snapshots().await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_there_is_told_by_name() {
    let scratch = Scratch::new();
    let registry = Registry::start(&scratch);
    let supervisor = Supervisor::start(&scratch).await;
    let missing = registry.reference("nobody/nothing:1");
    let refused = supervisor.transfer(supervisor.pull(&missing)).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound, "{refused}");
    assert!(refused.message().contains("manifest unknown"), "{refused}");

    let port = integration_tests::registry::free_port();
    let dead = format!("127.0.0.1:{port}/a:1");
    let refused = supervisor.transfer(supervisor.pull(&dead)).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "{refused}");
    assert!(
        refused
            .message()
            .contains(&format!("dial tcp 127.0.0.1:{port}: connection refused")),
        "{refused}"
    );

    let push = TransferRequest {
        source: Some(any::pack(&store("a"))),
        destination: Some(any::pack(&OciRegistry::default())),
        options: None,
    };
    assert_eq!(
        supervisor.transfer(push).await.unwrap_err().code(),
        Code::Unimplemented
    );
    let diff = DiffClient::new(supervisor.channel.clone())
        .diff(scoped(DiffRequest::default()))
        .await;
    assert_eq!(diff.unwrap_err().code(), Code::Unimplemented);
    let cut = scratch.join("cut.tar");
    fs::write(&cut, [1; 700]).unwrap();
    assert_eq!(
        supervisor.import(&cut, store("a")).await.unwrap_err().code(),
        Code::InvalidArgument
    );
}

/// The registry wants a password; the client gives it over its stream when it is asked, and only then.
#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_asked_for_over_the_stream() {
    let scratch = Scratch::new();
    let layout = image(&scratch, GZIP);
    let registry = Registry::start(&scratch);
    registry.push(layout.path(), "latest", "team/app:v1");
    let (_guarded, host) = guarded(&scratch);
    let reference = format!("{host}/team/app:v1");
    let supervisor = Supervisor::start(&scratch).await;

    let (answers, mut questions) = supervisor.stream("auth").await;
    let client = tokio::spawn(async move {
        let question = questions.message().await.unwrap().unwrap();
        let question: AuthRequest = any::unpack(&question).unwrap().unwrap();
        assert_eq!(question.host, host);
        let answer = AuthResponse {
            auth_type: AuthType::Credentials.into(),
            username: "user".into(),
            secret: "secret".into(),
            ..AuthResponse::default()
        };
        answers.send(any::pack(&answer)).await.unwrap();
        questions.message().await
    });
    let resolver = RegistryResolver {
        auth_stream: "auth".into(),
        ..RegistryResolver::default()
    };
    supervisor
        .transfer(supervisor.pull_with(&reference, resolver))
        .await
        .unwrap();
    assert!(
        client.await.unwrap().unwrap().is_none(),
        "the stream ends with the transfer"
    );
    let refused = supervisor
        .transfer(supervisor.pull(&reference))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
}

/// A second registry over the storage of the first, which wants `user` and `secret`; with its `host:port`.
fn guarded(scratch: &Scratch) -> (Daemon, String) {
    let home = scratch.directory("guarded");
    // The bcrypt of "secret".
    let password = "user:$2a$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    fs::write(home.join("htpasswd"), password).unwrap();
    let host = format!("127.0.0.1:{}", integration_tests::registry::free_port());
    let config = json!({
        "version": "0.1",
        "log": {"level": "error"},
        "storage": {"filesystem": {"rootdirectory": scratch.join("registry/storage")}},
        "http": {"addr": host},
        "auth": {"htpasswd": {"realm": "tests", "path": home.join("htpasswd")}},
    });
    // JSON is YAML.
    fs::write(home.join("config.yml"), config.to_string()).unwrap();
    let daemon = Daemon::start(
        Command::new(binaries::peer("docker-registry"))
            .arg("serve")
            .arg(home.join("config.yml")),
        &home.join("log"),
        || std::net::TcpStream::connect(&host).is_ok(),
    );
    (daemon, host)
}

/// Each hostile layer, on a first snapshot and on one with a parent: refused or contained, and the host untouched.
#[tokio::test(flavor = "multi_thread")]
async fn hostile_layers_stay_in_their_snapshot() {
    let scratch = Scratch::new();
    let supervisor = Supervisor::start(&scratch).await;
    let canary = scratch.directory("canary");
    fs::write(canary.join("file"), "untouched").unwrap();
    let outside = canary.to_str().unwrap();
    let base = supervisor.prepare("").await;
    supervisor
        .apply(&Tar::default().dir("lib").file("lib/a", b"a").end(), base)
        .await
        .unwrap();

    let up = "../".repeat(30);
    let cases: Vec<(&str, Vec<u8>)> = vec![
        (
            "dots",
            Tar::default()
                .file(&format!("{}{outside}/new", "../".repeat(20)), b"evil")
                .end(),
        ),
        (
            "link then write",
            Tar::default()
                .symlink("out", outside)
                .file("out/file", b"evil")
                .file("out/new", b"")
                .end(),
        ),
        (
            "relative link",
            Tar::default()
                .symlink("out", &format!("{up}{outside}"))
                .file("out/file", b"evil")
                .end(),
        ),
        (
            "link through proc",
            Tar::default()
                .symlink("out", "/proc/self/root")
                .file(&format!("out{outside}/file"), b"evil")
                .end(),
        ),
        (
            "hard link out",
            Tar::default().hard_link("h", &format!("{outside}/file")).end(),
        ),
        (
            "hard link by dots",
            Tar::default()
                .hard_link("h", &format!("{up}{outside}/file"))
                .end(),
        ),
        (
            "hard link through link",
            Tar::default()
                .symlink("out", outside)
                .hard_link("h", "out/file")
                .end(),
        ),
        (
            "chmod through link",
            Tar::default()
                .symlink("l", &format!("{outside}/file"))
                .hard_link("h", "l")
                .end(),
        ),
        (
            "whiteout through link",
            Tar::default()
                .symlink("out", outside)
                .file("out/.wh.file", b"")
                .end(),
        ),
        (
            "opaque through link",
            Tar::default()
                .symlink("out", outside)
                .file("out/.wh..wh..opq", b"")
                .end(),
        ),
        ("whiteout of dots", Tar::default().file(".wh...", b"").end()),
        (
            "directory over link",
            Tar::default()
                .symlink("out", outside)
                .dir("out")
                .file("out/file", b"evil")
                .end(),
        ),
        (
            "device over file",
            Tar::default().node("lib/a", 1, 3).file("lib/a/b", b"").end(),
        ),
    ];
    for (what, archive) in &cases {
        for parent in [false, true] {
            let mounts = if parent {
                committed(&supervisor).await
            } else {
                supervisor.prepare("").await
            };
            let outcome = supervisor.apply(archive, mounts).await;
            let refused = [
                "dots",
                "hard link by dots",
                "whiteout of dots",
                "hard link out",
                "device over file",
            ];
            if refused.contains(what) {
                assert!(outcome.is_err(), "{what} was accepted");
            }
            assert_eq!(
                fs::read_to_string(canary.join("file")).unwrap(),
                "untouched",
                "{what}"
            );
            assert_eq!(fs::metadata(canary.join("file")).unwrap().nlink(), 1, "{what}");
            assert_eq!(fs::read_dir(&canary).unwrap().count(), 1, "{what}");
        }
    }
    assert!(leftovers::mounts_below(scratch.path()).is_empty());
}

/// Whiteouts in an upper directory are overlayfs's own, in whichever order the layer has them.
#[tokio::test(flavor = "multi_thread")]
async fn whiteouts_become_overlayfs_own() {
    let scratch = Scratch::new();
    let supervisor = Supervisor::start(&scratch).await;
    let mounts = committed(&supervisor).await;
    let upper = mounts[0]
        .options
        .iter()
        .find_map(|option| option.strip_prefix("upperdir="))
        .unwrap();
    let upper = PathBuf::from(upper);
    let archive = Tar::default()
        .file("lib/.wh.a", b"")
        .dir("after")
        .file("after/new", b"")
        .file(".wh.after", b"")
        .file(".wh.before", b"")
        .dir("before")
        .file("before/new", b"")
        .dir("marked")
        .file("marked/.wh..wh..opq", b"")
        .end();
    let applied = supervisor.apply(&archive, mounts.clone()).await.unwrap();
    assert_eq!(
        (applied.digest, applied.size),
        (sha256(&archive), archive.len() as i64)
    );
    let whiteout = fs::symlink_metadata(upper.join("lib/a")).unwrap();
    assert_eq!((whiteout.mode() & 0o170_000, whiteout.rdev()), (0o020_000, 0));
    let target = scratch.directory("mounted");
    attach(&mounts[0], &target);
    let seen = probe(&target);
    let names: Vec<&str> = seen.as_object().unwrap().keys().map(String::as_str).collect();
    for gone in ["lib/a", "after/old", "before/old", "marked/old"] {
        assert!(
            !names.iter().any(|name| name.trim_start_matches('/') == gone),
            "{gone} shows through: {names:?}"
        );
    }
    for there in ["after/new", "before/new"] {
        assert!(
            names.iter().any(|name| name.trim_start_matches('/') == there),
            "{there} is hidden: {names:?}"
        );
    }
}

/// A writable snapshot on one with `lib/a`, and files that a layer can hide.
async fn committed(supervisor: &Supervisor) -> Vec<Mount> {
    let key = unique("base");
    let name = unique("committed");
    let mut client = SnapshotsClient::new(supervisor.channel.clone());
    let request = PrepareSnapshotRequest {
        key: key.clone(),
        ..PrepareSnapshotRequest::default()
    };
    let mounts = client.prepare(scoped(request)).await.unwrap().into_inner().mounts;
    let mut tar = Tar::default().dir("lib").file("lib/a", b"a");
    for directory in ["after", "before", "marked"] {
        tar = tar.dir(directory).file(&format!("{directory}/old"), b"old");
    }
    supervisor.apply(&tar.end(), mounts).await.unwrap();
    let request = wharf_proto::containerd::services::snapshots::v1::CommitSnapshotRequest {
        key,
        name: name.clone(),
        ..Default::default()
    };
    client.commit(scoped(request)).await.unwrap();
    supervisor.prepare(&name).await
}

/// An archive, member by member.
#[derive(Default)]
struct Tar(Vec<u8>);

impl Tar {
    fn member(
        mut self,
        name: &str,
        kind: tar::EntryType,
        link: &str,
        data: &[u8],
        device: (u32, u32),
    ) -> Self {
        if name.len() > 100 || link.len() > 100 {
            self = self.pax(name, link);
        }
        let mut header = tar::Header::new_ustar();
        let fill = |field: &mut [u8], text: &str| {
            let length = text.len().min(field.len());
            field[..length].copy_from_slice(&text.as_bytes()[..length]);
        };
        fill(&mut header.as_old_mut().name, name);
        fill(&mut header.as_old_mut().linkname, link);
        header.set_entry_type(kind);
        header.set_mode(if kind.is_dir() { 0o755 } else { 0o644 });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1);
        header.set_size(data.len() as u64);
        header.set_device_major(device.0).unwrap();
        header.set_device_minor(device.1).unwrap();
        header.set_cksum();
        self.0.extend_from_slice(header.as_bytes());
        self.0.extend_from_slice(data);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    fn pax(self, name: &str, link: &str) -> Self {
        let record = |key: &str, value: &str| {
            let body = key.len() + value.len() + 3;
            let mut length = body + 1;
            while length != body + length.to_string().len() {
                length = body + length.to_string().len();
            }
            format!("{length} {key}={value}\n")
        };
        let mut data = record("path", name);
        if !link.is_empty() {
            data.push_str(&record("linkpath", link));
        }
        self.member("pax", tar::EntryType::XHeader, "", data.as_bytes(), (0, 0))
    }

    fn file(self, name: &str, data: &[u8]) -> Self {
        self.member(name, tar::EntryType::Regular, "", data, (0, 0))
    }

    fn dir(self, name: &str) -> Self {
        self.member(name, tar::EntryType::Directory, "", b"", (0, 0))
    }

    fn symlink(self, name: &str, target: &str) -> Self {
        self.member(name, tar::EntryType::Symlink, target, b"", (0, 0))
    }

    fn hard_link(self, name: &str, target: &str) -> Self {
        self.member(name, tar::EntryType::Link, target, b"", (0, 0))
    }

    fn node(self, name: &str, major: u32, minor: u32) -> Self {
        self.member(name, tar::EntryType::Char, "", b"", (major, minor))
    }

    fn end(mut self) -> Vec<u8> {
        self.0.extend_from_slice(&[0; 1024]);
        self.0
    }
}
