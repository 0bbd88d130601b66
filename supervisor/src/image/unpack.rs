//! Unpacking an image: its layers become snapshots, named by their ChainIDs.
//!
//! Labels are containerd's, so that its clients find what was unpacked here: `containerd.io/snapshot.ref` on a snapshot,
//! `containerd.io/uncompressed` on a layer's blob, `containerd.io/gc.ref.snapshot.<snapshotter>` on the config.

use std::io::Read;

use crate::{
    content::Reader,
    daemon::Daemon,
    digest::Digest,
    error::{Error, Result},
    identifier::Labels,
    layer::{self, Limits},
    namespace::Scope,
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

/// Makes the snapshot of a layer, unless it is there; says whether it was made. Blocks; durable.
///
/// `progress` is told how many bytes of the blob were read.
///
/// # Errors
///
/// `InvalidArgument` for a layer that cannot be applied; `FailedPrecondition` when its DiffID is another one;
/// `ResourceExhausted` when the disk is full. Nothing of the layer is left then.
pub fn layer(
    daemon: &Daemon,
    scope: &Scope,
    layer: &Layer,
    progress: impl FnMut(u64) + Send,
) -> Result<bool> {
    let chain_id = layer.chain_id.as_str();
    let snapshotter = &layer.snapshotter;
    let mut labels = Labels::from([
        (SNAPSHOT_REF.to_owned(), chain_id.to_owned()),
        (DIFF_ID.to_owned(), layer.diff_id.to_string()),
    ]);
    if let Some(parent) = &layer.parent {
        labels.insert(PARENT_CHAIN_ID.to_owned(), parent.to_string());
    }
    let parent = layer.parent.as_ref().map_or("", Digest::as_str);
    let key = format!("extract-{} {chain_id}", unique()?);
    let mounts = match daemon
        .snapshots
        .prepare(scope, snapshotter, &key, parent, labels.clone())
    {
        Err(error) if error.is_already_exists() => return Ok(false),
        mounts => mounts?,
    };
    let committed = fill(daemon, scope, layer, &mounts, progress)
        .map_err(|error| error.context(format!("unpack layer {}", layer.blob)))
        .and_then(|()| {
            daemon
                .snapshots
                .commit(scope, snapshotter, chain_id, &key, "", labels)
        });
    let made = match committed {
        Ok(()) => true,
        Err(error) => {
            match daemon.snapshots.remove(scope, snapshotter, &key) {
                Err(second) if !second.is_not_found() => return Err(error.context(second)),
                _ => {}
            }
            if !error.is_already_exists() {
                return Err(error);
            }
            false
        }
    };
    let verified = Labels::from([(UNCOMPRESSED.to_owned(), layer.diff_id.to_string())]);
    daemon.content.label(scope, &layer.blob, &verified)?;
    Ok(made)
}

fn fill(
    daemon: &Daemon,
    scope: &Scope,
    layer: &Layer,
    mounts: &[crate::snapshot::Mount],
    progress: impl FnMut(u64) + Send,
) -> Result<()> {
    if !layer::is_layer(&layer.media_type) {
        return Err(Error::unimplemented(format!("media type {:?}", layer.media_type)));
    }
    let prepared = layer::prepare(mounts)?;
    let reader = daemon.content.reader(scope, &layer.blob)?;
    let size = reader.size();
    let counted = Counted {
        reader,
        offset: 0,
        progress,
    };
    let applied = layer::apply(counted, size, prepared.target, Limits::default())?;
    if applied.diff_id != layer.diff_id {
        return Err(Error::precondition(format!(
            "wrong diff id {} calculated, the image config says {}",
            applied.diff_id, layer.diff_id
        )));
    }
    Ok(())
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

impl<F: FnMut(u64)> Read for Counted<F> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.reader.read(buffer)?;
        self.offset += count as u64;
        (self.progress)(self.offset);
        Ok(count)
    }
}
