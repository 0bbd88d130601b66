//! A whole life, call by call: what each promises when it is acknowledged, and what its second try may answer.
//!
//! It is long because it is one list: a step of each life, in the order in which a client takes them.

use std::fs;
use std::time::{Duration, SystemTime};

use integration_tests::leftovers;
use prost_types::Any;
use sha2::Digest as _;
use tonic::{Code, Status};
use wharf_proto::any::{RUNTIME_PROCESS_URL, RUNTIME_SPEC_URL, pack};
use wharf_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use wharf_proto::containerd::services::containers::v1::{
    Container, CreateContainerRequest, DeleteContainerRequest, container::Runtime,
};
use wharf_proto::containerd::services::content::v1::content_client::ContentClient;
use wharf_proto::containerd::services::content::v1::{
    DeleteContentRequest, WriteAction, WriteContentRequest,
};
use wharf_proto::containerd::services::images::v1::DeleteImageRequest;
use wharf_proto::containerd::services::images::v1::images_client::ImagesClient;
use wharf_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use wharf_proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, MountsRequest, PrepareSnapshotRequest, RemoveSnapshotRequest,
};
use wharf_proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use wharf_proto::containerd::services::tasks::v1::{
    CreateTaskRequest, DeleteProcessRequest, DeleteTaskRequest, ExecProcessRequest, GetRequest, KillRequest,
    StartRequest, WaitRequest,
};
use wharf_proto::containerd::services::transfer::v1::TransferRequest;
use wharf_proto::containerd::services::transfer::v1::transfer_client::TransferClient;
use wharf_proto::containerd::types::transfer::{
    ImageStore, OciRegistry, RegistryResolver, UnpackConfiguration,
};
use wharf_proto::containerd::types::{Mount, Platform};
use wharf_proto::containerd::v1::types::Status as TaskStatus;

use crate::check;
use crate::instance::Client;
use crate::subject::Subject;
use crate::{pod, store};

pub(crate) const OVERLAY: &str = "overlayfs";
/// The bytes of the blob that the client writes itself.
pub(crate) const BLOB: &[u8] = &[b'w'; 70_000];
/// The committed snapshot that the client makes itself, and the files in it.
pub(crate) const LAYER: &str = "layer";
pub(crate) const LAYER_FILES: [(&str, &str); 2] = [("one", "the first"), ("two", "the second")];
pub(crate) const ID: &str = "c";
pub(crate) const EXEC: &str = "e";

/// One call, or a few that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Pull,
    WriteBlob,
    PrepareLayer,
    CommitLayer,
    Prepare,
    CreateContainer,
    Create,
    Start,
    Exec,
    StartExec,
    WaitExec,
    DeleteExec,
    Kill,
    Wait,
    Delete,
    DeleteContainer,
    RemoveSnapshot,
    RemoveLayer,
    DeleteBlob,
    DeleteImage,
    // Those of the stores.
    CreateNamespace,
    LabelNamespace,
    CreateLease,
    HalfBlob,
    AbortBlob,
    RestBlob,
    Tag,
    LabelImage,
    LabelBlob,
    HoldManifest,
    Push,
    LabelLayer,
    Diff,
    ApplyDiff,
    DeleteTag,
    RemoveApplied,
    DeleteDiff,
    DeleteLease,
    DeleteNamespace,
    ShortLease,
    Expire,
    // Those of a sandbox.
    StorePod,
    CreatePod,
    StartPod,
    CreatePodContainer,
    CreateInPod,
    StopPod,
    WaitPod,
    ShutdownPod,
    DeletePod,
}

/// Steps in their order.
pub(crate) type Life = &'static [Step];

/// An image, and a container of it.
pub(crate) const CONTAINER: Life = &[
    Step::Pull,
    Step::WriteBlob,
    Step::PrepareLayer,
    Step::CommitLayer,
    Step::Prepare,
    Step::CreateContainer,
    Step::Create,
    Step::Start,
    Step::Exec,
    Step::StartExec,
    Step::WaitExec,
    Step::DeleteExec,
    Step::Kill,
    Step::Wait,
    Step::Delete,
    Step::DeleteContainer,
    Step::RemoveSnapshot,
    Step::RemoveLayer,
    Step::DeleteBlob,
    Step::DeleteImage,
];

/// What is done to the stores without a container.
pub(crate) const STORES: Life = &[
    Step::CreateNamespace,
    Step::LabelNamespace,
    Step::CreateLease,
    Step::HalfBlob,
    Step::AbortBlob,
    Step::RestBlob,
    Step::LabelBlob,
    Step::Pull,
    Step::Tag,
    Step::LabelImage,
    Step::HoldManifest,
    Step::Push,
    Step::PrepareLayer,
    Step::CommitLayer,
    Step::LabelLayer,
    Step::Diff,
    Step::ApplyDiff,
    Step::DeleteTag,
    Step::DeleteImage,
    Step::RemoveApplied,
    Step::RemoveLayer,
    Step::DeleteDiff,
    Step::DeleteLease,
    Step::DeleteNamespace,
];

/// A lease that ends by itself.
pub(crate) const EXPIRY: Life = &[Step::ShortLease, Step::Expire];

/// A sandbox, and a container in it.
pub(crate) const POD: Life = &[
    Step::StorePod,
    Step::CreatePod,
    Step::StartPod,
    Step::CreatePodContainer,
    Step::CreateInPod,
    Step::Start,
    Step::Kill,
    Step::Wait,
    Step::Delete,
    Step::DeleteContainer,
    Step::StopPod,
    Step::WaitPod,
    Step::ShutdownPod,
    Step::DeletePod,
];

/// The digest of [`BLOB`].
pub(crate) fn blob_digest() -> String {
    digest(BLOB)
}

pub(crate) fn digest(bytes: &[u8]) -> String {
    let sum = sha2::Sha256::digest(bytes);
    let hex: String = sum.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

pub(crate) fn root() -> std::collections::BTreeMap<String, String> {
    [(
        "containerd.io/gc.root".to_owned(),
        "2000-01-01T00:00:00Z".to_owned(),
    )]
    .into()
}

/// The cgroup of the container of the instance in `namespace`.
pub(crate) fn cgroup(namespace: &str) -> String {
    format!("{namespace}-{ID}")
}

/// Does `step`. `again`: it was tried before, and may have been done then.
pub(crate) async fn perform(
    client: &Client,
    subject: &Subject,
    namespace: &str,
    step: Step,
    again: bool,
) -> Result<(), Status> {
    let outcome = once(client, subject, namespace, step, again).await;
    let accepted: &[Code] = match step {
        _ if !again => &[],
        Step::WriteBlob
        | Step::PrepareLayer
        | Step::Prepare
        | Step::CreateContainer
        | Step::Create
        | Step::Exec
        | Step::CreateNamespace
        | Step::CreateLease
        | Step::ShortLease
        | Step::HalfBlob
        | Step::RestBlob
        | Step::Tag
        | Step::ApplyDiff
        | Step::StorePod
        | Step::CreatePod
        | Step::CreatePodContainer
        | Step::CreateInPod => &[Code::AlreadyExists],
        // Its bytes may be there under another reference by now.
        Step::AbortBlob => &[Code::AlreadyExists, Code::NotFound],
        // The active one is the committed one by now.
        Step::CommitLayer => &[Code::AlreadyExists, Code::NotFound],
        Step::StartPod => &[Code::FailedPrecondition, Code::AlreadyExists],
        Step::Kill
        | Step::DeleteExec
        | Step::Delete
        | Step::DeleteContainer
        | Step::RemoveSnapshot
        | Step::RemoveLayer
        | Step::DeleteBlob
        | Step::DeleteImage
        | Step::DeleteTag
        | Step::RemoveApplied
        | Step::DeleteDiff
        | Step::DeleteLease
        | Step::DeleteNamespace
        | Step::ShutdownPod
        | Step::DeletePod => &[Code::NotFound],
        Step::Pull
        | Step::WaitExec
        | Step::Wait
        | Step::Start
        | Step::StartExec
        | Step::LabelNamespace
        | Step::LabelImage
        | Step::LabelBlob
        | Step::HoldManifest
        | Step::Push
        | Step::LabelLayer
        | Step::Diff
        | Step::Expire
        | Step::StopPod
        | Step::WaitPod => &[],
    };
    match outcome {
        // One that was prepared anew for it has no use.
        Err(status) if again && step == Step::CommitLayer && status.code() == Code::AlreadyExists => {
            match remove(client, "layer-active").await {
                Err(status) if status.code() != Code::NotFound => Err(status),
                _ => Ok(()),
            }
        }
        Err(status) if accepted.contains(&status.code()) => Ok(()),
        // The shim has no code of its own for it, as containerd's has none.
        Err(status)
            if again
                && matches!(step, Step::Start | Step::StartExec)
                && status.code() == Code::Unknown
                && matches!(
                    status.message(),
                    "cannot start a running process" | "cannot start a stopped process"
                ) =>
        {
            Ok(())
        }
        // Files that could not be written: the snapshot cannot become what was asked for.
        Err(status) if again && step == Step::CommitLayer && status.code() == Code::FailedPrecondition => {
            remove(client, "layer-active").await?;
            fill(&prepare(client, "layer-active", "").await?)?;
            commit_layer(client).await
        }
        outcome => outcome,
    }
}

async fn once(
    client: &Client,
    subject: &Subject,
    namespace: &str,
    step: Step,
    again: bool,
) -> Result<(), Status> {
    match step {
        Step::Pull => pull(client, subject).await,
        Step::WriteBlob => write_blob(client).await,
        Step::PrepareLayer => {
            let mounts = prepare(client, "layer-active", "").await?;
            fill(&mounts)
        }
        Step::CommitLayer => commit_layer(client).await,
        Step::Prepare => {
            let top = check::chain(client, subject).await?;
            prepare(client, ID, &top).await.map(drop)
        }
        Step::CreateContainer => create_container(client, subject, namespace).await,
        Step::Create => create(client).await,
        Step::Start => start(client, "").await,
        Step::Exec => exec(client, subject).await,
        Step::StartExec => start(client, EXEC).await,
        Step::WaitExec => wait(client, EXEC, 7).await,
        Step::DeleteExec => {
            let request = DeleteProcessRequest {
                container_id: ID.into(),
                exec_id: EXEC.into(),
            };
            let answer = tasks(client).delete_process(client.scoped(request)).await?;
            ended_with(answer.into_inner().exit_status, 7)
        }
        Step::Kill => {
            await_trap(client).await?;
            let request = KillRequest {
                container_id: ID.into(),
                signal: 15,
                ..KillRequest::default()
            };
            tasks(client).kill(client.scoped(request)).await.map(drop)
        }
        Step::Wait => wait(client, "", 9).await,
        Step::Delete => {
            let request = DeleteTaskRequest {
                container_id: ID.into(),
            };
            let answer = tasks(client).delete(client.scoped(request)).await?;
            ended_with(answer.into_inner().exit_status, 9)
        }
        Step::DeleteContainer => ContainersClient::new(client.channel.clone())
            .delete(client.scoped(DeleteContainerRequest { id: ID.into() }))
            .await
            .map(drop),
        Step::RemoveSnapshot => remove(client, ID).await,
        Step::RemoveLayer => remove(client, LAYER).await,
        Step::DeleteBlob => ContentClient::new(client.channel.clone())
            .delete(client.scoped(DeleteContentRequest {
                digest: blob_digest(),
            }))
            .await
            .map(drop),
        Step::DeleteImage => ImagesClient::new(client.channel.clone())
            .delete(client.scoped(DeleteImageRequest {
                name: subject.reference.clone(),
                sync: true,
                target: None,
            }))
            .await
            .map(drop),
        Step::StorePod
        | Step::CreatePod
        | Step::StartPod
        | Step::CreatePodContainer
        | Step::CreateInPod
        | Step::StopPod
        | Step::WaitPod
        | Step::ShutdownPod
        | Step::DeletePod => pod::once(client, subject, namespace, step).await,
        other => store::once(client, subject, namespace, other, again).await,
    }
}

pub(crate) fn tasks(client: &Client) -> TasksClient<tonic::transport::Channel> {
    TasksClient::new(client.channel.clone())
}

fn snapshots(client: &Client) -> SnapshotsClient<tonic::transport::Channel> {
    SnapshotsClient::new(client.channel.clone())
}

async fn pull(client: &Client, subject: &Subject) -> Result<(), Status> {
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
    let request = TransferRequest {
        source: Some(pack(&OciRegistry {
            reference: subject.reference.clone(),
            resolver: Some(RegistryResolver::default()),
        })),
        destination: Some(pack(&ImageStore {
            name: subject.reference.clone(),
            platforms: vec![platform.clone()],
            unpacks: vec![UnpackConfiguration {
                platform: Some(platform),
                snapshotter: String::new(),
            }],
            ..ImageStore::default()
        })),
        options: None,
    };
    TransferClient::new(client.channel.clone())
        .transfer(client.scoped(request))
        .await
        .map(drop)
}

async fn write_blob(client: &Client) -> Result<(), Status> {
    let message = |action: WriteAction, offset: usize, data: &[u8]| WriteContentRequest {
        action: action.into(),
        r#ref: "blob".into(),
        total: BLOB.len() as i64,
        expected: blob_digest(),
        offset: offset as i64,
        data: data.to_vec().into(),
        labels: root(),
    };
    let half = BLOB.len() / 2;
    // What an earlier try left is written over from the start.
    let messages = [
        message(WriteAction::Write, 0, &BLOB[..half]),
        message(WriteAction::Commit, half, &BLOB[half..]),
    ];
    let mut answers = ContentClient::new(client.channel.clone())
        .write(client.scoped(tokio_stream::iter(messages)))
        .await?
        .into_inner();
    let mut committed = false;
    while let Some(answer) = answers.message().await? {
        committed |= answer.action == i32::from(WriteAction::Commit);
    }
    if committed {
        Ok(())
    } else {
        Err(Status::unavailable(
            "the connection ended before the commit: transport error",
        ))
    }
}

pub(crate) async fn prepare(client: &Client, key: &str, parent: &str) -> Result<Vec<Mount>, Status> {
    let request = PrepareSnapshotRequest {
        snapshotter: OVERLAY.into(),
        key: key.into(),
        parent: parent.into(),
        labels: root(),
    };
    match snapshots(client).prepare(client.scoped(request)).await {
        Ok(answer) => Ok(answer.into_inner().mounts),
        Err(status) if status.code() == Code::AlreadyExists && key != ID => mounts(client, key).await,
        Err(status) => Err(status),
    }
}

pub(crate) async fn mounts(client: &Client, key: &str) -> Result<Vec<Mount>, Status> {
    let request = MountsRequest {
        snapshotter: OVERLAY.into(),
        key: key.into(),
    };
    Ok(snapshots(client)
        .mounts(client.scoped(request))
        .await?
        .into_inner()
        .mounts)
}

/// Writes the files of the layer to where it is; whenever that is, they are of the same time.
fn fill(mounts: &[Mount]) -> Result<(), Status> {
    let directory = std::path::Path::new(&mounts[0].source);
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let write = || {
        for (name, content) in LAYER_FILES {
            fs::write(directory.join(name), content)?;
            fs::File::open(directory.join(name))?.set_modified(time)?;
        }
        fs::File::open(directory)?.set_modified(time)
    };
    write().map_err(|error| Status::resource_exhausted(format!("the client's own write: {error}")))
}

async fn commit_layer(client: &Client) -> Result<(), Status> {
    let request = CommitSnapshotRequest {
        snapshotter: OVERLAY.into(),
        name: LAYER.into(),
        key: "layer-active".into(),
        labels: root(),
        parent: String::new(),
    };
    snapshots(client).commit(client.scoped(request)).await.map(drop)
}

pub(crate) async fn remove(client: &Client, key: &str) -> Result<(), Status> {
    let request = RemoveSnapshotRequest {
        snapshotter: OVERLAY.into(),
        key: key.into(),
    };
    snapshots(client).remove(client.scoped(request)).await.map(drop)
}

async fn create_container(client: &Client, subject: &Subject, namespace: &str) -> Result<(), Status> {
    let container = Container {
        id: ID.into(),
        labels: [("acknowledged".to_owned(), "yes".to_owned())].into(),
        image: subject.reference.clone(),
        runtime: Some(Runtime {
            name: "io.containerd.runc.v2".into(),
            options: None,
        }),
        spec: Some(Any {
            type_url: RUNTIME_SPEC_URL.into(),
            value: subject.spec(&cgroup(namespace)).to_string().into_bytes(),
        }),
        snapshotter: OVERLAY.into(),
        snapshot_key: ID.into(),
        ..Container::default()
    };
    ContainersClient::new(client.channel.clone())
        .create(client.scoped(CreateContainerRequest {
            container: Some(container),
        }))
        .await
        .map(drop)
}

async fn create(client: &Client) -> Result<(), Status> {
    let request = CreateTaskRequest {
        container_id: ID.into(),
        rootfs: mounts(client, ID).await?,
        ..CreateTaskRequest::default()
    };
    tasks(client).create(client.scoped(request)).await.map(drop)
}

async fn start(client: &Client, exec: &str) -> Result<(), Status> {
    let request = StartRequest {
        container_id: ID.into(),
        exec_id: exec.into(),
    };
    tasks(client).start(client.scoped(request)).await.map(drop)
}

async fn exec(client: &Client, subject: &Subject) -> Result<(), Status> {
    let request = ExecProcessRequest {
        container_id: ID.into(),
        exec_id: EXEC.into(),
        spec: Some(Any {
            type_url: RUNTIME_PROCESS_URL.into(),
            value: subject.process().to_string().into_bytes(),
        }),
        ..ExecProcessRequest::default()
    };
    tasks(client).exec(client.scoped(request)).await.map(drop)
}

async fn wait(client: &Client, exec: &str, status: u32) -> Result<(), Status> {
    let request = WaitRequest {
        container_id: ID.into(),
        exec_id: exec.into(),
    };
    let answer = tasks(client).wait(client.scoped(request)).await?;
    ended_with(answer.into_inner().exit_status, status)
}

fn ended_with(found: u32, expected: u32) -> Result<(), Status> {
    if found == expected {
        Ok(())
    } else {
        Err(Status::data_loss(format!(
            "exit status {found} instead of {expected}"
        )))
    }
}

/// Waits until the container's process, if it runs, can be told to end: before, signals do nothing to the first process.
async fn await_trap(client: &Client) -> Result<(), Status> {
    let get = GetRequest {
        container_id: ID.into(),
        exec_id: String::new(),
    };
    let process = match tasks(client).get(client.scoped(get)).await {
        Ok(answer) => answer.into_inner().process.unwrap_or_default(),
        Err(status) if status.code() == Code::NotFound => return Ok(()),
        Err(status) => return Err(status),
    };
    if process.status() == TaskStatus::Running {
        traps(process.pid).await
    } else {
        Ok(())
    }
}

/// Waits until `pid` handles SIGTERM, or is gone.
pub(crate) async fn traps(pid: u32) -> Result<(), Status> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while let Ok(status) = fs::read_to_string(format!("/proc/{pid}/status")) {
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:\t"));
        let caught = caught.and_then(|mask| u64::from_str_radix(mask, 16).ok());
        if caught.is_some_and(|mask| mask & (1 << 14) != 0) {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(Status::data_loss(format!(
                "{pid} does not come to handle SIGTERM"
            )));
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    Ok(())
}

/// Makes an end of the task, if there is one, whatever state it is in; gives its exit status.
pub(crate) async fn end_task(client: &Client) -> Result<Option<u32>, Status> {
    let mut tasks = tasks(client);
    let kill = KillRequest {
        container_id: ID.into(),
        signal: 9,
        ..KillRequest::default()
    };
    match tasks.kill(client.scoped(kill)).await {
        Err(status) if status.code() != Code::NotFound => return Err(status),
        _ => {}
    }
    let wait = WaitRequest {
        container_id: ID.into(),
        exec_id: String::new(),
    };
    match tasks.wait(client.scoped(wait)).await {
        Err(status) if status.code() != Code::NotFound => return Err(status),
        _ => {}
    }
    let delete = DeleteTaskRequest {
        container_id: ID.into(),
    };
    match tasks.delete(client.scoped(delete)).await {
        Ok(answer) => Ok(Some(answer.into_inner().exit_status)),
        Err(status) if status.code() == Code::NotFound => Ok(None),
        Err(status) => Err(status),
    }
}

/// Ends the shims and containers of `namespace`, whatever became of a test.
pub(crate) fn clean(namespace: &str) {
    for (pid, _) in leftovers::processes_with(&format!(" -namespace {namespace} ")) {
        if let Some(pid) = rustix::process::Pid::from_raw(pid) {
            // One that has ended in between is what is wanted.
            let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
        }
    }
    leftovers::remove_cgroups_named(namespace);
}
