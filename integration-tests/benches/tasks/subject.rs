//! One daemon behind containerd's API, with an image whose containers run `true` or sleep.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use integration_tests::containerd::{Containerd, ctr};
use integration_tests::wharf::Wharfd;
use integration_tests::{Scratch, bundle, image, run};
use prost_types::Any;
use sha2::{Digest, Sha256};
use tokio_stream::iter;
use tonic::Request;
use tonic::transport::{Channel, Endpoint};
use wharf_proto::any::{RUNTIME_PROCESS_URL, RUNTIME_SPEC_URL};
use wharf_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use wharf_proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, container,
};
use wharf_proto::containerd::services::content::v1::content_client::ContentClient;
use wharf_proto::containerd::services::content::v1::{
    DeleteContentRequest, WriteAction, WriteContentRequest,
};
use wharf_proto::containerd::services::images::v1::GetImageRequest;
use wharf_proto::containerd::services::images::v1::images_client::ImagesClient;
use wharf_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use wharf_proto::containerd::services::snapshots::v1::{
    ListSnapshotsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use wharf_proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use wharf_proto::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, KillRequest,
    StartRequest, WaitRequest,
};

use super::{Result, memory};

const SNAPSHOTTER: &str = "overlayfs";
/// The size of a frame of written content, as Go's clients send it.
const FRAME: usize = 1 << 20;

/// The guard of the daemon.
pub(crate) enum Kind {
    Ours(Wharfd),
    Peer(Containerd),
}

/// What a container that is timed has for a network.
#[derive(Clone, Copy)]
pub(crate) enum Network {
    /// A namespace of its own, with nothing in it.
    Own,
    /// The host's, as with `ctr run --net-host`: nothing is made.
    Host,
}

/// A daemon, and the connection to it.
pub(crate) struct Subject {
    pub(crate) name: String,
    pub(crate) pid: i32,
    client: Client,
    fleet: Vec<String>,
    stopped: Vec<String>,
    _daemon: Kind,
}

/// What a call needs; cheap to copy.
#[derive(Clone)]
pub(crate) struct Client {
    channel: Channel,
    /// Of this bench's own: runc's records of one namespace are shared by all daemons.
    namespace: String,
    parent: String,
    /// The group above those of the containers.
    group: String,
    ends: serde_json::Value,
    ends_on_host: serde_json::Value,
    sleeps: serde_json::Value,
    numbers: Arc<AtomicUsize>,
}

impl Subject {
    pub(crate) async fn new(name: &str, scratch: &Scratch, socket: &Path, daemon: Kind) -> Result<Self> {
        let pid = match &daemon {
            Kind::Ours(wharfd) => wharfd.daemon.as_ref().ok_or("no daemon")?.pid(),
            Kind::Peer(containerd) => containerd.daemon.pid(),
        };
        let archive = archive(scratch);
        run(ctr(socket, scratch.unique())
            .args(["images", "import", "--base-name", "bench"])
            .arg(&archive))
        .ok();
        let channel = Endpoint::try_from(format!("unix://{}", socket.display()))?
            .connect()
            .await?;
        let parent = committed(&channel, scratch.unique()).await?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            client: Client {
                channel,
                namespace: scratch.unique().to_owned(),
                parent,
                group: format!("/{}-{name}", scratch.unique()),
                ends: specification(scratch, &["/bin/true"], Network::Own)?,
                ends_on_host: specification(scratch, &["/bin/true"], Network::Host)?,
                sleeps: specification(scratch, &["/bin/sleep", "100000"], Network::Own)?,
                numbers: Arc::default(),
            },
            fleet: Vec::new(),
            stopped: Vec::new(),
            _daemon: daemon,
        })
    }

    /// A client of its own, on the same connection.
    pub(crate) fn again(&self) -> Client {
        self.client.clone()
    }

    pub(crate) async fn cycle(&mut self, network: Network) -> Result<Duration> {
        self.client.cycle(network).await
    }

    pub(crate) async fn run_detached(&mut self, id: &str) -> Result<u32> {
        self.client.container(id, false).await?;
        self.client.task(id).await
    }

    pub(crate) async fn execute(&mut self, id: &str) -> Result<Duration> {
        self.client.execute(id).await
    }

    pub(crate) async fn remove(&mut self, id: &str) -> Result<()> {
        self.client.kill(id).await?;
        self.client.forget(id).await
    }

    /// Fills the host; tells the memory of shims while `fleet` run.
    pub(crate) async fn populate(&mut self, running: usize, stopped: usize, fleet: usize) -> Result<()> {
        let mut pids = Vec::new();
        for number in 0..running {
            let id = format!("running{number}");
            pids.push(self.run_detached(&id).await?);
            self.fleet.push(id);
            if pids.len() == fleet {
                println!(
                    "{:<24} {:>8} KiB PSS of a shim, with {fleet} running",
                    self.name,
                    memory::shims(&pids)?
                );
            }
        }
        for number in 0..stopped {
            let id = format!("stopped{number}");
            self.client.container(&id, true).await?;
            self.stopped.push(id);
        }
        Ok(())
    }

    /// Removes what [`Self::populate`] made.
    pub(crate) async fn clear(&mut self) -> Result<()> {
        for id in std::mem::take(&mut self.fleet) {
            self.remove(&id).await?;
        }
        for id in std::mem::take(&mut self.stopped) {
            self.client.forget(&id).await?;
        }
        Ok(())
    }

    /// Writes a blob of `size` bytes; how long that took, and how long its digest alone takes.
    pub(crate) async fn ingest(&mut self, size: usize) -> Result<(Duration, Duration)> {
        let data = bytes::Bytes::from(vec![7_u8; size]);
        let begin = Instant::now();
        let digest = format!(
            "sha256:{:x}",
            bytes::Bytes::copy_from_slice(&Sha256::digest(&data))
        );
        let hash = begin.elapsed();
        let total = i64::try_from(size)?;
        let reference = "ingest".to_owned();
        let mut frames: Vec<WriteContentRequest> = (0..size)
            .step_by(FRAME)
            .map(|offset| WriteContentRequest {
                action: WriteAction::Write.into(),
                r#ref: reference.clone(),
                total,
                offset: offset as i64,
                data: data.slice(offset..(offset + FRAME).min(size)),
                ..Default::default()
            })
            .collect();
        frames.push(WriteContentRequest {
            action: WriteAction::Commit.into(),
            r#ref: reference,
            total,
            offset: total,
            expected: digest.clone(),
            ..Default::default()
        });
        let mut client = ContentClient::new(self.client.channel.clone());
        let begin = Instant::now();
        let mut answers = client
            .write(scoped(&self.client.namespace, iter(frames)))
            .await?
            .into_inner();
        while answers.message().await?.is_some() {}
        let time = begin.elapsed();
        client
            .delete(scoped(&self.client.namespace, DeleteContentRequest { digest }))
            .await?;
        Ok((time, hash))
    }
}

impl Client {
    /// One container from its snapshot to its removal; the time of the task alone.
    pub(crate) async fn cycle(&mut self, network: Network) -> Result<Duration> {
        let id = format!("c{}", self.numbers.fetch_add(1, Ordering::Relaxed));
        let mounts = self.prepare(&id).await?;
        let spec = match network {
            Network::Own => self.ends.clone(),
            Network::Host => self.ends_on_host.clone(),
        };
        self.record(&id, spec).await?;
        let begin = Instant::now();
        let mut tasks = TasksClient::new(self.channel.clone());
        tasks
            .create(scoped(
                &self.namespace,
                CreateTaskRequest {
                    container_id: id.clone(),
                    rootfs: mounts,
                    ..Default::default()
                },
            ))
            .await?;
        let wait = tokio::spawn(wait(self.clone(), id.clone(), String::new()));
        tasks
            .start(scoped(
                &self.namespace,
                StartRequest {
                    container_id: id.clone(),
                    ..Default::default()
                },
            ))
            .await?;
        let status = wait.await??;
        if status != 0 {
            return Err(format!("{id} ended with {status}").into());
        }
        tasks
            .delete(scoped(
                &self.namespace,
                DeleteTaskRequest {
                    container_id: id.clone(),
                },
            ))
            .await?;
        let time = begin.elapsed();
        self.forget(&id).await?;
        Ok(time)
    }

    /// A snapshot and a record.
    async fn container(&mut self, id: &str, ends: bool) -> Result<()> {
        let spec = if ends {
            self.ends.clone()
        } else {
            self.sleeps.clone()
        };
        self.prepare(id).await?;
        self.record(id, spec).await
    }

    async fn prepare(&mut self, id: &str) -> Result<Vec<wharf_proto::containerd::types::Mount>> {
        let request = PrepareSnapshotRequest {
            snapshotter: SNAPSHOTTER.into(),
            key: id.into(),
            parent: self.parent.clone(),
            // Until there is a record that holds it, a collection may come by.
            labels: [("containerd.io/gc.root".to_owned(), "now".to_owned())].into(),
        };
        let mut client = SnapshotsClient::new(self.channel.clone());
        Ok(client
            .prepare(scoped(&self.namespace, request))
            .await?
            .into_inner()
            .mounts)
    }

    async fn record(&mut self, id: &str, mut spec: serde_json::Value) -> Result<()> {
        spec["linux"]["cgroupsPath"] = format!("{}/{id}", self.group).into();
        let container = Container {
            id: id.into(),
            runtime: Some(container::Runtime {
                name: "io.containerd.runc.v2".into(),
                options: None,
            }),
            spec: Some(Any {
                type_url: RUNTIME_SPEC_URL.into(),
                value: serde_json::to_vec(&spec)?,
            }),
            snapshotter: SNAPSHOTTER.into(),
            snapshot_key: id.into(),
            ..Default::default()
        };
        ContainersClient::new(self.channel.clone())
            .create(scoped(
                &self.namespace,
                CreateContainerRequest {
                    container: Some(container),
                },
            ))
            .await?;
        Ok(())
    }

    /// Starts the task of a container that sleeps; its process.
    async fn task(&mut self, id: &str) -> Result<u32> {
        let rootfs = SnapshotsClient::new(self.channel.clone())
            .mounts(scoped(
                &self.namespace,
                wharf_proto::containerd::services::snapshots::v1::MountsRequest {
                    snapshotter: SNAPSHOTTER.into(),
                    key: id.into(),
                },
            ))
            .await?
            .into_inner()
            .mounts;
        let mut tasks = TasksClient::new(self.channel.clone());
        tasks
            .create(scoped(
                &self.namespace,
                CreateTaskRequest {
                    container_id: id.into(),
                    rootfs,
                    ..Default::default()
                },
            ))
            .await?;
        let started = tasks
            .start(scoped(
                &self.namespace,
                StartRequest {
                    container_id: id.into(),
                    ..Default::default()
                },
            ))
            .await?;
        Ok(started.into_inner().pid)
    }

    /// One process in a container that runs, from its record to its removal.
    pub(crate) async fn execute(&mut self, id: &str) -> Result<Duration> {
        let exec_id = format!("e{}", self.numbers.fetch_add(1, Ordering::Relaxed));
        let process = serde_json::json!({
            "user": {"uid": 0, "gid": 0}, "args": ["/bin/true"], "cwd": "/", "env": ["PATH=/bin"],
        });
        let mut tasks = TasksClient::new(self.channel.clone());
        let begin = Instant::now();
        tasks
            .exec(scoped(
                &self.namespace,
                ExecProcessRequest {
                    container_id: id.into(),
                    exec_id: exec_id.clone(),
                    spec: Some(Any {
                        type_url: RUNTIME_PROCESS_URL.into(),
                        value: serde_json::to_vec(&process)?,
                    }),
                    ..Default::default()
                },
            ))
            .await?;
        let wait = tokio::spawn(wait(self.clone(), id.to_owned(), exec_id.clone()));
        tasks
            .start(scoped(
                &self.namespace,
                StartRequest {
                    container_id: id.into(),
                    exec_id: exec_id.clone(),
                },
            ))
            .await?;
        let status = wait.await??;
        if status != 0 {
            return Err(format!("{exec_id} ended with {status}").into());
        }
        tasks
            .delete_process(scoped(
                &self.namespace,
                DeleteProcessRequest {
                    container_id: id.into(),
                    exec_id,
                },
            ))
            .await?;
        Ok(begin.elapsed())
    }

    /// Ends a task and deletes it.
    async fn kill(&mut self, id: &str) -> Result<()> {
        let mut tasks = TasksClient::new(self.channel.clone());
        tasks
            .kill(scoped(
                &self.namespace,
                KillRequest {
                    container_id: id.into(),
                    signal: 9,
                    ..Default::default()
                },
            ))
            .await?;
        wait(self.clone(), id.to_owned(), String::new()).await?;
        tasks
            .delete(scoped(
                &self.namespace,
                DeleteTaskRequest {
                    container_id: id.into(),
                },
            ))
            .await?;
        Ok(())
    }

    /// Removes the record and the snapshot.
    async fn forget(&mut self, id: &str) -> Result<()> {
        ContainersClient::new(self.channel.clone())
            .delete(scoped(&self.namespace, DeleteContainerRequest { id: id.into() }))
            .await?;
        SnapshotsClient::new(self.channel.clone())
            .remove(scoped(
                &self.namespace,
                RemoveSnapshotRequest {
                    snapshotter: SNAPSHOTTER.into(),
                    key: id.into(),
                },
            ))
            .await?;
        Ok(())
    }
}

/// The exit status.
async fn wait(
    client: Client,
    container_id: String,
    exec_id: String,
) -> std::result::Result<u32, tonic::Status> {
    let request = WaitRequest {
        container_id,
        exec_id,
    };
    let answer = TasksClient::new(client.channel)
        .wait(scoped(&client.namespace, request))
        .await?;
    Ok(answer.into_inner().exit_status)
}

/// A request in the namespace of the bench.
fn scoped<T>(namespace: &str, message: T) -> Request<T> {
    let mut request = Request::new(message);
    let name = namespace.parse().expect("a name is ASCII");
    request.metadata_mut().insert("containerd-namespace", name);
    request
}

/// The name of the only committed snapshot: the image has one layer.
async fn committed(channel: &Channel, namespace: &str) -> Result<String> {
    let image = ImagesClient::new(channel.clone())
        .get(scoped(
            namespace,
            GetImageRequest {
                name: "bench:latest".into(),
            },
        ))
        .await?;
    drop(image);
    let request = ListSnapshotsRequest {
        snapshotter: SNAPSHOTTER.into(),
        filters: Vec::new(),
    };
    let mut pages = SnapshotsClient::new(channel.clone())
        .list(scoped(namespace, request))
        .await?
        .into_inner();
    while let Some(page) = pages.message().await? {
        if let Some(info) = page.info.into_iter().next() {
            return Ok(info.name);
        }
    }
    Err("the image was not unpacked".into())
}

/// An image with one layer, as an archive.
fn archive(scratch: &Scratch) -> PathBuf {
    let path = scratch.join("image.tar");
    if !path.exists() {
        let layout = image::busybox(&scratch.join("image"));
        run(Command::new("tar")
            .arg("-cf")
            .arg(&path)
            .arg("-C")
            .arg(layout.path())
            .arg("."))
        .ok();
    }
    path
}

/// The specification of `wharf-runtime spec` with the arguments of a process.
fn specification(scratch: &Scratch, arguments: &[&str], network: Network) -> Result<serde_json::Value> {
    let directory = scratch.directory("bundle");
    bundle::configure(&directory, arguments, |spec| {
        if let (Network::Host, Some(namespaces)) = (network, spec["linux"]["namespaces"].as_array_mut()) {
            namespaces.retain(|namespace| namespace["type"] != "network");
        }
    });
    Ok(serde_json::from_slice(&std::fs::read(
        directory.join("config.json"),
    )?)?)
}
