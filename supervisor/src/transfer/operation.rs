//! The operations themselves, each a straight list of steps under a lease.

use std::{
    future::Future,
    io::{Read, Write as _},
    sync::Arc,
};

use tokio_util::sync::CancellationToken;

use super::{
    Destination, Progress, Selection, Stream,
    descriptor::Descriptor,
    document::Document,
    export as exporter,
    fetch::{Fetcher, Source},
    graph, import as archive, slot, stream, unpack,
};
use crate::{
    daemon::Daemon,
    error::{Error, Kind, Result},
    identifier::Labels,
    image::{self, Image},
    lease::Held,
    namespace::Scope,
    registry,
};

/// Pulls what `client`'s reference means into `destination`.
///
/// # Errors
///
/// Those of the registry; `InvalidArgument` for documents or layers that are refused; `FailedPrecondition` for content
/// that is not what its descriptor says; `NotFound` when a number of images is wanted and none fits. No record is written then.
pub(crate) async fn pull(
    daemon: &Arc<Daemon>,
    scope: &Scope,
    client: registry::Client,
    destination: Destination,
    progress: Progress,
    cancelled: &CancellationToken,
) -> Result<Vec<Image>> {
    let from = format!("OCI Registry ({})", client.reference());
    leased(daemon, scope, cancelled, |scope| async move {
        progress.say(format!("Resolving from {from}"), "", None);
        let resolved = client.resolve().await;
        let target = Descriptor::from(resolved.map_err(|error| error.context("failed to resolve image"))?);
        let names = destination.target_names(&target);
        if names.is_empty() {
            return Err(Error::invalid("the destination has no image name"));
        }
        progress.say(format!("Pulling from {from}"), "", None);
        progress.say("fetching image content", &names[0], Some(&target));
        let pieces = daemon.transfer.pieces(client.reference().host());
        let source = Source::Registry(Arc::new(client), pieces);
        let fetcher = Fetcher {
            daemon: Arc::clone(daemon),
            scope,
            source,
            progress,
        };
        complete(&fetcher, (&names[0], &target), &destination).await?;
        let progress = fetcher.progress.clone();
        let images = store(&fetcher, &destination, vec![(target, names)], &progress).await?;
        progress.say(format!("Completed pull from {from}"), "", None);
        Ok(images)
    })
    .await
}

/// Imports the archive that `input` reads into `destination`.
///
/// # Errors
///
/// `InvalidArgument` for an archive, document or layer that is refused; `FailedPrecondition` and `NotFound` as
/// [`pull`]. No record is written then.
pub(crate) async fn import(
    daemon: &Arc<Daemon>,
    scope: &Scope,
    (input, compress): (impl Read + Send + 'static, bool),
    destination: Destination,
    progress: Progress,
    cancelled: &CancellationToken,
) -> Result<Vec<Image>> {
    leased(daemon, scope, cancelled, |scope| async move {
        progress.say("Importing", "", None);
        let reading = scope.clone();
        let importing = slot(&daemon.transfer.importing).await?;
        let index = daemon
            .blocking(move |daemon| archive::read(daemon, &reading, input, compress))
            .await?;
        drop(importing);
        let fetcher = Fetcher {
            daemon: Arc::clone(daemon),
            scope,
            source: Source::Local,
            // Clients hear of what is saved: all blobs are here.
            progress: Progress::default(),
        };
        complete(&fetcher, ("", &index), &destination).await?;
        let mut named = vec![(index.clone(), destination.target_names(&index))];
        if let Document::Index(entries) = fetcher.document(&index, "", Ok).await? {
            for entry in entries {
                let names = destination.entry_names(&entry);
                named.push((entry, names));
            }
        }
        let images = store(&fetcher, &destination, named, &progress).await?;
        if images.is_empty() {
            return Err(Error::not_found(
                "the archive names no image and the destination gives none: image name",
            ));
        }
        progress.say("Completed import", "", None);
        Ok(images)
    })
    .await
}

/// Exports the images `names` to the client behind `output`.
///
/// # Errors
///
/// `NotFound` when there is no such image, a part of it is not in the store, or none is for a wanted platform: then
/// nothing is written. `Canceled` when the client goes away.
pub(crate) async fn export(
    daemon: &Arc<Daemon>,
    scope: &Scope,
    names: Vec<String>,
    selection: Selection,
    output: Stream,
    progress: Progress,
    cancelled: &CancellationToken,
) -> Result<()> {
    let exporting = async {
        progress.say("Exporting", "", None);
        let _slot = slot(&daemon.transfer.exporting).await?;
        let reading = scope.clone();
        let plan = daemon
            .blocking(move |daemon| {
                let images = names.iter().map(|name| image::get(daemon, &reading, name));
                let images: Vec<Image> = images.collect::<Result<_>>()?;
                exporter::plan(daemon, &reading, &images, &selection)
            })
            .await?;
        let (writer, sent) = stream::write_bytes(output);
        let reading = scope.clone();
        let written = daemon
            .blocking(move |daemon| exporter::write(daemon, &reading, &plan, writer))
            .await;
        // Why the client could not be reached tells more than that writing failed.
        sent.await.map_err(|error| Error::unknown("export", error))??;
        written?;
        progress.say("Completed export", "", None);
        Ok(())
    };
    cancelled
        .run_until_cancelled(exporting)
        .await
        .unwrap_or_else(|| Err(Error::new(Kind::Canceled, "the caller is gone")))
}

/// Sends the client what it sends, byte for byte and without a look at it: how clients try out their streams.
///
/// # Errors
///
/// `Canceled` when the client goes away, and what ends its stream before the data does.
pub(crate) async fn echo(
    daemon: &Arc<Daemon>,
    input: Stream,
    output: Stream,
    cancelled: &CancellationToken,
) -> Result<()> {
    let echoing = async {
        let _slot = slot(&daemon.transfer.exporting).await?;
        let mut reader = stream::read_bytes(input);
        let (mut writer, sent) = stream::write_bytes(output);
        let copied = daemon
            .blocking(move |_daemon| {
                std::io::copy(&mut reader, &mut writer)
                    .and_then(|_count| writer.flush())
                    .map_err(|error| Error::io("send back what came", error))
            })
            .await;
        // Why the client could not be reached tells more than that writing failed.
        sent.await.map_err(|error| Error::unknown("echo", error))??;
        copied
    };
    cancelled
        .run_until_cancelled(echoing)
        .await
        .unwrap_or_else(|| Err(Error::new(Kind::Canceled, "the caller is gone")))
}

/// Gives the image `name` the names of `destination` as well.
///
/// # Errors
///
/// `NotFound` when there is no such image.
pub(crate) async fn tag(
    daemon: &Arc<Daemon>,
    scope: &Scope,
    name: String,
    destination: Destination,
) -> Result<Vec<Image>> {
    let scope = scope.clone();
    daemon
        .blocking(move |daemon| {
            let target = Descriptor::from(image::get(daemon, &scope, &name)?.target.unwrap_or_default());
            let names = destination.target_names(&target);
            if names.is_empty() {
                return Err(Error::invalid("the destination has no image name"));
            }
            destination.store(daemon, &scope, &target, &names)
        })
        .await
}

/// Gets everything of `target` that `destination` wants into the store, and unpacks it.
async fn complete(
    fetcher: &Fetcher,
    (name, target): (&str, &Descriptor),
    destination: &Destination,
) -> Result<()> {
    let wishes = &destination.unpacks;
    let checked = fetcher.daemon.transfer.checks_platforms();
    if !wishes.is_empty() && !wishes.iter().any(|wish| wish.platform.is_unpacked_here(checked)) {
        return Err(Error::invalid(
            "unable to initialize unpacker: no unpack platforms defined",
        ));
    }
    let images = graph::images(
        fetcher,
        (name, target),
        &destination.platforms,
        destination.manifest_limit,
        destination.all_metadata,
    )
    .await?;
    // Where a number of images was asked for, one that no index chose has to fit as well.
    let required: &[_] = match destination.manifest_limit {
        0 => &[],
        _ => &destination.platforms,
    };
    for image in &images {
        let wishes: &[_] = match image.is_wanted {
            true => &destination.unpacks,
            false => &[],
        };
        unpack::complete(fetcher, image, wishes, required).await?;
    }
    Ok(())
}

/// Writes the records, last of all.
async fn store(
    fetcher: &Fetcher,
    destination: &Destination,
    named: Vec<(Descriptor, Vec<String>)>,
    progress: &Progress,
) -> Result<Vec<Image>> {
    let (scope, destination) = (fetcher.scope.clone(), destination.clone());
    let progress = progress.clone();
    fetcher
        .daemon
        .blocking(move |daemon| {
            let mut images = Vec::new();
            for (target, names) in named {
                for image in destination.store(daemon, &scope, &target, &names)? {
                    progress.say("saved", &image.name, Some(&target));
                    images.push(image);
                }
            }
            Ok(images)
        })
        .await
}

/// Runs `operation` under the caller's lease, or under one of its own that ends with it. Cancelled, it is dropped where
/// it stands, and the lease is given back all the same.
async fn leased<T, F: Future<Output = Result<T>>>(
    daemon: &Arc<Daemon>,
    scope: &Scope,
    cancelled: &CancellationToken,
    operation: impl FnOnce(Scope) -> F,
) -> Result<T> {
    let until_cancelled = |scope| async {
        cancelled
            .run_until_cancelled(operation(scope))
            .await
            .unwrap_or_else(|| Err(Error::new(Kind::Canceled, "the caller is gone")))
    };
    if scope.lease.is_some() {
        return until_cancelled(scope.clone()).await;
    }
    let own = scope.clone();
    let held = daemon
        .blocking(move |daemon| Held::new(daemon, &own, Labels::new()))
        .await?;
    let outcome = until_cancelled(held.scope.clone()).await;
    let release = move |daemon: &Daemon| {
        held.release(daemon);
        Ok(())
    };
    let released = daemon.blocking(release).await;
    let value = outcome?;
    released.map(|()| value)
}
