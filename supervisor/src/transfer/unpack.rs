//! What of an image is unpacked, and the order of it: each layer is unpacked as soon as its bytes are here, beside the
//! others, and becomes a snapshot when the one below it is one.

use std::{
    collections::BTreeSet,
    io,
    sync::{Arc, Mutex, PoisonError},
};

use tokio::sync::{OwnedMutexGuard, oneshot};
use tokio_util::sync::CancellationToken;

use super::{
    descriptor::Descriptor,
    document::{self, Config},
    fetch::Fetcher,
    graph::Image,
    platform::{Platform, list},
    slot,
};
use crate::{
    content::Reader,
    daemon::Daemon,
    error::{Error, Kind, Result},
    image::unpack::{self, Fill, Layer},
    snapshot,
};

/// A wish to unpack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unpack {
    /// The platform whose image is unpacked: of it only the operating system counts, unless platforms are checked.
    pub(crate) platform: Platform,
    /// The snapshotter; empty for the default one.
    pub(crate) snapshotter: String,
}

/// Gets the config and layers of `image` into the store and unpacks them where `wishes` say so. One that is wished for and says
/// that it is for none of the `required` platforms is refused, unless there are none.
///
/// All layers are under way at the same time; they become snapshots bottom first.
pub(super) async fn complete(
    fetcher: &Fetcher,
    image: &Image,
    wishes: &[Unpack],
    required: &[Platform],
) -> Result<()> {
    let parent = image.manifest.reference();
    let (nobody, _) = oneshot::channel();
    fetcher.blob(&image.config, &parent, nobody).await?;
    let plans = plan(fetcher, image, wishes, required).await?;
    let stop = Arc::new(Stop::default());
    let _stopped = stop.token.clone().drop_guard();
    let mut layers = Vec::with_capacity(image.layers.len());
    for (number, blob) in image.layers.iter().enumerate() {
        let layer = Layered {
            fetcher: fetcher.clone(),
            plans: Arc::clone(&plans),
            number,
            blob: blob.clone(),
            parent: parent.clone(),
            stop: Arc::clone(&stop),
        };
        layers.push(tokio::spawn(layer.get()));
    }
    // After a failure the others end, and leave nothing, before anybody hears of it.
    for layer in layers {
        match layer.await {
            Ok(got) => got.finish().await,
            Err(error) => stop.fail(Error::unknown("get a layer", error)),
        }
    }
    if let Some(error) = stop.cause() {
        return Err(error);
    }
    for plan in plans.iter() {
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
    Ok(())
}

/// What ends the work on all layers of an image: a failure of one, or that nobody waits any more.
#[derive(Default)]
struct Stop {
    token: CancellationToken,
    cause: Mutex<Option<Error>>,
}

impl Stop {
    /// Ends the work; of several failures the first one counts.
    fn fail(&self, error: Error) {
        let mut cause = self.cause.lock().unwrap_or_else(PoisonError::into_inner);
        if !self.token.is_cancelled() {
            *cause = Some(error);
            self.token.cancel();
        }
    }

    fn cause(&self) -> Option<Error> {
        self.cause.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Waits for `work` unless the work is ended.
    async fn or<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        let ended = self.token.run_until_cancelled(work).await;
        ended.unwrap_or_else(|| Err(Error::new(Kind::Canceled, "another layer failed")))
    }
}

/// One layer on its way into the store and into snapshots.
struct Layered {
    fetcher: Fetcher,
    plans: Arc<[Plan]>,
    number: usize,
    blob: Descriptor,
    parent: String,
    stop: Arc<Stop>,
}

/// A layer whose blob is in the store, unless the work is ended, and what there is of its snapshots.
struct Got {
    layer: Layered,
    blob: Option<Reader>,
    states: Vec<State>,
}

/// A layer in one snapshotter.
enum State {
    /// Its snapshot is there.
    Present,
    /// Unpacked, under the lock of its name.
    Filled(unpack::Filled, OwnedMutexGuard<()>),
    /// It can be unpacked only when the layers below it are there.
    Waiting,
}

impl Layered {
    /// Downloads the layer and, where the snapshotter lets it, unpacks it while its bytes are made durable.
    async fn get(self) -> Got {
        let (sender, verified) = oneshot::channel();
        let fetched = self.fetcher.blob(&self.blob, &self.parent, sender);
        let mut states = Vec::new();
        let mut reader = None;
        let filled = async {
            // Without bytes the download says why.
            let Ok(blob) = verified.await else { return };
            for plan in self.plans.iter() {
                match self.fill(plan, &blob, true).await {
                    Ok(state) => states.push(state),
                    Err(error) => return self.stop.fail(error),
                }
            }
            reader = Some(blob);
        };
        let fetched = async {
            if let Err(error) = self.stop.or(fetched).await {
                self.stop.fail(error);
            }
        };
        tokio::join!(fetched, filled);
        Got {
            layer: self,
            blob: reader,
            states,
        }
    }

    /// The layer in the snapshotter of `plan`.
    fn layer(&self, plan: &Plan) -> Result<Layer> {
        Ok(Layer {
            snapshotter: plan.snapshotter.clone(),
            blob: self.blob.digest()?,
            media_type: self.blob.media_type.clone(),
            diff_id: plan.diff_ids[self.number].clone(),
            chain_id: plan.chain[self.number].clone(),
            parent: self.number.checked_sub(1).map(|below| plan.chain[below].clone()),
        })
    }

    /// Unpacks the layer, unless it is unpacked, or has to wait and that is not over.
    async fn fill(&self, plan: &Plan, blob: &Reader, early: bool) -> Result<State> {
        let daemon = &self.fetcher.daemon;
        let layer = self.layer(plan)?;
        if early && !unpack::may_fill_early(daemon, &layer)? {
            return Ok(State::Waiting);
        }
        let shared = &daemon.transfer;
        let name = format!(
            "{}/{}/{}",
            self.fetcher.scope.namespace, plan.snapshotter, layer.chain_id
        );
        // Whoever holds a name waits for names of layers below only: nobody waits in a circle.
        let locked = self.stop.or(async { Ok(shared.locks.lock(&name).await) }).await?;
        let _slot = self.stop.or(slot(&shared.applying)).await?;
        let (scope, blob) = (self.fetcher.scope.clone(), blob.clone());
        let mut progress = self.fetcher.progress.blob(&self.blob, &self.parent);
        let stop = Arc::clone(&self.stop);
        let filled = daemon
            .blocking(move |daemon| {
                unpack::fill(daemon, &scope, &layer, blob, early, |offset| {
                    if stop.token.is_cancelled() {
                        return Err(io::Error::other("another layer failed"));
                    }
                    progress.at("extracting", offset);
                    Ok(())
                })
            })
            .await?;
        Ok(match filled {
            Fill::Filled(filled) => State::Filled(filled, locked),
            Fill::Present => State::Present,
            Fill::NeedsParent => State::Waiting,
        })
    }
}

impl Got {
    /// Makes the layer's snapshots, now that those below it are there, or throws away what there is of them.
    async fn finish(mut self) {
        let states = std::mem::take(&mut self.states);
        let plans = Arc::clone(&self.layer.plans);
        for (state, plan) in states.into_iter().zip(plans.iter()) {
            if let Err(error) = self.publish(state, plan).await {
                self.layer.stop.fail(error);
            }
        }
    }

    async fn publish(&self, state: State, plan: &Plan) -> Result<()> {
        let ended = self.layer.stop.token.is_cancelled();
        let state = match (state, &self.blob) {
            (State::Waiting, Some(blob)) if !ended => self.layer.fill(plan, blob, false).await?,
            (state, _) => state,
        };
        let State::Filled(filled, _locked) = state else {
            return Ok(());
        };
        let (scope, layer) = (self.layer.fetcher.scope.clone(), self.layer.layer(plan)?);
        let size = self.layer.blob.size()?;
        let progress = self
            .layer
            .fetcher
            .progress
            .blob(&self.layer.blob, &self.layer.parent);
        let work = move |daemon: &Daemon| match ended {
            true => unpack::discard(daemon, &scope, &layer, &filled),
            false => {
                if unpack::commit(daemon, &scope, &layer, &filled)? {
                    progress.state("extracted", size);
                }
                Ok(())
            }
        };
        self.layer.fetcher.daemon.blocking(work).await
    }
}

/// The layers of one image in one snapshotter.
pub(super) struct Plan {
    snapshotter: String,
    diff_ids: Vec<crate::digest::Digest>,
    chain: Vec<crate::digest::Digest>,
}

/// None when nothing is wished for that can be, or this is no image with layers (an attestation, an artifact).
async fn plan(
    fetcher: &Fetcher,
    image: &Image,
    wishes: &[Unpack],
    required: &[Platform],
) -> Result<Arc<[Plan]>> {
    use super::descriptor::Kind;
    if wishes.is_empty()
        || image.config.kind() != Kind::Config
        || image.layers.iter().any(|layer| {
            // What no processor makes a layer of is data of another kind.
            layer.kind() != Kind::Layer && !fetcher.daemon.processors.can_apply(&layer.media_type)
        })
    {
        return Ok(Arc::default());
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
    if let Some(found) = &platform
        && !required.is_empty()
        && required.iter().all(|wanted| wanted.score(found).is_none())
    {
        return Err(Error::not_found(format!(
            "no match for platform {}: the image {} is for {found}",
            list(required),
            image.manifest.digest
        )));
    }
    let checked = fetcher.daemon.transfer.checks_platforms();
    // An image that does not say runs anywhere.
    if platform.is_some_and(|platform| !platform.is_unpacked_here(checked)) {
        return Ok(Arc::default());
    }
    // Two wishes for one snapshotter are one: the layers are the same.
    let snapshotters: BTreeSet<&str> = wishes
        .iter()
        .filter(|wish| wish.platform.is_unpacked_here(checked))
        .map(|wish| match wish.snapshotter.as_str() {
            "" => snapshot::DEFAULT,
            named => named,
        })
        .collect();
    Ok(snapshotters
        .into_iter()
        .map(|snapshotter| Plan {
            snapshotter: snapshotter.to_owned(),
            chain: document::chain_ids(&diff_ids),
            diff_ids: diff_ids.clone(),
        })
        .collect())
}
