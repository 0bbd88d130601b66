//! A private `wharfd`, and what clients of containerd's API ask of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};

use integration_tests::daemon::Daemon;
use integration_tests::{Scratch, binaries};
use prost_types::Any;
use serde_json::Value;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use wharf_proto::any;
use wharf_proto::containerd::services::content::v1::content_client::ContentClient;
use wharf_proto::containerd::services::content::v1::{
    InfoRequest, ListContentRequest, ReadContentRequest, WriteAction, WriteContentRequest,
};
use wharf_proto::containerd::services::diff::v1::ApplyRequest;
use wharf_proto::containerd::services::diff::v1::diff_client::DiffClient;
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
use wharf_proto::containerd::services::transfer::v1::TransferRequest;
use wharf_proto::containerd::services::transfer::v1::transfer_client::TransferClient;
use wharf_proto::containerd::types::transfer::{
    Data, ImageExportStream, ImageImportStream, ImageReference, ImageStore, OciRegistry, RegistryResolver,
    UnpackConfiguration, WindowUpdate,
};
use wharf_proto::containerd::types::{Descriptor, Mount, Platform};

use crate::compare::{attach, probe, sha256};

const NAMESPACE: &str = "tests";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar";

/// A private `wharfd` and a connection to it.
pub(crate) struct Supervisor {
    pub(crate) channel: Channel,
    pub(crate) home: PathBuf,
    daemon: Daemon,
}

impl Supervisor {
    pub(crate) async fn start(scratch: &Scratch) -> Self {
        Self::start_with(scratch, "").await
    }

    /// With `configuration` as its file.
    pub(crate) async fn start_with(scratch: &Scratch, configuration: &str) -> Self {
        let home = scratch.directory("wharfd");
        let socket = home.join("sock");
        let file = home.join("config.toml");
        fs::write(&file, configuration).unwrap();
        let daemon = Daemon::start(
            Command::new(binaries::ours("wharfd"))
                .arg("--config")
                .arg(&file)
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
            daemon,
        }
    }

    /// The most memory that the daemon has had at once, in KiB.
    pub(crate) fn peak_kib(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.daemon.pid())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        line.unwrap().trim().trim_end_matches(" kB").parse().unwrap()
    }

    pub(crate) fn pull(&self, reference: &str) -> TransferRequest {
        self.pull_with(reference, RegistryResolver::default())
    }

    pub(crate) fn pull_with(&self, reference: &str, resolver: RegistryResolver) -> TransferRequest {
        TransferRequest {
            source: Some(any::pack(&OciRegistry {
                reference: reference.into(),
                resolver: Some(resolver),
            })),
            destination: Some(any::pack(&store(reference))),
            options: None,
        }
    }

    pub(crate) async fn transfer(&self, request: TransferRequest) -> Result<(), Status> {
        TransferClient::new(self.channel.clone())
            .transfer(scoped(request))
            .await
            .map(drop)
    }

    /// Opens a stream: a sender, and what the daemon sends.
    pub(crate) async fn stream(&self, id: &str) -> (mpsc::Sender<Any>, tonic::Streaming<Any>) {
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

    /// Opens a stream that `bytes` go over as it takes them; its name, and who feeds it.
    async fn feed(&self, bytes: Vec<u8>) -> (String, JoinHandle<()>) {
        let id = unique("import");
        let (sender, mut inbound) = self.stream(&id).await;
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
        (id, feeder)
    }

    /// Imports the archive `file` into `destination`.
    pub(crate) async fn import(&self, file: &Path, destination: ImageStore) -> Result<(), Status> {
        self.import_as(file, destination, false).await
    }

    /// The same, with layers that are not compressed compressed if so wanted.
    pub(crate) async fn import_as(
        &self,
        file: &Path,
        destination: ImageStore,
        force_compress: bool,
    ) -> Result<(), Status> {
        let (id, feeder) = self.feed(fs::read(file).unwrap()).await;
        let source = ImageImportStream {
            stream: id,
            force_compress,
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

    pub(crate) async fn images(&self) -> Vec<Image> {
        let answer = ImagesClient::new(self.channel.clone())
            .list(scoped(ListImagesRequest::default()))
            .await
            .unwrap();
        answer.into_inner().images
    }

    pub(crate) async fn snapshots(&self) -> Vec<Info> {
        let mut answers = SnapshotsClient::new(self.channel.clone())
            .list(scoped(ListSnapshotsRequest {
                snapshotter: "overlayfs".into(),
                ..ListSnapshotsRequest::default()
            }))
            .await
            .unwrap()
            .into_inner();
        let mut all = Vec::new();
        while let Some(answer) = answers.message().await.unwrap() {
            all.extend(answer.info);
        }
        all
    }

    pub(crate) async fn blobs(&self) -> Vec<String> {
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

    pub(crate) async fn label(&self, digest: &str, key: &str) -> Option<String> {
        let request = InfoRequest {
            digest: digest.into(),
        };
        let answer = ContentClient::new(self.channel.clone())
            .info(scoped(request))
            .await
            .unwrap();
        answer.into_inner().info.unwrap().labels.get(key).cloned()
    }

    pub(crate) async fn read(&self, digest: &str) -> Value {
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

    pub(crate) async fn leases(&self) -> usize {
        let answer = LeasesClient::new(self.channel.clone())
            .list(scoped(ListLeasesRequest::default()))
            .await
            .unwrap();
        answer.into_inner().leases.len()
    }

    /// The tree of the topmost snapshot of the image whose manifest has `digest`, as `probe tree` sees it.
    pub(crate) async fn tree(&self, scratch: &Scratch, manifest: &str) -> Value {
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
    pub(crate) async fn prepare(&self, parent: &str) -> Vec<Mount> {
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

    /// Writes `bytes` as a blob; gives its digest.
    pub(crate) async fn write(&self, bytes: &[u8]) -> String {
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
        digest
    }

    /// Opens a stream that bytes come over; its name, and who collects them.
    async fn take(&self) -> (String, JoinHandle<Vec<u8>>) {
        let id = unique("export");
        let (sender, mut inbound) = self.stream(&id).await;
        let taker = tokio::spawn(async move {
            let mut bytes = Vec::new();
            // As containerd's clients do: 64 KiB whenever less than that is left.
            let mut window = 0;
            loop {
                if window < 65536 {
                    window += 65536;
                    drop(sender.send(any::pack(&WindowUpdate { update: 65536 })).await);
                }
                let Ok(Some(message)) = inbound.message().await else {
                    return bytes;
                };
                let data: Data = any::unpack(&message).unwrap().unwrap();
                window -= data.data.len() as i32;
                assert!(window >= 0, "more than the window was sent");
                bytes.extend(data.data);
            }
        });
        (id, taker)
    }

    /// What comes back of `bytes` that are sent to be sent back.
    pub(crate) async fn echo(&self, bytes: Vec<u8>) -> Result<Vec<u8>, Status> {
        let (input, feeder) = self.feed(bytes).await;
        let (output, taker) = self.take().await;
        let outcome = self
            .transfer(TransferRequest {
                source: Some(any::pack(&ImageImportStream {
                    stream: input,
                    ..ImageImportStream::default()
                })),
                destination: Some(any::pack(&ImageExportStream {
                    stream: output,
                    ..ImageExportStream::default()
                })),
                options: None,
            })
            .await;
        feeder.abort();
        outcome?;
        Ok(taker.await.unwrap())
    }

    /// Exports the images `names` as `wanted` says; the stream's name is filled in here.
    pub(crate) async fn export(
        &self,
        names: &[&str],
        mut wanted: ImageExportStream,
    ) -> Result<Vec<u8>, Status> {
        let (id, taker) = self.take().await;
        wanted.stream = id;
        let references = names.iter().map(|name| ImageReference {
            name: (*name).into(),
            ..ImageReference::default()
        });
        let source = ImageStore {
            extra_references: references.collect(),
            ..ImageStore::default()
        };
        self.transfer(TransferRequest {
            source: Some(any::pack(&source)),
            destination: Some(any::pack(&wanted)),
            options: None,
        })
        .await?;
        Ok(taker.await.unwrap())
    }

    /// Writes `bytes` as a blob and applies it as a layer to `mounts`.
    pub(crate) async fn apply(&self, bytes: &[u8], mounts: Vec<Mount>) -> Result<Descriptor, Status> {
        self.apply_as(LAYER, bytes, mounts, BTreeMap::new()).await
    }

    /// As [`Supervisor::apply`], a layer of `media_type` with `payloads` for stream processors.
    pub(crate) async fn apply_as(
        &self,
        media_type: &str,
        bytes: &[u8],
        mounts: Vec<Mount>,
        payloads: BTreeMap<String, Any>,
    ) -> Result<Descriptor, Status> {
        let digest = self.write(bytes).await;
        let request = ApplyRequest {
            diff: Some(Descriptor {
                media_type: media_type.into(),
                digest,
                size: bytes.len() as i64,
                ..Descriptor::default()
            }),
            mounts,
            payloads,
            ..ApplyRequest::default()
        };
        let answer = DiffClient::new(self.channel.clone())
            .apply(scoped(request))
            .await?;
        Ok(answer.into_inner().applied.unwrap())
    }
}

/// A request in the namespace of these tests.
pub(crate) fn scoped<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request
        .metadata_mut()
        .insert("containerd-namespace", NAMESPACE.parse().unwrap());
    request
}

/// A name that no other call of this process gets.
pub(crate) fn unique(what: &str) -> String {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    format!("{what}-{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// The destination `name`, unpacked for this machine.
pub(crate) fn store(name: &str) -> ImageStore {
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
