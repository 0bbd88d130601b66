//! Unpacking an image: its layers become snapshots, named by their ChainIDs.
//!
//! Labels are containerd's, so that its clients find what was unpacked here: `containerd.io/snapshot.ref` on a snapshot,
//! `containerd.io/uncompressed` on a layer's blob, `containerd.io/gc.ref.snapshot.<snapshotter>` on the config.
//!
//! A layer is made in two steps: [`fill`] unpacks it, in any order and beside other layers where the snapshotter keeps
//! layers apart; [`commit`] puts it on the layer below and publishes it, bottom first.

use std::io::{self, Read};

use crate::{
    content::Reader,
    daemon::Daemon,
    digest::Digest,
    error::{Error, Result},
    identifier::Labels,
    layer::{self, Implied, Limits},
    namespace::Scope,
    snapshot::Mount,
};

const SNAPSHOT_REF: &str = "containerd.io/snapshot.ref";
const DIFF_ID: &str = "containerd.io/snapshot/diff-id";
const PARENT_CHAIN_ID: &str = "containerd.io/snapshot/parent-chain-id";
const UNCOMPRESSED: &str = "containerd.io/uncompressed";
const KEEP_SNAPSHOT: &str = "containerd.io/gc.ref.snapshot.";

/// A layer that is to become a snapshot.
#[derive(Debug, Clone)]
pub struct Layer {
    /// The snapshotter.
    pub snapshotter: String,
    /// The layer's blob, which is in the content store.
    pub blob: Digest,
    /// Its media type.
    pub media_type: String,
    /// The digest that its uncompressed bytes must have.
    pub diff_id: Digest,
    /// The name of its snapshot.
    pub chain_id: Digest,
    /// The name of the snapshot below, which is there.
    pub parent: Option<Digest>,
}

/// A layer's files, in an active snapshot that is not yet the layer's.
#[derive(Debug)]
pub struct Filled {
    key: String,
    /// What it takes from the layers below, of which nothing was known while it was filled.
    apart: Option<Implied>,
}

/// What became of a layer that was to be filled.
#[derive(Debug)]
pub enum Fill {
    /// Its snapshot is there already.
    Present,
    /// Its files are there.
    Filled(Filled),
    /// It links to files of the layers below: it can be filled only when they are there.
    NeedsParent,
}

/// Whether `layer` may be filled before the layers below it are there.
///
/// # Errors
///
/// `InvalidArgument` for an unknown snapshotter.
pub fn may_fill_early(daemon: &Daemon, layer: &Layer) -> Result<bool> {
    Ok(layer.parent.is_none() || daemon.snapshots.keeps_layers_apart(&layer.snapshotter)?)
}

/// Unpacks the verified bytes in `blob` into an active snapshot. Blocks.
///
/// With `early` the layers below need not be there yet. `progress` is told how many bytes of the blob were read, and ends
/// the work by an error.
///
/// # Errors
///
/// `InvalidArgument` for a layer that cannot be applied; `FailedPrecondition` when its DiffID is another one;
/// `ResourceExhausted` when the disk is full. Nothing of the layer is left then.
pub fn fill(
    daemon: &Daemon,
    scope: &Scope,
    layer: &Layer,
    blob: Reader,
    early: bool,
    progress: impl FnMut(u64) -> io::Result<()> + Send,
) -> Result<Fill> {
    let key = format!("extract-{} {}", unique()?, layer.chain_id);
    let parent = match &layer.parent {
        Some(parent) if !early => parent.as_str(),
        _ => "",
    };
    let prepared = daemon
        .snapshots
        .prepare(scope, &layer.snapshotter, &key, parent, labels(layer));
    let mounts = match prepared {
        Err(error) if error.is_already_exists() => return Ok(Fill::Present),
        mounts => mounts?,
    };
    let apart = early && layer.parent.is_some();
    match apply(&daemon.processors, layer, blob, &mounts, apart, progress) {
        Ok(implied) => Ok(Fill::Filled(Filled {
            key,
            apart: apart.then_some(implied),
        })),
        Err(error) => {
            let error = error.context(format!("unpack layer {}", layer.blob));
            match discard(daemon, scope, layer, &Filled { key, apart: None }) {
                Ok(()) if apart && error.is_not_found() => Ok(Fill::NeedsParent),
                Ok(()) => Err(error),
                Err(second) => Err(error.context(second)),
            }
        }
    }
}

fn labels(layer: &Layer) -> Labels {
    let mut labels = Labels::from([
        (SNAPSHOT_REF.to_owned(), layer.chain_id.to_string()),
        (DIFF_ID.to_owned(), layer.diff_id.to_string()),
    ]);
    if let Some(parent) = &layer.parent {
        labels.insert(PARENT_CHAIN_ID.to_owned(), parent.to_string());
    }
    labels
}

fn apply(
    processors: &layer::Processors,
    layer: &Layer,
    blob: Reader,
    mounts: &[Mount],
    apart: bool,
    progress: impl FnMut(u64) -> io::Result<()> + Send,
) -> Result<Implied> {
    let target = match apart {
        true => layer::prepare_apart(mounts)?,
        false => layer::prepare(mounts)?.target,
    };
    let size = blob.size();
    let counted = Counted {
        reader: blob,
        offset: 0,
        progress,
    };
    let payloads = layer::Payloads::new();
    let applied = processors.apply(
        &layer.media_type,
        &payloads,
        counted,
        size,
        target,
        Limits::default(),
    )?;
    if applied.diff_id != layer.diff_id {
        return Err(Error::precondition(format!(
            "wrong diff id {} calculated, the image config says {}",
            applied.diff_id, layer.diff_id
        )));
    }
    Ok(applied.implied)
}

/// Makes what was filled the snapshot of its layer; the layers below and the blob are there now. Says whether it was made.
/// Blocks; durable.
///
/// # Errors
///
/// `NotFound` when a layer below is not there; `ResourceExhausted` when the disk is full. Nothing of the layer is left then.
pub fn commit(daemon: &Daemon, scope: &Scope, layer: &Layer, filled: &Filled) -> Result<bool> {
    let name = layer.chain_id.as_str();
    let committed = settle(daemon, scope, layer, filled).and_then(|()| {
        daemon
            .snapshots
            .commit(scope, &layer.snapshotter, name, &filled.key, "", labels(layer))
    });
    let made = match committed {
        Ok(()) => true,
        Err(error) => {
            let discarded = discard(daemon, scope, layer, filled);
            match (error.is_already_exists(), discarded) {
                (true, discarded) => {
                    discarded?;
                    false
                }
                (false, Ok(())) => return Err(error),
                (false, Err(second)) => return Err(error.context(second)),
            }
        }
    };
    let verified = Labels::from([(UNCOMPRESSED.to_owned(), layer.diff_id.to_string())]);
    daemon.content.label(scope, &layer.blob, &verified)?;
    Ok(made)
}

/// Puts a layer that was filled apart on those below it.
fn settle(daemon: &Daemon, scope: &Scope, layer: &Layer, filled: &Filled) -> Result<()> {
    let (Some(implied), Some(parent)) = (&filled.apart, &layer.parent) else {
        return Ok(());
    };
    let snapshotter = &layer.snapshotter;
    daemon
        .snapshots
        .rebase(scope, snapshotter, &filled.key, parent.as_str())?;
    if implied.is_empty() {
        return Ok(());
    }
    let mounts = daemon.snapshots.mounts(scope, snapshotter, &filled.key)?;
    layer::settle(layer::prepare(&mounts)?.target, implied)
}

/// Throws away what was filled. Blocks.
///
/// # Errors
///
/// `Unknown` from the metadata.
pub fn discard(daemon: &Daemon, scope: &Scope, layer: &Layer, filled: &Filled) -> Result<()> {
    match daemon.snapshots.remove(scope, &layer.snapshotter, &filled.key) {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// Makes the config keep the topmost snapshot of its image. Blocks; durable.
///
/// # Errors
///
/// `NotFound` when the config is gone.
pub fn keep(
    daemon: &Daemon,
    scope: &Scope,
    snapshotter: &str,
    config: &Digest,
    top: Option<&Digest>,
) -> Result<()> {
    let Some(top) = top else { return Ok(()) };
    let labels = Labels::from([(format!("{KEEP_SNAPSHOT}{snapshotter}"), top.to_string())]);
    daemon.content.label(scope, config, &labels).map(|_info| ())
}

/// A part of a key that no other operation uses, also after a restart.
fn unique() -> Result<String> {
    let random = getrandom::u64().map_err(|error| Error::unknown("draw a random number", error))?;
    Ok(format!("{random:016x}"))
}

/// A reader that tells how far it is.
struct Counted<F> {
    reader: Reader,
    offset: u64,
    progress: F,
}

impl<F: FnMut(u64) -> io::Result<()>> Read for Counted<F> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.offset += count as u64;
        (self.progress)(self.offset)?;
        Ok(count)
    }
}
