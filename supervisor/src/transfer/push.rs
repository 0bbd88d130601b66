//! Pushing an image: its blobs beside each other, then its manifests, those that are named before those that name them.
//!
//! What is not in the store cannot be sent: a manifest of another platform may be missing if the registry has it already,
//! and layers that may not be distributed are left out.

use std::{collections::BTreeSet, io, sync::Arc};

use bytes::Bytes;
use futures_util::stream;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};

use super::{
    descriptor::Descriptor,
    document::{self, Document},
    fetch::{label, origin},
    graph,
    platform::Platform,
    progress::{Blob, Progress},
    slot,
};
use crate::{
    content::Reader,
    daemon::Daemon,
    error::{self, Error, Result},
    identifier::Labels,
    image,
    namespace::Scope,
    registry::{Client, Content, MAX_MANIFEST, Pushed},
};

/// Bytes that are read at once.
const CHUNK: u64 = 256 * 1024;

/// Everything of an image that is to be sent.
#[derive(Default)]
struct Plan {
    /// Indexes and manifests, each before those that it names, with what names them.
    documents: Vec<(Descriptor, String)>,
    /// Configs and layers, with the document that names them.
    blobs: Vec<(Descriptor, String)>,
    /// Manifests that are not in the store.
    absent: Vec<Descriptor>,
}

/// Pushes the image `name`, of an index only what fits `platforms` (everything when there are none), to what `client`'s
/// reference means.
///
/// # Errors
///
/// Those of the registry; `NotFound` when the image or a part of it is not in the store. What was sent until then stays
/// in the registry under no name.
pub(crate) async fn push(
    daemon: &Arc<Daemon>,
    scope: &Scope,
    name: &str,
    platforms: &[Platform],
    client: Client,
    progress: Progress,
    cancelled: &CancellationToken,
) -> Result<()> {
    let pushed = pushing(daemon, scope, name, platforms, client, progress);
    cancelled
        .run_until_cancelled(pushed)
        .await
        .unwrap_or_else(|| Err(Error::new(error::Kind::Canceled, "the caller is gone")))
}

async fn pushing(
    daemon: &Arc<Daemon>,
    scope: &Scope,
    name: &str,
    platforms: &[Platform],
    client: Client,
    progress: Progress,
) -> Result<()> {
    let to = format!("OCI Registry ({})", client.reference());
    let wanted = (scope.clone(), name.to_owned(), platforms.to_vec());
    let (target, plan) = daemon
        .blocking(move |daemon| {
            let (scope, name, platforms) = wanted;
            let target = Descriptor::from(image::get(daemon, &scope, &name)?.target.unwrap_or_default());
            let plan = plan(daemon, &scope, (&name, &target), &platforms)?;
            Ok((target, plan))
        })
        .await?;
    progress.say(format!("Pushing to {to}"), "", None);
    progress.say("pushing content", name, Some(&target));
    for manifest in &plan.absent {
        if !client.has_manifest(&manifest.digest()?).await? {
            return Err(Error::not_found(format!(
                "content digest {}, which {name} names for {}",
                manifest.digest,
                manifest
                    .platform
                    .as_ref()
                    .map_or_else(|| "any platform".to_owned(), ToString::to_string)
            )));
        }
    }
    for (document, parent) in &plan.documents {
        progress.blob(document, parent).state("waiting", 0);
    }
    let permits = Arc::new(Semaphore::new(
        daemon.transfer.settings.max_concurrent_uploaded_layers,
    ));
    let host = daemon.transfer.host(client.reference().host());
    let mut uploads = Vec::with_capacity(plan.blobs.len());
    for (descriptor, parent) in plan.blobs {
        let upload = Upload {
            daemon: Arc::clone(daemon),
            scope: scope.clone(),
            client: client.clone(),
            progress: progress.blob(&descriptor, &parent),
            descriptor,
        };
        let slots = [Arc::clone(&permits), Arc::clone(&host)];
        uploads.push(AbortOnDropHandle::new(tokio::spawn(async move {
            let _one = slot(&slots[0]).await?;
            let _other = slot(&slots[1]).await?;
            upload.run().await
        })));
    }
    for upload in uploads {
        upload.await.map_err(|error| Error::unknown("upload", error))??;
    }
    for (document, parent) in plan.documents.iter().rev() {
        let digest = document.digest()?;
        let reading = (scope.clone(), digest.clone());
        let bytes = daemon
            .blocking(move |daemon| daemon.content.read(&reading.0, &reading.1, MAX_MANIFEST))
            .await?;
        let named = document.digest == target.digest;
        client
            .push_manifest(&document.media_type, &digest, Bytes::from(bytes), named)
            .await?;
        progress
            .blob(document, parent)
            .state("complete", document.size()?);
    }
    progress.say("pushed content", name, Some(&target));
    progress.say(format!("Completed push to {to}"), "", Some(&target));
    Ok(())
}

/// Reads the documents of `target`, the image `name`. Blocks.
fn plan(
    daemon: &Daemon,
    scope: &Scope,
    (name, target): (&str, &Descriptor),
    platforms: &[Platform],
) -> Result<Plan> {
    let mut plan = Plan::default();
    let mut seen = BTreeSet::new();
    let mut pending = vec![(target.clone(), name.to_owned(), 0)];
    while let Some((descriptor, above, depth)) = pending.pop() {
        if !seen.insert(descriptor.digest.clone()) {
            continue;
        }
        if depth > graph::MAX_DEPTH || plan.documents.len() > graph::MAX_IMAGES {
            return Err(Error::invalid(format!(
                "{}: too many indexes or images",
                target.digest
            )));
        }
        let digest = descriptor.digest()?;
        let bytes = match daemon.content.read(scope, &digest, MAX_MANIFEST) {
            Err(error) if error.is_not_found() && depth > 0 => {
                plan.absent.push(descriptor);
                continue;
            }
            bytes => bytes?,
        };
        let parent = descriptor.reference();
        match document::parse(&descriptor, &bytes)? {
            Document::Index(entries) => {
                let chosen = graph::choose(entries, platforms);
                if chosen.is_empty() && !platforms.is_empty() {
                    return Err(Error::not_found(graph::no_match(&descriptor, platforms)));
                }
                let entries = chosen.into_iter().rev();
                pending.extend(entries.map(|entry| (entry, parent.clone(), depth + 1)));
            }
            Document::Manifest { config, layers } => {
                // What may not be distributed stays where its manifest says that it is.
                let layers = layers.into_iter().filter(|layer| !layer.is_foreign());
                for blob in std::iter::once(config).chain(layers) {
                    if seen.insert(blob.digest.clone()) {
                        plan.blobs.push((blob, parent.clone()));
                    }
                }
            }
        }
        plan.documents.push((descriptor, above));
    }
    Ok(plan)
}

/// One blob on its way.
struct Upload {
    daemon: Arc<Daemon>,
    scope: Scope,
    client: Client,
    descriptor: Descriptor,
    progress: Blob,
}

impl Upload {
    async fn run(self) -> Result<()> {
        let digest = self.descriptor.digest()?;
        let size = self.descriptor.size()?;
        self.progress.state("waiting", 0);
        let (scope, wanted, source) = (
            self.scope.clone(),
            digest.clone(),
            origin(self.client.reference()),
        );
        let (key, target) = source.clone();
        let found = self
            .daemon
            .blocking(move |daemon| {
                let info = daemon.content.info(&scope, &wanted)?;
                let from = info.labels.get(&key).and_then(|seen| {
                    let mut repositories = seen.split(',');
                    repositories.find(|name| !name.is_empty() && *name != target)
                });
                Ok((daemon.content.reader(&scope, &wanted)?, from.map(str::to_owned)))
            })
            .await;
        let (reader, from) = found?;
        if reader.size() != size {
            return Err(Error::precondition(format!(
                "{digest}: {} bytes, its descriptor says {size}",
                reader.size()
            )));
        }
        // Only a repository's name may come into the URL; the label could hold anything.
        let from = from.filter(|name| {
            format!("localhost/{name}")
                .parse::<crate::registry::Reference>()
                .is_ok()
        });
        let progress = self.progress.clone();
        let content = Content {
            digest: digest.clone(),
            size,
            open: Arc::new(move |offset, length| {
                Box::pin(read(reader.clone(), offset, length, progress.clone()))
            }),
        };
        let pushed = self.client.push_blob(&content, from.as_deref()).await?;
        let scope = self.scope.clone();
        self.daemon
            .blocking(move |daemon| label(daemon, &scope, &digest, Labels::new(), Some(&source)))
            .await?;
        let event = match pushed {
            Pushed::Present => "already exists",
            Pushed::Mounted => "mounted",
            Pushed::Uploaded => "complete",
        };
        self.progress.state(event, size);
        Ok(())
    }
}

/// Reads `length` bytes of a blob from `offset` on, on the blocking pool.
fn read(
    reader: Reader,
    offset: u64,
    length: u64,
    progress: Blob,
) -> impl stream::Stream<Item = io::Result<Bytes>> + Send {
    let end = offset + length;
    stream::try_unfold(
        (reader, offset, progress),
        move |(reader, offset, mut progress)| async move {
            if offset == end {
                return Ok(None);
            }
            let wanted = usize::try_from(CHUNK.min(end - offset)).map_err(io::Error::other)?;
            let (reader, bytes) = tokio::task::spawn_blocking(move || {
                let mut buffer = vec![0; wanted];
                let count = reader.read_at(&mut buffer, offset).map_err(io::Error::other)?;
                buffer.truncate(count);
                Ok::<_, io::Error>((reader, Bytes::from(buffer)))
            })
            .await
            .map_err(io::Error::other)??;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let offset = offset + bytes.len() as u64;
            progress.at("uploading", offset);
            Ok(Some((bytes, (reader, offset, progress))))
        },
    )
}
