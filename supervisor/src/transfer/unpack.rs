//! What of an image is unpacked, and the order of it: layers bottom first, each as soon as it is here.

use std::sync::Arc;

use tokio_util::task::AbortOnDropHandle;

use super::{
    descriptor::Descriptor,
    document::{self, Config},
    fetch::Fetcher,
    graph::Image,
    platform::Platform,
    slot,
};
use crate::{
    error::{Error, Result},
    image::unpack::{self, Layer},
    snapshot,
};

/// Layers that are downloaded at the same time for one image.
const DOWNLOADS: usize = 4;

/// A wish to unpack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpack {
    /// The platform whose image is unpacked.
    pub(crate) platform: Platform,
    /// The snapshotter; empty for the default one.
    pub(crate) snapshotter: String,
}

/// Gets the config and layers of `image` into the store and unpacks them where `wishes` say so; says whether any did.
pub(super) async fn complete(fetcher: &Fetcher, image: &Image, wishes: &[Unpack]) -> Result<Outcome> {
    let parent = image.manifest.reference();
    fetcher.blob(&image.config, &parent).await?;
    let permits = Arc::new(tokio::sync::Semaphore::new(DOWNLOADS));
    let mut downloads = Vec::with_capacity(image.layers.len());
    for layer in &image.layers {
        let (fetcher, layer, parent, permits) = (
            fetcher.clone(),
            layer.clone(),
            parent.clone(),
            Arc::clone(&permits),
        );
        downloads.push(AbortOnDropHandle::new(tokio::spawn(async move {
            let _slot = slot(&permits).await?;
            fetcher.blob(&layer, &parent).await
        })));
    }
    let outcome = plan(fetcher, image, wishes).await?;
    let Outcome::Unpacked(plans) = &outcome else {
        for download in downloads {
            joined(download.await)?;
        }
        return Ok(outcome);
    };
    for (number, download) in downloads.into_iter().enumerate() {
        joined(download.await)?;
        for plan in plans {
            layer(fetcher, plan, number, &image.layers[number], &parent).await?;
        }
    }
    for plan in plans {
        let (scope, snapshotter, config) = (
            fetcher.scope.clone(),
            plan.snapshotter.clone(),
            image.config.digest()?,
        );
        let top = plan.chain.last().cloned();
        fetcher
            .daemon
            .blocking(move |daemon| unpack::keep(daemon, &scope, &snapshotter, &config, top.as_ref()))
            .await?;
    }
    Ok(outcome)
}

fn joined<T>(outcome: Result<Result<T>, tokio::task::JoinError>) -> Result<T> {
    outcome.map_err(|error| Error::unknown("download", error))?
}

/// What became of the wishes.
pub(super) enum Outcome {
    /// Nothing was wished for, or this is no image with layers (an attestation, an artifact).
    Fetched,
    /// The image is for this platform, which no wish names.
    OtherPlatform(Platform),
    /// It was unpacked as planned.
    Unpacked(Vec<Plan>),
}

/// The layers of one image in one snapshotter.
pub(super) struct Plan {
    snapshotter: String,
    diff_ids: Vec<crate::digest::Digest>,
    chain: Vec<crate::digest::Digest>,
}

async fn plan(fetcher: &Fetcher, image: &Image, wishes: &[Unpack]) -> Result<Outcome> {
    use super::descriptor::Kind;
    if wishes.is_empty()
        || image.config.kind() != Kind::Config
        || image.layers.iter().any(|layer| layer.kind() != Kind::Layer)
    {
        return Ok(Outcome::Fetched);
    }
    let bytes = fetcher.read(&image.config.digest()?).await?;
    let Config { platform, diff_ids } = document::parse_config(&image.config.digest, &bytes)?;
    if diff_ids.len() != image.layers.len() {
        return Err(Error::invalid(format!(
            "image config {}: {} diff ids for {} layers",
            image.config.digest,
            diff_ids.len(),
            image.layers.len()
        )));
    }
    let fits = |wish: &&Unpack| {
        platform
            .as_ref()
            .is_none_or(|platform| wish.platform.score(platform).is_some())
    };
    let plans: Vec<Plan> = wishes
        .iter()
        .filter(fits)
        .map(|wish| Plan {
            snapshotter: match wish.snapshotter.as_str() {
                "" => snapshot::DEFAULT.to_owned(),
                named => named.to_owned(),
            },
            chain: document::chain_ids(&diff_ids),
            diff_ids: diff_ids.clone(),
        })
        .collect();
    match (plans.is_empty(), platform) {
        (true, Some(platform)) => Ok(Outcome::OtherPlatform(platform)),
        _ => Ok(Outcome::Unpacked(plans)),
    }
}

/// Unpacks layer `number`, unless it is unpacked.
async fn layer(fetcher: &Fetcher, plan: &Plan, number: usize, blob: &Descriptor, parent: &str) -> Result<()> {
    let chain_id = &plan.chain[number];
    let shared = &fetcher.daemon.transfer;
    let name = format!("{}/{}/{chain_id}", fetcher.scope.namespace, plan.snapshotter);
    let _locked = shared.locks.lock(&name).await;
    let _slot = slot(&shared.applying).await?;
    let layer = Layer {
        snapshotter: plan.snapshotter.clone(),
        blob: blob.digest()?,
        media_type: blob.media_type.clone(),
        diff_id: plan.diff_ids[number].clone(),
        chain_id: chain_id.clone(),
        parent: number.checked_sub(1).map(|below| plan.chain[below].clone()),
    };
    let scope = fetcher.scope.clone();
    let size = blob.size()?;
    let mut progress = fetcher.progress.blob(blob, parent);
    fetcher
        .daemon
        .blocking(move |daemon| {
            let applied = unpack::layer(daemon, &scope, &layer, |offset| progress.at("extracting", offset))?;
            if applied {
                progress.state("extracted", size);
            }
            Ok(())
        })
        .await
}
