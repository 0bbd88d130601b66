//! Calls on the stores that no container needs: leases, resumed and aborted ingests, labels, tags, pushes, layers that are
//! computed and applied, a collection that is waited for; and what each promises.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use integration_tests::run;
use tonic::{Code, Request, Status};
use wharf_proto::any::pack;
use wharf_proto::containerd::services::content::v1::content_client::ContentClient;
use wharf_proto::containerd::services::content::v1::{
    AbortRequest, DeleteContentRequest, Info as Blob, InfoRequest, ListContentRequest, StatusRequest,
    UpdateRequest as UpdateContentRequest, WriteAction, WriteContentRequest,
};
use wharf_proto::containerd::services::diff::v1::diff_client::DiffClient;
use wharf_proto::containerd::services::diff::v1::{ApplyRequest, DiffRequest};
use wharf_proto::containerd::services::images::v1::images_client::ImagesClient;
use wharf_proto::containerd::services::images::v1::{
    DeleteImageRequest, GetImageRequest, Image, UpdateImageRequest,
};
use wharf_proto::containerd::services::leases::v1::leases_client::LeasesClient;
use wharf_proto::containerd::services::leases::v1::{
    AddResourceRequest, CreateRequest, DeleteRequest, ListRequest, Resource,
};
use wharf_proto::containerd::services::namespaces::v1::namespaces_client::NamespacesClient;
use wharf_proto::containerd::services::namespaces::v1::{
    CreateNamespaceRequest, DeleteNamespaceRequest, ListNamespacesRequest, Namespace, UpdateNamespaceRequest,
};
use wharf_proto::containerd::services::snapshots::v1::snapshots_client::SnapshotsClient;
use wharf_proto::containerd::services::snapshots::v1::{
    CommitSnapshotRequest, Info as Snapshot, UpdateSnapshotRequest, ViewSnapshotRequest,
};
use wharf_proto::containerd::services::transfer::v1::TransferRequest;
use wharf_proto::containerd::services::transfer::v1::transfer_client::TransferClient;
use wharf_proto::containerd::types::transfer::{ImageStore, OciRegistry, RegistryResolver};
use wharf_proto::containerd::types::{Descriptor, Mount};

use crate::check::{self, Progress, failed, found, presence};
use crate::instance::Client;
use crate::life::{self, LAYER, OVERLAY, Step, root};
use crate::subject::Subject;

const LEASE: &str = "l";
/// One that ends by itself.
const EXPIRING: &str = "x";
/// How long it has: a daemon that was killed has to be there again before.
const SHORT: Duration = Duration::from_millis(1500);
/// The bytes that are written in two goes, and those under the lease that ends.
const RESUMED: &[u8] = &[b'r'; 90_000];
const SHORT_LIVED: &[u8] = b"not for long";
const APPLIED: &str = "applied";
const LABEL: &str = "acknowledged";

/// Does `step`, one of this file's.
pub(crate) async fn once(
    client: &Client,
    subject: &Subject,
    namespace: &str,
    step: Step,
    again: bool,
) -> Result<(), Status> {
    match step {
        Step::CreateNamespace => namespaces(client)
            .create(client.scoped(CreateNamespaceRequest {
                namespace: Some(Namespace {
                    name: namespace.into(),
                    ..Namespace::default()
                }),
            }))
            .await
            .map(drop),
        Step::LabelNamespace => namespaces(client)
            .update(client.scoped(UpdateNamespaceRequest {
                namespace: Some(Namespace {
                    name: namespace.into(),
                    labels: labels(),
                }),
                update_mask: Some(mask()),
            }))
            .await
            .map(drop),
        Step::CreateLease => create_lease(client, LEASE, labels()).await,
        Step::HalfBlob => write(client, "half", &RESUMED[..RESUMED.len() / 2]).await,
        Step::AbortBlob => {
            let aborted = AbortRequest {
                r#ref: "aborted".into(),
            };
            // A second try finds that it is done, or does it all again.
            write(client, "aborted", &RESUMED[..100]).await?;
            content(client).abort(client.scoped(aborted)).await.map(drop)
        }
        Step::RestBlob => rest(client, again).await,
        Step::Tag => transfer(client, store(&subject.reference), store(&tagged(subject))).await,
        Step::LabelImage => ImagesClient::new(client.channel.clone())
            .update(client.scoped(UpdateImageRequest {
                image: Some(Image {
                    name: tagged(subject),
                    labels: labels(),
                    ..Image::default()
                }),
                update_mask: Some(mask()),
                source_date_epoch: None,
            }))
            .await
            .map(drop),
        Step::LabelBlob => content(client)
            .update(client.scoped(UpdateContentRequest {
                info: Some(Blob {
                    digest: life::digest(RESUMED),
                    labels: labels(),
                    ..Blob::default()
                }),
                update_mask: Some(mask()),
            }))
            .await
            .map(drop),
        Step::HoldManifest => hold(client, LEASE, &subject.manifest).await,
        Step::Push => {
            let registry = OciRegistry {
                reference: subject
                    .registry
                    .reference(&format!("tests/{}:1", namespace.to_lowercase())),
                resolver: Some(RegistryResolver::default()),
            };
            transfer(client, store(&subject.reference), pack(&registry)).await
        }
        Step::LabelLayer => SnapshotsClient::new(client.channel.clone())
            .update(client.scoped(UpdateSnapshotRequest {
                snapshotter: OVERLAY.into(),
                info: Some(Snapshot {
                    name: LAYER.into(),
                    labels: labels(),
                    ..Snapshot::default()
                }),
                update_mask: Some(mask()),
            }))
            .await
            .map(drop),
        Step::Diff => diff(client).await,
        Step::ApplyDiff => apply(client).await,
        Step::DeleteTag => ImagesClient::new(client.channel.clone())
            .delete(client.scoped(DeleteImageRequest {
                name: tagged(subject),
                ..DeleteImageRequest::default()
            }))
            .await
            .map(drop),
        Step::RemoveApplied => life::remove(client, APPLIED).await,
        Step::DeleteDiff => {
            let digest = computed(client).await?.digest;
            content(client)
                .delete(client.scoped(DeleteContentRequest { digest }))
                .await
                .map(drop)
        }
        Step::DeleteLease => {
            let request = DeleteRequest {
                id: LEASE.into(),
                sync: true,
            };
            leases(client).delete(client.scoped(request)).await.map(drop)
        }
        Step::DeleteNamespace => {
            // A pull that was killed leaves a lease, for a day, that keeps what it had.
            check::delete_leases(client).await?;
            namespaces(client)
                .delete(client.scoped(DeleteNamespaceRequest {
                    name: namespace.into(),
                }))
                .await
                .map(drop)
        }
        Step::ShortLease => {
            let expiry = [("containerd.io/gc.expire".to_owned(), soon())].into();
            create_lease(client, EXPIRING, expiry).await?;
            let message = commit("short", SHORT_LIVED, 0);
            send(client, leased(client, EXPIRING, tokio_stream::iter([message]))).await
        }
        Step::Expire => expire(client).await,
        other => unreachable!("{other:?} is none of the stores'"),
    }
}

/// When the short time is over.
fn soon() -> String {
    let end = SystemTime::now() + SHORT;
    let end = end
        .duration_since(SystemTime::UNIX_EPOCH)
        .expect("a time after 1970");
    let end = format!("@{}.{:03}", end.as_secs(), end.subsec_millis());
    let text = run(Command::new("date").args(["-u", "-d", &end, "+%FT%T.%3NZ"])).ok();
    text.trim().to_owned()
}

fn mask() -> prost_types::FieldMask {
    prost_types::FieldMask {
        paths: vec![format!("labels.{LABEL}")],
    }
}

fn labels() -> std::collections::BTreeMap<String, String> {
    [(LABEL.to_owned(), "yes".to_owned())].into()
}

fn tagged(subject: &Subject) -> String {
    format!("{}-tagged", subject.reference)
}

fn content(client: &Client) -> ContentClient<tonic::transport::Channel> {
    ContentClient::new(client.channel.clone())
}

fn leases(client: &Client) -> LeasesClient<tonic::transport::Channel> {
    LeasesClient::new(client.channel.clone())
}

fn namespaces(client: &Client) -> NamespacesClient<tonic::transport::Channel> {
    NamespacesClient::new(client.channel.clone())
}

/// `message`, whose effects the lease `id` holds.
fn leased<T>(client: &Client, id: &'static str, message: T) -> Request<T> {
    let mut request = client.scoped(message);
    let id = tonic::metadata::MetadataValue::from_static(id);
    request.metadata_mut().insert("containerd-lease", id);
    request
}

async fn create_lease(
    client: &Client,
    id: &str,
    labels: std::collections::BTreeMap<String, String>,
) -> Result<(), Status> {
    let request = CreateRequest {
        id: id.into(),
        labels,
    };
    leases(client).create(client.scoped(request)).await.map(drop)
}

async fn hold(client: &Client, lease: &str, digest: &str) -> Result<(), Status> {
    let request = AddResourceRequest {
        id: lease.into(),
        resource: Some(Resource {
            id: digest.into(),
            r#type: "content".into(),
        }),
    };
    leases(client)
        .add_resource(client.scoped(request))
        .await
        .map(drop)
}

/// Begins the ingest `reference` with `data`, from its start, and leaves it there.
async fn write(client: &Client, reference: &str, data: &[u8]) -> Result<(), Status> {
    let message = WriteContentRequest {
        action: WriteAction::Write.into(),
        r#ref: reference.into(),
        total: RESUMED.len() as i64,
        expected: life::digest(RESUMED),
        data: data.to_vec().into(),
        ..WriteContentRequest::default()
    };
    send(client, leased(client, LEASE, tokio_stream::iter([message]))).await
}

fn commit(reference: &str, whole: &[u8], from: usize) -> WriteContentRequest {
    WriteContentRequest {
        action: WriteAction::Commit.into(),
        r#ref: reference.into(),
        total: whole.len() as i64,
        expected: life::digest(whole),
        offset: from as i64,
        data: whole[from..].to_vec().into(),
        ..WriteContentRequest::default()
    }
}

/// Sends what is to be written, and expects an answer to it.
async fn send(
    client: &Client,
    request: Request<impl tokio_stream::Stream<Item = WriteContentRequest> + Send + 'static>,
) -> Result<(), Status> {
    let mut answers = content(client).write(request).await?.into_inner();
    let mut answered = false;
    while answers.message().await?.is_some() {
        answered = true;
    }
    if answered {
        Ok(())
    } else {
        Err(Status::unavailable(
            "the connection ended before the answer: transport error",
        ))
    }
}

/// Goes on with the ingest where it was left.
async fn rest(client: &Client, again: bool) -> Result<(), Status> {
    let status = StatusRequest { r#ref: "half".into() };
    let offset = match content(client).status(client.scoped(status)).await {
        Ok(answer) => answer.into_inner().status.unwrap_or_default().offset as usize,
        // Committed, or lost with the power; the commit tells.
        Err(status) if again && status.code() == Code::NotFound => 0,
        Err(status) => return Err(status),
    };
    if !again && offset != RESUMED.len() / 2 {
        return Err(Status::data_loss(format!(
            "{offset} bytes of the ingest are left"
        )));
    }
    let message = commit("half", RESUMED, offset);
    send(client, leased(client, LEASE, tokio_stream::iter([message]))).await
}

fn store(name: &str) -> prost_types::Any {
    pack(&ImageStore {
        name: name.into(),
        ..ImageStore::default()
    })
}

async fn transfer(
    client: &Client,
    source: prost_types::Any,
    destination: prost_types::Any,
) -> Result<(), Status> {
    let request = TransferRequest {
        source: Some(source),
        destination: Some(destination),
        options: None,
    };
    TransferClient::new(client.channel.clone())
        .transfer(client.scoped(request))
        .await
        .map(drop)
}

/// Makes a layer of the snapshot of files.
async fn diff(client: &Client) -> Result<(), Status> {
    let view = ViewSnapshotRequest {
        snapshotter: OVERLAY.into(),
        key: "right".into(),
        parent: LAYER.into(),
        labels: root(),
    };
    let viewed = SnapshotsClient::new(client.channel.clone())
        .view(client.scoped(view))
        .await;
    let right: Vec<Mount> = match viewed {
        Ok(answer) => answer.into_inner().mounts,
        Err(status) if status.code() == Code::AlreadyExists => life::mounts(client, "right").await?,
        Err(status) => return Err(status),
    };
    let mut labels = root();
    labels.insert("computed".into(), "yes".into());
    let request = DiffRequest {
        right,
        media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
        r#ref: "diff".into(),
        labels,
        ..DiffRequest::default()
    };
    DiffClient::new(client.channel.clone())
        .diff(client.scoped(request))
        .await?;
    life::remove(client, "right").await
}

/// The layer that was made.
async fn computed(client: &Client) -> Result<Descriptor, Status> {
    let list = ListContentRequest {
        filters: vec!["labels.computed==yes".into()],
    };
    let mut answers = content(client).list(client.scoped(list)).await?.into_inner();
    let mut found = Vec::new();
    while let Some(answer) = answers.message().await? {
        found.extend(answer.info);
    }
    match found.as_slice() {
        [] => Err(Status::not_found("no layer was computed")),
        [layer] => Ok(Descriptor {
            media_type: "application/vnd.oci.image.layer.v1.tar+gzip".into(),
            digest: layer.digest.clone(),
            size: layer.size,
            ..Descriptor::default()
        }),
        several => Err(Status::data_loss(format!(
            "{several:?} were computed of one tree"
        ))),
    }
}

/// Makes a snapshot of the layer, as a client does that begins anew.
async fn apply(client: &Client) -> Result<(), Status> {
    match life::remove(client, "applied-active").await {
        Err(status) if status.code() != Code::NotFound => return Err(status),
        _ => {}
    }
    let layer = computed(client).await?;
    let mounts = life::prepare(client, "applied-active", "").await?;
    let request = ApplyRequest {
        diff: Some(layer),
        mounts,
        ..ApplyRequest::default()
    };
    DiffClient::new(client.channel.clone())
        .apply(client.scoped(request))
        .await?;
    let request = CommitSnapshotRequest {
        snapshotter: OVERLAY.into(),
        name: APPLIED.into(),
        key: "applied-active".into(),
        labels: root(),
        ..CommitSnapshotRequest::default()
    };
    let committed = SnapshotsClient::new(client.channel.clone())
        .commit(client.scoped(request))
        .await;
    match committed {
        Err(status) if status.code() == Code::AlreadyExists => {
            life::remove(client, "applied-active").await?;
            Err(status)
        }
        outcome => outcome.map(drop),
    }
}

/// Has garbage collected until the lease that ends has ended.
async fn expire(client: &Client) -> Result<(), Status> {
    tokio::time::sleep(SHORT).await;
    let deadline = tokio::time::Instant::now() + SHORT * 4;
    loop {
        collect(client).await?;
        if !has_lease(client, EXPIRING).await? {
            return Ok(());
        }
        if tokio::time::Instant::now() > deadline {
            return Err(Status::data_loss("the lease does not end"));
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// Has garbage collected: an empty lease is deleted for that.
pub(crate) async fn collect(client: &Client) -> Result<(), Status> {
    match create_lease(client, "collect", std::collections::BTreeMap::new()).await {
        Err(status) if status.code() != Code::AlreadyExists => return Err(status),
        _ => {}
    }
    let request = DeleteRequest {
        id: "collect".into(),
        sync: true,
    };
    match leases(client).delete(client.scoped(request)).await {
        Err(status) if status.code() != Code::NotFound => Err(status),
        _ => Ok(()),
    }
}

async fn has_lease(client: &Client, id: &str) -> Result<bool, Status> {
    let list = leases(client)
        .list(client.scoped(ListRequest::default()))
        .await?
        .into_inner();
    Ok(list.leases.iter().any(|lease| lease.id == id))
}

/// The row of the namespace: asked for by its name, one that is not there has no labels.
async fn namespace(client: &Client) -> Result<Option<Namespace>, Status> {
    let list = namespaces(client)
        .list(client.scoped(ListNamespacesRequest::default()))
        .await?
        .into_inner();
    Ok(list
        .namespaces
        .into_iter()
        .find(|row| row.name == client.namespace))
}

async fn blob(client: &Client, digest: &str) -> Result<Blob, Status> {
    let request = InfoRequest {
        digest: digest.into(),
    };
    let answer = content(client).info(client.scoped(request)).await?;
    Ok(answer.into_inner().info.unwrap_or_default())
}

/// Compares what the stores say with what was acknowledged.
pub(crate) async fn check(
    client: &Client,
    subject: &Subject,
    place: &Path,
    progress: Progress,
) -> Result<(), String> {
    if progress.has(Step::CreateNamespace) {
        let row = namespace(client).await.map_err(failed("list namespaces"))?;
        presence(
            "the namespace",
            Ok(row.is_some()),
            progress,
            Step::CreateNamespace,
            Step::DeleteNamespace,
        )?;
        let labels = row.map(|row| row.labels);
        labelled("the namespace", labels, progress, Step::LabelNamespace)?;
    }
    let lease = has_lease(client, LEASE).await;
    presence("the lease", lease, progress, Step::CreateLease, Step::DeleteLease)?;
    let resumed = blob(client, &life::digest(RESUMED)).await;
    let labels = resumed.as_ref().ok().map(|info| info.labels.clone());
    presence(
        "the resumed blob",
        found(resumed),
        progress,
        Step::RestBlob,
        Step::DeleteLease,
    )?;
    labelled("the resumed blob", labels, progress, Step::LabelBlob)?;
    let manifest = blob(client, &subject.manifest).await;
    presence(
        "the manifest",
        found(manifest),
        progress,
        Step::HoldManifest,
        Step::DeleteLease,
    )?;
    let image = ImagesClient::new(client.channel.clone())
        .get(client.scoped(GetImageRequest {
            name: tagged(subject),
        }))
        .await;
    let labels = image
        .as_ref()
        .ok()
        .and_then(|answer| answer.get_ref().image.clone())
        .map(|image| image.labels);
    presence("the tag", found(image), progress, Step::Tag, Step::DeleteTag)?;
    labelled("the tag", labels, progress, Step::LabelImage)?;
    let layer = check::stat(client, LAYER).await.ok();
    labelled(
        "the layer",
        layer.map(|info| info.labels),
        progress,
        Step::LabelLayer,
    )?;
    let computed = computed(client).await;
    presence(
        "the computed layer",
        found(computed),
        progress,
        Step::Diff,
        Step::DeleteDiff,
    )?;
    let applied = check::stat(client, APPLIED).await;
    if presence(
        "what was applied",
        found(applied),
        progress,
        Step::ApplyDiff,
        Step::RemoveApplied,
    )? {
        check::has_the_layers_files(client, place, APPLIED).await?;
    }
    if progress.acknowledged(Step::Expire) {
        let short = blob(client, &life::digest(SHORT_LIVED)).await;
        if found(short).map_err(failed("the blob of the lease that ended"))?
            || has_lease(client, EXPIRING).await.map_err(failed("list leases"))?
        {
            return Err("what ended is there again".into());
        }
    }
    Ok(())
}

/// Whether what is there has the label that was acknowledged.
fn labelled(
    what: &str,
    found: Option<std::collections::BTreeMap<String, String>>,
    progress: Progress,
    step: Step,
) -> Result<(), String> {
    match found {
        Some(labels) if progress.acknowledged(step) && !labels.contains_key(LABEL) => {
            Err(format!("the label of {what} was acknowledged, and is lost"))
        }
        _ => Ok(()),
    }
}
