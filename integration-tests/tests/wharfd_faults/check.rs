//! What must be there, and what must not, after so and so many steps were acknowledged.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use integration_tests::{leftovers, run};
use serde_json::Value;
use tonic::{Code, Status};
use wharf_proto::containerd::services::containers::v1::GetContainerRequest;
use wharf_proto::containerd::services::containers::v1::containers_client::ContainersClient;
use wharf_proto::containerd::services::content::v1::content_client::ContentClient;
use wharf_proto::containerd::services::content::v1::{InfoRequest, ListContentRequest, ReadContentRequest};
use wharf_proto::containerd::services::images::v1::images_client::ImagesClient;
use wharf_proto::containerd::services::images::v1::{GetImageRequest, Image, ListImagesRequest};
use wharf_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use wharf_proto::containerd::services::leases::v1::{DeleteRequest, ListRequest};
use wharf_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use wharf_proto::containerd::services::snapshots::v1::{
    Info, Kind, ListSnapshotsRequest, RemoveSnapshotRequest, StatSnapshotRequest, ViewSnapshotRequest,
};
use wharf_proto::containerd::services::tasks::v1::GetRequest;
use wharf_proto::containerd::services::tasks::v1::tasks_client::TasksClient;
use wharf_proto::containerd::v1::types::Status as TaskStatus;

use crate::instance::{Client, Instance};
use crate::life::{self, Life, Step};
use crate::subject::{self, Subject, Tree};
use crate::{pod, store};

/// What is known of a life that a fault struck.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress {
    pub(crate) life: Life,
    /// The first steps that were acknowledged.
    pub(crate) done: usize,
    /// Whether the machine lost its power: what dies with the boot is gone.
    pub(crate) power: bool,
}

impl Progress {
    /// Whether what `made` makes must be there: made, and its removal not begun.
    pub(crate) fn must(self, made: Step, removed: Step) -> bool {
        self.acknowledged(made) && !self.begun(removed)
    }

    pub(crate) fn acknowledged(self, step: Step) -> bool {
        self.number(step).is_some_and(|number| self.done > number)
    }

    pub(crate) fn begun(self, step: Step) -> bool {
        self.number(step).is_some_and(|number| self.done >= number)
    }

    /// Whether the life has this step.
    pub(crate) fn has(self, step: Step) -> bool {
        self.number(step).is_some()
    }

    fn number(self, step: Step) -> Option<usize> {
        self.life.iter().position(|other| *other == step)
    }
}

type Outcome = Result<(), String>;

pub(crate) fn failed(what: &str) -> impl Fn(Status) -> String {
    move |status| format!("{what}: {status}")
}

/// Presence of one thing against what is promised of it.
pub(crate) fn presence(
    what: &str,
    found: Result<bool, Status>,
    progress: Progress,
    made: Step,
    removed: Step,
) -> Result<bool, String> {
    let found = found.map_err(failed(what))?;
    if progress.must(made, removed) && !found {
        return Err(format!("{what} was acknowledged, and is lost"));
    }
    if progress.acknowledged(removed) && found {
        return Err(format!("{what} was removed, and is there again"));
    }
    Ok(found)
}

pub(crate) fn found<T>(answer: Result<T, Status>) -> Result<bool, Status> {
    match answer {
        Ok(_) => Ok(true),
        Err(status) if status.code() == Code::NotFound => Ok(false),
        Err(status) => Err(status),
    }
}

/// Compares what the daemon says with what was acknowledged.
pub(crate) async fn all(client: &Client, subject: &Subject, place: &Path, progress: Progress) -> Outcome {
    store::check(client, subject, place, progress).await?;
    pod::check(client, progress).await?;
    every_blob_is_whole(client).await?;
    every_snapshot_has_its_parent(client).await?;
    let image = image(client, subject).await;
    if presence("the image", found(image), progress, Step::Pull, Step::DeleteImage)? {
        let top = chain(client, subject)
            .await
            .map_err(failed("the image's content"))?;
        let tree = tree_of(client, place, &top).await?;
        compare("the image", &tree, &subject.tree)?;
    }
    let blob = ContentClient::new(client.channel.clone())
        .info(client.scoped(InfoRequest {
            digest: life::blob_digest(),
        }))
        .await;
    presence(
        "the blob",
        found(blob),
        progress,
        Step::WriteBlob,
        Step::DeleteBlob,
    )?;
    let layer = stat(client, life::LAYER).await;
    if presence(
        "the layer",
        found(layer),
        progress,
        Step::CommitLayer,
        Step::RemoveLayer,
    )? {
        has_the_layers_files(client, place, life::LAYER).await?;
    }
    let container = ContainersClient::new(client.channel.clone())
        .get(client.scoped(GetContainerRequest { id: life::ID.into() }))
        .await;
    let container = presence(
        "the container",
        found(container),
        progress,
        made_by(progress, Step::CreateContainer, Step::CreatePodContainer),
        Step::DeleteContainer,
    )?;
    let snapshot = found(stat(client, life::ID).await).map_err(failed("the container's snapshot"))?;
    if container && !snapshot && progress.acknowledged(Step::Prepare) && !progress.begun(Step::RemoveSnapshot)
    {
        return Err("the container is there, its snapshot is lost".into());
    }
    // Prepared without a flush: power loss may take it, kill -9 may not.
    if !progress.power {
        presence(
            "the snapshot",
            Ok(snapshot),
            progress,
            Step::Prepare,
            Step::RemoveSnapshot,
        )?;
        task(client, progress).await?;
    }
    Ok(())
}

/// Which of two steps this life has.
fn made_by(progress: Progress, step: Step, other: Step) -> Step {
    if progress.has(step) { step } else { other }
}

/// Whether the snapshot `name` has what the client wrote into its layer.
pub(crate) async fn has_the_layers_files(client: &Client, place: &Path, name: &str) -> Outcome {
    let tree = tree_of(client, place, name).await?;
    for (file, content) in life::LAYER_FILES {
        if tree.get(Path::new(file)).map(|(_, bytes)| bytes.as_slice()) != Some(content.as_bytes()) {
            return Err(format!("file {file} of {name} is not whole"));
        }
    }
    Ok(())
}

async fn task(client: &Client, progress: Progress) -> Outcome {
    let answer = TasksClient::new(client.channel.clone())
        .get(client.scoped(GetRequest {
            container_id: life::ID.into(),
            exec_id: String::new(),
        }))
        .await;
    let process = match &answer {
        Ok(answer) => answer.get_ref().process.clone(),
        Err(_) => None,
    };
    let made = made_by(progress, Step::Create, Step::CreateInPod);
    presence("the task", found(answer), progress, made, Step::Delete)?;
    let Some(process) = process else { return Ok(()) };
    let status = process.status();
    let expected: &[TaskStatus] = if !progress.acknowledged(Step::Start) {
        &[TaskStatus::Created, TaskStatus::Running]
    } else if !progress.begun(Step::Kill) {
        &[TaskStatus::Running]
    } else if !progress.acknowledged(Step::Wait) {
        &[TaskStatus::Running, TaskStatus::Stopped]
    } else {
        &[TaskStatus::Stopped]
    };
    if !expected.contains(&status) {
        return Err(format!("the task is {status:?} instead of {expected:?}"));
    }
    if status == TaskStatus::Stopped && process.exit_status != 9 {
        return Err(format!("the task's exit status is {}", process.exit_status));
    }
    Ok(())
}

async fn image(client: &Client, subject: &Subject) -> Result<Image, Status> {
    ImagesClient::new(client.channel.clone())
        .get(client.scoped(GetImageRequest {
            name: subject.reference.clone(),
        }))
        .await?
        .into_inner()
        .image
        .ok_or_else(|| Status::data_loss("an image without a record"))
}

async fn read(client: &Client, digest: &str) -> Result<Vec<u8>, Status> {
    let mut answers = ContentClient::new(client.channel.clone())
        .read(client.scoped(ReadContentRequest {
            digest: digest.into(),
            ..ReadContentRequest::default()
        }))
        .await?
        .into_inner();
    let mut bytes = Vec::new();
    while let Some(answer) = answers.message().await? {
        bytes.extend_from_slice(&answer.data);
    }
    if life::digest(&bytes) == digest {
        Ok(bytes)
    } else {
        Err(Status::data_loss(format!("{digest}: other bytes")))
    }
}

/// The name of the image's topmost snapshot; every blob on the way is read and compared with its digest.
pub(crate) async fn chain(client: &Client, subject: &Subject) -> Result<String, Status> {
    let target = image(client, subject).await?.target.unwrap_or_default();
    let manifest = read(client, &target.digest).await?;
    let manifest: Value =
        serde_json::from_slice(&manifest).map_err(|error| Status::data_loss(error.to_string()))?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let config = text(&manifest["config"]["digest"]);
    for layer in manifest["layers"].as_array().into_iter().flatten() {
        read(client, &text(&layer["digest"])).await?;
    }
    let config = read(client, &config).await?;
    let config: Value =
        serde_json::from_slice(&config).map_err(|error| Status::data_loss(error.to_string()))?;
    let mut chain = String::new();
    for id in config["rootfs"]["diff_ids"].as_array().into_iter().flatten() {
        let id = text(id);
        chain = if chain.is_empty() {
            id
        } else {
            life::digest(format!("{chain} {id}").as_bytes())
        };
    }
    Ok(chain)
}

async fn every_blob_is_whole(client: &Client) -> Outcome {
    let mut answers = ContentClient::new(client.channel.clone())
        .list(client.scoped(ListContentRequest::default()))
        .await
        .map_err(failed("list content"))?
        .into_inner();
    let mut digests = Vec::new();
    while let Some(answer) = answers.message().await.map_err(failed("list content"))? {
        digests.extend(answer.info.into_iter().map(|info| info.digest));
    }
    for digest in digests {
        read(client, &digest)
            .await
            .map_err(failed("a blob in the list"))?;
    }
    Ok(())
}

async fn snapshots(client: &Client) -> Result<Vec<Info>, Status> {
    let mut answers = SnapshotsClient::new(client.channel.clone())
        .list(client.scoped(ListSnapshotsRequest {
            snapshotter: "overlayfs".into(),
            ..ListSnapshotsRequest::default()
        }))
        .await?
        .into_inner();
    let mut all = Vec::new();
    while let Some(answer) = answers.message().await? {
        all.extend(answer.info);
    }
    Ok(all)
}

async fn every_snapshot_has_its_parent(client: &Client) -> Outcome {
    let all = snapshots(client).await.map_err(failed("list snapshots"))?;
    let committed: BTreeSet<&str> = all
        .iter()
        .filter(|info| info.kind() == Kind::Committed)
        .map(|info| info.name.as_str())
        .collect();
    match all
        .iter()
        .find(|info| !info.parent.is_empty() && !committed.contains(info.parent.as_str()))
    {
        Some(orphan) => Err(format!("snapshot {} has no parent", orphan.name)),
        None => Ok(()),
    }
}

pub(crate) async fn stat(client: &Client, key: &str) -> Result<Info, Status> {
    let answer = SnapshotsClient::new(client.channel.clone())
        .stat(client.scoped(StatSnapshotRequest {
            snapshotter: life::OVERLAY.into(),
            key: key.into(),
        }))
        .await?;
    Ok(answer.into_inner().info.unwrap_or_default())
}

/// The files of the committed snapshot `name`, as a container would see them.
async fn tree_of(client: &Client, place: &Path, name: &str) -> Result<Tree, String> {
    let mut snapshots = SnapshotsClient::new(client.channel.clone());
    let request = ViewSnapshotRequest {
        snapshotter: life::OVERLAY.into(),
        key: "check".into(),
        parent: name.into(),
        labels: [(
            "containerd.io/gc.root".to_owned(),
            "2000-01-01T00:00:00Z".to_owned(),
        )]
        .into(),
    };
    let view = snapshots
        .view(client.scoped(request))
        .await
        .map_err(failed("view the snapshot"))?
        .into_inner();
    let mount = view.mounts.first().ok_or("a view without mounts")?;
    fs::create_dir_all(place).map_err(|error| error.to_string())?;
    let mut command = Command::new("mount");
    if mount.r#type == "bind" {
        command.args(["--bind", "-o", "ro"]);
    } else {
        command
            .args(["-t", &mount.r#type, "-o"])
            .arg(mount.options.join(","));
    }
    let mounted = run(command.arg(&mount.source).arg(place));
    if mounted.code != 0 {
        return Err(format!("mount {name}: {mounted}"));
    }
    let mut tree = Tree::new();
    let read = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        subject::read(place, Path::new(""), &mut tree);
    }));
    run(Command::new("umount").arg(place)).ok();
    read.map_err(|_panic| format!("the tree of {name} cannot be read"))?;
    snapshots
        .remove(client.scoped(RemoveSnapshotRequest {
            snapshotter: life::OVERLAY.into(),
            key: "check".into(),
        }))
        .await
        .map_err(failed("remove the view"))?;
    Ok(tree)
}

fn compare(what: &str, found: &Tree, expected: &Tree) -> Outcome {
    for (path, (mode, content)) in expected {
        match found.get(path) {
            None => return Err(format!("{what}: {} is missing", path.display())),
            Some((other, _)) if other != mode => {
                return Err(format!("{what}: {} has mode {other:o}", path.display()));
            }
            Some((_, bytes)) if bytes != content => {
                return Err(format!(
                    "{what}: {} has {} bytes that are not its {}",
                    path.display(),
                    bytes.len(),
                    content.len()
                ));
            }
            Some(_) => {}
        }
    }
    match found.keys().find(|path| !expected.contains_key(*path)) {
        Some(path) => Err(format!("{what}: {} is too much", path.display())),
        None => Ok(()),
    }
}

/// What an operation of a living daemon held is let go of, when it failed and its lease could not be deleted at once, too.
pub(crate) async fn no_operation_holds_anything(client: &Client) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let mut leases = LeasesClient::new(client.channel.clone());
        let list = leases
            .list(client.scoped(ListRequest::default()))
            .await
            .map_err(failed("list the leases"))?;
        // Ids of the daemon's making are a time and a number.
        let is_own = |id: &str| id.starts_with(|letter: char| letter.is_ascii_digit()) && id.contains('-');
        let mut ids = list.into_inner().leases.into_iter().map(|lease| lease.id);
        let Some(left) = ids.find(|id| is_own(id)) else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            return Err(format!("the lease {left} is left"));
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Deletes the leases that dead operations left, and what only they keep.
pub(crate) async fn delete_leases(client: &Client) -> Result<(), Status> {
    let mut leases = LeasesClient::new(client.channel.clone());
    let list = leases
        .list(client.scoped(ListRequest::default()))
        .await?
        .into_inner();
    for lease in list.leases {
        let request = DeleteRequest {
            id: lease.id,
            sync: true,
        };
        match leases.delete(client.scoped(request)).await {
            Err(status) if status.code() != Code::NotFound => return Err(status),
            _ => {}
        }
    }
    Ok(())
}

/// Deletes what a dead operation's lease keeps for the next one, and collects; then nothing of the life may be left.
pub(crate) async fn nothing_is_left(client: &Client) -> Outcome {
    delete_leases(client).await.map_err(failed("delete the leases"))?;
    store::collect(client).await.map_err(failed("collect garbage"))?;
    let mut images = ImagesClient::new(client.channel.clone());
    let list = images
        .list(client.scoped(ListImagesRequest::default()))
        .await
        .map_err(failed("list images"))?;
    if !list.get_ref().images.is_empty() {
        return Err(format!("images are left: {:?}", list.get_ref().images));
    }
    let left = snapshots(client).await.map_err(failed("list snapshots"))?;
    if !left.is_empty() {
        return Err(format!("snapshots are left: {left:?}"));
    }
    Ok(())
}

/// No daemon runs: all that the machine carries of the instance belongs to somebody, and after a whole life nothing does.
pub(crate) fn machine(instance: &Instance, ended: bool) -> Outcome {
    let report = instance.fsck()?;
    if !ended {
        return Ok(());
    }
    let kinds: Vec<&Value> = report["items"]
        .as_array()
        .into_iter()
        .flatten()
        .filter(|item| item["kind"] != "metadata" && item["kind"] != "ingest")
        .collect();
    if !kinds.is_empty() {
        return Err(format!("owned, but not needed: {kinds:?}"));
    }
    let mounts = leftovers::mounts_below(&instance.state);
    if !mounts.is_empty() {
        return Err(format!("mounts are left: {mounts:?}"));
    }
    // One that was told to end may still be about it.
    let deadline = Instant::now() + Duration::from_secs(10);
    loop {
        let mut shims = leftovers::processes_with(&format!(" -namespace {} ", instance.namespace));
        shims.retain(|(pid, _)| !is_dead(*pid));
        if shims.is_empty() {
            break;
        }
        if Instant::now() >= deadline {
            return Err(format!("shims are left: {shims:?}"));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    let cgroups = leftovers::cgroups_named(&life::cgroup(&instance.namespace));
    if !cgroups.is_empty() {
        return Err(format!("cgroups are left: {cgroups:?}"));
    }
    Ok(())
}

fn is_dead(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let state = stat
        .rsplit(')')
        .next()
        .unwrap_or_default()
        .trim_start()
        .to_owned();
    state.is_empty() || state.starts_with(['Z', 'X'])
}
